/* planted: faults for the emulation to find. */
#include "tests/simt/planted.h"

#include "backend/cuda/device.cuh"

enum { N = PLANTED_THREADS };

static __global__ void planted_kernel(const planted_fault fault, uint32_t *out)
{
    SHARED(uint32_t, box, N);
    SHARED_DYNAMIC(uint32_t, dynamic);
    const unsigned i = threadIdx.x;
    if (fault == PLANTED_BARRIER_RETURNED && i >= 32) {
        return;
    }
    box[fault == PLANTED_OVERFLOW ? i + 1 : fault == PLANTED_BELOW ? i - 1 : i] = i;
    dynamic[fault == PLANTED_DYNAMIC_OVERFLOW ? i + 1 : i] = i;
    if (fault == PLANTED_BARRIER_OTHER && i % 2 == 0) {
        __syncthreads();
    } else if (fault != PLANTED_BARRIER_MISSED || i != 3) {
        __syncthreads();
    }
    uint32_t sum = i;
    unsigned mask = WHOLE_WARP;
    if (fault == PLANTED_LANE_ABSENT && i == 40) {
        return;
    }
    if (fault == PLANTED_LANE_OUTSIDE && i == 5) {
        mask = 0xffff0000u;
    }
    if (fault == PLANTED_MASKS_DIFFER) {
        mask = i % 2 ? WHOLE_WARP : 0x55555555u;
    }
    if (fault == PLANTED_SOURCE_OUTSIDE && i < 16) {
        sum += __shfl_xor_sync(0xffffu, sum, 16);
    }
    for (int step = 16; step > 0; step /= 2) {
        sum += __shfl_xor_sync(mask, sum, step);
    }
    out[i] = box[N - 1 - i] + sum + dynamic[i] - i;
}

extern "C" int planted_run(enum planted_fault fault, uint32_t *out)
{
    const unsigned n_threads = fault == PLANTED_TOO_MANY_THREADS ? 1025 : N;
    const size_t shared_bytes = fault == PLANTED_TOO_MUCH_SHARED ? 48 * 1024 : N * sizeof *out;
    CUDA_LAUNCH(planted_kernel, 1, n_threads, shared_bytes, (cudaStream_t)0, fault, out);
    return cudaGetLastError();
}

static __global__ void race_kernel(int barrier, uint32_t *out)
{
    SHARED(uint32_t, box, N);
    const unsigned i = threadIdx.x;
    box[i] = blockIdx.x * N + i;
    if (barrier) {
        __syncthreads();
    }
    out[blockIdx.x * N + i] = box[N - 1 - i];
}

extern "C" int planted_race(int barrier, uint32_t n_blocks, uint32_t *out)
{
    CUDA_LAUNCH(race_kernel, n_blocks, N, 0, (cudaStream_t)0, barrier, out);
    return cudaGetLastError();
}

static __global__ void blocks_kernel(int note, uint32_t *count, uint32_t *out)
{
    if (threadIdx.x == 0) {
        const uint32_t found = atomicAdd(count, blockIdx.x + 1u);
        out[blockIdx.x] = note ? found : 0;
    }
}

extern "C" int planted_blocks(int note, uint32_t n_blocks, uint32_t *count, uint32_t *out)
{
    CUDA_LAUNCH(blocks_kernel, n_blocks, N, 0, (cudaStream_t)0, note, count, out);
    return cudaGetLastError();
}

static __global__ void unwritten_kernel(float *out)
{
    SHARED(float, box, N);
    out[threadIdx.x] = box[threadIdx.x];
    __syncthreads();
    box[threadIdx.x] = 1.0f; /* which the next block must not find */
}

extern "C" int planted_unwritten(float *out)
{
    CUDA_LAUNCH(unwritten_kernel, 2, N, 0, (cudaStream_t)0, out);
    return cudaGetLastError();
}

static __global__ void mma_kernel(const int8_t *a, const int8_t *b, int32_t *out)
{
    const int row = cuda_lane() / 4, at = cuda_lane() % 4 * 4;
    int32_t fa[4], fb[2], d[4];
    memcpy(&fa[0], a + row * 32 + at, 4);
    memcpy(&fa[1], a + (row + 8) * 32 + at, 4);
    memcpy(&fa[2], a + row * 32 + at + 16, 4);
    memcpy(&fa[3], a + (row + 8) * 32 + at + 16, 4);
    memcpy(&fb[0], b + row * 32 + at, 4);
    memcpy(&fb[1], b + row * 32 + at + 16, 4);
    cuda_mma_s8(fa, fb, d);
    for (int i = 0; i < 4; i++) {
        out[(row + i / 2 * 8) * 8 + cuda_lane() % 4 * 2 + i % 2] = d[i];
    }
}

extern "C" int planted_mma(const int8_t *a, const int8_t *b, int32_t *out)
{
    CUDA_LAUNCH(mma_kernel, 1, CUDA_WARP, 0, (cudaStream_t)0, a, b, out);
    return cudaGetLastError();
}
