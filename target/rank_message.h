/* rank_message: what rank 0 tells the others, as words of 32 bits. Private to target.
 *
 *     [ kind | words that follow | ... ]     the first MESSAGE_HEAD words go out at once, whatever they
 *                                            hold, the rest after them: a pass of few rows is one message
 *
 * The sender is the same program, so what arrives is checked as promises are, by ASSERT.
 */
#ifndef TARGET_RANK_MESSAGE_H
#define TARGET_RANK_MESSAGE_H

#include "target/target.h"

enum message_kind { MESSAGE_ORDER = 1, MESSAGE_DISMISS, MESSAGE_COPIES, MESSAGE_PASS, MESSAGE_END, MESSAGE_BROKEN };
enum { MESSAGE_HEAD = 1024, MESSAGE_FIRST = 2 /* behind kind and count */ };

struct message {
    int32_t *words;  /* [cap], cap at least MESSAGE_HEAD */
    int32_t n, cap;  /* n: from the start, kind and count included */
};
enum status message_create(int32_t cap, struct message *message); /* STATUS_NO_MEMORY */
void message_destroy(struct message *message);
void message_begin(struct message *message, enum message_kind kind);
void message_put(struct message *message, const int32_t *words, int32_t n);
void message_send(struct comm *comm, struct message *message); /* rank 0 */
/* The others. MESSAGE_BROKEN: there will be none any more. */
enum message_kind message_receive(struct comm *comm, struct message *message);

/* Views of the largest pass: of each part, and of each row that is on a branch. */
static inline int32_t message_views_cap(const struct rank_order *order) { return 2 * order->cap_rows; }
/* Words of the largest pass. */
int64_t message_pass_cap(const struct rank_order *order);
/* Copies go in pieces of so many. */
int32_t message_copies_cap(const struct message *message);
void message_put_pass(struct message *message, const struct pass *pass);
void message_put_copies(struct message *message, const struct kv_copy *copies, int32_t n);

/* A pass as it arrived: arrays lie in the message, which must stay as it is until the pass has ended. */
struct message_pass {
    struct pass pass;
    struct kv_view *views; /* [message_views_cap()] */
};
void message_get_pass(const struct message *message, const struct rank_order *order, struct message_pass *out);
/* `at` from 0 on; returns false behind the last. */
bool message_get_copy(const struct message *message, int32_t at, struct kv_copy *copy);

#endif
