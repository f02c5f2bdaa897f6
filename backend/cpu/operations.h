/* operations: what cpu.c puts into the table of functions: backend.h's operations on host memory, and
 * lanes of the host's workers.
 */
#ifndef BACKEND_CPU_OPERATIONS_H
#define BACKEND_CPU_OPERATIONS_H

#include "backend/device.h"

/* ---- lane.c ---- */
void cpu_lane_stop(struct lane *lane);
void cpu_lane_destroy(struct lane *lane);
void cpu_lane_idle_until(struct lane *lane, const atomic_int *until);
void cpu_lane_wake(struct lane *lane);
uint64_t cpu_lane_submit(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks);
uint64_t cpu_lane_mark(struct lane *lane);
void cpu_lane_wait(struct lane *lane, uint64_t ticket);
bool cpu_lane_done(struct lane *lane, uint64_t ticket);
void cpu_lane_pin_caller(const struct lane *lane);
int64_t cpu_lane_busy_ns(const struct lane *lane);

/* ---- weight.c ---- */
enum status cpu_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out, int32_t n_rows,
                            const void *rows, size_t row_stride_bytes);
enum status cpu_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                              const struct weight *to);

/* ---- ops.c, ops_linear.c, ops_ranks.c, ops_moe.c ---- */
void cpu_embed(struct lane *lane, const struct op_embed *op);
void cpu_norm(struct lane *lane, const struct op_norm *op);
void cpu_quantize(struct lane *lane, const struct op_quantize *op);
void cpu_linear(struct lane *lane, const struct op_linear *op);
void cpu_rope_store(struct lane *lane, const struct op_rope_store *op);
void cpu_attention(struct lane *lane, const struct op_attention *op);
void cpu_swiglu(struct lane *lane, const struct op_swiglu *op);
void cpu_page_copy(struct lane *lane, const struct op_page_copy *op);
void cpu_tap(struct lane *lane, const struct op_tap *op);
void cpu_exchange(struct lane *lane, const struct op_exchange *op);
void cpu_fold(struct lane *lane, const struct op_fold *op);
void cpu_columns(struct lane *lane, const struct op_columns *op);
void cpu_pick(struct lane *lane, const struct op_pick *op);
void cpu_route(struct lane *lane, const struct op_route *op);
void cpu_gather(struct lane *lane, const struct op_gather *op);
void cpu_expert_linear(struct lane *lane, const struct op_expert_linear *op);
void cpu_expert_swiglu(struct lane *lane, const struct op_expert_swiglu *op);
void cpu_combine(struct lane *lane, const struct op_combine *op);

#endif
