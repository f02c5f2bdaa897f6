/* logprobs: what the model itself thought of a token, before any filter: (logit - max) - log(sum),
 * sum in the canonical order of a row. */
#include "sampling/row.h"

void sampling_logprobs(const struct backend *backend, const struct sampling_params *params,
                       const float *logits, int32_t n_vocab,
                       struct sampling_scratch *scratch, struct sampling_choice *out)
{
    bool bad;
    const float max = logits[backend_argmax(backend, logits, n_vocab, &bad)];
    memcpy(scratch->exp, logits, (size_t)n_vocab * sizeof *logits);
    const float log_sum = mathx_log(backend_exp_sum(backend, scratch->exp, n_vocab, max));
    out->logprob = (logits[out->id] - max) - log_sum;
    const int32_t n_top = params->n_top_logprobs < n_vocab ? params->n_top_logprobs : n_vocab;
    if (n_top < 1) {
        return;
    }
    sampling_select_top(logits, NULL, n_vocab, n_top, scratch->key);
    sampling_sort_keys(scratch->key, n_top);
    out->n_top = n_top;
    for (int32_t i = 0; i < n_top; i++) {
        const int32_t id = sampling_key_id(scratch->key[i]);
        out->top[i].id = id;
        out->top[i].logprob = (logits[id] - max) - log_sum;
    }
}
