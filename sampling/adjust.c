/* adjust: penalties and bias, the first filters. A token is penalised by what stands before the
 * position, prompt included, at most penalty_last_n tokens back:
 *   repetition (Keskar et al., "CTRL", 2019): positive logits divided, others multiplied, once;
 *   frequency: minus penalty * count; presence: minus penalty, once (as OpenAI's API has them).
 */
#include "sampling/row.h"

static bool has_penalties(const struct sampling_params *params)
{
    return (params->repetition_penalty != 1.0f || params->presence_penalty != 0.0f
            || params->frequency_penalty != 0.0f)
        && params->penalty_last_n != 0;
}

bool sampling_has_adjustments(const struct sampling_params *params)
{
    return params->n_biases > 0 || has_penalties(params);
}

static float penalised(const struct sampling_params *params, float value, int32_t count)
{
    const float repetition = params->repetition_penalty;
    value = value > 0.0f ? value / repetition : value * repetition;
    value -= params->frequency_penalty * (float)count;
    return value - params->presence_penalty;
}

static void apply_penalties(const struct sampling_params *params, int32_t n_vocab,
                            const int32_t *history, int32_t n_history,
                            struct sampling_scratch *scratch)
{
    const int32_t last_n = params->penalty_last_n;
    const int32_t first = last_n >= 0 && last_n < n_history ? n_history - last_n : 0;
    /* Ids beyond this vocabulary can stand in the history: a draft's may be smaller. */
    for (int32_t i = first; i < n_history; i++) {
        if (history[i] >= 0 && history[i] < n_vocab) {
            scratch->count[history[i]]++;
        }
    }
    for (int32_t i = first; i < n_history; i++) {
        const int32_t id = history[i];
        if (id >= 0 && id < n_vocab && scratch->count[id] > 0) {
            scratch->value[id] = penalised(params, scratch->value[id], scratch->count[id]);
            scratch->count[id] = 0; /* once per id; and zero again for the next row */
        }
    }
}

void sampling_adjust(const struct sampling_params *params, const float *logits, int32_t n_vocab,
                     const int32_t *history, int32_t n_history, struct sampling_scratch *scratch)
{
    memcpy(scratch->value, logits, (size_t)n_vocab * sizeof *logits);
    if (has_penalties(params)) {
        apply_penalties(params, n_vocab, history, n_history, scratch);
    }
    for (int32_t i = 0; i < params->n_biases; i++) {
        ASSERT(params->biases[i].id >= 0 && params->biases[i].id < n_vocab);
        scratch->value[params->biases[i].id] += params->biases[i].bias;
    }
}
