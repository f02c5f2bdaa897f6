/* ahead: see the header. The step thread's half: what was prepared is looked up, what is verified now is
 * handed on. A sequence whose outcome was prepared is served at once, whatever its neighbours need. */
#include <string.h>

#include "draft/ahead_private.h"

static const double FALLBACK_NEWS = 1.0 / 8.0; /* share of the newest step in what fallbacks take */

/* ---- looking up ---- */
const struct ahead_table *ahead_table_of(const struct ahead *ahead, const struct draft_ask *ask,
                                         struct ahead_outcome *outcome)
{
    const struct ahead_job *job = ahead->prepared;
    const int32_t i = job != NULL ? job->texts[ask->place].round_idx : 0;
    const bool is_there = job != NULL && i < job->n_rounds && job->rounds[i].place == ask->place;
    return is_there && ahead_table_outcome(&job->tables[i], ask, outcome) ? &job->tables[i] : NULL;
}

/* Tests want a share of hits: which, is a matter of the key alone. */
static bool is_kept(const struct ahead *ahead, const struct draft_ask *ask)
{
    const uint64_t key = ask->seq_id * 1000003u + (uint64_t)ask->n_tokens;
    return (int32_t)(rng_mix64(key) % 100) < ahead->options.kept_hits;
}

static bool serve(struct ahead *ahead, struct draft_ask *ask)
{
    struct ahead_outcome outcome;
    const struct ahead_table *table = ahead_table_of(ahead, ask, &outcome);
    if (table == NULL) {
        ahead->report.unprepared++;
        return false;
    }
    const struct ahead_branch *branch = is_kept(ahead, ask) ? ahead_table_find(table, outcome) : NULL;
    const int32_t n_ready = branch != NULL ? ahead_branch_n(table, branch) : 0;
    const int32_t n = n_ready < ask->k_max ? n_ready : ask->k_max;
    ahead->report.rounds++;
    if (n == 0) {
        ahead->report.misses++;
        timeline_mark(TIMELINE_STEP, &timeline_miss, outcome.n_accepted, (int64_t)ask->seq_id);
        return false;
    }
    draft_proposal_chain(&ask->proposal, branch->next, n, AHEAD_SOURCE_AHEAD, branch->hint);
    for (int32_t i = 0; i < n; i++) {
        ask->proposal.prob[i] = ask->wants_prob ? branch->prob[i] : NULL;
    }
    ahead->served[ask->place].n = n;
    memcpy(ahead->served[ask->place].token, branch->next, (size_t)n * sizeof *branch->next);
    timeline_mark(TIMELINE_STEP, &timeline_hit, outcome.n_accepted, n);
    ahead->report.hits++;
    ahead->report.tokens_served += (uint64_t)n;
    ahead->report.tokens_wanted += (uint64_t)ask->k_max;
    return true;
}

/* ---- the step thread's calls ---- */
/* What ran beside the pass was hidden by it. */
static void settle_prepared(struct ahead *ahead)
{
    struct ahead_job *job = ahead->prepared;
    if (job != NULL && ahead->never_stops_early) {
        ahead->report.exposed_seconds += ahead_job_settle(ahead, job, false);
    }
}

/* The step since the last propose, where it was one of the same sequences that did nothing but decode. */
static void judge_step(struct ahead *ahead, const struct draft_ask *asks, int32_t n_asks)
{
    const int64_t now_ns = clock_now_ns();
    int64_t n_tokens = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        n_tokens += asks[i].n_tokens;
    }
    const int64_t n_new = n_tokens - ahead->last_n_tokens;
    if (n_asks == ahead->last_n_asks && n_new > 0 && n_new <= (int64_t)n_asks * (DRAFT_MAX_NODES + 1)) {
        const double seconds = (double)(now_ns - ahead->last_propose_ns) * 1e-9;
        if (ahead->last_fallback != AHEAD_FALLBACK_AUTO) {
            ahead_fallback_judge(ahead, n_new, seconds);
        }
        if (ahead->options.when == AHEAD_WHEN_FASTER) {
            ahead_mode_observe(&ahead->modes, n_new, seconds);
        }
    }
    ahead->last_fallback = AHEAD_FALLBACK_AUTO;
    ahead->last_propose_ns = now_ns;
    ahead->last_n_tokens = n_tokens;
    ahead->last_n_asks = n_asks;
}

/* Drafting and verifying in turn. */
static void propose_in_turn(struct ahead *ahead, struct draft_ask *asks, int32_t n_asks)
{
    ahead->report.turns++;
    for (int32_t i = 0; i < n_asks; i++) {
        ahead->served[asks[i].place].n = 0;
    }
    ahead_fallback_run(ahead, AHEAD_FALLBACK_DRAFT, asks, n_asks);
}

static void note_fallback(struct ahead *ahead, int32_t n_missed, int64_t ns)
{
    int32_t n_proposed = 0;
    for (int32_t i = 0; i < n_missed; i++) {
        n_proposed += ahead->missed[i].proposal.n;
    }
    ahead->k_fallback += FALLBACK_NEWS * ((double)n_proposed / n_missed - ahead->k_fallback);
    ahead->fallback_seconds += FALLBACK_NEWS * ((double)ns * 1e-9 - ahead->fallback_seconds);
}

/* The target is about to compute a prompt: that is time enough to prepare for its first token, and to
 * compute the prompt here too. (Where the length of proposals must not hang on time, it is drafted first.) */
static bool is_fresh(const struct draft_ask *ask)
{
    return ask->n_tokens == ask->n_prompt && !(ask->wants_prob && ask->is_fixed);
}

static void propose(struct draft *base, struct draft_ask *asks, int32_t n_asks)
{
    struct ahead *ahead = (struct ahead *)base;
    int32_t n_missed = 0;
    judge_step(ahead, asks, n_asks);
    settle_prepared(ahead);
    if (ahead->modes.takes_turns) {
        propose_in_turn(ahead, asks, n_asks);
        return;
    }
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = 0;
        ahead->served[asks[i].place].n = 0;
        if (asks[i].k_max > 0 && !is_fresh(&asks[i]) && !serve(ahead, &asks[i])) {
            ahead->missed[n_missed] = asks[i];
            ahead->missed_idx[n_missed++] = i;
        }
    }
    if (n_missed > 0) {
        ahead->last_fallback = ahead_fallback_choose(ahead, ahead->missed, n_missed);
        const int64_t begin_ns = clock_now_ns();
        ahead_fallback_run(ahead, ahead->last_fallback, ahead->missed, n_missed);
        note_fallback(ahead, n_missed, clock_now_ns() - begin_ns);
        for (int32_t i = 0; i < n_missed; i++) {
            asks[ahead->missed_idx[i]].proposal = ahead->missed[i].proposal;
        }
    }
}

/* The tokens of a round, apart from those that the step thread goes on writing. */
static struct ahead_text *keep_text(struct ahead_job *job, const struct draft_ask *ask)
{
    struct ahead_text *text = &job->texts[ask->place];
    if (text->seq_id != ask->seq_id || text->epoch != ask->epoch || text->n_valid > ask->n_tokens) {
        text->seq_id = ask->seq_id;
        text->epoch = ask->epoch;
        text->n_valid = 0;
    }
    memcpy(text->tokens + text->n_valid, ask->tokens + text->n_valid,
           (size_t)(ask->n_tokens - text->n_valid) * sizeof *text->tokens);
    text->n_valid = ask->n_tokens;
    text->params = *ask->params;
    return text;
}

/* With the rejection rule the length must not hang on what this round happened to have room for. */
static int32_t k_next_of(const struct ahead *ahead, const struct draft_ask *ask)
{
    const bool is_short = ask->is_fixed && ask->fixed_k > 0 && !ask->wants_prob;
    return is_short ? ask->fixed_k : ahead->options.grower.model.common.k_max;
}

/* What is verified is what a hit served, or the beginning of it: not a fallback's, nor another source's. */
static bool is_after_hit(const struct ahead *ahead, const struct draft_ask *ask, int32_t n_chain)
{
    const struct ahead_served *served = &ahead->served[ask->place];
    return served->n > 0 && n_chain <= served->n &&
           memcmp(served->token, ask->proposal.token, (size_t)n_chain * sizeof *served->token) == 0;
}

static void add_round(struct ahead *ahead, struct ahead_job *job, const struct draft_ask *ask)
{
    const int32_t n_chain = draft_proposal_chain_len(&ask->proposal);
    struct ahead_text *text = keep_text(job, ask);
    struct ahead_table *table = &job->tables[job->n_rounds];
    text->round_idx = job->n_rounds;
    memcpy(text->tokens + ask->n_tokens, ask->proposal.token, (size_t)n_chain * sizeof *text->tokens);
    job->rounds[job->n_rounds++] = (struct ahead_round){
        .place = ask->place, .seq_id = ask->seq_id, .epoch = ask->epoch, .tokens = text->tokens,
        .n_tokens = ask->n_tokens, .n_prompt = ask->n_prompt, .n_proposed = n_chain,
        .k_next = k_next_of(ahead, ask), .params = &text->params,
        .tenant = ask->tenant, .wants_prob = ask->wants_prob,
        .after_miss = !is_after_hit(ahead, ask, n_chain) && !mutant(MUTANT_MISS_LEARNED_AS_HIT) };
    ahead_table_begin(table, ask, n_chain);
    ahead->never_stops_early |= ask->wants_prob && ask->is_fixed;
}

static bool is_wanted(const struct ahead *ahead, const struct draft_ask *ask)
{
    return ask->k_max > 0 && ask->n_tokens + DRAFT_MAX_NODES < ahead->options.grower.model.common.context;
}

static void begin(struct draft *base, const struct draft_ask *asks, int32_t n_asks)
{
    struct ahead *ahead = (struct ahead *)base;
    int32_t n_wanted = 0;
    bool has_prompt = false;
    for (int32_t i = 0; i < n_asks && !ahead->modes.takes_turns; i++) {
        n_wanted += is_wanted(ahead, &asks[i]);
    }
    ahead->begin_ns = clock_now_ns();
    ahead->begin_rows = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        ahead->begin_rows += 1 + asks[i].proposal.n;
        has_prompt |= asks[i].n_tokens == asks[i].n_prompt;
    }
    ahead->begin_rows = has_prompt ? 0 : ahead->begin_rows; /* such a pass says nothing of others */
    ahead->prepared = NULL;
    struct ahead_job *job = n_wanted > 0 ? ahead_job_next(ahead, AHEAD_JOB_ROUNDS) : NULL;
    if (job == NULL) {
        return; /* nothing is wanted, or the draft is a round behind already */
    }
    ahead->never_stops_early = ahead->options.grower.never_stops_early;
    for (int32_t i = 0; i < n_asks; i++) {
        if (is_wanted(ahead, &asks[i])) {
            add_round(ahead, job, &asks[i]);
        }
    }
    job->begin_ns = has_prompt ? 0 : ahead->begin_ns;
    job->grows_to_the_end = ahead->never_stops_early;
    job->verify_ns = ahead->verify_ns;
    job->verify_rows = ahead->verify_rows;
    job->k_fallback = (int32_t)(ahead->k_fallback + 0.5);
    job->fallback_seconds = ahead->fallback_seconds;
    ahead->prepared = job;
    ahead_job_post(ahead, job);
}

static void known(struct draft *base)
{
    struct ahead *ahead = (struct ahead *)base;
    ahead->verify_ns = ahead->prepared != NULL ? clock_now_ns() - ahead->begin_ns : 0;
    ahead->verify_rows = ahead->begin_rows;
    if (ahead->prepared != NULL && !ahead->never_stops_early) {
        atomic_store(&ahead->prepared->stop, 1);
    }
}

static void forget(struct draft *base, const struct draft_farewell *farewell)
{
    struct ahead *ahead = (struct ahead *)base;
    int32_t at = 0;
    for (int32_t i = 0; i < 2; i++) { /* biases go with the request */
        const struct ahead_text *text = &ahead->jobs[i].texts[farewell->place];
        if (text->seq_id == farewell->seq_id && text->params.n_biases > 0) {
            ahead_job_settle(ahead, &ahead->jobs[i], true);
        }
    }
    while (at < ahead->n_leaving && ahead->leaving[at].place != farewell->place) {
        at++;
    }
    ahead->n_leaving += at == ahead->n_leaving;
    ahead->leaving[at] = *farewell;
    ahead->leaving[at].tokens = NULL; /* the sequence's own; what is worth keeping was published */
    ahead->leaving[at].n_tokens = 0;
    ahead->lookup->kind->forget(ahead->lookup, farewell);
}

static struct draft_ahead_counts count(const struct draft *base)
{
    const struct ahead_report *report = &((const struct ahead *)base)->report;
    const struct grower_report *grower = &report->grower;
    return (struct draft_ahead_counts){
        .hits = report->hits, .misses = report->misses, .unprepared = report->unprepared,
        .branches_grown = grower->branches, .branches_used = report->hits,
        .tokens_served = report->tokens_served, .tokens_wanted = report->tokens_wanted,
        .hidden_seconds = report->hidden_seconds, .exposed_seconds = report->exposed_seconds,
        .fallback_seconds = report->fallback_seconds,
        .glues = grower->rounds, .grow_steps = grower->steps,
        .glue_seconds = grower->glue_seconds + grower->fork_seconds, .grow_seconds = grower->grow_seconds };
}

static void destroy(struct draft *base)
{
    struct ahead *ahead = (struct ahead *)base;
    ahead_thread_stop(ahead);
    for (int i = 0; i < 2; i++) {
        mem_free(ahead->jobs[i].rounds);
        ahead_tables_destroy(ahead->jobs[i].tables);
        mem_free(ahead->jobs[i].texts);
        mem_free(ahead->jobs[i].tokens);
        mem_free(ahead->jobs[i].farewells);
    }
    mem_free(ahead->leaving);
    mem_free(ahead->missed);
    mem_free(ahead->missed_idx);
    mem_free(ahead->served);
    if (ahead->lookup != NULL) {
        ahead->lookup->kind->destroy(ahead->lookup);
    }
    grower_destroy(ahead->grower);
    mem_free(ahead);
}

static const struct draft_kind ahead_kind = {
    .name = "ahead",
    .propose = propose,
    .observe = draft_observe_nothing, /* tokens are compared when the next round begins */
    .forget = forget,
    .destroy = destroy,
    .begin = begin,
    .known = known,
    .count = count,
};

/* ---- creation ---- */
static enum status open_job(struct ahead *ahead, struct ahead_job *job)
{
    const struct draft_options *common = &ahead->options.grower.model.common;
    const size_t n = (size_t)common->max_batch, n_text = (size_t)common->context + DRAFT_MAX_NODES;
    job->rounds = mem_alloc(n, sizeof *job->rounds);
    job->texts = mem_alloc(n, sizeof *job->texts);
    job->tokens = mem_alloc(n, n_text * sizeof *job->tokens);
    job->farewells = mem_alloc(n, sizeof *job->farewells);
    if (job->rounds == NULL || job->texts == NULL || job->tokens == NULL || job->farewells == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the rounds of %zu sequences", n);
    }
    for (size_t i = 0; i < n; i++) {
        job->texts[i].tokens = job->tokens + i * n_text;
    }
    atomic_init(&job->stop, 0);
    atomic_init(&job->is_done, 1);
    ahead->bytes += n * (n_text * sizeof *job->tokens + sizeof *job->rounds + sizeof *job->texts +
                         (size_t)ahead->options.grower.max_budget * sizeof(struct ahead_branch));
    return ahead_tables_create(common->max_batch, ahead->options.grower.max_budget, &job->tables);
}

static enum status open_ahead(struct ahead *ahead)
{
    const size_t n = (size_t)ahead->options.grower.model.common.max_batch;
    for (int i = 0; i < 2; i++) {
        TRY(open_job(ahead, &ahead->jobs[i]));
    }
    ahead->leaving = mem_alloc(n, sizeof *ahead->leaving);
    ahead->missed = mem_alloc(n, sizeof *ahead->missed);
    ahead->missed_idx = mem_alloc(n, sizeof *ahead->missed_idx);
    ahead->served = mem_alloc(n, sizeof *ahead->served);
    if (ahead->leaving == NULL || ahead->missed == NULL || ahead->missed_idx == NULL || ahead->served == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the rounds of %zu sequences", n);
    }
    TRY(draft_ngram_create(&ahead->options.grower.model.common, &ahead->lookup));
    return ahead_thread_start(ahead);
}

enum status draft_ahead_create(const struct ahead_options *options, struct draft **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    struct ahead *ahead = mem_alloc(1, sizeof *ahead);
    if (ahead == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft that works ahead");
    }
    ahead->options = *options;
    ahead->options.grower.model.kept_ids = NULL; /* the caller's */
    for (int i = 0; i < 2; i++) {
        atomic_init(&ahead->jobs[i].is_done, 1);
    }
    atomic_init(&ahead->has_job, 0);
    ahead_mode_begin(&ahead->modes, options->when == AHEAD_WHEN_FASTER);
    draft_base_init(&ahead->base, &ahead_kind, "ahead");
    ahead->base.source_name[AHEAD_SOURCE_MODEL] = "model";
    ahead->base.source_name[AHEAD_SOURCE_FALLBACK] = "fallback";
    ahead->base.n_sources = AHEAD_SOURCE_FALLBACK + 1;
    for (int32_t i = 0; i < ahead->base.n_sources; i++) {
        calibration_init(&ahead->base.calibration[i]);
    }
    TRY_GOTO(grower_create(&options->grower, &ahead->grower), out);
    ahead->base.context = grower_model_draft(ahead->grower)->context;
    ahead->base.is_costly = true;
    TRY_GOTO(open_ahead(ahead), out);
    *out = &ahead->base;
    return STATUS_OK;
out:
    destroy(&ahead->base);
    return status;
}

uint64_t draft_ahead_bytes(const struct draft *base)
{
    const struct ahead *ahead = (const struct ahead *)base;
    return ahead->bytes + grower_bytes(ahead->grower);
}

uint64_t draft_ahead_kv_bytes(const struct draft *base)
{
    return grower_kv_bytes(((const struct ahead *)base)->grower);
}

struct ahead_report draft_ahead_report(const struct draft *base)
{
    const struct ahead *ahead = (const struct ahead *)base;
    if (base->kind != &ahead_kind) {
        return (struct ahead_report){ .rounds = 0 };
    }
    return ahead->report;
}
