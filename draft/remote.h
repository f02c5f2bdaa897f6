/* remote: a draft in another process or on another machine (worker.h is its other end). The step thread's
 * half of SSD, as ahead.c, over a socket: what is verified now is sent, tables are pushed back, an outcome
 * that was prepared is looked up.
 *
 *     begin ──round──► worker grows ──table──► │          propose: drain the socket, look up (k, t)
 *     verify                                   │             hit: the branch    miss: the fallback
 *     observe ──outcome──► it stops, and sends ┘             nothing yet: wait_ns at most, once a step
 *
 * There is no thread: the socket never blocks, and is looked after when the step thread comes by. A worker
 * that is gone, hung, slow, or talks nonsense costs speed alone (I9): what it says is bounded, an answer to
 * another round is dropped by its key, and the link is made again with growing pauses.
 */
#ifndef DRAFT_REMOTE_H
#define DRAFT_REMOTE_H

#include "draft/draft.h"

struct draft_remote_options {
    struct draft_options common;  /* wants_prob: refused, tables carry no probabilities */
    const char *address;          /* "unix:/path", "tcp://host:port" */
    const char *key_file;         /* NULL: none */
    const char *name;             /* of the target, for the worker's log */
    uint64_t vocab_digest;        /* 0: no vocabulary, sizes are compared */
    uint64_t fingerprint;
    int64_t wait_ns;              /* an answer that is late is waited for, at most; 0: never; < 0: twice what
                                   * answers take, measured; a pass of the target, and 20 ms, at most */
    bool has_lookup;              /* a miss is served from n-grams, else K = 0 */
};
/* Whether a word of --draft is meant for it. */
bool draft_remote_is_address(const char *word);
/* Waits up to 2 s for the worker. One that cannot be reached is tried again later, and said so in the log;
 * one that refuses (key, vocabulary), and an address that is none, are failures. The draft takes the
 * sources "remote" and "ngram". */
enum status draft_remote_create(const struct draft_remote_options *options, struct draft **out);

struct draft_remote_report {
    uint64_t sent;                  /* rounds */
    uint64_t rounds, hits, misses;  /* of sequences whose outcome a table was asked for */
    uint64_t unprepared;            /* first rounds, after a loss, or no room */
    uint64_t unanswered;            /* no table in time */
    uint64_t dropped;               /* tables and branches that were stale, twice, or nonsense */
    uint64_t links, losses;         /* connections made, and lost */
    uint64_t branches;              /* that came */
    uint64_t tokens_served, tokens_wanted; /* of hits */
    uint64_t bytes_in, bytes_out;
    double waited_seconds;
    bool is_linked;
};
/* All zero for another kind of draft. Step thread only. */
struct draft_remote_report draft_remote_report(const struct draft *draft);

#endif
