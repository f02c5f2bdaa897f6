/* peer: a socket that does not block, with a buffer each way. What is queued goes out when the socket
 * takes it; what came in is handed over a frame at a time. Neither buffer grows: a message that does not
 * fit is refused, and a frame that could not fit was never legal.
 *
 *     in   [ taken | frame | fram.. |   free   ]     out  [ sent | queued |   free   ]
 *           0     in_at            in_len  IN_CAP           out_at        out_len  out_cap
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rpc/rpc.h"

enum { IN_CAP = 2 * (RPC_MAX_FRAME_BYTES + RPC_HEAD_BYTES) };

struct rpc_peer {
    int fd;
    uint8_t *in, *out;
    size_t in_at, in_len, out_at, out_len, out_cap;
    struct rpc_counts counts;
};

enum status rpc_peer_create(size_t out_cap, struct rpc_peer **out)
{
    *out = NULL;
    struct rpc_peer *peer = mem_alloc(1, sizeof *peer);
    if (peer != NULL) {
        peer->fd = -1;
        peer->out_cap = out_cap;
        peer->in = mem_alloc(IN_CAP, 1);
        peer->out = mem_alloc(out_cap, 1);
    }
    if (peer == NULL || peer->in == NULL || peer->out == NULL) {
        rpc_peer_destroy(peer);
        return status_fail(STATUS_NO_MEMORY, "no memory for a connection");
    }
    *out = peer;
    return STATUS_OK;
}

void rpc_peer_destroy(struct rpc_peer *peer)
{
    if (peer == NULL) {
        return;
    }
    rpc_peer_hang_up(peer);
    mem_free(peer->out);
    mem_free(peer->in);
    mem_free(peer);
}

/* ---- the connection ---- */
void rpc_peer_attach(struct rpc_peer *peer, int fd)
{
    rpc_peer_hang_up(peer);
    peer->fd = fd;
}

void rpc_peer_hang_up(struct rpc_peer *peer)
{
    if (peer->fd >= 0) {
        close(peer->fd);
    }
    peer->fd = -1;
    peer->in_at = peer->in_len = peer->out_at = peer->out_len = 0;
}

enum status rpc_peer_connect(struct rpc_peer *peer, const struct rpc_address *address)
{
    const int on = 1;
    rpc_peer_hang_up(peer);
    const int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return status_fail(STATUS_IO, "cannot connect to %s: %s", address->text, strerror(errno));
    }
    if (!address->is_unix) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(fd, (const struct sockaddr *)&address->socket, address->n_socket) != 0 && errno != EINPROGRESS) {
        const enum status status = status_fail(STATUS_IO, "cannot connect to %s: %s", address->text,
                                               strerror(errno));
        close(fd);
        return status;
    }
    rpc_peer_attach(peer, fd);
    return STATUS_OK;
}

int rpc_peer_fd(const struct rpc_peer *peer) { return peer->fd; }
size_t rpc_peer_room(const struct rpc_peer *peer) { return peer->out_cap - (peer->out_len - peer->out_at); }
struct rpc_counts rpc_peer_counts(const struct rpc_peer *peer) { return peer->counts; }

short rpc_peer_events(const struct rpc_peer *peer)
{
    return (short)(POLLIN | (peer->out_len > peer->out_at ? POLLOUT : 0));
}

void rpc_wait(const struct rpc_peer *peer, int64_t timeout_ns)
{
    struct pollfd wait = { .fd = peer->fd, .events = rpc_peer_events(peer) };
    const struct timespec limit = { .tv_sec = (time_t)(timeout_ns / 1000000000),
                                    .tv_nsec = (long)(timeout_ns % 1000000000) };
    if (timeout_ns > 0) {
        (void)ppoll(&wait, 1, &limit, NULL); /* interrupted or not: the caller looks what there is */
    }
}

/* ---- out ---- */
static enum status fail_gone(const char *what)
{
    return status_fail(STATUS_IO, "the connection ended while %s: %s", what, strerror(errno));
}

enum status rpc_peer_send(struct rpc_peer *peer, const struct rpc_message *message)
{
    size_t n;
    if (peer->out_at > 0) {
        memmove(peer->out, peer->out + peer->out_at, peer->out_len - peer->out_at);
        peer->out_len -= peer->out_at;
        peer->out_at = 0;
    }
    TRY(rpc_frame_encode(message, peer->out + peer->out_len, peer->out_cap - peer->out_len, &n));
    peer->out_len += n;
    peer->counts.frames_out++;
    return STATUS_OK;
}

enum status rpc_peer_flush(struct rpc_peer *peer)
{
    while (peer->fd >= 0 && peer->out_at < peer->out_len) {
        const ssize_t n = send(peer->fd, peer->out + peer->out_at, peer->out_len - peer->out_at,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) { /* ENOTCONN: it is still being connected */
            return errno == EAGAIN || errno == ENOTCONN ? STATUS_OK : fail_gone("writing");
        }
        peer->out_at += (size_t)n;
        peer->counts.bytes_out += (uint64_t)n;
    }
    return STATUS_OK;
}

/* ---- in ---- */
enum status rpc_peer_fill(struct rpc_peer *peer)
{
    if (peer->in_at > 0) {
        memmove(peer->in, peer->in + peer->in_at, peer->in_len - peer->in_at);
        peer->in_len -= peer->in_at;
        peer->in_at = 0;
    }
    const size_t len_before = peer->in_len;
    while (peer->fd >= 0 && peer->in_len < IN_CAP) {
        const ssize_t n = recv(peer->fd, peer->in + peer->in_len, IN_CAP - peer->in_len, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN || errno == ENOTCONN ? STATUS_OK : fail_gone("reading");
        }
        if (n == 0 && peer->in_len > len_before) {
            return STATUS_OK; /* last words first; the end is found again by the next call */
        }
        if (n == 0) {
            return status_fail(STATUS_IO, "the other side hung up");
        }
        peer->in_len += (size_t)n;
        peer->counts.bytes_in += (uint64_t)n;
    }
    return STATUS_OK;
}

enum status rpc_peer_next(struct rpc_peer *peer, struct rpc_message *message)
{
    size_t n;
    const uint8_t *frame = peer->in + peer->in_at;
    TRY(rpc_frame_size(frame, peer->in_len - peer->in_at, &n));
    if (n == 0 || n > peer->in_len - peer->in_at) {
        return STATUS_REFUSED; /* ordinary: makes no sentence */
    }
    TRY(rpc_frame_decode(frame + RPC_HEAD_BYTES, n - RPC_HEAD_BYTES, message));
    peer->in_at += n;
    peer->counts.frames_in++;
    return STATUS_OK;
}
