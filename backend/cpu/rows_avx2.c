/* rows, AVX2 with FMA. See rows_vector.h for what is not here. */
#include "backend/cpu/rows.h"
#include "backend/cpu/vector_avx2.h"

static inline __m256i load_bits(const float *x)
{
    return _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)x),
                            _mm256_set1_epi32(0x7fffffff));
}

static inline uint32_t block_amax_bits(const float *x)
{
    const __m256i low = _mm256_max_epu32(load_bits(x), load_bits(x + 8));
    const __m256i high = _mm256_max_epu32(load_bits(x + 16), load_bits(x + 24));
    const __m256i all = _mm256_max_epu32(low, high);
    __m128i max = _mm_max_epu32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    max = _mm_max_epu32(max, _mm_shuffle_epi32(max, 0x4e));
    max = _mm_max_epu32(max, _mm_shuffle_epi32(max, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(max);
}

static inline __m256i round_codes(const float *x, __m256 scale)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
}

/* codes = rint(x * inv), ties to even by the lane's rounding mode; returns their sum, and in half
 * that of the first 16. */
static inline int32_t quantize_block(const float *x, float inv, int8_t *codes, int32_t *half)
{
    const __m256 scale = _mm256_set1_ps(inv);
    const __m256i a = round_codes(x, scale), b = round_codes(x + 8, scale);
    const __m256i c = round_codes(x + 16, scale), d = round_codes(x + 24, scale);
    /* packing works within 128-bit halves: groups of four come out as 0 2 4 6 1 3 5 7 */
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)(void *)codes, _mm256_permutevar8x32_epi32(packed, order));
    /* low 128 bits: parts of the first half's sum; high: of the second's */
    const __m256i first = _mm256_add_epi32(a, b), second = _mm256_add_epi32(c, d);
    const __m256i pairs = _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                                           _mm256_permute2x128_si256(first, second, 0x31));
    const __m256i fours = _mm256_add_epi32(pairs, _mm256_shuffle_epi32(pairs, 0x4e));
    const __m256i sums = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 0xb1));
    *half = _mm256_cvtsi256_si32(sums);
    return *half + _mm256_extract_epi32(sums, 4);
}

#include "backend/cpu/rows_vector.h"

void rows_norm_avx2(const float *x, const float *weight, float eps, int32_t n, float *out)
{
    rows_norm(x, weight, eps, n, out);
}

void rows_quantize_avx2(const float *x, int32_t b0, int32_t n_blocks, unsigned char *panel, int32_t m,
                        int32_t r)
{
    rows_quantize(x, b0, n_blocks, panel, m, r);
}

void rows_swiglu_avx2(const float *gate, const float *up, int32_t n, float *out)
{
    rows_swiglu(gate, up, n, out);
}

void rows_accumulate_avx2(float weight, const float *x, int32_t n, float *acc)
{
    rows_accumulate(weight, x, n, acc);
}

void rows_rope_avx2(float *x, const float *cos, const float *sin, int32_t half)
{
    rows_rope(x, cos, sin, half);
}

void rows_to_f16_avx2(const float *x, int32_t n, uint16_t *out) { rows_to_f16(x, n, out); }

int32_t rows_argmax_avx2(const float *x, int64_t n, bool *bad) { return rows_argmax(x, n, bad); }

float rows_exp_sum_avx2(float *x, int64_t n, float max) { return rows_exp_sum(x, n, max); }

void rows_gumbel_avx2(uint64_t seed, uint32_t position, uint32_t first, uint32_t n, uint64_t limit,
                      float *noise)
{
    rng_gumbel_fill_below_inline(seed, COIN_TARGET, position, first, n, limit, noise);
}
