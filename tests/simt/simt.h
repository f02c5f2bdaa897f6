/* simt: device code on the host. The .cu sources of backend/cuda, compiled by a C++ compiler against
 * tests/simt/include/cuda_runtime.h, run here: the blocks of a launch one after another, the threads of a
 * block as fibers that hand over at barriers and warp operations.
 *
 *     launch ─► block ─► thread 0 ─► ... to its first __syncthreads, shuffle or end
 *                        thread 1 ─► ...
 *                        all arrived? go on : say who waits for whom
 *
 * It finds: a barrier that some threads of a block never reach or reach at another line; a warp
 * operation with lanes in its mask that never come, or lanes outside it; an index outside an array in
 * shared memory; a launch that no device takes. What no barrier orders may run in any order: blocks and
 * threads can run backwards, and results must be the same. Shared memory begins as NaN.
 *
 * It does not look for races themselves, nor at global memory (SAN=address does), and says nothing
 * of time. One launch at a time, on the calling thread. No part of the product.
 */
#ifndef TESTS_SIMT_SIMT_H
#define TESTS_SIMT_SIMT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum simt_order { SIMT_FORWARD, SIMT_BACKWARD };
void simt_set_order(enum simt_order blocks, enum simt_order threads);

/* What was wrong with the first bad launch since the last call, or NULL. Valid until the next launch. */
const char *simt_take_error(void);

#ifdef __cplusplus
}
#endif
#endif
