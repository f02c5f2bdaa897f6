/* rows: the elementwise and row-sum kernels, one set of names per instruction set. rows_scalar.c is
 * the definition; shapes and promises stand at the function pointers of struct cpu_kernels.
 */
#ifndef BACKEND_CPU_ROWS_H
#define BACKEND_CPU_ROWS_H

#include "backend/cpu/cpu.h"

enum { ROW_PARTIALS = 64 }; /* element i of a row sum goes to partial i mod 64 */
static const float ROWS_AMAX_MIN = 0x1p-100f; /* a block with less counts as zero */

#define ROWS_DECLARE(suffix)                                                                       \
    void rows_norm_##suffix(const float *x, const float *weight, float eps, int32_t n, float *out); \
    void rows_quantize_##suffix(const float *x, int32_t b0, int32_t n_blocks,                      \
                                unsigned char *panel, int32_t m, int32_t r);                       \
    void rows_swiglu_##suffix(const float *gate, const float *up, int32_t n, float *out);          \
    void rows_accumulate_##suffix(float weight, const float *x, int32_t n, float *acc);            \
    void rows_rope_##suffix(float *x, const float *cos, const float *sin, int32_t half);           \
    void rows_to_f16_##suffix(const float *x, int32_t n, uint16_t *out);                           \
    int32_t rows_argmax_##suffix(const float *x, int64_t n, bool *bad);                            \
    float rows_exp_sum_##suffix(float *x, int64_t n, float max);                                   \
    void rows_gumbel_##suffix(uint64_t seed, uint32_t position, uint32_t first, uint32_t n,        \
                               uint64_t limit, float *noise);

ROWS_DECLARE(scalar)
ROWS_DECLARE(fma)
ROWS_DECLARE(avx2)
ROWS_DECLARE(avx512)

/* The tree that ends a row sum: strides 32, 16, 8, 4, 2, 1. */
static inline float rows_tree_sum(float *partial /* [ROW_PARTIALS], overwritten */)
{
    for (int32_t stride = ROW_PARTIALS / 2; stride > 0; stride /= 2) {
        for (int32_t i = 0; i < stride; i++) {
            partial[i] += partial[i + stride];
        }
    }
    return partial[0];
}

#endif
