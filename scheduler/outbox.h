/* outbox: what happened to requests, from the step thread to the consumer of events.
 *
 * No event is stored: a sequence with news stands in a list, once, and its `published` view says how
 * far it came. Whoever takes an event sees all that is new since the last one, so a slow consumer
 * gets fewer and larger events and never holds up a step. One lock, taken once a step by the step
 * thread. Inside the room only.
 */
#ifndef SCHEDULER_OUTBOX_H
#define SCHEDULER_OUTBOX_H

#include "scheduler/request.h"

enum { OUTBOX_EVENT_TOKENS = 256 /* of one event, at most */ };

struct outbox;
/* tokenizer: NULL when there is no text. fingerprint: for the finish events. */
enum status outbox_create(const struct tokenizer *tokenizer, uint64_t fingerprint, struct outbox **out);
void outbox_destroy(struct outbox *outbox); /* with all requests in it; NULL is fine */

/* ---- any thread ---- */
/* The request is live from now on, and owned by the outbox; gives it its id. STATUS_REFUSED when as
 * many as max_waiting requests have not started. */
enum status outbox_add(struct outbox *outbox, struct request *request, int32_t max_waiting);
/* Undoes outbox_add of a request that nobody else has seen. */
void outbox_take_back(struct outbox *outbox, struct request *request);
/* Sets its flag. False when no such request is live. */
bool outbox_cancel(struct outbox *outbox, uint64_t id);
struct td_engine_stats outbox_stats(struct outbox *outbox);

/* ---- step thread ---- */
struct outbox_news {
    struct sequence *first; /* linked by next_news, which are cleared */
    uint64_t n_started;     /* requests ever */
    const struct td_engine_stats *stats;
};
void outbox_publish(struct outbox *outbox, const struct outbox_news *news);

/* ---- the consumer ---- */
enum td_status outbox_next(struct outbox *outbox, int64_t timeout_ns, struct td_event *event);

#endif
