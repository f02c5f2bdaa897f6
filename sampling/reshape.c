/* reshape: a draft's distribution with less weight on its likeliest tokens, so that what the target
 * draws after refusing a proposal falls on them more often (Kumar, Dao, May, "Speculative
 * Speculative Decoding", 2026). The rejection rule keeps the target's distribution for every draft
 * row, this one too, if the token was drawn from the very row that verification is given.
 */
#include "sampling/row.h"

void sampling_reshape_top(float *prob, int32_t n_vocab, int32_t n_top, float factor)
{
    uint64_t top[SAMPLING_MAX_RESHAPED];
    ASSERT(n_top >= 0 && n_top <= SAMPLING_MAX_RESHAPED && factor >= 0.0f && factor <= 1.0f);
    n_top = n_top < n_vocab ? n_top : n_vocab;
    if (n_top == 0) {
        return;
    }
    sampling_select_top(prob, NULL, n_vocab, n_top, top);
    const struct sampling_weights row = { .prob = prob, .without_id = -1, .n_vocab = n_vocab };
    float kept[SAMPLING_MAX_RESHAPED];
    for (int32_t i = 0; i < n_top; i++) {
        const int32_t id = sampling_key_id(top[i]);
        kept[i] = prob[id];
        prob[id] *= factor;
    }
    if (sampling_normalise_weights(&row, prob)) {
        return;
    }
    for (int32_t i = 0; i < n_top; i++) { /* nothing is left: the row stays as it was */
        prob[sampling_key_id(top[i])] = kept[i];
    }
}
