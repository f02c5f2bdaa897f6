/* forward_ranks: a pass of a model that several ranks hold (shard.h).
 *
 * x and what is computed from it row by row is the same on every rank, bit for bit; so is the order of
 * every sum: group sums come from whoever owns the groups and are added up by all, ascending. A rank that
 * owns nothing of a layer takes part in its exchanges all the same.
 */
#include "model/forward.h"

/* Parts of all ranks, in their places; this rank's is written at own_part(). */
static void exchange(const struct forward *f, const int32_t *first, size_t unit_floats)
{
    float *all = f->buffers->exchange;
    const struct shard *shard = &f->model->shard;
    backend_exchange(f->lane, &(struct op_exchange){
        .comm = shard->comm, .parts = { .own = all + unit_floats * (size_t)first[shard->rank], .all = all,
                                        .first = first, .unit_floats = unit_floats, .root = COMM_ALL } });
}

static float *own_part(const struct forward *f, const int32_t *first, size_t unit_floats)
{
    return f->buffers->exchange + unit_floats * (size_t)first[f->model->shard.rank];
}

/* ---- embedding ---- */

static int32_t rank_of_token(const struct shard *shard, int32_t token)
{
    int32_t rank = 0;
    while (token >= shard->vocab_first[rank + 1]) {
        rank++;
    }
    return rank;
}

void forward_ranks_share_out(const struct model *model, const struct pass *pass, struct pass_buffers *buffers)
{
    const struct shard *shard = &model->shard;
    for (int32_t row = 0; row < pass->n_rows; row++) {
        const int32_t rank = rank_of_token(shard, pass->token[row]);
        buffers->part[row] = rank;
        buffers->own_token[row] = rank == shard->rank ? pass->token[row] - shard->vocab.first : 0;
    }
}

/* A part is all rows, as embedded by a rank, and of each row one part counts: what is exchanged does not depend on
 * the ids, so that a device can be told of it before they are known. */
void forward_ranks_embed(const struct forward *f)
{
    static const int32_t one_each[COMM_MAX_RANKS + 1] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };
    const struct shard *shard = &f->model->shard;
    struct pass_buffers *b = f->buffers;
    const int32_t n_rows = f->pass->n_rows, dim = f->model->config.dim;
    const size_t part_floats = (size_t)n_rows * (size_t)dim;
    if (shard->vocab.n > 0) {
        backend_embed(f->lane, &(struct op_embed){ .table = forward_matrix(f, -1, ROLE_EMBED), .token = f->own_token,
                                                   .out = own_part(f, one_each, part_floats), .n_rows = n_rows });
    }
    exchange(f, one_each, part_floats);
    backend_pick(f->lane, &(struct op_pick){ .x = b->exchange, .part = f->part, .out = b->x, .n_rows = n_rows,
                                             .n_cols = dim });
}

/* ---- a layer cut along its inputs: x += sums of all groups ---- */

struct cut_layer {
    const struct weight *weight;
    const struct act *act;
    const struct linear_groups *groups; /* own */
    const int32_t *group_first;         /* of all ranks */
};

static void add_groups(const struct forward *f, const struct cut_layer *layer)
{
    const struct shard *shard = &f->model->shard;
    const int32_t n_rows = f->pass->n_rows, dim = f->model->config.dim;
    const size_t group_floats = (size_t)n_rows * (size_t)dim;
    if (layer->groups->n > 0) {
        backend_linear(f->lane, &(struct op_linear){
            .part = { { .weight = layer->weight, .out = own_part(f, layer->group_first, group_floats) } },
            .n_parts = 1, .x = layer->act, .n_rows = n_rows, .groups = layer->groups });
    }
    exchange(f, layer->group_first, group_floats);
    backend_fold(f->lane, &(struct op_fold){ .sums = f->buffers->exchange, .x = f->buffers->x,
                                             .n_groups = layer->group_first[shard->n_ranks],
                                             .n_rows = n_rows, .n_cols = dim });
}

static void quantize(const struct forward *f, const struct act *act, const struct weight *reader)
{
    if (act->n_cols > 0 && (backend_act_kind(reader->type) & ACT_Q8)) {
        backend_quantize(f->lane, &(struct op_quantize){ .act = act, .n_rows = f->pass->n_rows });
    }
}

/* Heads cut in two by groups: all that o reads comes together, then all that it gives. */
static void add_outputs(const struct forward *f, const struct weight *o)
{
    const struct shard *shard = &f->model->shard;
    struct pass_buffers *b = f->buffers;
    const int32_t n_rows = f->pass->n_rows, n_ranks = shard->n_ranks;
    exchange(f, shard->q_first, (size_t)n_rows);
    backend_columns(f->lane, &(struct op_columns){ .parts = b->exchange, .first = shard->q_first,
                                                   .out = b->attended.f32, .n_ranks = n_ranks, .n_rows = n_rows });
    quantize(f, &b->attended, o);
    if (shard->dim.n > 0) {
        backend_linear(f->lane, &(struct op_linear){
            .part = { { .weight = o, .out = own_part(f, shard->dim_first, (size_t)n_rows) } },
            .n_parts = 1, .x = &b->attended, .n_rows = n_rows });
    }
    exchange(f, shard->dim_first, (size_t)n_rows);
    backend_columns(f->lane, &(struct op_columns){ .parts = b->exchange, .first = shard->dim_first, .add = b->x,
                                                   .out = b->x, .n_ranks = n_ranks, .n_rows = n_rows });
}

void forward_ranks_attended(const struct forward *f, int32_t layer)
{
    const struct shard *shard = &f->model->shard;
    const struct weight *o = forward_matrix(f, layer, ROLE_O);
    if (!shard->o_by_inputs) {
        add_outputs(f, o);
        return;
    }
    quantize(f, &f->buffers->attended, o);
    add_groups(f, &(struct cut_layer){ o, &f->buffers->attended, &shard->o_groups, shard->o_group_first });
}

void forward_ranks_gated(const struct forward *f, int32_t layer)
{
    const struct shard *shard = &f->model->shard;
    add_groups(f, &(struct cut_layer){ forward_matrix(f, layer, ROLE_DOWN), &f->buffers->gated,
                                       &shard->down_groups, shard->down_group_first });
}

/* ---- experts: places of a rank's experts are one run, known when rows have been routed ---- */

struct bounds_args { const struct routes *routes; const struct shard *shard; int32_t *first; };

static void bounds_fn(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct bounds_args *args = arguments;
    (void)chunk;
    (void)worker;
    for (int32_t rank = 0; rank <= args->shard->n_ranks; rank++) {
        args->first[rank] = args->routes->begin[args->shard->expert_first[rank]];
    }
}

void forward_ranks_mixed(const struct forward *f)
{
    struct pass_buffers *b = f->buffers;
    const struct bounds_args args = { &b->routes, &f->model->shard, b->place_first };
    lane_submit(f->lane, bounds_fn, &args, sizeof args, 1);
    backend_exchange(f->lane, &(struct op_exchange){
        .comm = f->model->shard.comm, .parts = { .all = b->mixed, .first = b->place_first,
                                                 .unit_floats = (size_t)f->model->config.dim, .root = COMM_ALL } });
}

/* ---- head ---- */

void forward_ranks_head(const struct forward *f)
{
    const struct shard *shard = &f->model->shard;
    struct pass_buffers *b = f->buffers;
    const int32_t n_rows = f->pass->n_logits;
    float *own = shard->rank == 0 ? b->exchange : b->logits;
    if (shard->vocab.n > 0) {
        backend_linear(f->lane, &(struct op_linear){
            .part = { { .weight = forward_matrix(f, -1, ROLE_HEAD), .out = own } },
            .n_parts = 1, .x = &b->last, .n_rows = n_rows });
    }
    backend_exchange(f->lane, &(struct op_exchange){
        .comm = shard->comm, .parts = { .own = own, .all = b->exchange, .first = shard->vocab_first,
                                        .unit_floats = (size_t)n_rows, .root = 0 } });
    if (shard->rank == 0) {
        backend_columns(f->lane, &(struct op_columns){ .parts = b->exchange, .first = shard->vocab_first,
                                                       .out = b->logits, .n_ranks = shard->n_ranks,
                                                       .n_rows = n_rows });
    }
}
