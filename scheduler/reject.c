/* reject: the rejection rule over one pass, a sequence a chunk on the target's lane: of each sequence
 * only the rows that its accepted path reaches are turned into distributions. What it finds is written
 * where the coupled rule would have written the target's choices, so that commit is one. */
#include "scheduler/private.h"

#include <stdio.h>

struct reject_run {
    struct scheduler *scheduler;
    const struct step_part *part;
    struct sampling_scratch *scratch;
    float *prob;                 /* [n_vocab] */
};

static const float *row_logits(const struct reject_run *run, int32_t row)
{
    return run->scheduler->logits + (size_t)(run->part->first_logits + row) * (size_t)run->scheduler->n_vocab;
}

/* struct verify_target: penalties look back along the proposed chain, which lies behind the committed
 * tokens; where they do, there are no side branches. */
static enum status row_prob(void *context, int32_t row, const float **prob)
{
    struct reject_run *run = context;
    const struct sequence *seq = run->part->seq;
    struct step_pick *pick = &run->scheduler->picks[run->part->first_logits + row];
    *prob = run->prob;
    pick->status = sampling_distribution(run->scheduler->backend, &seq->params, row_logits(run, row),
                                         run->scheduler->n_vocab, seq->tokens, pick->position, run->scratch,
                                         run->prob);
    if (pick->status != STATUS_OK) { /* the sentence lives in this thread */
        snprintf(pick->error, sizeof pick->error, "%s", status_message());
    }
    return pick->status;
}

static void choose(const struct reject_run *run, int32_t row, int32_t id)
{
    struct scheduler *s = run->scheduler;
    struct step_pick *pick = &s->picks[run->part->first_logits + row];
    sampling_describe(s->backend, &run->part->seq->params, row_logits(run, row), s->n_vocab, id, run->scratch,
                      &pick->choice);
}

/* A row that is no number ends the run: the token before it is then the last. */
static void write_choices(const struct reject_run *run, const struct verify_path *path)
{
    const struct draft_proposal *proposal = &run->part->ask->proposal;
    int32_t row = 0;
    for (int32_t i = 0; i < path->n_accepted; i++) {
        choose(run, row, proposal->token[path->node[i]]);
        row = 1 + path->node[i];
    }
    if (path->recovery_token >= 0) {
        choose(run, row, path->recovery_token);
    }
}

static void judge(const struct reject_run *run, float *residual)
{
    const struct step_part *part = run->part;
    const struct draft_proposal *proposal = &part->ask->proposal;
    int32_t parent[DRAFT_MAX_NODES];
    struct verify_path path;
    for (int32_t node = 0; node < part->n_nodes; node++) {
        parent[node] = proposal->parent[node];
        run->scheduler->picks[part->first_logits + 1 + node].status = STATUS_REFUSED; /* not reached yet */
    }
    (void)verify_tree_rejection(&(struct verify_tree_run){
        .target = { .n_vocab = run->scheduler->n_vocab, .prob = row_prob, .context = (void *)(uintptr_t)run },
        .coins = { .seed = part->seq->params.seed, .position = part->seq->n_tokens },
        .tree = { .token = proposal->token, .parent = parent, .n_nodes = part->n_nodes },
        .draft_prob = proposal->prob, .scratch = residual }, &path); /* its failure lies in the row's pick */
    write_choices(run, &path);
}

static void reject_part(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    struct scheduler *s = *(struct scheduler *const *)args;
    const struct step_part *part = &s->parts[chunk];
    if (part->n_logits == 0) {
        return;
    }
    const int32_t scratch = scheduler_scratch_acquire(s, worker->idx);
    float *rows = s->probs + (size_t)scratch * 2 * (size_t)s->n_vocab;
    judge(&(struct reject_run){ .scheduler = s, .part = part, .scratch = s->scratches[scratch], .prob = rows },
          rows + s->n_vocab);
    scheduler_scratch_release(s, scratch);
}

void scheduler_reject_all(struct scheduler *s)
{
    struct lane *lane = s->options.target->lane;
    lane_wait(lane, lane_submit(lane, reject_part, &s, sizeof s, (uint32_t)s->n_parts));
}
