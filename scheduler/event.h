/* event: what the consumer is told about a sequence: tokens since the last event, their text, and at
 * the end how it ended. Runs on the consumer's thread, in memory taken at creation. Inside the room
 * only.
 */
#ifndef SCHEDULER_EVENT_H
#define SCHEDULER_EVENT_H

#include "scheduler/request.h"

/* Which news one event carries; cut out under the outbox's lock, written without it. */
struct event_slice {
    enum td_event_kind kind;
    int32_t first, n_tokens;    /* of the generated tokens */
    struct sequence_view view;
    bool says_all;              /* nothing is left to say until there are further news */
};
/* Takes the next slice and moves n_sent past it. There must be news. */
struct event_slice event_slice_next(struct sequence *seq);

struct event_writer;
enum status event_writer_create(const struct tokenizer *tokenizer, uint64_t fingerprint,
                                struct event_writer **out);
void event_writer_destroy(struct event_writer *writer); /* NULL is fine */
/* What the event points to lives until the next call. */
void event_write(struct event_writer *writer, struct sequence *seq, const struct event_slice *slice,
                 struct td_event *event);

#endif
