/* worker: connections, and the turn of the serving thread. See worker.h. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "draft/worker_private.h"

enum {
    DEFAULT_TARGETS = 16,
    MAX_TARGETS = 256,
    TURN_MS = 500,                 /* how often is_over is asked while nothing happens */
    TABLE_BYTES = 12 << 10         /* of a full table, with room to spare */
};
static const int64_t GREETING_NS = 5000000000; /* a connection that says nothing is no target */

_Static_assert((int)RPC_MAX_CHAIN == (int)DRAFT_MAX_NODES && (int)RPC_MAX_BRANCHES == (int)FANOUT_MAX_BUDGET,
               "the wire carries what a draft makes");

/* ---- creation ---- */
static enum status check_options(struct draft_worker_options *options)
{
    options->max_targets = options->max_targets == 0 ? DEFAULT_TARGETS : options->max_targets;
    if (options->max_batch < 1 || options->max_batch > RPC_MAX_SEQUENCES || options->max_targets < 1 ||
        options->max_targets > MAX_TARGETS) {
        return status_fail(STATUS_INVALID, "expected a draft worker of 1 to %d sequences and 1 to %d targets, found "
                           "%d and %d", RPC_MAX_SEQUENCES, MAX_TARGETS, options->max_batch, options->max_targets);
    }
    if (options->max_budget < 1 || options->max_budget > FANOUT_MAX_BUDGET) {
        return status_fail(STATUS_INVALID, "expected a budget of 1 to %d outcomes to prepare for, found %d",
                           FANOUT_MAX_BUDGET, options->max_budget);
    }
    if (options->k_max < 1 || options->k_max > DRAFT_MAX_NODES || options->context < 1 ||
        options->context > RPC_MAX_CONTEXT || options->n_vocab < 1 || options->n_vocab > RPC_MAX_VOCAB) {
        return status_fail(STATUS_INVALID, "expected K of 1 to %d, a context of at most %d and at most %d ids of a "
                           "draft worker, found %d, %d and %d", DRAFT_MAX_NODES, RPC_MAX_CONTEXT, RPC_MAX_VOCAB,
                           options->k_max, options->context, options->n_vocab);
    }
    return STATUS_OK;
}

static enum status open_address(struct draft_worker *worker)
{
    const struct draft_worker_options *options = &worker->options;
    TRY(rpc_address_parse(options->listen, &worker->address));
    TRY(rpc_key_read(options->key_file, &worker->key));
    if (!worker->address.is_loopback && worker->key.n == 0 && !options->is_open_to_all) {
        return status_fail(STATUS_INVALID, "%s can be reached from other machines: give a key (--draft-key-file), or "
                           "--insecure to let anyone draft", options->listen);
    }
    TRY(rpc_listen(&worker->address, &worker->listen_fd));
    memcpy(worker->where, worker->address.text, sizeof worker->where);
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return worker->wake_fd >= 0 ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no descriptor for a draft worker");
}

static enum status fail_memory(const struct draft_worker *worker)
{
    return status_fail(STATUS_NO_MEMORY, "no memory for a draft worker of %d sequences", worker->options.max_batch);
}

static enum status open_places(struct draft_worker *worker)
{
    const size_t n = (size_t)worker->options.max_batch;
    struct worker_job *job = &worker->job;
    worker->places = mem_alloc(n, sizeof *worker->places);
    job->rounds = mem_alloc(n, sizeof *job->rounds);
    job->places = mem_alloc(n, sizeof *job->places);
    if (worker->places == NULL || job->rounds == NULL || job->places == NULL) {
        return fail_memory(worker);
    }
    for (size_t i = 0; i < n; i++) {
        struct worker_place *place = &worker->places[i];
        place->biases = mem_alloc(SAMPLING_MAX_BIASES, sizeof *place->biases);
        place->tokens = mem_alloc((size_t)worker->options.context + DRAFT_MAX_NODES, sizeof *place->tokens);
        if (place->biases == NULL || place->tokens == NULL) {
            return fail_memory(worker);
        }
    }
    return ahead_tables_create(worker->options.max_batch, worker->options.max_budget, &job->tables);
}

static enum status open_targets(struct draft_worker *worker)
{
    const size_t n = (size_t)worker->options.max_targets;
    const size_t out_cap = (size_t)worker->options.max_batch * TABLE_BYTES + RPC_MAX_FRAME_BYTES;
    worker->targets = mem_alloc(n, sizeof *worker->targets);
    worker->polls = mem_alloc(n + 2, sizeof *worker->polls);
    worker->message = mem_alloc(1, sizeof *worker->message);
    if (worker->targets == NULL || worker->polls == NULL || worker->message == NULL) {
        return fail_memory(worker);
    }
    for (size_t i = 0; i < n; i++) {
        worker->targets[i].number = (int32_t)i + 1;
        worker->targets[i].held = mem_alloc(1, sizeof *worker->targets[i].held);
        if (worker->targets[i].held == NULL) {
            return fail_memory(worker);
        }
        TRY(rpc_peer_create(out_cap, &worker->targets[i].peer));
    }
    return STATUS_OK;
}

enum status draft_worker_open(const struct draft_worker_options *options, struct draft_worker **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    struct draft_worker *worker = mem_alloc(1, sizeof *worker);
    if (worker == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft worker");
    }
    worker->options = *options;
    worker->listen_fd = worker->wake_fd = -1;
    worker->report.n_places_taken = 0;
    atomic_init(&worker->stopping, 0);
    atomic_init(&worker->is_done, 0);
    atomic_init(&worker->job.stop, 0);
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_cond_init(&worker->cond, NULL);
    TRY_GOTO(check_options(&worker->options), out);
    TRY_GOTO(open_places(worker), out);
    TRY_GOTO(open_targets(worker), out);
    TRY_GOTO(open_address(worker), out);
    TRY_GOTO(worker_grow_start(worker), out);
    *out = worker;
    return STATUS_OK;
out:
    draft_worker_close(worker);
    return status;
}

void draft_worker_close(struct draft_worker *worker)
{
    if (worker == NULL) {
        return;
    }
    worker_grow_end(worker);
    rpc_unlisten(&worker->address, worker->listen_fd);
    if (worker->wake_fd >= 0) {
        close(worker->wake_fd);
    }
    for (int32_t i = 0; worker->targets != NULL && i < worker->options.max_targets; i++) {
        rpc_peer_destroy(worker->targets[i].peer);
        mem_free(worker->targets[i].held);
    }
    for (int32_t i = 0; worker->places != NULL && i < worker->options.max_batch; i++) {
        mem_free(worker->places[i].biases);
        mem_free(worker->places[i].tokens);
    }
    mem_free(worker->job.rounds);
    ahead_tables_destroy(worker->job.tables);
    mem_free(worker->job.places);
    mem_free(worker->places);
    mem_free(worker->targets);
    mem_free(worker->polls);
    mem_free(worker->message);
    pthread_cond_destroy(&worker->cond);
    pthread_mutex_destroy(&worker->mutex);
    mem_free(worker);
}

/* ---- the turn ---- */
static void accept_all(struct draft_worker *worker)
{
    int fd;
    while (rpc_accept(worker->listen_fd, &fd) == STATUS_OK) {
        struct worker_target *target = NULL;
        for (int32_t i = 0; i < worker->options.max_targets && target == NULL; i++) {
            target = worker->targets[i].is_connected ? NULL : &worker->targets[i];
        }
        if (target == NULL) {
            close(fd); /* it tries again later, as after any loss */
            log_warn("draft worker: %d targets are connected already; another was sent away",
                     worker->options.max_targets);
            continue;
        }
        rpc_peer_attach(target->peer, fd);
        target->is_connected = true;
        target->is_greeted = target->has_held = false;
        target->serial = ++worker->n_serials;
        target->n_rounds = target->n_tables = 0;
        target->since_ns = clock_now_ns();
    }
}

static void serve_target(struct draft_worker *worker, struct worker_target *target, short events)
{
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && rpc_peer_fill(target->peer) != STATUS_OK) {
        worker_listen_to(worker, target); /* what it said before */
        worker_hang_up(worker, target, NULL);
        return;
    }
    worker_listen_to(worker, target);
    if (target->is_connected && !target->is_greeted && clock_now_ns() - target->since_ns > GREETING_NS) {
        worker_hang_up(worker, target, "expected a hello within 5 seconds");
    }
}

static void flush_target(struct draft_worker *worker, struct worker_target *target)
{
    if (target->is_connected && rpc_peer_flush(target->peer) != STATUS_OK) {
        worker_hang_up(worker, target, NULL);
    }
}

static void poll_all(struct draft_worker *worker)
{
    const int32_t n = worker->options.max_targets;
    int timeout_ms = TURN_MS;
    uint64_t n_wakes;
    worker->polls[0] = (struct pollfd){ .fd = worker->listen_fd, .events = POLLIN };
    worker->polls[1] = (struct pollfd){ .fd = worker->wake_fd, .events = POLLIN };
    for (int32_t i = 0; i < n; i++) {
        const struct worker_target *target = &worker->targets[i];
        short events = rpc_peer_events(target->peer);
        /* one whose message is held is not read until it can be handled, but for its end */
        events = target->has_held ? (short)(events & ~POLLIN) : events;
        timeout_ms = target->has_held && !worker->is_running ? 0 : timeout_ms; /* what it waited for is over */
        worker->polls[2 + i] = (struct pollfd){ .fd = target->is_connected ? rpc_peer_fd(target->peer) : -1,
                                                .events = events };
    }
    if (poll(worker->polls, (nfds_t)n + 2, timeout_ms) <= 0) {
        for (int32_t i = 0; i < n + 2; i++) {
            worker->polls[i].revents = 0;
        }
    }
    (void)(read(worker->wake_fd, &n_wakes, sizeof n_wakes) == 0); /* a counter; what matters are the flags */
}

enum status draft_worker_serve(struct draft_worker *worker, int (*is_over)(void))
{
    while (!atomic_load(&worker->stopping) && (is_over == NULL || !is_over())) {
        poll_all(worker);
        if ((worker->polls[0].revents & (POLLERR | POLLNVAL)) != 0) {
            return status_fail(STATUS_IO, "%s: the listening socket failed", worker->where);
        }
        worker_grow_take(worker); /* first: what is held may go on */
        for (int32_t i = 0; i < worker->options.max_targets; i++) {
            if (worker->targets[i].is_connected) {
                serve_target(worker, &worker->targets[i], worker->polls[2 + i].revents);
            }
        }
        if (worker->polls[0].revents != 0) {
            accept_all(worker);
        }
        worker_grow_go(worker); /* all that came in this turn together */
        for (int32_t i = 0; i < worker->options.max_targets; i++) {
            flush_target(worker, &worker->targets[i]);
        }
    }
    return STATUS_OK;
}

void draft_worker_stop(struct draft_worker *worker)
{
    const uint64_t one = 1;
    atomic_store(&worker->stopping, 1);
    (void)(write(worker->wake_fd, &one, sizeof one) == 0);
}

const char *draft_worker_address(const struct draft_worker *worker) { return worker->where; }

struct draft_worker_report draft_worker_report(struct draft_worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    const struct draft_worker_report report = worker->report;
    pthread_mutex_unlock(&worker->mutex);
    return report;
}
