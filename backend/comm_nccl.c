/* comm_nccl: see the header.
 *
 *     rank 0's id ── comm, host memory ──► every rank ──► communicator
 *     lane's stream   ... kernel, gather, kernel ...      the host waits for nothing
 *
 * Only copies are asked of NCCL: AllGather, or a broadcast of each rank's part where parts differ, or sends to one.
 * Words travel as 32-bit integers. It adds up in whatever order suits it, so sums are made by our own kernels.
 *
 * NCCL's rules, and how they are kept. Every rank makes the same calls in the same order: passes are the same on all,
 * and one lane at a time exchanges. Calls may be recorded into a graph (2.9 on); a pass runs twice before it is
 * recorded, so connections are there. Graphs go before the communicator does: buffers of passes before models.
 * Errors of what is under way are asked for (ncclCommGetAsyncError), and after one the communicator is aborted, which
 * ends the kernels that wait. A rank that died is no error of NCCL's where devices see each other's memory, so the
 * connection in host memory is looked at too.
 */
#include <nccl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "backend/comm_nccl.h"

enum { SENTENCE_CAP = 256, BUS_ID_CAP = 32 };

struct comm_nccl {
    struct comm *comm; /* borrowed */
    pthread_mutex_t mutex; /* of what follows: a draft's lane on the device may watch while a pass is submitted */
    ncclComm_t nccl;   /* NULL: given up */
    char sentence[SENTENCE_CAP];
};

/* ---- who there is ---- */

/* What a rank says of itself, as ranks exchange it. */
struct presence {
    uint64_t device; /* a digest that no other device has */
    int32_t version; /* 0: no NCCL here */
    int32_t unused;
};
enum { PRESENCE_FLOATS = sizeof(struct presence) / sizeof(float) };

static struct presence presence_of(const struct comm *comm, int device)
{
    struct presence own = { .device = 0 };
    struct digest digest;
    char bus_id[BUS_ID_CAP] = "";
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess || cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, device) != cudaSuccess) {
        return own;
    }
    digest_init(&digest);
    digest_update(&digest, &comm->machine, sizeof comm->machine);
    digest_update(&digest, bus_id, strlen(bus_id));
    own.device = digest_value(&digest);
    own.version = version;
    return own;
}

/* NULL, or why exchanges go through the host; the same on all ranks. */
static const char *why_not(const struct presence *all, int32_t n_ranks)
{
    for (int32_t r = 0; r < n_ranks; r++) {
        if (all[r].version == 0) {
            return "NCCL cannot be used on every rank";
        }
        for (int32_t other = 0; other < r; other++) {
            if (all[other].device == all[r].device) {
                return "two ranks share a GPU";
            }
        }
    }
    return NULL;
}

static const char *ask_all(struct comm *comm, int device)
{
    struct presence all[COMM_MAX_RANKS];
    float sent[PRESENCE_FLOATS], received[COMM_MAX_RANKS * PRESENCE_FLOATS];
    int32_t first[COMM_MAX_RANKS + 1];
    const struct presence own = presence_of(comm, device);
    for (int32_t r = 0; r <= comm->size; r++) {
        first[r] = r;
    }
    memset(received, 0, sizeof received);
    memcpy(sent, &own, sizeof own);
    comm_gather(comm, &(struct comm_parts){ .own = sent, .all = received, .first = first,
                                            .unit_floats = PRESENCE_FLOATS, .root = COMM_ALL });
    memcpy(all, received, (size_t)comm->size * sizeof *all);
    return why_not(all, comm->size);
}

/* ---- opening ---- */

static enum status of_nccl(ncclResult_t result, const char *what)
{
    return result == ncclSuccess ? STATUS_OK : status_fail(STATUS_IO, "NCCL: %s: %s", what, ncclGetErrorString(result));
}

static enum status join(struct comm_nccl *nccl, int device)
{
    struct comm *comm = nccl->comm;
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    TRY(comm_agree(comm, comm->rank == 0 ? of_nccl(ncclGetUniqueId(&id), "naming a group") : STATUS_OK));
    comm_broadcast(comm, &id, sizeof id);
    enum status status = comm_check(comm);
    if (status == STATUS_OK && cudaSetDevice(device) != cudaSuccess) {
        status = status_fail(STATUS_IO, "device %d cannot be used", device);
    }
    TRY(comm_agree(comm, status)); /* before all wait for each other in there */
    return comm_agree(comm, of_nccl(ncclCommInitRank(&nccl->nccl, comm->size, id, comm->rank), "joining a group"));
}

enum status comm_nccl_open(struct comm *comm, int device, struct comm_nccl **out)
{
    *out = NULL;
    const char *why = ask_all(comm, device);
    if (why != NULL) {
        if (comm->rank == 0) {
            log_info("exchanges between GPUs go through the host: %s", why);
        }
        return STATUS_OK;
    }
    struct comm_nccl *nccl = mem_alloc(1, sizeof *nccl);
    enum status status = comm_agree(comm, nccl != NULL ? STATUS_OK : status_fail(STATUS_NO_MEMORY,
                                                                                 "no memory for a group of devices"));
    if (status != STATUS_OK) {
        mem_free(nccl); /* another's failed */
        return status;
    }
    nccl->comm = comm;
    pthread_mutex_init(&nccl->mutex, NULL);
    status = join(nccl, device);
    if (status != STATUS_OK) {
        if (nccl->nccl != NULL) {
            (void)ncclCommAbort(nccl->nccl);
        }
        pthread_mutex_destroy(&nccl->mutex);
        mem_free(nccl);
        return status;
    }
    *out = nccl;
    return STATUS_OK;
}

void comm_nccl_close(struct comm_nccl *nccl)
{
    if (nccl == NULL) {
        return;
    }
    if (nccl->nccl != NULL && comm_check(nccl->comm) == STATUS_OK) {
        (void)ncclCommDestroy(nccl->nccl);
    } else if (nccl->nccl != NULL) {
        (void)ncclCommAbort(nccl->nccl); /* the others will not come */
    }
    pthread_mutex_destroy(&nccl->mutex);
    mem_free(nccl);
}

/* ---- exchanges ---- */

struct span { size_t begin, n; };

static struct span span_of(const struct comm_parts *parts, int32_t rank)
{
    const size_t begin = parts->unit_floats * (size_t)parts->first[rank];
    return (struct span){ begin, parts->unit_floats * (size_t)parts->first[rank + 1] - begin };
}

static bool all_alike(const struct comm_parts *parts, int32_t n_ranks)
{
    for (int32_t r = 1; r < n_ranks; r++) {
        if (span_of(parts, r).n != span_of(parts, 0).n) {
            return false;
        }
    }
    return true;
}

/* Each rank in turn is the root of a broadcast of its own, all in one launch. */
static ncclResult_t broadcast_parts(struct comm_nccl *nccl, const struct comm_parts *parts, cudaStream_t stream)
{
    ncclResult_t result = ncclSuccess;
    for (int32_t r = 0; r < nccl->comm->size && result == ncclSuccess; r++) {
        const struct span span = span_of(parts, r);
        const float *from = r == nccl->comm->rank ? parts->own : parts->all + span.begin;
        if (span.n > 0) {
            result = ncclBroadcast(from, parts->all + span.begin, span.n, ncclUint32, r, nccl->nccl, stream);
        }
    }
    return result;
}

static ncclResult_t send_parts(struct comm_nccl *nccl, const struct comm_parts *parts, cudaStream_t stream)
{
    const int32_t rank = nccl->comm->rank;
    ncclResult_t result = ncclSuccess;
    for (int32_t r = 0; r < nccl->comm->size && result == ncclSuccess; r++) {
        const struct span span = span_of(parts, r);
        const bool stays = r == parts->root && (rank != r || parts->own == parts->all + span.begin);
        if (span.n > 0 && r == rank && !stays) {
            result = ncclSend(parts->own, span.n, ncclUint32, parts->root, nccl->nccl, stream);
        }
        if (span.n > 0 && rank == parts->root && !stays && result == ncclSuccess) {
            result = ncclRecv(parts->all + span.begin, span.n, ncclUint32, r, nccl->nccl, stream);
        }
    }
    return result;
}

/* A group is ended whatever happened in it: what was begun in a thread would swallow its later calls. */
static ncclResult_t in_one(ncclResult_t (*submit)(struct comm_nccl *, const struct comm_parts *, cudaStream_t),
                           struct comm_nccl *nccl, const struct comm_parts *parts, cudaStream_t stream)
{
    const ncclResult_t begun = ncclGroupStart();
    if (begun != ncclSuccess) {
        return begun;
    }
    const ncclResult_t submitted = submit(nccl, parts, stream), ended = ncclGroupEnd();
    return submitted != ncclSuccess ? submitted : ended;
}

static const char *give_up(struct comm_nccl *nccl, const char *what, const char *why)
{
    snprintf(nccl->sentence, sizeof nccl->sentence, "NCCL: %s: %s", what, why);
    if (nccl->nccl != NULL) {
        (void)ncclCommAbort(nccl->nccl);
        nccl->nccl = NULL;
    }
    return nccl->sentence;
}

static const char *gather(struct comm_nccl *nccl, const struct comm_parts *parts, cudaStream_t stream)
{
    ncclResult_t result;
    if (nccl->nccl == NULL) {
        return nccl->sentence;
    }
    if (parts->root != COMM_ALL) {
        result = in_one(send_parts, nccl, parts, stream);
    } else if (all_alike(parts, nccl->comm->size)) {
        result = ncclAllGather(parts->own, parts->all, span_of(parts, 0).n, ncclUint32, nccl->nccl, stream);
    } else {
        result = in_one(broadcast_parts, nccl, parts, stream);
    }
    return result == ncclSuccess ? NULL : give_up(nccl, "an exchange between devices", ncclGetErrorString(result));
}

const char *comm_nccl_gather(struct comm_nccl *nccl, const struct comm_parts *parts, struct CUstream_st *stream)
{
    pthread_mutex_lock(&nccl->mutex);
    const char *why = gather(nccl, parts, stream);
    pthread_mutex_unlock(&nccl->mutex);
    return why;
}

static const char *watch(struct comm_nccl *nccl)
{
    ncclResult_t state = ncclSuccess;
    if (nccl->nccl == NULL) {
        return nccl->sentence;
    }
    const ncclResult_t asked = ncclCommGetAsyncError(nccl->nccl, &state);
    if (asked != ncclSuccess || (state != ncclSuccess && state != ncclInProgress)) {
        return give_up(nccl, "an exchange under way", ncclGetErrorString(asked != ncclSuccess ? asked : state));
    }
    return comm_is_alive(nccl->comm) ? NULL : give_up(nccl, "an exchange under way", "another rank is gone");
}

const char *comm_nccl_watch(struct comm_nccl *nccl)
{
    pthread_mutex_lock(&nccl->mutex);
    const char *why = watch(nccl);
    pthread_mutex_unlock(&nccl->mutex);
    return why;
}
