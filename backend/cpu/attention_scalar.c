/* attention, the definition: softmax(q k^T scale) v in the canonical order, version 1.
 *
 * Segments of 256 positions, anchored at position 0, ascending; those the row may not see are
 * skipped, and so are single positions before `first` or after `last`. Per segment and head:
 *
 *     score[p] = (chain of fma over head_dim) * scale       max_here = largest score
 *     score[p] = exp(score[p] - max_here)                   sum_here = chain of adds, ascending p
 *     out_here[d] = chain of fma(score[p], v[p][d], .), ascending p; chains start at +0
 *
 * The first visible segment is taken as it is; each further one is merged in:
 *
 *     max' = max(max, max_here)    a = exp(max - max')    b = exp(max_here - max')
 *     sum = fma(sum_here, b, sum * a)        out = fma(out_here, b, out * a)
 *
 * and the result is out[d] / sum. A NaN score never becomes the maximum, but makes its sum NaN.
 */
#ifndef KERNEL
#define KERNEL(name) name##_scalar
#endif

#include <string.h>

#include "backend/cpu/attention.h"

/* Element `idx` of 16 * head_dim of a K or V block. */
static float kv_element(enum kv_type type, const unsigned char *block, int32_t idx)
{
    uint16_t half;
    float value;
    if (type == KV_F32) {
        memcpy(&value, block + (size_t)idx * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, block + (size_t)idx * sizeof half, sizeof half);
    return mathx_f16_to_f32(half);
}

/* Scores of one head in one segment become probabilities times e^max. */
static void segment_scores(const struct attention_job *job, const struct attention_segment *segment,
                           const float *q, float *score, float *max_here)
{
    float max = -MATHX_INF;
    for (int32_t p = segment->begin; p < segment->end; p++) {
        const unsigned char *block = segment->k[p / KV_BLOCK_SLOTS];
        float acc = 0.0f;
        for (int32_t d = 0; d < job->head_dim; d++) {
            const float k =
                kv_element(job->store->type, block, d * KV_BLOCK_SLOTS + p % KV_BLOCK_SLOTS);
            acc = mathx_fma(q[d], k, acc);
        }
        score[p] = acc * job->scale;
        max = score[p] > max ? score[p] : max;
    }
    for (int32_t p = segment->begin; p < segment->end; p++) {
        score[p] = mathx_exp(score[p] - max);
    }
    *max_here = max;
}

/* out_here and sum_here of one head. Loops turned inside out for memory order: chains are the same. */
static void segment_values(const struct attention_job *job, const struct attention_segment *segment,
                           const float *score, float *out, float *sum_here)
{
    float sum = 0.0f;
    for (int32_t d = 0; d < job->head_dim; d++) {
        out[d] = 0.0f;
    }
    for (int32_t p = segment->begin; p < segment->end; p++) {
        const unsigned char *block = segment->v[p / KV_BLOCK_SLOTS];
        const int32_t row = p % KV_BLOCK_SLOTS * job->head_dim;
        sum += score[p];
        for (int32_t d = 0; d < job->head_dim; d++) {
            out[d] = mathx_fma(score[p], kv_element(job->store->type, block, row + d), out[d]);
        }
    }
    *sum_here = sum;
}

static void segment_merge(const struct attention_job *job, const struct attention_scratch *s, int32_t h)
{
    const float *out_here = s->out + (size_t)h * (size_t)job->head_dim;
    float *out = job->out + (size_t)h * (size_t)job->head_dim;
    const float max = s->max_here[h] > s->max[h] ? s->max_here[h] : s->max[h];
    const float a = mathx_exp(s->max[h] - max), b = mathx_exp(s->max_here[h] - max);
    s->max[h] = max;
    s->sum[h] = mathx_fma(s->sum_here[h], b, s->sum[h] * a);
    for (int32_t d = 0; d < job->head_dim; d++) {
        out[d] = mathx_fma(out_here[d], b, out[d] * a);
    }
}

void KERNEL(attention_row)(const struct attention_job *job)
{
    const struct attention_scratch s = attention_scratch_split(job);
    const int32_t first_segment = job->first / SEGMENT_ELEMS;
    for (int32_t idx = first_segment; idx <= job->last / SEGMENT_ELEMS; idx++) {
        struct attention_segment segment;
        attention_segment_init(&segment, job, idx);
        for (int32_t h = 0; h < job->n_group; h++) {
            const size_t at = (size_t)h * (size_t)job->head_dim;
            float *score = s.score + (size_t)h * SEGMENT_ELEMS;
            if (idx == first_segment) {
                segment_scores(job, &segment, job->q + at, score, &s.max[h]);
                segment_values(job, &segment, score, job->out + at, &s.sum[h]);
            } else {
                segment_scores(job, &segment, job->q + at, score, &s.max_here[h]);
                segment_values(job, &segment, score, s.out + at, &s.sum_here[h]);
                segment_merge(job, &s, h);
            }
        }
    }
    for (int32_t h = 0; h < job->n_group; h++) {
        float *out = job->out + (size_t)h * (size_t)job->head_dim;
        for (int32_t d = 0; d < job->head_dim; d++) {
            out[d] = out[d] / s.sum[h];
        }
    }
}
