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

/* What the draft had in the place of the token that ends a round. */
static struct token_origin origin_of(const struct step_part *part, const struct draft_verdict *verdict, int32_t i)
{
    const struct draft_proposal *proposal = &part->ask->proposal;
    if (i < verdict->n_accepted) {
        return (struct token_origin){ .rejected_id = -1, .source = (int8_t)proposal->source[verdict->path[i]] };
    }
    struct token_origin origin = { .rejected_id = -1, .source = -1 };
    const int32_t parent = i == 0 ? -1 : verdict->path[i - 1];
    for (int32_t node = parent + 1; node < part->n_nodes && origin.rejected_id < 0; node++) {
        if (proposal->parent[node] == parent) {
            origin.rejected_id = proposal->token[node];
            origin.rejected_source = (int8_t)proposal->source[node];
            origin.n_rejected = (int16_t)(part->n_nodes - verdict->n_accepted);
        }
    }
    return origin;
}

/* Walks the accepted tokens and the recovery token until one of them ends the text, at least one. */
static enum sequence_ending keep_tokens(struct scheduler *s, struct step_part *part,
                                        const struct draft_verdict *verdict)
{
    struct sequence *seq = part->seq;
    enum sequence_ending ending = ENDING_NONE;
    const bool is_bonus_early = mutant(MUTANT_BONUS_FROM_ROW_BEFORE) && part->n_nodes > 0 &&
                                verdict->n_accepted == part->n_nodes;
    for (int32_t i = 0; i <= verdict->n_accepted && ending == ENDING_NONE; i++) {
        const int8_t own = (int8_t)(i == 0 ? 0 : 1 + verdict->path[i - 1]);
        const int8_t row = (int8_t)(is_bonus_early && i == verdict->n_accepted ? own - 1 : own);
        const struct sampling_choice *choice = &s->picks[part->first_logits + row].choice;
        record_logprobs(seq, choice);
        seq->origin[sequence_n_generated(seq)] = origin_of(part, verdict, i);
        seq->tokens[seq->n_tokens++] = choice->id; /* accepted means equal to the choice */
        part->row_of_token[part->n_committed++] = row;
        ending = mutant(MUTANT_STOP_SEEN_LATE) && i < verdict->n_accepted ? ENDING_NONE
                                                                          : ending_after(seq, choice->id);
    }
    return ending;
}

/* The child of a node (-1: of the recovery token) that holds this token, -1 if there is none. */
static int32_t child_with(const struct step_part *part, int32_t parent, int32_t token)
{
    const struct draft_proposal *proposal = &part->ask->proposal;
    for (int32_t node = parent + 1; node < part->n_nodes; node++) {
        if (proposal->parent[node] == parent && proposal->token[node] == token) {
            return node;
        }
    }
    return -1;
}

/* From the recovery token down the tree as long as the target's choice is among the children. Beyond a
 * row that is no number nothing is accepted; if that row is ever needed, it will be the first of a
 * later round. Fills path [n_accepted]. */
static struct draft_verdict verdict_of(const struct scheduler *s, const struct step_part *part, int8_t *path)
{
    struct draft_verdict verdict = { .ask = part->ask, .path = path };
    int32_t node = -1;
    for (;;) {
        const struct step_pick *pick = &s->picks[part->first_logits + 1 + node];
        verdict.recovery_token = pick->choice.id;
        const bool is_unseen = mutant(MUTANT_FIRST_TOKEN_UNVERIFIED) && node < 0 && part->n_nodes > 0;
        const int32_t next = is_unseen ? 0 : child_with(part, node, pick->choice.id);
        if (next < 0 || s->picks[part->first_logits + 1 + next].status != STATUS_OK) {
            return verdict;
        }
        path[verdict.n_accepted++] = (int8_t)next;
        node = next;
    }
}

/* Tokens cut by a stop count as neither drafted nor accepted. */
static void count_drafted(struct td_draft_counts *counts, const struct step_part *part,
                          const struct draft_verdict *verdict)
{
    const struct draft_proposal *proposal = &part->ask->proposal;
    const bool was_cut = part->n_committed <= verdict->n_accepted && !mutant(MUTANT_CUT_TOKENS_COUNTED);
    const int32_t n_accepted = was_cut ? part->n_committed : verdict->n_accepted;
    counts->rounds++;
    for (int32_t node = 0; node < part->n_nodes && !was_cut; node++) {
        counts->proposed++;
        counts->proposed_by_source[proposal->source[node]]++;
    }
    for (int32_t i = 0; i < n_accepted; i++) {
        const int source = proposal->source[verdict->path[i]];
        counts->proposed += was_cut;
        counts->proposed_by_source[source] += was_cut;
        counts->accepted++;
        counts->accepted_by_source[source]++;
        counts->accepted_by_position[i]++;
    }
}

/* Nodes of the first chain lie where their tokens will; what was accepted beyond it is fed again (I3). */
static int32_t n_kept_in_place(const struct draft_verdict *verdict)
{
    int32_t n = 0;
    while (n < verdict->n_accepted && (verdict->path[n] == n || mutant(MUTANT_SIDE_BRANCH_KEPT))) {
        n++;
    }
    return n;
}

static void move_lengths(const struct step_part *part, const struct draft_verdict *verdict, int32_t n_before)
{
    struct kv_table *table = part->seq->table;
    const int32_t n_kept = mutant(MUTANT_NO_ROLLBACK) ? part->n_nodes : n_kept_in_place(verdict);
    const int32_t n_valid = n_before + n_kept;
    kv_table_commit(table, part->n_committed);
    const int32_t n_committed = kv_table_committed_len(table);
    if (mutant(MUTANT_NO_ROLLBACK) && n_valid >= n_committed) {
        kv_table_set_cached(table, n_committed);
        return;
    }
    kv_table_set_cached(table, n_valid < n_committed ? n_valid : n_committed - 1); /* I2 */
    kv_table_trim(table, n_committed + 1);
}

static void count_tokens(struct scheduler *s, const struct step_part *part)
{
    struct sequence *seq = part->seq;
    s->stats.committed_tokens += (uint64_t)part->n_committed;
    if (seq->first_token_ns == 0 || part->n_rows > part->n_logits) {
        s->admission_blocked = false; /* siblings may have waited for the prompt */
    }
    if (seq->first_token_ns == 0) {
        seq->first_token_ns = clock_now_ns();
    }
}

static void commit_tokens(struct scheduler *s, struct step_part *part)
{
    struct sequence *seq = part->seq;
    const int32_t n_before = seq->n_tokens;
    int8_t path[DRAFT_MAX_NODES];
    const struct draft_verdict verdict = verdict_of(s, part, path);
    if (part->n_nodes > 0) {
        s->options.draft->kind->observe(s->options.draft, &verdict, 1);
        policy_observe_verdict(s->policy, &verdict);
    }
    const enum sequence_ending ending = keep_tokens(s, part, &verdict);
    if (part->n_nodes > 0) {
        count_drafted(&seq->drafted, part, &verdict);
        count_drafted(&s->stats.drafted, part, &verdict);
    }
    move_lengths(part, &verdict, n_before);
    count_tokens(s, part);
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

/* Rows of a prompt, or of a text computed again after a preemption; what a side branch left to feed is part
 * of decoding. */
static int32_t n_prompt_rows(const struct scheduler *s, const struct step_part *part)
{
    const int32_t n = part->n_rows - part->n_logits;
    const bool decoded_before = sequence_n_generated(part->seq) > part->n_committed;
    return part->ask != NULL && decoded_before && n <= s->options.k_max ? 0 : n;
}

void scheduler_observe_step(struct scheduler *s)
{
    struct policy_step step = { .longest_k = s->longest_k, .draft_ns = s->draft_ns,
                                .verify_ns = s->verify_ns };
    for (int32_t i = 0; i < s->n_parts; i++) {
        const struct step_part *part = &s->parts[i];
        const int32_t n_other_rows = n_prompt_rows(s, part);
        step.n_rows += part->n_rows;
        step.n_other_rows += n_other_rows;
        step.n_seqs += part->ask != NULL && n_other_rows == 0;
        step.n_committed += n_other_rows == 0 ? part->n_committed : 0;
    }
    policy_observe_step(s->policy, &step);
}
