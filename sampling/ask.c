/* ask: parameters of sampling in the words of a device that chooses tokens itself. */
#include "sampling/row.h"

_Static_assert(sizeof(struct sampling_bias) == sizeof(struct choice_bias), "biases are copied as they are");
_Static_assert((int)SAMPLING_MAX_BIASES == (int)CHOICE_MAX_BIASES, "no bias is lost");
_Static_assert((int)SAMPLING_MAX_TOP_LOGPROBS == (int)CHOICE_TOP, "no log probability is lost");

/* Penalties look back on the last of them only. */
static void ask_history(const struct sampling_params *params, const int32_t *history, int32_t n_history,
                        struct choice_ask *ask)
{
    const int32_t last_n = params->penalty_last_n;
    if (sampling_uses_history(params) && last_n != 0) {
        ask->n_history = last_n >= 0 && last_n < n_history ? last_n : n_history;
        ask->history = history + (n_history - ask->n_history);
    }
}

struct choice_ask sampling_choice_ask(const struct sampling_params *params, const int32_t *history, int32_t n_history,
                                      int32_t position)
{
    struct choice_ask ask = {
        .position = position, .seed = params->seed, .temperature = params->temperature,
        .is_plain = sampling_is_plain(params) && params->n_top_logprobs < 0,
        .top_p = params->top_p, .min_p = params->min_p, .repetition_penalty = params->repetition_penalty,
        .presence_penalty = params->presence_penalty, .frequency_penalty = params->frequency_penalty,
        .top_k = params->top_k, .penalty_last_n = params->penalty_last_n,
        .n_top_logprobs = params->n_top_logprobs, .n_biases = params->n_biases, .biases = params->biases,
    };
    ask_history(params, history, n_history, &ask);
    return ask;
}
