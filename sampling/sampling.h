/* sampling: logits → token, the one definition that draft, target and verify share.
 *
 * Pure functions of (parameters, logits row, tokens before the position, coins). Filters apply in
 * this order: penalties and bias, temperature, top-k, top-p, min-p; ties go to the lowest id. The
 * token of the coupled rule is argmax over kept ids of logit / temperature + Gumbel noise of the
 * position (purpose 0, index = id); temperature 0 is the same without noise. Any thread; scratch
 * is the caller's.
 */
#ifndef SAMPLING_SAMPLING_H
#define SAMPLING_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/base.h"

enum { SAMPLING_MAX_BIASES = 1024, SAMPLING_MAX_TOP_LOGPROBS = 20 };

struct sampling_bias { int32_t id; float bias; };
struct sampling_params {
    float temperature;          /* >= 0; 0 = greedy */
    int32_t top_k;              /* 0 = off */
    float top_p;                /* 1 = off */
    float min_p;                /* 0 = off */
    float repetition_penalty;   /* 1 = off; > 0 */
    float presence_penalty;     /* 0 = off */
    float frequency_penalty;    /* 0 = off */
    int32_t penalty_last_n;     /* how many tokens back penalties look; -1 = all */
    uint64_t seed;
    const struct sampling_bias *biases; /* [n_biases] borrowed, sorted by id */
    int32_t n_biases;
    int32_t n_top_logprobs;     /* 0..20 alternatives to report; -1 = no logprobs at all */
};
void sampling_params_defaults(struct sampling_params *params);
/* Whether a choice depends on the tokens before it, not on the logits alone. */
bool sampling_uses_history(const struct sampling_params *params);
/* STATUS_INVALID with the sentence when a value is out of range (n_vocab bounds the bias ids). */
enum status sampling_params_check(const struct sampling_params *params, int32_t n_vocab);

struct sampling_scratch; /* buffers of one row: [n_vocab] floats, ids, counts */
enum status sampling_scratch_create(int32_t n_vocab, struct sampling_scratch **out);
void sampling_scratch_destroy(struct sampling_scratch *scratch);

struct sampling_choice {
    int32_t id;
    float logprob;              /* of id under the model's own logits (before filters) */
    int32_t n_top;
    struct {
        int32_t id;
        float logprob;
    } top[SAMPLING_MAX_TOP_LOGPROBS]; /* descending, lowest id first */
};
/* position: absolute position of the token being chosen; history[0..n_history) are the tokens
 * before it (prompt included). The logits row is read only. Allocates nothing. STATUS_NUMERIC, with a
 * sentence that names the position, on a NaN or +inf logit or when all are -inf. */
enum status sampling_choose(const struct backend *backend, const struct sampling_params *params,
                            const float *logits /* [n_vocab] */, int32_t n_vocab,
                            const int32_t *history, int32_t n_history, int32_t position,
                            struct sampling_scratch *scratch, struct sampling_choice *out);
/* A choice depends on the logits, the temperature and the noise alone. */
bool sampling_is_plain(const struct sampling_params *params);
/* sampling_choose() of plain parameters on a row that is -inf but for ids[0..n), ascending, whose logits
 * these are. No logprobs. */
enum status sampling_choose_kept(const struct backend *backend, const struct sampling_params *params,
                                 const float *logits /* [n] */, const int32_t *ids /* [n] */, int32_t n,
                                 int32_t position, int32_t *id);
/* What sampling_choose() would say of a token that was chosen in another way: its id and logprobs. */
void sampling_describe(const struct backend *backend, const struct sampling_params *params,
                       const float *logits, int32_t n_vocab, int32_t id, struct sampling_scratch *scratch,
                       struct sampling_choice *out);
/* sampling_choose() as a device is asked for it (backend_choose()); history is borrowed. Row 0, no siblings. */
struct choice_ask sampling_choice_ask(const struct sampling_params *params, const int32_t *history, int32_t n_history,
                                      int32_t position);
/* The distribution the filters leave, normalised, in fp32 (rejection rule, tests). */
enum status sampling_distribution(const struct backend *backend,
                                  const struct sampling_params *params, const float *logits,
                                  int32_t n_vocab, const int32_t *history, int32_t n_history,
                                  struct sampling_scratch *scratch, float *prob /* [n_vocab] */);

/* ---- rows of weights: draws of the rejection rule ----
 * The weight of id is max(prob[id] - less[id], 0), and 0 for without_id. Any thread; borrowed. */
struct sampling_weights {
    const float *prob;  /* [n_vocab] in [0, 1] */
    const float *less;  /* [n_vocab] what is taken off, where it is above 0; NULL: nothing */
    int32_t without_id; /* -1 = none */
    int32_t n_vocab;    /* 1 .. 2^22 */
};
/* The id that `coin`, 24 bits in [0, 1), names: inverse of the running sum, ids ascending, in
 * integers. Never an id of weight 0; -1 when all weights are 0. */
int32_t sampling_draw_weights(const struct sampling_weights *weights, float coin);
/* A draft's draw: the same with prob alone, the coin being that of COIN_DRAFT. */
int32_t sampling_draw_from(const float *prob /* [n_vocab] */, int32_t n_vocab, float coin);
/* out = the weights divided by their sum (in double, canonical order of a row's sum); out may be
 * prob. False, with nothing written, when all weights are 0. */
bool sampling_normalise_weights(const struct sampling_weights *weights, float *out /* [n_vocab] */);

enum { SAMPLING_MAX_RESHAPED = 256 };
/* Saguaro sampling (Kumar, Dao, May 2026): the n_top likeliest ids, lowest id first among equals,
 * times `factor` in [0, 1], the row normalised again. If nothing would be left, the row stays. */
void sampling_reshape_top(float *prob /* [n_vocab] */, int32_t n_vocab, int32_t n_top,
                          float factor);

#endif
