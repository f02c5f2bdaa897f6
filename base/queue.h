/* queue: bounded queue of fixed-size value messages between threads. Many producers and consumers;
 * a mutex and a condition: it carries requests and events, a few thousand a second, not kernels.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct queue;

enum status queue_create(size_t item_bytes, size_t cap, struct queue **out);
void queue_destroy(struct queue *queue);
/* STATUS_REFUSED when full or closed; copies item_bytes from `item`. Never blocks on space. */
enum status queue_push(struct queue *queue, const void *item);
/* Waits up to timeout_ns (< 0: for ever, 0: not at all). STATUS_REFUSED on timeout,
 * STATUS_CANCELLED once closed and empty. */
enum status queue_pop(struct queue *queue, void *item, int64_t timeout_ns);
size_t queue_len(struct queue *queue);
/* Wakes all waiters; later pushes are refused, what is inside can still be popped. */
void queue_close(struct queue *queue);

#endif
