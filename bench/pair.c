/* pair: what a draft does for a target, found by trying: plain decoding and a few K in turn, again and
 * again, until the time is up. */
#include <string.h>

#include "bench/engine_run.h"

struct trial {
    struct samples rates;
    struct run_result sum;
};

static enum status try_all(struct td_engine *engine, const struct bench_pair *pair, struct trial *trials, int variant,
                           bool counts)
{
    for (int i = 0; i < pair->n_tries; i++) {
        struct run_result result;
        TRY(run_requests(engine, &(struct run_spec){ .batch = 1, .n_tokens = counts ? 48 : 16,
                                                     .k = pair->tries[i].k, .variant = variant,
                                                     .tenant = (uint64_t)(variant * PAIR_MAX_TRIES + i) }, &result));
        if (!counts) {
            continue;
        }
        struct run_result *sum = &trials[i].sum;
        samples_add(&trials[i].rates, result.tok_per_s);
        sum->n_passes += result.n_passes;
        sum->draft_seconds += result.draft_seconds;
        sum->verify_seconds += result.verify_seconds;
        sum->drafted.rounds += result.drafted.rounds;
        sum->drafted.proposed += result.drafted.proposed;
        sum->drafted.accepted += result.drafted.accepted;
        for (int p = 0; p < TD_MAX_DRAFTED; p++) {
            sum->drafted.accepted_by_position[p] += result.drafted.accepted_by_position[p];
        }
    }
    return STATUS_OK;
}

static double pass_seconds(const struct trial *trial)
{
    return trial->sum.n_passes > 0 ? trial->sum.verify_seconds / (double)trial->sum.n_passes : 0;
}

static void conclude(const struct trial *trials, struct bench_pair *pair)
{
    const double plain = pass_seconds(&trials[0]);
    for (int i = 0; i < pair->n_tries; i++) {
        struct bench_pair_try *t = &pair->tries[i];
        const struct td_draft_counts *drafted = &trials[i].sum.drafted;
        t->tok_per_s = samples_median(&trials[i].rates);
        t->length = run_mean_length(drafted);
        t->pass_cost = plain > 0 ? pass_seconds(&trials[i]) / plain : 0;
        t->draft_cost = plain > 0 && drafted->proposed > 0
            ? trials[i].sum.draft_seconds / (double)drafted->proposed / plain : 0;
    }
    const struct td_draft_counts *longest = &trials[pair->n_tries - 2].sum.drafted;
    for (int p = 0; p < 8; p++) {
        pair->accepted[p] = longest->rounds > 0
            ? (double)longest->accepted_by_position[p] / (double)longest->rounds : 0;
    }
}

enum status bench_pair_measure(const struct bench_pair_options *options, struct bench_pair *out)
{
    static const int32_t ks[PAIR_MAX_TRIES] = { 0, 1, 2, 4, 8, -1 };
    struct td_engine *engine = NULL;
    struct td_engine_info info;
    struct trial *trials = mem_alloc(PAIR_MAX_TRIES, sizeof *trials);
    if (trials == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for trials");
    }
    *out = (struct bench_pair){ .n_tries = PAIR_MAX_TRIES };
    for (int i = 0; i < PAIR_MAX_TRIES; i++) {
        out->tries[i].k = ks[i];
    }
    enum status status;
    TRY_GOTO(run_engine_open(&(struct run_engine_options){ .target = options->target, .draft = options->draft,
        .isa = options->isa, .threads = options->threads, .max_batch = 1, .k = -1 }, &engine), out);
    td_engine_get_info(engine, &info);
    memcpy(out->sources, info.draft_sources, sizeof out->sources);
    TRY_GOTO(try_all(engine, out, trials, 0, false), out);
    const int64_t begin_ns = clock_now_ns();
    for (int i = 1; i == 1 || (double)(clock_now_ns() - begin_ns) * 1e-9 < options->seconds; i++) {
        TRY_GOTO(try_all(engine, out, trials, i, true), out);
    }
    conclude(trials, out);
out:
    if (engine != NULL) {
        td_engine_close(engine);
    }
    mem_free(trials);
    return status;
}
