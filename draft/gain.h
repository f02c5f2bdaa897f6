/* gain: what preparing proposals during the verify pass brings, and how many branches of how many tokens
 * are worth growing. Numbers in, numbers out: times of passes as they were measured, odds as they were
 * counted (fanout.h). Model of the gain: Kumar, Dao, May, 2603.03251; kinds of rounds told apart, the end of
 * growing and batches are ours. Nothing is allocated; any thread.
 *
 *     a round verifies       what a branch held                 what the fallback proposed
 *     and beside it          glue, K_next times grow            the same
 *     takes                  max(verify(1 + K), draft)          fallback + max(verify(1 + K_fallback), draft)
 *     stopped early          what fits into the verify pass is served, and the round takes no longer
 *
 * Rounds follow each other: after a hit the next is one with the odds of rounds after a hit, after a miss
 * with those after a miss. Rates are of the mix that this settles at.
 */
#ifndef DRAFT_GAIN_H
#define DRAFT_GAIN_H

#include "draft/fanout.h"

/* ---- the model, in any one unit of time ---- */
/* Tokens a second with the i.i.d. odds of the paper: [h E_hit + (1 - h) E_miss] / [h max(v, T_d) + (1 - h) (v +
 * T_fallback)]; with times in plain passes it is the speedup over plain decoding. */
struct gain_round {
    double hit;                      /* h: share of rounds whose outcome was prepared */
    double tokens_hit, tokens_miss;  /* E: committed by a round, 1 + accepted */
    double verify, draft, fallback;  /* v with the other lane busy; T_d = glue and K grows of MQ rows */
};
double gain_ahead_rate(const struct gain_round *round);
/* E / (v + c K): drafting waits for the verdict, verifying for the draft. */
double gain_ordinary_rate(double tokens, double verify, double draft);
/* Tokens of a round of K proposals: 1 + mean of k. */
double gain_tokens(const struct fanout_odds *odds);

/* ---- times of passes, by rows ---- */
/* Buckets: each number of rows to 16, then four to a doubling. A bucket's sample is the median of its last
 * three, so that one descheduled pass bends nothing. All zero to begin with. */
enum { GAIN_BUCKETS = 16 + 4 * 8, GAIN_MAX_ROWS = 4096, GAIN_RECENT = 3 };
struct gain_times {
    struct gain_bucket {
        float rows, seconds;         /* averages; seconds 0: nothing measured */
        float recent[GAIN_RECENT];
        uint32_t n_seen;
    } bucket[GAIN_BUCKETS];
};
/* More rows than GAIN_MAX_ROWS, fewer than one and times that are none are passed over. */
void gain_times_observe(struct gain_times *times, int32_t rows, double seconds);
/* A straight line between the two nearest that were measured; level below the first, beyond the last the
 * slope of its upper half, level where there is none. 0 rows take no time. 0 while nothing is measured. */
double gain_times_seconds(const struct gain_times *times, double rows);

/* ---- the choice ---- */
enum gain_end {
    GAIN_GROWS_TO_THE_END,  /* all K_next tokens, however long it takes */
    GAIN_STOPS_EARLY        /* what is grown when the verdict comes is served */
};
struct gain_inputs {
    const struct gain_times *verify, *glue, *grow; /* verify: with the other lane busy; glue: forks included */
    const struct fanout_counts *after_hit, *after_miss;
    float acceptance, tail;          /* what is believed where little was counted (struct fanout_ask) */
    int32_t k_max, max_budget;       /* at most: 1..FANOUT_MAX_K, 1..FANOUT_MAX_BUDGET */
    int32_t fixed_k, fixed_budget;   /* 0: to be chosen */
    int32_t n_seqs;                  /* sequences whose rows share the passes, >= 1 */
    int32_t k_fallback;              /* tokens that the fallback proposes; 0: none */
    double fallback_seconds;         /* that the target waits for it */
    enum gain_end end;
};
struct gain_choice {
    int32_t budget, k_next;          /* 0, 0: nothing is known of times yet */
    double rate;                     /* tokens a second of all sequences */
    double hit;                      /* share of rounds */
    double tokens_hit, served;       /* committed, and proposed, by a round after a hit */
    double verify_seconds, draft_seconds; /* of such a round, draft: to the end */
    double plain_rate;               /* without a draft */
    double ordinary_rate;            /* the best of drafting and verifying in turn, its rows those of grow */
    int32_t ordinary_k;
};
/* The budget and K_next of most tokens a second, the smallest of equal ones; T_d > v is no obstacle where
 * it pays. Up to a tenth of a millisecond, so not for every round. */
struct gain_choice gain_choose(const struct gain_inputs *inputs);

#endif
