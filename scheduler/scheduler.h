/* scheduler: the loop propose → verify → commit over many sequences. The door of the room; programs
 * use include/tandem.h, which stands on it.
 *
 * One thread owns a scheduler (the step thread). It takes no locks and allocates nothing after
 * creation: what a request needs came with the request.
 *
 *     plan      for each sequence K, rows, pages: all or nothing, else the youngest is preempted
 *     propose   tokens of the draft (none: none)
 *     verify    one ragged pass of the target, then the target's choice for every logits row
 *     commit    outcome, stops, lengths, what is new goes to the outbox
 */
#ifndef SCHEDULER_SCHEDULER_H
#define SCHEDULER_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "draft/draft.h"
#include "scheduler/policy.h"
#include "scheduler/text.h"
#include "tandem.h"
#include "target/target.h"

struct outbox;
struct request;
struct scheduler;
struct scheduler_options {
    struct target *target;    /* borrowed */
    struct draft *draft;      /* borrowed */
    struct outbox *outbox;    /* borrowed; NULL: nobody listens */
    int32_t context;          /* positions a sequence may have; the pool must hold one such */
    int32_t page_slots, n_pages;
    int32_t max_batch;        /* sequences running at once */
    int32_t prefill_chunk;    /* prompt rows in a pass, at most; decoding rows come on top */
    int32_t k_max;            /* proposals of a round, at most; 0 = plain decoding */
    int32_t fixed_k;          /* POLICY_AUTO: as many as pay */
    enum verify_rule rule;
    int32_t prefix_cache;     /* 1 = remember computed prompts */
};
/* Rows and logits rows of the largest pass: what the target must have room for. */
int32_t scheduler_cap_rows(const struct scheduler_options *options);
int32_t scheduler_cap_logits(const struct scheduler_options *options);

enum status scheduler_create(const struct scheduler_options *options, struct scheduler **out);
/* Requests not finished are forgotten; they belong to whoever made them. NULL is fine. */
void scheduler_destroy(struct scheduler *scheduler);

/* Measures passes of a few row counts, before any request: at least one of each, and no more than a
 * fraction of a second of them. What it writes to KV pages, nobody reads. */
void scheduler_calibrate(struct scheduler *scheduler);
/* The request waits from now on; it must live until all its choices are finished. */
void scheduler_submit(struct scheduler *scheduler, struct request *request);
/* Some request's `cancelled` was set. Any thread; the next commit acts on it. */
void scheduler_notice_cancel(struct scheduler *scheduler);
/* One turn of the loop. */
void scheduler_step(struct scheduler *scheduler);
/* Something runs or waits. */
bool scheduler_is_busy(const struct scheduler *scheduler);
/* Finishes everything as cancelled. */
void scheduler_cancel_all(struct scheduler *scheduler);
/* Preempts the youngest of the lowest priority, as a lack of pages would (tests). False: none runs. */
bool scheduler_preempt_last(struct scheduler *scheduler);

/* The group's comm, for programs that run passes without an engine; NULL for a process alone. */
struct comm *ranks_comm(const struct td_ranks *ranks);
/* Of a group that is open already, which td_ranks_leave() closes (tests). */
enum status ranks_create(struct comm *comm, struct td_ranks **out);

struct td_engine_stats scheduler_stats(const struct scheduler *scheduler);
/* Recounts pages and lengths; STATUS_INVALID with a sentence when an invariant (I1..I6) is broken. */
enum status scheduler_check(const struct scheduler *scheduler);

/* ---- engine_worker.c: a model as a draft worker, without a scheduler ---- */
struct engine_worker;
struct engine_worker_options {
    struct td_engine_options model; /* target: the model that drafts; target_device: its cores */
    const char *listen, *key_file;  /* as draft_worker_options */
    bool is_open_to_all;
};
struct engine_worker_info {
    const char *model_name, *address; /* the worker's */
    uint64_t fingerprint, bytes;
    int32_t n_vocab, context, max_batch, threads;
};
enum status engine_worker_open(const struct engine_worker_options *options, struct engine_worker **out);
void engine_worker_close(struct engine_worker *worker); /* NULL is fine */
struct draft_worker *engine_worker_draft(const struct engine_worker *worker);
struct engine_worker_info engine_worker_info(const struct engine_worker *worker);

#endif
