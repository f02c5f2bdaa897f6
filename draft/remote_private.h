/* remote_private: the state of a remote draft. Inside the room, files remote*.c; step thread only.
 *
 *     APART ──pause over──► GREETING ──welcome──► READY
 *       ▲ ▲                     │                   │
 *       │ └── lost, or late ────┴───────────────────┘
 *       └──── refused: a longer pause
 */
#ifndef DRAFT_REMOTE_PRIVATE_H
#define DRAFT_REMOTE_PRIVATE_H

#include "draft/remote.h"
#include "rpc/rpc.h"

enum remote_state { REMOTE_APART, REMOTE_GREETING, REMOTE_READY };
enum { REMOTE_SOURCE_REMOTE, REMOTE_SOURCE_NGRAM };

struct remote_place {
    uint64_t seq_id, epoch;
    bool is_taken, is_open;      /* is_open: the worker was told of it */
    bool was_miss;               /* what is verified now is the fallback's */
    int64_t reopen_ns;           /* it was put out there; not before */
    int32_t n_sent;              /* committed tokens that the worker has */
    /* ---- the round under way ---- */
    bool has_round, has_said_outcome;
    int64_t said_ns;             /* when the outcome was said */
    int32_t last_n_tokens;       /* of the round before, whose answer may come yet */
    int64_t last_said_ns;
};

struct remote {
    struct draft base;
    struct draft_remote_options options;
    struct draft *lookup;        /* NULL: none */
    struct remote_place *places; /* [max_batch] */
    struct ahead_table *tables;  /* [max_batch] of the places' rounds */
    struct draft_ask *missed;    /* [max_batch] */
    int32_t *missed_idx;         /* [max_batch] their places among the asks */
    int32_t n_unsaid;            /* rounds whose outcome was not said yet */
    int64_t begin_ns, verify_ns; /* of the pass under way, 0: not to be timed; of passes, on average */
    int32_t begin_rows;          /* of the pass under way */
    int32_t last_rows;           /* of the last pass that was timed, */
    int64_t last_ns;             /* and its time */
    /* ---- the link ---- */
    enum remote_state state;
    struct rpc_address address;
    struct rpc_text key, name;
    struct rpc_peer *peer;
    struct rpc_message *in, *out;
    struct rpc_model worker;     /* READY: what it is */
    int64_t retry_ns, pause_ns;  /* APART: when next, and how long the pause was */
    int64_t since_ns;            /* GREETING: since when. READY: since when rounds go without a word, 0: not */
    int64_t ping_ns;             /* when a ping was sent; 0: none is under way */
    int64_t round_trip_ns;       /* least seen */
    int64_t answer_ns;           /* from an outcome to its answer, on average of those that came after it */
    int32_t n_late;              /* answers missed in a row, less those that came after all */
    int32_t n_calls;             /* attempts to connect */
    bool was_refused, has_complained, is_creating;
    char lost[RPC_MAX_TEXT_BYTES + 1]; /* why, last time */
    struct draft_remote_report report;
};

/* ---- remote_link.c ---- */
/* Makes the link, or makes it again, reads and writes what can be; never waits. */
void remote_link_turn(struct remote *remote);
void remote_link_lose(struct remote *remote, const char *why);
/* Queues remote->out. False: no room now. */
bool remote_link_send(struct remote *remote);
void remote_link_flush(struct remote *remote);
/* How long an answer may be waited for now. */
int64_t remote_link_patience_ns(struct remote *remote);
/* An answer came so long after its outcome was said. */
void remote_link_time_answer(struct remote *remote, int64_t ns);

/* ---- remote_rounds.c ---- */
/* A table, or news of a sequence that was put out, from the worker. */
void remote_take_table(struct remote *remote, const struct rpc_table *table);
void remote_take_cancel(struct remote *remote, struct rpc_sequence sequence);
struct remote_place *remote_place_of(struct remote *remote, const struct draft_ask *ask);
/* All the worker lacks of a sequence, and what is verified now. */
void remote_say_round(struct remote *remote, const struct draft_ask *ask);
void remote_say_outcome(struct remote *remote, struct remote_place *place, struct ahead_outcome outcome);
void remote_leave(struct remote *remote, struct remote_place *place);

#endif
