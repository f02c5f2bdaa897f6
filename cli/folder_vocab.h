/* folder_vocab: a folder's tokenizer.json as the vocabulary arrays of a GGUF file. */
#ifndef CLI_FOLDER_VOCAB_H
#define CLI_FOLDER_VOCAB_H

#include <jansson.h>

#include "model/model.h"

struct folder_vocab {
    struct model_vocab vocab;          /* points into the rest */
    json_t *tokenizer, *config;        /* tokenizer.json, tokenizer_config.json (may be NULL) */
    struct model_text template;        /* chat_template.jinja; bytes NULL: none */
    char *template_bytes;
    struct model_text *tokens;         /* [vocab.n_tokens] */
    struct model_text *merges;         /* [vocab.n_merges] */
    char *spelled;                     /* texts that JSON holds otherwise: pairs, fillers */
    float *scores;
    int32_t *classes;
    int64_t n_unlisted_joins;          /* kind "llama": pairs it joins and tokenizer.json does not list */
    int has_vocab;                     /* 0: the folder has no tokenizer.json */
};

/* Fills *self, zeroed by the caller, from the folder; n_vocab is the model's, tokens it has beyond
 * tokenizer.json become unused ones. STATUS_UNSUPPORTED with a sentence when GGUF has no name for
 * what tokenizer.json asks. folder_vocab_deinit() follows, after a failure too. */
enum status folder_vocab_init(struct folder_vocab *self, const char *folder, const struct model_config *config);
void folder_vocab_deinit(struct folder_vocab *self);

#endif
