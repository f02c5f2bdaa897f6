/* weights: a token drawn from a row of weights with one coin, by the inverse of their running sum.
 * The draft's own draw, the draw of what a refused proposal leaves and the bonus draw are this one.
 *
 *   weight  prob[id] - less[id], 0 where that is negative; 0 for the id left out
 *   mass    llrint(weight * 2^s), s such that the highest weight has a mass in [2^39, 2^40]
 *   token   the first id, upwards, at which the running sum of masses exceeds coin * total
 *
 * Masses are integers, so that no order of adding matters, and s follows the highest weight, so
 * that what is left of two nearly equal rows is resolved as finely as a whole row. A weight of 0
 * has mass 0 and can not be drawn; nor can one below 2^-41 of the highest.
 */
#include "sampling/sampling.h"

#include <math.h>

enum { WEIGHTS_BLOCK_IDS = 256, WEIGHTS_MAX_VOCAB = 1 << 22, WEIGHTS_PARTIALS = 64 };
enum { MASS_BITS = 40 }; /* 2^22 masses of 2^40 add up to less than 2^63 */

/* Weights of ids begin .. begin + n - 1. A draft row may hold anything: only what is above 0 is
 * taken off, so that a weight stays within [0, prob]. */
static void block_weights(const struct sampling_weights *weights, int32_t begin, int32_t n,
                          float *out /* [n] */)
{
    const float *prob = weights->prob + begin;
    const float *less = weights->less == NULL ? NULL : weights->less + begin;
    for (int32_t i = 0; i < n; i++) {
        const float left = less != NULL && less[i] > 0.0f ? prob[i] - less[i] : prob[i];
        out[i] = left > 0.0f ? left : 0.0f;
    }
    if (weights->without_id >= begin && weights->without_id - begin < n) {
        out[weights->without_id - begin] = 0.0f;
    }
}

static int32_t block_len(int32_t n_vocab, int32_t begin)
{
    return n_vocab - begin < WEIGHTS_BLOCK_IDS ? n_vocab - begin : WEIGHTS_BLOCK_IDS;
}

static float highest_weight(const struct sampling_weights *weights)
{
    float block[WEIGHTS_BLOCK_IDS], highest = 0.0f;
    for (int32_t begin = 0; begin < weights->n_vocab; begin += WEIGHTS_BLOCK_IDS) {
        const int32_t n = block_len(weights->n_vocab, begin);
        block_weights(weights, begin, n, block);
        for (int32_t i = 0; i < n; i++) {
            highest = block[i] > highest ? block[i] : highest;
        }
    }
    return highest;
}

static int64_t mass_of(float weight, double scale)
{
    return (int64_t)llrint((double)weight * scale);
}

static int64_t block_mass(const struct sampling_weights *weights, int32_t begin, double scale)
{
    float block[WEIGHTS_BLOCK_IDS];
    const int32_t n = block_len(weights->n_vocab, begin);
    int64_t sum = 0;
    block_weights(weights, begin, n, block);
    for (int32_t i = 0; i < n; i++) {
        sum += mass_of(block[i], scale);
    }
    return sum;
}

/* floor(coin * total): the product of 24 and 62 bits in two parts. */
static int64_t mass_below(float coin, int64_t total)
{
    const int64_t word = (int64_t)(coin * 0x1p24f);
    return word * (total >> 24) + (word * (total & 0xffffff) >> 24);
}

/* The first id at which the running sum exceeds `below`, which is less than the sum of all. */
static int32_t find_mass(const struct sampling_weights *weights, double scale, int64_t below)
{
    float block[WEIGHTS_BLOCK_IDS];
    int32_t begin = 0;
    for (int64_t mass; below >= (mass = block_mass(weights, begin, scale)); below -= mass) {
        begin += WEIGHTS_BLOCK_IDS;
        ASSERT(begin < weights->n_vocab);
    }
    const int32_t n = block_len(weights->n_vocab, begin);
    block_weights(weights, begin, n, block);
    int32_t i = 0;
    for (int64_t mass; below >= (mass = mass_of(block[i], scale)); below -= mass) {
        i++;
        ASSERT(i < n);
    }
    return begin + i;
}

int32_t sampling_draw_weights(const struct sampling_weights *weights, float coin)
{
    ASSERT(weights->n_vocab > 0 && weights->n_vocab <= WEIGHTS_MAX_VOCAB);
    ASSERT(coin >= 0.0f && coin < 1.0f);
    const float highest = highest_weight(weights);
    ASSERT(highest < MATHX_INF);
    if (highest == 0.0f) {
        return -1;
    }
    int exponent = 0;
    (void)frexpf(highest, &exponent);
    const double scale = ldexp(1.0, MASS_BITS - exponent);
    int64_t total = 0;
    for (int32_t begin = 0; begin < weights->n_vocab; begin += WEIGHTS_BLOCK_IDS) {
        total += block_mass(weights, begin, scale);
    }
    return find_mass(weights, scale, mass_below(coin, total));
}

int32_t sampling_draw_from(const float *prob, int32_t n_vocab, float coin)
{
    const struct sampling_weights weights = { .prob = prob, .without_id = -1, .n_vocab = n_vocab };
    return sampling_draw_weights(&weights, coin);
}

/* The canonical order of a row's sum, in double: partial i mod 64, then a tree. */
static double row_sum(const float *weight, int32_t n)
{
    double partial[WEIGHTS_PARTIALS] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        partial[i % WEIGHTS_PARTIALS] += (double)weight[i];
    }
    for (int32_t stride = WEIGHTS_PARTIALS / 2; stride > 0; stride /= 2) {
        for (int32_t i = 0; i < stride; i++) {
            partial[i] += partial[i + stride];
        }
    }
    return partial[0];
}

bool sampling_normalise_weights(const struct sampling_weights *weights, float *out)
{
    const int32_t n_vocab = weights->n_vocab;
    ASSERT(n_vocab > 0 && n_vocab <= WEIGHTS_MAX_VOCAB);
    if (highest_weight(weights) == 0.0f) {
        return false;
    }
    for (int32_t begin = 0; begin < n_vocab; begin += WEIGHTS_BLOCK_IDS) {
        float block[WEIGHTS_BLOCK_IDS]; /* `out` may be the row that is read */
        const int32_t n = block_len(n_vocab, begin);
        block_weights(weights, begin, n, block);
        memcpy(out + begin, block, (size_t)n * sizeof *out);
    }
    const double sum = row_sum(out, n_vocab);
    for (int32_t i = 0; i < n_vocab; i++) {
        out[i] = (float)((double)out[i] / sum);
    }
    return true;
}
