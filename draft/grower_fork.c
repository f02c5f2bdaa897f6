/* grower_fork: from the rows of a glue pass to branches, and what became of those of the round before. */
#include <string.h>

#include "draft/grower_private.h"

static const double ACCEPTANCE_NEWS = 1.0 / 32.0; /* share of the newest round in the average */

static int32_t *ids_of(struct ranked_place *ranked, int32_t k) { return ranked->id + k * DRAFT_MAX_RANKED; }

/* ---- learning ---- */
/* How many of a place's proposals came true, -1: the tokens are not those of its next round. */
static int32_t n_come_true(const struct ranked_place *ranked, const struct ahead_round *round)
{
    const int32_t k = round->n_tokens - ranked->n_tokens - 1;
    if (!ranked->is_there || ranked->seq_id != round->seq_id || ranked->epoch != round->epoch || k < 0 ||
        k > ranked->n_proposed ||
        memcmp(ranked->proposed, round->tokens + ranked->n_tokens, (size_t)k * sizeof *ranked->proposed) != 0) {
        return -1;
    }
    return k;
}

static int32_t rank_of(struct ranked_place *ranked, int32_t k, int32_t token)
{
    for (int32_t i = 0; i < ranked->n_ranked[k]; i++) {
        if (ids_of(ranked, k)[i] == token) {
            return i;
        }
    }
    return FANOUT_MAX_RANK; /* beyond */
}

void grower_learn(struct grower *grower, const struct ahead_round *round)
{
    struct ranked_place *ranked = &grower->ranked[round->place];
    const int32_t k = n_come_true(ranked, round);
    ranked->is_there = false;
    if (k < 0) {
        return;
    }
    const int32_t token = round->tokens[round->n_tokens - 1];
    fanout_observe(&grower->counts[ranked->after_miss], ranked->n_proposed, k, rank_of(ranked, k, token));
    grower->report.outcomes++;
    if (ranked->n_proposed > 0) {
        const int32_t n_judged = k < ranked->n_proposed ? k + 1 : k;
        grower->report.acceptance += ACCEPTANCE_NEWS * ((double)k / n_judged - grower->report.acceptance);
    }
}

/* ---- ranking ---- */
static void remember(struct ranked_place *ranked, const struct ahead_round *round)
{
    ranked->is_there = true;
    ranked->after_miss = round->after_miss;
    ranked->seq_id = round->seq_id;
    ranked->epoch = round->epoch;
    ranked->n_tokens = round->n_tokens;
    ranked->n_proposed = round->n_proposed;
    memcpy(ranked->proposed, round->tokens + round->n_tokens, (size_t)round->n_proposed * sizeof *ranked->proposed);
}

/* Row k chooses the token at position N + k, after the k accepted ones. */
static int32_t add_rankings(struct grower *grower, const struct glued_round *glued, const float *logits, int32_t n)
{
    const struct ahead_round *round = glued->round;
    struct ranked_place *ranked = &grower->ranked[round->place];
    remember(ranked, round);
    for (int32_t k = 0; k <= round->n_proposed; k++, n++) {
        grower->rankings[n] = (struct draft_ranking){
            .params = round->params, .history = round->tokens, .n_history = round->n_tokens + k,
            .position = round->n_tokens + k,
            .logits = grower_row(grower, logits, glued->first_logits + k), .row = glued->first_logits + k,
            .excluded = k < round->n_proposed && !mutant(MUTANT_PROPOSED_TOKEN_FORKS) ? round->tokens[round->n_tokens + k] : -1,
            .by_probability = round->wants_prob, .n_wanted = DRAFT_MAX_RANKED, .id = ids_of(ranked, k) };
        grower->ranking_list[n] = &grower->rankings[n];
    }
    return n;
}

/* ---- branches ---- */
struct candidate { int32_t k, rank, token; float odds; };

static void add_branch(struct grower *grower, const struct glued_round *glued, const struct candidate *candidate)
{
    struct ahead_table *table = glued->table;
    struct growing_branch *growing = &grower->growing[grower->n_growing++];
    growing->idx = table->n_branches++;
    growing->branch = &table->branch[growing->idx];
    growing->glued = glued;
    growing->fork = glued->round->n_tokens + candidate->k;
    growing->odds = candidate->odds;
    growing->is_open = growing->fork < grower->base->context;
    growing->branch->n_accepted = candidate->k;
    growing->branch->token = candidate->token;
    growing->branch->rank = candidate->rank;
    for (int32_t i = 0; i < DRAFT_MAX_NODES; i++) {
        growing->branch->next[i] = -1;
        growing->branch->prob[i] = NULL;
    }
}

static void make_branches(struct grower *grower, struct glued_round *glued, const struct draft_ranking *rankings)
{
    const struct ahead_round *round = glued->round;
    struct ranked_place *ranked = &grower->ranked[round->place];
    const struct fanout_counts *counts = &grower->counts[round->after_miss];
    const struct fanout_ask ask = { .n_proposed = round->n_proposed, .budget = glued->budget,
                                    .acceptance = (float)grower->report.acceptance, .tail = GROWER_TAIL };
    const struct fanout_plan plan = fanout_choose(&grower->options.fanout, counts, &ask);
    struct fanout_odds odds;
    fanout_estimate(counts, &ask, &odds);
    for (int32_t k = 0; k <= round->n_proposed; k++) {
        ranked->n_ranked[k] = rankings[k].n;
        const int32_t n = rankings[k].n < plan.count[k] ? rankings[k].n : plan.count[k];
        for (int32_t rank = 0; rank < n && glued->table->n_branches < glued->budget; rank++) {
            add_branch(grower, glued, &(struct candidate){ .k = k, .rank = rank, .token = rankings[k].id[rank],
                .odds = (float)odds.reach[k] * odds.hit[k][rank] });
        }
    }
    grower->report.branches += (uint64_t)glued->table->n_branches;
    atomic_store_explicit(&glued->table->n_ready, 0, memory_order_release);
}

/* Shell's sort: a library's may allocate. Equal ones in the order of their branches. */
static bool goes_before(const struct growing_branch *a, const struct growing_branch *b)
{
    return a->odds > b->odds || (a->odds == b->odds && a < b);
}

static void put_in_order(struct grower *grower)
{
    const int32_t n = grower->n_growing;
    for (int32_t i = 0; i < n; i++) {
        grower->order[i] = &grower->growing[i];
    }
    for (int32_t gap = n / 2; gap > 0; gap /= 2) {
        for (int32_t i = gap; i < n; i++) {
            struct growing_branch *own = grower->order[i];
            int32_t at = i;
            for (; at >= gap && goes_before(own, grower->order[at - gap]); at -= gap) {
                grower->order[at] = grower->order[at - gap];
            }
            grower->order[at] = own;
        }
    }
}

int32_t grower_fork(struct grower *grower, const float *logits)
{
    int32_t n = 0, n_forked = 0;
    for (int32_t i = 0; i < grower->n_glued; i++) {
        if (grower->glued[i].first_logits >= 0 && !grower->glued[i].is_forked) {
            n = add_rankings(grower, &grower->glued[i], logits, n);
        }
    }
    draft_chooser_rank(grower->chooser, grower->ranking_list, n);
    n = 0;
    for (int32_t i = 0; i < grower->n_glued; i++) {
        struct glued_round *glued = &grower->glued[i];
        if (glued->first_logits >= 0 && !glued->is_forked) {
            glued->is_forked = true;
            make_branches(grower, glued, &grower->rankings[n]);
            n += glued->round->n_proposed + 1;
            n_forked++;
        }
    }
    put_in_order(grower);
    return n_forked;
}
