/* tokenize, detokenize: text to ids and back, byte for byte, with a model's vocabulary alone: no
 * weights are loaded.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "scheduler/scheduler.h"
#include "tokenizer/tokenizer.h"

static enum status open_tokenizer(const struct conf *conf, struct tokenizer **tokenizer)
{
    char path[PATH_CAP];
    const char *model = NULL;
    TRY(input_model(conf, path, &model));
    return text_open_path(model, tokenizer);
}

static enum status write_ids(const struct conf *conf, const struct id_list *list)
{
    if (conf_flag(conf, OPT_JSON)) {
        return output_json(json_pack("{s:o}", "ids", json_ids(list->ids, list->n)));
    }
    for (size_t i = 0; i < list->n; i++) {
        char word[16];
        const int n = snprintf(word, sizeof word, i ? " %d" : "%d", list->ids[i]);
        TRY(output_write(word, (size_t)n));
    }
    TRY(output_write("\n", 1));
    return output_flush();
}

static enum status encode(const struct conf *conf, const struct tokenizer *tokenizer, const struct text *text,
                          struct id_list *out)
{
    const int flags = (conf_flag(conf, OPT_NO_SPECIAL) ? 0 : TOKENIZE_SPECIAL) |
                      (conf_flag(conf, OPT_LITERAL) ? TOKENIZE_LITERAL : 0);
    out->cap = text->n + 8; /* a byte is a token at most; begin and end */
    out->ids = mem_alloc(out->cap, sizeof *out->ids);
    if (!out->ids) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu ids", out->cap);
    }
    TRY(tokenizer_encode(tokenizer, text->bytes, text->n, flags, out->ids, out->cap, &out->n));
    if (out->n > out->cap) {
        out->cap = out->n;
        mem_free(out->ids);
        out->ids = mem_alloc(out->cap, sizeof *out->ids);
        if (!out->ids) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu ids", out->cap);
        }
        TRY(tokenizer_encode(tokenizer, text->bytes, text->n, flags, out->ids, out->cap, &out->n));
    }
    return STATUS_OK;
}

enum status verb_tokenize(const struct conf *conf)
{
    struct tokenizer *tokenizer = NULL;
    struct text text = {0};
    struct id_list ids = {0};
    enum status status;
    TRY_GOTO(open_tokenizer(conf, &tokenizer), out);
    status = conf->n_arguments > 0 ? text_append(&text, conf->argument[0], strlen(conf->argument[0]))
                                   : input_read("-", &text);
    TRY_GOTO(status, out);
    TRY_GOTO(encode(conf, tokenizer, &text, &ids), out);
    status = write_ids(conf, &ids);
out:
    id_list_free(&ids);
    text_free(&text);
    if (tokenizer) {
        tokenizer_destroy(tokenizer);
    }
    return status;
}

/* ---- back ---- */
static enum status ids_from_json(const struct text *text, struct id_list *out)
{
    json_error_t error;
    json_t *root = json_loadb(text->bytes, text->n, 0, &error);
    const json_t *ids = json_is_object(root) ? json_object_get(root, "ids") : root;
    enum status status = json_is_array(ids) ? STATUS_OK
                                            : status_fail(STATUS_INVALID, "expected {\"ids\": [...]}: %s",
                                                          root ? "found something else" : error.text);
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        const json_int_t value = json_integer_value(id);
        status = json_is_integer(id) && value >= 0 && value <= INT32_MAX
                     ? id_list_append(out, (int32_t)value)
                     : status_fail(STATUS_INVALID, "\"ids\" holds something that is no token id");
    }
    json_decref(root);
    return status;
}

static enum status read_ids(const struct conf *conf, struct id_list *out)
{
    struct text text = {0};
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK && i < conf->n_arguments; i++) {
        status = text_append(&text, conf->argument[i], strlen(conf->argument[i]));
        status = status == STATUS_OK ? text_append(&text, " ", 1) : status;
    }
    if (conf->n_arguments == 0) {
        status = input_read("-", &text);
    }
    if (status == STATUS_OK) {
        const char *first = text.bytes + strspn(text.bytes, " \t\r\n");
        status = *first == '{' || *first == '[' ? ids_from_json(&text, out)
                                                : id_list_parse("the list of ids", text.bytes, text.n, out);
    }
    text_free(&text);
    return status;
}

/* The tokens' own bytes, so that what was no UTF-8 comes back as it was; the streaming form, which
 * repairs it, is for JSON. */
static enum status decode(const struct conf *conf, const struct tokenizer *tokenizer,
                          const struct id_list *ids, struct text *out)
{
    struct detokenizer stream;
    detokenizer_init(&stream, tokenizer, true);
    const int streams = conf_flag(conf, OPT_JSON);
    TRY(text_append(out, "", 0));
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] >= tokenizer_n_tokens(tokenizer)) {
            return status_fail(STATUS_INVALID, "id %d is outside the vocabulary of %d tokens", ids->ids[i],
                               tokenizer_n_tokens(tokenizer));
        }
        const struct tokenizer_text piece = tokenizer_piece(tokenizer, ids->ids[i], false);
        if (!streams) {
            const int drop = tokenizer_adds_space(tokenizer) && stream.at_start && piece.n_bytes > 0 &&
                             piece.bytes[0] == ' ';
            stream.at_start = stream.at_start && piece.n_bytes == 0;
            TRY(text_append(out, piece.bytes + drop, piece.n_bytes - (uint32_t)drop));
            continue;
        }
        const size_t cap = 4 * (size_t)piece.n_bytes + 16;
        char *chunk = mem_alloc(cap, 1);
        if (!chunk) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of text", cap);
        }
        const enum status status = text_append(out, chunk, detokenizer_push(&stream, ids->ids[i], chunk, cap));
        mem_free(chunk);
        TRY(status);
    }
    char rest[64];
    return streams ? text_append(out, rest, detokenizer_finish(&stream, rest, sizeof rest)) : STATUS_OK;
}

enum status verb_detokenize(const struct conf *conf)
{
    struct tokenizer *tokenizer = NULL;
    struct id_list ids = {0};
    struct text text = {0};
    enum status status;
    TRY_GOTO(open_tokenizer(conf, &tokenizer), out);
    TRY_GOTO(read_ids(conf, &ids), out);
    TRY_GOTO(decode(conf, tokenizer, &ids, &text), out);
    if (conf_flag(conf, OPT_JSON)) {
        status = output_json(json_pack("{s:o}", "text", json_stringn(text.bytes, text.n)));
    } else {
        status = output_write(text.bytes, text.n);
        status = status == STATUS_OK ? output_flush() : status;
    }
out:
    text_free(&text);
    id_list_free(&ids);
    if (tokenizer) {
        tokenizer_destroy(tokenizer);
    }
    return status;
}
