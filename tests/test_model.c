/* model: golden logits and choices of stories15M, and the invariances of a pass on a synthetic model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/golden.h"
#include "tests/model_rig.h"
#include "tests/widened_source.h"

static const char STORIES[] = "models/stories15M.Q8_0.gguf";
static const char TINY[] = "synth:tiny,q8_0,seed=7";
enum { TINY_VOCAB = 512, MAX_IDS = 512 };

static void open_rig(struct model_rig *rig, const struct model_rig_options *options)
{
    const enum status status = model_rig_open(rig, options);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

static void fill_tokens(int32_t *tokens, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)(rng_mix64(seed * 1000 + (uint64_t)i) % TINY_VOCAB);
    }
}

/* ---- golden ---- */

static int32_t read_ids(const json_t *array, int32_t *ids)
{
    const size_t n = json_array_size(array);
    assert_in_range(n, 1, MAX_IDS);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    }
    return (int32_t)n;
}

/* Largest |difference| and largest |golden logit| of a row, or of all rows so far. */
struct deviation { double difference, largest; };

static void deviation_widen(struct deviation *sum, const struct deviation *row)
{
    sum->difference = fmax(sum->difference, row->difference);
    sum->largest = fmax(sum->largest, row->largest);
}

static struct deviation row_deviation(const float *logits, const float *golden, int32_t n_vocab)
{
    struct deviation row = { 0 };
    for (int32_t i = 0; i < n_vocab; i++) {
        assert_true(isfinite(logits[i]));
        row.largest = fmax(row.largest, fabs((double)golden[i]));
        row.difference = fmax(row.difference, fabs((double)golden[i] - (double)logits[i]));
    }
    return row;
}

static void check_deviation(const struct deviation *deviation, double tolerance)
{
    if (deviation->difference > tolerance * deviation->largest) {
        print_error("difference %g of %g, tolerance %g\n", deviation->difference, deviation->largest,
                    tolerance);
    }
    assert_true(deviation->difference <= tolerance * deviation->largest);
}

/* Teacher-forced: wherever the golden choice was not close, it is ours. */
static void check_greedy(struct model_rig *rig, const json_t *test_case, int32_t n_prompt, int32_t *ids,
                         double tolerance, int32_t *n_compared)
{
    const int32_t n_vocab = model_get_config(rig->model)->n_vocab;
    const json_t *gaps = json_object_get(test_case, "top_gap");
    int32_t n_greedy = read_ids(json_object_get(test_case, "greedy"), ids + n_prompt);
    bool bad = false;
    n_greedy = n_greedy < 256 - n_prompt ? n_greedy : 256 - n_prompt;
    float *logits = mem_alloc((size_t)(n_prompt + n_greedy) * (size_t)n_vocab, sizeof *logits);
    assert_non_null(logits);
    model_rig_feed(rig, 0, ids, n_prompt + n_greedy - 1, 64, logits);
    for (int32_t i = 0; i < n_greedy; i++) {
        const float *row = logits + (size_t)(n_prompt - 1 + i) * (size_t)n_vocab;
        float largest = 0;
        for (int32_t j = 0; j < n_vocab; j++) {
            largest = fmaxf(largest, fabsf(row[j]));
        }
        if (json_number_value(json_array_get(gaps, (size_t)i)) > 2 * tolerance * (double)largest) {
            assert_int_equal(backend_argmax(rig->backend, row, n_vocab, &bad), ids[n_prompt + i]);
            (*n_compared)++;
        }
    }
    assert_false(bad);
    mem_free(logits);
}

/* How the golden model is computed, and how far it may be off: any one row, and all rows together. */
struct golden_way { enum kv_type kv; bool widened; double row_tolerance, tolerance; };

static void check_golden_cases(struct model_rig *rig, const struct golden_way *way, const json_t *cases,
                               const float *golden, size_t n_golden)
{
    const size_t n_vocab = (size_t)model_get_config(rig->model)->n_vocab;
    float *logits = mem_alloc(256 * n_vocab, sizeof *logits);
    struct deviation all = { 0 };
    size_t row = 0;
    int32_t n_compared = 0, ids[2 * MAX_IDS];
    assert_true(json_array_size(cases) > 0);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *test_case = json_array_get(cases, c);
        const int32_t n = read_ids(json_object_get(test_case, "ids"), ids);
        model_rig_feed(rig, 0, ids, n, 64, logits);
        for (int32_t i = 0; i < n; i++, row++) {
            assert_true((row + 1) * n_vocab <= n_golden);
            const struct deviation one =
                row_deviation(logits + (size_t)i * n_vocab, golden + row * n_vocab, (int32_t)n_vocab);
            check_deviation(&one, way->row_tolerance);
            deviation_widen(&all, &one);
        }
        check_greedy(rig, test_case, n, ids, way->tolerance, &n_compared);
    }
    check_deviation(&all, way->tolerance);
    assert_int_equal(row * n_vocab, n_golden);
    assert_true(n_compared > 100);
    mem_free(logits);
}

static void check_golden(const struct golden_way *way)
{
    size_t n_golden, n_json;
    struct model_rig rig;
    struct model_source *source = NULL;
    golden_or_skip();
    float *golden = golden_read_floats("golden/stories15M/logits.f32", &n_golden);
    unsigned char *text = golden_read("golden/stories15M/golden.json", &n_json);
    assert_non_null(golden);
    assert_non_null(text);
    json_t *root = json_loadb((const char *)text, n_json, 0, NULL);
    if (way->widened) {
        assert_int_equal(widened_source_open(STORIES, &source), STATUS_OK);
    }
    open_rig(&rig, &(struct model_rig_options){ .name = STORIES, .source = source, .kv = way->kv,
                                                .context = 256, .cap_rows = 64, .threads = 2 });
    check_golden_cases(&rig, way, json_object_get(root, "cases"), golden, n_golden);
    model_rig_close(&rig);
    json_decref(root);
    golden_free(text);
    golden_free(golden);
}

/* Quantised activations: 2e-2 over the file; single rows, whose largest logit may be small, 3e-2. */
static void test_golden_q8_kv_f32(void **state)
{
    (void)state;
    check_golden(&(struct golden_way){ .kv = KV_F32, .row_tolerance = 3e-2, .tolerance = 2e-2 });
}

static void test_golden_q8_kv_f16(void **state)
{
    (void)state;
    check_golden(&(struct golden_way){ .kv = KV_F16, .row_tolerance = 3e-2, .tolerance = 2e-2 });
}

/* The same weights as floats: nothing but fp32 rounding between us and float64. */
static void test_golden_floats_kv_f32(void **state)
{
    (void)state;
    check_golden(&(struct golden_way){ .kv = KV_F32, .widened = true, .row_tolerance = 1e-5,
                                       .tolerance = 1e-5 });
}

static void test_golden_floats_kv_f16(void **state)
{
    (void)state;
    check_golden(&(struct golden_way){ .kv = KV_F16, .widened = true, .row_tolerance = 5e-3,
                                       .tolerance = 5e-3 });
}

/* ---- invariances ---- */

struct answer { float *logits; uint64_t kv; uint64_t model; };

static void answer_free(struct answer *answer) { mem_free(answer->logits); }

static struct answer answer_of(const struct model_rig_options *options, const int32_t *tokens, int32_t n,
                               int32_t chunk)
{
    struct model_rig rig;
    struct answer answer = { .logits = mem_alloc((size_t)n * TINY_VOCAB, sizeof(float)) };
    open_rig(&rig, options);
    model_rig_feed(&rig, 0, tokens, n, chunk, answer.logits);
    answer.kv = model_rig_kv_digest(&rig, 0, n);
    answer.model = model_digest(rig.model);
    model_rig_close(&rig);
    return answer;
}

static void assert_same(const struct answer *a, const struct answer *b, int32_t n)
{
    assert_memory_equal(a->logits, b->logits, (size_t)n * TINY_VOCAB * sizeof(float));
    assert_true(a->kv == b->kv);
    assert_true(a->model == b->model);
}

/* Chunks, pages, threads, instruction sets: the same bits. */
static void test_chunks_pages_threads_isa(void **state)
{
    (void)state;
    enum { N = 150 };
    static const struct { const char *isa; int threads; int32_t page, chunk; } WAYS[] = {
        { NULL, 1, 64, 64 }, { NULL, 2, 16, 7 }, { NULL, 1, 64, N },   { NULL, 2, 64, 1 },
        { "scalar", 2, 16, 64 }, { "avx2", 1, 64, 7 }, { "avx512", 2, 64, 33 },
    };
    static const char *const NAMES[] = { TINY, "synth:tiny,q4_0", "synth:tiny,f16", "synth:tiny,bf16",
                                         "synth:tiny,f32" };
    int32_t tokens[N];
    fill_tokens(tokens, N, 1);
    const int32_t n = getenv("TANDEM_TEST_QUICK") ? 40 : N;
    for (size_t m = 0; m < sizeof NAMES / sizeof NAMES[0]; m++) {
        struct answer first = { 0 };
        for (size_t w = 0; w < sizeof WAYS / sizeof WAYS[0]; w++) {
            struct backend *probe;
            if (backend_create("cpu", WAYS[w].isa, &probe) != STATUS_OK) {
                print_message("skipped: this machine lacks %s\n", WAYS[w].isa);
                continue;
            }
            backend_destroy(probe);
            struct answer answer = answer_of(
                &(struct model_rig_options){ .name = NAMES[m], .isa = WAYS[w].isa, .kv = KV_F16,
                                             .threads = WAYS[w].threads, .page_slots = WAYS[w].page,
                                             .context = N, .cap_rows = N },
                tokens, n, WAYS[w].chunk);
            if (w == 0) {
                first = answer;
                continue;
            }
            assert_same(&first, &answer, n);
            answer_free(&answer);
        }
        answer_free(&first);
    }
}

/* A sequence among others, at other places of the pass, equals the sequence alone. */
static void test_rows_among_others(void **state)
{
    (void)state;
    enum { N = 40, SEQS = 5 };
    static const int32_t CHUNKS[SEQS] = { 1, 3, 8, 11, 17 };
    int32_t tokens[SEQS][N], fed[SEQS] = { 0 };
    struct answer alone[SEQS];
    struct model_rig rig;
    for (int32_t s = 0; s < SEQS; s++) {
        fill_tokens(tokens[s], N, (uint64_t)s + 10);
        alone[s] = answer_of(&(struct model_rig_options){ .name = TINY, .context = N, .cap_rows = N },
                             tokens[s], N, N);
    }
    open_rig(&rig, &(struct model_rig_options){ .name = TINY, .context = N, .cap_rows = 64, .n_seqs = SEQS,
                                                .page_slots = 16, .threads = 2 });
    for (int32_t step = 0;; step++) {
        struct model_rig_part parts[SEQS];
        int32_t n_parts = 0;
        for (int32_t i = 0; i < SEQS; i++) {
            const int32_t s = (i + step) % SEQS; /* the order changes every step */
            const int32_t left = N - fed[s], n = left < CHUNKS[s] ? left : CHUNKS[s];
            if (n > 0) {
                parts[n_parts++] = (struct model_rig_part){ s, fed[s], n, tokens[s] + fed[s] };
            }
        }
        if (n_parts == 0) {
            break;
        }
        const float *logits = model_rig_pass(&rig, parts, n_parts);
        for (int32_t p = 0; p < n_parts; p++) {
            const size_t n_floats = (size_t)parts[p].n_tokens * TINY_VOCAB;
            assert_memory_equal(logits,
                                alone[parts[p].seq].logits + (size_t)parts[p].first_position * TINY_VOCAB,
                                n_floats * sizeof(float));
            logits += n_floats;
            fed[parts[p].seq] += parts[p].n_tokens;
        }
    }
    for (int32_t s = 0; s < SEQS; s++) {
        assert_true(model_rig_kv_digest(&rig, s, N) == alone[s].kv);
        answer_free(&alone[s]);
    }
    model_rig_close(&rig);
}

/* Pad rows, no logits, taps: none of them moves a bit of what was asked for. */
static void test_pads_taps_no_logits(void **state)
{
    (void)state;
    enum { N = 9, DIM = 128 };
    int32_t tokens[N], row[N], position[N], slot[N], seq[N] = { 0 };
    struct model_rig rig;
    fill_tokens(tokens, N, 3);
    struct answer alone =
        answer_of(&(struct model_rig_options){ .name = TINY, .context = 64, .cap_rows = N }, tokens, N - 1, N);
    open_rig(&rig, &(struct model_rig_options){ .name = TINY, .context = 64, .cap_rows = N });
    for (int32_t i = 0; i < N; i++) { /* the last is a pad row */
        position[i] = slot[i] = i < N - 1 ? i : -1;
        row[i] = i;
    }
    float *before = mem_alloc(2 * N * DIM, sizeof *before), *after = before + N * DIM;
    struct pass pass = { .n_rows = N, .n_seqs = 1, .token = tokens, .position = position, .slot = slot,
                         .seq_of_row = seq, .views = rig.views, .logits_row = row, .tap = before };
    lane_wait(rig.lane, model_forward(rig.model, rig.lane, &rig.store, &pass, rig.buffers));
    pass.n_logits = N - 1;
    pass.tap = after;
    pass.tap_layer = 2;
    lane_wait(rig.lane, model_forward(rig.model, rig.lane, &rig.store, &pass, rig.buffers));
    assert_memory_equal(pass_buffers_logits(rig.buffers), alone.logits, (N - 1) * TINY_VOCAB * sizeof(float));
    assert_true(model_rig_kv_digest(&rig, 0, N - 1) == alone.kv);
    /* before layer 0 the stream is the embedding; after the last it is not */
    float embedding[DIM];
    unsigned char bytes[DIM / 32 * 34];
    assert_int_equal(model_source_read(rig.source, 0, tokens[4], 1, bytes), STATUS_OK);
    tensor_row_to_f32(TENSOR_Q8_0, bytes, DIM, embedding);
    assert_memory_equal(before + 4 * DIM, embedding, sizeof embedding);
    assert_memory_not_equal(after + 4 * DIM, embedding, sizeof embedding);
    mem_free(before);
    answer_free(&alone);
    model_rig_close(&rig);
}

static uint64_t bytes_read_since(const struct model_rig *rig, uint64_t before)
{
    return pass_buffers_bytes_read(rig->buffers) - before;
}

/* The first n layers of a model are the model of n layers that begins with them: its logits, its KV,
 * its bytes, and nothing is written above. */
static void test_first_layers_only(void **state)
{
    (void)state;
    enum { N = 9, LAYERS = 4, KV_FLOATS = 2 * 32 };
    int32_t tokens[N], row[N], seq[N] = { 0 };
    struct model_rig rig;
    fill_tokens(tokens, N, 3);
    for (int32_t n = 0; n <= LAYERS; n++) {
        char name[64];
        snprintf(name, sizeof name, "synth:tiny,q8_0,seed=7,layers=%d", n > 0 ? n : LAYERS);
        const struct model_rig_options shorter = { .name = name, .context = 64, .cap_rows = N };
        struct answer alone = answer_of(&shorter, tokens, N, N);
        open_rig(&rig, &shorter);
        model_rig_feed(&rig, 0, tokens, N, N, NULL);
        const uint64_t bytes = bytes_read_since(&rig, 0);
        model_rig_close(&rig);
        open_rig(&rig, &(struct model_rig_options){ .name = "synth:tiny,q8_0,seed=7,layers=4",
                                                    .context = 64, .cap_rows = N });
        for (int32_t i = 0; i < N; i++) {
            row[i] = i;
        }
        const struct pass pass = { .n_rows = N, .n_seqs = 1, .n_logits = N, .token = tokens,
                                   .position = row, .slot = row, .seq_of_row = seq,
                                   .views = rig.views, .logits_row = row, .n_layers = n };
        lane_wait(rig.lane, model_forward(rig.model, rig.lane, &rig.store, &pass, rig.buffers));
        assert_memory_equal(pass_buffers_logits(rig.buffers), alone.logits, N * TINY_VOCAB * sizeof(float));
        assert_true(bytes_read_since(&rig, 0) == bytes);
        for (int32_t layer = 0; layer < LAYERS; layer++) {
            float k[KV_FLOATS], v[KV_FLOATS];
            kv_store_read(&rig.store, layer, N - 1, k, v);
            assert_int_equal(isnan(k[0]) != 0, n > 0 && layer >= n);
        }
        answer_free(&alone);
        model_rig_close(&rig);
    }
}

/* A pass takes no memory. */
static void test_pass_allocates_nothing(void **state)
{
    (void)state;
    int32_t tokens[32];
    struct model_rig rig;
    fill_tokens(tokens, 32, 5);
    open_rig(&rig, &(struct model_rig_options){ .name = TINY, .context = 64, .cap_rows = 32, .threads = 2 });
    const uint64_t before = mem_alloc_count();
    model_rig_feed(&rig, 0, tokens, 32, 5, NULL);
    assert_true(mem_alloc_count() == before);
    model_rig_close(&rig);
}

/* ---- load ---- */

static enum status load_tiny(const struct model_load_options *options, const char *name)
{
    struct backend *backend = NULL;
    struct lane *lane = NULL;
    struct model_source *source = NULL;
    struct model *model = NULL;
    struct pass_buffers *buffers = NULL;
    enum status status;
    const struct lane_options lane_options = { .n_workers = 1, .caller_is_worker = true };
    TRY_GOTO(backend_create("cpu", "scalar", &backend), out);
    TRY_GOTO(lane_create(backend, &lane_options, &lane), out);
    TRY_GOTO(model_source_open(name, &source), out);
    TRY_GOTO(model_load(source, lane, options, &model), out);
    status = pass_buffers_create(model, 4, 4, &buffers);
out:
    pass_buffers_destroy(buffers);
    model_destroy(model);
    model_source_close(source);
    lane_destroy(lane);
    backend_destroy(backend);
    return status;
}

/* Every allocation fails once: a sentence each time, and (under the address sanitizer) no leak. */
static void test_each_allocation_fails_once(void **state)
{
    (void)state;
    static const char *const NAMES[] = { "synth:tiny,layers=1,context=64", "models/stories15M.Q8_0.gguf" };
    const struct model_load_options options = { .context = 32 };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        uint64_t n = 0;
        enum status status;
        do {
            n++;
            mem_fail_at(n);
            status = load_tiny(&options, NAMES[i]);
            mem_fail_at(0);
            if (status != STATUS_OK) {
                assert_int_equal(status, STATUS_NO_MEMORY);
                assert_true(strlen(status_message()) > 10);
            }
        } while (status != STATUS_OK && n < 1000);
        assert_int_equal(status, STATUS_OK);
        assert_true(n > 8);
    }
}

static void count_progress(void *user, uint64_t done, uint64_t total)
{
    uint64_t *last = user;
    assert_true(done >= *last && done <= total);
    *last = done;
}

static void test_budget_and_progress(void **state)
{
    (void)state;
    uint64_t last = 0;
    struct model_load_options options = { .budget_bytes = 1000 };
    assert_int_equal(load_tiny(&options, TINY), STATUS_NO_MEMORY);
    assert_non_null(strstr(status_message(), "the memory budget allows 0.0 MiB"));
    options = (struct model_load_options){ .progress = count_progress, .progress_user = &last };
    assert_int_equal(load_tiny(&options, TINY), STATUS_OK);
    assert_true(last > 0);
}

static void test_missing_files(void **state)
{
    (void)state;
    struct model_source *source;
    assert_int_equal(model_source_open("no/such/file.gguf", &source), STATUS_IO);
    assert_non_null(strstr(status_message(), "no/such/file.gguf"));
    assert_int_equal(model_source_open("models", &source), STATUS_UNSUPPORTED);
    assert_non_null(strstr(status_message(), "a folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_q8_kv_f32),
        cmocka_unit_test(test_golden_q8_kv_f16),
        cmocka_unit_test(test_golden_floats_kv_f32),
        cmocka_unit_test(test_golden_floats_kv_f16),
        cmocka_unit_test(test_chunks_pages_threads_isa),
        cmocka_unit_test(test_rows_among_others),
        cmocka_unit_test(test_pads_taps_no_logits),
        cmocka_unit_test(test_first_layers_only),
        cmocka_unit_test(test_pass_allocates_nothing),
        cmocka_unit_test(test_each_allocation_fails_once),
        cmocka_unit_test(test_budget_and_progress),
        cmocka_unit_test(test_missing_files),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
