/* head: see the header. */
#include "draft/head.h"

size_t draft_head_bytes(const struct backend *backend, const struct weight *head)
{
    return head->data == NULL ? 0 : backend_matrix_bytes(backend, head->type, head->n_out, head->n_in);
}

enum status draft_head_init(struct backend *backend, const struct weight *full, const int32_t *ids, int32_t n,
                            struct weight *head)
{
    ASSERT(n >= 1 && n <= full->n_out);
    *head = (struct weight){ .type = full->type, .n_out = n, .n_in = full->n_in };
    head->data = backend_alloc(backend, backend_matrix_bytes(backend, full->type, n, full->n_in));
    if (head->data == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's head of %d tokens", n);
    }
    return backend_matrix_gather(backend, full, ids, head);
}

void draft_head_deinit(struct backend *backend, struct weight *head)
{
    if (head->data != NULL) {
        backend_free(backend, head->data, draft_head_bytes(backend, head));
        head->data = NULL;
    }
}
