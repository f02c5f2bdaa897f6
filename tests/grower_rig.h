/* grower_rig: the computing half of SSD on a small model, round by round, with nobody above it. The lane
 * it runs on is looked at: of each row of each pass is known where it stands, where its KV goes and what
 * it sees. Oracles: fresh passes over the same tokens for KV and logits, an ordinary model draft for what
 * follows an outcome, and the closed form of the mask. Everything asserts. */
#ifndef TESTS_GROWER_RIG_H
#define TESTS_GROWER_RIG_H

#include "backend/device.h"
#include "draft/choose.h"
#include "draft/model_draft.h"
#include "tests/model_rig.h"

enum { GROWER_RIG_CONTEXT = 192, GROWER_RIG_MAX_ROWS = 4096, GROWER_RIG_MAX_BATCH = 8, GROWER_RIG_VOCAB = 512 };

struct grower_rig_options {
    int32_t context, page_slots, n_pages, max_batch, prefill_chunk, k_max, budget; /* n_pages 0: enough */
    struct fanout_options fanout;
    bool wants_prob;
    const int32_t *kept_ids;
    int32_t n_kept, n_vocab_common;
    int threads;
};
/* One sequence of 192 positions, pages of 16, K and budget of 8, uniform. */
struct grower_rig_options grower_rig_defaults(void);

/* A sequence between two rounds: what is committed, and what is proposed behind it. */
struct grower_seq {
    uint64_t id, epoch, tenant;
    int32_t place, n_prompt, n_tokens, n_proposed, k_next;
    bool after_miss, wants_prob;
    struct sampling_params params;
    int32_t tokens[GROWER_RIG_CONTEXT + 2 * DRAFT_MAX_NODES];
};

struct spied_row {
    int32_t pass, token, position, slot;
    int32_t n_seen;                        /* position + 1 */
    int32_t seen[GROWER_RIG_CONTEXT + 32]; /* slots */
};

struct grower_rig {
    struct grower_rig_options options;
    struct model_rig fresh;                /* backend and model, and KV of its own */
    struct lane *lane;
    struct backend_ops spied_ops;
    struct grower *grower;
    struct draft *oracle;                  /* an ordinary model draft */
    struct ahead_table *tables;            /* [max_batch] of the run under way, or of the last */
    int32_t n_tables;
    uint64_t n_oracle_asks;
    float *logits;                         /* [GROWER_RIG_CONTEXT, GROWER_RIG_VOCAB] of the last fresh pass */
    /* ---- the run under way ---- */
    atomic_int stop;
    int32_t stop_in_pass;                  /* stop is set while this pass runs, from 1; 0: never; -1: before any */
    void (*on_choose)(struct grower_rig *rig); /* before a batch of choices */
    int32_t n_passes;
    struct spied_row *rows;                /* [GROWER_RIG_MAX_ROWS] */
    int32_t n_rows;
};

void grower_rig_open(struct grower_rig *rig, const struct grower_rig_options *options);
void grower_rig_close(struct grower_rig *rig);
/* A prompt of its own; greedy. */
void grower_seq_start(struct grower_seq *seq, int32_t place, uint64_t seed, int32_t n_prompt);
void grower_seq_propose(struct grower_seq *seq, const int32_t *tokens, int32_t n);
/* What was proposed came true as far as this, then that token. */
void grower_seq_commit(struct grower_seq *seq, int32_t n_accepted, int32_t token);
/* A run over them, in this order; table i is the i-th's. Page accounts are checked, and what no place counts
 * as fed is no number when it begins. */
void grower_rig_run(struct grower_rig *rig, const struct grower_seq *seqs, int32_t n_seqs);
void grower_rig_forget(struct grower_rig *rig, const struct grower_seq *seq);

const struct model_place *grower_rig_place(const struct grower_rig *rig, const struct grower_seq *seq);
/* Positions whose KV the place holds: what is cached, and the tail. */
int32_t grower_rig_n_fed(const struct grower_rig *rig, const struct grower_seq *seq);
/* All of them are what a fresh pass writes, bit by bit. Call after the run whose tokens these are. */
void grower_rig_check_kv(struct grower_rig *rig, const struct grower_seq *seq);
/* Logits of a fresh pass over the first n tokens, row by row. */
const float *grower_rig_fresh_logits(struct grower_rig *rig, const struct grower_seq *seq, int32_t n);
/* The rows of the last run's glue and growth are those of the closed form. */
void grower_rig_check_mask(const struct grower_rig *rig, const struct grower_seq *seqs, int32_t n_seqs);
/* Of each branch, all tokens, hints and rows that may be read are what an ordinary draft says there; so
 * many of them, at most. Returns how many tokens were compared. */
int32_t grower_rig_check_branches(struct grower_rig *rig, const struct grower_seq *seq,
                                  const struct ahead_table *table);
/* What an ordinary draft proposes behind these tokens. */
struct draft_proposal grower_rig_ask_oracle(struct grower_rig *rig, const struct grower_seq *seq, int32_t k);

#endif
