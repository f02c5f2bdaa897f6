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

#endif
