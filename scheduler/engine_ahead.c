/* engine_ahead: see the header. "auto" works ahead as long as that is faster. */
#include "scheduler/engine_ahead.h"

#include <string.h>

#include "scheduler/engine_draft.h"

enum { MAX_BUDGET = 48 }; /* unless more is asked for: what a core can grow beside a target */

static int word_idx(const char *text, const char *const *words, int n)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static enum ahead_fallback fallback_of(const struct td_engine_options *options)
{
    static const char *const words[] = { "auto", "none", "lookup", "branch", "draft" };
    return (enum ahead_fallback)(options->fallback != NULL ? word_idx(options->fallback, words, 5) : 0);
}

/* Of a list the budget is what it adds up to, where none is given. */
static enum status fanout_of(const struct td_engine_options *options, struct fanout_options *out)
{
    *out = (struct fanout_options){ .kind = FANOUT_LEARNED, .budget = options->ahead_budget };
    if (options->fanout != NULL) {
        TRY(fanout_parse(options->fanout, out));
    }
    if (out->kind == FANOUT_LIST && out->budget == 0) {
        const struct fanout_ask longest = { .n_proposed = FANOUT_MAX_K, .budget = FANOUT_MAX_BUDGET };
        const struct fanout_plan plan = fanout_choose(out, NULL, &longest);
        out->budget = fanout_plan_total(&plan);
    }
    return STATUS_OK;
}

enum status engine_ahead_fanout(const struct td_engine_options *options, struct fanout_options *fanout,
                                int32_t *max_budget)
{
    TRY(fanout_of(options, fanout));
    *max_budget = fanout->budget > 0 ? fanout->budget : MAX_BUDGET;
    return STATUS_OK;
}

/* A core to spare for the draft's thread: one was named, or the cores are ours to divide. */
static bool has_cores(const struct td_engine_options *options)
{
    int cpus[ENGINE_MAX_THREADS], n_physical = 1;
    backend_cpu_list(cpus, ENGINE_MAX_THREADS, &n_physical);
    return options->draft_device != NULL ||
           (options->target_device == NULL && options->threads == 0 && options->lend && n_physical >= 2);
}

enum status engine_ahead_plan(const struct td_engine_options *options, struct engine_plan *plan)
{
    static const char *const words[] = { "auto", "on", "off" };
    const int when = options->ahead != NULL ? word_idx(options->ahead, words, 3) : 0;
    if (when < 0) {
        return status_fail(STATUS_INVALID, "expected auto, on or off of a draft that works ahead, found '%s'",
                           options->ahead);
    }
    if ((int)fallback_of(options) < 0) {
        return status_fail(STATUS_INVALID, "expected a fallback of auto, none, lookup, branch or draft, found '%s'",
                           options->fallback);
    }
    if (options->ahead_budget < 0 || options->ahead_budget > FANOUT_MAX_BUDGET || options->ahead_hits < 0 ||
        options->ahead_hits > 100) {
        return status_fail(STATUS_INVALID, "expected 0 to %d outcomes to prepare for and 0 to 100 percent of them "
                           "used, found %d and %d", FANOUT_MAX_BUDGET, options->ahead_budget, options->ahead_hits);
    }
    struct fanout_options fanout;
    TRY(fanout_of(options, &fanout));
    const bool has_model = plan->k_max > 0 && engine_draft_has_model(options);
    if (when == 1 && !has_model) {
        return status_fail(STATUS_INVALID, "a draft that works ahead is a model; '%s' is none", options->draft);
    }
    plan->drafts_ahead = has_model && (when == 1 || (when == 0 && has_cores(options)));
    return STATUS_OK;
}

enum status engine_ahead_create(struct td_engine *engine, const struct td_engine_options *options,
                                const struct draft_model_options *model, struct draft **out)
{
    struct fanout_options fanout;
    int32_t max_budget;
    TRY(engine_ahead_fanout(options, &fanout, &max_budget));
    return draft_ahead_create(&(struct ahead_options){
        .grower = { .model = *model, .fanout = fanout, .max_budget = max_budget },
        .when = options->ahead != NULL && strcmp(options->ahead, "on") == 0 ? AHEAD_ALWAYS : AHEAD_WHEN_FASTER,
        .step_lane = engine->lane, .drafts_on_step_lane = engine->plan.lends, .fallback = fallback_of(options), .kept_hits = options->ahead_hits }, out);
}
