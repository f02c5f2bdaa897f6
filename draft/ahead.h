/* ahead: SSD. While the target verifies a proposal, the draft prepares the next one for each outcome that
 * is likely; if the real outcome is among them, drafting has cost nothing (Kumar, Dao, May, "Speculative
 * Speculative Decoding", 2603.03251).
 *
 *     step thread      propose ► begin ──── verify ────► known ► commit ► propose: look up (k, t)
 *                                  │                       │        hit: the branch; miss: the fallback
 *     draft thread                 └► glue ► fork ► grow ──┴► stops at the next step's boundary
 *
 * Two halves, which meet in plain values, so that the second may as well be another process:
 *   client   (ahead.c, remote.c; ahead_tables.c) the step thread's: what was prepared, hits, misses
 *   grower   (grower.c) glue, fork, grow over rounds handed to it; one thread at a time
 *
 *     glue   rows [rec, x1 .. xK] into the draft's true slots, causal       → K + 1 logits rows
 *     fork   of row k the F_k likeliest recovery tokens; x_{k+1} is not one  → branches
 *     grow   K_next steps: every branch of every sequence one token a pass
 *
 * N counts the tokens with the pending recovery token, which stands at position N - 1. Branch j of fork
 * depth k(j) at step i: position N + k(j) + i, its KV in place N + K + i * MQ + j of the draft's table,
 * and it sees positions below N + k(j), and then its own places. Branch places are scratch (I1).
 */
#ifndef DRAFT_AHEAD_H
#define DRAFT_AHEAD_H

#include <stdatomic.h>

#include "draft/draft.h"
#include "draft/fanout.h"

/* ---- what the halves tell each other ---- */
/* One sequence whose proposal is about to be verified. */
struct ahead_round {
    int32_t place;              /* 0..max_batch - 1, its own while it runs */
    uint64_t seq_id, epoch;
    const int32_t *tokens;      /* [n_tokens + n_proposed] committed, the recovery token last; then the
                                 * chain that is verified now; all of it valid while the round runs */
    int32_t n_tokens;           /* N */
    int32_t n_proposed;         /* K_now, 0..DRAFT_MAX_NODES */
    int32_t k_next;             /* tokens wanted behind each outcome, 1..DRAFT_MAX_NODES */
    const struct sampling_params *params;
    uint64_t tenant;
    bool wants_prob;            /* rejection rule */
};

/* What was prepared for the outcome "n_accepted, then token". */
struct ahead_branch {
    int32_t n_accepted, token;
    int32_t rank;               /* of the token among the candidates of its row, 0 = likeliest */
    int32_t n;                  /* tokens behind it, 0..k_next: fewer when it was stopped early */
    int32_t next[DRAFT_MAX_NODES];
    float hint[DRAFT_MAX_NODES];
    const float *prob[DRAFT_MAX_NODES]; /* rejection rule: [n_vocab]; the grower's, until it runs again */
};
/* All that was prepared for one round; its key is (seq_id, epoch, n_tokens), an outcome's besides
 * (n_accepted, token). */
struct ahead_table {
    int32_t place;
    uint64_t seq_id, epoch;
    int32_t n_tokens;           /* of the round */
    int32_t n_proposed;
    int32_t n_branches;
    struct ahead_branch *branch; /* [FANOUT_MAX_BUDGET] owned by whoever made the table */
};
/* The branch of an outcome, NULL: a miss, or a table of another round. */
const struct ahead_branch *ahead_table_find(const struct ahead_table *table, const struct ahead_round *round,
                                            int32_t n_accepted, int32_t token);

/* ---- grower: the half that computes ---- */
struct grower_options {
    struct draft_model_options model; /* lane: its own; context, pages: without the scratch of branches */
    int32_t max_budget;         /* branches of a sequence, at most FANOUT_MAX_BUDGET */
    int32_t n_reshaped;         /* Saguaro sampling, rejection rule only: the likeliest ids of a row, 0 = off, */
    float reshape;              /* times this, 0..1 */
};
struct grower;
/* What a round took; a mean over the sequences of the last call. */
struct grower_times { int64_t glue_ns, fork_ns, grow_ns; int32_t n_steps, n_rows; };

/* All memory is taken here. STATUS_INVALID, STATUS_NO_MEMORY. */
enum status grower_create(const struct grower_options *options, struct grower **out);
void grower_destroy(struct grower *grower);
uint64_t grower_bytes(const struct grower *grower);
/* Glue, fork and grow of several sequences in shared passes; fills tables[i] for rounds[i] (no branches
 * where pages or the context ran out). Stops before the next pass once *stop is set; what has been grown
 * by then stands. fan[i] says how many candidates per row. Blocks. */
void grower_run(struct grower *grower, const struct ahead_round *rounds, const struct fanout_plan *fan,
                int32_t n_rounds, atomic_int *stop, struct ahead_table *tables);
/* Chains the ordinary way: what a miss may ask for (draft.h: propose). */
void grower_draft(struct grower *grower, struct draft_ask *asks, int32_t n_asks);
void grower_forget(struct grower *grower, const struct draft_farewell *farewell);
struct grower_times grower_last_times(const struct grower *grower);

/* ---- the draft of this process: a thread and a lane of its own ---- */
enum ahead_fallback {
    AHEAD_FALLBACK_AUTO,        /* whichever has brought most for its time */
    AHEAD_FALLBACK_NONE,        /* K = 0 */
    AHEAD_FALLBACK_LOOKUP,      /* n-grams */
    AHEAD_FALLBACK_DRAFT        /* chains, just in time */
};
struct ahead_options {
    struct grower_options grower;
    struct fanout_options fanout;
    enum ahead_fallback fallback;
    bool never_stops_early;     /* a round is grown to its end, so that its length is no matter of time */
    int32_t forced_hits;        /* tests: percent of hits that are kept, the rest become misses; -1 = all;
                                 * which, by a hash of the key */
};
enum status draft_ahead_create(const struct ahead_options *options, struct draft **out);
uint64_t draft_ahead_bytes(const struct draft *draft);

struct ahead_report {
    uint64_t rounds, hits, misses;      /* of sequences that had been prepared for */
    uint64_t unprepared;                /* first rounds, and rounds after a preemption */
    uint64_t branches_grown, branches_used, tokens_served, tokens_wanted; /* of hits */
    double hidden_seconds, exposed_seconds; /* of drafting: beside a verify, and waited for */
    double glue_seconds, fork_seconds, grow_seconds;
};
/* All zero for a draft that does not prepare. */
struct ahead_report draft_ahead_report(const struct draft *draft);

#endif
