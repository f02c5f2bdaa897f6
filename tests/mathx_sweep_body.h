/* mathx_sweep_body: one loop per function; included by a file per instruction set. */
#include "base/mathx.h"
#include "mathx_sweep.h"

#define SWEEP_LOOP(expression)              \
    for (int i = 0; i < n; i++) {           \
        out[i] = (uint32_t)(expression);    \
    }                                       \
    break

static void sweep_body(enum sweep_op op, const uint32_t *restrict in, uint32_t *restrict out, int n)
{
    switch (op) {
    case SWEEP_EXP: SWEEP_LOOP(mathx_to_bits(mathx_exp(mathx_from_bits(in[i]))));
    case SWEEP_LOG: SWEEP_LOOP(mathx_to_bits(mathx_log(mathx_from_bits(in[i]))));
    case SWEEP_LOG1P: SWEEP_LOOP(mathx_to_bits(mathx_log1p(mathx_from_bits(in[i]))));
    case SWEEP_SIGMOID: SWEEP_LOOP(mathx_to_bits(mathx_sigmoid(mathx_from_bits(in[i]))));
    case SWEEP_SILU: SWEEP_LOOP(mathx_to_bits(mathx_silu(mathx_from_bits(in[i]))));
    case SWEEP_GUMBEL: SWEEP_LOOP(mathx_to_bits(mathx_gumbel(in[i])));
    case SWEEP_HALF_TO_FLOAT: SWEEP_LOOP(mathx_to_bits(mathx_f16_to_f32((uint16_t)in[i])));
    case SWEEP_FLOAT_TO_HALF: SWEEP_LOOP(mathx_f32_to_f16(mathx_from_bits(in[i])));
    case SWEEP_OPS: break;
    }
}
