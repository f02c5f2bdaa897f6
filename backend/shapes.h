/* shapes: the numbers and plain structs that the host and device code share, C and C++. Part of the door
 * backend.h, which says what they are for.
 */
#ifndef BACKEND_SHAPES_H
#define BACKEND_SHAPES_H

#include <stddef.h>
#include <stdint.h>

#include "base/mathx.h"

#define CANONICAL_VERSION 1
enum {
    SEGMENT_ELEMS = 256,   /* a chain of fma is restarted here */
    SUM_GROUPS = 8,        /* segment sums add up in this many groups */
    QUANT_BLOCK = 32,      /* elements that share an activation scale */
    TILE_OUTPUTS = 32,     /* output rows interleaved in repacked weights */
    KV_BLOCK_SLOTS = 16    /* slots interleaved in a K block; a page is a multiple of it */
};

/* ---- element types of weights: the numbers are those of GGUF files ---- */
enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_BF16 = 30,
    /* not native: converted when a model is loaded */
    TENSOR_IQ2_XXS = 16,
    TENSOR_IQ2_XS = 17,
    TENSOR_IQ3_XXS = 18,
    TENSOR_IQ1_S = 19,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ3_S = 21,
    TENSOR_IQ2_S = 22,
    TENSOR_IQ4_XS = 23,
    TENSOR_IQ1_M = 29,
    TENSOR_TQ1_0 = 34,
    TENSOR_TQ2_0 = 35,
    TENSOR_MXFP4 = 39
};

/* ---- KV store: the bytes behind page numbers ---- */
enum kv_type { KV_F16, KV_F32 };
/* Per layer and KV head, so that a head's positions lie in one run where its pages do: K as
 * [page][slot / 16][head_dim][16], V as [page][slot][head_dim]. */
struct kv_store {
    enum kv_type type;
    int32_t n_layers, n_kv_heads, head_dim;
    int32_t page_slots;   /* multiple of KV_BLOCK_SLOTS */
    int32_t n_pages;
    unsigned char *k, *v; /* each [n_layers, n_kv_heads, n_pages, page_slots * head_dim] */
    size_t page_bytes;    /* of K, or of V, of one layer, all heads */
};

enum { KV_RUN_PAGES = 16 };
/* Where 16 slots of one head begin: K as [head_dim][16], and V as [16][head_dim], so one offset serves
 * both. `block` counts within the page.
 *
 * Of each run of 16 pages a head has its own in one piece, so that reading goes straight on; runs are
 * outermost, so that those no sequence has reached are never touched and take no memory. */
MATHX_FN size_t kv_store_block_offset(const struct kv_store *store, int32_t layer, uint32_t page,
                                      int32_t kv_head, int32_t block)
{
    const size_t blocks = (size_t)store->page_slots / KV_BLOCK_SLOTS;
    const size_t block_bytes = (size_t)KV_BLOCK_SLOTS * (size_t)store->head_dim *
                               (store->type == KV_F16 ? 2u : 4u);
    const size_t n_heads = (size_t)store->n_kv_heads, head = (size_t)layer * n_heads + (size_t)kv_head;
    const uint32_t first = page / KV_RUN_PAGES * KV_RUN_PAGES;
    const uint32_t left = (uint32_t)store->n_pages - first;
    const uint32_t run = left < (uint32_t)KV_RUN_PAGES ? left : (uint32_t)KV_RUN_PAGES;
    const size_t at = (size_t)store->n_layers * n_heads * first + head * run + (page - first);
    return (at * blocks + (size_t)block) * block_bytes;
}

/* What rows see. Below `fork`, or everywhere when there is no path, position p lies in slot
 * p % page_slots of page pages[p / page_slots]; position fork + i lies in slot path[i]. So branches of
 * a speculation share what is committed and own only their tails, wherever those were written:
 *
 *     pages    0 1 2 3 4 5 6 7|8 9 . .        a chain: n_path = 0, all else that is zero is not read
 *     branch   0 1 2 3 4 5 6 7|8|. . a . b    fork = 9, path = slots of a and b, positions 9 and 10
 *
 * The bits do not depend on where a position lies. A path ends at or after its rows' own position. */
enum { KV_PATH_CAP = 64 };
struct kv_view {
    const uint32_t *pages; /* borrowed from the page table; may not change while a pass runs */
    int32_t n_pages;
    int32_t fork;
    const int32_t *path;   /* [n_path] page * page_slots + offset; borrowed likewise */
    int32_t n_path;        /* at most KV_PATH_CAP; 0: a chain */
};
MATHX_FN int32_t kv_view_slot(const struct kv_view *view, int32_t page_slots, int32_t position)
{
    if (view->n_path > 0 && position >= view->fork) {
        return view->path[position - view->fork];
    }
    return (int32_t)view->pages[position / page_slots] * page_slots + position % page_slots;
}

#endif
