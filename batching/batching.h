/* batching: what shares a pass, and who goes first.
 *
 * A *batch* turns parts (some next tokens of a sequence) into the ragged rows of one pass. Nothing is
 * padded and nothing is aligned: rows of sequences of any length lie one after the other, and each
 * reaches its own past through its page table. A *lineup* is an ordered list of sequences, of those
 * that wait and of those that run. Neither allocates after creation. Step thread only.
 */
#ifndef BATCHING_BATCHING_H
#define BATCHING_BATCHING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "kvcache/kvcache.h"
#include "model/model.h"

/* ---- batch: ragged rows ---- */
struct batch;
struct batch_caps {
    int32_t n_rows, n_seqs, n_logits; /* n_seqs: parts */
    int32_t n_views;                  /* one a part and one a row off its tree's chain; 0: n_seqs */
};
enum status batch_create(const struct batch_caps *caps, struct batch **out);
void batch_destroy(struct batch *batch); /* NULL is fine */
void batch_clear(struct batch *batch);

/* The next n_rows tokens of one sequence, in the table's places first_position and up; a place is the
 * token's position too, but in a tree.
 *
 * The last n_nodes places may be a tree: node i's parent is node parent[i] < i, or with -1 what stands
 * before the nodes. It sees the places before the nodes, its ancestors and itself, at the positions
 * that a chain of just these would have. With more nodes than rows the first nodes were fed by earlier
 * passes and lie in their places: so a speculation grows step by step.
 *
 *     place    7 8 | 9 10 11 12     parent = { -1, 0, -1, 2 }
 *     position 7 8 | 9 10  9 10     12 sees places up to 8, then 11 and 12: fork 9, path of 2 slots
 *
 * A chain prefix of the nodes (parent[i] = i - 1) lies where plain decoding would have put it, so it
 * can be committed as it is. What is accepted off the chain must be fed again (I3: no byte moves). */
struct batch_part {
    const int32_t *tokens;        /* [n_rows], copied */
    const struct kv_table *table; /* covers the places; must not change until the pass ended */
    int32_t first_position;
    int32_t n_rows;               /* at least 1 */
    int32_t n_logits;             /* the last n_logits rows want logits */
    const int8_t *parent;         /* [n_nodes], read by batch_add() only; NULL: a chain */
    int32_t n_nodes;              /* at most BATCH_MAX_NODES */
};
enum { BATCH_MAX_NODES = INT8_MAX + 1 };
/* There must be room; no node lies more than KV_PATH_CAP nodes off the chain. Returns the place of the part's first logits row among those of the pass. */
int32_t batch_add(struct batch *batch, const struct batch_part *part);
/* One row of a branch that has left its sequence's chain: it sees the table's places below `fork`, and
 * then its own, wherever they lie (SSD grows many such at once).
 *
 *     places { 14, 19 }, fork 11: position 12 lies in place 19 and sees 0..10, 14, 19 */
struct batch_branch {
    const struct kv_table *table; /* as of a part */
    const int32_t *places;        /* [n_places] of its tokens, the row's own last; read by the call only */
    int32_t n_places;             /* 1..KV_PATH_CAP; position = fork + n_places - 1 */
    int32_t fork;
    int32_t token;
};
/* There must be room for a row, a logits row and a view. Returns its place among the logits rows. */
int32_t batch_add_branch(struct batch *batch, const struct batch_branch *branch);
/* All parts since batch_clear(), as one pass; valid until the next change. */
const struct pass *batch_pass(const struct batch *batch);

/* ---- lineup: highest priority first, first come first served among equals ---- */
struct lineup_item { /* lies inside what stands in line */
    struct lineup_item *before, *after;
    uint64_t arrival;    /* unique; given once, kept when the sequence is preempted and comes back */
    int32_t priority;
};
struct lineup {
    struct lineup_item *first, *last;
    int32_t n_items;
};
/* a goes before b */
bool lineup_precedes(const struct lineup_item *a, const struct lineup_item *b);
/* In its place, looked for from the end: constant time for those that come in order. */
void lineup_insert(struct lineup *lineup, struct lineup_item *item);
void lineup_remove(struct lineup *lineup, struct lineup_item *item);

#endif
