/* device: what all kernels share: launches and shared memory in words that nvcc and the emulation of the
 * tests (tests/simt) both understand, row sums, quantisation of a block.
 *
 * Rounding: compiled with --fmad=false and IEEE division and square root, fused where mathx_fma is
 * called. Nothing here uses CUDA's own exp, log or reduced-precision intrinsics.
 */
#ifndef BACKEND_CUDA_DEVICE_CUH
#define BACKEND_CUDA_DEVICE_CUH

#include <cuda_runtime.h>

#include "backend/cuda/kernels.h"
#include "backend/cuda/layout.h"
#include "base/rng.h"

#ifdef __CUDACC__
/* kernel: a name without commas, as a variable that holds the kernel wanted */
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SHARED_DYNAMIC(type, name)                                  \
    extern __shared__ __align__(16) unsigned char shared_dynamic[]; \
    type *const name = reinterpret_cast<type *>(shared_dynamic)
#define SHARED_PTR(type) type *
#endif

#define DEVICE_FN static __device__ __forceinline__
static constexpr unsigned WHOLE_WARP = 0xffffffffu;

DEVICE_FN int cuda_lane(void) { return (int)(threadIdx.x % CUDA_WARP); }
DEVICE_FN int cuda_warp(void) { return (int)(threadIdx.x / CUDA_WARP); }

/* Exact, so the instruction gives mathx's bits; but for a NaN's, which no sum keeps. */
DEVICE_FN float cuda_half(uint32_t bits)
{
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)bits));
    return value;
#else
    return mathx_f16_to_f32((uint16_t)bits);
#endif
}

/* d = a b of signed bytes, exact: 16 rows of a, 8 columns of b, 32 products each; the whole warp comes. Lane l
 * holds of a rows l / 4 (words 0, 2) and l / 4 + 8 (1, 3), bytes 4 (l % 4) (words 0, 1) and 16 further (2,
 * 3); of b column l / 4, bytes likewise; of d, row l / 4, columns 2 (l % 4) and the next (words 0, 1), and
 * row l / 4 + 8 (2, 3). PTX ISA, "mma.m16n8k32". */
DEVICE_FN void cuda_mma_s8(const int32_t *a, const int32_t *b, int32_t *d)
{
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
#else
    simt_mma_s8(a, b, d);
#endif
}

/* Two floats rounded to the type of the weights, to nearest even, the first in the lower half. Beyond a half's
 * range there is infinity. */
template <int FLOAT_TYPE> DEVICE_FN uint32_t cuda_round_pair(float low, float high)
{
    static_assert(FLOAT_TYPE == TENSOR_BF16 || FLOAT_TYPE == TENSOR_F16, "a type of 16 bits");
#ifdef __CUDACC__
    uint32_t pair;
    if constexpr (FLOAT_TYPE == TENSOR_BF16) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    }
    return pair;
#else
    return FLOAT_TYPE == TENSOR_BF16 ? simt_round_bf16(low) | (uint32_t)simt_round_bf16(high) << 16
                                     : mathx_f32_to_f16(low) | (uint32_t)mathx_f32_to_f16(high) << 16;
#endif
}

/* d += a b of pairs of FLOAT_TYPE, in fp32: 16 rows of a, 8 columns of b, 16 products each; the whole warp comes.
 * Places as in cuda_mma_s8, with a pair of inputs for its four bytes. Products are exact; in which order the
 * instruction adds them up is the device's affair, and the same whatever the other rows and columns hold.
 * PTX ISA, "mma.m16n8k16". */
template <int FLOAT_TYPE> DEVICE_FN void cuda_mma_float(const uint32_t *a, const uint32_t *b, float *d)
{
#ifdef __CUDACC__
    if constexpr (FLOAT_TYPE == TENSOR_BF16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#else
    simt_mma_float(FLOAT_TYPE == TENSOR_BF16 ? SIMT_MMA_BF16 : SIMT_MMA_F16, a, b, d);
#endif
}

/* ---- row sums: 64 partials, a tree with strides 32 .. 1 ---- */
enum { CUDA_PARTIALS = 64 };

/* The tree over a row's partial sums, each written by the thread of its number; all threads of the block call
 * it, and read partial[0] behind it. */
DEVICE_FN void cuda_add_partials(SHARED_PTR(float) partial)
{
    for (unsigned stride = CUDA_PARTIALS / 2; stride > 0; stride /= 2) {
        __syncthreads();
        if (threadIdx.x < stride) {
            partial[threadIdx.x] = partial[threadIdx.x] + partial[threadIdx.x + stride];
        }
    }
    __syncthreads();
}

/* Sum of squares of x[0 .. n), the same in every thread. For blocks of at least 64 threads, all of which
 * must come. `partial` is used until the next barrier. */
DEVICE_FN float cuda_square_sum(const float *x, int32_t n, SHARED_PTR(float) partial)
{
    if (threadIdx.x < CUDA_PARTIALS) {
        float sum = 0.0f;
        for (int32_t i = (int32_t)threadIdx.x; i < n; i += CUDA_PARTIALS) {
            sum = mathx_fma(x[i], x[i], sum);
        }
        partial[threadIdx.x] = sum;
    }
    cuda_add_partials(partial);
    return partial[0];
}

DEVICE_FN float cuda_norm_factor(float square_sum, int32_t n, float eps)
{
    return 1.0f / __fsqrt_rn(square_sum / (float)n + eps);
}

/* ---- activations ---- */

/* Quantises 32 columns of a row, one a lane; the whole warp comes. Maximum and sums are of integers, so
 * their order does not matter. A block with NaN or infinity gets scale NaN and codes 0. */
DEVICE_FN void cuda_quantize_block(float x, int32_t row, int32_t b, const struct cuda_act &act)
{
    const int lane = cuda_lane();
    uint32_t bits = mathx_to_bits(x) & 0x7fffffffu;
    for (int step = CUDA_WARP / 2; step > 0; step /= 2) {
        const uint32_t other = __shfl_xor_sync(WHOLE_WARP, bits, step);
        bits = other > bits ? other : bits;
    }
    const float amax = mathx_from_bits(bits);
    const bool bad = bits >= 0x7f800000u, empty = bad || amax < 0x1p-100f;
    const float inv = empty ? 0.0f : 127.0f / amax;
    const int32_t code = empty ? 0 : (int32_t)mathx_rint_small(x * inv);
    int32_t sum = code;
    for (int step = 1; step < CUDA_WARP / 2; step *= 2) {
        sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
    }
    const int32_t half = __shfl_sync(WHOLE_WARP, sum, 0); /* of lanes 0..15 */
    sum = half + __shfl_sync(WHOLE_WARP, sum, CUDA_WARP / 2);
    const int32_t r = row % CUDA_PANEL_ROWS;
    unsigned char *block = act.q8 + cuda_act_block(act.n_cols, row / CUDA_PANEL_ROWS, b);
    reinterpret_cast<int8_t *>(block)[r * QUANT_BLOCK + lane] = (int8_t)code;
    if (lane == 0) {
        reinterpret_cast<float *>(block + CUDA_ACT_SCALES)[r] = bad ? MATHX_NAN : empty ? 0.0f : amax / 127.0f;
        reinterpret_cast<int32_t *>(block + CUDA_ACT_SUMS)[r] = sum;
        reinterpret_cast<int32_t *>(block + CUDA_ACT_HALVES)[r] = half;
    }
}

/* ---- what leaves an elementwise operation ---- */

/* Element i of a row into the kinds that are wanted. Whole warps come with 32 columns of one block, or
 * with none of them inside the row. */
DEVICE_FN void cuda_put(const cuda_act &out, int32_t row, int32_t i, float y)
{
    if (out.f32 != nullptr && i < out.n_cols) {
        out.f32[(size_t)row * (size_t)out.f32_stride + (size_t)i] = y;
    }
    if (out.q8 != nullptr && i < out.n_cols) {
        cuda_quantize_block(y, row, i / QUANT_BLOCK, out);
    }
}

/* Columns of a row for a loop of whole warps. */
DEVICE_FN int32_t cuda_padded(int32_t n_cols) { return (n_cols + CUDA_WARP - 1) / CUDA_WARP * CUDA_WARP; }

static inline bool cuda_act_is_sound(const struct cuda_act &act)
{
    return act.n_cols > 0 && (act.q8 == nullptr || act.n_cols % QUANT_BLOCK == 0) &&
           (act.f32 == nullptr || act.f32_stride >= act.n_cols);
}

#endif
