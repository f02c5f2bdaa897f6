/* parallel_target: a target that several ranks compute together.
 *
 *     rank 0     engine ──begin──► parallel target ──message──► the others
 *                                    └─► its own model target: this rank's part of the pass
 *     others     receive ► model target: begin, end ► receive ...
 *
 * Followers execute and decide nothing: no clock, draft or policy of theirs could make a pass differ. What
 * rank 0 says goes out as an operation of its lane, in line with the exchanges of passes before it.
 */
#include <string.h>

#include "target/rank_message.h"

/* ---- rank 0 ---- */

struct parallel_target {
    struct target base;
    struct target *part;    /* this rank's; owned */
    struct comm *comm;
    struct message message; /* of the last begin or copy */
};

struct send_args { struct comm *comm; struct message *message; };

static void send_fn(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct send_args *args = arguments;
    (void)chunk;
    (void)worker;
    message_send(args->comm, args->message);
}

static uint64_t submit_message(struct parallel_target *target)
{
    const struct send_args args = { target->comm, &target->message };
    return lane_submit(target->base.lane, send_fn, &args, sizeof args, 1);
}

static void parallel_copy(struct target *base, const struct kv_copy *copies, int32_t n)
{
    struct parallel_target *target = (struct parallel_target *)base;
    const int32_t most = message_copies_cap(&target->message);
    lane_wait(base->lane, lane_mark(base->lane)); /* the message before this one has gone out */
    for (int32_t at = 0; at < n; at += most) {
        message_put_copies(&target->message, copies + at, n - at < most ? n - at : most);
        lane_wait(base->lane, submit_message(target));
    }
    target->part->kind->copy(target->part, copies, n);
}

static void parallel_begin(struct target *base, const struct target_work *work)
{
    struct parallel_target *target = (struct parallel_target *)base;
    if (work->n_copies > 0) {
        parallel_copy(base, work->copies, work->n_copies);
    }
    lane_wait(base->lane, lane_mark(base->lane));
    message_put_pass(&target->message, work->pass);
    submit_message(target);
    target->part->kind->begin(target->part, &(struct target_work){ .pass = work->pass });
}

static enum status parallel_end(struct target *base, const float **logits)
{
    struct parallel_target *target = (struct parallel_target *)base;
    const enum status status = target->part->kind->end(target->part, logits);
    if (status != STATUS_OK) {
        comm_give_up(target->comm);
    }
    return comm_check(target->comm);
}

static void parallel_destroy(struct target *base)
{
    struct parallel_target *target = (struct parallel_target *)base;
    lane_wait(base->lane, lane_mark(base->lane));
    message_begin(&target->message, MESSAGE_END);
    message_send(target->comm, &target->message);
    target_destroy(target->part);
    message_destroy(&target->message);
    mem_free(target);
}

static const struct target_kind parallel_target_kind = {
    .name = "parallel", .begin = parallel_begin, .end = parallel_end, .copy = parallel_copy,
    .destroy = parallel_destroy,
};

static enum status make(struct comm *comm, const struct rank_order *order, struct parallel_target **out)
{
    const int64_t cap = message_pass_cap(order);
    struct parallel_target *target = mem_alloc(1, sizeof *target);
    if (target == NULL || cap > INT32_MAX) {
        mem_free(target);
        return status_fail(STATUS_NO_MEMORY, "no memory to tell ranks of passes of %d rows", order->cap_rows);
    }
    target->comm = comm;
    const enum status status = message_create((int32_t)cap, &target->message);
    if (status != STATUS_OK) {
        mem_free(target);
        return status;
    }
    *out = target;
    return STATUS_OK;
}

enum status parallel_target_open(struct comm *comm, const struct rank_order *order, enum status status,
                                 struct target **target)
{
    struct parallel_target *parallel = NULL;
    if (status == STATUS_OK) {
        status = make(comm, order, &parallel);
    }
    status = comm_agree(comm, status);
    if (status != STATUS_OK) {
        if (parallel != NULL) {
            message_destroy(&parallel->message);
            mem_free(parallel);
        }
        target_destroy(*target); /* makes no sentence of its own */
        *target = NULL;
        return status;
    }
    parallel->part = *target;
    parallel->base = (struct target){ .kind = &parallel_target_kind, .lane = parallel->part->lane,
                                      .n_vocab = parallel->part->n_vocab };
    *target = &parallel->base;
    return STATUS_OK;
}

/* ---- orders ---- */

enum { ORDER_WORDS = (sizeof(struct rank_order) + sizeof(int32_t) - 1) / sizeof(int32_t),
       ORDER_CAP = MESSAGE_FIRST + ORDER_WORDS > MESSAGE_HEAD ? MESSAGE_FIRST + ORDER_WORDS : MESSAGE_HEAD };

void ranks_lead(struct comm *comm, const struct rank_order *order)
{
    int32_t words[ORDER_CAP], packed[ORDER_WORDS] = { 0 };
    struct message message = { .words = words, .cap = ORDER_CAP };
    memset(words, 0, sizeof words);
    memcpy(packed, order, sizeof *order);
    message_begin(&message, MESSAGE_ORDER);
    message_put(&message, packed, ORDER_WORDS);
    message_send(comm, &message);
}

void ranks_dismiss(struct comm *comm)
{
    int32_t words[MESSAGE_HEAD] = { 0 };
    struct message message = { .words = words, .cap = MESSAGE_HEAD };
    message_begin(&message, MESSAGE_DISMISS);
    message_send(comm, &message);
}

bool ranks_await(struct comm *comm, struct rank_order *order)
{
    int32_t words[ORDER_CAP];
    struct message message = { .words = words, .cap = ORDER_CAP };
    const enum message_kind kind = message_receive(comm, &message);
    ASSERT(kind == MESSAGE_DISMISS || kind == MESSAGE_BROKEN ||
           (kind == MESSAGE_ORDER && message.n == MESSAGE_FIRST + ORDER_WORDS));
    if (kind == MESSAGE_ORDER) {
        memcpy(order, words + MESSAGE_FIRST, sizeof *order);
    }
    return kind == MESSAGE_ORDER;
}

/* ---- the others ---- */

struct follower {
    const struct rank_follow_options *options;
    struct model *model;
    struct target *target;
    struct message message;
    struct message_pass pass;
};

static void run_copies(struct follower *follower)
{
    struct kv_copy copy;
    for (int32_t i = 0; message_get_copy(&follower->message, i, &copy); i++) {
        follower->target->kind->copy(follower->target, &copy, 1);
    }
}

static void run_pass(struct follower *follower)
{
    const float *logits;
    message_get_pass(&follower->message, follower->options->order, &follower->pass);
    follower->target->kind->begin(follower->target, &(struct target_work){ .pass = &follower->pass.pass });
    if (follower->target->kind->end(follower->target, &logits) != STATUS_OK) {
        comm_give_up(follower->options->comm);
    }
}

static void run_messages(struct follower *follower)
{
    for (;;) {
        switch (message_receive(follower->options->comm, &follower->message)) {
        case MESSAGE_COPIES: run_copies(follower); break;
        case MESSAGE_PASS: run_pass(follower); break;
        case MESSAGE_END:
        case MESSAGE_BROKEN: return;
        default: ASSERT(!"a message between passes");
        }
    }
}

/* Up to where ranks agree on loading; what fails before is told in that agreement. */
static enum status load(struct follower *follower)
{
    const struct rank_follow_options *options = follower->options;
    struct model_source *source;
    enum status status = model_source_open_as(options->order->model, options->order->quant[0] != '\0'
                                                  ? options->order->quant : NULL, &source);
    if (status != STATUS_OK) {
        return comm_agree(options->comm, status);
    }
    status = model_load(source, options->lane, &(struct model_load_options){
        .mlock = options->mlock, .context = options->order->context, .budget_bytes = options->budget_bytes,
        .comm = options->comm }, &follower->model);
    model_source_close(source);
    return status;
}

static enum status take_buffers(struct follower *follower)
{
    const struct rank_order *order = follower->options->order;
    const int64_t cap = message_pass_cap(order);
    TRY(model_target_create(&(struct model_target_options){
        .model = follower->model, .lane = follower->options->lane, .kv = (enum kv_type)order->kv,
        .page_slots = order->page_slots, .n_pages = order->n_pages, .cap_rows = order->cap_rows,
        .cap_logits = order->cap_logits }, &follower->target));
    follower->pass.views = mem_alloc((size_t)message_views_cap(order), sizeof *follower->pass.views);
    if (follower->pass.views == NULL || cap > INT32_MAX) {
        return status_fail(STATUS_NO_MEMORY, "no memory for views of %d rows", order->cap_rows);
    }
    return message_create((int32_t)cap, &follower->message);
}

enum status ranks_follow(const struct rank_follow_options *options)
{
    struct follower follower = { .options = options };
    enum status status = load(&follower);
    if (status == STATUS_OK) {
        status = comm_agree(options->comm, take_buffers(&follower));
    }
    if (status == STATUS_OK) {
        run_messages(&follower);
    }
    target_destroy(follower.target);
    message_destroy(&follower.message);
    mem_free(follower.pass.views);
    model_destroy(follower.model);
    return status;
}
