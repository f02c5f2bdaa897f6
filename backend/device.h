/* device: what stands behind `struct backend` and `struct lane`. A kind of device is one table of functions
 * and a folder: cpu/ computes on the host, cuda/ on GPUs. Private to backend.
 *
 *     backend.h ──► dispatch.c ──► lane->ops ──► cpu/   chunks for workers
 *                                           └──► cuda/  launches on a stream, and a lane of the CPU's
 *                                                       beside it for functions of the host
 *
 * What a function promises is said in backend.h. Members that only some devices need may be NULL where it
 * is said so here.
 */
#ifndef BACKEND_DEVICE_H
#define BACKEND_DEVICE_H

#include <stdatomic.h>

#include "backend/backend.h"

/* Where sleeping workers of all lanes wait: one futex word, so that lanes can lend each other cores. */
struct cpu_wake {
    _Alignas(64) _Atomic uint32_t epoch;
    _Alignas(64) _Atomic uint32_t n_sleepers;
};

/* Every kind's backend begins with this. Kernels and wake are the host's, on any kind: functions of the
 * host run beside every device. */
struct backend {
    const struct backend_ops *ops;
    const struct cpu_kernels *kernels;
    enum numeric_plan plan;
    char name[64];
    struct cpu_wake wake;
};

/* Every kind's lane begins with this. */
struct lane {
    const struct backend_ops *ops;
    struct backend *backend;
    int n_workers; /* of the host */
};

struct backend_ops {
    bool is_host; /* pointers of its memory are the host's too */
    void (*destroy)(struct backend *backend);
    enum status (*health)(struct backend *backend); /* NULL: cannot fail */
    enum status (*set_plan)(struct backend *backend, enum numeric_plan plan); /* NULL: exact alone */

    /* ---- memory ---- */
    void *(*alloc)(struct backend *backend, size_t bytes);
    void (*free)(struct backend *backend, void *ptr, size_t bytes);
    uint64_t (*free_bytes)(struct backend *backend);
    uint64_t (*recorded_bytes)(const struct backend *backend); /* NULL: passes are not recorded */
    enum status (*upload)(struct backend *backend, void *to, const void *from, size_t bytes);
    enum status (*download)(struct backend *backend, void *to, const void *from, size_t bytes);

    /* ---- lanes ---- */
    enum status (*lane_create)(struct backend *backend, const struct lane_options *options, struct lane **out);
    void (*lane_stop)(struct lane *lane);
    void (*lane_destroy)(struct lane *lane);
    uint64_t (*lane_submit)(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks);
    uint64_t (*lane_mark)(struct lane *lane);
    void (*lane_wait)(struct lane *lane, uint64_t ticket);
    bool (*lane_done)(struct lane *lane, uint64_t ticket);
    void (*lane_idle_until)(struct lane *lane, const atomic_int *until);
    void (*lane_wake)(struct lane *lane);
    void (*lane_pin_caller)(const struct lane *lane);
    int64_t (*lane_busy_ns)(const struct lane *lane);

    /* ---- layouts ---- */
    size_t (*matrix_bytes)(enum tensor_type type, int64_t n_out, int64_t n_in);
    enum status (*matrix_fill)(struct backend *backend, const struct weight *weight, int32_t first_out,
                               int32_t n_rows, const void *rows, size_t row_stride_bytes);
    enum status (*matrix_gather)(struct backend *backend, const struct weight *from, const int32_t *rows,
                                 const struct weight *to);
    size_t (*act_bytes)(int32_t n_cols, int32_t cap_rows);
    void (*act_init)(struct act *act, int32_t n_cols, int32_t cap_rows, void *memory);

    /* ---- passes; all NULL where operations read what the host wrote ---- */
    enum status (*desk_create)(struct backend *backend, const struct pass_shape *shape, struct pass_desk **out);
    void (*desk_destroy)(struct pass_desk *desk);
    uint64_t (*desk_bytes)(const struct pass_desk *desk);
    enum pass_way (*pass_begin)(struct lane *lane, struct pass_desk *desk, struct pass_inputs *inputs);
    uint64_t (*pass_end)(struct lane *lane, struct pass_desk *desk, const struct pass_result *result);
    const float *(*pass_logits)(const struct pass_desk *desk);

    /* ---- choices of tokens: all or none, and none without desks ---- */
    enum status (*choose)(struct lane *lane, struct pass_desk *desk, const struct op_choose *op);
    enum status (*rank)(struct lane *lane, struct pass_desk *desk, const struct op_rank *op);
    void (*fetch)(struct lane *lane, struct pass_desk *desk, const struct op_fetch *op);
    enum status (*await)(struct lane *lane, struct pass_desk *desk, const float **logits);

    /* ---- operations; NULL: this device has no kernel for it, and load refused what needs it ---- */
    void (*embed)(struct lane *lane, const struct op_embed *op);
    void (*norm)(struct lane *lane, const struct op_norm *op);
    void (*quantize)(struct lane *lane, const struct op_quantize *op);
    void (*linear)(struct lane *lane, const struct op_linear *op);
    void (*rope_store)(struct lane *lane, const struct op_rope_store *op);
    void (*attention)(struct lane *lane, const struct op_attention *op);
    void (*swiglu)(struct lane *lane, const struct op_swiglu *op);
    void (*page_copy)(struct lane *lane, const struct op_page_copy *op);
    void (*tap)(struct lane *lane, const struct op_tap *op);
    /* ranks: all or none; open and close NULL: an exchange needs nothing of its own */
    enum status (*ranks_open)(struct backend *backend, struct comm *comm);
    void (*ranks_close)(struct backend *backend);
    void (*exchange)(struct lane *lane, const struct op_exchange *op);
    void (*fold)(struct lane *lane, const struct op_fold *op);
    void (*columns)(struct lane *lane, const struct op_columns *op);
    void (*pick)(struct lane *lane, const struct op_pick *op);
    /* experts: all or none */
    int32_t (*places_most)(int32_t n_experts, int32_t n_used, int32_t cap_rows);
    size_t (*routes_bytes)(int32_t n_experts, int32_t n_used, int32_t cap_rows);
    void (*routes_init)(struct routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows, void *memory);
    void (*route)(struct lane *lane, const struct op_route *op);
    void (*gather)(struct lane *lane, const struct op_gather *op);
    void (*expert_linear)(struct lane *lane, const struct op_expert_linear *op);
    void (*expert_swiglu)(struct lane *lane, const struct op_expert_swiglu *op);
    void (*combine)(struct lane *lane, const struct op_combine *op);
};

extern const struct backend_ops *const cpu_ops;
/* cpu/cpu.c; isa_or_null as in backend_create(). */
enum status cpu_backend_create(const char *isa_or_null, struct backend **out);
/* The part of any backend that is the host's: its kernels. */
enum status cpu_backend_init(const char *isa_or_null, struct backend *backend);
/* A lane of the host's workers on any backend. cpu/lane.c */
enum status cpu_lane_create(struct backend *backend, const struct lane_options *options, struct lane **out);
void cpu_lane_lend(struct lane *lender, struct lane *borrower);
/* cuda/runtime.c, or cuda_none.c in builds without: `words` is what follows "cuda:". */
enum status cuda_backend_create(const char *words, const char *isa_or_null, struct backend **out);
int cuda_device_count(void); /* -1: built without CUDA */

#endif
