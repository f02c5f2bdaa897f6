/* attention: one row and the query heads of one KV head, over segments of 256 positions.
 *
 * attention_scalar.c is the definition. Here stands what the instruction sets share: where K and V
 * lie, and the walk over a sequence's pages. A segment is 16 blocks of 16 positions wherever its
 * pages are, so a kernel never learns the page size. Nor does it learn of paths: a block that holds
 * positions of one is put together in the worker's scratch first (attention_path.c).
 */
#ifndef BACKEND_CPU_ATTENTION_H
#define BACKEND_CPU_ATTENTION_H

#include "backend/cpu/cpu.h"

enum {
    ATTENTION_BLOCKS = SEGMENT_ELEMS / KV_BLOCK_SLOTS, /* of a segment */
    ATTENTION_MAX_HEAD_DIM = 256,
    ATTENTION_MAX_GROUP = 16 /* heads that ops.c gives to one call; kernels take any number */
};

void attention_row_scalar(const struct attention_job *job);
void attention_row_fma(const struct attention_job *job);
void attention_row_avx2(const struct attention_job *job);
void attention_row_avx512(const struct attention_job *job);

static inline size_t attention_kv_bytes(enum kv_type type) { return type == KV_F16 ? 2 : 4; }

/* Of K, or of V. */
static inline size_t attention_block_bytes(const struct kv_store *store)
{
    return (size_t)KV_BLOCK_SLOTS * (size_t)store->head_dim * attention_kv_bytes(store->type);
}

static inline size_t attention_block_offset(const struct kv_store *store, int32_t layer,
                                            uint32_t page, int32_t kv_head, int32_t block)
{
    return kv_store_block_offset(store, layer, page, kv_head, block);
}

/* One segment as a row sees it: positions [begin, end) of 0..256, and the blocks that hold them.
 * Pointers outside the visible blocks are not set. */
struct attention_segment {
    int32_t begin, end;
    const unsigned char *k[ATTENTION_BLOCKS];
    const unsigned char *v[ATTENTION_BLOCKS];
};

/* Puts together block `at` of a sequence, which holds positions of the view's path: those that the row
 * sees, the rest of the block may be anything. Returns its K; V lies right behind it. The blocks of a
 * job have places of their own, so that two segments can be at hand. */
unsigned char *attention_path_block(const struct attention_job *job, int32_t at);

static inline void attention_segment_init(struct attention_segment *segment,
                                          const struct attention_job *job, int32_t segment_idx)
{
    const struct kv_store *store = job->store;
    const int32_t base = segment_idx * SEGMENT_ELEMS;
    const int32_t page_blocks = store->page_slots / KV_BLOCK_SLOTS;
    segment->begin = job->first > base ? job->first - base : 0;
    segment->end = job->last - base < SEGMENT_ELEMS ? job->last - base + 1 : SEGMENT_ELEMS;
    int32_t in_pages = segment->end; /* blocks from here on hold positions of a path */
    if (job->view->n_path > 0 && job->view->fork - base < segment->end) {
        in_pages = job->view->fork > base ? (job->view->fork - base) / KV_BLOCK_SLOTS * KV_BLOCK_SLOTS : 0;
    }
    int32_t b = segment->begin / KV_BLOCK_SLOTS;
    for (; b * KV_BLOCK_SLOTS < in_pages; b++) {
        const int32_t at = base / KV_BLOCK_SLOTS + b; /* block of the sequence */
        const size_t offset = attention_block_offset(store, job->layer,
                                                     job->view->pages[at / page_blocks],
                                                     job->kv_head, at % page_blocks);
        segment->k[b] = store->k + offset;
        segment->v[b] = store->v + offset;
    }
    for (; b * KV_BLOCK_SLOTS < segment->end; b++) {
        segment->k[b] = attention_path_block(job, base / KV_BLOCK_SLOTS + b);
        segment->v[b] = segment->k[b] + attention_block_bytes(store);
    }
}

/* How job->scratch is used: [n_group, 256] scores, [n_group, head_dim] of the segment, and for each
 * head the maximum and denominator so far and of the segment. */
struct attention_scratch { float *score, *out, *max, *sum, *max_here, *sum_here; };

static inline struct attention_scratch attention_scratch_split(const struct attention_job *job)
{
    const size_t n_group = (size_t)job->n_group;
    struct attention_scratch s;
    s.score = job->scratch;
    s.out = s.score + n_group * SEGMENT_ELEMS;
    s.max = s.out + n_group * (size_t)job->head_dim;
    s.sum = s.max + n_group;
    s.max_here = s.sum + n_group;
    s.sum_here = s.max_here + n_group;
    return s;
}

#endif
