/* kv_store: the bytes behind page numbers. K lies [kv_head][slot / 16][head_dim][16], so that sixteen
 * positions' values of one dimension fill a register; V lies [kv_head][slot][head_dim].
 */
#include <string.h>

#include "backend/cpu/attention.h"

/* Bytes of K (or V) of one page and layer; 0 when the shape cannot be. */
static size_t page_bytes_of(const struct kv_store *shape)
{
    size_t bytes = attention_kv_bytes(shape->type);
    if (shape->n_kv_heads <= 0 || shape->page_slots <= 0 || shape->head_dim <= 0 ||
        shape->page_slots % KV_BLOCK_SLOTS != 0 ||
        __builtin_mul_overflow(bytes, (size_t)shape->n_kv_heads, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)shape->page_slots, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)shape->head_dim, &bytes)) {
        return 0;
    }
    return bytes;
}

/* Bytes of K (or V) of all pages and layers; 0 when the shape cannot be. */
static size_t half_bytes_of(const struct kv_store *shape)
{
    size_t bytes = page_bytes_of(shape);
    if (shape->n_layers <= 0 || shape->n_pages <= 0 ||
        __builtin_mul_overflow(bytes, (size_t)shape->n_layers, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)shape->n_pages, &bytes) || bytes > SIZE_MAX / 4) {
        return 0;
    }
    return bytes;
}

size_t kv_store_bytes(const struct kv_store *shape) { return 2 * half_bytes_of(shape); }

enum status kv_store_init(struct backend *backend, struct kv_store *store)
{
    store->k = store->v = NULL;
    if (store->head_dim <= 0 || store->head_dim % 16 != 0 ||
        store->head_dim > ATTENTION_MAX_HEAD_DIM) {
        return status_fail(STATUS_UNSUPPORTED,
                           "expected a head dimension that is a multiple of 16 up to %d, found %d",
                           ATTENTION_MAX_HEAD_DIM, store->head_dim);
    }
    const size_t bytes = half_bytes_of(store);
    if (bytes == 0) {
        return status_fail(STATUS_INVALID,
                           "impossible KV store: %d layers, %d KV heads, %d pages of %d slots",
                           store->n_layers, store->n_kv_heads, store->n_pages, store->page_slots);
    }
    store->page_bytes = page_bytes_of(store);
    store->k = backend_alloc(backend, bytes);
    store->v = store->k ? backend_alloc(backend, bytes) : NULL;
    if (!store->v) {
        kv_store_deinit(backend, store);
        return status_fail(STATUS_NO_MEMORY,
                           "no memory for the KV store: needs %zu MiB, %llu MiB are available",
                           (2 * bytes) >> 20, (unsigned long long)(mem_available_bytes() >> 20));
    }
    return STATUS_OK;
}

void kv_store_deinit(struct backend *backend, struct kv_store *store)
{
    const size_t bytes = half_bytes_of(store);
    if (store->k) {
        backend_free(backend, store->k, bytes);
    }
    if (store->v) {
        backend_free(backend, store->v, bytes);
    }
    store->k = store->v = NULL;
}

static float element_read(enum kv_type type, const unsigned char *block, int32_t idx)
{
    uint16_t half;
    float value;
    if (type == KV_F32) {
        memcpy(&value, block + (size_t)idx * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, block + (size_t)idx * sizeof half, sizeof half);
    return mathx_f16_to_f32(half);
}

void kv_store_read(const struct kv_store *store, int32_t layer, int32_t slot, float *k, float *v)
{
    const uint32_t page = (uint32_t)(slot / store->page_slots);
    const int32_t in_page = slot % store->page_slots, in_block = in_page % KV_BLOCK_SLOTS;
    ASSERT(layer >= 0 && layer < store->n_layers && slot >= 0 && (int32_t)page < store->n_pages);
    for (int32_t head = 0; head < store->n_kv_heads; head++) {
        const size_t offset =
            attention_block_offset(store, layer, page, head, in_page / KV_BLOCK_SLOTS);
        for (int32_t d = 0; d < store->head_dim; d++) {
            const size_t at = (size_t)head * (size_t)store->head_dim + (size_t)d;
            k[at] = element_read(store->type, store->k + offset, d * KV_BLOCK_SLOTS + in_block);
            v[at] = element_read(store->type, store->v + offset, in_block * store->head_dim + d);
        }
    }
}

static void element_poison(enum kv_type type, unsigned char *block, int32_t idx)
{
    const uint16_t half = 0x7e00u;
    const float value = MATHX_NAN;
    if (type == KV_F32) {
        memcpy(block + (size_t)idx * sizeof value, &value, sizeof value);
    } else {
        memcpy(block + (size_t)idx * sizeof half, &half, sizeof half);
    }
}

void kv_store_poison(const struct kv_store *store, uint32_t page, int32_t first_slot, int32_t n_slots)
{
    ASSERT((int32_t)page < store->n_pages && first_slot >= 0 && n_slots >= 0 &&
           n_slots <= store->page_slots - first_slot);
    for (int32_t i = 0; i < store->n_layers * store->n_kv_heads; i++) {
        for (int32_t slot = first_slot; slot < first_slot + n_slots; slot++) {
            const int32_t in_block = slot % KV_BLOCK_SLOTS;
            const size_t offset =
                attention_block_offset(store, i / store->n_kv_heads, page, i % store->n_kv_heads,
                                       slot / KV_BLOCK_SLOTS);
            for (int32_t d = 0; d < store->head_dim; d++) {
                element_poison(store->type, store->k + offset, d * KV_BLOCK_SLOTS + in_block);
                element_poison(store->type, store->v + offset, in_block * store->head_dim + d);
            }
        }
    }
}
