/* engine_ranks: see the header. */
#include "scheduler/engine_ranks.h"

#include <stdio.h>
#include <string.h>

#include "scheduler/engine_device.h"

struct td_ranks { struct comm *comm; };

/* ---- joining ---- */

enum status ranks_create(struct comm *comm, struct td_ranks **out)
{
    *out = mem_alloc(1, sizeof **out);
    if (*out == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a group of ranks");
    }
    (*out)->comm = comm;
    return STATUS_OK;
}

enum td_status td_ranks_join(struct td_ranks **out, int32_t *rank, int32_t *n_ranks)
{
    struct comm *comm;
    *out = NULL;
    enum status status = comm_join(&comm);
    if (status != STATUS_OK) {
        return engine_td_status(status);
    }
    status = ranks_create(comm, out);
    if (status != STATUS_OK) {
        comm_give_up(comm); /* the others would wait for this one */
        comm_close(comm);
        return engine_td_status(status);
    }
    *rank = comm->rank;
    *n_ranks = comm->size;
    return TD_OK;
}

void td_ranks_leave(struct td_ranks *ranks)
{
    if (ranks == NULL) {
        return;
    }
    if (ranks->comm->rank == 0 && ranks->comm->size > 1) {
        ranks_dismiss(ranks->comm);
    }
    comm_close(ranks->comm);
    mem_free(ranks);
}

struct comm *ranks_comm(const struct td_ranks *ranks)
{
    return ranks != NULL && ranks->comm->size > 1 ? ranks->comm : NULL;
}

/* ---- rank 0 ---- */

struct comm *engine_ranks_comm(const struct td_engine_options *options) { return ranks_comm(options->ranks); }

void engine_ranks_plan(const struct td_engine_options *options, struct engine_plan *plan)
{
    const struct comm *comm = engine_ranks_comm(options);
    plan->ranks = (struct ranks_plan){ .n = 1, .n_budgeted = 1, .n_sharing = 1 };
    if (comm != NULL) {
        const bool on_gpus = options->target_device != NULL && strncmp(options->target_device, "cuda", 4) == 0;
        plan->ranks = (struct ranks_plan){
            .n = comm->size, .n_budgeted = options->memory_bytes > 0 || on_gpus ? 1 : comm->local_size,
            .sharing_idx = comm->sharing_rank, .n_sharing = comm->sharing_size, .local_idx = comm->local_rank };
    }
}

void engine_ranks_lead(struct td_engine *engine, const struct td_engine_options *options,
                       const struct scheduler_options *loop)
{
    const struct engine_plan *plan = &engine->plan;
    struct rank_order *order = &engine->order;
    if (engine_ranks_comm(options) == NULL) {
        return;
    }
    *order = (struct rank_order){
        .context = plan->context, .kv = (int32_t)plan->kv, .page_slots = plan->page_slots, .n_pages = plan->n_pages,
        .cap_rows = scheduler_cap_rows(loop), .cap_logits = scheduler_cap_logits(loop),
        .cap_seqs = plan->max_batch + 1 };
    snprintf(order->model, sizeof order->model, "%s", options->target);
    snprintf(order->quant, sizeof order->quant, "%s", options->quant != NULL ? options->quant : "");
    ranks_lead(engine_ranks_comm(options), order);
}

enum status engine_ranks_open(struct td_engine *engine, const struct td_engine_options *options, enum status status)
{
    struct comm *comm = engine_ranks_comm(options);
    return comm != NULL ? parallel_target_open(comm, &engine->order, status, &engine->target) : status;
}

/* ---- the others ---- */

static enum status open_follower(struct td_engine *engine, const struct td_engine_options *options)
{
    TRY(engine_plan_check(options, &engine->plan));
    TRY(engine_device_open(engine, options));
    lane_pin_caller(engine->lane);
    return STATUS_OK;
}

/* An engine that could not be opened here is told where ranks agree on loading. */
static void follow_orders(struct td_engine *engine, const struct td_engine_options *options, enum status opened)
{
    struct comm *comm = engine_ranks_comm(options);
    char why[1024];
    snprintf(why, sizeof why, "%s", status_message());
    while (ranks_await(comm, &engine->order)) {
        if (opened != STATUS_OK) {
            comm_agree(comm, status_fail(opened, "%s", why));
            continue;
        }
        ranks_follow(&(struct rank_follow_options){ .comm = comm, .order = &engine->order, .lane = engine->lane,
                                                    .mlock = options->mlock != 0 });
    }
}

enum td_status td_engine_follow(const struct td_engine_options *options)
{
    struct td_engine_options own = *options;
    own.draft = "none"; /* drafts are rank 0's */
    own.draft_device = own.draft_vocab = own.ahead = NULL;
    if (ranks_comm(options->ranks) == NULL || ranks_comm(options->ranks)->rank == 0) {
        return engine_td_status(status_fail(STATUS_INVALID, "there is no rank 0 to follow"));
    }
    struct td_engine *engine = mem_alloc(1, sizeof *engine);
    if (engine == NULL) {
        return engine_td_status(status_fail(STATUS_NO_MEMORY, "no memory for a follower"));
    }
    follow_orders(engine, &own, open_follower(engine, &own));
    if (engine->backend != NULL) {
        engine_device_close(engine);
    }
    mem_free(engine);
    return TD_OK;
}
