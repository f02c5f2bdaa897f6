/* bench: main() of gpu_bench, and what its questions share.
 * usage: gpu_bench [--seconds N] [--commit TEXT] [QUESTION]...    gpu_bench --device: one line about it
 * Exit 4: no GPU.
 */
#include "gpu/bench.h"

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EXIT_NO_GPU = 4, MAX_REPS = 64 };

struct roofs roofs;
static cudaDeviceProp device;
static const char *commit = "unknown";
static double deadline;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double seconds_left(void) { return deadline - now(); }

void must(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

/* splitmix64's finaliser of the place: no two words alike, and nothing that compresses. */
static __global__ void fill_random_kernel(uint64_t *words, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        words[i] = (x ^ (x >> 31)) & 0xbfffbfffbfffbfffu; /* no half or brain float that is no number */
    }
}

void *device_bytes(size_t bytes, enum fill fill)
{
    void *memory = nullptr;
    const size_t whole = (bytes + 255) / 256 * 256;
    if (cudaMalloc(&memory, whole) != cudaSuccess) {
        (void)cudaGetLastError();
        return nullptr;
    }
    MUST(cudaMemset(memory, 0, whole));
    if (fill == FILL_RANDOM) {
        fill_random_kernel<<<1024, 256>>>(static_cast<uint64_t *>(memory), whole / 8);
        MUST(cudaDeviceSynchronize());
    }
    return memory;
}

void *device_copy(const void *from, size_t bytes)
{
    void *memory = device_bytes(bytes, FILL_ZERO);
    if (memory != nullptr) {
        MUST(cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice));
    }
    return memory;
}

static double time_once(launch_fn launch, void *context, int first, int n)
{
    static cudaEvent_t begin, end;
    float ms = 0;
    if (begin == nullptr) {
        MUST(cudaEventCreate(&begin));
        MUST(cudaEventCreate(&end));
    }
    MUST(cudaEventRecord(begin, 0));
    for (int i = 0; i < n; i++) {
        launch(context, first + i);
    }
    MUST(cudaEventRecord(end, 0));
    MUST(cudaEventSynchronize(end));
    MUST(cudaGetLastError());
    MUST(cudaEventElapsedTime(&ms, begin, end));
    return 1000.0 * (double)ms / n;
}

struct timing time_launches(launch_fn launch, void *context, int reps, double rep_us)
{
    double us[MAX_REPS];
    const double once = std::max(0.5, time_once(launch, context, 0, 4));
    const int n = (int)std::min(2000.0, std::max(4.0, rep_us / once));
    (void)time_once(launch, context, 0, n);
    reps = reps < MAX_REPS ? reps : (int)MAX_REPS;
    for (int i = 0; i < reps; i++) {
        us[i] = time_once(launch, context, i * n, n);
    }
    std::sort(us, us + reps);
    return { reps, us[0], us[reps / 2], us[reps - 1] };
}

void put_result(const struct result *r)
{
    const double fraction = r->bound <= 0 ? 0 : r->lower_is_better ? r->bound / r->value.median
                                                                   : r->value.median / r->bound;
    char bound[64] = "\"bound\":null,\"fraction\":null";
    if (r->bound > 0) {
        snprintf(bound, sizeof bound, "\"bound\":%.6g,\"fraction\":%.4g", r->bound, fraction);
    }
    printf("{\"bench\":\"%s\",\"case\":{%s},\"value\":%.6g,\"unit\":\"%s\",\"n\":%d,\"min\":%.6g,\"median\":%.6g,"
           "\"max\":%.6g,\"roofs\":{\"copy_gb_per_s\":%.5g,\"gb_per_s\":%.5g,\"int8_tmac_per_s\":%.5g,"
           "\"bf16_tmac_per_s\":%.5g,\"fp32_tmac_per_s\":%.5g},%s,\"machine\":\"%s, %d multiprocessors, %d MB L2\","
           "\"isa\":\"sm_%d%d\",\"commit\":\"%s\",\"options\":\"\",\"seed\":0}\n",
           r->bench, r->shape, r->value.median, r->unit, r->value.n, r->value.min, r->value.median, r->value.max,
           roofs.copy_gb, roofs.read_gb, roofs.int8_tmac, roofs.bf16_tmac, roofs.fp32_tmac, bound, device.name,
           device.multiProcessorCount, device.l2CacheSize >> 20, device.major, device.minor, commit);
    fflush(stdout);
}

static const struct question { const char *name; void (*ask)(void); } questions[] = {
    { "roofs", measure_roofs },       { "launch", measure_launches }, { "linear", measure_linear },
    { "attention", measure_attention }, { "choose", measure_choices },
};

static bool is_wanted(const char *name, int n, char **names)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return n == 0 || strcmp(name, "roofs") == 0; /* whatever is asked is held to them */
}

static void find_device(void)
{
    int n = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess || n < 1) {
        fprintf(stderr, "no GPU: %s\n", cudaGetErrorString(error != cudaSuccess ? error : cudaErrorNoDevice));
        exit(EXIT_NO_GPU);
    }
    MUST(cudaSetDevice(0));
    MUST(cudaGetDeviceProperties(&device, 0));
    MUST(cudaDriverGetVersion(&driver));
    fprintf(stderr, "%s, sm_%d%d, %d multiprocessors, %zu GiB, driver for CUDA %d.%d\n", device.name, device.major,
            device.minor, device.multiProcessorCount, device.totalGlobalMem >> 30, driver / 1000, driver % 1000 / 10);
}

int main(int n_arguments, char **arguments)
{
    double seconds = 1e6;
    int at = 1;
    for (; at + 1 < n_arguments && strncmp(arguments[at], "--", 2) == 0; at += 2) {
        if (strcmp(arguments[at], "--seconds") == 0) {
            seconds = atof(arguments[at + 1]);
        } else if (strcmp(arguments[at], "--commit") == 0) {
            commit = arguments[at + 1];
        } else {
            fprintf(stderr, "%s is not known; there are --seconds, --commit and --device\n", arguments[at]);
            return 2;
        }
    }
    find_device();
    if (at < n_arguments && strcmp(arguments[at], "--device") == 0) {
        printf("%s sm_%d%d\n", device.name, device.major, device.minor);
        return 0;
    }
    deadline = now() + seconds;
    for (const struct question &question : questions) {
        if (is_wanted(question.name, n_arguments - at, arguments + at)) {
            question.ask();
        }
    }
    return 0;
}
