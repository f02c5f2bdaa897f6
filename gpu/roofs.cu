/* roofs: what this device can do, measured in the run that is held to it: copies and reads of memory far larger
 * than its caches, chains of matrix products and of fma in registers; and what a launch costs.
 */
#include "gpu/bench.h"

#include <algorithm>
#include <stdio.h>

enum { ROOF_BYTES_LOG2 = 30, ROOF_THREADS = 256, ROOF_LOOPS = 4096, GRAPH_NODES = 200 };

static unsigned multiprocessors(void)
{
    int n = 0;
    MUST(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0));
    return (unsigned)n;
}

/* ---- memory ---- */
struct buffers { uint4 *from, *to; size_t n; unsigned blocks; };

static __global__ void roof_copy_kernel(const uint4 *from, uint4 *to, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        to[i] = from[i];
    }
}

/* Four loads under way in each thread; what is read decides a store that never comes. */
static __global__ void roof_read_kernel(const uint4 *from, uint4 *to, size_t n)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    uint4 sum = { 0, 0, 0, 0 };
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        const uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        sum.x ^= a.x ^ b.x ^ c.x ^ d.x;
        sum.y ^= a.y ^ b.y ^ c.y ^ d.y;
        sum.z ^= a.z ^ b.z ^ c.z ^ d.z;
        sum.w ^= a.w ^ b.w ^ c.w ^ d.w;
    }
    if (sum.x == 0x12345678u && sum.y == 0x9abcdef0u && sum.z == 1u && sum.w == 2u) {
        to[0] = sum;
    }
}

static void launch_copy(void *context, int)
{
    const buffers &b = *static_cast<buffers *>(context);
    roof_copy_kernel<<<b.blocks, ROOF_THREADS>>>(b.from, b.to, b.n);
}

static void launch_memcpy(void *context, int)
{
    const buffers &b = *static_cast<buffers *>(context);
    MUST(cudaMemcpyAsync(b.to, b.from, b.n * sizeof(uint4), cudaMemcpyDeviceToDevice, 0));
}

static void launch_read(void *context, int)
{
    const buffers &b = *static_cast<buffers *>(context);
    roof_read_kernel<<<b.blocks, ROOF_THREADS>>>(b.from, b.to, b.n);
}

/* ---- arithmetic: independent chains in registers ---- */
enum { CHAINS = 8 };

static __global__ void __launch_bounds__(ROOF_THREADS) roof_int8_kernel(int *out, int seed)
{
    int acc[CHAINS][4] = {}, a[4], b[2];
    for (int i = 0; i < 4; i++) {
        a[i] = seed * (int)threadIdx.x * 0x01030507 + i;
        b[i % 2] = seed * (int)threadIdx.x * 0x0b0d1113 - i;
    }
    for (int loop = 0; loop < ROOF_LOOPS; loop++) {
#pragma unroll
        for (int c = 0; c < CHAINS; c++) {
            asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                         "{%8, %9}, {%0, %1, %2, %3};"
                         : "+r"(acc[c][0]), "+r"(acc[c][1]), "+r"(acc[c][2]), "+r"(acc[c][3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        }
    }
    int sum = 0;
    for (int c = 0; c < CHAINS; c++) {
        sum ^= acc[c][0] ^ acc[c][1] ^ acc[c][2] ^ acc[c][3];
    }
    out[blockIdx.x * ROOF_THREADS + threadIdx.x] = sum;
}

static __global__ void __launch_bounds__(ROOF_THREADS) roof_bf16_kernel(float *out, int seed)
{
    float acc[CHAINS][4] = {};
    unsigned a[4], b[2];
    for (int i = 0; i < 4; i++) { /* around 1 */
        a[i] = 0x3f803f80u ^ ((unsigned)(seed * (int)threadIdx.x + i) & 0x000f000fu);
        b[i % 2] = 0xbf803f80u ^ ((unsigned)(seed * (int)threadIdx.x - i) & 0x000f000fu);
    }
    for (int loop = 0; loop < ROOF_LOOPS; loop++) {
#pragma unroll
        for (int c = 0; c < CHAINS; c++) {
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                         "{%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(acc[c][0]), "+f"(acc[c][1]), "+f"(acc[c][2]), "+f"(acc[c][3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        }
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; c++) {
        sum += acc[c][0] + acc[c][1] + acc[c][2] + acc[c][3];
    }
    out[blockIdx.x * ROOF_THREADS + threadIdx.x] = sum;
}

static __global__ void __launch_bounds__(ROOF_THREADS) roof_fp32_kernel(float *out, float factor)
{
    float acc[CHAINS] = {};
    for (int loop = 0; loop < ROOF_LOOPS; loop++) {
#pragma unroll
        for (int c = 0; c < CHAINS; c++) {
            acc[c] = __fmaf_rn(acc[c], factor, (float)c);
        }
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; c++) {
        sum += acc[c];
    }
    out[blockIdx.x * ROOF_THREADS + threadIdx.x] = sum;
}

struct chains { void *out; unsigned blocks; };
static void launch_int8(void *context, int)
{
    const chains &c = *static_cast<chains *>(context);
    roof_int8_kernel<<<c.blocks, ROOF_THREADS>>>(static_cast<int *>(c.out), 3);
}
static void launch_bf16(void *context, int)
{
    const chains &c = *static_cast<chains *>(context);
    roof_bf16_kernel<<<c.blocks, ROOF_THREADS>>>(static_cast<float *>(c.out), 3);
}
static void launch_fp32(void *context, int)
{
    const chains &c = *static_cast<chains *>(context);
    roof_fp32_kernel<<<c.blocks, ROOF_THREADS>>>(static_cast<float *>(c.out), 0.5f);
}

/* ---- rates ---- */

/* amount: GB or TMAC, times 10^6 */
static struct timing rate_of(const struct timing &us, double amount)
{
    return { us.n, amount / us.max, amount / us.median, amount / us.min };
}

static double put_rate(const char *what, const char *unit, const struct timing &us, double amount)
{
    struct result r = { "gpu-roof", "", unit, rate_of(us, amount), 0, 0 };
    snprintf(r.shape, sizeof r.shape, "\"roof\":\"%s\"", what);
    put_result(&r);
    return r.value.median;
}

static void measure_memory(void)
{
    const size_t bytes = (size_t)1 << ROOF_BYTES_LOG2;
    buffers b = { static_cast<uint4 *>(device_bytes(bytes, FILL_RANDOM)),
                  static_cast<uint4 *>(device_bytes(bytes, FILL_ZERO)), bytes / sizeof(uint4),
                  multiprocessors() * 8 };
    if (b.from == nullptr || b.to == nullptr) {
        fprintf(stderr, "no memory for two buffers of %zu MiB\n", bytes >> 20);
        return;
    }
    const double gb = (double)bytes * 1e-3; /* GB, times 10^6 */
    const double kernel = put_rate("copy, read + write, by a kernel", "GB/s", time_launches(launch_copy, &b, 9, 3000), 2 * gb);
    const double engine = put_rate("copy, read + write, cudaMemcpy", "GB/s", time_launches(launch_memcpy, &b, 9, 3000), 2 * gb);
    roofs.copy_gb = std::max(kernel, engine);
    roofs.read_gb = put_rate("read", "GB/s", time_launches(launch_read, &b, 9, 3000), gb);
    MUST(cudaFree(b.from));
    MUST(cudaFree(b.to));
}

static void measure_arithmetic(void)
{
    const unsigned blocks = multiprocessors() * 4;
    chains c = { device_bytes((size_t)blocks * ROOF_THREADS * 4, FILL_ZERO), blocks };
    const double warps = (double)blocks * ROOF_THREADS / 32, steps = (double)ROOF_LOOPS * CHAINS;
    roofs.int8_tmac = put_rate("int8 mma.sync", "TMAC/s", time_launches(launch_int8, &c, 9, 5000),
                               warps * steps * 16 * 8 * 32 * 1e-6);
    roofs.bf16_tmac = put_rate("bf16 mma.sync", "TMAC/s", time_launches(launch_bf16, &c, 9, 5000),
                               warps * steps * 16 * 8 * 16 * 1e-6);
    roofs.fp32_tmac = put_rate("fp32 fma", "TMAC/s", time_launches(launch_fp32, &c, 9, 5000),
                               warps * 32 * steps * 1e-6);
    const double wgmma = wgmma_bf16_tmac();
    if (wgmma > 0) { /* no kernel of the exact plan can use it: a roof of the native plan */
        struct result r = { "gpu-roof", "\"roof\":\"bf16 wgmma\"", "TMAC/s", { 1, wgmma, wgmma, wgmma }, 0, 0 };
        put_result(&r);
    }
}

void measure_roofs(void)
{
    measure_memory();
    measure_arithmetic();
}

/* ---- launches ---- */

static __global__ void empty_kernel(void) {}

static void launch_empty(void *, int) { empty_kernel<<<1, 32>>>(); }

static void launch_graph(void *context, int) { MUST(cudaGraphLaunch(*static_cast<cudaGraphExec_t *>(context), 0)); }

static cudaGraphExec_t graph_of_nothing(void)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < GRAPH_NODES; i++) {
        empty_kernel<<<1, 32, 0, stream>>>();
    }
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    return exec;
}

void measure_launches(void)
{
    struct result r = { "gpu-launch", "\"how\":\"one stream\"", "us", time_launches(launch_empty, nullptr, 15, 2000), 0, 1 };
    put_result(&r);
    cudaGraphExec_t exec = graph_of_nothing();
    r = { "gpu-launch", "\"how\":\"node of a graph of 200\"", "us", time_launches(launch_graph, &exec, 15, 2000), 0, 1 };
    r.value = { r.value.n, r.value.min / GRAPH_NODES, r.value.median / GRAPH_NODES, r.value.max / GRAPH_NODES };
    put_result(&r);
}
