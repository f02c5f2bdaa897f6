/* Ids to text: Python's answers for broken UTF-8, the same however tokens cut the bytes, and round
 * trips of whatever can be written. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "golden.h"
#include "scheduler/text.h"
#include "small_vocab.h"

#define MARK "\xe2\x96\x81" /* ▁ */
#define BAD "\xef\xbf\xbd"  /* U+FFFD */
enum { TEXT_CAP = 1 << 16, IDS_CAP = 8192 };

static const char default_model[] = "models/stories15M.Q8_0.gguf";

/* Bytes at which the table of well-formed sequences changes its mind. */
static const unsigned char edges[32] = {
    0x00, 0x20, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
    0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff, 0x80, 0x90, 0xa0, 0xbf, 0x8f,
};

struct out { char text[TEXT_CAP]; size_t n; };

/* Each push must give whole characters: complete and well-formed. */
static void assert_whole(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const unsigned char first = (unsigned char)text[i];
        const size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        assert_true(first < 0x80 || first >= 0xc2);
        assert_true(i + len <= n);
        for (size_t j = 1; j < len; j++) {
            assert_int_equal((unsigned char)text[i + j] & 0xc0, 0x80);
        }
        i += len;
    }
}

static void push(struct detokenizer *stream, int32_t id, struct out *out)
{
    const size_t cap = text_push_cap(stream->tokenizer);
    assert_true(out->n + 2 * cap <= TEXT_CAP);
    memset(out->text + out->n, 0x55, cap + 1);
    const size_t n = text_stream_push(stream, id, out->text + out->n, cap);
    assert_true(n <= cap);
    assert_int_equal(out->text[out->n + cap], 0x55);
    assert_whole(out->text + out->n, n);
    out->n += n;
}

static void finish(struct detokenizer *stream, struct out *out)
{
    const size_t n = text_stream_finish(stream, out->text + out->n, TEXT_CAP - out->n);
    assert_whole(out->text + out->n, n);
    out->n += n;
}

/* ---- broken UTF-8 ---- */
static void push_bytes(struct detokenizer *stream, const unsigned char *bytes, size_t n, struct out *out)
{
    for (size_t i = 0; i < n; i++) {
        push(stream, SMALL_VOCAB_BYTE + bytes[i], out);
    }
}

static void test_cases(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    static struct out out;
    small_vocab_init(&vocab);
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    static const struct { const char *bytes, *text; } cases[] = {
        { "\xf0\x9f\xa6\x99", "\xf0\x9f\xa6\x99" },
        { "\xf0\x9f\xa6", BAD },
        { "\xf0\x9f\xa6" "a", BAD "a" },
        { "\xf0\x80\x80" "a", BAD BAD BAD "a" },    /* overlong from the second byte on */
        { "\xed\xa0\x80", BAD BAD BAD },            /* a surrogate */
        { "\xe2\x96\xe2\x96\x81", BAD MARK },
        { "\xf4\x90\x80\x80", BAD BAD BAD BAD },    /* above U+10FFFF */
        { "\xc0\xaf", BAD BAD },
        { "\x80\xbf\xff", BAD BAD BAD },
        { "\xe1\x80\xf0\x90\xf1\x80\x80z", BAD BAD BAD "z" },
        { "\xc3", BAD },
        { "", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct detokenizer stream;
        text_stream_begin(&stream, tokenizer, true);
        out.n = 0;
        push_bytes(&stream, (const unsigned char *)cases[i].bytes, strlen(cases[i].bytes), &out);
        finish(&stream, &out);
        assert_int_equal(out.n, strlen(cases[i].text));
        assert_memory_equal(out.text, cases[i].text, out.n);
        finish(&stream, &out);
        assert_int_equal(out.n, strlen(cases[i].text));
    }
    tokenizer_destroy(tokenizer);
}

/* Held back no longer than it must: a broken character shows itself at the byte that breaks it. */
static void test_nothing_is_late(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    struct detokenizer stream;
    text_stream_begin(&stream, tokenizer, true);
    static const struct { unsigned char byte; const char *text; } steps[] = {
        { 0xf0, "" }, { 0x9f, "" }, { 0xa6, "" }, { 0x99, "\xf0\x9f\xa6\x99" }, { 0x41, "A" },
        { 0xe0, "" }, { 0x80, BAD BAD }, { 0xc3, "" }, { 0xc3, BAD }, { 0xa4, "\xc3\xa4" }, { 0xff, BAD },
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        char text[64];
        const size_t n = text_stream_push(&stream, SMALL_VOCAB_BYTE + steps[i].byte, text, sizeof text);
        assert_int_equal(n, strlen(steps[i].text));
        assert_memory_equal(text, steps[i].text, n);
    }
    tokenizer_destroy(tokenizer);
}

/* The expected number: Python 3.11, FNV-1a over bytes.decode("utf-8", "replace").encode() of 20000
 * strings made the same way, 0xff after each. */
static void test_equals_python(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    static struct out out;
    small_vocab_init(&vocab);
    vocab.spec.add_space_prefix = false;
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        unsigned char bytes[16];
        const size_t n = rng_mix64(seed) % 16;
        for (size_t i = 0; i < n; i++) {
            bytes[i] = edges[rng_mix64(seed * 1000 + 1 + i) % 32];
        }
        struct detokenizer stream;
        text_stream_begin(&stream, tokenizer, true);
        out.n = 0;
        push_bytes(&stream, bytes, n, &out);
        finish(&stream, &out);
        out.text[out.n++] = (char)0xff;
        for (size_t i = 0; i < out.n; i++) {
            hash = (hash ^ (unsigned char)out.text[i]) * 0x100000001b3u;
        }
    }
    assert_true(hash == 0xb7d3251f02adf463u);
    tokenizer_destroy(tokenizer);
}

/* Tokens of several bytes, anything in them: only the bytes count. */
static void test_cuts_do_not_matter(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    static struct out out, plain;
    static char texts[200][8];
    small_vocab_init(&vocab);
    for (uint64_t i = 0; i < 200; i++) {
        const size_t n = 1 + rng_mix64(i) % 6;
        for (size_t j = 0; j < n; j++) {
            const unsigned char byte = edges[rng_mix64(1000 + 10 * i + j) % 32];
            texts[i][j] = (char)(byte == 0 ? 0x42 : byte);
        }
        small_vocab_add(&vocab, texts[i], -1, TOKEN_NORMAL);
    }
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        struct detokenizer stream, bytewise;
        text_stream_begin(&stream, tokenizer, false);
        text_stream_begin(&bytewise, tokenizer, false);
        out.n = plain.n = 0;
        for (uint64_t i = 0; i < 12; i++) {
            const int32_t id = (int32_t)(rng_mix64(seed * 100 + i) % (uint64_t)vocab.spec.n_tokens);
            push(&stream, id, &out);
            const struct tokenizer_text piece = tokenizer_piece(tokenizer, id, false);
            push_bytes(&bytewise, (const unsigned char *)piece.bytes, piece.n_bytes, &plain);
        }
        finish(&stream, &out);
        finish(&bytewise, &plain);
        assert_int_equal(out.n, plain.n);
        assert_memory_equal(out.text, plain.text, out.n);
    }
    tokenizer_destroy(tokenizer);
}

/* ---- pieces ---- */
static void expect_piece(const struct tokenizer *tokenizer, int32_t id, bool show_control, const char *text)
{
    const struct tokenizer_text piece = tokenizer_piece(tokenizer, id, show_control);
    assert_int_equal(piece.n_bytes, strlen(text));
    assert_memory_equal(piece.bytes, text, piece.n_bytes);
}

static void test_pieces(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    small_vocab_add(&vocab, MARK "a" MARK MARK "\xe2\x96", 0, TOKEN_NORMAL);
    small_vocab_add(&vocab, MARK "u", 0, TOKEN_USER_DEFINED);
    small_vocab_add(&vocab, "", 0, TOKEN_NORMAL);
    small_vocab_add(&vocab, "<" MARK ">", 0, TOKEN_CONTROL);
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    expect_piece(tokenizer, 259, false, " a  \xe2\x96");
    expect_piece(tokenizer, 260, false, " u");
    expect_piece(tokenizer, 261, false, "");
    expect_piece(tokenizer, 262, false, "");
    expect_piece(tokenizer, 262, true, "<" MARK ">");
    expect_piece(tokenizer, SMALL_VOCAB_EOS, false, "");
    expect_piece(tokenizer, SMALL_VOCAB_EOS, true, "</s>");
    expect_piece(tokenizer, SMALL_VOCAB_UNK, false, "");
    expect_piece(tokenizer, SMALL_VOCAB_BYTE + 10, false, "\n");
    expect_piece(tokenizer, SMALL_VOCAB_BYTE + 10, true, "\n");
    expect_piece(tokenizer, -1, false, "");
    expect_piece(tokenizer, 263, true, "");
    expect_piece(tokenizer, INT32_MAX, false, "");
    assert_false(tokenizer_is_control(tokenizer, -1));
    assert_false(tokenizer_is_control(tokenizer, 263));
    assert_int_equal(text_push_cap(tokenizer), 4 * 6 + 16);
    tokenizer_destroy(tokenizer);
}

static void test_first_space(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    static struct out out;
    small_vocab_init(&vocab);
    const int32_t space = small_vocab_add(&vocab, MARK, -1, TOKEN_NORMAL);
    const int32_t word = small_vocab_add(&vocab, MARK "a", -1, TOKEN_NORMAL);
    for (int prefix = 0; prefix < 2; prefix++) {
        vocab.spec.add_space_prefix = prefix;
        struct tokenizer *tokenizer = small_vocab_create(&vocab);
        for (int at_start = 0; at_start < 2; at_start++) {
            struct detokenizer stream;
            text_stream_begin(&stream, tokenizer, at_start);
            out.n = 0;
            push(&stream, SMALL_VOCAB_BOS, &out); /* nothing comes out: still the start */
            push(&stream, word, &out);
            push(&stream, space, &out);
            push(&stream, word, &out);
            const char *expected = prefix && at_start ? "a  a" : " a  a";
            assert_int_equal(out.n, strlen(expected));
            assert_memory_equal(out.text, expected, out.n);
        }
        tokenizer_destroy(tokenizer);
    }
}

/* ---- round trips, with the vocabulary that is always there ---- */
static struct tokenizer *open_default(void)
{
    struct tokenizer *tokenizer = NULL;
    if (text_open_path(default_model, &tokenizer) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
    return tokenizer;
}

/* Encodes, then: the pieces are the text, byte for byte, and the stream is the text as Python would
 * decode it, which push_bytes has been compared with. */
static void expect_round_trip(const struct tokenizer *tokenizer, const struct tokenizer *bytewise,
                              const char *text, size_t n_bytes)
{
    static struct out out, plain;
    static int32_t ids[IDS_CAP];
    size_t n_ids = 0, at = 0;
    assert_int_equal(tokenizer_encode(tokenizer, text, n_bytes, TOKENIZE_LITERAL, ids, IDS_CAP, &n_ids), STATUS_OK);
    assert_true(n_ids <= IDS_CAP);
    struct detokenizer stream, reference;
    text_stream_begin(&stream, tokenizer, true);
    text_stream_begin(&reference, bytewise, true);
    out.n = plain.n = 0;
    push_bytes(&reference, (const unsigned char *)text, n_bytes, &plain);
    finish(&reference, &plain);
    for (size_t i = 0; i < n_ids; i++) {
        push(&stream, ids[i], &out);
        struct tokenizer_text piece = tokenizer_piece(tokenizer, ids[i], false);
        assert_true(piece.n_bytes > 0);
        if (i == 0) {
            assert_int_equal(piece.bytes[0], ' ');
            piece.bytes++, piece.n_bytes--;
        }
        assert_true(at + piece.n_bytes <= n_bytes);
        assert_memory_equal(text + at, piece.bytes, piece.n_bytes);
        at += piece.n_bytes;
    }
    finish(&stream, &out);
    assert_int_equal(at, n_bytes);
    assert_int_equal(out.n, plain.n);
    assert_memory_equal(out.text, plain.text, out.n);
}

static void test_round_trips(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    vocab.spec.add_space_prefix = false;
    struct tokenizer *bytewise = small_vocab_create(&vocab), *tokenizer = open_default();
    static const char *const texts[] = {
        "", " ", "  ", "   a", "a ", "\n", "\t \n ", "Hello,  world  ", "</s><s><unk> <0x0A>",
        "e\xcc\x81\xcc\x81\xcc\x81",                                      /* combining marks */
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7", /* a family */
        "\xe2\x80\xae" "abc\xe2\x80\xac\xe2\x80\x8b\xef\xbb\xbf",        /* direction, width 0, BOM */
        "\xf4\x8f\xbf\xbf\xef\xbf\xbf\xef\xbf\xbe\xed\x9f\xbf\xee\x80\x80", /* ends of the ranges */
        "\xef\xbf\xbd\xef\xbc\xa1\xe3\x80\x80\xc2\xa0 \xe2\x80\x83",     /* U+FFFD, wide, other spaces */
        "\xd8\xa7\xd9\x84\xd8\xb3\xd9\x84\xd8\xa7\xd9\x85 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xe0\xb8\x97\xe0\xb8\xb5",
        "\xed\xa0\xbd\xed\xb8\x80\xc0\x80\xf8\x88\x80\x80\x80\xfe\xff",   /* never UTF-8 */
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        expect_round_trip(tokenizer, bytewise, texts[i], strlen(texts[i]));
    }
    /* random bytes, then bytes at the edges of the table, then letters and spaces; ▁ itself stands
     * for a space and comes back as one, so its last byte is left out */
    for (uint64_t seed = 0; seed < 3000; seed++) {
        char text[256];
        const size_t n = rng_mix64(seed) % sizeof text;
        for (size_t i = 0; i < n; i++) {
            const uint64_t word = rng_mix64(seed * 1000 + 7 + i);
            const unsigned char byte = seed % 3 == 0 ? (unsigned char)word
                                       : seed % 3 == 1 ? edges[word % 32] : (unsigned char)"ab  the,\n"[word % 9];
            text[i] = (char)(byte == 0x81 ? 0x82 : byte);
        }
        expect_round_trip(tokenizer, bytewise, text, n);
    }
    tokenizer_destroy(tokenizer);
    tokenizer_destroy(bytewise);
}

static void expect_text(const struct tokenizer *tokenizer, const json_t *ids, const json_t *expected)
{
    static struct out out;
    struct detokenizer stream;
    text_stream_begin(&stream, tokenizer, true);
    out.n = 0;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        push(&stream, (int32_t)json_integer_value(json_array_get(ids, i)), &out);
    }
    finish(&stream, &out);
    assert_int_equal(out.n, json_string_length(expected));
    assert_memory_equal(out.text, json_string_value(expected), out.n);
}

static void test_golden_text(void **state)
{
    (void)state;
    golden_or_skip();
    char path[1024];
    assert_true(golden_path("golden/stories15M/golden.json", path, sizeof path));
    json_t *root = json_load_file(path, 0, NULL), *item;
    assert_non_null(root);
    struct tokenizer *tokenizer = open_default();
    size_t index;
    json_array_foreach(json_object_get(root, "cases"), index, item) {
        expect_text(tokenizer, json_object_get(item, "ids"), json_object_get(item, "text"));
        expect_text(tokenizer, json_object_get(item, "greedy"), json_object_get(item, "greedy_text"));
    }
    assert_true(index > 0);
    tokenizer_destroy(tokenizer);
    json_decref(root);
}

static void test_no_allocation(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_default();
    static struct out out;
    struct detokenizer stream;
    const uint64_t before = mem_alloc_count();
    text_stream_begin(&stream, tokenizer, true);
    for (int32_t id = 0; id < tokenizer_n_tokens(tokenizer); id++) {
        out.n = 0;
        push(&stream, id, &out);
    }
    finish(&stream, &out);
    assert_true(mem_alloc_count() == before);
    tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_nothing_is_late),
        cmocka_unit_test(test_equals_python),
        cmocka_unit_test(test_cuts_do_not_matter),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_first_space),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_golden_text),
        cmocka_unit_test(test_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
