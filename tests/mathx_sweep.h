/* mathx_sweep: the functions of base/mathx.h over arrays, compiled per instruction set, so that
 * test_mathx can compare bits. Inputs and outputs are bit patterns; halves lie in the low 16 bits.
 */
#ifndef TESTS_MATHX_SWEEP_H
#define TESTS_MATHX_SWEEP_H

#include <stdint.h>

enum sweep_op {
    SWEEP_EXP,
    SWEEP_LOG,
    SWEEP_LOG1P,
    SWEEP_SIGMOID,
    SWEEP_SILU,
    SWEEP_GUMBEL,
    SWEEP_HALF_TO_FLOAT,
    SWEEP_FLOAT_TO_HALF,
    SWEEP_OPS
};

typedef void (*sweep_fn)(enum sweep_op op, const uint32_t *in, uint32_t *out, int n);
void mathx_sweep_scalar(enum sweep_op op, const uint32_t *in, uint32_t *out, int n);
/* NULL when this machine (or this architecture) cannot run it. */
sweep_fn mathx_sweep_avx2(void);
sweep_fn mathx_sweep_avx512(void);
/* What the hardware's own half conversions answer; the two half operations only. */
sweep_fn mathx_sweep_f16c(void);

#endif
