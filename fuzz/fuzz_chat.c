/* Conversations of whatever bytes, in every format; and templates of whatever bytes.
 *
 * Input: a byte of flags, then messages apart by the byte 0x1e. What must hold: the prompt has as many
 * special tokens as the same conversation of plain letters; a template is a known format or refused
 * with a sentence.
 */
#include <string.h>

#include "base/base.h"
#include "tokenizer/chat.h"

enum { MAX_MESSAGES = 9, MAX_IDS = 1 << 16, HAS_SYSTEM = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Letters, signs that markup is made of, and all the special tokens of all formats. */
static const char vocabulary[] =
    "{\"added_tokens\": [{\"id\": 20, \"content\": \"<s>\", \"special\": true}, "
    "{\"id\": 21, \"content\": \"</s>\", \"special\": true}, {\"id\": 22, \"content\": \"<|im_start|>\", \"special\": true}, "
    "{\"id\": 23, \"content\": \"<|im_end|>\", \"special\": true}, {\"id\": 24, \"content\": \"<|eot_id|>\", \"special\": true}, "
    "{\"id\": 25, \"content\": \"<|start_header_id|>\", \"special\": true}, "
    "{\"id\": 26, \"content\": \"<|end_header_id|>\", \"special\": true}, "
    "{\"id\": 27, \"content\": \"<|begin_of_text|>\", \"special\": true}, "
    "{\"id\": 28, \"content\": \"[INST]\", \"special\": true, \"rstrip\": true}, "
    "{\"id\": 29, \"content\": \"[/INST]\", \"special\": true, \"lstrip\": true}, "
    "{\"id\": 30, \"content\": \"<|user|>\", \"special\": true}, {\"id\": 31, \"content\": \"?\", \"special\": true}], "
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"fuse_unk\": true, \"vocab\": {\"a\": 0, \"<\": 1, \"s\": 2, "
    "\"|\": 3, \"<|\": 4, \"[\": 5, \"?\": 31}, \"merges\": [\"< |\"]}, \"decoder\": {\"type\": \"Fuse\"}}";

static struct tokenizer *open_once(void)
{
    static struct tokenizer *tokenizer; /* for the life of the process */
    if (!tokenizer) {
        const struct tokenizer_files files = { .tokenizer = { vocabulary, sizeof vocabulary - 1 } };
        ASSERT(tokenizer_create_json(&files, &tokenizer) == STATUS_OK);
    }
    return tokenizer;
}

/* Special tokens other than the unknown one; -1 when the conversation was refused. */
static int count_specials(const struct tokenizer *tokenizer, enum chat_format format,
                          const struct chat_message *messages, size_t n)
{
    static int32_t ids[MAX_IDS];
    size_t n_ids = 0;
    int count = 0;
    if (tokenizer_encode_chat(tokenizer, format, messages, n, ids, MAX_IDS, &n_ids) != STATUS_OK) {
        ASSERT(*status_message());
        return -1;
    }
    for (size_t i = 0; i < n_ids && i < MAX_IDS; i++) {
        count += ids[i] >= 20 && ids[i] < 31;
    }
    return n_ids <= MAX_IDS ? count : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const struct tokenizer_text plain = { "a", 1 };
    struct chat_message messages[MAX_MESSAGES], letters[MAX_MESSAGES];
    const int flags = n_bytes > 0 ? data[0] : 0;
    const char *text = (const char *)data + (n_bytes > 0);
    size_t left = n_bytes - (n_bytes > 0), n = 0;
    enum chat_format detected;
    ASSERT(chat_format_detect(text, left, &detected) == STATUS_OK || *status_message());
    if (left > MAX_IDS / 4) {
        return 0;
    }
    while (n < MAX_MESSAGES) {
        const char *end = left > 0 ? memchr(text, 0x1e, left) : NULL;
        const size_t len = end ? (size_t)(end - text) : left;
        const size_t turn = n + !(flags & HAS_SYSTEM);
        messages[n].role = turn == 0 ? CHAT_SYSTEM : turn % 2 ? CHAT_USER : CHAT_ASSISTANT;
        messages[n].content = (struct tokenizer_text){ text, (uint32_t)len };
        letters[n] = (struct chat_message){ messages[n].role, plain };
        n++;
        if (!end) {
            break;
        }
        text = end + 1;
        left -= len + 1;
    }
    const enum chat_format format = (enum chat_format)(flags % 7);
    const struct tokenizer *tokenizer = open_once();
    const int found = count_specials(tokenizer, format, messages, n);
    ASSERT(found == count_specials(tokenizer, format, letters, n));
    return 0;
}
