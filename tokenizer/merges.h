/* merges: which two neighbours become one token, and how early. A table from pairs of ids, filled once,
 * then read from any thread. Private to tokenizer.
 */
#ifndef TOKENIZER_MERGES_H
#define TOKENIZER_MERGES_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

struct merge { int32_t rank, id; };          /* lower rank first; id < 0: the two do not join */
struct merge_slot { int32_t left, right, rank, id; }; /* id -1: empty */
struct merges { struct merge_slot *slots; size_t n_slots; uint64_t seed; };

enum status merges_init(struct merges *merges, int32_t n_merges); /* STATUS_NO_MEMORY */
void merges_deinit(struct merges *merges);
/* Of equal pairs the last one added holds. */
void merges_put(struct merges *merges, int32_t left, int32_t right, struct merge merge);

static inline struct merge_slot *merges_probe(const struct merges *merges, int32_t left,
                                              int32_t right)
{
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t at = rng_mix64(key ^ merges->seed);; at++) {
        struct merge_slot *slot = &merges->slots[at & (merges->n_slots - 1)];
        if (slot->id < 0 || (slot->left == left && slot->right == right)) {
            return slot;
        }
    }
}
static inline struct merge merges_find(const struct merges *merges, int32_t left, int32_t right)
{
    const struct merge_slot *slot = merges_probe(merges, left, right);
    return (struct merge){ slot->rank, slot->id };
}

#endif
