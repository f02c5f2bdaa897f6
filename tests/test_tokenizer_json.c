/* tokenizer.json as it should not be: each way of being wrong has its own sentence, nothing is taken in
 * proportion to what is too deep or too long, and every allocation may fail. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "golden.h"
#include "scheduler/text.h"

enum { JSON_CAP = 32 << 10 };

/* Parts that are left NULL are those of a small good file. */
struct parts { const char *added, *normalizer, *pre, *post, *decoder, *vocab, *merges, *model, *whole; };

static const char *or_else(const char *text, const char *other) { return text ? text : other; }

static const char *make(const struct parts *parts)
{
    static char json[JSON_CAP];
    const int n = snprintf(json, sizeof json,
        "{\"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, \"decoder\": %s, "
        "\"model\": {%s, \"vocab\": %s, \"merges\": %s}}",
        or_else(parts->added, "[]"), or_else(parts->normalizer, "null"), or_else(parts->pre, "null"),
        or_else(parts->post, "null"), or_else(parts->decoder, "{\"type\": \"Fuse\"}"),
        or_else(parts->model, "\"type\": \"BPE\""), or_else(parts->vocab, "{\"a\": 0, \"b\": 1, \"ab\": 2}"),
        or_else(parts->merges, "[\"a b\"]"));
    assert_true(n > 0 && (size_t)n < sizeof json);
    return parts->whole ? parts->whole : json;
}

static enum status create(const char *json, size_t n, struct tokenizer **out)
{
    const struct tokenizer_files files = { .tokenizer = { json, (uint32_t)n } };
    return tokenizer_create_json(&files, out);
}

static void expect_refused(const struct parts *parts, enum status expected, const char *sentence)
{
    struct tokenizer *tokenizer = NULL;
    const char *json = make(parts);
    const enum status status = create(json, strlen(json), &tokenizer);
    assert_null(tokenizer);
    if (status != expected || !strstr(status_message(), sentence)) {
        fail_msg("expected %s '%s', found %s: %s", status_name(expected), sentence, status_name(status),
                 status == STATUS_OK ? "" : status_message());
    }
}
#define INVALID(part, sentence) expect_refused(&(struct parts){ part }, STATUS_INVALID, sentence)
#define UNSUPPORTED(part, sentence) expect_refused(&(struct parts){ part }, STATUS_UNSUPPORTED, sentence)

static void test_the_good_one(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = NULL;
    const char *json = make(&(struct parts){ .added = NULL });
    int32_t ids[4];
    size_t n_ids = 0;
    assert_int_equal(create(json, strlen(json), &tokenizer), STATUS_OK);
    assert_int_equal(tokenizer_encode(tokenizer, "aba", 3, 0, ids, 4, &n_ids), STATUS_OK);
    assert_int_equal(n_ids, 2);
    assert_true(ids[0] == 2 && ids[1] == 0);
    tokenizer_destroy(tokenizer);
}

static void test_files(void **state)
{
    (void)state;
    INVALID(.whole = "", "tokenizer.json: line 1");
    INVALID(.whole = "[]", "expected a JSON object");
    INVALID(.whole = "{\"a\": 1, \"a\": 2}", "duplicate object key");
    INVALID(.whole = "{\"model\": {\"vocab\": {\"x\": 0, \"x\": 0}}}", "duplicate object key");
    INVALID(.whole = "{} {}", "end of file expected");
    INVALID(.whole = "{\"model\": \"\\ud800\"}", "tokenizer.json: line 1");
    INVALID(.whole = "{}", "expected a \"model\", found none");
    INVALID(.whole = "{\"model\": {\"type\": \"BPE\", \"merges\": []}}", "expected a \"vocab\"");
    INVALID(.whole = "{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", "found 0 tokens");
    INVALID(.whole = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", "\"merges\", found none");
}

static void test_models(void **state)
{
    (void)state;
    UNSUPPORTED(.model = "\"type\": \"WordPiece\"", "tokenizer kind 'WordPiece' is not supported");
    UNSUPPORTED(.model = "\"type\": \"Unigram\"", "supported in tokenizer.json: BPE");
    UNSUPPORTED(.model = "\"type\": \"BPE\", \"continuing_subword_prefix\": \"##\"", "continuing_subword_prefix");
    UNSUPPORTED(.model = "\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\"", "end_of_word_suffix");
    UNSUPPORTED(.model = "\"type\": \"BPE\", \"dropout\": 0.1", "dropout");
    INVALID(.model = "\"type\": \"BPE\", \"fuse_unk\": 1", "\"fuse_unk\": expected true or false");
    INVALID(.model = "\"type\": \"BPE\", \"unk_token\": \"?\"", "expected unk_token '?' in the vocabulary");
    INVALID(.vocab = "{\"a\": -1}", "expected ids from 0");
    INVALID(.vocab = "{\"a\": 0.5}", "expected ids from 0");
    INVALID(.vocab = "{\"a\": \"0\"}", "expected ids from 0");
    INVALID(.vocab = "{\"a\": 4194304}", "expected ids from 0");
    INVALID(.vocab = "{\"a\": 9223372036854775807}", "expected ids from 0");
    INVALID(.vocab = "{\"a\": 4194303}", "without large holes, found 1 tokens up to id 4194303");
    INVALID(.vocab = "{\"a\": 0, \"b\": 0}", "found id 0 for");
    INVALID(.merges = "{}", "\"merges\": expected a list");
    INVALID(.merges = "[\"ab\"]", "merge 0: expected two texts");
    INVALID(.merges = "[\"a b c\"]", "merge 0: expected two texts");
    INVALID(.merges = "[[\"a\"]]", "merge 0: expected two texts");
    INVALID(.merges = "[[\"a\", 1]]", "merge 0: expected two texts");
    INVALID(.merges = "[\"a b\", \"x b\"]", "merge 1: expected a left side that is a token, found 'x'");
    INVALID(.merges = "[\"a x\"]", "merge 0: expected a right side");
    INVALID(.merges = "[\"b a\"]", "merge 0: expected a result that is a token, found 'ba'");
    INVALID(.merges = "[\" b\"]", "merge 0: expected a left side");
}

static void test_added(void **state)
{
    (void)state;
    INVALID(.added = "{}", "\"added_tokens\": expected a list");
    INVALID(.added = "[7]", "expected ids from 0");
    INVALID(.added = "[{\"id\": 5}]", "added token 5: expected the text");
    INVALID(.added = "[{\"id\": 1, \"content\": \"z\"}]", "added token 1: expected the text 'b' that its id has, found 'z'");
    INVALID(.added = "[{\"id\": 5, \"content\": \"b\"}]", "expected id 1 as in the vocabulary, found 5");
    INVALID(.added = "[{\"id\": 5, \"content\": 5}]", "\"content\": expected a text");
    INVALID(.added = "[{\"id\": 5, \"content\": \"z\", \"lstrip\": 1}]", "\"lstrip\": expected true or false");
}

static void test_steps(void **state)
{
    (void)state;
    UNSUPPORTED(.normalizer = "{\"type\": \"BertNormalizer\"}", "normalizer 'BertNormalizer' is not supported");
    UNSUPPORTED(.normalizer = "{\"type\": \"Precompiled\"}", "normalizer 'Precompiled'");
    INVALID(.normalizer = "{}", "expected a normalizer with a \"type\"");
    INVALID(.normalizer = "7", "expected a normalizer with a \"type\"");
    INVALID(.normalizer = "{\"type\": \"Sequence\"}", "\"normalizers\" in a Sequence, found none");
    INVALID(.normalizer = "{\"type\": \"Replace\", \"content\": \"\"}", "\"String\" or \"Regex\"");
    INVALID(.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}}", "found an empty text");
    UNSUPPORTED(.pre = "{\"type\": \"BertPreTokenizer\"}", "pre-tokenizer 'BertPreTokenizer'");
    UNSUPPORTED(.pre = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}",
                "'Digits' behind ByteLevel");
    UNSUPPORTED(.pre = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Sequence\"}]}", "'Sequence'");
    UNSUPPORTED(.pre = "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Melted\"}", "'Melted'");
    UNSUPPORTED(.pre = "{\"type\": \"Metaspace\", \"prepend_scheme\": \"last\"}", "prepend_scheme 'last'");
    INVALID(.pre = "{\"type\": \"Metaspace\", \"replacement\": \"\"}", "expected one character");
    INVALID(.pre = "{\"type\": \"CharDelimiterSplit\"}", "expected a \"delimiter\"");
    UNSUPPORTED(.decoder = "null", "expected a decoder, found none");
    UNSUPPORTED(.decoder = "{\"type\": \"WordPiece\"}", "decoder 'WordPiece'");
    UNSUPPORTED(.decoder = "{\"type\": \"ByteLevel\"}", "behind a pre-tokenizer that is none");
    UNSUPPORTED(.decoder = "{\"type\": \"Strip\", \"content\": \"x\", \"start\": 1, \"stop\": 0}", "one space at the start");
    UNSUPPORTED(.post = "{\"type\": \"Other\"}", "post-processor 'Other'");
    INVALID(.post = "{\"type\": \"TemplateProcessing\", \"single\": []}", "one text in the template, found 0");
    INVALID(.post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}", "ids of 'x'");
    INVALID(.post = "{\"type\": \"RobertaProcessing\", \"cls\": [\"x\", 9], \"sep\": [\"y\", 0]}", "vocabulary of 3");
    UNSUPPORTED(.post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}], "
                "\"special_tokens\": {\"x\": {\"ids\": [0,0,0,0,0,0,0,0,0]}}}", "at most 8 tokens");
}

static void expect_pattern(const char *regex, enum status expected, const char *sentence)
{
    char pre[1024];
    snprintf(pre, sizeof pre, "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}}", regex);
    expect_refused(&(struct parts){ .pre = pre }, expected, sentence);
}

static void test_patterns(void **state)
{
    (void)state;
    expect_pattern("(", STATUS_INVALID, "expected a regular expression, found '('");
    expect_pattern("[a", STATUS_INVALID, "missing terminating ]");
    expect_pattern("\\\\p{Nonsense}", STATUS_INVALID, "unknown property");
    expect_pattern("[a&&b]", STATUS_UNSUPPORTED, "an intersection of classes at byte 2");
    expect_pattern("[a[b]]", STATUS_UNSUPPORTED, "a class within a class");
    expect_pattern("[\\\\S]", STATUS_UNSUPPORTED, "a negated kind of characters");
    expect_pattern("(*LIMIT_MATCH=99999999)a", STATUS_UNSUPPORTED, "a verb");
    expect_pattern("a\\\\Kb", STATUS_UNSUPPORTED, "this escape");
    expect_pattern("\\\\", STATUS_UNSUPPORTED, "a backslash before nothing");
    expect_pattern("\\\\pL", STATUS_UNSUPPORTED, "a property without braces");
    /* one that takes exponential time is stopped, not waited for */
    struct tokenizer *tokenizer = NULL;
    const char *json = make(&(struct parts){ .pre = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a+)+$(?=b)\"}}" });
    char text[64];
    size_t n_ids = 0;
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'c';
    assert_int_equal(create(json, strlen(json), &tokenizer), STATUS_OK);
    assert_int_equal(tokenizer_encode(tokenizer, text, sizeof text, 0, NULL, 0, &n_ids), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "runs away"));
    tokenizer_destroy(tokenizer);
}

/* What is too deep or too long to be a tokenizer costs nothing to say no to. */
static void test_bombs(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *json = malloc(2 * DEPTH + 64);
    struct tokenizer *tokenizer = NULL;
    assert_non_null(json);
    static const char *const openings[] = { "[", "{\"a\":" };
    for (size_t i = 0; i < 2; i++) {
        size_t n = 0;
        while (n + 8 < 2 * DEPTH) {
            memcpy(json + n, openings[i], strlen(openings[i]));
            n += strlen(openings[i]);
        }
        const uint64_t before = mem_alloc_count();
        assert_int_equal(create(json, n, &tokenizer), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "brackets at most 64 deep"));
        assert_true(mem_alloc_count() - before <= 2);
    }
    /* brackets in a text are text */
    char vocab[1024] = "{\"a\": 0, \"b\": 1, \"ab\": 2, \"";
    memset(vocab + strlen(vocab), '[', 500);
    strcat(vocab, "\\\"]\": 3}");
    const char *good = make(&(struct parts){ .vocab = vocab });
    assert_int_equal(create(good, strlen(good), &tokenizer), STATUS_OK);
    tokenizer_destroy(tokenizer);
    free(json);
}

static void test_flipped_bytes(void **state)
{
    (void)state;
    char json[JSON_CAP];
    snprintf(json, sizeof json, "%s", make(&(struct parts){
        .added = "[{\"id\": 3, \"content\": \"<s>\", \"special\": true, \"lstrip\": true}]",
        .normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}",
        .pre = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{L}+|[^a]\"}, \"behavior\": \"Isolated\"}",
        .post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": "
                "{\"id\": \"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [3]}}}" }));
    const size_t n = strlen(json);
    for (uint64_t i = 0; i < 4000; i++) {
        const uint64_t word = rng_mix64(i);
        const size_t at = word % n;
        const char old = json[at];
        json[at] = (char)(word >> 32);
        struct tokenizer *tokenizer = NULL;
        if (create(json, n, &tokenizer) == STATUS_OK) {
            size_t n_ids = 0;
            (void)tokenizer_encode(tokenizer, "a <s>ab\xcc\x81", 9, TOKENIZE_SPECIAL, NULL, 0, &n_ids);
        }
        tokenizer_destroy(tokenizer);
        json[at] = old;
        struct tokenizer *cut = NULL;
        assert_int_not_equal(create(json, at, &cut), STATUS_OK);
    }
}

/* Each allocation of ours fails once, making and encoding. */
static void test_out_of_memory(void **state)
{
    (void)state;
    char json[JSON_CAP];
    snprintf(json, sizeof json, "%s", make(&(struct parts){
        .added = "[{\"id\": 3, \"content\": \"<s>\", \"normalized\": true}]",
        .normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Replace\", "
                      "\"pattern\": {\"Regex\": \"x\"}, \"content\": \"a\"}]}",
        .pre = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Metaspace\"}, {\"type\": \"Digits\"}]}" }));
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct tokenizer *tokenizer = NULL;
        int32_t ids[16];
        size_t n_ids = 0;
        mem_fail_at(n);
        enum status status = create(json, strlen(json), &tokenizer);
        status = status == STATUS_OK ? tokenizer_encode(tokenizer, "ab<s>e\xcc\x81 x", 10, 0, ids, 16, &n_ids) : status;
        mem_fail_at(0);
        done = status == STATUS_OK;
        assert_true(done || status == STATUS_NO_MEMORY);
        assert_true(n < 2000);
        tokenizer_destroy(tokenizer);
    }
}

static void test_paths(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = NULL;
    assert_int_equal(text_open_path("/nowhere/tokenizer.json", &tokenizer), STATUS_IO);
    assert_int_equal(text_open_path("tests", &tokenizer), STATUS_IO);
    assert_non_null(strstr(status_message(), "tests/tokenizer.json"));
    assert_null(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_good_one),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
