/* grower: the state behind ahead.h's grower. Inside grower*.c, and for tests that look at it. */
#ifndef DRAFT_GROWER_PRIVATE_H
#define DRAFT_GROWER_PRIVATE_H

#include "draft/ahead.h"
#include "draft/model_draft.h"

static const float GROWER_TAIL = 1.0f; /* r of the law F^-r, until ranks are learned */

/* A round while it is glued. */
struct glued_round {
    const struct ahead_round *round;
    struct ahead_table *table;
    struct draft_ask ask;          /* the round, as a model draft's place is told of it */
    struct model_place *place;     /* NULL: no pages, or no room in the context */
    int32_t next_position;         /* the first that was not fed yet */
    int32_t k_next;                /* steps, 0: glue only */
    int32_t budget;
    int32_t first_logits;          /* place of row k = 0 among the pass's logits rows; -1: not glued yet */
    bool is_forked;
    int32_t first_place;           /* of its branches: N + K */
};

/* A branch while it grows. */
struct growing_branch {
    struct ahead_branch *branch;
    const struct glued_round *glued;
    int32_t idx;                   /* j, among its round's branches */
    int32_t fork;                  /* N + k */
    int32_t places[DRAFT_MAX_NODES];
    bool is_open;
    float odds;                    /* that its outcome comes true, as counted */
    struct draft_choice choice;
};

/* What a place's last fork ranked, to be compared with what came true. */
struct ranked_place {
    bool is_there, after_miss;
    uint64_t seq_id, epoch;
    int32_t n_tokens, n_proposed;
    int32_t proposed[DRAFT_MAX_NODES];
    int32_t n_ranked[DRAFT_MAX_NODES + 1];
    int32_t *id;                   /* [DRAFT_MAX_NODES + 1, DRAFT_MAX_RANKED] */
};

struct grower {
    struct grower_options options;
    struct draft *base;            /* owned: the model draft whose places, pages and head are used */
    struct model_draft *model;     /* the same */
    struct pass_buffers *buffers;
    struct pass pass;              /* the one under way */
    struct batch *batch;
    struct draft_chooser *chooser;
    int32_t *feed;                 /* [prefill_chunk + DRAFT_MAX_NODES + 1] ids as the model knows them */
    int32_t *history;              /* [context + 2 * DRAFT_MAX_NODES] of history_of's round, then a branch's path */
    const struct glued_round *history_of;
    struct glued_round *glued;     /* [max_batch] */
    int32_t n_glued;
    struct ranked_place *ranked;   /* [max_batch] by place */
    int32_t *ranked_ids;           /* theirs */
    struct draft_ranking *rankings; /* [max_batch * (DRAFT_MAX_NODES + 1)] */
    struct draft_ranking **ranking_list;
    struct growing_branch *growing; /* [max_batch * max_budget] */
    int32_t n_growing;
    struct growing_branch **order; /* [n_growing] likeliest first */
    double *worth;                 /* [n_growing + 1] odds of the n likeliest that are open, together */
    struct growing_branch **choosing; /* those with a row in the pass */
    struct draft_choice **choices; /* theirs */
    float *probs[2];               /* [max_batch * max_budget, k_max, n_vocab] by turns; NULL: coupled rule */
    int32_t bank;                  /* whose turn */
    struct fanout_counts counts[2]; /* after a hit, after a miss */
    struct gain_times verify, glue, grow; /* seconds by rows; glue: fork included */
    uint64_t n_calls;
    int32_t n_since_choice;        /* calls */
    int32_t rows_tried;            /* of each step of this call, to see how long it takes; 0: what is best */
    struct grower_report report;
    uint64_t bytes;
};

/* Runs a pass; *logits: as model_draft_pass() has it, rows of row_len floats. False: the device failed. */
bool grower_forward(struct grower *grower, const struct pass *pass, const float **logits);
/* Row i of those. */
const float *grower_row(const struct grower *grower, const float *logits, int32_t i);
size_t grower_row_len(const struct grower *grower);
/* Branches of a round, as asked for or as measured times advise. */
int32_t grower_budget(const struct grower *grower);

/* ---- grower_glue.c ---- */
/* Enters the rounds' places and takes pages. */
void grower_enter(struct grower *grower, const struct grower_call *call);
/* A pass over what rounds lack. False: nothing does, or the device failed. *logits: rows of those whose first_logits
 * it set. */
bool grower_glue_pass(struct grower *grower, const float **logits);

/* ---- grower_fork.c ---- */
/* Compares what a place's last fork ranked with what came true. */
void grower_learn(struct grower *grower, const struct ahead_round *round);
/* Branches of the rounds glued by the last pass. Returns how many rounds these were. */
int32_t grower_fork(struct grower *grower, const float *logits);

/* ---- grower_pace.c ---- */
/* Of n_open branches, how many of the likeliest the next of so many steps grows; 0: no more. */
int32_t grower_pace(struct grower *grower, const struct grower_call *call, int32_t n_open, int32_t n_steps_left);

#endif
