/* cuda: backend and lane of a GPU. Private to backend/cuda.
 *
 *     step thread ──► lane ──┬── stream: launches and copies, in order
 *                            └── host: a lane of the CPU's for functions of the host (sampling, digests)
 *
 * A lane is one queue all the same: whichever side is asked next waits for the other first. The callers wait
 * for a pass before they look at its logits, so in practice nobody waits twice.
 *
 * A CUDA error is for good: the first one is kept with its sentence, later calls do nothing, and
 * backend_health() says it to whoever would use a result.
 */
#ifndef BACKEND_CUDA_CUDA_H
#define BACKEND_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <stdatomic.h>

#include "backend/comm_nccl.h"
#include "backend/cuda/kernels.h"
#include "backend/device.h"

enum { CUDA_SENTENCE_CAP = 256, CUDA_TICKETS = 64 };

struct CUgreenCtx_st;
struct cuda_gemm;
struct cuda_gemm_desk;
struct cuda_backend {
    struct backend base;
    int device;
    int n_multiprocessors;    /* 0: all; below 0: those that so many leave (partition.c) */
    struct CUgreenCtx_st *partition;
    bool keeps_graphs;        /* passes that come again are recorded */
    _Atomic uint64_t recorded_bytes; /* kept for what the driver takes for them, by all desks */
    struct cuda_gemm *gemm;   /* NULL but for the fast plan */
    struct comm_nccl *nccl;   /* of a model that ranks hold; NULL: none, or their exchanges go through the host */
    atomic_int failed;        /* 1: the sentence is being written; 2: it stands */
    char sentence[CUDA_SENTENCE_CAP];
};

/* What a ticket stands for: an event of the stream, or a ticket of the host's lane. */
struct cuda_ticket { cudaEvent_t event; uint64_t host; /* 0: the event */ };

struct cuda_lane {
    struct lane base;
    struct lane *host;
    cudaStream_t stream;
    struct cuda_ticket ring[CUDA_TICKETS];
    uint64_t n_submitted, n_done;
    bool is_marked;           /* nothing was launched since the ticket n_submitted was given out */
    struct pass_desk *desk;   /* of the pass under way */
    _Atomic int64_t busy_ns;
    int64_t busy_since_ns;
};

static inline struct cuda_backend *cuda_backend_of(struct backend *base) { return (struct cuda_backend *)base; }
static inline struct cuda_lane *cuda_lane_of(struct lane *base) { return (struct cuda_lane *)base; }

/* Whether a call went well; the first that did not is kept. `what` names it. */
bool cuda_ok(struct cuda_backend *backend, int error, const char *what);
/* The same of what is no error of CUDA's runtime: `why` in words. */
void cuda_fail(struct cuda_backend *backend, const char *what, const char *why);
bool cuda_has_failed(const struct cuda_backend *backend);
/* The calling thread's device is this one. */
bool cuda_enter(struct cuda_backend *backend);
/* For tests: recorded passes or none. Before the first pass. */
void cuda_backend_keep_graphs(struct backend *backend, bool keeps);
/* STATUS_NO_MEMORY with the sentence; to be freed with cudaFreeHost. */
enum status cuda_pinned_alloc(struct cuda_backend *backend, size_t bytes, void **out);
/* Multiple of what a copy, a panel or a plane wants. */
static inline size_t cuda_align(size_t bytes) { return (bytes + 255) & ~(size_t)255; }

/* ---- partition.c ---- */
void cuda_partition_open(struct cuda_backend *backend); /* or says that there is none */
void cuda_partition_close(struct cuda_backend *backend);
bool cuda_partition_stream(struct cuda_backend *backend, cudaStream_t *stream);

/* ---- lane.c ---- */
enum status cuda_lane_create(struct backend *backend, const struct lane_options *options, struct lane **out);
void cuda_lane_stop(struct lane *lane);
void cuda_lane_destroy(struct lane *lane);
uint64_t cuda_lane_submit(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks);
uint64_t cuda_lane_mark(struct lane *lane);
void cuda_lane_wait(struct lane *lane, uint64_t ticket);
bool cuda_lane_done(struct lane *lane, uint64_t ticket);
void cuda_lane_idle_until(struct lane *lane, const atomic_int *until);
void cuda_lane_wake(struct lane *lane);
void cuda_lane_pin_caller(const struct lane *lane);
int64_t cuda_lane_busy_ns(const struct lane *lane);
/* Before launches: the stream of this lane, once the host's functions have ended; NULL when the device has
 * failed. */
cudaStream_t cuda_lane_enter(struct cuda_lane *lane);
static inline struct cuda_backend *cuda_lane_backend(const struct cuda_lane *lane)
{
    return cuda_backend_of(lane->base.backend);
}

/* ---- matrix.c ---- */
size_t cuda_matrix_bytes(enum tensor_type type, int64_t n_out, int64_t n_in);
enum status cuda_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out, int32_t n_rows,
                             const void *rows, size_t row_stride_bytes);
enum status cuda_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                               const struct weight *to);

/* ---- desk.c ---- */
enum status cuda_desk_create(struct backend *backend, const struct pass_shape *shape, struct pass_desk **out);
void cuda_desk_destroy(struct pass_desk *desk);
uint64_t cuda_desk_bytes(const struct pass_desk *desk);
enum pass_way cuda_pass_begin(struct lane *lane, struct pass_desk *desk, struct pass_inputs *inputs);
uint64_t cuda_pass_end(struct lane *lane, struct pass_desk *desk, const struct pass_result *result);
const float *cuda_pass_logits(const struct pass_desk *desk);
/* Rows of the pass that ended last, on the device. */
struct cuda_logits { const float *row; int32_t n_rows, n_cols; };
struct cuda_logits cuda_desk_rows(const struct pass_desk *desk);
struct cuda_choosing *cuda_desk_choosing(const struct pass_desk *desk);
/* Of the pass under way: segments that its rows see at most, and where attention computes. */
struct cuda_room { int32_t n_segments; float *scratch; size_t scratch_floats; };
struct cuda_room cuda_desk_room(const struct pass_desk *desk);
/* Pinned memory for an exchange of so many floats. */
float *cuda_desk_stage(const struct pass_desk *desk, size_t n_floats);
/* What long passes of the fast plan multiply in; NULL where there are none. */
struct cuda_gemm_desk *cuda_desk_gemm(const struct pass_desk *desk);

/* ---- plan.c ---- */
enum status cuda_set_plan(struct backend *backend, enum numeric_plan plan);
void cuda_plan_linear(struct lane *lane, const struct cuda_op_linear *job);
/* The kinds of rows that an operation leaves: those asked for, or those that the plan's layers read instead. */
int cuda_plan_kinds(const struct lane *lane, int kinds, int32_t n_rows);

/* ---- choosing.c, choose_rows.c, rank_rows.c ---- */
enum status cuda_choosing_create(struct cuda_backend *backend, const struct pass_shape *shape,
                                 struct cuda_choosing **out);
void cuda_choosing_destroy(struct cuda_choosing *choosing); /* NULL is fine */
uint64_t cuda_choosing_bytes(const struct cuda_choosing *choosing); /* of the device */
/* Of the desk's scratch: for all rows at once where `most` is enough, else for one at least. */
size_t cuda_choosing_scratch_floats(const struct pass_shape *shape, size_t most);
enum status cuda_run_choose(struct lane *lane, struct pass_desk *desk, const struct op_choose *op);
enum status cuda_run_rank(struct lane *lane, struct pass_desk *desk, const struct op_rank *op);

/* ---- fetch.c ---- */
struct cuda_fetch { cudaStream_t stream; cudaEvent_t ready, fetched; bool is_under_way; };
bool cuda_fetch_open(struct cuda_backend *backend, struct cuda_fetch *fetch);
void cuda_fetch_close(struct cuda_fetch *fetch); /* zeroed is fine */
/* What comes on the stream behind this does not overwrite rows that have not left. */
void cuda_fetch_hold(struct cuda_backend *backend, struct cuda_fetch *fetch, cudaStream_t stream);
struct cuda_fetch *cuda_desk_fetch(struct pass_desk *desk);
void cuda_run_fetch(struct lane *lane, struct pass_desk *desk, const struct op_fetch *op);
enum status cuda_run_await(struct lane *lane, struct pass_desk *desk, const float **logits);

/* ---- ops.c ---- */
size_t cuda_act_bytes(int32_t n_cols, int32_t cap_rows);
void cuda_act_init(struct act *act, int32_t n_cols, int32_t cap_rows, void *memory);
void cuda_run_embed(struct lane *lane, const struct op_embed *op);
void cuda_run_norm(struct lane *lane, const struct op_norm *op);
void cuda_run_quantize(struct lane *lane, const struct op_quantize *op);
void cuda_run_linear(struct lane *lane, const struct op_linear *op);
void cuda_run_rope_store(struct lane *lane, const struct op_rope_store *op);
void cuda_run_attention(struct lane *lane, const struct op_attention *op);
void cuda_run_swiglu(struct lane *lane, const struct op_swiglu *op);
void cuda_run_page_copy(struct lane *lane, const struct op_page_copy *op);
void cuda_run_tap(struct lane *lane, const struct op_tap *op);

/* ---- ops_experts.c ---- */
int32_t cuda_places_most(int32_t n_experts, int32_t n_used, int32_t cap_rows);
void cuda_run_routes_init(struct routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows, void *memory);
void cuda_run_route(struct lane *lane, const struct op_route *op);
void cuda_run_gather(struct lane *lane, const struct op_gather *op);
void cuda_run_expert_linear(struct lane *lane, const struct op_expert_linear *op);
void cuda_run_expert_swiglu(struct lane *lane, const struct op_expert_swiglu *op);
void cuda_run_combine(struct lane *lane, const struct op_combine *op);

/* ---- ops_ranks.c ---- */
enum status cuda_ranks_open(struct backend *backend, struct comm *comm);
void cuda_ranks_close(struct backend *backend);
void cuda_run_exchange(struct lane *lane, const struct op_exchange *op);
void cuda_run_fold(struct lane *lane, const struct op_fold *op);
void cuda_run_columns(struct lane *lane, const struct op_columns *op);
void cuda_run_pick(struct lane *lane, const struct op_pick *op);

/* ---- what launches share ---- */
struct cuda_act cuda_act_of(const struct act *act, int kinds);
static inline struct cuda_weight cuda_weight_of(const struct weight *weight)
{
    return (struct cuda_weight){ weight->type, weight->n_out, weight->n_in, weight->data };
}
#define CUDA_RUN(lane, launcher, op, what)                                            \
    do {                                                                              \
        const cudaStream_t stream_ = cuda_lane_enter(cuda_lane_of(lane));             \
        if (stream_ != NULL) {                                                        \
            cuda_ok(cuda_backend_of((lane)->backend), launcher((op), stream_), what); \
        }                                                                             \
    } while (0)

#endif
