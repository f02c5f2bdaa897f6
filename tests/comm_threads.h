/* comm_threads: a group of ranks that are threads of one process, so that what ranks do can be run under
 * sanitizers and without a launcher.
 */
#ifndef TESTS_COMM_THREADS_H
#define TESTS_COMM_THREADS_H

#include "backend/backend.h"

/* Runs rank(comm, user) once for each rank, each on a thread of its own; returns when all have. The second leaves
 * closing to the ranks. */
void comm_threads_run_leaving(int32_t n_ranks, void (*rank)(struct comm *comm, void *user), void *user);
void comm_threads_run(int32_t n_ranks, void (*rank)(struct comm *comm, void *user), void *user);

#endif
