/* roof: the loops that measure what a core can do at best; roof.c runs them on threads. */
#ifndef BACKEND_CPU_ROOF_H
#define BACKEND_CPU_ROOF_H

#include <stddef.h>
#include <stdint.h>

enum { ROOF_READ_VARIANTS = 4 };

/* Reads all of buf (a multiple of 64 KiB); returns bytes read. Variants differ in streams and
 * prefetch distance: the best of them is the roof. */
double roof_read_scalar(const unsigned char *buf, size_t bytes, int variant);
double roof_read_fma(const unsigned char *buf, size_t bytes, int variant);
double roof_read_avx2(const unsigned char *buf, size_t bytes, int variant);
double roof_read_avx512(const unsigned char *buf, size_t bytes, int variant);
/* Independent chains, operands in registers; return MACs and FMAs done. */
double roof_int_scalar(int64_t iterations);
double roof_int_fma(int64_t iterations);
double roof_int_avx2(int64_t iterations);
double roof_int_avx512(int64_t iterations);
double roof_float_scalar(int64_t iterations);
double roof_float_fma(int64_t iterations);
double roof_float_avx2(int64_t iterations);
double roof_float_avx512(int64_t iterations);

#endif
