/* merge_heap: a binary heap in an array. */
#include "tokenizer/merge_heap.h"

#include <stdbool.h>

static bool precedes(const struct merge_pair *a, const struct merge_pair *b)
{
    return a->order < b->order || (a->order == b->order && a->left < b->left);
}

void merge_heap_push(struct merge_heap *heap, struct merge_pair pair)
{
    size_t at = heap->n++;
    for (; at > 0 && precedes(&pair, &heap->pairs[(at - 1) / 2]); at = (at - 1) / 2) {
        heap->pairs[at] = heap->pairs[(at - 1) / 2];
    }
    heap->pairs[at] = pair;
}

struct merge_pair merge_heap_pop(struct merge_heap *heap)
{
    const struct merge_pair top = heap->pairs[0], last = heap->pairs[--heap->n];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < heap->n && precedes(&heap->pairs[child + 1], &heap->pairs[child])) {
            child++;
        }
        if (child >= heap->n || !precedes(&heap->pairs[child], &last)) {
            break;
        }
        heap->pairs[at] = heap->pairs[child];
        at = child;
    }
    heap->pairs[at] = last;
    return top;
}
