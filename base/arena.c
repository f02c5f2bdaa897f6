/* arena: a pointer that moves up; every piece starts on a cache line. */
#include "base/arena.h"

#include <stdint.h>

#include "base/mem.h"

enum { ARENA_ALIGN_BYTES = 64 };

enum status arena_init(struct arena *arena, size_t cap_bytes)
{
    *arena = (struct arena){ .base = mem_alloc(1, cap_bytes), .cap_bytes = cap_bytes };
    if (arena->base == NULL) {
        arena->cap_bytes = 0;
        return status_fail(STATUS_NO_MEMORY, "no memory for an arena of %zu bytes", cap_bytes);
    }
    return STATUS_OK;
}

void arena_deinit(struct arena *arena)
{
    mem_free(arena->base);
    *arena = (struct arena){ 0 };
}

void *arena_alloc(struct arena *arena, size_t n, size_t size)
{
    if (arena->base == NULL || (size != 0 && n > (SIZE_MAX - ARENA_ALIGN_BYTES) / size)) {
        return NULL;
    }
    const size_t bytes = (n * size + ARENA_ALIGN_BYTES - 1) / ARENA_ALIGN_BYTES * ARENA_ALIGN_BYTES;
    if (n * size > arena->cap_bytes - arena->used_bytes) {
        return NULL;
    }
    void *piece = arena->base + arena->used_bytes;
    /* The last piece may end inside its cache line. */
    const size_t left = arena->cap_bytes - arena->used_bytes;
    arena->used_bytes += bytes < left ? bytes : left;
    return piece;
}

void arena_reset(struct arena *arena)
{
    arena->used_bytes = 0;
}
