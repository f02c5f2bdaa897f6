/* ops_ranks: what brings together what several ranks hold, on devices. With NCCL an exchange is a launch like any
 * other, and is recorded with them. Without, it goes through the host:
 *
 *     device ── own part ──► pinned stage ── comm_gather ──► pinned stage ── the others' parts ──► device
 *
 * The thread that submits waits for its part and talks to the other ranks itself. A function of the host that the
 * stream calls could do so too, but the driver may call those of several streams one after another, and two ranks
 * of one process would wait for each other for ever. So a pass is cut there, and none of it is recorded.
 */
#include <string.h>

#include "backend/cuda/cuda.h"

static size_t begin_of(const struct comm_parts *parts, int32_t rank)
{
    return parts->unit_floats * (size_t)parts->first[rank];
}

/* Floats [begin, end) of what was gathered, to the device. */
static bool put(struct cuda_lane *lane, const struct comm_parts *parts, const float *stage, size_t begin, size_t end)
{
    return begin == end ||
           cuda_ok(cuda_lane_backend(lane), cudaMemcpyAsync(parts->all + begin, stage + begin, (end - begin) * sizeof(float),
                   cudaMemcpyHostToDevice, lane->stream), "an exchange between ranks");
}

/* This rank's part, to where the others are told it lies. */
static bool fetch(struct cuda_lane *lane, const float *from, float *to, size_t n_floats)
{
    struct cuda_backend *backend = cuda_lane_backend(lane);
    if (cuda_lane_enter(lane) == NULL) {
        return false;
    }
    if (n_floats > 0 && !cuda_ok(backend, cudaMemcpyAsync(to, from, n_floats * sizeof(float), cudaMemcpyDeviceToHost,
                                                          lane->stream), "an exchange between ranks")) {
        return false;
    }
    return cuda_ok(backend, cudaStreamSynchronize(lane->stream), "a pass");
}

/* A rank that receives has its own part in place already, if that is where it was computed. */
static void give_back(struct cuda_lane *lane, const struct op_exchange *op, const float *own, const float *stage)
{
    const struct comm_parts *parts = &op->parts;
    const int32_t rank = op->comm->rank;
    const size_t begin = begin_of(parts, rank), end = begin_of(parts, rank + 1);
    const size_t all = begin_of(parts, op->comm->size);
    if (own == parts->all + begin) {
        (void)(put(lane, parts, stage, 0, begin) && put(lane, parts, stage, end, all));
    } else {
        (void)put(lane, parts, stage, 0, all);
    }
}

/* The stage is free again when the copy back has been passed: fetch() of the next exchange waits for it. */
static void run_through_host(struct cuda_lane *lane, const struct op_exchange *op, const float *own)
{
    struct lane *base = &lane->base;
    const int32_t rank = op->comm->rank;
    const bool receives = op->parts.root == COMM_ALL || op->parts.root == rank;
    const size_t begin = begin_of(&op->parts, rank), n_own = begin_of(&op->parts, rank + 1) - begin;
    if (backend_health(base->backend) != STATUS_OK) {
        comm_give_up(op->comm); /* at once: the others wait for this part */
        return;
    }
    float *stage = cuda_desk_stage(lane->desk, receives ? begin_of(&op->parts, op->comm->size) : n_own);
    float *stage_own = receives ? stage + begin : stage;
    if (!fetch(lane, own, stage_own, n_own)) {
        (void)backend_health(base->backend); /* has the sentence */
        comm_give_up(op->comm);
        return;
    }
    struct comm_parts parts = op->parts;
    parts.own = stage_own;
    parts.all = stage;
    comm_gather(op->comm, &parts);
    if (receives) {
        give_back(lane, op, own, stage);
    }
}

static void run_on_stream(struct cuda_lane *lane, const struct op_exchange *op, const float *own)
{
    struct cuda_backend *backend = cuda_lane_backend(lane);
    const cudaStream_t stream = cuda_lane_enter(lane);
    struct comm_parts parts = op->parts;
    parts.own = own;
    const char *why = stream != NULL ? comm_nccl_gather(backend->nccl, &parts, stream) : NULL;
    if (why != NULL) {
        cuda_fail(backend, "an exchange between ranks", why);
    }
}

void cuda_run_exchange(struct lane *base, const struct op_exchange *op)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    const float *own = op->parts.own != NULL ? op->parts.own : op->parts.all + begin_of(&op->parts, op->comm->rank);
    if (cuda_lane_backend(lane)->nccl != NULL) {
        run_on_stream(lane, op, own);
    } else {
        run_through_host(lane, op, own);
    }
}

enum status cuda_ranks_open(struct backend *base, struct comm *comm)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    cuda_ranks_close(base);
    return comm_nccl_open(comm, backend->device, &backend->nccl);
}

void cuda_ranks_close(struct backend *base)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    comm_nccl_close(backend->nccl);
    backend->nccl = NULL;
}

void cuda_run_fold(struct lane *lane, const struct op_fold *op)
{
    const struct cuda_op_fold job = { op->sums, op->x, op->n_groups, op->n_rows, op->n_cols };
    CUDA_RUN(lane, cuda_fold, &job, "sums of ranks");
}

void cuda_run_columns(struct lane *lane, const struct op_columns *op)
{
    struct cuda_op_columns job = { .parts = op->parts, .add = op->add, .out = op->out, .n_ranks = op->n_ranks,
                                   .n_rows = op->n_rows };
    ASSERT(op->n_ranks >= 1 && op->n_ranks <= CUDA_MAX_RANKS);
    memcpy(job.first, op->first, (size_t)(op->n_ranks + 1) * sizeof *job.first);
    CUDA_RUN(lane, cuda_columns, &job, "columns of ranks");
}

void cuda_run_pick(struct lane *lane, const struct op_pick *op)
{
    const struct cuda_op_pick job = { op->x, op->part, op->out, op->n_rows, op->n_cols };
    CUDA_RUN(lane, cuda_pick, &job, "rows of ranks");
}
