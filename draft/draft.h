/* draft: what proposes tokens. A draft is a table of functions; each kind is one file. A draft may
 * fail, the answer may not: any error becomes "0 proposed" (I9). Step thread only.
 *
 *     propose   asks of all sequences of a step at once → a proposal each
 *     begin     what is verified now (drafts that work ahead, draft/ahead.h)
 *     observe   what the target made of them
 *     forget    a sequence leaves (ended, or preempted: its epoch rises)
 *
 * A proposal is a tree of tokens; a chain is the common case. With the coupled rule a draft guesses the
 * target's own choice, so it draws with the target's noise (sampling.h, purpose 0); nothing it says can
 * change the text. With the rejection rule it says from which distribution it drew.
 */
#ifndef DRAFT_DRAFT_H
#define DRAFT_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "draft/calibration.h"
#include "draft/fanout.h"
#include "draft/gain.h"
#include "kvcache/kvcache.h"
#include "model/model.h"
#include "sampling/sampling.h"
#include "target/target.h"
#include "verify/verify.h"

enum {
    DRAFT_MAX_NODES = 16,  /* tokens of a proposal; K is at most this */
    DRAFT_MAX_SOURCES = 8  /* different proposers behind one draft */
};

/* Node i follows node parent[i] < i, or the recovery token (-1). A chain: parent[i] = i - 1. The nodes
 * of the chain that begins at node 0 come first, then side branches. */
struct draft_proposal {
    int32_t n;
    int32_t token[DRAFT_MAX_NODES];
    int8_t parent[DRAFT_MAX_NODES];
    uint8_t source[DRAFT_MAX_NODES];          /* index into draft.source_name */
    /* 0..1, what the source knows of how likely this token is right if those before it are: a model's
     * probability, a count's share. Calibration maps it to acceptance (calibration.h). */
    float hint[DRAFT_MAX_NODES];
    /* Rejection rule: [n_vocab] the very distribution the token was drawn from, after the request's
     * filters, in fp32; NULL: a point mass. The draft's, until the next propose. */
    const float *prob[DRAFT_MAX_NODES];
};

/* One sequence's wish in a step. The caller fills all but the proposal. */
struct draft_ask {
    int32_t place;              /* 0..max_batch - 1, its own while it runs; reused by others afterwards */
    uint64_t seq_id, epoch;     /* a place whose pair has changed holds another sequence */
    int32_t *tokens;            /* [n_tokens + DRAFT_MAX_NODES] committed, the recovery token last; what
                                 * lies behind them is free for the draft to write its chain into, so
                                 * that a history of committed and proposed tokens is one array */
    int32_t n_tokens, n_prompt;
    const struct sampling_params *params;
    uint64_t tenant;            /* salt: what was written for others is not looked at */
    const struct kv_table *table; /* the target's; pages from n_tokens - 1 on for k_max + 1 rows may be written */
    int32_t k_max;              /* length of the longest chain wanted; 0 = nothing, and no work for it */
    int32_t n_nodes_max;        /* nodes wanted, k_max for a chain */
    float stop_below;           /* a node whose whole path survives with less than this is not worth a row */
    bool is_fixed;              /* exactly fixed_k are wanted: no policy says more or less */
    int32_t fixed_k;
    bool wants_prob;            /* rejection rule: draw with COIN_DRAFT, and say from what */
    struct draft_proposal proposal;
};
/* What became of an ask's proposal. */
struct draft_verdict {
    const struct draft_ask *ask;
    int32_t n_accepted;         /* k */
    const int8_t *path;         /* [n_accepted] the accepted nodes */
    int32_t recovery_token;
};
/* A sequence that leaves. */
struct draft_farewell {
    int32_t place;
    uint64_t seq_id, epoch;
    const int32_t *tokens;      /* [n_tokens] all committed */
    int32_t n_tokens, n_prompt;
    uint64_t tenant;            /* salt under which outputs may be learned from */
    bool is_finished;           /* false: preempted, it comes back */
};

/* Of a draft that works while the target does, since creation. */
struct draft_ahead_counts {
    uint64_t hits, misses, unprepared;      /* rounds of sequences; unprepared: first ones, after a preemption */
    uint64_t branches_grown, branches_used;
    uint64_t tokens_served, tokens_wanted;  /* of hits */
    double hidden_seconds, exposed_seconds; /* of drafting: beside a verify, and waited for */
    double fallback_seconds;                /* of those exposed: chains drafted behind a miss, or in turn */
    uint64_t glues, grow_steps;             /* passes over what is verified, and of branches */
    double glue_seconds, grow_seconds;      /* theirs, choices included */
};

void draft_ahead_counts_add(struct draft_ahead_counts *sum, const struct draft_ahead_counts *more);

struct draft;
struct draft_kind {
    const char *name;
    /* Fills each ask's proposal; n = 0 is always legal. May wait for the device. */
    void (*propose)(struct draft *draft, struct draft_ask *asks, int32_t n_asks);
    void (*observe)(struct draft *draft, const struct draft_verdict *verdicts, int32_t n_verdicts);
    void (*forget)(struct draft *draft, const struct draft_farewell *farewell);
    void (*destroy)(struct draft *draft);
    /* For drafts that work while the target does, else NULL. begin: the target's pass starts now, over
     * these proposals (n = 0 too), and must not be kept waiting. known: the pass has ended, so that work
     * for other outcomes may stop. */
    void (*begin)(struct draft *draft, const struct draft_ask *asks, int32_t n_asks);
    void (*known)(struct draft *draft);
    struct draft_ahead_counts (*count)(const struct draft *draft);
};
struct draft {
    const struct draft_kind *kind;
    int32_t n_sources;
    const char *source_name[DRAFT_MAX_SOURCES]; /* "ngram", "model", ... */
    struct calibration calibration[DRAFT_MAX_SOURCES]; /* fed by the scheduler's policy */
    int32_t context;            /* positions it can propose for; beyond them K = 0 */
    bool is_costly;             /* its proposals are computed, not looked up */
};

/* What every kind is told. Sizes bound everything it takes, all at creation. */
struct draft_options {
    int32_t n_vocab;            /* the target's */
    int32_t context;            /* positions of a sequence, the target's */
    int32_t max_batch;          /* places */
    int32_t k_max;              /* of any ask, at most DRAFT_MAX_NODES */
    bool wants_prob;            /* some asks will */
};

/* ---- kinds, one file each ---- */
enum status draft_none_create(struct draft **out);
enum status draft_ngram_create(const struct draft_options *options, struct draft **out);
/* Takes about cap_bytes, and never more later; fewer tokens are remembered with less. */
enum status draft_suffix_create(const struct draft_options *options, uint64_t cap_bytes, struct draft **out);
/* The parts become the new draft's own, ranked per position by calibrated survival; sources keep the
 * parts' order. One part is passed through. On failure they are the caller's still. */
enum status draft_several_create(const struct draft_options *options, struct draft *const *parts,
                                 int32_t n_parts, struct draft **out);

/* model: a smaller model with KV pages, page tables and a prefix tree of its own. */
struct draft_model_options {
    struct draft_options common;
    const struct model *model;    /* borrowed */
    struct lane *lane;            /* borrowed: the target's, or one of its own */
    enum kv_type kv;
    int32_t context;              /* positions of the draft, at most those its model was loaded for */
    int32_t page_slots, n_pages;  /* pages for one context at least */
    int32_t scratch_slots;        /* of a sequence, behind its context: branches grow there */
    int64_t least_pass_ns;        /* a pass takes no less, whatever its rows: a stand-in for a device on which
                                   * few rows cost what one does (benchmarks); 0: as long as it takes */
    int32_t prefill_chunk;        /* rows of committed tokens that a pass catches up on */
    int32_t n_vocab_common;       /* ids from here on mean different things, or nothing, and are never
                                   * proposed; 0 = the smaller vocabulary's. Ids that the draft does not
                                   * have are fed to it as id 0 */
    const int32_t *kept_ids;      /* [n_kept] ascending, all it may propose (a head of that many rows is
                                   * made); copied. NULL: all. top-k, top-p and min-p see kept ids alone */
    int32_t n_kept;
    int32_t n_reshaped;           /* Saguaro sampling, rejection rule only: so many likeliest ids of a row, .. */
    float reshape;                /* .. weigh this much, 0..1, of what they did; 0 ids: off */
};
/* All memory is taken here. STATUS_INVALID, STATUS_NO_MEMORY. */
enum status draft_model_create(const struct draft_model_options *options, struct draft **out);
/* Bytes of its KV, buffers and tables; not of the borrowed model. */
uint64_t draft_model_bytes(const struct draft *draft);
uint64_t draft_model_kv_bytes(const struct draft *draft); /* of that, the pages */

/* layerskip: the target's first layers and its head, on the target's own lane and KV slots. Rows written
 * there hold the bits that the verify pass writes again. Copies of shared pages must have been
 * submitted to the target before propose. */
struct draft_layerskip_options {
    struct draft_options common;
    struct target *target;        /* borrowed */
    int32_t n_target_layers;
    int32_t n_layers;             /* 1..n_target_layers; 0 = a quarter, at least 1 */
};
enum status draft_layerskip_create(const struct draft_layerskip_options *options, struct draft **out);

/* base.c: a draft of one source, with no limit of its own to its context */
void draft_base_init(struct draft *draft, const struct draft_kind *kind, const char *source_name);
/* none.c: a proposal of nothing, and verdicts nobody needs */
void draft_observe_nothing(struct draft *draft, const struct draft_verdict *verdicts, int32_t n_verdicts);
void draft_forget_nothing(struct draft *draft, const struct draft_farewell *farewell);

/* A chain of n tokens of one source; hints [n] or NULL (0.5). */
void draft_proposal_chain(struct draft_proposal *proposal, const int32_t *tokens, int32_t n,
                          uint8_t source, const float *hints);
/* Nodes that can stand: ids within the vocabulary, parents before children. The first n that do. */
int32_t draft_proposal_n_valid(const struct draft_proposal *proposal, int32_t n_vocab);
/* Length of the chain that begins at node 0: nodes 0..length-1 follow each other. */
int32_t draft_proposal_chain_len(const struct draft_proposal *proposal);

#include "draft/ahead.h" /* parts of this door: drafts that work while the target does, */
#include "draft/remote.h" /* in another process, */
#include "draft/worker.h" /* and what runs there */

#endif
