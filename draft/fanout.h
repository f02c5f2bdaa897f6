/* fanout: for how many recovery tokens at each number of accepted tokens the next proposal is prepared.
 * Pure arithmetic and counters; no thread of its own. Source: Kumar, Dao, May, 2603.03251, section on the
 * geometric fan-out; the learned one is ours.
 *
 *     k      0    1    2   ..   K       accepted tokens of the round being verified
 *     F_k    9    6    4        5       candidates for the recovery token; sum = budget
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
/* "geometric", "learned", "uniform", "list:9,6,4,5". STATUS_INVALID with a sentence. */
enum status fanout_parse(const char *text, struct fanout_options *out);

/* What is learned of one kind of rounds: after a hit, or after a cheap fallback (their drafts differ, so
 * their outcomes do). */
struct fanout_counts {
    uint32_t n_outcomes;
    uint32_t accepted[FANOUT_MAX_K + 1][FANOUT_MAX_K + 1]; /* [K][k] outcomes; decayed */
    uint32_t rank[FANOUT_MAX_K + 1][FANOUT_MAX_RANK + 1];  /* [min(k, ..)] of the true recovery token in the
                                                            * draft's row; the last: beyond; row K has its own */
    uint32_t bonus_rank[FANOUT_MAX_RANK + 1];              /* of row K, which excludes nothing */
};
void fanout_observe(struct fanout_counts *counts, int32_t n_proposed, int32_t n_accepted, int32_t rank);

/* acceptance: of a proposed token, for the geometric plan; tail: r. budget >= 1; K = n_proposed may be 0,
 * whose whole budget goes to k = 0. A row never gets more than FANOUT_MAX_RANK. */
struct fanout_ask { int32_t n_proposed, budget; float acceptance, tail; };
struct fanout_plan fanout_choose(const struct fanout_options *options, const struct fanout_counts *counts,
                                 const struct fanout_ask *ask);
/* The closed forms, miss rates under the law F^-r. */
double fanout_geometric_miss(double acceptance, double tail, int32_t k, double budget);
double fanout_uniform_miss(double tail, int32_t k, double budget);
/* Share of outcomes that a plan would have missed, by what was counted. */
double fanout_expected_miss(const struct fanout_counts *counts, const struct fanout_plan *plan);

#endif
