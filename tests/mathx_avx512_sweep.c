/* mathx_avx512_sweep: the loops in vectors of sixteen. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#pragma GCC optimize("O3")
#include "mathx_sweep_body.h"

#include <stddef.h>

sweep_fn mathx_sweep_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
             ? sweep_body
             : NULL;
}
#else
#include <stddef.h>

#include "mathx_sweep.h"

sweep_fn mathx_sweep_avx512(void) { return NULL; }
#endif
