/* outbox: the list of sequences with news, its lock, and the table of live requests. */
#include "scheduler/outbox.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "scheduler/event.h"

struct outbox {
    pthread_mutex_t mutex;
    pthread_cond_t arrived;
    /* ---- under the lock ---- */
    struct request *first_live, *last_live;
    struct sequence *first_ready, *last_ready;
    int64_t n_undelivered;            /* choices of live requests whose end was not delivered */
    uint64_t last_id, n_started;
    struct td_engine_stats stats;
    /* ---- the consumer ---- */
    struct request *delivered;        /* finished with the last event; freed with the next call */
    struct event_writer *writer;
};

/* ---- creation ---- */
static void init_waiting(struct outbox *outbox)
{
    pthread_condattr_t monotonic;
    int failed = pthread_condattr_init(&monotonic);
    failed |= pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    failed |= pthread_cond_init(&outbox->arrived, &monotonic);
    failed |= pthread_mutex_init(&outbox->mutex, NULL);
    pthread_condattr_destroy(&monotonic);
    ASSERT(failed == 0);
}

enum status outbox_create(const struct tokenizer *tokenizer, uint64_t fingerprint, struct outbox **out)
{
    *out = NULL;
    struct outbox *outbox = mem_alloc(1, sizeof *outbox);
    if (outbox == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the list of events");
    }
    const enum status status = event_writer_create(tokenizer, fingerprint, &outbox->writer);
    if (status != STATUS_OK) {
        mem_free(outbox);
        return status;
    }
    init_waiting(outbox);
    *out = outbox;
    return STATUS_OK;
}

void outbox_destroy(struct outbox *outbox)
{
    if (outbox == NULL) {
        return;
    }
    request_destroy(outbox->delivered);
    while (outbox->first_live != NULL) {
        struct request *request = outbox->first_live;
        outbox->first_live = request->after;
        request_destroy(request);
    }
    event_writer_destroy(outbox->writer);
    pthread_cond_destroy(&outbox->arrived);
    pthread_mutex_destroy(&outbox->mutex);
    mem_free(outbox);
}

/* ---- live requests; lock held ---- */
static void live_insert(struct outbox *outbox, struct request *request)
{
    request->before = outbox->last_live;
    request->after = NULL;
    *(outbox->last_live != NULL ? &outbox->last_live->after : &outbox->first_live) = request;
    outbox->last_live = request;
}

static void live_remove(struct outbox *outbox, struct request *request)
{
    *(request->before != NULL ? &request->before->after : &outbox->first_live) = request->after;
    *(request->after != NULL ? &request->after->before : &outbox->last_live) = request->before;
}

/* ---- any thread ---- */
enum status outbox_add(struct outbox *outbox, struct request *request, int32_t max_waiting)
{
    pthread_mutex_lock(&outbox->mutex);
    const uint64_t n_waiting = outbox->last_id - outbox->n_started;
    const bool full = n_waiting >= (uint64_t)max_waiting;
    if (!full) {
        request->id = ++outbox->last_id;
        outbox->n_undelivered += request->n_choices;
        live_insert(outbox, request);
    }
    pthread_mutex_unlock(&outbox->mutex);
    return full ? status_fail(STATUS_REFUSED, "%d requests wait already; try again when one has started",
                              max_waiting)
                : STATUS_OK;
}

void outbox_take_back(struct outbox *outbox, struct request *request)
{
    pthread_mutex_lock(&outbox->mutex);
    outbox->n_started++;
    outbox->n_undelivered -= request->n_choices;
    live_remove(outbox, request);
    pthread_mutex_unlock(&outbox->mutex);
}

bool outbox_cancel(struct outbox *outbox, uint64_t id)
{
    pthread_mutex_lock(&outbox->mutex);
    struct request *request = outbox->first_live;
    while (request != NULL && request->id != id) {
        request = request->after;
    }
    if (request != NULL) {
        atomic_store(&request->cancelled, 1);
    }
    pthread_mutex_unlock(&outbox->mutex);
    return request != NULL;
}

struct td_engine_stats outbox_stats(struct outbox *outbox)
{
    pthread_mutex_lock(&outbox->mutex);
    const struct td_engine_stats stats = outbox->stats;
    pthread_mutex_unlock(&outbox->mutex);
    return stats;
}

/* ---- step thread ---- */
static struct sequence_view view_of(const struct sequence *seq)
{
    const bool text_is_open = seq->request->stops.n_strings > 0 &&
                              (seq->ending == ENDING_NONE || seq->ending == ENDING_STOP_STRING);
    return (struct sequence_view){
        .n_generated = sequence_n_generated(seq),
        .n_text = text_is_open ? seq->scan.n_released : INT64_MAX,
        .ending = seq->ending,
    };
}

void outbox_publish(struct outbox *outbox, const struct outbox_news *news)
{
    struct sequence *next;
    pthread_mutex_lock(&outbox->mutex);
    for (struct sequence *seq = news->first; seq != NULL; seq = next) {
        next = seq->next_news;
        seq->has_news = false;
        seq->next_news = NULL;
        seq->published = view_of(seq);
        if (!seq->is_ready) {
            seq->is_ready = true;
            seq->next_ready = NULL;
            *(outbox->first_ready != NULL ? &outbox->last_ready->next_ready : &outbox->first_ready) = seq;
            outbox->last_ready = seq;
        }
    }
    outbox->n_started = news->n_started;
    outbox->stats = *news->stats;
    if (news->first != NULL) {
        pthread_cond_signal(&outbox->arrived);
    }
    pthread_mutex_unlock(&outbox->mutex);
}

/* ---- the consumer; lock held ---- */
static struct timespec deadline_after(int64_t timeout_ns)
{
    struct timespec at = { 0, 0 };
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(timeout_ns / 1000000000);
    at.tv_nsec += (long)(timeout_ns % 1000000000);
    if (at.tv_nsec >= 1000000000) {
        at.tv_nsec -= 1000000000;
        at.tv_sec++;
    }
    return at;
}

static enum td_status await_news(struct outbox *outbox, int64_t timeout_ns)
{
    const struct timespec deadline = deadline_after(timeout_ns > 0 ? timeout_ns : 0);
    while (outbox->first_ready == NULL) {
        if (outbox->n_undelivered == 0) {
            return TD_CLOSED;
        }
        if (timeout_ns < 0) {
            pthread_cond_wait(&outbox->arrived, &outbox->mutex);
        } else if (timeout_ns == 0 ||
                   pthread_cond_timedwait(&outbox->arrived, &outbox->mutex, &deadline) == ETIMEDOUT) {
            return outbox->first_ready != NULL ? TD_OK : TD_TIMEOUT;
        }
    }
    return TD_OK;
}

/* The first in the list; it leaves the list when this event says all that is known of it. */
static struct sequence *take_event(struct outbox *outbox, struct event_slice *slice)
{
    struct sequence *seq = outbox->first_ready;
    *slice = event_slice_next(seq);
    if (slice->says_all) {
        outbox->first_ready = seq->next_ready;
        seq->is_ready = false;
    }
    if (slice->kind == TD_EVENT_FINISHED) {
        struct request *request = seq->request;
        outbox->n_undelivered--;
        if (--request->n_undelivered == 0) {
            live_remove(outbox, request);
            outbox->delivered = request;
        }
    }
    return seq;
}

enum td_status outbox_next(struct outbox *outbox, int64_t timeout_ns, struct td_event *event)
{
    struct event_slice slice;
    struct sequence *seq = NULL;
    request_destroy(outbox->delivered);
    outbox->delivered = NULL;
    pthread_mutex_lock(&outbox->mutex);
    const enum td_status status = await_news(outbox, timeout_ns);
    if (status == TD_OK) {
        seq = take_event(outbox, &slice);
    }
    pthread_mutex_unlock(&outbox->mutex);
    if (status == TD_OK) {
        event_write(outbox->writer, seq, &slice, event);
    }
    return status;
}
