/* names: an open-addressing hash table over borrowed strings, at most half full. */
#include "model/names.h"

#include <string.h>

enum { NAMES_FIRST_CAP = 64 };

/* Seeded all the way: mixing a seed into a finished hash would leave collisions as they are. */
static uint64_t name_hash(uint64_t seed, const char *bytes, uint32_t len)
{
    uint64_t hash = seed, word;
    for (; len >= sizeof word; len -= (uint32_t)sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = rng_mix64(hash ^ word) ^ seed;
    }
    word = len; /* at most 7: the last byte tells lengths apart */
    word <<= 56;
    memcpy(&word, bytes, len);
    return rng_mix64(hash ^ word);
}

/* The slot that holds the name, or the empty one where it belongs. */
static struct name_entry *find_slot(struct name_entry *slots, uint32_t cap, uint64_t seed,
                                    const char *bytes, uint32_t len)
{
    uint32_t at = (uint32_t)name_hash(seed, bytes, len) & (cap - 1);
    while (slots[at].bytes &&
           (slots[at].len != len || memcmp(slots[at].bytes, bytes, len) != 0)) {
        at = (at + 1) & (cap - 1);
    }
    return &slots[at];
}

static enum status grow(struct name_index *index)
{
    const uint32_t cap = index->cap > 0 ? index->cap * 2 : NAMES_FIRST_CAP;
    index->seed = index->cap > 0 ? index->seed : rng_os_seed();
    struct name_entry *slots = mem_alloc(cap, sizeof *slots);
    if (!slots) {
        return status_fail(STATUS_NO_MEMORY, "no memory for an index of %u names", cap);
    }
    for (uint32_t i = 0; i < index->cap; i++) {
        const struct name_entry *old = &index->slots[i];
        if (old->bytes) {
            *find_slot(slots, cap, index->seed, old->bytes, old->len) = *old;
        }
    }
    mem_free(index->slots);
    index->slots = slots;
    index->cap = cap;
    return STATUS_OK;
}

enum status name_index_add(struct name_index *index, const char *bytes, uint32_t len, uint32_t idx,
                           int64_t *existing)
{
    *existing = -1;
    if (index->n >= index->cap / 2) {
        TRY(grow(index));
    }
    struct name_entry *slot = find_slot(index->slots, index->cap, index->seed, bytes, len);
    if (slot->bytes) {
        *existing = slot->idx;
        return STATUS_OK;
    }
    *slot = (struct name_entry){ .bytes = bytes, .len = len, .idx = idx };
    index->n++;
    return STATUS_OK;
}

int64_t name_index_find(const struct name_index *index, const char *bytes, uint32_t len)
{
    if (index->cap == 0) {
        return -1;
    }
    const struct name_entry *slot = find_slot(index->slots, index->cap, index->seed, bytes, len);
    return slot->bytes ? (int64_t)slot->idx : -1;
}

void name_index_deinit(struct name_index *index)
{
    mem_free(index->slots);
    *index = (struct name_index){ 0 };
}
