/* synth_rows: rows of random numbers, written straight in a file's block format as fast as memory takes
 * them. Counters hashed by rng_mix64: a row is a function of its stream and of nothing else.
 */
#include <math.h>
#include <string.h>

#include "model/synth.h"

/* Word `i` of a row's stream. */
static inline uint64_t word_at(uint64_t row_stream, uint64_t i) { return rng_mix64(row_stream + i); }

/* Uniform in (-a, a) with the wanted deviation: a = deviation * sqrt 3. */
static void make_f32(uint64_t stream, float deviation, int64_t n, unsigned char *out)
{
    const float scale = deviation * 1.7320508f / 2147483648.0f;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t word = word_at(stream, (uint64_t)i / 2);
        const int32_t half = (int32_t)(uint32_t)(i % 2 ? word >> 32 : word);
        const float value = (float)half * scale;
        memcpy(out + i * 4, &value, 4);
    }
}

/* Sign, one of two neighbouring exponents, any mantissa: a deviation of 1.2076 * 2^exponent. */
static void make_16bit(uint64_t stream, float deviation, enum tensor_type type, int64_t n,
                       unsigned char *out)
{
    const uint32_t mantissa_bits = type == TENSOR_F16 ? 10 : 7, bias = type == TENSOR_F16 ? 15 : 127;
    int power;
    const float fraction = frexpf(deviation / 1.2076f, &power); /* to the nearest power of two */
    const uint32_t exponent = (uint32_t)(power - (fraction < 0.7071f ? 1 : 0) + (int)bias);
    const uint16_t keep = (uint16_t)(0x8000u | ((1u << mantissa_bits) - 1));
    for (int64_t i = 0; i < n; i += 4) {
        const uint64_t word = word_at(stream, (uint64_t)i / 4);
        for (int64_t j = i; j < n && j < i + 4; j++) {
            const uint16_t bits = (uint16_t)(word >> (16 * (j - i)));
            const uint32_t low = (bits >> mantissa_bits) & 1u; /* a bit that `keep` drops */
            const uint16_t value = (uint16_t)((bits & keep) | ((exponent - low) << mantissa_bits));
            memcpy(out + j * 2, &value, 2);
        }
    }
}

/* Blocks of 32: a half scale with 8 random mantissa bits, then random code bytes. Codes of Q4_0 are -8 .. 7,
 * half a step below 0 on average: over thousands of inputs and a dozen layers that would drown what the
 * residual stream carries, so every other scale is negative. */
static void make_blocks(uint64_t stream, float deviation, enum tensor_type type, int64_t n_blocks,
                        unsigned char *out)
{
    const int n_words = type == TENSOR_Q4_0 ? 2 : 4;
    const float code_deviation = type == TENSOR_Q4_0 ? 4.6368f : 73.9f; /* of uniform codes */
    /* random bits take the place of the low mantissa bits: a quarter of the value at most */
    const uint16_t base = mathx_f32_to_f16(deviation / code_deviation) & 0xff00u;
    uint64_t at = 0, jitter = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        if (b % 8 == 0) {
            jitter = word_at(stream, at++);
        }
        const uint16_t sign = type == TENSOR_Q4_0 ? (uint16_t)((jitter & 1u) << 15) : 0;
        const uint16_t scale = (uint16_t)(base | sign | (jitter & 0xffu));
        jitter >>= 8;
        memcpy(out, &scale, 2);
        for (int i = 0; i < n_words; i++) {
            const uint64_t word = word_at(stream, at++);
            memcpy(out + 2 + i * 8, &word, 8);
        }
        out += 2 + n_words * 8;
    }
}

/* Random bytes from a stream's words, n a multiple of 8. */
static unsigned char *put_words(uint64_t stream, uint64_t *at, int n, unsigned char *out)
{
    for (int i = 0; i < n; i += 8, out += 8) {
        const uint64_t word = word_at(stream, (*at)++);
        memcpy(out, &word, 8);
    }
    return out;
}

/* Blocks of 256 in parts of 32: scales 32..63, minimums equal to them and dmin = 7.5 d, so that the
 * middle of the codes is 0. */
static void make_q4_k(uint64_t stream, float deviation, int64_t n_blocks, unsigned char *out)
{
    const float d = deviation / (48.4f * 4.61f); /* of uniform scales and codes */
    const uint16_t halves[2] = { mathx_f32_to_f16(d), mathx_f32_to_f16(7.5f * d) };
    uint64_t at = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        const uint64_t word = word_at(stream, at++);
        const uint32_t upper = ((uint32_t)word & 0x5f5f5f5fu) | 0xa0a0a0a0u; /* top bits of all are 1 */
        const uint32_t nibbles = (uint32_t)(word >> 32) & 0x0f0f0f0fu, lower = nibbles | nibbles << 4;
        memcpy(out, halves, 4);
        memcpy(out + 4, &upper, 4);
        memcpy(out + 8, &upper, 4);
        memcpy(out + 12, &lower, 4);
        out = put_words(stream, &at, 128, out + 16);
    }
}

/* Blocks of 256 in parts of 16: scales of magnitude 64..128, either sign. */
static void make_q6_k(uint64_t stream, float deviation, int64_t n_blocks, unsigned char *out)
{
    const uint16_t d = mathx_f32_to_f16(deviation / (97.7f * 18.5f));
    uint64_t at = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        out = put_words(stream, &at, 192, out);
        for (int i = 0; i < 2; i++, out += 8) {
            const uint64_t word = word_at(stream, at++), bit = UINT64_C(0x4040404040404040);
            const uint64_t scales = (word & ~bit) | (~word >> 1 & bit);
            memcpy(out, &scales, 8);
        }
        memcpy(out, &d, 2);
        out += 2;
    }
}

void synth_row_norm(uint64_t stream, int64_t n, unsigned char *out)
{
    for (int64_t i = 0; i < n; i++) {
        const float value = 0.9f + (float)(word_at(stream, (uint64_t)i) >> 40) * (0.2f / 16777216.0f);
        memcpy(out + i * 4, &value, 4);
    }
}

void synth_row_random(uint64_t stream, float deviation, enum tensor_type type, int64_t n, unsigned char *out)
{
    if (type == TENSOR_F32) {
        make_f32(stream, deviation, n, out);
    } else if (type == TENSOR_F16 || type == TENSOR_BF16) {
        make_16bit(stream, deviation, type, n, out);
    } else if (type == TENSOR_Q4_K) {
        make_q4_k(stream, deviation, n / 256, out);
    } else if (type == TENSOR_Q6_K) {
        make_q6_k(stream, deviation, n / 256, out);
    } else {
        make_blocks(stream, deviation, type, n / 32, out);
    }
}
