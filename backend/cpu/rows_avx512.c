/* rows, AVX-512. See rows_vector.h for what is not here. */
#include "backend/cpu/rows.h"
#include "backend/cpu/vector_avx512.h"

static inline uint32_t block_amax_bits(const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i a = _mm512_and_si512(_mm512_loadu_si512(x), magnitude);
    const __m512i b = _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
}

/* codes = rint(x * inv), ties to even by the lane's rounding mode; returns their sum, and in half
 * that of the first 16. */
static inline int32_t quantize_block(const float *x, float inv, int8_t *codes, int32_t *half)
{
    const __m512 scale = _mm512_set1_ps(inv);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), scale));
    const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), scale));
    _mm_storeu_si128((__m128i *)(void *)codes, _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128((__m128i *)(void *)(codes + 16), _mm512_cvtepi32_epi8(b));
    *half = _mm512_reduce_add_epi32(a);
    return *half + _mm512_reduce_add_epi32(b);
}

#include "backend/cpu/rows_vector.h"

void rows_norm_avx512(const float *x, const float *weight, float eps, int32_t n, float *out)
{
    rows_norm(x, weight, eps, n, out);
}

void rows_quantize_avx512(const float *x, int32_t b0, int32_t n_blocks, unsigned char *panel, int32_t m,
                        int32_t r)
{
    rows_quantize(x, b0, n_blocks, panel, m, r);
}

void rows_swiglu_avx512(const float *gate, const float *up, int32_t n, float *out)
{
    rows_swiglu(gate, up, n, out);
}

void rows_accumulate_avx512(float weight, const float *x, int32_t n, float *acc)
{
    rows_accumulate(weight, x, n, acc);
}

void rows_rope_avx512(float *x, const float *cos, const float *sin, int32_t half)
{
    rows_rope(x, cos, sin, half);
}

void rows_to_f16_avx512(const float *x, int32_t n, uint16_t *out) { rows_to_f16(x, n, out); }

int32_t rows_argmax_avx512(const float *x, int64_t n, bool *bad) { return rows_argmax(x, n, bad); }

float rows_exp_sum_avx512(float *x, int64_t n, float max) { return rows_exp_sum(x, n, max); }

void rows_gumbel_avx512(uint64_t seed, uint32_t position, uint32_t first, uint32_t n, uint64_t limit,
                        float *noise)
{
    rng_gumbel_fill_below_inline(seed, COIN_TARGET, position, first, n, limit, noise);
}
