/* worker: a draft for targets elsewhere. It keeps a copy of each target's sequences, and prepares the next
 * proposals while they verify (ahead.h); what it prepared is pushed to them. rpc/rpc.h has the messages.
 *
 *     serving thread   accepts, reads, answers; which rounds wait ──job──► growing thread: the grower
 *                      pushes tables to whom they belong       ◄──done──
 *
 * Rounds that wait are grown together in shared passes, whoever they come from. A place belongs to a
 * (connection, sequence); the grower knows it by an id of the worker's own. Targets are not trusted: what
 * does not fit ends their connection and nobody else's.
 */
#ifndef DRAFT_WORKER_H
#define DRAFT_WORKER_H

#include "draft/ahead.h"

struct grower; /* as in ahead.h, wherever that began to be read */
struct grower_call;

/* What computes: a grower, or whatever tests put in its place. One call at a time, from any thread. */
struct worker_grower {
    void *user;
    void (*run)(void *user, const struct grower_call *call); /* as grower_run() */
    void (*forget)(void *user, const struct draft_farewell *farewell);
};
struct worker_grower worker_grower_of(struct grower *grower); /* borrowed */

struct draft_worker_options {
    const char *listen;         /* "unix:/path", "tcp:port", "tcp:host:port" */
    const char *key_file;       /* NULL: whoever reaches the address may draft */
    bool is_open_to_all;        /* an address beyond this machine may do without a key */
    const char *name;           /* of the model, for people */
    uint64_t vocab_digest;      /* 0: no vocabulary, sizes are compared */
    uint64_t fingerprint;
    int32_t n_vocab, context;   /* the draft's */
    int32_t max_batch;          /* places: sequences of all targets together, at most RPC_MAX_SEQUENCES */
    int32_t max_targets;        /* connections; 0 = 16 */
    int32_t k_max;              /* tokens behind an outcome, at most */
    int32_t max_budget;         /* branches of a round, 1..FANOUT_MAX_BUDGET: what the grower was made for */
    struct worker_grower grower;
};
struct draft_worker;
/* All memory is taken here, the address listened on, the growing thread started. */
enum status draft_worker_open(const struct draft_worker_options *options, struct draft_worker **out);
void draft_worker_close(struct draft_worker *worker); /* NULL is fine */
/* Serves until draft_worker_stop(), or until `is_over` says so, asked at each turn and twice a second
 * (NULL: never). STATUS_IO when the socket itself fails. */
enum status draft_worker_serve(struct draft_worker *worker, int (*is_over)(void));
void draft_worker_stop(struct draft_worker *worker); /* any thread */
/* Where it listens, with the port it got: for people, and for targets. The worker's. */
const char *draft_worker_address(const struct draft_worker *worker);

struct draft_worker_report {
    uint64_t targets, refused_targets, sequences, evicted, rounds, tables, batches, stopped_batches;
    uint64_t shared_batches;    /* of rounds of more than one target */
    int32_t n_connected, n_places_taken;
};
/* A snapshot; any thread. */
struct draft_worker_report draft_worker_report(struct draft_worker *worker);

#endif
