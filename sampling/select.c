/* select: the highest few of many, and small sorts, without memory. */
#include "sampling/row.h"

/* Puts `item` in at the root of a heap whose lowest key is on top, and lets it sink. */
static void heap_sink(uint64_t *heap, int32_t n, int32_t at, uint64_t item)
{
    for (int32_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && heap[child + 1] < heap[child]) {
            child++;
        }
        if (item <= heap[child]) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
}

static void heap_build(uint64_t *heap, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--) {
        heap_sink(heap, n, i, heap[i]);
    }
}

void sampling_select_top(const float *value, const int32_t *id, int32_t n, int32_t k,
                         uint64_t *heap)
{
    ASSERT(k >= 1 && k <= n);
    for (int32_t i = 0; i < k; i++) {
        heap[i] = sampling_key(value[i], id == NULL ? i : id[i]);
    }
    heap_build(heap, k);
    /* Ids come ascending, so an equal value later on never enters: one float compare decides. */
    float lowest = value[0];
    for (int32_t i = 1; i < k; i++) {
        lowest = value[i] < lowest ? value[i] : lowest;
    }
    for (int32_t i = k; i < n; i++) {
        if (value[i] > lowest) {
            heap_sink(heap, k, 0, sampling_key(value[i], id == NULL ? i : id[i]));
            lowest = sampling_key_value(heap[0]);
        }
    }
}

void sampling_sort_keys(uint64_t *key, int32_t n)
{
    heap_build(key, n);
    for (int32_t left = n - 1; left > 0; left--) { /* the lowest goes to the end */
        const uint64_t lowest = key[0];
        heap_sink(key, left, 0, key[left]);
        key[left] = lowest;
    }
}
