/* vector, AVX-512: sixteen floats. The verbs in which rows_vector.h and attention_vector.h are
 * written; vector_avx2.h has the same ones.
 */
#ifndef BACKEND_CPU_VECTOR_AVX512_H
#define BACKEND_CPU_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define VEC __m512
enum { VEC_LANES = 16, VEC_CHAINS = 16 /* accumulators that leave registers for the operands */ };

static inline VEC vec_zero(void) { return _mm512_setzero_ps(); }
static inline VEC vec_set1(float x) { return _mm512_set1_ps(x); }
static inline VEC vec_load(const float *from) { return _mm512_loadu_ps(from); }
static inline void vec_store(float *to, VEC x) { _mm512_storeu_ps(to, x); }
static inline VEC vec_add(VEC a, VEC b) { return _mm512_add_ps(a, b); }
static inline VEC vec_mul(VEC a, VEC b) { return _mm512_mul_ps(a, b); }
static inline VEC vec_fma(VEC a, VEC b, VEC c) { return _mm512_fmadd_ps(a, b, c); }
/* a * b - c, one rounding */
static inline VEC vec_fms(VEC a, VEC b, VEC c) { return _mm512_fmsub_ps(a, b, c); }
/* x > max ? x : max, also when x is NaN */
static inline VEC vec_max(VEC x, VEC max) { return _mm512_max_ps(x, max); }
static inline float vec_max_lane(VEC x) { return _mm512_reduce_max_ps(x); }
/* bit i: lane i of a equals b's; lane i of a is not less than b's (NaN counts) */
static inline uint32_t vec_equal_lanes(VEC a, VEC b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline uint32_t vec_not_less_lanes(VEC a, VEC b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ);
}
static inline VEC vec_from_f16(const void *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
static inline void vec_to_f16(uint16_t *to, VEC x)
{
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#endif
