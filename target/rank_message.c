/* rank_message: see the header.
 *
 *     pass      n_rows n_seqs n_logits n_layers | token position slot seq_of_row | logits_row | views
 *     view      list  fork n_path path..          list: an earlier view's with the same pages, or itself,
 *               [n_pages pages..]                 and then they follow
 *
 * Branches of a sequence share its pages, so each list of pages goes out once.
 */
#include "target/rank_message.h"

#include <string.h>

enum { PASS_COUNTS = 4, VIEW_WORDS = 3 };

enum status message_create(int32_t cap, struct message *message)
{
    cap = cap > MESSAGE_HEAD ? cap : MESSAGE_HEAD;
    *message = (struct message){ .words = mem_alloc((size_t)cap, sizeof *message->words), .cap = cap };
    if (message->words == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for messages of %d words between ranks", cap);
    }
    return STATUS_OK;
}

void message_destroy(struct message *message)
{
    mem_free(message->words);
    *message = (struct message){ .words = NULL };
}

void message_begin(struct message *message, enum message_kind kind)
{
    message->words[0] = (int32_t)kind;
    message->n = MESSAGE_FIRST;
}

void message_put(struct message *message, const int32_t *words, int32_t n)
{
    ASSERT(n >= 0 && n <= message->cap - message->n);
    if (n > 0) {
        memcpy(message->words + message->n, words, (size_t)n * sizeof *words);
        message->n += n;
    }
}

/* ---- there and back ---- */

void message_send(struct comm *comm, struct message *message)
{
    message->words[1] = message->n;
    comm_broadcast(comm, message->words, MESSAGE_HEAD * sizeof *message->words);
    if (message->n > MESSAGE_HEAD) {
        comm_broadcast(comm, message->words + MESSAGE_HEAD,
                       (size_t)(message->n - MESSAGE_HEAD) * sizeof *message->words);
    }
}

enum message_kind message_receive(struct comm *comm, struct message *message)
{
    comm_broadcast(comm, message->words, MESSAGE_HEAD * sizeof *message->words);
    if (comm_check(comm) != STATUS_OK) {
        return MESSAGE_BROKEN;
    }
    message->n = message->words[1];
    ASSERT(message->n >= MESSAGE_FIRST && message->n <= message->cap);
    if (message->n > MESSAGE_HEAD) {
        comm_broadcast(comm, message->words + MESSAGE_HEAD,
                       (size_t)(message->n - MESSAGE_HEAD) * sizeof *message->words);
    }
    if (comm_check(comm) != STATUS_OK) {
        return MESSAGE_BROKEN;
    }
    return (enum message_kind)message->words[0];
}

/* ---- passes ---- */

int64_t message_pass_cap(const struct rank_order *order)
{
    const int64_t per_seq = ((int64_t)order->context + order->page_slots - 1) / order->page_slots;
    return MESSAGE_FIRST + PASS_COUNTS + 4 * (int64_t)order->cap_rows + order->cap_logits +
           (int64_t)message_views_cap(order) * VIEW_WORDS + (int64_t)order->cap_rows * KV_PATH_CAP +
           (int64_t)order->cap_seqs * (1 + per_seq);
}

static void put_number(struct message *message, int32_t number) { message_put(message, &number, 1); }

static void put_view(struct message *message, const struct kv_view *views, int32_t idx)
{
    const struct kv_view *view = &views[idx];
    int32_t list = 0;
    while (views[list].pages != view->pages || views[list].n_pages != view->n_pages) {
        list++; /* ends at idx */
    }
    put_number(message, list);
    put_number(message, view->fork);
    put_number(message, view->n_path);
    message_put(message, view->path, view->n_path);
    if (list == idx) {
        put_number(message, view->n_pages);
        message_put(message, (const int32_t *)(const void *)view->pages, view->n_pages);
    }
}

void message_put_pass(struct message *message, const struct pass *pass)
{
    const int32_t counts[PASS_COUNTS] = { pass->n_rows, pass->n_seqs, pass->n_logits, pass->n_layers };
    ASSERT(pass->head == NULL);
    message_begin(message, MESSAGE_PASS);
    message_put(message, counts, PASS_COUNTS);
    message_put(message, pass->token, pass->n_rows);
    message_put(message, pass->position, pass->n_rows);
    message_put(message, pass->slot, pass->n_rows);
    message_put(message, pass->seq_of_row, pass->n_rows);
    message_put(message, pass->logits_row, pass->n_logits);
    for (int32_t i = 0; i < pass->n_seqs; i++) {
        put_view(message, pass->views, i);
    }
}

/* Reads on. */
struct reader { const struct message *message; int32_t at; };

static const int32_t *take(struct reader *reader, int32_t n)
{
    const int32_t *words = reader->message->words + reader->at;
    ASSERT(n >= 0 && n <= reader->message->n - reader->at);
    reader->at += n;
    return words;
}

static void take_view(struct reader *reader, struct kv_view *views, int32_t idx)
{
    const int32_t *head = take(reader, VIEW_WORDS);
    const int32_t list = head[0];
    ASSERT(list >= 0 && list <= idx && head[2] <= KV_PATH_CAP);
    views[idx] = (struct kv_view){ .fork = head[1], .n_path = head[2] };
    views[idx].path = take(reader, head[2]);
    if (list == idx) {
        views[idx].n_pages = *take(reader, 1);
        views[idx].pages = (const uint32_t *)(const void *)take(reader, views[idx].n_pages);
    } else {
        views[idx].n_pages = views[list].n_pages;
        views[idx].pages = views[list].pages;
    }
}

void message_get_pass(const struct message *message, const struct rank_order *order, struct message_pass *out)
{
    struct reader reader = { message, MESSAGE_FIRST };
    const int32_t *counts = take(&reader, PASS_COUNTS);
    ASSERT(counts[0] >= 1 && counts[0] <= order->cap_rows && counts[1] >= 1 && counts[1] <= message_views_cap(order));
    struct pass *pass = &out->pass;
    *pass = (struct pass){ .n_rows = counts[0], .n_seqs = counts[1], .n_logits = counts[2],
                           .n_layers = counts[3], .views = out->views };
    pass->token = take(&reader, pass->n_rows);
    pass->position = take(&reader, pass->n_rows);
    pass->slot = take(&reader, pass->n_rows);
    pass->seq_of_row = take(&reader, pass->n_rows);
    pass->logits_row = take(&reader, pass->n_logits);
    for (int32_t i = 0; i < pass->n_seqs; i++) {
        take_view(&reader, out->views, i);
    }
    ASSERT(reader.at == message->n);
}

/* ---- copies ---- */

int32_t message_copies_cap(const struct message *message) { return (message->cap - MESSAGE_FIRST) / 2; }

void message_put_copies(struct message *message, const struct kv_copy *copies, int32_t n)
{
    message_begin(message, MESSAGE_COPIES);
    for (int32_t i = 0; i < n; i++) {
        put_number(message, (int32_t)copies[i].src);
        put_number(message, (int32_t)copies[i].dst);
    }
}

bool message_get_copy(const struct message *message, int32_t at, struct kv_copy *copy)
{
    const int32_t *words = message->words + MESSAGE_FIRST + 2 * at;
    if (MESSAGE_FIRST + 2 * (at + 1) > message->n) {
        return false;
    }
    copy->src = (uint32_t)words[0];
    copy->dst = (uint32_t)words[1];
    return true;
}
