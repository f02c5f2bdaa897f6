/* draft_choices: what a model draft makes of its logits rows: cut vocabularies, stated distributions, side
 * branches, chains that end early. Asks are made by hand here, with no scheduler between. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "draft/choose.h"
#include "tests/draft_rig.h"
#include "tests/model_rig.h"

enum { VOCAB = 512, MAX_TOKENS = 96, N_ASKS = 6, K = 6 };

static struct draft_rig rig;
static int32_t tokens[N_ASKS][MAX_TOKENS];
static struct sampling_params params[N_ASKS];
static struct draft_ask asks[N_ASKS];

static struct draft *open_draft(const struct draft_model_options *change)
{
    struct draft *draft;
    struct draft_model_options options = *change;
    options.common = (struct draft_options){ .n_vocab = VOCAB, .context = 128, .max_batch = N_ASKS, .k_max = K,
                                             .wants_prob = change->common.wants_prob };
    options.model = rig.target_model;
    options.lane = rig.lane;
    options.kv = KV_F16;
    options.context = 128;
    options.page_slots = 16;
    options.n_pages = 8 * N_ASKS;
    options.prefill_chunk = 512;
    if (draft_model_create(&options, &draft) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
    return draft;
}

/* Sequences of different lengths, each with parameters of its own. */
static void fill_asks(uint64_t seed)
{
    static const struct { float temperature, top_p, penalty; int32_t top_k; } ways[N_ASKS] = {
        { 0, 1, 1, 0 }, { 0.8f, 1, 1, 0 }, { 1, 0.9f, 1, 0 }, { 0, 1, 1.3f, 0 }, { 1.5f, 1, 1, 12 }, { 1, 1, 1, 0 },
    };
    for (int32_t i = 0; i < N_ASKS; i++) {
        const int32_t n = 5 + 9 * i;
        for (int32_t j = 0; j < n; j++) {
            tokens[i][j] = (int32_t)(rng_mix64(seed * 7919 + (uint64_t)(i * 100 + j)) % VOCAB);
        }
        sampling_params_defaults(&params[i]);
        params[i].temperature = ways[i].temperature;
        params[i].top_p = ways[i].top_p;
        params[i].top_k = ways[i].top_k;
        params[i].repetition_penalty = ways[i].penalty;
        params[i].seed = seed + (uint64_t)i;
        asks[i] = (struct draft_ask){ .place = i, .seq_id = seed * N_ASKS + (uint64_t)i, .tokens = tokens[i],
                                      .n_tokens = n, .n_prompt = n, .params = &params[i], .k_max = K,
                                      .n_nodes_max = K };
    }
}

static void propose(struct draft *draft) { draft->kind->propose(draft, asks, N_ASKS); }

static int open_tiny(void **state)
{
    struct draft_rig_options options = draft_rig_defaults();
    (void)state;
    options.k = 0;
    draft_rig_open(&rig, &options);
    return 0;
}

static int close_tiny(void **state)
{
    (void)state;
    draft_rig_close(&rig);
    return 0;
}

/* ---- cut vocabularies ---- */
static int32_t keep(int32_t *ids, int32_t step, int32_t offset)
{
    int32_t n = 0;
    for (int32_t id = 0; id < VOCAB; id++) {
        if (id % step != offset) {
            ids[n++] = id;
        }
    }
    return n;
}

static bool is_kept(int32_t id, int32_t step, int32_t offset) { return id % step != offset; }

/* The full draft's chain up to its first id that was cut. Returns how many ids were the same. */
static int32_t compare_chains(const struct draft_proposal *full, const struct draft_proposal *cut, int32_t step,
                              int32_t offset)
{
    for (int32_t i = 0; i < full->n; i++) {
        assert_true(i < cut->n);
        assert_true(is_kept(cut->token[i], step, offset));
        if (!is_kept(full->token[i], step, offset)) {
            return i;
        }
        assert_int_equal(full->token[i], cut->token[i]);
        assert_true(cut->hint[i] >= full->hint[i]);
    }
    return full->n;
}

static void a_cut_head_chooses_as_the_full_one_among_what_it_kept(void **state)
{
    (void)state;
    static const struct { int32_t step, offset; } cuts[] = { { 2, 1 }, { 5, 3 }, { 16, 0 }, { 100000, 600 } };
    for (int c = 0; c < 4; c++) {
        int32_t ids[VOCAB], n_same = 0;
        const int32_t n = keep(ids, cuts[c].step, cuts[c].offset);
        struct draft *full = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
        struct draft *cut = open_draft(&(struct draft_model_options){ .kept_ids = ids, .n_kept = n });
        memset(ids, 0xff, sizeof ids); /* they were copied */
        for (uint64_t seed = 1; seed <= (uint64_t)draft_rig_scale(20, 4); seed++) {
            struct draft_proposal proposals[N_ASKS];
            fill_asks(seed);
            propose(full);
            for (int32_t i = 0; i < N_ASKS; i++) {
                proposals[i] = asks[i].proposal;
                assert_int_equal(proposals[i].n, K);
            }
            propose(cut);
            for (int32_t i = 0; i < N_ASKS; i++) {
                if (c < 3 && (params[i].top_p < 1 || params[i].top_k > 0)) {
                    continue; /* filters see kept ids alone, and let others through */
                }
                n_same += compare_chains(&proposals[i], &asks[i].proposal, cuts[c].step, cuts[c].offset);
            }
        }
        assert_true(n_same >= N_ASKS * (c == 3 ? K * 4 : 1));
        full->kind->destroy(full);
        cut->kind->destroy(cut);
    }
}

/* Rows of a cut head are the full head's, in every type that a head may have. */
static void logits_of_a_cut_head_are_the_full_ones(void **state)
{
    (void)state;
    static const char *const names[] = { "synth:tiny,q8_0,seed=7", "synth:tiny,f32,seed=7", "synth:tiny,f16,seed=7",
                                         "synth:tiny,q4_0,seed=7", "synth:tiny-256,q4_k,seed=7",
                                         "synth:tiny-256,q6_k,seed=7", "synth:tiny,bf16,seed=7" };
    for (size_t m = 0; m < sizeof names / sizeof names[0]; m++) {
        struct model_rig model;
        int32_t ids[VOCAB], fed[3] = { 9, 400, 77 }, position[3] = { 0, 1, 2 }, seq[3] = { 0 }, rows[3] = { 0, 1, 2 };
        float full[3 * VOCAB];
        struct weight head;
        const int32_t n = keep(ids, 7, 2);
        assert_int_equal(model_rig_open(&model, &(struct model_rig_options){ .name = names[m], .context = 16,
                                                                             .cap_rows = 4 }), STATUS_OK);
        model_rig_feed(&model, 0, fed, 3, 3, full);
        assert_int_equal(draft_head_init(model.backend, model_head(model.model), ids, n, &head), STATUS_OK);
        const struct pass pass = { .n_rows = 3, .n_seqs = 1, .n_logits = 3, .token = fed, .position = position,
                                   .slot = position, .seq_of_row = seq, .views = model.views, .logits_row = rows,
                                   .head = &head };
        lane_wait(model.lane, model_forward(model.model, model.lane, &model.store, &pass, model.buffers));
        const float *cut = pass_buffers_logits(model.buffers);
        for (int32_t row = 0; row < 3; row++) {
            for (int32_t i = 0; i < n; i++) {
                assert_memory_equal(&cut[row * n + i], &full[row * VOCAB + ids[i]], sizeof *cut);
            }
        }
        draft_head_deinit(model.backend, &head);
        model_rig_close(&model);
    }
}

/* A choice among few is the choice of a row that is -inf elsewhere. */
static void a_choice_among_few_is_that_of_the_whole_row(void **state)
{
    (void)state;
    struct sampling_scratch *scratch;
    struct sampling_params way;
    struct sampling_choice chosen;
    float row[VOCAB], logits[VOCAB];
    int32_t ids[VOCAB], id;
    assert_int_equal(sampling_scratch_create(VOCAB, &scratch), STATUS_OK);
    sampling_params_defaults(&way);
    for (int32_t round = 0; round < 400; round++) {
        int32_t n = 0;
        for (int32_t i = 0; i < VOCAB; i++) {
            const uint64_t bits = rng_mix64((uint64_t)(round * VOCAB + i));
            row[i] = bits % 8 < (uint64_t)(round % 7 + 1) ? (float)(bits >> 40) * 0x1p-21f : -MATHX_INF;
            row[i] = round % 3 == 0 && row[i] > 0 ? floorf(row[i]) : row[i]; /* ties */
            if (row[i] > -MATHX_INF) {
                ids[n] = i;
                logits[n++] = row[i];
            }
        }
        way.temperature = (float)(round % 4) * 0.5f;
        way.seed = (uint64_t)round;
        assert_true(sampling_is_plain(&way));
        assert_int_equal(sampling_choose(rig.backend, &way, row, VOCAB, NULL, 0, round, scratch, &chosen), STATUS_OK);
        assert_int_equal(sampling_choose_kept(rig.backend, &way, logits, ids, n, round, &id), STATUS_OK);
        assert_int_equal(id, chosen.id);
    }
    logits[3] = MATHX_NAN;
    assert_int_equal(sampling_choose_kept(rig.backend, &way, logits, ids, 9, 5, &id), STATUS_NUMERIC);
    way.top_k = 5;
    assert_false(sampling_is_plain(&way));
    sampling_scratch_destroy(scratch);
}

static void kept_ids_are_checked(void **state)
{
    (void)state;
    static const int32_t lists[][3] = { { 3, 3, 5 }, { 5, 4, 6 }, { -1, 2, 3 }, { 1, 2, 512 } };
    struct draft *draft;
    struct draft_model_options options = { .common = { .n_vocab = VOCAB, .context = 64, .max_batch = 1, .k_max = 2 },
                                           .model = rig.target_model, .lane = rig.lane, .context = 64,
                                           .page_slots = 16, .n_pages = 4, .prefill_chunk = 8, .n_kept = 3 };
    for (int i = 0; i < 4; i++) {
        options.kept_ids = lists[i];
        assert_int_equal(draft_model_create(&options, &draft), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "ascending ids below 512"));
    }
    options.n_kept = 0;
    assert_int_equal(draft_model_create(&options, &draft), STATUS_INVALID);
}

/* ---- the rejection rule ---- */
static void check_stated(const struct draft_ask *ask, const struct sampling_params *way, int32_t node)
{
    const float *prob = ask->proposal.prob[node];
    double sum = 0;
    assert_non_null(prob);
    for (int32_t id = 0; id < VOCAB; id++) {
        assert_true(prob[id] >= 0 && prob[id] <= 1);
        sum += (double)prob[id];
    }
    assert_true(fabs(sum - 1) < 1e-5);
    assert_true(prob[ask->proposal.token[node]] > 0);
    assert_true(ask->proposal.hint[node] == prob[ask->proposal.token[node]]);
    const float coin = rng_coin_uniform(way->seed, COIN_DRAFT, (uint32_t)(ask->n_tokens + node), 0);
    assert_int_equal(sampling_draw_from(prob, VOCAB, coin), ask->proposal.token[node]);
}

/* What it says it drew from is what a fresh pass over the same tokens gives after the same filters. */
static void draws_come_from_the_distribution_that_is_stated(void **state)
{
    (void)state;
    struct draft *draft = open_draft(&(struct draft_model_options){ .common = { .wants_prob = true } });
    struct model_rig model;
    struct sampling_scratch *scratch;
    float logits[MAX_TOKENS * VOCAB / 2], prob[VOCAB];
    assert_int_equal(sampling_scratch_create(VOCAB, &scratch), STATUS_OK);
    assert_int_equal(model_rig_open(&model, &(struct model_rig_options){
        .name = "synth:tiny,q8_0,seed=7", .context = MAX_TOKENS, .cap_rows = MAX_TOKENS, .kv = KV_F16,
        .n_seqs = N_ASKS }), STATUS_OK);
    fill_asks(3);
    for (int32_t i = 0; i < N_ASKS; i++) {
        asks[i].wants_prob = true;
        asks[i].n_nodes_max = K + 4; /* no side branches with this rule */
        asks[i].stop_below = 0.99f;  /* nor early stops */
    }
    propose(draft);
    for (int32_t i = 0; i < N_ASKS; i++) {
        struct draft_ask *ask = &asks[i];
        assert_int_equal(ask->proposal.n, K);
        memcpy(tokens[i] + ask->n_tokens, ask->proposal.token, K * sizeof *tokens[i]);
        assert_true((ask->n_tokens + K) * VOCAB <= (int32_t)(sizeof logits / sizeof logits[0]) || i > 3);
        for (int32_t node = 0; node < K; node++) {
            check_stated(ask, &params[i], node);
        }
        if (i > 3) {
            continue;
        }
        model_rig_feed(&model, i, tokens[i], ask->n_tokens + K, MAX_TOKENS, logits);
        for (int32_t node = 0; node < K; node++) {
            const int32_t n = ask->n_tokens + node;
            assert_int_equal(sampling_distribution(model.backend, &params[i], logits + (n - 1) * VOCAB, VOCAB,
                                                   tokens[i], n, scratch, prob), STATUS_OK);
            assert_memory_equal(prob, ask->proposal.prob[node], sizeof prob);
        }
    }
    sampling_scratch_destroy(scratch);
    model_rig_close(&model);
    draft->kind->destroy(draft);
}

/* Saguaro sampling: the row that is stated is the filtered one with less weight on its top, and the token is
 * a draw from that very row. */
static void reshaped_rows_are_drawn_from_and_stated(void **state)
{
    (void)state;
    static const float factors[] = { 0, 0.1f, 0.5f, 1 };
    struct sampling_scratch *scratch;
    static float logits[VOCAB], plain[VOCAB], prob[VOCAB];
    int32_t n_moved = 0;
    assert_int_equal(sampling_scratch_create(VOCAB, &scratch), STATUS_OK);
    fill_asks(5);
    for (int32_t round = 0; round < 4 * N_ASKS; round++) {
        const struct sampling_params *way = &params[round % N_ASKS];
        struct draft_chooser *chooser;
        struct draft_choice choice = { .params = way, .history = tokens[0], .position = 5, .logits = logits, .prob = prob };
        for (int32_t id = 0; id < VOCAB; id++) {
            logits[id] = (float)(rng_mix64((uint64_t)(round * VOCAB + id)) >> 40) * 0x1p-21f;
        }
        assert_int_equal(draft_chooser_create(&(struct draft_chooser_options){
            .lane = rig.lane, .n_vocab = VOCAB, .n_vocab_common = VOCAB, .n_reshaped = 3,
            .reshape = factors[round / N_ASKS] }, &chooser), STATUS_OK);
        draft_chooser_run(chooser, (struct draft_choice *const[]){ &choice }, 1);
        assert_int_equal(sampling_distribution(rig.backend, way, logits, VOCAB, tokens[0], 5, scratch, plain), STATUS_OK);
        const int32_t before = sampling_draw_from(plain, VOCAB, rng_coin_uniform(way->seed, COIN_DRAFT, 5, 0));
        sampling_reshape_top(plain, VOCAB, 3, factors[round / N_ASKS]);
        assert_memory_equal(prob, plain, sizeof prob);
        assert_int_equal(choice.token, sampling_draw_from(plain, VOCAB, rng_coin_uniform(way->seed, COIN_DRAFT, 5, 0)));
        assert_true(choice.hint == prob[choice.token]);
        n_moved += choice.token != before;
        draft_chooser_destroy(chooser);
    }
    assert_true(n_moved > 0);
    sampling_scratch_destroy(scratch);
}

/* ---- side branches and early stops ---- */
static void check_tree(const struct draft_proposal *tree, const struct draft_proposal *chain, int32_t n_max)
{
    float mass[DRAFT_MAX_NODES + 1] = { 0 };
    assert_int_equal(tree->n, n_max);
    assert_int_equal(draft_proposal_n_valid(tree, VOCAB), tree->n);
    assert_int_equal(draft_proposal_chain_len(tree), chain->n);
    assert_memory_equal(tree->token, chain->token, (size_t)chain->n * sizeof *chain->token);
    for (int32_t i = 0; i < tree->n; i++) {
        assert_true(tree->hint[i] > 0 && tree->hint[i] <= 1);
        mass[1 + tree->parent[i]] += tree->hint[i];
        assert_true(mass[1 + tree->parent[i]] <= 1.0001f);
        for (int32_t j = 0; j < i; j++) { /* siblings differ */
            assert_true(tree->parent[j] != tree->parent[i] || tree->token[j] != tree->token[i]);
        }
        assert_true(i < chain->n || tree->parent[i] < chain->n - 1);
    }
}

static void side_branches_are_the_next_best_children(void **state)
{
    (void)state;
    struct draft *draft = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
    struct model_rig model;
    float logits[MAX_TOKENS * VOCAB / 2];
    bool bad;
    assert_int_equal(model_rig_open(&model, &(struct model_rig_options){
        .name = "synth:tiny,q8_0,seed=7", .context = MAX_TOKENS, .cap_rows = MAX_TOKENS, .kv = KV_F16 }), STATUS_OK);
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct draft_proposal chains[N_ASKS];
        fill_asks(seed);
        propose(draft);
        for (int32_t i = 0; i < N_ASKS; i++) {
            chains[i] = asks[i].proposal;
            asks[i].n_nodes_max = K + 1 + i;
        }
        propose(draft);
        for (int32_t i = 0; i < N_ASKS; i++) {
            check_tree(&asks[i].proposal, &chains[i], K + 1 + i);
        }
        /* greedy: the second of the row that chose the branch's brother */
        model_rig_feed(&model, 0, tokens[0], asks[0].n_tokens + K, MAX_TOKENS, logits);
        const struct draft_proposal *tree = &asks[0].proposal;
        float *row = logits + (size_t)(asks[0].n_tokens + tree->parent[K]) * VOCAB;
        assert_int_equal(backend_argmax(model.backend, row, VOCAB, &bad), tree->token[tree->parent[K] + 1]);
        row[tree->token[tree->parent[K] + 1]] = -MATHX_INF;
        assert_int_equal(backend_argmax(model.backend, row, VOCAB, &bad), tree->token[K]);
    }
    model_rig_close(&model);
    draft->kind->destroy(draft);
}

static void biases_beyond_the_common_vocabulary_are_left_out(void **state)
{
    (void)state;
    static const struct sampling_bias biases[] = { { 17, 100 }, { 400, 200 } };
    struct draft *draft = open_draft(&(struct draft_model_options){ .n_vocab_common = 300 });
    fill_asks(2);
    for (int32_t i = 0; i < N_ASKS; i++) {
        params[i].biases = biases;
        params[i].n_biases = 2;
        asks[i].n_nodes_max = K + 2;
    }
    propose(draft);
    for (int32_t i = 0; i < N_ASKS; i++) {
        assert_true(asks[i].proposal.n >= K);
        for (int32_t node = 0; node < K; node++) {
            assert_int_equal(asks[i].proposal.token[node], 17);
        }
    }
    draft->kind->destroy(draft);
}

static void chains_end_where_they_survive_too_rarely(void **state)
{
    (void)state;
    struct draft *draft = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
    struct draft_proposal whole[N_ASKS];
    int32_t n_short = 0, n_long = 0;
    fill_asks(5);
    propose(draft);
    for (int32_t i = 0; i < N_ASKS; i++) {
        whole[i] = asks[i].proposal;
        asks[i].stop_below = 1e-4f;
    }
    propose(draft);
    for (int32_t i = 0; i < N_ASKS; i++) {
        const struct draft_proposal *cut = &asks[i].proposal;
        float survival = 1;
        int32_t n = 0;
        while (n < K && (survival *= calibration_survival(&draft->calibration[0], whole[i].hint[n])) >= 1e-4f) {
            n++;
        }
        assert_int_equal(cut->n, n);
        assert_memory_equal(cut->token, whole[i].token, (size_t)n * sizeof *cut->token);
        n_short += n < K;
        n_long += n > 0;
    }
    assert_true(n_short > 0 && n_long > 0);
    draft->kind->destroy(draft);
}

/* An ask that wants nothing costs nothing: its place is not even entered. */
static void asks_of_nothing_do_no_work(void **state)
{
    (void)state;
    struct draft *draft = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
    struct model_draft *model = (struct model_draft *)draft;
    fill_asks(6);
    for (int32_t i = 0; i < N_ASKS; i++) {
        asks[i].k_max = asks[i].n_nodes_max = i == 2 ? K : 0;
        asks[i].proposal.n = 3;
    }
    propose(draft);
    for (int32_t i = 0; i < N_ASKS; i++) {
        assert_int_equal(asks[i].proposal.n, i == 2 ? K : 0);
        assert_int_equal(model->places[i].is_taken, i == 2);
    }
    draft->kind->destroy(draft);
}

/* The same places with other sequences, or with the same ones in another epoch, and nobody said farewell. */
static void a_place_whose_sequence_has_changed_starts_anew(void **state)
{
    (void)state;
    struct draft *used = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        struct draft *fresh = open_draft(&(struct draft_model_options){ .kept_ids = NULL });
        struct draft_proposal expected[N_ASKS];
        fill_asks(10 + epoch);
        propose(fresh);
        for (int32_t i = 0; i < N_ASKS; i++) {
            expected[i] = asks[i].proposal;
            asks[i].seq_id = 7;
            asks[i].epoch = epoch;
        }
        propose(used);
        for (int32_t i = 0; i < N_ASKS; i++) {
            assert_int_equal(asks[i].proposal.n, K);
            assert_memory_equal(asks[i].proposal.token, expected[i].token, K * sizeof(int32_t));
        }
        fresh->kind->destroy(fresh);
    }
    used->kind->destroy(used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_head_chooses_as_the_full_one_among_what_it_kept),
        cmocka_unit_test(logits_of_a_cut_head_are_the_full_ones),
        cmocka_unit_test(a_choice_among_few_is_that_of_the_whole_row),
        cmocka_unit_test(kept_ids_are_checked),
        cmocka_unit_test(draws_come_from_the_distribution_that_is_stated),
        cmocka_unit_test(reshaped_rows_are_drawn_from_and_stated),
        cmocka_unit_test(side_branches_are_the_next_best_children),
        cmocka_unit_test(biases_beyond_the_common_vocabulary_are_left_out),
        cmocka_unit_test(chains_end_where_they_survive_too_rarely),
        cmocka_unit_test(asks_of_nothing_do_no_work),
        cmocka_unit_test(a_place_whose_sequence_has_changed_starts_anew),
    };
    return cmocka_run_group_tests_name("draft_choices", tests, open_tiny, close_tiny);
}
