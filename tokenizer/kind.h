/* kind: what all kinds of tokenizer share. A kind is one file: it fills its state when a tokenizer is
 * made, and turns plain text (no special tokens in it) into ids. Private to tokenizer.
 */
#ifndef TOKENIZER_KIND_H
#define TOKENIZER_KIND_H

#include "tokenizer/special.h"
#include "tokenizer/tokenizer.h"

/* Where ids go: those beyond cap are counted and not written. */
struct id_sink { int32_t *ids; size_t cap, n; };
static inline void id_sink_put(struct id_sink *sink, int32_t id)
{
    if (sink->n < sink->cap) {
        sink->ids[sink->n] = id;
    }
    sink->n++;
}

struct tokenizer_kind {
    const char *name;             /* tokenizer.ggml.model */
    /* Checks what only this kind asks for, fills tokenizer->pieces and ->state. The shared parts are
     * there already. deinit is called after a failure too. */
    enum status (*init)(struct tokenizer *tokenizer, const struct tokenizer_spec *spec);
    void (*deinit)(struct tokenizer *tokenizer);
    /* Ids of text between special tokens, not empty. Any thread. */
    enum status (*encode)(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                          struct id_sink *sink);
};

struct tokenizer {
    const struct tokenizer_kind *kind;
    int32_t n_tokens;
    char *bytes;                  /* all texts, one after the other */
    struct tokenizer_text *texts; /* [n_tokens] as the vocabulary spells them, in bytes */
    struct tokenizer_text *pieces;/* [n_tokens] as they stand in a text; memory is the kind's */
    uint8_t *classes;             /* [n_tokens] enum token_class */
    float *scores;                /* [n_tokens], or NULL */
    struct special_set specials;
    int32_t bos_id, eos_id, unk_id;
    bool add_bos, add_eos, add_space_prefix;
    uint32_t longest_piece_bytes;
    uint64_t digest;
    void *state;                  /* of the kind */
};

extern const struct tokenizer_kind spm_kind;

#endif
