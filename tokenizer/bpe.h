/* bpe: byte-pair encoding by a list of merges (Sennrich et al., 2016; over bytes as in GPT-2). A text
 * is cut into pieces; in each, neighbours are merged, earliest rule first, leftmost first among
 * equals, until no rule fits.
 *
 *     "low lower"  →cut→  "low" " lower"  →  l o w →  lo w  →  low      Ġ l o w e r  →  Ġlow er
 *
 * bpe.c makes the tables, bpe_merge.c merges, bpe_pre.c knows how GGUF files name ways of cutting.
 * Private to tokenizer.
 */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include "tokenizer/kind.h"
#include "tokenizer/merges.h"
#include "tokenizer/text_map.h"

struct bpe {
    struct text_map map;        /* of what merges can make, as it stands in a text */
    struct tokenizer_text *keys;/* [n_tokens] for the map: texts of tokens of the model */
    char *text_bytes;           /* of keys and pieces */
    struct merges merges;
    int32_t byte_ids[256];      /* what a byte becomes: its own token, or its fallback; -1 = none */
    struct splitter splitter;
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
};

/* One text's worth of room, for its longest piece. */
struct bpe_work;
enum status bpe_work_create(const struct tokenizer *tokenizer, size_t longest_bytes,
                            struct bpe_work **out);
void bpe_work_destroy(struct bpe_work *work);
void bpe_encode_piece(struct bpe_work *work, const char *bytes, uint32_t n_bytes,
                      struct id_sink *sink);

/* Recipe for tokenizer.ggml.pre; "" and NULL mean "default". STATUS_UNSUPPORTED names what there is. */
enum status bpe_pre_recipe(const char *pre, struct recipe *recipe);
/* The cut of byte-level pre-tokenizers that have none of their own (GPT-2). */
extern const char bpe_gpt2_pattern[];

#endif
