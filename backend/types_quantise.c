/* types_quantise: floats to blocks of the types that are written: Q8_0, Q4_0, Q4_K, Q6_K.
 *
 * Q8_0 and Q4_0 give the published quantiser's bytes. The blocks of 256 are found by search: codes for
 * a handful of scales around the obvious one, for each the scale (and minimum) that fits those codes
 * best in the sense of weighted least squares, and the best of all is kept. Weights grow with
 * magnitude, because large weights move a dot product most.
 *
 * What is not finite cannot be represented: codes stay in range, the values are not promised.
 */
#include <string.h>

#include "backend/quant_block.h"
#include "backend/types.h"

static void store_u16(unsigned char *bytes, uint16_t value) { memcpy(bytes, &value, sizeof value); }

/* Scale |max| / 127, codes rounded half away from zero. */
void types_q8_0_from_f32(const float *in, unsigned char *block)
{
    float amax = 0.0f;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const float magnitude = __builtin_fabsf(in[i]);
        amax = magnitude > amax ? magnitude : amax;
    }
    const float scale = amax / 127.0f;
    const float inv = scale != 0.0f ? 1.0f / scale : 0.0f;
    store_u16(block, mathx_f32_to_f16(scale));
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const float x = in[i] * inv;
        const float magnitude = __builtin_fabsf(x);
        int32_t code = magnitude < 128.0f ? (int32_t)magnitude : 0; /* NaN, inf: 0 */
        code += magnitude - (float)code >= 0.5f && code < 127;
        block[2 + i] = (unsigned char)(int8_t)(x < 0.0f ? -code : code);
    }
}

/* The element largest in magnitude (the first of equals) maps to code 0, that is -8. The product and
 * the rounding offset are added with more than float precision, then rounded to float, as published. */
void types_q4_0_from_f32(const float *in, unsigned char *block)
{
    unsigned char code[QUANT_BLOCK];
    float amax = 0.0f, max = 0.0f;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        if (__builtin_fabsf(in[i]) > amax) {
            amax = __builtin_fabsf(in[i]);
            max = in[i];
        }
    }
    const float scale = max / -8.0f;
    const float inv = scale != 0.0f ? 1.0f / scale : 0.0f;
    store_u16(block, mathx_f32_to_f16(scale));
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const float x = (float)((double)in[i] * (double)inv + 8.5);
        code[i] = (unsigned char)(x >= 15.0f ? 15 : x > 0.0f ? (int32_t)x : 0);
    }
    for (int32_t i = 0; i < QUANT_BLOCK / 2; i++) {
        block[2 + i] = (unsigned char)(code[i] | code[i + QUANT_BLOCK / 2] << 4);
    }
}

/* ---- blocks of 256 ---- */

enum { SUPER_ELEMS = 256 };

/* nearest integer within lo..hi; NaN gives lo */
static int32_t round_within(float x, int32_t lo, int32_t hi)
{
    const float above = x > (float)lo ? x : (float)lo;
    return (int32_t)mathx_rint_small(above < (float)hi ? above : (float)hi);
}

static float quotient(float above, float below) { return below != 0.0f ? above / below : 0.0f; }

static float half_value(float x) { return mathx_f16_to_f32(mathx_f32_to_f16(x)); }

/* What a part of a block becomes: value = scale * code - min, min >= 0. */
struct fit { float scale, min, error; };

/* Scale and minimum that fit codes best. Equal codes (but for rounding) tell nothing of a minimum, and
 * the format has none below zero: then the scale alone. */
static void fit_codes(const float *x, const float *weight, const int32_t *code, struct fit *fit)
{
    float w = 0, wx = 0, wc = 0, wcc = 0, wcx = 0;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const float c = (float)code[i];
        w += weight[i];
        wx += weight[i] * x[i];
        wc += weight[i] * c;
        wcc += weight[i] * c * c;
        wcx += weight[i] * c * x[i];
    }
    const float determinant = w * wcc - wc * wc;
    fit->min = quotient(wc * wcx - wcc * wx, determinant);
    fit->scale = quotient(w * wcx - wc * wx, determinant);
    if (!(determinant > 1e-5f * w * wcc) || fit->min < 0.0f) {
        fit->min = 0.0f;
        fit->scale = quotient(wcx, wcc);
    }
    fit->error = 0.0f;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        const float off = fit->scale * (float)code[i] - fit->min - x[i];
        fit->error += weight[i] * off * off;
    }
}

/* Searches scale and minimum of 32 elements with codes 0..15. */
static struct fit search_with_min(const float *x)
{
    float weight[QUANT_BLOCK], squares = 0.0f, min = 0.0f, max = x[0];
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        squares += x[i] * x[i];
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    const float mean = __builtin_sqrtf(squares / QUANT_BLOCK);
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        weight[i] = mean + __builtin_fabsf(x[i]);
    }
    struct fit best = { .scale = 0.0f, .min = -min, .error = MATHX_INF };
    for (int32_t step = 0; step <= 20 && max > min; step++) {
        const float inv = (14.0f + 0.1f * (float)step) / (max - min);
        int32_t code[QUANT_BLOCK];
        struct fit fit;
        for (int32_t i = 0; i < QUANT_BLOCK; i++) {
            code[i] = round_within(inv * (x[i] - min), 0, 15);
        }
        fit_codes(x, weight, code, &fit);
        if (fit.scale >= 0.0f && fit.error < best.error) {
            best = fit;
        }
    }
    return best;
}

void types_q4_k_from_f32(const float *in, unsigned char *block)
{
    struct quant_block quant;
    struct fit fit[SUPER_ELEMS / QUANT_BLOCK];
    float max_scale = 0.0f, max_min = 0.0f;
    for (int32_t part = 0; part < 8; part++) {
        fit[part] = search_with_min(in + part * QUANT_BLOCK);
        max_scale = fit[part].scale > max_scale ? fit[part].scale : max_scale;
        max_min = fit[part].min > max_min ? fit[part].min : max_min;
    }
    quant.d = mathx_f32_to_f16(max_scale / 63.0f);
    quant.dmin = mathx_f32_to_f16(max_min / 63.0f);
    const float d = mathx_f16_to_f32(quant.d), dmin = mathx_f16_to_f32(quant.dmin);
    for (int32_t part = 0; part < 8; part++) {
        quant.scale[part] = (int8_t)round_within(quotient(fit[part].scale, d), 0, 63);
        quant.min[part] = (uint8_t)round_within(quotient(fit[part].min, dmin), 0, 63);
        const float scale = d * (float)quant.scale[part], min = dmin * (float)quant.min[part];
        for (int32_t i = part * QUANT_BLOCK; i < (part + 1) * QUANT_BLOCK; i++) {
            quant.code[i] = (uint8_t)round_within(quotient(in[i] + min, scale), 0, 15);
        }
    }
    const struct quant_layout layout = quant_layout(TENSOR_Q4_K);
    quant_block_write(&layout, &quant, block);
}

/* Searches the scale of 16 elements with codes -32..31; its sign says which end reaches -32. */
static float search_symmetric(const float *x)
{
    float amax = 0.0f, max = 0.0f, best_scale = 0.0f, best_gain = 0.0f;
    for (int32_t i = 0; i < 16; i++) {
        if (__builtin_fabsf(x[i]) > amax) {
            amax = __builtin_fabsf(x[i]);
            max = x[i];
        }
    }
    for (int32_t step = -9; step <= 9 && amax > 0.0f; step++) {
        const float inv = -(32.0f + 0.1f * (float)step) / max;
        float cx = 0.0f, cc = 0.0f;
        for (int32_t i = 0; i < 16; i++) {
            const float c = (float)round_within(inv * x[i], -32, 31), weight = x[i] * x[i];
            cx += weight * c * x[i];
            cc += weight * c * c;
        }
        /* least squares: scale = cx / cc, and the error falls by cx^2 / cc */
        const float gain = quotient(cx * cx, cc);
        if (gain > best_gain) {
            best_gain = gain;
            best_scale = cx / cc;
        }
    }
    return best_scale;
}

void types_q6_k_from_f32(const float *in, unsigned char *block)
{
    struct quant_block quant;
    float scale[16], widest = 0.0f;
    for (int32_t part = 0; part < 16; part++) {
        scale[part] = search_symmetric(in + part * 16);
        widest = __builtin_fabsf(scale[part]) > __builtin_fabsf(widest) ? scale[part] : widest;
    }
    quant.d = mathx_f32_to_f16(widest / -128.0f); /* the widest scale is -128 times d */
    const float d = half_value(widest / -128.0f);
    for (int32_t part = 0; part < 16; part++) {
        quant.scale[part] = (int8_t)round_within(quotient(scale[part], d), -128, 127);
        const float step = d * (float)quant.scale[part];
        for (int32_t i = part * 16; i < (part + 1) * 16; i++) {
            quant.code[i] = (uint8_t)(round_within(quotient(in[i], step), -32, 31) + 32);
        }
    }
    const struct quant_layout layout = quant_layout(TENSOR_Q6_K);
    quant_block_write(&layout, &quant, block);
}
