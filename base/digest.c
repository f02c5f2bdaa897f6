/* digest: XXH3 with seed 0, all of it inlined, its state inside ours. */
#include "base/digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(sizeof(XXH3_state_t) <= sizeof((struct digest *)0)->opaque,
               "digest state is too small");
_Static_assert(_Alignof(XXH3_state_t) <= _Alignof(struct digest), "digest state is misaligned");

void digest_init(struct digest *digest)
{
    XXH3_state_t *state = (XXH3_state_t *)(void *)digest->opaque;
    XXH3_INITSTATE(state);
    XXH3_64bits_reset(state);
}

void digest_update(struct digest *digest, const void *bytes, size_t n_bytes)
{
    XXH3_64bits_update((XXH3_state_t *)(void *)digest->opaque, bytes, n_bytes);
}

uint64_t digest_value(const struct digest *digest)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)digest->opaque);
}

uint64_t digest_bytes(const void *bytes, size_t n_bytes)
{
    return XXH3_64bits(bytes, n_bytes);
}
