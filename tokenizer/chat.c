/* chat: the formats, each a function that puts down markup and messages in turn. */
#include "tokenizer/chat.h"

#include <string.h>

#include "tokenizer/character.h"

struct writer {
    const struct chat_conversation *conversation;
    struct chat_prompt *out;
};

/* ---- parts ---- */
static enum status put(struct writer *writer, const char *bytes, size_t n_bytes, bool is_literal)
{
    struct chat_prompt *out = writer->out;
    if (n_bytes == 0) {
        return STATUS_OK;
    }
    if (out->n_parts == out->cap) {
        const size_t cap = out->cap * 2 + 16;
        struct tokenizer_part *bigger = mem_realloc(out->parts, cap, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for a conversation of %zu parts", cap);
        }
        out->parts = bigger;
        out->cap = cap;
    }
    out->parts[out->n_parts++] = (struct tokenizer_part){ bytes, n_bytes, is_literal };
    return STATUS_OK;
}

static enum status put_markup(struct writer *writer, const char *text)
{
    return put(writer, text, strlen(text), false);
}

static enum status put_word(struct writer *writer, struct tokenizer_text word)
{
    return put(writer, word.bytes, word.n_bytes, false);
}

static enum status put_content(struct writer *writer, const struct chat_message *message)
{
    return put(writer, message->content.bytes, message->content.n_bytes, true);
}

/* Without the white space at its ends, for formats that say so. */
static enum status put_trimmed(struct writer *writer, const struct chat_message *message)
{
    const char *begin = message->content.bytes;
    size_t n = message->content.n_bytes;
    int32_t point;
    for (size_t len; n > 0; begin += len, n -= len) {
        len = character_first(begin, n, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
    }
    for (size_t len; n > 0; n -= len) {
        len = character_last(begin, n, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
    }
    return put(writer, begin, n, true);
}

/* ---- roles ---- */
static const char *role_name(enum chat_role role)
{
    return role == CHAT_SYSTEM ? "system" : role == CHAT_USER ? "user" : "assistant";
}

enum turns { TURNS_ANY, TURNS_ALTERNATE };

/* One system message at most, the first; the last is the user's; users and assistants in turn where
 * the format has no words to tell them apart otherwise. */
static enum status check_roles(enum chat_format format,
                               const struct chat_conversation *conversation, enum turns turns)
{
    const struct chat_message *messages = conversation->messages;
    const size_t n = conversation->n_messages;
    if (n == 0 || messages[n - 1].role != CHAT_USER) {
        return status_fail(STATUS_INVALID,
                           "expected a conversation that ends with a message of the user, found %s",
                           n == 0 ? "none" : role_name(messages[n - 1].role));
    }
    enum chat_role wanted = CHAT_USER;
    for (size_t i = messages[0].role == CHAT_SYSTEM; i < n; i++) {
        if (messages[i].role == CHAT_SYSTEM) {
            return status_fail(STATUS_INVALID,
                               "expected the system message as the first, found one at %zu", i + 1);
        }
        if (turns == TURNS_ALTERNATE && messages[i].role != wanted) {
            return status_fail(STATUS_INVALID,
                               "chat format %s: expected user and assistant in turn, found message "
                               "%zu of the %s",
                               chat_format_name(format), i + 1, role_name(messages[i].role));
        }
        wanted = messages[i].role == CHAT_USER ? CHAT_ASSISTANT : CHAT_USER;
    }
    return STATUS_OK;
}

/* ---- formats ---- */
static enum status render_chatml(struct writer *writer)
{
    const struct chat_conversation *conversation = writer->conversation;
    for (size_t i = 0; i < conversation->n_messages; i++) {
        TRY(put_markup(writer, "<|im_start|>"));
        TRY(put_markup(writer, role_name(conversation->messages[i].role)));
        TRY(put_markup(writer, "\n"));
        TRY(put_content(writer, &conversation->messages[i]));
        TRY(put_markup(writer, "<|im_end|>\n"));
    }
    return put_markup(writer, "<|im_start|>assistant\n");
}

static enum status render_llama3(struct writer *writer)
{
    const struct chat_conversation *conversation = writer->conversation;
    TRY(put_markup(writer, "<|begin_of_text|>"));
    for (size_t i = 0; i < conversation->n_messages; i++) {
        TRY(put_markup(writer, "<|start_header_id|>"));
        TRY(put_markup(writer, role_name(conversation->messages[i].role)));
        TRY(put_markup(writer, "<|end_header_id|>\n\n"));
        TRY(put_trimmed(writer, &conversation->messages[i]));
        TRY(put_markup(writer, "<|eot_id|>"));
    }
    return put_markup(writer, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static enum status render_zephyr(struct writer *writer)
{
    const struct chat_conversation *conversation = writer->conversation;
    for (size_t i = 0; i < conversation->n_messages; i++) {
        const enum chat_role role = conversation->messages[i].role;
        TRY(put_markup(writer, role == CHAT_SYSTEM ? "<|system|>\n"
                               : role == CHAT_USER ? "<|user|>\n" : "<|assistant|>\n"));
        TRY(put_content(writer, &conversation->messages[i]));
        TRY(put_word(writer, conversation->words.eos));
        TRY(put_markup(writer, "\n"));
    }
    return put_markup(writer, "<|assistant|>\n");
}

static enum status render_llama2(struct writer *writer)
{
    const struct chat_conversation *conversation = writer->conversation;
    const struct chat_message *messages = conversation->messages;
    const size_t first = messages[0].role == CHAT_SYSTEM;
    for (size_t i = first; i < conversation->n_messages; i++) {
        if (messages[i].role == CHAT_ASSISTANT) {
            TRY(put_markup(writer, " "));
            TRY(put_trimmed(writer, &messages[i]));
            TRY(put_markup(writer, " "));
            TRY(put_word(writer, conversation->words.eos));
            continue;
        }
        TRY(put_word(writer, conversation->words.bos));
        TRY(put_markup(writer, "[INST] "));
        if (i == first && first > 0) {
            TRY(put_markup(writer, "<<SYS>>\n"));
            TRY(put_trimmed(writer, &messages[0]));
            TRY(put_markup(writer, "\n<</SYS>>\n\n"));
        }
        TRY(put_trimmed(writer, &messages[i]));
        TRY(put_markup(writer, " [/INST]"));
    }
    return STATUS_OK;
}

/* v1 has spaces outside [INST] and before [/INST], v3 has not. */
static enum status render_mistral(struct writer *writer, const char *open, const char *close)
{
    const struct chat_conversation *conversation = writer->conversation;
    const struct chat_message *messages = conversation->messages;
    const size_t first = messages[0].role == CHAT_SYSTEM;
    TRY(put_word(writer, conversation->words.bos));
    for (size_t i = first; i < conversation->n_messages; i++) {
        if (messages[i].role == CHAT_ASSISTANT) {
            TRY(put_markup(writer, " "));
            TRY(put_content(writer, &messages[i]));
            TRY(put_word(writer, conversation->words.eos));
            continue;
        }
        TRY(put_markup(writer, open));
        if (i == first && first > 0) {
            TRY(put_content(writer, &messages[0]));
            TRY(put_markup(writer, "\n\n"));
        }
        TRY(put_content(writer, &messages[i]));
        TRY(put_markup(writer, close));
    }
    return STATUS_OK;
}

enum status chat_render(enum chat_format format, const struct chat_conversation *conversation,
                        struct chat_prompt *out)
{
    struct writer writer = { conversation, out };
    const bool has_marks = format == CHAT_CHATML || format == CHAT_LLAMA3 || format == CHAT_ZEPHYR;
    TRY(check_roles(format, conversation, has_marks ? TURNS_ANY : TURNS_ALTERNATE));
    switch (format) {
    case CHAT_CHATML: return render_chatml(&writer);
    case CHAT_LLAMA3: return render_llama3(&writer);
    case CHAT_ZEPHYR: return render_zephyr(&writer);
    case CHAT_LLAMA2: return render_llama2(&writer);
    case CHAT_MISTRAL_V1: return render_mistral(&writer, " [INST] ", " [/INST]");
    case CHAT_MISTRAL_V3: return render_mistral(&writer, "[INST] ", "[/INST]");
    case CHAT_NONE: break;
    }
    return status_fail(STATUS_UNSUPPORTED,
                       "the model names no chat format; --chat-format gives one");
}

void chat_prompt_deinit(struct chat_prompt *prompt)
{
    mem_free(prompt->parts);
    *prompt = (struct chat_prompt){ .parts = NULL };
}

const char *chat_format_end(enum chat_format format)
{
    return format == CHAT_CHATML ? "<|im_end|>" : format == CHAT_LLAMA3 ? "<|eot_id|>" : "";
}

/* ---- with a tokenizer ---- */
static struct tokenizer_text word_of(const struct tokenizer *tokenizer, int32_t id,
                                     const char *missing)
{
    const struct tokenizer_text text = tokenizer_piece(tokenizer, id, true);
    return text.n_bytes > 0 ? text : (struct tokenizer_text){ missing, (uint32_t)strlen(missing) };
}

enum status tokenizer_encode_chat(const struct tokenizer *tokenizer, enum chat_format format,
                                  const struct chat_message *messages, size_t n_messages,
                                  int32_t *ids, size_t cap, size_t *n_ids)
{
    *n_ids = 0;
    const struct chat_conversation conversation = {
        .messages = messages, .n_messages = n_messages,
        .words = { word_of(tokenizer, tokenizer_bos(tokenizer), "<s>"),
                   word_of(tokenizer, tokenizer_eos(tokenizer), "</s>") },
    };
    struct chat_prompt prompt = { .parts = NULL };
    enum status status = chat_render(format, &conversation, &prompt);
    if (status == STATUS_OK) {
        status = tokenizer_encode_parts(tokenizer, prompt.parts, prompt.n_parts, TOKENIZE_SPECIAL,
                                        ids, cap, n_ids);
    }
    chat_prompt_deinit(&prompt);
    return status;
}

int32_t tokenizer_chat_end(const struct tokenizer *tokenizer, enum chat_format format)
{
    const char *end = chat_format_end(format);
    int32_t id = -1;
    size_t n = 0;
    if (*end == '\0' || tokenizer_encode(tokenizer, end, strlen(end), 0, &id, 1, &n) != STATUS_OK ||
        n != 1 || !tokenizer_is_control(tokenizer, id)) {
        return tokenizer_eos(tokenizer);
    }
    return id;
}
