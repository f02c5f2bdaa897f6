/* merges: open addressing, at most half full. */
#include "tokenizer/merges.h"

enum status merges_init(struct merges *merges, int32_t n_merges)
{
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_merges) {
        n_slots *= 2;
    }
    *merges = (struct merges){ .n_slots = n_slots, .seed = rng_os_seed() };
    merges->slots = mem_alloc(n_slots, sizeof *merges->slots);
    if (!merges->slots) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %d merges", n_merges);
    }
    for (size_t i = 0; i < n_slots; i++) {
        merges->slots[i].id = -1;
    }
    return STATUS_OK;
}

void merges_deinit(struct merges *merges)
{
    mem_free(merges->slots);
    *merges = (struct merges){ .slots = NULL };
}

void merges_put(struct merges *merges, int32_t left, int32_t right, struct merge merge)
{
    *merges_probe(merges, left, right) = (struct merge_slot){ left, right, merge.rank, merge.id };
}
