/* comm: the ranks of a group, processes that compute one model together. Part of the door backend.h.
 *
 * A kind is one file behind a table: single (a group of one), mpi (processes started by mpirun or srun;
 * comm_mpi.c, with MPI=1), tcp (processes that know where rank 0 is) and threads (of this process, a device each).
 * What lies in device memory goes its own way (comm_nccl.h), beside any of them. All ranks make the same calls in
 * the same order, one at a time; which thread of a rank makes them does not matter. A call returns when this rank's
 * part is done. A group that breaks while it works cannot go on: the process ends with one sentence, and the
 * launcher ends the others; ranks that are threads are told by comm_check(), and calls return at once, with
 * nothing. Nothing here adds numbers up: sums are made by every rank, in the canonical order, from what all
 * contributed.
 */
#ifndef BACKEND_COMM_H
#define BACKEND_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

enum { COMM_MAX_RANKS = 8, COMM_ALL = -1 };

/* What ranks contribute to one array: rank r the floats from unit_floats * first[r] up to unit_floats *
 * first[r + 1], maybe none. */
struct comm_parts {
    const float *own;     /* this rank's; may lie at its place in `all` */
    float *all;           /* where the whole goes; not read on ranks that do not receive */
    const int32_t *first; /* [size + 1], from 0, ascending */
    size_t unit_floats;
    int32_t root;         /* who receives: one rank, or COMM_ALL */
};

struct comm;
struct comm_kind {
    const char *name;
    void (*gather)(struct comm *comm, const struct comm_parts *parts);
    void (*broadcast)(struct comm *comm, void *bytes, size_t n_bytes); /* rank 0's; may wait idle for long */
    void (*close)(struct comm *comm); /* all ranks; frees */
    /* This rank has failed: ends the others too. Returns only where broken is not NULL. */
    void (*abort)(struct comm *comm, const char *why);
    const char *(*broken)(const struct comm *comm); /* why, or NULL: it is not; NULL: who breaks ends the process */
    int (*is_alive)(struct comm *comm); /* whether the others are; from any call's thread, between calls; NULL: yes */
};
struct comm {
    const struct comm_kind *kind;
    int32_t rank, size;
    int32_t local_size, local_rank;   /* ranks on this machine, and this one's place among them */
    int32_t sharing_rank, sharing_size; /* among those of them that may use the very same cores */
    uint64_t machine;                 /* a number that ranks on this machine have alone */
};

static inline void comm_gather(struct comm *comm, const struct comm_parts *parts)
{
    comm->kind->gather(comm, parts);
}
static inline void comm_broadcast(struct comm *comm, void *bytes, size_t n_bytes)
{
    comm->kind->broadcast(comm, bytes, n_bytes);
}
/* Returns when all ranks have come here. */
void comm_barrier(struct comm *comm);
/* All ranks tell how they fared; STATUS_OK when all did well, else the failure of the lowest rank that
 * failed, on every rank, with its sentence. `status` is this rank's, its sentence the thread's last. */
enum status comm_agree(struct comm *comm, enum status status);
void comm_close(struct comm *comm); /* NULL is fine */
/* This rank cannot go on, for the reason that is the thread's last sentence: says it, once, and breaks the group. */
void comm_give_up(struct comm *comm);
/* 0: another rank is known to have gone. For who waits elsewhere for it. */
int comm_is_alive(struct comm *comm);
/* STATUS_OK, or why a group of threads cannot go on. */
enum status comm_check(const struct comm *comm);

/* The group this process was started in, by what its launcher left in the environment: a group of one
 * without a launcher. STATUS_UNSUPPORTED with a sentence when it was started in a group that this build
 * cannot join, or cannot use. */
enum status comm_join(struct comm **out);
/* This process's place by the launcher's environment alone; 0 without one. Says nothing of comm_join(). */
int32_t comm_launched_rank(void);
enum status comm_single_open(struct comm **out);
/* Ranks that are threads of this process: all members at once, for a thread each. Closed each on its own; the last
 * one's close frees the group. */
enum status comm_threads_open(int32_t size, struct comm *members[COMM_MAX_RANKS]);
enum status comm_mpi_open(struct comm **out);  /* comm_mpi.c, or comm_mpi_none.c which refuses */
/* Where rank 0 listens, and who this is: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. */
struct comm_place { int32_t rank, size; const char *address; int32_t port; };
/* Everything goes through rank 0. Waits up to a minute for the others. */
enum status comm_tcp_open(const struct comm_place *place, struct comm **out);

#endif
