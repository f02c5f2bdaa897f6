/* filters: top-k, top-p, min-p on a list of kept ids that stays in ascending order.
 *
 * Each filter finds the lowest key that stays and then walks the list once: nothing is sorted but
 * what lies at the border. Top-p adds integers, so the walk from the highest probability down may
 * add whole buckets of them in any order.
 */
#include "sampling/row.h"

#include <math.h>

enum { ROW_PARTIALS = 64, LIST_STEP = 64 };
static const double sampling_one = 0x1p40; /* probability 1 in integers */

bool sampling_has_filters(const struct sampling_params *params)
{
    return params->top_k > 0 || params->top_p < 1.0f || params->min_p > 0.0f;
}

void sampling_list_begin(const struct sampling_params *params, const float *value, int32_t n_vocab,
                         float max, struct sampling_scratch *scratch)
{
    const float temperature = params->temperature;
    float *kept = scratch->value; /* may be `value` itself */
    int32_t done = 0;
    for (; n_vocab - done >= LIST_STEP; done += LIST_STEP) {
        float step[LIST_STEP]; /* fixed length, no aliases: divisions become vectors */
        memcpy(step, value + done, sizeof step);
        for (int32_t i = 0; i < LIST_STEP; i++) {
            step[i] /= temperature;
        }
        memcpy(kept + done, step, sizeof step);
        for (int32_t i = 0; i < LIST_STEP; i++) {
            scratch->id[done + i] = done + i;
        }
    }
    for (; done < n_vocab; done++) {
        kept[done] = value[done] / temperature;
        scratch->id[done] = done;
    }
    scratch->n_kept = n_vocab;
    scratch->max = max;
    scratch->has_exp = false;
}

float sampling_list_exp_sum(const struct backend *backend, struct sampling_scratch *scratch)
{
    const int32_t n = scratch->n_kept;
    if (!scratch->has_exp) {
        memcpy(scratch->exp, scratch->value, (size_t)n * sizeof *scratch->exp);
        const float sum = backend_exp_sum(backend, scratch->exp, n, scratch->max);
        scratch->has_exp = true;
        if (scratch->id[n - 1] == n - 1) { /* nothing is missing: this is the row's own sum */
            return sum;
        }
    }
    float partial[ROW_PARTIALS] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        partial[scratch->id[i] % ROW_PARTIALS] += scratch->exp[i];
    }
    for (int32_t stride = ROW_PARTIALS / 2; stride > 0; stride /= 2) {
        for (int32_t i = 0; i < stride; i++) {
            partial[i] += partial[i + stride];
        }
    }
    return partial[0];
}

static void filter_top_k(int32_t k, struct sampling_scratch *scratch)
{
    sampling_select_top(scratch->value, scratch->id, scratch->n_kept, k, scratch->key);
    const uint64_t lowest = scratch->key[0];
    const float lowest_value = sampling_key_value(lowest);
    int32_t n = 0;
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        if (scratch->value[i] >= lowest_value
            && sampling_key(scratch->value[i], scratch->id[i]) >= lowest) {
            scratch->value[n] = scratch->value[i];
            scratch->id[n++] = scratch->id[i];
        }
    }
    scratch->n_kept = n;
}

static int64_t prob_mass(float prob)
{
    return (int64_t)llrint((double)prob * sampling_one);
}

/* The bucket in which the walk from the top reaches `wanted`, what is still wanted when it gets
 * there in *wanted; -1 when the whole row has less. */
static int32_t top_p_border(const int64_t *mass, int64_t *wanted)
{
    for (int32_t bucket = SAMPLING_BUCKETS - 1; bucket >= 0; bucket--) {
        /* An empty bucket cannot be the border: the token that reaches it lies above. */
        if (mass[bucket] > 0 && mass[bucket] >= *wanted) {
            return bucket;
        }
        *wanted -= mass[bucket];
    }
    return -1;
}

/* The lowest key that stays; 0 keeps all. */
static uint64_t top_p_lowest(struct sampling_scratch *scratch, float sum, int64_t wanted)
{
    memset(scratch->mass, 0, SAMPLING_BUCKETS * sizeof *scratch->mass);
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        const float prob = scratch->exp[i] / sum;
        scratch->mass[mathx_to_bits(prob) >> SAMPLING_BUCKET_SHIFT] += prob_mass(prob);
    }
    const int32_t border = top_p_border(scratch->mass, &wanted);
    if (border < 0) {
        return 0;
    }
    int32_t n = 0;
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        const float prob = scratch->exp[i] / sum;
        if ((int32_t)(mathx_to_bits(prob) >> SAMPLING_BUCKET_SHIFT) == border) {
            scratch->key[n++] = sampling_key(prob, scratch->id[i]);
        }
    }
    sampling_sort_keys(scratch->key, n);
    int32_t last = 0;
    for (; last < n - 1; last++) {
        wanted -= prob_mass(sampling_key_value(scratch->key[last]));
        if (wanted <= 0) {
            break;
        }
    }
    return scratch->key[last];
}

static void filter_top_p(const struct backend *backend, float top_p,
                         struct sampling_scratch *scratch)
{
    const float sum = sampling_list_exp_sum(backend, scratch);
    const int64_t wanted = (int64_t)llrint((double)top_p * sampling_one);
    const uint64_t lowest = top_p_lowest(scratch, sum, wanted);
    int32_t n = 0;
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        if (sampling_key(scratch->exp[i] / sum, scratch->id[i]) >= lowest) {
            scratch->value[n] = scratch->value[i];
            scratch->exp[n] = scratch->exp[i];
            scratch->id[n++] = scratch->id[i];
        }
    }
    scratch->n_kept = n;
}

/* A probability relative to the highest is exp(value - max) itself: the sum falls out. */
static void filter_min_p(const struct backend *backend, float min_p,
                         struct sampling_scratch *scratch)
{
    sampling_list_exp_sum(backend, scratch);
    int32_t n = 0;
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        if (scratch->exp[i] >= min_p) {
            scratch->value[n] = scratch->value[i];
            scratch->exp[n] = scratch->exp[i];
            scratch->id[n++] = scratch->id[i];
        }
    }
    scratch->n_kept = n;
}

void sampling_list_filter(const struct backend *backend, const struct sampling_params *params,
                          struct sampling_scratch *scratch)
{
    if (params->top_k > 0 && params->top_k < scratch->n_kept) {
        filter_top_k(params->top_k, scratch);
    }
    if (params->top_p < 1.0f) {
        filter_top_p(backend, params->top_p, scratch);
    }
    if (params->min_p > 0.0f) {
        filter_min_p(backend, params->min_p, scratch);
    }
}
