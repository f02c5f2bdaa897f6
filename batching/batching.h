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
struct batch_caps { int32_t n_rows, n_seqs, n_logits; };
enum status batch_create(const struct batch_caps *caps, struct batch **out);
void batch_destroy(struct batch *batch); /* NULL is fine */
void batch_clear(struct batch *batch);

/* The next n_rows tokens of one sequence, at positions first_position and up. */
struct batch_part {
    const int32_t *tokens;        /* [n_rows], copied */
    const struct kv_table *table; /* covers the positions; must not change until the pass ended */
    int32_t first_position;
    int32_t n_rows;               /* at least 1 */
    int32_t n_logits;             /* the last n_logits rows want logits */
};
/* There must be room. Returns the place of the part's first logits row among those of the pass. */
int32_t batch_add(struct batch *batch, const struct batch_part *part);
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
