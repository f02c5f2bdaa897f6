/* ops_experts: mixtures of experts as launches. Who goes where is decided on the device; the host knows the
 * most there can be. */
#include "backend/cuda/cuda.h"

int32_t cuda_places_most(int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    const struct cuda_routes shape = { .n_experts = n_experts, .n_used = n_used, .cap_rows = cap_rows };
    return cuda_routes_places(&shape);
}

/* The door's struct holds the device's arrays; what a CPU counts while it hands out places is the count here. */
static struct cuda_routes routes_of(const struct routes *routes)
{
    return (struct cuda_routes){
        .n_experts = routes->n_experts, .n_used = routes->n_used, .cap_rows = routes->cap_rows,
        .expert = routes->expert, .weight = routes->weight, .place = routes->place, .row = routes->row,
        .owner = routes->owner, .begin = routes->begin, .count = routes->next, .touched = routes->touched };
}

void cuda_run_routes_init(struct routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows, void *memory)
{
    struct cuda_routes there;
    cuda_routes_init(&there, n_experts, n_used, cap_rows, memory);
    *routes = (struct routes){
        .n_experts = n_experts, .n_used = n_used, .cap_rows = cap_rows, .expert = there.expert,
        .weight = there.weight, .place = there.place, .row = there.row, .owner = there.owner, .begin = there.begin,
        .next = there.count, .touched = there.touched };
}

void cuda_run_route(struct lane *lane, const struct op_route *op)
{
    const struct cuda_op_route job = { op->logits, op->position, routes_of(op->routes), op->n_rows, op->normalised };
    CUDA_RUN(lane, cuda_route, &job, "choosing experts");
}

void cuda_run_gather(struct lane *lane, const struct op_gather *op)
{
    const struct cuda_op_gather job = { op->x, routes_of(op->routes), op->n_rows, cuda_act_of(op->out, op->kinds) };
    CUDA_RUN(lane, cuda_gather, &job, "rows of experts");
}

/* Parts of one type share a launch. */
void cuda_run_expert_linear(struct lane *lane, const struct op_expert_linear *op)
{
    ASSERT(op->n_parts >= 1 && op->n_parts <= EXPERT_PARTS);
    for (int32_t first = 0; first < op->n_parts;) {
        const enum tensor_type type = op->part[first].weights->first.type;
        struct cuda_op_expert_linear job = { .n_rows = op->n_rows, .routes = routes_of(op->routes),
                                             .x = cuda_act_of(op->x, backend_act_kind(type)) };
        int32_t p = first;
        for (; p < op->n_parts && op->part[p].weights->first.type == type; p++, job.n_parts++) {
            job.part[job.n_parts].weights = cuda_weight_of(&op->part[p].weights->first);
            job.part[job.n_parts].stride_bytes = op->part[p].weights->stride_bytes;
            job.part[job.n_parts].out = op->part[p].out;
        }
        CUDA_RUN(lane, cuda_expert_linear, &job, "a layer of experts");
        first = p;
    }
}

void cuda_run_expert_swiglu(struct lane *lane, const struct op_expert_swiglu *op)
{
    const struct cuda_op_expert_swiglu job = { op->gate, op->up, routes_of(op->routes), op->n_rows,
                                               cuda_act_of(op->out, op->kinds) };
    CUDA_RUN(lane, cuda_expert_swiglu, &job, "SwiGLU of experts");
}

void cuda_run_combine(struct lane *lane, const struct op_combine *op)
{
    const struct cuda_op_combine job = { op->y, op->x, routes_of(op->routes), op->n_rows, op->n_cols };
    CUDA_RUN(lane, cuda_combine, &job, "adding up experts");
}
