/* layout: how weights and activations lie in device memory. Private to backend/cuda; host and device.
 *
 * Weights: tiles of 32 output rows, one for each lane of a warp. A warp's load of 16 bytes a lane is 512
 * bytes in a row.
 *
 * A tile of floats is groups of 16 / size inputs, [32][16 bytes] each; inputs past n_in are zero.
 * A tile of a quantised type is its segments of 256 inputs, ascending:
 *
 *     header   Q8_0, Q4_0: [32][8] halves d, of blocks of 32 inputs
 *              Q4_K:       [32][16 bytes] as in the file: d, dmin, eight 6-bit scales and minimums
 *              Q6_K:       [32][16] scales, then [32] halves d
 *              Q4_1, Q5_1: [32][8] halves d, then [32][8] halves dmin; Q5_0 as Q4_0, Q5_K as Q4_K
 *              Q2_K:       [32][16 bytes] 4-bit scales and minimums, then [32] halves d, dmin
 *              Q3_K:       as Q6_K
 *              Q5_0, Q5_1, Q5_K, Q3_K, behind all that: high bits, [32][4 words] of blocks 0..3, then of 4..7.
 *                          Bit q of byte k of a word belongs to input 4 q + k
 *     blocks   of 32 inputs, as many as the segment has:
 *              Q8_0:       [32][16] codes of inputs 0..15, then of 16..31
 *              Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K:
 *                          [32][16], low nibbles inputs 0..15, high ones 16..31
 *              Q6_K:       before each even block [32][16 bytes] upper bits, 8 of it and 8 of the next;
 *                          then as Q4_0. Byte k of upper word w holds, from the lowest bits on, the upper
 *                          two bits of inputs 4 q + k for quads q = 2 w, 2 w + 1, 4 + 2 w, 5 + 2 w
 *              Q2_K, Q3_K: [32][16 bytes] of each two blocks, 8 and 8. Byte k of word w holds, from the lowest
 *                          bits on, the lower two bits of inputs 4 q + k for quads q = 4 w .. 4 w + 3
 *
 * So a lane keeps a whole segment of its output in registers, and bytes are those of the file, but for
 * headers of a last segment that is not full and the scales of Q3_K (114 bytes for 110). Outputs past n_out are zero bytes.
 *
 * Activations: panels as in backend/cpu/tile.h, always of eight rows: of each block of 32 columns
 *
 *     [8][32] codes | [8] float scales | [8] int32 sums | [8] int32 sums of the first 16
 *
 * Rows that a last panel lacks hold zeros or what an earlier row was; they are read and not used.
 */
#ifndef BACKEND_CUDA_LAYOUT_H
#define BACKEND_CUDA_LAYOUT_H

#include "backend/shapes.h"

enum {
    CUDA_WARP = 32,
    CUDA_LOAD_BYTES = 16,
    CUDA_PLANE_BYTES = CUDA_WARP * CUDA_LOAD_BYTES, /* 16 bytes of each of 32 outputs */
    CUDA_SEGMENT_BLOCKS = SEGMENT_ELEMS / QUANT_BLOCK,
    CUDA_PANEL_ROWS = 8,
    CUDA_ACT_SCALES = CUDA_PANEL_ROWS * QUANT_BLOCK,          /* where in a panel's block */
    CUDA_ACT_SUMS = CUDA_ACT_SCALES + CUDA_PANEL_ROWS * 4,
    CUDA_ACT_HALVES = CUDA_ACT_SUMS + CUDA_PANEL_ROWS * 4,
    CUDA_ACT_BLOCK_BYTES = CUDA_ACT_HALVES + CUDA_PANEL_ROWS * 4
};

MATHX_FN int32_t cuda_float_bytes(enum tensor_type type) { return type == TENSOR_F32 ? 4 : 2; }

/* Bytes before the blocks of a segment; 0 for types that this layout does not have. */
MATHX_FN int32_t cuda_header_bytes(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_Q8_0: case TENSOR_Q4_0: case TENSOR_Q4_K: return CUDA_PLANE_BYTES;
    case TENSOR_Q4_1: return 2 * CUDA_PLANE_BYTES;
    case TENSOR_Q5_0: case TENSOR_Q5_K: return 3 * CUDA_PLANE_BYTES;
    case TENSOR_Q5_1: return 4 * CUDA_PLANE_BYTES;
    case TENSOR_Q6_K: return CUDA_PLANE_BYTES + CUDA_WARP * 2;
    case TENSOR_Q2_K: return CUDA_PLANE_BYTES + CUDA_WARP * 4;
    case TENSOR_Q3_K: return 3 * CUDA_PLANE_BYTES + CUDA_WARP * 2;
    default: return 0;
    }
}

/* Bytes of two blocks of 32 inputs. */
MATHX_FN int32_t cuda_block_pair_bytes(enum tensor_type type)
{
    const int32_t planes = type == TENSOR_Q8_0 ? 4 : type == TENSOR_Q6_K ? 3
                           : type == TENSOR_Q2_K || type == TENSOR_Q3_K ? 1 : 2;
    return planes * CUDA_PLANE_BYTES;
}

MATHX_FN size_t cuda_segment_bytes(enum tensor_type type)
{
    return (size_t)cuda_header_bytes(type) +
           (size_t)(CUDA_SEGMENT_BLOCKS / 2) * (size_t)cuda_block_pair_bytes(type);
}

MATHX_FN size_t cuda_tile_bytes(enum tensor_type type, int32_t n_in)
{
    if (cuda_header_bytes(type) == 0) {
        const int32_t group = CUDA_LOAD_BYTES / cuda_float_bytes(type);
        return (size_t)((n_in + group - 1) / group) * CUDA_PLANE_BYTES;
    }
    const size_t full = (size_t)(n_in / SEGMENT_ELEMS) * cuda_segment_bytes(type);
    const int32_t blocks = n_in % SEGMENT_ELEMS / QUANT_BLOCK;
    return full + (blocks == 0 ? 0 : (size_t)cuda_header_bytes(type) +
                                     (size_t)blocks * (size_t)cuda_block_pair_bytes(type) / 2);
}

/* Columns of a row of bf16: whole 16 bytes. */
MATHX_FN int32_t cuda_widened_cols(int32_t n) { return (n + 7) / 8 * 8; }

MATHX_FN int32_t cuda_n_tiles(int32_t n_out) { return (n_out + CUDA_WARP - 1) / CUDA_WARP; }

/* Where block b of panel p begins, of rows of n_cols columns. */
MATHX_FN size_t cuda_act_block(int32_t n_cols, int32_t panel, int32_t b)
{
    return ((size_t)panel * (size_t)(n_cols / QUANT_BLOCK) + (size_t)b) * CUDA_ACT_BLOCK_BYTES;
}

#endif
