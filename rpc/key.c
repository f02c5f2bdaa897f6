/* key: what a worker and its targets both know, from a file, so that it stands on no command line. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/rpc.h"

enum status rpc_key_read(const char *path, struct rpc_text *key)
{
    char line[RPC_MAX_TEXT_BYTES + 3]; /* one byte too many, a line's end, a 0 */
    rpc_text_set(key, "");
    if (path == NULL) {
        return STATUS_OK;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return status_fail(STATUS_IO, "cannot open the key file %s: %s", path, strerror(errno));
    }
    const bool has_line = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    const size_t n = has_line ? strcspn(line, "\r\n") : 0;
    if (n == 0 || n > RPC_MAX_TEXT_BYTES) {
        return status_fail(STATUS_INVALID, "the key file %s: expected a first line of 1 to %d bytes", path,
                           RPC_MAX_TEXT_BYTES);
    }
    line[n] = '\0';
    rpc_text_set(key, line);
    return STATUS_OK;
}

bool rpc_key_equal(const struct rpc_text *a, const struct rpc_text *b)
{
    /* Every byte of the room is looked at: behind the end stand zeros, or are taken for such. */
    unsigned differs = (unsigned)(a->n ^ b->n);
    for (int32_t i = 0; i < RPC_MAX_TEXT_BYTES; i++) {
        const unsigned x = i < a->n ? (unsigned char)a->bytes[i] : 0u;
        const unsigned y = i < b->n ? (unsigned char)b->bytes[i] : 0u;
        differs |= x ^ y;
    }
    return differs == 0;
}
