/* mathx_avx2_sweep: the loops in vectors of eight, and the hardware's half conversions. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2,fma,f16c")
#pragma GCC optimize("O3")
#include <immintrin.h>

#include "mathx_sweep_body.h"

static void sweep_f16c(enum sweep_op op, const uint32_t *in, uint32_t *out, int n)
{
    for (int i = 0; i < n; i++) {
        if (op == SWEEP_HALF_TO_FLOAT) {
            out[i] = mathx_to_bits(_cvtsh_ss((unsigned short)in[i]));
        } else {
            out[i] = _cvtss_sh(mathx_from_bits(in[i]), _MM_FROUND_TO_NEAREST_INT);
        }
    }
}

sweep_fn mathx_sweep_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? sweep_body : NULL;
}

sweep_fn mathx_sweep_f16c(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") ? sweep_f16c : NULL;
}
#else
#include <stddef.h>

#include "mathx_sweep.h"

sweep_fn mathx_sweep_avx2(void) { return NULL; }
sweep_fn mathx_sweep_f16c(void) { return NULL; }
#endif
