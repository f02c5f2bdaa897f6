/* bpe: from a vocabulary, merges and a recipe to the tables that encoding reads. */
#include "tokenizer/bpe.h"

#include <string.h>

#include "tokenizer/byte_level.h"

/* ---- texts of tokens ---- */
static bool is_in_model(const struct tokenizer *tokenizer, const struct recipe *recipe, int32_t id)
{
    if (tokenizer_is_control(tokenizer, id) || tokenizer->texts[id].n_bytes == 0) {
        return false; /* no way of writing "<|end|>" in a text makes it by merging */
    }
    return recipe->bits ? (recipe->bits[id] & TOKEN_IN_MODEL) != 0
                        : tokenizer->classes[id] == TOKEN_NORMAL;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* 0..255 for "<0xNN>", else -1. */
static int fallback_byte(struct tokenizer_text text)
{
    if (text.n_bytes != 6 || memcmp(text.bytes, "<0x", 3) != 0 || text.bytes[5] != '>') {
        return -1;
    }
    const int high = hex_digit(text.bytes[3]), low = hex_digit(text.bytes[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* What a token that is no control token stands for in a text, appended to out. */
static enum status put_piece(const struct tokenizer *tokenizer, const struct recipe *recipe,
                             int32_t id, struct bytes *out)
{
    const struct tokenizer_text text = tokenizer->texts[id];
    if (recipe->byte_level && tokenizer->classes[id] != TOKEN_USER_DEFINED) {
        char decoded[TOKENIZER_MAX_TOKEN_BYTES];
        uint32_t n;
        byte_level_decode(text, decoded, &n);
        return bytes_append(out, decoded, n);
    }
    const int byte = tokenizer->classes[id] == TOKEN_BYTE ? fallback_byte(text) : -1;
    if (byte >= 0) {
        const char c = (char)byte;
        return bytes_append(out, &c, 1);
    }
    if (recipe->piece_steps.n_steps == 0) {
        return bytes_append(out, text.bytes, text.n_bytes);
    }
    struct bytes piece;
    enum status status = normalizer_run(&recipe->piece_steps, text.bytes, text.n_bytes, &piece);
    if (status == STATUS_OK) {
        status = bytes_append(out, piece.at, piece.n);
    }
    bytes_deinit(&piece);
    return status;
}

/* Pieces of all tokens, one behind the other; where keys are the same bytes, they are shared. */
static enum status make_pieces(struct tokenizer *tokenizer, struct bpe *bpe,
                               const struct recipe *recipe)
{
    struct bytes all = { .at = NULL };
    enum status status = bytes_append(&all, "", 0);
    for (int32_t id = 0; id < tokenizer->n_tokens && status == STATUS_OK; id++) {
        const size_t begin = all.n;
        if (!tokenizer_is_control(tokenizer, id)) {
            status = put_piece(tokenizer, recipe, id, &all);
        }
        tokenizer->pieces[id].n_bytes = (uint32_t)(all.n - begin);
    }
    bpe->text_bytes = all.at;
    const char *at = all.at;
    for (int32_t id = 0; id < tokenizer->n_tokens && status == STATUS_OK; id++) {
        tokenizer->pieces[id].bytes = at;
        at += tokenizer->pieces[id].n_bytes;
    }
    return status;
}

/* What is looked up in the middle of a text: bytes where bytes are merged, spellings otherwise. */
static enum status make_keys(struct tokenizer *tokenizer, struct bpe *bpe,
                             const struct recipe *recipe)
{
    bpe->keys = mem_alloc((size_t)tokenizer->n_tokens, sizeof *bpe->keys);
    if (!bpe->keys) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens",
                           tokenizer->n_tokens);
    }
    TRY(text_map_init(&bpe->map, bpe->keys, tokenizer->n_tokens));
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        bpe->keys[id] = recipe->byte_level ? tokenizer->pieces[id] : tokenizer->texts[id];
        if (is_in_model(tokenizer, recipe, id) && bpe->keys[id].n_bytes > 0) {
            text_map_add(&bpe->map, id);
        }
    }
    for (int byte = 0; byte < 256; byte++) {
        const char c = (char)byte;
        bpe->byte_ids[byte] = recipe->byte_level ? text_map_find(&bpe->map, &c, 1) : -1;
    }
    for (int32_t id = 0; id < tokenizer->n_tokens && recipe->byte_fallback; id++) {
        const int byte = fallback_byte(tokenizer->texts[id]);
        if (byte >= 0 && bpe->byte_ids[byte] < 0) {
            bpe->byte_ids[byte] = id;
        }
    }
    return STATUS_OK;
}

/* ---- merges ---- */
static enum status missing(int32_t rank, const char *what, const char *bytes, size_t n_bytes)
{
    return status_fail(STATUS_INVALID, "merge %d: expected %s that is a token, found '%.*s'", rank,
                       what, n_bytes < 100 ? (int)n_bytes : 100, bytes);
}

static enum status put_merge(const struct tokenizer *tokenizer, struct bpe *bpe,
                             const struct text_map *spellings, const struct token_merge *merge,
                             int32_t rank)
{
    char joined[2 * TOKENIZER_MAX_TOKEN_BYTES];
    const int32_t left = text_map_find(spellings, merge->left.bytes, merge->left.n_bytes);
    const int32_t right = text_map_find(spellings, merge->right.bytes, merge->right.n_bytes);
    if (left < 0 || merge->left.n_bytes == 0) {
        return missing(rank, "a left side", merge->left.bytes, merge->left.n_bytes);
    }
    if (right < 0 || merge->right.n_bytes == 0) {
        return missing(rank, "a right side", merge->right.bytes, merge->right.n_bytes);
    }
    memcpy(joined, merge->left.bytes, merge->left.n_bytes);
    memcpy(joined + merge->left.n_bytes, merge->right.bytes, merge->right.n_bytes);
    const uint32_t n_joined = merge->left.n_bytes + merge->right.n_bytes;
    const int32_t id = text_map_find(spellings, joined, n_joined);
    if (id < 0) {
        return missing(rank, "a result", joined, n_joined);
    }
    if (!tokenizer_is_control(tokenizer, id)) {
        merges_put(&bpe->merges, left, right, (struct merge){ rank, id });
    }
    return STATUS_OK;
}

static enum status make_merges(const struct tokenizer *tokenizer, struct bpe *bpe,
                               const struct recipe *recipe)
{
    struct text_map spellings;
    enum status status;
    TRY(merges_init(&bpe->merges, recipe->n_merges));
    TRY_GOTO(text_map_init(&spellings, tokenizer->texts, tokenizer->n_tokens), out);
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        if (tokenizer->texts[id].n_bytes > 0 &&
            (!recipe->bits || (recipe->bits[id] & TOKEN_IN_MODEL))) {
            text_map_add(&spellings, id);
        }
    }
    for (int32_t rank = 0; rank < recipe->n_merges; rank++) {
        TRY_GOTO(put_merge(tokenizer, bpe, &spellings, &recipe->merges[rank], rank), out);
    }
out:
    text_map_deinit(&spellings);
    return status;
}

/* GGUF: "left right"; neither holds a space but as the first character. */
static enum status read_merges(const struct tokenizer_spec *spec, struct token_merge **out)
{
    if (!spec->merges || spec->n_merges == 0) {
        return status_fail(STATUS_INVALID,
                           "expected merges beside a vocabulary of %d tokens, found none",
                           spec->n_tokens);
    }
    struct token_merge *merges = mem_alloc((size_t)spec->n_merges, sizeof *merges);
    *out = merges;
    if (!merges) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d merges", spec->n_merges);
    }
    for (int32_t i = 0; i < spec->n_merges; i++) {
        const struct tokenizer_text text = spec->merges[i];
        const char *space = text.n_bytes > 1 ? memchr(text.bytes + 1, ' ', text.n_bytes - 1) : NULL;
        if (!space) {
            return status_fail(
                STATUS_INVALID, "merge %d: expected two texts with a space between, found '%.*s'",
                i, text.n_bytes < 100 ? (int)text.n_bytes : 100, text.bytes ? text.bytes : "");
        }
        const uint32_t n_left = (uint32_t)(space - text.bytes);
        merges[i].left = (struct tokenizer_text){ text.bytes, n_left };
        merges[i].right = (struct tokenizer_text){ space + 1, text.n_bytes - n_left - 1 };
    }
    return STATUS_OK;
}

/* ---- the kind ---- */
static enum status make(struct tokenizer *tokenizer, struct recipe *recipe)
{
    struct bpe *bpe = mem_alloc(1, sizeof *bpe);
    if (!bpe) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a tokenizer");
    }
    tokenizer->state = bpe;
    bpe->byte_level = recipe->byte_level;
    bpe->byte_fallback = recipe->byte_fallback;
    bpe->fuse_unk = recipe->fuse_unk;
    bpe->ignore_merges = recipe->ignore_merges;
    tokenizer->drops_space = recipe->drops_space;
    bpe->splitter = recipe->splitter;
    recipe->splitter.n_steps = 0;
    tokenizer->normalizer = recipe->normalizer;
    recipe->normalizer.n_steps = 0;
    TRY(make_pieces(tokenizer, bpe, recipe));
    TRY(make_keys(tokenizer, bpe, recipe));
    return make_merges(tokenizer, bpe, recipe);
}

static enum status bpe_init(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                            struct recipe *recipe)
{
    if (recipe) {
        return make(tokenizer, recipe);
    }
    struct recipe own = { .n_merges = spec->n_merges };
    struct token_merge *merges = NULL;
    enum status status;
    TRY_GOTO(bpe_pre_recipe(spec->pre, &own), out);
    TRY_GOTO(read_merges(spec, &merges), out);
    own.merges = merges;
    status = make(tokenizer, &own);
out:
    mem_free(merges);
    recipe_deinit(&own);
    return status;
}

static void bpe_deinit(struct tokenizer *tokenizer)
{
    struct bpe *bpe = tokenizer->state;
    if (bpe) {
        splitter_deinit(&bpe->splitter);
        merges_deinit(&bpe->merges);
        text_map_deinit(&bpe->map);
        mem_free(bpe->keys);
        mem_free(bpe->text_bytes);
        mem_free(bpe);
    }
    tokenizer->state = NULL;
}

static enum status bpe_encode(const struct tokenizer *tokenizer, struct segment segment,
                              struct id_sink *sink)
{
    const struct bpe *bpe = tokenizer->state;
    struct split split;
    struct bpe_work *work = NULL;
    enum status status;
    const struct split_text text = { segment.bytes, segment.n_bytes, segment.is_first };
    TRY_GOTO(splitter_run(&bpe->splitter, text, &split), out);
    uint32_t longest = 0;
    for (size_t i = 0; i < split.pieces.n; i++) {
        longest = split.pieces.at[i].n_bytes > longest ? split.pieces.at[i].n_bytes : longest;
    }
    TRY_GOTO(bpe_work_create(tokenizer, longest, &work), out);
    for (size_t i = 0; i < split.pieces.n; i++) {
        const struct piece piece = split.pieces.at[i];
        bpe_encode_piece(work, split.text + piece.begin, piece.n_bytes, sink);
    }
out:
    bpe_work_destroy(work);
    split_deinit(&split);
    return status;
}

const struct tokenizer_kind bpe_kind = {
    .name = "gpt2",
    .init = bpe_init,
    .deinit = bpe_deinit,
    .encode = bpe_encode,
};
