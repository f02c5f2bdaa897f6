/* ahead: SSD. While the target verifies a proposal, the draft prepares the next one for each outcome that
 * is likely; if the real outcome is among them, drafting has cost nothing (Kumar, Dao, May, "Speculative
 * Speculative Decoding", 2603.03251).
 *
 *     step thread      propose ► begin ──── verify ────► known ► commit ► propose: look up (k, t)
 *                                  │                       │        hit: the branch; miss: the fallback
 *     draft thread                 └► glue ► fork ► grow ──┴► stops at the next step's boundary
 *
 * Two halves, which meet in plain values, so that the second may as well be another process:
 *   client   (ahead.c, remote.c; ahead_table.c) the step thread's: what was prepared, hits, misses
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
#include "draft/gain.h"

/* ---- what the halves tell each other ---- */
/* One sequence whose proposal is about to be verified. */
struct ahead_round {
    int32_t place;              /* 0..max_batch - 1, its own while it runs */
    uint64_t seq_id, epoch;
    int32_t *tokens;            /* [n_tokens + n_proposed] committed, the recovery token last; then the
                                 * chain that is verified now; valid while the round runs; read only */
    int32_t n_tokens;           /* N */
    int32_t n_prompt;
    int32_t n_proposed;         /* K_now, 0..DRAFT_MAX_NODES */
    int32_t k_next;             /* tokens wanted behind each outcome, 1..DRAFT_MAX_NODES */
    const struct sampling_params *params; /* of the sequence; its biases live as long as it runs */
    uint64_t tenant;
    bool wants_prob;            /* rejection rule */
    bool after_miss;            /* the proposal is no hit's: outcomes are learned apart */
};

/* What was prepared for the outcome "n_accepted, then token". */
struct ahead_branch {
    int32_t n_accepted, token;
    int32_t rank;               /* of the token among the candidates of its row, 0 = likeliest */
    int32_t next[DRAFT_MAX_NODES]; /* what follows it; the first -1 ends it */
    float hint[DRAFT_MAX_NODES];
    const float *prob[DRAFT_MAX_NODES]; /* rejection rule: [n_vocab]; the grower's, until it runs twice more */
};
/* All that was prepared for one round; its key is (seq_id, epoch, n_tokens), an outcome's besides
 * (n_accepted, token). */
struct ahead_table {
    int32_t place;
    uint64_t seq_id, epoch;
    int32_t n_tokens;           /* of the round */
    int32_t n_proposed;
    int32_t proposed[DRAFT_MAX_NODES];
    int32_t n_branches;
    struct ahead_branch *branch; /* [max_budget] owned by whoever made the table */
    /* -1: not forked yet. Else branches stand, and of each the first n_ready tokens may be read, by another
     * thread too: it rises while the grower runs. */
    atomic_int n_ready;
};
enum status ahead_tables_create(int32_t n_tables, int32_t max_budget, struct ahead_table **out);
void ahead_tables_destroy(struct ahead_table *tables); /* NULL is fine */
/* A round of the ask begins, its first n_chain proposals being verified; nothing stands yet. Whoever reads. */
void ahead_table_begin(struct ahead_table *table, const struct draft_ask *ask, int32_t n_chain);
/* The outcome of the table's round, as the tokens now committed show it: k and t. False: another sequence or
 * epoch, or what is committed does not begin with what was proposed. */
struct ahead_outcome { int32_t n_accepted, token; };
bool ahead_table_outcome(const struct ahead_table *table, const struct draft_ask *ask, struct ahead_outcome *out);
/* The branch of an outcome, NULL: a miss, or nothing stands yet. */
const struct ahead_branch *ahead_table_find(const struct ahead_table *table, struct ahead_outcome outcome);
/* The likeliest branch of that many accepted tokens, NULL: there is none. */
const struct ahead_branch *ahead_table_neighbour(const struct ahead_table *table, int32_t n_accepted);
/* Tokens of a branch that may be read now. */
int32_t ahead_branch_n(const struct ahead_table *table, const struct ahead_branch *branch);

/* ---- grower: the half that computes ---- */
struct grower_options {
    struct draft_model_options model; /* lane: its own; scratch_slots and the pages for it are the grower's
                                       * matter; n_pages: without them */
    struct fanout_options fanout; /* budget 0: chosen from measured times, at most max_budget */
    int32_t max_budget;         /* branches of a sequence, 1..FANOUT_MAX_BUDGET */
    bool never_stops_early;     /* rounds are grown to their end: what the choice must reckon with */
};
struct grower;
/* All memory is taken here. STATUS_INVALID, STATUS_NO_MEMORY. */
enum status grower_create(const struct grower_options *options, struct grower **out);
void grower_destroy(struct grower *grower); /* NULL is fine */
uint64_t grower_bytes(const struct grower *grower);
uint64_t grower_kv_bytes(const struct grower *grower); /* of that, the pages */

struct grower_call {
    const struct ahead_round *rounds;
    int32_t n_rounds;           /* at most max_batch, each of another place */
    struct ahead_table *tables; /* [n_rounds] filled, in the rounds' order */
    atomic_int *stop;           /* once set, nothing more is begun: what has been grown by then stands */
    int64_t begin_ns;           /* when the target's pass began; 0: not known */
    bool grows_to_the_end;      /* every branch gets all its tokens, however long it takes */
    int32_t verify_rows;        /* of the pass before this round's, .. */
    int64_t verify_ns;          /* .. and how long it took, this lane being busy; 0: not known */
    int32_t k_fallback;         /* tokens that a miss has proposed for it lately, .. */
    double fallback_seconds;    /* .. and how long the target waits for them */
};
/* Glue, fork and grow of several sequences in shared passes. No branches where pages or the context ran
 * out. Blocks. */
void grower_run(struct grower *grower, const struct grower_call *call);
/* Chains the ordinary way: what a miss may ask for (draft.h: propose). */
struct grower_draft_call {
    struct lane *lane;          /* NULL: the grower's own; else the caller's, of the same backend */
    const struct calibration *calibration; /* what hints are worth */
    struct draft_ask *asks;
    int32_t n_asks;
};
void grower_draft(struct grower *grower, const struct grower_draft_call *call);
void grower_forget(struct grower *grower, const struct draft_farewell *farewell);

/* Since creation. */
struct grower_report {
    uint64_t rounds, outcomes, branches, steps, rows;
    double glue_seconds, fork_seconds, grow_seconds;
    double acceptance;          /* of proposed tokens lately */
    struct gain_choice choice;  /* of budget and length, from measured times; budget 0: nothing known yet */
};
struct grower_report grower_report(const struct grower *grower);
/* The model draft behind it (tests). */
struct draft *grower_model_draft(struct grower *grower);

/* ---- the draft of this process: a thread and a lane of its own ---- */
enum ahead_fallback {
    AHEAD_FALLBACK_AUTO,        /* whichever brings most for its time */
    AHEAD_FALLBACK_NONE,        /* K = 0 */
    AHEAD_FALLBACK_LOOKUP,      /* n-grams */
    AHEAD_FALLBACK_BRANCH,      /* what was prepared behind the likeliest other token of that place */
    AHEAD_FALLBACK_DRAFT        /* chains, just in time */
};
enum ahead_when {
    AHEAD_ALWAYS,
    AHEAD_WHEN_FASTER           /* than drafting and verifying in turn, as measured all along */
};
struct ahead_options {
    struct grower_options grower;
    enum ahead_when when;
    struct lane *step_lane;     /* borrowed: the step thread is its worker 0, and helps or sleeps there while
                                 * it waits for a draft */
    bool drafts_on_step_lane;   /* what is drafted while nothing is verified runs there, without a word
                                 * between threads: both lanes' cores work on it anyway */
    enum ahead_fallback fallback;
    int32_t kept_hits;          /* tests: percent of hits that are kept, chosen by a hash of the key; the rest
                                 * become misses */
};
/* Starts the thread. The draft takes the sources "ahead", "model" and "fallback" (lookups, other branches). */
enum status draft_ahead_create(const struct ahead_options *options, struct draft **out);
uint64_t draft_ahead_bytes(const struct draft *draft);
uint64_t draft_ahead_kv_bytes(const struct draft *draft); /* of that, the pages, branches included */

struct ahead_report {
    uint64_t rounds, hits, misses;      /* of sequences that had been prepared for */
    uint64_t turns;                     /* steps that drafted and verified in turn */
    uint64_t unprepared;                /* first rounds, and rounds after a preemption */
    uint64_t tokens_served, tokens_wanted; /* of hits */
    double hidden_seconds, exposed_seconds; /* of drafting: beside a verify, and waited for */
    double fallback_seconds;                /* of those exposed: behind a miss, or in turn */
    struct grower_report grower;
};
/* All zero for a draft that does not prepare. Step thread only. */
struct ahead_report draft_ahead_report(const struct draft *draft);

#endif
