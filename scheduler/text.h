/* text: where a model's vocabulary becomes a tokenizer. It lives here because model and tokenizer do
 * not know each other. Everything above the core reaches text through this file alone: text.c stands
 * on the tokenizer room, text_none.c is its stub in the core library, which does without text (there
 * text_open says STATUS_UNSUPPORTED, and the rest is never reached).
 *
 * A tokenizer may be used from any thread, a stream by one owner.
 */
#ifndef SCHEDULER_TEXT_H
#define SCHEDULER_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "model/model.h"
#include "tandem.h"
#include "tokenizer/tokenizer.h"

/* The tokenizer of a source, which may be closed afterwards; text_close() frees it.
 * STATUS_UNSUPPORTED when there is no vocabulary, its kind is not known, or this build has no text:
 * such a model still runs on ids. STATUS_INVALID, STATUS_NO_MEMORY. */
enum status text_open(const struct model_source *source, struct tokenizer **out);
/* The same from what --target names: a GGUF file with a vocabulary (weights are not needed), a folder
 * that holds tokenizer.json, or that file itself. */
enum status text_open_path(const char *name, struct tokenizer **out);
void text_close(struct tokenizer *tokenizer); /* NULL is fine */

/* tokenizer_encode: flags are TOKENIZE_*; ids beyond cap are counted and not written. */
enum status text_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                        int flags, int32_t *ids, size_t cap, size_t *n_ids);
/* td_tokenize_chat. */
enum status text_encode_chat(const struct tokenizer *tokenizer, const struct td_chat *chat,
                             int32_t *ids, size_t cap, size_t *n_ids, int32_t *end_id);
uint64_t text_digest(const struct tokenizer *tokenizer);
/* Whether ids mean the same to a target and its draft: every id that both have stands for the same bytes;
 * control tokens may be named differently, and either side may have ids the other lacks (padding).
 * *n_common: ids below it are in both. STATUS_INVALID names the first id that differs, and both
 * fingerprints. */
enum status text_compare(const struct tokenizer *target, const struct tokenizer *draft, int32_t *n_common);
/* What one text_stream_push or text_stream_finish writes at most. */
size_t text_push_cap(const struct tokenizer *tokenizer);

/* A stream is a struct detokenizer, a value. at_start: nothing precedes, so that the space the
 * vocabulary puts before a text is dropped; false where it continues a prompt. None allocates. */
void text_stream_begin(struct detokenizer *stream, const struct tokenizer *tokenizer,
                       bool at_start);
/* Whole UTF-8 characters of one more token; out holds text_push_cap() bytes. */
size_t text_stream_push(struct detokenizer *stream, int32_t id, char *out, size_t cap);
size_t text_stream_finish(struct detokenizer *stream, char *out, size_t cap);

#endif
