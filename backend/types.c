/* types: the element types GGUF files name, and rows of them as floats and from floats.
 *
 * Every published type is known by name and size, so that a file holding one we cannot read is
 * refused by name and its layout can still be checked. A type is native (computed with as it is),
 * or read only and converted when a model is loaded, or a name.
 */
#include <string.h>
#include <strings.h>

#include "backend/quant_block.h"
#include "backend/types.h"

static const struct tensor_type_info types[] = {
    { 0, "F32", 1, 4, true },          { 1, "F16", 1, 2, true },
    { 2, "Q4_0", 32, 18, true },       { 3, "Q4_1", 32, 20, true },
    { 6, "Q5_0", 32, 22, true },      { 7, "Q5_1", 32, 24, true },
    { 8, "Q8_0", 32, 34, true },       { 9, "Q8_1", 32, 36, false },
    { 10, "Q2_K", 256, 84, true },    { 11, "Q3_K", 256, 110, true },
    { 12, "Q4_K", 256, 144, true },   { 13, "Q5_K", 256, 176, true },
    { 14, "Q6_K", 256, 210, true },   { 15, "Q8_K", 256, 292, false },
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

/* ---- types that are read only, a block at a time ---- */

static const struct { enum tensor_type type; types_to_f32_fn to_f32; } readers[] = {
    { TENSOR_IQ2_XXS, types_iq2_xxs_to_f32 }, { TENSOR_IQ2_XS, types_iq2_xs_to_f32 },
    { TENSOR_IQ3_XXS, types_iq3_xxs_to_f32 }, { TENSOR_IQ1_S, types_iq1_s_to_f32 },
    { TENSOR_IQ4_NL, types_iq4_nl_to_f32 },   { TENSOR_IQ3_S, types_iq3_s_to_f32 },
    { TENSOR_IQ2_S, types_iq2_s_to_f32 },     { TENSOR_IQ4_XS, types_iq4_xs_to_f32 },
    { TENSOR_IQ1_M, types_iq1_m_to_f32 },     { TENSOR_TQ1_0, types_tq1_0_to_f32 },
    { TENSOR_TQ2_0, types_tq2_0_to_f32 },     { TENSOR_MXFP4, types_mxfp4_to_f32 },
};

static types_to_f32_fn reader_of(uint32_t number)
{
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
        if ((uint32_t)readers[i].type == number) {
            return readers[i].to_f32;
        }
    }
    return NULL;
}

int tensor_type_convert_to(uint32_t number) { return reader_of(number) ? TENSOR_Q8_0 : -1; }

/* ---- types that are written ---- */

static const struct { enum tensor_type type; types_from_f32_fn from_f32; } writers[] = {
    { TENSOR_Q8_0, types_q8_0_from_f32 }, { TENSOR_Q4_0, types_q4_0_from_f32 },
    { TENSOR_Q4_K, types_q4_k_from_f32 }, { TENSOR_Q6_K, types_q6_k_from_f32 },
};

static types_from_f32_fn writer_of(uint32_t number)
{
    for (size_t i = 0; i < sizeof writers / sizeof writers[0]; i++) {
        if ((uint32_t)writers[i].type == number) {
            return writers[i].from_f32;
        }
    }
    return NULL;
}

bool tensor_type_can_write(uint32_t number)
{
    return number == TENSOR_F32 || number == TENSOR_F16 || number == TENSOR_BF16 || writer_of(number);
}

/* ---- rows ---- */

static uint16_t load_u16(const unsigned char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void store_u16(unsigned char *bytes, uint16_t value) { memcpy(bytes, &value, sizeof value); }

static uint16_t f32_to_bf16(float value)
{
    const uint32_t bits = mathx_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 64u); /* stays a NaN */
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void blocks_to_f32(enum tensor_type type, const unsigned char *bytes, int64_t n, float *out)
{
    const struct quant_layout layout = quant_layout(type);
    if (layout.elems > 0) {
        struct quant_block block;
        for (int64_t i = 0; i < n; i += layout.elems, bytes += layout.file_bytes) {
            quant_block_read(&layout, bytes, &block);
            quant_block_values(&layout, &block, out + i);
        }
        return;
    }
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    const types_to_f32_fn to_f32 = reader_of((uint32_t)type);
    ASSERT(info && to_f32);
    for (int64_t i = 0; i < n; i += info->block_elems, bytes += info->block_bytes) {
        to_f32(bytes, out + i);
    }
}

void tensor_row_to_f32(enum tensor_type type, const void *row, int64_t n, float *out)
{
    const unsigned char *bytes = row;
    if (type == TENSOR_F32) {
        memcpy(out, row, (size_t)n * sizeof *out);
    } else if (type == TENSOR_F16) {
        for (int64_t i = 0; i < n; i++) {
            out[i] = mathx_f16_to_f32(load_u16(bytes + i * 2));
        }
    } else if (type == TENSOR_BF16) {
        for (int64_t i = 0; i < n; i++) {
            out[i] = mathx_bf16_to_f32(load_u16(bytes + i * 2));
        }
    } else {
        blocks_to_f32(type, bytes, n, out);
    }
}

void tensor_row_from_f32(enum tensor_type type, const float *in, int64_t n, void *row)
{
    unsigned char *bytes = row;
    if (type == TENSOR_F32) {
        memcpy(row, in, (size_t)n * sizeof *in);
        return;
    }
    if (type == TENSOR_F16 || type == TENSOR_BF16) {
        for (int64_t i = 0; i < n; i++) {
            store_u16(bytes + i * 2,
                      type == TENSOR_F16 ? mathx_f32_to_f16(in[i]) : f32_to_bf16(in[i]));
        }
        return;
    }
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    const types_from_f32_fn from_f32 = writer_of((uint32_t)type);
    ASSERT(info && from_f32);
    for (int64_t i = 0; i < n; i += info->block_elems, bytes += info->block_bytes) {
        from_f32(in + i, bytes);
    }
}
