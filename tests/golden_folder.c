/* golden_folder: see the header. */
#include "tests/golden_folder.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "model/source.h"
#include "tests/golden.h"

enum { MAX_FILES = 8, MAX_TENSORS = 64, NAME_CAP = 64 };

struct golden_folder {
    struct model_source base;
    unsigned char *files[MAX_FILES];
    int n_files;
    struct model_tensor_info tensors[MAX_TENSORS];
    const unsigned char *data[MAX_TENSORS];
    char names[MAX_TENSORS][NAME_CAP];
};

static void golden_folder_close(struct model_source *source)
{
    struct golden_folder *self = (struct golden_folder *)source;
    for (int i = 0; i < self->n_files; i++) {
        golden_free(self->files[i]);
    }
}

static enum status golden_folder_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                      int64_t n_rows, void *out)
{
    const struct golden_folder *self = (const struct golden_folder *)source;
    const uint64_t row_bytes = source_row_bytes(&source->tensors[tensor_idx]);
    memcpy(out, self->data[tensor_idx] + (uint64_t)first_row * row_bytes, (uint64_t)n_rows * row_bytes);
    return STATUS_OK;
}

static const struct source_kind GOLDEN_FOLDER = { .close = golden_folder_close,
                                                  .read = golden_folder_read };

/* "model.layers.2.self_attn.q_proj.weight" → "blk.2.attn_q.weight" */
static void rename_tensor(const char *name, char *out)
{
    static const struct { const char *theirs, *ours; } NAMES[] = {
        { "input_layernorm", "attn_norm" },   { "self_attn.q_proj", "attn_q" },
        { "self_attn.k_proj", "attn_k" },     { "self_attn.v_proj", "attn_v" },
        { "self_attn.o_proj", "attn_output" }, { "post_attention_layernorm", "ffn_norm" },
        { "mlp.gate_proj", "ffn_gate" },      { "mlp.up_proj", "ffn_up" },
        { "mlp.down_proj", "ffn_down" },
    };
    int layer = 0, at = 0;
    if (sscanf(name, "model.layers.%d.%n", &layer, &at) == 1) {
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
            if (strncmp(name + at, NAMES[i].theirs, strlen(NAMES[i].theirs)) == 0) {
                snprintf(out, NAME_CAP, "blk.%d.%s.weight", layer, NAMES[i].ours);
            }
        }
    } else {
        snprintf(out, NAME_CAP, "%s",
                 strcmp(name, "lm_head.weight") == 0      ? "output.weight"
                 : strcmp(name, "model.norm.weight") == 0 ? "output_norm.weight"
                                                          : "token_embd.weight");
    }
}

static void add_tensor(struct golden_folder *self, const char *name, const json_t *entry,
                       const unsigned char *data)
{
    const int64_t idx = self->base.n_tensors++;
    struct model_tensor_info *info = &self->tensors[idx];
    const json_t *shape = json_object_get(entry, "shape"), *at = json_object_get(entry, "data_offsets");
    ASSERT(idx < MAX_TENSORS);
    rename_tensor(name, self->names[idx]);
    info->name = self->names[idx];
    info->type = tensor_type_by_name(json_string_value(json_object_get(entry, "dtype")))->number;
    info->n_dims = (int32_t)json_array_size(shape);
    for (int32_t d = 0; d < info->n_dims; d++) { /* theirs: slowest first */
        info->dims[d] = json_integer_value(json_array_get(shape, (size_t)(info->n_dims - 1 - d)));
    }
    info->bytes = source_row_bytes(info) * (uint64_t)source_n_rows(info);
    self->data[idx] = data + json_integer_value(json_array_get(at, 0));
    self->base.total_bytes += info->bytes;
}

static void add_file(struct golden_folder *self, const char *relative)
{
    size_t n_bytes;
    uint64_t n_header;
    const char *name;
    json_t *entry;
    unsigned char *file = golden_read(relative, &n_bytes);
    ASSERT(file && self->n_files < MAX_FILES);
    self->files[self->n_files++] = file;
    memcpy(&n_header, file, sizeof n_header);
    json_t *header = json_loadb((const char *)file + 8, n_header, 0, NULL);
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0) {
            add_tensor(self, name, entry, file + 8 + n_header);
        }
    }
    json_decref(header);
}

enum status golden_folder_open(const char *relative, const struct model_config *config,
                               struct model_source **out)
{
    char path[4096];
    struct golden_folder *self = mem_alloc(1, sizeof *self);
    DIR *folder = golden_path(relative, path, sizeof path) ? opendir(path) : NULL;
    ASSERT(self && folder);
    self->base.kind = &GOLDEN_FOLDER;
    self->base.config = *config;
    self->base.tensors = self->tensors;
    snprintf(self->base.label, sizeof self->base.label, "%s", relative);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const char *ending = strrchr(entry->d_name, '.');
        if (ending && strcmp(ending, ".safetensors") == 0) {
            snprintf(path, sizeof path, "%s/%s", relative, entry->d_name);
            add_file(self, path);
        }
    }
    closedir(folder);
    *out = &self->base;
    return source_index_tensors(&self->base);
}
