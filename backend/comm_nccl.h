/* comm_nccl: exchanges between ranks whose arrays lie in device memory, over NCCL. Private to backend; used by
 * backend/cuda, which goes through the host where there is none. comm_nccl.c, or comm_nccl_none.c without NCCL=1.
 */
#ifndef BACKEND_COMM_NCCL_H
#define BACKEND_COMM_NCCL_H

#include "backend/comm.h"

struct CUstream_st; /* cudaStream_t is a pointer to it */
struct comm_nccl;

/* All ranks of `comm` together, each with its device. *out is NULL on every rank where one of them has no NCCL, or
 * where two share a device, which NCCL refuses; a line of the log says why. Borrows comm. */
enum status comm_nccl_open(struct comm *comm, int device, struct comm_nccl **out);
/* When graphs that hold exchanges are gone; all ranks. NULL is fine. */
void comm_nccl_close(struct comm_nccl *nccl);
/* As comm_gather(), of device memory; takes its turn on the stream, also while that is recorded. parts.own is set, and
 * parts.first is read now. NULL, or what went wrong. */
const char *comm_nccl_gather(struct comm_nccl *nccl, const struct comm_parts *parts, struct CUstream_st *stream);
/* NULL, or what has gone wrong since with an exchange that waits for others: a link, or a rank that is gone. Then
 * exchanges under way are given up, and the communicator with them. */
const char *comm_nccl_watch(struct comm_nccl *nccl);

#endif
