/* tree: several proposals for one position, of which at most one is accepted; below it the same
 * again. What is committed is a path from the root and the target's token after it.
 */
#include "verify/verify.h"

#include "sampling/sampling.h"
#include "verify/private.h"

enum status verify_tree_check(const struct verify_tree *tree)
{
    if (tree->n_nodes < 0 || tree->n_nodes > VERIFY_MAX_NODES) {
        return status_fail(STATUS_INVALID, "expected a tree of 0 to %d nodes, found %d",
                           (int)VERIFY_MAX_NODES, tree->n_nodes);
    }
    for (int32_t i = 0; i < tree->n_nodes; i++) {
        if (tree->parent[i] < -1 || tree->parent[i] >= i) {
            return status_fail(STATUS_INVALID,
                               "expected the parent of tree node %d at -1 to %d, found %d", i,
                               i - 1, tree->parent[i]);
        }
    }
    return STATUS_OK;
}

int32_t verify_tree_child(const struct verify_tree *tree, int32_t node, int32_t token)
{
    for (int32_t i = node + 1; i < tree->n_nodes; i++) {
        if (tree->parent[i] == node && tree->token[i] == token) {
            return i;
        }
    }
    return -1;
}

static void path_extend(struct verify_path *path, int32_t node)
{
    ASSERT(path->n_accepted < VERIFY_MAX_NODES);
    path->node[path->n_accepted++] = node;
}

void verify_tree_coupled(const struct verify_tree *tree, const int32_t *target_token,
                         struct verify_path *out)
{
    ASSERT(verify_tree_check(tree) == STATUS_OK);
    out->n_accepted = 0;
    int32_t node = -1;
    for (int32_t child; (child = verify_tree_child(tree, node, target_token[node + 1])) >= 0;) {
        path_extend(out, child);
        node = child;
    }
    out->recovery_token = target_token[node + 1];
}

/* The next child of `node` after `previous` (-1: the first), or -1. */
static int32_t next_child(const struct verify_tree *tree, int32_t node, int32_t previous)
{
    for (int32_t i = (previous > node ? previous : node) + 1; i < tree->n_nodes; i++) {
        if (tree->parent[i] == node) {
            return i;
        }
    }
    return -1;
}

static const float *draft_row(const struct verify_tree_run *run, int32_t child)
{
    return run->draft_prob == NULL ? NULL : run->draft_prob[child];
}

/* An earlier sibling with the same token was refused, and took with it all this one could get. */
static bool is_repeated(const struct verify_tree *tree, int32_t child)
{
    return verify_tree_child(tree, tree->parent[child], tree->token[child]) != child;
}

/* What a refused child leaves of the row, in scratch; the row itself if that is nothing. */
static const float *row_without(const struct verify_tree_run *run, const float *row, int32_t child)
{
    const float *draft_prob = draft_row(run, child);
    const struct sampling_weights left = {
        .prob = row, .less = draft_prob, .n_vocab = run->target.n_vocab,
        .without_id = draft_prob == NULL ? run->tree.token[child] : -1,
    };
    return sampling_normalise_weights(&left, run->scratch) ? run->scratch : row;
}

static bool accepts_child(const struct verify_tree_run *run, int32_t child, const float *row,
                          float coin)
{
    const int32_t token = run->tree.token[child];
    if (token < 0 || token >= run->target.n_vocab || is_repeated(&run->tree, child)) {
        return false;
    }
    const float *draft_prob = draft_row(run, child);
    return verify_accepts(coin, draft_prob == NULL ? 1.0f : draft_prob[token], row[token]);
}

/* The child of `node` that is accepted, or -1 and the token that stands in for all of them. `row`
 * is the target's at `node`, `ahead` its position after row 0's. */
static int32_t walk_children(const struct verify_tree_run *run, int32_t node, const float *row,
                             int32_t ahead, int32_t *recovery_token)
{
    const struct verify_tree *tree = &run->tree;
    const int32_t n_vocab = run->target.n_vocab;
    int32_t refused = -1;
    for (int32_t child = next_child(tree, node, -1), place = 0; child >= 0; place++) {
        if (refused >= 0) {
            row = row_without(run, row, refused);
        }
        const float coin = verify_coin(&run->coins, COIN_ACCEPT, ahead, place);
        if (accepts_child(run, child, row, coin)) {
            return child;
        }
        refused = child;
        child = next_child(tree, node, child);
    }
    const float coin = verify_coin(&run->coins, COIN_RESIDUAL, ahead, 0);
    *recovery_token = refused < 0 ? verify_target_draw(row, n_vocab, coin)
                                  : verify_residual_draw(row, draft_row(run, refused),
                                                         tree->token[refused], n_vocab, coin);
    return -1;
}

enum status verify_tree_rejection(const struct verify_tree_run *run, struct verify_path *out)
{
    ASSERT(verify_tree_check(&run->tree) == STATUS_OK && run->target.n_vocab > 0);
    out->n_accepted = 0;
    out->recovery_token = -1;
    int32_t node = -1;
    do {
        const float *row = NULL;
        TRY(run->target.prob(run->target.context, node + 1, &row));
        node = walk_children(run, node, row, out->n_accepted, &out->recovery_token);
        if (node >= 0) {
            path_extend(out, node);
        }
    } while (node >= 0);
    return STATUS_OK;
}
