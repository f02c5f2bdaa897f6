/* fanout: for how many recovery tokens at each number of accepted tokens the next proposal is prepared.
 * Pure arithmetic and counters; no thread of its own. Source: Kumar, Dao, May, 2603.03251, section on the
 * geometric fan-out; the learned one is ours.
 *
 *     k      0    1    2   ..   K       accepted tokens of the round being verified
 *     F_k    9    6    4        5       candidates for the recovery token; sum = budget
 *
 * Candidates of a row are taken in the order of the draft's ranks, so a plan is a number a row. An outcome
 * (k, rank) is hit iff rank < F_k. Row K, whose token no proposal can be refused for, excludes nothing; of
 * each other row the token that was proposed there is no candidate and has no rank.
 */
#ifndef DRAFT_FANOUT_H
#define DRAFT_FANOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

enum {
    FANOUT_MAX_K = 16,        /* as DRAFT_MAX_NODES */
    FANOUT_MAX_BUDGET = 64,   /* branches of a sequence */
    FANOUT_MAX_RANK = 64,     /* ranks told apart; what lies beyond counts as a miss */
    FANOUT_LEARN_FROM = 64    /* outcomes before the learned plan is believed */
};
enum fanout_kind { FANOUT_UNIFORM, FANOUT_GEOMETRIC, FANOUT_LEARNED, FANOUT_LIST };

struct fanout_plan { int32_t n_rows; int32_t count[FANOUT_MAX_K + 1]; }; /* n_rows = K + 1 */
static inline int32_t fanout_plan_total(const struct fanout_plan *plan)
{
    int32_t n = 0;
    for (int32_t k = 0; k < plan->n_rows; k++) {
        n += plan->count[k];
    }
    return n;
}

struct fanout_options {
    enum fanout_kind kind;
    int32_t budget;                        /* 1..FANOUT_MAX_BUDGET; 0: chosen from measured times */
    int32_t list[FANOUT_MAX_K + 1], n_list; /* FANOUT_LIST: F_0, F_1, ..; the last one again for what is
                                             * beyond, never more than the budget in all */
};
/* "geometric", "learned", "uniform", "list:9,6,4,5" into kind and list; the budget is left alone.
 * STATUS_INVALID with a sentence, and nothing written. */
enum status fanout_parse(const char *text, struct fanout_options *out);

/* ---- what is counted ---- */
/* Of one kind of rounds: after a hit, or after a cheap fallback (their drafts differ, so their outcomes
 * do). All zero to begin with. Each outcome counts FANOUT_UNIT, and after every FANOUT_HALVE_EVERY of
 * them what was counted is halved, so that half of what is known comes from the last 4096. */
enum { FANOUT_UNIT = 64, FANOUT_HALVE_EVERY = 4096 };
struct fanout_counts {
    uint32_t n_outcomes;                                   /* ever; not decayed */
    uint32_t accepted[FANOUT_MAX_K + 1][FANOUT_MAX_K + 1]; /* [K][k] outcomes */
    uint32_t rank[FANOUT_MAX_K][FANOUT_MAX_RANK + 1];      /* [k], k < K: of the true recovery token in the
                                                            * draft's row; the last: beyond */
    uint32_t bonus_rank[FANOUT_MAX_RANK + 1];              /* of row K, whatever K */
};
/* rank: FANOUT_MAX_RANK and above, and below 0: beyond, or not among what the draft can propose. */
void fanout_observe(struct fanout_counts *counts, int32_t n_proposed, int32_t n_accepted, int32_t rank);

/* ---- plans ---- */
/* acceptance: of a proposed token, for the geometric plan and as what is believed before anything was
 * counted; tail: r. budget >= 1; K = n_proposed may be 0, whose whole budget goes to k = 0, whatever the
 * kind. */
struct fanout_ask { int32_t n_proposed, budget; float acceptance, tail; };
struct fanout_plan fanout_choose(const struct fanout_options *options, const struct fanout_counts *counts,
                                 const struct fanout_ask *ask);
/* The published closed forms, miss rates under the law F^-r in every row. Plans know better of row K (fanout.c). */
double fanout_geometric_miss(double acceptance, double tail, int32_t k, double budget);
double fanout_uniform_miss(double tail, int32_t k, double budget);

/* ---- odds: what a learned plan is made from ---- */
struct fanout_odds {
    int32_t n_rows;
    double reach[FANOUT_MAX_K + 1];                 /* P(k); they add up to 1 */
    float hit[FANOUT_MAX_K + 1][FANOUT_MAX_RANK];   /* P(rank | k), never rising with the rank; what is
                                                     * missing from 1 lies beyond */
};
/* From what was counted and, where that is little, from the ask's acceptance and tail. */
void fanout_estimate(const struct fanout_counts *counts, const struct fanout_ask *ask, struct fanout_odds *out);
/* The plan of that many candidates that misses least: slots one by one to the row where the next candidate
 * hits most often, which is the optimum because hits never rise with the rank. n = 0 is an empty plan. */
struct fanout_plan fanout_best(const struct fanout_odds *odds, int32_t budget);
double fanout_miss(const struct fanout_odds *odds, const struct fanout_plan *plan);
/* hit[n]: share of outcomes that the best plan of n candidates hits, n = 0 .. max_budget; the plans are
 * those of fanout_best. */
void fanout_hit_by_budget(const struct fanout_odds *odds, int32_t max_budget, float *hit);

#endif
