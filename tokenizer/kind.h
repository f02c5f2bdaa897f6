/* kind: what all kinds of tokenizer share. A kind is one file: it fills its state when a tokenizer is
 * made, and turns plain text (no special tokens in it) into ids. Private to tokenizer.
 */
#ifndef TOKENIZER_KIND_H
#define TOKENIZER_KIND_H

#include "tokenizer/normalize.h"
#include "tokenizer/special.h"
#include "tokenizer/split.h"
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

enum { TOKENIZER_MAX_AROUND = 8 };
struct around_ids { int32_t ids[TOKENIZER_MAX_AROUND]; int n; }; /* put before or behind a text */
struct token_merge { struct tokenizer_text left, right; };
/* What a token is beyond its class, where a file says so (tokenizer.json). */
enum token_bits {
    TOKEN_ADDED = 1,            /* found in a text as it is written */
    TOKEN_IN_MODEL = 2,         /* merges make it */
    TOKEN_LEFT_STRIP = 4, TOKEN_RIGHT_STRIP = 8, TOKEN_SINGLE_WORD = 16,
    TOKEN_NORMALIZED = 32       /* looked for after normalising */
};
/* How text becomes ids, beyond the vocabulary: the steps before merging, and the ways of merging.
 * Whoever makes one fills it and hands it over; tokenizer_build takes normalizer and splitter. */
struct recipe {
    struct normalizer normalizer;
    struct splitter splitter;
    struct normalizer piece_steps;    /* from a token's spelling to its text */
    const struct token_merge *merges; /* [n_merges] best first */
    int32_t n_merges;
    const uint8_t *bits;              /* [n_tokens] enum token_bits; NULL: by class */
    bool byte_level;                  /* bytes are merged, else characters */
    bool byte_fallback;               /* a character that is no token becomes its bytes' tokens */
    bool fuse_unk;                    /* a run of unknown characters is one unknown token */
    bool ignore_merges;               /* a piece that is a token is that token, at once */
    bool drops_space;                 /* the space a text's first token begins with was not in it */
    struct around_ids before, behind;
    uint64_t digest;                  /* of all that is not in the vocabulary */
};
void recipe_deinit(struct recipe *recipe);

/* Text between special tokens, not empty; is_first: nothing of the whole text stands before it. */
struct segment { const char *bytes; size_t n_bytes; bool is_first; };
struct tokenizer_kind {
    const char *name;             /* tokenizer.ggml.model */
    /* Checks what only this kind asks for, fills tokenizer->pieces and ->state. The shared parts are
     * there already. deinit is called after a failure too. recipe: NULL, and the kind makes its own. */
    enum status (*init)(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                        struct recipe *recipe);
    void (*deinit)(struct tokenizer *tokenizer);
    /* Ids of text between special tokens. Any thread. */
    enum status (*encode)(const struct tokenizer *tokenizer, struct segment segment,
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
    struct special_set specials;  /* found in a text as given */
    struct special_set normalized_specials; /* found after normalising; texts in special_bytes */
    struct bytes special_bytes;
    struct normalizer normalizer; /* no steps: text is taken as it is */
    int32_t bos_id, eos_id, unk_id;
    struct around_ids before, behind;
    bool add_space_prefix;        /* spm */
    bool drops_space;
    uint32_t longest_piece_bytes;
    uint64_t digest;
    enum chat_format chat_format;
    char chat_sentence[256];      /* why there is none */
    void *state;                  /* of the kind */
};

/* tokenizer_create with more said; takes over what recipe owns, even when it fails. */
enum status tokenizer_build(const struct tokenizer_kind *kind, const struct tokenizer_spec *spec,
                            struct recipe *recipe, struct tokenizer **out);

extern const struct tokenizer_kind spm_kind, bpe_kind;

#endif
