/* cpu: which instruction sets this machine has, the kernel table of each, and the cores we may use. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>
#endif

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/operations.h"
#include "backend/cpu/roof.h"
#include "backend/cpu/rows.h"

#define KERNEL_TABLE(number, suffix, n_read)                                                      \
    {                                                                                             \
        .isa = (number), .linear_tile = linear_tile_##suffix, .norm_row = rows_norm_##suffix,     \
        .quantize_row = rows_quantize_##suffix, .swiglu = rows_swiglu_##suffix,                   \
        .accumulate = rows_accumulate_##suffix,                                                   \
        .rope_row = rows_rope_##suffix, .to_f16 = rows_to_f16_##suffix,                           \
        .argmax = rows_argmax_##suffix, .exp_sum = rows_exp_sum_##suffix,                         \
        .gumbel = rows_gumbel_##suffix, .attention = attention_row_##suffix,                      \
        .roof_read = roof_read_##suffix, .roof_read_variants = (n_read),                          \
        .roof_int = roof_int_##suffix, .roof_float = roof_float_##suffix,                         \
    }

static const struct cpu_kernels kernels_scalar = KERNEL_TABLE(ISA_SCALAR, scalar, 1);
const struct cpu_kernels *const cpu_kernels_scalar = &kernels_scalar;
#if defined(__x86_64__)
static const struct cpu_kernels kernels_fma = KERNEL_TABLE(ISA_SCALAR, fma, 1);
static const struct cpu_kernels kernels_avx2 = KERNEL_TABLE(ISA_AVX2, avx2, ROOF_READ_VARIANTS);
static const struct cpu_kernels kernels_avx512 = KERNEL_TABLE(ISA_AVX512, avx512, ROOF_READ_VARIANTS);

static bool has_avx2(void)
{
    unsigned int a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

const struct cpu_kernels *cpu_kernels_for(enum isa isa)
{
#if defined(__x86_64__)
    switch (isa) {
    case ISA_AVX512: return has_avx512() ? &kernels_avx512 : NULL;
    case ISA_AVX2: return has_avx2() ? &kernels_avx2 : NULL;
    /* the same source; the compiler may use hardware fma instead of calling fmaf() */
    case ISA_SCALAR: return has_avx2() ? &kernels_fma : &kernels_scalar;
    case ISA_COUNT: break;
    }
    return NULL;
#else
    return isa == ISA_SCALAR ? &kernels_scalar : NULL;
#endif
}

const char *isa_name(enum isa isa)
{
    static const char *const names[ISA_COUNT] = { "scalar", "avx2", "avx512" };
    return isa < ISA_COUNT ? names[isa] : "?";
}

unsigned int cpu_float_mode_enter(void)
{
#if defined(__x86_64__)
    const unsigned int old = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return old;
#else
    return 0;
#endif
}

void cpu_float_mode_restore(unsigned int mode)
{
#if defined(__x86_64__)
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

static enum status find_kernels(const char *isa_or_null, const struct cpu_kernels **kernels)
{
    if (!isa_or_null || strcmp(isa_or_null, "auto") == 0) {
        for (int isa = ISA_COUNT - 1; isa >= 0; isa--) {
            *kernels = cpu_kernels_for((enum isa)isa);
            if (*kernels) {
                return STATUS_OK;
            }
        }
    }
    for (int isa = 0; isa_or_null && isa < ISA_COUNT; isa++) {
        if (strcmp(isa_or_null, isa_name((enum isa)isa)) == 0) {
            *kernels = cpu_kernels_for((enum isa)isa);
            return *kernels ? STATUS_OK
                            : status_fail(STATUS_UNSUPPORTED,
                                          "this machine lacks the instruction set '%s'", isa_or_null);
        }
    }
    return status_fail(STATUS_UNSUPPORTED,
                       "unknown instruction set '%s'; there are scalar, avx2, avx512", isa_or_null);
}

enum status cpu_backend_init(const char *isa_or_null, struct backend *backend)
{
    return find_kernels(isa_or_null, &backend->kernels);
}

enum status cpu_backend_create(const char *isa_or_null, struct backend **out)
{
    *out = NULL;
    struct backend *backend = mem_alloc(1, sizeof *backend);
    if (!backend) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a backend");
    }
    backend->ops = cpu_ops;
    const enum status status = cpu_backend_init(isa_or_null, backend);
    if (status != STATUS_OK) {
        mem_free(backend);
        return status;
    }
    snprintf(backend->name, sizeof backend->name, "cpu %s", isa_name(backend->kernels->isa));
    *out = backend;
    return STATUS_OK;
}

enum isa backend_isa(const struct backend *backend) { return backend->kernels->isa; }

/* ---- the table of functions ---- */
static void destroy(struct backend *backend) { mem_free(backend); }

static void *alloc(struct backend *backend, size_t bytes)
{
    (void)backend;
    return mem_map(bytes);
}

static void release(struct backend *backend, void *ptr, size_t bytes)
{
    (void)backend;
    mem_unmap(ptr, bytes);
}

static uint64_t free_bytes(struct backend *backend)
{
    (void)backend;
    return mem_available_bytes();
}

static enum status copy(struct backend *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    memcpy(to, from, bytes);
    return STATUS_OK;
}

static int32_t places_most(int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    (void)n_experts;
    return n_used * cap_rows;
}

static const struct backend_ops ops = {
    .is_host = true,
    .destroy = destroy,
    .alloc = alloc, .free = release, .free_bytes = free_bytes, .upload = copy, .download = copy,
    .lane_create = cpu_lane_create, .lane_stop = cpu_lane_stop, .lane_destroy = cpu_lane_destroy,
    .lane_idle_until = cpu_lane_idle_until, .lane_wake = cpu_lane_wake, .lane_submit = cpu_lane_submit,
    .lane_mark = cpu_lane_mark, .lane_wait = cpu_lane_wait, .lane_done = cpu_lane_done,
    .lane_pin_caller = cpu_lane_pin_caller, .lane_busy_ns = cpu_lane_busy_ns,
    .matrix_bytes = backend_weight_bytes, .matrix_fill = cpu_matrix_fill, .matrix_gather = cpu_matrix_gather,
    .act_bytes = backend_act_bytes, .act_init = backend_act_init,
    .embed = cpu_embed, .norm = cpu_norm, .quantize = cpu_quantize, .linear = cpu_linear,
    .rope_store = cpu_rope_store, .attention = cpu_attention, .swiglu = cpu_swiglu,
    .page_copy = cpu_page_copy, .tap = cpu_tap,
    .exchange = cpu_exchange, .fold = cpu_fold, .columns = cpu_columns, .pick = cpu_pick,
    .places_most = places_most, .routes_bytes = backend_routes_bytes, .routes_init = backend_routes_init,
    .route = cpu_route, .gather = cpu_gather, .expert_linear = cpu_expert_linear,
    .expert_swiglu = cpu_expert_swiglu, .combine = cpu_combine,
};
const struct backend_ops *const cpu_ops = &ops;

/* ---- cores ---- */

static long read_number(const char *path, long otherwise)
{
    FILE *file = fopen(path, "r");
    long value = otherwise;
    if (file) {
        if (fscanf(file, "%ld", &value) != 1) {
            value = otherwise;
        }
        fclose(file);
    }
    return value;
}

static long core_of(int cpu)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/core_id", cpu);
    const long core = read_number(path, cpu);
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
    return read_number(path, 0) * 65536 + core;
}

static int quota_of(const char *path)
{
    FILE *file = fopen(path, "r");
    double quota = 0, period = 0;
    int limit = 0;
    if (file) {
        if (fscanf(file, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0) {
            limit = (int)((quota + period - 1) / period);
        }
        fclose(file);
    }
    return limit;
}

/* Whole CPUs' worth of time the cgroup grants, rounded up; 0 = no limit. */
static int cgroup_cpu_limit(void)
{
    char line[512], path[640];
    int limit = quota_of("/sys/fs/cgroup/cpu.max");
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (limit == 0 && file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
            limit = quota_of(path);
        }
    }
    if (file) {
        fclose(file);
    }
    if (limit == 0) {
        const long quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
        const long period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 0);
        limit = quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
    }
    return limit;
}

int backend_cpu_list(int *cpus, int cap, int *n_physical)
{
    cpu_set_t set;
    long cores[CPU_SETSIZE];
    bool taken[CPU_SETSIZE] = { false };
    int n = 0, n_cores = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        CPU_SET(0, &set);
    }
    const int quota = cgroup_cpu_limit();
    const int limit = quota > 0 && quota < cap ? quota : cap;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < limit; cpu++) { /* one thread of each core */
        if (!CPU_ISSET((size_t)cpu, &set)) {
            continue;
        }
        const long core = core_of(cpu);
        bool seen = false;
        for (int i = 0; i < n_cores; i++) {
            seen = seen || cores[i] == core;
        }
        if (!seen) {
            cores[n_cores++] = core;
            taken[cpu] = true;
            cpus[n++] = cpu;
        }
    }
    if (n_physical) {
        *n_physical = n;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE && n < limit; cpu++) { /* then their siblings */
        if (CPU_ISSET((size_t)cpu, &set) && !taken[cpu]) {
            cpus[n++] = cpu;
        }
    }
    return n;
}
