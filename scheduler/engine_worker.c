/* engine_worker: a model as a draft worker (draft/worker.h): opened by the options of an engine, without
 * a scheduler: device, weights, vocabulary, grower, and the worker in front of it. */
#include <stdio.h>
#include <string.h>

#include "scheduler/engine_ahead.h"
#include "scheduler/engine_device.h"
#include "scheduler/engine_draft.h"
#include "scheduler/engine_memory.h"

enum { DEFAULT_K = 8 };

struct engine_worker {
    struct td_engine *engine; /* device, plan, tokenizer; the model is its draft_model, on its target's lane */
    struct grower *grower;
    struct draft_worker *worker;
    uint64_t fingerprint;
};

/* ---- the growing thread ---- */
/* Its first job finds it a core: it is worker 0 of the lane. */
static void run(void *user, const struct grower_call *call)
{
    static _Thread_local bool is_pinned;
    const struct engine_worker *host = user;
    if (!is_pinned) {
        lane_pin_caller(host->engine->lane);
        is_pinned = true;
    }
    grower_run(host->grower, call);
}

static void forget(void *user, const struct draft_farewell *farewell)
{
    const struct engine_worker *host = user;
    grower_forget(host->grower, farewell);
}

/* ---- opening ---- */
static enum status load(struct td_engine *engine, const struct td_engine_options *options,
                        struct model_source *source)
{
    struct engine_plan *plan = &engine->plan;
    TRY(model_source_check(source));
    TRY(engine_plan_fit(options, model_source_config(source), plan));
    engine_memory_begin(engine, options);
    TRY(engine_memory_plan_target(engine, source)); /* the one model here */
    if (text_open(source, &engine->tokenizer) == STATUS_UNSUPPORTED) {
        log_info("%s", status_message());
    }
    engine->n_vocab_common = model_source_config(source)->n_vocab;
    engine->draft_context = plan->context;
    return model_load(source, engine->lane, &(struct model_load_options){
        .mlock = options->mlock != 0, .context = plan->context, .progress = options->progress,
        .progress_user = options->progress_user }, &engine->draft_model);
}

static enum status open_model(struct td_engine *engine, const struct td_engine_options *options)
{
    struct model_source *source;
    TRY(model_source_open_as(options->target, options->quant, &source));
    const enum status status = load(engine, options, source);
    model_source_close(source);
    return status;
}

static int32_t k_max_of(const struct td_engine_options *options)
{
    return options->k < 1 ? DEFAULT_K : options->k < DRAFT_MAX_NODES ? options->k : DRAFT_MAX_NODES;
}

static enum status open_grower(struct engine_worker *host, const struct td_engine_options *options)
{
    struct td_engine *engine = host->engine;
    const struct engine_plan *plan = &engine->plan;
    int32_t *ids = NULL, n_ids = 0;
    struct grower_options grower = { .model = {
        .common = { .n_vocab = engine->n_vocab_common, .context = plan->context, .max_batch = plan->max_batch,
                    .k_max = k_max_of(options) },
        .model = engine->draft_model, .lane = engine->lane, .kv = plan->kv, .context = plan->context,
        .page_slots = plan->page_slots, .n_pages = plan->n_pages, .prefill_chunk = plan->prefill_chunk } };
    TRY(engine_ahead_fanout(options, &grower.fanout, &grower.max_budget));
    enum status status = engine_vocab_open(engine, NULL, options->target, &ids, &n_ids);
    if (status == STATUS_OK) {
        grower.model.kept_ids = ids;
        grower.model.n_kept = n_ids;
        status = grower_create(&grower, &host->grower);
    }
    mem_free(ids);
    return status;
}

static enum status open_worker(struct engine_worker *host, const struct engine_worker_options *options)
{
    const struct td_engine *engine = host->engine;
    const struct model_config *config = model_get_config(engine->draft_model);
    struct fanout_options fanout;
    int32_t max_budget;
    TRY(engine_ahead_fanout(&options->model, &fanout, &max_budget));
    host->fingerprint = model_digest(engine->draft_model);
    return draft_worker_open(&(struct draft_worker_options){
        .listen = options->listen, .key_file = options->key_file, .is_open_to_all = options->is_open_to_all,
        .name = config->name, .fingerprint = host->fingerprint,
        .vocab_digest = engine->tokenizer != NULL ? text_digest(engine->tokenizer) : 0,
        .n_vocab = config->n_vocab, .context = engine->plan.context, .max_batch = engine->plan.max_batch,
        .k_max = k_max_of(&options->model), .max_budget = max_budget,
        .grower = { .user = host, .run = run, .forget = forget } }, &host->worker);
}

static enum status open_all(struct engine_worker *host, const struct engine_worker_options *options)
{
    TRY(engine_plan_check(&options->model, &host->engine->plan));
    TRY(engine_device_open(host->engine, &options->model));
    TRY(open_model(host->engine, &options->model));
    TRY(open_grower(host, &options->model));
    return open_worker(host, options);
}

enum status engine_worker_open(const struct engine_worker_options *options, struct engine_worker **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    struct engine_worker *host = mem_alloc(1, sizeof *host);
    if (host == NULL || (host->engine = mem_alloc(1, sizeof *host->engine)) == NULL) {
        mem_free(host);
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft worker");
    }
    TRY_GOTO(open_all(host, options), out);
    *out = host;
    return STATUS_OK;
out:
    engine_worker_close(host);
    return status;
}

void engine_worker_close(struct engine_worker *host)
{
    if (host == NULL) {
        return;
    }
    draft_worker_close(host->worker); /* first: its thread uses the rest */
    grower_destroy(host->grower);
    td_engine_close(host->engine);
    mem_free(host);
}

struct draft_worker *engine_worker_draft(const struct engine_worker *host) { return host->worker; }

struct engine_worker_info engine_worker_info(const struct engine_worker *host)
{
    const struct td_engine *engine = host->engine;
    const struct model_config *config = model_get_config(engine->draft_model);
    return (struct engine_worker_info){ .model_name = config->name, .address = draft_worker_address(host->worker),
        .fingerprint = host->fingerprint, .n_vocab = config->n_vocab, .context = engine->plan.context,
        .max_batch = engine->plan.max_batch, .threads = engine->plan.target.n_threads,
        .bytes = model_resident_bytes(engine->draft_model) + grower_bytes(host->grower) };
}
