/* scheduler: the state of the loop, and one turn of it. */
#include "scheduler/private.h"

#include <stdio.h>

#include "scheduler/outbox.h"

/* With K chosen by what pays, more rows than this beyond one a sequence never do. */
enum { MOST_EXTRA_ROWS = 64 };

int32_t scheduler_cap_logits(const struct scheduler_options *options)
{
    const int32_t all = options->max_batch * (options->k_max + 1), few = options->max_batch + MOST_EXTRA_ROWS;
    return options->fixed_k == POLICY_AUTO && few < all ? few : all;
}

/* A pass: a round of every running sequence, and the prompt budget. */
int32_t scheduler_cap_rows(const struct scheduler_options *options)
{
    return scheduler_cap_logits(options) + options->prefill_chunk;
}

/* ---- creation ---- */
static enum status check_options(const struct scheduler_options *options)
{
    if (options->max_batch < 1 || options->prefill_chunk < 1 || options->context < 2 ||
        options->k_max < 0 || options->k_max > SEQUENCE_MAX_PROPOSED) {
        return status_fail(STATUS_INVALID, "expected a batch and a prefill chunk of at least 1, a context "
                           "of at least 2 and K between 0 and %d, found %d, %d, %d and %d",
                           SEQUENCE_MAX_PROPOSED, options->max_batch, options->prefill_chunk,
                           options->context, options->k_max);
    }
    if (options->page_slots < 1 ||
        (int64_t)options->n_pages * options->page_slots < options->context) {
        return status_fail(STATUS_INVALID, "expected KV pages for a context of %d positions, found %d "
                           "pages of %d slots", options->context, options->n_pages, options->page_slots);
    }
    return STATUS_OK;
}

static enum status take_tables(struct scheduler *s)
{
    const struct scheduler_options *options = &s->options;
    const size_t n = (size_t)options->max_batch;
    TRY(kv_pool_create(options->n_pages, options->page_slots, &s->pool));
    if (options->prefix_cache) {
        TRY(kv_prefix_create(s->pool, &s->prefix));
    }
    s->tables = mem_alloc(n, sizeof *s->tables);
    s->free_places = mem_alloc(n, sizeof *s->free_places);
    if (s->tables == NULL || s->free_places == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d page tables", options->max_batch);
    }
    for (size_t i = 0; i < n; i++) {
        TRY(kv_table_create(s->pool, options->context, &s->tables[i]));
        s->free_places[s->n_free_places++] = (int32_t)i;
    }
    return STATUS_OK;
}

static enum status take_step(struct scheduler *s)
{
    const struct scheduler_options *options = &s->options;
    const size_t cap_rows = (size_t)scheduler_cap_rows(options);
    const size_t cap_logits = (size_t)scheduler_cap_logits(options);
    s->parts = mem_alloc((size_t)options->max_batch, sizeof *s->parts);
    s->asks = mem_alloc((size_t)options->max_batch, sizeof *s->asks);
    s->copies = mem_alloc(cap_rows, sizeof *s->copies);
    s->picks = mem_alloc(cap_logits, sizeof *s->picks);
    if (s->parts == NULL || s->asks == NULL || s->copies == NULL || s->picks == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for steps of %zu rows", cap_rows);
    }
    TRY(scheduler_open_there(s, cap_logits));
    return batch_create(&(struct batch_caps){ .n_rows = (int32_t)cap_rows, .n_seqs = options->max_batch,
                                              .n_logits = (int32_t)cap_logits,
                                              .n_views = options->max_batch + (int32_t)cap_logits }, &s->batch);
}

static enum status take_scratches(struct scheduler *s)
{
    const int32_t n = lane_n_workers(s->options.target->lane);
    s->scratches = mem_alloc((size_t)n, sizeof(struct sampling_scratch *));
    s->scratch_in_use = mem_alloc((size_t)n, sizeof *s->scratch_in_use);
    if (s->scratches == NULL || s->scratch_in_use == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for sampling with %d workers", n);
    }
    for (int32_t i = 0; i < n; i++) {
        atomic_flag_clear(&s->scratch_in_use[i]);
        TRY(sampling_scratch_create(s->n_vocab, &s->scratches[i]));
        s->n_scratches++;
    }
    if (s->options.rule == VERIFY_REJECTION) {
        s->probs = mem_alloc(2 * (size_t)n * (size_t)s->n_vocab, sizeof *s->probs);
        return s->probs != NULL ? STATUS_OK
                                : status_fail(STATUS_NO_MEMORY, "no memory for distributions of %d ids", s->n_vocab);
    }
    return STATUS_OK;
}

enum status scheduler_create(const struct scheduler_options *options, struct scheduler **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    TRY(check_options(options));
    struct scheduler *s = mem_alloc(1, sizeof *s);
    if (s == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a scheduler");
    }
    s->options = *options;
    s->n_vocab = options->target->n_vocab;
    s->backend = lane_backend(options->target->lane);
    atomic_init(&s->cancel_noticed, 0);
    TRY_GOTO(take_tables(s), out);
    TRY_GOTO(take_step(s), out);
    TRY_GOTO(take_scratches(s), out);
    TRY_GOTO(policy_create(&(struct policy_options){
        .max_batch = options->max_batch, .k_max = options->k_max, .fixed_k = options->fixed_k,
        .max_rows = scheduler_cap_rows(options), .follows_hints = options->rule == VERIFY_COUPLED,
    }, options->draft, &s->policy), out);
    *out = s;
    return STATUS_OK;
out:
    scheduler_destroy(s);
    return status;
}

void scheduler_destroy(struct scheduler *s)
{
    if (s == NULL) {
        return;
    }
    for (int32_t i = 0; i < s->n_scratches; i++) {
        sampling_scratch_destroy(s->scratches[i]);
    }
    mem_free(s->probs);
    mem_free(s->scratch_in_use);
    mem_free(s->scratches);
    policy_destroy(s->policy);
    batch_destroy(s->batch);
    scheduler_close_there(s);
    mem_free(s->picks);
    mem_free(s->copies);
    mem_free(s->asks);
    mem_free(s->parts);
    for (int32_t i = 0; s->tables != NULL && i < s->options.max_batch; i++) {
        kv_table_destroy(s->tables[i]);
    }
    mem_free(s->free_places);
    mem_free(s->tables);
    kv_prefix_destroy(s->prefix);
    kv_pool_destroy(s->pool);
    mem_free(s);
}

/* ---- the turn ---- */
/* The step thread's own CPU time is what lies between resume and pause. */
static void cpu_resume(struct scheduler *s)
{
    s->cpu_mark_ns = clock_thread_cpu_ns();
}

static void cpu_pause(struct scheduler *s)
{
    s->stats.scheduler_cpu_ns += (uint64_t)(clock_thread_cpu_ns() - s->cpu_mark_ns);
}

/* Rows that stay are waited for by the choice. While the pass runs, digests of the step before it are made. */
static enum status run_work(struct scheduler *s, const struct pass *pass)
{
    struct target *target = s->options.target;
    target->kind->begin(target, &(struct target_work){ .pass = pass }); /* copies went before the draft */
    scheduler_digest_settle(s);
    TRY(target->kind->end(target, &s->logits));
    return s->logits == NULL ? scheduler_pick_all(s) : STATUS_OK;
}

static enum status verify(struct scheduler *s)
{
    struct draft *draft = s->options.draft;
    struct pass pass = *batch_pass(s->batch);
    const int64_t begin_ns = clock_now_ns(), span_ns = timeline_begin();
    if (draft->kind->begin != NULL) {
        draft->kind->begin(draft, s->asks, s->n_asks);
    }
    pass.rows_stay = s->asks_there != NULL && pass.n_logits > 0;
    kv_pool_pass_begin(s->pool); /* I5 */
    enum status status = run_work(s, &pass);
    kv_pool_pass_end(s->pool);
    if (draft->kind->known != NULL) {
        draft->kind->known(draft);
    }
    s->stats.pass_ns += (uint64_t)(clock_now_ns() - begin_ns);
    timeline_end(TIMELINE_TARGET, s->n_asks > 0 ? &timeline_verify : &timeline_prefill, span_ns,
                 pass.n_rows, s->n_parts);
    s->stats.target_passes++;
    s->stats.rows += (uint64_t)pass.n_rows;
    if (status == STATUS_OK && s->logits != NULL) {
        const int64_t pick_ns = timeline_begin();
        status = scheduler_pick_all(s);
        timeline_end(TIMELINE_STEP, &timeline_pick, pick_ns, pass.n_logits, 0);
    }
    s->verify_ns = clock_now_ns() - begin_ns;
    return status;
}

/* A device that fails takes its sequences with it, each with the sentence. */
static void fail_parts(struct scheduler *s)
{
    for (int32_t i = 0; i < s->n_parts; i++) {
        struct sequence *seq = s->parts[i].seq;
        snprintf(seq->error, sizeof seq->error, "%s", status_message());
        scheduler_finish(s, seq, ENDING_ERROR);
    }
}

static void tell(struct scheduler *s)
{
    s->stats = scheduler_stats(s);
    if (s->options.outbox != NULL) {
        outbox_publish(s->options.outbox, &(struct outbox_news){
            .first = s->first_news, .n_started = s->n_started, .stats = &s->stats });
    }
    for (struct sequence *seq = s->options.outbox == NULL ? s->first_news : NULL; seq != NULL;) {
        struct sequence *next = seq->next_news;
        seq->has_news = false;
        seq = next;
    }
    s->first_news = s->last_news = NULL;
}

static void run_pass(struct scheduler *s)
{
    cpu_pause(s);
    const enum status status = verify(s);
    cpu_resume(s);
    if (status != STATUS_OK) {
        fail_parts(s);
        return;
    }
    const int64_t commit_ns = timeline_begin();
    const uint64_t n_before = s->stats.committed_tokens;
    for (int32_t i = 0; i < s->n_parts; i++) {
        scheduler_commit_part(s, &s->parts[i]);
    }
    scheduler_observe_step(s);
    timeline_end(TIMELINE_STEP, &timeline_commit, commit_ns, (int64_t)(s->stats.committed_tokens - n_before), 0);
    cpu_pause(s);
    scheduler_digest_all(s);
    cpu_resume(s);
}

void scheduler_step(struct scheduler *s)
{
    cpu_resume(s);
    s->stats.steps++;
    if (atomic_exchange(&s->cancel_noticed, 0)) {
        scheduler_sweep_cancelled(s);
    }
    const int64_t step_ns = timeline_begin();
    const uint64_t n_rows_before = s->stats.rows;
    scheduler_admit(s);
    scheduler_plan(s);
    timeline_end(TIMELINE_STEP, &timeline_plan, step_ns, s->n_parts, 0);
    if (s->n_parts > 0) {
        cpu_pause(s);
        scheduler_propose(s);
        cpu_resume(s);
        run_pass(s);
    }
    tell(s);
    cpu_pause(s);
    timeline_end(TIMELINE_STEP, &timeline_step, step_ns, s->running.n_items, (int64_t)(s->stats.rows - n_rows_before));
}

/* ---- the rest of the door ---- */
void scheduler_notice_cancel(struct scheduler *s)
{
    atomic_store(&s->cancel_noticed, 1);
}

bool scheduler_is_busy(const struct scheduler *s)
{
    return s->running.n_items > 0 || s->waiting.n_items > 0 || s->first_news != NULL;
}

void scheduler_cancel_all(struct scheduler *s)
{
    scheduler_digest_settle(s);
    while (s->running.first != NULL) {
        scheduler_finish(s, sequence_of(s->running.first), ENDING_CANCELLED);
    }
    while (s->waiting.first != NULL) {
        scheduler_finish(s, sequence_of(s->waiting.first), ENDING_CANCELLED);
    }
    tell(s);
}

bool scheduler_preempt_last(struct scheduler *s)
{
    if (s->running.last == NULL) {
        return false;
    }
    scheduler_preempt(s, sequence_of(s->running.last));
    return true;
}

static struct td_ahead_counts ahead_counts(const struct draft *draft)
{
    if (draft->kind->count == NULL) {
        return (struct td_ahead_counts){ .hits = 0 };
    }
    const struct draft_ahead_counts counts = draft->kind->count(draft);
    return (struct td_ahead_counts){
        .hits = counts.hits, .misses = counts.misses, .unprepared = counts.unprepared,
        .branches_grown = counts.branches_grown, .branches_used = counts.branches_used,
        .tokens_served = counts.tokens_served, .tokens_wanted = counts.tokens_wanted,
        .hidden_seconds = counts.hidden_seconds, .exposed_seconds = counts.exposed_seconds,
        .fallback_seconds = counts.fallback_seconds,
        .glues = counts.glues, .grow_steps = counts.grow_steps,
        .glue_seconds = counts.glue_seconds, .grow_seconds = counts.grow_seconds };
}

struct td_engine_stats scheduler_stats(const struct scheduler *s)
{
    const struct kv_pool_counts counts = kv_pool_counts(s->pool);
    const struct policy_report report = policy_report(s->policy);
    struct td_engine_stats stats = s->stats;
    stats.speedup_vs_plain = report.speedup_vs_plain;
    stats.late_passes = virtual_target_report(s->options.target).late;
    stats.ahead = ahead_counts(s->options.draft);
    stats.draft_seconds = report.draft_seconds;
    stats.verify_seconds = report.verify_seconds;
    stats.running = s->running.n_items;
    stats.waiting = s->waiting.n_items;
    stats.pages_total = counts.n_total;
    stats.pages_free = counts.n_free;
    stats.pages_held = counts.n_held;
    stats.pages_cached = counts.n_cached;
    return stats;
}

static enum status check_sequence(const struct sequence *seq)
{
    const struct kv_table *table = seq->table;
    const int32_t cached = kv_table_cached_len(table), committed = kv_table_committed_len(table);
    const bool chose = sequence_n_generated(seq) > 0;
    if (committed != seq->n_tokens || cached >= committed || kv_table_proposed_len(table) != committed ||
        kv_table_reserved_len(table) < committed || (chose && committed > seq->request->context)) {
        return status_fail(STATUS_INVALID, "sequence %llu has %d tokens, its table %d committed, %d cached, "
                           "%d reserved", (unsigned long long)seq->id, seq->n_tokens, committed, cached,
                           kv_table_reserved_len(table));
    }
    return STATUS_OK;
}

enum status scheduler_check(const struct scheduler *s)
{
    TRY(kv_pool_check(s->pool, s->tables, s->options.max_batch));
    for (const struct lineup_item *item = s->running.first; item != NULL; item = item->after) {
        const struct lineup_item *next = item->after;
        if (next != NULL && !lineup_precedes(item, next)) {
            return status_fail(STATUS_INVALID, "the running sequences are out of order");
        }
        TRY(check_sequence((const struct sequence *)item));
    }
    if (s->n_free_places + s->running.n_items != s->options.max_batch) {
        return status_fail(STATUS_INVALID, "%d sequences run, %d page tables of %d are free",
                           s->running.n_items, s->n_free_places, s->options.max_batch);
    }
    return STATUS_OK;
}
