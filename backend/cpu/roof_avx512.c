/* roof loops on AVX-512: streaming loads, the int8 dot-product sequence, fma chains. */
#include <immintrin.h>

#include "backend/cpu/roof.h"

#define OPAQUE(value) __asm__ volatile("" : "+v"(value))

enum { CHAINS = 16 };

/* One stream: 512 bytes a turn, prefetching `ahead` bytes in front (0 = hardware alone). */
static inline __attribute__((always_inline)) void read_stream(const unsigned char *p, size_t bytes,
                                                              size_t ahead, __m512i sum[8])
{
    for (size_t i = 0; i < bytes; i += 512) {
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
            if (ahead > 0) {
                _mm_prefetch((const char *)p + i + k * 64 + ahead, _MM_HINT_T0);
            }
            sum[k] = _mm512_add_epi64(sum[k], _mm512_load_si512(p + i + k * 64));
        }
    }
}

/* Four streams a quarter apart. */
static void read_four(const unsigned char *p, size_t bytes, __m512i sum[8])
{
    const size_t quarter = bytes / 4;
    for (size_t i = 0; i < quarter; i += 128) {
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
            sum[k] = _mm512_add_epi64(
                sum[k], _mm512_load_si512(p + (k / 2) * quarter + i + (k % 2) * 64));
        }
    }
}

double roof_read_avx512(const unsigned char *buf, size_t bytes, int variant)
{
    __m512i sum[8];
    for (int k = 0; k < 8; k++) {
        sum[k] = _mm512_setzero_si512();
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

double roof_int_avx512(int64_t iterations)
{
    __m512i acc[CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (int k = 0; k < CHAINS; k++) {
        acc[k] = _mm512_set1_epi32(k);
    }
    for (int64_t i = 0; i < iterations; i++) {
        OPAQUE(a);
        OPAQUE(b);
#pragma GCC unroll 16
        for (int k = 0; k < CHAINS; k++) {
            acc[k] = _mm512_dpbusd_epi32(acc[k], a, b);
        }
    }
    for (int k = 0; k < CHAINS; k++) {
        OPAQUE(acc[k]);
    }
    return (double)iterations * CHAINS * 64;
}

double roof_float_avx512(int64_t iterations)
{
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) {
        acc[k] = _mm512_set1_ps((float)k);
    }
    for (int64_t i = 0; i < iterations; i++) {
        OPAQUE(a);
        OPAQUE(b);
#pragma GCC unroll 16
        for (int k = 0; k < CHAINS; k++) {
            acc[k] = _mm512_fmadd_ps(acc[k], a, b);
        }
    }
    for (int k = 0; k < CHAINS; k++) {
        OPAQUE(acc[k]);
    }
    return (double)iterations * CHAINS * 16;
}
