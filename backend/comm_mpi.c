/* comm_mpi: ranks that mpirun or srun started, over MPI.
 *
 * One thread at a time calls in here, whichever it is (MPI_THREAD_SERIALIZED). A gather is waited for as
 * MPI likes to wait, at work; a broadcast may be minutes away while rank 0 has no requests, so whoever
 * waits for one looks often at first, then sleeps between looks. Words travel as 32-bit integers: what
 * they mean is nobody's business on the way. Deliberately no reductions: MPI may add in any order.
 */
#include <mpi.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "backend/comm.h"

static const int64_t LOOK_NS = 2 * 1000 * 1000; /* longer than between two passes */
enum { SLEEP_NS = 100 * 1000 };

struct mpi_comm {
    struct comm base;
    int count[COMM_MAX_RANKS], begin[COMM_MAX_RANKS]; /* of the gather that runs */
};

static void must(const struct comm *comm, int code, const char *what)
{
    if (code != MPI_SUCCESS) {
        char text[MPI_MAX_ERROR_STRING];
        int n = 0;
        MPI_Error_string(code, text, &n);
        log_error("rank %d: %s failed: %.*s", comm->rank, what, n, text);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

static void plan_gather(struct mpi_comm *comm, const struct comm_parts *parts)
{
    for (int32_t r = 0; r < comm->base.size; r++) {
        const uint64_t begin = (uint64_t)parts->first[r] * parts->unit_floats;
        const uint64_t end = (uint64_t)parts->first[r + 1] * parts->unit_floats;
        ASSERT(begin <= end && end <= INT32_MAX); /* 8 GB: MPI counts in int */
        comm->begin[r] = (int)begin;
        comm->count[r] = (int)(end - begin);
    }
}

static void mpi_gather(struct comm *base, const struct comm_parts *parts)
{
    struct mpi_comm *comm = (struct mpi_comm *)base;
    const int own = base->rank;
    plan_gather(comm, parts);
    const bool receives = parts->root == COMM_ALL || parts->root == own;
    const void *from = parts->own;
    if (receives && parts->own == parts->all + comm->begin[own]) {
        from = MPI_IN_PLACE;
    }
    if (parts->root == COMM_ALL) {
        must(base, MPI_Allgatherv(from, comm->count[own], MPI_UINT32_T, parts->all, comm->count, comm->begin,
                                  MPI_UINT32_T, MPI_COMM_WORLD), "a gather");
    } else {
        must(base, MPI_Gatherv(from, comm->count[own], MPI_UINT32_T, parts->all, comm->count, comm->begin,
                               MPI_UINT32_T, parts->root, MPI_COMM_WORLD), "a gather to one rank");
    }
}

static void mpi_broadcast(struct comm *base, void *bytes, size_t n_bytes)
{
    MPI_Request request;
    int done = 0;
    ASSERT(n_bytes <= INT32_MAX);
    must(base, MPI_Ibcast(bytes, (int)n_bytes, MPI_BYTE, 0, MPI_COMM_WORLD, &request), "a broadcast");
    for (const int64_t begin_ns = clock_now_ns(); !done;) {
        must(base, MPI_Test(&request, &done, MPI_STATUS_IGNORE), "a broadcast");
        if (!done && clock_now_ns() - begin_ns > LOOK_NS) {
            nanosleep(&(struct timespec){ .tv_nsec = SLEEP_NS }, NULL);
        } else if (!done) {
            sched_yield();
        }
    }
}

static void mpi_close(struct comm *base)
{
    MPI_Finalize();
    mem_free(base);
}

static void mpi_abort(struct comm *base, const char *why)
{
    (void)base;
    (void)why; /* said already */
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static const struct comm_kind mpi_kind = {
    .name = "mpi", .gather = mpi_gather, .broadcast = mpi_broadcast, .close = mpi_close, .abort = mpi_abort,
};

static int size_of(MPI_Comm world)
{
    int size = 1;
    MPI_Comm_size(world, &size);
    return size;
}

enum status comm_mpi_open(struct comm **out)
{
    int provided = MPI_THREAD_SINGLE, rank = 0;
    *out = NULL;
    struct mpi_comm *comm = mem_alloc(1, sizeof *comm);
    if (comm == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a group of ranks");
    }
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_SERIALIZED) {
        mem_free(comm);
        return status_fail(STATUS_UNSUPPORTED, "this MPI cannot be called from several threads");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    comm->base = (struct comm){ .kind = &mpi_kind, .rank = rank, .size = size_of(MPI_COMM_WORLD),
                                .local_size = 1, .sharing_size = 1 };
    *out = &comm->base;
    return STATUS_OK;
}
