/* bpe_merge: one piece to ids. Neighbours that have a rule wait in a heap; each merge adds at most two
 * more, so that a piece of n characters takes n log n, whatever it holds. */
#include <string.h>

#include "tokenizer/bpe.h"
#include "tokenizer/merge_heap.h"
#include "tokenizer/utf8.h"

enum { SYMBOL_GONE = -2 };
struct bpe_symbol { int32_t prev, next, id; }; /* id SYMBOL_GONE: merged into the one before */

struct bpe_work {
    const struct tokenizer *tokenizer;
    const struct bpe *bpe;
    struct bpe_symbol *symbols;   /* [n_symbols] */
    int32_t n_symbols;
    struct merge_heap heap;       /* one pair a gap, and one more for each merge */
};

enum status bpe_work_create(const struct tokenizer *tokenizer, size_t longest_bytes,
                            struct bpe_work **out)
{
    struct bpe_work *work = mem_alloc(1, sizeof *work);
    *out = work;
    if (work) {
        work->tokenizer = tokenizer;
        work->bpe = tokenizer->state;
        work->symbols = mem_alloc(longest_bytes + 1, sizeof *work->symbols);
        work->heap.pairs = mem_alloc(2 * (longest_bytes + 1), sizeof *work->heap.pairs);
    }
    if (!work || !work->symbols || !work->heap.pairs) {
        return status_fail(STATUS_NO_MEMORY, "no memory to tokenize a piece of %zu bytes",
                           longest_bytes);
    }
    return STATUS_OK;
}

void bpe_work_destroy(struct bpe_work *work)
{
    if (work) {
        mem_free(work->heap.pairs);
        mem_free(work->symbols);
        mem_free(work);
    }
}

/* ---- symbols ---- */
static void add_symbol(struct bpe_work *work, int32_t id)
{
    const int32_t idx = work->n_symbols++;
    work->symbols[idx] = (struct bpe_symbol){ idx - 1, idx + 1, id };
}

/* A character's token, or its bytes' tokens, or the unknown one; nothing where there is none of them,
 * as the tokenizers library does. *pending: an unknown token that may still take in the next. */
static void add_character(struct bpe_work *work, const char *bytes, unsigned n_bytes, bool *pending)
{
    const struct bpe *bpe = work->bpe;
    const int32_t id = text_map_find(&bpe->map, bytes, n_bytes);
    if (id >= 0) {
        *pending = false;
        add_symbol(work, id);
        return;
    }
    bool has_bytes = bpe->byte_fallback;
    for (unsigned i = 0; i < n_bytes; i++) {
        has_bytes = has_bytes && bpe->byte_ids[(unsigned char)bytes[i]] >= 0;
    }
    for (unsigned i = 0; has_bytes && i < n_bytes; i++) {
        add_symbol(work, bpe->byte_ids[(unsigned char)bytes[i]]);
    }
    if (!has_bytes && work->tokenizer->unk_id >= 0 && !(*pending && bpe->fuse_unk)) {
        add_symbol(work, work->tokenizer->unk_id);
    }
    *pending = !has_bytes;
}

static void make_symbols(struct bpe_work *work, const char *bytes, uint32_t n_bytes)
{
    bool pending = false;
    work->n_symbols = 0;
    for (uint32_t at = 0; at < n_bytes;) {
        const int32_t id = work->bpe->byte_ids[(unsigned char)bytes[at]];
        unsigned len = 1;
        if (work->bpe->byte_level && id >= 0) {
            pending = false;
            add_symbol(work, id);
        } else if (work->bpe->byte_level) {
            add_character(work, bytes + at, 1, &pending);
        } else {
            const struct utf8_part part =
                utf8_first((const unsigned char *)bytes + at, n_bytes - at);
            len = part.state == UTF8_WHOLE ? part.len : 1;
            add_character(work, bytes + at, len, &pending);
        }
        at += len;
    }
    if (work->n_symbols > 0) {
        work->symbols[work->n_symbols - 1].next = -1;
    }
}

/* ---- merging ---- */
static void offer_pair(struct bpe_work *work, int32_t left)
{
    const int32_t right = left < 0 ? -1 : work->symbols[left].next;
    if (right < 0) {
        return;
    }
    const struct merge merge =
        merges_find(&work->bpe->merges, work->symbols[left].id, work->symbols[right].id);
    if (merge.id >= 0) {
        merge_heap_push(&work->heap, (struct merge_pair){ merge.rank, left, merge.id, 0 });
    }
}

static void merge_symbols(struct bpe_work *work)
{
    work->heap.n = 0;
    for (int32_t i = 0; i < work->n_symbols; i++) {
        offer_pair(work, i);
    }
    while (work->heap.n > 0) {
        const struct merge_pair pair = merge_heap_pop(&work->heap);
        struct bpe_symbol *left = &work->symbols[pair.left];
        if (left->id == SYMBOL_GONE || left->next < 0) {
            continue;
        }
        /* What waits may be outdated: it holds if the two still become the same. */
        struct bpe_symbol *right = &work->symbols[left->next];
        if (merges_find(&work->bpe->merges, left->id, right->id).id != pair.id) {
            continue;
        }
        left->id = pair.id;
        left->next = right->next;
        right->id = SYMBOL_GONE;
        if (left->next >= 0) {
            work->symbols[left->next].prev = pair.left;
        }
        offer_pair(work, left->prev);
        offer_pair(work, pair.left);
    }
}

void bpe_encode_piece(struct bpe_work *work, const char *bytes, uint32_t n_bytes,
                      struct id_sink *sink)
{
    if (work->bpe->ignore_merges) {
        const int32_t id = text_map_find(&work->bpe->map, bytes, n_bytes);
        if (id >= 0) {
            id_sink_put(sink, id);
            return;
        }
    }
    make_symbols(work, bytes, n_bytes);
    if (work->n_symbols == 0) {
        return;
    }
    merge_symbols(work);
    for (int32_t i = 0; i >= 0; i = work->symbols[i].next) {
        id_sink_put(sink, work->symbols[i].id);
    }
}
