/* event: tokens become text here, on the consumer's thread; the step thread only says how much of it
 * may go out (struct sequence_view). */
#include "scheduler/event.h"

#include <string.h>

#include "scheduler/outbox.h"

struct event_writer {
    const struct tokenizer *tokenizer; /* NULL: no text */
    uint64_t fingerprint;
    struct td_token tokens[OUTBOX_EVENT_TOKENS];
    char *text; /* what one event's tokens can become, after what was held back */
    size_t text_cap;
};

enum status event_writer_create(const struct tokenizer *tokenizer, uint64_t fingerprint,
                                struct event_writer **out)
{
    *out = NULL;
    struct event_writer *writer = mem_alloc(1, sizeof *writer);
    if (writer == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for events");
    }
    writer->tokenizer = tokenizer;
    writer->fingerprint = fingerprint;
    if (tokenizer != NULL) {
        writer->text_cap = STOP_MAX_BYTES + (OUTBOX_EVENT_TOKENS + 1) * text_push_cap(tokenizer);
    }
    writer->text = mem_alloc(1, writer->text_cap);
    if (writer->text == NULL) {
        mem_free(writer);
        return status_fail(STATUS_NO_MEMORY, "no memory for the text of events");
    }
    *out = writer;
    return STATUS_OK;
}

void event_writer_destroy(struct event_writer *writer)
{
    if (writer != NULL) {
        mem_free(writer->text);
        mem_free(writer);
    }
}

struct event_slice event_slice_next(struct sequence *seq)
{
    const struct sequence_view *view = &seq->published;
    const int32_t n_left = view->n_generated - seq->n_sent;
    const int32_t n_tokens = n_left < OUTBOX_EVENT_TOKENS ? n_left : OUTBOX_EVENT_TOKENS;
    const bool is_end = n_left == 0 && view->ending != ENDING_NONE;
    const struct event_slice slice = {
        .kind = is_end ? TD_EVENT_FINISHED : TD_EVENT_TOKENS,
        .first = seq->n_sent,
        .n_tokens = n_tokens,
        .view = *view,
        .says_all = is_end || (n_tokens == n_left && view->ending == ENDING_NONE),
    };
    seq->n_sent += n_tokens;
    return slice;
}

/* ---- text ---- */
/* Appends the text of the slice's tokens to what was held; a stop id stands for no text. */
static size_t write_text(struct event_writer *writer, struct sequence *seq, const struct event_slice *slice)
{
    const int32_t *ids = seq->tokens + seq->request->n_prompt;
    const struct sequence_view *view = &slice->view;
    const int32_t n_with_text = view->n_generated - (view->ending == ENDING_STOP_ID);
    size_t n = seq->n_held;
    memcpy(writer->text, seq->held, n);
    for (int32_t i = slice->first; i < slice->first + slice->n_tokens && i < n_with_text; i++) {
        n += text_stream_push(&seq->stream, ids[i], writer->text + n, writer->text_cap - n);
    }
    if (slice->kind == TD_EVENT_FINISHED && view->ending != ENDING_STOP_STRING) {
        n += text_stream_finish(&seq->stream, writer->text + n, writer->text_cap - n);
    }
    return n;
}

static void put_text(struct event_writer *writer, struct sequence *seq, const struct event_slice *slice,
                     struct td_event *event)
{
    event->text = writer->text;
    if (writer->tokenizer == NULL || !seq->request->want_text) {
        return;
    }
    const size_t n = write_text(writer, seq, slice);
    const int64_t n_allowed = slice->view.n_text - seq->n_sent_text;
    const size_t n_out = n_allowed < (int64_t)n ? (size_t)n_allowed : n;
    const size_t n_rest = n - n_out, n_room = seq->request->stops.max_bytes;
    /* What is not allowed yet is shorter than a stop string, or lies beyond the stop and is dropped;
     * with tokens of one view in two events, the view's text may also be short of it. */
    seq->n_held = n_rest < n_room ? n_rest : n_room;
    memcpy(seq->held, writer->text + n_out, seq->n_held);
    seq->n_sent_text += (int64_t)n_out;
    event->n_text = n_out;
}

/* ---- tokens ---- */
static void put_tokens(struct event_writer *writer, const struct sequence *seq,
                       const struct event_slice *slice, struct td_event *event)
{
    const int32_t *ids = seq->tokens + seq->request->n_prompt;
    for (int32_t i = 0; i < slice->n_tokens; i++) {
        const int32_t idx = slice->first + i;
        struct td_token *token = &writer->tokens[i];
        const struct token_origin *origin = &seq->origin[idx];
        *token = (struct td_token){ .id = ids[idx], .source = origin->source, .rejected_id = origin->rejected_id,
                                    .rejected_source = origin->rejected_source,
                                    .n_rejected = origin->n_rejected };
        if (seq->logprob != NULL) {
            token->logprob = seq->logprob[idx];
            token->n_top = seq->n_top[idx];
            token->top = seq->top + (size_t)idx * (size_t)seq->params.n_top_logprobs;
        }
    }
    event->tokens = writer->tokens;
    event->n_tokens = (size_t)slice->n_tokens;
}

/* ---- the end ---- */
static enum td_finish finish_of(enum sequence_ending ending)
{
    switch (ending) {
    case ENDING_STOP_ID:
    case ENDING_STOP_STRING: return TD_FINISH_STOP;
    case ENDING_LENGTH: return TD_FINISH_LENGTH;
    case ENDING_CONTEXT: return TD_FINISH_CONTEXT;
    case ENDING_CANCELLED: return TD_FINISH_CANCELLED;
    case ENDING_NONE:
    case ENDING_ERROR: break;
    }
    return TD_FINISH_ERROR;
}

static double seconds_between(int64_t begin_ns, int64_t end_ns)
{
    return (double)(end_ns - begin_ns) * 1e-9;
}

static void put_end(const struct event_writer *writer, const struct sequence *seq, struct td_event *event)
{
    const struct request *request = seq->request;
    const int64_t submitted = request->submitted_ns, end = seq->finished_ns;
    const int64_t admitted = seq->admitted_ns != 0 ? seq->admitted_ns : end;
    const int64_t first = seq->first_token_ns != 0 ? seq->first_token_ns : end;
    event->finish = finish_of(seq->ending);
    event->error = seq->ending == ENDING_ERROR ? seq->error : NULL;
    event->usage = (struct td_usage){
        .seed = seq->params.seed,
        .logits_digest = digest_value(&seq->digest),
        .fingerprint = writer->fingerprint,
        .prompt_tokens = request->n_prompt,
        .cached_prompt_tokens = seq->n_cached_prompt,
        .completion_tokens = sequence_n_generated(seq),
        .target_passes = seq->n_passes,
        .drafted = seq->drafted,
        .queue_seconds = seconds_between(submitted, admitted),
        .prefill_seconds = seconds_between(admitted, first),
        .decode_seconds = seconds_between(first, end),
        .first_token_seconds = seq->first_token_ns != 0 ? seconds_between(submitted, first) : 0,
    };
}

void event_write(struct event_writer *writer, struct sequence *seq, const struct event_slice *slice,
                 struct td_event *event)
{
    *event = (struct td_event){ .kind = slice->kind, .id = seq->request->id, .choice = seq->choice,
                                .user = seq->request->user };
    put_tokens(writer, seq, slice, event);
    put_text(writer, seq, slice, event);
    if (slice->kind == TD_EVENT_FINISHED) {
        put_end(writer, seq, event);
    }
}
