/* draft_rig: the real scheduler over a model target and a model draft, step by step. Between scheduler
 * and draft stands a wrapper that can lower K from round to round and looks at what goes by. Everything
 * asserts: a failed call, a broken invariant or another KV than that of a fresh pass fails the test. */
#ifndef TESTS_DRAFT_RIG_H
#define TESTS_DRAFT_RIG_H

#include "draft/ahead_private.h"
#include "draft/model_draft.h"
#include "scheduler/private.h"

enum { DRAFT_RIG_MAX_REQUESTS = 32 };

struct draft_rig_options {
    const char *target, *draft;  /* sources; draft NULL: the target's own model */
    const char *draft_quant;     /* type the draft is converted to, or NULL */
    int32_t draft_layers;        /* > 0: the target's first layers instead of a model; < 0: its default */
    int32_t page_slots, n_pages, draft_page_slots, draft_pages; /* 0: enough */
    int32_t context, draft_context, max_batch, prefill_chunk, draft_chunk, k;
    int32_t n_vocab_common;      /* 0: the smaller's */
    const int32_t *kept_ids;
    int32_t n_kept;
    enum verify_rule rule;
    int32_t n_nodes;             /* > k: nodes wanted of each ask */
    bool no_prefix_cache;        /* the target's */
    bool checks_kv;              /* O4 after each step */
    int threads;
    const char *k_pattern;       /* digits: K of the round, cyclic; NULL: always k */
    /* A draft that works ahead, on a thread and a lane of its own. The rig fills in the model and the lanes;
     * NULL: drafting and verifying in turn. With checks_kv each step waits for the draft's thread. */
    const struct ahead_options *ahead;
    int draft_threads;           /* of that lane; 0: 1 */
    void (*on_lanes)(struct lane *lane, struct lane *draft_lane); /* both are new, nobody uses them yet */
};
/* Small and quick: tiny model, 2 sequences of 128 positions, K = 4. */
struct draft_rig_options draft_rig_defaults(void);

struct draft_rig_request {
    uint64_t prompt_seed, seed;
    int32_t n_prompt, max_tokens;
    float temperature, top_p, repetition_penalty;
    int32_t top_k, first_id;     /* first_id > 0: the prompt's first token + 1 */
    int32_t n;                   /* choices; 0 = 1 */
};

struct draft_rig {
    struct draft wrapper;        /* what the scheduler sees */
    struct draft_rig_options options;
    struct backend *backend;
    struct lane *lane, *draft_lane; /* draft_lane: of a draft that works ahead */
    struct model *target_model, *draft_model;
    struct target *target;
    struct draft *draft;         /* the one under test */
    struct scheduler *scheduler;
    struct request *requests[DRAFT_RIG_MAX_REQUESTS];
    int32_t n_requests, n_rounds;
    void (*before_propose)(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks);
    void (*after_propose)(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks);
    int64_t n_asked, n_offered;  /* tokens */
    uint64_t probs_digest[64];   /* by place: of what the round was drawn from; the same when it is judged */
    /* ---- fresh passes for O4 ---- */
    struct kv_store fresh;
    struct pass_buffers *fresh_buffers;
};

void draft_rig_open(struct draft_rig *rig, const struct draft_rig_options *options);
void draft_rig_close(struct draft_rig *rig);
int32_t draft_rig_submit(struct draft_rig *rig, const struct draft_rig_request *request);
void draft_rig_step(struct draft_rig *rig);
void draft_rig_run(struct draft_rig *rig); /* until nothing runs or waits */
const struct sequence *draft_rig_sequence(const struct draft_rig *rig, int32_t idx);
/* The same requests without a draft give the same tokens, endings and digests. */
void draft_rig_assert_plain(const struct draft_rig *rig);
/* The draft under test as what it is; the model draft inside one that works ahead. */
struct model_draft *draft_rig_model(const struct draft_rig *rig);
struct ahead *draft_rig_ahead(const struct draft_rig *rig);
/* Until the draft's thread has nothing to do. */
void draft_rig_settle(struct draft_rig *rig);
/* Accepted and proposed tokens of all requests so far. */
struct td_draft_counts draft_rig_counts(const struct draft_rig *rig);
/* Greater in a full run than under sanitizers. */
int32_t draft_rig_scale(int32_t full, int32_t quick);

#endif
