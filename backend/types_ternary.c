/* types_ternary: blocks of TQ1_0 and TQ2_0 (-1, 0, 1 times a scale) as floats. Read only. */
#include <string.h>

#include "backend/types.h"

static float load_half(const unsigned char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return mathx_f16_to_f32(value);
}

/* Bytes hold up to five base-3 digits as a fraction of 256: times 3^k, the next digit is on top. */
static float *put_digits(float scale, const unsigned char *bytes, int32_t n_bytes, int32_t n_digits,
                         float *out)
{
    uint32_t power = 1;
    for (int32_t k = 0; k < n_digits; k++, power *= 3) {
        for (int32_t i = 0; i < n_bytes; i++) {
            const int32_t digit = (int32_t)((bytes[i] * power & 255u) * 3u >> 8);
            *out++ = scale * (float)(digit - 1);
        }
    }
    return out;
}

void types_tq1_0_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block + 52);
    out = put_digits(d, block, 32, 5, out);
    out = put_digits(d, block + 32, 16, 5, out);
    put_digits(d, block + 48, 4, 4, out);
}

void types_tq2_0_to_f32(const unsigned char *block, float *out)
{
    const float d = load_half(block + 64);
    for (int32_t i = 0; i < 256; i++) {
        const int32_t digit = block[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        out[i] = d * (float)(digit - 1);
    }
}
