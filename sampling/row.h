/* row: one logits row on its way to a token. Inside the room only.
 *
 *   logits --adjust--> value [n_vocab] --list--> (id, value, exp) of kept ids, ascending by id
 *          penalties,          / temperature, top-k, top-p, min-p                  --draw--> token
 *          bias
 *
 * Orders are 64-bit keys: (float as an ordered integer) << 32 | ~id, so that descending keys are
 * descending values with the lowest id first among equals, and no two keys are the same.
 */
#ifndef SAMPLING_ROW_H
#define SAMPLING_ROW_H

#include "sampling/sampling.h"

/* A probability's upper bits select one of these buckets: 32 per power of two, none above 1. */
enum { SAMPLING_BUCKET_SHIFT = 18, SAMPLING_BUCKETS = (0x3f800000 >> SAMPLING_BUCKET_SHIFT) + 1 };

struct sampling_scratch {
    int32_t cap_vocab;
    float *value;      /* [cap_vocab] adjusted logits, then those of the kept ids / temperature */
    float *exp;        /* [cap_vocab] exp(value - max) of the kept ids; sums for logprobs */
    int32_t *id;       /* [cap_vocab] kept ids, ascending */
    int32_t *count;    /* [cap_vocab] zero between calls */
    uint64_t *key;     /* [cap_vocab] heaps */
    int64_t *mass;     /* [SAMPLING_BUCKETS] integer probability per bucket */
    /* the list */
    int32_t n_kept;
    float max;         /* highest kept value */
    bool has_exp;
};

static inline uint64_t sampling_key(float value, int32_t id)
{
    const uint32_t bits = mathx_to_bits(value + 0.0f); /* -0 and +0 are equal: make them one */
    const uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)ordered << 32 | (0xffffffffu - (uint32_t)id);
}

static inline int32_t sampling_key_id(uint64_t key)
{
    return (int32_t)(0xffffffffu - (uint32_t)key);
}

static inline float sampling_key_value(uint64_t key)
{
    const uint32_t ordered = (uint32_t)(key >> 32);
    return mathx_from_bits(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

/* ---- select.c ---- */
/* The k highest of n keys (value[i], id ? id[i] : i), 1 <= k <= n, into heap [k], unordered but for
 * the lowest of them, which is heap[0]. */
void sampling_select_top(const float *value, const int32_t *id, int32_t n, int32_t k,
                         uint64_t *heap);
/* Sorts keys in descending order in place: no memory, n log n always. */
void sampling_sort_keys(uint64_t *key, int32_t n);

/* ---- adjust.c ---- */
bool sampling_has_adjustments(const struct sampling_params *params);
/* scratch->value = logits with penalties of the tokens before the position, then bias. */
void sampling_adjust(const struct sampling_params *params, const float *logits, int32_t n_vocab,
                     const int32_t *history, int32_t n_history, struct sampling_scratch *scratch);

/* ---- filters.c ---- */
bool sampling_has_filters(const struct sampling_params *params);
/* The list of all ids, values divided by the temperature; `max` the highest of them. */
void sampling_list_begin(const struct sampling_params *params, const float *value, int32_t n_vocab,
                         float max, struct sampling_scratch *scratch);
/* top-k, top-p, min-p, in this order. */
void sampling_list_filter(const struct backend *backend, const struct sampling_params *params,
                          struct sampling_scratch *scratch);
/* Fills exp of the kept ids; the canonical sum of a row in which dropped ids count +0. */
float sampling_list_exp_sum(const struct backend *backend, struct sampling_scratch *scratch);

/* ---- draw.c ---- */
struct sampling_coin { uint64_t seed; int32_t position; };
/* Values to draw from: of ids 0..n-1 (id NULL), or of the ids named, ascending. */
struct sampling_row {
    const float *value; /* [n], at least one above -inf, none +inf or NaN */
    const int32_t *id;  /* [n] or NULL */
    int32_t n;
    float temperature;  /* still to divide by; 1 when that is done */
};
int32_t sampling_draw(const struct backend *backend, const struct sampling_coin *coin,
                      const struct sampling_row *row);

/* ---- logprobs.c ---- */
void sampling_logprobs(const struct backend *backend, const struct sampling_params *params,
                       const float *logits, int32_t n_vocab,
                       struct sampling_scratch *scratch, struct sampling_choice *out);

#endif
