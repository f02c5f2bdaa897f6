/* private: the state of the step thread, shared by the files of this room. */
#ifndef SCHEDULER_PRIVATE_H
#define SCHEDULER_PRIVATE_H

#include "scheduler/request.h"
#include "scheduler/scheduler.h"
#include "verify/verify.h"

/* What one sequence has in this step; membership is frozen from plan to commit. */
struct step_part {
    struct sequence *seq;
    int32_t n_rows;
    int32_t n_proposed;    /* K; proposals lie in seq->tokens after the committed ones */
    int32_t first_logits;  /* place of the first logits row */
    int32_t n_logits;      /* 0 (a chunk that does not reach the prompt's end) or K + 1 */
    int32_t n_committed;   /* set by commit: as many logits rows chose a committed token */
};

/* The target's choice for one logits row. */
struct step_pick {
    const struct sequence *seq;
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
    struct kv_table **free_tables; /* [max_batch], n_free_tables used */
    int32_t n_free_tables;

    struct lineup waiting, running;
    uint64_t last_arrival, last_sequence_id;
    bool admission_blocked;        /* the first in line did not fit, and nothing was given back since */
    atomic_int cancel_noticed;

    /* ---- one step ---- */
    struct batch *batch;
    struct step_part *parts;       /* [max_batch] */
    int32_t n_parts;
    struct kv_copy *copies;        /* [cap_rows] */
    int32_t n_copies;
    int32_t prefill_left;          /* of the token budget */
    struct step_pick *picks;       /* [cap_logits] */
    const float *logits;           /* [cap_logits, n_vocab] of the pass */
    struct sampling_scratch **scratches; /* [n_scratches] */
    atomic_flag *scratch_in_use;   /* [n_scratches] */
    int32_t n_scratches;

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
/* Fills parts, copies and batch. */
void scheduler_plan(struct scheduler *scheduler);

/* ---- pick.c: work on logits rows, on the target's lane ---- */
void scheduler_pick_all(struct scheduler *scheduler);   /* picks */
void scheduler_digest_all(struct scheduler *scheduler); /* digests of the rows that chose */

/* ---- commit.c ---- */
void scheduler_commit_part(struct scheduler *scheduler, struct step_part *part);

#endif
