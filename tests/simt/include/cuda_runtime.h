/* cuda_runtime: what backend/cuda uses of CUDA, in the words of CUDA, for a C++ compiler of the host.
 * Stands where the real header stands. Behaviour: tests/simt/simt.h.
 */
#ifndef TESTS_SIMT_CUDA_RUNTIME_H
#define TESTS_SIMT_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/simt/include/cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

/* ---- types ---- */
struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

extern uint3 threadIdx, blockIdx; /* of the thread that runs */
extern dim3 blockDim, gridDim;

/* ---- launches, barriers, warps: simt.cpp ---- */
enum simt_warp_op { SIMT_SYNC, SIMT_SHUFFLE, SIMT_MMA, SIMT_MMA_BF16, SIMT_MMA_F16 };
enum { SIMT_WARP = 32, SIMT_WORDS_IN = 10, SIMT_WORDS_OUT = 4 };

/* Runs a launch now. Its arguments lie behind args. */
struct simt_launch_shape { dim3 grid, block; size_t shared_bytes; };
cudaError_t simt_run(const simt_launch_shape &shape, void (*body)(const void *), const void *args);
/* Whether a device would take it; says why not. */
bool simt_check(const simt_launch_shape &shape);
/* Runs it when the stream does, with a copy of the arguments; at once without a stream. */
void simt_enqueue(cudaStream_t stream, const simt_launch_shape &shape, void (*body)(const void *), const void *args,
                  size_t args_bytes);
/* Ends the block and does not return. (Not declared so: the address sanitizer would look for the end of a
 * stack that is not the thread's.) */
void simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Notes what is wrong and goes on. */
void simt_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void simt_barrier(const char *file, int line);
/* Lane `lane` of the warp gives words_in; `source`: the lane whose words it wants (SIMT_SHUFFLE). */
void simt_warp(enum simt_warp_op op, unsigned mask, int source, const uint32_t *words_in, uint32_t *words_out);
int simt_lane(void);
/* Array of this block that `key` names; made by the first thread that asks. */
void *simt_shared_array(const void *key, size_t bytes);
void *simt_shared_dynamic(size_t *bytes);

template <class Kernel, class... Args>
void simt_launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes, Kernel kernel, Args... args)
{
    const auto body = [=] { kernel(args...); };
    simt_enqueue(stream, { grid, block, shared_bytes },
                 [](const void *b) { (*static_cast<const decltype(body) *>(b))(); }, &body, sizeof body);
}
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    simt_launch(stream, grid, block, shared_bytes, kernel, __VA_ARGS__)
#define __syncthreads() simt_barrier(__FILE__, __LINE__)

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    simt_warp(SIMT_SYNC, mask, 0, nullptr, nullptr);
}

template <class T> T simt_shuffle(unsigned mask, T value, int source)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "words of 32 or 64 bits");
    uint32_t words[SIMT_WORDS_IN] = {}, out[SIMT_WORDS_OUT];
    memcpy(words, &value, sizeof value);
    simt_warp(SIMT_SHUFFLE, mask, source, words, out);
    memcpy(&value, out, sizeof value);
    return value;
}
template <class T> T __shfl_sync(unsigned mask, T value, int source)
{
    return simt_shuffle(mask, value, source % SIMT_WARP);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes)
{
    return simt_shuffle(mask, value, simt_lane() ^ lanes);
}
/* The lanes below `lanes` get their own back. */
template <class T> T __shfl_up_sync(unsigned mask, T value, int lanes)
{
    return simt_shuffle(mask, value, simt_lane() >= lanes ? simt_lane() - lanes : simt_lane());
}
static inline void simt_mma_s8(const int32_t *a, const int32_t *b, int32_t *d)
{
    uint32_t words[SIMT_WORDS_IN] = {}, out[SIMT_WORDS_OUT];
    memcpy(words, a, 16);
    memcpy(words + 4, b, 8);
    simt_warp(SIMT_MMA, 0xffffffffu, 0, words, out);
    memcpy(d, out, sizeof out);
}

static inline void simt_mma_float(enum simt_warp_op op, const uint32_t *a, const uint32_t *b, float *d)
{
    uint32_t words[SIMT_WORDS_IN], out[SIMT_WORDS_OUT];
    memcpy(words, a, 16);
    memcpy(words + 4, b, 8);
    memcpy(words + 6, d, 16);
    simt_warp(op, 0xffffffffu, 0, words, out);
    memcpy(d, out, sizeof out);
}
/* To nearest even; a NaN stays one. */
static inline uint16_t simt_round_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)(x != x ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* ---- shared memory: an index is checked ---- */
template <class T> struct simt_shared {
    T *at;
    size_t n;
    T &operator[](size_t idx) const
    {
        if (idx >= n) {
            simt_fail("thread %u reads or writes element %lld of %zu in shared memory", threadIdx.x,
                      (long long)idx, n);
        }
        return at[idx];
    }
    simt_shared operator+(size_t by) const
    {
        if (by > n) {
            simt_fail("thread %u goes to element %lld of %zu in shared memory", threadIdx.x, (long long)by, n);
        }
        return { at + by, n - by };
    }
};
template <class T> simt_shared<T> simt_dynamic_shared(void)
{
    size_t bytes = 0;
    void *at = simt_shared_dynamic(&bytes);
    return { static_cast<T *>(at), bytes / sizeof(T) };
}
#define SHARED(type, name, count)        \
    static const char name##_key = 0;    \
    const simt_shared<type> name = {     \
        static_cast<type *>(simt_shared_array(&name##_key, sizeof(type) * (count))), (count) }
#define SHARED_DYNAMIC(type, name) const simt_shared<type> name = simt_dynamic_shared<type>()
#define SHARED_PTR(type) simt_shared<type>

/* ---- arithmetic ---- */
static inline int __dp4a(int a, int b, int c)
{
    int8_t x[4], y[4];
    memcpy(x, &a, 4);
    memcpy(y, &b, 4);
    return c + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
}
static inline long long __double2ll_rn(double x) { return __builtin_llrint(x); }
static inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }

/* ---- atomics: threads hand over at barriers only, so plain code is atomic ---- */
template <class T> T atomicMax(T *at, T value)
{
    const T old = *at;
    *at = old < value ? value : old;
    return old;
}
template <class T> T atomicAdd(T *at, T value)
{
    const T old = *at;
    *at = old + value;
    return old;
}

#endif
