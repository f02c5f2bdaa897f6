/* comm_nccl: ranks of devices, over NCCL. Arrays in device memory go from device to device; what lies in
 * host memory goes over the connections that also brought NCCL's id (comm_tcp.c), so that a rank that waits
 * for an order keeps no device busy, and one that dies is noticed.
 *
 * The exact plan gathers and adds for itself. add() is for the fast plan alone: NCCL adds along a ring or a
 * tree, in the order it finds best. Compiled with CUDA=1 NCCL=1; no command reaches it yet, as there are no
 * kernels for ranks on devices, and it has never run.
 */
#include <nccl.h>
#include <stdbool.h>
#include <unistd.h>

#include "backend/comm.h"

struct nccl_comm {
    struct comm base;
    struct comm *link; /* over TCP; owned */
    ncclComm_t nccl;
    cudaStream_t stream;
    int device;
};

static void fail(struct nccl_comm *comm, const char *what, const char *why)
{
    log_error("rank %d: %s failed: %s", comm->base.rank, what, why);
    comm->base.kind->abort(&comm->base);
}

static void must(struct nccl_comm *comm, ncclResult_t result, const char *what)
{
    if (result != ncclSuccess) {
        fail(comm, what, ncclGetErrorString(result));
    }
}

static void must_cuda(struct nccl_comm *comm, cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fail(comm, what, cudaGetErrorString(error));
    }
}

static bool is_on_device(const void *ptr)
{
    struct cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, ptr) == cudaSuccess &&
           attributes.type == cudaMemoryTypeDevice;
}

/* Whichever thread calls: the device is a thread's own setting. What was launched before has happened. */
static void enter(struct nccl_comm *comm)
{
    must_cuda(comm, cudaSetDevice(comm->device), "choosing a device");
    must_cuda(comm, cudaStreamSynchronize(cudaStreamLegacy), "waiting for a device");
}

static void leave(struct nccl_comm *comm)
{
    must_cuda(comm, cudaStreamSynchronize(comm->stream), "an exchange between devices");
}

/* Parts of different sizes: each rank in turn is the root of a broadcast of its own, all in one launch. */
static void gather_to_all(struct nccl_comm *comm, const struct comm_parts *parts)
{
    must(comm, ncclGroupStart(), "a gather");
    for (int32_t r = 0; r < comm->base.size; r++) {
        const size_t begin = parts->unit_floats * (size_t)parts->first[r];
        const size_t n = parts->unit_floats * (size_t)parts->first[r + 1] - begin;
        if (n > 0) {
            must(comm, ncclBroadcast(r == comm->base.rank ? parts->own : parts->all + begin, parts->all + begin, n,
                                     ncclUint32, r, comm->nccl, comm->stream), "a gather");
        }
    }
    must(comm, ncclGroupEnd(), "a gather");
}

static void gather_to_one(struct nccl_comm *comm, const struct comm_parts *parts)
{
    must(comm, ncclGroupStart(), "a gather to one rank");
    for (int32_t r = 0; r < comm->base.size; r++) {
        const size_t begin = parts->unit_floats * (size_t)parts->first[r];
        const size_t n = parts->unit_floats * (size_t)parts->first[r + 1] - begin;
        if (n > 0 && r == comm->base.rank) {
            must(comm, ncclSend(parts->own, n, ncclUint32, parts->root, comm->nccl, comm->stream), "a gather to one rank");
        }
        if (n > 0 && comm->base.rank == parts->root) {
            must(comm, ncclRecv(parts->all + begin, n, ncclUint32, r, comm->nccl, comm->stream), "a gather to one rank");
        }
    }
    must(comm, ncclGroupEnd(), "a gather to one rank");
}

static void nccl_gather(struct comm *base, const struct comm_parts *parts)
{
    struct nccl_comm *comm = (struct nccl_comm *)base;
    if (!is_on_device(parts->own)) {
        comm_gather(comm->link, parts);
        return;
    }
    enter(comm);
    if (parts->root == COMM_ALL) {
        gather_to_all(comm, parts);
    } else {
        gather_to_one(comm, parts);
    }
    leave(comm);
}

static void nccl_broadcast(struct comm *base, void *bytes, size_t n_bytes)
{
    comm_broadcast(((struct nccl_comm *)base)->link, bytes, n_bytes);
}

static void nccl_add(struct comm *base, float *x, size_t n)
{
    struct nccl_comm *comm = (struct nccl_comm *)base;
    enter(comm);
    must(comm, ncclAllReduce(x, x, n, ncclFloat32, ncclSum, comm->nccl, comm->stream), "a sum over ranks");
    leave(comm);
}

static void nccl_close(struct comm *base)
{
    struct nccl_comm *comm = (struct nccl_comm *)base;
    cudaSetDevice(comm->device);
    if (comm->nccl != NULL) {
        ncclCommDestroy(comm->nccl);
    }
    if (comm->stream != NULL) {
        cudaStreamDestroy(comm->stream);
    }
    comm_close(comm->link);
    mem_free(comm);
}

static void nccl_abort(struct comm *base)
{
    (void)base;
    _exit(1); /* connections end, and so do the others */
}

static const struct comm_kind nccl_kind = {
    .name = "nccl", .gather = nccl_gather, .broadcast = nccl_broadcast, .add = nccl_add, .close = nccl_close,
    .abort = nccl_abort,
};

static enum status join_devices(struct nccl_comm *comm)
{
    ncclUniqueId id;
    int n_devices = 0;
    enum status status = STATUS_OK;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices < 1) {
        status = status_fail(STATUS_UNSUPPORTED, "there is no device");
    } else {
        comm->device %= n_devices;
        if (cudaSetDevice(comm->device) != cudaSuccess || cudaStreamCreate(&comm->stream) != cudaSuccess ||
            (comm->base.rank == 0 && ncclGetUniqueId(&id) != ncclSuccess)) {
            status = status_fail(STATUS_IO, "device %d cannot be used", comm->device);
        }
    }
    TRY(comm_agree(comm->link, status));
    comm_broadcast(comm->link, &id, sizeof id);
    const ncclResult_t joined = ncclCommInitRank(&comm->nccl, comm->base.size, id, comm->base.rank);
    return comm_agree(comm->link, joined == ncclSuccess ? STATUS_OK
                                      : status_fail(STATUS_IO, "NCCL: %s", ncclGetErrorString(joined)));
}

enum status comm_nccl_open(const struct comm_place *place, struct comm **out)
{
    *out = NULL;
    struct nccl_comm *comm = mem_alloc(1, sizeof *comm);
    if (comm == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a group of ranks");
    }
    comm->base = (struct comm){ .kind = &nccl_kind, .rank = place->rank, .size = place->size, .local_size = 1,
                                .sharing_size = 1 };
    comm->device = place->local_rank;
    enum status status = comm_tcp_open(place, &comm->link);
    if (status == STATUS_OK) {
        status = join_devices(comm);
    }
    if (status != STATUS_OK) {
        nccl_close(&comm->base);
        return status;
    }
    *out = &comm->base;
    return STATUS_OK;
}
