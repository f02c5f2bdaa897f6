/* text_map: token text → id. Open addressing over texts that someone else keeps; filled once, then
 * read from any thread. Private to tokenizer.
 */
#ifndef TOKENIZER_TEXT_MAP_H
#define TOKENIZER_TEXT_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "tokenizer/tokenizer.h"

struct text_map_slot { uint32_t tag; int32_t id; }; /* id -1: empty; tag: upper half of the hash */
struct text_map {
    const struct tokenizer_text *texts; /* [max id + 1] borrowed */
    struct text_map_slot *slots; /* [n_slots], a power of two, at least twice what is in it */
    size_t n_slots;
    uint32_t longest_bytes;             /* longer texts need not be looked for */
    uint64_t seed; /* from the system: a file cannot choose texts that collide */
};

/* Room for n_texts. STATUS_NO_MEMORY; text_map_deinit after a failure too. */
enum status text_map_init(struct text_map *map, const struct tokenizer_text *texts,
                          int32_t n_texts);
void text_map_deinit(struct text_map *map);
/* Adds texts[id]; where the same text is there already, that one stays. */
void text_map_add(struct text_map *map, int32_t id);
/* -1 when it is not there. */
int32_t text_map_find(const struct text_map *map, const char *bytes, size_t n_bytes);

#endif
