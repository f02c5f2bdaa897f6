/* pass: sizes and places of the buffers, taken once; a pass allocates nothing. */
#include "model/pass.h"

static size_t align_up(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Cuts pieces off a block; with a NULL block it only adds up. */
struct cutter { const struct backend *backend; unsigned char *at; size_t bytes; };

static void *cut(struct cutter *cutter, size_t bytes)
{
    unsigned char *piece = cutter->at;
    cutter->bytes += align_up(bytes);
    cutter->at = piece ? piece + align_up(bytes) : NULL;
    return piece;
}

static float *cut_rows(struct cutter *cutter, int32_t n_rows, int32_t n_cols)
{
    return cut(cutter, (size_t)n_rows * (size_t)n_cols * sizeof(float));
}

static void cut_act(struct cutter *cutter, int32_t n_cols, int32_t cap_rows, struct act *act)
{
    void *memory = cut(cutter, backend_rows_bytes(cutter->backend, n_cols, cap_rows));
    if (memory) {
        backend_rows_init(cutter->backend, act, n_cols, cap_rows, memory);
    }
}

static void place_experts(struct pass_buffers *buffers, const struct model *model, struct cutter *cutter)
{
    const struct model_config *config = &model->config;
    const struct shard *shard = &model->shard;
    const int32_t rows = buffers->cap_rows, n = config->experts.n, n_used = config->experts.n_used;
    const int32_t places = backend_places_most(cutter->backend, n, n_used, rows); /* fits: pass_buffers_create */
    void *memory = cut(cutter, backend_routing_bytes(cutter->backend, n, n_used, rows));
    if (memory) {
        backend_routing_init(cutter->backend, &buffers->routes, n, n_used, rows, memory);
        buffers->routes.first_here = shard->experts.first;
        buffers->routes.n_here = shard->experts.n;
    }
    buffers->router = cut_rows(cutter, rows, n);
    cut_act(cutter, config->dim, places, &buffers->gathered);
    buffers->gate = cut_rows(cutter, places, config->experts.ffn_dim);
    buffers->up = cut_rows(cutter, places, config->experts.ffn_dim);
    cut_act(cutter, config->experts.ffn_dim, places, &buffers->gated);
    buffers->mixed = cut_rows(cutter, places, config->dim);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Floats of the largest exchange of a pass that this rank sees: the embedding's, of o and of down, the head's. */
static size_t exchange_floats(const struct pass_buffers *buffers, const struct model *model)
{
    const struct model_config *config = &model->config;
    const struct shard *shard = &model->shard;
    const size_t rows = (size_t)buffers->cap_rows, dim = (size_t)config->dim;
    const size_t q_dim = (size_t)(config->n_heads * config->head_dim);
    const size_t n_logits = (size_t)(shard->rank == 0 ? config->n_vocab : shard->vocab.n);
    size_t floats = rows * dim * (size_t)shard->n_ranks;
    floats = most(floats, config->experts.n > 0 ? 0 : rows * dim * (size_t)shard->down_group_first[shard->n_ranks]);
    floats = most(floats, shard->o_by_inputs ? rows * dim * (size_t)shard->o_group_first[shard->n_ranks]
                                             : rows * most(q_dim, dim));
    return most(floats, (size_t)buffers->cap_logits * n_logits);
}

static size_t place(struct pass_buffers *buffers, const struct model *model, unsigned char *memory)
{
    struct cutter cutter = { .backend = buffers->backend, .at = memory };
    const struct model_config *config = &model->config;
    const struct shard *shard = &model->shard;
    const int32_t rows = buffers->cap_rows;
    const int32_t q_dim = shard->heads.n * config->head_dim, kv_dim = shard->kv_heads.n * config->head_dim;
    const int32_t attended = shard->o_by_inputs ? q_dim : config->n_heads * config->head_dim;
    buffers->x = cut_rows(&cutter, rows, config->dim);
    cut_act(&cutter, config->dim, rows, &buffers->normed);
    buffers->q = cut_rows(&cutter, rows, q_dim);
    buffers->k = cut_rows(&cutter, rows, kv_dim);
    buffers->v = cut_rows(&cutter, rows, kv_dim);
    cut_act(&cutter, attended, rows, &buffers->attended);
    if (config->experts.n > 0) {
        place_experts(buffers, model, &cutter);
    } else {
        buffers->gate = cut_rows(&cutter, rows, shard->ffn.n);
        buffers->up = cut_rows(&cutter, rows, shard->ffn.n);
        cut_act(&cutter, shard->ffn.n, rows, &buffers->gated);
    }
    cut_act(&cutter, config->dim, buffers->cap_logits, &buffers->last);
    buffers->logits = cut_rows(&cutter, buffers->cap_logits, shard->rank == 0 ? config->n_vocab : shard->vocab.n);
    if (shard->comm) {
        buffers->exchange = cut(&cutter, exchange_floats(buffers, model) * sizeof(float));
    }
    return cutter.bytes;
}

/* Linear layers: their longest input and largest matrix. Experts' are none of them. */
static void shape_of_layers(const struct model *model, struct pass_shape *shape)
{
    const struct model_config *config = &model->config;
    const int32_t q_dim = config->n_heads * config->head_dim, ffn_dim = config->experts.n > 0 ? 0 : model->shard.ffn.n;
    const int32_t wide = q_dim > ffn_dim ? q_dim : ffn_dim, routed = config->experts.n;
    shape->most_in = wide > config->dim ? wide : config->dim;
    shape->matrix_elems = (size_t)config->dim * (size_t)(wide > routed ? wide : routed);
}

/* Who embeds what is decided by the host. */
static enum status take_lists(struct pass_buffers *buffers)
{
    buffers->own_token = mem_alloc((size_t)buffers->cap_rows, 2 * sizeof *buffers->own_token);
    if (buffers->own_token == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the tables of a pass");
    }
    buffers->part = buffers->own_token + buffers->cap_rows;
    return STATUS_OK;
}

static enum status take_memory(struct pass_buffers *buffers, const struct model *model)
{
    const struct model_config *config = &model->config;
    const int32_t rows = buffers->cap_rows, logits = buffers->cap_logits;
    buffers->memory_bytes = place(buffers, model, NULL);
    buffers->memory = backend_alloc(buffers->backend, buffers->memory_bytes);
    if (buffers->memory == NULL) {
        return status_fail(STATUS_NO_MEMORY, "passes of %d rows with %d rows of logits need %.1f MiB, %.1f MiB are free",
                           rows, logits, (double)buffers->memory_bytes / (1024.0 * 1024.0),
                           (double)backend_free_bytes(buffers->backend) / (1024.0 * 1024.0));
    }
    place(buffers, model, buffers->memory);
    struct pass_shape shape = {
        .cap_rows = rows, .cap_logits = logits, .n_vocab = config->n_vocab, .n_heads = config->n_heads,
        .head_dim = config->head_dim, .context = model->context, .n_layers = config->n_layers };
    shape_of_layers(model, &shape);
    if (model->shard.comm) {
        TRY(take_lists(buffers));
        shape.exchange_floats = exchange_floats(buffers, model);
    }
    return backend_desk_create(buffers->backend, &shape, &buffers->desk);
}

enum status pass_buffers_create(const struct model *model, int32_t cap_rows, int32_t cap_logits,
                                struct pass_buffers **out)
{
    ASSERT(cap_rows >= 1 && cap_logits >= 1);
    ASSERT(cap_rows <= INT32_MAX / (model->config.experts.n_used + 1));
    *out = NULL;
    struct pass_buffers *buffers = mem_alloc(1, sizeof *buffers);
    if (!buffers) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the tables of a pass");
    }
    *buffers = (struct pass_buffers){ .backend = model->backend, .cap_rows = cap_rows,
                                      .cap_logits = cap_logits };
    const enum status status = take_memory(buffers, model);
    if (status != STATUS_OK) {
        pass_buffers_destroy(buffers);
        return status;
    }
    *out = buffers;
    return STATUS_OK;
}

void pass_buffers_destroy(struct pass_buffers *buffers)
{
    if (buffers) {
        backend_desk_destroy(buffers->backend, buffers->desk);
        if (buffers->memory) {
            backend_free(buffers->backend, buffers->memory, buffers->memory_bytes);
        }
        mem_free(buffers->own_token);
        mem_free(buffers);
    }
}

uint64_t pass_buffers_bytes(const struct pass_buffers *buffers)
{
    return buffers->memory_bytes + backend_desk_bytes(buffers->backend, buffers->desk);
}

const float *pass_buffers_logits(const struct pass_buffers *buffers)
{
    return backend_pass_logits(buffers->backend, buffers->desk, buffers->logits);
}

struct pass_desk *pass_buffers_desk(const struct pass_buffers *buffers)
{
    return backend_chooses(buffers->backend, buffers->desk) ? buffers->desk : NULL;
}

uint64_t pass_buffers_bytes_read(const struct pass_buffers *buffers)
{
    return buffers->shared_bytes + buffers->routes.bytes_read;
}
