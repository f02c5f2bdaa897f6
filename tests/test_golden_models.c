/* golden_models: logits of small random model folders against float64 answers: every family, each
 * RoPE scaling, a sliding window, F32, F16 and BF16 weights, one file and several, both spellings of
 * config.json, 800 positions on both sides of the segments. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/golden.h"
#include "tests/model_rig.h"

enum { N_VOCAB = 771, MAX_LEN = 1024, CONTEXT = 1024 };

static const char *const MODELS[] = {
    "golden/models/llama-gqa", "golden/models/llama3-rope", "golden/models/llama-yarn",
    "golden/models/mistral-window", "golden/models/qwen2", "golden/models/qwen3",
    "golden/models/mixtral", "golden/models/qwen3-moe",
};

static int32_t read_ids(const json_t *array, int32_t *ids)
{
    const size_t n = json_array_size(array);
    assert_in_range(n, 1, MAX_LEN);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    }
    return (int32_t)n;
}

static void check_row(const char *what, int32_t position, const float *logits, const float *golden,
                      double tolerance)
{
    double difference = 0, largest = 0;
    for (int32_t i = 0; i < N_VOCAB; i++) {
        difference = fmax(difference, fabs((double)logits[i] - (double)golden[i]));
        largest = fmax(largest, fabs((double)golden[i]));
    }
    if (!(difference <= tolerance * largest)) {
        print_error("%s, position %d: difference %g of %g\n", what, position, difference, largest);
    }
    assert_true(difference <= tolerance * largest);
}

static json_t *read_json(const char *folder)
{
    char path[256];
    size_t n_bytes;
    snprintf(path, sizeof path, "%s/golden.json", folder);
    unsigned char *text = golden_read(path, &n_bytes);
    assert_non_null(text);
    json_t *root = json_loadb((const char *)text, n_bytes, 0, NULL);
    golden_free(text);
    assert_non_null(root);
    return root;
}

static float *read_floats(const char *folder, const char *name, size_t *n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    float *floats = golden_read_floats(path, n);
    assert_non_null(floats);
    return floats;
}

/* All positions of the short prompts, then some of a long one, fed in chunks of 64. */
static void check_logits(struct model_rig *rig, const char *folder, const json_t *root,
                         double tolerance)
{
    const json_t *prompts = json_object_get(root, "prompts"), *with_long = json_object_get(root, "long");
    const json_t *positions = json_object_get(with_long, "positions");
    float *logits = mem_alloc((size_t)MAX_LEN * N_VOCAB, sizeof *logits);
    size_t n_golden, row = 0;
    int32_t ids[MAX_LEN];
    float *golden = read_floats(folder, "logits.f32", &n_golden);
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        const int32_t n = read_ids(json_array_get(prompts, p), ids);
        model_rig_feed(rig, 0, ids, n, 64, logits);
        for (int32_t i = 0; i < n; i++, row++) {
            check_row(folder, i, logits + i * N_VOCAB, golden + row * N_VOCAB, tolerance);
        }
    }
    assert_int_equal(row * N_VOCAB, n_golden);
    golden_free(golden);
    golden = read_floats(folder, "long.f32", &n_golden);
    model_rig_feed(rig, 0, ids, read_ids(json_object_get(with_long, "ids"), ids), 64, logits);
    assert_int_equal(json_array_size(positions) * N_VOCAB, n_golden);
    for (size_t i = 0; i < json_array_size(positions); i++) {
        const int32_t position = (int32_t)json_integer_value(json_array_get(positions, i));
        check_row(folder, position, logits + (size_t)position * N_VOCAB, golden + i * N_VOCAB,
                  tolerance);
    }
    golden_free(golden);
    mem_free(logits);
}

/* Teacher-forced: our choices are theirs, where they were not closer than the tolerance. */
static void check_choices(struct model_rig *rig, const json_t *root, double tolerance)
{
    const json_t *prompts = json_object_get(root, "prompts"), *greedy = json_object_get(root, "greedy");
    const json_t *gaps = json_object_get(root, "smallest_top_gap");
    const double rms = json_number_value(json_object_get(root, "logits_rms"));
    float *logits = mem_alloc((size_t)MAX_LEN * N_VOCAB, sizeof *logits);
    int32_t ids[2 * MAX_LEN];
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        const int32_t n = read_ids(json_array_get(prompts, p), ids);
        const int32_t n_greedy = read_ids(json_array_get(greedy, p), ids + n);
        const double gap = json_number_value(json_array_get(gaps, p));
        if (gap <= 2 * tolerance * 6 * rms) { /* the largest of 771 is about 3 to 5 rms */
            continue;
        }
        model_rig_feed(rig, 0, ids, n + n_greedy - 1, 64, logits);
        for (int32_t i = 0; i < n_greedy; i++) {
            bool bad = false;
            const float *row = logits + (size_t)(n - 1 + i) * N_VOCAB;
            assert_int_equal(backend_argmax(rig->backend, row, N_VOCAB, &bad), ids[n + i]);
            assert_false(bad);
        }
    }
    mem_free(logits);
}

static void check_model(const char *folder, enum kv_type kv, double tolerance)
{
    struct model_rig rig;
    char path[512];
    json_t *root = read_json(folder);
    assert_true(golden_path(folder, path, sizeof path));
    const enum status status = model_rig_open(
        &rig, &(struct model_rig_options){ .name = path, .kv = kv, .page_slots = 16,
                                           .context = CONTEXT, .cap_rows = 64, .threads = 2 });
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    check_logits(&rig, folder, root, tolerance);
    check_choices(&rig, root, tolerance);
    model_rig_close(&rig);
    json_decref(root);
}

static void test_kv_f32(void **state)
{
    (void)state;
    golden_or_skip();
    for (size_t i = 0; i < sizeof MODELS / sizeof MODELS[0]; i++) {
        check_model(MODELS[i], KV_F32, 1e-5);
    }
}

static void test_kv_f16(void **state)
{
    (void)state;
    golden_or_skip();
    for (size_t i = 0; i < sizeof MODELS / sizeof MODELS[0]; i++) {
        check_model(MODELS[i], KV_F16, 5e-3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_f32),
        cmocka_unit_test(test_kv_f16),
    };
    return cmocka_run_group_tests_name("golden_models", tests, NULL, NULL);
}
