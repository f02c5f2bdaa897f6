/* chooser: the state behind choose.h, shared by choose.c (one token of a row) and rank.c (the likeliest of
 * it). Inside these two files only. */
#ifndef DRAFT_CHOOSER_H
#define DRAFT_CHOOSER_H

#include <stdatomic.h>

#include "draft/choose.h"

/* What one choice needs besides its row. Workers of another lane may help, so it is claimed. */
struct chooser_desk {
    atomic_flag in_use;
    struct sampling_scratch *scratch;
    struct sampling_bias *biases; /* [SAMPLING_MAX_BIASES + DRAFT_SIBLINGS] a request's, and what to pass over */
    float *row;                   /* [n_vocab_common] -inf but for kept ids; NULL when all are kept */
    float *prob;                  /* [n_vocab_common] a row being ranked; NULL unless rows will be */
};

struct draft_chooser {
    struct draft_chooser_options options;
    const struct backend *backend;
    int32_t *kept_ids;            /* [n_kept] owned; NULL: all */
    struct chooser_desk *desks;   /* [n_desks] */
    int32_t n_desks;
    struct draft_choice *const *choices;   /* of the run under way */
    struct draft_ranking *const *rankings; /* likewise */
    uint64_t bytes;
};

struct chooser_desk *chooser_desk_acquire(struct draft_chooser *chooser, int32_t wanted);
void chooser_desk_release(struct chooser_desk *desk);
/* The row over ids 0 .. n_vocab_common - 1. */
const float *chooser_full_row(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                              const float *logits);
/* The request's parameters as far as the draft's vocabulary goes, and without logprobs. */
struct sampling_params chooser_params(const struct draft_chooser *chooser, const struct sampling_params *own);

#endif
