/* split: a model in several GGUF files is the model in one: same digest, same logits; each way the
 * parts can be wrong has its own sentence. Also: types that are read and not computed with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/source.h"
#include "tests/golden.h"
#include "tests/hostile_gguf.h"
#include "tests/model_rig.h"
#include "tests/small_folder.h"
#include "tests/split_gguf.h"

static const char *const STORIES = "models/stories15M.Q8_0.gguf";
enum { N = 12, MAX_PARTS = 8 };

static unsigned char *read_whole(const char *path, size_t *n)
{
    unsigned char *bytes = golden_read_file(path, n);
    assert_non_null(bytes);
    return bytes;
}

struct answer { uint64_t digest; float *logits; size_t n_floats; };

static struct answer answer_of(const char *path)
{
    struct model_rig rig;
    int32_t tokens[N];
    const enum status status = model_rig_open(
        &rig, &(struct model_rig_options){ .name = path, .context = 32, .cap_rows = N });
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    struct answer answer = { .digest = model_digest(rig.model) };
    answer.n_floats = (size_t)N * (size_t)model_get_config(rig.model)->n_vocab;
    answer.logits = mem_alloc(answer.n_floats, sizeof(float));
    for (int32_t i = 0; i < N; i++) {
        tokens[i] = 7 * i + 1;
    }
    model_rig_feed(&rig, 0, tokens, N, N, answer.logits);
    model_rig_close(&rig);
    return answer;
}

static void test_split_equals_whole(void **state)
{
    (void)state;
    static const int PARTS[] = { 2, 4, MAX_PARTS };
    size_t n;
    unsigned char *whole = read_whole(STORIES, &n);
    const struct answer one = answer_of(STORIES);
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        struct small_folder out;
        char path[512];
        const struct split_change none = { 0 };
        small_folder_begin(&out);
        split_gguf_write(&out, whole, n, PARTS[i], &none);
        split_gguf_path(&out, &none, PARTS[i], 0, path);
        const struct answer parts = answer_of(path);
        assert_true(one.digest == parts.digest);
        assert_memory_equal(one.logits, parts.logits, one.n_floats * sizeof(float));
        mem_free(parts.logits);
        small_folder_remove(&out);
    }
    mem_free(one.logits);
    golden_free(whole);
}

/* Written again it is one file, with every key but those of the split. */
static void test_split_becomes_whole(void **state)
{
    (void)state;
    size_t n;
    unsigned char *whole = read_whole(STORIES, &n);
    struct small_folder out;
    struct model_source *source;
    char path[512], again[512];
    const struct split_change none = { 0 };
    small_folder_begin(&out);
    split_gguf_write(&out, whole, n, 3, &none);
    split_gguf_path(&out, &none, 3, 0, path);
    snprintf(again, sizeof again, "%s/again.gguf", out.path);
    assert_int_equal(model_source_open(path, &source), STATUS_OK);
    assert_int_equal(model_source_vocab(source)->n_tokens, 32000);
    assert_int_equal(model_source_write_gguf(source, again, NULL, NULL), STATUS_OK);
    model_source_close(source);
    const struct answer one = answer_of(STORIES), two = answer_of(again);
    assert_true(one.digest == two.digest);
    assert_memory_equal(one.logits, two.logits, one.n_floats * sizeof(float));
    mem_free(one.logits);
    mem_free(two.logits);
    small_folder_remove(&out);
    golden_free(whole);
}

static void refused(const struct split_change *change, int open_no, enum status status, const char *words)
{
    size_t n;
    unsigned char *whole = read_whole(STORIES, &n);
    struct small_folder out;
    struct model_source *source;
    char path[512];
    small_folder_begin(&out);
    split_gguf_write(&out, whole, n, 3, change);
    split_gguf_path(&out, change, 3, open_no, path);
    const enum status found = model_source_open(path, &source);
    if (found != status || !strstr(status_message(), words)) {
        print_error("expected \"%s\", found %s: %s\n", words, status_name(found), status_message());
    }
    assert_int_equal(found, status);
    assert_non_null(strstr(status_message(), words));
    assert_null(source);
    small_folder_remove(&out);
    golden_free(whole);
}
#define CHANGE(...) (&(const struct split_change){ __VA_ARGS__ })

static void test_wrong_parts(void **state)
{
    (void)state;
    refused(CHANGE(.missing = 2), 0, STATUS_IO, "m-00003-of-00003.gguf");
    refused(CHANGE(.missing = 2), 1, STATUS_UNSUPPORTED, "is part 2 of 3; open the first part");
    refused(CHANGE(.repeats = 2), 0, STATUS_INVALID, "expected part 3 of 3, file says part 2 of 3");
    refused(CHANGE(.count = 4), 0, STATUS_INVALID, "expected part 2 of 3, file says part 2 of 4");
    refused(CHANGE(.n_tensors = 99), 0, STATUS_INVALID, "tensors, the key says 99");
    refused(CHANGE(.pattern = "m%d_%d.gguf"), 0, STATUS_INVALID,
            "expected a name that ends in -00001-of-00003.gguf");
    refused(CHANGE(.twice = 1, .n_tensors = 57), 0, STATUS_INVALID, "stands in two of the files");
}

/* ---- types that are read and not computed with ---- */

/* Converted when it is loaded, or converted into a file first: one model. */
static void test_read_only_types(void **state)
{
    (void)state;
    struct small_folder out;
    struct model_source *source, *native;
    char path[512], converted[512];
    struct bytes bytes = hostile_small(&(struct hostile_change){
        .tensor = "blk.0.attn_v.weight", .type = &(const uint32_t){ TENSOR_IQ4_NL } });
    small_folder_begin(&out);
    small_folder_put(&out, "small.gguf", bytes.data, bytes.n);
    snprintf(path, sizeof path, "%s/small.gguf", out.path);
    snprintf(converted, sizeof converted, "%s/converted.gguf", out.path);
    assert_int_equal(model_source_open(path, &source), STATUS_OK);
    assert_int_equal(model_source_check(source), STATUS_OK);
    assert_int_equal(requantize_to_native(source, &native), STATUS_OK);
    assert_non_null(native);
    assert_int_equal(model_source_write_gguf(native, converted, NULL, NULL), STATUS_OK);
    model_source_close(native);
    model_source_close(source);
    struct model_rig a, b, c = { 0 };
    const struct model_rig_options options = { .name = path, .context = 8, .cap_rows = 2 };
    struct model_rig_options other = options;
    other.name = converted;
    assert_int_equal(model_rig_open(&a, &options), STATUS_OK);
    assert_int_equal(model_rig_open(&b, &other), STATUS_OK);
    assert_true(model_digest(a.model) == model_digest(b.model));
    other.name = NULL;
    assert_int_equal(model_source_open_as(path, NULL, &other.source), STATUS_OK);
    assert_int_equal(model_rig_open(&c, &other), STATUS_OK);
    assert_true(model_digest(a.model) == model_digest(c.model));
    model_rig_close(&c);
    model_rig_close(&b);
    model_rig_close(&a);
    bytes_free(&bytes);
    small_folder_remove(&out);
}

/* ---- other files than regular ones ---- */

static void test_not_regular(void **state)
{
    (void)state;
    struct small_folder out;
    struct model_source *source;
    char path[512];
    small_folder_begin(&out);
    snprintf(path, sizeof path, "%s/pipe.gguf", out.path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(model_source_open(path, &source), STATUS_UNSUPPORTED); /* and does not wait */
    assert_non_null(strstr(status_message(), "not a regular file"));
    assert_int_equal(model_source_open("synth:tiny", &source), STATUS_OK);
    assert_int_not_equal(model_source_write_gguf(source, path, NULL, NULL), STATUS_OK);
    assert_non_null(strstr(status_message(), "no regular file"));
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISFIFO(info.st_mode)); /* still there */
    model_source_close(source);
    small_folder_remove(&out);
}

int main(void)
{
    log_set_level(LOG_WARN); /* conversions are announced */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_equals_whole),
        cmocka_unit_test(test_split_becomes_whole),
        cmocka_unit_test(test_wrong_parts),
        cmocka_unit_test(test_read_only_types),
        cmocka_unit_test(test_not_regular),
    };
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
