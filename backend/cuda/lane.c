/* lane: a stream, and beside it a lane of the host's workers. See cuda.h.
 *
 *     tickets   1 event   2 event   3 host   4 event        n_submitted = 4
 *
 * Events of one stream come in order, and each side begins only when the other has ended, so waiting for a
 * ticket is waiting for all before it; an old ticket whose event was taken again is covered by a later one.
 */
#include "backend/cuda/cuda.h"

/* ---- creation ---- */
static enum status open_stream(struct cuda_lane *lane)
{
    struct cuda_backend *backend = cuda_lane_backend(lane);
    if (!cuda_enter(backend) ||
        !cuda_partition_stream(backend, &lane->stream)) {
        return backend_health(lane->base.backend);
    }
    for (int i = 0; i < CUDA_TICKETS; i++) {
        if (!cuda_ok(backend, cudaEventCreateWithFlags(&lane->ring[i].event, cudaEventDisableTiming), "making events")) {
            return backend_health(lane->base.backend);
        }
    }
    return STATUS_OK;
}

enum status cuda_lane_create(struct backend *backend, const struct lane_options *options, struct lane **out)
{
    *out = NULL;
    struct cuda_lane *lane = mem_alloc(1, sizeof *lane);
    if (lane == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a lane of %s", backend_name(backend));
    }
    lane->base = (struct lane){ .ops = backend->ops, .backend = backend, .n_workers = options->n_workers };
    lane->is_marked = true;
    enum status status = cpu_lane_create(backend, options, &lane->host);
    if (status == STATUS_OK) {
        status = open_stream(lane);
    }
    if (status != STATUS_OK) {
        cuda_lane_destroy(&lane->base);
        return status;
    }
    *out = &lane->base;
    return STATUS_OK;
}

void cuda_lane_stop(struct lane *base)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    if (lane->stream != NULL) {
        cuda_lane_wait(base, cuda_lane_mark(base));
    }
    lane_stop(lane->host);
}

void cuda_lane_destroy(struct lane *base)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    cuda_lane_stop(base);
    lane_destroy(lane->host);
    /* After an error these may fail too; there is nobody left to tell. */
    (void)cudaSetDevice(cuda_lane_backend(lane)->device);
    for (int i = 0; i < CUDA_TICKETS && lane->ring[i].event != NULL; i++) {
        (void)cudaEventDestroy(lane->ring[i].event);
    }
    if (lane->stream != NULL) {
        (void)cudaStreamDestroy(lane->stream);
    }
    mem_free(lane);
}

/* ---- order ---- */
static bool host_is_busy(const struct cuda_lane *lane)
{
    return lane->n_done < lane->n_submitted && lane->ring[lane->n_submitted % CUDA_TICKETS].host != 0;
}

static struct cuda_ticket *next_ticket(struct cuda_lane *lane)
{
    return &lane->ring[++lane->n_submitted % CUDA_TICKETS];
}

cudaStream_t cuda_lane_enter(struct cuda_lane *lane)
{
    if (host_is_busy(lane)) {
        cuda_lane_wait(&lane->base, lane->n_submitted);
    }
    if (!cuda_enter(cuda_lane_backend(lane))) {
        return NULL;
    }
    if (lane->is_marked && lane->n_done == lane->n_submitted) {
        lane->busy_since_ns = clock_now_ns();
    }
    lane->is_marked = false;
    return lane->stream;
}

uint64_t cuda_lane_mark(struct lane *base)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    struct cuda_backend *backend = cuda_lane_backend(lane);
    if (lane->is_marked) {
        return lane->n_submitted;
    }
    struct cuda_ticket *ticket = next_ticket(lane);
    ticket->host = 0;
    lane->is_marked = true;
    if (cuda_enter(backend)) {
        cuda_ok(backend, cudaEventRecord(ticket->event, lane->stream), "recording an event");
    }
    return lane->n_submitted;
}

uint64_t cuda_lane_submit(struct lane *base, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    if (!lane->is_marked || (lane->n_done < lane->n_submitted && !host_is_busy(lane))) {
        cuda_lane_wait(base, cuda_lane_mark(base));
    }
    const uint64_t host = lane->host->ops->lane_submit(lane->host, fn, args, args_bytes, n_chunks);
    next_ticket(lane)->host = host;
    return lane->n_submitted;
}

/* The ticket itself, or a later one that still is in the ring. */
static uint64_t still_held(const struct cuda_lane *lane, uint64_t ticket)
{
    return ticket + CUDA_TICKETS > lane->n_submitted ? ticket : lane->n_submitted - CUDA_TICKETS + 1;
}

static void reached(struct cuda_lane *lane, uint64_t ticket)
{
    lane->n_done = ticket;
    if (ticket == lane->n_submitted && lane->is_marked && lane->busy_since_ns != 0) {
        atomic_fetch_add_explicit(&lane->busy_ns, clock_now_ns() - lane->busy_since_ns, memory_order_relaxed);
        lane->busy_since_ns = 0;
    }
}

/* Other ranks may never come to an exchange that the event is behind, so that is looked at now and then. */
static void wait_for(struct cuda_backend *backend, cudaEvent_t event)
{
    enum { LOOKS = 1024 };
    if (backend->nccl == NULL) {
        cuda_ok(backend, cudaEventSynchronize(event), "a pass");
        return;
    }
    cudaError_t error = cudaEventQuery(event);
    for (int64_t looks = 1; error == cudaErrorNotReady; looks++) {
        const char *why = looks % LOOKS == 0 ? comm_nccl_watch(backend->nccl) : NULL;
        if (why != NULL) {
            cuda_fail(backend, "a pass of several ranks", why);
            return;
        }
        error = cudaEventQuery(event);
    }
    cuda_ok(backend, error, "a pass");
}

void cuda_lane_wait(struct lane *base, uint64_t ticket)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    struct cuda_backend *backend = cuda_lane_backend(lane);
    if (ticket <= lane->n_done) {
        return;
    }
    const uint64_t held = still_held(lane, ticket);
    const struct cuda_ticket *at = &lane->ring[held % CUDA_TICKETS];
    if (at->host != 0) {
        lane_wait(lane->host, at->host);
    } else if (cuda_enter(backend)) {
        wait_for(backend, at->event);
    }
    reached(lane, held);
}

bool cuda_lane_done(struct lane *base, uint64_t ticket)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    struct cuda_backend *backend = cuda_lane_backend(lane);
    if (ticket <= lane->n_done) {
        return true;
    }
    const uint64_t held = still_held(lane, ticket);
    const struct cuda_ticket *at = &lane->ring[held % CUDA_TICKETS];
    if (at->host != 0) {
        return lane_done(lane->host, at->host);
    }
    if (!cuda_enter(backend)) {
        return true; /* nothing more will come */
    }
    const cudaError_t error = cudaEventQuery(at->event);
    if (error == cudaErrorNotReady) {
        return false;
    }
    cuda_ok(backend, error, "a pass");
    reached(lane, held);
    return true;
}

/* ---- the host's side ---- */
void cuda_lane_idle_until(struct lane *base, const atomic_int *until)
{
    lane_idle_until(cuda_lane_of(base)->host, until);
}

void cuda_lane_wake(struct lane *base) { lane_wake(cuda_lane_of(base)->host); }
void cuda_lane_pin_caller(const struct lane *base) { lane_pin_caller(((const struct cuda_lane *)base)->host); }

int64_t cuda_lane_busy_ns(const struct lane *base)
{
    const struct cuda_lane *lane = (const struct cuda_lane *)base;
    return atomic_load_explicit(&lane->busy_ns, memory_order_relaxed) + lane_busy_ns(lane->host);
}
