/* model_draft: the state of a model draft. Inside the room, and for tests that look at its KV. */
#ifndef DRAFT_MODEL_DRAFT_H
#define DRAFT_MODEL_DRAFT_H

#include "draft/chains.h"
#include "draft/head.h"

/* What the draft knows of the sequence in one place. Its table's cached_len counts committed tokens; the
 * tail is what was fed behind them, and becomes part of them as far as it was accepted. */
struct model_place {
    bool is_taken;
    uint64_t seq_id, epoch;
    struct kv_table *table;        /* owned; empty: starts anew */
    int32_t n_tail;
    int32_t tail[DRAFT_MAX_NODES]; /* at positions cached_len, cached_len + 1, .. */
};

struct model_draft {
    struct draft base;
    struct draft_model_options options;
    struct backend *backend;
    struct kv_store store;
    struct kv_pool *pool;
    struct kv_prefix *prefix;
    struct model_place *places;    /* [max_batch] */
    struct kv_copy *copies;        /* [n_copies_max] of the propose under way */
    int32_t n_copies, n_copies_max;
    struct pass_buffers *buffers;
    struct weight head;            /* of kept ids alone; no data: the model's */
    struct pass pass;              /* the one under way */
    struct draft_chains *chains;
};

/* Its passes and choices run there from now on; both lanes are of one backend. */
void model_draft_use_lane(struct model_draft *draft, struct lane *lane);

/* Runs a pass of the draft's model and head. *logits: its rows, on the host; NULL where they stay on the device
 * of the buffers' desk: then nobody has waited, and whoever chooses from them does. False: the device failed. */
bool model_draft_pass(struct model_draft *draft, struct pass *pass, struct pass_buffers *buffers, const float **logits);
/* The desk of rows that stay; NULL: none do, since the device does not choose or distributions are wanted. */
struct pass_desk *model_draft_desk(const struct model_draft *draft, const struct pass_buffers *buffers);

/* ---- one round of a place: enter, take pages, feed rows, leave ---- */
/* The place's table holds what this sequence has cached, or nothing. */
struct model_place *model_draft_enter(struct model_draft *draft, const struct draft_ask *ask);
/* Pages of its own for places up to `end`; copies are noted. False: there are none, and the place is empty. */
bool model_draft_take_pages(struct model_draft *draft, struct model_place *place, const struct draft_ask *ask,
                            int32_t end);
/* Copies noted since n_copies was 0; the lane keeps the order: before any row is written. */
void model_draft_submit_copies(struct model_draft *draft);
/* Places up to n_fed hold KV of ask->tokens. */
void model_draft_leave(struct model_draft *draft, const struct draft_ask *ask, int32_t n_fed);

#endif
