/* folder_files: the safetensors files of a folder, one or those that its index names. Private to
 * model, of the full library alone.
 */
#ifndef MODEL_FOLDER_FILES_H
#define MODEL_FOLDER_FILES_H

#include "model/safetensors.h"

enum { FOLDER_MAX_FILES = 4096, FOLDER_PATH_CAP = 4096 };

struct folder_place { int32_t file; int64_t tensor; };
struct folder_files {
    struct safetensors *files;   /* [n_files] */
    int32_t n_files, cap_files;
    struct folder_place *places; /* [n_tensors] of all files */
    int64_t n_tensors;
    struct name_index index;     /* names → places */
};

/* folder_files_close() after a failure too. Files and index agree afterwards: every tensor stands in
 * one file, and where there is an index, in the one it names. */
enum status folder_files_open(const char *folder, struct folder_files *files);
void folder_files_close(struct folder_files *files);
/* Which of all tensors has this name; -1: none. */
int64_t folder_files_find(const struct folder_files *files, const char *name);
static inline const struct safetensor *folder_files_tensor(const struct folder_files *files, int64_t idx)
{
    return &files->files[files->places[idx].file].tensors[files->places[idx].tensor];
}
/* folder/name into path [FOLDER_PATH_CAP]. */
enum status folder_path(const char *folder, const char *name, char *path);

#endif
