/* mathx: the elementary functions of the model path, one source for scalar, vector and device code.
 *
 * Range reduction and a polynomial, written as explicit fma steps without branches, so that a
 * compiler may vectorise a loop over them and every instruction set gives the same bits. At most
 * 2 ulp (tests/test_mathx.c measures over all floats of the range). Not libm: libm's bits differ
 * between versions and machines. Compile with -ffp-contract=off -fno-math-errno -fno-trapping-math.
 */
#ifndef BASE_MATHX_H
#define BASE_MATHX_H

#include <stdint.h>
#include <string.h>

/* How a function is declared that device code compiles too. */
#ifdef __CUDACC__
#define MATHX_FN static __host__ __device__ inline
#else
#define MATHX_FN static inline
#endif

MATHX_FN float mathx_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

MATHX_FN uint32_t mathx_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#define MATHX_INF (__builtin_inff())
#define MATHX_NAN (__builtin_nanf(""))

/* fused multiply-add: one rounding */
MATHX_FN float mathx_fma(float a, float b, float c)
{
#ifdef __CUDA_ARCH__
    return __fmaf_rn(a, b, c);
#else
    return __builtin_fmaf(a, b, c);
#endif
}

/* Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits. */
MATHX_FN float mathx_rint_small(float x)
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

/* e^x. Above 88.7228 +inf; below -103.98 0; subnormal results are rounded once; NaN stays NaN. */
MATHX_FN float mathx_exp(float x)
{
    const float lo = -104.0f, hi = 89.0f;
    float xc = x > lo ? x : lo; /* NaN becomes lo here and comes back at the end */
    xc = xc < hi ? xc : hi;
    const float n = mathx_rint_small(xc * 1.44269504088896341f);
    float r = mathx_fma(n, -0.693145751953125f, xc);      /* ln 2, high part: 14 bits */
    r = mathx_fma(n, -1.42860677e-6f, r);                  /* ln 2, low part */
    float p = 1.9875691500e-4f;
    p = mathx_fma(p, r, 1.3981999507e-3f);
    p = mathx_fma(p, r, 8.3334519073e-3f);
    p = mathx_fma(p, r, 4.1665795894e-2f);
    p = mathx_fma(p, r, 1.6666665459e-1f);
    p = mathx_fma(p, r, 5.0000001201e-1f);
    const float sum = 1.0f + r, lost = r - (sum - 1.0f); /* exact: what the sum rounded away */
    p = sum + mathx_fma(p, r * r, lost);
    const int32_t k = (int32_t)n;
    const int32_t k1 = k >> 1, k2 = k - k1; /* two steps, so that 2^k may leave the range */
    const float s1 = mathx_from_bits((uint32_t)(k1 + 127) << 23);
    const float s2 = mathx_from_bits((uint32_t)(k2 + 127) << 23);
    const float y = (p * s1) * s2;
    return x == x ? y : x;
}

/* ln x for x > 0; 0 gives -inf, negative NaN, +inf +inf. Subnormals are scaled first. */
MATHX_FN float mathx_log(float x)
{
    const float tiny = 1.17549435e-38f;
    const float xs = x < tiny ? x * 8388608.0f : x;
    const float e0 = x < tiny ? -23.0f : 0.0f;
    const uint32_t bits = mathx_to_bits(xs);
    /* m in [sqrt(1/2), sqrt 2) */
    const uint32_t t = bits - 0x3f3504f3u;
    const int32_t e = (int32_t)t >> 23;
    const float m = mathx_from_bits((t & 0x007fffffu) + 0x3f3504f3u);
    const float ef = (float)e + e0;
    const float f = m - 1.0f;
    float p = 7.0376836292e-2f;
    p = mathx_fma(p, f, -1.1514610310e-1f);
    p = mathx_fma(p, f, 1.1676998740e-1f);
    p = mathx_fma(p, f, -1.2420140846e-1f);
    p = mathx_fma(p, f, 1.4249322787e-1f);
    p = mathx_fma(p, f, -1.6668057665e-1f);
    p = mathx_fma(p, f, 2.0000714765e-1f);
    p = mathx_fma(p, f, -2.4999993993e-1f);
    p = mathx_fma(p, f, 3.3333331174e-1f);
    const float f2 = f * f;
    float y = f2 * f * p;
    y = mathx_fma(ef, -2.12194440e-4f, y);
    y = mathx_fma(f2, -0.5f, y);
    float z = f + y;
    z = mathx_fma(ef, 0.693359375f, z);
    z = x == MATHX_INF ? x : z;
    z = x == 0.0f ? -MATHX_INF : z;
    z = x < 0.0f ? MATHX_NAN : z;
    return x == x ? z : x;
}

/* ln(1 + x) for x > -1: log of the rounded sum, corrected by what the rounding lost. */
MATHX_FN float mathx_log1p(float x)
{
    const float u = 1.0f + x;
    const float d = u - 1.0f;
    const float lost = x == MATHX_INF ? 0.0f : x - d;
    const float safe = u <= 0.0f ? 1.0f : u;
    const float y = mathx_log(u) + (u <= 0.0f ? 0.0f : lost / safe);
    return u == 1.0f ? x : y;
}

/* 1 / (1 + e^-x); written with e^-|x|, which cannot overflow, so that small values stay exact. */
MATHX_FN float mathx_sigmoid(float x)
{
    const float e = mathx_exp(x < 0.0f ? x : -x);
    const float above = x < 0.0f ? e : 1.0f, below = 1.0f + e;
    const float lost = e - (below - 1.0f); /* exact: what the sum rounded away */
    const float y = above / below;
    /* One step of correction by the exact remainder; y or 1 - y is 1 / below. */
    const float rest = mathx_fma(-y, lost, mathx_fma(-y, below, above));
    return mathx_fma(rest, x < 0.0f ? 1.0f - y : y, y);
}

/* x / (1 + e^-x) as it stands: below -88.7 the divisor is +inf and the result -0 (true: -3e-37). */
MATHX_FN float mathx_silu(float x) { return x / (1.0f + mathx_exp(-x)); }

/* Gumbel noise of a 32-bit coin: v = min(fma(x, 2^-32, 2^-33), 1 - 2^-24), -log(-log1p(-v)). */
MATHX_FN float mathx_gumbel(uint32_t word)
{
    const float v0 = mathx_fma((float)word, 2.3283064365386963e-10f, 1.1641532182693481e-10f);
    const float top = 0.999999940395355224609375f;
    const float v = v0 < top ? v0 : top;
    return -mathx_log(-mathx_log1p(-v));
}

/* IEEE half <-> single; to half rounds to nearest even. bfloat16 widens by shifting. */
MATHX_FN float mathx_f16_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t body = (uint32_t)(half & 0x7fffu) << 13;
    const uint32_t exponent = body & 0x0f800000u;
    float value;
    if (exponent == 0x0f800000u) { /* inf, NaN (quieted as the hardware does) */
        const uint32_t quiet = (body & 0x007fffffu) != 0 ? 0x00400000u : 0;
        value = mathx_from_bits((body + 0x70000000u) | quiet);
    } else if (exponent == 0) { /* zero, subnormal */
        value = mathx_from_bits(body + 0x38800000u) - mathx_from_bits(0x38800000u);
    } else {
        value = mathx_from_bits(body + 0x38000000u);
    }
    return mathx_from_bits(mathx_to_bits(value) | sign);
}

MATHX_FN uint16_t mathx_f32_to_f16(float value)
{
    const uint32_t bits = mathx_to_bits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t mag = bits & 0x7fffffffu;
    uint32_t half;
    if (mag > 0x7f800000u) {
        half = 0x7e00u | ((mag >> 13) & 0x3ffu); /* NaN, quiet, payload kept */
    } else if (mag >= 0x47800000u) {
        half = 0x7c00u; /* rounds past the largest half, or inf */
    } else if (mag < 0x38800000u) { /* subnormal half: adding 0.5 aligns the fraction */
        half = mathx_to_bits(mathx_from_bits(mag) + 0.5f) - 0x3f000000u;
    } else {
        mag += 0xc8000fffu + ((mag >> 13) & 1u); /* rebias by -112, round to even */
        half = mag >> 13;
    }
    return (uint16_t)(half | sign);
}

MATHX_FN float mathx_bf16_to_f32(uint16_t brain)
{
    return mathx_from_bits((uint32_t)brain << 16);
}

#endif
