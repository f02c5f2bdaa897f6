/* comm_tcp: ranks that know of each other only where rank 0 listens (RANK, WORLD_SIZE, MASTER_ADDR). A star
 * of connections: everything goes through rank 0, so this is at its best with small things: where devices have
 * NCCL, it carries the group's id and what ranks say in host memory. Its end tells that a rank died.
 *
 *     rank r ── hello {magic, rank, size} ──► rank 0      within JOIN_SECONDS of each other
 *
 * What connects and does not say hello as it should is dropped. No secrets travel and nothing is checked but
 * counts: for networks that are one's own.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backend/comm.h"

enum { JOIN_SECONDS = 60, HELLO_SECONDS = 5, RETRY_NS = 100 * 1000 * 1000, PORT_CAP = 16 };
#define HELLO_MAGIC 0x74646d31u /* "tdm1" */
struct hello { uint32_t magic, rank, size; };

struct tcp_comm {
    struct comm base;
    int fd[COMM_MAX_RANKS]; /* of rank 0: to each other; of the others: [0]; -1: none */
};

/* ---- bytes ---- */

static void give_up(const struct comm *comm, int32_t other)
{
    log_error("rank %d: the connection to rank %d is gone", comm->rank, other);
    comm->kind->abort((struct comm *)(uintptr_t)comm, "");
}

static int send_all(int fd, const void *bytes, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        const ssize_t now = send(fd, (const char *)bytes + sent, n - sent, MSG_NOSIGNAL);
        if (now <= 0 && errno != EINTR) {
            return 0;
        }
        sent += now > 0 ? (size_t)now : 0;
    }
    return 1;
}

static int receive_all(int fd, void *bytes, size_t n)
{
    for (size_t received = 0; received < n;) {
        const ssize_t now = recv(fd, (char *)bytes + received, n - received, 0);
        if (now == 0 || (now < 0 && errno != EINTR)) {
            return 0;
        }
        received += now > 0 ? (size_t)now : 0;
    }
    return 1;
}

static void send_to(struct tcp_comm *comm, int32_t other, const void *bytes, size_t n)
{
    if (n > 0 && !send_all(comm->fd[other], bytes, n)) {
        give_up(&comm->base, other);
    }
}

static void receive_from(struct tcp_comm *comm, int32_t other, void *bytes, size_t n)
{
    if (n > 0 && !receive_all(comm->fd[other], bytes, n)) {
        give_up(&comm->base, other);
    }
}

/* ---- the kind ---- */

static void tcp_gather(struct comm *base, const struct comm_parts *parts)
{
    struct tcp_comm *comm = (struct tcp_comm *)base;
    const size_t unit = parts->unit_floats * sizeof(float);
    const size_t begin = unit * (size_t)parts->first[base->rank];
    const size_t n_own = unit * (size_t)parts->first[base->rank + 1] - begin;
    const size_t n_all = unit * (size_t)parts->first[base->size];
    char mark = 0; /* so that a gather of nothing is a barrier too */
    ASSERT(parts->root == COMM_ALL || parts->root == 0);
    if (base->rank > 0) {
        send_to(comm, 0, parts->own, n_own);
        send_to(comm, 0, &mark, 1);
        receive_from(comm, 0, &mark, 1);
        if (parts->root == COMM_ALL) {
            receive_from(comm, 0, parts->all, n_all);
        }
        return;
    }
    if (n_own > 0 && parts->own != parts->all) {
        memcpy(parts->all, parts->own, n_own);
    }
    for (int32_t r = 1; r < base->size; r++) {
        const size_t from = unit * (size_t)parts->first[r];
        receive_from(comm, r, (char *)parts->all + from, unit * (size_t)parts->first[r + 1] - from);
        receive_from(comm, r, &mark, 1);
    }
    for (int32_t r = 1; r < base->size; r++) {
        send_to(comm, r, &mark, 1);
        if (parts->root == COMM_ALL) {
            send_to(comm, r, parts->all, n_all);
        }
    }
}

static void tcp_broadcast(struct comm *base, void *bytes, size_t n_bytes)
{
    struct tcp_comm *comm = (struct tcp_comm *)base;
    if (base->rank > 0) {
        receive_from(comm, 0, bytes, n_bytes);
        return;
    }
    for (int32_t r = 1; r < base->size; r++) {
        send_to(comm, r, bytes, n_bytes);
    }
}

static void tcp_close(struct comm *base)
{
    struct tcp_comm *comm = (struct tcp_comm *)base;
    for (int32_t r = 0; r < COMM_MAX_RANKS; r++) {
        if (comm->fd[r] >= 0) {
            close(comm->fd[r]);
        }
    }
    mem_free(comm);
}

/* The others see their connections end. */
static void tcp_abort(struct comm *base, const char *why)
{
    (void)base;
    (void)why; /* said already */
    _exit(1);
}

/* A connection that ended says so before what it brought has been read. */
static int tcp_is_alive(struct comm *base)
{
    const struct tcp_comm *comm = (const struct tcp_comm *)base;
    for (int32_t r = 0; r < COMM_MAX_RANKS; r++) {
        struct pollfd look = { .fd = comm->fd[r], .events = POLLRDHUP };
        if (comm->fd[r] >= 0 && poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
            return 0;
        }
    }
    return 1;
}

static const struct comm_kind tcp_kind = {
    .name = "tcp", .gather = tcp_gather, .broadcast = tcp_broadcast, .close = tcp_close, .abort = tcp_abort,
    .is_alive = tcp_is_alive,
};

/* ---- joining ---- */

static void be_prompt(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static void set_patience(int fd, int seconds)
{
    const struct timeval patience = { .tv_sec = seconds }; /* 0: for ever */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

static enum status find_address(const struct comm_place *place, int flags, struct addrinfo **found)
{
    char port[PORT_CAP];
    const struct addrinfo wanted = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags };
    snprintf(port, sizeof port, "%d", place->port);
    const int error = getaddrinfo(place->address, port, &wanted, found);
    if (error != 0) {
        return status_fail(STATUS_IO, "rank %d: cannot find %s, where rank 0 should be: %s", place->rank,
                           place->address, gai_strerror(error));
    }
    return STATUS_OK;
}

static enum status listen_at(const struct comm_place *place, int *out)
{
    struct addrinfo *found;
    const int on = 1;
    TRY(find_address(place, AI_PASSIVE, &found));
    const int fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    }
    const int is_bound = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 &&
                         listen(fd, COMM_MAX_RANKS) == 0;
    freeaddrinfo(found);
    if (!is_bound) {
        const enum status status = status_fail(STATUS_IO, "rank 0 cannot listen at %s port %d: %s", place->address,
                                               place->port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    *out = fd;
    return STATUS_OK;
}

/* Who has connected; -1: nobody that belongs here. */
static int32_t hear_hello(const struct tcp_comm *comm, int fd)
{
    struct hello hello;
    set_patience(fd, HELLO_SECONDS);
    if (!receive_all(fd, &hello, sizeof hello) || hello.magic != HELLO_MAGIC ||
        hello.size != (uint32_t)comm->base.size || hello.rank < 1 || hello.rank >= hello.size ||
        comm->fd[hello.rank] >= 0) {
        return -1;
    }
    set_patience(fd, 0);
    be_prompt(fd);
    return (int32_t)hello.rank;
}

static enum status accept_others(struct tcp_comm *comm, int listener)
{
    const int64_t end_ns = clock_now_ns() + JOIN_SECONDS * INT64_C(1000000000);
    for (int32_t n = 1; n < comm->base.size;) {
        struct pollfd wait = { .fd = listener, .events = POLLIN };
        const int64_t left_ms = (end_ns - clock_now_ns()) / 1000000;
        if (left_ms <= 0 || poll(&wait, 1, (int)left_ms) == 0) {
            return status_fail(STATUS_IO, "%d of %d ranks have connected to rank 0 within %d seconds", n,
                               comm->base.size, JOIN_SECONDS);
        }
        const int fd = accept(listener, NULL, NULL);
        const int32_t rank = fd >= 0 ? hear_hello(comm, fd) : -1;
        if (rank > 0) {
            comm->fd[rank] = fd;
            n++;
        } else if (fd >= 0) {
            close(fd);
        }
    }
    return STATUS_OK;
}

static int try_connect(const struct addrinfo *found)
{
    for (; found != NULL; found = found->ai_next) {
        const int fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
        if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0) {
            return fd;
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    return -1;
}

static enum status connect_to_first(struct tcp_comm *comm, const struct comm_place *place)
{
    const int64_t end_ns = clock_now_ns() + JOIN_SECONDS * INT64_C(1000000000);
    const struct hello hello = { HELLO_MAGIC, (uint32_t)place->rank, (uint32_t)place->size };
    struct addrinfo *found;
    TRY(find_address(place, 0, &found));
    while ((comm->fd[0] = try_connect(found)) < 0 && clock_now_ns() < end_ns) {
        nanosleep(&(struct timespec){ .tv_nsec = RETRY_NS }, NULL);
    }
    freeaddrinfo(found);
    if (comm->fd[0] < 0 || !send_all(comm->fd[0], &hello, sizeof hello)) {
        return status_fail(STATUS_IO, "rank %d cannot reach rank 0 at %s port %d: %s", place->rank, place->address,
                           place->port, strerror(errno));
    }
    be_prompt(comm->fd[0]);
    return STATUS_OK;
}

static enum status join_star(struct tcp_comm *comm, const struct comm_place *place)
{
    int listener = -1;
    if (place->rank > 0) {
        return connect_to_first(comm, place);
    }
    TRY(listen_at(place, &listener));
    const enum status status = accept_others(comm, listener);
    close(listener);
    return status;
}

enum status comm_tcp_open(const struct comm_place *place, struct comm **out)
{
    *out = NULL;
    if (place->size < 2 || place->size > COMM_MAX_RANKS || place->rank < 0 || place->rank >= place->size ||
        place->port < 1 || place->port > 65535) {
        return status_fail(STATUS_INVALID, "expected rank 0 to %d of at most %d ranks and a port up to 65535, found "
                           "rank %d of %d, port %d", COMM_MAX_RANKS - 1, COMM_MAX_RANKS, place->rank, place->size,
                           place->port);
    }
    struct tcp_comm *comm = mem_alloc(1, sizeof *comm);
    if (comm == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a group of ranks");
    }
    comm->base = (struct comm){ .kind = &tcp_kind, .rank = place->rank, .size = place->size, .local_size = 1,
                                .sharing_size = 1 };
    memset(comm->fd, -1, sizeof comm->fd);
    const enum status status = join_star(comm, place);
    if (status != STATUS_OK) {
        tcp_close(&comm->base);
        return status;
    }
    *out = &comm->base;
    return STATUS_OK;
}
