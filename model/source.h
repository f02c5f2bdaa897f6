/* source: what all kinds of source share. A kind is one file: it fills the base (config, tensor
 * table, vocabulary) when it opens, and reads rows. Private to model.
 */
#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

#include "model/model.h"
#include "model/names.h"

enum { SOURCE_SENTENCE_CAP = 512, SOURCE_NAME_CAP = 256 };

struct gguf;
struct source_kind {
    void (*close)(struct model_source *source); /* frees what the kind owns, not the base */
    /* any thread; the range has been checked */
    enum status (*read)(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                        int64_t n_rows, void *out);
    void (*describe)(const struct model_source *source,
                     void (*line)(void *user, const char *key, const char *value), void *user);
    /* What the file calls a tensor that the table knows as `name`. May be NULL: the same. */
    void (*shown_name)(const struct model_source *source, const char *name, char *shown);
    /* The weights have been copied: what is cached of them may go. May be NULL. */
    void (*consumed)(struct model_source *source);
};

struct model_source {
    const struct source_kind *kind;
    struct model_config config;
    struct model_tensor_info *tensors; /* [n_tensors], owned by the kind */
    int64_t n_tensors;
    struct name_index tensor_index;    /* owned by the base */
    uint64_t total_bytes;
    struct model_vocab vocab;
    bool has_vocab;
    const char *folder;                /* of tokenizer.json, owned by the kind; NULL: none */
    const struct gguf *gguf;           /* keys as the file has them, owned by the kind; NULL: none */
    struct model_hints hints;          /* has_hints false: none */
    bool has_hints;
    const struct model_pair *pair;     /* owned by the kind; NULL: not of a synthetic pair */
    enum status check;                 /* what model_source_check() says, and its sentence */
    char check_sentence[SOURCE_SENTENCE_CAP];
    char label[256];                   /* how sentences call it */
};

/* Frees the base's own parts; a kind's open function calls it when it fails, after its own. */
void source_base_deinit(struct model_source *source);
/* Index over tensors[]; names are unique. */
enum status source_index_tensors(struct model_source *source);
int64_t source_find_tensor(const struct model_source *source, const char *name); /* -1: none */
/* How sentences call a tensor: as the file does. `shown` holds SOURCE_NAME_CAP bytes. */
void source_shown_name(const struct model_source *source, const char *name, char *shown);
/* Bytes of one row in the file's format. */
uint64_t source_row_bytes(const struct model_tensor_info *info);
int64_t source_n_rows(const struct model_tensor_info *info);
/* Keeps why a source cannot be run, from status and status_message(); STATUS_NO_MEMORY is not kept
 * but returned: it says nothing about the source. */
enum status source_keep_check(struct model_source *source, enum status status);

/* `inner` (borrowed) with what is not native converted as it is read; *out NULL where all is. */
enum status requantize_to_native(struct model_source *inner, struct model_source **out);
/* From now on such a source closes its inner one. */
void requantize_adopt(struct model_source *source);
/* One line of what a converting source converts, and the memory its weights will take. */
void requantize_say(const struct model_source *source, uint64_t memory_bytes);

/* ---- kinds ---- */
enum status gguf_source_open(const char *path, struct model_source **out);
enum status gguf_source_open_bytes(const void *bytes, size_t n_bytes, struct model_source **out);
enum status synth_source_open(const char *name, struct model_source **out); /* "synth:..." */
enum status folder_source_open(const char *path, struct model_source **out); /* folder.c, folder_none.c */

#endif
