/* private: the state of the step thread, shared by the files of this room. */
#ifndef SCHEDULER_PRIVATE_H
#define SCHEDULER_PRIVATE_H

#include "scheduler/policy.h"
#include "scheduler/request.h"
#include "scheduler/scheduler.h"
#include "verify/verify.h"

/* What one sequence has in this step; membership is frozen from plan to commit. */
struct step_part {
    struct sequence *seq;
    int32_t first_position; /* of its rows: what was cached */
    int32_t n_rows;
    struct draft_ask *ask; /* NULL: a chunk that does not reach the prompt's end */
    int32_t n_nodes;       /* proposed and kept; they lie in seq->tokens after the committed ones */
    int32_t first_logits;  /* place of the first logits row */
    int32_t n_logits;      /* 0 without an ask, else n_nodes + 1 */
    /* ---- set by commit: the row that chose each committed token, by place among the part's logits
     * rows (0, then 1 + node), and how many */
    int8_t row_of_token[DRAFT_MAX_NODES + 1];
    int32_t n_committed;
};

/* The target's choice for one logits row. */
struct step_pick {
    const struct step_part *part;
    int32_t position;      /* of the token being chosen */
    enum status status;
    char error[SEQUENCE_ERROR_CAP];
    struct sampling_choice choice;
};

struct scheduler {
    struct scheduler_options options;
    int32_t n_vocab;
    const struct backend *backend;
    struct kv_pool *pool;
    struct kv_prefix *prefix;      /* NULL when off */
    struct kv_table **tables;      /* [max_batch] owned */
    int32_t *free_places;          /* [max_batch], n_free_places used: tables nobody has */
    int32_t n_free_places;
    struct policy *policy;

    struct lineup waiting, running;
    uint64_t last_arrival, last_sequence_id;
    bool admission_blocked;        /* the first in line did not fit, and nothing was given back since */
    atomic_int cancel_noticed;

    /* ---- one step ---- */
    struct batch *batch;
    struct step_part *parts;       /* [max_batch] */
    int32_t n_parts;
    struct draft_ask *asks;        /* [max_batch] of the parts that choose a token, in their order */
    int32_t n_asks;
    int32_t longest_k;             /* asked for in this step */
    int64_t draft_ns, verify_ns;   /* of this step */
    struct kv_copy *copies;        /* [cap_rows] */
    int32_t n_copies;
    int32_t prefill_left;          /* of the token budget */
    struct step_pick *picks;       /* [cap_logits] */
    const float *logits;           /* [cap_logits, n_vocab] of the pass; NULL: they stayed on the device */
    /* ---- where they do: pick_there.c; all NULL where they never do ---- */
    struct choice_ask *asks_there; /* [cap_logits] */
    struct choice_answer *answers; /* [cap_logits] */
    struct sequence **due;         /* [n_due] whose digest waits for .. */
    int32_t *due_rows;             /* .. this row, which is fetched */
    int32_t n_due;
    struct sampling_scratch **scratches; /* [n_scratches] */
    atomic_flag *scratch_in_use;   /* [n_scratches] */
    int32_t n_scratches;
    float *probs;                  /* [n_scratches, 2, n_vocab] rejection rule; else NULL */

    struct sequence *first_news, *last_news;
    uint64_t n_started;            /* requests that wait no longer for the first time */
    struct td_engine_stats stats;
    int64_t cpu_mark_ns;
};

/* ---- sequences.c: a sequence's ways in and out ---- */
void scheduler_admit(struct scheduler *scheduler);
void scheduler_preempt(struct scheduler *scheduler, struct sequence *seq);
void scheduler_finish(struct scheduler *scheduler, struct sequence *seq, enum sequence_ending ending);
void scheduler_sweep_cancelled(struct scheduler *scheduler);
/* Full pages of what is cached go to the prefix tree (I8). */
void scheduler_publish(struct scheduler *scheduler, struct sequence *seq);
void scheduler_add_news(struct scheduler *scheduler, struct sequence *seq);

/* ---- plan.c ---- */
/* Fills parts, asks and copies: who takes part, with what pages. */
void scheduler_plan(struct scheduler *scheduler);

/* ---- propose.c ---- */
/* Proposals of the draft, cut to what is worth verifying; fills the batch. */
void scheduler_propose(struct scheduler *scheduler);

/* ---- pick.c: work on logits rows, on the target's lane ---- */
/* picks. STATUS_IO: of rows that stayed, where their device failed. */
enum status scheduler_pick_all(struct scheduler *scheduler);
void scheduler_digest_all(struct scheduler *scheduler); /* digests of the rows that chose */
/* What a pick is made from. */
struct pick_way { int32_t row, n_history, position; };
struct pick_way scheduler_pick_way(const struct scheduler *scheduler, uint32_t pick);
int32_t scheduler_scratch_acquire(struct scheduler *scheduler, int32_t wanted);
void scheduler_scratch_release(struct scheduler *scheduler, int32_t scratch);
/* ---- pick_there.c: the same of rows that stayed on the device ---- */
enum status scheduler_open_there(struct scheduler *scheduler, size_t cap_logits);
void scheduler_close_there(struct scheduler *scheduler);
enum status scheduler_pick_there(struct scheduler *scheduler, uint32_t n_rows); /* waits for the pass */
void scheduler_digest_there(struct scheduler *scheduler);  /* their rows are on the way */
void scheduler_digest_settle(struct scheduler *scheduler); /* digests are up to date */
/* ---- reject.c ---- */
void scheduler_reject_all(struct scheduler *scheduler); /* picks, by the rejection rule */

/* ---- commit.c ---- */
void scheduler_commit_part(struct scheduler *scheduler, struct step_part *part);
/* What the step says to the policy. */
void scheduler_observe_step(struct scheduler *scheduler);

#endif
