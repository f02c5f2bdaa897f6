/* weights_planes: as weights.cuh and weights_mma.cuh, for types whose codes lie in planes of bits: Q4_1, Q5_0, Q5_1,
 * Q2_K, Q3_K, Q5_K. A struct of traits says what a type has; layout.h draws where.
 *
 *     code = low bits (4 or 2) | high bit << LOW     quad i of a block: inputs 4 i .. 4 i + 3, a byte each
 */
#ifndef BACKEND_CUDA_WEIGHTS_PLANES_CUH
#define BACKEND_CUDA_WEIGHTS_PLANES_CUH

#include "backend/cuda/weights_mma.cuh"

/* How the dots of a block join a chain. */
enum planes_join { JOIN_SCALE /* d */, JOIN_ADDED /* d, + dmin */, JOIN_SIX_BITS /* as Q4_K */,
                   JOIN_FOUR_BITS /* parts of 16, scale and minimum of 4 bits */,
                   JOIN_SIGNED /* parts of 16, signed scales */ };

template <int T> struct planes_of;
template <> struct planes_of<TENSOR_Q4_1> {
    enum { LOW = 4, HIGH = 0, OFFSET = 0 };
    static constexpr planes_join JOIN = JOIN_ADDED;
};
template <> struct planes_of<TENSOR_Q5_0> {
    enum { LOW = 4, HIGH = 1, OFFSET = 16 };
    static constexpr planes_join JOIN = JOIN_SCALE;
};
template <> struct planes_of<TENSOR_Q5_1> {
    enum { LOW = 4, HIGH = 1, OFFSET = 0 };
    static constexpr planes_join JOIN = JOIN_ADDED;
};
template <> struct planes_of<TENSOR_Q5_K> {
    enum { LOW = 4, HIGH = 1, OFFSET = 0 };
    static constexpr planes_join JOIN = JOIN_SIX_BITS;
};
template <> struct planes_of<TENSOR_Q2_K> {
    enum { LOW = 2, HIGH = 0, OFFSET = 0 };
    static constexpr planes_join JOIN = JOIN_FOUR_BITS;
};
template <> struct planes_of<TENSOR_Q3_K> {
    enum { LOW = 2, HIGH = 1, OFFSET = 4 };
    static constexpr planes_join JOIN = JOIN_SIGNED;
};

/* What an output has for a whole segment beside codes. */
struct planes_header {
    uint4 scales; /* halves d of eight blocks; or a file's header, or sixteen scales */
    uint4 mins;   /* JOIN_ADDED: halves dmin */
    uint32_t d;   /* JOIN_FOUR_BITS: d, dmin; JOIN_SIGNED: d */
};

template <int T> struct planes {
    typedef planes_of<T> of;
    enum { PARTS = of::JOIN == JOIN_FOUR_BITS || of::JOIN == JOIN_SIGNED, /* of 16 inputs: their dots apart */
           LOW_MASK = of::LOW == 4 ? 0x0f0f0f0f : 0x03030303,
           /* before a segment's codes: scales, minimums or halves, high bits of all blocks */
           HALVES_AT = CUDA_PLANE_BYTES,
           HIGH_AT = CUDA_PLANE_BYTES + (of::JOIN == JOIN_ADDED       ? (int)CUDA_PLANE_BYTES
                                         : of::JOIN == JOIN_FOUR_BITS ? CUDA_WARP * 4
                                         : of::JOIN == JOIN_SIGNED    ? CUDA_WARP * 2
                                                                      : 0) };

    static __device__ __forceinline__ planes_header header(const unsigned char *segment, int lane)
    {
        planes_header h = { cuda_load16(segment + lane * CUDA_LOAD_BYTES), {}, 0 };
        if constexpr (of::JOIN == JOIN_ADDED) {
            h.mins = cuda_load16(segment + HALVES_AT + lane * CUDA_LOAD_BYTES);
        } else if constexpr (of::JOIN == JOIN_FOUR_BITS) {
            h.d = cuda_load4(segment + HALVES_AT + lane * 4);
        } else if constexpr (of::JOIN == JOIN_SIGNED) {
            h.d = reinterpret_cast<const uint16_t *>(segment + HALVES_AT)[lane];
        }
        return h;
    }
    /* Where a segment's high bits and low bits of block b lie, of the first output. */
    static __device__ __forceinline__ const unsigned char *high_at(const unsigned char *segment, int b)
    {
        return segment + HIGH_AT + b / 4 * CUDA_PLANE_BYTES + b % 4 * 4;
    }
    static __device__ __forceinline__ const unsigned char *low_at(const unsigned char *segment, int b)
    {
        const unsigned char *codes = segment + cuda_header_bytes((tensor_type)T);
        return of::LOW == 4 ? codes + b * CUDA_PLANE_BYTES : codes + b / 2 * CUDA_PLANE_BYTES + b % 2 * 8;
    }
    /* Scale and minimum of a part, of either kind of header; 16 parts but for JOIN_SIX_BITS. */
    static __device__ __forceinline__ int32_t scale(const planes_header &h, int part)
    {
        if constexpr (of::JOIN == JOIN_FOUR_BITS) {
            return (int32_t)(cuda_word(h.scales, part / 4) >> part % 4 * 8 & 15u);
        } else {
            return weights_q6_k::scale(h.scales, part);
        }
    }
    static __device__ __forceinline__ int32_t minimum(const planes_header &h, int part)
    {
        return (int32_t)(cuda_word(h.scales, part / 4) >> (part % 4 * 8 + 4) & 15u);
    }
    /* lower, upper: dots with inputs 0..15 and 16..31; where there are no parts, only their sum matters */
    static __device__ __forceinline__ float join(const planes_header &h, int b, int32_t lower, int32_t upper,
                                                 float act_scale, int32_t sum, int32_t half, float acc)
    {
        if constexpr (of::JOIN == JOIN_SIX_BITS) {
            return weights_q4_k::join_block(h.scales, b, lower + upper, act_scale, sum, acc);
        } else if constexpr (of::JOIN == JOIN_SCALE || of::JOIN == JOIN_ADDED) {
            const int32_t dot = lower + upper - of::OFFSET * sum;
            acc = mathx_fma((float)dot, cuda_half_of(h.scales, b) * act_scale, acc);
            return of::JOIN == JOIN_SCALE ? acc : mathx_fma(cuda_half_of(h.mins, b), act_scale * (float)sum, acc);
        } else {
            const int32_t dot = scale(h, 2 * b) * (lower - of::OFFSET * half) +
                                scale(h, 2 * b + 1) * (upper - of::OFFSET * (sum - half));
            acc = mathx_fma((float)dot, cuda_half(h.d & 0xffffu) * act_scale, acc);
            if constexpr (of::JOIN == JOIN_SIGNED) {
                return acc;
            }
            const int32_t min_sum = minimum(h, 2 * b) * half + minimum(h, 2 * b + 1) * (sum - half);
            return mathx_fma((float)min_sum, -(cuda_half(h.d >> 16) * act_scale), acc);
        }
    }
    /* Code of input i of a segment, and what it stands for: embeddings. */
    static __device__ __forceinline__ float value(const unsigned char *segment, int lane, int32_t i)
    {
        const planes_header h = header(segment, lane);
        const int b = i / QUANT_BLOCK, quad = i % QUANT_BLOCK / 4, byte = i % 4, at = lane * CUDA_LOAD_BYTES;
        const unsigned char *low = low_at(segment, b) + at;
        int32_t code = of::LOW == 4 ? low[quad % 4 * 4 + byte] >> quad / 4 * 4 & 15
                                    : low[quad / 4 * 4 + byte] >> quad % 4 * 2 & 3;
        if constexpr (of::HIGH != 0) {
            code |= (high_at(segment, b)[at + byte] >> quad & 1) << of::LOW;
        }
        const float level = (float)(code - of::OFFSET);
        if constexpr (of::JOIN == JOIN_SIX_BITS) {
            const float d = cuda_half(h.scales.x & 0xffffu) * (float)weights_q4_k::scale(h.scales, b);
            return d * level - cuda_half(h.scales.x >> 16) * (float)weights_q4_k::minimum(h.scales, b);
        } else if constexpr (PARTS != 0) {
            const float all = cuda_half(h.d & 0xffffu) * (float)scale(h, i / 16) * level;
            return of::JOIN == JOIN_SIGNED ? all : all - cuda_half(h.d >> 16) * (float)minimum(h, i / 16);
        } else {
            const float all = cuda_half_of(h.scales, b) * level;
            return of::JOIN == JOIN_SCALE ? all : all + cuda_half_of(h.mins, b);
        }
    }
};

/* ---- a lane an output: dp4a ---- */
template <int T> struct weights_planes {
    typedef planes<T> of;
    enum { TYPE = T, IS_FLOAT = 0, LOW_LOADS = planes_of<T>::LOW == 4 ? 8 : 4 /* 16 bytes each */ };
    planes_header head;
    uint4 low[LOW_LOADS], high[planes_of<T>::HIGH != 0 ? 2 : 1];
    int32_t segment, n_blocks;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        const unsigned char *at = tile + segment_idx * cuda_segment_bytes((tensor_type)T);
        const int lane = cuda_lane();
        segment = segment_idx;
        n_blocks = cuda_inputs_here(n_in, segment_idx) / QUANT_BLOCK;
        head = of::header(at, lane);
        if constexpr (planes_of<T>::HIGH != 0) {
            high[0] = cuda_load16(of::high_at(at, 0) + lane * CUDA_LOAD_BYTES);
            high[1] = cuda_load16(of::high_at(at, 4) + lane * CUDA_LOAD_BYTES);
        }
#pragma unroll
        for (int i = 0; i < LOW_LOADS; i++) {
            if (i * CUDA_SEGMENT_BLOCKS / LOW_LOADS < n_blocks) {
                low[i] = cuda_load16(of::low_at(at, i * CUDA_SEGMENT_BLOCKS / LOW_LOADS) + lane * CUDA_LOAD_BYTES);
            }
        }
    }
    __device__ __forceinline__ void unpack(int b, int32_t *w) const
    {
        if constexpr (planes_of<T>::LOW == 4) {
            cuda_unpack_nibbles(low[b], w);
        } else {
#pragma unroll
            for (int quad = 0; quad < 8; quad++) {
                w[quad] = (int32_t)(cuda_word(low[b / 2], b % 2 * 2 + quad / 4) >> quad % 4 * 2 & 0x03030303u);
            }
        }
        if constexpr (planes_of<T>::HIGH != 0) {
            const uint32_t bits = cuda_word(high[b / 4], b % 4);
#pragma unroll
            for (int quad = 0; quad < 8; quad++) {
                w[quad] |= (int32_t)((bits >> quad & 0x01010101u) << planes_of<T>::LOW);
            }
        }
    }
    __device__ __forceinline__ float join(int b, int32_t lower, int32_t upper, const act_block &x, float acc) const
    {
        return of::join(head, b, lower, upper, x.scale, x.sum, x.half, acc);
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
        return of::value(tile + i / SEGMENT_ELEMS * cuda_segment_bytes((tensor_type)T), lane, i % SEGMENT_ELEMS);
    }
};

/* ---- matrix products: a lane has quads lane % 4 and lane % 4 + 4 of four outputs ---- */
template <int T> struct mma_planes {
    typedef planes<T> of;
    enum { TYPE = T, APART = of::PARTS, HAS_HIGH = planes_of<T>::HIGH != 0,
           WORDS = planes_of<T>::LOW == 4 ? 1 : 2 /* of low bits, of a block */ };
    planes_header head[MMA_OUTPUTS];
    uint32_t low[CUDA_SEGMENT_BLOCKS][MMA_OUTPUTS][WORDS];
    uint32_t high[HAS_HIGH ? (int)CUDA_SEGMENT_BLOCKS : 1][MMA_OUTPUTS];
    int32_t segment, n_blocks;

    /* What a lane has no use for is shifted away here: its quads' bits are the lowest. */
    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        const unsigned char *at = tile + segment_idx * cuda_segment_bytes((tensor_type)T);
        const int quad = cuda_lane() % 4;
        segment = segment_idx;
        n_blocks = cuda_inputs_here(n_in, segment_idx) / QUANT_BLOCK;
#pragma unroll
        for (int j = 0; j < MMA_OUTPUTS; j++) {
            const int out = cuda_mma_output(j), from = out * CUDA_LOAD_BYTES;
            head[j] = of::header(at, out);
#pragma unroll
            for (int b = 0; b < CUDA_SEGMENT_BLOCKS; b++) {
                if (b < n_blocks) {
                    if constexpr (WORDS == 1) {
                        low[b][j][0] = cuda_load4(of::low_at(at, b) + from + quad * 4);
                    } else {
                        low[b][j][0] = cuda_load4(of::low_at(at, b) + from) >> quad * 2;
                        low[b][j][WORDS - 1] = cuda_load4(of::low_at(at, b) + from + 4) >> quad * 2;
                    }
                    if constexpr (HAS_HIGH) {
                        high[b][j] = cuda_load4(of::high_at(at, b) + from) >> quad;
                    }
                }
            }
        }
    }
    __device__ __forceinline__ int32_t first(int b, int j) const
    {
        uint32_t codes = low[b][j][0] & (uint32_t)of::LOW_MASK;
        if constexpr (HAS_HIGH) {
            codes |= (high[b][j] & 0x01010101u) << planes_of<T>::LOW;
        }
        return (int32_t)codes;
    }
    __device__ __forceinline__ int32_t second(int b, int j) const
    {
        uint32_t codes = (WORDS == 1 ? low[b][j][0] >> 4 : low[b][j][WORDS - 1]) & (uint32_t)of::LOW_MASK;
        if constexpr (HAS_HIGH) {
            codes |= (high[b][j] >> 4 & 0x01010101u) << planes_of<T>::LOW;
        }
        return (int32_t)codes;
    }
    __device__ __forceinline__ float join(int b, int j, int32_t dot, int32_t part, const mma_act &x, int r,
                                          float acc) const
    {
        return of::join(head[j], b, APART ? part : 0, APART ? dot - part : dot, x.scale[r], x.sum[r], x.half[r], acc);
    }
    MMA_SUMS(n_blocks)
};

#endif
