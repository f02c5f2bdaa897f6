/* commit: the one place where tokens become final. From here on a token may be shown; before, it may
 * still be dropped (by a cancel, by a stop earlier in the run) and nothing has to be undone. */
#include "scheduler/private.h"

#include <string.h>

static void record_logprobs(struct sequence *seq, const struct sampling_choice *choice)
{
    if (seq->logprob == NULL) {
        return;
    }
    const int32_t idx = sequence_n_generated(seq), n_top_cap = seq->params.n_top_logprobs;
    seq->logprob[idx] = choice->logprob;
    seq->n_top[idx] = (uint8_t)choice->n_top;
    for (int32_t i = 0; i < choice->n_top; i++) {
        seq->top[idx * n_top_cap + i] = (struct td_logprob){ choice->top[i].id, choice->top[i].logprob };
    }
}

static bool is_stop_id(const struct request *request, int32_t id)
{
    for (int32_t i = 0; i < request->n_stop_ids; i++) {
        if (request->stop_ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* Does the text end with the token that was just appended? */
static enum sequence_ending ending_after(struct sequence *seq, int32_t id)
{
    const struct request *request = seq->request;
    if (is_stop_id(request, id)) {
        return ENDING_STOP_ID;
    }
    if (request->stops.n_strings > 0 && stop_scan_push(&seq->scan, &request->stops, id)) {
        return ENDING_STOP_STRING;
    }
    if (request->max_tokens >= 0 && sequence_n_generated(seq) >= request->max_tokens) {
        return ENDING_LENGTH;
    }
    return seq->n_tokens >= request->context ? ENDING_CONTEXT : ENDING_NONE;
}

/* Walks the accepted tokens and the recovery token until one of them ends the text. Returns how many
 * were kept, at least one. */
static int32_t keep_tokens(struct scheduler *s, const struct step_part *part,
                           const struct verify_outcome *outcome, enum sequence_ending *ending)
{
    struct sequence *seq = part->seq;
    int32_t n_kept = 0;
    *ending = ENDING_NONE;
    while (n_kept <= outcome->n_accepted && *ending == ENDING_NONE) {
        const struct sampling_choice *choice = &s->picks[part->first_logits + n_kept].choice;
        record_logprobs(seq, choice);
        seq->tokens[seq->n_tokens++] = choice->id; /* accepted means equal to the choice */
        n_kept++;
        *ending = ending_after(seq, choice->id);
    }
    return n_kept;
}

/* The outcome, as far as the rows are numbers: beyond a bad row nothing is accepted, and if the bad
 * row is ever needed it will be the first of a later round. */
static struct verify_outcome outcome_of(const struct scheduler *s, const struct step_part *part)
{
    int32_t target_token[SEQUENCE_MAX_PROPOSED + 1];
    int32_t n_good = 0;
    while (n_good < part->n_logits && s->picks[part->first_logits + n_good].status == STATUS_OK) {
        target_token[n_good] = s->picks[part->first_logits + n_good].choice.id;
        n_good++;
    }
    ASSERT(n_good >= 1);
    const struct sequence *seq = part->seq;
    return verify_coupled(seq->tokens + seq->n_tokens, n_good - 1, target_token);
}

static void commit_tokens(struct scheduler *s, struct step_part *part)
{
    struct sequence *seq = part->seq;
    struct draft *draft = s->options.draft;
    enum sequence_ending ending;
    const struct verify_outcome outcome = outcome_of(s, part);
    if (part->n_proposed > 0) {
        draft->kind->observe(draft, seq->id, seq->epoch, &outcome);
    }
    part->n_committed = keep_tokens(s, part, &outcome, &ending);
    kv_table_commit(seq->table, part->n_committed);
    kv_table_set_cached(seq->table, kv_table_committed_len(seq->table) - 1); /* I2 */
    kv_table_trim(seq->table, kv_table_committed_len(seq->table) + 1);
    s->stats.committed_tokens += (uint64_t)part->n_committed;
    if (seq->first_token_ns == 0 || part->n_rows > part->n_logits) {
        s->admission_blocked = false; /* siblings may have waited for the prompt */
    }
    if (seq->first_token_ns == 0) {
        seq->first_token_ns = clock_now_ns();
    }
    scheduler_add_news(s, seq);
    if (ending != ENDING_NONE) {
        scheduler_finish(s, seq, ending);
    } else {
        scheduler_publish(s, seq);
    }
}

void scheduler_commit_part(struct scheduler *s, struct step_part *part)
{
    struct sequence *seq = part->seq;
    seq->n_passes++;
    if (atomic_load(&seq->request->cancelled)) {
        scheduler_finish(s, seq, ENDING_CANCELLED);
    } else if (part->n_logits == 0) {
        kv_table_set_cached(seq->table, kv_table_cached_len(seq->table) + part->n_rows);
        scheduler_publish(s, seq);
    } else if (s->picks[part->first_logits].status != STATUS_OK) {
        memcpy(seq->error, s->picks[part->first_logits].error, sizeof seq->error);
        scheduler_finish(s, seq, ENDING_ERROR);
    } else {
        commit_tokens(s, part);
    }
}
