#include "bench/engine_run.h"

#include <stdio.h>
#include <string.h>

static const char *const beginnings[] = {
    "Once upon a time, there was a little", "One day, a boy named Tim found a", "Lily and Ben went to the park with",
    "The big dog was very", "In the morning, the sun", "A small bird lived in a", "Mia wanted to bake a",
    "There was a red car who",
};
enum { N_BEGINNINGS = sizeof beginnings / sizeof beginnings[0] };

enum status run_said(enum td_status td)
{
    char sentence[1024]; /* the message may lie where status_fail() is about to write */
    snprintf(sentence, sizeof sentence, "%s", td_error_message());
    return td == TD_OK ? STATUS_OK : status_fail(STATUS_INVALID, "%s", sentence);
}

enum status run_engine_open(const struct run_engine_options *options, struct td_engine **out)
{
    struct td_engine_options engine;
    td_engine_options_init(&engine);
    engine.target = options->target;
    engine.draft = options->draft;
    engine.isa = options->isa;
    engine.threads = options->threads;
    engine.context = options->context;
    engine.max_batch = options->max_batch;
    engine.k = options->k;
    engine.target_device = options->target_device;
    engine.draft_device = options->draft_device;
    engine.ahead = options->ahead != NULL ? options->ahead : engine.ahead;
    engine.lend = !options->keeps_apart;
    engine.virtual_pass_us = options->virtual_pass_us;
    engine.virtual_draft_us = options->virtual_draft_us;
    engine.prefix_cache = 0; /* each run pays for its prompts */
    return run_said(td_engine_open(&engine, out));
}

/* Ids spread over the vocabulary by a hash, so that no two prompts share a beginning. */
static size_t make_prompt(struct td_engine *engine, const struct run_spec *spec, int i, int32_t *ids, size_t cap)
{
    struct td_engine_info info;
    size_t n = 0;
    const int number = spec->variant * spec->batch + i;
    const char *text = beginnings[number % N_BEGINNINGS];
    td_engine_get_info(engine, &info);
    if (td_tokenize(engine, text, strlen(text), 0, ids, cap, &n) == TD_OK && n <= cap) {
        return n;
    }
    for (n = 0; n < RUN_PROMPT_TOKENS; n++) {
        ids[n] = (int32_t)(rng_mix64((uint64_t)number * RUN_PROMPT_TOKENS + n) % (uint64_t)info.n_vocab);
    }
    return n;
}

static enum status submit(struct td_engine *engine, const struct run_spec *spec)
{
    for (int i = 0; i < spec->batch; i++) {
        int32_t ids[64];
        struct td_request request;
        uint64_t id;
        td_request_init(&request);
        request.ids = ids;
        request.n_ids = make_prompt(engine, spec, i, ids, sizeof ids / sizeof ids[0]);
        request.max_tokens = spec->n_tokens;
        request.temperature = spec->temperature;
        request.has_seed = 1;
        request.seed = (uint64_t)(spec->variant * spec->batch + i);
        request.ignore_eos = 1;
        request.want_text = 0;
        request.k = spec->k;
        request.tenant = spec->tenant; /* a text seen before is no measure */
        TRY(run_said(td_submit(engine, &request, &id)));
    }
    return STATUS_OK;
}

struct drained { int64_t n_tokens; double decode_seconds; uint64_t digest; int n_finished; };

static enum status drain(struct td_engine *engine, int n, struct drained *out)
{
    *out = (struct drained){ .digest = 0 };
    while (out->n_finished < n) {
        struct td_event event;
        TRY(run_said(td_next_event(engine, -1, &event)));
        if (event.kind != TD_EVENT_FINISHED) {
            continue;
        }
        if (event.finish == TD_FINISH_ERROR) {
            return status_fail(STATUS_INVALID, "a request failed: %s", event.error);
        }
        const struct td_usage *usage = &event.usage;
        out->n_tokens += usage->completion_tokens - 1;
        out->decode_seconds = usage->decode_seconds > out->decode_seconds ? usage->decode_seconds
                                                                         : out->decode_seconds;
        out->digest += rng_mix64(usage->logits_digest); /* they end in any order */
        out->n_finished++;
    }
    return STATUS_OK;
}

static void take_difference(struct td_draft_counts *after, const struct td_draft_counts *before)
{
    after->rounds -= before->rounds;
    after->proposed -= before->proposed;
    after->accepted -= before->accepted;
    for (int i = 0; i < TD_MAX_DRAFTED; i++) {
        after->accepted_by_position[i] -= before->accepted_by_position[i];
    }
    for (int i = 0; i < TD_MAX_SOURCES; i++) {
        after->proposed_by_source[i] -= before->proposed_by_source[i];
        after->accepted_by_source[i] -= before->accepted_by_source[i];
    }
}

static void take_ahead_difference(struct td_ahead_counts *after, const struct td_ahead_counts *before)
{
    after->hits -= before->hits;
    after->misses -= before->misses;
    after->unprepared -= before->unprepared;
    after->branches_grown -= before->branches_grown;
    after->branches_used -= before->branches_used;
    after->tokens_served -= before->tokens_served;
    after->tokens_wanted -= before->tokens_wanted;
    after->hidden_seconds -= before->hidden_seconds;
    after->exposed_seconds -= before->exposed_seconds;
    after->fallback_seconds -= before->fallback_seconds;
    after->glues -= before->glues;
    after->grow_steps -= before->grow_steps;
    after->glue_seconds -= before->glue_seconds;
    after->grow_seconds -= before->grow_seconds;
}

enum status run_requests(struct td_engine *engine, const struct run_spec *spec, struct run_result *out)
{
    struct td_engine_stats before, after;
    struct drained drained;
    td_engine_get_stats(engine, &before);
    TRY(submit(engine, spec));
    TRY(drain(engine, spec->batch, &drained));
    td_engine_get_stats(engine, &after);
    *out = (struct run_result){
        .tok_per_s = drained.decode_seconds > 0 ? (double)drained.n_tokens / drained.decode_seconds : 0,
        .n_tokens = drained.n_tokens, .n_passes = (int64_t)(after.target_passes - before.target_passes),
        .draft_seconds = after.draft_seconds - before.draft_seconds,
        .verify_seconds = after.verify_seconds - before.verify_seconds,
        .drafted = after.drafted, .ahead = after.ahead, .late_passes = after.late_passes - before.late_passes,
        .digest = drained.digest };
    take_difference(&out->drafted, &before.drafted);
    take_ahead_difference(&out->ahead, &before.ahead);
    return STATUS_OK;
}

double run_mean_length(const struct td_draft_counts *drafted)
{
    return drafted->rounds > 0 ? 1 + (double)drafted->accepted / (double)drafted->rounds : 1;
}

double run_first_acceptance(const struct td_draft_counts *drafted)
{
    return drafted->rounds > 0 ? (double)drafted->accepted_by_position[0] / (double)drafted->rounds : 0;
}
