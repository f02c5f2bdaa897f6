/* head: see the header. */
#include "draft/head.h"

size_t draft_head_bytes(const struct weight *head)
{
    return head->data == NULL ? 0 : backend_weight_bytes(head->type, head->n_out, head->n_in);
}

/* A tile's worth of rows at a time through memory in the format of files. */
static void gather_rows(const struct weight *full, const int32_t *ids, const struct weight *head,
                        unsigned char *rows, size_t row_bytes)
{
    for (int32_t first = 0; first < head->n_out; first += TILE_OUTPUTS) {
        const int32_t left = head->n_out - first, n = left < TILE_OUTPUTS ? left : TILE_OUTPUTS;
        for (int32_t i = 0; i < n; i++) {
            backend_weight_row(full, ids[first + i], rows + (size_t)i * row_bytes);
        }
        backend_weight_fill(head, first, n, rows, row_bytes);
    }
}

enum status draft_head_init(struct backend *backend, const struct weight *full, const int32_t *ids, int32_t n,
                            struct weight *head)
{
    const struct tensor_type_info *type = tensor_type_info(full->type);
    ASSERT(n >= 1 && n <= full->n_out && type != NULL);
    const size_t row_bytes = (size_t)full->n_in / type->block_elems * type->block_bytes;
    *head = (struct weight){ .type = full->type, .n_out = n, .n_in = full->n_in };
    unsigned char *rows = mem_alloc(TILE_OUTPUTS, row_bytes);
    head->data = rows != NULL ? backend_alloc(backend, backend_weight_bytes(full->type, n, full->n_in)) : NULL;
    if (head->data == NULL) {
        mem_free(rows);
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's head of %d tokens", n);
    }
    gather_rows(full, ids, head, rows, row_bytes);
    mem_free(rows);
    return STATUS_OK;
}

void draft_head_deinit(struct backend *backend, struct weight *head)
{
    if (head->data != NULL) {
        backend_free(backend, head->data, draft_head_bytes(head));
        head->data = NULL;
    }
}
