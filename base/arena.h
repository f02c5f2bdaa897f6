/* arena: one block of memory, handed out in order, freed at once. Not thread-safe; single owner. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/status.h"

struct arena {
    unsigned char *base; /* owned */
    size_t used_bytes;
    size_t cap_bytes;
};

enum status arena_init(struct arena *arena, size_t cap_bytes);
void arena_deinit(struct arena *arena);
/* n * size bytes, zeroed at init time, 64-byte aligned; NULL when it does not fit. */
void *arena_alloc(struct arena *arena, size_t n, size_t size);
void arena_reset(struct arena *arena);

#endif
