/* synth: names, determinism, speed of generation; and through a GGUF file and back the same model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/rope.h"
#include "model/weights.h"
#include "tests/model_rig.h"

enum { N_TOKENS = 20, TINY_VOCAB = 512 };

static void open_source(const char *name, struct model_source **source)
{
    const enum status status = model_source_open(name, source);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(model_source_check(*source), STATUS_OK);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct { const char *name; double parameters, bytes; bool tied; } SHAPES[] = {
        { "synth:llama-1b,q4_0", 1.2358e9, 695e6, true },
        { "synth:llama-1b,q8_0", 1.2358e9, 1.3134e9, true },
        { "synth:llama-8b,q8_0", 8.03e9, 8.53e9, false },
        { "synth:llama-70b,q4_0", 70.55e9, 39.7e9, false },
        { "synth:llama-1b,q4_k", 1.2358e9, 695e6, true },
        { "synth:llama-8b,q6_k", 8.03e9, 6.588e9, false },
        { "synth:smol-135m,bf16", 134.5e6, 269e6, true },
        { "synth:qwen3-8b,q8_0", 8.19e9, 8.70e9, false },
        { "synth:qwen3-moe-30b,q4_0", 30.53e9, 17.21e9, false },
        { "synth:smol-30m,q4_0", 35.2e6, 19.8e6, true },
        { "synth:pair=llama-1b,q8_0", 1.4985e9, 1.5923e9, false }, /* embedding and head apart */
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++) {
        struct model_source *source;
        double parameters = 0;
        open_source(SHAPES[i].name, &source);
        for (int64_t t = 0; t < model_source_n_tensors(source); t++) {
            struct model_tensor_info info;
            assert_int_equal(model_source_tensor(source, t, &info), STATUS_OK);
            parameters += (double)info.dims[0] * (double)(info.n_dims > 1 ? info.dims[1] : 1) *
                          (double)(info.n_dims > 2 ? info.dims[2] : 1);
        }
        assert_true(fabs(parameters / SHAPES[i].parameters - 1) < 0.005);
        assert_true(fabs((double)model_source_bytes(source) / SHAPES[i].bytes - 1) < 0.005);
        assert_true(model_source_config(source)->tied_head == SHAPES[i].tied);
        assert_null(model_source_vocab(source));
        model_source_close(source);
    }
}

static void test_options(void **state)
{
    (void)state;
    struct model_source *source;
    open_source("synth:llama-1b,f16,seed=18446744073709551615,layers=2,vocab=1000,context=64", &source);
    const struct model_config *config = model_source_config(source);
    assert_int_equal(config->n_layers, 2);
    assert_int_equal(config->n_vocab, 1000);
    assert_int_equal(config->context_len, 64);
    model_source_close(source);
    static const struct { const char *name, *words; } WRONG[] = {
        { "synth:llama-2b", "unknown model 'llama-2b'; did you mean llama-1b? There are: llama-1b, llama-8b" },
        { "synth:", "unknown model ''" },
        { "synth:tiny,q4_1", "unknown type 'q4_1'; did you mean q4_0" },
        { "synth:tiny,sead=1", "unknown option 'sead'; did you mean seed? There are: seed, layers" },
        { "synth:tiny,layers=0", "layers: expected a whole number from 1 to 1024, found '0'" },
        { "synth:tiny,layers=-1", "found '-1'" },
        { "synth:tiny,vocab=12x", "found '12x'" },
        { "synth:tiny,seed=99999999999999999999", "seed: expected a whole number" },
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        assert_int_equal(model_source_open(WRONG[i].name, &source), STATUS_INVALID);
        if (!strstr(status_message(), WRONG[i].words)) {
            print_error("%s\n", status_message());
        }
        assert_non_null(strstr(status_message(), WRONG[i].words));
    }
}

/* Rows alone equal rows in bulk; another seed, tensor or row gives other bytes. */
static void test_rows_are_pure(void **state)
{
    (void)state;
    static const char *const TYPES[] = { "tiny,f32",  "tiny,f16",      "tiny,bf16",    "tiny,q8_0",
                                         "tiny,q4_0", "tiny-256,q4_k", "tiny-256,q6_k" };
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        unsigned char bulk[16 * 512], one[512], other[512];
        char name[64];
        struct model_source *a, *b;
        struct model_tensor_info info;
        snprintf(name, sizeof name, "synth:%s,seed=1", TYPES[i]);
        open_source(name, &a);
        snprintf(name, sizeof name, "synth:%s,seed=2", TYPES[i]);
        open_source(name, &b);
        assert_int_equal(model_source_tensor(a, 0, &info), STATUS_OK);
        const size_t row_bytes = (size_t)info.bytes / TINY_VOCAB;
        assert_int_equal(model_source_read(a, 0, 100, 16, bulk), STATUS_OK);
        for (int64_t row = 0; row < 16; row++) {
            assert_int_equal(model_source_read(a, 0, 100 + row, 1, one), STATUS_OK);
            assert_memory_equal(one, bulk + (size_t)row * row_bytes, row_bytes);
        }
        assert_memory_not_equal(bulk, bulk + row_bytes, row_bytes);
        assert_int_equal(model_source_read(b, 0, 115, 1, other), STATUS_OK);
        assert_memory_not_equal(one, other, row_bytes);
        assert_int_equal(model_source_read(a, 0, 500, 13, bulk), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "rows 0 to 511"));
        model_source_close(a);
        model_source_close(b);
    }
}

/* Deviation of a matrix near 1 / sqrt(n_in), mean near 0: activations stay in range. */
static void test_distribution(void **state)
{
    (void)state;
    static const char *const TYPES[] = { "tiny,f32",  "tiny,f16",      "tiny,bf16",    "tiny,q8_0",
                                         "tiny,q4_0", "tiny-256,q4_k", "tiny-256,q6_k" };
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        char name[64];
        struct model_source *source;
        struct model_tensor_info info = { 0 };
        double sum = 0, squares = 0;
        int64_t tensor = 0;
        snprintf(name, sizeof name, "synth:%s", TYPES[i]);
        open_source(name, &source);
        while (!info.name || strcmp(info.name, "blk.1.ffn_down.weight") != 0) {
            assert_int_equal(model_source_tensor(source, tensor++, &info), STATUS_OK);
        }
        for (int64_t row = 0; row < info.dims[1]; row++) {
            unsigned char bytes[768 * 4];
            float values[768];
            assert_int_equal(model_source_read(source, tensor - 1, row, 1, bytes), STATUS_OK);
            tensor_row_to_f32((enum tensor_type)info.type, bytes, info.dims[0], values);
            for (int64_t j = 0; j < info.dims[0]; j++) {
                sum += (double)values[j];
                squares += (double)values[j] * (double)values[j];
            }
        }
        const double n = (double)(info.dims[0] * info.dims[1]), wanted = 1 / sqrt((double)info.dims[0]);
        const double deviation = sqrt(squares / n);
        assert_true(deviation > 0.65 * wanted && deviation < 1.5 * wanted);
        assert_true(fabs(sum / n) < 0.03 * wanted); /* a tenth drowned the text of a pair of 16 layers */
        model_source_close(source);
    }
}

struct run { uint64_t digest; float *logits; };

static struct run run_model(const char *name, const char *isa, int threads)
{
    struct model_rig rig;
    int32_t tokens[N_TOKENS];
    struct run run = { .logits = mem_alloc(N_TOKENS * TINY_VOCAB, sizeof(float)) };
    const enum status status = model_rig_open(
        &rig, &(struct model_rig_options){ .name = name, .isa = isa, .threads = threads,
                                           .context = N_TOKENS, .cap_rows = N_TOKENS });
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    for (int32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (i * 37 + 11) % model_get_config(rig.model)->n_vocab;
    }
    model_rig_feed(&rig, 0, tokens, N_TOKENS, N_TOKENS, run.logits);
    run.digest = model_digest(rig.model);
    model_rig_close(&rig);
    return run;
}

static void assert_equal_runs(const struct run *a, const struct run *b)
{
    assert_true(a->digest == b->digest);
    assert_memory_equal(a->logits, b->logits, N_TOKENS * TINY_VOCAB * sizeof(float));
}

static void write_gguf(const char *name, const char *path)
{
    struct model_source *source;
    open_source(name, &source);
    const enum status status = model_source_write_gguf(source, path, NULL, NULL);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    model_source_close(source);
}

/* Out to a file and in again, in every type, with tied heads and RoPE factors too: the same bits. */
static void test_through_a_file(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "synth:tiny,f32", "synth:tiny,f16", "synth:tiny,bf16", "synth:tiny,q8_0,vocab=501", "synth:tiny,q4_0",
        "synth:llama-1b,q4_0,layers=1,vocab=512,context=64", "synth:tiny-moe,q8_0",
        "synth:qwen3-8b,q4_0,layers=1,vocab=128,context=64", "synth:pair=tiny,q8_0",
        "synth:pair=tiny,vocab=512,role=draft",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char path[] = "build/test_synth_XXXXXX";
        const int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        write_gguf(NAMES[i], path);
        struct run direct = run_model(NAMES[i], NULL, 2), read = run_model(path, NULL, 1);
        assert_equal_runs(&direct, &read);
        /* once more, from the file to itself: nothing is lost on the way */
        write_gguf(path, path);
        struct run again = run_model(path, NULL, 1);
        assert_equal_runs(&direct, &again);
        unlink(path);
        mem_free(direct.logits);
        mem_free(read.logits);
        mem_free(again.logits);
    }
}

/* Llama 3's scaling as rope_freqs.weight: the tables are those of the formula, to the factors' rounding. */
static void test_rope_factors(void **state)
{
    (void)state;
    enum { CONTEXT = 256, HALF = 32 };
    struct model_rig rig;
    double frequency[HALF];
    assert_int_equal(model_rig_open(&rig, &(struct model_rig_options){
                         .name = "synth:llama-1b,q4_0,layers=1,vocab=64", .context = CONTEXT, .cap_rows = 1 }),
                     STATUS_OK);
    struct model_config config = *model_get_config(rig.model);
    config.rope.scaling = ROPE_SCALING_LLAMA3;
    rope_frequencies(&config, NULL, frequency);
    assert_true(frequency[0] == 1.0); /* short waves stay, long ones are 32 times longer */
    assert_true(fabs(frequency[HALF - 1] * 32 * pow(500000.0, 62.0 / 64) - 1) < 1e-12);
    for (int32_t position = 0; position < CONTEXT; position += 17) {
        for (int32_t i = 0; i < HALF; i++) {
            const double angle = position * frequency[i];
            assert_true(fabs((double)rig.model->cos[position * HALF + i] - cos(angle)) < 1e-6 * (1 + angle));
            assert_true(fabs((double)rig.model->sin[position * HALF + i] - sin(angle)) < 1e-6 * (1 + angle));
        }
    }
    model_rig_close(&rig);
}

/* Of a draft for llama-1b a pass reads at most 3 % of what one of its Q8_0 target reads. */
static void test_small_draft(void **state)
{
    (void)state;
    struct model_source *source;
    open_source("synth:smol-30m,q4_0", &source);
    assert_int_equal(model_source_config(source)->n_vocab, 128256);
    assert_true((double)model_source_bytes(source) < 0.03 * 1.3134e9);
    model_source_close(source);
}

/* Another seed is another model; the same name is the same model. */
static void test_digest_tells_models_apart(void **state)
{
    (void)state;
    static const char *const NAMES[] = { "synth:tiny,seed=1", "synth:tiny,seed=2", "synth:tiny,layers=1",
                                         "synth:tiny,q4_0", "synth:tiny,vocab=480" };
    enum { N = sizeof NAMES / sizeof NAMES[0] };
    uint64_t digests[N];
    for (size_t i = 0; i < N; i++) {
        struct run run = run_model(NAMES[i], NULL, 1), again = run_model(NAMES[i], "scalar", 2);
        assert_true(run.digest == again.digest);
        digests[i] = run.digest;
        for (size_t j = 0; j < i; j++) {
            assert_true(digests[j] != digests[i]);
        }
        mem_free(run.logits);
        mem_free(again.logits);
    }
}

static void test_unwritable(void **state)
{
    (void)state;
    struct model_source *source;
    open_source("synth:tiny", &source);
    assert_int_equal(model_source_write_gguf(source, "no/such/folder/x.gguf", NULL, NULL), STATUS_IO);
    assert_non_null(strstr(status_message(), "no/such/folder/x.gguf"));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(symlink("/dev/full", "build/full.gguf.part"), 0);
        assert_int_equal(model_source_write_gguf(source, "build/full.gguf", NULL, NULL), STATUS_IO);
        assert_true(access("build/full.gguf", F_OK) != 0);
        unlink("build/full.gguf.part");
    }
    model_source_close(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_rows_are_pure),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_through_a_file),
        cmocka_unit_test(test_rope_factors),
        cmocka_unit_test(test_small_draft),
        cmocka_unit_test(test_digest_tells_models_apart),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests_name("synth", tests, NULL, NULL);
}
