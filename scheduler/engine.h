/* engine: what stands behind include/tandem.h. Inside the room only. */
#ifndef SCHEDULER_ENGINE_H
#define SCHEDULER_ENGINE_H

#include <pthread.h>

#include "scheduler/outbox.h"
#include "scheduler/scheduler.h"

enum { ENGINE_MAX_THREADS = 256, ENGINE_MAX_BATCH = 1024, ENGINE_SENTENCE_CAP = 256 };

enum { DEVICE_KIND_CAP = 32 };
/* The device that a model runs on, and the cores of its lane: a CPU's, or those that do a GPU's part of the
 * host (sampling, digests). */
struct device_plan {
    char kind[DEVICE_KIND_CAP]; /* as backend_create() takes it: "cpu", "cuda:0" */
    int cpus[ENGINE_MAX_THREADS];
    int n_threads;
    int n_pinned;              /* 0: more threads than cores, so they are left to the system */
};
/* Processes that hold the target together; 1, 1, 0, 1 for one alone. */
struct ranks_plan {
    int32_t n;
    int32_t n_budgeted;        /* of them in the memory budget: those on this machine, where it is the machine's */
    int32_t sharing_idx, n_sharing; /* place among those that may use the very same cores */
    int32_t local_idx;         /* on this machine: which of the devices named is this rank's */
};
/* What the options mean on this machine, for this model. */
struct engine_plan {
    struct ranks_plan ranks;
    struct device_plan target;
    struct device_plan draft;  /* n_threads 0: a draft model runs where the target does */
    bool drafts_ahead;         /* the draft has a thread of its own, which is worker 0 of its lane */
    bool lends;                /* each lane's idle workers help the other */
    enum kv_type kv;
    enum numeric_plan numeric; /* of the target; a draft model's on a GPU too, and no text depends on that */
    enum verify_rule rule;
    int32_t k_max, fixed_k;    /* of a round; fixed_k POLICY_AUTO: as many as pay */
    int32_t page_slots, context, n_pages, prefill_chunk, max_batch, max_queue;
};
/* Without the model: words and ranges. */
enum status engine_plan_check(const struct td_engine_options *options, struct engine_plan *plan);
/* With the model: context and pages. */
enum status engine_plan_fit(const struct td_engine_options *options, const struct model_config *config,
                            struct engine_plan *plan);

struct td_engine {
    struct engine_plan plan;
    struct engine_group *group;             /* NULL, or the other ranks of a target on several GPUs of this process */
    struct backend *backend;
    struct backend *draft_backend;          /* NULL: the target's */
    struct lane *lane;                      /* the target's; the step thread is its worker 0 */
    struct lane *draft_lane;                /* NULL: a draft model runs on the target's */
    struct model *model;
    struct target *target;
    struct target *virtual_target;          /* NULL, or what the scheduler has in its place */
    struct rank_order order;                /* what other ranks were told of it */
    struct draft *draft;
    struct model *draft_model;              /* NULL: the draft is no model */
    int32_t n_vocab_common, draft_context;  /* of draft_model */
    struct tokenizer *tokenizer;            /* NULL: ids only */
    char no_text[ENGINE_SENTENCE_CAP];      /* why */
    struct outbox *outbox;
    struct scheduler *scheduler;
    struct queue *inbox;                    /* of struct request * */
    struct request_limits limits;
    struct td_engine_info info;
    struct td_memory memory[2];             /* the target's, a draft model's: engine_memory.h */
    bool memory_is_asked;                   /* device_bytes are what the user allows */
    struct model_hints hints;
    pthread_t thread;
    bool has_thread;
    atomic_int stopping;
};

enum td_status engine_td_status(enum status status);

#endif
