/* attention_path: blocks of a sequence whose positions lie in slots of a path, put together as if they
 * lay in a page. Kernels then read them like any other block, so a branch has the bits of a chain.
 *
 * A path begins in the middle of a block as a rule: that block is copied from its page as a whole, for
 * the positions below the fork, and those of the path are written over it, as far as the row sees. A
 * path of KV_PATH_CAP positions and a fork anywhere touch PATH_BLOCKS blocks.
 */
#include <string.h>

#include "backend/cpu/attention.h"

enum { PATH_BLOCKS = (KV_PATH_CAP + KV_BLOCK_SLOTS - 2) / KV_BLOCK_SLOTS + 1 };

size_t attention_path_bytes(const struct kv_store *store)
{
    return 2 * PATH_BLOCKS * attention_block_bytes(store);
}

/* K of one position: a lane of every dimension. */
static void copy_k(const struct kv_store *store, const unsigned char *from, int32_t from_lane,
                   unsigned char *to, int32_t to_lane)
{
    if (store->type == KV_F16) {
        const uint16_t *source = (const uint16_t *)(const void *)from + from_lane;
        uint16_t *out = (uint16_t *)(void *)to + to_lane;
        for (int32_t d = 0; d < store->head_dim; d++) {
            out[d * KV_BLOCK_SLOTS] = source[d * KV_BLOCK_SLOTS];
        }
    } else {
        const float *source = (const float *)(const void *)from + from_lane;
        float *out = (float *)(void *)to + to_lane;
        for (int32_t d = 0; d < store->head_dim; d++) {
            out[d * KV_BLOCK_SLOTS] = source[d * KV_BLOCK_SLOTS];
        }
    }
}

/* Where the block of a position's slot lies. */
static size_t offset_of(const struct attention_job *job, int32_t slot)
{
    const struct kv_store *store = job->store;
    ASSERT(slot >= 0 && slot / store->page_slots < store->n_pages);
    return attention_block_offset(store, job->layer, (uint32_t)(slot / store->page_slots), job->kv_head,
                                  slot % store->page_slots / KV_BLOCK_SLOTS);
}

static void copy_position(const struct attention_job *job, int32_t position, unsigned char *k,
                          unsigned char *v)
{
    const struct kv_store *store = job->store;
    const int32_t slot = kv_view_slot(job->view, store->page_slots, position);
    const size_t offset = offset_of(job, slot);
    const int32_t from_lane = slot % KV_BLOCK_SLOTS, to_lane = position % KV_BLOCK_SLOTS;
    const size_t row_bytes = (size_t)store->head_dim * attention_kv_bytes(store->type);
    copy_k(store, store->k + offset, from_lane, k, to_lane);
    memcpy(v + (size_t)to_lane * row_bytes, store->v + offset + (size_t)from_lane * row_bytes, row_bytes);
}

unsigned char *attention_path_block(const struct attention_job *job, int32_t at)
{
    const size_t block_bytes = attention_block_bytes(job->store);
    const int32_t idx = at - job->view->fork / KV_BLOCK_SLOTS;
    ASSERT(idx >= 0 && idx < PATH_BLOCKS);
    unsigned char *k = job->path_blocks + 2 * (size_t)idx * block_bytes, *v = k + block_bytes;
    const int32_t begin = at * KV_BLOCK_SLOTS, end = begin + KV_BLOCK_SLOTS;
    int32_t p = begin < job->first ? job->first : begin;
    if (p < job->view->fork) {
        const size_t offset = offset_of(job, kv_view_slot(job->view, job->store->page_slots, begin));
        memcpy(k, job->store->k + offset, block_bytes);
        memcpy(v, job->store->v + offset, block_bytes);
        p = job->view->fork;
    }
    for (; p <= job->last && p < end; p++) {
        copy_position(job, p, k, v);
    }
    return k;
}
