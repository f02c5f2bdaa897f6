/* text: from a model's vocabulary to a tokenizer. */
#include "scheduler/text.h"

/* The two rooms' words for a run of bytes; neither may include the other. NULL when out of memory. */
static struct tokenizer_text *copy_texts(const struct model_text *from, int32_t n)
{
    struct tokenizer_text *texts = mem_alloc((size_t)n, sizeof *texts);
    for (int32_t i = 0; texts && i < n; i++) {
        texts[i] = (struct tokenizer_text){ from[i].bytes, from[i].n_bytes };
    }
    return texts;
}

static enum status open_vocab(const struct model_vocab *vocab, struct tokenizer **out)
{
    struct tokenizer_text *texts = copy_texts(vocab->tokens, vocab->n_tokens);
    struct tokenizer_text *merges = copy_texts(vocab->merges, vocab->n_merges);
    enum status status;
    if (!texts || !merges) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens", vocab->n_tokens);
        goto out;
    }
    const struct tokenizer_spec spec = {
        .kind = vocab->kind,
        .pre = vocab->pre,
        .tokens = texts,
        .scores = vocab->scores,
        .classes = vocab->classes,
        .merges = merges,
        .n_tokens = vocab->n_tokens,
        .n_merges = vocab->n_merges,
        .bos_id = vocab->bos_id,
        .eos_id = vocab->eos_id,
        .unk_id = vocab->unk_id,
        .pad_id = vocab->pad_id,
        .eot_id = vocab->eot_id,
        .add_bos = vocab->add_bos,
        .add_eos = vocab->add_eos,
        .add_space_prefix = vocab->add_space_prefix,
    };
    status = tokenizer_create(&spec, out);
out:
    mem_free(merges);
    mem_free(texts);
    return status;
}

enum status text_open(const struct model_source *source, struct tokenizer **out)
{
    *out = NULL;
    const struct model_vocab *vocab = model_source_vocab(source);
    if (!vocab) {
        return status_fail(STATUS_UNSUPPORTED, "the model has no vocabulary: it takes and gives ids only");
    }
    return open_vocab(vocab, out);
}

enum status text_open_path(const char *name, struct tokenizer **out)
{
    *out = NULL;
    struct model_source *source;
    TRY(model_source_open(name, &source));
    const enum status status = text_open(source, out);
    model_source_close(source);
    return status;
}

void text_close(struct tokenizer *tokenizer)
{
    tokenizer_destroy(tokenizer);
}

enum status text_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                        int flags, int32_t *ids, size_t cap, size_t *n_ids)
{
    return tokenizer_encode(tokenizer, text, n_bytes, flags, ids, cap, n_ids);
}

uint64_t text_digest(const struct tokenizer *tokenizer)
{
    return tokenizer_digest(tokenizer);
}

size_t text_push_cap(const struct tokenizer *tokenizer)
{
    return detokenizer_push_cap(tokenizer);
}

void text_stream_begin(struct detokenizer *stream, const struct tokenizer *tokenizer, bool at_start)
{
    detokenizer_init(stream, tokenizer, at_start);
}

size_t text_stream_push(struct detokenizer *stream, int32_t id, char *out, size_t cap)
{
    return detokenizer_push(stream, id, out, cap);
}

size_t text_stream_finish(struct detokenizer *stream, char *out, size_t cap)
{
    return detokenizer_finish(stream, out, cap);
}
