/* folder_files: opening the shards of a model and holding them against their index. */
#include "model/folder_files.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const SINGLE = "model.safetensors", *const INDEX =
                                                           "model.safetensors.index.json";

enum status folder_path(const char *folder, const char *name, char *path)
{
    const size_t n = strlen(folder);
    const char *const slash = n > 0 && folder[n - 1] == '/' ? "" : "/";
    if (snprintf(path, FOLDER_PATH_CAP, "%s%s%s", folder, slash, name) >= FOLDER_PATH_CAP) {
        return status_fail(STATUS_INVALID, "a path of %zu characters, expected at most %d",
                           n + strlen(name) + 1, FOLDER_PATH_CAP - 1);
    }
    return STATUS_OK;
}

int64_t folder_files_find(const struct folder_files *files, const char *name)
{
    return name_index_find(&files->index, name, (uint32_t)strlen(name));
}

static enum status add_file(struct folder_files *files, const char *path)
{
    if (files->n_files == files->cap_files) {
        const int32_t cap = files->cap_files > 0 ? 2 * files->cap_files : 8;
        struct safetensors *grown = mem_realloc(files->files, (size_t)cap, sizeof *grown);
        if (!grown) {
            return status_fail(STATUS_NO_MEMORY, "no memory for a table of %d files", cap);
        }
        files->files = grown;
        files->cap_files = cap;
    }
    return safetensors_open(path, &files->files[files->n_files++]);
}

/* ---- the index ---- */

/* A name in the folder itself: an index cannot lead out of it. */
static bool is_file_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    const size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    return n > n_suffix && n < 256 && !strchr(name, '/') && name[0] != '.' &&
           strcmp(name + n - n_suffix, suffix) == 0;
}

/* Place of a shard in files, opened now if it is new. `opened`: shard names → places. */
static enum status open_shard(struct folder_files *files, const char *folder, const char *shard,
                              struct name_index *opened, int32_t *at)
{
    char path[FOLDER_PATH_CAP];
    int64_t existing;
    TRY(name_index_add(opened, shard, (uint32_t)strlen(shard), (uint32_t)files->n_files,
                       &existing));
    if (existing >= 0) {
        *at = (int32_t)existing;
        return STATUS_OK;
    }
    if (files->n_files >= FOLDER_MAX_FILES) {
        return status_fail(STATUS_INVALID, "%s: %s names more than %d files", folder, INDEX,
                           FOLDER_MAX_FILES);
    }
    TRY(folder_path(folder, shard, path));
    if (access(path, F_OK) != 0) {
        return status_fail(STATUS_INVALID, "%s: %s names %s, which is not there", folder, INDEX,
                           shard);
    }
    *at = files->n_files;
    return add_file(files, path);
}

static enum status check_entry(struct folder_files *files, const char *folder, const char *name,
                               const json_t *value, struct name_index *opened)
{
    const char *shard = json_string_value(value);
    int32_t at = 0;
    if (!shard || !is_file_name(shard)) {
        return status_fail(
            STATUS_INVALID,
            "%s: %s: expected every tensor to name a .safetensors file of the folder", folder,
            INDEX);
    }
    TRY(open_shard(files, folder, shard, opened, &at));
    if (safetensors_find(&files->files[at], name) < 0) {
        char shown[SAFETENSORS_MAX_NAME];
        snprintf(shown, sizeof shown, "%.*s", SAFETENSORS_MAX_NAME - 1, name);
        return status_fail(STATUS_INVALID,
                           "%s: %s says that %s stands in %s, which does not hold it", folder,
                           INDEX, shown, shard);
    }
    return STATUS_OK;
}

/* Every tensor of a file must be one that the index knows, in this file. */
static enum status check_file(const struct folder_files *files, int32_t f, const json_t *map,
                              const struct name_index *opened)
{
    const struct safetensors *file = &files->files[f];
    for (int64_t i = 0; i < file->n_tensors; i++) {
        const char *name = file->tensors[i].name,
                   *said = json_string_value(json_object_get(map, name));
        if (!said) {
            return status_fail(STATUS_INVALID, "%s: it holds %s, which %s does not name",
                               file->label, name, INDEX);
        }
        if (name_index_find(opened, said, (uint32_t)strlen(said)) != f) {
            return status_fail(STATUS_INVALID, "%s: it holds %s, which %s says stands in %s",
                               file->label, name, INDEX, said);
        }
    }
    return STATUS_OK;
}

static enum status open_indexed(struct folder_files *files, const char *folder, const json_t *index)
{
    const json_t *map = folder_json_find(index, "weight_map");
    struct name_index opened = { 0 };
    const char *name;
    json_t *value;
    enum status status = STATUS_OK;
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return status_fail(STATUS_INVALID, "%s: %s: expected a weight_map that names tensors",
                           folder, INDEX);
    }
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        TRY_GOTO(check_entry(files, folder, name, value, &opened), out);
    }
    for (int32_t f = 0; f < files->n_files; f++) {
        TRY_GOTO(check_file(files, f, map, &opened), out);
    }
out:
    name_index_deinit(&opened);
    return status;
}

/* ---- the folder ---- */

/* Neither file nor index: what is there instead? */
static enum status refuse_folder(const char *folder)
{
    const struct { const char *part, *says;
    } SIGNS[] = {
        { ".safetensors", "it holds parts of a model and no index of them" },
        { ".bin", "weights in .bin files are not read" },
        { ".pt", "weights in .pt files are not read" },
        { ".gguf", "to use a GGUF file of it, name the file" },
    };
    const char *says = NULL;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        for (size_t i = 0; i < sizeof SIGNS / sizeof SIGNS[0] && !says; i++) {
            const char *at = strstr(entry->d_name, SIGNS[i].part);
            says = at && strcmp(at, SIGNS[i].part) == 0 ? SIGNS[i].says : NULL;
        }
    }
    if (entries) {
        closedir(entries);
    }
    return status_fail(STATUS_INVALID, "%s: expected %s or %s in the folder%s%s", folder, SINGLE,
                       INDEX, says ? "; " : "", says ? says : "");
}

static enum status open_all(const char *folder, struct folder_files *files)
{
    char path[FOLDER_PATH_CAP];
    json_t *index;
    TRY(folder_path(folder, SINGLE, path));
    if (access(path, F_OK) == 0) {
        return add_file(files, path);
    }
    TRY(folder_path(folder, INDEX, path));
    TRY(folder_json_read_file(path, &index));
    if (!index) {
        return refuse_folder(folder);
    }
    const enum status status = open_indexed(files, folder, index);
    json_decref(index);
    return status;
}

static enum status index_tensors(struct folder_files *files)
{
    int64_t n = 0, existing;
    for (int32_t f = 0; f < files->n_files; f++) {
        n += files->files[f].n_tensors;
    }
    files->places = mem_alloc((size_t)n, sizeof *files->places);
    if (!files->places) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %lld tensors", (long long)n);
    }
    for (int32_t f = 0; f < files->n_files; f++) {
        for (int64_t i = 0; i < files->files[f].n_tensors; i++) {
            const char *name = files->files[f].tensors[i].name;
            TRY(name_index_add(&files->index, name, (uint32_t)strlen(name),
                               (uint32_t)files->n_tensors, &existing));
            ASSERT(existing < 0); /* the index gives each tensor one file */
            files->places[files->n_tensors++] = (struct folder_place){ f, i };
        }
    }
    return STATUS_OK;
}

enum status folder_files_open(const char *folder, struct folder_files *files)
{
    *files = (struct folder_files){ 0 };
    TRY(open_all(folder, files));
    return index_tensors(files);
}

void folder_files_close(struct folder_files *files)
{
    for (int32_t f = 0; f < files->n_files; f++) {
        safetensors_close(&files->files[f]);
    }
    name_index_deinit(&files->index);
    mem_free(files->places);
    mem_free(files->files);
    *files = (struct folder_files){ 0 };
}
