/* folder_vocab: a tokenizer.json becomes a GGUF vocabulary that gives the ids the tokenizers library
 * gave; what GGUF has no name for is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/folder_vocab.c" /* of the program, not of the library that tests are linked with */
#include "scheduler/scheduler.h"
#include "tests/golden.h"

enum { CAP_IDS = 65536 };

static void must(enum status status)
{
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

static struct tokenizer *through_gguf(const char *folder, int n_vocab)
{
    char name[64], path[] = "/tmp/tandem-vocab-XXXXXX";
    struct model_source *inner, *source;
    struct folder_vocab vocab = { 0 };
    struct tokenizer *tokenizer;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(name, sizeof name, "synth:tiny,f32,vocab=%d", n_vocab);
    must(model_source_open(name, &inner));
    must(folder_vocab_init(&vocab, folder, model_source_config(inner)));
    assert_true(vocab.has_vocab);
    const struct model_requantize_options options = { .type = TENSOR_Q8_0, .vocab = &vocab.vocab };
    must(model_source_requantize(inner, &options, &source));
    must(model_source_write_gguf(source, path, NULL, NULL));
    model_source_close(source);
    folder_vocab_deinit(&vocab);
    must(text_open_path(path, &tokenizer));
    unlink(path);
    return tokenizer;
}

static void check_case(const struct tokenizer *tokenizer, const json_t *entry)
{
    static int32_t ids[CAP_IDS];
    const json_t *text = json_object_get(entry, "text"), *expected = json_object_get(entry, "ids");
    size_t n;
    must(tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), 0, ids, CAP_IDS, &n));
    assert_int_equal(n, json_array_size(expected));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ids[i], json_integer_value(json_array_get(expected, i)));
    }
}

static void test_golden(void **state)
{
    (void)state;
    static const char *const NAMES[] = { "gpt2", "llama2", "llama3", "qwen2", "smollm" };
    golden_or_skip();
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char folder[1024], relative[128];
        size_t n_bytes, c;
        const json_t *entry;
        snprintf(relative, sizeof relative, "golden/tokenizers/%s", NAMES[i]);
        assert_true(golden_path(relative, folder, sizeof folder));
        snprintf(relative, sizeof relative, "golden/tokenizers/%s/cases.json", NAMES[i]);
        unsigned char *bytes = golden_read(relative, &n_bytes);
        json_t *root = json_loadb((const char *)bytes, n_bytes, JSON_ALLOW_NUL, NULL);
        const json_t *cases = json_is_array(root) ? root : json_object_get(root, "cases");
        assert_true(json_array_size(cases) > 10);
        struct tokenizer *tokenizer = through_gguf(folder, 3100); /* some beyond: unused ones */
        json_array_foreach(cases, c, entry) {
            check_case(tokenizer, entry);
        }
        text_close(tokenizer);
        json_decref(root);
        golden_free(bytes);
    }
}

/* a, b, c, ab, bc, abc: "abc" is a + bc or ab + c, and the second is not always listed. */
static int64_t n_unlisted(const char *merges)
{
    char folder[] = "/tmp/tandem-vocab-XXXXXX", path[64];
    struct folder_vocab vocab = { 0 };
    struct model_source *source;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fprintf(file, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0,\"b\":1,\"c\":2,"
            "\"ab\":3,\"bc\":4,\"abc\":5},\"merges\":[%s]}}", merges);
    fclose(file);
    must(model_source_open("synth:tiny,f32", &source));
    must(folder_vocab_init(&vocab, folder, model_source_config(source)));
    const int64_t n = vocab.n_unlisted_joins;
    folder_vocab_deinit(&vocab);
    model_source_close(source);
    unlink(path);
    rmdir(folder);
    return n;
}

static void test_unlisted_joins(void **state)
{
    (void)state;
    assert_int_equal(n_unlisted("\"a b\",\"b c\",\"a bc\",\"ab c\""), 0);
    assert_int_equal(n_unlisted("\"a b\",\"b c\",\"a bc\""), 1);
    assert_int_equal(n_unlisted("\"a b\""), 3);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct { const char *json, *words; } CASES[] = {
        { "[1]", "expected an object" },
        { "{\"model\":", "line 1" },
        { "{\"a\":1,\"a\":2}", "duplicate" },
        { "{\"model\":{\"type\":\"Unigram\"}}", "model 'Unigram' has no GGUF form" },
        { "{\"model\":{\"type\":\"BPE\"},\"pre_tokenizer\":{\"type\":\"Whitespace\"}}", "have no name for" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":9000}},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
          "'a' has id 9000, the model has 512 tokens" },
        { "{\"model\":{\"type\":\"BPE\",\"merges\":[3]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
          "neither a string nor a pair" },
        { "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[\"ab\"]}}", "merge 0 is no pair" },
    };
    char folder[] = "/tmp/tandem-vocab-XXXXXX", path[64];
    struct model_source *source;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    must(model_source_open("synth:tiny,f32", &source));
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct folder_vocab vocab = { 0 };
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(CASES[i].json, file);
        fclose(file);
        assert_int_not_equal(folder_vocab_init(&vocab, folder, model_source_config(source)), STATUS_OK);
        if (!strstr(status_message(), CASES[i].words)) {
            print_error("%s\n", status_message());
        }
        assert_non_null(strstr(status_message(), CASES[i].words));
        folder_vocab_deinit(&vocab);
    }
    unlink(path);
    struct folder_vocab none = { 0 };
    must(folder_vocab_init(&none, folder, model_source_config(source)));
    assert_false(none.has_vocab);
    rmdir(folder);
    model_source_close(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden), cmocka_unit_test(test_unlisted_joins),
                                         cmocka_unit_test(test_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
