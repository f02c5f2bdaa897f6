/* test_verify_tree: the rules on trees. Coupled: against another way to say it, on many trees and
 * all answers. Rejection: text distributed exactly as the target's own, by integrating over all
 * coins, for trees whose siblings are drawn and for trees of point masses; rules that are wrong on
 * purpose must fail the same judgement.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/coin_integral.h"
#include "tests/toy_text.h"
#include "verify/verify.h"

/* ---- coupled ---- */
enum { MAX_NODES = 7, N_TREES = 400 };

struct any_tree { int32_t token[MAX_NODES], parent[MAX_NODES], n_nodes; };

static struct any_tree random_tree(uint64_t seed, int32_t n_vocab)
{
    struct any_tree tree = { .n_nodes = (int32_t)(rng_mix64(seed) % (MAX_NODES + 1)) };
    for (int32_t i = 0; i < tree.n_nodes; i++) {
        const uint64_t bits = rng_mix64(seed * 100 + (uint64_t)i);
        tree.parent[i] = (int32_t)(bits % (uint64_t)(i + 1)) - 1;
        tree.token[i] = (int32_t)((bits >> 32) % (uint64_t)n_vocab);
    }
    return tree;
}

static struct verify_tree tree_of(const struct any_tree *tree)
{
    return (struct verify_tree){ tree->token, tree->parent, tree->n_nodes };
}

/* Said of each node by itself: it is accepted if its parent is, the target says its token there and
 * no sibling before it has the same. */
static int32_t accepted_nodes(const struct any_tree *tree, const int32_t *target, bool *accepted)
{
    int32_t deepest = -1;
    for (int32_t i = 0; i < tree->n_nodes; i++) {
        const int32_t parent = tree->parent[i];
        accepted[i] = (parent < 0 || accepted[parent]) && tree->token[i] == target[parent + 1];
        for (int32_t j = 0; j < i; j++) {
            accepted[i] &= tree->parent[j] != parent || tree->token[j] != tree->token[i];
        }
        deepest = accepted[i] ? i : deepest;
    }
    return deepest; /* accepted nodes are one path, and a child stands after its parent */
}

static void coupled_walks_the_targets_text(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_TREES; seed++) {
        const struct any_tree tree = random_tree(seed, 2);
        const struct verify_tree asked = tree_of(&tree);
        for (uint32_t answers = 0; answers < 1u << (tree.n_nodes + 1); answers++) {
            int32_t target[MAX_NODES + 1], n_accepted = 0;
            bool accepted[MAX_NODES] = { false };
            for (int32_t row = 0; row <= tree.n_nodes; row++) {
                target[row] = answers >> row & 1;
            }
            const int32_t deepest = accepted_nodes(&tree, target, accepted);
            struct verify_path path;
            verify_tree_coupled(&asked, target, &path);
            for (int32_t i = 0; i < tree.n_nodes; i++) {
                if (accepted[i]) {
                    assert_true(n_accepted < path.n_accepted);
                    assert_int_equal(path.node[n_accepted++], i);
                }
            }
            assert_int_equal(path.n_accepted, n_accepted);
            assert_int_equal(path.recovery_token, target[deepest + 1]);
        }
    }
}

static void coupled_chain_is_the_chain_rule(void **state)
{
    (void)state;
    static const int32_t parent[] = { -1, 0, 1 };
    for (int32_t code = 0; code < 1 << 7; code++) {
        int32_t token[3], target[4];
        for (int32_t i = 0; i < 7; i++) {
            *(i < 3 ? &token[i] : &target[i - 3]) = code >> i & 1;
        }
        struct verify_path path;
        verify_tree_coupled(&(struct verify_tree){ token, parent, 3 }, target, &path);
        const struct verify_outcome outcome = verify_coupled(token, 3, target);
        assert_int_equal(path.n_accepted, outcome.n_accepted);
        assert_int_equal(path.recovery_token, outcome.recovery_token);
    }
}

static void trees_from_outside_are_checked(void **state)
{
    (void)state;
    int32_t parent[VERIFY_MAX_NODES + 1], token[VERIFY_MAX_NODES + 1] = { 0 };
    for (int32_t i = 0; i <= VERIFY_MAX_NODES; i++) {
        parent[i] = i - 1;
    }
    struct verify_tree tree = { token, parent, VERIFY_MAX_NODES };
    assert_int_equal(verify_tree_check(&tree), STATUS_OK);
    int32_t target[VERIFY_MAX_NODES + 1] = { 0 };
    struct verify_path path;
    verify_tree_coupled(&tree, target, &path); /* the longest path there can be */
    assert_int_equal(path.n_accepted, VERIFY_MAX_NODES);
    tree.n_nodes++;
    assert_int_equal(verify_tree_check(&tree), STATUS_INVALID);
    tree.n_nodes = -1;
    assert_int_equal(verify_tree_check(&tree), STATUS_INVALID);
    tree.n_nodes = 3;
    static const int32_t wrong[] = { 1, 2, INT32_MAX, -2, INT32_MIN };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        parent[1] = wrong[i];
        assert_int_equal(verify_tree_check(&tree), STATUS_INVALID);
    }
}

/* ---- rejection: exact ---- */
enum drafting { DRAW_EACH, DRAW_MIXED, POINTS, POINTS_REPEATED, DRAFTINGS };
enum flaw {
    THE_RULE,        /* no copy: verify_tree_rejection */
    FLAW_NONE,       /* the rule written out once more, right */
    FLAW_ONE_ROW,    /* siblings all judged by the target's row, which a refusal leaves as it was */
    FLAW_ONE_COIN,   /* siblings share a coin */
    FLAW_SKIP,       /* repeated siblings are passed over as if they had not been drawn */
    FLAW_RAW,        /* what a refusal leaves is not normalised */
    FLAW_BEST_FIRST, /* siblings take turns by the target's liking */
    FLAW_REPLACED,   /* siblings drawn without replacement, stated as if with */
    FLAWS,
};
static const char *const flaw_names[FLAWS] = {
    "the rule", "none", "one row", "one coin", "repeated skipped", "not normalised", "best first",
    "no replacement",
};

static const int32_t two[] = { -1, -1 }, three[] = { -1, -1, -1 }, bush[] = { -1, -1, 0, 0, 1 };
static const int32_t mixed_order[] = { -1, 0, -1, 2 }, line[] = { -1, 0 };
static const struct { const int32_t *parent; int32_t n_nodes, depth, n_vocab; } shapes[] = {
    { two, 2, 1, 5 },         { three, 3, 1, 4 }, { bush, 5, 2, 3 },
    { mixed_order, 4, 2, 3 }, { line, 2, 2, 4 },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_SEEDS = 12 };
static const double bar = 1e-6;

struct scene {
    struct toy_text toy;
    struct any_tree tree;
    enum drafting drafting;
    enum flaw flaw;
    int32_t written[TOY_TOKENS];
    struct coin_walk *walk;
    const float *stated[MAX_NODES];
    float scratch[TOY_VOCAB];
};

static enum status target_prob(void *context, int32_t row, const float **prob)
{
    const struct scene *scene = context;
    *prob = toy_text_target(&scene->toy, row == 0 ? -1 : scene->tree.token[row - 1]);
    return STATUS_OK;
}

static int32_t depth_of(const struct any_tree *tree, int32_t node)
{
    return node < 0 ? 0 : 1 + depth_of(tree, tree->parent[node]);
}

static int32_t place_of(const struct any_tree *tree, int32_t node)
{
    int32_t place = 0;
    for (int32_t i = 0; i < node; i++) {
        place += tree->parent[i] == tree->parent[node];
    }
    return place;
}

/* A token of `row` for a node, never one that a sibling before it has if there is another. */
static int32_t draw_unlike_siblings(const struct scene *scene, const float *row, int32_t node,
                                    float coin)
{
    const struct any_tree *tree = &scene->tree;
    float left[TOY_VOCAB];
    memcpy(left, row, sizeof left);
    for (int32_t i = 0; i < node; i++) {
        if (tree->parent[i] == tree->parent[node]) {
            left[tree->token[i]] = 0;
        }
    }
    const struct sampling_weights weights = { left, NULL, -1, scene->toy.n_vocab };
    const int32_t id = sampling_draw_weights(&weights, coin);
    return id >= 0 ? id : sampling_draw_from(row, scene->toy.n_vocab, coin);
}

static void draft_tree(struct scene *scene)
{
    struct any_tree *tree = &scene->tree;
    for (int32_t i = 0; i < tree->n_nodes; i++) {
        const int32_t before = tree->parent[i] < 0 ? -1 : tree->token[tree->parent[i]];
        const int32_t place = place_of(tree, i), depth = depth_of(tree, tree->parent[i]);
        const float *row = toy_text_draft(&scene->toy, before);
        const bool is_point = scene->drafting >= POINTS || (scene->drafting == DRAW_MIXED && i % 2);
        scene->stated[i] = is_point ? NULL : row;
        if (is_point) { /* a function of the context alone */
            const int32_t step = scene->drafting == POINTS_REPEATED ? place / 2 : place;
            tree->token[i] = (before + 2 + step) % scene->toy.n_vocab;
        } else {
            const float coin = coin_walk_ask(scene->walk, COIN_DRAFT, 100 + depth, place);
            tree->token[i] = scene->flaw == FLAW_REPLACED
                                 ? draw_unlike_siblings(scene, row, i, coin)
                                 : sampling_draw_from(row, scene->toy.n_vocab, coin);
        }
        coin_walk_note(scene->walk, tree->token[i]);
    }
}

/* ---- the rule written out, with a flaw ---- */
/* The children of a node that take turns, in their order. */
static int32_t turns_of(const struct scene *scene, int32_t node, const float *target, int32_t *turn)
{
    const struct any_tree *tree = &scene->tree;
    int32_t n = 0;
    for (int32_t i = 0; i < tree->n_nodes; i++) {
        bool is_skipped = tree->parent[i] != node;
        for (int32_t j = 0; j < n && scene->flaw == FLAW_SKIP; j++) {
            is_skipped |= tree->token[turn[j]] == tree->token[i];
        }
        if (is_skipped) {
            continue;
        }
        int32_t at = n++;
        for (; at > 0 && scene->flaw == FLAW_BEST_FIRST
               && target[tree->token[i]] > target[tree->token[turn[at - 1]]]; at--) {
            turn[at] = turn[at - 1];
        }
        turn[at] = i;
    }
    return n;
}

/* What a refused child leaves of `row`, in place, in double. */
static void take_off(const struct scene *scene, int32_t child, double *row)
{
    double sum = 0, left[TOY_VOCAB] = { 0 };
    for (int32_t id = 0; id < scene->toy.n_vocab; id++) {
        const double less = scene->stated[child] != NULL ? (double)scene->stated[child][id]
                            : id == scene->tree.token[child] ? 1.0 : 0.0;
        left[id] = fmax(row[id] - less, 0);
        sum += left[id];
    }
    for (int32_t id = 0; id < scene->toy.n_vocab && sum > 1e-6; id++) { /* else: rounding */
        row[id] = scene->flaw == FLAW_RAW ? left[id] : left[id] / sum;
    }
}

/* The accepted child of `node`, or -1 and the token in its place. */
static int32_t flawed_step(struct scene *scene, int32_t node, int32_t position, int32_t *token)
{
    const float *target = NULL;
    double row[TOY_VOCAB], start[TOY_VOCAB];
    int32_t turn[MAX_NODES];
    assert_int_equal(target_prob(scene, node + 1, &target), STATUS_OK);
    for (int32_t id = 0; id < scene->toy.n_vocab; id++) {
        row[id] = start[id] = (double)target[id];
    }
    const int32_t n = turns_of(scene, node, target, turn);
    for (int32_t i = 0; i < n; i++) {
        const int32_t id = scene->tree.token[turn[i]];
        const float coin = coin_walk_ask(scene->walk, COIN_ACCEPT, position,
                                         scene->flaw == FLAW_ONE_COIN ? 0 : i);
        const float draft = scene->stated[turn[i]] == NULL ? 1.0f : scene->stated[turn[i]][id];
        if ((double)coin * (double)draft < row[id]) {
            return turn[i];
        }
        memcpy(row, scene->flaw == FLAW_ONE_ROW ? start : row, sizeof row);
        take_off(scene, turn[i], row);
        if (scene->flaw == FLAW_ONE_ROW && i + 1 < n) {
            memcpy(row, start, sizeof row);
        }
    }
    float weight[TOY_VOCAB];
    for (int32_t id = 0; id < scene->toy.n_vocab; id++) {
        weight[id] = (float)row[id];
    }
    const float coin = coin_walk_ask(scene->walk, COIN_RESIDUAL, position, 0);
    *token = sampling_draw_from(weight, scene->toy.n_vocab, coin);
    return -1;
}

static void flawed_rejection(struct scene *scene, struct verify_path *path)
{
    path->n_accepted = 0;
    for (int32_t node = -1;;) {
        node = flawed_step(scene, node, 100 + path->n_accepted, &path->recovery_token);
        if (node < 0) {
            return;
        }
        path->node[path->n_accepted++] = node;
    }
}

static void right_rejection(struct scene *scene, struct verify_path *path)
{
    const struct verify_tree_run run = {
        .target = { scene->toy.n_vocab, target_prob, scene },
        .coins = { .position = 100, .coin = coin_walk_ask, .context = scene->walk },
        .tree = tree_of(&scene->tree), .draft_prob = scene->stated, .scratch = scene->scratch,
    };
    assert_int_equal(verify_tree_rejection(&run, path), STATUS_OK);
}

/* One tree, then single tokens of the target until the text is full. */
static void write_text(void *context, struct coin_walk *walk)
{
    struct scene *scene = context;
    struct verify_path path;
    scene->walk = walk;
    draft_tree(scene);
    (scene->flaw == THE_RULE ? right_rejection : flawed_rejection)(scene, &path);
    int32_t n = 0;
    for (; n < path.n_accepted; n++) {
        scene->written[n] = scene->tree.token[path.node[n]];
        coin_walk_note(walk, path.node[n]);
    }
    scene->written[n++] = path.recovery_token;
    coin_walk_note(walk, 100 + path.recovery_token);
    for (; n < scene->toy.n_tokens; n++) {
        const float *row = toy_text_target(&scene->toy, scene->written[n - 1]);
        const float coin = coin_walk_ask(walk, COIN_RESIDUAL, 100 + n, 0);
        scene->written[n] = verify_target_draw(row, scene->toy.n_vocab, coin);
        coin_walk_note(walk, scene->written[n]);
    }
}

static void add_text(void *context, double prob)
{
    struct scene *scene = context;
    toy_text_add(&scene->toy, scene->written, prob);
}

static double judge(enum flaw flaw, int32_t shape, enum drafting drafting, uint64_t seed)
{
    struct scene scene = { .drafting = drafting, .flaw = flaw };
    toy_text_fill(&scene.toy, shapes[shape].n_vocab, shapes[shape].depth + 1, seed);
    scene.tree.n_nodes = shapes[shape].n_nodes;
    memcpy(scene.tree.parent, shapes[shape].parent,
           (size_t)scene.tree.n_nodes * sizeof *scene.tree.parent);
    const struct coin_program program = { write_text, add_text, &scene };
    coin_integrate(&program);
    return toy_text_worst(&scene.toy);
}

static double judge_all(enum flaw flaw)
{
    double worst = 0;
    for (int32_t shape = 0; shape < N_SHAPES; shape++) {
        for (enum drafting drafting = DRAW_EACH; drafting < DRAFTINGS; drafting++) {
            for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
                const double difference = judge(flaw, shape, drafting, seed);
                if (flaw <= FLAW_NONE && difference > bar) {
                    fail_msg("shape %d, drafting %d, seed %d: off by %g", shape, (int)drafting,
                             (int)seed, difference);
                }
                worst = fmax(worst, difference);
            }
        }
    }
    return worst;
}

static void rule_is_exact(void **state)
{
    (void)state;
    printf("trees: largest difference to the target %.2g\n", judge_all(THE_RULE));
}

static void flaws_are_found_out(void **state)
{
    (void)state;
    for (enum flaw flaw = FLAW_NONE; flaw < FLAWS; flaw++) {
        const double worst = judge_all(flaw);
        printf("flaw %-16s off by %.2g\n", flaw_names[flaw], worst);
        assert_true(flaw == FLAW_NONE ? worst < bar : worst > 2 * bar);
    }
}

/* ---- rejection: against the chain ---- */
enum { WIDE_VOCAB = 700, N_RUNS = 2000, CHAIN = 3 };
static float wide_target[CHAIN + 1][WIDE_VOCAB], wide_draft[CHAIN][WIDE_VOCAB];

static enum status wide_prob(void *context, int32_t row, const float **prob)
{
    (void)context;
    *prob = wide_target[row];
    return STATUS_OK;
}

static void wide_row(float *row, uint64_t seed)
{
    for (int32_t id = 0; id < WIDE_VOCAB; id++) {
        const uint64_t bits = rng_mix64(seed * WIDE_VOCAB + (uint64_t)id);
        row[id] = bits % 3 == 0 ? 0 : (float)(bits >> 50) * (bits % 64 == 1 ? 100.0f : 1.0f);
    }
    const struct sampling_weights weights = { row, NULL, -1, WIDE_VOCAB };
    assert_true(sampling_normalise_weights(&weights, row));
}

static void tree_that_is_a_chain(void **state)
{
    (void)state;
    static const int32_t parent[CHAIN] = { -1, 0, 1 };
    static float scratch[WIDE_VOCAB];
    const float *stated[CHAIN];
    int32_t n_accepted = 0, n_refused = 0;
    for (int32_t i = 0; i < N_RUNS; i++) {
        int32_t proposed[CHAIN];
        for (int32_t k = 0; k < CHAIN && i % 50 == 0; k++) {
            wide_row(wide_target[k], (uint64_t)(i + k));
            wide_row(wide_draft[k], (uint64_t)(i + k + (i % 100 == 0 ? 10 : 0)));
        }
        wide_row(wide_target[CHAIN], (uint64_t)i);
        for (int32_t k = 0; k < CHAIN; k++) {
            const float coin = rng_coin_uniform(5, COIN_DRAFT, (uint32_t)(i + k), 0);
            proposed[k] = sampling_draw_from(wide_draft[k], WIDE_VOCAB, coin);
            stated[k] = i % 7 == 6 ? NULL : wide_draft[k];
        }
        const struct verify_target target = { WIDE_VOCAB, wide_prob, NULL };
        const struct verify_coins coins = { .seed = 5, .position = i };
        struct verify_outcome outcome;
        struct verify_path path;
        assert_int_equal(verify_rejection(&(struct verify_run){ target, coins, proposed, CHAIN,
                                                                stated }, &outcome), STATUS_OK);
        assert_int_equal(verify_tree_rejection(&(struct verify_tree_run){ target, coins,
                             { proposed, parent, CHAIN }, stated, scratch }, &path), STATUS_OK);
        assert_int_equal(path.n_accepted, outcome.n_accepted);
        assert_int_equal(path.recovery_token, outcome.recovery_token);
        n_accepted += outcome.n_accepted;
        n_refused += outcome.n_accepted < CHAIN;
    }
    assert_true(n_accepted > N_RUNS / 10 && n_refused > N_RUNS / 10);
}

/* ---- rejection: what cannot be ---- */
static enum status failing_prob(void *context, int32_t row, const float **prob)
{
    (void)context;
    static const float sure[3] = { 0, 1, 0 };
    *prob = sure;
    return row == 2 ? status_fail(STATUS_NUMERIC, "a row that is no number") : STATUS_OK;
}

static void draft_may_lie(void **state)
{
    (void)state;
    static const int32_t parent[] = { -1, -1, -1, 1 }, token[] = { -1, INT32_MAX, 3, 0 };
    static const float nan[3] = { NAN, NAN, NAN }, above[3] = { INFINITY, 9, INFINITY };
    static const float *const stated[] = { nan, NULL, above, nan };
    float scratch[3];
    struct verify_path path;
    struct verify_tree_run run = { .target = { 3, failing_prob, NULL },
                                   .tree = { token, parent, 4 },
                                   .draft_prob = stated, .scratch = scratch };
    for (run.coins.position = 0; run.coins.position < 100; run.coins.position++) {
        assert_int_equal(verify_tree_rejection(&run, &path), STATUS_OK);
        assert_int_equal(path.n_accepted, 0);
        assert_int_equal(path.recovery_token, 1);
    }
}

static void failed_row_ends_the_walk(void **state)
{
    (void)state;
    static const int32_t parent[] = { -1, -1, 1 }, token[] = { 0, 1, 1 };
    float scratch[3];
    struct verify_path path;
    const struct verify_tree_run run = { .target = { 3, failing_prob, NULL },
                                         .tree = { token, parent, 3 }, .scratch = scratch };
    assert_int_equal(verify_tree_rejection(&run, &path), STATUS_NUMERIC);
    assert_int_equal(path.n_accepted, 1);
    assert_int_equal(path.node[0], 1);
    assert_int_equal(path.recovery_token, -1);
}

/* A repeated sibling keeps its turn and its coin, but not its row and children. */
static void repeated_sibling_is_not_entered(void **state)
{
    (void)state;
    static const int32_t parent[] = { -1, -1, 1 }, token[] = { 1, 1, 1 };
    static const float nothing[3] = { 0, 1, 0 };
    static const float *const stated[] = { nothing, nothing, nothing };
    float scratch[3];
    struct verify_path path;
    const int32_t target[] = { 1, 2, 1, 1 };
    const struct verify_tree tree = { token, parent, 3 };
    verify_tree_coupled(&tree, target, &path);
    assert_int_equal(path.n_accepted, 1);
    assert_int_equal(path.node[0], 0);
    assert_int_equal(path.recovery_token, 2);
    const struct verify_tree_run run = { .target = { 3, failing_prob, NULL }, .tree = tree,
                                         .draft_prob = stated, .scratch = scratch };
    assert_int_equal(verify_tree_rejection(&run, &path), STATUS_OK);
    assert_int_equal(path.n_accepted, 1);
    assert_int_equal(path.node[0], 0);
}

static enum status even_prob(void *context, int32_t row, const float **prob)
{
    (void)context;
    static const float even[3] = { 0.5f, 0.5f, 0 };
    *prob = even;
    return row > 0 ? status_fail(STATUS_NUMERIC, "a row that is not needed") : STATUS_OK;
}

static float falling_coin(void *context, enum coin_purpose purpose, int32_t position, int32_t index)
{
    (void)context;
    (void)position;
    return purpose == COIN_ACCEPT && index == 0 ? 0.75f : 0.25f;
}

/* Where a refusal leaves nothing the row stays as it was; the refused token is still refused. */
static void repeated_sibling_stays_refused(void **state)
{
    (void)state;
    static const int32_t parent[] = { -1, -1 }, token[] = { 0, 0 };
    static const float too_much[3] = { 1, 1, 1 };
    static const float *const stated[] = { too_much, too_much };
    float scratch[3];
    struct verify_path path;
    const struct verify_tree_run run = { .target = { 3, even_prob, NULL },
                                         .coins = { .coin = falling_coin },
                                         .tree = { token, parent, 2 },
                                         .draft_prob = stated, .scratch = scratch };
    assert_int_equal(verify_tree_rejection(&run, &path), STATUS_OK);
    assert_int_equal(path.n_accepted, 0);
    assert_int_equal(path.recovery_token, 0); /* 0.25 of the whole target row */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coupled_walks_the_targets_text),
        cmocka_unit_test(coupled_chain_is_the_chain_rule),
        cmocka_unit_test(trees_from_outside_are_checked),
        cmocka_unit_test(rule_is_exact),
        cmocka_unit_test(flaws_are_found_out),
        cmocka_unit_test(tree_that_is_a_chain),
        cmocka_unit_test(draft_may_lie),
        cmocka_unit_test(failed_row_ends_the_walk),
        cmocka_unit_test(repeated_sibling_is_not_entered),
        cmocka_unit_test(repeated_sibling_stays_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
