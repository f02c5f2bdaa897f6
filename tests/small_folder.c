/* small_folder: see the header. */
#include "tests/small_folder.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "backend/backend.h"
#include "base/base.h"
#include "tests/golden.h"

enum { MAX_BYTES = 1 << 20, PATH_CAP = 512 };

static const struct small_tensor { const char *name; int64_t rows, cols; int shard; } TENSORS[] = {
    { "model.embed_tokens.weight", 8, 32, 0 },
    { "lm_head.weight", 8, 32, 1 },
    { "model.norm.weight", 0, 32, 1 },
    { "model.layers.0.input_layernorm.weight", 0, 32, 0 },
    { "model.layers.0.self_attn.q_proj.weight", 32, 32, 0 },
    { "model.layers.0.self_attn.k_proj.weight", 32, 32, 1 },
    { "model.layers.0.self_attn.v_proj.weight", 32, 32, 0 },
    { "model.layers.0.self_attn.o_proj.weight", 32, 32, 0 },
    { "model.layers.0.post_attention_layernorm.weight", 0, 32, 1 },
    { "model.layers.0.mlp.gate_proj.weight", 64, 32, 0 },
    { "model.layers.0.mlp.up_proj.weight", 64, 32, 1 },
    { "model.layers.0.mlp.down_proj.weight", 32, 64, 0 },
};
enum { N_TENSORS = sizeof TENSORS / sizeof TENSORS[0] };

static const char CONFIG[] =
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":2,\"vocab_size\":8,"
    "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"tie_word_embeddings\":false,\"hidden_act\":\"silu\",\"torch_dtype\":\"float32\","
    "\"eos_token_id\":2}";

/* ---- files ---- */

void small_folder_begin(struct small_folder *folder)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder->path, sizeof folder->path, "%s/tandem-folder-XXXXXX",
             tmp && tmp[0] ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder->path));
}

static void path_of(const struct small_folder *folder, const char *name, char *path)
{
    assert_in_range(snprintf(path, PATH_CAP, "%s/%s", folder->path, name), 1, PATH_CAP - 1);
}

void small_folder_put(const struct small_folder *folder, const char *name, const void *bytes,
                      size_t n)
{
    char path[PATH_CAP];
    path_of(folder, name, path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

void small_folder_remove(const struct small_folder *folder)
{
    DIR *entries = opendir(folder->path);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char path[PATH_CAP];
        if (entry->d_name[0] != '.') {
            path_of(folder, entry->d_name, path);
            assert_int_equal(unlink(path), 0);
        }
    }
    closedir(entries);
    assert_int_equal(rmdir(folder->path), 0);
}

/* ---- safetensors ---- */

static size_t dtype_bytes(const char *dtype)
{
    return strcmp(dtype, "F32") == 0                                ? 4
           : strcmp(dtype, "F64") == 0 || strcmp(dtype, "I64") == 0 ? 8
                                                                    : 2;
}

/* Numbers that depend on name and place; 1.0 around norms. */
static void put_values(unsigned char *to, const struct small_tensor *tensor, const char *dtype,
                       int64_t n, const float *third)
{
    for (int64_t i = 0; i < n; i++) {
        const uint64_t word =
            rng_mix64(digest_bytes(tensor->name, strlen(tensor->name)) + (uint64_t)i);
        float value = (float)(int32_t)(word >> 40) * 0x1p-24f * 0.5f - 0.25f;
        value = i == 2 && third ? *third : tensor->rows == 0 ? 1.0f + value : value;
        if (strcmp(dtype, "F32") == 0) {
            memcpy(to + i * 4, &value, 4);
        } else {
            const uint16_t half = strcmp(dtype, "F16") == 0
                                      ? mathx_f32_to_f16(value)
                                      : (uint16_t)(mathx_to_bits(value) >> 16);
            memcpy(to + i * (int64_t)dtype_bytes(dtype), &half, 2);
        }
    }
}

struct shard { json_t *header; unsigned char *data; size_t n; };

static void add_tensor(struct shard *shard, const struct small_tensor *tensor,
                       const struct small_change *change)
{
    const int changed = change->tensor && strcmp(change->tensor, tensor->name) == 0;
    const char *dtype = changed && change->dtype ? change->dtype : "F32";
    const int64_t rows = changed && change->shape ? change->shape[0] : tensor->rows;
    const int64_t cols = changed && change->shape ? change->shape[1] : tensor->cols;
    const int64_t n = (rows > 0 ? rows : 1) * cols;
    const size_t bytes = (size_t)n * dtype_bytes(dtype);
    assert_true(shard->n + bytes <= MAX_BYTES);
    put_values(shard->data + shard->n, tensor, dtype, n, changed ? change->value : NULL);
    json_t *entry = changed && change->entry ? json_loads(change->entry, JSON_DECODE_ANY, NULL)
                    : rows > 0 ? json_pack("{s:s,s:[I,I],s:[I,I]}", "dtype", dtype, "shape",
                                           (json_int_t)rows, (json_int_t)cols, "data_offsets",
                                           (json_int_t)shard->n, (json_int_t)(shard->n + bytes))
                               : json_pack("{s:s,s:[I],s:[I,I]}", "dtype", dtype, "shape",
                                           (json_int_t)cols, "data_offsets", (json_int_t)shard->n,
                                           (json_int_t)(shard->n + bytes));
    assert_non_null(entry);
    json_object_set_new(shard->header, tensor->name, entry);
    shard->n += bytes;
}

static void write_shard(const struct small_folder *folder, const char *name,
                        const struct shard *shard, const struct small_change *change)
{
    char *text = json_dumps(shard->header, JSON_COMPACT);
    const char *header = change->header ? change->header : text;
    const uint64_t n_header = strlen(header);
    const uint64_t said = change->header_length ? *change->header_length : n_header;
    unsigned char *all = mem_alloc(8 + n_header + shard->n, 1);
    memcpy(all, &said, 8);
    memcpy(all + 8, header, n_header);
    memcpy(all + 8 + n_header, shard->data, shard->n);
    small_folder_put(folder, name, all, 8 + (size_t)n_header + shard->n - change->cut);
    if (change->grow > 0) {
        char path[PATH_CAP];
        path_of(folder, name, path);
        assert_int_equal(truncate(path, change->grow), 0);
    }
    mem_free(all);
    free(text);
}

static void write_weights(const struct small_folder *folder, const struct small_change *change)
{
    static const char *const NAMES[] = { "model-00001-of-00002.safetensors",
                                         "model-00002-of-00002.safetensors" };
    const int n_shards = change->n_shards > 0 ? change->n_shards : 1;
    json_t *map = json_object();
    for (int s = 0; s < n_shards; s++) {
        struct shard shard = { json_object(), mem_alloc(MAX_BYTES, 1), 0 };
        json_object_set_new(shard.header, "__metadata__", json_pack("{s:s}", "format", "pt"));
        for (int i = 0; i < N_TENSORS; i++) {
            if ((n_shards == 1 || TENSORS[i].shard == s) &&
                !(change->drop && strcmp(change->drop, TENSORS[i].name) == 0)) {
                add_tensor(&shard, &TENSORS[i], change);
                if (!(change->index_drop && strcmp(change->index_drop, TENSORS[i].name) == 0)) {
                    json_object_set_new(map, TENSORS[i].name, json_string(NAMES[s]));
                }
            }
        }
        if (change->extra && s == 0) {
            add_tensor(&shard, &(struct small_tensor){ change->extra, 0, 32, 0 }, change);
            json_object_set_new(map, change->extra, json_string(NAMES[s]));
        }
        if (!(s == 1 && change->drop_shard)) {
            write_shard(folder, n_shards == 1 ? "model.safetensors" : NAMES[s], &shard, change);
        }
        json_decref(shard.header);
        mem_free(shard.data);
    }
    if (n_shards > 1 && !(change->index && change->index[0] == '\0')) {
        json_t *index = json_pack("{s:O}", "weight_map", map);
        char *text = json_dumps(index, 0);
        const char *written = change->index ? change->index : text;
        small_folder_put(folder, "model.safetensors.index.json", written, strlen(written));
        free(text);
        json_decref(index);
    }
    json_decref(map);
}

void small_folder_make(struct small_folder *folder, const struct small_change *change)
{
    json_t *config = json_loads(CONFIG, 0, NULL);
    assert_non_null(config);
    for (int i = 0; i < SMALL_FOLDER_KEYS && change->config[i].key; i++) {
        json_object_del(config, change->config[i].key);
        if (change->config[i].value) {
            json_t *value = json_loads(change->config[i].value, JSON_DECODE_ANY, NULL);
            assert_non_null(value);
            json_object_set_new(config, change->config[i].key, value);
        }
    }
    char *text = json_dumps(config, 0);
    const char *written = change->config_text ? change->config_text : text;
    small_folder_begin(folder);
    small_folder_put(folder, "config.json", written, strlen(written));
    if (change->generation) {
        small_folder_put(folder, "generation_config.json", change->generation,
                         strlen(change->generation));
    }
    write_weights(folder, change);
    free(text);
    json_decref(config);
}

/* ---- merging ---- */

/* Appends the tensor's bytes, vectors of 16-bit floats as F32 where that is asked for. */
static void merge_tensor(json_t *entry, const unsigned char *from, size_t bytes, enum merge_vectors vectors,
                         struct shard *shard)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const bool widens = vectors == MERGE_VECTORS_WIDE && strcmp(dtype, "F32") != 0 &&
                        json_array_size(json_object_get(entry, "shape")) == 1;
    const bool is_f16 = strcmp(dtype, "F16") == 0;
    const size_t begin = shard->n, n_bytes = widens ? 2 * bytes : bytes;
    shard->data = mem_realloc(shard->data, begin + n_bytes, 1);
    if (widens) {
        tensor_row_to_f32(is_f16 ? TENSOR_F16 : TENSOR_BF16, from, (int64_t)bytes / 2,
                          (float *)(void *)(shard->data + begin));
        json_object_set_new(entry, "dtype", json_string("F32"));
    } else {
        memcpy(shard->data + begin, from, bytes);
    }
    shard->n += n_bytes;
    json_object_set_new(entry, "data_offsets", json_pack("[I,I]", (json_int_t)begin, (json_int_t)shard->n));
}

static void merge_file(const char *path, enum merge_vectors vectors, struct shard *shard)
{
    size_t n_bytes;
    uint64_t n_header;
    const char *name;
    json_t *entry;
    unsigned char *file = golden_read_file(path, &n_bytes);
    assert_non_null(file);
    memcpy(&n_header, file, 8);
    json_t *part = json_loadb((const char *)file + 8, (size_t)n_header, 0, NULL);
    json_object_foreach(part, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        const json_t *offsets = json_object_get(entry, "data_offsets");
        const json_int_t begin = json_integer_value(json_array_get(offsets, 0));
        const json_int_t end = json_integer_value(json_array_get(offsets, 1));
        merge_tensor(entry, file + 8 + n_header + begin, (size_t)(end - begin), vectors, shard);
        json_object_set(shard->header, name, entry);
    }
    json_decref(part);
    golden_free(file);
}

static int ends_in(const char *name, const char *suffix)
{
    const size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

void small_folder_merge(const char *from, const struct small_folder *to, enum merge_vectors vectors)
{
    struct shard shard = { json_object(), NULL, 0 };
    DIR *entries = opendir(from);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char path[PATH_CAP];
        snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
        if (ends_in(entry->d_name, ".safetensors")) {
            merge_file(path, vectors, &shard);
        } else if (strcmp(entry->d_name, "config.json") == 0) {
            size_t n;
            unsigned char *bytes = golden_read_file(path, &n);
            small_folder_put(to, entry->d_name, bytes, n);
            golden_free(bytes);
        }
    }
    closedir(entries);
    write_shard(to, "model.safetensors", &shard, &(struct small_change){ 0 });
    json_decref(shard.header);
    mem_free(shard.data);
}
