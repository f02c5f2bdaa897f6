/* weight: rows of a file into the device's tiles. Runs on the host, once a model. */
#include "backend/cuda/weight.h"

#include <string.h>

#include "backend/backend.h"
#include "backend/quant_block.h"

size_t cuda_weight_bytes(enum tensor_type type, int64_t n_out, int64_t n_in)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    const bool is_float = type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
    if (!info || (!is_float && cuda_header_bytes(type) == 0) || n_out <= 0 || n_in <= 0 ||
        n_out > INT32_MAX / 2 || n_in > INT32_MAX / 2 || n_in % info->block_elems != 0) {
        return 0;
    }
    return (size_t)cuda_n_tiles((int32_t)n_out) * cuda_tile_bytes(type, (int32_t)n_in); /* < 2^25 * 2^38 */
}

size_t cuda_act_q8_bytes(int32_t n_cols, int32_t n_rows)
{
    return cuda_act_block(n_cols, (n_rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS, 0);
}

/* 32 codes as the low nibbles of words 0..3 and the high ones, in 16 bytes. */
static void put_nibbles(const uint8_t *code, unsigned char *to)
{
    for (int32_t i = 0; i < CUDA_LOAD_BYTES; i++) {
        to[i] = (unsigned char)((code[i] & 15) | (code[16 + i] & 15) << 4);
    }
}

/* The upper two bits of 32 codes, in 8 bytes. */
static void put_upper(const uint8_t *code, unsigned char *to)
{
    memset(to, 0, 8);
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const int32_t quad = i / 4, word = quad % 4 / 2, shift = quad / 4 * 4 + quad % 2 * 2;
        to[word * 4 + i % 4] = (unsigned char)(to[word * 4 + i % 4] | code[i] >> 4 << shift);
    }
}

/* Blocks of 32, Q8_0 and Q4_0: block b of a segment. */
static void put_small(enum tensor_type type, const unsigned char *file, int32_t lane, int32_t b,
                      unsigned char *segment)
{
    unsigned char *to = segment + cuda_header_bytes(type) + b * cuda_block_pair_bytes(type) / 2 +
                        lane * CUDA_LOAD_BYTES;
    memcpy(segment + lane * CUDA_LOAD_BYTES + b * 2, file, 2);
    memcpy(to, file + 2, CUDA_LOAD_BYTES); /* both as the file has them */
    if (type == TENSOR_Q8_0) {
        memcpy(to + CUDA_PLANE_BYTES, file + 2 + CUDA_LOAD_BYTES, CUDA_LOAD_BYTES);
    }
}

/* A whole segment of one output: a block of 256. */
static void put_large(enum tensor_type type, const unsigned char *file, int32_t lane, unsigned char *segment)
{
    const struct quant_layout layout = quant_layout(type);
    struct quant_block block;
    quant_block_read(&layout, file, &block);
    if (type == TENSOR_Q4_K) {
        memcpy(segment + lane * CUDA_LOAD_BYTES, file, CUDA_LOAD_BYTES);
    } else {
        memcpy(segment + lane * CUDA_LOAD_BYTES, block.scale, CUDA_LOAD_BYTES);
        memcpy(segment + CUDA_PLANE_BYTES + lane * 2, &block.d, 2);
    }
    unsigned char *to = segment + cuda_header_bytes(type) + lane * CUDA_LOAD_BYTES;
    for (int32_t b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
        const uint8_t *code = block.code + b * QUANT_BLOCK;
        unsigned char *pair = to + b / 2 * cuda_block_pair_bytes(type);
        if (type == TENSOR_Q6_K) {
            put_upper(code, pair + b % 2 * 8);
            pair += CUDA_PLANE_BYTES;
        }
        put_nibbles(code, pair + b % 2 * CUDA_PLANE_BYTES);
    }
}

/* ---- types of planes: weights_planes.cuh ---- */

static bool is_of_planes(enum tensor_type type)
{
    return type == TENSOR_Q4_1 || type == TENSOR_Q5_0 || type == TENSOR_Q5_1 || type == TENSOR_Q2_K ||
           type == TENSOR_Q3_K || type == TENSOR_Q5_K;
}

/* The lower two bits of 32 codes, in 8 bytes. */
static void put_pairs(const uint8_t *code, unsigned char *to)
{
    memset(to, 0, 8);
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const int32_t quad = i / 4, at = quad / 4 * 4 + i % 4;
        to[at] = (unsigned char)(to[at] | (code[i] & 3) << quad % 4 * 2);
    }
}

/* Bit `bit` of 32 codes, in 4 bytes. */
static void put_bits(const uint8_t *code, int32_t bit, unsigned char *to)
{
    memset(to, 0, 4);
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        to[i % 4] = (unsigned char)(to[i % 4] | (code[i] >> bit & 1) << i / 4);
    }
}

/* The codes of block b of a segment; high bits lie at the end of its header. */
static void put_plane_codes(const struct quant_layout *layout, const uint8_t *code, int32_t lane, int32_t b,
                            unsigned char *segment)
{
    unsigned char *codes = segment + cuda_header_bytes(layout->type) + lane * CUDA_LOAD_BYTES;
    if (layout->low_bits == 4) {
        put_nibbles(code, codes + b * CUDA_PLANE_BYTES);
    } else {
        put_pairs(code, codes + b / 2 * CUDA_PLANE_BYTES + b % 2 * 8);
    }
    if (layout->high_bits == 1) {
        put_bits(code, layout->low_bits, codes + (b / 4 - 2) * CUDA_PLANE_BYTES + b % 4 * 4);
    }
}

/* Block b of a row of blocks of 32, or a whole segment of blocks of 256. */
static void put_planes(const struct quant_layout *layout, const unsigned char *file, int32_t lane, int32_t b,
                       unsigned char *segment)
{
    struct quant_block block;
    unsigned char *scales = segment + lane * CUDA_LOAD_BYTES;
    quant_block_read(layout, file, &block);
    for (int32_t i = 0; i < layout->elems / QUANT_BLOCK; i++) {
        put_plane_codes(layout, block.code + i * QUANT_BLOCK, lane, b + i, segment);
    }
    if (layout->elems == QUANT_BLOCK) {
        memcpy(scales + b * 2, &block.d, 2);
        if (layout->min == QUANT_MIN_ADDED) {
            memcpy(scales + CUDA_PLANE_BYTES + b * 2, &block.dmin, 2);
        }
    } else if (layout->type == TENSOR_Q5_K) {
        memcpy(scales, file, CUDA_LOAD_BYTES);
    } else if (layout->type == TENSOR_Q2_K) {
        const uint16_t halves[2] = { block.d, block.dmin };
        for (int32_t i = 0; i < CUDA_LOAD_BYTES; i++) {
            scales[i] = (unsigned char)(block.scale[i] | block.min[i] << 4);
        }
        memcpy(segment + CUDA_PLANE_BYTES + lane * 4, halves, sizeof halves);
    } else {
        memcpy(scales, block.scale, CUDA_LOAD_BYTES);
        memcpy(segment + CUDA_PLANE_BYTES + lane * 2, &block.d, 2);
    }
}

static void put_row(enum tensor_type type, int32_t n_in, const unsigned char *row, int32_t lane,
                    unsigned char *tile)
{
    if (cuda_header_bytes(type) == 0) {
        const size_t bytes = (size_t)n_in * (size_t)cuda_float_bytes(type);
        for (size_t at = 0; at < bytes; at += CUDA_LOAD_BYTES) {
            const size_t n = bytes - at < CUDA_LOAD_BYTES ? bytes - at : CUDA_LOAD_BYTES;
            memcpy(tile + at * CUDA_WARP + (size_t)lane * CUDA_LOAD_BYTES, row + at, n);
        }
        return;
    }
    const struct quant_layout layout = quant_layout(type);
    for (int32_t b = 0; b < n_in / layout.elems; b++, row += layout.file_bytes) {
        const int32_t first = b * layout.elems, segment = first / SEGMENT_ELEMS;
        if (is_of_planes(type)) {
            put_planes(&layout, row, lane, first % SEGMENT_ELEMS / QUANT_BLOCK,
                       tile + (size_t)segment * cuda_segment_bytes(type));
        } else if (layout.elems == SEGMENT_ELEMS) {
            put_large(type, row, lane, tile + (size_t)b * cuda_segment_bytes(type));
        } else {
            put_small(type, row, lane, b % CUDA_SEGMENT_BLOCKS,
                      tile + (size_t)(b / CUDA_SEGMENT_BLOCKS) * cuda_segment_bytes(type));
        }
    }
}

void cuda_weight_fill(enum tensor_type type, int32_t n_in, int32_t first_out, int32_t n_rows,
                      const void *rows, size_t row_stride_bytes, unsigned char *data)
{
    ASSERT(cuda_weight_bytes(type, first_out + n_rows, n_in) > 0);
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t out_idx = first_out + i;
        put_row(type, n_in, (const unsigned char *)rows + (size_t)i * row_stride_bytes, out_idx % CUDA_WARP,
                data + (size_t)(out_idx / CUDA_WARP) * cuda_tile_bytes(type, n_in));
    }
}

/* A tile is planes of 16 bytes a lane, but for what some types have behind the first plane of a header: halves. */
void cuda_weight_move(enum tensor_type type, int32_t n_in, struct cuda_lane_place from, struct cuda_lane_place to)
{
    const size_t header = (size_t)cuda_header_bytes(type), n = cuda_tile_bytes(type, n_in);
    const size_t segment = header > 0 ? cuda_segment_bytes(type) : n, halves = header % CUDA_PLANE_BYTES;
    for (size_t at = 0; at < n;) {
        const bool is_halves = halves > 0 && at % segment == CUDA_PLANE_BYTES;
        const size_t bytes = is_halves ? halves / CUDA_WARP : (size_t)CUDA_LOAD_BYTES;
        memcpy(to.tile + at + (size_t)to.lane * bytes, from.tile + at + (size_t)from.lane * bytes, bytes);
        at += CUDA_WARP * bytes;
    }
}
