/* runtime: a GPU as a backend: which one, its memory, and what is kept of its first error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/gemm.h"

enum { NOT_FAILED, FAILING, FAILED };

/* ---- errors ---- */
bool cuda_has_failed(const struct cuda_backend *backend) { return atomic_load(&backend->failed) != NOT_FAILED; }

void cuda_fail(struct cuda_backend *backend, const char *what, const char *why)
{
    int expected = NOT_FAILED;
    if (atomic_compare_exchange_strong(&backend->failed, &expected, FAILING)) {
        snprintf(backend->sentence, sizeof backend->sentence, "cuda:%d failed for good: %s: %s", backend->device, what,
                 why);
        atomic_store(&backend->failed, FAILED);
    }
}

bool cuda_ok(struct cuda_backend *backend, int error, const char *what)
{
    if (error == cudaSuccess) {
        return true;
    }
    cuda_fail(backend, what, cudaGetErrorString((cudaError_t)error));
    return false;
}

bool cuda_enter(struct cuda_backend *backend)
{
    return !cuda_has_failed(backend) && cuda_ok(backend, cudaSetDevice(backend->device), "choosing the device");
}

static enum status health(struct backend *base)
{
    const struct cuda_backend *backend = cuda_backend_of(base);
    int failed = atomic_load(&backend->failed);
    while (failed == FAILING) {
        failed = atomic_load(&backend->failed);
    }
    return failed == NOT_FAILED ? STATUS_OK : status_fail(STATUS_IO, "%s", backend->sentence);
}

void cuda_backend_keep_graphs(struct backend *backend, bool keeps) { cuda_backend_of(backend)->keeps_graphs = keeps; }

/* ---- memory ---- */
static void *alloc(struct backend *base, size_t bytes)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    void *ptr = NULL;
    if (!cuda_enter(backend)) {
        return NULL;
    }
    if (cudaMalloc(&ptr, bytes > 0 ? bytes : 1) != cudaSuccess) { /* no failure of the device: it is full */
        (void)cudaGetLastError();
        return NULL;
    }
    /* Lanes' streams do not wait for the default one, so we do. */
    if (!cuda_ok(backend, cudaMemset(ptr, 0, bytes > 0 ? bytes : 1), "clearing memory") ||
        !cuda_ok(backend, cudaStreamSynchronize(NULL), "clearing memory")) {
        return NULL;
    }
    return ptr;
}

static void release(struct backend *base, void *ptr, size_t bytes)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    (void)bytes;
    (void)cudaSetDevice(backend->device);
    (void)cudaFree(ptr); /* after an error this fails too, and the process is about to end */
}

static uint64_t free_bytes(struct backend *base)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    size_t n_free = 0, n_all = 0;
    return cuda_enter(backend) && cuda_ok(backend, cudaMemGetInfo(&n_free, &n_all), "asking for memory") ? n_free : 0;
}

static uint64_t recorded_bytes(const struct backend *base)
{
    return atomic_load(&((const struct cuda_backend *)base)->recorded_bytes);
}

enum status cuda_pinned_alloc(struct cuda_backend *backend, size_t bytes, void **out)
{
    if (!cuda_enter(backend) || cudaMallocHost(out, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        *out = NULL;
        return status_fail(STATUS_NO_MEMORY, "no pinned memory of %.1f MiB for %s", (double)bytes / (1024.0 * 1024.0),
                           backend_name(&backend->base));
    }
    return STATUS_OK;
}

/* A copy of memory that is not pinned may return when only the host's part is done. */
static enum status copy(struct cuda_backend *backend, void *to, const void *from, size_t bytes,
                        enum cudaMemcpyKind kind)
{
    if (cuda_enter(backend) && cuda_ok(backend, cudaMemcpy(to, from, bytes, kind), "copying")) {
        cuda_ok(backend, cudaStreamSynchronize(NULL), "copying");
    }
    return health(&backend->base);
}

static enum status upload(struct backend *backend, void *to, const void *from, size_t bytes)
{
    return copy(cuda_backend_of(backend), to, from, bytes, cudaMemcpyHostToDevice);
}

static enum status download(struct backend *backend, void *to, const void *from, size_t bytes)
{
    return copy(cuda_backend_of(backend), to, from, bytes, cudaMemcpyDeviceToHost);
}

/* ---- the backend ---- */
static void destroy(struct backend *backend)
{
    cuda_gemm_close(cuda_backend_of(backend)->gemm);
    cuda_ranks_close(backend);
    cuda_partition_close(cuda_backend_of(backend));
    mem_free(backend);
}

static const struct backend_ops ops = {
    .is_host = false,
    .destroy = destroy, .health = health, .set_plan = cuda_set_plan,
    .alloc = alloc, .free = release, .free_bytes = free_bytes, .recorded_bytes = recorded_bytes,
    .upload = upload, .download = download,
    .lane_create = cuda_lane_create, .lane_stop = cuda_lane_stop, .lane_destroy = cuda_lane_destroy,
    .lane_idle_until = cuda_lane_idle_until, .lane_wake = cuda_lane_wake, .lane_submit = cuda_lane_submit,
    .lane_mark = cuda_lane_mark, .lane_wait = cuda_lane_wait, .lane_done = cuda_lane_done,
    .lane_pin_caller = cuda_lane_pin_caller, .lane_busy_ns = cuda_lane_busy_ns,
    .matrix_bytes = cuda_matrix_bytes, .matrix_fill = cuda_matrix_fill, .matrix_gather = cuda_matrix_gather,
    .act_bytes = cuda_act_bytes, .act_init = cuda_act_init,
    .desk_create = cuda_desk_create, .desk_destroy = cuda_desk_destroy, .desk_bytes = cuda_desk_bytes,
    .pass_begin = cuda_pass_begin, .pass_end = cuda_pass_end, .pass_logits = cuda_pass_logits,
    .choose = cuda_run_choose, .rank = cuda_run_rank, .fetch = cuda_run_fetch, .await = cuda_run_await,
    .embed = cuda_run_embed, .norm = cuda_run_norm, .quantize = cuda_run_quantize, .linear = cuda_run_linear,
    .rope_store = cuda_run_rope_store, .attention = cuda_run_attention, .swiglu = cuda_run_swiglu,
    .page_copy = cuda_run_page_copy, .tap = cuda_run_tap,
    .ranks_open = cuda_ranks_open, .ranks_close = cuda_ranks_close,
    .exchange = cuda_run_exchange, .fold = cuda_run_fold, .columns = cuda_run_columns, .pick = cuda_run_pick,
    .places_most = cuda_places_most, .routes_bytes = cuda_routes_bytes, .routes_init = cuda_run_routes_init,
    .route = cuda_run_route, .gather = cuda_run_gather, .expert_linear = cuda_run_expert_linear,
    .expert_swiglu = cuda_run_expert_swiglu, .combine = cuda_run_combine,
};

int cuda_device_count(void)
{
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

/* What follows the device: "", "/40" or "/-40". */
static bool parse_part(const char *at, int *n_multiprocessors)
{
    char *end;
    if (*at == '\0') {
        return true;
    }
    const int sign = at[1] == '-';
    const long n = *at == '/' ? strtol(at + 1, &end, 10) : 0;
    *n_multiprocessors = (int)n;
    return *at == '/' && at[1 + sign] >= '1' && at[1 + sign] <= '9' && *end == '\0' && n > -1024 && n < 1024;
}

/* "0", "0/40"; a list is for tensor parallelism. */
static enum status parse_device(const char *words, int *device, int *n_multiprocessors)
{
    char *end;
    const long n = strtol(words, &end, 10);
    if (words[0] < '0' || words[0] > '9' || (*end != ',' && !parse_part(end, n_multiprocessors))) {
        return status_fail(STATUS_INVALID, "expected a device like cuda:0, or cuda:0/40 for 40 of its multiprocessors, "
                           "found 'cuda:%s'", words);
    }
    if (*end == ',') {
        return status_fail(STATUS_UNSUPPORTED, "several GPUs hold a target; one is wanted here, found cuda:%s", words);
    }
    const int n_devices = cuda_device_count();
    if (n_devices == 0) {
        return status_fail(STATUS_UNSUPPORTED, "no device cuda:%s: this machine shows no GPU, or its driver is older "
                           "than this build's CUDA", words);
    }
    if (n >= n_devices) {
        return status_fail(STATUS_UNSUPPORTED, "no device cuda:%s; there are cuda:0 to cuda:%d", words, n_devices - 1);
    }
    *device = (int)n;
    return STATUS_OK;
}

static enum status open_device(struct cuda_backend *backend, const char *isa_or_null)
{
    struct cudaDeviceProp prop;
    TRY(cpu_backend_init(isa_or_null, &backend->base));
    if (!cuda_enter(backend) ||
        !cuda_ok(backend, cudaGetDeviceProperties(&prop, backend->device), "asking for its name")) {
        return health(&backend->base);
    }
    snprintf(backend->base.name, sizeof backend->base.name, "cuda:%d %.48s", backend->device, prop.name);
    cuda_partition_open(backend);
    return STATUS_OK;
}

enum status cuda_backend_create(const char *words, const char *isa_or_null, struct backend **out)
{
    int device = 0, n_multiprocessors = 0;
    *out = NULL;
    TRY(parse_device(words, &device, &n_multiprocessors));
    struct cuda_backend *backend = mem_alloc(1, sizeof *backend);
    if (backend == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a backend");
    }
    backend->base.ops = &ops;
    backend->device = device;
    backend->n_multiprocessors = n_multiprocessors;
    backend->keeps_graphs = true;
    const enum status status = open_device(backend, isa_or_null);
    if (status != STATUS_OK) {
        mem_free(backend);
        return status;
    }
    *out = &backend->base;
    return STATUS_OK;
}
