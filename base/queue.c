/* queue: a ring of equal messages behind one mutex. Time-outs run on the monotonic clock, so that a
 * change of the wall clock wakes or delays nobody. */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t arrived;
    size_t item_bytes, cap, len, head; /* head: oldest message */
    int closed;
    unsigned char *items; /* [cap, item_bytes] */
};

enum status queue_create(size_t item_bytes, size_t cap, struct queue **out)
{
    *out = NULL;
    ASSERT(item_bytes > 0 && cap > 0);
    struct queue *queue = mem_alloc(1, sizeof *queue);
    unsigned char *items = mem_alloc(cap, item_bytes);
    pthread_condattr_t monotonic;
    if (queue == NULL || items == NULL || pthread_condattr_init(&monotonic) != 0) {
        mem_free(items);
        mem_free(queue);
        return status_fail(STATUS_NO_MEMORY, "no memory for a queue of %zu messages of %zu bytes",
                           cap, item_bytes);
    }
    *queue = (struct queue){ .item_bytes = item_bytes, .cap = cap, .items = items };
    int failed = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    failed |= pthread_cond_init(&queue->arrived, &monotonic);
    failed |= pthread_mutex_init(&queue->mutex, NULL);
    pthread_condattr_destroy(&monotonic);
    ASSERT(failed == 0);
    *out = queue;
    return STATUS_OK;
}

void queue_destroy(struct queue *queue)
{
    if (queue == NULL) {
        return;
    }
    pthread_cond_destroy(&queue->arrived);
    pthread_mutex_destroy(&queue->mutex);
    mem_free(queue->items);
    mem_free(queue);
}

enum status queue_push(struct queue *queue, const void *item)
{
    enum status status = STATUS_OK;
    pthread_mutex_lock(&queue->mutex);
    if (queue->closed) {
        status = status_fail(STATUS_REFUSED, "the queue is closed");
    } else if (queue->len == queue->cap) {
        status = status_fail(STATUS_REFUSED, "the queue is full with %zu messages", queue->cap);
    } else {
        const size_t tail = (queue->head + queue->len) % queue->cap;
        memcpy(queue->items + tail * queue->item_bytes, item, queue->item_bytes);
        queue->len++;
        pthread_cond_signal(&queue->arrived);
    }
    pthread_mutex_unlock(&queue->mutex);
    return status;
}

static struct timespec queue_deadline(int64_t timeout_ns)
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

/* Mutex held. Returns when there is a message, the queue is closed, or time is up. */
static void queue_await(struct queue *queue, int64_t timeout_ns)
{
    const struct timespec deadline =
        timeout_ns > 0 ? queue_deadline(timeout_ns) : (struct timespec){0, 0};
    int error = 0;
    while (queue->len == 0 && !queue->closed && timeout_ns != 0 && error != ETIMEDOUT) {
        error = timeout_ns < 0 ? pthread_cond_wait(&queue->arrived, &queue->mutex)
                               : pthread_cond_timedwait(&queue->arrived, &queue->mutex, &deadline);
    }
}

enum status queue_pop(struct queue *queue, void *item, int64_t timeout_ns)
{
    enum status status = STATUS_OK;
    pthread_mutex_lock(&queue->mutex);
    queue_await(queue, timeout_ns);
    if (queue->len > 0) {
        memcpy(item, queue->items + queue->head * queue->item_bytes, queue->item_bytes);
        queue->head = (queue->head + 1) % queue->cap;
        queue->len--;
    } else if (queue->closed) {
        status = STATUS_CANCELLED;
    } else {
        status = STATUS_REFUSED;
    }
    pthread_mutex_unlock(&queue->mutex);
    return status;
}

size_t queue_len(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    const size_t len = queue->len;
    pthread_mutex_unlock(&queue->mutex);
    return len;
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = 1;
    pthread_cond_broadcast(&queue->arrived);
    pthread_mutex_unlock(&queue->mutex);
}
