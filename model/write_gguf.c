/* write_gguf: any source as a GGUF v3 file that other programs read: llama's metadata keys, rotated
 * rows permuted as they expect, tensor types unchanged. It is written beside its final name and moved
 * there when it is whole, so that no half file bears the name, and source and target may be one. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/config.h"
#include "model/family.h"
#include "model/hints.h"
#include "model/rope.h"

enum { ALIGNMENT = 32, COPY_BYTES = 4 << 20, WRITE_KEY_CAP = MODEL_NAME_CAP + 64, PATH_CAP = 4096 };

/* The header is put together twice: first only counted, then written. Errors stick to `file`. */
struct writer {
    FILE *file;
    uint64_t at, n_keys;
    const char *architecture;
};

static void put(struct writer *writer, const void *bytes, size_t n)
{
    fwrite(bytes, 1, n, writer->file);
    writer->at += n;
}

static void put_u32(struct writer *writer, uint32_t value) { put(writer, &value, sizeof value); }
static void put_u64(struct writer *writer, uint64_t value) { put(writer, &value, sizeof value); }

static void put_text(struct writer *writer, struct model_text text)
{
    put_u64(writer, text.n_bytes);
    put(writer, text.bytes, text.n_bytes);
}

static struct model_text text_of(const char *text)
{
    return (struct model_text){ text, (uint32_t)strlen(text) };
}

/* A name beginning with '.' stands under the architecture. */
static void put_key(struct writer *writer, const char *name, uint32_t type)
{
    char key[WRITE_KEY_CAP];
    snprintf(key, sizeof key, "%s%s", name[0] == '.' ? writer->architecture : "", name);
    put_text(writer, text_of(key));
    put_u32(writer, type);
    writer->n_keys++;
}

static void put_key_int(struct writer *writer, const char *name, int64_t value)
{
    put_key(writer, name, GGUF_UINT32);
    put_u32(writer, (uint32_t)value);
}

static void put_key_float(struct writer *writer, const char *name, double value)
{
    const float narrow = (float)value;
    put_key(writer, name, GGUF_FLOAT32);
    put(writer, &narrow, sizeof narrow);
}

static void put_key_bool(struct writer *writer, const char *name, bool value)
{
    const unsigned char byte = value ? 1 : 0;
    put_key(writer, name, GGUF_BOOL);
    put(writer, &byte, 1);
}

static void put_key_text(struct writer *writer, const char *name, const char *value)
{
    put_key(writer, name, GGUF_STRING);
    put_text(writer, text_of(value));
}

static void put_key_array(struct writer *writer, const char *name, uint32_t type, int64_t n)
{
    put_key(writer, name, GGUF_ARRAY);
    put_u32(writer, type);
    put_u64(writer, (uint64_t)n);
}

static void put_config(struct writer *writer, const struct model_config *config)
{
    put_key_text(writer, "general.architecture", config->architecture);
    put_key_text(writer, "general.name", config->name);
    put_key_int(writer, ".context_length", config->context_len);
    put_key_int(writer, ".embedding_length", config->dim);
    put_key_int(writer, ".block_count", config->n_layers);
    put_key_int(writer, ".feed_forward_length", config->ffn_dim);
    put_key_int(writer, ".attention.head_count", config->n_heads);
    put_key_int(writer, ".attention.head_count_kv", config->n_kv_heads);
    put_key_int(writer, ".attention.key_length", config->head_dim);
    put_key_int(writer, ".attention.value_length", config->head_dim);
    put_key_float(writer, ".attention.layer_norm_rms_epsilon", (double)config->norm_eps);
    put_key_int(writer, ".rope.dimension_count", config->rope.dims);
    put_key_float(writer, ".rope.freq_base", config->rope.base);
    put_key_int(writer, ".vocab_size", config->n_vocab);
    if (config->experts.n > 0) {
        put_key_int(writer, ".expert_count", config->experts.n);
        put_key_int(writer, ".expert_used_count", config->experts.n_used);
        put_key_int(writer, ".expert_feed_forward_length", config->experts.ffn_dim);
        put_key_bool(writer, ".expert_weights_norm", config->experts.normalised);
    }
    if (config->window > 0) {
        put_key_int(writer, ".attention.sliding_window", config->window);
    }
    if (config->rope.scaling == ROPE_SCALING_LINEAR || config->rope.scaling == ROPE_SCALING_YARN) {
        const bool linear = config->rope.scaling == ROPE_SCALING_LINEAR;
        put_key_text(writer, ".rope.scaling.type", linear ? "linear" : "yarn");
        put_key_float(writer, ".rope.scaling.factor", config->rope.factor);
        put_key_int(writer, ".rope.scaling.original_context_length", config->rope.original_context);
    }
    if (config->rope.scaling == ROPE_SCALING_YARN) {
        struct model_config plain = *config; /* the file holds what multiplies the formula's factor */
        plain.rope.attention_factor = 0;
        put_key_float(writer, ".rope.scaling.attn_factor",
                      config->rope.attention_factor / rope_magnitude(&plain));
        put_key_float(writer, ".rope.scaling.yarn_beta_fast", config->rope.beta_fast);
        put_key_float(writer, ".rope.scaling.yarn_beta_slow", config->rope.beta_slow);
    }
}

/* Every id that ends a text, in the keys there are for them: those that the vocabulary gives a key
 * keep it, those that only the config knows take the free ones. */
static void put_eos(struct writer *writer, const struct model_source *source)
{
    enum { N_KEYS = 3 };
    static const char *const KEYS[N_KEYS] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                              "tokenizer.ggml.eom_token_id" };
    int32_t ids[N_KEYS] = { source->has_vocab ? source->vocab.eos_id : -1,
                            source->has_vocab ? source->vocab.eot_id : -1, -1 };
    for (int32_t i = 0; i < source->config.n_eos; i++) {
        const int32_t id = source->config.eos_ids[i];
        int place = -1;
        for (int k = N_KEYS - 1; k >= 0; k--) {
            place = ids[k] < 0 ? k : place;
        }
        if (place >= 0 && id != ids[0] && id != ids[1] && id != ids[2]) {
            ids[place] = id;
        }
    }
    for (int k = 0; k < N_KEYS; k++) {
        if (ids[k] >= 0) {
            put_key_int(writer, KEYS[k], ids[k]);
        }
    }
}

static void put_vocab(struct writer *writer, const struct model_vocab *vocab)
{
    const struct { const char *key; int32_t id; } IDS[] = {
        { "tokenizer.ggml.bos_token_id", vocab->bos_id },
        { "tokenizer.ggml.unknown_token_id", vocab->unk_id },
        { "tokenizer.ggml.padding_token_id", vocab->pad_id },
    };
    put_key_text(writer, "tokenizer.ggml.model", vocab->kind);
    if (vocab->pre[0] != '\0') {
        put_key_text(writer, "tokenizer.ggml.pre", vocab->pre);
    }
    put_key_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, vocab->n_tokens);
    for (int32_t i = 0; i < vocab->n_tokens; i++) {
        put_text(writer, vocab->tokens[i]);
    }
    if (vocab->scores) {
        put_key_array(writer, "tokenizer.ggml.scores", GGUF_FLOAT32, vocab->n_tokens);
        put(writer, vocab->scores, (size_t)vocab->n_tokens * sizeof *vocab->scores);
    }
    if (vocab->classes) {
        put_key_array(writer, "tokenizer.ggml.token_type", GGUF_INT32, vocab->n_tokens);
        put(writer, vocab->classes, (size_t)vocab->n_tokens * sizeof *vocab->classes);
    }
    if (vocab->merges) {
        put_key_array(writer, "tokenizer.ggml.merges", GGUF_STRING, vocab->n_merges);
        for (int32_t i = 0; i < vocab->n_merges; i++) {
            put_text(writer, vocab->merges[i]);
        }
    }
    if (vocab->chat_template.n_bytes > 0) {
        put_key(writer, "tokenizer.chat_template", GGUF_STRING);
        put_text(writer, vocab->chat_template);
    }
    for (size_t i = 0; i < sizeof IDS / sizeof IDS[0]; i++) {
        if (IDS[i].id >= 0) {
            put_key_int(writer, IDS[i].key, IDS[i].id);
        }
    }
    put_key_bool(writer, "tokenizer.ggml.add_bos_token", vocab->add_bos);
    put_key_bool(writer, "tokenizer.ggml.add_eos_token", vocab->add_eos);
    put_key_bool(writer, "tokenizer.ggml.add_space_prefix", vocab->add_space_prefix);
}

static void put_hints(struct writer *writer, const struct model_source *source)
{
    struct hint_key keys[N_HINT_KEYS];
    const struct model_hints hints = model_source_hints(source);
    const int n = hints_to_keys(&hints, keys);
    for (int i = 0; i < n; i++) {
        if (keys[i].type == GGUF_FLOAT32) {
            put_key_float(writer, keys[i].name, keys[i].value);
        } else {
            put_key(writer, keys[i].name, keys[i].type);
            put_u32(writer, (uint32_t)(int32_t)keys[i].value);
        }
    }
}

/* ---- keys as another file has them ---- */

static uint64_t raw_array_bytes(const unsigned char *data, uint32_t elem_type, uint64_t n);

/* Of a string or an array inside an array: its length stands before it. */
static uint64_t raw_element_bytes(const unsigned char *data, uint32_t type)
{
    uint32_t elem_type;
    uint64_t n;
    if (type == GGUF_STRING) {
        memcpy(&n, data, sizeof n);
        return sizeof n + n;
    }
    memcpy(&elem_type, data, sizeof elem_type);
    memcpy(&n, data + sizeof elem_type, sizeof n);
    return sizeof elem_type + sizeof n + raw_array_bytes(data + sizeof elem_type + sizeof n, elem_type, n);
}

/* The reader has checked that all of it lies in the file, and how deep it goes. */
static uint64_t raw_array_bytes(const unsigned char *data, uint32_t elem_type, uint64_t n)
{
    const uint32_t scalar_bytes = gguf_scalar_bytes(elem_type);
    uint64_t bytes = n * scalar_bytes;
    for (uint64_t i = 0; scalar_bytes == 0 && i < n; i++) {
        bytes += raw_element_bytes(data + bytes, elem_type);
    }
    return bytes;
}

static void put_raw_key(struct writer *writer, const struct gguf_key *key)
{
    put_text(writer, (struct model_text){ key->name, key->name_len });
    put_u32(writer, key->type);
    if (key->type == GGUF_STRING) {
        put_u64(writer, key->n);
        put(writer, key->data, (size_t)key->n);
    } else if (key->type == GGUF_ARRAY) {
        put_u32(writer, key->elem_type);
        put_u64(writer, key->n);
        put(writer, key->data, (size_t)raw_array_bytes(key->data, key->elem_type, key->n));
    } else {
        put(writer, key->data, gguf_scalar_bytes(key->type));
    }
    writer->n_keys++;
}

/* What speaks of the file and not of the model is written anew; a whole file has no parts. */
static bool is_of_file(const struct gguf_key *key)
{
    static const char *const NAMES[] = { "general.alignment", "general.file_type",
                                         "general.quantization_version", "split." };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const size_t n = strlen(NAMES[i]);
        const bool is_prefix = NAMES[i][n - 1] == '.';
        if (key->name_len >= n && memcmp(key->name, NAMES[i], n) == 0 && (is_prefix || key->name_len == n)) {
            return true;
        }
    }
    return false;
}

static void put_raw_keys(struct writer *writer, const struct gguf *gguf)
{
    for (uint32_t i = 0; i < gguf->n_keys; i++) {
        if (!is_of_file(&gguf->keys[i])) {
            put_raw_key(writer, &gguf->keys[i]);
        }
    }
}

/* ---- the file ---- */

/* general.file_type of a file most of whose bytes have this type; -1: there is no number. */
static int64_t file_type_of(uint32_t type)
{
    static const struct { uint32_t type; int64_t number; } NUMBERS[] = {
        { TENSOR_F32, 0 }, { TENSOR_F16, 1 }, { TENSOR_Q4_0, 2 }, { TENSOR_Q4_1, 3 }, { TENSOR_Q8_0, 7 },
        { TENSOR_Q5_0, 8 }, { TENSOR_Q5_1, 9 }, { TENSOR_Q2_K, 10 }, { TENSOR_Q3_K, 12 },
        { TENSOR_Q4_K, 14 }, { TENSOR_Q5_K, 16 }, { TENSOR_Q6_K, 18 }, { TENSOR_BF16, 32 },
    };
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        if (NUMBERS[i].type == type) {
            return NUMBERS[i].number;
        }
    }
    return -1;
}

static uint32_t most_used_type(const struct model_source *source)
{
    enum { N_TYPES = 64 };
    uint64_t bytes[N_TYPES] = { 0 };
    uint32_t best = 0;
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const struct model_tensor_info *info = &source->tensors[i];
        if (info->n_dims > 1 && info->type < N_TYPES) {
            bytes[info->type] += info->bytes;
            best = bytes[info->type] > bytes[best] ? info->type : best;
        }
    }
    return best;
}

static void put_file_keys(struct writer *writer, const struct model_source *source)
{
    const uint32_t type = most_used_type(source);
    const int64_t number = file_type_of(type);
    put_key_int(writer, "general.alignment", ALIGNMENT);
    if (number >= 0) {
        put_key_int(writer, "general.file_type", number);
    }
    if (tensor_type_info(type)->block_elems > 1) {
        put_key_int(writer, "general.quantization_version", 2);
    }
}

static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void put_padding(struct writer *writer)
{
    static const unsigned char ZEROS[ALIGNMENT];
    put(writer, ZEROS, (size_t)(aligned(writer->at) - writer->at));
}

static void put_tensor_infos(struct writer *writer, const struct model_source *source)
{
    uint64_t offset = 0;
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const struct model_tensor_info *info = &source->tensors[i];
        put_text(writer, text_of(info->name));
        put_u32(writer, (uint32_t)info->n_dims);
        for (int32_t d = 0; d < info->n_dims; d++) {
            put_u64(writer, (uint64_t)info->dims[d]);
        }
        put_u32(writer, info->type);
        put_u64(writer, offset);
        offset += aligned(info->bytes);
    }
    put_padding(writer);
}

static void put_header(struct writer *writer, const struct model_source *source)
{
    put(writer, "GGUF", 4);
    put_u32(writer, 3);
    put_u64(writer, (uint64_t)source->n_tensors);
    const long count_at = ftell(writer->file);
    put_u64(writer, 0);
    if (source->gguf) {
        put_raw_keys(writer, source->gguf);
    } else {
        put_config(writer, &source->config);
        if (source->has_vocab) {
            put_vocab(writer, &source->vocab);
        }
        put_eos(writer, source);
        put_hints(writer, source);
    }
    put_file_keys(writer, source);
    put_tensor_infos(writer, source);
    /* now the number of keys is known */
    fseek(writer->file, count_at, SEEK_SET);
    fwrite(&writer->n_keys, sizeof writer->n_keys, 1, writer->file);
    fseek(writer->file, 0, SEEK_END);
}

struct write_job {
    struct model_source *source;
    struct writer *writer;
    unsigned char *buffer; /* [longest_copy] */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t done;
};

/* ---- rotated rows ---- */

/* Whether this tensor's rows lie in rotate-half order and the family's files permute them. */
static bool is_to_permute(const struct model_source *source, const struct model_tensor_info *info)
{
    const struct family *family = family_find(source->config.architecture);
    const size_t n = strlen(info->name);
    static const char *const SUFFIXES[] = { ".attn_q.weight", ".attn_k.weight" };
    if (!family || !family->permuted_qk || source->config.permuted_qk) {
        return false;
    }
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof SUFFIXES[0]; i++) {
        const size_t n_suffix = strlen(SUFFIXES[i]);
        if (n > n_suffix && strcmp(info->name + n - n_suffix, SUFFIXES[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Writes n_rows, whole heads, in the file's order: its row family_permuted_row(r) is row r. */
static void put_permuted(struct write_job *job, int64_t n_rows, uint64_t row_bytes)
{
    enum { MAX_HEAD_DIM = 1024 };
    const struct model_config *config = &job->source->config;
    int32_t row_at[MAX_HEAD_DIM];
    ASSERT(config->head_dim <= MAX_HEAD_DIM);
    for (int32_t row = 0; row < config->head_dim; row++) {
        row_at[family_permuted_row(row, config->rope.dims)] = row;
    }
    for (int64_t head = 0; head < n_rows; head += config->head_dim) {
        for (int32_t i = 0; i < config->head_dim; i++) {
            put(job->writer, job->buffer + (uint64_t)(head + row_at[i]) * row_bytes, (size_t)row_bytes);
        }
    }
}

static enum status put_tensor(struct write_job *job, int64_t tensor_idx)
{
    const struct model_tensor_info *info = &job->source->tensors[tensor_idx];
    const uint64_t row_bytes = source_row_bytes(info);
    const int64_t n_rows = source_n_rows(info);
    const bool permute = is_to_permute(job->source, info);
    const int64_t unit = permute ? job->source->config.head_dim : 1; /* heads stay whole */
    const int64_t fitting = (int64_t)(COPY_BYTES / row_bytes) / unit * unit, step = fitting > 0 ? fitting : unit;
    for (int64_t row = 0; row < n_rows; row += step) {
        const int64_t n = n_rows - row < step ? n_rows - row : step;
        TRY(model_source_read(job->source, tensor_idx, row, n, job->buffer));
        if (permute) {
            put_permuted(job, n, row_bytes);
        } else {
            put(job->writer, job->buffer, (size_t)((uint64_t)n * row_bytes));
        }
        job->done += (uint64_t)n * row_bytes;
        if (job->progress) {
            job->progress(job->user, job->done, job->source->total_bytes);
        }
        if (ferror(job->writer->file)) {
            return STATUS_IO;
        }
    }
    put_padding(job->writer);
    return STATUS_OK;
}

/* Bytes that are copied at once, at most: a row, or a head where heads stay whole. */
static size_t longest_copy(const struct model_source *source)
{
    uint64_t longest = COPY_BYTES;
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const struct model_tensor_info *info = &source->tensors[i];
        const uint64_t rows = is_to_permute(source, info) ? (uint64_t)source->config.head_dim : 1;
        const uint64_t bytes = source_row_bytes(info) * rows;
        longest = bytes > longest ? bytes : longest;
    }
    return (size_t)longest;
}

static enum status write_all(struct write_job *job, const char *part, const char *path)
{
    enum status status = STATUS_OK;
    put_header(job->writer, job->source);
    for (int64_t i = 0; i < job->source->n_tensors && status == STATUS_OK; i++) {
        status = put_tensor(job, i);
    }
    const int write_error = ferror(job->writer->file) ? errno : 0;
    if (fclose(job->writer->file) != 0 || write_error != 0) {
        status = status_fail(STATUS_IO, "cannot write %s: %s", part,
                             strerror(write_error != 0 ? write_error : errno));
    }
    if (status == STATUS_OK && rename(part, path) != 0) {
        status = status_fail(STATUS_IO, "cannot move %s to %s: %s", part, path, strerror(errno));
    }
    if (status != STATUS_OK) {
        unlink(part);
    }
    return status;
}

/* A device or pipe of that name would be replaced by the file, or swallow it. */
static enum status check_target(const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return status_fail(STATUS_IO, "cannot write %s: it is there, and is no regular file", path);
    }
    return STATUS_OK;
}

static enum status open_part(const char *part, FILE **file)
{
    struct stat info;
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    *file = NULL;
    if (fd < 0) {
        return status_fail(STATUS_IO, "cannot write %s: %s", part, strerror(errno));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return status_fail(STATUS_IO, "cannot write %s: it is there, and is no regular file", part);
    }
    *file = fdopen(fd, "wb");
    if (!*file) {
        close(fd);
        return status_fail(STATUS_IO, "cannot write %s: %s", part, strerror(errno));
    }
    return STATUS_OK;
}

enum status model_source_write_gguf(struct model_source *source, const char *path,
                                    void (*progress)(void *user, uint64_t done, uint64_t total),
                                    void *user)
{
    TRY(model_source_check(source));
    const struct family *family = family_find(source->config.architecture);
    ASSERT(!source->config.permuted_qk || (family && family->permuted_qk)); /* no source puts them back */
    char part[PATH_CAP];
    if (snprintf(part, sizeof part, "%s.part", path) >= PATH_CAP) {
        return status_fail(STATUS_INVALID, "a path of %zu characters, expected at most %d", strlen(path),
                           PATH_CAP - 6);
    }
    struct writer writer = { .architecture = source->config.architecture };
    struct write_job job = { .source = source, .writer = &writer, .progress = progress, .user = user };
    job.buffer = mem_alloc(longest_copy(source), 1);
    if (!job.buffer) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a copy buffer of %zu bytes",
                           longest_copy(source));
    }
    enum status status = check_target(path);
    if (status == STATUS_OK) {
        status = open_part(part, &writer.file);
    }
    if (status == STATUS_OK) {
        status = write_all(&job, part, path);
    }
    mem_free(job.buffer);
    return status;
}
