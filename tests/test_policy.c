/* test_policy: the policy in a virtual machine. Which proposed tokens are right, what passes and drafts
 * take, and how badly clocks lie is known here, so that what the policy makes of it can be compared with
 * plain decoding and with the best fixed K, found by trying each. Time is virtual; seeds are printed. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/policy_private.h"

enum { K_MAX = 8, BATCH_MAX = 64, N_PROMPT = 24 };

/* ---- the machine ---- */
enum shape { SHAPE_MEMORY, SHAPE_STEPPED, SHAPE_LINEAR, N_SHAPES };
static const char *const shape_names[N_SHAPES] = { "memory", "stepped", "linear" };
enum hints { HINTS_TRUE, HINTS_NOISE, N_HINTS };
static const char *const hint_names[N_HINTS] = { "true", "noise" };
enum course { COURSE_STEADY, COURSE_CHANGES }; /* changes: all right, all wrong, all right */

struct world {
    enum shape shape;
    enum hints hints;
    enum course course;
    double draft_cost;    /* a draft pass, in plain passes */
    double acceptance;
    int32_t batch;
    int32_t n_tokens;     /* each sequence writes, on average */
    uint64_t seed;
};

static double verify_ns(const struct world *world, int32_t n_rows)
{
    switch (world->shape) {
    case SHAPE_MEMORY:
        return 1e6 * (fmax(1.0, n_rows / 24.0) + 0.004 * n_rows);
    case SHAPE_STEPPED:
        return 1e6 * (0.6 + 0.4 * ceil(n_rows / 8.0));
    default:
        return 1e6 * (0.25 + 0.75 * n_rows);
    }
}

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static double uniform(uint64_t seed, uint64_t a, uint64_t b)
{
    return (double)(mix(mix(mix(seed) ^ a) ^ b) >> 11) * 0x1p-53;
}

/* How likely the draft's token at this position of this sequence is right, and whether it is. */
static double truth(const struct world *world, int32_t seq, int32_t position)
{
    const int32_t third = position * 3 / world->n_tokens;
    const double a = world->course == COURSE_STEADY ? world->acceptance : third == 1 ? 0.0 : 1.0;
    const double spread = 0.9 * fmin(a, 1.0 - a);
    return uniform(world->seed, 2 * (uint64_t)seq, (uint64_t)position) < 0.5 ? a - spread : a + spread;
}

static int is_right(const struct world *world, int32_t seq, int32_t position)
{
    return uniform(world->seed, 2 * (uint64_t)seq + 1, (uint64_t)position) < truth(world, seq, position);
}

static float hint_of(const struct world *world, int32_t seq, int32_t position)
{
    return (float)(world->hints == HINTS_TRUE ? truth(world, seq, position)
                                              : uniform(world->seed + 1, (uint64_t)seq, (uint64_t)position));
}

/* What a clock says of `ns`: 5 % of noise, and one time in 300 the process lost its core. */
struct clocks { const struct world *world; uint64_t n_read; };
static int64_t read_clock(struct clocks *clocks, double ns)
{
    double sum = 0.0;
    for (uint64_t i = 0; i < 12; i++) {
        sum += uniform(clocks->world->seed + 2, clocks->n_read, i);
    }
    const int lost_core = uniform(clocks->world->seed + 3, clocks->n_read++, 0) < 1.0 / 300.0;
    return (int64_t)(ns * (1.0 + 0.05 * (sum - 6.0)) * (lost_core ? 10.0 : 1.0));
}

/* ---- runs ---- */
struct outcome {
    double tokens_per_ns;
    double probe_share;    /* of the time: what probes took beyond their tokens */
    struct policy_report report;
};

static struct outcome run_fixed(const struct world *world, int32_t k)
{
    int32_t position[BATCH_MAX] = { 0 };
    const double plain_ns = verify_ns(world, world->batch);
    const double round_ns = verify_ns(world, world->batch * (k + 1)) + k * world->draft_cost * plain_ns;
    double ns = k > 0 ? world->batch * N_PROMPT * world->draft_cost / 16.0 * verify_ns(world, 1) : 0.0;
    int64_t n = 0;
    while (n < (int64_t)world->n_tokens * world->batch) {
        for (int32_t i = 0; i < world->batch; i++) {
            int32_t n_accepted = 0;
            while (n_accepted < k && is_right(world, i, position[i] + n_accepted)) {
                n_accepted++;
            }
            position[i] += n_accepted + 1;
            n += n_accepted + 1;
        }
        ns += round_ns;
    }
    return (struct outcome){ .tokens_per_ns = (double)n / ns };
}

struct machine {
    const struct world *world;
    struct clocks clocks;
    struct draft draft;
    struct policy *policy;
    struct draft_ask asks[BATCH_MAX];
    int32_t position[BATCH_MAX], drafted[BATCH_MAX];
};

static void open_machine(struct machine *machine, const struct world *world, int32_t fixed_k)
{
    *machine = (struct machine){ .world = world, .clocks = { .world = world } };
    machine->draft.n_sources = 1;
    machine->draft.context = INT32_MAX;
    const struct policy_options options = { .max_batch = world->batch, .k_max = K_MAX, .fixed_k = fixed_k,
        .max_rows = world->batch * (K_MAX + 1) + 64, .follows_hints = true };
    assert_int_equal(policy_create(&options, &machine->draft, &machine->policy), STATUS_OK);
    static const int32_t sizes[] = { 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128 };
    for (int32_t j = 0; j < 11; j++) {
        const int32_t n = sizes[j];
        for (int32_t i = 0; i < 3; i++) {
            policy_observe_pass(machine->policy, n, read_clock(&machine->clocks, verify_ns(world, n)));
        }
    }
}

static void fill_asks(struct machine *machine)
{
    for (int32_t i = 0; i < machine->world->batch; i++) {
        machine->asks[i] = (struct draft_ask){ .place = i, .seq_id = (uint64_t)i + 1, .n_prompt = N_PROMPT,
            .n_tokens = N_PROMPT + machine->position[i], .k_max = K_MAX, .n_nodes_max = K_MAX };
    }
}

/* The chain asked for, shorter where calibration says that the path is not worth going on. Its time. */
static double propose(struct machine *machine)
{
    const struct world *world = machine->world;
    int32_t longest = 0, lag = 0;
    for (int32_t i = 0; i < world->batch; i++) {
        struct draft_ask *ask = &machine->asks[i];
        int32_t tokens[DRAFT_MAX_NODES] = { 0 }, n = 0;
        float hints[DRAFT_MAX_NODES], path = 1.0f;
        assert_true(ask->k_max >= 0 && ask->k_max <= K_MAX);
        for (; n < ask->k_max; n++) {
            hints[n] = hint_of(world, i, machine->position[i] + n);
            path *= calibration_survival(&machine->draft.calibration[0], hints[n]);
            if (path < ask->stop_below) {
                break;
            }
        }
        draft_proposal_chain(&ask->proposal, tokens, n, 0, hints);
        const int32_t n_passes = n < ask->k_max ? n + 1 : n; /* the last one in vain */
        longest = n_passes > longest ? n_passes : longest;
        if (ask->k_max > 0) {
            const int32_t behind = ask->n_tokens - machine->drafted[i];
            lag += behind > K_MAX + 1 ? behind : 0;
            machine->drafted[i] = ask->n_tokens;
        }
    }
    return world->draft_cost * (longest * verify_ns(world, world->batch) + lag * verify_ns(world, 1) / 16.0);
}

/* Verdicts of all; tokens committed. */
static int32_t verify(struct machine *machine)
{
    int32_t n_committed = 0;
    for (int32_t i = 0; i < machine->world->batch; i++) {
        static const int8_t path[DRAFT_MAX_NODES] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
        struct draft_verdict verdict = { .ask = &machine->asks[i], .path = path };
        while (verdict.n_accepted < machine->asks[i].proposal.n &&
               is_right(machine->world, i, machine->position[i] + verdict.n_accepted)) {
            verdict.n_accepted++;
        }
        if (machine->asks[i].proposal.n > 0) {
            policy_observe_verdict(machine->policy, &verdict);
        }
        machine->position[i] += verdict.n_accepted + 1;
        n_committed += verdict.n_accepted + 1;
    }
    return n_committed;
}

static int32_t longest_k(const struct machine *machine)
{
    int32_t longest = 0;
    for (int32_t i = 0; i < machine->world->batch; i++) {
        longest = machine->asks[i].k_max > longest ? machine->asks[i].k_max : longest;
    }
    return longest;
}

static struct outcome run_policy(const struct world *world)
{
    static struct machine machine;
    struct outcome outcome = { 0 };
    const int64_t n_wanted = (int64_t)world->n_tokens * world->batch;
    const double plain_ns = verify_ns(world, world->batch);
    double ns = 0.0, probe_ns = 0.0;
    uint64_t n_probes = 0;
    int64_t n = 0;
    open_machine(&machine, world, POLICY_AUTO);
    while (n < n_wanted) {
        fill_asks(&machine);
        policy_plan(machine.policy, machine.asks, world->batch, 0);
        const double draft_ns = propose(&machine);
        int32_t n_rows = world->batch;
        policy_trim(machine.policy, machine.asks, world->batch, 0);
        for (int32_t i = 0; i < world->batch; i++) {
            n_rows += machine.asks[i].proposal.n;
        }
        const int32_t n_committed = verify(&machine);
        const double pass_ns = verify_ns(world, n_rows);
        policy_observe_step(machine.policy, &(struct policy_step){
            .n_seqs = world->batch, .n_rows = n_rows, .longest_k = longest_k(&machine),
            .draft_ns = read_clock(&machine.clocks, draft_ns), .verify_ns = read_clock(&machine.clocks, pass_ns),
            .n_committed = n_committed });
        const struct policy_report report = policy_report(machine.policy);
        probe_ns += report.probes > n_probes ? draft_ns + pass_ns - plain_ns * n_committed / world->batch : 0.0;
        n_probes = report.probes;
        ns += draft_ns + pass_ns;
        n += n_committed;
    }
    outcome.tokens_per_ns = (double)n / ns;
    outcome.probe_share = probe_ns / ns;
    outcome.report = policy_report(machine.policy);
    policy_destroy(machine.policy);
    return outcome;
}


/* ---- the table of cells ---- */
struct cell {
    struct world world;
    int32_t best_k;
    double plain, best;    /* tokens a nanosecond */
    struct outcome outcome;
};
enum { CELLS_MAX = 2048 };
static struct cell cells[CELLS_MAX];
static int32_t n_cells;

static void run_cell(const struct world *world)
{
    assert_true(n_cells < CELLS_MAX);
    struct cell *cell = &cells[n_cells++];
    *cell = (struct cell){ .world = *world, .plain = run_fixed(world, 0).tokens_per_ns };
    cell->best = cell->plain;
    for (int32_t k = 1; k <= K_MAX; k++) {
        const double rate = run_fixed(world, k).tokens_per_ns;
        if (rate > cell->best) {
            cell->best = rate;
            cell->best_k = k;
        }
    }
    cell->outcome = run_policy(world);
}

static void run_cells(int32_t n_tokens, uint64_t seed)
{
    static const double acceptances[] = { 0.0, 0.3, 0.6, 0.8, 0.95, 1.0 }, costs[] = { 0.01, 0.05, 0.1, 0.2, 0.5 };
    static const int32_t batches[] = { 1, 4, 16 };
    n_cells = 0;
    for (int32_t i = 0; i < N_SHAPES * N_HINTS * 3 * 5 * 7; i++) {
        const int32_t a = i % 7, c = i / 7 % 5, b = i / 35 % 3;
        run_cell(&(struct world){ .shape = (enum shape)(i / 210), .hints = (enum hints)(i / 105 % N_HINTS),
            .batch = batches[b], .draft_cost = costs[c], .acceptance = a < 6 ? acceptances[a] : 0.0,
            .course = a < 6 ? COURSE_STEADY : COURSE_CHANGES, .n_tokens = n_tokens, .seed = seed });
    }
}

static void print_cell(const struct cell *cell, const char *why)
{
    const struct world *world = &cell->world;
    print_message("%s: %s, hints %s, batch %d, draft %.2f, acceptance %s%.2f, %d tokens, seed %d: best K=%d %.3f, "
                  "policy %.3f of plain, %.3f of best; probes %d, %.4f of the time; %d plain of %d rounds; says %.3f\n",
                  why, shape_names[world->shape], hint_names[world->hints], world->batch, world->draft_cost,
                  world->course == COURSE_CHANGES ? "1, 0, 1: " : "", world->acceptance, world->n_tokens,
                  (int)world->seed, cell->best_k, cell->best / cell->plain,
                  cell->outcome.tokens_per_ns / cell->plain, cell->outcome.tokens_per_ns / cell->best,
                  (int)cell->outcome.report.probes, cell->outcome.probe_share,
                  (int)cell->outcome.report.plain_rounds, (int)cell->outcome.report.rounds,
                  cell->outcome.report.speedup_vs_plain);
}

static int32_t count_below_plain(void)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_cells; i++) {
        if (cells[i].outcome.tokens_per_ns < 0.98 * cells[i].plain) {
            print_cell(&cells[i], "slower than plain");
            n++;
        }
    }
    return n;
}

/* The constants of the policy were chosen on seeds 1 and 2; these are others. */
static void never_slower_than_plain(void **state)
{
    (void)state;
    for (uint64_t seed = 31; seed <= 32; seed++) {
        run_cells(400, seed);
        assert_int_equal(count_below_plain(), 0);
    }
}

/* Against the best fixed K, known in hindsight. Not every cell comes near it: learning a gain of a tenth
 * costs about as much; a text that changes in its middle is noticed as late as probes are rare; and a
 * draft that is slow to catch up is given up after a few unlucky rounds, sometimes for good (the worst
 * seen in 16 other seeds: 0.60). So the bounds are on how many cells, and how far on average. */
static void near_the_best_fixed_k(void **state)
{
    double sum = 0.0;
    int32_t n_below_95 = 0, n_below_90 = 0, n_wrong = 0;
    (void)state;
    run_cells(2000, 31);
    for (int32_t i = 0; i < n_cells; i++) {
        const struct cell *cell = &cells[i];
        const double ratio = cell->outcome.tokens_per_ns / cell->best, was = cell->outcome.tokens_per_ns / cell->plain;
        sum += log(ratio);
        n_below_95 += ratio < 0.95;
        n_below_90 += ratio < 0.90;
        if (cell->outcome.probe_share > 0.0105) {
            print_cell(cell, "probes cost too much");
            n_wrong++;
        }
        if (fabs(cell->outcome.report.speedup_vs_plain / was - 1.0) > 0.12) {
            print_cell(cell, "wrong report");
            n_wrong++;
        }
    }
    const double mean = exp(sum / n_cells);
    const int is_far = n_below_95 * 10 > n_cells || n_below_90 * 25 > n_cells || mean < 0.985;
    for (int32_t i = 0; i < n_cells && is_far; i++) {
        print_cell(&cells[i], "cell");
    }
    print_message("of %d cells %d below 0.95 of the best fixed K, %d below 0.90, mean %.4f\n", n_cells, n_below_95,
                  n_below_90, mean);
    assert_int_equal(count_below_plain(), 0);
    assert_int_equal(n_wrong, 0);
    assert_int_equal(is_far, 0);
}

/* ---- trees ---- */
static struct draft tree_draft;

static struct policy *small_policy(int32_t max_batch, int32_t fixed_k, int follows_hints)
{
    struct policy *policy;
    memset(&tree_draft, 0, sizeof tree_draft);
    assert_int_equal(policy_create(&(struct policy_options){ .max_batch = max_batch, .k_max = DRAFT_MAX_NODES,
        .fixed_k = fixed_k, .max_rows = max_batch * (DRAFT_MAX_NODES + 1), .follows_hints = follows_hints != 0 },
        &tree_draft, &policy), STATUS_OK);
    return policy;
}

static uint64_t tree_seed;
static int32_t below(int32_t n)
{
    return (int32_t)(uniform(tree_seed++, 7, 7) * n);
}

/* Tokens are unique, so that a node is known by its token after it has moved. */
static void random_tree(struct draft_proposal *proposal, int32_t n)
{
    *proposal = (struct draft_proposal){ .n = n };
    for (int32_t i = 0; i < n; i++) {
        proposal->token[i] = 100 + i;
        proposal->parent[i] = (int8_t)(below(3) > 0 ? i - 1 : below(i + 1) - 1);
        proposal->source[i] = (uint8_t)below(2);
        proposal->hint[i] = (float)uniform(tree_seed++, 1, 1);
        proposal->prob[i] = &proposal->hint[i];
    }
}

static float survival_of(const struct policy *policy, const struct draft_ask *ask, int32_t node)
{
    return policy_odds_of_node(&policy->odds, &policy->odds.places[ask->place], &ask->proposal, node);
}

/* Tokens a nanosecond of keeping these nodes; 0 for a set with a child without its parent. */
static double rate_of(const struct policy *policy, const struct draft_ask *ask, uint32_t set)
{
    float path[DRAFT_MAX_NODES];
    double value = 1.0;
    int32_t n = 0;
    for (int32_t i = 0; i < ask->proposal.n; i++) {
        const int8_t parent = ask->proposal.parent[i];
        path[i] = (parent < 0 ? 1.0f : path[parent]) * survival_of(policy, ask, i);
        if ((set >> i & 1) != 0 && parent >= 0 && (set >> parent & 1) == 0) {
            return 0.0;
        }
        value += (set >> i & 1) != 0 ? (double)path[i] : 0.0;
        n += (int32_t)(set >> i & 1);
    }
    return value / (policy_times_ns(&policy->verify, 1 + n) + policy->now.draft_ns);
}

static uint32_t set_of(const struct draft_proposal *proposal)
{
    uint32_t set = 0;
    for (int32_t i = 0; i < proposal->n; i++) {
        set |= UINT32_C(1) << (proposal->token[i] - 100);
    }
    return set;
}

static void check_moved(const struct draft_proposal *whole, const struct draft_proposal *kept)
{
    const int32_t n_chain = draft_proposal_chain_len(kept);
    assert_int_equal(draft_proposal_n_valid(kept, 1000), kept->n);
    for (int32_t i = 0; i < kept->n; i++) {
        const int32_t was = kept->token[i] - 100;
        const int32_t parent = kept->parent[i] < 0 ? -1 : kept->token[kept->parent[i]] - 100;
        assert_int_equal(parent, whole->parent[was]);
        assert_int_equal(kept->source[i], whole->source[was]);
        assert_true(kept->hint[i] == whole->hint[was] && kept->prob[i] == whole->prob[was]);
        assert_true(i < n_chain || kept->parent[i] != n_chain - 1); /* the chain goes on as far as it can */
    }
}

/* Against every subset: the kept one is as good as the best, within a bucket of the order. */
static void trim_keeps_the_best_subtree(void **state)
{
    (void)state;
    int32_t n_cut = 0, n_roots_lost = 0;
    for (int32_t round = 0; round < 400; round++) {
        struct policy *policy = small_policy(1, POLICY_AUTO, 1);
        const double slope = uniform(tree_seed++, 2, 2) * 0.6;
        for (int32_t n = 1; n <= 12; n++) {
            for (int32_t i = 0; i < 3; i++) {
                policy_observe_pass(policy, n, (int64_t)(1e6 * (1.0 + slope * (n - 1))));
            }
        }
        struct draft_ask ask = { .place = 0, .seq_id = 1, .n_tokens = 9, .k_max = 10, .n_nodes_max = 10 }, whole;
        policy_plan(policy, &ask, 1, 0);
        policy->now.round = POLICY_ROUND_PAYS;
        policy->now.draft_ns = 2e5;
        ask.k_max = 10;
        random_tree(&ask.proposal, 1 + below(10));
        whole = ask;
        policy_trim(policy, &ask, 1, 0);
        check_moved(&whole.proposal, &ask.proposal);
        double best = 0.0;
        for (uint32_t set = 0; set < UINT32_C(1) << whole.proposal.n; set++) {
            best = fmax(best, rate_of(policy, &whole, set));
        }
        const double kept = rate_of(policy, &whole, set_of(&ask.proposal));
        assert_true(kept > best * (1.0 - 1.5 / POLICY_BUCKETS));
        n_cut += ask.proposal.n < whole.proposal.n;
        n_roots_lost += ask.proposal.n > 0 && ask.proposal.token[0] != 100;
        policy_destroy(policy);
    }
    assert_true(n_cut > 100 && n_cut < 400 && n_roots_lost > 5);
}

static void asks_of(struct draft_ask *asks, int32_t n, int32_t k_max)
{
    for (int32_t i = 0; i < n; i++) {
        asks[i] = (struct draft_ask){ .place = i, .seq_id = (uint64_t)i + 1, .n_prompt = 4, .n_tokens = 9,
                                      .k_max = k_max + i % 2, .n_nodes_max = DRAFT_MAX_NODES };
    }
}

static void fixed_k_is_fixed(void **state)
{
    (void)state;
    struct draft_ask asks[4], before[4];
    for (int32_t fixed_k = 0; fixed_k <= 6; fixed_k++) {
        struct policy *policy = small_policy(4, fixed_k, 1);
        for (int32_t round = 0; round < 50; round++) {
            asks_of(asks, 4, 3);
            policy_plan(policy, asks, 4, 0);
            for (int32_t i = 0; i < 4; i++) {
                const int32_t possible = 3 + i % 2;
                assert_int_equal(asks[i].k_max, fixed_k < possible ? fixed_k : possible);
                assert_int_equal(asks[i].n_nodes_max, asks[i].k_max);
                assert_true(asks[i].stop_below == 0.0f);
                random_tree(&asks[i].proposal, asks[i].k_max);
            }
            memcpy(before, asks, sizeof asks);
            policy_trim(policy, asks, 4, 0);
            assert_memory_equal(before, asks, sizeof asks);
            policy_observe_step(policy, &(struct policy_step){ .n_seqs = 4, .n_rows = 4 + 4 * fixed_k,
                .longest_k = fixed_k, .draft_ns = 900000, .verify_ns = 1000000, .n_committed = 4 });
        }
        policy_destroy(policy);
    }
}

/* With the rejection rule what is verified must not depend on what was drafted. */
static void rejection_does_not_look(void **state)
{
    (void)state;
    struct draft_ask asks[4], before[4];
    int32_t n_asked = 0;
    struct policy *policy = small_policy(4, POLICY_AUTO, 0);
    policy_observe_pass(policy, 4, 1000000);
    policy_observe_pass(policy, 32, 1100000);
    for (int32_t round = 0; round < 200; round++) {
        asks_of(asks, 4, 6);
        policy_plan(policy, asks, 4, 0);
        for (int32_t i = 0; i < 4; i++) {
            assert_true(asks[i].stop_below == 0.0f && asks[i].n_nodes_max == asks[i].k_max);
            random_tree(&asks[i].proposal, asks[i].k_max);
            n_asked += asks[i].k_max;
        }
        memcpy(before, asks, sizeof asks);
        policy_trim(policy, asks, 4, 0);
        assert_memory_equal(before, asks, sizeof asks);
        int32_t n_rows = 4;
        static const int8_t path[] = { 0 };
        for (int32_t i = 0; i < 4; i++) {
            n_rows += asks[i].proposal.n;
            if (asks[i].proposal.n > 0) {
                policy_observe_verdict(policy, &(struct draft_verdict){ .ask = &asks[i], .n_accepted = 1, .path = path });
            }
        }
        policy_observe_step(policy, &(struct policy_step){ .n_seqs = 4, .n_rows = n_rows, .longest_k = n_rows > 4,
            .draft_ns = n_rows > 4 ? 10000 : 0, .verify_ns = 1000000, .n_committed = n_rows > 4 ? 8 : 4 });
    }
    assert_true(n_asked > 400);
    policy_destroy(policy);
}

/* ---- odds ---- */
static float first_survival(const struct policy_odds *odds, const struct policy_place *place)
{
    float survival[DRAFT_MAX_NODES + 1];
    policy_odds_by_depth(odds, place, 1, 0.0f, survival);
    return survival[1];
}

/* Long averages are quiet; a few fates that contradict them are enough, in both directions. */
static void odds_forget_what_is_contradicted(void **state)
{
    struct policy_odds odds;
    (void)state;
    assert_int_equal(policy_odds_init(&odds, &tree_draft, 1), STATUS_OK);
    struct policy_place *place = policy_odds_place(&odds, &(struct draft_ask){ .seq_id = 3 });
    for (int32_t i = 0; i < 300; i++) {
        policy_odds_observe_depth(&odds, place, 1, 1);
    }
    policy_odds_observe_depth(&odds, place, 1, 0);
    assert_true(first_survival(&odds, place) > 0.9f); /* one miss is no contradiction */
    for (int32_t i = 0; i < 15; i++) {
        policy_odds_observe_depth(&odds, place, 1, 0);
    }
    assert_true(first_survival(&odds, place) < 0.3f);
    for (int32_t i = 0; i < 300; i++) {
        policy_odds_observe_depth(&odds, place, 1, 0);
    }
    for (int32_t i = 0; i < 20; i++) {
        policy_odds_observe_depth(&odds, place, 1, 1);
    }
    assert_true(first_survival(&odds, place) > 0.7f);
    policy_odds_deinit(&odds);
}

/* ---- times ---- */
static void times_are_lines_between_measurements(void **state)
{
    (void)state;
    struct policy_times times;
    assert_int_equal(policy_times_init(&times, 40, POLICY_TIMES_LEVEL), STATUS_OK);
    assert_true(policy_times_ns(&times, 7) == 0.0);
    policy_times_observe(&times, 4, 1000);
    assert_true(policy_times_ns(&times, 1) == 1000.0 && policy_times_ns(&times, 40) == 1000.0);
    for (int32_t i = 0; i < 3; i++) {
        policy_times_observe(&times, 8, 1400);
        policy_times_observe(&times, 16, 2200);
    }
    assert_true(fabs(policy_times_ns(&times, 6) - 1200.0) < 1.0);
    assert_true(fabs(policy_times_ns(&times, 12) - 1800.0) < 1.0);
    assert_true(fabs(policy_times_ns(&times, 32) - 3800.0) < 1.0); /* the slope since 8 */
    for (int32_t n = 1; n < 40; n++) {
        assert_true(policy_times_ns(&times, n) <= policy_times_ns(&times, n + 1) + 0.01);
    }
    assert_true(policy_times_ns(&times, 1000) == policy_times_ns(&times, 40));
    policy_times_observe(&times, 0, 5);
    policy_times_observe(&times, 41, 5);
    policy_times_deinit(&times);
}

static void times_survive_lost_cores_and_follow(void **state)
{
    (void)state;
    struct policy_times times;
    assert_int_equal(policy_times_init(&times, 8, POLICY_TIMES_FROM_ZERO), STATUS_OK);
    policy_times_observe(&times, 4, 10000); /* the very first one lost its core */
    for (int32_t i = 0; i < 3; i++) {
        policy_times_observe(&times, 4, 1000);
    }
    assert_true(fabs(policy_times_ns(&times, 4) - 1000.0) < 1.0);
    assert_true(fabs(policy_times_ns(&times, 2) - 500.0) < 1.0);
    for (int32_t i = 0; i < 200; i++) {
        policy_times_observe(&times, 4, i % 10 == 0 ? 10000 : 1000);
    }
    assert_true(policy_times_ns(&times, 4) < 1001.0);
    for (int32_t i = 0; i < 60; i++) {
        policy_times_observe(&times, 4, 3000);
    }
    assert_true(policy_times_ns(&times, 4) > 2900.0);
    policy_times_deinit(&times);
}

/* ---- resources ---- */
static void each_allocation_may_fail(void **state)
{
    (void)state;
    const struct policy_options options = { .max_batch = 3, .k_max = 4, .fixed_k = POLICY_AUTO, .max_rows = 20 };
    const uint64_t before = mem_alloc_count();
    struct policy *policy;
    assert_int_equal(policy_create(&options, &tree_draft, &policy), STATUS_OK);
    const uint64_t n = mem_alloc_count() - before;
    policy_destroy(policy);
    for (uint64_t i = 1; i <= n; i++) {
        mem_fail_at(i);
        assert_int_equal(policy_create(&options, &tree_draft, &policy), STATUS_NO_MEMORY);
        assert_null(policy);
        mem_fail_at(0);
    }
    policy_destroy(NULL);
}

/* 64 sequences of 16 nodes: no allocation, and microseconds. */
static void a_step_costs_little(void **state)
{
    (void)state;
    enum { N_STEPS = 200 };
    static struct draft_ask asks[BATCH_MAX];
    struct policy *policy = small_policy(BATCH_MAX, POLICY_AUTO, 1);
    for (int32_t n = 1; n <= 1024; n *= 2) {
        policy_observe_pass(policy, n, 1000000 + 500 * n);
    }
    const uint64_t before = mem_alloc_count();
    int64_t cpu_ns = 0;
    for (int32_t step = 0; step < N_STEPS; step++) {
        int32_t n_rows = BATCH_MAX, longest = 0;
        asks_of(asks, BATCH_MAX, DRAFT_MAX_NODES - 1);
        int64_t begin_ns = clock_thread_cpu_ns();
        policy_plan(policy, asks, BATCH_MAX, 0);
        cpu_ns += clock_thread_cpu_ns() - begin_ns;
        for (int32_t i = 0; i < BATCH_MAX; i++) {
            random_tree(&asks[i].proposal, asks[i].k_max);
            longest = asks[i].k_max > longest ? asks[i].k_max : longest;
        }
        begin_ns = clock_thread_cpu_ns();
        policy_trim(policy, asks, BATCH_MAX, 0);
        static const int8_t path[DRAFT_MAX_NODES] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
        for (int32_t i = 0; i < BATCH_MAX; i++) {
            n_rows += asks[i].proposal.n;
            if (asks[i].proposal.n > 0) {
                policy_observe_verdict(policy, &(struct draft_verdict){ .ask = &asks[i], .path = path,
                    .n_accepted = draft_proposal_chain_len(&asks[i].proposal) });
            }
        }
        policy_observe_step(policy, &(struct policy_step){ .n_seqs = BATCH_MAX, .n_rows = n_rows,
            .longest_k = longest, .draft_ns = 1000 * longest, .verify_ns = 1000000 + 500 * n_rows, .n_committed = n_rows });
        cpu_ns += clock_thread_cpu_ns() - begin_ns;
    }
    assert_int_equal(mem_alloc_count(), before);
    print_message("%.1f us a step of %d sequences\n", (double)cpu_ns * 1e-3 / N_STEPS, BATCH_MAX);
#ifndef TANDEM_INSTRUMENTED
    assert_true(cpu_ns / N_STEPS < 400000);
#endif
    policy_destroy(policy);
}

/* Nothing to gain even if all were right: nothing is drafted. Nothing possible: nothing is asked. */
static void hopeless_is_left_alone(void **state)
{
    (void)state;
    struct draft_ask asks[4];
    struct policy *policy = small_policy(4, POLICY_AUTO, 1);
    for (int32_t n = 1; n <= 64; n++) {
        policy_observe_pass(policy, n, 1000000 * n);
    }
    for (int32_t round = 0; round < 1000; round++) {
        asks_of(asks, 4, round % 2 == 0 ? 6 : -1);
        for (int32_t i = 0; i < 4; i++) {
            asks[i].k_max = round % 2 == 0 ? asks[i].k_max : 0;
            asks[i].proposal.n = 0;
        }
        policy_plan(policy, asks, 4, 0);
        policy_trim(policy, asks, 4, 0);
        for (int32_t i = 0; i < 4; i++) {
            assert_int_equal(asks[i].k_max, 0);
        }
        policy_observe_step(policy, &(struct policy_step){ .n_seqs = 4, .n_rows = 4, .verify_ns = 4000000, .n_committed = 4 });
    }
    const struct policy_report report = policy_report(policy);
    assert_int_equal(report.rounds, 1000);
    assert_int_equal(report.plain_rounds, 1000);
    assert_int_equal(report.probes, 0);
    assert_true(fabs(report.speedup_vs_plain - 1.0) < 1e-3);
    assert_true(fabs(policy_verify_seconds(policy, 8) - 0.008) < 1e-4);
    policy_destroy(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_lines_between_measurements),
        cmocka_unit_test(times_survive_lost_cores_and_follow),
        cmocka_unit_test(odds_forget_what_is_contradicted),
        cmocka_unit_test(trim_keeps_the_best_subtree),
        cmocka_unit_test(fixed_k_is_fixed),
        cmocka_unit_test(rejection_does_not_look),
        cmocka_unit_test(hopeless_is_left_alone),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(a_step_costs_little),
        cmocka_unit_test(never_slower_than_plain),
        cmocka_unit_test(near_the_best_fixed_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
