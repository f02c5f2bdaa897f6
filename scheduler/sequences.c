/* sequences: in (admit), out for a while (preempt), out for good (finish). */
#include "scheduler/private.h"

void scheduler_add_news(struct scheduler *s, struct sequence *seq)
{
    if (seq->has_news) {
        return;
    }
    seq->has_news = true;
    seq->next_news = NULL;
    *(s->last_news != NULL ? &s->last_news->next_news : &s->first_news) = seq;
    s->last_news = seq;
}

void scheduler_publish(struct scheduler *s, struct sequence *seq)
{
    if (s->prefix != NULL) {
        kv_prefix_publish(s->prefix, seq->request->tenant, seq->tokens, seq->table);
    }
}

/* ---- in ---- */
static void count_start(struct scheduler *s, struct request *request)
{
    if (!request->started) {
        request->started = true;
        s->n_started++;
    }
}

/* A running choice of the same request whose prompt is computed; or one that is computing it. */
static struct sequence *find_sibling(const struct sequence *seq, bool *computing)
{
    const struct request *request = seq->request;
    *computing = false;
    for (int32_t i = 0; i < request->n_choices; i++) {
        struct sequence *sibling = &request->sequences[i];
        if (sibling == seq || sibling->state != SEQUENCE_RUNNING) {
            continue;
        }
        if (kv_table_cached_len(sibling->table) >= request->n_prompt) {
            return sibling;
        }
        *computing = true;
    }
    return NULL;
}

/* The sibling's pages, up to the prompt's end. The last prompt row is computed again: its logits
 * choose this sequence's own token. */
static void fork_prompt(struct kv_table *table, const struct sequence *sibling)
{
    const int32_t n_prompt = sibling->request->n_prompt;
    const enum status status = kv_table_fork(sibling->table, table);
    ASSERT(status == STATUS_OK); /* all tables have the context's room */
    kv_table_rollback(table, n_prompt);
    kv_table_set_cached(table, n_prompt - 1);
    kv_table_trim(table, n_prompt);
}

/* Pages for the tokens and one more, and a page for everyone who runs, so that who comes in does not
 * push out or get pushed out at once. */
static bool reserve_admission(struct scheduler *s, struct kv_table *table, int32_t n_tokens)
{
    if (kv_table_reserve(table, n_tokens + 1) != STATUS_OK) {
        return false;
    }
    return s->running.n_items == 0 || kv_pool_available(s->pool) >= s->running.n_items;
}

static void count_admission(struct scheduler *s, struct sequence *seq)
{
    const int32_t cached = kv_table_cached_len(seq->table);
    s->stats.prefix_hit_tokens += (uint64_t)cached;
    if (seq->admitted_ns == 0) {
        const int32_t n_prompt = seq->request->n_prompt;
        seq->admitted_ns = clock_now_ns();
        seq->n_cached_prompt = cached < n_prompt ? cached : n_prompt;
        s->stats.prompt_tokens += (uint64_t)n_prompt;
    }
    count_start(s, seq->request);
}

static bool admit_first(struct scheduler *s)
{
    struct sequence *seq = sequence_of(s->waiting.first);
    bool computing;
    const struct sequence *sibling = find_sibling(seq, &computing);
    if (sibling == NULL && computing) {
        return false; /* its prompt is worth waiting for */
    }
    const int32_t place = s->free_places[s->n_free_places - 1];
    struct kv_table *table = s->tables[place];
    if (sibling != NULL) {
        fork_prompt(table, sibling);
    } else if (s->prefix != NULL) {
        kv_prefix_attach(s->prefix, seq->request->tenant, seq->tokens, seq->n_tokens, table);
    }
    if (!reserve_admission(s, table, seq->n_tokens)) {
        kv_table_clear(table);
        return false;
    }
    kv_table_commit(table, seq->n_tokens - kv_table_committed_len(table));
    s->n_free_places--;
    seq->table_idx = place;
    seq->table = table;
    seq->state = SEQUENCE_RUNNING;
    lineup_remove(&s->waiting, &seq->place);
    lineup_insert(&s->running, &seq->place);
    count_admission(s, seq);
    return true;
}

void scheduler_admit(struct scheduler *s)
{
    while (s->waiting.first != NULL && s->n_free_places > 0 && !s->admission_blocked) {
        s->admission_blocked = !admit_first(s);
    }
}

void scheduler_submit(struct scheduler *s, struct request *request)
{
    for (int32_t i = 0; i < request->n_choices; i++) {
        struct sequence *seq = &request->sequences[i];
        seq->place.arrival = ++s->last_arrival;
        seq->id = ++s->last_sequence_id;
        seq->state = SEQUENCE_WAITING;
        lineup_insert(&s->waiting, &seq->place);
        if (atomic_load(&request->cancelled)) {
            scheduler_finish(s, seq, ENDING_CANCELLED);
        } else if (request->max_new == 0) {
            scheduler_finish(s, seq, ENDING_LENGTH);
        }
    }
    s->admission_blocked = false;
}

/* ---- out ---- */
static void give_back_place(struct scheduler *s, struct sequence *seq, bool is_finished)
{
    s->options.draft->kind->forget(s->options.draft, &(struct draft_farewell){
        .place = seq->table_idx, .seq_id = seq->id, .epoch = seq->epoch, .tokens = seq->tokens,
        .n_tokens = seq->n_tokens, .n_prompt = seq->request->n_prompt, .tenant = seq->request->tenant,
        .is_finished = is_finished });
    policy_forget(s->policy, seq->table_idx);
    kv_table_clear(seq->table);
    s->free_places[s->n_free_places++] = seq->table_idx;
    seq->table = NULL;
    s->admission_blocked = false;
}

/* Its tokens, the pending recovery token among them, its counters and its digest stay; what was
 * computed is computed again, with the same bits. */
void scheduler_preempt(struct scheduler *s, struct sequence *seq)
{
    ASSERT(seq->state == SEQUENCE_RUNNING);
    trace_event("preempt", (int64_t)seq->id, seq->n_tokens);
    give_back_place(s, seq, false);
    seq->epoch++;
    seq->state = SEQUENCE_WAITING;
    lineup_remove(&s->running, &seq->place);
    lineup_insert(&s->waiting, &seq->place);
    s->stats.preemptions++;
}

void scheduler_finish(struct scheduler *s, struct sequence *seq, enum sequence_ending ending)
{
    ASSERT(seq->state != SEQUENCE_FINISHED && ending != ENDING_NONE);
    trace_event("finish", (int64_t)seq->id, (int64_t)ending);
    if (seq->state == SEQUENCE_RUNNING) {
        scheduler_publish(s, seq);
        give_back_place(s, seq, true);
        lineup_remove(&s->running, &seq->place);
    } else {
        lineup_remove(&s->waiting, &seq->place);
        s->admission_blocked = false;
    }
    count_start(s, seq->request);
    seq->state = SEQUENCE_FINISHED;
    seq->ending = ending;
    seq->finished_ns = clock_now_ns();
    s->stats.finished++;
    s->stats.cancelled += ending == ENDING_CANCELLED;
    s->stats.failed += ending == ENDING_ERROR;
    scheduler_add_news(s, seq);
}

static void sweep(struct scheduler *s, const struct lineup *lineup)
{
    struct lineup_item *next;
    for (struct lineup_item *item = lineup->first; item != NULL; item = next) {
        struct sequence *seq = sequence_of(item);
        next = item->after;
        if (atomic_load(&seq->request->cancelled)) {
            scheduler_finish(s, seq, ENDING_CANCELLED);
        }
    }
}

void scheduler_sweep_cancelled(struct scheduler *s)
{
    scheduler_digest_settle(s);
    sweep(s, &s->waiting);
    sweep(s, &s->running);
}
