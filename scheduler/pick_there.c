/* pick_there: the target's choices where its device chooses: rows of logits stay there, and tokens come back. The
 * rows that chose are fetched for the digest when the tokens are committed, while the lane goes on; it is brought
 * up to date while the next pass runs, or before a sequence ends.
 *
 *     step i      verify ─ pick ─ commit ─ fetch rows ╌╌╌╌╌╌╌╌╌┐
 *     step i + 1                   plan ─ propose ─ begin ─ settle: digest ─ end
 */
#include "scheduler/private.h"

#include <stdio.h>
#include <string.h>

enum status scheduler_open_there(struct scheduler *s, size_t cap_logits)
{
    if (s->options.target->desk == NULL || s->options.rule == VERIFY_REJECTION) {
        return STATUS_OK;
    }
    s->asks_there = mem_alloc(cap_logits, sizeof *s->asks_there);
    s->answers = mem_alloc(cap_logits, sizeof *s->answers);
    s->due = mem_alloc(cap_logits, sizeof *s->due);
    s->due_rows = mem_alloc(cap_logits, sizeof *s->due_rows);
    if (s->asks_there == NULL || s->answers == NULL || s->due == NULL || s->due_rows == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for choices of %zu rows", cap_logits);
    }
    return STATUS_OK;
}

void scheduler_close_there(struct scheduler *s)
{
    mem_free(s->due_rows);
    mem_free(s->due);
    mem_free(s->answers);
    mem_free(s->asks_there);
}

/* ---- picks ---- */
/* Why a row cannot be used is said by the host, which has to see it. */
static enum status explain(struct scheduler *s, uint32_t idx)
{
    struct target *target = s->options.target;
    struct step_pick *pick = &s->picks[idx];
    const struct sequence *seq = pick->part->seq;
    const struct pick_way way = scheduler_pick_way(s, idx);
    const float *logits;
    backend_fetch(target->lane, target->desk, &(struct op_fetch){ .rows = &way.row, .n = 1 });
    TRY(backend_await(target->lane, target->desk, &logits));
    const int32_t scratch = scheduler_scratch_acquire(s, 0);
    pick->status = sampling_choose(s->backend, &seq->params, logits + (size_t)way.row * (size_t)s->n_vocab, s->n_vocab,
                                   seq->tokens, way.n_history, way.position, s->scratches[scratch], &pick->choice);
    scheduler_scratch_release(s, scratch);
    ASSERT(pick->status != STATUS_OK); /* both sides say the same of every row */
    snprintf(pick->error, sizeof pick->error, "%s", status_message());
    return STATUS_OK;
}

static void take_choice(const struct choice_answer *answer, struct step_pick *pick)
{
    pick->status = STATUS_OK;
    pick->choice.id = answer->id;
    pick->choice.logprob = answer->logprob;
    pick->choice.n_top = answer->n_top;
    for (int32_t i = 0; i < answer->n_top; i++) {
        pick->choice.top[i].id = answer->top[i].id;
        pick->choice.top[i].logprob = answer->top[i].logprob;
    }
}

enum status scheduler_pick_there(struct scheduler *s, uint32_t n_rows)
{
    struct target *target = s->options.target;
    for (uint32_t i = 0; i < n_rows; i++) {
        const struct sequence *seq = s->picks[i].part->seq;
        const struct pick_way way = scheduler_pick_way(s, i);
        s->asks_there[i] = sampling_choice_ask(&seq->params, seq->tokens, way.n_history, way.position);
        s->asks_there[i].row = way.row;
    }
    TRY(backend_choose(target->lane, target->desk, &(struct op_choose){
        .domain = { .n_vocab = s->n_vocab }, .asks = s->asks_there, .answers = s->answers, .n = (int32_t)n_rows }));
    for (uint32_t i = 0; i < n_rows; i++) {
        if (s->answers[i].id < 0) {
            TRY(explain(s, i));
        } else {
            take_choice(&s->answers[i], &s->picks[i]);
        }
    }
    return STATUS_OK;
}

/* ---- digests ---- */
void scheduler_digest_there(struct scheduler *s)
{
    struct target *target = s->options.target;
    bool has_ended = false;
    ASSERT(s->n_due == 0);
    for (int32_t p = 0; p < s->n_parts; p++) {
        const struct step_part *part = &s->parts[p];
        for (int32_t i = 0; i < part->n_committed; i++, s->n_due++) {
            s->due_rows[s->n_due] = part->first_logits + part->row_of_token[i];
            s->due[s->n_due] = part->seq;
        }
        has_ended |= part->seq->state == SEQUENCE_FINISHED;
    }
    backend_fetch(target->lane, target->desk, &(struct op_fetch){ .rows = s->due_rows, .n = s->n_due });
    if (has_ended) {
        scheduler_digest_settle(s); /* what is told of it holds the digest */
    }
}

/* A device that failed has nothing to digest: its sequences end with its sentence. */
void scheduler_digest_settle(struct scheduler *s)
{
    const struct target *target = s->options.target;
    const size_t n_vocab = (size_t)s->n_vocab;
    const float *logits;
    if (s->n_due > 0 && backend_await(target->lane, target->desk, &logits) == STATUS_OK) {
        for (int32_t i = 0; i < s->n_due; i++) {
            digest_update(&s->due[i]->digest, logits + (size_t)s->due_rows[i] * n_vocab, n_vocab * sizeof *logits);
        }
    }
    s->n_due = 0;
}
