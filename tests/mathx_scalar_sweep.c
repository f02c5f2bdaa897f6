/* mathx_scalar_sweep: no vectors, the definition. */
#ifdef __GNUC__
#pragma GCC optimize("no-tree-vectorize")
#endif
#include "mathx_sweep_body.h"

void mathx_sweep_scalar(enum sweep_op op, const uint32_t *in, uint32_t *out, int n)
{
    sweep_body(op, in, out, n);
}
