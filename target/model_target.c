/* model_target: a model on a lane. A pass is copies of pages, then the forward computation; the lane
 * keeps the order. */
#include "target/target.h"

struct model_target {
    struct target base;
    const struct model *model;
    struct backend *backend;
    struct kv_store store;
    struct pass_buffers *buffers;
    uint64_t ticket; /* of the pass begun last */
    bool rows_stay;  /* its rows */
};

static struct kv_store store_shape(const struct model_config *config, int32_t n_kv_heads,
                                   const struct model_target_options *options)
{
    return (struct kv_store){
        .type = options->kv, .n_layers = config->n_layers, .n_kv_heads = n_kv_heads,
        .head_dim = config->head_dim, .page_slots = options->page_slots, .n_pages = options->n_pages,
    };
}

uint64_t model_target_kv_bytes(const struct model_config *config,
                               const struct model_target_options *options)
{
    const struct kv_store shape = store_shape(config, config->n_kv_heads, options);
    return kv_store_bytes(&shape);
}

static void model_target_copy(struct target *base, const struct kv_copy *copies, int32_t n)
{
    struct model_target *target = (struct model_target *)base;
    for (int32_t i = 0; i < n && target->store.n_kv_heads > 0; i++) {
        backend_page_copy(base->lane, &(struct op_page_copy){
            .store = &target->store, .src = copies[i].src, .dst = copies[i].dst });
    }
}

static void model_target_begin(struct target *base, const struct target_work *work)
{
    struct model_target *target = (struct model_target *)base;
    model_target_copy(base, work->copies, work->n_copies);
    target->ticket = model_forward(target->model, base->lane, &target->store, work->pass,
                                   target->buffers);
    target->rows_stay = work->pass->rows_stay;
}

static enum status model_target_end(struct target *base, const float **logits)
{
    struct model_target *target = (struct model_target *)base;
    *logits = NULL;
    if (!target->rows_stay) {
        lane_wait(base->lane, target->ticket);
        *logits = pass_buffers_logits(target->buffers);
    }
    return backend_health(target->backend);
}

static void model_target_destroy(struct target *base)
{
    struct model_target *target = (struct model_target *)base;
    lane_wait(base->lane, target->ticket);
    pass_buffers_destroy(target->buffers);
    kv_store_deinit(target->backend, &target->store);
    mem_free(target);
}

static const struct target_kind model_target_kind = {
    .name = "model",
    .begin = model_target_begin,
    .end = model_target_end,
    .copy = model_target_copy,
    .destroy = model_target_destroy,
};

enum status model_target_create(const struct model_target_options *options, struct target **out)
{
    const struct model_config *config = model_get_config(options->model);
    enum status status = STATUS_OK;
    *out = NULL;
    struct model_target *target = mem_alloc(1, sizeof *target);
    if (target == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a target");
    }
    target->base = (struct target){ .kind = &model_target_kind, .lane = options->lane,
                                    .n_vocab = config->n_vocab };
    target->model = options->model;
    target->backend = lane_backend(options->lane);
    target->store = store_shape(config, model_n_kv_heads(options->model), options);
    if (target->store.n_kv_heads > 0) {
        TRY_GOTO(kv_store_init(target->backend, &target->store), out_target);
    }
    TRY_GOTO(pass_buffers_create(options->model, options->cap_rows, options->cap_logits,
                                 &target->buffers), out_store);
    target->base.desk = pass_buffers_desk(target->buffers);
    *out = &target->base;
    return STATUS_OK;
out_store:
    kv_store_deinit(target->backend, &target->store);
out_target:
    mem_free(target);
    return status;
}

uint64_t model_target_scratch_bytes(const struct target *base)
{
    const struct model_target *target = (const struct model_target *)base;
    ASSERT(base->kind == &model_target_kind);
    return pass_buffers_bytes(target->buffers);
}
