/* vector, AVX2 with FMA and F16C: eight floats. The verbs in which rows_vector.h and
 * attention_vector.h are written; vector_avx512.h has the same ones.
 */
#ifndef BACKEND_CPU_VECTOR_AVX2_H
#define BACKEND_CPU_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define VEC __m256
enum { VEC_LANES = 8, VEC_CHAINS = 8 /* accumulators that leave registers for the operands */ };

static inline VEC vec_zero(void) { return _mm256_setzero_ps(); }
static inline VEC vec_set1(float x) { return _mm256_set1_ps(x); }
static inline VEC vec_load(const float *from) { return _mm256_loadu_ps(from); }
static inline void vec_store(float *to, VEC x) { _mm256_storeu_ps(to, x); }
static inline VEC vec_add(VEC a, VEC b) { return _mm256_add_ps(a, b); }
static inline VEC vec_mul(VEC a, VEC b) { return _mm256_mul_ps(a, b); }
static inline VEC vec_fma(VEC a, VEC b, VEC c) { return _mm256_fmadd_ps(a, b, c); }
/* a * b - c, one rounding */
static inline VEC vec_fms(VEC a, VEC b, VEC c) { return _mm256_fmsub_ps(a, b, c); }
/* x > max ? x : max, also when x is NaN */
static inline VEC vec_max(VEC x, VEC max) { return _mm256_max_ps(x, max); }
static inline float vec_max_lane(VEC x)
{
    __m128 max = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    return _mm_cvtss_f32(_mm_max_ss(max, _mm_shuffle_ps(max, max, 1)));
}
/* bit i: lane i of a equals b's; lane i of a is not less than b's (NaN counts) */
static inline uint32_t vec_equal_lanes(VEC a, VEC b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
static inline uint32_t vec_not_less_lanes(VEC a, VEC b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ));
}
static inline VEC vec_from_f16(const void *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}
static inline void vec_to_f16(uint16_t *to, VEC x)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#endif
