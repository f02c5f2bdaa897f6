/* ahead_fallback: what a sequence proposes whose outcome nobody prepared for: nothing, what a lookup finds,
 * or chains drafted while the target waits. Which of them brings the most tokens a second is measured: each
 * is tried a few times, and now and then again. The text does not depend on it (coupled rule); with the
 * rejection rule and a fixed K it is always chains, whatever was asked for, so that a seed gives its text
 * again: else it would hang on what was a hit, and on when it was worth working ahead. */
#include "draft/ahead_private.h"

enum { TRIES_AT_FIRST = 3, TRY_AGAIN_EVERY = 48, N_FALLBACKS = AHEAD_FALLBACK_DRAFT };
static const double NEWS = 1.0 / 16.0; /* share of the newest step in a record */

static double rate_of(const struct fallback_record *record)
{
    return record->seconds > 0.0 ? record->tokens / record->seconds : 0.0;
}

static enum ahead_fallback measured_best(const struct ahead *ahead)
{
    enum ahead_fallback best = AHEAD_FALLBACK_NONE;
    uint64_t n_steps = 0;
    for (enum ahead_fallback f = AHEAD_FALLBACK_NONE; f <= AHEAD_FALLBACK_DRAFT; f++) {
        const struct fallback_record *record = &ahead->fallbacks[f];
        n_steps += record->n_tries;
        if (record->n_tries < TRIES_AT_FIRST) {
            return f;
        }
        best = rate_of(record) > rate_of(&ahead->fallbacks[best]) ? f : best;
    }
    if (n_steps % TRY_AGAIN_EVERY == 0) { /* in turn */
        return (enum ahead_fallback)(AHEAD_FALLBACK_NONE + n_steps / TRY_AGAIN_EVERY % N_FALLBACKS);
    }
    return best;
}

enum ahead_fallback ahead_fallback_choose(struct ahead *ahead, const struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        if (asks[i].wants_prob && asks[i].is_fixed) {
            return AHEAD_FALLBACK_DRAFT;
        }
    }
    return ahead->options.fallback != AHEAD_FALLBACK_AUTO ? ahead->options.fallback : measured_best(ahead);
}

void ahead_fallback_judge(struct ahead *ahead, int64_t n_tokens, double seconds)
{
    struct fallback_record *record = &ahead->fallbacks[ahead->last_fallback];
    const double news = record->n_tries < TRIES_AT_FIRST ? 1.0 / (double)(record->n_tries + 1) : NEWS;
    record->tokens += news * ((double)n_tokens - record->tokens);
    record->seconds += news * (seconds - record->seconds);
    record->n_tries++;
}

/* A lookup or chains: sources of their own. */
static void take_source(struct draft_proposal *proposal, enum ahead_source source)
{
    for (int32_t node = 0; node < proposal->n; node++) {
        proposal->source[node] = (uint8_t)source;
    }
}

static void draft_there(struct ahead *ahead, struct draft_ask *asks, int32_t n_asks)
{
    struct ahead_job *job = ahead_job_next(ahead, AHEAD_JOB_DRAFT);
    ASSERT(job != NULL); /* what was posted before has ended */
    job->asks = asks;
    job->n_asks = n_asks;
    ahead_job_post(ahead, job);
    ahead_job_settle(ahead, job, false);
}

static void draft_now(struct ahead *ahead, struct draft_ask *asks, int32_t n_asks)
{
    const int64_t begin_ns = clock_now_ns();
    for (int i = 0; i < 2; i++) { /* one may run while the other waits, and be no longer of use (prepared) */
        ahead_job_settle(ahead, &ahead->jobs[i], true);
    }
    if (ahead->options.drafts_on_step_lane) {
        ahead_draft_here(ahead, asks, n_asks);
    } else {
        draft_there(ahead, asks, n_asks);
    }
    const double seconds = (double)(clock_now_ns() - begin_ns) * 1e-9;
    ahead->report.exposed_seconds += seconds;
    ahead->report.fallback_seconds += seconds;
}

/* What followed another token there may follow this one too. With the rejection rule nothing is served
 * that was not drawn behind the tokens it stands behind. */
static void take_neighbours(const struct ahead *ahead, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        struct ahead_outcome outcome;
        const struct ahead_table *table = ahead_table_of(ahead, &asks[i], &outcome);
        const struct ahead_branch *branch =
            table != NULL && !asks[i].wants_prob ? ahead_table_neighbour(table, outcome.n_accepted) : NULL;
        const int32_t n = branch != NULL ? ahead_branch_n(table, branch) : 0;
        draft_proposal_chain(&asks[i].proposal, n > 0 ? branch->next : NULL, n < asks[i].k_max ? n : asks[i].k_max,
                             AHEAD_SOURCE_FALLBACK, n > 0 ? branch->hint : NULL);
    }
}

void ahead_fallback_run(struct ahead *ahead, enum ahead_fallback fallback, struct draft_ask *asks, int32_t n_asks)
{
    if (fallback == AHEAD_FALLBACK_DRAFT) {
        draft_now(ahead, asks, n_asks);
    } else if (fallback == AHEAD_FALLBACK_LOOKUP) {
        ahead->lookup->kind->propose(ahead->lookup, asks, n_asks);
    } else if (fallback == AHEAD_FALLBACK_BRANCH) {
        take_neighbours(ahead, asks, n_asks);
    }
    for (int32_t i = 0; i < n_asks; i++) {
        if (fallback == AHEAD_FALLBACK_NONE) {
            asks[i].proposal.n = 0;
        }
        take_source(&asks[i].proposal, fallback == AHEAD_FALLBACK_DRAFT ? AHEAD_SOURCE_MODEL : AHEAD_SOURCE_FALLBACK);
    }
}
