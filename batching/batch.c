/* batch: parts to ragged rows. Positions belong to sequences, never to columns of a batch: a row
 * carries its own position and slot, so that neighbours cannot move it. */
#include "batching/batching.h"

#include <string.h>

struct batch {
    struct batch_caps caps;
    struct arena arena;
    int32_t *token, *position, *slot, *seq_of_row; /* [caps.n_rows] */
    struct kv_view *views;                         /* [caps.n_seqs] */
    int32_t *logits_row;                           /* [caps.n_logits] */
    struct pass pass;
};

enum { BATCH_ARRAYS = 6, ARENA_ALIGN_BYTES = 64 };

static enum status batch_take_arrays(struct batch *batch)
{
    const size_t n_rows = (size_t)batch->caps.n_rows, n_seqs = (size_t)batch->caps.n_seqs;
    const size_t n_logits = (size_t)batch->caps.n_logits;
    TRY(arena_init(&batch->arena, (4 * n_rows + n_logits) * sizeof(int32_t) +
                   n_seqs * sizeof(struct kv_view) + BATCH_ARRAYS * ARENA_ALIGN_BYTES));
    batch->token = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->position = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->slot = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->seq_of_row = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->logits_row = arena_alloc(&batch->arena, n_logits, sizeof(int32_t));
    batch->views = arena_alloc(&batch->arena, n_seqs, sizeof(struct kv_view));
    ASSERT(batch->views != NULL);
    return STATUS_OK;
}

enum status batch_create(const struct batch_caps *caps, struct batch **out)
{
    *out = NULL;
    ASSERT(caps->n_rows >= 1 && caps->n_seqs >= 1 && caps->n_logits >= 1);
    struct batch *batch = mem_alloc(1, sizeof *batch);
    if (batch == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for passes of %d rows", caps->n_rows);
    }
    batch->caps = *caps;
    const enum status status = batch_take_arrays(batch);
    if (status != STATUS_OK) {
        mem_free(batch);
        return status;
    }
    batch_clear(batch);
    *out = batch;
    return STATUS_OK;
}

void batch_destroy(struct batch *batch)
{
    if (batch != NULL) {
        arena_deinit(&batch->arena);
        mem_free(batch);
    }
}

void batch_clear(struct batch *batch)
{
    batch->pass = (struct pass){
        .token = batch->token, .position = batch->position, .slot = batch->slot,
        .seq_of_row = batch->seq_of_row, .views = batch->views, .logits_row = batch->logits_row,
    };
}

int32_t batch_add(struct batch *batch, const struct batch_part *part)
{
    struct pass *pass = &batch->pass;
    const int32_t seq = pass->n_seqs, first_row = pass->n_rows, first_logits = pass->n_logits;
    ASSERT(part->n_rows >= 1 && part->n_rows <= batch->caps.n_rows - first_row);
    ASSERT(part->n_logits >= 0 && part->n_logits <= part->n_rows);
    ASSERT(part->n_logits <= batch->caps.n_logits - first_logits && seq < batch->caps.n_seqs);
    struct kv_view *view = &batch->views[seq];
    view->pages = kv_table_pages(part->table, &view->n_pages);
    memcpy(batch->token + first_row, part->tokens, (size_t)part->n_rows * sizeof *part->tokens);
    for (int32_t i = 0; i < part->n_rows; i++) {
        batch->position[first_row + i] = part->first_position + i;
        batch->slot[first_row + i] = kv_table_slot(part->table, part->first_position + i);
        batch->seq_of_row[first_row + i] = seq;
    }
    for (int32_t i = 0; i < part->n_logits; i++) {
        batch->logits_row[first_logits + i] = first_row + part->n_rows - part->n_logits + i;
    }
    pass->n_seqs++;
    pass->n_rows += part->n_rows;
    pass->n_logits += part->n_logits;
    return first_logits;
}

const struct pass *batch_pass(const struct batch *batch)
{
    return &batch->pass;
}
