/* lineup: an ordered list whose links lie inside its items, so that it has no capacity to run out of
 * and nothing to allocate. */
#include "batching/batching.h"

bool lineup_precedes(const struct lineup_item *a, const struct lineup_item *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

void lineup_insert(struct lineup *lineup, struct lineup_item *item)
{
    struct lineup_item *before = lineup->last;
    while (before != NULL && lineup_precedes(item, before)) {
        before = before->before;
    }
    item->before = before;
    item->after = before != NULL ? before->after : lineup->first;
    *(item->before != NULL ? &item->before->after : &lineup->first) = item;
    *(item->after != NULL ? &item->after->before : &lineup->last) = item;
    lineup->n_items++;
}

void lineup_remove(struct lineup *lineup, struct lineup_item *item)
{
    ASSERT(lineup->n_items > 0);
    *(item->before != NULL ? &item->before->after : &lineup->first) = item->after;
    *(item->after != NULL ? &item->after->before : &lineup->last) = item->before;
    item->before = item->after = NULL;
    lineup->n_items--;
}
