/* sampling: the walk from a logits row to a token. What makes it the one definition: same floats
 * in, the same coin, the same token out, whoever asks, target, draft or verification.
 */
#include "sampling/sampling.h"

#include "sampling/row.h"


enum status sampling_scratch_create(int32_t n_vocab, struct sampling_scratch **out)
{
    *out = NULL;
    ASSERT(n_vocab > 0);
    struct sampling_scratch *scratch = mem_alloc(1, sizeof *scratch);
    if (scratch == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for sampling buffers");
    }
    const size_t n = (size_t)n_vocab;
    *scratch = (struct sampling_scratch){
        .cap_vocab = n_vocab,
        .value = mem_alloc(n, sizeof *scratch->value),
        .exp = mem_alloc(n, sizeof *scratch->exp),
        .id = mem_alloc(n, sizeof *scratch->id),
        .count = mem_alloc(n, sizeof *scratch->count),
        .key = mem_alloc(n, sizeof *scratch->key),
        .mass = mem_alloc(SAMPLING_BUCKETS, sizeof *scratch->mass),
    };
    if (!scratch->value || !scratch->exp || !scratch->id || !scratch->count || !scratch->key
        || !scratch->mass) {
        sampling_scratch_destroy(scratch);
        return status_fail(STATUS_NO_MEMORY, "no memory for the sampling buffers of %d tokens",
                           n_vocab);
    }
    *out = scratch;
    return STATUS_OK;
}

void sampling_scratch_destroy(struct sampling_scratch *scratch)
{
    if (scratch == NULL) {
        return;
    }
    mem_free(scratch->mass);
    mem_free(scratch->key);
    mem_free(scratch->count);
    mem_free(scratch->id);
    mem_free(scratch->exp);
    mem_free(scratch->value);
    mem_free(scratch);
}

/* The arguments of one call, which the steps share. */
struct sampling_input {
    const struct sampling_params *params;
    const float *logits;    /* [n_vocab] */
    int32_t n_vocab;
    const int32_t *history; /* [n_history] */
    int32_t n_history, position;
};

/* Why a row cannot be used, as a sentence; it is known to be bad or to have nothing above -inf. */
static enum status fail_row(const float *logits, int32_t n_vocab, int32_t position)
{
    for (int32_t id = 0; id < n_vocab; id++) {
        if (!(logits[id] < MATHX_INF)) {
            return status_fail(STATUS_NUMERIC,
                               "expected finite logits for position %d, the one of token %d is %s",
                               position, id, logits[id] == MATHX_INF ? "+inf" : "NaN");
        }
    }
    return status_fail(STATUS_NUMERIC,
                       "expected a possible token for position %d, all logits are -inf", position);
}

/* Highest logit, lowest id among equals; fails when the row cannot be used. */
static enum status row_argmax(const struct backend *backend, const float *logits, int32_t n_vocab,
                              int32_t position, int32_t *id)
{
    bool bad = false;
    *id = backend_argmax(backend, logits, n_vocab, &bad);
    return bad || !(logits[*id] > -MATHX_INF) ? fail_row(logits, n_vocab, position) : STATUS_OK;
}

/* A row after penalties and bias, its best id, and what it is made of. */
struct adjusted_row {
    const float *value; /* [n_vocab] the logits themselves when nothing is adjusted */
    int32_t best;
    float max;          /* value of best / temperature; value of best at temperature 0 */
};

static enum status adjust_row(const struct backend *backend, const struct sampling_input *in,
                              struct sampling_scratch *scratch, struct adjusted_row *row)
{
    const struct sampling_params *params = in->params;
    row->value = in->logits;
    TRY(row_argmax(backend, row->value, in->n_vocab, in->position, &row->best));
    if (sampling_has_adjustments(params)) {
        sampling_adjust(params, in->logits, in->n_vocab, in->history, in->n_history, scratch);
        row->value = scratch->value;
        TRY(row_argmax(backend, row->value, in->n_vocab, in->position, &row->best));
    }
    row->max = row->value[row->best];
    if (params->temperature == 0.0f) {
        return STATUS_OK;
    }
    row->max /= params->temperature; /* division keeps order: still the highest */
    if (row->max < MATHX_INF && row->max > -MATHX_INF) {
        return STATUS_OK;
    }
    return status_fail(STATUS_NUMERIC,
                       "the highest logit for position %d, %g, overflows divided by temperature %g",
                       in->position, (double)row->value[row->best], (double)params->temperature);
}

static int32_t draw(const struct backend *backend, const struct sampling_input *in,
                    const struct adjusted_row *adjusted, struct sampling_scratch *scratch)
{
    const struct sampling_coin coin = { in->params->seed, in->position };
    struct sampling_row row = { adjusted->value, NULL, in->n_vocab, in->params->temperature };
    if (sampling_has_filters(in->params)) {
        sampling_list_begin(in->params, adjusted->value, in->n_vocab, adjusted->max, scratch);
        sampling_list_filter(backend, in->params, scratch);
        row = (struct sampling_row){ scratch->value, scratch->id, scratch->n_kept, 1.0f };
    }
    return sampling_draw(backend, &coin, &row);
}

enum status sampling_choose(const struct backend *backend, const struct sampling_params *params,
                            const float *logits, int32_t n_vocab, const int32_t *history,
                            int32_t n_history, int32_t position, struct sampling_scratch *scratch,
                            struct sampling_choice *out)
{
    ASSERT(n_vocab > 0 && n_vocab <= scratch->cap_vocab && position >= 0);
    const struct sampling_input in = { params, logits, n_vocab, history, n_history, position };
    struct adjusted_row row;
    TRY(adjust_row(backend, &in, scratch, &row));
    out->id = params->temperature == 0.0f ? row.best : draw(backend, &in, &row, scratch);
    sampling_describe(backend, params, logits, n_vocab, out->id, scratch, out);
    return STATUS_OK;
}

void sampling_describe(const struct backend *backend, const struct sampling_params *params,
                       const float *logits, int32_t n_vocab, int32_t id, struct sampling_scratch *scratch,
                       struct sampling_choice *out)
{
    out->id = id;
    out->logprob = 0.0f;
    out->n_top = 0;
    if (params->n_top_logprobs >= 0) {
        sampling_logprobs(backend, params, logits, n_vocab, scratch, out);
    }
}

enum status sampling_distribution(const struct backend *backend,
                                  const struct sampling_params *params, const float *logits,
                                  int32_t n_vocab, const int32_t *history, int32_t n_history,
                                  struct sampling_scratch *scratch, float *prob)
{
    ASSERT(n_vocab > 0 && n_vocab <= scratch->cap_vocab);
    /* The position appears in sentences only: the distribution depends on what stands before it. */
    const struct sampling_input in = { params, logits, n_vocab, history, n_history, n_history };
    struct adjusted_row row;
    TRY(adjust_row(backend, &in, scratch, &row));
    memset(prob, 0, (size_t)n_vocab * sizeof *prob);
    if (params->temperature == 0.0f) {
        prob[row.best] = 1.0f;
        return STATUS_OK;
    }
    sampling_list_begin(params, row.value, n_vocab, row.max, scratch);
    sampling_list_filter(backend, params, scratch);
    const float sum = sampling_list_exp_sum(backend, scratch);
    for (int32_t i = 0; i < scratch->n_kept; i++) {
        prob[scratch->id[i]] = scratch->exp[i] / sum;
    }
    return STATUS_OK;
}
