/* ahead: see the header. The step thread's half: what was prepared is looked up, what is verified now is
 * handed on. A sequence whose outcome was prepared is served at once, whatever its neighbours need. */
#include <string.h>

#include "draft/ahead_private.h"

/* ---- looking up ---- */
static const struct ahead_table *table_of(const struct ahead *ahead, const struct draft_ask *ask,
                                          struct ahead_outcome *outcome)
{
    const struct ahead_job *job = ahead->prepared;
    for (int32_t i = 0; job != NULL && i < job->n_rounds; i++) {
        if (job->rounds[i].place == ask->place) {
            return ahead_table_outcome(&job->tables[i], ask, outcome) ? &job->tables[i] : NULL;
        }
    }
    return NULL;
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
    const struct ahead_table *table = table_of(ahead, ask, &outcome);
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
    timeline_mark(TIMELINE_STEP, &timeline_hit, outcome.n_accepted, n);
    ahead->report.hits++;
    ahead->report.branches_used++;
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

static void propose(struct draft *base, struct draft_ask *asks, int32_t n_asks)
{
    struct ahead *ahead = (struct ahead *)base;
    int32_t n_missed = 0;
    ahead_fallback_judge(ahead, asks, n_asks);
    settle_prepared(ahead);
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = 0;
        ahead->was_miss[asks[i].place] = false;
        if (asks[i].k_max > 0 && !serve(ahead, &asks[i])) {
            ahead->was_miss[asks[i].place] = true;
            ahead->missed[n_missed] = asks[i];
            ahead->missed_idx[n_missed++] = i;
        }
    }
    if (n_missed > 0) {
        ahead->last_fallback = ahead_fallback_choose(ahead, ahead->missed, n_missed);
        ahead_fallback_run(ahead, ahead->last_fallback, ahead->missed, n_missed);
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

static void add_round(struct ahead *ahead, struct ahead_job *job, const struct draft_ask *ask)
{
    const struct draft_options *common = &ahead->options.grower.model.common;
    const int32_t n_chain = draft_proposal_chain_len(&ask->proposal);
    struct ahead_text *text = keep_text(job, ask);
    struct ahead_table *table = &job->tables[job->n_rounds];
    memcpy(text->tokens + ask->n_tokens, ask->proposal.token, (size_t)n_chain * sizeof *text->tokens);
    job->rounds[job->n_rounds++] = (struct ahead_round){
        .place = ask->place, .seq_id = ask->seq_id, .epoch = ask->epoch, .tokens = text->tokens,
        .n_tokens = ask->n_tokens, .n_prompt = ask->n_prompt, .n_proposed = n_chain,
        .k_next = ask->is_fixed && ask->fixed_k > 0 ? ask->fixed_k : common->k_max, .params = &text->params,
        .tenant = ask->tenant, .wants_prob = ask->wants_prob, .after_miss = ahead->was_miss[ask->place] };
    table->place = ask->place;
    table->seq_id = ask->seq_id;
    table->epoch = ask->epoch;
    table->n_tokens = ask->n_tokens;
    table->n_proposed = n_chain;
    memcpy(table->proposed, ask->proposal.token, (size_t)n_chain * sizeof *table->proposed);
    atomic_store(&table->n_ready, -1);
    ahead->never_stops_early |= ask->wants_prob && ask->is_fixed;
}

static bool is_wanted(const struct ahead *ahead, const struct draft_ask *ask)
{
    return ask->k_max > 0 && ask->n_tokens + DRAFT_MAX_NODES < ahead->options.grower.model.common.context;
}

/* Time of the jobs that ended since, as far as nobody waited for it. */
static void count_hidden(struct ahead *ahead)
{
    struct ahead_job *job = ahead->prepared;
    if (job != NULL && atomic_load(&job->is_done)) {
        ahead->report.hidden_seconds += (double)job->run_ns * 1e-9;
        ahead->report.grower = job->grower;
    }
}

static void begin(struct draft *base, const struct draft_ask *asks, int32_t n_asks)
{
    struct ahead *ahead = (struct ahead *)base;
    int32_t n_wanted = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        n_wanted += is_wanted(ahead, &asks[i]);
    }
    count_hidden(ahead);
    ahead->begin_ns = clock_now_ns();
    ahead->prepared = NULL;
    struct ahead_job *job = n_wanted > 0 ? ahead_job_next(ahead, AHEAD_JOB_ROUNDS) : NULL;
    if (job == NULL) {
        return; /* nothing is wanted, or the draft is a round behind already */
    }
    ahead->never_stops_early = ahead->options.never_stops_early;
    for (int32_t i = 0; i < n_asks; i++) {
        if (is_wanted(ahead, &asks[i])) {
            add_round(ahead, job, &asks[i]);
        }
    }
    job->verify_ns = ahead->verify_ns;
    ahead->prepared = job;
    ahead_job_post(ahead, job);
}

static void known(struct draft *base)
{
    struct ahead *ahead = (struct ahead *)base;
    const int64_t ns = clock_now_ns() - ahead->begin_ns;
    ahead->verify_ns = ahead->verify_ns > 0 ? ahead->verify_ns + (ns - ahead->verify_ns) / 8 : ns;
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
    mem_free(ahead->was_miss);
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
    ahead->was_miss = mem_alloc(n, sizeof *ahead->was_miss);
    if (ahead->leaving == NULL || ahead->missed == NULL || ahead->missed_idx == NULL || ahead->was_miss == NULL) {
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
    draft_base_init(&ahead->base, &ahead_kind, "ahead");
    ahead->base.source_name[AHEAD_SOURCE_MODEL] = "model";
    ahead->base.source_name[AHEAD_SOURCE_NGRAM] = "ngram";
    ahead->base.n_sources = AHEAD_SOURCE_NGRAM + 1;
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

struct ahead_report draft_ahead_report(const struct draft *base)
{
    const struct ahead *ahead = (const struct ahead *)base;
    if (base->kind != &ahead_kind) {
        return (struct ahead_report){ .rounds = 0 };
    }
    return ahead->report;
}
