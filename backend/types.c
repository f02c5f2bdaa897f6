/* types: the element types GGUF files name, and the rows of those we compute with as floats.
 *
 * Every published type is known by name and size, so that a file holding one we cannot compute is
 * refused by name and its layout can still be checked.
 */
#include <string.h>
#include <strings.h>

#include "backend/backend.h"

static const struct tensor_type_info types[] = {
    { 0, "F32", 1, 4, true },          { 1, "F16", 1, 2, true },
    { 2, "Q4_0", 32, 18, true },       { 3, "Q4_1", 32, 20, false },
    { 6, "Q5_0", 32, 22, false },      { 7, "Q5_1", 32, 24, false },
    { 8, "Q8_0", 32, 34, true },       { 9, "Q8_1", 32, 36, false },
    { 10, "Q2_K", 256, 84, false },    { 11, "Q3_K", 256, 110, false },
    { 12, "Q4_K", 256, 144, false },   { 13, "Q5_K", 256, 176, false },
    { 14, "Q6_K", 256, 210, false },   { 15, "Q8_K", 256, 292, false },
    { 16, "IQ2_XXS", 256, 66, false }, { 17, "IQ2_XS", 256, 74, false },
    { 18, "IQ3_XXS", 256, 98, false }, { 19, "IQ1_S", 256, 50, false },
    { 20, "IQ4_NL", 32, 18, false },   { 21, "IQ3_S", 256, 110, false },
    { 22, "IQ2_S", 256, 82, false },   { 23, "IQ4_XS", 256, 136, false },
    { 24, "I8", 1, 1, false },         { 25, "I16", 1, 2, false },
    { 26, "I32", 1, 4, false },        { 27, "I64", 1, 8, false },
    { 28, "F64", 1, 8, false },        { 29, "IQ1_M", 256, 56, false },
    { 30, "BF16", 1, 2, true },
    /* withdrawn from the format, still found in old files */
    { 31, "Q4_0_4_4", 32, 18, false }, { 32, "Q4_0_4_8", 32, 18, false },
    { 33, "Q4_0_8_8", 32, 18, false },
    { 34, "TQ1_0", 256, 54, false },   { 35, "TQ2_0", 256, 66, false },
    { 36, "IQ4_NL_4_4", 32, 18, false }, { 37, "IQ4_NL_4_8", 32, 18, false },
    { 38, "IQ4_NL_8_8", 32, 18, false },
    { 39, "MXFP4", 32, 17, false },
};
enum { N_TYPES = sizeof types / sizeof types[0] };

const struct tensor_type_info *tensor_type_info(uint32_t number)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (types[i].number == number) {
            return &types[i];
        }
    }
    return NULL;
}

const struct tensor_type_info *tensor_type_by_name(const char *name)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (strcasecmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

static uint16_t load_u16(const unsigned char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void store_u16(unsigned char *bytes, uint16_t value) { memcpy(bytes, &value, sizeof value); }

/* ---- quantised blocks: 2 bytes f16 scale, then codes ---- */

static void q8_0_to_f32(const unsigned char *block, float *out)
{
    const float scale = mathx_f16_to_f32(load_u16(block));
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        out[i] = (float)(int8_t)block[2 + i] * scale;
    }
}

/* Low nibbles are elements 0..15, high ones 16..31; a code stands for code - 8. */
static void q4_0_to_f32(const unsigned char *block, float *out)
{
    const float scale = mathx_f16_to_f32(load_u16(block));
    for (int32_t i = 0; i < QUANT_BLOCK / 2; i++) {
        out[i] = (float)((block[2 + i] & 15) - 8) * scale;
        out[i + QUANT_BLOCK / 2] = (float)((block[2 + i] >> 4) - 8) * scale;
    }
}

/* Scale |max| / 127, codes rounded half away from zero. */
static void q8_0_from_f32(const float *in, unsigned char *block)
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
static void q4_0_from_f32(const float *in, unsigned char *block)
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

static uint16_t f32_to_bf16(float value)
{
    const uint32_t bits = mathx_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 64u); /* stays a NaN */
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void tensor_row_to_f32(enum tensor_type type, const void *row, int64_t n, float *out)
{
    const unsigned char *bytes = row;
    switch (type) {
    case TENSOR_F32: memcpy(out, row, (size_t)n * sizeof *out); return;
    case TENSOR_F16:
        for (int64_t i = 0; i < n; i++) {
            out[i] = mathx_f16_to_f32(load_u16(bytes + i * 2));
        }
        return;
    case TENSOR_BF16:
        for (int64_t i = 0; i < n; i++) {
            out[i] = mathx_bf16_to_f32(load_u16(bytes + i * 2));
        }
        return;
    case TENSOR_Q8_0:
        for (int64_t b = 0; b < n / QUANT_BLOCK; b++) {
            q8_0_to_f32(bytes + b * 34, out + b * QUANT_BLOCK);
        }
        return;
    case TENSOR_Q4_0:
        for (int64_t b = 0; b < n / QUANT_BLOCK; b++) {
            q4_0_to_f32(bytes + b * 18, out + b * QUANT_BLOCK);
        }
        return;
    }
    ASSERT(!"a native tensor type");
}

void tensor_row_from_f32(enum tensor_type type, const float *in, int64_t n, void *row)
{
    unsigned char *bytes = row;
    switch (type) {
    case TENSOR_F32: memcpy(row, in, (size_t)n * sizeof *in); return;
    case TENSOR_F16:
        for (int64_t i = 0; i < n; i++) {
            store_u16(bytes + i * 2, mathx_f32_to_f16(in[i]));
        }
        return;
    case TENSOR_BF16:
        for (int64_t i = 0; i < n; i++) {
            store_u16(bytes + i * 2, f32_to_bf16(in[i]));
        }
        return;
    case TENSOR_Q8_0:
        for (int64_t b = 0; b < n / QUANT_BLOCK; b++) {
            q8_0_from_f32(in + b * QUANT_BLOCK, bytes + b * 34);
        }
        return;
    case TENSOR_Q4_0:
        for (int64_t b = 0; b < n / QUANT_BLOCK; b++) {
            q4_0_from_f32(in + b * QUANT_BLOCK, bytes + b * 18);
        }
        return;
    }
    ASSERT(!"a native tensor type");
}
