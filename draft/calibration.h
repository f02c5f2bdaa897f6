/* calibration: from what a source says of its own token to how often such tokens are accepted.
 *
 * A histogram over hints (0..1), each bucket an exponential average of acceptance. What a bucket does
 * not know yet it takes from two opinions, the hint read as a probability and the mean of all tokens of
 * the source, each with the weight it has earned: a source whose hints say nothing is found out after a
 * few tokens, not after a few in every bucket. A value; all zeros is a fresh one; no memory of its own.
 * Source of the idea: SpecDec++ (2405.19715) and confidence scheduling: the length verified follows the
 * confidence of each token, not its place alone.
 */
#ifndef DRAFT_CALIBRATION_H
#define DRAFT_CALIBRATION_H

#include <stdint.h>

enum { CALIBRATION_BUCKETS = 16 };
struct calibration {
    float accepted[CALIBRATION_BUCKETS]; /* decayed counts */
    float seen[CALIBRATION_BUCKETS];
    float all_accepted, all_seen;        /* of all tokens */
    float hint_error, mean_error;        /* decayed sums of squares: acceptance less each opinion */
};
void calibration_init(struct calibration *calibration);
/* A token with this hint was reached (all before it were right), and accepted or not. */
void calibration_observe(struct calibration *calibration, float hint, int accepted);
/* Probability that such a token is accepted when it is reached; within (0, 1). */
float calibration_survival(const struct calibration *calibration, float hint);

#endif
