/* draw: argmax over kept ids of value + Gumbel noise (Gumbel 1954; as a way to sample: Maddison,
 * Tarlow, Minka, "A* sampling", 2014), lowest id among equals.
 *
 * Noise is dear and never above 23, so ids far below the best need none. They are passed over in
 * blocks of 256: `bound` is the noisy value of one kept id, and a block whose highest value + 23
 * stays below it cannot hold the winner, not even by a tie. Rounding keeps order, so the shortcut
 * changes no choice; tests/test_sampling.c compares it with the plain loop. In a block that may hold
 * the winner most ids would need more noise than their word gives; words come before logarithms, and
 * where none is small enough there are no logarithms to take.
 */
#include <math.h>

#include "sampling/row.h"

enum { DRAW_BLOCK_IDS = 256, DRAW_FEW_IDS = 8 };
static const float draw_noise_limit = 23.0f; /* noise of the word 0 is 22.874 */

static float noisy_value(const struct sampling_coin *coin, float value, int32_t id)
{
    const uint32_t word =
        rng_coin_word(coin->seed, COIN_TARGET, (uint32_t)coin->position, (uint32_t)id);
    return value + mathx_gumbel(word);
}

/* Where the values of the block that begins at `begin` end. */
static int32_t block_end(const struct sampling_row *row, int32_t begin)
{
    if (row->id == NULL) {
        return row->n - begin < DRAW_BLOCK_IDS ? row->n : begin + DRAW_BLOCK_IDS;
    }
    const int32_t block = row->id[begin] / DRAW_BLOCK_IDS;
    int32_t end = begin + 1;
    while (end < row->n && row->id[end] / DRAW_BLOCK_IDS == block) {
        end++;
    }
    return end;
}

static float block_max(const float *value, int32_t n)
{
    float lane[8] = { -MATHX_INF, -MATHX_INF, -MATHX_INF, -MATHX_INF,
                      -MATHX_INF, -MATHX_INF, -MATHX_INF, -MATHX_INF };
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int32_t j = 0; j < 8; j++) {
            lane[j] = value[i + j] > lane[j] ? value[i + j] : lane[j];
        }
    }
    float max = -MATHX_INF;
    for (; i < n; i++) {
        max = value[i] > max ? value[i] : max;
    }
    for (int32_t j = 0; j < 8; j++) {
        max = lane[j] > max ? lane[j] : max;
    }
    return max;
}

/* The noisy value of the highest id: the first that has the row's highest value. */
static float draw_bound(const struct sampling_coin *coin, const struct sampling_row *row)
{
    const float max = block_max(row->value, row->n);
    int32_t i = 0;
    while (row->value[i] < max) {
        i++;
    }
    return noisy_value(coin, max / row->temperature, row->id == NULL ? i : row->id[i]);
}

/* Noise above `least` takes a word below this. v = 1 - exp(-exp(-noise)) is at most exp(-noise) and the
 * word is 2^32 v; a hundredth more covers the rounding of noise (2 ulp) and of the sums it is part of,
 * which `least` has room for. */
static uint64_t word_limit(float bound, float high)
{
    const float room = 4e-7f * (fabsf(bound) + fabsf(high));
    const float least = (bound - high) - room;
    if (!(least > 0.0f)) { /* or no number: all of them */
        return (uint64_t)1 << 32;
    }
    return (uint64_t)(mathx_exp(-least) * 4294967296.0f * 1.01f) + 64;
}

int32_t sampling_draw(const struct backend *backend, const struct sampling_coin *coin,
                      const struct sampling_row *row)
{
    float noise[DRAW_BLOCK_IDS], best = -MATHX_INF;
    int32_t best_id = row->id == NULL ? 0 : row->id[0];
    const float bound = draw_bound(coin, row);
    for (int32_t begin = 0, end; begin < row->n; begin = end) {
        end = block_end(row, begin);
        const float high = block_max(row->value + begin, end - begin) / row->temperature;
        if (high + draw_noise_limit < bound) {
            continue;
        }
        const int32_t first_id = (row->id == NULL ? begin : row->id[begin]) / DRAW_BLOCK_IDS
                               * DRAW_BLOCK_IDS;
        const bool few = end - begin <= DRAW_FEW_IDS;
        if (!few) {
            backend_gumbel_below(backend, coin->seed, (uint32_t)coin->position, (uint32_t)first_id,
                                 DRAW_BLOCK_IDS, word_limit(bound, high), noise);
        }
        for (int32_t i = begin; i < end; i++) {
            const int32_t id = row->id == NULL ? i : row->id[i];
            const float value = row->value[i] / row->temperature;
            const float noisy = few ? noisy_value(coin, value, id) : value + noise[id - first_id];
            if (noisy > best) { /* strict, upwards: the lowest id */
                best = noisy;
                best_id = id;
            }
        }
    }
    return best_id;
}
