/* families: the bits of every family's logits are the same for any instruction set, number of threads,
 * chunk and company of other rows; a folder, the GGUF file made of it and its shards merged are one
 * model; expert weights are read only for the experts touched, counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/model.h"
#include "tests/golden.h"
#include "tests/model_rig.h"
#include "tests/small_folder.h"

enum { N_VOCAB = 771, N = 70, CONTEXT = 320 };

static const char *const MODELS[] = {
    "golden/models/llama-gqa", "golden/models/llama3-rope", "golden/models/llama-yarn",
    "golden/models/mistral-window", "golden/models/qwen2", "golden/models/qwen3",
    "golden/models/mixtral", "golden/models/qwen3-moe",
};
enum { N_MODELS = sizeof MODELS / sizeof MODELS[0] };

static void fill_tokens(int32_t *tokens, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)(rng_mix64(seed * 1000 + (uint64_t)i) % N_VOCAB);
    }
}

static void open_rig(struct model_rig *rig, const struct model_rig_options *options)
{
    const enum status status = model_rig_open(rig, options);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

struct answer { uint64_t model, kv; float *logits; /* [N, N_VOCAB] */ };

static struct answer answer_of(const struct model_rig_options *options, int32_t chunk)
{
    struct model_rig rig;
    struct answer answer = { .logits = mem_alloc((size_t)N * N_VOCAB, sizeof(float)) };
    int32_t tokens[N];
    open_rig(&rig, options);
    fill_tokens(tokens, N, 1);
    model_rig_feed(&rig, 0, tokens, N, chunk, answer.logits);
    answer.kv = model_rig_kv_digest(&rig, 0, N);
    answer.model = model_digest(rig.model);
    model_rig_close(&rig);
    return answer;
}

static void assert_same(const char *what, const struct answer *a, const struct answer *b)
{
    if (a->model != b->model ||
        memcmp(a->logits, b->logits, (size_t)N * N_VOCAB * sizeof(float)) != 0) {
        print_error("%s: models %llx and %llx\n", what, (unsigned long long)a->model,
                    (unsigned long long)b->model);
    }
    assert_true(a->model == b->model);
    assert_memory_equal(a->logits, b->logits, (size_t)N * N_VOCAB * sizeof(float));
    assert_true(a->kv == b->kv);
}

static void path_of(const char *folder, char path[512])
{
    assert_true(golden_path(folder, path, 512));
}

/* ---- one prompt, the same bits ---- */

static void check_ways(const char *path, struct model_source *(*open)(const char *path))
{
    static const struct { const char *isa; int threads, chunk; } WAYS[] = {
        { "scalar", 1, N }, { "avx2", 1, N },   { "avx512", 1, N },  { "avx512", 2, N },
        { "avx512", 1, 1 }, { "avx2", 2, 7 }, { "scalar", 2, 64 },
    };
    struct answer first = { 0 };
    for (size_t w = 0; w < sizeof WAYS / sizeof WAYS[0]; w++) {
        struct backend *probe;
        if (backend_create("cpu", WAYS[w].isa, &probe) != STATUS_OK) {
            print_message("skipped: this machine lacks %s\n", WAYS[w].isa);
            continue;
        }
        backend_destroy(probe);
        struct answer answer =
            answer_of(&(struct model_rig_options){ .name = path,
                                                   .source = open ? open(path) : NULL,
                                                   .isa = WAYS[w].isa,
                                                   .kv = KV_F16,
                                                   .threads = WAYS[w].threads,
                                                   .page_slots = 16,
                                                   .context = CONTEXT,
                                                   .cap_rows = N },
                      WAYS[w].chunk);
        if (!first.logits) {
            first = answer;
            continue;
        }
        assert_same(path, &first, &answer);
        mem_free(answer.logits);
    }
    mem_free(first.logits);
}

static void test_ways(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_MODELS; i++) {
        char path[512];
        path_of(MODELS[i], path);
        check_ways(path, NULL);
    }
}

static struct model_source *open_q8(const char *path)
{
    struct model_source *source, *converted;
    assert_int_equal(model_source_open(path, &source), STATUS_OK);
    assert_int_equal(
        model_source_requantize(source, &(struct model_requantize_options){ .type = TENSOR_Q8_0 },
                                &converted),
        STATUS_OK);
    return converted;
}

/* The same through quantised panels, which experts have of their own. */
static void test_ways_quantised(void **state)
{
    (void)state;
    static const char *const SOME[] = { "golden/models/qwen2", "golden/models/mixtral",
                                        "golden/models/qwen3-moe" };
    golden_or_skip();
    for (size_t i = 0; i < sizeof SOME / sizeof SOME[0]; i++) {
        char path[512];
        path_of(SOME[i], path);
        check_ways(path, open_q8);
    }
}

/* Rows of five sequences in changing order equal each sequence alone. */
static void check_company(const char *path)
{
    enum { SEQS = 5, EACH = 24 };
    static const int32_t CHUNKS[SEQS] = { 1, 3, 8, 11, 5 };
    int32_t tokens[SEQS][EACH], fed[SEQS] = { 0 };
    float *alone = mem_alloc((size_t)SEQS * EACH * N_VOCAB, sizeof *alone);
    struct model_rig rig;
    open_rig(&rig, &(struct model_rig_options){ .name = path,
                                                .context = 32,
                                                .cap_rows = 32,
                                                .n_seqs = SEQS,
                                                .page_slots = 16,
                                                .threads = 2 });
    for (int32_t s = 0; s < SEQS; s++) {
        fill_tokens(tokens[s], EACH, (uint64_t)s + 10);
        model_rig_feed(&rig, s, tokens[s], EACH, EACH, alone + (size_t)s * EACH * N_VOCAB);
    }
    for (int32_t step = 0;; step++) {
        struct model_rig_part parts[SEQS];
        int32_t n_parts = 0;
        for (int32_t i = 0; i < SEQS; i++) {
            const int32_t s = (i + step) % SEQS, left = EACH - fed[s];
            const int32_t n = left < CHUNKS[s] ? left : CHUNKS[s];
            if (n > 0) {
                parts[n_parts++] = (struct model_rig_part){ s, fed[s], n, tokens[s] + fed[s] };
            }
        }
        if (n_parts == 0) {
            break;
        }
        const float *logits = model_rig_pass(&rig, parts, n_parts);
        for (int32_t p = 0; p < n_parts; p++) {
            const int32_t s = parts[p].seq;
            const size_t n_floats = (size_t)parts[p].n_tokens * N_VOCAB;
            assert_memory_equal(logits, alone + ((size_t)s * EACH + (size_t)fed[s]) * N_VOCAB,
                                n_floats * sizeof(float));
            logits += n_floats;
            fed[s] += parts[p].n_tokens;
        }
    }
    mem_free(alone);
    model_rig_close(&rig);
}

static void test_rows_among_others(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_MODELS; i++) {
        char path[512];
        path_of(MODELS[i], path);
        check_company(path);
    }
}

/* ---- one model in several shapes ---- */

static const struct model_rig_options PLAIN = { .kv = KV_F32, .context = CONTEXT, .cap_rows = N };

static struct answer plain_answer(const char *path)
{
    struct model_rig_options options = PLAIN;
    options.name = path;
    return answer_of(&options, N);
}

/* As it is, or through a conversion to the type it has. */
static void write_gguf(const char *path, const char *gguf, bool converted)
{
    struct model_source *source, *same;
    struct model_tensor_info info;
    assert_int_equal(model_source_open(path, &source), STATUS_OK);
    assert_int_equal(model_source_tensor(source, 0, &info), STATUS_OK);
    if (converted) {
        assert_int_equal(
            model_source_requantize(source, &(struct model_requantize_options){ .type = info.type },
                                    &same),
            STATUS_OK);
        source = same;
    }
    const enum status status = model_source_write_gguf(source, gguf, NULL, NULL);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    model_source_close(source);
}

static void test_folder_equals_its_gguf(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < 2 * N_MODELS; i++) {
        char path[512], gguf[300];
        struct small_folder out;
        path_of(MODELS[i / 2], path);
        small_folder_begin(&out);
        snprintf(gguf, sizeof gguf, "%s/model.gguf", out.path);
        write_gguf(path, gguf, i % 2 == 1);
        struct answer folder = plain_answer(path), file = plain_answer(gguf);
        assert_same(path, &folder, &file);
        mem_free(folder.logits);
        mem_free(file.logits);
        small_folder_remove(&out);
    }
}

/* --quant: what is converted while loading is what a converted file holds. */
static void test_converted_while_loading(void **state)
{
    (void)state;
    static const char *const TYPES[] = { "q8_0", "q4_0", "f16",
                                         "q4_k" }; /* the last falls back to Q8_0 */
    golden_or_skip();
    for (int i = 0; i < 2 * 4; i++) {
        char path[512], gguf[300];
        struct small_folder out;
        struct model_source *source;
        struct model_rig_options options = PLAIN;
        path_of(MODELS[N_MODELS - 1 - i % 2 * 3], path);
        small_folder_begin(&out);
        snprintf(gguf, sizeof gguf, "%s/model.gguf", out.path);
        assert_int_equal(model_source_open_as(path, TYPES[i / 2], &options.source), STATUS_OK);
        assert_int_equal(model_source_open_as(path, TYPES[i / 2], &source), STATUS_OK);
        assert_int_equal(model_source_write_gguf(source, gguf, NULL, NULL), STATUS_OK);
        model_source_close(source);
        struct answer folder = answer_of(&options, N), file = plain_answer(gguf);
        assert_same(TYPES[i / 2], &folder, &file);
        mem_free(folder.logits);
        mem_free(file.logits);
        small_folder_remove(&out);
    }
    struct model_source *none;
    assert_int_equal(model_source_open_as("synth:tiny", "iq4_xs", &none), STATUS_UNSUPPORTED);
    assert_int_equal(model_source_open_as("synth:tiny", "nonsense", &none), STATUS_INVALID);
}

static void test_shards_equal_merged(void **state)
{
    (void)state;
    static const char *const SHARDED[] = { "golden/models/llama-gqa", "golden/models/qwen2" };
    golden_or_skip();
    for (size_t i = 0; i < sizeof SHARDED / sizeof SHARDED[0]; i++) {
        char path[512];
        struct small_folder merged;
        path_of(SHARDED[i], path);
        small_folder_begin(&merged);
        small_folder_merge(path, &merged, MERGE_VECTORS_AS_THEY_ARE);
        struct answer shards = plain_answer(path), whole = plain_answer(merged.path);
        assert_same(path, &shards, &whole);
        mem_free(shards.logits);
        mem_free(whole.logits);
        small_folder_remove(&merged);
    }
}

/* Other weights, other bits: else the comparisons above would prove nothing. */
static void test_models_differ(void **state)
{
    (void)state;
    golden_or_skip();
    char a[512], b[512];
    path_of(MODELS[0], a);
    path_of(MODELS[5], b);
    struct answer one = plain_answer(a), other = plain_answer(b);
    assert_true(one.model != other.model);
    assert_memory_not_equal(one.logits, other.logits, (size_t)N * N_VOCAB * sizeof(float));
    mem_free(one.logits);
    mem_free(other.logits);
}

/* ---- experts ---- */

static uint64_t tensor_bytes(const struct model_source *source, const char *part)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info info;
        assert_int_equal(model_source_tensor(source, i, &info), STATUS_OK);
        bytes += strstr(info.name, part) ? info.bytes : 0;
    }
    return bytes;
}

/* One row touches n_used experts of every layer, no more; all rows together at most all. */
static void check_bytes(const char *path)
{
    struct model_rig rig;
    int32_t tokens[N];
    open_rig(&rig, &(struct model_rig_options){
                       .name = path, .context = CONTEXT, .cap_rows = N, .threads = 2 });
    const struct model_config *config = model_get_config(rig.model);
    const uint64_t all = tensor_bytes(rig.source, "_exps."),
                   one = all / (uint64_t)config->experts.n;
    const uint64_t shared = model_weight_bytes(rig.model) - all;
    assert_true(all > 0 && all % (uint64_t)config->experts.n == 0);
    fill_tokens(tokens, N, 1);
    for (int32_t i = 0; i < 8; i++) {
        const uint64_t before = pass_buffers_bytes_read(rig.buffers);
        const struct model_rig_part part = { 0, i, 1, tokens + i };
        model_rig_pass(&rig, &part, 1);
        assert_int_equal(pass_buffers_bytes_read(rig.buffers) - before,
                         shared + one * (uint64_t)config->experts.n_used);
    }
    const uint64_t before = pass_buffers_bytes_read(rig.buffers);
    const struct model_rig_part part = { 0, 0, N, tokens };
    model_rig_pass(&rig, &part, 1);
    assert_int_equal(pass_buffers_bytes_read(rig.buffers) - before,
                     shared + all); /* 70 rows touch all */
    model_rig_close(&rig);
}

static void test_bytes_of_touched_experts(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = N_MODELS - 2; i < N_MODELS; i++) {
        char path[512];
        path_of(MODELS[i], path);
        check_bytes(path);
    }
}

/* A dense model reads all of its weights; the head only when logits are wanted. */
static void test_bytes_of_dense(void **state)
{
    (void)state;
    struct model_rig rig;
    const int32_t token = 3;
    const struct model_rig_part part = { 0, 0, 1, &token };
    open_rig(&rig,
             &(struct model_rig_options){ .name = "synth:tiny", .context = 32, .cap_rows = 2 });
    model_rig_pass(&rig, &part, 1);
    assert_int_equal(pass_buffers_bytes_read(rig.buffers), model_weight_bytes(rig.model));
    model_rig_close(&rig);
}

static void test_pass_allocates_nothing(void **state)
{
    (void)state;
    golden_or_skip();
    char path[512];
    struct model_rig rig;
    int32_t tokens[32];
    path_of("golden/models/qwen3-moe", path);
    fill_tokens(tokens, 32, 5);
    open_rig(&rig, &(struct model_rig_options){
                       .name = path, .context = 64, .cap_rows = 32, .threads = 2 });
    const uint64_t before = mem_alloc_count();
    model_rig_feed(&rig, 0, tokens, 32, 5, NULL);
    assert_true(mem_alloc_count() == before);
    model_rig_close(&rig);
}

/* Pad rows take no expert, and move no bit of other rows. */
static void test_pads_among_experts(void **state)
{
    (void)state;
    golden_or_skip();
    enum { ROWS = 6 };
    char path[512];
    struct model_rig rig;
    int32_t tokens[ROWS], position[ROWS], slot[ROWS], seq[ROWS] = { 0 }, row[ROWS];
    float *alone = mem_alloc(ROWS * N_VOCAB, sizeof *alone);
    path_of("golden/models/mixtral", path);
    fill_tokens(tokens, ROWS, 4);
    open_rig(&rig, &(struct model_rig_options){ .name = path, .context = 64, .cap_rows = ROWS });
    model_rig_feed(&rig, 0, tokens, ROWS / 2, ROWS, alone);
    for (int32_t i = 0; i < ROWS; i++) { /* every second row is a pad */
        position[i] = slot[i] = i % 2 == 0 ? i / 2 : -1;
        row[i] = i;
    }
    int32_t spread[ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        spread[i] = tokens[i / 2];
    }
    const struct pass pass = { .n_rows = ROWS,
                               .n_seqs = 1,
                               .n_logits = ROWS,
                               .token = spread,
                               .position = position,
                               .slot = slot,
                               .seq_of_row = seq,
                               .views = rig.views,
                               .logits_row = row };
    lane_wait(rig.lane, model_forward(rig.model, rig.lane, &rig.store, &pass, rig.buffers));
    for (int32_t i = 0; i < ROWS; i += 2) {
        assert_memory_equal(pass_buffers_logits(rig.buffers) + i * N_VOCAB, alone + i / 2 * N_VOCAB,
                            N_VOCAB * sizeof(float));
    }
    mem_free(alone);
    model_rig_close(&rig);
}

int main(void)
{
    log_set_level(LOG_WARN); /* conversions are announced */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_ways_quantised),
        cmocka_unit_test(test_rows_among_others),
        cmocka_unit_test(test_folder_equals_its_gguf),
        cmocka_unit_test(test_converted_while_loading),
        cmocka_unit_test(test_shards_equal_merged),
        cmocka_unit_test(test_models_differ),
        cmocka_unit_test(test_bytes_of_touched_experts),
        cmocka_unit_test(test_bytes_of_dense),
        cmocka_unit_test(test_pass_allocates_nothing),
        cmocka_unit_test(test_pads_among_experts),
    };
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
