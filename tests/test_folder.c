/* folder: Hugging Face folders: each way one can be wrong has its own sentence; what config.json says
 * in either spelling; files of hostile sizes; every allocation failing once. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/model.h"
#include "tests/golden.h"
#include "tests/model_rig.h"
#include "tests/small_folder.h"

#define Q_PROJ "model.layers.0.self_attn.q_proj.weight"
#define MADE(...) (&(const struct small_change){ __VA_ARGS__ })
#define KEY(k, v) .config = { { k, v } }

static enum status load(const char *path)
{
    struct model_rig rig;
    const enum status status = model_rig_open(
        &rig, &(struct model_rig_options){ .name = path, .context = 16, .cap_rows = 4 });
    model_rig_close(&rig);
    return status;
}

static void refused(const struct small_change *change, enum status status, const char *words)
{
    struct small_folder folder;
    small_folder_make(&folder, change);
    const enum status found = load(folder.path);
    if (found != status || !strstr(status_message(), words)) {
        print_error("expected %s with \"%s\", found %s: %s\n", status_name(status), words,
                    status_name(found), status_message());
    }
    assert_int_equal(found, status);
    assert_non_null(strstr(status_message(), words));
    small_folder_remove(&folder);
}

static void loads(const struct small_change *change)
{
    struct small_folder folder;
    small_folder_make(&folder, change);
    const enum status status = load(folder.path);
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
    small_folder_remove(&folder);
}

static void test_small_folder_loads(void **state)
{
    (void)state;
    loads(MADE(.n_shards = 0));
    loads(MADE(.n_shards = 2));
    loads(MADE(.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"));
    loads(MADE(KEY("tie_word_embeddings", "true"), .drop = "lm_head.weight"));
    loads(MADE(KEY("tie_word_embeddings", "true")));
    loads(MADE(KEY("hidden_size", "32.0")));
}

static void test_files_and_index(void **state)
{
    (void)state;
    refused(MADE(.n_shards = 2, .drop_shard = 1), STATUS_INVALID,
            "index.json names model-00002-of-00002.safetensors, which is not there");
    refused(MADE(.n_shards = 2, .index_drop = Q_PROJ), STATUS_INVALID,
            "it holds " Q_PROJ ", which model.safetensors.index.json does not name");
    refused(MADE(.n_shards = 2,
                 .index = "{\"weight_map\":{\"x\":\"model-00001-of-00002.safetensors\"}}"),
            STATUS_INVALID,
            "says that x stands in model-00001-of-00002.safetensors, which does not hold it");
    refused(MADE(.n_shards = 2, .index = "{\"weight_map\":{\"x\":\"../model.safetensors\"}}"),
            STATUS_INVALID, "expected every tensor to name a .safetensors file of the folder");
    refused(MADE(.n_shards = 2, .index = "{\"weight_map\":{}}"), STATUS_INVALID,
            "expected a weight_map");
    refused(MADE(.n_shards = 2, .index = "{}"), STATUS_INVALID, "expected a weight_map");
    refused(MADE(.n_shards = 2, .index = ""), STATUS_INVALID,
            "parts of a model and no index of them");
    refused(MADE(.drop = Q_PROJ), STATUS_INVALID, "tensor " Q_PROJ " is missing");
    refused(MADE(.extra = "model.layers.0.self_attn.q_proj.bias"), STATUS_UNSUPPORTED,
            "tensor model.layers.0.self_attn.q_proj.bias is not part of architecture 'llama'");
    refused(MADE(.extra = "model.layers.7.mlp.up_proj.weight"), STATUS_UNSUPPORTED,
            "is not part of");
}

static void test_dtypes_and_shapes(void **state)
{
    (void)state;
    refused(MADE(.tensor = Q_PROJ, .dtype = "BF16"), STATUS_INVALID,
            "two dtypes: model.embed_tokens.weight is F32, " Q_PROJ " is BF16");
    refused(MADE(.tensor = "model.norm.weight", .dtype = "BF16"), STATUS_INVALID,
            "two dtypes: model.embed_tokens.weight is F32, model.norm.weight is BF16");
    refused(MADE(.config = { { "torch_dtype", "\"float32\"" }, { "dtype", "\"bfloat16\"" } }),
            STATUS_INVALID, "two dtypes: dtype says bfloat16, torch_dtype says float32");
    refused(MADE(.tensor = Q_PROJ, .dtype = "I64"), STATUS_UNSUPPORTED,
            Q_PROJ ": expected dtype F32, F16 or BF16, file says \"I64\"");
    refused(MADE(.drop = "lm_head.weight"), STATUS_INVALID,
            "tie_word_embeddings is false, and lm_head.weight is missing");
    refused(MADE(KEY("vocab_size", "9")), STATUS_INVALID,
            "vocab_size 9 is larger than the embedding: model.embed_tokens.weight has 8 rows");
    refused(MADE(KEY("vocab_size", "7")), STATUS_INVALID,
            "model.embed_tokens.weight: expected 32 x 7, file says 32 x 8");
    refused(MADE(.tensor = Q_PROJ, .shape = ((const int64_t[]){ 32, 16 })), STATUS_INVALID,
            Q_PROJ ": expected 32 x 32, file says 16 x 32");
    refused(MADE(KEY("intermediate_size", "96")), STATUS_INVALID,
            "model.layers.0.mlp.gate_proj.weight: expected 32 x 96, file says 32 x 64");
    refused(MADE(.tensor = Q_PROJ, .value = &(const float){ NAN }), STATUS_INVALID,
            Q_PROJ ": row 0 holds a NaN or infinity");
    refused(MADE(.tensor = "model.norm.weight", .value = &(const float){ INFINITY }),
            STATUS_INVALID, "model.norm.weight: row 0 holds a NaN or infinity");
}

static void test_headers(void **state)
{
    (void)state;
    static const uint64_t HUGE[] = { UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1,
                                     1 << 20 };
    for (size_t i = 0; i < sizeof HUGE / sizeof HUGE[0]; i++) {
        refused(MADE(.header_length = &HUGE[i]), STATUS_INVALID, "not a safetensors file, or cut");
    }
    refused(MADE(.header_length = &(const uint64_t){ UINT64_C(1) << 40 }, .grow = INT64_C(1) << 42),
            STATUS_INVALID, "a header of 1099511627776 bytes, expected at most");
    refused(MADE(.cut = 1), STATUS_INVALID, "it is cut or wrong");
    refused(MADE(.header = ""), STATUS_INVALID, "model.safetensors: line");
    refused(MADE(.header = "[]"), STATUS_INVALID, "expected a JSON object");
    refused(MADE(.header = "{\"a\":1}"), STATUS_INVALID, "a: expected an object with dtype");
    refused(MADE(.header = "{\"a\":{},\"a\":{}}"), STATUS_INVALID, "duplicate");
    refused(MADE(.header = "{\"\":{}}"), STATUS_INVALID, "a tensor's name has 0 characters");
    refused(MADE(.header = "{\"a\\u0007\":{}}"), STATUS_INVALID,
            "holds byte 0x07, expected printable");
#define ENTRY(shape, offsets) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define REFUSED(shape, offsets, words) \
    refused(MADE(.tensor = Q_PROJ, .entry = ENTRY(shape, offsets)), STATUS_INVALID, words)
    REFUSED("[32,32]", "[0,4095]", "shape and dtype mean 4096 bytes, data_offsets say 4095");
    REFUSED("[32,32]", "[0,4096]", "overlap at byte");
    REFUSED("[32,32]", "[9223372036854771711,9223372036854775807]", "it is cut or wrong");
    REFUSED("[32,32]", "[4096,0]", "expected data_offsets of a beginning and an end behind it");
    REFUSED("[32,32]", "[-4096,0]", "expected data_offsets");
    REFUSED("[32,32]", "[0]", "expected data_offsets");
    REFUSED("[32,32]", "null", "expected data_offsets");
    REFUSED("[9223372036854775807,2]", "[0,4096]", "whose product is below 2^59");
    REFUSED("[4294967296,4294967296]", "[0,0]", "whose product is below 2^59");
    REFUSED("[0,32]", "[0,0]", "numbers above 0");
    REFUSED("[-1,32]", "[0,0]", "numbers above 0");
    REFUSED("[1,1,1,32,32]", "[0,4096]", "a shape of at most 4 numbers");
    REFUSED("32", "[0,4096]", "a shape of at most 4 numbers");
}

static void test_config_refusals(void **state)
{
    (void)state;
    refused(
        MADE(KEY("model_type", "\"gemma2\"")), STATUS_UNSUPPORTED,
        "model_type 'gemma2' is not supported; supported: llama, mistral, mixtral, qwen2, qwen3, qwen3_moe");
    refused(MADE(KEY("model_type", NULL)), STATUS_UNSUPPORTED, "model_type ''");
    refused(MADE(KEY("hidden_size", NULL)), STATUS_INVALID, "key hidden_size is missing");
    refused(MADE(KEY("hidden_size", "0")), STATUS_INVALID,
            "hidden_size: expected a whole number from 1");
    refused(MADE(KEY("hidden_size", "\"32\"")), STATUS_INVALID, "file says \"32\"");
    refused(MADE(KEY("hidden_size", "9223372036854775807")), STATUS_INVALID, "9223372036854775807");
    refused(MADE(KEY("num_hidden_layers", "2")), STATUS_INVALID,
            "tensor model.layers.1.input_layernorm.weight is missing");
    refused(MADE(KEY("num_attention_heads", "3")), STATUS_INVALID,
            "3 heads do not divide the width 32");
    refused(MADE(KEY("hidden_act", "\"gelu\"")), STATUS_UNSUPPORTED, "hidden_act 'gelu'");
    refused(MADE(KEY("attention_bias", "true")), STATUS_UNSUPPORTED,
            "attention_bias is not supported");
    refused(MADE(KEY("quantization_config", "{\"bits\":4}")), STATUS_UNSUPPORTED,
            "packed by another program");
    refused(MADE(KEY("eos_token_id", "8")), STATUS_INVALID,
            "eos_token_id: expected 0 to 7, file says 8");
    refused(MADE(KEY("eos_token_id", "[1,\"2\"]")), STATUS_INVALID, "eos_token_id");
    refused(MADE(KEY("rope_scaling", "{\"type\":\"longrope\"}")), STATUS_UNSUPPORTED,
            "RoPE scaling 'longrope' is not supported");
    refused(MADE(KEY("rope_scaling", "{\"type\":\"linear\"}")), STATUS_INVALID,
            "RoPE scaling factor above 0");
    refused(MADE(KEY("rope_scaling", "7")), STATUS_INVALID, "rope_scaling: expected an object");
    refused(MADE(.config = { { "rope_scaling", "{\"type\":\"linear\",\"factor\":2}" },
                             { "rope_parameters", "{\"type\":\"linear\",\"factor\":4}" } }),
            STATUS_INVALID, "rope_parameters and rope_scaling say different things");
    refused(MADE(KEY("rope_parameters", "{\"full_attention\":{}}")), STATUS_UNSUPPORTED,
            "a RoPE of its own for full_attention layers");
    refused(MADE(KEY("partial_rotary_factor", "0.5")), STATUS_UNSUPPORTED,
            "partial_rotary_factor 0.5");
    refused(MADE(KEY("layer_types", "[\"full_attention\",\"sliding_attention\"]")),
            STATUS_UNSUPPORTED, "among layers without");
    refused(MADE(KEY("tie_word_embeddings", "1")), STATUS_INVALID,
            "expected true or false, file says 1");
    refused(MADE(.config_text = "{\"a\":1,\"a\":2}"), STATUS_INVALID, "duplicate object key");
    refused(MADE(.config_text = "nonsense"), STATUS_INVALID, "config.json: line 1");
    refused(MADE(.generation = "{\"eos_token_id\":99}"), STATUS_INVALID, "file says 99");
}

/* Nesting is refused before anything is built of it. */
static void test_deep_json(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *text = mem_alloc(6 * DEPTH, 1);
    size_t n = 0;
    n += (size_t)sprintf(text, "{\"hidden_size\":");
    for (int i = 0; i < DEPTH; i++) {
        text[n++] = '[';
    }
    for (int i = 0; i < DEPTH; i++) {
        text[n++] = ']';
    }
    text[n] = '}';
    refused(MADE(.config_text = text), STATUS_INVALID, "nested more than 32 deep");
    refused(MADE(.header = text), STATUS_INVALID, "nested more than 32 deep");
    refused(MADE(.n_shards = 2, .index = text), STATUS_INVALID, "nested more than 32 deep");
    mem_free(text);
    loads(MADE(KEY(
        "note",
        "\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[\""))); /* text is no nesting */
}

static void test_other_folders(void **state)
{
    (void)state;
    struct small_folder folder;
    small_folder_begin(&folder);
    assert_int_equal(load(folder.path), STATUS_UNSUPPORTED);
    assert_non_null(strstr(status_message(), "a folder without config.json"));
    small_folder_put(&folder, "config.json", "{\"model_type\":\"llama\"}", 22);
    assert_int_equal(load(folder.path), STATUS_INVALID);
    assert_non_null(
        strstr(status_message(), "expected model.safetensors or model.safetensors.index.json"));
    small_folder_put(&folder, "pytorch_model.bin", "x", 1);
    assert_int_equal(load(folder.path), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "weights in .bin files are not read"));
    small_folder_remove(&folder);
}

/* What does not run opens all the same, for inspection. */
static void test_unknown_opens(void **state)
{
    (void)state;
    struct small_folder folder;
    struct model_source *source;
    small_folder_make(&folder, MADE(KEY("model_type", "\"phi\""),
                                    .generation = "{\"top_k\":40,\"temperature\":0.5}"));
    assert_int_equal(model_source_open(folder.path, &source), STATUS_OK);
    assert_int_equal(model_source_check(source), STATUS_UNSUPPORTED);
    assert_int_equal(model_source_n_tensors(source), 12);
    assert_string_equal(model_source_config(source)->architecture, "phi");
    model_source_close(source);
    small_folder_remove(&folder);
}

static void describe_line(void *user, const char *key, const char *value)
{
    char *text = user;
    const size_t used = strlen(text);
    snprintf(text + used, 4096 - used, "%s = %s\n", key, value);
}

static void test_config_values(void **state)
{
    (void)state;
    struct small_folder folder;
    struct model_source *source;
    char text[4096] = "";
    small_folder_make(
        &folder, MADE(.config = { { "rope_theta", NULL },
                                  { "torch_dtype", NULL },
                                  { "dtype", "\"float32\"" },
                                  { "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":2.0,"
                                                       "\"rope_theta\":5000.0}" } },
                      .generation = "{\"eos_token_id\":[2,5],\"temperature\":0.6,\"top_k\":20,"
                                    "\"top_p\":0.95,\"do_sample\":true}"));
    assert_int_equal(model_source_open(folder.path, &source), STATUS_OK);
    const struct model_config *config = model_source_config(source);
    assert_int_equal(model_source_check(source), STATUS_OK);
    assert_true(config->rope.base == 5000.0 && config->rope.factor == 2.0);
    assert_int_equal(config->rope.scaling, ROPE_SCALING_LINEAR);
    assert_int_equal(config->n_eos, 2);
    assert_int_equal(config->eos_ids[1], 5);
    assert_false(config->permuted_qk);
    const struct model_hints hints = model_source_hints(source);
    assert_true(hints.temperature == 0.6 && hints.top_k == 20 && hints.top_p == 0.95 &&
                hints.min_p < 0);
    model_source_describe(source, describe_line, text);
    assert_non_null(strstr(text, "generation_config.temperature = 0.6\n"));
    assert_non_null(strstr(text, "config.hidden_size = 32\n"));
    assert_true(strncmp(model_source_folder(source), folder.path, strlen(folder.path)) == 0);
    model_source_close(source);
    small_folder_remove(&folder);
}

static struct model_hints hints_of(const char *generation)
{
    struct small_folder folder;
    struct model_source *source;
    small_folder_make(&folder, MADE(.generation = generation));
    assert_int_equal(model_source_open(folder.path, &source), STATUS_OK);
    assert_int_equal(model_source_check(source), STATUS_OK);
    const struct model_hints hints = model_source_hints(source);
    model_source_close(source);
    small_folder_remove(&folder);
    return hints;
}

/* do_sample says greedy or not, over and beside the temperature. */
static void test_hints(void **state)
{
    (void)state;
    assert_true(hints_of(NULL).temperature < 0);
    assert_true(hints_of("{}").temperature < 0);
    assert_true(hints_of("{\"temperature\":0.25}").temperature == 0.25);
    assert_true(hints_of("{\"do_sample\":true}").temperature == 1);
    assert_true(hints_of("{\"do_sample\":true,\"temperature\":0.25}").temperature == 0.25);
    assert_true(hints_of("{\"do_sample\":false,\"temperature\":0.25}").temperature == 0);
    assert_true(hints_of("{\"top_k\":-1}").top_k < 0);
    assert_true(hints_of("{\"top_k\":0}").top_k == 0);
    assert_true(hints_of("{\"repetition_penalty\":1.5,\"min_p\":0.5}").repetition_penalty == 1.5);
}

static void test_windows(void **state)
{
    (void)state;
    static const struct { struct small_change change; int32_t window; } CASES[] = {
        { { .config = { { "sliding_window", "16" } } }, 0 },
        { { .config = { { "model_type", "\"mistral\"" }, { "sliding_window", "16" } } }, 16 },
        { { .config = { { "model_type", "\"mistral\"" }, { "sliding_window", "null" } } }, 0 },
        { { .config = { { "model_type", "\"mistral\"" }, { "sliding_window", "16" },
                        { "layer_types", "[\"full_attention\"]" } } }, 0 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct small_folder folder;
        struct model_source *source;
        small_folder_make(&folder, &CASES[i].change);
        assert_int_equal(model_source_open(folder.path, &source), STATUS_OK);
        assert_int_equal(model_source_check(source), STATUS_OK);
        assert_int_equal(model_source_config(source)->window, CASES[i].window);
        model_source_close(source);
        small_folder_remove(&folder);
    }
}

/* A header that lies about sizes costs nothing. */
static void test_hostile_takes_no_memory(void **state)
{
    (void)state;
    struct small_folder folder;
    struct model_source *source;
    small_folder_make(&folder,
                      MADE(.tensor = Q_PROJ,
                           .entry = ENTRY("[144115188075855872,1]", "[0,576460752303423488]"),
                           .grow = INT64_C(1) << 40));
    const uint64_t peak = mem_peak_bytes();
    assert_int_equal(model_source_open(folder.path, &source), STATUS_INVALID);
    assert_true(mem_peak_bytes() < peak + (64 << 20));
    small_folder_remove(&folder);
}

static void test_each_allocation_fails_once(void **state)
{
    (void)state;
    struct small_folder folder;
    uint64_t n = 0;
    enum status status;
    small_folder_make(&folder, MADE(.n_shards = 2));
    do {
        n++;
        mem_fail_at(n);
        status = load(folder.path);
        mem_fail_at(0);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
        }
    } while (status != STATUS_OK && n < 1000);
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 20);
    small_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_folder_loads),
        cmocka_unit_test(test_files_and_index),
        cmocka_unit_test(test_dtypes_and_shapes),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_other_folders),
        cmocka_unit_test(test_unknown_opens),
        cmocka_unit_test(test_config_values),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_hostile_takes_no_memory),
        cmocka_unit_test(test_each_allocation_fails_once),
    };
    return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}
