/* digest: a 64-bit hash over bytes as they come (XXH3, header-only, so nothing is linked).
 * Equal bytes, however they were cut into updates, give equal digests. Single owner. */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

struct digest { _Alignas(64) unsigned char opaque[704]; };

void digest_init(struct digest *digest);
void digest_update(struct digest *digest, const void *bytes, size_t n_bytes);
uint64_t digest_value(const struct digest *digest);
uint64_t digest_bytes(const void *bytes, size_t n_bytes); /* one shot, the same function */

#endif
