/* api: the rest of include/tandem.h, thin over the engine's parts. */
#include <string.h>

#include "scheduler/engine.h"

enum td_status engine_td_status(enum status status)
{
    switch (status) {
    case STATUS_OK: return TD_OK;
    case STATUS_UNSUPPORTED: return TD_UNSUPPORTED;
    case STATUS_NO_MEMORY: return TD_NO_MEMORY;
    case STATUS_IO: return TD_IO;
    case STATUS_REFUSED: return TD_REFUSED;
    case STATUS_INVALID:
    case STATUS_CANCELLED:
    case STATUS_INTERRUPTED:
    case STATUS_NUMERIC:
    case STATUS_DIFFERENT:
    case STATUS_USAGE: break;
    }
    return TD_INVALID;
}

const char *td_error_message(void)
{
    return status_message();
}

void td_engine_get_info(const struct td_engine *engine, struct td_engine_info *info)
{
    *info = engine->info;
}

void td_engine_get_hints(const struct td_engine *engine, struct td_hints *hints)
{
    const struct model_hints *from = &engine->hints;
    *hints = (struct td_hints){ .temperature = (float)from->temperature, .top_p = (float)from->top_p,
                                .min_p = (float)from->min_p, .top_k = from->top_k,
                                .repetition_penalty = (float)from->repetition_penalty };
}

double td_engine_read_roof(const struct td_engine *engine, double seconds)
{
    struct device_plan plan = engine->plan.target;
    if (!backend_is_host(engine->backend)) {
        return 0; /* a device's memory is not the host's to read */
    }
    const struct device_plan *draft = &engine->plan.draft;
    if (engine->plan.lends && plan.n_threads + draft->n_threads <= ENGINE_MAX_THREADS) { /* they work together */
        memcpy(plan.cpus + plan.n_pinned, draft->cpus, (size_t)draft->n_pinned * sizeof *plan.cpus);
        plan.n_pinned += draft->n_pinned;
        plan.n_threads += draft->n_threads;
    }
    return roof_read_bandwidth(engine->backend, &(struct roof_options){
        .cpus = plan.n_pinned > 0 ? plan.cpus : NULL, .n_threads = plan.n_threads, .seconds = seconds,
        .memory = model_memory(engine->model), .memory_bytes = model_resident_bytes(engine->model) });
}

void td_engine_get_stats(struct td_engine *engine, struct td_engine_stats *stats)
{
    *stats = outbox_stats(engine->outbox);
}

const char *td_finish_name(enum td_finish finish)
{
    switch (finish) {
    case TD_FINISH_STOP: return "stop";
    case TD_FINISH_LENGTH: return "length";
    case TD_FINISH_CONTEXT: return "context";
    case TD_FINISH_CANCELLED: return "cancelled";
    case TD_FINISH_ERROR: break;
    }
    return "error";
}

/* ---- text ---- */
static enum status require_text(const struct td_engine *engine)
{
    return engine->tokenizer != NULL ? STATUS_OK : status_fail(STATUS_UNSUPPORTED, "%s", engine->no_text);
}

enum td_status td_tokenize(struct td_engine *engine, const char *text, size_t n_bytes, int flags,
                           int32_t *ids, size_t cap, size_t *n_ids)
{
    *n_ids = 0;
    enum status status = require_text(engine);
    if (status == STATUS_OK) {
        const int wanted = ((flags & TD_TOKENIZE_NO_SPECIAL) ? 0 : TOKENIZE_SPECIAL) |
                           ((flags & TD_TOKENIZE_LITERAL) ? TOKENIZE_LITERAL : 0);
        status = text_encode(engine->tokenizer, text, n_bytes, wanted, ids, cap, n_ids);
    }
    return engine_td_status(status);
}

enum td_status td_tokenize_chat(struct td_engine *engine, const struct td_chat *chat, int32_t *ids, size_t cap,
                                size_t *n_ids, int32_t *end_id)
{
    int32_t end = -1;
    *n_ids = 0;
    enum status status = require_text(engine);
    if (status == STATUS_OK) {
        status = text_encode_chat(engine->tokenizer, chat, ids, cap, n_ids, &end);
    }
    if (end_id != NULL) {
        *end_id = end;
    }
    return engine_td_status(status);
}

/* Copies as much as there is room for, counts all. */
struct text_room { char *text; size_t cap, n_bytes; };

static void put_piece(struct text_room *room, const char *piece, size_t n)
{
    const size_t left = room->n_bytes < room->cap ? room->cap - room->n_bytes : 0;
    if (left > 0 && n > 0) {
        memcpy(room->text + room->n_bytes, piece, n < left ? n : left);
    }
    room->n_bytes += n;
}

enum td_status td_detokenize(struct td_engine *engine, const int32_t *ids, size_t n_ids, char *text,
                             size_t cap, size_t *n_bytes)
{
    *n_bytes = 0;
    const enum status status = require_text(engine);
    if (status != STATUS_OK) {
        return engine_td_status(status);
    }
    const size_t piece_cap = text_push_cap(engine->tokenizer);
    char *piece = mem_alloc(1, piece_cap);
    if (piece == NULL) {
        return engine_td_status(status_fail(STATUS_NO_MEMORY, "no memory for a piece of text"));
    }
    struct text_room room = { .text = text, .cap = cap };
    struct detokenizer stream;
    text_stream_begin(&stream, engine->tokenizer, true);
    for (size_t i = 0; i < n_ids; i++) {
        put_piece(&room, piece, text_stream_push(&stream, ids[i], piece, piece_cap));
    }
    put_piece(&room, piece, text_stream_finish(&stream, piece, piece_cap));
    mem_free(piece);
    *n_bytes = room.n_bytes;
    return TD_OK;
}

/* ---- requests ---- */
void td_request_init(struct td_request *request)
{
    *request = (struct td_request){
        .max_tokens = -1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1, .n = 1, .k = -1,
        .want_text = 1,
    };
}

enum td_status td_submit(struct td_engine *engine, const struct td_request *asked, uint64_t *id)
{
    struct request *request;
    enum status status = request_create(&engine->limits, asked, &request);
    *id = 0;
    if (status != STATUS_OK) {
        return engine_td_status(status);
    }
    status = outbox_add(engine->outbox, request, engine->plan.max_queue);
    if (status != STATUS_OK) {
        request_destroy(request);
        return engine_td_status(status);
    }
    *id = request->id; /* before the push: after it the request may already be gone */
    status = queue_push(engine->inbox, &request);
    if (status != STATUS_OK) {
        outbox_take_back(engine->outbox, request);
        request_destroy(request);
    }
    return engine_td_status(status);
}

void td_cancel(struct td_engine *engine, uint64_t id)
{
    if (outbox_cancel(engine->outbox, id)) {
        scheduler_notice_cancel(engine->scheduler);
    }
}

enum td_status td_next_event(struct td_engine *engine, int64_t timeout_ns, struct td_event *event)
{
    return outbox_next(engine->outbox, timeout_ns, event);
}
