/* pick: what is done with whole logits rows, a row a chunk on the target's lane, so that a batch uses
 * all its cores: the target's choice for each row, and the digest of the rows that chose. */
#include "scheduler/private.h"

#include <stdio.h>

/* A worker of another lane may help, with an index of its own: scratch is claimed, not indexed. */
int32_t scheduler_scratch_acquire(struct scheduler *s, int32_t wanted)
{
    int32_t i = wanted % s->n_scratches;
    while (atomic_flag_test_and_set_explicit(&s->scratch_in_use[i], memory_order_acquire)) {
        i = (i + 1) % s->n_scratches;
    }
    return i;
}

void scheduler_scratch_release(struct scheduler *s, int32_t i)
{
    atomic_flag_clear_explicit(&s->scratch_in_use[i], memory_order_release);
}

/* The logits row that chooses for a pick. */
static int32_t row_of_pick(const struct scheduler *s, uint32_t pick)
{
    const struct step_part *part = s->picks[pick].part, *neighbour = part;
    if (mutant(MUTANT_PERMUTED_ROWS)) {
        neighbour = part + 1 < s->parts + s->n_parts ? part + 1 : s->parts;
    }
    const int32_t place = (int32_t)pick - part->first_logits;
    return place < neighbour->n_logits ? neighbour->first_logits + place : (int32_t)pick;
}

struct pick_way scheduler_pick_way(const struct scheduler *s, uint32_t idx)
{
    const struct step_pick *pick = &s->picks[idx];
    const int32_t n_tokens = pick->part->seq->n_tokens;
    return (struct pick_way){ .row = row_of_pick(s, idx),
                              .n_history = mutant(MUTANT_PENALTIES_NOT_IN_RUN) ? n_tokens : pick->position,
                              .position = mutant(MUTANT_ONE_NOISE_A_RUN) ? n_tokens : pick->position };
}

static void pick_row(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    struct scheduler *s = *(struct scheduler *const *)args;
    struct step_pick *pick = &s->picks[chunk];
    const struct sequence *seq = pick->part->seq;
    const struct pick_way way = scheduler_pick_way(s, chunk);
    const int32_t scratch = scheduler_scratch_acquire(s, worker->idx);
    pick->status = sampling_choose(s->backend, &seq->params,
                                   s->logits + (size_t)way.row * (size_t)s->n_vocab, s->n_vocab, seq->tokens,
                                   way.n_history, way.position, s->scratches[scratch], &pick->choice);
    scheduler_scratch_release(s, scratch);
    if (pick->status != STATUS_OK) { /* the sentence lives in this thread */
        snprintf(pick->error, sizeof pick->error, "%s", status_message());
    }
}

/* Position of the token that follows a node: behind its ancestors and itself. */
static void list_picks(struct scheduler *s, const struct step_part *part)
{
    struct step_pick *pick = &s->picks[part->first_logits];
    pick[0].part = part;
    pick[0].position = part->seq->n_tokens;
    for (int32_t node = 0; node < part->n_nodes; node++) {
        pick[1 + node].part = part;
        pick[1 + node].position = pick[1 + part->ask->proposal.parent[node]].position + 1;
    }
}

enum status scheduler_pick_all(struct scheduler *s)
{
    uint32_t n_rows = 0;
    for (int32_t i = 0; i < s->n_parts; i++) {
        if (s->parts[i].n_logits > 0) {
            list_picks(s, &s->parts[i]);
            n_rows += (uint32_t)s->parts[i].n_logits;
        }
    }
    if (n_rows > 0 && s->options.rule == VERIFY_REJECTION) {
        scheduler_reject_all(s);
    } else if (n_rows > 0 && s->logits == NULL) {
        return scheduler_pick_there(s, n_rows);
    } else if (n_rows > 0) {
        struct lane *lane = s->options.target->lane;
        lane_wait(lane, lane_submit(lane, pick_row, &s, sizeof s, n_rows));
    }
    return STATUS_OK;
}

static void digest_part(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    const struct scheduler *s = *(const struct scheduler *const *)args;
    const struct step_part *part = &s->parts[chunk];
    const size_t n_vocab = (size_t)s->n_vocab;
    (void)worker;
    for (int32_t i = 0; i < part->n_committed; i++) {
        const size_t row = (size_t)(part->first_logits + part->row_of_token[i]);
        digest_update(&part->seq->digest, s->logits + row * n_vocab, n_vocab * sizeof *s->logits);
    }
}

void scheduler_digest_all(struct scheduler *s)
{
    struct lane *lane = s->options.target->lane;
    if (s->logits == NULL) {
        scheduler_digest_there(s);
        return;
    }
    lane_wait(lane, lane_submit(lane, digest_part, &s, sizeof s, (uint32_t)s->n_parts));
}
