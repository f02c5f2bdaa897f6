/* conversion: what `tandem quantize` writes of a model is the model. Every family's golden folder, made
 * a GGUF file of the folder's own dtype by the verb itself, gives the same logits, bit for bit, and its
 * tokenizer the same ids; so does that file in several parts, and a folder in another number of files. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/cli.h"
#include "scheduler/scheduler.h"
#include "tests/cut_tokenizer.h"
#include "tests/golden.h"
#include "tests/model_rig.h"
#include "tests/split_gguf.h"

enum { N_VOCAB = 771, CONTEXT = 1024, MAX_ROWS = 1200, CHUNK = 64, N_PARTS = 3, CAP_IDS = 65536 };

#define CHATML "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
#define LLAMA2 "{% if system %}<<SYS>>{{ system }}<</SYS>>{% endif %}[INST] {{ content }} [/INST]"
/* A model, and a tokenizer and template to stand beside it: the folders have none. */
static const struct family_case { const char *model, *tokenizer, *eos, *template, *format; } CASES[] = {
    { "llama-gqa", "llama2", "</s>", LLAMA2, "llama2" },
    { "llama3-rope", "llama3", "<|im_end|>", CHATML, "chatml" },
    { "llama-yarn", "smollm", "<|im_end|>", CHATML, "chatml" },
    { "mistral-window", "llama2", "</s>", LLAMA2, "llama2" },
    { "qwen2", "qwen2", "<|im_end|>", CHATML, "chatml" },
    { "qwen3", "qwen2", "<|im_end|>", CHATML, "chatml" },
    { "mixtral", "llama2", "</s>", LLAMA2, "llama2" },
    { "qwen3-moe", "gpt2", "<|endoftext|>", CHATML, "chatml" },
};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static void must(enum status status)
{
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

/* Its folder; false, after a line that says so, where it is absent. */
static bool find_model(const struct family_case *family, char path[512])
{
    char relative[128];
    snprintf(relative, sizeof relative, "golden/models/%s", family->model);
    if (!golden_exists(relative)) {
        print_message("skipped: no %s\n", relative);
        return false;
    }
    assert_true(golden_path(relative, path, 512));
    return true;
}

/* ---- the verb ---- */

/* `tandem quantize IN OUT TYPE`, its report left out. */
static enum status try_quantize(const char *in, const char *out, const char *type)
{
    static struct conf conf;
    char *argv[] = { (char *)(uintptr_t)"tandem", (char *)(uintptr_t)"quantize", (char *)(uintptr_t)in,
                     (char *)(uintptr_t)out, (char *)(uintptr_t)type, (char *)(uintptr_t)"--quiet" };
    fflush(stdout);
    const int kept = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
    assert_true(kept >= 0 && null >= 0);
    enum status status = conf_parse(&conf, sizeof argv / sizeof argv[0], argv);
    dup2(null, STDOUT_FILENO);
    if (status == STATUS_OK) {
        status = verb_quantize(&conf);
    }
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(null);
    return status;
}

static void quantize(const char *in, const char *out, const char *type)
{
    must(try_quantize(in, out, type));
}

/* The type of a model's matrices: all of one. */
static const char *own_type(const char *model)
{
    struct model_source *source;
    const struct tensor_type_info *type = NULL;
    must(model_source_open(model, &source));
    must(model_source_check(source));
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info info;
        must(model_source_tensor(source, i, &info));
        if (info.n_dims > 1) {
            assert_true(!type || type->number == info.type);
            type = tensor_type_info(info.type);
        }
    }
    model_source_close(source);
    assert_non_null(type);
    return type->name;
}

/* ---- logits ---- */

/* The golden prompts' ids one after another, the long one too; from[i] begins prompt i. */
struct prompts { int32_t ids[MAX_ROWS], from[8]; int n; };

static void add_prompt(struct prompts *prompts, const json_t *ids)
{
    const size_t n = json_array_size(ids);
    int32_t at = prompts->from[prompts->n];
    assert_true(n > 0 && (size_t)at + n <= MAX_ROWS);
    for (size_t i = 0; i < n; i++) {
        prompts->ids[at++] = (int32_t)json_integer_value(json_array_get(ids, i));
    }
    assert_in_range(++prompts->n, 1, 7);
    prompts->from[prompts->n] = at;
}

static void read_prompts(const struct family_case *family, struct prompts *prompts)
{
    char path[256];
    size_t n_bytes, i;
    json_t *ids;
    snprintf(path, sizeof path, "golden/models/%s/golden.json", family->model);
    unsigned char *text = golden_read(path, &n_bytes);
    json_t *root = text ? json_loadb((const char *)text, n_bytes, 0, NULL) : NULL;
    assert_non_null(root);
    *prompts = (struct prompts){ .n = 0 };
    json_array_foreach(json_object_get(root, "prompts"), i, ids) {
        add_prompt(prompts, ids);
    }
    add_prompt(prompts, json_object_get(json_object_get(root, "long"), "ids"));
    json_decref(root);
    golden_free(text);
}

/* [rows of all prompts, N_VOCAB] */
static float *logits_of(const char *model, const struct prompts *prompts)
{
    struct model_rig rig;
    float *logits = mem_alloc((size_t)MAX_ROWS * N_VOCAB, sizeof *logits);
    must(model_rig_open(&rig, &(struct model_rig_options){ .name = model, .context = CONTEXT, .cap_rows = CHUNK,
                                                           .threads = 2 }));
    assert_int_equal(model_get_config(rig.model)->n_vocab, N_VOCAB);
    for (int p = 0; p < prompts->n; p++) {
        const int32_t from = prompts->from[p], n = prompts->from[p + 1] - from;
        model_rig_feed(&rig, 0, prompts->ids + from, n, CHUNK, logits + (size_t)from * N_VOCAB);
    }
    model_rig_close(&rig);
    return logits;
}

/* The model's logits of the golden prompts are these bits. */
static void check_logits(const char *model, const struct prompts *prompts, const float *expected)
{
    const size_t n = (size_t)prompts->from[prompts->n] * N_VOCAB;
    float *logits = logits_of(model, prompts);
    if (memcmp(logits, expected, n * sizeof *logits) != 0) {
        print_error("%s: other logits\n", model);
    }
    assert_memory_equal(logits, expected, n * sizeof *logits);
    mem_free(logits);
}

/* ---- text ---- */

static size_t encode(const struct tokenizer *tokenizer, const json_t *text, int flags, int32_t *ids)
{
    size_t n;
    must(tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), flags, ids, CAP_IDS, &n));
    assert_true(n <= CAP_IDS);
    return n;
}

static void check_text(const struct tokenizer *a, const struct tokenizer *b, const json_t *text)
{
    static int32_t ids_a[CAP_IDS], ids_b[CAP_IDS];
    static const int FLAGS[] = { 0, TOKENIZE_SPECIAL, TOKENIZE_LITERAL };
    for (size_t f = 0; f < sizeof FLAGS / sizeof FLAGS[0]; f++) {
        const size_t n = encode(a, text, FLAGS[f], ids_a);
        if (n != encode(b, text, FLAGS[f], ids_b) || memcmp(ids_a, ids_b, n * sizeof *ids_a) != 0) {
            print_error("flags %d, other ids: '%s'\n", FLAGS[f], json_string_value(text));
        }
        assert_int_equal(n, encode(b, text, FLAGS[f], ids_b));
        assert_memory_equal(ids_a, ids_b, n * sizeof *ids_a);
    }
}

/* The same ids for every golden text, the same ends, the same words around messages. */
static void check_tokenizers(const struct family_case *family, const char *folder, const char *gguf)
{
    struct tokenizer *a, *b;
    enum chat_format format_a, format_b;
    char path[256];
    size_t n_bytes, i;
    const json_t *entry;
    snprintf(path, sizeof path, "golden/tokenizers/%s/cases.json", family->tokenizer);
    unsigned char *bytes = golden_read(path, &n_bytes);
    json_t *cases = json_loadb((const char *)bytes, n_bytes, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(cases) > 10);
    must(text_open_path(folder, &a));
    must(text_open_path(gguf, &b));
    json_array_foreach(cases, i, entry) {
        check_text(a, b, json_object_get(entry, "text"));
    }
    assert_int_equal(tokenizer_bos(a), tokenizer_bos(b));
    assert_int_equal(tokenizer_eos(a), tokenizer_eos(b));
    must(tokenizer_chat_format(a, NULL, &format_a));
    must(tokenizer_chat_format(b, NULL, &format_b));
    assert_string_equal(chat_format_name(format_a), family->format);
    assert_string_equal(chat_format_name(format_b), family->format);
    assert_int_equal(tokenizer_chat_end(a, format_a), tokenizer_chat_end(b, format_b));
    text_close(a);
    text_close(b);
    json_decref(cases);
    golden_free(bytes);
}

static json_t *read_json(const struct small_folder *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

static void write_json(const struct small_folder *folder, const char *name, json_t *root)
{
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    small_folder_put(folder, name, text, strlen(text));
    free(text);
    json_decref(root);
}

/* The model's end of text is the tokenizer's. */
static void put_eos(const struct small_folder *folder, const char *eos)
{
    json_t *tokenizer = read_json(folder, "tokenizer.json"), *config = read_json(folder, "config.json");
    const json_t *token;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token) {
        if (strcmp(json_string_value(json_object_get(token, "content")), eos) == 0) {
            json_object_set(config, "eos_token_id", json_object_get(token, "id"));
            found = true;
        }
    }
    assert_true(found);
    json_decref(tokenizer);
    write_json(folder, "config.json", config);
}

/* Folders keep a template in one of three places. */
enum template_place { TEMPLATE_FILE, TEMPLATE_TEXT, TEMPLATE_LIST, N_TEMPLATE_PLACES };

static void put_text(const struct small_folder *folder, const struct family_case *family,
                     enum template_place place)
{
    json_t *config = json_pack("{s:s}", "eos_token", family->eos);
    cut_tokenizer_put(folder, family->tokenizer, N_VOCAB);
    put_eos(folder, family->eos);
    if (place == TEMPLATE_FILE) {
        small_folder_put(folder, "chat_template.jinja", family->template, strlen(family->template));
    } else if (place == TEMPLATE_TEXT) {
        json_object_set_new(config, "chat_template", json_string(family->template));
    } else {
        json_object_set_new(config, "chat_template",
                            json_pack("[{s:s,s:s},{s:s,s:s}]", "name", "tool_use", "template", "[gMASK]", "name",
                                      "default", "template", family->template));
    }
    write_json(folder, "tokenizer_config.json", config);
}

/* ---- advice ---- */

static const char *const GENERATION[] = {
    "{\"do_sample\":true,\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95,\"repetition_penalty\":1.05}",
    "{\"temperature\":0.7,\"min_p\":0.05}",
    "{\"do_sample\":false}",
};
enum { N_GENERATION = sizeof GENERATION / sizeof GENERATION[0] };

static struct model_hints hints_of(const char *model)
{
    struct model_source *source;
    must(model_source_open(model, &source));
    const struct model_hints hints = model_source_hints(source);
    model_source_close(source);
    return hints;
}

/* The makers' advice is in the file, as the floats that requests take. */
static void check_hints(const char *folder, const char *gguf)
{
    const struct model_hints a = hints_of(folder), b = hints_of(gguf);
    assert_true(a.temperature >= 0);
    assert_true((float)a.temperature == (float)b.temperature && (float)a.top_p == (float)b.top_p &&
                (float)a.min_p == (float)b.min_p && (float)a.repetition_penalty == (float)b.repetition_penalty);
    assert_int_equal(a.top_k, b.top_k);
}

/* ---- tests ---- */

/* One family's way through the tests below: its folder, a place to write to, the expected bits. */
struct scene {
    char folder[512], gguf[300];
    struct small_folder out;
    struct prompts prompts;
    float *logits;             /* of the folder */
};

static bool scene_open(struct scene *scene, const struct family_case *family)
{
    if (!find_model(family, scene->folder)) {
        return false;
    }
    read_prompts(family, &scene->prompts);
    scene->logits = logits_of(scene->folder, &scene->prompts);
    small_folder_begin(&scene->out);
    snprintf(scene->gguf, sizeof scene->gguf, "%s/model.gguf", scene->out.path);
    return true;
}

static void scene_close(struct scene *scene)
{
    small_folder_remove(&scene->out);
    mem_free(scene->logits);
}

static void test_own_dtype(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_CASES; i++) {
        struct scene scene;
        if (scene_open(&scene, &CASES[i])) {
            const char *type = own_type(scene.folder);
            quantize(scene.folder, scene.gguf, type);
            assert_string_equal(own_type(scene.gguf), type);
            check_logits(scene.gguf, &scene.prompts, scene.logits);
            scene_close(&scene);
        }
    }
}

/* A folder of one file, with a tokenizer and advice. */
static void test_with_tokenizer(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_CASES; i++) {
        struct scene scene;
        struct small_folder merged;
        if (scene_open(&scene, &CASES[i])) {
            small_folder_begin(&merged);
            small_folder_merge(scene.folder, &merged, MERGE_VECTORS_AS_THEY_ARE);
            put_text(&merged, &CASES[i], (enum template_place)(i % N_TEMPLATE_PLACES));
            small_folder_put(&merged, "generation_config.json", GENERATION[i % N_GENERATION],
                             strlen(GENERATION[i % N_GENERATION]));
            quantize(merged.path, scene.gguf, own_type(merged.path));
            check_hints(merged.path, scene.gguf);
            check_logits(scene.gguf, &scene.prompts, scene.logits);
            check_tokenizers(&CASES[i], merged.path, scene.gguf);
            small_folder_remove(&merged);
            scene_close(&scene);
        }
    }
}

static void find_split_key(void *user, const char *key, const char *value)
{
    (void)value;
    *(int *)user += strncmp(key, "split.", 6) == 0;
}

static int n_split_keys(const char *gguf)
{
    struct model_source *source;
    int n = 0;
    must(model_source_open(gguf, &source));
    model_source_describe(source, find_split_key, &n);
    model_source_close(source);
    return n;
}

static void check_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *bytes_a = golden_read_file(a, &n_a), *bytes_b = golden_read_file(b, &n_b);
    assert_true(bytes_a && bytes_b && n_a > 0);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    golden_free(bytes_a);
    golden_free(bytes_b);
}

/* Parts are the whole, and what is made of parts is what is made of the whole, byte for byte. */
static void check_split(struct scene *scene)
{
    static const struct split_change none = { 0 };
    struct small_folder parts;
    char first[512], of_whole[300], of_parts[300];
    size_t n_bytes;
    snprintf(of_whole, sizeof of_whole, "%s/of_whole.gguf", scene->out.path);
    snprintf(of_parts, sizeof of_parts, "%s/of_parts.gguf", scene->out.path);
    quantize(scene->folder, scene->gguf, own_type(scene->folder));
    unsigned char *whole = golden_read_file(scene->gguf, &n_bytes);
    assert_non_null(whole);
    small_folder_begin(&parts);
    split_gguf_write(&parts, whole, n_bytes, N_PARTS, &none);
    split_gguf_path(&parts, &none, N_PARTS, 0, first);
    golden_free(whole);
    assert_int_equal(n_split_keys(first), 3);
    check_logits(first, &scene->prompts, scene->logits);
    static const char *const TYPES[] = { "f32", "q8_0" };
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        quantize(first, of_parts, TYPES[i]);
        quantize(scene->gguf, of_whole, TYPES[i]);
        assert_int_equal(n_split_keys(of_parts), 0);
        check_same_file(of_parts, of_whole);
    }
    quantize(first, of_parts, "f32"); /* wider, so nothing is lost */
    check_logits(of_parts, &scene->prompts, scene->logits);
    small_folder_remove(&parts);
}

static void test_split(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_CASES; i++) {
        struct scene scene;
        if (scene_open(&scene, &CASES[i])) {
            check_split(&scene);
            scene_close(&scene);
        }
    }
}

/* Norms and biases in F32 beside narrower matrices, as many folders have them: the same model. */
static void test_wide_vectors(void **state)
{
    (void)state;
    int n_widened = 0;
    golden_or_skip();
    for (int i = 0; i < N_CASES; i++) {
        struct scene scene;
        struct small_folder wide;
        if (scene_open(&scene, &CASES[i])) {
            const char *type = own_type(scene.folder);
            small_folder_begin(&wide);
            small_folder_merge(scene.folder, &wide, MERGE_VECTORS_WIDE);
            check_logits(wide.path, &scene.prompts, scene.logits);
            quantize(wide.path, scene.gguf, type);
            assert_string_equal(own_type(scene.gguf), type);
            check_logits(scene.gguf, &scene.prompts, scene.logits);
            n_widened += strcmp(type, "F32") != 0;
            small_folder_remove(&wide);
            scene_close(&scene);
        }
    }
    assert_true(n_widened > 0);
}

/* Routers stay floats by choice; what falls back does so for its rows of 96, no whole Q4_K block. */
static void test_routers_stay(void **state)
{
    (void)state;
    golden_or_skip();
    for (int i = 0; i < N_CASES; i++) {
        char path[512];
        struct model_source *inner, *source;
        const struct model_requantize_options options = { .type = TENSOR_Q4_K };
        if (!find_model(&CASES[i], path)) {
            continue;
        }
        must(model_source_open(path, &inner));
        must(model_source_requantize(inner, &options, &source));
        for (int64_t t = 0; t < model_source_n_tensors(source); t++) {
            struct model_requantize_report report;
            struct model_tensor_info info;
            must(model_source_tensor(source, t, &info));
            model_requantize_get_report(source, t, &report);
            const bool is_router = strstr(info.name, ".ffn_gate_inp.") != NULL;
            assert_true(report.falls_back == (info.n_dims > 1 && !is_router));
            assert_int_equal(report.to, is_router ? report.from : info.n_dims > 1 ? TENSOR_Q8_0 : TENSOR_F32);
        }
        model_source_close(source);
    }
}

int main(void)
{
    log_set_level(LOG_WARN); /* conversions are announced */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_dtype),
        cmocka_unit_test(test_with_tokenizer),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_wide_vectors),
        cmocka_unit_test(test_routers_stay),
    };
    return cmocka_run_group_tests_name("conversion", tests, NULL, NULL);
}
