/* request: a prompt and how to continue it, copied from the caller with all the memory its run will
 * need, so that no step allocates. A request has one sequence per choice.
 *
 *                    admit                     stop, limit, cancel, failure
 *     WAITING ────────────────► RUNNING ───────────────────────────────────► FINISHED
 *        ▲   preempt              │                                             ▲
 *        └────────────────────────┘           cancel while waiting              │
 *        └──────────────────────────────────────────────────────────────────────┘
 *
 * Three owners, field by field: the caller until submission, then the step thread; what is delivered
 * belongs to the consumer of events; `published` passes between them under the outbox's lock.
 * Inside the room only.
 */
#ifndef SCHEDULER_REQUEST_H
#define SCHEDULER_REQUEST_H

#include <stdatomic.h>

#include "batching/batching.h"
#include "draft/draft.h"
#include "sampling/sampling.h"
#include "scheduler/stop.h"
#include "tandem.h"

enum {
    REQUEST_MAX_CHOICES = 128,
    REQUEST_MAX_STOP_IDS = 256,
    SEQUENCE_MAX_PROPOSED = DRAFT_MAX_NODES, /* of a round */
    SEQUENCE_ERROR_CAP = 256
};

enum sequence_state { SEQUENCE_WAITING, SEQUENCE_RUNNING, SEQUENCE_FINISHED };
enum sequence_ending { ENDING_NONE, ENDING_STOP_ID, ENDING_STOP_STRING, ENDING_LENGTH,
                       ENDING_CONTEXT, ENDING_CANCELLED, ENDING_ERROR };

/* What the consumer may see of a sequence. */
struct sequence_view {
    int32_t n_generated;
    int64_t n_text;              /* bytes of text that may go out; INT64_MAX = all there is */
    enum sequence_ending ending;
};

/* Where a generated token comes from. */
struct token_origin {
    int32_t rejected_id;         /* the draft's guess in this place; -1: none, or the right one */
    int16_t n_rejected;          /* proposed tokens that fell with it, itself included */
    int8_t source;               /* of the draft, if it was proposed; -1: the target's own */
    int8_t rejected_source;
};

struct request;
struct sequence {
    struct lineup_item place;    /* in the waiting or the running lineup; first, see sequence_of() */
    struct request *request;     /* owner */
    int32_t choice;
    enum sequence_state state;
    enum sequence_ending ending;
    uint64_t id;                 /* of this sequence, unique in a scheduler */
    uint64_t epoch;              /* rises when it is preempted: results of before are not of now */

    /* ---- tokens: prompt, then generated; the last one is the recovery token ---- */
    int32_t *tokens;             /* [n_prompt + max_new + SEQUENCE_MAX_PROPOSED] */
    int32_t n_tokens;            /* committed */
    struct token_origin *origin; /* [max_new] of generated tokens */
    float *logprob;              /* [max_new] of generated tokens, NULL when not asked for */
    struct td_logprob *top;      /* [max_new, n_top] */
    uint8_t *n_top;              /* [max_new] */
    struct sampling_params params; /* with this choice's seed */
    struct digest digest;        /* of the logits rows that chose */
    struct stop_scan scan;
    char error[SEQUENCE_ERROR_CAP];

    /* ---- while running ---- */
    struct kv_table *table;      /* borrowed from the scheduler */
    int32_t table_idx;           /* of the table among the scheduler's: its place for drafts */

    /* ---- counters ---- */
    int64_t n_cached_prompt, n_passes;
    struct td_draft_counts drafted;
    int64_t admitted_ns, first_token_ns, finished_ns; /* 0: not yet */

    /* ---- the outbox ---- */
    struct sequence *next_news;  /* changed in this step */
    bool has_news;
    struct sequence_view published; /* under the outbox's lock, with the two below */
    struct sequence *next_ready;
    bool is_ready;

    /* ---- the consumer ---- */
    struct detokenizer stream;
    char *held;                  /* [stops.max_bytes] text that may not go out yet */
    size_t n_held;
    int64_t n_sent_text;
    int32_t n_sent;              /* tokens */
};

struct request {
    uint64_t id;
    void *user;
    int32_t n_prompt, max_new;   /* max_new: within the context */
    int64_t max_tokens;          /* as asked; < 0 = none */
    uint64_t tenant;             /* salt of what is shared */
    int32_t k;                   /* drafted a round; < 0: what the policy says */
    int32_t context;
    uint64_t seed;
    struct sampling_bias *biases; /* sorted by id */
    int32_t *stop_ids;            /* with the model's, unless ignored */
    int32_t n_stop_ids;
    struct stop_set stops;
    const struct tokenizer *tokenizer; /* NULL: ids only */
    int32_t want_text;
    int64_t submitted_ns;
    atomic_int cancelled;        /* set from any thread, read at commit */
    bool started;                /* no longer waiting for the first time (step thread) */
    struct sequence *sequences;  /* [n_choices] */
    int32_t n_choices;
    /* ---- the outbox ---- */
    struct request *before, *after; /* among the live */
    int32_t n_undelivered;       /* choices whose end was not delivered */
};

/* What the engine knows and requests must respect. Strings and arrays are borrowed for the call. */
struct request_limits {
    int32_t n_vocab, context;
    const int32_t *eos_ids;
    int32_t n_eos;
    const struct tokenizer *tokenizer; /* NULL: there is no text */
};
/* Checks and copies; any thread. STATUS_INVALID, STATUS_UNSUPPORTED, STATUS_NO_MEMORY. */
enum status request_create(const struct request_limits *limits, const struct td_request *asked,
                           struct request **out);
void request_destroy(struct request *request); /* NULL is fine */

static inline struct sequence *sequence_of(struct lineup_item *item)
{
    return (struct sequence *)item;
}
static inline int32_t sequence_n_generated(const struct sequence *seq)
{
    return seq->n_tokens - seq->request->n_prompt;
}

#endif
