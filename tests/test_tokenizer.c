/* Text to ids: expected ids of other programs, a plain quadratic encoder to compare with, special
 * tokens, hostile vocabularies, time. Back to text is test_detokenizer.c. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden.h"
#include "scheduler/text.h"
#include "small_vocab.h"

#define MARK "\xe2\x96\x81" /* ▁ */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
enum { IDS_CAP = 4096 };

static const char default_model[] = "models/stories15M.Q8_0.gguf";

static struct tokenizer *open_vocab(const char *path)
{
    struct tokenizer *tokenizer = NULL;
    if (text_open_path(path, &tokenizer) != STATUS_OK) {
        fail_msg("%s: %s", path, status_message());
    }
    return tokenizer;
}

/* Compares with ids written as "1 2 3". */
static void expect_ids_n(const struct tokenizer *tokenizer, const char *text, size_t n_bytes, int flags,
                         const char *expected)
{
    int32_t ids[IDS_CAP];
    size_t n_ids = 0;
    assert_int_equal(tokenizer_encode(tokenizer, text, n_bytes, flags, ids, IDS_CAP, &n_ids), STATUS_OK);
    assert_true(n_ids <= IDS_CAP);
    char *rest = (char *)(uintptr_t)expected;
    size_t n = 0;
    for (;; n++) {
        char *end = rest;
        const long id = strtol(rest, &end, 10);
        if (end == rest) {
            break;
        }
        rest = end;
        if (n >= n_ids || ids[n] != id) {
            fail_msg("'%.60s': id %zu of %zu is %d, expected %ld of %s", text, n, n_ids,
                     n < n_ids ? ids[n] : -1, id, expected);
        }
    }
    if (n != n_ids) {
        fail_msg("'%.60s': %zu ids, expected %zu: %s", text, n_ids, n, expected);
    }
}

static void expect_ids(const struct tokenizer *tokenizer, const char *text, int flags, const char *expected)
{
    expect_ids_n(tokenizer, text, strlen(text), flags, expected);
}

/* ---- other programs' answers ---- */
static void check_vectors(const char *name)
{
    char path[1024], input[1024], output[1024];
    snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf", name);
    snprintf(input, sizeof input, "vocab/ggml-vocab-%s.gguf.inp", name);
    snprintf(output, sizeof output, "vocab/ggml-vocab-%s.gguf.out", name);
    size_t n_inp = 0, n_out = 0;
    unsigned char *inp = golden_read(input, &n_inp), *out = golden_read(output, &n_out);
    assert_true(golden_path(path, input, sizeof input));
    struct tokenizer *tokenizer = open_vocab(input);
    assert_non_null(inp);
    assert_non_null(out);
    static const char separator[] = "\n__ggml_vocab_test__\n";
    const char *text = (const char *)inp, *line = (const char *)out;
    int n_cases = 0;
    while (text) {
        const char *end = strstr(text, separator);
        const char *eol = line + strcspn(line, "\n");
        char expected[2048];
        assert_true((size_t)(eol - line) < sizeof expected);
        memcpy(expected, line, (size_t)(eol - line));
        expected[eol - line] = '\0';
        const size_t n_bytes = end ? (size_t)(end - text) : strlen(text);
        expect_ids_n(tokenizer, text, n_bytes, 0, expected);
        text = end ? end + sizeof separator - 1 : NULL;
        line = *eol ? eol + 1 : eol;
        n_cases++;
    }
    assert_true(n_cases >= 40);
    assert_int_equal(*line, '\0');
    golden_free(out);
    golden_free(inp);
    tokenizer_destroy(tokenizer);
}

static void test_llama_spm_vectors(void **state)
{
    (void)state;
    golden_or_skip();
    check_vectors("llama-spm");
}

static void test_byte_level_vectors(void **state)
{
    (void)state;
    golden_or_skip();
    check_vectors("gpt-2");
    check_vectors("llama-bpe");
    check_vectors("qwen2");
}

static void test_stories_prompts(void **state)
{
    (void)state;
    golden_or_skip();
    char path[1024];
    assert_true(golden_path("golden/stories15M/golden.json", path, sizeof path));
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    assert_true(golden_path("models/stories15M.Q8_0.gguf", path, sizeof path));
    struct tokenizer *tokenizer = open_vocab(path);
    size_t index;
    json_t *item;
    json_array_foreach(json_object_get(root, "cases"), index, item) {
        const char *text = json_string_value(json_object_get(item, "text"));
        json_t *expected = json_object_get(item, "ids");
        int32_t ids[IDS_CAP];
        size_t n_ids = 0;
        assert_non_null(text);
        assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), TOKENIZE_SPECIAL, ids, IDS_CAP, &n_ids),
                         STATUS_OK);
        assert_int_equal(n_ids, json_array_size(expected));
        for (size_t i = 0; i < n_ids; i++) {
            assert_int_equal(ids[i], json_integer_value(json_array_get(expected, i)));
        }
    }
    assert_true(index > 0);
    json_decref(root);
    tokenizer_destroy(tokenizer);
}

/* A few of the same, with the vocabulary that is always there. */
static void test_default_model(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_vocab(default_model);
    static const struct { const char *text; int flags; const char *ids; } cases[] = {
        { "Once upon a time", TOKENIZE_SPECIAL, "1 9038 2501 263 931" },
        { "", TOKENIZE_SPECIAL, "1" },
        { "", 0, "" },
        { " ", 0, "259" },
        { "   ", 0, "268" },
        { "Hello world", 0, "15043 3186" },
        { " Hello world", 0, "29871 15043 3186" },
        { "Hello, world!", 0, "15043 29892 3186 29991" },
        { " this is \xf0\x9f\xa6\x99.cpp", 0, "29871 445 338 29871 243 162 169 156 29889 8223" },
        { "w048 7tuijk dsdfhu", 0, "281 29900 29946 29947 29871 29955 9161 13535 18031 2176 6905" },
        { "\n\n", 0, "29871 13 13" },
        { "a</s>b", 0, "263 2 289" },
        { "</s>", TOKENIZE_LITERAL, "1533 29879 29958" },
        { "<s>Hello", TOKENIZE_SPECIAL, "1 15043" },
        { "<s>Hello", TOKENIZE_SPECIAL | TOKENIZE_SECOND_BOS, "1 1 15043" },
        { "<0x0A>", 0, "529 29900 29916 29900 29909 29958" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_ids(tokenizer, cases[i].text, cases[i].flags, cases[i].ids);
    }
    expect_ids_n(tokenizer, "\0\xff", 2, 0, "29871 3 258");
    assert_int_equal(tokenizer_n_tokens(tokenizer), 32000);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    tokenizer_destroy(tokenizer);
}

static void test_no_vocabulary(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = NULL;
    assert_int_equal(text_open_path("/nowhere/at/all.gguf", &tokenizer), STATUS_IO);
    assert_null(tokenizer);
    text_close(NULL);
}

/* ---- the definition, without a queue ---- */
/* Joins the best pair again and again by looking at all of them. Texts are plain ASCII here. */
static size_t encode_plainly(const struct small_vocab *vocab, const char *text, size_t n_bytes, int32_t *ids)
{
    static char bytes[1024][64];
    size_t n = 0;
    for (size_t i = 0; i < n_bytes + 1; i++) {
        const char c = i == 0 ? ' ' : text[i - 1];
        snprintf(bytes[n++], sizeof bytes[0], "%s%c", c == ' ' ? MARK : "", c == ' ' ? '\0' : c);
    }
    for (;;) {
        size_t best = SIZE_MAX;
        float best_score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char joined[128];
            snprintf(joined, sizeof joined, "%.63s%.63s", bytes[i], bytes[i + 1]);
            for (int32_t id = SMALL_VOCAB_FIRST; id < vocab->spec.n_tokens; id++) {
                if (vocab->tokens[id].n_bytes == strlen(joined) &&
                    memcmp(vocab->tokens[id].bytes, joined, strlen(joined)) == 0 &&
                    (best == SIZE_MAX || vocab->scores[id] > best_score)) {
                    best = i;
                    best_score = vocab->scores[id];
                }
            }
        }
        if (best == SIZE_MAX) {
            break;
        }
        const size_t len = strlen(bytes[best]);
        memcpy(bytes[best] + len, bytes[best + 1], strlen(bytes[best + 1]) + 1); /* a token: 15 bytes */
        memmove(bytes[best + 1], bytes[best + 2], (n - best - 2) * sizeof bytes[0]);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        ids[i] = -1;
        for (int32_t id = SMALL_VOCAB_FIRST; id < vocab->spec.n_tokens && ids[i] < 0; id++) {
            if (vocab->tokens[id].n_bytes == strlen(bytes[i]) &&
                memcmp(vocab->tokens[id].bytes, bytes[i], strlen(bytes[i])) == 0) {
                ids[i] = id;
            }
        }
        assert_true(ids[i] >= 0);
    }
    return n;
}

/* Random tokens over a, b, c and ▁, with scores that often are equal. inner_space: some hold a space
 * after a letter, so that words may not be cut apart. */
static void add_random_tokens(struct small_vocab *vocab, uint64_t seed, int inner_space,
                              char texts[][32], int n_texts)
{
    static const char *const letters[] = { "a", "b", "c", MARK };
    for (int i = 0; i < 4; i++) {
        small_vocab_add(vocab, letters[i], -1000, TOKEN_NORMAL);
    }
    for (int i = 0; i < n_texts; i++) {
        const uint64_t word = rng_mix64(seed * 1000 + (uint64_t)i);
        const int n = 2 + (int)(word % 4);
        texts[i][0] = '\0';
        for (int j = 0; j < n; j++) {
            const uint64_t letter = (word >> (8 + 2 * j)) & 3;
            if (letter < 3 || j == 0 || inner_space) {
                strcat(texts[i], letters[letter]);
            }
        }
        /* a text twice keeps its first place, so give it one score */
        float score = -(float)((word >> 32) % 5);
        for (int j = 0; j < i; j++) {
            score = strcmp(texts[i], texts[j]) == 0 ? vocab->scores[vocab->spec.n_tokens - i + j] : score;
        }
        small_vocab_add(vocab, texts[i], score, TOKEN_NORMAL);
    }
}

static void test_equals_plain_encoder(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    static char texts[40][32];
    for (uint64_t seed = 1; seed <= 150; seed++) {
        small_vocab_init(&vocab);
        add_random_tokens(&vocab, seed, seed % 2 == 0, texts, 40);
        struct tokenizer *tokenizer = small_vocab_create(&vocab);
        for (uint64_t round = 0; round < 8; round++) {
            char text[64];
            const size_t n_bytes = 1 + (size_t)(rng_mix64(seed * 77 + round) % 60);
            for (size_t i = 0; i < n_bytes; i++) {
                text[i] = "abc "[rng_mix64(seed * 7919 + round * 100 + i) % 4];
            }
            int32_t expected[128], ids[128];
            size_t n_ids = 0;
            const size_t n = encode_plainly(&vocab, text, n_bytes, expected);
            assert_int_equal(tokenizer_encode(tokenizer, text, n_bytes, 0, ids, 128, &n_ids), STATUS_OK);
            if (n_ids != n || memcmp(ids, expected, n * sizeof *ids) != 0) {
                fail_msg("seed %d: '%.*s' is encoded differently", (int)seed, (int)n_bytes, text);
            }
        }
        tokenizer_destroy(tokenizer);
    }
}

/* ---- special tokens ---- */
static void test_specials(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    small_vocab_add(&vocab, MARK, -1, TOKEN_NORMAL);             /* 259 */
    small_vocab_add(&vocab, "a", -1, TOKEN_NORMAL);              /* 260 */
    small_vocab_add(&vocab, "<|im|>", 0, TOKEN_CONTROL);         /* 261 */
    small_vocab_add(&vocab, "<|im|>x", 0, TOKEN_USER_DEFINED);   /* 262 */
    small_vocab_add(&vocab, "=" MARK MARK, 0, TOKEN_USER_DEFINED); /* 263 */
    small_vocab_add(&vocab, "<|im|>", 0, TOKEN_CONTROL);         /* 264: the same again */
    small_vocab_add(&vocab, "", 0, TOKEN_CONTROL);               /* 265: never found */
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    expect_ids(tokenizer, "a<|im|>a", 0, "259 260 261 259 260");
    expect_ids(tokenizer, "<|im|>x", 0, "262");
    expect_ids(tokenizer, "<|im|><|im|>xa", 0, "261 262 259 260");
    expect_ids(tokenizer, "<|im|", 0, "259 63 127 108 112 127");
    expect_ids(tokenizer, "a=  a", 0, "259 260 263 259 260");
    expect_ids(tokenizer, "a= a", 0, "259 260 64 259 260");
    expect_ids(tokenizer, "<unk>", 0, "0");
    expect_ids(tokenizer, "<s>a</s>", TOKENIZE_SPECIAL, "1 259 260 2");
    expect_ids(tokenizer, "<s>a", TOKENIZE_SPECIAL | TOKENIZE_SECOND_BOS, "1 1 259 260");
    expect_ids(tokenizer, "a<s>", TOKENIZE_SPECIAL, "1 259 260 1");
    expect_ids(tokenizer, "<s>", TOKENIZE_SPECIAL | TOKENIZE_LITERAL, "1 259 63 118 65");
    expect_ids(tokenizer, "<|im|>", TOKENIZE_LITERAL, "259 63 127 108 112 127 65");
    tokenizer_destroy(tokenizer);

    vocab.spec.add_bos = false;
    vocab.spec.add_eos = true;
    vocab.spec.add_space_prefix = false;
    tokenizer = small_vocab_create(&vocab);
    expect_ids(tokenizer, "a", TOKENIZE_SPECIAL, "260 2");
    expect_ids(tokenizer, "<s>a", TOKENIZE_SPECIAL, "1 260 2");
    expect_ids(tokenizer, "a", 0, "260");
    tokenizer_destroy(tokenizer);
}

/* Whatever can be joined, special tokens are not made of plain text. */
static void test_joins_make_no_special(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    static const char *const parts[] = { MARK, "<", "/", "s", ">", "</", "s>", "<s", "0x", "x", "0", "<0x" };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        small_vocab_add(&vocab, parts[i], -1, TOKEN_NORMAL);
    }
    const int32_t unused = small_vocab_add(&vocab, "ss", 5, TOKEN_UNUSED);
    const int32_t user = small_vocab_add(&vocab, "s/", 5, TOKEN_USER_DEFINED);
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    static const char text[] = "</s><s><0x00>ssss s/";
    int32_t ids[64];
    size_t n_ids = 0;
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), TOKENIZE_LITERAL, ids, 64, &n_ids), STATUS_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_true(ids[i] > SMALL_VOCAB_EOS);
        assert_true(ids[i] != unused && ids[i] != user && ids[i] != SMALL_VOCAB_BYTE);
    }
    tokenizer_destroy(tokenizer);
}

static void test_unknown_runs(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    vocab.spec.n_tokens = SMALL_VOCAB_BYTE + 128; /* bytes of ASCII alone */
    small_vocab_add(&vocab, MARK, -1, TOKEN_NORMAL);
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    /* one for a run, be it characters or broken bytes; ASCII has its bytes */
    expect_ids(tokenizer, "\xc3\xa4\xc3\xb6", 0, "131 0");
    expect_ids(tokenizer, "\xc3\xa4-\xff\xfe", 0, "131 0 48 0");
    tokenizer_destroy(tokenizer);
}

/* ---- what comes from outside ---- */
static void expect_refused(const struct small_vocab *vocab, enum status expected, const char *sentence)
{
    struct tokenizer *tokenizer = NULL;
    assert_int_equal(tokenizer_create(&vocab->spec, &tokenizer), expected);
    assert_null(tokenizer);
    if (!strstr(status_message(), sentence)) {
        fail_msg("expected '%s' in: %s", sentence, status_message());
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static struct small_vocab good, bad;
    static char long_text[TOKENIZER_MAX_TOKEN_BYTES + 2];
    memset(long_text, 'a', sizeof long_text - 1);
    small_vocab_init(&good);
    small_vocab_add(&good, "a", -1, TOKEN_NORMAL);
#define REFUSED(change, status, sentence)                                                      \
    do {                                                                                       \
        bad = good;                                                                            \
        bad.spec.tokens = bad.tokens, bad.spec.scores = bad.scores, bad.spec.classes = bad.classes; \
        change;                                                                                \
        expect_refused(&bad, status, sentence);                                                \
    } while (0)
    REFUSED(bad.spec.kind = "bert", STATUS_UNSUPPORTED,
            "tokenizer kind 'bert' is not supported; supported: llama, gpt2");
    REFUSED(bad.spec.kind = "gpt2", STATUS_INVALID, "expected merges beside a vocabulary of 260 tokens");
    REFUSED(bad.spec.kind = NULL, STATUS_UNSUPPORTED, "is not supported");
    REFUSED(bad.spec.n_tokens = 0, STATUS_INVALID, "1 to 4194304 tokens, found 0");
    REFUSED(bad.spec.n_tokens = INT32_MAX, STATUS_INVALID, "found 2147483647");
    REFUSED(bad.spec.bos_id = 260, STATUS_INVALID, "expected the bos token in a vocabulary of 260, found id 260");
    REFUSED(bad.spec.eos_id = -2, STATUS_INVALID, "expected the eos token");
    REFUSED(bad.spec.unk_id = INT32_MAX, STATUS_INVALID, "expected the unknown token");
    REFUSED(bad.spec.pad_id = 9999, STATUS_INVALID, "expected the pad token");
    REFUSED(bad.spec.eot_id = INT32_MIN, STATUS_INVALID, "expected the eot token");
    REFUSED(bad.spec.scores = NULL, STATUS_INVALID, "expected a score for each of 260 tokens");
    REFUSED(bad.scores[7] = NAN, STATUS_INVALID, "token 7 has none (NaN)");
    REFUSED(bad.classes[8] = 7, STATUS_INVALID, "token 8 has 7");
    REFUSED(bad.classes[8] = -1, STATUS_INVALID, "token 8 has -1");
    REFUSED(small_vocab_add(&bad, long_text, 0, TOKEN_NORMAL), STATUS_INVALID, "at most 1024 bytes, token 260 has 1025");
    static const char *const not_bytes[] = { "", "<0x0>", "<0x0G>", "<0x00", "<0x000>", "0x00", "<0X00>", "< x00>", "a" };
    for (size_t i = 0; i < sizeof not_bytes / sizeof not_bytes[0]; i++) {
        REFUSED(small_vocab_add(&bad, not_bytes[i], 0, TOKEN_BYTE), STATUS_INVALID, "token 260 is a byte token");
    }
    REFUSED((bad.spec.unk_id = -1, bad.classes[100] = TOKEN_NORMAL), STATUS_INVALID, "found 255 byte tokens");
#undef REFUSED
    struct tokenizer *tokenizer = small_vocab_create(&good);
    size_t n_ids = 1;
    assert_int_equal(tokenizer_encode(tokenizer, "", (size_t)TOKENIZER_MAX_TEXT_BYTES + 1, 0, NULL, 0, &n_ids),
                     STATUS_INVALID);
    assert_int_equal(n_ids, 0);
    tokenizer_destroy(tokenizer);
}

static void test_odd_vocabularies(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    small_vocab_add(&vocab, "", 100, TOKEN_NORMAL);
    small_vocab_add(&vocab, MARK, -3, TOKEN_NORMAL); /* 260 */
    small_vocab_add(&vocab, "a", -1, TOKEN_NORMAL);  /* 261 */
    small_vocab_add(&vocab, "a", 50, TOKEN_NORMAL);  /* 262: never used */
    small_vocab_add(&vocab, "\xff\xfe", 9, TOKEN_NORMAL);
    small_vocab_add(&vocab, "aa", INFINITY, TOKEN_NORMAL); /* 264 */
    small_vocab_add(&vocab, MARK "a", -INFINITY, 0);       /* 265: undefined is normal */
    struct tokenizer *tokenizer = small_vocab_create(&vocab);
    expect_ids(tokenizer, "a", 0, "265");
    expect_ids(tokenizer, "aaa", 0, "260 264 261");
    expect_ids(tokenizer, "\xff\xfe", 0, "260 263"); /* as bytes that are a token */
    tokenizer_destroy(tokenizer);

    /* no classes: bytes by their texts, control and unknown by the ids */
    vocab.spec.classes = NULL;
    tokenizer = small_vocab_create(&vocab);
    expect_ids_n(tokenizer, "</s>\x01<unk>", 10, TOKENIZE_SPECIAL, "1 2 260 4 0");
    assert_true(tokenizer_is_control(tokenizer, SMALL_VOCAB_EOS));
    tokenizer_destroy(tokenizer);

    /* one token, all there is */
    vocab.spec.n_tokens = 1;
    vocab.spec.bos_id = vocab.spec.eos_id = vocab.spec.unk_id = 0;
    tokenizer = small_vocab_create(&vocab);
    expect_ids(tokenizer, "abc", 0, "0");
    tokenizer_destroy(tokenizer);
}

static void test_room_is_counted(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_vocab(default_model);
    static const char text[] = "Once upon a time";
    int32_t ids[4] = { -7, -7, -7, -7 };
    size_t n_ids = 0;
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), TOKENIZE_SPECIAL, ids, 3, &n_ids), STATUS_OK);
    assert_int_equal(n_ids, 5);
    assert_int_equal(ids[2], 2501);
    assert_int_equal(ids[3], -7);
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), 0, NULL, 0, &n_ids), STATUS_OK);
    assert_int_equal(n_ids, 4);
    tokenizer_destroy(tokenizer);
}

/* ---- digest ---- */
static uint64_t digest_of(struct small_vocab *vocab)
{
    struct tokenizer *tokenizer = small_vocab_create(vocab);
    const uint64_t digest = tokenizer_digest(tokenizer);
    assert_true(text_digest(tokenizer) == digest);
    tokenizer_destroy(tokenizer);
    return digest;
}

static void test_digest(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    small_vocab_add(&vocab, "ab", -1, TOKEN_NORMAL);
    small_vocab_add(&vocab, "c", -2, TOKEN_NORMAL);
    const uint64_t first = digest_of(&vocab);
    assert_true(first == digest_of(&vocab));
    vocab.scores[260] = -3;
    assert_true(first != digest_of(&vocab));
    vocab.scores[260] = -2;
    vocab.classes[260] = TOKEN_UNUSED;
    assert_true(first != digest_of(&vocab));
    vocab.classes[260] = TOKEN_NORMAL;
    vocab.tokens[259].n_bytes = 1, vocab.tokens[260] = (struct tokenizer_text){ "bc", 2 };
    assert_true(first != digest_of(&vocab));
    vocab.tokens[259].n_bytes = 2, vocab.tokens[260] = (struct tokenizer_text){ "c", 1 };
    vocab.spec.add_space_prefix = false;
    assert_true(first != digest_of(&vocab));
    vocab.spec.add_space_prefix = true;
    assert_true(first == digest_of(&vocab));
}

/* ---- time and memory ---- */
/* Of this thread's CPU: other programs may be running. */
static double encode_seconds(const struct tokenizer *tokenizer, const char *text, size_t n_bytes)
{
    size_t n_ids = 0;
    const int64_t begin_ns = clock_thread_cpu_ns();
    assert_int_equal(tokenizer_encode(tokenizer, text, n_bytes, 0, NULL, 0, &n_ids), STATUS_OK);
    assert_true(n_ids > 0);
    return (double)(clock_thread_cpu_ns() - begin_ns) * 1e-9;
}

static void test_a_megabyte(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_vocab(default_model);
    const size_t n = 1 << 20;
    char *text = mem_alloc(n, 1);
    assert_non_null(text);
    const double limit = getenv("TANDEM_TEST_QUICK") || SANITIZED ? 20.0 : 1.0;
    static const char *const kinds[] = { "a", " ", "ab", "<s", "\xff", "\xe2\x96", "Hello world ", " a", "<s>" };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const size_t len = strlen(kinds[k]);
        for (size_t i = 0; i < n; i++) {
            text[i] = kinds[k][i % len];
        }
        const double seconds = encode_seconds(tokenizer, text, n);
        if (seconds > limit) {
            fail_msg("a megabyte of '%s' took %.2f s", kinds[k], seconds);
        }
        print_message("a megabyte of '%s': %.0f ms\n", k == 4 || k == 5 ? "bytes" : kinds[k], seconds * 1e3);
    }
    mem_free(text);
    tokenizer_destroy(tokenizer);
}

/* Every allocation made to fail once: a sentence, nothing lost (leaks show under sanitizers). */
static void test_out_of_memory(void **state)
{
    (void)state;
    static struct small_vocab vocab;
    small_vocab_init(&vocab);
    small_vocab_add(&vocab, "a", -1, TOKEN_NORMAL);
    struct tokenizer *tokenizer = NULL;
    uint64_t n_failed = 0;
    for (;; n_failed++) {
        mem_fail_at(n_failed + 1);
        const enum status status = tokenizer_create(&vocab.spec, &tokenizer);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(tokenizer);
        assert_true(strstr(status_message(), "no memory") != NULL);
    }
    assert_true(n_failed >= 8);
    int32_t ids[8];
    size_t n_ids = 0;
    for (n_failed = 0;; n_failed++) {
        mem_fail_at(n_failed + 1);
        const enum status status = tokenizer_encode(tokenizer, "aa</s>a", 7, 0, ids, 8, &n_ids);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(n_ids, 0);
    }
    assert_true(n_failed >= 3);
    tokenizer_destroy(tokenizer);
    for (n_failed = 0;; n_failed++) {
        mem_fail_at(n_failed + 1);
        const enum status status = text_open_path(default_model, &tokenizer);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(tokenizer);
    }
    text_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_spm_vectors),
        cmocka_unit_test(test_byte_level_vectors),
        cmocka_unit_test(test_stories_prompts),
        cmocka_unit_test(test_default_model),
        cmocka_unit_test(test_no_vocabulary),
        cmocka_unit_test(test_equals_plain_encoder),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_joins_make_no_special),
        cmocka_unit_test(test_unknown_runs),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_odd_vocabularies),
        cmocka_unit_test(test_room_is_counted),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_a_megabyte),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
