/* chat: a conversation to the text a model was trained to continue. A format is the words around each
 * message; which one a model wants is told from its template by signature, and a template that is
 * none of them is refused: a prompt that is almost right makes a model that is almost right.
 *
 *     <|im_start|>user⏎ Hello <|im_end|>⏎ <|im_start|>assistant⏎
 *     └ markup ───────┘ └───┘ └ markup ───────────────────────┘
 *                       literal: whatever people write, it is text
 *
 * Templates are not run: the few formats are written out here.
 */
#ifndef TOKENIZER_CHAT_H
#define TOKENIZER_CHAT_H

#include <stddef.h>

#include "base/base.h"
#include "tokenizer/tokenizer.h"

/* STATUS_UNSUPPORTED names what there is. NULL is CHAT_NONE. */
enum status chat_format_find(const char *name, enum chat_format *out);
/* By signature. STATUS_UNSUPPORTED names the template, or what it begins with. */
enum status chat_format_detect(const char *chat_template, size_t n_bytes, enum chat_format *out);

/* The text, as parts that point into the messages, the words and constants. Opens the answer; ends with
 * what comes before its first token. bos and eos are spelled as the vocabulary does. STATUS_INVALID:
 * roles that the format has no place for. */
struct chat_words { struct tokenizer_text bos, eos; };
struct chat_prompt { struct tokenizer_part *parts; size_t n_parts, cap; }; /* zero-initialised */
struct chat_conversation {
    const struct chat_message *messages;
    size_t n_messages;
    struct chat_words words;
};
enum status chat_render(enum chat_format format, const struct chat_conversation *conversation,
                        struct chat_prompt *out);
void chat_prompt_deinit(struct chat_prompt *prompt);
/* How the format spells the end of an answer; "" where it is the model's own end of text. */
const char *chat_format_end(enum chat_format format);

#endif
