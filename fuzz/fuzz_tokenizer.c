/* Encoding and decoding of whatever bytes, with a vocabulary made by hand or made of the input itself.
 *
 * Input: a byte of flags, then text. With FUZZ_VOCABULARY set: a length byte and the vocabulary come
 * before the text, each token as class, score, length, bytes. What must hold: ids are in range and as
 * many as counted, plain text comes back byte for byte, streams give whole characters.
 */
#include <string.h>

#include "base/mem.h"
#include "tokenizer/tokenizer.h"

enum {
    FUZZ_SPECIAL = TOKENIZE_SPECIAL, FUZZ_LITERAL = TOKENIZE_LITERAL, FUZZ_SECOND_BOS = TOKENIZE_SECOND_BOS,
    FUZZ_ADD_EOS = 8, FUZZ_NO_PREFIX = 16, FUZZ_NO_CLASSES = 32, FUZZ_NO_BYTES = 64, FUZZ_VOCABULARY = 128,
    MAX_TOKENS = 340, MAX_TEXT = 4096
};

struct vocab {
    struct tokenizer_spec spec;
    struct tokenizer_text tokens[MAX_TOKENS];
    float scores[MAX_TOKENS];
    int32_t classes[MAX_TOKENS];
    char byte_texts[256][6];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void add(struct vocab *vocab, const char *bytes, size_t n_bytes, float score, int32_t class)
{
    const int32_t id = vocab->spec.n_tokens++;
    vocab->tokens[id] = (struct tokenizer_text){ bytes, (uint32_t)n_bytes };
    vocab->scores[id] = score;
    vocab->classes[id] = class;
}

static void add_bytes(struct vocab *vocab)
{
    static const char digits[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256; byte++) {
        memcpy(vocab->byte_texts[byte], "<0x00>", 6);
        vocab->byte_texts[byte][3] = digits[byte / 16];
        vocab->byte_texts[byte][4] = digits[byte % 16];
        add(vocab, vocab->byte_texts[byte], 6, 0, TOKEN_BYTE);
    }
}

static void add_handmade(struct vocab *vocab)
{
    static const struct { const char *text; float score; int32_t class; } tokens[] = {
        { "a", -9, TOKEN_NORMAL }, { "b", -9, TOKEN_NORMAL },
        { "aa", -1, TOKEN_NORMAL }, { "aaaa", -1, TOKEN_NORMAL }, { "ab", -2, TOKEN_NORMAL },
        { "ba", -2, TOKEN_NORMAL }, { "\xe2\x96\x81" "a", -3, TOKEN_NORMAL }, { "bab", 4, TOKEN_NORMAL },
        { "\xe2\x96\x81\xe2\x96\x81", -1, TOKEN_NORMAL }, { "a\xe2\x96\x81", -5, TOKEN_NORMAL },
        { "\xc3\xa4", -1, TOKEN_NORMAL }, { "\xa4\xc3", -1, TOKEN_NORMAL }, { "<|x|>", 0, TOKEN_CONTROL },
        { "<|x|>a", 0, TOKEN_USER_DEFINED }, { "ab", 7, TOKEN_NORMAL }, { "", 0, TOKEN_NORMAL },
    };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        add(vocab, tokens[i].text, strlen(tokens[i].text), tokens[i].score, tokens[i].class);
    }
}

/* Tokens out of the input; returns how many bytes they took. */
static size_t add_from_input(struct vocab *vocab, const uint8_t *data, size_t n_bytes)
{
    size_t at = 0;
    const size_t n = n_bytes > 0 ? data[at++] % 60u : 0;
    for (size_t i = 0; i < n && n_bytes - at >= 3; i++) {
        const size_t room = n_bytes - at - 3;
        const size_t len = data[at + 2] < room ? data[at + 2] : room;
        add(vocab, (const char *)data + at + 3, len, (float)(int8_t)data[at + 1], (int8_t)data[at] % 8);
        at += 3 + len;
    }
    return at;
}

static void check_whole(const char *text, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        const unsigned char first = (unsigned char)text[i];
        len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        ASSERT((first < 0x80 || first >= 0xc2) && i + len <= n);
    }
}

/* Streams ids and, for plain text, compares their pieces with it. */
static void decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids, const char *text,
                   size_t n_text)
{
    static char out[4 * TOKENIZER_MAX_TOKEN_BYTES + 16];
    struct detokenizer stream;
    detokenizer_init(&stream, tokenizer, true);
    size_t at = 0;
    for (size_t i = 0; i < n_ids; i++) {
        ASSERT(ids[i] >= 0 && ids[i] < tokenizer_n_tokens(tokenizer));
        const size_t cap = detokenizer_push_cap(tokenizer);
        ASSERT(cap <= sizeof out);
        check_whole(out, detokenizer_push(&stream, ids[i], out, cap));
        const struct tokenizer_text piece = tokenizer_piece(tokenizer, ids[i], false);
        for (uint32_t j = 0; text && j < piece.n_bytes; j++, at++) {
            ASSERT(at < n_text && piece.bytes[j] == text[at]);
        }
    }
    check_whole(out, detokenizer_finish(&stream, out, sizeof out));
    ASSERT(!text || at == n_text);
}

static void encode(const struct tokenizer *tokenizer, const char *text, size_t n_text, int flags, int exact)
{
    static int32_t ids[MAX_TEXT * 4 + 8];
    static char expected[MAX_TEXT + 1];
    size_t n_ids = 0, n_counted = 0;
    n_text = n_text < MAX_TEXT ? n_text : MAX_TEXT;
    ASSERT(tokenizer_encode(tokenizer, text, n_text, flags, ids, sizeof ids / sizeof ids[0], &n_ids) == STATUS_OK);
    ASSERT(n_ids <= sizeof ids / sizeof ids[0]);
    ASSERT(tokenizer_encode(tokenizer, text, n_text, flags, NULL, 0, &n_counted) == STATUS_OK);
    ASSERT(n_counted == n_ids);
    /* the escape itself, written out, comes back as a space */
    for (size_t i = 0; i + 3 <= n_text; i++) {
        exact = exact && memcmp(text + i, "\xe2\x96\x81", 3) != 0;
    }
    const size_t prefix = !(flags & FUZZ_NO_PREFIX) && n_text > 0;
    expected[0] = ' ';
    if (n_text > 0) {
        memcpy(expected + prefix, text, n_text);
    }
    decode(tokenizer, ids, n_ids, exact ? expected : NULL, n_text + prefix);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static struct vocab vocab;
    const int flags = n_bytes > 0 ? data[0] : 0;
    size_t at = n_bytes > 0;
    memset(&vocab, 0, sizeof vocab);
    add(&vocab, "<unk>", 5, 0, TOKEN_UNKNOWN);
    add(&vocab, "<s>", 3, 0, TOKEN_CONTROL);
    add(&vocab, "</s>", 4, 0, TOKEN_CONTROL);
    add(&vocab, "\xe2\x96\x81", 3, -9, TOKEN_NORMAL); /* without it spaces would become its bytes */
    if (!(flags & FUZZ_NO_BYTES)) {
        add_bytes(&vocab);
    }
    if (flags & FUZZ_VOCABULARY) {
        at += add_from_input(&vocab, data + at, n_bytes - at);
    } else {
        add_handmade(&vocab);
    }
    vocab.spec = (struct tokenizer_spec){
        .kind = "llama", .tokens = vocab.tokens, .scores = vocab.scores,
        .classes = flags & FUZZ_NO_CLASSES ? NULL : vocab.classes, .n_tokens = vocab.spec.n_tokens,
        .bos_id = 1, .eos_id = 2, .unk_id = 0, .pad_id = -1, .eot_id = -1, .add_bos = true,
        .add_eos = (flags & FUZZ_ADD_EOS) != 0, .add_space_prefix = !(flags & FUZZ_NO_PREFIX),
    };
    struct tokenizer *tokenizer = NULL;
    if (tokenizer_create(&vocab.spec, &tokenizer) == STATUS_OK) {
        const int exact = (flags & FUZZ_LITERAL) && !(flags & FUZZ_NO_BYTES);
        encode(tokenizer, (const char *)data + at, n_bytes - at, flags, exact);
        tokenizer_destroy(tokenizer);
    }
    return 0;
}
