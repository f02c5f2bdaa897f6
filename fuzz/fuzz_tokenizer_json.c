/* Whatever bytes as a tokenizer.json, then text through what came of it.
 *
 * Input: the file, and behind a zero byte the text. What must hold: a file is refused with a sentence or
 * makes a tokenizer; ids are in range and as many as counted; streams give whole characters.
 */
#include <string.h>

#include "base/base.h"
#include "tokenizer/tokenizer.h"

enum { MAX_IDS = 1 << 16, MAX_TEXT = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void stream(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids)
{
    static char out[4 * TOKENIZER_MAX_TOKEN_BYTES + 16];
    struct detokenizer back;
    detokenizer_init(&back, tokenizer, true);
    const size_t cap = detokenizer_push_cap(tokenizer);
    for (size_t i = 0; i < n_ids && cap <= sizeof out; i++) {
        const size_t n = detokenizer_push(&back, ids[i], out, cap);
        ASSERT(n <= cap);
    }
    ASSERT(detokenizer_finish(&back, out, sizeof out) <= 3);
}

static void encode(const struct tokenizer *tokenizer, const char *text, size_t n_text, int flags)
{
    static int32_t ids[MAX_IDS];
    size_t n_ids = 0, n_counted = 0;
    if (tokenizer_encode(tokenizer, text, n_text, flags, ids, MAX_IDS, &n_ids) != STATUS_OK) {
        ASSERT(*status_message());
        return;
    }
    ASSERT(tokenizer_encode(tokenizer, text, n_text, flags, NULL, 0, &n_counted) == STATUS_OK);
    ASSERT(n_counted == n_ids);
    const size_t n = n_ids < MAX_IDS ? n_ids : MAX_IDS;
    for (size_t i = 0; i < n; i++) {
        ASSERT(ids[i] >= 0 && ids[i] < tokenizer_n_tokens(tokenizer));
    }
    stream(tokenizer, ids, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const uint8_t *zero = n_bytes > 0 ? memchr(data, 0, n_bytes) : NULL;
    const size_t n_json = zero ? (size_t)(zero - data) : n_bytes;
    const char *text = zero ? (const char *)zero + 1 : "";
    size_t n_text = zero ? n_bytes - n_json - 1 : 0;
    n_text = n_text < MAX_TEXT ? n_text : MAX_TEXT;
    const struct tokenizer_files files = { .tokenizer = { (const char *)data, (uint32_t)n_json } };
    struct tokenizer *tokenizer = NULL;
    if (tokenizer_create_json(&files, &tokenizer) != STATUS_OK) {
        ASSERT(!tokenizer && *status_message());
        return 0;
    }
    encode(tokenizer, text, n_text, 0);
    encode(tokenizer, text, n_text, TOKENIZE_SPECIAL | TOKENIZE_SECOND_BOS);
    encode(tokenizer, text, n_text, TOKENIZE_LITERAL);
    tokenizer_destroy(tokenizer);
    return 0;
}
