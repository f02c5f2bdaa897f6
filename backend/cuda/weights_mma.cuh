/* weights_mma: as weights.cuh, with a matrix instruction for the dots of 32 outputs and the 8 rows of a panel
 * at a time. The dots of a block of 32 inputs are exact integers either way, and each joins its chain by the
 * same fma, so the bits are those of dp4a; a third of the instructions remain.
 *
 * A product has 16 outputs and 8 rows (cuda_mma_s8). A lane loads, of outputs lane / 4 + 8 j, word lane % 4
 * of each 16 bytes, which is 128 bytes in a row for a warp; it ends up with the sums of these four outputs
 * for rows 2 (lane % 4) and the next.
 */
#ifndef BACKEND_CUDA_WEIGHTS_MMA_CUH
#define BACKEND_CUDA_WEIGHTS_MMA_CUH

#include "backend/cuda/weights.cuh"

enum { MMA_OUTPUTS = 4, /* of a lane */ MMA_ROWS = 2, MMA_STRIDE = 8 /* outputs between a lane's */ };

DEVICE_FN int cuda_mma_output(int j) { return cuda_lane() / 4 + MMA_STRIDE * j; }

DEVICE_FN uint32_t cuda_load4(const unsigned char *at) { return *reinterpret_cast<const uint32_t *>(at); }

/* Words lane % 4 of the lane's four outputs in a plane of [32][16] bytes. */
DEVICE_FN void cuda_mma_load(const unsigned char *plane, uint32_t *words)
{
#pragma unroll
    for (int j = 0; j < MMA_OUTPUTS; j++) {
        words[j] = cuda_load4(plane + j * MMA_STRIDE * CUDA_LOAD_BYTES + cuda_lane() * 4);
    }
}

/* What the lane's two rows bring to a block. */
struct mma_act { int32_t codes[2]; float scale[MMA_ROWS]; int32_t sum[MMA_ROWS], half[MMA_ROWS]; };

DEVICE_FN mma_act cuda_mma_act(const unsigned char *block)
{
    const int column = cuda_lane() / 4, at = cuda_lane() % 4, row = MMA_ROWS * at;
    const int32_t *codes = reinterpret_cast<const int32_t *>(block) + column * 8 + at;
    const float *scale = reinterpret_cast<const float *>(block + CUDA_ACT_SCALES) + row;
    const int32_t *sum = reinterpret_cast<const int32_t *>(block + CUDA_ACT_SUMS) + row;
    const int32_t *half = reinterpret_cast<const int32_t *>(block + CUDA_ACT_HALVES) + row;
    return { { codes[0], codes[4] }, { scale[0], scale[1] }, { sum[0], sum[1] }, { half[0], half[1] } };
}

/* The chains of a panel's rows over the blocks of a segment. Weights says what the codes of inputs 0..15 and
 * 16..31 of an output are, whether their dots are wanted apart, and how they join a chain. */
template <class Weights>
DEVICE_FN void cuda_mma_sum_blocks(const Weights &weights, int n_blocks, const unsigned char *x,
                                   SHARED_PTR(float) to)
{
    float acc[MMA_OUTPUTS][MMA_ROWS] = {};
#pragma unroll
    for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
        if (b < n_blocks) {
            const mma_act act = cuda_mma_act(x + b * CUDA_ACT_BLOCK_BYTES);
#pragma unroll
            for (int j = 0; j < MMA_OUTPUTS; j += 2) {
                const int32_t first[2] = { weights.first(b, j), weights.first(b, j + 1) };
                const int32_t second[2] = { weights.second(b, j), weights.second(b, j + 1) };
                const int32_t all[4] = { first[0], first[1], second[0], second[1] };
                const int32_t some[4] = { first[0], first[1], 0, 0 };
                int32_t dot[4], part[4] = {};
                cuda_mma_s8(all, act.codes, dot);
                if constexpr (Weights::APART) {
                    cuda_mma_s8(some, act.codes, part);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) { /* outputs j, j + 1; rows 0, 1 */
                    const int r = i % MMA_ROWS, out = j + i / MMA_ROWS;
                    acc[out][r] = weights.join(b, out, dot[i], part[i], act, r, acc[out][r]);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < MMA_OUTPUTS; j++) {
#pragma unroll
        for (int r = 0; r < MMA_ROWS; r++) {
            to[(MMA_ROWS * (cuda_lane() % 4) + r) * CUDA_WARP + cuda_mma_output(j)] = acc[j][r];
        }
    }
}

/* What all types share: where a segment lies, and its sums. */
#define MMA_SUMS(n_blocks)                                                                                   \
    template <int ROWS>                                                                                      \
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first_row, int32_t, SHARED_PTR(float) to) \
        const                                                                                                \
    {                                                                                                        \
        static_assert(ROWS == CUDA_PANEL_ROWS, "a panel at a time");                                         \
        cuda_mma_sum_blocks(*this, n_blocks,                                                                 \
                            x.q8 + cuda_act_block(x.n_cols, first_row / CUDA_PANEL_ROWS,                     \
                                                  segment * CUDA_SEGMENT_BLOCKS), to);                       \
    }

/* Q8_0 (PLANES 2, OFFSET 0) and Q4_0 (1, 8) */
template <int PLANES, int OFFSET> struct mma_small {
    enum { TYPE = PLANES == 2 ? TENSOR_Q8_0 : TENSOR_Q4_0, APART = 0 };
    uint4 scales[MMA_OUTPUTS];
    uint32_t code[CUDA_SEGMENT_BLOCKS][PLANES][MMA_OUTPUTS];
    int32_t segment, n_blocks;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        const unsigned char *at = tile + segment_idx * cuda_segment_bytes((tensor_type)TYPE);
        segment = segment_idx;
        n_blocks = cuda_inputs_here(n_in, segment_idx) / QUANT_BLOCK;
#pragma unroll
        for (int j = 0; j < MMA_OUTPUTS; j++) {
            scales[j] = cuda_load16(at + cuda_mma_output(j) * CUDA_LOAD_BYTES);
        }
#pragma unroll
        for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
            if (b < n_blocks) {
#pragma unroll
                for (int p = 0; p < PLANES; p++) {
                    cuda_mma_load(at + (1 + b * PLANES + p) * CUDA_PLANE_BYTES, code[b][p]);
                }
            }
        }
    }
    __device__ __forceinline__ int32_t first(int b, int j) const
    {
        return (int32_t)(PLANES == 1 ? code[b][0][j] & 0x0f0f0f0fu : code[b][0][j]);
    }
    __device__ __forceinline__ int32_t second(int b, int j) const
    {
        return (int32_t)(PLANES == 1 ? code[b][0][j] >> 4 & 0x0f0f0f0fu : code[b][PLANES - 1][j]);
    }
    __device__ __forceinline__ float join(int b, int j, int32_t dot, int32_t, const mma_act &x, int r, float acc) const
    {
        return mathx_fma((float)(dot - OFFSET * x.sum[r]), cuda_half_of(scales[j], b) * x.scale[r], acc);
    }
    MMA_SUMS(n_blocks)
};

struct mma_q4_k {
    enum { TYPE = TENSOR_Q4_K, APART = 0 };
    uint4 header[MMA_OUTPUTS];
    uint32_t code[CUDA_SEGMENT_BLOCKS][MMA_OUTPUTS];
    int32_t segment;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t)
    {
        const unsigned char *at = tile + segment_idx * cuda_segment_bytes(TENSOR_Q4_K);
        segment = segment_idx;
#pragma unroll
        for (int j = 0; j < MMA_OUTPUTS; j++) {
            header[j] = cuda_load16(at + cuda_mma_output(j) * CUDA_LOAD_BYTES);
        }
#pragma unroll
        for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
            cuda_mma_load(at + (1 + b) * CUDA_PLANE_BYTES, code[b]);
        }
    }
    __device__ __forceinline__ int32_t first(int b, int j) const { return (int32_t)(code[b][j] & 0x0f0f0f0fu); }
    __device__ __forceinline__ int32_t second(int b, int j) const
    {
        return (int32_t)(code[b][j] >> 4 & 0x0f0f0f0fu);
    }
    __device__ __forceinline__ float join(int b, int j, int32_t dot, int32_t, const mma_act &x, int r, float acc) const
    {
        return weights_q4_k::join_block(header[j], b, dot, x.scale[r], x.sum[r], acc);
    }
    MMA_SUMS(CUDA_SEGMENT_BLOCKS)
};

struct mma_q6_k {
    enum { TYPE = TENSOR_Q6_K, APART = 1 };
    uint4 scales[MMA_OUTPUTS];
    uint32_t low[CUDA_SEGMENT_BLOCKS][MMA_OUTPUTS], high[CUDA_SEGMENT_BLOCKS][MMA_OUTPUTS];
    float d[MMA_OUTPUTS];
    int32_t segment;

    /* Of the upper bits of a block a lane keeps the word that has its quads, shifted to them. */
    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t)
    {
        const unsigned char *header = tile + segment_idx * cuda_segment_bytes(TENSOR_Q6_K);
        const int quad = cuda_lane() % 4;
        segment = segment_idx;
#pragma unroll
        for (int j = 0; j < MMA_OUTPUTS; j++) {
            scales[j] = cuda_load16(header + cuda_mma_output(j) * CUDA_LOAD_BYTES);
            d[j] = cuda_half(reinterpret_cast<const uint16_t *>(header + CUDA_PLANE_BYTES)[cuda_mma_output(j)]);
        }
#pragma unroll
        for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
            const unsigned char *pair =
                header + cuda_header_bytes(TENSOR_Q6_K) + b / 2 * cuda_block_pair_bytes(TENSOR_Q6_K);
            cuda_mma_load(pair + (1 + b % 2) * CUDA_PLANE_BYTES, low[b]);
#pragma unroll
            for (int j = 0; j < MMA_OUTPUTS; j++) {
                const int word = b % 2 * 2 + quad / 2;
                high[b][j] = cuda_load4(pair + cuda_mma_output(j) * CUDA_LOAD_BYTES + word * 4) >> quad % 2 * 2;
            }
        }
    }
    __device__ __forceinline__ int32_t first(int b, int j) const
    {
        return (int32_t)((low[b][j] & 0x0f0f0f0fu) | (high[b][j] & 0x03030303u) << 4);
    }
    __device__ __forceinline__ int32_t second(int b, int j) const
    {
        return (int32_t)((low[b][j] >> 4 & 0x0f0f0f0fu) | (high[b][j] >> 4 & 0x03030303u) << 4);
    }
    __device__ __forceinline__ float join(int b, int j, int32_t dot, int32_t part, const mma_act &x, int r,
                                          float acc) const
    {
        return weights_q6_k::join_block(scales[j], d[j], b, part, dot - part, x.scale[r], x.sum[r], x.half[r], acc);
    }
    MMA_SUMS(CUDA_SEGMENT_BLOCKS)
};

#endif
