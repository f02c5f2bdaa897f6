#include "draft/calibration.h"

/* An observation's weight halves after about 180 further ones in its bucket. */
static const float CALIBRATION_DECAY = 1.0f - 1.0f / 256.0f;
/* What the hint itself is worth, in observations. */
static const float CALIBRATION_PRIOR = 2.0f;

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
    *calibration = (struct calibration){ { 0 }, { 0 } };
}

void calibration_observe(struct calibration *calibration, float hint, int accepted)
{
    const int bucket = bucket_of(hint_or_even(hint));
    calibration->accepted[bucket] = calibration->accepted[bucket] * CALIBRATION_DECAY + (accepted ? 1.0f : 0.0f);
    calibration->seen[bucket] = calibration->seen[bucket] * CALIBRATION_DECAY + 1.0f;
}

float calibration_survival(const struct calibration *calibration, float hint)
{
    const float prior = clamp(hint_or_even(hint), 0.02f, 0.98f);
    const int bucket = bucket_of(hint_or_even(hint));
    return clamp((calibration->accepted[bucket] + CALIBRATION_PRIOR * prior) /
                 (calibration->seen[bucket] + CALIBRATION_PRIOR), 0.001f, 0.999f);
}
