/* types_iq: blocks of the IQ types (code books) and MXFP4 as floats. Read only: models that hold them
 * are converted when they are loaded.
 *
 * The arithmetic, to the order of its products, is that of the published reference, so that the
 * floats are the reference's bits.
 */
#include <string.h>

#include "backend/types.h"

static uint16_t load_u16(const unsigned char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint32_t load_u32(const unsigned char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static float load_half(const unsigned char *bytes) { return mathx_f16_to_f32(load_u16(bytes)); }

/* Seven stored sign bits; the eighth makes their number even. */
static uint32_t even_signs(uint32_t seven)
{
    return seven | ((uint32_t)__builtin_popcount(seven) & 1u) << 7;
}

static void put_signed(float scale, float value, uint32_t negative, float *out)
{
    *out = scale * value * (negative ? -1.0f : 1.0f);
}

/* Eight elements of a grid of two-bit digits: 8, 25, 43. */
static void put_grid2(float scale, uint32_t entry, uint32_t signs, float *out)
{
    static const float values[4] = { 8, 25, 43, 0 };
    for (int32_t k = 0; k < 8; k++) {
        put_signed(scale, values[entry >> (2 * k) & 3u], signs >> k & 1u, out + k);
    }
}

/* Four elements of a grid of three-bit digits. */
static void put_grid3(float scale, uint32_t entry, const float *values, uint32_t signs, float *out)
{
    for (int32_t k = 0; k < 4; k++) {
        put_signed(scale, values[entry >> (3 * k) & 7u], signs >> k & 1u, out + k);
    }
}

/* d, then eight times 32 elements: 4 grid bytes, then 4 x 7 sign bits and a 4-bit scale */
void types_iq2_xxs_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block);
    for (int32_t i = 0; i < 8; i++) {
        const unsigned char *at = block + 2 + i * 8;
        const uint32_t word = load_u32(at + 4);
        const float scale = d * (0.5f + (float)(word >> 28)) * 0.25f;
        for (int32_t j = 0; j < 4; j++) {
            put_grid2(scale, types_grid_iq2_xxs[at[j]], even_signs(word >> (7 * j) & 127u),
                      out + i * 32 + j * 8);
        }
    }
}

/* d, 32 x (9 grid bits, 7 sign bits), 16 x 4-bit scale */
void types_iq2_xs_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block);
    for (int32_t i = 0; i < 32; i++) {
        const uint32_t word = load_u16(block + 2 + i * 2);
        const int32_t nibble = block[66 + i / 4] >> (i / 2 % 2 * 4) & 15;
        const float scale = d * (0.5f + (float)nibble) * 0.25f;
        put_grid2(scale, types_grid_iq2_xs[word & 511u], even_signs(word >> 9), out + i * 8);
    }
}

/* d, 32 grid bytes, 32 sign bytes, 32 x two upper grid bits, 16 x 4-bit scale */
void types_iq2_s_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block);
    for (int32_t i = 0; i < 32; i++) {
        const uint32_t high = (uint32_t)block[66 + i / 4] >> (i % 4 * 2) & 3u;
        const int32_t nibble = block[74 + i / 4] >> (i / 2 % 2 * 4) & 15;
        const float scale = d * (0.5f + (float)nibble) * 0.25f;
        put_grid2(scale, types_grid_iq2_s[block[2 + i] | high << 8], block[34 + i], out + i * 8);
    }
}

/* d, 64 grid bytes, then eight times 4 x 7 sign bits and a 4-bit scale */
void types_iq3_xxs_to_f32(const unsigned char *block, float *out)
{
    static const float values[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };
    const float d = load_half(block);
    for (int32_t i = 0; i < 8; i++) {
        const uint32_t word = load_u32(block + 66 + i * 4);
        const float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
        for (int32_t j = 0; j < 8; j++) {
            const uint32_t signs = even_signs(word >> (j / 2 * 7) & 127u) >> (j % 2 * 4);
            put_grid3(scale, types_grid_iq3_xxs[block[2 + i * 8 + j]], values, signs,
                      out + i * 32 + j * 4);
        }
    }
}

/* d, 64 grid bytes, 64 upper grid bits, 32 sign bytes, 8 x 4-bit scale */
void types_iq3_s_to_f32(const unsigned char *block, float *out)
{
    static const float values[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
    const float d = load_half(block);
    for (int32_t i = 0; i < 64; i++) {
        const uint32_t high = (uint32_t)block[66 + i / 8] >> (i % 8) & 1u;
        const uint32_t signs = (uint32_t)block[74 + i / 2] >> (i % 2 * 4);
        const int32_t nibble = block[106 + i / 16] >> (i / 8 % 2 * 4) & 15;
        put_grid3(d * (float)(1 + 2 * nibble), types_grid_iq3_s[block[2 + i] | high << 8], values,
                  signs, out + i * 4);
    }
}

/* Eight elements of the ternary grid, shifted by an eighth up or down. */
static void put_grid1(float scale, uint32_t idx, uint32_t negative, float *out)
{
    const float delta = negative ? -0.125f : 0.125f;
    for (int32_t k = 0; k < 8; k++) {
        const int32_t digit = (types_grid_iq1[idx] >> (2 * k) & 3) - 1;
        out[k] = scale * ((float)digit + delta);
    }
}

/* d, 32 grid bytes, then eight times 4 x 3 upper grid bits, a 3-bit scale, a sign of the shift */
void types_iq1_s_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block);
    for (int32_t i = 0; i < 32; i++) {
        const uint32_t word = load_u16(block + 34 + i / 4 * 2);
        const float scale = d * (float)(2 * (word >> 12 & 7u) + 1);
        put_grid1(scale, block[2 + i] | (word >> (i % 4 * 3) & 7u) << 8, word >> 15, out + i * 8);
    }
}

/* 32 grid bytes, 32 x (3 upper grid bits, a sign of the shift), four times 4 x 3-bit scale and a
 * nibble of d */
void types_iq1_m_to_f32(const unsigned char *block, float *out)
{
    uint32_t half = 0;
    for (int32_t i = 0; i < 4; i++) {
        half |= (uint32_t)(load_u16(block + 48 + i * 2) >> 12) << (4 * i);
    }
    const float d = mathx_f16_to_f32((uint16_t)half);
    for (int32_t i = 0; i < 32; i++) {
        const uint32_t high = (uint32_t)block[32 + i / 2] >> (i % 2 * 4) & 15u;
        const uint32_t scale = (uint32_t)load_u16(block + 48 + i / 8 * 2) >> (i / 2 % 4 * 3) & 7u;
        put_grid1(d * (float)(2 * scale + 1), block[i] | (high & 7u) << 8, high >> 3, out + i * 8);
    }
}

static const float values_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113 };

/* 16 bytes: low nibbles are elements 0..15, high ones 16..31 */
static void put_nibbles(float scale, const unsigned char *codes, const float *values, float *out)
{
    for (int32_t i = 0; i < 16; i++) {
        out[i] = scale * values[codes[i] & 15];
        out[16 + i] = scale * values[codes[i] >> 4];
    }
}

void types_iq4_nl_to_f32(const unsigned char *block, float *out)
{
    put_nibbles(load_half(block), block + 2, values_iq4, out);
}

/* d, 8 x two upper scale bits, 8 x four lower ones, codes; scales are stored + 32 */
void types_iq4_xs_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block);
    for (int32_t i = 0; i < 8; i++) {
        const int32_t high = load_u16(block + 2) >> (2 * i) & 3;
        const int32_t low = block[4 + i / 2] >> (i % 2 * 4) & 15;
        put_nibbles(d * (float)((low | high << 4) - 32), block + 8 + i * 16, values_iq4, out + i * 32);
    }
}

/* A power of two, then E2M1 codes, here doubled: the power is halved (OCP Microscaling, v1.0). */
void types_mxfp4_to_f32(const unsigned char *block, float *out)
{
    static const float values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    const uint32_t exponent = block[0];
    const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23;
    put_nibbles(mathx_from_bits(bits), block + 1, values, out);
}
