/* Byte-pair encoding from tokenizer.json and GGUF: the answers of the tokenizers library, a plain
 * quadratic encoder to compare with, pre-tokenizers and normalizers one by one, round trips of any
 * bytes, hostile files and texts, time. */
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

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
enum { IDS_CAP = 4096, JSON_CAP = 64 << 10 };

/* ---- what the tests stand on ---- */
static struct tokenizer *open_path(const char *path)
{
    struct tokenizer *tokenizer = NULL;
    if (text_open_path(path, &tokenizer) != STATUS_OK) {
        fail_msg("%s: %s", path, status_message());
    }
    return tokenizer;
}

static enum status create(const char *json, struct tokenizer **out)
{
    const struct tokenizer_files files = { .tokenizer = { json, (uint32_t)strlen(json) } };
    return tokenizer_create_json(&files, out);
}

/* A tokenizer.json around parts of it; NULL: none. */
struct json_parts { const char *normalizer, *pre, *post, *decoder, *added, *vocab, *merges, *model; };

static const char *or_null(const char *text) { return text ? text : "null"; }

static const char *make_json(const struct json_parts *parts)
{
    static char json[JSON_CAP];
    const int n = snprintf(json, sizeof json,
        "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, "
        "\"decoder\": %s, \"model\": {\"type\": \"BPE\", \"vocab\": {%s}, \"merges\": [%s]%s}}",
        parts->added ? parts->added : "", or_null(parts->normalizer), or_null(parts->pre), or_null(parts->post),
        parts->decoder ? parts->decoder : "{\"type\": \"Fuse\"}",
        parts->vocab ? parts->vocab : "\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \" \": 4, \"1\": 5, \"2\": 6, "
                                      "\".\": 7, \"\\u2581\": 8, \"A\": 9, \"\\u00e9\": 10, \"e\": 11, \"\\u0301\": 12",
        parts->merges ? parts->merges : "\"a b\"", parts->model ? parts->model : "");
    assert_true(n > 0 && (size_t)n < sizeof json);
    return json;
}

static struct tokenizer *open_parts(const struct json_parts *parts)
{
    struct tokenizer *tokenizer = NULL;
    if (create(make_json(parts), &tokenizer) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
    return tokenizer;
}

static void expect(const struct tokenizer *tokenizer, const char *text, int flags, const char *expected)
{
    int32_t ids[IDS_CAP];
    size_t n_ids = 0, n = 0;
    char found[1024] = "";
    if (tokenizer_encode(tokenizer, text, strlen(text), flags, ids, IDS_CAP, &n_ids) != STATUS_OK) {
        fail_msg("'%.60s': %s", text, status_message());
    }
    for (size_t i = 0; i < n_ids; i++) {
        n += (size_t)snprintf(found + n, sizeof found - n, i ? " %d" : "%d", ids[i]);
    }
    if (strcmp(found, expected) != 0) {
        fail_msg("'%.60s': expected %s, found %s", text, expected, found);
    }
}

/* ---- the tokenizers library's answers ---- */
static void expect_array(const char *name, const char *text, const char *key, json_t *expected,
                         const int32_t *ids, size_t n_ids)
{
    bool same = json_array_size(expected) == n_ids;
    for (size_t i = 0; same && i < n_ids; i++) {
        same = json_integer_value(json_array_get(expected, i)) == ids[i];
    }
    if (!same) {
        fail_msg("%s: '%.60s': %s differ: %zu ids, expected %zu", name, text, key, n_ids, json_array_size(expected));
    }
}

/* Text of ids with special tokens spelled out, as `decoded` was made. */
static void expect_decoded(const char *name, const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                           const json_t *expected)
{
    char text[8 * IDS_CAP];
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        const struct tokenizer_text piece = tokenizer_piece(tokenizer, ids[i], true);
        const bool drop = i == 0 && tokenizer_adds_space(tokenizer) && piece.n_bytes > 0 && piece.bytes[0] == ' ';
        assert_true(n + piece.n_bytes <= sizeof text);
        memcpy(text + n, piece.bytes + drop, piece.n_bytes - drop);
        n += piece.n_bytes - drop;
    }
    if (n != json_string_length(expected) || memcmp(text, json_string_value(expected), n) != 0) {
        fail_msg("%s: decoded '%.*s', expected '%.60s'", name, (int)n, text, json_string_value(expected));
    }
}

static void check_cases(const char *name)
{
    char relative[256], path[1024];
    snprintf(relative, sizeof relative, "golden/tokenizers/%s/cases.json", name);
    assert_true(golden_path(relative, path, sizeof path));
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(cases) >= 50);
    snprintf(relative, sizeof relative, "golden/tokenizers/%s", name);
    assert_true(golden_path(relative, path, sizeof path));
    struct tokenizer *tokenizer = open_path(path);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *item = json_array_get(cases, i), *text = json_object_get(item, "text");
        int32_t ids[IDS_CAP];
        size_t n_ids = 0;
        const char *bytes = json_string_value(text);
        assert_int_equal(tokenizer_encode(tokenizer, bytes, json_string_length(text), 0, ids, IDS_CAP, &n_ids),
                         STATUS_OK);
        expect_array(name, bytes, "ids", json_object_get(item, "ids"), ids, n_ids);
        expect_decoded(name, tokenizer, ids, n_ids, json_object_get(item, "decoded"));
        assert_int_equal(tokenizer_encode(tokenizer, bytes, json_string_length(text),
                                          TOKENIZE_SPECIAL | TOKENIZE_SECOND_BOS, ids, IDS_CAP, &n_ids), STATUS_OK);
        expect_array(name, bytes, "with_special", json_object_get(item, "with_special"), ids, n_ids);
    }
    tokenizer_destroy(tokenizer);
    json_decref(cases);
}

static void test_tokenizer_json_vectors(void **state)
{
    (void)state;
    golden_or_skip();
    static const char *const names[] = { "gpt2", "llama3", "qwen2", "smollm", "llama2" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        check_cases(names[i]);
    }
}


/* ---- steps, one by one; expected values worked out by hand from the library's source ---- */
#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"

static void expect_steps(const struct json_parts *parts, const char *text, const char *expected)
{
    struct tokenizer *tokenizer = open_parts(parts);
    expect(tokenizer, text, 0, expected);
    tokenizer_destroy(tokenizer);
}

/* a 0, b 1, c 2, ab 3, space 4, "1" 5, "2" 6, "." 7, mark 8, A 9, é 10, e 11, acute 12; what is no
 * token vanishes: these have no unknown token. */
static void test_pre_tokenizers(void **state)
{
    (void)state;
#define PRE(json) (&(struct json_parts){ .pre = json })
    expect_steps(PRE(NULL), "aba b", "3 0 4 1");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"Isolated\"}"), "abab", "0 1 0 1");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"Removed\"}"), "abab", "0 0");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"Removed\", \"invert\": true}"), "abab", "1 1");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"MergedWithPrevious\"}"), "abab", "3 3");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"MergedWithPrevious\"}"), "ab", "0 1");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"MergedWithNext\"}"), "abab", "3 3");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"MergedWithNext\"}"), "abab", "0 1 0 1");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[ab]\"}, \"behavior\": \"Contiguous\"}"), "abcab", "3 2 3");
    expect_steps(PRE("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?=b)\"}, \"behavior\": \"Isolated\"}"), "abab", "0 1 0 1");
    expect_steps(PRE("{\"type\": \"Digits\", \"individual_digits\": true}"), "a12", "0 5 6");
    expect_steps(PRE("{\"type\": \"Punctuation\"}"), "a.b", "0 7 1");
    expect_steps(PRE("{\"type\": \"WhitespaceSplit\"}"), " ab a ", "3 0");
    expect_steps(PRE("{\"type\": \"Whitespace\"}"), " ab.a ", "3 7 0");
    expect_steps(PRE("{\"type\": \"CharDelimiterSplit\", \"delimiter\": \"c\"}"), "acab", "0 3");
    expect_steps(PRE("{\"type\": \"Metaspace\"}"), "ab a", "8 3 8 0");
    expect_steps(PRE("{\"type\": \"Metaspace\"}"), " ab", "8 3");
    expect_steps(PRE("{\"type\": \"Metaspace\", \"prepend_scheme\": \"never\"}"), "ab a", "3 8 0");
    expect_steps(PRE("{\"type\": \"Metaspace\", \"prepend_scheme\": \"first\", \"split\": false}"), "ab", "8 3");
    expect_steps(PRE("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, "
                     "{\"type\": \"Digits\", \"individual_digits\": true}]}"), "ab 1 2", "3 5 6");
#undef PRE
    const struct json_parts bytes = { .pre = BYTES, .decoder = "{\"type\": \"ByteLevel\"}",
        .vocab = "\"a\": 0, \"\\u0120\": 1, \"\\u0120a\": 2, \"\\u00ff\": 3", .merges = "[\"\\u0120\", \"a\"]" };
    expect_steps(&bytes, "a a", "0 2");
    struct json_parts prefixed = bytes;
    prefixed.pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}";
    expect_steps(&prefixed, "a", "2");
    expect_steps(&prefixed, " a", "2");
}

/* \s is White_Space, which U+180E is not and U+0085 is; \w takes marks. */
static void test_pattern_words(void **state)
{
    (void)state;
#define CUT(regex) (&(struct json_parts){ .pre = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex "\"}, " \
                                                 "\"behavior\": \"Removed\"}" })
    expect_steps(CUT("\\\\s"), "a\xc2\x85" "b\xc2\xa0" "a", "0 1 0");
    expect_steps(CUT("\\\\s"), "a\xe1\xa0\x8e" "b", "3"); /* no white space: dropped as unknown, no cut */
    expect_steps(CUT("[\\\\sb]"), "a\xe3\x80\x80" "bb\xc2\x85" "a", "0 0");
    expect_steps(CUT("\\\\S"), "a 1", "4");
    expect_steps(CUT("\\\\h"), "a1 .", "4 7");
    expect_steps(CUT("\\\\w"), "e\xcc\x81. a", "7 4");
    expect_steps(CUT("\\\\p{^L}"), "a1b", "0 1");
    expect_steps(CUT("(?i:A)"), "aAb", "1");
    expect_steps(CUT("[[:alpha:]]"), "a1", "5");
    expect_steps(CUT("[]a]"), "ab", "1");
    expect_steps(CUT("\\\\p{Han}+"), "a\xe4\xbd\xa0" "b", "0 1");
#undef CUT
}

static void test_normalizers(void **state)
{
    (void)state;
#define NORM(json) (&(struct json_parts){ .normalizer = json })
    expect_steps(NORM("{\"type\": \"NFC\"}"), "ae\xcc\x81", "0 10");
    expect_steps(NORM("{\"type\": \"NFD\"}"), "\xc3\xa9", "11 12");
    expect_steps(NORM("{\"type\": \"NFKC\"}"), "\xe2\x91\xa0\xc2\xb2\xef\xbd\x81", "5 6 0");
    expect_steps(NORM("{\"type\": \"NFKD\"}"), "\xc3\xa9\xc2\xb9", "11 12 5");
    expect_steps(NORM("{\"type\": \"Lowercase\"}"), "ABA", "3 0");
    expect_steps(NORM("{\"type\": \"StripAccents\"}"), "e\xcc\x81", "11");
    expect_steps(NORM("{\"type\": \"Strip\"}"), " \xe3\x80\x80 a b\n ", "0 4 1");
    expect_steps(NORM("{\"type\": \"Strip\", \"strip_left\": false, \"strip_right\": true}"), " a ", "4 0");
    expect_steps(NORM("{\"type\": \"Prepend\", \"prepend\": \"\\u2581\"}"), "ab", "8 3");
    expect_steps(NORM("{\"type\": \"Prepend\", \"prepend\": \"\\u2581\"}"), "", "");
    expect_steps(NORM("{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\\u2581\"}"), "a b", "0 8 1");
    expect_steps(NORM("{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"b+\"}, \"content\": \"\"}"), "abba", "0 0");
    expect_steps(NORM("{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFD\"}, {\"type\": \"StripAccents\"}, "
                      "{\"type\": \"Lowercase\"}]}"), "\xc3\x89" "A", "11 0");
#undef NORM
    /* marks in order of their classes */
    expect_steps(&(struct json_parts){ .normalizer = "{\"type\": \"NFD\"}", .merges = "",
                                       .vocab = "\"e\": 0, \"\\u0316\": 1, \"\\u0301\": 2" },
                 "e\xcc\x81\xcc\x96", "0 1 2");
}

/* Reference: as Unicode writes it, one step at a time, over the code points 'e' and marks. */
static void test_long_runs_of_marks(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_parts(&(struct json_parts){ .normalizer = "{\"type\": \"NFC\"}",
        .vocab = "\"e\": 0, \"\\u00e9\": 1, \"\\u0316\": 2, \"\\u0301\": 3", .merges = "" });
    enum { N = 200000 };
    char *text = malloc(1 + 4 * N);
    int32_t *ids = malloc((2 * N + 1) * sizeof *ids);
    assert_true(text && ids);
    text[0] = 'e';
    for (int i = 0; i < N; i++) {
        memcpy(text + 1 + 4 * i, "\xcc\x81\xcc\x96", 4); /* acute above (230), grave below (220) */
    }
    size_t n_ids = 0;
    const int64_t begin = clock_thread_cpu_ns();
    assert_int_equal(tokenizer_encode(tokenizer, text, 1 + 4 * N, 0, ids, 2 * N + 1, &n_ids), STATUS_OK);
    const double ms = (double)(clock_thread_cpu_ns() - begin) * 1e-6;
    assert_int_equal(n_ids, 2 * N);
    assert_int_equal(ids[0], 1); /* e and the first acute, over all the graves between */
    for (int i = 1; i < 2 * N; i++) {
        assert_int_equal(ids[i], i <= N ? 2 : 3);
    }
    printf("%d marks: %.0f ms\n", 2 * N, ms);
    assert_true(ms < 1000 || SANITIZED);
    free(ids);
    free(text);
    tokenizer_destroy(tokenizer);
}

/* ---- added tokens ---- */
static void test_added_tokens(void **state)
{
    (void)state;
#define ADDED(content, bits) "{\"id\": 20, \"content\": \"" content "\", \"special\": true" bits "}"
    struct { const char *added, *text, *expected; } cases[] = {
        { ADDED("<x>", ""), "a <x> b", "0 4 20 4 1" },
        { ADDED("<x>", ", \"lstrip\": true"), "a  <x> b", "0 20 4 1" },
        { ADDED("<x>", ", \"rstrip\": true"), "a <x>\\n  b<x>", "0 4 20 1 20" },
        { ADDED("<x>", ", \"lstrip\": true, \"rstrip\": true"), " <x> <x> ", "20 20" },
        { ADDED("ba", ", \"single_word\": true"), "ba cba ba.ba", "20 4 2 1 0 4 20 7 20" },
        { ADDED("Z", ", \"normalized\": true"), "aZz", "0 20 20" },
        { ADDED("z", ""), "aZz", "0 20" },
        { ADDED("<x>", "") ", {\"id\": 21, \"content\": \"<x>a\"}", "<x>ab", "21 1" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        size_t n = 0;
        for (const char *at = cases[i].text; *at; at++) { /* \n written out above */
            const bool is_line_end = at[0] == '\\';
            at += is_line_end;
            text[n++] = is_line_end ? '\n' : *at;
        }
        text[n] = '\0';
        expect_steps(&(struct json_parts){ .added = cases[i].added, .normalizer = "{\"type\": \"Lowercase\"}" },
                     text, cases[i].expected);
    }
    struct tokenizer *tokenizer = open_parts(&(struct json_parts){ .added = ADDED("<x>", "") });
    expect(tokenizer, "a<x>c", TOKENIZE_LITERAL, "0 2");
    assert_true(tokenizer_is_control(tokenizer, 20));
    /* parts: only the format's own words make it */
    const struct tokenizer_part parts[] = { { "<x>a", 4, false }, { "b<x>", 4, true }, { "<x", 2, false }, { ">", 1, false } };
    int32_t ids[16];
    size_t n_ids = 0;
    assert_int_equal(tokenizer_encode_parts(tokenizer, parts, 4, 0, ids, 16, &n_ids), STATUS_OK);
    assert_int_equal(n_ids, 2);
    assert_true(ids[0] == 20 && ids[1] == 3);
    tokenizer_destroy(tokenizer);
#undef ADDED
}

static void test_around(void **state)
{
    (void)state;
    static const char template[] = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
        "{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"</s>\"}}], \"special_tokens\": "
        "{\"<s>\": {\"ids\": [13]}, \"</s>\": {\"ids\": [14, 14]}}}";
    static const char added[] = "{\"id\": 13, \"content\": \"<s>\", \"special\": true}, "
                                "{\"id\": 14, \"content\": \"</s>\", \"special\": true}";
    struct tokenizer *tokenizer = open_parts(&(struct json_parts){ .post = template, .added = added });
    expect(tokenizer, "ab", TOKENIZE_SPECIAL, "13 3 14 14");
    expect(tokenizer, "<s>ab", TOKENIZE_SPECIAL, "13 3 14 14");
    expect(tokenizer, "<s>ab", TOKENIZE_SPECIAL | TOKENIZE_SECOND_BOS, "13 13 3 14 14");
    expect(tokenizer, "ab", 0, "3");
    assert_int_equal(tokenizer_bos(tokenizer), 13);
    tokenizer_destroy(tokenizer);
    expect_steps(&(struct json_parts){ .post = "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}]}" }, "ab", "3");
}

/* Unknown characters and byte tokens. */
static void test_unknown(void **state)
{
    (void)state;
    struct json_parts parts = { .vocab = "\"a\": 0, \"?\": 1, \"<0xC3>\": 2, \"<0xA9>\": 3", .merges = "" };
    parts.model = ", \"unk_token\": \"?\"";
    expect_steps(&parts, "axyb", "0 1 1 1");
    parts.model = ", \"unk_token\": \"?\", \"fuse_unk\": true";
    expect_steps(&parts, "xyaxy", "1 0 1");
    parts.model = ", \"unk_token\": \"?\", \"byte_fallback\": true";
    expect_steps(&parts, "\xc3\xa9" "a\xc3\xa8\xff", "2 3 0 1 1");
    parts.model = ", \"ignore_merges\": true";
    parts.vocab = "\"a\": 0, \"b\": 1, \"ab\": 2";
    expect_steps(&parts, "ab", "2");
    expect_steps(&parts, "aba", "0 1 0");
}

/* ---- the definition, without a queue ---- */
enum { LETTERS = 4, RULES = 40 };
struct rules { char texts[LETTERS + RULES][40]; int n_texts; int left[RULES], right[RULES], result[RULES], n; };

/* Random merges of what is there already. */
static void make_rules(struct rules *rules, uint64_t seed)
{
    memset(rules, 0, sizeof *rules);
    for (; rules->n_texts < LETTERS; rules->n_texts++) {
        rules->texts[rules->n_texts][0] = (char)('a' + rules->n_texts);
    }
    for (uint64_t i = 0; i < RULES; i++) {
        const uint64_t word = rng_mix64(seed * 1000 + i);
        const int left = (int)(word % (uint64_t)rules->n_texts), right = (int)((word >> 20) % (uint64_t)rules->n_texts);
        char joined[80];
        snprintf(joined, sizeof joined, "%s%s", rules->texts[left], rules->texts[right]);
        int result = 0;
        while (result < rules->n_texts && strcmp(rules->texts[result], joined) != 0) {
            result++;
        }
        if (strlen(joined) > 12) {
            continue;
        }
        if (result == rules->n_texts) {
            snprintf(rules->texts[rules->n_texts++], sizeof rules->texts[0], "%.39s", joined);
        }
        rules->left[rules->n] = left, rules->right[rules->n] = right, rules->result[rules->n++] = result;
    }
}

static struct tokenizer *open_rules(const struct rules *rules)
{
    static char vocab[8192], merges[8192];
    size_t n = 0, m = 0;
    for (int i = 0; i < rules->n_texts; i++) {
        n += (size_t)snprintf(vocab + n, sizeof vocab - n, "%s\"%s\": %d", i ? ", " : "", rules->texts[i], i);
    }
    merges[0] = '\0';
    for (int i = 0; i < rules->n; i++) {
        const char *left = rules->texts[rules->left[i]], *right = rules->texts[rules->right[i]];
        m += i % 2 ? (size_t)snprintf(merges + m, sizeof merges - m, ", [\"%s\", \"%s\"]", left, right)
                   : (size_t)snprintf(merges + m, sizeof merges - m, "%s\"%s %s\"", i ? ", " : "", left, right);
    }
    return open_parts(&(struct json_parts){ .vocab = vocab, .merges = merges });
}

/* Looks at all pairs for the earliest rule, again and again; of equal pairs the last rule counts. */
static size_t encode_plainly(const struct rules *rules, const char *text, int32_t *ids)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        ids[i] = text[i] - 'a';
    }
    for (;;) {
        int best = RULES;
        size_t place = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int rule = -1;
            for (int r = 0; r < rules->n; r++) {
                rule = rules->left[r] == ids[i] && rules->right[r] == ids[i + 1] ? r : rule;
            }
            if (rule >= 0 && rule < best) {
                best = rule;
                place = i;
            }
        }
        if (best == RULES) {
            return n;
        }
        ids[place] = rules->result[best];
        memmove(ids + place + 1, ids + place + 2, (n - place - 2) * sizeof *ids);
        n--;
    }
}

static void test_equals_plain_encoder(void **state)
{
    (void)state;
    static struct rules rules;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        make_rules(&rules, seed);
        struct tokenizer *tokenizer = open_rules(&rules);
        for (uint64_t round = 0; round < 8; round++) {
            char text[80] = "";
            const size_t n_text = rng_mix64(seed * 31 + round) % 70;
            for (size_t i = 0; i < n_text; i++) {
                text[i] = (char)('a' + rng_mix64(seed * 7919 + round * 131 + i) % (round % 2 ? LETTERS : 2));
            }
            int32_t expected[80], ids[80];
            size_t n_ids = 0;
            const size_t n = encode_plainly(&rules, text, expected);
            assert_int_equal(tokenizer_encode(tokenizer, text, n_text, 0, ids, 80, &n_ids), STATUS_OK);
            if (n_ids != n || memcmp(ids, expected, n * sizeof *ids) != 0) {
                fail_msg("seed %d: '%s' is encoded differently", (int)seed, text);
            }
        }
        tokenizer_destroy(tokenizer);
    }
}

/* ---- there and back ---- */
static void expect_round_trip(const char *name, const struct tokenizer *tokenizer, const char *text, size_t n_text,
                              int flags)
{
    static int32_t ids[8 * IDS_CAP];
    static char back[8 * IDS_CAP];
    size_t n_ids = 0, n = 0;
    if (tokenizer_encode(tokenizer, text, n_text, flags, ids, 8 * IDS_CAP, &n_ids) != STATUS_OK) {
        fail_msg("%s: %s", name, status_message());
    }
    assert_true(n_ids <= 8 * IDS_CAP);
    for (size_t i = 0; i < n_ids; i++) {
        const struct tokenizer_text piece = tokenizer_piece(tokenizer, ids[i], true);
        const bool drop = i == 0 && tokenizer_adds_space(tokenizer) && piece.n_bytes > 0 && piece.bytes[0] == ' ';
        assert_true(n + piece.n_bytes <= sizeof back);
        memcpy(back + n, piece.bytes + drop, piece.n_bytes - drop);
        n += piece.n_bytes - drop;
    }
    if (n != n_text || memcmp(back, text, n) != 0) {
        fail_msg("%s: %zu bytes came back as %zu others", name, n_text, n);
    }
}

/* Characters that tokenizers stumble over: joiners, marks, directions, blanks, ends of ranges. */
static const uint32_t hostile_points[] = {
    0, 0x1, 0x7f, 0x80, 0x85, 0xa0, 0xad, 0x130, 0x131, 0x17f, 0x1c5, 0x300, 0x301, 0x316, 0x34f, 0x600, 0xe31,
    0x1160, 0x1100, 0x1161, 0x11a8, 0x180e, 0x1e9e, 0x200b, 0x200d, 0x2028, 0x202e, 0x2126, 0x212a, 0x2581, 0x3000,
    0x4e00, 0xac00, 0xd7ff, 0xe000, 0xfb01, 0xfdfa, 0xfe0f, 0xfeff, 0xfffd, 0xffff, 0x10000, 0x1d15e, 0x1f1e6,
    0x1f469, 0xe0001, 0x10ffff, 'a', ' ', '\n', '\r', '\'', '1', '<',
};

static size_t put_utf8(uint32_t point, char *out)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; point >>= 6) {
        out[i] = (char)(0x80 | (point & 0x3f));
    }
    out[0] = (char)((0xf00 >> n & 0xf0) | point);
    return n;
}

static size_t make_text(uint64_t seed, int is_utf8, char *out, size_t cap)
{
    enum { N_POINTS = sizeof hostile_points / sizeof hostile_points[0] };
    const size_t want = rng_mix64(seed) % (cap - 8);
    size_t n = 0;
    for (uint64_t i = 0; n < want; i++) {
        const uint64_t word = rng_mix64(seed * 104729 + i);
        if (is_utf8) {
            n += put_utf8(hostile_points[word % N_POINTS], out + n);
        } else {
            out[n++] = (char)(word >> 8 & (word & 1 ? 0xff : 0x7f));
        }
    }
    return n;
}

/* Byte-level vocabularies without a normalizer give back whatever bytes they got; characters with
 * byte fallback too, but for the mark that stands for a space. */
static void test_round_trips(void **state)
{
    (void)state;
    golden_or_skip();
    static const char *const files[] = {
        "vocab/ggml-vocab-gpt-2.gguf", "vocab/ggml-vocab-llama-bpe.gguf", "golden/tokenizers/gpt2",
        "golden/tokenizers/llama3", "golden/tokenizers/smollm",
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[1024], text[512];
        assert_true(golden_path(files[i], path, sizeof path));
        struct tokenizer *tokenizer = open_path(path);
        for (uint64_t seed = 1; seed <= (SANITIZED ? 60 : 600); seed++) {
            const size_t n = make_text(seed, seed % 2 == 0, text, sizeof text);
            expect_round_trip(files[i], tokenizer, text, n, seed % 3 ? 0 : TOKENIZE_LITERAL);
        }
        tokenizer_destroy(tokenizer);
    }
}

/* Those that normalise give the normal form back, and that form is its own. */
static void test_normal_forms_settle(void **state)
{
    (void)state;
    golden_or_skip();
    char path[1024], text[512], first[4096];
    assert_true(golden_path("golden/tokenizers/qwen2", path, sizeof path));
    struct tokenizer *tokenizer = open_path(path);
    for (uint64_t seed = 1; seed <= 400; seed++) {
        static int32_t ids[IDS_CAP];
        size_t n_ids = 0, n = 0;
        const size_t n_text = make_text(seed, seed % 2 == 0, text, sizeof text);
        assert_int_equal(tokenizer_encode(tokenizer, text, n_text, 0, ids, IDS_CAP, &n_ids), STATUS_OK);
        for (size_t i = 0; i < n_ids; i++) {
            const struct tokenizer_text piece = tokenizer_piece(tokenizer, ids[i], true);
            assert_true(n + piece.n_bytes <= sizeof first);
            memcpy(first + n, piece.bytes, piece.n_bytes);
            n += piece.n_bytes;
        }
        expect_round_trip("qwen2", tokenizer, first, n, 0);
    }
    tokenizer_destroy(tokenizer);
}

/* ---- time ---- */
static void test_a_megabyte(void **state)
{
    (void)state;
    golden_or_skip();
    static const char *const files[] = {
        "vocab/ggml-vocab-gpt-2.gguf", "vocab/ggml-vocab-llama-bpe.gguf", "vocab/ggml-vocab-qwen2.gguf",
        "golden/tokenizers/smollm", "golden/tokenizers/llama2", "golden/tokenizers/llama3",
    };
    static const char *const units[] = { "a", " ", "\n", "1", "\xcc\x81", "\xe4\xbd\xa0", "'s", "aA", " \n", "\xff", ". a" };
    const size_t n_text = SANITIZED ? 1 << 16 : 1 << 20;
    char *text = malloc(n_text);
    assert_non_null(text);
    double worst = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[1024];
        assert_true(golden_path(files[i], path, sizeof path));
        struct tokenizer *tokenizer = open_path(path);
        for (size_t j = 0; j < sizeof units / sizeof units[0]; j++) {
            const size_t len = strlen(units[j]);
            for (size_t at = 0; at < n_text; at++) {
                text[at] = units[j][at % len];
            }
            size_t n_ids = 0;
            const int64_t begin = clock_thread_cpu_ns();
            if (tokenizer_encode(tokenizer, text, n_text, 0, NULL, 0, &n_ids) != STATUS_OK) {
                fail_msg("%s: a megabyte of '%s': %s", files[i], units[j], status_message());
            }
            const double ms = (double)(clock_thread_cpu_ns() - begin) * 1e-6;
            worst = ms > worst ? ms : worst;
            assert_true(n_ids > 0);
            if (ms > 1000 && !SANITIZED) {
                fail_msg("%s: a megabyte of '%s' took %.0f ms", files[i], units[j], ms);
            }
        }
        tokenizer_destroy(tokenizer);
    }
    printf("a megabyte: %.0f ms at worst\n", worst);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_json_vectors),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_pattern_words),
        cmocka_unit_test(test_normalizers),
        cmocka_unit_test(test_long_runs_of_marks),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_around),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_equals_plain_encoder),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_normal_forms_settle),
        cmocka_unit_test(test_a_megabyte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
