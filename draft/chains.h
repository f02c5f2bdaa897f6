/* chains: drafting with a model, whoever owns it. Every ask gets a chain of tokens; a pass has the rows
 * that each chain still lacks, and the last of them chooses its next token.
 *
 *     pass 1   committed tokens that were not fed yet (often one or two)   → token 0
 *     pass 2   token 0                                                     → token 1
 *     ...      chains that are done, or not worth going on with, drop out
 *
 * The chain is written behind the ask's committed tokens, so that one array is the history of penalties
 * and what the next pass reads. Step thread only; nothing is allocated after creation.
 */
#ifndef DRAFT_CHAINS_H
#define DRAFT_CHAINS_H

#include "batching/batching.h"
#include "draft/choose.h"

struct draft_chain {
    /* ---- set by the caller ---- */
    struct draft_ask *ask;
    const struct kv_table *table; /* where its rows go; covers n_tokens - 1 + k_max positions */
    int32_t next_position;        /* the first position that was not fed yet; moves on */
    int32_t k_max;                /* at least 1 */
    /* ---- */
    bool is_open;
    int32_t end_position;         /* before which committed tokens are fed: n_tokens, or less when
                                   * catching up must be spread over several steps */
    int32_t n;                    /* tokens so far */
    float survival;               /* of all of them, as calibrated */
    struct draft_proposal nodes;  /* nodes 0 .. n - 1 */
    float survival_before[DRAFT_MAX_NODES];
    struct draft_choice choices[DRAFT_MAX_NODES]; /* siblings of each */
};

struct draft_chains_options {
    const struct draft *draft;    /* borrowed: calibration */
    struct draft_options common;
    struct draft_chooser_options chooser;
    int32_t catch_up_rows;        /* of a pass, besides one for each chain */
    int32_t n_ids;                /* the model has; others are fed as id 0 */
    /* Runs the pass; *logits are rows of `row_len` floats, or NULL: they stay on the device, whose passes are
     * those of the chooser's desk, and the choice waits for them. False: it failed. */
    bool (*forward)(void *user, const struct pass *pass, const float **logits);
    void *user;
    int32_t row_len;
};
struct draft_chains;
enum status draft_chains_create(const struct draft_chains_options *options, struct draft_chains **out);
void draft_chains_destroy(struct draft_chains *chains); /* NULL is fine */
void draft_chains_use_lane(struct draft_chains *chains, struct lane *lane);
uint64_t draft_chains_bytes(const struct draft_chains *chains);

/* One propose: begin, a chain for each ask that may have one, run; run fills their proposals. The i-th
 * chain added stays in place until the next begin. */
void draft_chains_begin(struct draft_chains *chains);
struct draft_chain *draft_chains_add(struct draft_chains *chains, struct draft_ask *ask);
void draft_chains_run(struct draft_chains *chains);
int32_t draft_chains_n(const struct draft_chains *chains);
const struct draft_chain *draft_chains_at(const struct draft_chains *chains, int32_t idx);

#endif
