/* rows, the definition: norms, quantisation, SwiGLU, RoPE, half floats, argmax, softmax sums, noise.
 *
 * Every other rows_*.c must give these bits. Compiled twice: as it is (suffix scalar), and through
 * rows_fma.c with hardware fma (suffix fma).
 */
#ifndef KERNEL
#define KERNEL(name) name##_scalar
#endif

#include "backend/cpu/rows.h"

void KERNEL(rows_norm)(const float *x, const float *weight, float eps, int32_t n, float *out)
{
    float partial[ROW_PARTIALS] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        partial[i % ROW_PARTIALS] = mathx_fma(x[i], x[i], partial[i % ROW_PARTIALS]);
    }
    const float mean = rows_tree_sum(partial) / (float)n;
    const float inv = 1.0f / __builtin_sqrtf(mean + eps);
    for (int32_t i = 0; i < n; i++) {
        out[i] = x[i] * inv * weight[i];
    }
}

/* Largest |x| of a block by its bits, so that a NaN or infinity cannot hide: they are the largest. */
static uint32_t block_amax_bits(const float *x)
{
    uint32_t amax = 0;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const uint32_t bits = mathx_to_bits(x[i]) & 0x7fffffffu;
        amax = bits > amax ? bits : amax;
    }
    return amax;
}

void KERNEL(rows_quantize)(const float *x, int32_t b0, int32_t n_blocks, unsigned char *panel,
                           int32_t m, int32_t r)
{
    for (int32_t b = b0; b < b0 + n_blocks; b++) {
        const float *block = x + (size_t)b * QUANT_BLOCK;
        int8_t *codes = tile_act_codes(panel, m, b, r);
        const uint32_t bits = block_amax_bits(block);
        const float amax = mathx_from_bits(bits);
        const int empty = bits >= 0x7f800000u || amax < ROWS_AMAX_MIN;
        const float inv = empty ? 0.0f : 127.0f / amax;
        int32_t sum = 0, half = 0;
        for (int32_t i = 0; i < QUANT_BLOCK; i++) {
            const int32_t code = empty ? 0 : (int32_t)mathx_rint_small(block[i] * inv);
            codes[i] = (int8_t)code;
            sum += code;
            half += i < QUANT_BLOCK / 2 ? code : 0;
        }
        *tile_act_scale(panel, m, b, r) = bits >= 0x7f800000u ? MATHX_NAN : empty ? 0.0f : amax / 127.0f;
        *tile_act_sum(panel, m, b, r) = sum;
        *tile_act_half(panel, m, b, r) = half;
    }
}

void KERNEL(rows_swiglu)(const float *gate, const float *up, int32_t n, float *out)
{
    for (int32_t i = 0; i < n; i++) {
        out[i] = mathx_silu(gate[i]) * up[i];
    }
}

void KERNEL(rows_accumulate)(float weight, const float *x, int32_t n, float *acc)
{
    for (int32_t i = 0; i < n; i++) {
        acc[i] = mathx_fma(weight, x[i], acc[i]);
    }
}

void KERNEL(rows_rope)(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        const float x0 = x[i], x1 = x[i + half];
        x[i] = mathx_fma(x0, cos[i], -(x1 * sin[i]));
        x[i + half] = mathx_fma(x0, sin[i], x1 * cos[i]);
    }
}

void KERNEL(rows_to_f16)(const float *x, int32_t n, uint16_t *out)
{
    for (int32_t i = 0; i < n; i++) {
        out[i] = mathx_f32_to_f16(x[i]);
    }
}

int32_t KERNEL(rows_argmax)(const float *x, int64_t n, bool *bad)
{
    float best = -MATHX_INF;
    int32_t best_idx = 0;
    *bad = false;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] < MATHX_INF)) {
            *bad = true;
        }
        if (x[i] > best) { /* strict: the lowest index among equals */
            best = x[i];
            best_idx = (int32_t)i;
        }
    }
    return best_idx;
}

float KERNEL(rows_exp_sum)(float *x, int64_t n, float max)
{
    float partial[ROW_PARTIALS] = { 0 };
    for (int64_t i = 0; i < n; i++) {
        x[i] = mathx_exp(x[i] - max);
        partial[i % ROW_PARTIALS] += x[i];
    }
    return rows_tree_sum(partial);
}

void KERNEL(rows_gumbel)(uint64_t seed, uint32_t position, uint32_t first, uint32_t n, uint64_t limit,
                         float *noise)
{
    rng_gumbel_fill_below_inline(seed, COIN_TARGET, position, first, n, limit, noise);
}
