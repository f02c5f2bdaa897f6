/* source: the door's functions over any kind of source, with the checks they have in common. */
#include "model/source.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "model/hints.h"

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum status model_source_open(const char *name, struct model_source **out)
{
    *out = NULL;
    if (strncmp(name, "synth:", 6) == 0) {
        return synth_source_open(name, out);
    }
    return is_folder(name) ? folder_source_open(name, out) : gguf_source_open(name, out);
}

enum status model_source_open_bytes(const void *bytes, size_t n_bytes, struct model_source **out)
{
    *out = NULL;
    return gguf_source_open_bytes(bytes, n_bytes, out);
}

void model_source_close(struct model_source *source)
{
    if (!source) {
        return;
    }
    source->kind->close(source);
    source_base_deinit(source);
    mem_free(source);
}

enum status model_source_check(const struct model_source *source)
{
    if (source->check != STATUS_OK) {
        return status_fail(source->check, "%s", source->check_sentence);
    }
    return STATUS_OK;
}

const struct model_config *model_source_config(const struct model_source *source)
{
    return &source->config;
}

int64_t model_source_n_tensors(const struct model_source *source) { return source->n_tensors; }
uint64_t model_source_bytes(const struct model_source *source) { return source->total_bytes; }

enum status model_source_tensor(const struct model_source *source, int64_t idx,
                                struct model_tensor_info *info)
{
    if (idx < 0 || idx >= source->n_tensors) {
        return status_fail(STATUS_INVALID, "%s: there is no tensor %lld of %lld", source->label,
                           (long long)idx, (long long)source->n_tensors);
    }
    *info = source->tensors[idx];
    return STATUS_OK;
}

enum status model_source_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                              int64_t n_rows, void *out)
{
    struct model_tensor_info info;
    TRY(model_source_tensor(source, tensor_idx, &info));
    const int64_t total = source_n_rows(&info);
    if (first_row < 0 || n_rows < 0 || first_row > total || n_rows > total - first_row) {
        return status_fail(STATUS_INVALID, "%s: %s has rows 0 to %lld, asked for %lld from %lld",
                           source->label, info.name, (long long)total - 1, (long long)n_rows,
                           (long long)first_row);
    }
    return n_rows > 0 ? source->kind->read(source, tensor_idx, first_row, n_rows, out) : STATUS_OK;
}

void model_source_describe(const struct model_source *source,
                           void (*line)(void *user, const char *key, const char *value), void *user)
{
    source->kind->describe(source, line, user);
}

const struct model_vocab *model_source_vocab(const struct model_source *source)
{
    return source->has_vocab ? &source->vocab : NULL;
}

const char *model_source_folder(const struct model_source *source) { return source->folder; }

const struct model_pair *model_source_pair(const struct model_source *source) { return source->pair; }

struct model_hints model_source_hints(const struct model_source *source)
{
    return source->has_hints ? source->hints : HINTS_NONE;
}

/* ---- shared by the kinds ---- */

void source_base_deinit(struct model_source *source) { name_index_deinit(&source->tensor_index); }

enum status source_index_tensors(struct model_source *source)
{
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const char *name = source->tensors[i].name;
        int64_t existing;
        TRY(name_index_add(&source->tensor_index, name, (uint32_t)strlen(name), (uint32_t)i,
                           &existing));
        if (existing >= 0) {
            return status_fail(STATUS_INVALID, "%s: tensor %s stands in two of the files", source->label, name);
        }
    }
    return STATUS_OK;
}

int64_t source_find_tensor(const struct model_source *source, const char *name)
{
    return name_index_find(&source->tensor_index, name, (uint32_t)strlen(name));
}

void source_shown_name(const struct model_source *source, const char *name, char *shown)
{
    if (source->kind && source->kind->shown_name) {
        source->kind->shown_name(source, name, shown);
    } else {
        snprintf(shown, SOURCE_NAME_CAP, "%s", name);
    }
}

uint64_t source_row_bytes(const struct model_tensor_info *info)
{
    const struct tensor_type_info *type = tensor_type_info(info->type);
    return (uint64_t)info->dims[0] / type->block_elems * type->block_bytes;
}

int64_t source_n_rows(const struct model_tensor_info *info)
{
    int64_t n = 1;
    for (int32_t i = 1; i < info->n_dims; i++) {
        n *= info->dims[i];
    }
    return n;
}

enum status source_keep_check(struct model_source *source, enum status status)
{
    if (status == STATUS_OK || status == STATUS_NO_MEMORY) {
        return status;
    }
    source->check = status;
    snprintf(source->check_sentence, sizeof source->check_sentence, "%s", status_message());
    return STATUS_OK;
}
