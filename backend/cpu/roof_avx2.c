/* roof loops on AVX2: streaming loads, the int8 dot-product sequence, fma chains. */
#include <immintrin.h>

#include "backend/cpu/roof.h"

#define OPAQUE(value) __asm__ volatile("" : "+v"(value))

enum { CHAINS = 8 };

static inline __attribute__((always_inline)) void read_stream(const unsigned char *p, size_t bytes,
                                                              size_t ahead, __m256i sum[8])
{
    for (size_t i = 0; i < bytes; i += 256) {
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
            if (ahead > 0 && k % 2 == 0) {
                _mm_prefetch((const char *)p + i + k * 32 + ahead, _MM_HINT_T0);
            }
            sum[k] = _mm256_add_epi64(
                sum[k], _mm256_load_si256((const __m256i *)(const void *)(p + i + k * 32)));
        }
    }
}

static void read_four(const unsigned char *p, size_t bytes, __m256i sum[8])
{
    const size_t quarter = bytes / 4;
    for (size_t i = 0; i < quarter; i += 64) {
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
            sum[k] = _mm256_add_epi64(
                sum[k], _mm256_load_si256(
                            (const __m256i *)(const void *)(p + (k / 2) * quarter + i + (k % 2) * 32)));
        }
    }
}

double roof_read_avx2(const unsigned char *buf, size_t bytes, int variant)
{
    __m256i sum[8];
    for (int k = 0; k < 8; k++) {
        sum[k] = _mm256_setzero_si256();
    }
    switch (variant) {
    case 0: read_stream(buf, bytes, 0, sum); break;
    case 1: read_stream(buf, bytes, 4096, sum); break;
    case 2: read_stream(buf, bytes, 8192, sum); break;
    default: read_four(buf, bytes, sum); break;
    }
    for (int k = 0; k < 8; k++) {
        OPAQUE(sum[k]);
    }
    return (double)bytes;
}

double roof_int_avx2(int64_t iterations)
{
    __m256i acc[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    const __m256i one = _mm256_set1_epi16(1);
    for (int k = 0; k < CHAINS; k++) {
        acc[k] = _mm256_set1_epi32(k);
    }
    for (int64_t i = 0; i < iterations; i++) {
#pragma GCC unroll 8
        for (int k = 0; k < CHAINS; k++) {
            OPAQUE(a);
            acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
        }
    }
    for (int k = 0; k < CHAINS; k++) {
        OPAQUE(acc[k]);
    }
    return (double)iterations * CHAINS * 32;
}

double roof_float_avx2(int64_t iterations)
{
    __m256 acc[CHAINS + 4], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int k = 0; k < CHAINS + 4; k++) {
        acc[k] = _mm256_set1_ps((float)k);
    }
    for (int64_t i = 0; i < iterations; i++) {
        OPAQUE(a);
        OPAQUE(b);
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS + 4; k++) {
            acc[k] = _mm256_fmadd_ps(acc[k], a, b);
        }
    }
    for (int k = 0; k < CHAINS + 4; k++) {
        OPAQUE(acc[k]);
    }
    return (double)iterations * (CHAINS + 4) * 8;
}
