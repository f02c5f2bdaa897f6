/* verify: accept rules as pure functions: arrays and coins in, outcome out. They never learn where
 * the numbers came from. Any thread; nothing is allocated.
 *
 *            one proposal a position        several: a tree
 *   coupled  verify_coupled                 verify_tree_coupled
 *   reject   verify_rejection               verify_tree_rejection
 *
 * Coupled: the target's token of a position is fixed by its seed; a proposal is accepted iff it is
 * that token. Rejection: proposals are draws from distributions the draft states; they are accepted
 * and replaced such that what comes out is distributed as the target's own draws. No id is special
 * here: stop tokens are cut at commit.
 */
#ifndef VERIFY_VERIFY_H
#define VERIFY_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

enum verify_rule { VERIFY_COUPLED, VERIFY_REJECTION };

struct verify_outcome {
    int32_t n_accepted;     /* k: leading proposals the target agreed with */
    int32_t recovery_token; /* t: the target's own token after them */
};
/* Greedy and coupled rule: k is the first disagreement between proposed[i] and the token the target
 * chose for the same position; after full agreement the bonus token comes from row K. */
struct verify_outcome verify_coupled(const int32_t *proposed /* [n_proposed] */, int32_t n_proposed,
                                     const int32_t *target_token /* [n_proposed + 1] */);

/* ---- rejection, step by step (Leviathan et al., Chen et al., both 2023) ---- */
/* coin < target_prob / draft_prob without the division: exact in double, and strict, so that what
 * the target never writes is never accepted. draft_prob: the very float that the draw saw. */
bool verify_accepts(float coin, float draft_prob, float target_prob);
/* The token instead of a refused one: a draw from max(target - draft, 0), or from the target row if
 * nothing is left of it. draft_prob NULL: a point mass at point_id. Ids of probability 0 are never
 * drawn. The coin is that of COIN_RESIDUAL. */
int32_t verify_residual_draw(const float *target_prob /* [n_vocab] */,
                             const float *draft_prob /* [n_vocab] or NULL */, int32_t point_id,
                             int32_t n_vocab, float coin);
/* The token after all proposals, or after none: a draw from the target row, same coin. */
int32_t verify_target_draw(const float *target_prob /* [n_vocab] */, int32_t n_vocab, float coin);

/* ---- rejection, whole runs ---- */
/* The target's distributions, asked for one by one: rows are large, and those behind a refused
 * proposal are never needed. Row 0 follows the committed tokens, row i + 1 proposal (or node) i. */
struct verify_target {
    int32_t n_vocab;
    /* *prob: [n_vocab] after penalties and filters, valid until the next call. Penalties see the
     * proposals on the way to the row. A failure ends the run. */
    enum status (*prob)(void *context, int32_t row, const float **prob);
    void *context;
};
/* Where coins come from: rng_coin_uniform of the seed, or a function of the caller's instead. */
struct verify_coins {
    uint64_t seed;
    int32_t position; /* absolute, of the token that row 0 chooses */
    float (*coin)(void *context, enum coin_purpose purpose, int32_t position, int32_t index);
    void *context;
};
struct verify_run {
    struct verify_target target;
    struct verify_coins coins;
    const int32_t *proposed;        /* [n_proposed]; an id outside the vocabulary is refused */
    int32_t n_proposed;             /* not chosen by looking at the proposals themselves */
    const float *const *draft_prob; /* [n_proposed] rows [n_vocab]: what each was drawn from, given
                                       those before it; NULL row: point mass; NULL: all are */
};
/* Coins: COIN_ACCEPT of each proposal's position, index 0; COIN_RESIDUAL of the recovery token's.
 * On failure *out says how many were accepted before the row that failed, its recovery token is
 * -1: the accepted ones stand, and the row fails again as the first of the next round. */
enum status verify_rejection(const struct verify_run *run, struct verify_outcome *out);

/* ---- trees ----
 * The root is the token last committed; nodes stand in draft order. Of siblings with one token the
 * first is walked into; later ones count as draws, which they were, but their rows and children are
 * never looked at. */
enum { VERIFY_MAX_NODES = 64 };
struct verify_tree {
    const int32_t *token;  /* [n_nodes] */
    const int32_t *parent; /* [n_nodes] a node before this one, or -1: the root */
    int32_t n_nodes;
};
struct verify_path {
    int32_t n_accepted;
    int32_t recovery_token;
    int32_t node[VERIFY_MAX_NODES]; /* [n_accepted] from the root down */
};
/* STATUS_INVALID, with a sentence, when there are too many nodes or a parent does not come before
 * its child. For trees from outside; the rules below ASSERT it. */
enum status verify_tree_check(const struct verify_tree *tree);
/* The first child of `node` (-1: of the root) that has `token`, or -1. */
int32_t verify_tree_child(const struct verify_tree *tree, int32_t node, int32_t token);
/* Coupled: from the root down, as long as a child has the target's token. */
void verify_tree_coupled(const struct verify_tree *tree,
                         const int32_t *target_token /* [n_nodes + 1], row order as above */,
                         struct verify_path *out);

struct verify_tree_run {
    struct verify_target target;
    struct verify_coins coins;
    struct verify_tree tree;
    const float *const *draft_prob; /* [n_nodes], as in verify_run */
    float *scratch;                 /* [n_vocab] the residual between siblings */
};
/* Rejection: children of a node take turns in draft order. Each has its own coin (COIN_ACCEPT,
 * index = place among all children of its parent); a refusal replaces the row by what it leaves,
 * max(row - draft, 0) normalised (SpecInfer, Miao et al. 2024, multi-step speculative sampling).
 *
 * Exact for siblings drawn independently of each other, each from its own stated row (so i.i.d.
 * from one, duplicates kept as nodes), and for point masses chosen without a draw, distinct or not.
 * Not for siblings drawn without replacement and stated as if with. The draft's coin of a node is
 * COIN_DRAFT of its position, index = place among siblings; cousins share it, for at most one of
 * them is on the path. A tree that is a chain gives what verify_rejection gives. Failures as
 * there. */
enum status verify_tree_rejection(const struct verify_tree_run *run, struct verify_path *out);

#endif
