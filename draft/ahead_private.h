/* ahead: the state behind draft_ahead_create. Inside ahead*.c, and for tests. */
#ifndef DRAFT_AHEAD_PRIVATE_H
#define DRAFT_AHEAD_PRIVATE_H

#include <pthread.h>

#include "draft/ahead.h"

enum ahead_source { AHEAD_SOURCE_AHEAD, AHEAD_SOURCE_MODEL, AHEAD_SOURCE_FALLBACK };

/* A sequence's tokens and parameters, kept for a job, since the step thread's own move on meanwhile. */
struct ahead_text {
    uint64_t seq_id, epoch;
    int32_t n_valid;               /* committed tokens that tokens[] begins with */
    int32_t round_idx;             /* its last round's, among those of the job */
    int32_t *tokens;               /* [context + DRAFT_MAX_NODES] */
    struct sampling_params params;
};

enum ahead_job_kind { AHEAD_JOB_ROUNDS, AHEAD_JOB_DRAFT, AHEAD_JOB_QUIT };
/* What the draft thread is given to do. Two take turns: one may run while the other waits. A job is posted
 * only when the one before it was taken, so the one before that has ended. */
struct ahead_job {
    enum ahead_job_kind kind;
    struct ahead_round *rounds;    /* [max_batch] */
    struct ahead_table *tables;    /* [max_batch] of the rounds */
    struct ahead_text *texts;      /* [max_batch] by place */
    int32_t *tokens;               /* theirs */
    int32_t n_rounds;
    struct draft_ask *asks;        /* AHEAD_JOB_DRAFT: [n_asks] the step thread's, which waits */
    int32_t n_asks;
    struct draft_farewell *farewells; /* [max_batch] sequences that left, to be forgotten first */
    int32_t n_farewells;
    int32_t verify_rows, k_fallback; /* see struct grower_call */
    int64_t verify_ns;
    double fallback_seconds;
    int64_t begin_ns;
    bool grows_to_the_end;
    atomic_int stop, is_done;
    int64_t run_ns;                /* set before is_done */
    int64_t waited_ns;             /* for its end, by the step thread */
    struct grower_report grower;   /* likewise */
};

/* What a fallback has brought, to be compared with the others'. */
struct fallback_record { uint64_t n_tries; double tokens, seconds; };

/* Working ahead, or drafting and verifying in turn: what each has brought (ahead_mode.c). */
struct mode_record { double tokens, seconds; uint32_t n_windows; };
struct ahead_modes {
    struct mode_record record[2];  /* [takes_turns] */
    struct mode_record window;     /* the one under way */
    bool takes_turns, prefers_turns;
    int32_t n_steps, n_settling;   /* of the window; steps that do not count yet */
    int32_t n_since_trial, wait;   /* windows */
    double rate_at_trial;          /* of the preferred way, when the other was last tried */
};

/* What a hit proposed in this step; n 0: it was none. */
struct ahead_served { int32_t n, token[DRAFT_MAX_NODES]; };

struct ahead {
    struct draft base;
    struct ahead_options options;
    struct grower *grower;
    struct draft *lookup;          /* n-grams */
    pthread_t thread;
    bool has_thread;
    struct ahead_job jobs[2];
    uint64_t n_posted;             /* step thread's */
    atomic_int has_job;            /* posted and not taken */
    struct ahead_job *prepared;    /* the last AHEAD_JOB_ROUNDS, NULL: none since */
    bool never_stops_early;        /* as the options say, or as the rounds under way want */
    struct draft_farewell *leaving; /* [max_batch] told, not posted yet */
    int32_t n_leaving;
    struct draft_ask *missed;      /* [max_batch] asks of a fallback */
    int32_t *missed_idx;
    struct ahead_served *served;   /* [max_batch] by place */
    int64_t begin_ns, verify_ns;   /* of the pass under way; how long the last one took, .. */
    int32_t begin_rows, verify_rows; /* .. with how many rows */
    double k_fallback, fallback_seconds; /* averages over steps with misses */
    struct fallback_record fallbacks[AHEAD_FALLBACK_DRAFT + 1];
    enum ahead_fallback last_fallback; /* AUTO: the step had no miss */
    struct ahead_modes modes;
    int64_t last_propose_ns, last_n_tokens;
    int32_t last_n_asks;
    struct ahead_report report;
    uint64_t bytes;
};

/* What was prepared for the round that the ask's last tokens came from; NULL: nothing. */
const struct ahead_table *ahead_table_of(const struct ahead *ahead, const struct draft_ask *ask,
                                         struct ahead_outcome *outcome);

/* ---- ahead_thread.c: jobs between the two threads ---- */
enum status ahead_thread_start(struct ahead *ahead);
void ahead_thread_stop(struct ahead *ahead);
/* A job to fill, NULL: the draft is behind and nothing may be posted. */
struct ahead_job *ahead_job_next(struct ahead *ahead, enum ahead_job_kind kind);
void ahead_job_post(struct ahead *ahead, struct ahead_job *job);
/* Stops what runs and waits for its end; returns the seconds that took. */
double ahead_job_settle(struct ahead *ahead, struct ahead_job *job, bool stops);

/* Chains on the step thread's own lane, the draft thread having nothing to do. */
void ahead_draft_here(struct ahead *ahead, struct draft_ask *asks, int32_t n_asks);

/* ---- ahead_mode.c ---- */
/* In turns at first where what is faster is measured, else ahead for good. */
void ahead_mode_begin(struct ahead_modes *modes, bool is_measured);
/* A step of sequences that only decoded: tokens it committed, drafting included. May change takes_turns. */
void ahead_mode_observe(struct ahead_modes *modes, int64_t n_tokens, double seconds);

/* ---- ahead_fallback.c ---- */
enum ahead_fallback ahead_fallback_choose(struct ahead *ahead, const struct draft_ask *asks, int32_t n_asks);
/* What a step brought whose misses had this fallback. */
void ahead_fallback_judge(struct ahead *ahead, int64_t n_tokens, double seconds);
/* Proposals of the asks that missed. */
void ahead_fallback_run(struct ahead *ahead, enum ahead_fallback fallback, struct draft_ask *asks, int32_t n_asks);

#endif
