/* text_none: stands in for text.c in the core library, which has no tokenizer. */
#include "scheduler/text.h"

static const char *const sentence = "this build works on ids alone: it has no tokenizer";

enum status text_open(const struct model_source *source, struct tokenizer **out)
{
    (void)source;
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "%s", sentence);
}

enum status text_open_path(const char *name, struct tokenizer **out)
{
    (void)name;
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "%s", sentence);
}

void text_close(struct tokenizer *tokenizer)
{
    ASSERT(tokenizer == NULL);
}

/* ---- no tokenizer was ever made: nothing below is reached ---- */
enum status text_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                        int flags, int32_t *ids, size_t cap, size_t *n_ids)
{
    (void)tokenizer, (void)text, (void)n_bytes, (void)flags, (void)ids, (void)cap;
    *n_ids = 0;
    return status_fail(STATUS_UNSUPPORTED, "%s", sentence);
}

enum status text_encode_chat(const struct tokenizer *tokenizer, const struct td_chat *chat, int32_t *ids,
                             size_t cap, size_t *n_ids, int32_t *end_id)
{
    (void)tokenizer, (void)chat, (void)ids, (void)cap, (void)end_id;
    *n_ids = 0;
    return status_fail(STATUS_UNSUPPORTED, "%s", sentence);
}

uint64_t text_digest(const struct tokenizer *tokenizer)
{
    (void)tokenizer;
    return 0;
}

size_t text_push_cap(const struct tokenizer *tokenizer)
{
    (void)tokenizer;
    return 0;
}

void text_stream_begin(struct detokenizer *stream, const struct tokenizer *tokenizer, bool at_start)
{
    *stream = (struct detokenizer){ .tokenizer = tokenizer, .at_start = at_start };
}

size_t text_stream_push(struct detokenizer *stream, int32_t id, char *out, size_t cap)
{
    (void)stream, (void)id, (void)out, (void)cap;
    return 0;
}

size_t text_stream_finish(struct detokenizer *stream, char *out, size_t cap)
{
    (void)stream, (void)out, (void)cap;
    return 0;
}

enum status text_compare(const struct tokenizer *target, const struct tokenizer *draft, int32_t *n_common)
{
    (void)target, (void)draft;
    *n_common = 0;
    return status_fail(STATUS_UNSUPPORTED, "%s", sentence);
}
