/* text_map: linear probing over 8-byte slots; texts are compared only where 32 bits of hash agree. */
#include "tokenizer/text_map.h"

#include <string.h>

enum status text_map_init(struct text_map *map, const struct tokenizer_text *texts, int32_t n_texts)
{
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_texts) {
        n_slots *= 2;
    }
    *map = (struct text_map){ .texts = texts, .n_slots = n_slots, .seed = rng_os_seed() };
    map->slots = mem_alloc(n_slots, sizeof *map->slots);
    if (!map->slots) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %d token texts", n_texts);
    }
    for (size_t i = 0; i < n_slots; i++) {
        map->slots[i].id = -1;
    }
    return STATUS_OK;
}

void text_map_deinit(struct text_map *map)
{
    mem_free(map->slots);
    *map = (struct text_map){ .texts = NULL };
}

static uint64_t hash_of(const struct text_map *map, const char *bytes, size_t n_bytes)
{
    return rng_mix64(digest_bytes(bytes, n_bytes) ^ map->seed);
}

/* The slot that holds the text, or the empty one where it belongs. */
static struct text_map_slot *probe(const struct text_map *map, const char *bytes, size_t n_bytes,
                                   uint64_t hash)
{
    const uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t at = hash & (map->n_slots - 1);; at = (at + 1) & (map->n_slots - 1)) {
        struct text_map_slot *slot = &map->slots[at];
        if (slot->id < 0) {
            return slot;
        }
        const struct tokenizer_text *text = &map->texts[slot->id];
        if (slot->tag == tag && text->n_bytes == n_bytes &&
            memcmp(text->bytes, bytes, n_bytes) == 0) {
            return slot;
        }
    }
}

void text_map_add(struct text_map *map, int32_t id)
{
    const struct tokenizer_text text = map->texts[id];
    const uint64_t hash = hash_of(map, text.bytes, text.n_bytes);
    struct text_map_slot *slot = probe(map, text.bytes, text.n_bytes, hash);
    if (slot->id < 0) {
        *slot = (struct text_map_slot){ .tag = (uint32_t)(hash >> 32), .id = id };
        map->longest_bytes = text.n_bytes > map->longest_bytes ? text.n_bytes : map->longest_bytes;
    }
}

int32_t text_map_find(const struct text_map *map, const char *bytes, size_t n_bytes)
{
    if (n_bytes > map->longest_bytes) {
        return -1;
    }
    return probe(map, bytes, n_bytes, hash_of(map, bytes, n_bytes))->id;
}
