/* names: from a name to its place in a table; refuses nothing, finds duplicates. Private to model. */
#ifndef MODEL_NAMES_H
#define MODEL_NAMES_H

#include <stdint.h>

#include "base/base.h"

struct name_entry { const char *bytes; uint32_t len, idx; };
struct name_index {
    struct name_entry *slots; /* [cap] open addressing; bytes == NULL: empty */
    uint64_t seed;            /* of the hash, so that a file cannot choose names that collide */
    uint32_t cap, n;
};

/* Adds name → idx (bytes borrowed). *existing is the place of an equal name that was there before
 * (nothing is added then), or -1. */
enum status name_index_add(struct name_index *index, const char *bytes, uint32_t len, uint32_t idx,
                           int64_t *existing);
/* Place of a name, or -1. */
int64_t name_index_find(const struct name_index *index, const char *bytes, uint32_t len);
void name_index_deinit(struct name_index *index);

#endif
