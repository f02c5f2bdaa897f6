#include "tests/rpc_proxy.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { STREAM_CAP = 1 << 20, PIECE_BYTES = 5, DELAY_MS = 8 };

/* One direction: what came, and what is to go on. */
struct stream {
    uint8_t *in, *out, *held;
    size_t n_in, n_out, n_held;
};
struct rpc_proxy {
    struct rpc_address own, to;
    int32_t per_mille[FAULT_N_KINDS];
    uint64_t state;
    int listen_fd, fd[2]; /* of the target, of the worker */
    struct stream stream[2]; /* from fd[i] to fd[1 - i] */
    int64_t quiet_until_ns;
    bool in_pieces, is_dead;
    atomic_int is_ending, is_frozen;
    atomic_ullong n_faults;
    pthread_t thread;
};

const char *rpc_fault_name(enum rpc_fault fault)
{
    static const char *const names[] = { "drop", "twice", "later", "delay", "halves", "cut", "garbage", "huge",
                                         "hang up" };
    return names[fault];
}

static uint64_t draw(struct rpc_proxy *proxy) { return proxy->state = rng_mix64(proxy->state + 1); }

static void put(struct stream *stream, const uint8_t *bytes, size_t n)
{
    ASSERT(stream->n_out + n <= STREAM_CAP);
    memcpy(stream->out + stream->n_out, bytes, n);
    stream->n_out += n;
}

/* The fault of this frame, FAULT_N_KINDS: none. */
static enum rpc_fault draw_fault(struct rpc_proxy *proxy)
{
    int32_t at = (int32_t)(draw(proxy) % 1000);
    for (int kind = 0; kind < FAULT_N_KINDS; kind++) {
        at -= proxy->per_mille[kind];
        if (at < 0) {
            atomic_fetch_add(&proxy->n_faults, 1);
            return (enum rpc_fault)kind;
        }
    }
    return FAULT_N_KINDS;
}

static void pass_frame(struct rpc_proxy *proxy, struct stream *stream, uint8_t *frame, size_t n)
{
    const enum rpc_fault fault = draw_fault(proxy);
    const size_t n_held = stream->n_held;
    stream->n_held = 0;
    switch (fault) {
    case FAULT_DROP: break;
    case FAULT_TWICE:
        put(stream, frame, n);
        put(stream, frame, n);
        break;
    case FAULT_LATER:
        memcpy(stream->held, frame, n);
        stream->n_held = n;
        break;
    case FAULT_DELAY:
        proxy->quiet_until_ns = clock_now_ns() + DELAY_MS * 1000000;
        put(stream, frame, n);
        break;
    case FAULT_HALVES:
        proxy->in_pieces = true;
        put(stream, frame, n);
        break;
    case FAULT_CUT: put(stream, frame, n - 1 - draw(proxy) % (n - 1)); break;
    case FAULT_GARBAGE:
        for (int i = 0; i < 3; i++) {
            frame[RPC_HEAD_BYTES + draw(proxy) % (n - RPC_HEAD_BYTES)] = (uint8_t)draw(proxy);
        }
        put(stream, frame, n);
        break;
    case FAULT_HUGE:
        frame[0] = 0x7f;
        put(stream, frame, n);
        break;
    case FAULT_HANG_UP: proxy->is_dead = true; break;
    case FAULT_N_KINDS: put(stream, frame, n); break;
    }
    if (n_held > 0 && stream->n_held == 0) {
        put(stream, stream->held, n_held);
    }
}

static void pass_frames(struct rpc_proxy *proxy, struct stream *stream)
{
    size_t at = 0, n;
    while (rpc_frame_size(stream->in + at, stream->n_in - at, &n) == STATUS_OK && n > 0 &&
           n <= stream->n_in - at && stream->n_out < STREAM_CAP / 2) {
        pass_frame(proxy, stream, stream->in + at, n);
        at += n;
    }
    memmove(stream->in, stream->in + at, stream->n_in - at);
    stream->n_in -= at;
}

static void drop_line(struct rpc_proxy *proxy)
{
    for (int i = 0; i < 2; i++) {
        if (proxy->fd[i] >= 0) {
            close(proxy->fd[i]);
        }
        proxy->fd[i] = -1;
        proxy->stream[i].n_in = proxy->stream[i].n_out = proxy->stream[i].n_held = 0;
    }
    proxy->is_dead = false;
}

static void read_side(struct rpc_proxy *proxy, int side)
{
    struct stream *stream = &proxy->stream[side];
    const ssize_t n = recv(proxy->fd[side], stream->in + stream->n_in, STREAM_CAP - stream->n_in, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        proxy->is_dead = true;
    }
    stream->n_in += n > 0 ? (size_t)n : 0;
    pass_frames(proxy, stream);
}

static void write_side(struct rpc_proxy *proxy, int side)
{
    struct stream *stream = &proxy->stream[1 - side];
    const size_t most = proxy->in_pieces && stream->n_out > PIECE_BYTES ? PIECE_BYTES : stream->n_out;
    const ssize_t n = most > 0 ? send(proxy->fd[side], stream->out, most, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (n < 0 && errno != EAGAIN) {
        proxy->is_dead = true;
    }
    if (n > 0) {
        memmove(stream->out, stream->out + n, stream->n_out - (size_t)n);
        stream->n_out -= (size_t)n;
    }
}

static void accept_line(struct rpc_proxy *proxy)
{
    struct rpc_peer *peer;
    int fd;
    if (rpc_accept(proxy->listen_fd, &fd) != STATUS_OK) {
        return;
    }
    drop_line(proxy);
    ASSERT(rpc_peer_create(1, &peer) == STATUS_OK);
    if (rpc_peer_connect(peer, &proxy->to) == STATUS_OK) {
        proxy->fd[0] = fd;
        proxy->fd[1] = dup(rpc_peer_fd(peer));
    } else {
        close(fd);
    }
    rpc_peer_destroy(peer);
}

static void *proxy_main(void *arg)
{
    struct rpc_proxy *proxy = arg;
    while (!atomic_load(&proxy->is_ending)) {
        const bool is_quiet = clock_now_ns() < proxy->quiet_until_ns || atomic_load(&proxy->is_frozen);
        struct pollfd polls[3] = { { .fd = proxy->listen_fd, .events = POLLIN } };
        for (int i = 0; i < 2; i++) {
            const bool has_out = proxy->stream[1 - i].n_out > 0;
            polls[1 + i] = (struct pollfd){ .fd = is_quiet ? -1 : proxy->fd[i],
                                            .events = (short)(POLLIN | (has_out ? POLLOUT : 0)) };
        }
        (void)poll(polls, 3, is_quiet ? 1 : 20);
        if (polls[0].revents != 0) {
            accept_line(proxy);
            continue;
        }
        for (int i = 0; i < 2; i++) {
            if (polls[1 + i].revents != 0) {
                read_side(proxy, i);
            }
        }
        for (int i = 0; i < 2 && !is_quiet; i++) {
            if (proxy->fd[i] >= 0) {
                write_side(proxy, i);
            }
        }
        proxy->in_pieces = proxy->in_pieces && proxy->stream[0].n_out + proxy->stream[1].n_out > 0;
        if (proxy->is_dead) {
            drop_line(proxy);
        }
    }
    return NULL;
}

void rpc_proxy_open(const char *listen, const char *to, const int32_t *per_mille, uint64_t seed,
                    struct rpc_proxy **out)
{
    struct rpc_proxy *proxy = mem_alloc(1, sizeof *proxy);
    ASSERT(proxy != NULL);
    memcpy(proxy->per_mille, per_mille, sizeof proxy->per_mille);
    proxy->state = rng_mix64(seed);
    proxy->fd[0] = proxy->fd[1] = -1;
    for (int i = 0; i < 2; i++) {
        struct stream *stream = &proxy->stream[i];
        stream->in = mem_alloc(STREAM_CAP, 1);
        stream->out = mem_alloc(STREAM_CAP, 1);
        stream->held = mem_alloc(STREAM_CAP, 1);
        ASSERT(stream->in != NULL && stream->out != NULL && stream->held != NULL);
    }
    ASSERT(rpc_address_parse(to, &proxy->to) == STATUS_OK);
    ASSERT(rpc_address_parse(listen, &proxy->own) == STATUS_OK);
    ASSERT(rpc_listen(&proxy->own, &proxy->listen_fd) == STATUS_OK);
    ASSERT(pthread_create(&proxy->thread, NULL, proxy_main, proxy) == 0);
    *out = proxy;
}

void rpc_proxy_freeze(struct rpc_proxy *proxy) { atomic_store(&proxy->is_frozen, 1); }
uint64_t rpc_proxy_n_faults(struct rpc_proxy *proxy) { return atomic_load(&proxy->n_faults); }

void rpc_proxy_close(struct rpc_proxy *proxy)
{
    atomic_store(&proxy->is_ending, 1);
    pthread_join(proxy->thread, NULL);
    drop_line(proxy);
    rpc_unlisten(&proxy->own, proxy->listen_fd);
    for (int i = 0; i < 2; i++) {
        mem_free(proxy->stream[i].in);
        mem_free(proxy->stream[i].out);
        mem_free(proxy->stream[i].held);
    }
    mem_free(proxy);
}
