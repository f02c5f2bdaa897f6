/* bytes: grows by half, so that appending is linear in all. */
#include "tokenizer/bytes.h"

#include <string.h>

enum status bytes_append(struct bytes *bytes, const char *more, size_t n)
{
    if (n > BYTES_MAX - bytes->n) {
        return status_fail(STATUS_INVALID,
                           "expected a text that stays below %zu bytes, found one that its "
                           "tokenizer makes longer",
                           BYTES_MAX);
    }
    if (bytes->n + n > bytes->cap) {
        const size_t cap = (bytes->n + n) + (bytes->n + n) / 2 + 64;
        char *bigger = mem_realloc(bytes->at, cap, 1);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of text", cap);
        }
        bytes->at = bigger;
        bytes->cap = cap;
    }
    if (n > 0) {
        memcpy(bytes->at + bytes->n, more, n);
        bytes->n += n;
    }
    return STATUS_OK;
}

void bytes_deinit(struct bytes *bytes)
{
    mem_free(bytes->at);
    *bytes = (struct bytes){ .at = NULL };
}
