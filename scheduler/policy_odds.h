/* policy_odds: how likely proposed tokens are to be accepted.
 *
 * Before drafting only history speaks: acceptance at each depth, given the depth was reached, of all
 * sequences and of each place's own. A place leans on all sequences, a depth on the one before it, all
 * of them on a prior that is worth a try. After drafting each token speaks for itself (calibration.h),
 * times what this sequence's tokens of that source have been worth against what they promised.
 * Averages are long, so that they are quiet; when the recent fates contradict them they are forgotten.
 */
#ifndef SCHEDULER_POLICY_ODDS_H
#define SCHEDULER_POLICY_ODDS_H

#include "draft/draft.h"

/* Depth 1 follows the recovery token. */
struct policy_track {
    float reached[DRAFT_MAX_NODES + 1], hit[DRAFT_MAX_NODES + 1]; /* decayed counts */
    float drift;                /* recent mean of what came less what was expected */
};
struct policy_correction { float accepted, expected; }; /* decayed sums */
struct policy_place {
    uint64_t seq_id, epoch;
    int32_t drafted_len;        /* tokens the draft has seen of this sequence */
    int32_t n_rounds_off, wait_rounds; /* without a proposal; until it may try one again */
    bool is_trying;             /* in this step: what it was given is not cut */
    int8_t cut_depth;           /* in this step, the first depth offered and not verified; 0 = none */
    float cut_survival;
    struct policy_track track;
    struct policy_correction corrections[DRAFT_MAX_SOURCES];
};
struct policy_odds {
    struct draft *draft;        /* borrowed: its calibration is fed here */
    struct policy_track all;
    struct policy_place *places; /* [n_places] */
    int32_t n_places;
};
enum { POLICY_WAIT_ROUNDS_MIN = 16, POLICY_WAIT_ROUNDS_MAX = 1024 };

enum status policy_odds_init(struct policy_odds *odds, struct draft *draft, int32_t n_places);
void policy_odds_deinit(struct policy_odds *odds);
void policy_odds_forget(struct policy_odds *odds, int32_t place);
/* The place of this ask; what another sequence left there is gone. */
struct policy_place *policy_odds_place(struct policy_odds *odds, const struct draft_ask *ask);

/* survival[d], d = 1..n_depths, each given that d is reached. Where what may be is asked for rather
 * than what is likely: as if n_more hits had been seen at each depth, or, negative, misses. */
void policy_odds_by_depth(const struct policy_odds *odds, const struct policy_place *place,
                          int32_t n_depths, float n_more, float *survival);
/* Of a node that was offered, given that its parent is right; within (0, 1). */
float policy_odds_of_node(const struct policy_odds *odds, const struct policy_place *place,
                          const struct draft_proposal *proposal, int32_t node);

/* Depth was reached and its token accepted (1) or not, or none was offered (0). */
void policy_odds_observe_depth(struct policy_odds *odds, struct policy_place *place, int32_t depth,
                               int32_t n_accepted);
/* Depth was reached, but its token was not verified: it counts as what it was held to be worth. */
void policy_odds_assume_depth(struct policy_odds *odds, struct policy_place *place, int32_t depth,
                              float survival);
void policy_odds_observe_verdict(struct policy_odds *odds, const struct draft_verdict *verdict);

#endif
