/* roof_wgmma: the bf16 peak of Hopper's asynchronous matrix products, both operands in shared memory. Compiled
 * for sm_90a alone. What is multiplied does not matter, so descriptors point anywhere within it.
 */
#include "gpu/bench.h"

enum { WG_THREADS = 256 /* two groups of four warps */, WG_LOOPS = 2048, WG_STEPS = 4, WG_ACC = 64,
       WG_SHARED_BYTES = 32 * 1024, WG_M = 64, WG_N = 128, WG_K = 16 };

#define ACC4(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
#define ACC16(i) ACC4(i), ACC4(i + 4), ACC4(i + 8), ACC4(i + 12)

/* 64 x 128 += 64 x 16 times 16 x 128 */
static __device__ __forceinline__ void wgmma_step(float *acc, uint64_t a, uint64_t b)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, add, 1, 1, 0, 0; }"
                 : ACC16(0), ACC16(16), ACC16(32), ACC16(48)
                 : "l"(a), "l"(b));
#endif
}

static __global__ void __launch_bounds__(WG_THREADS) roof_wgmma_kernel(float *out)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __shared__ __align__(1024) unsigned words[WG_SHARED_BYTES / 4];
    float acc[WG_ACC] = {};
    for (int i = (int)threadIdx.x; i < WG_SHARED_BYTES / 4; i += WG_THREADS) {
        words[i] = 0x3f803f80u ^ (((unsigned)i * 2654435761u) & 0x800f800fu); /* around 1 and -1 */
    }
    asm volatile("fence.proxy.async.shared::cta;");
    __syncthreads();
    const uint64_t base = (uint64_t)__cvta_generic_to_shared(words) >> 4;
    const uint64_t a = base | (uint64_t)8 << 16 | (uint64_t)16 << 32, b = (base + 512) | (uint64_t)8 << 16 | (uint64_t)16 << 32;
    for (int loop = 0; loop < WG_LOOPS; loop++) {
        asm volatile("wgmma.fence.sync.aligned;");
#pragma unroll
        for (int step = 0; step < WG_STEPS; step++) {
            wgmma_step(acc, a, b);
        }
        asm volatile("wgmma.commit_group.sync.aligned;");
        asm volatile("wgmma.wait_group.sync.aligned 0;");
    }
    float sum = 0;
    for (int i = 0; i < WG_ACC; i++) {
        sum += acc[i];
    }
    out[blockIdx.x * WG_THREADS + threadIdx.x] = sum;
#else
    (void)out;
#endif
}

struct wgmma_run { float *out; unsigned blocks; };

static void launch_wgmma(void *context, int)
{
    const wgmma_run &run = *static_cast<wgmma_run *>(context);
    roof_wgmma_kernel<<<run.blocks, WG_THREADS>>>(run.out);
}

double wgmma_bf16_tmac(void)
{
    int n = 0, major = 0;
    MUST(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0));
    MUST(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major != 9) {
        return 0;
    }
    wgmma_run run = { nullptr, (unsigned)n * 2 };
    run.out = static_cast<float *>(device_bytes((size_t)run.blocks * WG_THREADS * sizeof(float), FILL_ZERO));
    const struct timing us = time_launches(launch_wgmma, &run, 9, 5000);
    const double macs = (double)run.blocks * 2 * WG_LOOPS * WG_STEPS * WG_M * WG_N * WG_K;
    return macs / us.median * 1e-6;
}
