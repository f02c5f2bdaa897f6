/* ops: operations of backend.h as launches on a lane's stream. The kernels say what they compute (kernels.h);
 * here types that share an operation are told apart and long passes are cut to the scratch there is. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/layout.h"
#include "backend/cuda/weight.h"

/* ---- activations ---- */
static int32_t f32_stride(int32_t n_cols) { return (n_cols + 3) / 4 * 4; }

static size_t f32_bytes(int32_t n_cols, int32_t n_rows)
{
    return cuda_align((size_t)f32_stride(n_cols) * (size_t)n_rows * sizeof(float));
}

size_t cuda_act_bytes(int32_t n_cols, int32_t cap_rows)
{
    return f32_bytes(n_cols, cap_rows) + cuda_align(cuda_act_q8_bytes(n_cols, cap_rows));
}

void cuda_act_init(struct act *act, int32_t n_cols, int32_t cap_rows, void *memory)
{
    *act = (struct act){ .n_cols = n_cols, .cap_rows = cap_rows, .f32 = memory,
                         .q8 = (unsigned char *)memory + f32_bytes(n_cols, cap_rows) };
}

struct cuda_act cuda_act_of(const struct act *act, int kinds)
{
    return (struct cuda_act){ .n_cols = act->n_cols, .f32_stride = f32_stride(act->n_cols),
                              .f32 = kinds & ACT_F32 ? act->f32 : NULL, .q8 = kinds & ACT_Q8 ? act->q8 : NULL };
}

/* ---- launches ---- */
void cuda_run_embed(struct lane *lane, const struct op_embed *op)
{
    const struct cuda_op_embed job = { cuda_weight_of(op->table), op->token, op->out, op->n_rows };
    CUDA_RUN(lane, cuda_embed, &job, "the embedding");
}

void cuda_run_norm(struct lane *lane, const struct op_norm *op)
{
    const struct cuda_op_norm job = { .x = op->x, .row_idx = op->row_idx, .weight = op->weight, .eps = op->eps,
                                      .n_rows = op->n_rows,
                                      .out = cuda_act_of(op->out, cuda_plan_kinds(lane, op->kinds, op->n_rows)) };
    CUDA_RUN(lane, cuda_norm, &job, "a norm");
}

void cuda_run_quantize(struct lane *lane, const struct op_quantize *op)
{
    const struct cuda_op_quantize job = { cuda_act_of(op->act, ACT_F32 | ACT_Q8), op->n_rows };
    if (cuda_plan_kinds(lane, ACT_Q8, op->n_rows) == ACT_Q8) {
        CUDA_RUN(lane, cuda_quantize, &job, "quantising activations");
    }
}

void cuda_run_swiglu(struct lane *lane, const struct op_swiglu *op)
{
    const int kinds = cuda_plan_kinds(lane, op->kinds, op->n_rows);
    const struct cuda_op_swiglu job = { op->gate, op->up, op->n_rows, cuda_act_of(op->out, kinds) };
    CUDA_RUN(lane, cuda_swiglu, &job, "SwiGLU");
}

/* What a rank has of a matrix: group sums, which all ranks will add up. */
static void run_groups(struct lane *lane, const struct op_linear *op)
{
    const struct weight *weight = op->part[0].weight;
    struct cuda_op_linear_groups job = { .weight = cuda_weight_of(weight), .out = op->part[0].out,
                                         .n_groups = op->groups->n, .n_rows = op->n_rows,
                                         .x = cuda_act_of(op->x, backend_act_kind(weight->type)) };
    ASSERT(op->n_parts == 1 && op->part[0].add == NULL && op->part[0].bias == NULL);
    memcpy(job.begin, op->groups->begin, sizeof job.begin);
    CUDA_RUN(lane, cuda_linear_groups, &job, "a linear layer of several ranks");
}

/* A launch takes parts of one type: neighbours of another begin a launch of their own. */
void cuda_run_linear(struct lane *lane, const struct op_linear *op)
{
    ASSERT(op->n_parts >= 1 && op->n_parts <= LINEAR_PARTS);
    if (op->groups != NULL) {
        run_groups(lane, op);
        return;
    }
    for (int32_t first = 0; first < op->n_parts;) {
        const enum tensor_type type = op->part[first].weight->type;
        const int kinds = cuda_plan_kinds(lane, backend_act_kind(type), op->n_rows);
        struct cuda_op_linear job = { .n_rows = op->n_rows, .x = cuda_act_of(op->x, kinds) };
        int32_t p = first;
        for (; p < op->n_parts && op->part[p].weight->type == type; p++) {
            job.part[job.n_parts++] = (struct cuda_linear_part){
                .weight = cuda_weight_of(op->part[p].weight), .out = op->part[p].out, .add = op->part[p].add,
                .bias = op->part[p].bias };
        }
        cuda_plan_linear(lane, &job);
        first = p;
    }
}

void cuda_run_rope_store(struct lane *lane, const struct op_rope_store *op)
{
    const struct cuda_op_rope_store job = {
        .q = op->q, .k = op->k, .v = op->v, .cos = op->cos, .sin = op->sin, .position = op->position,
        .slot = op->slot, .store = *op->store, .layer = op->layer, .n_rows = op->n_rows, .n_heads = op->n_heads,
        .rope_dims = op->rope_dims, .q_norm = op->q_norm, .k_norm = op->k_norm, .norm_eps = op->norm_eps };
    CUDA_RUN(lane, cuda_rope_store, &job, "RoPE and the KV store");
}

/* As many rows at a time as the scratch holds; a desk holds one of the longest context at least. */
void cuda_run_attention(struct lane *lane, const struct op_attention *op)
{
    const struct pass_desk *desk = cuda_lane_of(lane)->desk;
    const int32_t row = op->n_heads * op->store->head_dim;
    if (desk == NULL) {
        return; /* no pass is under way: the device has failed */
    }
    const struct cuda_room room = cuda_desk_room(desk);
    const size_t each = cuda_attention_scratch_floats(1, op->n_heads, op->store->head_dim, room.n_segments);
    const size_t most = room.scratch_floats / each;
    const int32_t step = most < (size_t)op->n_rows ? (int32_t)most : op->n_rows;
    ASSERT(op->n_rows == 0 || step > 0);
    for (int32_t first = 0; first < op->n_rows; first += step) {
        const int32_t left = op->n_rows - first;
        const struct cuda_op_attention job = {
            .q = op->q + (size_t)first * (size_t)row, .out = op->out + (size_t)first * (size_t)row,
            .views = op->views, .seq_of_row = op->seq_of_row + first, .position = op->position + first,
            .store = *op->store, .layer = op->layer, .n_rows = left < step ? left : step, .n_heads = op->n_heads,
            .window = op->window, .n_group = op->n_group, .head_skip = op->head_skip, .scale = op->scale,
            .n_segments = room.n_segments, .scratch = room.scratch };
        CUDA_RUN(lane, cuda_attention, &job, "attention");
    }
}

void cuda_run_page_copy(struct lane *lane, const struct op_page_copy *op)
{
    const struct cuda_op_page_copy job = { *op->store, op->src, op->dst };
    CUDA_RUN(lane, cuda_page_copy, &job, "copying a page");
}

/* To memory of the host that may be anything, so the lane is waited for. */
void cuda_run_tap(struct lane *base, const struct op_tap *op)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    struct cuda_backend *backend = cuda_lane_backend(lane);
    const size_t bytes = (size_t)op->n_rows * (size_t)op->n_cols * sizeof(float);
    const cudaStream_t stream = cuda_lane_enter(lane);
    if (stream != NULL && cuda_ok(backend, cudaStreamSynchronize(stream), "a pass")) {
        cuda_ok(backend, cudaMemcpy(op->out, op->x, bytes, cudaMemcpyDeviceToHost), "fetching what was tapped");
    }
}
