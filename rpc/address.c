/* address: from the words of an option to a socket that listens, or one to connect to. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/rpc.h"

enum { LISTEN_BACKLOG = 16 };

/* ---- words ---- */
static const char *after(const char *text, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

bool rpc_address_is(const char *text) { return after(text, "unix:") != NULL || after(text, "tcp:") != NULL; }

static enum status parse_unix(const char *text, const char *path, struct rpc_address *out)
{
    struct sockaddr_un *socket = (struct sockaddr_un *)&out->socket;
    path = after(path, "//") != NULL ? path + 2 : path;
    const size_t n = strlen(path);
    if (n == 0 || n >= sizeof socket->sun_path) {
        return status_fail(STATUS_INVALID, "'%s': expected a path of 1 to %zu bytes", text,
                           sizeof socket->sun_path - 1);
    }
    socket->sun_family = AF_UNIX;
    memcpy(socket->sun_path, path, n + 1);
    out->n_socket = (socklen_t)sizeof *socket;
    out->n_places = 1;
    out->places[0] = (struct rpc_socket){ out->socket, out->n_socket };
    out->is_unix = out->is_loopback = true;
    return STATUS_OK;
}

static bool is_loopback(const struct sockaddr *socket)
{
    if (socket->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)socket;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    return socket->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)socket)->sin6_addr);
}

static enum status look_up(const char *text, const char *host, const char *port, struct rpc_address *out)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    const int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        return status_fail(STATUS_IO, "'%s': %s", text, gai_strerror(error));
    }
    out->is_loopback = true;
    for (const struct addrinfo *at = found; at != NULL && out->n_places < RPC_MAX_PLACES; at = at->ai_next) {
        struct rpc_socket *place = &out->places[out->n_places++];
        memcpy(&place->socket, at->ai_addr, at->ai_addrlen);
        place->n_socket = at->ai_addrlen;
        out->is_loopback = out->is_loopback && is_loopback(at->ai_addr);
    }
    freeaddrinfo(found);
    out->turn = -1;
    rpc_address_turn(out);
    return STATUS_OK;
}

void rpc_address_turn(struct rpc_address *address)
{
    address->turn = (address->turn + 1) % address->n_places;
    address->socket = address->places[address->turn].socket;
    address->n_socket = address->places[address->turn].n_socket;
}

/* "host:port", "[v6]:port", or a port of this machine. */
static enum status parse_tcp(const char *text, const char *rest, struct rpc_address *out)
{
    char host[RPC_ADDRESS_TEXT_CAP] = "127.0.0.1";
    rest = after(rest, "//") != NULL ? rest + 2 : rest;
    const char *colon = strrchr(rest, ':');
    const char *port = colon != NULL ? colon + 1 : rest;
    size_t n = colon != NULL ? (size_t)(colon - rest) : 0;
    const size_t n_port = strlen(port);
    if (n_port == 0 || strspn(port, "0123456789") != n_port || n_port > 5 || strtol(port, NULL, 10) > 65535 ||
        n >= sizeof host) {
        return status_fail(STATUS_INVALID, "'%s': expected tcp:HOST:PORT or tcp:PORT", text);
    }
    if (n > 0) {
        const bool is_bracketed = rest[0] == '[' && rest[n - 1] == ']';
        rest += is_bracketed ? 1 : 0;
        n -= is_bracketed ? 2 : 0;
        memcpy(host, rest, n);
        host[n] = '\0';
    }
    return look_up(text, host, port, out);
}

enum status rpc_address_parse(const char *text, struct rpc_address *out)
{
    *out = (struct rpc_address){ .is_unix = false };
    if (strlen(text) >= sizeof out->text) {
        return status_fail(STATUS_INVALID, "expected an address of at most %zu bytes", sizeof out->text - 1);
    }
    memcpy(out->text, text, strlen(text) + 1);
    const char *path = after(text, "unix:"), *rest = after(text, "tcp:");
    if (path != NULL) {
        return parse_unix(text, path, out);
    }
    if (rest != NULL) {
        return parse_tcp(text, rest, out);
    }
    return status_fail(STATUS_INVALID, "'%s': expected unix:/PATH or tcp:HOST:PORT", text);
}

/* ---- listening ---- */
static enum status fail_listen(const struct rpc_address *address)
{
    return status_fail(STATUS_IO, "cannot listen on %s: %s", address->text, strerror(errno));
}

/* A path that a program left behind when it was killed stays in the way; one that answers is in use. */
static enum status clear_path(const struct rpc_address *address)
{
    const char *path = ((const struct sockaddr_un *)&address->socket)->sun_path;
    struct stat about;
    if (lstat(path, &about) != 0) {
        return STATUS_OK;
    }
    if (!S_ISSOCK(about.st_mode)) {
        return status_fail(STATUS_INVALID, "cannot listen on %s: something that is no socket stands there",
                           address->text);
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail_listen(address);
    }
    const bool is_dead = connect(fd, (const struct sockaddr *)&address->socket, address->n_socket) != 0 &&
                         errno == ECONNREFUSED;
    close(fd);
    if (!is_dead) {
        return status_fail(STATUS_IO, "cannot listen on %s: another program does", address->text);
    }
    (void)unlink(path);
    return STATUS_OK;
}

static bool bind_to(const struct rpc_address *address, int fd)
{
    const struct sockaddr *socket = (const struct sockaddr *)&address->socket;
    const int on = 1;
    if (!address->is_unix) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        return bind(fd, socket, address->n_socket) == 0;
    }
    const mode_t before = umask(0177); /* never open to others, not even for a moment */
    const bool is_bound = bind(fd, socket, address->n_socket) == 0;
    umask(before);
    return is_bound;
}

/* The words that others reach it by: where port 0 was asked for, the one that it got. */
static void name_port(struct rpc_address *address)
{
    char host[NI_MAXHOST], port[8];
    if (!address->is_unix && getnameinfo((const struct sockaddr *)&address->socket, address->n_socket, host,
                                         sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        const bool is_v6 = address->socket.ss_family == AF_INET6;
        (void)snprintf(address->text, sizeof address->text, is_v6 ? "tcp:[%.200s]:%s" : "tcp:%.200s:%s", host, port);
    }
}

enum status rpc_listen(struct rpc_address *address, int *fd)
{
    *fd = -1;
    if (address->is_unix) {
        TRY(clear_path(address));
    }
    const int made = socket(address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        return fail_listen(address);
    }
    if (!bind_to(address, made) || listen(made, LISTEN_BACKLOG) != 0 ||
        getsockname(made, (struct sockaddr *)&address->socket, &address->n_socket) != 0) {
        const enum status status = fail_listen(address);
        close(made);
        return status;
    }
    name_port(address);
    *fd = made;
    return STATUS_OK;
}

void rpc_unlisten(const struct rpc_address *address, int fd)
{
    if (fd < 0) {
        return;
    }
    close(fd);
    if (address->is_unix) {
        (void)unlink(((const struct sockaddr_un *)&address->socket)->sun_path);
    }
}

enum status rpc_accept(int listen_fd, int *fd)
{
    const int on = 1, idle_seconds = 60, interval_seconds = 10;
    *fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (*fd < 0) {
        return status_fail(STATUS_REFUSED, "cannot accept a connection: %s", strerror(errno));
    }
    (void)setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* none of this matters to a path */
    (void)setsockopt(*fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); /* a machine that is gone says nothing */
    (void)setsockopt(*fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
    (void)setsockopt(*fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof interval_seconds);
    return STATUS_OK;
}
