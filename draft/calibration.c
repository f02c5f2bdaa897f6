#include "draft/calibration.h"

/* An observation's weight halves after about 180 further ones in its bucket. */
static const float CALIBRATION_DECAY = 1.0f - 1.0f / 256.0f;
/* Of all tokens and of the opinions' errors: half after 44. */
static const float CALIBRATION_DECAY_ALL = 1.0f - 1.0f / 64.0f;
/* What the opinions are worth in a bucket, in observations. */
static const float CALIBRATION_PRIOR = 4.0f;
/* Observations before the mean is an opinion of its own. */
static const float CALIBRATION_MEAN_PRIOR = 2.0f;
/* Squared error that both start with: the first tokens decide nothing. */
static const float CALIBRATION_ERROR_PRIOR = 0.5f;

static int bucket_of(float hint)
{
    const int bucket = (int)(hint * (float)CALIBRATION_BUCKETS);
    return bucket < 0 ? 0 : bucket >= CALIBRATION_BUCKETS ? CALIBRATION_BUCKETS - 1 : bucket;
}

static float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

/* A hint that is no number says nothing. */
static float hint_or_even(float hint)
{
    return hint >= 0.0f && hint <= 1.0f ? hint : 0.5f;
}

void calibration_init(struct calibration *calibration)
{
    *calibration = (struct calibration){ .all_seen = 0.0f };
}

static float hint_opinion(float hint)
{
    return clamp(hint_or_even(hint), 0.02f, 0.98f);
}

static float mean_opinion(const struct calibration *calibration, float hint)
{
    return (calibration->all_accepted + CALIBRATION_MEAN_PRIOR * hint_opinion(hint)) /
           (calibration->all_seen + CALIBRATION_MEAN_PRIOR);
}

/* Weights fall with the square of the error, so that twice as good counts four times. */
static float both_opinions(const struct calibration *calibration, float hint)
{
    const float hint_error = calibration->hint_error + CALIBRATION_ERROR_PRIOR;
    const float mean_error = calibration->mean_error + CALIBRATION_ERROR_PRIOR;
    const float hint_weight = mean_error * mean_error / (hint_error * hint_error + mean_error * mean_error);
    return hint_weight * hint_opinion(hint) + (1.0f - hint_weight) * mean_opinion(calibration, hint);
}

static float decayed_square(float sum, float error)
{
    return sum * CALIBRATION_DECAY_ALL + error * error;
}

void calibration_observe(struct calibration *calibration, float hint, int accepted)
{
    const int bucket = bucket_of(hint_or_even(hint));
    const float fate = accepted ? 1.0f : 0.0f;
    calibration->hint_error = decayed_square(calibration->hint_error, fate - hint_opinion(hint));
    calibration->mean_error = decayed_square(calibration->mean_error, fate - mean_opinion(calibration, hint));
    calibration->all_accepted = calibration->all_accepted * CALIBRATION_DECAY_ALL + fate;
    calibration->all_seen = calibration->all_seen * CALIBRATION_DECAY_ALL + 1.0f;
    calibration->accepted[bucket] = calibration->accepted[bucket] * CALIBRATION_DECAY + fate;
    calibration->seen[bucket] = calibration->seen[bucket] * CALIBRATION_DECAY + 1.0f;
}

float calibration_survival(const struct calibration *calibration, float hint)
{
    const int bucket = bucket_of(hint_or_even(hint));
    return clamp((calibration->accepted[bucket] + CALIBRATION_PRIOR * both_opinions(calibration, hint)) /
                 (calibration->seen[bucket] + CALIBRATION_PRIOR), 0.001f, 0.999f);
}
