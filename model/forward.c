/* forward: the transformer, written once over backend operations.
 *
 *     x = embed(token)
 *     each layer:  normed = norm(x)         q, k, v = W normed (+ bias)
 *                  (norm q, k) rope(q, k)   store k, v at slot
 *                  attended = attention(q)  x += W_o attended
 *                  normed = norm(x)         gate, up = W normed
 *                  gated = silu(gate) * up  x += W_down gated
 *           or, with experts, the last two for each row's experts: x += sum of weight * W_down gated
 *     logits = W_head norm(x), of the rows asked for
 *
 * It only submits: the lane runs the operations in this order. Whether an activation is needed as
 * floats, as quantised panels or as both follows from the types of the weights that read it. Nothing
 * here looks at which rows share the pass, so a row's bits cannot depend on it. Where several ranks hold
 * the model, heads, features and ids are this rank's, and forward_ranks.c brings their parts together.
 */
#include <math.h>
#include <string.h>

#include "model/forward.h"

static const struct weight *matrix(const struct forward *f, int32_t layer, enum tensor_role role)
{
    return forward_matrix(f, layer, role);
}

static const float *vector(const struct forward *f, int32_t layer, enum tensor_role role)
{
    return model_slot(f->model, layer, role)->vector;
}

static int kind_of(const struct forward *f, int32_t layer, enum tensor_role role)
{
    return backend_act_kind(matrix(f, layer, role)->type);
}

/* x → normed, in the kinds that its readers want */
static void norm(const struct forward *f, const float *weight, int kinds)
{
    backend_norm(f->lane, &(struct op_norm){
        .x = f->buffers->x, .weight = weight, .eps = f->model->config.norm_eps,
        .n_rows = f->pass->n_rows, .kinds = kinds, .out = &f->buffers->normed });
}

/* x = x + W act */
static void add_linear(const struct forward *f, const struct weight *weight, const struct act *act)
{
    backend_linear(f->lane, &(struct op_linear){
        .part = { { .weight = weight, .out = f->buffers->x, .add = f->buffers->x } },
        .n_parts = 1, .x = act, .n_rows = f->pass->n_rows });
}

/* A bias is held whole. */
static const float *bias(const struct forward *f, int32_t layer, enum tensor_role role, int32_t first)
{
    const float *whole = vector(f, layer, role);
    return whole ? whole + first : NULL;
}

/* x → what this rank's heads give, at `out` */
static void attend(const struct forward *f, int32_t layer, float *out)
{
    struct pass_buffers *b = f->buffers;
    const struct model_config *config = &f->model->config;
    const struct shard *shard = &f->model->shard;
    const struct pass *pass = f->pass;
    const int32_t q_first = shard->heads.first * config->head_dim;
    const int32_t kv_first = shard->kv_heads.first * config->head_dim;
    norm(f, vector(f, layer, ROLE_ATTN_NORM),
         kind_of(f, layer, ROLE_Q) | kind_of(f, layer, ROLE_K) | kind_of(f, layer, ROLE_V));
    backend_linear(f->lane, &(struct op_linear){
        .part = { { .weight = matrix(f, layer, ROLE_Q), .out = b->q, .bias = bias(f, layer, ROLE_Q_BIAS, q_first) },
                  { .weight = matrix(f, layer, ROLE_K), .out = b->k, .bias = bias(f, layer, ROLE_K_BIAS, kv_first) },
                  { .weight = matrix(f, layer, ROLE_V), .out = b->v, .bias = bias(f, layer, ROLE_V_BIAS, kv_first) } },
        .n_parts = 3, .x = &b->normed, .n_rows = pass->n_rows });
    backend_rope_store(f->lane, &(struct op_rope_store){
        .q = b->q, .k = b->k, .v = b->v, .cos = f->model->cos, .sin = f->model->sin,
        .position = pass->position, .slot = pass->slot, .store = f->store, .layer = layer,
        .n_rows = pass->n_rows, .n_heads = shard->heads.n, .rope_dims = config->rope.dims,
        .q_norm = vector(f, layer, ROLE_Q_NORM), .k_norm = vector(f, layer, ROLE_K_NORM),
        .norm_eps = config->norm_eps });
    backend_attention(f->lane, &(struct op_attention){
        .q = b->q, .out = out, .views = pass->views, .seq_of_row = pass->seq_of_row,
        .position = pass->position, .store = f->store, .layer = layer, .n_rows = pass->n_rows,
        .n_heads = shard->heads.n, .window = config->window,
        .n_group = config->n_heads / config->n_kv_heads, .head_skip = shard->head_skip,
        .scale = 1.0f / sqrtf((float)config->head_dim) });
}

static void attention(const struct forward *f, int32_t layer)
{
    struct pass_buffers *b = f->buffers;
    const struct pass *pass = f->pass;
    const struct shard *shard = &f->model->shard;
    if (shard->comm) {
        float *part = b->exchange + (size_t)pass->n_rows * (size_t)shard->q_first[shard->rank];
        if (shard->heads.n > 0) {
            attend(f, layer, shard->o_by_inputs ? b->attended.f32 : part);
        }
        forward_ranks_attended(f, layer);
        return;
    }
    attend(f, layer, b->attended.f32);
    if (kind_of(f, layer, ROLE_O) & ACT_Q8) {
        backend_quantize(f->lane, &(struct op_quantize){ .act = &b->attended, .n_rows = pass->n_rows });
    }
    add_linear(f, matrix(f, layer, ROLE_O), &b->attended);
}

static void feed_forward(const struct forward *f, int32_t layer)
{
    struct pass_buffers *b = f->buffers;
    const struct shard *shard = &f->model->shard;
    if (shard->ffn.n == 0) {
        forward_ranks_gated(f, layer);
        return;
    }
    norm(f, vector(f, layer, ROLE_FFN_NORM), kind_of(f, layer, ROLE_GATE) | kind_of(f, layer, ROLE_UP));
    backend_linear(f->lane, &(struct op_linear){
        .part = { { .weight = matrix(f, layer, ROLE_GATE), .out = b->gate },
                  { .weight = matrix(f, layer, ROLE_UP), .out = b->up } },
        .n_parts = 2, .x = &b->normed, .n_rows = f->pass->n_rows });
    backend_swiglu(f->lane, &(struct op_swiglu){
        .gate = b->gate, .up = b->up, .n_rows = f->pass->n_rows,
        .kinds = kind_of(f, layer, ROLE_DOWN), .out = &b->gated });
    if (shard->comm) {
        forward_ranks_gated(f, layer);
    } else {
        add_linear(f, matrix(f, layer, ROLE_DOWN), &b->gated);
    }
}

static const struct expert_weights *experts(const struct forward *f, int32_t layer, enum tensor_role role)
{
    return &model_slot(f->model, layer, role)->experts;
}

/* The experts' part of a layer: rows to places, the feed-forward layer there, places to rows. */
static void run_experts(const struct forward *f, int32_t layer)
{
    struct pass_buffers *b = f->buffers;
    const int32_t n_rows = f->pass->n_rows;
    const struct expert_weights *gate = experts(f, layer, ROLE_EXPERT_GATE);
    const struct expert_weights *up = experts(f, layer, ROLE_EXPERT_UP);
    const struct expert_weights *down = experts(f, layer, ROLE_EXPERT_DOWN);
    backend_gather(f->lane, &(struct op_gather){
        .x = b->normed.f32, .routes = &b->routes, .n_rows = n_rows, .out = &b->gathered,
        .kinds = backend_act_kind(gate->first.type) | backend_act_kind(up->first.type) });
    backend_expert_linear(f->lane, &(struct op_expert_linear){
        .part = { { .weights = gate, .out = b->gate }, { .weights = up, .out = b->up } },
        .n_parts = 2, .x = &b->gathered, .routes = &b->routes, .n_rows = n_rows });
    backend_expert_swiglu(f->lane, &(struct op_expert_swiglu){
        .gate = b->gate, .up = b->up, .routes = &b->routes, .n_rows = n_rows,
        .kinds = backend_act_kind(down->first.type), .out = &b->gated });
    backend_expert_linear(f->lane, &(struct op_expert_linear){
        .part = { { .weights = down, .out = b->mixed } },
        .n_parts = 1, .x = &b->gated, .routes = &b->routes, .n_rows = n_rows });
    if (f->model->shard.comm) {
        forward_ranks_mixed(f);
    }
    backend_combine(f->lane, &(struct op_combine){
        .y = b->mixed, .x = b->x, .routes = &b->routes, .n_rows = n_rows,
        .n_cols = f->model->config.dim });
}

static void mixture(const struct forward *f, int32_t layer)
{
    struct pass_buffers *b = f->buffers;
    norm(f, vector(f, layer, ROLE_FFN_NORM), ACT_F32 | kind_of(f, layer, ROLE_ROUTER));
    backend_linear(f->lane, &(struct op_linear){
        .part = { { .weight = matrix(f, layer, ROLE_ROUTER), .out = b->router } },
        .n_parts = 1, .x = &b->normed, .n_rows = f->pass->n_rows });
    backend_route(f->lane, &(struct op_route){
        .logits = b->router, .position = f->pass->position, .routes = &b->routes,
        .n_rows = f->pass->n_rows, .normalised = f->model->config.experts.normalised });
    run_experts(f, layer);
}

static const struct weight *head_of(const struct forward *f)
{
    return f->pass->head != NULL ? f->pass->head : matrix(f, -1, ROLE_HEAD);
}

static void head(const struct forward *f)
{
    struct pass_buffers *b = f->buffers;
    const struct pass *pass = f->pass;
    const struct weight *weight = head_of(f);
    if (pass->n_logits == 0) {
        return;
    }
    backend_norm(f->lane, &(struct op_norm){
        .x = b->x, .row_idx = pass->logits_row, .weight = vector(f, -1, ROLE_OUT_NORM),
        .eps = f->model->config.norm_eps, .n_rows = pass->n_logits,
        .kinds = backend_act_kind(weight->type), .out = &b->last });
    if (f->model->shard.comm) {
        forward_ranks_head(f);
        return;
    }
    backend_linear(f->lane, &(struct op_linear){
        .part = { { .weight = weight, .out = b->logits } },
        .n_parts = 1, .x = &b->last, .n_rows = pass->n_logits });
}

/* ---- taps ---- */

static void tap(const struct forward *f, int32_t layer)
{
    if (f->pass->tap && f->pass->tap_layer == layer) {
        backend_tap(f->lane, &(struct op_tap){ .x = f->buffers->x, .out = f->pass->tap, .n_rows = f->n_tapped,
                                               .n_cols = f->model->config.dim });
    }
}

/* ---- the pass ---- */

/* The caller promises these; a broken promise would read outside a table. */
static void check_pass(const struct forward *f)
{
    const struct pass *pass = f->pass;
    const struct model_config *config = &f->model->config;
    ASSERT(pass->n_rows >= 1 && pass->n_rows <= f->buffers->cap_rows);
    ASSERT(pass->n_logits >= 0 && pass->n_logits <= f->buffers->cap_logits);
    ASSERT(pass->n_layers >= 0 && pass->n_layers <= config->n_layers);
    ASSERT(head_of(f)->n_in == config->dim && head_of(f)->n_out <= config->n_vocab);
    ASSERT(pass->head == NULL || f->model->shard.comm == NULL);
    ASSERT(!pass->rows_stay || pass_buffers_desk(f->buffers) != NULL);
    ASSERT(f->store->n_layers == config->n_layers && f->store->n_kv_heads == model_n_kv_heads(f->model) &&
           f->store->head_dim == config->head_dim);
    for (int32_t i = 0; i < pass->n_rows; i++) {
        ASSERT(pass->token[i] >= 0 && pass->token[i] < config->n_vocab);
        ASSERT(pass->position[i] >= -1 && pass->position[i] < f->model->context);
        ASSERT(pass->seq_of_row[i] >= 0 && pass->seq_of_row[i] < pass->n_seqs);
        ASSERT(pass->slot[i] >= -1 && pass->slot[i] / f->store->page_slots < f->store->n_pages);
    }
    for (int32_t i = 0; i < pass->n_logits; i++) {
        ASSERT(pass->logits_row[i] >= 0 && pass->logits_row[i] < pass->n_rows);
    }
}

static void submit_layers(const struct forward *f, int32_t n_layers)
{
    if (f->model->shard.comm) {
        forward_ranks_embed(f);
    } else {
        backend_embed(f->lane, &(struct op_embed){ .table = matrix(f, -1, ROLE_EMBED), .token = f->pass->token,
                                                   .out = f->buffers->x, .n_rows = f->pass->n_rows });
    }
    for (int32_t layer = 0; layer < n_layers; layer++) {
        tap(f, layer);
        attention(f, layer);
        if (f->model->config.experts.n > 0) {
            mixture(f, layer);
        } else {
            feed_forward(f, layer);
        }
    }
    tap(f, n_layers);
    head(f);
}

/* The pass with its arrays where the lane's operations read them; maybe with rows added. */
static struct pass as_placed(const struct pass *pass, const struct pass_inputs *inputs)
{
    struct pass placed = *pass;
    placed.n_rows = inputs->n_rows;
    placed.n_logits = inputs->n_logits;
    placed.token = inputs->token;
    placed.position = inputs->position;
    placed.slot = inputs->slot;
    placed.seq_of_row = inputs->seq_of_row;
    placed.views = inputs->views;
    placed.logits_row = inputs->logits_row;
    return placed;
}

static void count_bytes(const struct forward *f, int32_t n_layers)
{
    for (int32_t layer = -1; layer < n_layers; layer++) {
        f->buffers->shared_bytes += f->model->blocks[layer + 1].shared_bytes;
    }
    const int32_t n_rows = f->model->shard.vocab.n; /* of the head that is here */
    if (f->pass->n_logits > 0 && n_rows > 0) {
        f->buffers->shared_bytes += f->model->head_bytes / (uint64_t)n_rows * (uint64_t)head_of(f)->n_out;
    }
}

/* The head may be another, and of ranks some have none of it. */
static const void *name_of(const struct forward *f)
{
    return f->model->shard.comm ? (const void *)f->model : head_of(f)->data;
}

uint64_t model_forward(const struct model *model, struct lane *lane, const struct kv_store *store,
                       const struct pass *pass, struct pass_buffers *buffers)
{
    struct forward f = { .model = model, .lane = lane, .store = store, .pass = pass, .buffers = buffers,
                         .n_tapped = pass->n_rows };
    check_pass(&f);
    const int32_t n_layers = pass->n_layers > 0 ? pass->n_layers : model->config.n_layers;
    count_bytes(&f, n_layers);
    const struct shard *shard = &model->shard;
    struct pass_inputs inputs = {
        .n_rows = pass->n_rows, .n_seqs = pass->n_seqs, .n_logits = pass->n_logits, .token = pass->token,
        .position = pass->position, .slot = pass->slot, .seq_of_row = pass->seq_of_row, .views = pass->views,
        .logits_row = pass->logits_row, .store = store, .of_model = pass->tap == NULL ? name_of(&f) : NULL,
        .n_layers = n_layers,
    };
    if (shard->comm) {
        forward_ranks_share_out(model, pass, buffers);
        inputs.own_token = buffers->own_token;
        inputs.part = buffers->part;
    }
    const enum pass_way way = backend_pass_begin(lane, buffers->desk, &inputs);
    const struct pass placed = as_placed(pass, &inputs);
    f.pass = &placed;
    f.own_token = inputs.own_token;
    f.part = inputs.part;
    if (way == PASS_SUBMIT) {
        submit_layers(&f, n_layers);
    }
    return backend_pass_end(lane, buffers->desk, &(struct pass_result){
        .logits = buffers->logits, .n_logits = shard->rank == 0 ? pass->n_logits : 0,
        .n_cols = shard->comm ? model->config.n_vocab : head_of(&f)->n_out, .stays = pass->rows_stay });
}
