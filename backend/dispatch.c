/* dispatch: from the door to the device that a backend or lane belongs to. */
#include <string.h>

#include "backend/device.h"

/* ---- devices ---- */
enum status backend_create(const char *kind, const char *isa_or_null, struct backend **out)
{
    static const char cuda[] = "cuda:";
    *out = NULL;
    if (strcmp(kind, "cpu") == 0) {
        return cpu_backend_create(isa_or_null, out);
    }
    if (strncmp(kind, cuda, sizeof cuda - 1) == 0) {
        return cuda_backend_create(kind + sizeof cuda - 1, isa_or_null, out);
    }
    return status_fail(STATUS_UNSUPPORTED, "no backend '%s' in this build; there are cpu and cuda:0", kind);
}

void backend_destroy(struct backend *backend)
{
    if (backend != NULL) {
        backend->ops->destroy(backend);
    }
}

const char *numeric_plan_name(enum numeric_plan plan)
{
    static const char *const names[PLAN_COUNT] = { "exact", "native", "fast" };
    return names[plan];
}

enum status backend_set_plan(struct backend *backend, enum numeric_plan plan)
{
    if (plan != PLAN_EXACT && backend->ops->set_plan == NULL) {
        return status_fail(STATUS_UNSUPPORTED, "the plan on a CPU is exact; found '%s', which is for GPUs "
                           "(--target-device cuda:0)", numeric_plan_name(plan));
    }
    if (backend->ops->set_plan != NULL) {
        TRY(backend->ops->set_plan(backend, plan));
    }
    backend->plan = plan;
    return STATUS_OK;
}

enum numeric_plan backend_plan(const struct backend *backend) { return backend->plan; }
const char *backend_name(const struct backend *backend) { return backend->name; }
bool backend_is_host(const struct backend *backend) { return backend->ops->is_host; }
bool backend_has_experts(const struct backend *backend) { return backend->ops->route != NULL; }
bool backend_has_ranks(const struct backend *backend) { return backend->ops->exchange != NULL; }
bool backend_has_cuda(void) { return cuda_device_count() >= 0; }
int backend_n_cuda_devices(void) { return cuda_device_count() > 0 ? cuda_device_count() : 0; }

enum status backend_ranks_open(struct backend *backend, struct comm *comm)
{
    return backend->ops->ranks_open != NULL ? backend->ops->ranks_open(backend, comm) : STATUS_OK;
}

void backend_ranks_close(struct backend *backend)
{
    if (backend->ops->ranks_close != NULL) {
        backend->ops->ranks_close(backend);
    }
}

enum status backend_health(struct backend *backend)
{
    return backend->ops->health != NULL ? backend->ops->health(backend) : STATUS_OK;
}

/* ---- memory ---- */
void *backend_alloc(struct backend *backend, size_t bytes) { return backend->ops->alloc(backend, bytes); }

void backend_free(struct backend *backend, void *ptr, size_t bytes) { backend->ops->free(backend, ptr, bytes); }

uint64_t backend_free_bytes(struct backend *backend) { return backend->ops->free_bytes(backend); }

uint64_t backend_recorded_bytes(const struct backend *backend)
{
    return backend->ops->recorded_bytes != NULL ? backend->ops->recorded_bytes(backend) : 0;
}

enum status backend_upload(struct backend *backend, void *to, const void *from, size_t bytes)
{
    return backend->ops->upload(backend, to, from, bytes);
}

enum status backend_download(struct backend *backend, void *to, const void *from, size_t bytes)
{
    return backend->ops->download(backend, to, from, bytes);
}

/* ---- lanes ---- */
enum status lane_create(struct backend *backend, const struct lane_options *options, struct lane **out)
{
    return backend->ops->lane_create(backend, options, out);
}

void lane_destroy(struct lane *lane)
{
    if (lane != NULL) {
        lane->ops->lane_destroy(lane);
    }
}

void lane_stop(struct lane *lane)
{
    if (lane != NULL) {
        lane->ops->lane_stop(lane);
    }
}

void lane_idle_until(struct lane *lane, const atomic_int *until) { lane->ops->lane_idle_until(lane, until); }
void lane_wake(struct lane *lane) { lane->ops->lane_wake(lane); }

int lane_n_workers(const struct lane *lane) { return lane->n_workers; }
struct backend *lane_backend(const struct lane *lane) { return lane->backend; }

void lane_lend(struct lane *lender, struct lane *borrower)
{
    if (lender->ops == cpu_ops && borrower->ops == cpu_ops && lender->backend == borrower->backend) {
        cpu_lane_lend(lender, borrower);
    }
}

uint64_t lane_submit(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks)
{
    return lane->ops->lane_submit(lane, fn, args, args_bytes, n_chunks);
}

uint64_t lane_mark(struct lane *lane) { return lane->ops->lane_mark(lane); }
void lane_wait(struct lane *lane, uint64_t ticket) { lane->ops->lane_wait(lane, ticket); }
bool lane_done(struct lane *lane, uint64_t ticket) { return lane->ops->lane_done(lane, ticket); }
void lane_pin_caller(const struct lane *lane) { lane->ops->lane_pin_caller(lane); }
int64_t lane_busy_ns(const struct lane *lane) { return lane->ops->lane_busy_ns(lane); }

/* ---- layouts ---- */
size_t backend_matrix_bytes(const struct backend *backend, enum tensor_type type, int64_t n_out, int64_t n_in)
{
    return backend->ops->matrix_bytes(type, n_out, n_in);
}

enum status backend_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out,
                                int32_t n_rows, const void *rows, size_t row_stride_bytes)
{
    return backend->ops->matrix_fill(backend, weight, first_out, n_rows, rows, row_stride_bytes);
}

enum status backend_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                                  const struct weight *to)
{
    return backend->ops->matrix_gather(backend, from, rows, to);
}

size_t backend_rows_bytes(const struct backend *backend, int32_t n_cols, int32_t cap_rows)
{
    return backend->ops->act_bytes(n_cols, cap_rows);
}

void backend_rows_init(const struct backend *backend, struct act *act, int32_t n_cols, int32_t cap_rows, void *memory)
{
    backend->ops->act_init(act, n_cols, cap_rows, memory);
}

int32_t backend_places_most(const struct backend *backend, int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    return backend->ops->places_most(n_experts, n_used, cap_rows);
}

size_t backend_routing_bytes(const struct backend *backend, int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    return backend->ops->routes_bytes(n_experts, n_used, cap_rows);
}

void backend_routing_init(const struct backend *backend, struct routes *routes, int32_t n_experts, int32_t n_used,
                          int32_t cap_rows, void *memory)
{
    backend->ops->routes_init(routes, n_experts, n_used, cap_rows, memory);
}

/* ---- passes ---- */
enum status backend_desk_create(struct backend *backend, const struct pass_shape *shape, struct pass_desk **out)
{
    *out = NULL;
    return backend->ops->desk_create != NULL ? backend->ops->desk_create(backend, shape, out) : STATUS_OK;
}

void backend_desk_destroy(struct backend *backend, struct pass_desk *desk)
{
    if (desk != NULL) {
        backend->ops->desk_destroy(desk);
    }
}

uint64_t backend_desk_bytes(const struct backend *backend, const struct pass_desk *desk)
{
    return desk != NULL ? backend->ops->desk_bytes(desk) : 0;
}

enum pass_way backend_pass_begin(struct lane *lane, struct pass_desk *desk, struct pass_inputs *inputs)
{
    return desk != NULL ? lane->ops->pass_begin(lane, desk, inputs) : PASS_SUBMIT;
}

uint64_t backend_pass_end(struct lane *lane, struct pass_desk *desk, const struct pass_result *result)
{
    return desk != NULL ? lane->ops->pass_end(lane, desk, result) : lane->ops->lane_mark(lane);
}

const float *backend_pass_logits(const struct backend *backend, const struct pass_desk *desk, const float *logits)
{
    return desk != NULL ? backend->ops->pass_logits(desk) : logits;
}

bool backend_chooses(const struct backend *backend, const struct pass_desk *desk)
{
    return desk != NULL && backend->ops->choose != NULL;
}

enum status backend_choose(struct lane *lane, struct pass_desk *desk, const struct op_choose *op)
{
    return lane->ops->choose(lane, desk, op);
}

enum status backend_rank(struct lane *lane, struct pass_desk *desk, const struct op_rank *op)
{
    return lane->ops->rank(lane, desk, op);
}

void backend_fetch(struct lane *lane, struct pass_desk *desk, const struct op_fetch *op)
{
    lane->ops->fetch(lane, desk, op);
}

enum status backend_await(struct lane *lane, struct pass_desk *desk, const float **logits)
{
    return lane->ops->await(lane, desk, logits);
}

/* ---- operations ---- */
#define DISPATCH(name) \
    void backend_##name(struct lane *lane, const struct op_##name *op) { lane->ops->name(lane, op); }
DISPATCH(embed)
DISPATCH(norm)
DISPATCH(quantize)
DISPATCH(linear)
DISPATCH(rope_store)
DISPATCH(attention)
DISPATCH(swiglu)
DISPATCH(page_copy)
DISPATCH(tap)
DISPATCH(exchange)
DISPATCH(fold)
DISPATCH(columns)
DISPATCH(pick)
DISPATCH(route)
DISPATCH(gather)
DISPATCH(expert_linear)
DISPATCH(expert_swiglu)
DISPATCH(combine)
