/* linear_avx2: what the two files of linear layers on AVX2 share. */
#ifndef BACKEND_CPU_LINEAR_AVX2_H
#define BACKEND_CPU_LINEAR_AVX2_H

#include <immintrin.h>

#include "backend/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 8192, QUARTERS = 4 };

/* One segment of a quantised tile, the m rows of a panel: acc = their segment sums. */
typedef void (*linear_segment_fn)(const unsigned char *segment, int n_blocks, const unsigned char *act,
                                  int m, __m256 acc[][QUARTERS]);
linear_segment_fn linear_segment_avx2(enum tensor_type type);

#endif
