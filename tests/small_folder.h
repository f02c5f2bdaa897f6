/* small_folder: Hugging Face folders made by hand, right or wrong in one place, for the reader's tests.
 *
 * small_folder_make() writes the smallest folder that can be loaded: a llama of one layer, width 32, two
 * heads of 16, vocabulary of 8, F32. A change names a thing that is left out or made wrong. The same
 * tensor holds the same numbers however the folder is cut into files.
 */
#ifndef TESTS_SMALL_FOLDER_H
#define TESTS_SMALL_FOLDER_H

#include <stddef.h>
#include <stdint.h>

enum { SMALL_FOLDER_KEYS = 6 };
struct small_change {
    /* keys of config.json: the JSON text of the value; NULL: left out */
    struct { const char *key, *value; } config[SMALL_FOLDER_KEYS];
    const char *config_text;       /* all of config.json instead */
    const char *generation;        /* generation_config.json; NULL: none */
    const char *drop;              /* this tensor is left out */
    const char *tensor;            /* this tensor ... */
    const char *dtype;             /* ... says this dtype (its bytes are of that size) */
    const int64_t *shape;          /* [2] ... this shape */
    const float *value;            /* ... holds this number in its third place */
    const char *entry;             /* ... has this JSON text in the header */
    const char *extra;             /* a tensor of 32 floats more */
    const char *header;            /* the whole header's text instead */
    const uint64_t *header_length; /* what the first 8 bytes say */
    int n_shards;                  /* 2: two files and an index; 0: one file */
    const char *index;             /* the index's text instead */
    const char *index_drop;        /* this tensor is not in the index */
    int drop_shard;                /* the second file is not there */
    size_t cut;                    /* so many bytes less at the file's end */
    int64_t grow;                  /* the file is made so long, sparsely */
};

struct small_folder { char path[256]; };
void small_folder_make(struct small_folder *folder, const struct small_change *change);
/* Writes a file of the folder. */
void small_folder_put(const struct small_folder *folder, const char *name, const void *bytes, size_t n);
/* Removes it with all its files. */
void small_folder_remove(const struct small_folder *folder);
/* An empty folder of its own. */
void small_folder_begin(struct small_folder *folder);
/* All safetensors files of folder `from` as one file of folder `to`, with its config.json. */
enum merge_vectors { MERGE_VECTORS_AS_THEY_ARE, MERGE_VECTORS_WIDE /* F32 */ };
void small_folder_merge(const char *from, const struct small_folder *to, enum merge_vectors vectors);

#endif
