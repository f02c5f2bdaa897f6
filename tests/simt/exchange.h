/* exchange: between the emulated runtime, on whose streams exchanges of ranks stand, and the emulated NCCL, which
 * knows what they are. An exchange happens when all its ranks have come to it; who comes last does the copies.
 */
#ifndef TESTS_SIMT_EXCHANGE_H
#define TESTS_SIMT_EXCHANGE_H

#include <pthread.h>

#include "tests/simt/include/cuda_runtime_api.h"

/* ---- nccl.cpp ---- */
struct simt_exchange;
/* With the lock held. Whether it has happened, or never will; waits for that if it may. `lock` is let go meanwhile. */
bool simt_exchange_run(simt_exchange *exchange, bool may_wait, pthread_mutex_t *lock);
void simt_exchange_free(simt_exchange *exchange);

/* ---- runtime.cpp ---- */
/* Onto a stream of the device that is the calling thread's; *is_recorded: into a graph. False: it was refused. */
bool simt_put_exchange(cudaStream_t stream, simt_exchange *exchange, bool *is_recorded);
pthread_mutex_t *simt_lock(void);
int simt_current_device(void);
bool simt_is_of_device(const void *ptr, size_t bytes, int device);
void simt_open_devices(bool open); /* all of them, to the host */

#endif
