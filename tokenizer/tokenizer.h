/* tokenizer: text ↔ ids. Kinds are files behind a table of functions; this is their door.
 *
 * A tokenizer is immutable after creation and may be used from any thread. It does not know model
 * files: it is made from plain arrays (struct tokenizer_spec) that the caller took from somewhere.
 */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

enum token_class { /* numbers as in tokenizer.ggml.token_type */
    TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5, TOKEN_BYTE = 6
};

enum {
    TOKENIZER_MAX_TOKENS = 1 << 22,
    TOKENIZER_MAX_TOKEN_BYTES = 1024,
    TOKENIZER_MAX_TEXT_BYTES = 1 << 28,
    TOKENIZER_MAX_MERGES = 1 << 24
};
struct tokenizer_text { const char *bytes; uint32_t n_bytes; }; /* not NUL-terminated */
/* The words around the messages of a conversation (chat.c). */
enum chat_format {
    CHAT_NONE, CHAT_CHATML, CHAT_LLAMA2, CHAT_LLAMA3, CHAT_ZEPHYR, CHAT_MISTRAL_V1, CHAT_MISTRAL_V3
};
struct tokenizer_spec { /* borrowed during tokenizer_create only; everything is copied */
    const char *kind;                   /* "llama" (SentencePiece BPE), "gpt2" (byte-level BPE) */
    const char *pre;                    /* gpt2: how text is cut, as tokenizer.ggml.pre names it */
    const struct tokenizer_text *tokens; /* [n_tokens] */
    const float *scores;                /* [n_tokens]; kinds that need none take NULL */
    const int32_t *classes;             /* [n_tokens] enum token_class; NULL: by text and ids */
    const struct tokenizer_text *merges; /* [n_merges] gpt2: "left right", best first */
    int32_t n_tokens, n_merges;
    int32_t bos_id, eos_id, unk_id, pad_id, eot_id; /* -1 = none; out of range is refused */
    bool add_bos, add_eos, add_space_prefix;
    struct tokenizer_text chat_template; /* 0 bytes = none; tells the format, is not run */
};

struct tokenizer;
/* STATUS_UNSUPPORTED: a kind or way of cutting we do not know. STATUS_INVALID: ids, classes, scores,
 * merges or byte tokens that cannot be. Of tokens with equal texts the first is used; empty ones are
 * never. STATUS_NO_MEMORY. */
enum status tokenizer_create(const struct tokenizer_spec *spec, struct tokenizer **out);
void tokenizer_destroy(struct tokenizer *tokenizer);

/* The files of a Hugging Face folder, as they are; borrowed during the call. */
struct tokenizer_files {
    struct tokenizer_text tokenizer;     /* tokenizer.json */
    struct tokenizer_text config;        /* tokenizer_config.json; bytes NULL = none */
    struct tokenizer_text chat_template; /* chat_template.jinja; bytes NULL = none */
};
/* STATUS_UNSUPPORTED names the model, normalizer, pre-tokenizer, decoder or post-processor that we do
 * not know; STATUS_INVALID what is wrong in the file, before memory in proportion to it is taken for
 * what is too deep or too long. STATUS_NO_MEMORY. */
enum status tokenizer_create_json(const struct tokenizer_files *files, struct tokenizer **out);

enum {
    TOKENIZE_SPECIAL = 1,   /* add BOS/EOS as the model asks; no second BOS where one is written out */
    TOKENIZE_LITERAL = 2,   /* special tokens written out in the text are plain text */
    TOKENIZE_SECOND_BOS = 4 /* with SPECIAL: BOS in any case, as the tokenizers library does */
};
/* Writes at most cap ids; *n_ids is how many the text has (call again with more room if > cap).
 * Text is bytes: NUL and invalid UTF-8 become byte tokens, or the unknown token where the vocabulary
 * has none. O(n log n) time, up to 64 bytes of memory a byte of text. STATUS_INVALID beyond
 * TOKENIZER_MAX_TEXT_BYTES, STATUS_NO_MEMORY. */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             int flags, int32_t *ids, size_t cap, size_t *n_ids);
/* The same for a text that comes in parts, joined before it is looked at: special tokens are found
 * only within one part, and never in a literal one. For text of people among a format's own words. */
struct tokenizer_part { const char *bytes; size_t n_bytes; bool is_literal; };
enum status tokenizer_encode_parts(const struct tokenizer *tokenizer,
                                   const struct tokenizer_part *parts, size_t n_parts, int flags,
                                   int32_t *ids, size_t cap, size_t *n_ids);

/* ---- chat ---- */
enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };
struct chat_message { enum chat_role role; struct tokenizer_text content; };
/* The format named; NULL: the one that the model's template is. STATUS_UNSUPPORTED with a sentence
 * that names the template when it is none that we know, or that there is none. */
enum status tokenizer_chat_format(const struct tokenizer *tokenizer, const char *name,
                                  enum chat_format *out);
const char *chat_format_name(enum chat_format format);
/* A conversation that ends with the user's message, up to where the answer begins. Whatever messages
 * hold, they make no special token. BOS as the format or the model asks. STATUS_INVALID: roles that
 * the format has no place for. */
enum status tokenizer_encode_chat(const struct tokenizer *tokenizer, enum chat_format format,
                                  const struct chat_message *messages, size_t n_messages,
                                  int32_t *ids, size_t cap, size_t *n_ids);
/* The token that ends an answer; -1 = none. */
int32_t tokenizer_chat_end(const struct tokenizer *tokenizer, enum chat_format format);

/* Bytes of one token as it stands in a text (SPM: ▁ becomes a space, <0x0A> its byte; control tokens
 * and the unknown token nothing, their spelling if show_control). An id out of range is nothing.
 * Lives as long as the tokenizer. */
struct tokenizer_text tokenizer_piece(const struct tokenizer *tokenizer, int32_t id,
                                      bool show_control);
int32_t tokenizer_n_tokens(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1 = none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer); /* -1 = none */
/* A token that stands for no text: control or unknown. */
bool tokenizer_is_control(const struct tokenizer *tokenizer, int32_t id);
/* The first token of a text may bring a space that was not in it. */
bool tokenizer_adds_space(const struct tokenizer *tokenizer);
/* Hash of everything that decides ids (vocabulary check by content, not by size). */
uint64_t tokenizer_digest(const struct tokenizer *tokenizer);

/* Streaming: bytes come out only as whole UTF-8 characters. What is not UTF-8 becomes U+FFFD, one for
 * each maximal part of a character (Unicode 3.9, and Python's errors="replace"), the same however
 * tokens cut the bytes. The space that the SPM prefix rule added is dropped when `at_start`. Single
 * owner, a value; allocates nothing. */
struct detokenizer {
    const struct tokenizer *tokenizer;
    unsigned char held[4];  /* a character begun */
    uint8_t n_held;
    bool at_start;          /* nothing came out yet */
};
void detokenizer_init(struct detokenizer *stream, const struct tokenizer *tokenizer, bool at_start);
/* What one push or finish writes at most: four bytes for each of the longest piece, and 16. */
size_t detokenizer_push_cap(const struct tokenizer *tokenizer);
/* Text of one more token to out (cap >= 4 * piece bytes + 16); returns bytes written. */
size_t detokenizer_push(struct detokenizer *stream, int32_t id, char *out, size_t cap);
/* What was held back, as U+FFFD; the stream may go on as if new, with at_start as it is. */
size_t detokenizer_finish(struct detokenizer *stream, char *out, size_t cap);

#endif
