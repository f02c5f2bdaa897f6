/* rpc: messages between a target and the draft workers that guess for it. The door of the room.
 *
 *     message  a value (struct rpc_message), all limits checked when it is made from bytes
 *     frame    4 bytes of length, big-endian, then one msgpack array [version, type, id, fields ...]
 *     peer     a non-blocking socket with a bounded buffer for each direction
 *
 * The other side is not trusted: every length, count, id and type is bounded before it is used, and what
 * does not fit is refused with one sentence. All memory is taken at creation. Each object has one owner
 * and no thread of its own; nothing here waits but rpc_wait(). Text is not encrypted: across machines,
 * this belongs on a network one trusts or in a tunnel.
 */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/base.h"
#include "sampling/sampling.h"

enum {
    RPC_VERSION = 1,
    RPC_MAX_FRAME_BYTES = 1 << 15, /* of the array; the length word comes on top */
    RPC_HEAD_BYTES = 4,
    RPC_MAX_TOKENS = 2048,         /* committed tokens in one message; longer texts come in several */
    RPC_MAX_CHAIN = 16,            /* proposed tokens, and tokens behind an outcome */
    RPC_MAX_BRANCHES = 64,         /* outcomes in a table */
    RPC_MAX_SEQUENCES = 1024,      /* of a connection */
    RPC_MAX_CONTEXT = 1 << 24,
    RPC_MAX_VOCAB = 1 << 22,
    RPC_MAX_ROWS = 1 << 20,        /* of a target's pass */
    RPC_MAX_TEXT_BYTES = 255,      /* names, keys and sentences */
    RPC_ADDRESS_TEXT_CAP = 320,
    RPC_MAX_PLACES = 4             /* that a name stands for: a host may have several */
};

/* ---- messages ---- */
/* C: from the target (client), W: from the worker. */
#define RPC_TYPE_TABLE(X)                                                                             \
    X(RPC_HELLO, 1, "hello")     /* C: who I am, and the key */                                       \
    X(RPC_WELCOME, 2, "welcome") /* W: what I draft with, and how much of it a connection may use */  \
    X(RPC_OPEN, 3, "open")       /* C: a sequence begins; its first tokens */                         \
    X(RPC_APPEND, 4, "append")   /* C: more committed tokens of it */                                 \
    X(RPC_ROUND, 5, "round")     /* C: the last of them, and what is being verified behind them */    \
    X(RPC_OUTCOME, 6, "outcome") /* C: k accepted, then this token: no more need be prepared */       \
    X(RPC_TABLE, 7, "table")     /* W: what was prepared for a round */                               \
    X(RPC_CANCEL, 8, "cancel")   /* C: a sequence leaves. W: it was put out, open it again */         \
    X(RPC_PING, 9, "ping")       /* both */                                                           \
    X(RPC_PONG, 10, "pong")      /* both: the id of the ping */                                       \
    X(RPC_ERROR, 11, "error")    /* both: why the connection ends, or a sequence is not served */

enum rpc_type {
#define X(name, number, text) name = number,
    RPC_TYPE_TABLE(X)
#undef X
};
const char *rpc_type_name(enum rpc_type type); /* "hello"; never NULL */

struct rpc_text { int32_t n; char bytes[RPC_MAX_TEXT_BYTES + 1]; }; /* closed by a 0 */
void rpc_text_set(struct rpc_text *text, const char *bytes); /* cut where it is too long */

/* What a side is: vocabularies are compared by digest, by size where there is none (0). */
struct rpc_model {
    uint64_t vocab_digest, fingerprint;
    int32_t n_vocab;            /* 1 .. RPC_MAX_VOCAB */
    int32_t context;            /* positions of a sequence */
    int32_t n_sequences;        /* C: at most so many are open at once. W: so many places are left */
    int32_t k_max;              /* 1 .. RPC_MAX_CHAIN */
    struct rpc_text name;
};
struct rpc_hello { struct rpc_model model; struct rpc_text key; };
struct rpc_tokens { int32_t n; int32_t id[RPC_MAX_TOKENS]; };
/* Names a sequence: a client never uses a pair again. */
struct rpc_sequence { uint64_t id, epoch; };

struct rpc_open {
    struct rpc_sequence sequence;
    uint64_t tenant;            /* salt: prefixes are shared within a tenant alone */
    int32_t n_prompt;
    struct sampling_params params; /* biases: the message's own */
    struct sampling_bias biases[SAMPLING_MAX_BIASES];
    struct rpc_tokens tokens;
};
struct rpc_append {
    struct rpc_sequence sequence;
    int32_t first;              /* position of tokens[0]: what was sent before, no gap and nothing twice */
    struct rpc_tokens tokens;
};
struct rpc_round {
    struct rpc_sequence sequence;
    int32_t first, k_next;
    int32_t verify_rows, verify_us; /* of the target's last pass: rows, and how long it took; 0: not known */
    bool after_miss;            /* the proposal is a fallback's */
    struct rpc_tokens tokens;   /* committed, the recovery token last; n >= 1 */
    int32_t n_proposed;
    int32_t proposed[RPC_MAX_CHAIN];
};
struct rpc_outcome {
    struct rpc_sequence sequence;
    int32_t n_tokens;           /* of the round, with its recovery token */
    int32_t n_accepted, token;
};
struct rpc_branch {
    int32_t n_accepted, token, rank, n;
    int32_t next[RPC_MAX_CHAIN];
    uint8_t hint[RPC_MAX_CHAIN]; /* 255 = certain */
};
struct rpc_table {
    struct rpc_sequence sequence;
    int32_t n_tokens, n_proposed, n_branches;
    struct rpc_branch branch[RPC_MAX_BRANCHES];
};
enum rpc_error_code { RPC_ERROR_PROTOCOL, RPC_ERROR_KEY, RPC_ERROR_VOCABULARY, RPC_ERROR_FULL, RPC_ERROR_N_CODES };
struct rpc_error { int32_t code; struct rpc_text text; };

struct rpc_message {
    enum rpc_type type;
    uint32_t id;
    union {
        struct rpc_hello hello;
        struct rpc_model welcome;
        struct rpc_open open;
        struct rpc_append append;
        struct rpc_round round;
        struct rpc_outcome outcome;
        struct rpc_table table;
        struct rpc_sequence cancel;
        struct rpc_error error;
    };
};

/* ---- frames ---- */
/* The whole frame into out; STATUS_REFUSED, with nothing that counts written, when cap is too small. What
 * is out of range in the message is a bug. */
enum status rpc_frame_encode(const struct rpc_message *message, uint8_t *out, size_t cap, size_t *n_bytes);
/* Of n bytes: the frame's size with its length word, 0 when the word is not all there yet. STATUS_INVALID
 * when it says more than RPC_MAX_FRAME_BYTES, or nothing. */
enum status rpc_frame_size(const uint8_t *bytes, size_t n, size_t *frame_bytes);
/* The array of one frame, without the length word. STATUS_INVALID with a sentence; the message then holds
 * nothing. */
enum status rpc_frame_decode(const uint8_t *bytes, size_t n, struct rpc_message *message);

/* ---- addresses ---- */
/* "unix:/path" and "unix:///path"; "tcp:host:port", "tcp://host:port", "tcp:port" (this machine). */
struct rpc_address {
    bool is_unix, is_loopback;  /* a path is loopback too */
    char text[RPC_ADDRESS_TEXT_CAP];
    struct sockaddr_storage socket; /* the one whose turn it is */
    socklen_t n_socket;
    struct rpc_socket { struct sockaddr_storage socket; socklen_t n_socket; } places[RPC_MAX_PLACES];
    int32_t n_places, turn;
};
bool rpc_address_is(const char *text); /* begins like one */
/* Looks names up, and may wait for that. STATUS_INVALID, STATUS_IO. */
enum status rpc_address_parse(const char *text, struct rpc_address *out);
/* The next of its places; after the last, the first. */
void rpc_address_turn(struct rpc_address *address);
/* A listening socket, on the first of its places. A path that nobody listens at any more is taken over; its socket is for its owner
 * alone (0600). For port 0 address->socket and text become those of the port it got. */
enum status rpc_listen(struct rpc_address *address, int *fd);
void rpc_unlisten(const struct rpc_address *address, int fd); /* closes, and removes the path */
/* STATUS_REFUSED: nobody waits. The new socket does not block. */
enum status rpc_accept(int listen_fd, int *fd);

/* ---- keys ---- */
/* First line of a file, 1..RPC_MAX_TEXT_BYTES bytes; path NULL: an empty key, which is none. */
enum status rpc_key_read(const char *path, struct rpc_text *key);
/* Takes as long whatever differs. */
bool rpc_key_equal(const struct rpc_text *a, const struct rpc_text *b);

/* ---- peers ---- */
struct rpc_peer;
struct rpc_counts { uint64_t frames_in, frames_out, bytes_in, bytes_out; };
/* Room for out_cap bytes on their way out, and for one frame and more on the way in. */
enum status rpc_peer_create(size_t out_cap, struct rpc_peer **out);
void rpc_peer_destroy(struct rpc_peer *peer); /* hangs up first; NULL is fine */
/* From now on this socket; the peer's. */
void rpc_peer_attach(struct rpc_peer *peer, int fd);
/* Begins to connect; does not wait. STATUS_IO: nobody is there. */
enum status rpc_peer_connect(struct rpc_peer *peer, const struct rpc_address *address);
void rpc_peer_hang_up(struct rpc_peer *peer);
int rpc_peer_fd(const struct rpc_peer *peer); /* -1: not connected */
short rpc_peer_events(const struct rpc_peer *peer); /* what to poll for */
/* Queues a message for rpc_peer_flush(). STATUS_REFUSED: no room now, nothing was queued. */
enum status rpc_peer_send(struct rpc_peer *peer, const struct rpc_message *message);
size_t rpc_peer_room(const struct rpc_peer *peer); /* bytes that can be queued */
/* Writes what the socket takes, reads what it has. STATUS_IO: the connection is no more. */
enum status rpc_peer_flush(struct rpc_peer *peer);
enum status rpc_peer_fill(struct rpc_peer *peer);
/* The next message that came. STATUS_REFUSED: no whole one yet; STATUS_INVALID: what came is no message,
 * and nothing behind it can be trusted. */
enum status rpc_peer_next(struct rpc_peer *peer, struct rpc_message *message);
struct rpc_counts rpc_peer_counts(const struct rpc_peer *peer);
/* Until the peer's socket can be read (or written, if something is queued), at most timeout_ns. */
void rpc_wait(const struct rpc_peer *peer, int64_t timeout_ns);

#endif
