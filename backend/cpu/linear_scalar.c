/* linear, the definition: y = W x in the canonical order, version 1.
 *
 * One output, one row: per segment of 256 inputs a chain of fma from +0; segment sums add up to a
 * group sum from +0, group sums to the total from +0; empty groups are skipped. Quantised weights:
 * one exact int32 dot per block of 32, then acc = fma((float)dot, weight_scale * act_scale, acc).
 * Every other linear_*.c must give these bits.
 */
#ifndef KERNEL
#define KERNEL(name) name##_scalar
#endif

#include "backend/cpu/linear.h"

struct element { const struct linear_job *job; int32_t lane, row; };

static float segment_float(const struct element *e, int32_t segment)
{
    const struct linear_job *job = e->job;
    const float *x = job->x->f32 + (size_t)e->row * (size_t)job->n_in;
    const int32_t begin = segment * SEGMENT_ELEMS;
    const int32_t end = begin + SEGMENT_ELEMS < job->n_in ? begin + SEGMENT_ELEMS : job->n_in;
    float acc = 0.0f;
    for (int32_t i = begin; i < end; i++) {
        const size_t at = (size_t)i * TILE_OUTPUTS + (size_t)e->lane;
        float w;
        if (job->type == TENSOR_F32) {
            memcpy(&w, job->tile + at * 4, 4);
        } else {
            uint16_t half;
            memcpy(&half, job->tile + at * 2, 2);
            w = job->type == TENSOR_F16 ? mathx_f16_to_f32(half) : mathx_bf16_to_f32(half);
        }
        acc = mathx_fma(w, x[i], acc);
    }
    return acc;
}

static int32_t block_dot(enum tensor_type type, const unsigned char *codes, int32_t lane,
                         const int8_t *x)
{
    int32_t dot = 0;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        if (type == TENSOR_Q8_0) {
            dot += (codes[(i / 4) * TILE_GROUP_BYTES + lane * 4 + i % 4] - 128) * x[i];
        } else {
            const int32_t j = i % 16;
            const int32_t byte = codes[(j / 4) * TILE_GROUP_BYTES + lane * 4 + j % 4];
            dot += ((i < 16 ? byte & 15 : byte >> 4) - 8) * x[i];
        }
    }
    return dot;
}

static float segment_quantised(const struct element *e, int32_t segment)
{
    const struct linear_job *job = e->job;
    const int32_t n_blocks = job->n_in / QUANT_BLOCK, first = segment * SEGMENT_BLOCKS;
    const int32_t here = n_blocks - first < SEGMENT_BLOCKS ? n_blocks - first : SEGMENT_BLOCKS;
    const unsigned char *block = job->tile + (size_t)first * tile_block_bytes(job->type);
    unsigned char *panel = tile_panel(job->x, e->row / PANEL_ROWS);
    const int32_t m = tile_panel_rows(job->act_rows, e->row / PANEL_ROWS), r = e->row % PANEL_ROWS;
    float acc = 0.0f;
    for (int32_t b = 0; b < here; b++, block += tile_block_bytes(job->type)) {
        uint16_t half;
        memcpy(&half, block + (size_t)e->lane * 2, 2);
        const int32_t dot = block_dot(job->type, block + TILE_SCALE_BYTES, e->lane,
                                      tile_act_codes(panel, m, first + b, r));
        const float scale = mathx_f16_to_f32(half) * *tile_act_scale(panel, m, first + b, r);
        acc = mathx_fma((float)dot, scale, acc);
    }
    return acc;
}

static float element_value(const struct element *e)
{
    const struct linear_job *job = e->job;
    const int32_t n_segments = (job->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    const int quantised = backend_act_kind(job->type) == ACT_Q8;
    float total = 0.0f, group_sum = 0.0f;
    int32_t group = 0;
    for (int32_t s = 0; s < n_segments; s++) {
        group_sum += quantised ? segment_quantised(e, s) : segment_float(e, s);
        if (linear_group_ends(&group, s, n_segments)) {
            total += group_sum;
            group_sum = 0.0f;
        }
    }
    return total;
}

void KERNEL(linear_tile)(const struct linear_job *job)
{
    for (int32_t row = 0; row < job->n_rows; row++) {
        for (int32_t lane = 0; lane < job->n_valid; lane++) {
            const struct element e = { job, lane, job->first_row + row };
            const size_t at = (size_t)row * job->out_stride + (size_t)lane;
            float y = element_value(&e);
            y = job->bias ? y + job->bias[lane] : y;
            y = job->add ? y + job->add[at] : y;
            job->out[at] = y;
        }
    }
}
