/* fetch: rows of logits that stayed on the device, for the host after all: those that chose, for the digest. They
 * come by a stream of their own while the lane goes on:
 *
 *     lane   pass ─ choice ──┬──────────────── (wait) ─ next pass, into the same rows
 *     copy                   └─ row, row, row ───┘
 *     host                                   while the next pass runs: await, digest
 */
#include "backend/cuda/cuda.h"

bool cuda_fetch_open(struct cuda_backend *backend, struct cuda_fetch *fetch)
{
    return cuda_enter(backend) && cuda_partition_stream(backend, &fetch->stream) &&
           cuda_ok(backend, cudaEventCreateWithFlags(&fetch->ready, cudaEventDisableTiming), "making events") &&
           cuda_ok(backend, cudaEventCreateWithFlags(&fetch->fetched, cudaEventDisableTiming), "making events");
}

void cuda_fetch_close(struct cuda_fetch *fetch)
{
    if (fetch->stream != NULL) {
        (void)cudaStreamSynchronize(fetch->stream); /* after an error it may fail */
        (void)cudaStreamDestroy(fetch->stream);
    }
    if (fetch->ready != NULL) {
        (void)cudaEventDestroy(fetch->ready);
    }
    if (fetch->fetched != NULL) {
        (void)cudaEventDestroy(fetch->fetched);
    }
}

void cuda_fetch_hold(struct cuda_backend *backend, struct cuda_fetch *fetch, cudaStream_t stream)
{
    if (fetch->is_under_way) {
        cuda_ok(backend, cudaStreamWaitEvent(stream, fetch->fetched, 0), "waiting for rows to leave");
        fetch->is_under_way = false;
    }
}

/* Neighbours go in one copy. */
static void copy_rows(struct cuda_backend *backend, const struct cuda_fetch *fetch, const struct cuda_logits *rows,
                      const struct op_fetch *op, float *pinned)
{
    const size_t n_cols = (size_t)rows->n_cols;
    for (int32_t first = 0, end; first < op->n; first = end) {
        for (end = first + 1; end < op->n && op->rows[end] == op->rows[end - 1] + 1; end++) {
            ;
        }
        ASSERT(op->rows[first] >= 0 && op->rows[end - 1] < rows->n_rows);
        const size_t at = (size_t)op->rows[first] * n_cols, bytes = (size_t)(end - first) * n_cols * sizeof(float);
        cuda_ok(backend, cudaMemcpyAsync(pinned + at, rows->row + at, bytes, cudaMemcpyDeviceToHost, fetch->stream),
                "fetching logits");
    }
}

void cuda_run_fetch(struct lane *lane, struct pass_desk *desk, const struct op_fetch *op)
{
    struct cuda_backend *backend = cuda_backend_of(lane->backend);
    struct cuda_fetch *fetch = cuda_desk_fetch(desk);
    const struct cuda_logits rows = cuda_desk_rows(desk);
    if (op->n == 0 || !cuda_enter(backend)) {
        return;
    }
    cuda_ok(backend, cudaEventRecord(fetch->ready, cuda_lane_of(lane)->stream), "fetching logits");
    cuda_ok(backend, cudaStreamWaitEvent(fetch->stream, fetch->ready, 0), "fetching logits");
    copy_rows(backend, fetch, &rows, op, (float *)(uintptr_t)cuda_pass_logits(desk));
    cuda_ok(backend, cudaEventRecord(fetch->fetched, fetch->stream), "fetching logits");
    fetch->is_under_way = true;
}

enum status cuda_run_await(struct lane *lane, struct pass_desk *desk, const float **logits)
{
    struct cuda_backend *backend = cuda_backend_of(lane->backend);
    *logits = cuda_pass_logits(desk);
    if (cuda_enter(backend)) {
        cuda_ok(backend, cudaEventSynchronize(cuda_desk_fetch(desk)->fetched), "fetching logits");
    }
    return backend_health(lane->backend);
}
