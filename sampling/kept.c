/* kept: a choice among few ids without the floats of all the others. The same walk as sampling_choose():
 * what is -inf in a row never wins, so leaving it out changes nothing. */
#include "sampling/row.h"

bool sampling_is_plain(const struct sampling_params *params)
{
    return !sampling_has_adjustments(params) && !sampling_has_filters(params);
}

enum status sampling_choose_kept(const struct backend *backend, const struct sampling_params *params,
                                 const float *logits, const int32_t *ids, int32_t n, int32_t position,
                                 int32_t *id)
{
    ASSERT(n > 0 && sampling_is_plain(params));
    bool bad = false;
    const int32_t best = backend_argmax(backend, logits, n, &bad);
    if (bad || !(logits[best] > -MATHX_INF)) {
        return status_fail(STATUS_NUMERIC, "expected finite logits of %d ids for position %d", n, position);
    }
    *id = ids[best];
    if (params->temperature == 0.0f) {
        return STATUS_OK;
    }
    const float max = logits[best] / params->temperature;
    if (!(max < MATHX_INF && max > -MATHX_INF)) {
        return status_fail(STATUS_NUMERIC, "the highest logit for position %d overflows divided by temperature "
                           "%g", position, (double)params->temperature);
    }
    const struct sampling_coin coin = { params->seed, position };
    const struct sampling_row row = { logits, ids, n, params->temperature };
    *id = sampling_draw(backend, &coin, &row);
    return STATUS_OK;
}
