/* chat: a conversation in the terminal, or of piped lines. The whole of it is tokenized for every turn;
 * what was computed before comes back from the engine's prefix cache.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { LINE_MAX_BYTES = 1 << 20 };

struct chat {
    const struct conf *conf;
    struct td_engine *engine;
    struct td_hints hints;
    struct td_message *messages; /* [n_messages], texts owned */
    size_t n_messages, cap;
    struct result last;          /* the last answer */
    int has_last, has_seed;
    uint64_t seed;
    int is_terminal;             /* someone types */
};

/* ---- what was said ---- */
static enum status chat_add(struct chat *chat, const char *role, const char *text, size_t n)
{
    if (chat->n_messages == chat->cap) {
        const size_t cap = chat->cap * 2 + 16;
        struct td_message *bigger = mem_realloc(chat->messages, cap, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu messages", cap);
        }
        chat->messages = bigger;
        chat->cap = cap;
    }
    char *copy = mem_alloc(n + 1, 1);
    if (!copy) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a message of %zu bytes", n);
    }
    if (n > 0) {
        memcpy(copy, text, n);
    }
    chat->messages[chat->n_messages++] = (struct td_message){role, copy, n};
    return STATUS_OK;
}

static void chat_drop(struct chat *chat, size_t keep)
{
    while (chat->n_messages > keep) {
        mem_free((void *)(uintptr_t)chat->messages[--chat->n_messages].text);
    }
}

static size_t chat_n_fixed(const struct chat *chat)
{
    return conf_text(chat->conf, OPT_SYSTEM) != NULL;
}

/* ---- a turn ---- */
static enum status chat_submit(struct chat *chat, uint64_t *id)
{
    struct td_request request;
    int32_t end_id = -1;
    const struct td_chat said = {conf_text(chat->conf, OPT_CHAT_FORMAT), chat->messages,
                                 chat->n_messages};
    TRY(engine_tokenize_chat(chat->engine, &said, &chat->last.prompt, &end_id));
    engine_request(chat->conf, &chat->hints, &request);
    if (chat->has_seed) {
        request.seed = chat->seed;
    }
    request.ids = chat->last.prompt.ids;
    request.n_ids = chat->last.prompt.n;
    request.stop_ids = &end_id;
    request.n_stop_ids = end_id >= 0;
    return engine_failed(td_submit(chat->engine, &request, id));
}

/* A message that cannot be answered is taken back, with its sentence; the conversation goes on. */
static enum status chat_answer(struct chat *chat, const char *text, size_t n)
{
    uint64_t id = 0;
    TRY(chat_add(chat, "user", text, n));
    result_free(&chat->last);
    chat->last = (struct result){0};
    chat->has_last = 0;
    enum status status = chat_submit(chat, &id);
    if (status == STATUS_OK) {
        TRY(result_follow(&chat->last, chat->engine, id, RESULT_STREAM_TEXT, NULL));
        TRY(output_write("\n", 1));
        TRY(output_flush());
        status = chat->last.finish == TD_FINISH_ERROR
                     ? status_fail(STATUS_INVALID, "%s", chat->last.error)
                     : STATUS_OK;
    }
    if (status != STATUS_OK) {
        chat_drop(chat, chat->n_messages - 1);
        if (chat->is_terminal) { /* someone can do something about it */
            fprintf(stderr, "tandem: %s\n", status_message());
            status = STATUS_OK;
        }
        return status;
    }
    chat->has_last = 1;
    if (chat->last.finish == TD_FINISH_CONTEXT) {
        say(chat->conf, "the context is full; /reset begins anew");
    }
    return chat_add(chat, "assistant", chat->last.text.bytes, chat->last.text.n);
}

/* ---- commands ---- */
static void chat_stats(const struct chat *chat)
{
    const struct td_usage *usage = &chat->last.usage;
    if (!chat->has_last) {
        fprintf(stderr, "no answer yet\n");
        return;
    }
    fprintf(
        stderr,
        "%lld prompt tokens, %lld of them from the cache; %lld tokens (%s), %.1f tok/s, first token "
        "%.1f ms; seed %llu, logits digest %016llx\n",
        (long long)usage->prompt_tokens, (long long)usage->cached_prompt_tokens,
        (long long)usage->completion_tokens, td_finish_name(chat->last.finish),
        result_tok_per_s(&chat->last), usage->first_token_seconds * 1e3,
        (unsigned long long)usage->seed, (unsigned long long)usage->logits_digest);
}

static void chat_seed(struct chat *chat, const char *digits)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long seed = strtoull(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || errno) {
        fprintf(stderr, "/seed N: N is a whole number from 0 to 18446744073709551615\n");
        return;
    }
    chat->has_seed = 1;
    chat->seed = seed;
}

/* Returns 0 when the program is to end. */
static int chat_command(struct chat *chat, const char *line)
{
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        return 0;
    }
    if (strcmp(line, "/reset") == 0) {
        chat_drop(chat, chat_n_fixed(chat));
    } else if (strcmp(line, "/stats") == 0) {
        chat_stats(chat);
    } else if (strncmp(line, "/seed", 5) == 0 && (line[5] == ' ' || line[5] == '\0')) {
        chat_seed(chat, line + 5 + strspn(line + 5, " "));
    } else {
        if (strcmp(line, "/help") != 0) {
            fprintf(stderr, "there is no command %.40s; ", line);
        }
        fprintf(
            stderr,
            "/reset forgets what was said, /stats shows the last answer's numbers, /seed N decides the "
            "draws to come, /quit ends; Ctrl-C stops an answer\n");
    }
    return 1;
}

/* ---- lines ---- */
/* STATUS_REFUSED at the end of input. Ctrl-C while typing begins the line anew. */
static enum status read_line(struct chat *chat, struct text *line)
{
    line->n = 0;
    TRY(text_append(line, "", 0));
    for (;;) {
        const int c = getc(stdin);
        if (c == EOF && ferror(stdin) && errno == EINTR && interrupt_seen() == SIGINT &&
            chat->is_terminal) {
            clearerr(stdin);
            interrupt_forget();
            line->n = 0;
            fprintf(stderr, "\n(/quit or Ctrl-D ends)\n> ");
            continue;
        }
        if (c == EOF && ferror(stdin)) {
            return interrupt_seen()
                       ? STATUS_REFUSED
                       : status_fail(STATUS_IO, "cannot read standard input: %s", strerror(errno));
        }
        if (c == '\n' || (c == EOF && line->n > 0)) {
            return STATUS_OK;
        }
        if (c == EOF) {
            return STATUS_REFUSED;
        }
        if (line->n == LINE_MAX_BYTES) {
            return status_fail(STATUS_INVALID,
                               "expected a message of at most %d bytes, found a longer one",
                               LINE_MAX_BYTES);
        }
        const char byte = (char)c;
        TRY(text_append(line, &byte, 1));
    }
}

static enum status chat_loop(struct chat *chat, struct text *line)
{
    for (;;) {
        if (chat->is_terminal) {
            fprintf(stderr, "%s> %s", style_bold(2), style_off(2));
        }
        const enum status status = read_line(chat, line);
        if (status == STATUS_REFUSED) {
            break;
        }
        TRY(status);
        if (line->n == 0) {
            continue;
        }
        if (line->bytes[0] == '/' && !chat_command(chat, line->bytes)) {
            break;
        }
        if (line->bytes[0] != '/') {
            TRY(chat_answer(chat, line->bytes, line->n));
        }
        /* Ctrl-C has stopped the answer; a piped conversation has no one to go on with */
        if (interrupt_seen() == SIGINT && chat->is_terminal) {
            interrupt_forget();
        }
        if (interrupt_seen()) {
            break;
        }
    }
    if (chat->is_terminal) {
        fputc('\n', stderr);
    }
    return interrupt_seen() ? status_fail(STATUS_INTERRUPTED, "interrupted") : STATUS_OK;
}

/* A model without a known format is refused before anyone types. */
static enum status chat_begin(struct chat *chat)
{
    const char *system = conf_text(chat->conf, OPT_SYSTEM);
    struct td_engine_info info;
    int32_t end_id;
    size_t n_ids = 0;
    const struct td_message probe = {"user", "", 0};
    const struct td_chat said = {conf_text(chat->conf, OPT_CHAT_FORMAT), &probe, 1};
    TRY(engine_failed(td_tokenize_chat(chat->engine, &said, NULL, 0, &n_ids, &end_id)));
    if (system) {
        TRY(chat_add(chat, "system", system, strlen(system)));
    }
    TRY(engine_hints(chat->conf, chat->engine, &chat->hints));
    td_engine_get_info(chat->engine, &info);
    if (chat->is_terminal) {
        say(chat->conf, "%s, context %d; /help lists the commands", info.model_name, info.context);
    }
    return STATUS_OK;
}

enum status verb_chat(const struct conf *conf)
{
    struct chat chat = {.conf = conf, .is_terminal = isatty(STDIN_FILENO)};
    struct text line = {0};
    enum status status;
    TRY_GOTO(engine_open(conf, 1, &chat.engine), out);
    TRY_GOTO(chat_begin(&chat), out);
    interrupt_catch();
    status = chat_loop(&chat, &line);
out:
    if (chat.engine) {
        td_engine_close(chat.engine);
    }
    chat_drop(&chat, 0);
    mem_free(chat.messages);
    result_free(&chat.last);
    text_free(&line);
    return status;
}
