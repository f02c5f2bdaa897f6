/* params: what a request may ask of sampling, and the sentence when it asks for something else. */
#include "sampling/sampling.h"

void sampling_params_defaults(struct sampling_params *params)
{
    *params = (struct sampling_params){
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
        .penalty_last_n = -1,
        .n_top_logprobs = -1,
    };
}

struct float_range { const char *name; float value, low, high; };

static enum status check_float(struct float_range range)
{
    if (range.value >= range.low && range.value <= range.high) { /* false for NaN */
        return STATUS_OK;
    }
    return status_fail(STATUS_INVALID, "expected %s between %g and %g, found %g", range.name,
                       (double)range.low, (double)range.high, (double)range.value);
}

static enum status check_biases(const struct sampling_params *params, int32_t n_vocab)
{
    if (params->n_biases < 0 || params->n_biases > SAMPLING_MAX_BIASES) {
        return status_fail(STATUS_INVALID, "expected at most %d biases, found %d",
                           SAMPLING_MAX_BIASES, params->n_biases);
    }
    for (int32_t i = 0; i < params->n_biases; i++) {
        const struct sampling_bias *bias = &params->biases[i];
        if (bias->id < 0 || bias->id >= n_vocab) {
            return status_fail(STATUS_INVALID, "expected bias ids between 0 and %d, found %d",
                               n_vocab - 1, bias->id);
        }
        if (i > 0 && bias->id <= bias[-1].id) {
            return status_fail(STATUS_INVALID,
                               "expected bias ids in ascending order, found %d after %d", bias->id,
                               bias[-1].id);
        }
        TRY(check_float((struct float_range){ "bias", bias->bias, -1e6f, 1e6f }));
    }
    return STATUS_OK;
}

enum status sampling_params_check(const struct sampling_params *params, int32_t n_vocab)
{
    TRY(check_float((struct float_range){ "temperature", params->temperature, 0, 100 }));
    TRY(check_float((struct float_range){ "top_p", params->top_p, 0, 1 }));
    TRY(check_float((struct float_range){ "min_p", params->min_p, 0, 1 }));
    TRY(check_float(
        (struct float_range){"repetition_penalty", params->repetition_penalty, 0.01f, 100}));
    TRY(check_float((struct float_range){"presence_penalty", params->presence_penalty, -100, 100}));
    TRY(check_float(
        (struct float_range){"frequency_penalty", params->frequency_penalty, -100, 100}));
    if (params->top_k < 0) {
        return status_fail(STATUS_INVALID, "expected top_k of at least 0 (off), found %d",
                           params->top_k);
    }
    if (params->penalty_last_n < -1) {
        return status_fail(STATUS_INVALID, "expected penalty_last_n of at least -1 (all), found %d",
                           params->penalty_last_n);
    }
    if (params->n_top_logprobs < -1 || params->n_top_logprobs > SAMPLING_MAX_TOP_LOGPROBS) {
        return status_fail(STATUS_INVALID, "expected logprobs between -1 (none) and %d, found %d",
                           SAMPLING_MAX_TOP_LOGPROBS, params->n_top_logprobs);
    }
    return check_biases(params, n_vocab);
}

bool sampling_uses_history(const struct sampling_params *params)
{
    return params->repetition_penalty != 1.0f || params->presence_penalty != 0.0f ||
           params->frequency_penalty != 0.0f;
}
