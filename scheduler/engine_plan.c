/* engine_plan: options to numbers. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/engine.h"
#include "scheduler/engine_ahead.h"
#include "scheduler/engine_device.h"
#include "scheduler/engine_draft.h"
#include "scheduler/engine_ranks.h"

enum {
    DEFAULT_CONTEXT = 4096,
    MAX_CONTEXT = 1 << 24,
    MAX_PAGE = 4096,
    MAX_CHUNK = 1 << 16,
    MAX_QUEUE = 1 << 20
};

struct int_range { const char *name; int32_t value, low, high; };

static enum status check_int(struct int_range range)
{
    if (range.value >= range.low && range.value <= range.high) {
        return STATUS_OK;
    }
    return status_fail(STATUS_INVALID, "expected %s between %d and %d, found %d", range.name, range.low,
                       range.high, range.value);
}

/* ---- words ---- */
static enum status check_numeric(const char *word, enum numeric_plan *plan)
{
    for (*plan = PLAN_EXACT; word != NULL && *plan < PLAN_COUNT; ++*plan) {
        if (strcmp(word, numeric_plan_name(*plan)) == 0) {
            return STATUS_OK;
        }
    }
    return word == NULL ? STATUS_OK
                        : status_fail(STATUS_UNSUPPORTED, "expected a plan of exact, native or fast, found '%s'", word);
}

static enum status check_words(const struct td_engine_options *options, struct engine_plan *plan)
{
    if (options->target == NULL || options->target[0] == '\0') {
        return status_fail(STATUS_INVALID, "no target model was named");
    }
    TRY(check_numeric(options->plan, &plan->numeric));
    const char *kv = options->kv != NULL ? options->kv : "f16";
    if (strcmp(kv, "f16") != 0 && strcmp(kv, "f32") != 0) {
        return status_fail(STATUS_UNSUPPORTED, "expected a KV type of f16 or f32, found '%s'", kv);
    }
    plan->kv = strcmp(kv, "f16") == 0 ? KV_F16 : KV_F32;
    const char *rule = options->verify != NULL ? options->verify : "coupled";
    if (strcmp(rule, "coupled") != 0 && strcmp(rule, "rejection") != 0) {
        return status_fail(STATUS_UNSUPPORTED, "expected a verify rule of coupled or rejection, found '%s'", rule);
    }
    plan->rule = strcmp(rule, "coupled") == 0 ? VERIFY_COUPLED : VERIFY_REJECTION;
    plan->k_max = engine_draft_k_max(options);
    plan->fixed_k = options->k < 0 ? POLICY_AUTO : plan->k_max;
    return STATUS_OK;
}

static enum status check_ranges(const struct td_engine_options *options, struct engine_plan *plan)
{
    TRY(check_int((struct int_range){ "threads", options->threads, 0, ENGINE_MAX_THREADS }));
    TRY(check_int((struct int_range){ "a context", options->context, 0, MAX_CONTEXT }));
    TRY(check_int((struct int_range){ "a page", options->page, KV_BLOCK_SLOTS, MAX_PAGE }));
    TRY(check_int((struct int_range){ "a prefill chunk", options->prefill_chunk, 1, MAX_CHUNK }));
    TRY(check_int((struct int_range){ "a batch", options->max_batch, 1, ENGINE_MAX_BATCH }));
    TRY(check_int((struct int_range){ "a queue", options->max_queue, 1, MAX_QUEUE }));
    TRY(check_int((struct int_range){ "KV pages", options->kv_pages, 0, INT32_MAX }));
    TRY(check_int((struct int_range){ "K", options->k, INT32_MIN, DRAFT_MAX_NODES }));
    if (options->page % KV_BLOCK_SLOTS != 0) {
        return status_fail(STATUS_INVALID, "expected a page that is a multiple of %d slots, found %d",
                           KV_BLOCK_SLOTS, options->page);
    }
    plan->page_slots = options->page;
    plan->prefill_chunk = options->prefill_chunk;
    plan->max_batch = options->max_batch;
    plan->max_queue = options->max_queue;
    return STATUS_OK;
}

enum status engine_plan_check(const struct td_engine_options *options, struct engine_plan *plan)
{
    *plan = (struct engine_plan){ .lends = false };
    TRY(check_words(options, plan));
    TRY(check_ranges(options, plan));
    engine_ranks_plan(options, plan);
    TRY(engine_ahead_plan(options, plan));
    return engine_device_plan(options, plan);
}

/* ---- room for sequences ---- */
static enum status plan_context(const struct td_engine_options *options, const struct model_config *config,
                                struct engine_plan *plan)
{
    const int32_t most = config->context_len;
    plan->context = options->context > 0 ? options->context : most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (plan->context > most || plan->context < 2) {
        return status_fail(STATUS_INVALID, "expected a context between 2 and the model's %d positions, "
                           "found %d", most, plan->context);
    }
    return STATUS_OK;
}

static enum status plan_pages(const struct td_engine_options *options, struct engine_plan *plan)
{
    const int32_t per_seq = (plan->context + plan->page_slots - 1) / plan->page_slots;
    const int64_t n_pages = options->kv_pages > 0 ? options->kv_pages : (int64_t)per_seq * plan->max_batch;
    if (n_pages < per_seq) {
        return status_fail(STATUS_INVALID, "a context of %d positions needs %d KV pages of %d slots, found "
                           "%lld", plan->context, per_seq, plan->page_slots, (long long)n_pages);
    }
    if (n_pages > INT32_MAX / plan->page_slots) {
        return status_fail(STATUS_INVALID, "expected fewer than 2^31 KV slots, found %lld pages of %d",
                           (long long)n_pages, plan->page_slots);
    }
    plan->n_pages = (int32_t)n_pages;
    /* More prompt rows than all sequences can have need no room. */
    const int64_t most_rows = (int64_t)plan->context * plan->max_batch;
    plan->prefill_chunk = plan->prefill_chunk < most_rows ? plan->prefill_chunk : (int32_t)most_rows;
    return STATUS_OK;
}

enum status engine_plan_fit(const struct td_engine_options *options, const struct model_config *config,
                            struct engine_plan *plan)
{
    TRY(plan_context(options, config, plan));
    return plan_pages(options, plan);
}
