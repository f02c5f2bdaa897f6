/* chooser: the state behind choose.h, shared by choose.c (one token of a row), rank.c (the likeliest of it)
 * and choose_there.c (both, of rows that stayed on the device). Inside these files only. */
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
    struct backend *backend;
    int32_t *kept_ids;            /* [n_kept] owned; NULL: all */
    struct chooser_desk *desks;   /* [n_desks] */
    int32_t n_desks;
    struct draft_choice *const *choices;   /* of the run under way */
    struct draft_ranking *const *rankings; /* likewise */
    /* ---- of rows on the device; NULL without a desk ---- */
    int32_t *kept_there;          /* [n_kept] on the device; NULL: all ids are kept */
    struct choice_ask *asks;      /* [cap_choices], and what comes back */
    struct choice_answer *answers;
    struct rank_ask *rank_asks;   /* [cap_choices] likewise; NULL unless rows will be ranked */
    int32_t **ids, *n_found;
    uint64_t bytes;
};

struct chooser_desk *chooser_desk_acquire(struct draft_chooser *chooser, int32_t wanted);
void chooser_desk_release(struct chooser_desk *desk);
/* The row over ids 0 .. n_vocab_common - 1. */
const float *chooser_full_row(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                              const float *logits);
/* The request's parameters as far as the draft's vocabulary goes, and without logprobs. */
struct sampling_params chooser_params(const struct draft_chooser *chooser, const struct sampling_params *own);
/* As far as penalties of a choice look back. */
int32_t chooser_history_len(const struct draft_choice *choice);

/* ---- choose_there.c ---- */
enum status chooser_open_there(struct draft_chooser *chooser);
void chooser_close_there(struct draft_chooser *chooser);
void chooser_choose_there(struct draft_chooser *chooser, struct draft_choice *const *choices, int32_t n);
void chooser_rank_there(struct draft_chooser *chooser, struct draft_ranking *const *rankings, int32_t n);

#endif
