/* engine: a model on its lane, its scheduler, and the step thread.
 *
 *     callers ──inbox──► step thread: admit, plan, propose, verify, commit ──outbox──► consumer
 *                              └── lane: the step thread is worker 0, others help
 */
#include "scheduler/engine.h"
#include "scheduler/engine_device.h"
#include "scheduler/engine_draft.h"
#include "scheduler/engine_group.h"
#include "scheduler/engine_memory.h"
#include "scheduler/engine_ranks.h"

#include <stdio.h>
#include <string.h>

void td_engine_options_init(struct td_engine_options *options)
{
    *options = (struct td_engine_options){
        .draft = "none", .k = POLICY_AUTO, .verify = "coupled", .plan = "exact", .kv = "f16", .page = 64, .prefill_chunk = 512,
        .max_batch = 1, .max_queue = 1024, .prefix_cache = 1, .lend = 1,
        .ahead = "auto", .fanout = "learned", .ahead_hits = 100, .draft_wait_us = -1,
    };
}

/* ---- the step thread ---- */
/* Takes what has arrived; waits for it when there is nothing else to do. */
static void engine_take_inbox(struct td_engine *engine)
{
    struct request *request;
    int64_t timeout_ns = scheduler_is_busy(engine->scheduler) ? 0 : -1;
    while (queue_pop(engine->inbox, &request, timeout_ns) == STATUS_OK) {
        scheduler_submit(engine->scheduler, request);
        timeout_ns = 0;
    }
}

static void *engine_main(void *arg)
{
    struct td_engine *engine = arg;
    lane_pin_caller(engine->lane);
    while (!atomic_load(&engine->stopping)) {
        engine_take_inbox(engine);
        if (scheduler_is_busy(engine->scheduler)) {
            scheduler_step(engine->scheduler);
        }
    }
    return NULL;
}

static enum status engine_start(struct td_engine *engine)
{
    const int error = pthread_create(&engine->thread, NULL, engine_main, engine);
    if (error != 0) {
        return status_fail(STATUS_NO_MEMORY, "cannot start the step thread: %s", strerror(error));
    }
    engine->has_thread = true;
    return STATUS_OK;
}

/* ---- open ---- */
/* A model without text is no failure: it runs on ids. */
static enum status open_text(struct td_engine *engine, const struct model_source *source)
{
    const enum status status = text_open(source, &engine->tokenizer);
    if (status != STATUS_UNSUPPORTED) {
        return status;
    }
    snprintf(engine->no_text, sizeof engine->no_text, "%s", status_message());
    return STATUS_OK;
}

static struct scheduler_options loop_of(const struct td_engine *engine, const struct td_engine_options *options)
{
    const struct engine_plan *plan = &engine->plan;
    return (struct scheduler_options){
        .context = plan->context, .page_slots = plan->page_slots, .n_pages = plan->n_pages,
        .max_batch = plan->max_batch, .prefill_chunk = plan->prefill_chunk,
        .k_max = plan->k_max, .fixed_k = plan->fixed_k, .rule = plan->rule,
        .prefix_cache = options->prefix_cache,
    };
}

static enum status load_model(struct td_engine *engine, const struct td_engine_options *options,
                              struct model_source *source)
{
    TRY(model_source_check(source));
    engine->hints = model_source_hints(source);
    TRY(engine_plan_fit(options, model_source_config(source), &engine->plan));
    TRY(engine_memory_plan_target(engine, source));
    TRY(open_text(engine, source));
    const struct scheduler_options loop = loop_of(engine, options);
    engine_ranks_lead(engine, options, &loop);
    return model_load(source, engine->lane, &(struct model_load_options){
        .mlock = options->mlock != 0, .context = engine->plan.context, .comm = engine_ranks_comm(options),
        .progress = options->progress, .progress_user = options->progress_user }, &engine->model);
}

static enum status open_model(struct td_engine *engine, const struct td_engine_options *options)
{
    struct model_source *source;
    TRY(model_source_open_as(options->target, options->quant, &source));
    const enum status status = load_model(engine, options, source);
    model_source_close(source);
    return status;
}

static enum status open_virtual_target(struct td_engine *engine, const struct td_engine_options *options)
{
    if (options->virtual_pass_us == 0 && options->virtual_row_us == 0) {
        return STATUS_OK;
    }
    return virtual_target_create(&(struct virtual_target_options){ .behind = engine->target,
        .pass_ns = (int64_t)options->virtual_pass_us * 1000, .row_ns = (int64_t)options->virtual_row_us * 1000 },
        &engine->virtual_target);
}

static enum status open_target(struct td_engine *engine, const struct td_engine_options *options,
                               const struct scheduler_options *loop)
{
    const struct engine_plan *plan = &engine->plan;
    const enum status status = model_target_create(&(struct model_target_options){
        .model = engine->model, .lane = engine->lane, .kv = plan->kv, .page_slots = plan->page_slots,
        .n_pages = plan->n_pages, .cap_rows = scheduler_cap_rows(loop),
        .cap_logits = scheduler_cap_logits(loop) }, &engine->target);
    engine->info.scratch_bytes = status == STATUS_OK ? model_target_scratch_bytes(engine->target) : 0;
    return engine_ranks_open(engine, options, status);
}

static enum status open_scheduler(struct td_engine *engine, const struct td_engine_options *options)
{
    const struct engine_plan *plan = &engine->plan;
    struct scheduler_options loop = loop_of(engine, options);
    TRY(open_target(engine, options, &loop));
    TRY(open_virtual_target(engine, options));
    TRY(engine_draft_open(engine, options));
    TRY(outbox_create(engine->tokenizer, engine->info.fingerprint, &engine->outbox));
    loop.target = engine->virtual_target != NULL ? engine->virtual_target : engine->target;
    loop.draft = engine->draft;
    loop.outbox = engine->outbox;
    TRY(scheduler_create(&loop, &engine->scheduler));
    if (plan->k_max > 0 && plan->fixed_k == POLICY_AUTO) {
        scheduler_calibrate(engine->scheduler);
    }
    const struct td_engine_stats stats = scheduler_stats(engine->scheduler);
    outbox_publish(engine->outbox, &(struct outbox_news){ .stats = &stats });
    return queue_create(sizeof(struct request *), (size_t)plan->max_queue, &engine->inbox);
}

/* Everything that decides bits: what the same request and seed give on another machine. Other plans than exact are
 * a kind of device's own: its name behind the number. */
static uint64_t fingerprint_of(const struct td_engine *engine)
{
    const struct engine_plan *plan = &engine->plan;
    const char *name = strchr(backend_name(engine->backend), ' ');
    char text[192];
    const int n = snprintf(text, sizeof text, "model %016llx kv %s plan %s%s canonical %d",
                           (unsigned long long)model_digest(engine->model), plan->kv == KV_F16 ? "f16" : "f32",
                           numeric_plan_name(plan->numeric), plan->numeric != PLAN_EXACT && name != NULL ? name : "",
                           CANONICAL_VERSION);
    ASSERT(n > 0 && (size_t)n < sizeof text);
    return digest_bytes(text, (size_t)n);
}

static void describe_model(struct td_engine *engine)
{
    const struct model_config *config = model_get_config(engine->model);
    engine->info = (struct td_engine_info){
        .model_name = config->name, .architecture = config->architecture,
        .plan = numeric_plan_name(engine->plan.numeric),
        .kv = engine->plan.kv == KV_F16 ? "f16" : "f32", .isa = isa_name(backend_isa(engine->backend)),
        .fingerprint = fingerprint_of(engine),
        .weight_bytes = model_weight_bytes(engine->model),
        .resident_weight_bytes = model_resident_bytes(engine->model),
        .kv_bytes = model_target_kv_bytes(config, &(struct model_target_options){
            .kv = engine->plan.kv, .page_slots = engine->plan.page_slots, .n_pages = engine->plan.n_pages }) /
            (uint64_t)config->n_kv_heads * (uint64_t)model_n_kv_heads(engine->model), /* of this rank */
        .n_vocab = config->n_vocab, .context = engine->plan.context,
        .model_context = config->context_len, .threads = engine->plan.target.n_threads,
        .draft_threads = engine->plan.draft.n_threads,
        .n_layers = config->n_layers, .page = engine->plan.page_slots,
    };
    engine->limits = (struct request_limits){
        .n_vocab = config->n_vocab, .context = engine->plan.context, .eos_ids = config->eos_ids,
        .n_eos = config->n_eos, .tokenizer = engine->tokenizer,
    };
}

static enum status open_engine(struct td_engine *engine, const struct td_engine_options *options)
{
    const int64_t begin_ns = clock_now_ns();
    TRY(engine_plan_check(options, &engine->plan));
    TRY(engine_device_open(engine, options));
    engine_memory_begin(engine, options);
    TRY(open_model(engine, options));
    describe_model(engine);
    TRY(open_scheduler(engine, options));
    TRY(engine_memory_settle(engine));
    engine->info.load_seconds = (double)(clock_now_ns() - begin_ns) * 1e-9;
    return engine_start(engine);
}

enum td_status td_engine_open(const struct td_engine_options *options, struct td_engine **out)
{
    *out = NULL;
    struct td_engine *engine = mem_alloc(1, sizeof *engine);
    if (engine == NULL) {
        return engine_td_status(status_fail(STATUS_NO_MEMORY, "no memory for an engine"));
    }
    atomic_init(&engine->stopping, 0);
    struct td_engine_options own = *options;
    enum status status = engine_group_open(&own, &engine->group);
    if (status == STATUS_OK) {
        status = open_engine(engine, &own);
    }
    if (status != STATUS_OK) {
        td_engine_close(engine); /* makes no sentence of its own */
        return engine_td_status(status);
    }
    *out = engine;
    return TD_OK;
}

/* ---- close ---- */
void td_engine_close(struct td_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    if (engine->has_thread) {
        atomic_store(&engine->stopping, 1);
        queue_close(engine->inbox);
        pthread_join(engine->thread, NULL);
        scheduler_cancel_all(engine->scheduler);
    }
    scheduler_destroy(engine->scheduler);
    queue_destroy(engine->inbox);
    outbox_destroy(engine->outbox); /* and all requests */
    engine_draft_close(engine);
    target_destroy(engine->virtual_target);
    target_destroy(engine->target);
    text_close(engine->tokenizer);
    model_destroy(engine->model);
    engine_device_close(engine);
    engine_group_close(engine->group);
    mem_free(engine);
}
