/* calibration: from what a source says of its own token to how often such tokens are accepted.
 *
 * A histogram over hints (0..1), each bucket an exponential average of acceptance that starts from a
 * prior of a few observations: what the hint says, read as a probability. A value; no memory of its own.
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
};
void calibration_init(struct calibration *calibration);
/* A token with this hint was reached (all before it were right), and accepted or not. */
void calibration_observe(struct calibration *calibration, float hint, int accepted);
/* Probability that such a token is accepted when it is reached; within (0, 1). */
float calibration_survival(const struct calibration *calibration, float hint);

#endif
