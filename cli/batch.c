/* batch: JSON lines in, JSON lines out as each ends, all running together.
 *
 * Lines are read only as fast as the engine's queue takes them, so a file of any length needs memory
 * for what runs and waits. A bad line gets its own object with "error" and hurts no other.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum { BATCH_DEFAULT = 8, LINE_MAX_BYTES = 16 << 20, MAX_STOPS = 64 };
static const int64_t WAIT_NS = 50000000;

struct batch {
    const struct conf *conf;
    struct td_engine *engine;
    struct td_engine_info info;
    struct td_hints hints;      /* where a line says nothing */
    FILE *in;
    double roof_gb_per_s;
    int64_t n_lines, n_failed;
    struct batch_item *pending; /* read and not yet taken by the engine's queue */
    struct batch_item *live;    /* list of those submitted */
    int ended, cancelled;
};
struct batch_item {
    struct batch_item *next, *previous;
    json_t *line, *name;        /* name: the request's "id", or its line number */
    uint64_t id;
    struct td_request request;
    const char *stops[MAX_STOPS];
    int32_t end_id;                  /* of a conversation's answer */
    struct result result;
};

static void item_destroy(struct batch_item *item)
{
    if (item) {
        json_decref(item->line);
        json_decref(item->name);
        result_free(&item->result);
        mem_free(item);
    }
}

/* ---- one line to a request ---- */
enum field_kind { FIELD_SKIP, FIELD_INT, FIELD_FLOAT, FIELD_FLAG };
struct field { const char *name; enum field_kind kind; size_t offset; double min, max; };
#define AT(member) offsetof(struct td_request, member)
static const struct field fields[] = {
    {"id", FIELD_SKIP, 0, 0, 0},          {"prompt", FIELD_SKIP, 0, 0, 0},
    {"ids", FIELD_SKIP, 0, 0, 0},         {"messages", FIELD_SKIP, 0, 0, 0},
    {"stop", FIELD_SKIP, 0, 0, 0},        {"seed", FIELD_SKIP, 0, 0, 0},
    {"max_tokens", FIELD_SKIP, 0, 0, 0},
    {"temperature", FIELD_FLOAT, AT(temperature), 0, 100},
    {"top_k", FIELD_INT, AT(top_k), 0, 1e9},
    {"top_p", FIELD_FLOAT, AT(top_p), 0, 1},
    {"min_p", FIELD_FLOAT, AT(min_p), 0, 1},
    {"repetition_penalty", FIELD_FLOAT, AT(repetition_penalty), 0.01, 100},
    {"presence_penalty", FIELD_FLOAT, AT(presence_penalty), -100, 100},
    {"frequency_penalty", FIELD_FLOAT, AT(frequency_penalty), -100, 100},
    {"ignore_eos", FIELD_FLAG, AT(ignore_eos), 0, 0},
    {"priority", FIELD_INT, AT(priority), -1e9, 1e9},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static const struct field *field_find(const char *name)
{
    for (int i = 0; i < N_FIELDS; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            return &fields[i];
        }
    }
    return NULL;
}

static enum status field_unknown(const char *name)
{
    const char *names[N_FIELDS];
    for (int i = 0; i < N_FIELDS; i++) {
        names[i] = fields[i].name;
    }
    return status_fail(STATUS_INVALID, "no field \"%s\"; the nearest is \"%s\"", name,
                       conf_nearest(name, names, N_FIELDS));
}

static enum status field_set(const struct field *field, const json_t *value, struct td_request *request)
{
    char *at = (char *)request + field->offset;
    if (field->kind == FIELD_FLAG) {
        if (!json_is_boolean(value)) {
            return status_fail(STATUS_INVALID, "\"%s\" is true or false", field->name);
        }
        *(int32_t *)(void *)at = json_is_true(value);
        return STATUS_OK;
    }
    const double x = json_number_value(value);
    const int right = field->kind == FIELD_INT ? json_is_integer(value) : json_is_number(value);
    if (!right || !(x >= field->min && x <= field->max)) {
        return status_fail(STATUS_INVALID, "\"%s\" is a %s from %g to %g", field->name,
                           field->kind == FIELD_INT ? "whole number" : "number", field->min, field->max);
    }
    if (field->kind == FIELD_INT) {
        *(int32_t *)(void *)at = (int32_t)x;
    } else {
        *(float *)(void *)at = (float)x;
    }
    return STATUS_OK;
}

static enum status item_seed(const json_t *value, struct td_request *request)
{
    request->has_seed = 1;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        request->seed = (uint64_t)json_integer_value(value);
        return STATUS_OK;
    }
    /* seeds that are too large for JSON's numbers are written as a text of digits, and read so */
    const char *digits = json_is_string(value) ? json_string_value(value) : "";
    uint64_t bits = 0;
    int bad = *digits == '\0';
    for (; *digits && !bad; digits++) {
        const uint64_t digit = (uint64_t)(*digits - '0');
        bad = digit > 9 || bits > (UINT64_MAX - digit) / 10;
        bits = bits * 10 + digit;
    }
    if (bad) {
        return status_fail(STATUS_INVALID, "\"seed\" is a whole number from 0 to 18446744073709551615");
    }
    request->seed = bits;
    return STATUS_OK;
}

static enum status item_stops(struct batch_item *item, const json_t *value)
{
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > MAX_STOPS) {
        return status_fail(STATUS_INVALID, "\"stop\" holds %zu texts, at most %d are possible", n, MAX_STOPS);
    }
    for (size_t i = 0; i < n; i++) {
        item->stops[i] = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (!item->stops[i]) {
            return status_fail(STATUS_INVALID, "\"stop\" is a text or a list of texts");
        }
    }
    item->request.stops = item->stops;
    item->request.n_stops = n;
    return STATUS_OK;
}

/* The strings stay the line's: the item keeps it. */
static enum status item_messages(const struct batch *batch, struct batch_item *item, const json_t *list)
{
    const size_t n = json_array_size(list);
    struct td_message *messages = mem_alloc(n, sizeof *messages);
    enum status status = messages ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for %zu messages", n);
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        const json_t *content = json_object_get(json_array_get(list, i), "content");
        messages[i].role = json_string_value(json_object_get(json_array_get(list, i), "role"));
        messages[i].text = json_string_value(content);
        messages[i].n_text = json_string_length(content);
        if (!messages[i].role || !messages[i].text) {
            status = status_fail(STATUS_INVALID, "\"messages\" is a list of objects with \"role\" and \"content\"");
        }
    }
    const struct td_chat chat = {conf_text(batch->conf, OPT_CHAT_FORMAT), messages, n};
    if (status == STATUS_OK) {
        status = engine_tokenize_chat(batch->engine, &chat, &item->result.prompt, &item->end_id);
        item->request.stop_ids = &item->end_id;
        item->request.n_stop_ids = item->end_id >= 0;
    }
    mem_free(messages);
    return status;
}

static enum status item_prompt(const struct batch *batch, struct batch_item *item)
{
    const json_t *prompt = json_object_get(item->line, "prompt"), *ids = json_object_get(item->line, "ids");
    const json_t *messages = json_object_get(item->line, "messages");
    const int n_given = (prompt != NULL) + (ids != NULL) + (messages != NULL);
    if (n_given != 1) {
        return status_fail(STATUS_INVALID, "expected one of \"prompt\", \"ids\" and \"messages\", found %s",
                           n_given == 0 ? "none" : "more");
    }
    if (messages) {
        return item_messages(batch, item, messages);
    }
    if (prompt && !json_is_string(prompt)) {
        return status_fail(STATUS_INVALID, "\"prompt\" is a text");
    }
    if (prompt) {
        return engine_tokenize(batch->engine, json_string_value(prompt), json_string_length(prompt),
                               &item->result.prompt);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX) {
            return status_fail(STATUS_INVALID, "\"ids\" holds something that is no token id");
        }
        TRY(id_list_append(&item->result.prompt, (int32_t)value));
    }
    return item->result.prompt.n > 0 ? STATUS_OK : status_fail(STATUS_INVALID, "\"ids\" is a list of token ids");
}

static enum status item_parse(struct batch *batch, struct batch_item *item, const struct text *line)
{
    json_error_t error;
    item->line = json_loadb(line->bytes, line->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(item->line)) {
        return status_fail(STATUS_INVALID, "expected a JSON object: %s", item->line ? "found something else"
                                                                                    : error.text);
    }
    json_t *name = json_object_get(item->line, "id");
    if (name) {
        json_decref(item->name);
        item->name = json_incref(name);
    }
    engine_request(batch->conf, &batch->hints, &item->request);
    const char *key;
    json_t *value;
    json_object_foreach (item->line, key, value) {
        const struct field *field = field_find(key);
        if (!field) {
            return field_unknown(key);
        }
        if (field->kind != FIELD_SKIP) {
            TRY(field_set(field, value, &item->request));
        } else if (strcmp(key, "seed") == 0) {
            TRY(item_seed(value, &item->request));
        } else if (strcmp(key, "stop") == 0) {
            TRY(item_stops(item, value));
        } else if (strcmp(key, "max_tokens") == 0) {
            if (!json_is_integer(value)) {
                return status_fail(STATUS_INVALID, "\"max_tokens\" is a whole number");
            }
            item->request.max_tokens = json_integer_value(value);
        }
    }
    TRY(item_prompt(batch, item));
    item->request.ids = item->result.prompt.ids;
    item->request.n_ids = item->result.prompt.n;
    item->request.user = item;
    return STATUS_OK;
}

/* ---- out ---- */
static enum status write_error(struct batch *batch, const struct batch_item *item, const char *sentence)
{
    batch->n_failed++;
    return output_json(json_pack("{s:O,s:s}", "id", item->name, "error", sentence));
}

static enum status write_result(struct batch *batch, const struct batch_item *item)
{
    if (item->result.finish == TD_FINISH_ERROR) {
        return write_error(batch, item, item->result.error);
    }
    json_t *object = json_pack("{s:O}", "id", item->name);
    const enum status status = object ? result_json(&item->result, &batch->info, batch->roof_gb_per_s, object)
                                      : status_fail(STATUS_NO_MEMORY, "no memory for a result");
    if (status != STATUS_OK) {
        json_decref(object);
        return status;
    }
    return output_json(object);
}

/* ---- in ---- */
/* The next line without its end; STATUS_REFUSED at the end of the file. A line that is too long is
 * read to its end and said to be so. */
static enum status read_line(struct batch *batch, struct text *line)
{
    int c = 0, too_long = 0, any = 0;
    line->n = 0;
    TRY(text_append(line, "", 0));
    while ((c = getc(batch->in)) != EOF && c != '\n') {
        const char byte = (char)c;
        any = 1;
        too_long = too_long || line->n == LINE_MAX_BYTES;
        if (!too_long) {
            TRY(text_append(line, &byte, 1));
        }
    }
    if (c == EOF && ferror(batch->in)) {
        return status_fail(STATUS_IO, "cannot read requests: %s", strerror(errno));
    }
    if (c == EOF && !any) {
        return STATUS_REFUSED;
    }
    batch->n_lines++;
    line->n = too_long ? 0 : line->n;
    return too_long ? STATUS_INVALID : STATUS_OK;
}

static int is_blank(const struct text *line)
{
    size_t i = 0;
    while (i < line->n && strchr(" \t\r", line->bytes[i]) && line->bytes[i]) {
        i++;
    }
    return i == line->n;
}

/* Reads lines until one can be submitted (batch->pending) or the file ends. */
static enum status batch_read(struct batch *batch, struct text *line)
{
    while (!batch->pending && !batch->ended) {
        enum status status = read_line(batch, line);
        if (status == STATUS_REFUSED) {
            batch->ended = 1;
            return STATUS_OK;
        }
        if (status != STATUS_OK && status != STATUS_INVALID) {
            return status;
        }
        if (status == STATUS_OK && is_blank(line)) {
            continue;
        }
        struct batch_item *item = mem_alloc(1, sizeof *item);
        if (!item || !(item->name = json_integer(batch->n_lines))) {
            mem_free(item);
            return status_fail(STATUS_NO_MEMORY, "no memory for the request of line %lld",
                               (long long)batch->n_lines);
        }
        status = status == STATUS_OK ? item_parse(batch, item, line)
                                     : status_fail(status, "the line is over %d MiB", LINE_MAX_BYTES >> 20);
        if (status == STATUS_OK) {
            batch->pending = item;
            return STATUS_OK;
        }
        char sentence[1024];
        snprintf(sentence, sizeof sentence, "line %lld: %s", (long long)batch->n_lines, status_message());
        status = write_error(batch, item, sentence);
        item_destroy(item);
        TRY(status);
    }
    return STATUS_OK;
}

static void live_add(struct batch *batch, struct batch_item *item)
{
    item->next = batch->live;
    if (batch->live) {
        batch->live->previous = item;
    }
    batch->live = item;
}

static void live_remove(struct batch *batch, struct batch_item *item)
{
    *(item->previous ? &item->previous->next : &batch->live) = item->next;
    if (item->next) {
        item->next->previous = item->previous;
    }
}

/* Submits lines until the queue is full or the file ends. */
static enum status batch_submit(struct batch *batch, struct text *line)
{
    while (!batch->cancelled) {
        TRY(batch_read(batch, line));
        struct batch_item *item = batch->pending;
        if (!item) {
            return STATUS_OK;
        }
        const enum td_status td = td_submit(batch->engine, &item->request, &item->id);
        if (td == TD_REFUSED && batch->live) {
            return STATUS_OK; /* queue full: tried again after the next event */
        }
        batch->pending = NULL;
        if (td == TD_OK) {
            live_add(batch, item);
            continue;
        }
        const enum status status = write_error(batch, item, td_error_message());
        item_destroy(item);
        TRY(status);
    }
    return STATUS_OK;
}

static void batch_cancel(struct batch *batch)
{
    batch->cancelled = 1;
    for (const struct batch_item *item = batch->live; item; item = item->next) {
        td_cancel(batch->engine, item->id);
    }
}

static enum status batch_loop(struct batch *batch, struct text *line)
{
    for (;;) {
        TRY(batch_submit(batch, line));
        if (!batch->live) {
            return STATUS_OK;
        }
        struct td_event event;
        const enum td_status td = td_next_event(batch->engine, WAIT_NS, &event);
        if (interrupt_seen() && !batch->cancelled) {
            batch_cancel(batch);
        }
        if (td == TD_TIMEOUT) {
            continue;
        }
        TRY(engine_failed(td));
        struct batch_item *item = event.user;
        TRY(result_add(&item->result, &event));
        if (event.kind == TD_EVENT_FINISHED) {
            live_remove(batch, item);
            const enum status status = write_result(batch, item);
            item_destroy(item);
            TRY(status);
        }
    }
}

static enum status batch_end(const struct batch *batch)
{
    struct td_engine_stats stats;
    td_engine_get_stats(batch->engine, &stats);
    say(batch->conf, "%llu requests finished, %lld failed, %llu tokens in %llu passes",
        (unsigned long long)stats.finished, (long long)batch->n_failed,
        (unsigned long long)stats.committed_tokens, (unsigned long long)stats.target_passes);
    if (interrupt_seen()) {
        return status_fail(STATUS_INTERRUPTED, "interrupted");
    }
    return batch->n_failed == 0 ? STATUS_OK
                                : status_fail(STATUS_INVALID, "%lld of %lld lines could not be run",
                                              (long long)batch->n_failed, (long long)batch->n_lines);
}

enum status verb_batch(const struct conf *conf)
{
    struct batch batch = {.conf = conf};
    struct text line = {0};
    const char *path = conf->argument[0];
    enum status status;
    batch.in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!batch.in) {
        return status_fail(STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    }
    TRY_GOTO(engine_open(conf, BATCH_DEFAULT, &batch.engine), out);
    TRY_GOTO(engine_hints(conf, batch.engine, &batch.hints), out);
    td_engine_get_info(batch.engine, &batch.info);
    batch.roof_gb_per_s = td_engine_read_roof(batch.engine, 0.1) * 1e-9;
    interrupt_catch();
    TRY_GOTO(batch_loop(&batch, &line), out);
    status = batch_end(&batch);
out:
    if (batch.engine) {
        td_engine_close(batch.engine);
    }
    while (batch.live) {
        struct batch_item *item = batch.live;
        live_remove(&batch, item);
        item_destroy(item);
    }
    item_destroy(batch.pending);
    text_free(&line);
    if (batch.in != stdin) {
        fclose(batch.in);
    }
    return status;
}
