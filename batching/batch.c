/* batch: parts to ragged rows. Positions belong to sequences, never to columns of a batch: a row
 * carries its own position and slot, so that neighbours cannot move it. A row of a tree that a chain
 * would not have there carries its own view besides. */
#include "batching/batching.h"

#include <string.h>

struct batch {
    struct batch_caps caps;
    struct arena arena;
    int32_t *token, *position, *slot, *seq_of_row; /* [caps.n_rows] */
    struct kv_view *views;                         /* [caps.n_views] */
    int32_t *paths;                                /* [caps.n_views, KV_PATH_CAP] a view's, by its place */
    int32_t *logits_row;                           /* [caps.n_logits] */
    int32_t n_parts;
    struct pass pass;
};

enum { BATCH_ARRAYS = 7, ARENA_ALIGN_BYTES = 64 };

static enum status batch_take_arrays(struct batch *batch)
{
    const size_t n_rows = (size_t)batch->caps.n_rows, n_views = (size_t)batch->caps.n_views;
    const size_t n_logits = (size_t)batch->caps.n_logits;
    TRY(arena_init(&batch->arena, (4 * n_rows + n_logits + n_views * KV_PATH_CAP) * sizeof(int32_t) +
                   n_views * sizeof(struct kv_view) + BATCH_ARRAYS * ARENA_ALIGN_BYTES));
    batch->token = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->position = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->slot = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->seq_of_row = arena_alloc(&batch->arena, n_rows, sizeof(int32_t));
    batch->logits_row = arena_alloc(&batch->arena, n_logits, sizeof(int32_t));
    batch->paths = arena_alloc(&batch->arena, n_views * KV_PATH_CAP, sizeof(int32_t));
    batch->views = arena_alloc(&batch->arena, n_views, sizeof(struct kv_view));
    ASSERT(batch->views != NULL);
    return STATUS_OK;
}

enum status batch_create(const struct batch_caps *caps, struct batch **out)
{
    *out = NULL;
    ASSERT(caps->n_rows >= 1 && caps->n_seqs >= 1 && caps->n_logits >= 1);
    ASSERT(caps->n_views == 0 || caps->n_views >= caps->n_seqs);
    struct batch *batch = mem_alloc(1, sizeof *batch);
    if (batch == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for passes of %d rows", caps->n_rows);
    }
    batch->caps = *caps;
    batch->caps.n_views = caps->n_views > 0 ? caps->n_views : caps->n_seqs;
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
    batch->n_parts = 0;
    batch->pass = (struct pass){
        .token = batch->token, .position = batch->position, .slot = batch->slot,
        .seq_of_row = batch->seq_of_row, .views = batch->views, .logits_row = batch->logits_row,
    };
}

/* ---- trees ---- */

/* A node and its ancestors, from the eldest: node[0] hangs on what stands before the nodes. */
struct lineage { int32_t node[BATCH_MAX_NODES], n; };

static struct lineage lineage_of(const int8_t *parent, int32_t node)
{
    struct lineage lineage = { .n = 0 };
    for (int32_t at = node; at >= 0; at = parent[at]) {
        ASSERT(parent[at] >= -1 && parent[at] < at);
        lineage.n++;
    }
    for (int32_t at = node, i = lineage.n; at >= 0; at = parent[at]) {
        lineage.node[--i] = at;
    }
    return lineage;
}

/* How many of its nodes stand where a chain would have them. */
static int32_t lineage_on_chain(const struct lineage *lineage)
{
    int32_t n = 0;
    while (n < lineage->n && lineage->node[n] == n) {
        n++;
    }
    return n;
}

/* A view of its own: the main view up to where the lineage leaves the chain, then its slots. */
static int32_t add_view(struct batch *batch, const struct batch_part *part,
                        const struct lineage *lineage, int32_t n_on_chain)
{
    const int32_t first_node = part->first_position + part->n_rows - part->n_nodes;
    const int32_t idx = batch->pass.n_seqs++;
    ASSERT(idx < batch->caps.n_views);
    struct kv_view *view = &batch->views[idx];
    int32_t *path = batch->paths + (size_t)idx * KV_PATH_CAP;
    *view = (struct kv_view){ .fork = first_node + n_on_chain, .path = path,
                              .n_path = lineage->n - n_on_chain };
    ASSERT(view->n_path <= KV_PATH_CAP);
    view->pages = kv_table_pages(part->table, &view->n_pages);
    for (int32_t i = 0; i < view->n_path; i++) {
        path[i] = kv_table_slot(part->table, first_node + lineage->node[n_on_chain + i]);
    }
    return idx;
}

/* Where a row of a tree stands, and what it sees. */
static void hang_row(struct batch *batch, const struct batch_part *part, int32_t node, int32_t row)
{
    const struct lineage lineage = lineage_of(part->parent, node);
    const int32_t n_on_chain = lineage_on_chain(&lineage);
    batch->position[row] = part->first_position + part->n_rows - part->n_nodes + lineage.n - 1;
    if (n_on_chain < lineage.n) {
        batch->seq_of_row[row] = add_view(batch, part, &lineage, n_on_chain);
    }
}

/* ---- parts ---- */

static void check_part(const struct batch *batch, const struct batch_part *part)
{
    const struct pass *pass = &batch->pass;
    ASSERT(part->n_rows >= 1 && part->n_rows <= batch->caps.n_rows - pass->n_rows);
    ASSERT(part->n_logits >= 0 && part->n_logits <= part->n_rows);
    ASSERT(part->n_logits <= batch->caps.n_logits - pass->n_logits);
    ASSERT(batch->n_parts < batch->caps.n_seqs && pass->n_seqs < batch->caps.n_views);
    ASSERT(part->parent == NULL || (part->n_nodes >= 0 && part->n_nodes <= BATCH_MAX_NODES &&
                                    part->n_nodes <= part->first_position + part->n_rows));
}

/* Where the rows of a part begin. */
static int32_t first_position_of(const struct batch *batch, const struct batch_part *part)
{
    int32_t first = part->first_position;
    for (int32_t row = 0; mutant(MUTANT_BATCH_MAX_POSITIONS) && row < batch->pass.n_rows; row++) {
        const int32_t most = kv_table_reserved_len(part->table) - part->n_rows;
        first = batch->position[row] > first && batch->position[row] <= most ? batch->position[row] : first;
    }
    return first;
}

int32_t batch_add(struct batch *batch, const struct batch_part *part)
{
    const int32_t first_position = first_position_of(batch, part);
    struct pass *pass = &batch->pass;
    const int32_t first_row = pass->n_rows, first_logits = pass->n_logits;
    check_part(batch, part);
    const int32_t main = pass->n_seqs++;
    batch->n_parts++;
    batch->views[main] = (struct kv_view){ 0 };
    batch->views[main].pages = kv_table_pages(part->table, &batch->views[main].n_pages);
    memcpy(batch->token + first_row, part->tokens, (size_t)part->n_rows * sizeof *part->tokens);
    for (int32_t i = 0; i < part->n_rows; i++) {
        const int32_t row = first_row + i, node = part->n_nodes - part->n_rows + i;
        batch->position[row] = first_position + i;
        batch->slot[row] = kv_table_slot(part->table, part->first_position + i);
        batch->seq_of_row[row] = main;
        if (part->parent != NULL && node >= 0) {
            hang_row(batch, part, node, row);
        }
    }
    for (int32_t i = 0; i < part->n_logits; i++) {
        batch->logits_row[first_logits + i] = first_row + part->n_rows - part->n_logits + i;
    }
    pass->n_rows += part->n_rows;
    pass->n_logits += part->n_logits;
    return first_logits;
}

int32_t batch_add_branch(struct batch *batch, const struct batch_branch *branch)
{
    struct pass *pass = &batch->pass;
    const int32_t row = pass->n_rows++, idx = pass->n_seqs++, logits = pass->n_logits++;
    ASSERT(row < batch->caps.n_rows && idx < batch->caps.n_views && logits < batch->caps.n_logits);
    ASSERT(branch->n_places >= 1 && branch->n_places <= KV_PATH_CAP);
    struct kv_view *view = &batch->views[idx];
    int32_t *path = batch->paths + (size_t)idx * KV_PATH_CAP;
    *view = (struct kv_view){ .fork = branch->fork, .path = path, .n_path = branch->n_places };
    view->pages = kv_table_pages(branch->table, &view->n_pages);
    for (int32_t i = 0; i < branch->n_places; i++) {
        path[i] = kv_table_slot(branch->table, branch->places[i]);
    }
    batch->token[row] = branch->token;
    batch->position[row] = branch->fork + branch->n_places - 1;
    batch->slot[row] = path[branch->n_places - 1];
    batch->seq_of_row[row] = idx;
    batch->logits_row[logits] = row;
    return logits;
}

const struct pass *batch_pass(const struct batch *batch)
{
    return &batch->pass;
}
