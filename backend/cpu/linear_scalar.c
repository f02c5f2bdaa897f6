/* linear, the definition: y = W x in the canonical order, version 1.
 *
 * One output, one row: per segment of 256 inputs a chain of fma from +0; segment sums add up to a
 * group sum from +0, group sums to the total from +0; empty groups are skipped. Quantised weights:
 * one exact int32 dot per block of 32, sub-scales folded into it, then
 * acc = fma((float)dot, d * act_scale, acc), and the minimum's share after it.
 * Every other linear_*.c must give these bits.
 */
#ifndef KERNEL
#define KERNEL(name) name##_scalar
#endif

#include "backend/cpu/linear.h"

/* One output's weights of a segment, as they are unpacked for all rows. */
struct column {
    float w[SEGMENT_ELEMS];                   /* float types */
    struct quant_layout layout;               /* quantised ones: 8 blocks of 32, or one of 256 */
    struct quant_block block[SEGMENT_BLOCKS];
    int32_t n_inputs;
};

static int32_t inputs_here(const struct linear_job *job, int32_t segment)
{
    const int32_t left = job->n_in - segment * SEGMENT_ELEMS;
    return left < SEGMENT_ELEMS ? left : SEGMENT_ELEMS;
}

static void column_float(const struct linear_job *job, int32_t lane, int32_t segment,
                         struct column *column)
{
    for (int32_t i = 0; i < column->n_inputs; i++) {
        const size_t at =
            (size_t)(segment * SEGMENT_ELEMS + i) * TILE_OUTPUTS + (size_t)lane;
        if (job->type == TENSOR_F32) {
            memcpy(&column->w[i], job->tile + at * 4, 4);
        } else {
            uint16_t half;
            memcpy(&half, job->tile + at * 2, 2);
            column->w[i] = job->type == TENSOR_F16 ? mathx_f16_to_f32(half) : mathx_bf16_to_f32(half);
        }
    }
}

static void column_load(const struct linear_job *job, int32_t lane, int32_t segment,
                        struct column *column)
{
    column->n_inputs = inputs_here(job, segment);
    column->layout = quant_layout(job->type);
    const struct quant_layout *layout = &column->layout;
    if (layout->elems == 0) {
        column_float(job, lane, segment, column);
        return;
    }
    const unsigned char *tile = job->tile + (size_t)segment * weight_tile_bytes(job->type, SEGMENT_ELEMS);
    const int32_t step = layout->elems / QUANT_BLOCK;
    for (int32_t b = 0; b < column->n_inputs / QUANT_BLOCK; b += step) {
        tile_block_get(layout, tile, b, lane, &column->block[b / step]);
    }
}

static float segment_float(const struct column *column, const float *x)
{
    float acc = 0.0f;
    for (int32_t i = 0; i < column->n_inputs; i++) {
        acc = mathx_fma(column->w[i], x[i], acc);
    }
    return acc;
}

/* What a row brings to a block of 32 inputs. */
struct act_block { const int8_t *x; float scale; int32_t sum, half; };

/* Adds block b of a segment to acc. */
static float block_quantised(const struct column *column, int32_t b, const struct act_block *act, float acc)
{
    const struct quant_layout *layout = &column->layout;
    const int32_t step = layout->elems / QUANT_BLOCK, parts = tile_block_parts(layout);
    const struct quant_block *block = &column->block[b / step];
    const uint8_t *code = block->code + b % step * QUANT_BLOCK;
    const float d = mathx_f16_to_f32(block->d), dmin = mathx_f16_to_f32(block->dmin);
    int32_t dot = 0, min_sum = 0;
    for (int32_t part = 0; part < parts; part++) {
        const int32_t at = b * parts + part, sum = parts == 1 ? act->sum : act->half;
        int32_t part_dot = 0;
        for (int32_t i = part * layout->part_elems; i < (part + 1) * layout->part_elems; i++) {
            part_dot += (code[i] - layout->offset) * act->x[i];
        }
        dot += step == 1 ? part_dot : block->scale[at] * part_dot;
        if (layout->min == QUANT_MIN_SCALED) {
            min_sum += block->min[at] * (part == 0 ? sum : act->sum - sum);
        }
    }
    acc = mathx_fma((float)dot, d * act->scale, acc);
    if (layout->min == QUANT_MIN_ADDED) {
        acc = mathx_fma(dmin, act->scale * (float)act->sum, acc);
    } else if (layout->min == QUANT_MIN_SCALED) {
        acc = mathx_fma((float)min_sum, -(dmin * act->scale), acc);
    }
    return acc;
}

static float segment_quantised(const struct linear_job *job, const struct column *column,
                               int32_t segment, int32_t row)
{
    unsigned char *panel = tile_panel(job->x, row / PANEL_ROWS);
    const int32_t m = tile_panel_rows(job->act_rows, row / PANEL_ROWS), r = row % PANEL_ROWS;
    float acc = 0.0f;
    for (int32_t b = 0; b < column->n_inputs / QUANT_BLOCK; b++) {
        const int32_t at = segment * SEGMENT_BLOCKS + b;
        const struct act_block act = { tile_act_codes(panel, m, at, r), *tile_act_scale(panel, m, at, r),
                                       *tile_act_sum(panel, m, at, r), *tile_act_half(panel, m, at, r) };
        acc = block_quantised(column, b, &act, acc);
    }
    return acc;
}

/* All rows of one output. */
static void lane_totals(const struct linear_job *job, int32_t lane, float *total)
{
    const int32_t n_segments = linear_end_segment(job);
    float group_sum[LINEAR_MAX_ROWS] = { 0 };
    struct column column;
    int32_t group = 0;
    for (int32_t s = job->first_segment; s < n_segments; s++) {
        column_load(job, lane, s, &column);
        const int ends = linear_group_ends(job, &group, s, n_segments);
        for (int32_t i = 0; i < job->n_rows; i++) {
            const int32_t row = job->first_row + i;
            const float *x = job->x->f32 + (size_t)row * (size_t)job->n_in + s * SEGMENT_ELEMS;
            group_sum[i] += column.layout.elems > 0 ? segment_quantised(job, &column, s, row)
                                                    : segment_float(&column, x);
            if (ends) {
                total[i] += group_sum[i];
                group_sum[i] = 0.0f;
            }
        }
    }
}

void KERNEL(linear_tile)(const struct linear_job *job)
{
    for (int32_t lane = 0; lane < job->n_valid; lane++) {
        float total[LINEAR_MAX_ROWS] = { 0 };
        lane_totals(job, lane, total);
        for (int32_t row = 0; row < job->n_rows; row++) {
            const size_t at = (size_t)row * job->out_stride + (size_t)lane;
            float y = total[row];
            y = job->bias ? y + job->bias[lane] : y;
            y = job->add ? y + job->add[at] : y;
            job->out[at] = y;
        }
    }
}
