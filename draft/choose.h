/* choose: from a draft's logits row to a token, what the draft thinks of it, and its siblings. Several
 * rows at once run on the lane, one a chunk. Inside the room only.
 *
 * Coupled rule: the draft draws with the request's parameters and the target's own noise, so that equal
 * logits give the target's choice. Rejection rule: a draw with COIN_DRAFT from the filtered
 * distribution, which is kept as a row. A row that is no number gives no token (I9).
 */
#ifndef DRAFT_CHOOSE_H
#define DRAFT_CHOOSE_H

#include "draft/draft.h"

enum { DRAFT_SIBLINGS = 2, DRAFT_MAX_RANKED = 64 };
/* One choice: what goes in, what comes out. */
struct draft_choice {
    const struct sampling_params *params;
    const int32_t *history;       /* [n_history] committed and proposed tokens */
    int32_t n_history;            /* of it that are there; 0: `position`. A draft may look back less */
    int32_t position;             /* of the token being chosen */
    const float *logits;          /* [n_kept or at least n_vocab_common]; NULL: it stayed on the device, .. */
    int32_t row;                  /* .. where it is this one of its pass. All choices of a run alike */
    float *prob;                  /* [n_vocab] of the target: rejection rule; NULL: coupled */
    int32_t n_siblings;           /* wanted: the next best choices */
    /* ---- */
    int32_t token;                /* -1: there is none */
    float hint;                   /* its share of the draft's softmax at temperature 1, whatever the
                                   * request's; rejection rule: its probability in `prob` */
    struct { int32_t token; float hint; } sibling[DRAFT_SIBLINGS]; /* token -1: none */
};

struct draft_chooser_options {
    struct lane *lane;
    int32_t n_vocab;              /* the target's: length of probability rows */
    int32_t n_vocab_common;       /* ids below it may be chosen */
    const int32_t *kept_ids;      /* [n_kept] ascending ids the logits stand for; NULL: 0, 1, .. */
    int32_t n_kept;
    int32_t n_reshaped;           /* rejection rule: so many likeliest ids of a row, 0 = none, .. */
    float reshape;                /* .. weigh this much of what they did (Saguaro sampling) */
    bool ranks;                   /* draft_chooser_rank() will be called */
    struct pass_desk *desk;       /* of passes whose rows stay on the device; NULL: none do */
    int32_t cap_choices;          /* with a desk: of one run, or rankings of one call */
};
struct draft_chooser;
enum status draft_chooser_create(const struct draft_chooser_options *options, struct draft_chooser **out);
void draft_chooser_destroy(struct draft_chooser *chooser); /* NULL is fine */
uint64_t draft_chooser_bytes(const struct draft_chooser *chooser);
/* Work goes to another lane from now on. */
void draft_chooser_use_lane(struct draft_chooser *chooser, struct lane *lane);
/* All of them, in parallel; returns when they are made. */
void draft_chooser_run(struct draft_chooser *chooser, struct draft_choice *const *choices, int32_t n);

/* rank.c: the tokens that a row's choice may turn out to be, likeliest first. Coupled rule: by logit /
 * temperature + the position's noise, which is known, so that the first is the draft's own choice and the
 * others are what the target chooses if its logits differ a little. Rejection rule: by probability.
 * Penalties and biases count; ids that filters drop are left out. */
struct draft_ranking {
    const struct sampling_params *params;
    const int32_t *history;       /* [n_history] as above */
    int32_t n_history;
    int32_t position;             /* of the token */
    const float *logits;          /* NULL and the row, as above */
    int32_t row;
    int32_t excluded;             /* an id that it cannot be; -1: none */
    bool by_probability;          /* the rejection rule */
    int32_t n_wanted;
    int32_t *id;                  /* [n_wanted] */
    int32_t n;                    /* found */
};
void draft_chooser_rank(struct draft_chooser *chooser, struct draft_ranking *const *rankings, int32_t n);

#endif
