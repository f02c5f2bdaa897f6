/* weights: one output's weights of a segment of 256 inputs, as a lane of a warp holds them, a struct a
 * type. layout.h draws what is loaded; backend/cpu/linear_scalar.c is the definition of the sums.
 *
 * Each struct offers
 *     load(tile, segment, n_in)            this lane's part of a segment
 *     sums<ROWS>(x, first, last, to)       the segment sums of rows first .. first + ROWS - 1, [row][output]
 *     element(tile, n_in, lane, i)         weight i of an output, widened (embeddings)
 */
#ifndef BACKEND_CUDA_WEIGHTS_CUH
#define BACKEND_CUDA_WEIGHTS_CUH

#include "backend/cuda/device.cuh"

DEVICE_FN uint4 cuda_load16(const unsigned char *at) { return *reinterpret_cast<const uint4 *>(at); }

/* idx is a constant wherever this is called, so nothing is selected at run time. */
DEVICE_FN uint32_t cuda_word(const uint4 &words, int idx)
{
    return idx == 0 ? words.x : idx == 1 ? words.y : idx == 2 ? words.z : words.w;
}

DEVICE_FN float cuda_half_of(const uint4 &halves, int idx)
{
    return cuda_half(cuda_word(halves, idx / 2) >> (idx % 2 * 16) & 0xffffu);
}

DEVICE_FN int32_t cuda_inputs_here(int32_t n_in, int32_t segment)
{
    const int32_t left = n_in - segment * SEGMENT_ELEMS;
    return left < SEGMENT_ELEMS ? left : (int32_t)SEGMENT_ELEMS;
}

/* A lane's sums of ROWS rows, [row][output]. */
template <int ROWS> DEVICE_FN void cuda_put_sums(const float *acc, SHARED_PTR(float) to)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        to[r * CUDA_WARP + cuda_lane()] = acc[r];
    }
}

/* ---- what a row brings to a block of 32 inputs ---- */
struct act_block { int4 low, high; float scale; int32_t sum, half; };

DEVICE_FN act_block cuda_act_row(const unsigned char *block, int r)
{
    const int4 *codes = reinterpret_cast<const int4 *>(block) + r * 2;
    return { codes[0], codes[1], reinterpret_cast<const float *>(block + CUDA_ACT_SCALES)[r],
             reinterpret_cast<const int32_t *>(block + CUDA_ACT_SUMS)[r],
             reinterpret_cast<const int32_t *>(block + CUDA_ACT_HALVES)[r] };
}

DEVICE_FN int32_t cuda_dot16(const int32_t *w, const int4 &x)
{
    return __dp4a(w[3], x.w, __dp4a(w[2], x.z, __dp4a(w[1], x.y, __dp4a(w[0], x.x, 0))));
}

/* Low nibbles into words 0..3, high ones into 4..7. */
DEVICE_FN void cuda_unpack_nibbles(const uint4 &code, int32_t *w)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        w[i] = (int32_t)(cuda_word(code, i) & 0x0f0f0f0fu);
        w[i + 4] = (int32_t)(cuda_word(code, i) >> 4 & 0x0f0f0f0fu);
    }
}

/* The chains of ROWS rows over the blocks of a segment, whatever the type: Weights says what the codes
 * of a block are and how its two exact half dots join a chain. */
template <int ROWS, class Weights>
DEVICE_FN void cuda_sum_blocks(const Weights &weights, int n_blocks, const unsigned char *x, SHARED_PTR(float) to)
{
    float acc[ROWS] = {};
#pragma unroll
    for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
        if (b < n_blocks) {
            int32_t w[8];
            weights.unpack(b, w);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const act_block row = cuda_act_row(x + b * CUDA_ACT_BLOCK_BYTES, r);
                acc[r] = weights.join(b, cuda_dot16(w, row.low), cuda_dot16(w + 4, row.high), row, acc[r]);
            }
        }
    }
    cuda_put_sums<ROWS>(acc, to);
}

/* Blocks of 32 with one half each: Q8_0 (PLANES 2, OFFSET 0: codes are signed) and Q4_0 (1, 8). */
template <int PLANES, int OFFSET> struct weights_small {
    enum { TYPE = PLANES == 2 ? TENSOR_Q8_0 : TENSOR_Q4_0, IS_FLOAT = 0 };
    uint4 scales, code[CUDA_SEGMENT_BLOCKS][PLANES];
    int32_t segment, n_blocks;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        const unsigned char *at =
            tile + segment_idx * cuda_segment_bytes((tensor_type)TYPE) + cuda_lane() * CUDA_LOAD_BYTES;
        segment = segment_idx;
        n_blocks = cuda_inputs_here(n_in, segment_idx) / QUANT_BLOCK;
        scales = cuda_load16(at);
#pragma unroll
        for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
            if (b < n_blocks) {
#pragma unroll
                for (int p = 0; p < PLANES; p++) {
                    code[b][p] = cuda_load16(at + (1 + b * PLANES + p) * CUDA_PLANE_BYTES);
                }
            }
        }
    }
    __device__ __forceinline__ void unpack(int b, int32_t *w) const
    {
        if constexpr (PLANES == 1) {
            cuda_unpack_nibbles(code[b][0], w);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                w[i] = (int32_t)cuda_word(code[b][i / 4], i % 4);
            }
        }
    }
    __device__ __forceinline__ float join(int b, int32_t low, int32_t high, const act_block &x, float acc) const
    {
        const int32_t dot = low + high - OFFSET * x.sum;
        return mathx_fma((float)dot, cuda_half_of(scales, b) * x.scale, acc);
    }
    template <int ROWS>
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first, int32_t, SHARED_PTR(float) to) const
    {
        cuda_sum_blocks<ROWS>(*this, n_blocks,
                              x.q8 + cuda_act_block(x.n_cols, first / CUDA_PANEL_ROWS,
                                                    segment * CUDA_SEGMENT_BLOCKS), to);
    }
    static __device__ float element(const unsigned char *tile, int32_t, int lane, int32_t i)
    {
        const int32_t b = i % SEGMENT_ELEMS / QUANT_BLOCK, in_block = i % QUANT_BLOCK;
        const unsigned char *header = tile + i / SEGMENT_ELEMS * cuda_segment_bytes((tensor_type)TYPE) +
                                      lane * CUDA_LOAD_BYTES;
        const unsigned char *codes = header + (1 + b * PLANES) * CUDA_PLANE_BYTES;
        const float d = cuda_half(reinterpret_cast<const uint16_t *>(header)[b]);
        const int32_t code =
            PLANES == 2 ? (int32_t)(int8_t)codes[in_block / 16 * CUDA_PLANE_BYTES + in_block % 16]
                        : (codes[in_block % 16] >> (in_block / 16 * 4) & 15) - OFFSET;
        return d * (float)code;
    }
};
typedef weights_small<2, 0> weights_q8_0;
typedef weights_small<1, 8> weights_q4_0;

/* Blocks of 256: header word 0 is d and dmin, words 1..3 eight scales and eight minimums of 6 bits. */
struct weights_q4_k {
    enum { TYPE = TENSOR_Q4_K, IS_FLOAT = 0 };
    uint4 header, code[CUDA_SEGMENT_BLOCKS];
    int32_t segment;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t)
    {
        const unsigned char *at =
            tile + segment_idx * cuda_segment_bytes(TENSOR_Q4_K) + cuda_lane() * CUDA_LOAD_BYTES;
        segment = segment_idx;
        header = cuda_load16(at);
#pragma unroll
        for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
            code[b] = cuda_load16(at + (1 + b) * CUDA_PLANE_BYTES);
        }
    }
    __device__ __forceinline__ void unpack(int b, int32_t *w) const { cuda_unpack_nibbles(code[b], w); }
    /* Of parts 0..3 in the low six bits of words 1 and 2; of parts 4..7 the low four bits in word 3, the
     * other two on top of parts 0..3. */
    static __device__ __forceinline__ int32_t scale(const uint4 &h, int b)
    {
        return (int32_t)(b < 4 ? h.y >> 8 * b & 63u
                               : (h.w >> 8 * (b - 4) & 15u) | (h.y >> (8 * (b - 4) + 6) & 3u) << 4);
    }
    static __device__ __forceinline__ int32_t minimum(const uint4 &h, int b)
    {
        return (int32_t)(b < 4 ? h.z >> 8 * b & 63u
                               : (h.w >> (8 * (b - 4) + 4) & 15u) | (h.z >> (8 * (b - 4) + 6) & 3u) << 4);
    }
    __device__ __forceinline__ float join(int b, int32_t low, int32_t high, const act_block &x, float acc) const
    {
        return join_block(header, b, low + high, x.scale, x.sum, acc);
    }
    static __device__ __forceinline__ float join_block(const uint4 &h, int b, int32_t dot, float act_scale,
                                                       int32_t sum, float acc)
    {
        const float d = cuda_half(h.x & 0xffffu), dmin = cuda_half(h.x >> 16);
        acc = mathx_fma((float)(scale(h, b) * dot), d * act_scale, acc);
        return mathx_fma((float)(minimum(h, b) * sum), -(dmin * act_scale), acc);
    }
    template <int ROWS>
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first, int32_t, SHARED_PTR(float) to) const
    {
        cuda_sum_blocks<ROWS>(*this, CUDA_SEGMENT_BLOCKS,
                              x.q8 + cuda_act_block(x.n_cols, first / CUDA_PANEL_ROWS,
                                                    segment * CUDA_SEGMENT_BLOCKS), to);
    }
    static __device__ float element(const unsigned char *tile, int32_t, int lane, int32_t i)
    {
        const int32_t b = i % SEGMENT_ELEMS / QUANT_BLOCK, in_block = i % QUANT_BLOCK;
        const unsigned char *at =
            tile + i / SEGMENT_ELEMS * cuda_segment_bytes(TENSOR_Q4_K) + lane * CUDA_LOAD_BYTES;
        const uint4 h = cuda_load16(at);
        const int32_t code =
            at[(1 + b) * CUDA_PLANE_BYTES + in_block % 16] >> (in_block / 16 * 4) & 15;
        const float d = cuda_half(h.x & 0xffffu) * (float)scale(h, b);
        return d * (float)code - cuda_half(h.x >> 16) * (float)minimum(h, b);
    }
};

/* Blocks of 256: sixteen signed scales, of 16 inputs each, and one half. */
struct weights_q6_k {
    enum { TYPE = TENSOR_Q6_K, IS_FLOAT = 0, OFFSET = 32 };
    uint4 scales, low[CUDA_SEGMENT_BLOCKS], high[CUDA_SEGMENT_BLOCKS / 2];
    float d;
    int32_t segment;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t)
    {
        const unsigned char *header = tile + segment_idx * cuda_segment_bytes(TENSOR_Q6_K);
        const unsigned char *at = header + cuda_header_bytes(TENSOR_Q6_K) + cuda_lane() * CUDA_LOAD_BYTES;
        segment = segment_idx;
        scales = cuda_load16(header + cuda_lane() * CUDA_LOAD_BYTES);
        d = cuda_half(reinterpret_cast<const uint16_t *>(header + CUDA_PLANE_BYTES)[cuda_lane()]);
#pragma unroll
        for (int pair = 0; pair < CUDA_SEGMENT_BLOCKS / 2; pair++, at += 3 * CUDA_PLANE_BYTES) {
            high[pair] = cuda_load16(at);
            low[2 * pair] = cuda_load16(at + CUDA_PLANE_BYTES);
            low[2 * pair + 1] = cuda_load16(at + 2 * CUDA_PLANE_BYTES);
        }
    }
    __device__ __forceinline__ void unpack(int b, int32_t *w) const
    {
        cuda_unpack_nibbles(low[b], w);
#pragma unroll
        for (int quad = 0; quad < 8; quad++) {
            const uint32_t word = cuda_word(high[b / 2], b % 2 * 2 + quad % 4 / 2);
            w[quad] |= (int32_t)((word >> (quad / 4 * 4 + quad % 2 * 2) & 0x03030303u) << 4);
        }
    }
    static __device__ __forceinline__ int32_t scale(const uint4 &scales, int part)
    {
        return (int32_t)(int8_t)(cuda_word(scales, part / 4) >> part % 4 * 8 & 0xffu);
    }
    __device__ __forceinline__ float join(int b, int32_t lower, int32_t upper, const act_block &x, float acc) const
    {
        return join_block(scales, d, b, lower, upper, x.scale, x.sum, x.half, acc);
    }
    static __device__ __forceinline__ float join_block(const uint4 &scales, float d, int b, int32_t lower,
                                                       int32_t upper, float act_scale, int32_t sum, int32_t half,
                                                       float acc)
    {
        const int32_t dot = scale(scales, 2 * b) * (lower - OFFSET * half) +
                            scale(scales, 2 * b + 1) * (upper - OFFSET * (sum - half));
        return mathx_fma((float)dot, d * act_scale, acc);
    }
    template <int ROWS>
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first, int32_t, SHARED_PTR(float) to) const
    {
        cuda_sum_blocks<ROWS>(*this, CUDA_SEGMENT_BLOCKS,
                              x.q8 + cuda_act_block(x.n_cols, first / CUDA_PANEL_ROWS,
                                                    segment * CUDA_SEGMENT_BLOCKS), to);
    }
    static __device__ float element(const unsigned char *tile, int32_t, int lane, int32_t i)
    {
        const int32_t b = i % SEGMENT_ELEMS / QUANT_BLOCK, in_block = i % QUANT_BLOCK, quad = in_block / 4;
        const unsigned char *header = tile + i / SEGMENT_ELEMS * cuda_segment_bytes(TENSOR_Q6_K);
        const unsigned char *pair = header + cuda_header_bytes(TENSOR_Q6_K) +
                                    b / 2 * cuda_block_pair_bytes(TENSOR_Q6_K) + lane * CUDA_LOAD_BYTES;
        const int32_t upper = pair[b % 2 * 8 + quad % 4 / 2 * 4 + in_block % 4] >> (quad / 4 * 4 + quad % 2 * 2) & 3;
        const int32_t lower = pair[(1 + b % 2) * CUDA_PLANE_BYTES + in_block % 16] >> (in_block / 16 * 4) & 15;
        const int32_t part = scale(cuda_load16(header + lane * CUDA_LOAD_BYTES), i % SEGMENT_ELEMS / 16);
        const float d = cuda_half(reinterpret_cast<const uint16_t *>(header + CUDA_PLANE_BYTES)[lane]);
        return d * (float)part * (float)((lower | upper << 4) - OFFSET);
    }
};

/* F32, F16, BF16. A segment does not fit in registers: it is read again for each 16 rows, by then from
 * the L2 cache. */
template <int FLOAT_TYPE> struct weights_float {
    enum { TYPE = FLOAT_TYPE, IS_FLOAT = 1, GROUP = FLOAT_TYPE == TENSOR_F32 ? 4 : 8 };
    const unsigned char *at;
    int32_t segment, n_inputs;

    static __device__ __forceinline__ float widen(const uint4 &words, int i)
    {
        if constexpr (FLOAT_TYPE == TENSOR_F32) {
            return mathx_from_bits(cuda_word(words, i));
        } else {
            const uint32_t bits = cuda_word(words, i / 2) >> (i % 2 * 16) & 0xffffu;
            return FLOAT_TYPE == TENSOR_F16 ? cuda_half(bits) : mathx_bf16_to_f32((uint16_t)bits);
        }
    }
    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        at = tile + (size_t)(segment_idx * (SEGMENT_ELEMS / GROUP)) * CUDA_PLANE_BYTES +
             cuda_lane() * CUDA_LOAD_BYTES;
        segment = segment_idx;
        n_inputs = cuda_inputs_here(n_in, segment_idx);
    }
    /* Rows after `last` are computed as `last`, and dropped by the caller. */
    template <int ROWS>
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first, int32_t last, SHARED_PTR(float) to) const
    {
        float acc[ROWS] = {};
        const float *base = x.f32 + segment * SEGMENT_ELEMS;
        int32_t i = 0;
        for (; i + GROUP <= n_inputs; i += GROUP) {
            const uint4 words = cuda_load16(at + (size_t)(i / GROUP) * CUDA_PLANE_BYTES);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const int32_t row = first + r < last ? first + r : last;
                const float4 *xs = reinterpret_cast<const float4 *>(base + (size_t)row * (size_t)x.f32_stride + i);
#pragma unroll
                for (int quad = 0; quad < GROUP / 4; quad++) {
                    const float4 four = xs[quad];
                    acc[r] = mathx_fma(widen(words, quad * 4), four.x, acc[r]);
                    acc[r] = mathx_fma(widen(words, quad * 4 + 1), four.y, acc[r]);
                    acc[r] = mathx_fma(widen(words, quad * 4 + 2), four.z, acc[r]);
                    acc[r] = mathx_fma(widen(words, quad * 4 + 3), four.w, acc[r]);
                }
            }
        }
        for (; i < n_inputs; i++) { /* a last group that is not full */
            const uint4 words = cuda_load16(at + (size_t)(i / GROUP) * CUDA_PLANE_BYTES);
            for (int r = 0; r < ROWS; r++) {
                const int32_t row = first + r < last ? first + r : last;
                acc[r] = mathx_fma(widen(words, i % GROUP), base[(size_t)row * (size_t)x.f32_stride + i], acc[r]);
            }
        }
        cuda_put_sums<ROWS>(acc, to);
    }
    static __device__ float element(const unsigned char *tile, int32_t, int lane, int32_t i)
    {
        return widen(cuda_load16(tile + (size_t)(i / GROUP) * CUDA_PLANE_BYTES + lane * CUDA_LOAD_BYTES),
                     i % GROUP);
    }
};

#endif
