/* worker_private: the state of a draft worker. Inside the room, files worker*.c.
 *
 *     round of a place    NONE ──round──► WAITING ──job──► RUNNING ──done──► NONE
 *                                            ▲                │ stopped for others' sake, or a prompt not
 *                                            └────────────────┘ all fed yet
 *
 * All of it is the serving thread's, but for what hangs on a job while it runs: tokens and params of the
 * places named in it are only read, tables are read as far as they say that they are ready.
 */
#ifndef DRAFT_WORKER_PRIVATE_H
#define DRAFT_WORKER_PRIVATE_H

#include <pthread.h>

#include "draft/worker.h"
#include "rpc/rpc.h"

enum worker_round { WORKER_ROUND_NONE, WORKER_ROUND_WAITING, WORKER_ROUND_RUNNING };

struct worker_target;
struct worker_place {
    struct worker_target *target;  /* NULL: free */
    struct rpc_sequence sequence;  /* as the target names it */
    uint64_t seq_id;               /* as the grower knows it; never again */
    uint64_t tenant;
    bool is_leaving;               /* to be forgotten once no job runs */
    struct sampling_params params;
    struct sampling_bias *biases;  /* [SAMPLING_MAX_BIASES] */
    int32_t *tokens;               /* [context + DRAFT_MAX_NODES] committed, then the chain being verified */
    int32_t n_tokens;
    int32_t n_prompt;
    int64_t used_ns;
    /* ---- its round ---- */
    enum worker_round round;
    int32_t n_proposed, k_next, verify_rows, verify_us;
    int32_t n_jobs, n_interrupted; /* it was part of, and that stopped for others' sake */
    bool after_miss, was_answered; /* was_answered: a table was pushed since the outcome came */
    bool has_outcome;
    struct ahead_outcome outcome;
    struct ahead_table *table;     /* RUNNING: the job's */
};

struct worker_target {
    struct rpc_peer *peer;
    bool is_connected, is_greeted;
    bool has_held;                 /* `held` waits until no job runs */
    struct rpc_message *held;
    int32_t number, n_vocab;
    int64_t since_ns;
    uint64_t serial, n_rounds, n_tables;
    struct rpc_text name;
};

struct worker_job {
    struct ahead_round *rounds;    /* [max_batch] */
    struct ahead_table *tables;
    struct worker_place **places;
    int32_t n;
    int32_t verify_rows;           /* as grower_call; 0 where targets differ */
    int64_t begin_ns, verify_ns;
    atomic_int stop;
};

struct draft_worker {
    struct draft_worker_options options;
    struct rpc_address address;
    struct rpc_text key;
    int listen_fd, wake_fd;        /* wake_fd: a job is done, or it is time to end */
    char where[RPC_ADDRESS_TEXT_CAP];
    struct worker_target *targets; /* [max_targets] */
    struct worker_place *places;   /* [max_batch] */
    struct pollfd *polls;          /* [2 + max_targets] */
    struct rpc_message *message;   /* scratch for what is sent */
    uint64_t n_serials, n_seq_ids;
    struct worker_job job;
    /* ---- between the threads ---- */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool has_job, is_running, is_ending; /* by the mutex; is_running until the serving thread took it back */
    atomic_int is_done, stopping;
    struct draft_worker_report report;   /* by the mutex */
};

/* ---- worker_talk.c: what a target says ---- */
/* All that can be handled now. Hangs up on whom it may not believe. */
void worker_listen_to(struct draft_worker *worker, struct worker_target *target);
void worker_hang_up(struct draft_worker *worker, struct worker_target *target, const char *why);
/* Queues worker->message; hangs up on a target that does not read. */
void worker_send(struct draft_worker *worker, struct worker_target *target);
/* The place is nobody's from now on; the grower forgets it once no job runs. */
void worker_leave_place(struct draft_worker *worker, struct worker_place *place);

/* ---- worker_grow.c: what is grown, and for whom ---- */
enum status worker_grow_start(struct draft_worker *worker);
void worker_grow_end(struct draft_worker *worker);
/* Takes a finished job back, and forgets who left. */
void worker_grow_take(struct draft_worker *worker);
/* Starts the next, if none runs: after all that was held or came since was heard. */
void worker_grow_go(struct draft_worker *worker);
/* The outcome of a place's round is there: what stands for it goes out at once. */
void worker_grow_answer(struct draft_worker *worker, struct worker_place *place);
/* An outcome came, or a place left: perhaps the job need not go on. */
void worker_grow_consider_stop(struct draft_worker *worker);

#endif
