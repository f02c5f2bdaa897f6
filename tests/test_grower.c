/* grower: glue, fork and grow without a scheduler. Rows are compared with the closed form of the mask, KV
 * and logits with fresh passes, what is prepared with what an ordinary draft would say after that outcome. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/draft_rig.h"
#include "tests/grower_rig.h"

static struct grower_rig rig;
static struct grower_seq seqs[GROWER_RIG_MAX_BATCH];

static int32_t random_below(uint64_t *state, int32_t n)
{
    *state = rng_mix64(*state + 0x9e3779b97f4a7c15u);
    return (int32_t)(*state % (uint64_t)n);
}

static void propose_random(struct grower_seq *seq, uint64_t *state, int32_t n)
{
    int32_t tokens[DRAFT_MAX_NODES];
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = random_below(state, GROWER_RIG_VOCAB);
    }
    grower_seq_propose(seq, tokens, n);
}

static int32_t n_ready(int32_t idx) { return atomic_load(&rig.tables[idx].n_ready); }

/* ---- the worked example: K = 2, F = [2, 1, 2], N = 10 ---- */
static void assert_row(const struct spied_row *row, int32_t place, int32_t position, const int32_t *seen)
{
    const int32_t slot = kv_table_slot(grower_rig_place(&rig, &seqs[0])->table, 0); /* one page holds all */
    assert_int_equal(row->slot - slot, place);
    assert_int_equal(row->position, position);
    for (int32_t p = 0; p <= position; p++) {
        assert_int_equal(row->seen[p] - slot, seen[p]);
    }
}

static void the_worked_example_slot_by_slot(void **state)
{
    (void)state;
    static const int32_t position[2][5] = { { 10, 10, 11, 12, 12 }, { 11, 11, 12, 13, 13 } };
    static const int32_t chain[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
    static const int32_t step_0[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14 };
    static const int32_t step_1[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 19 };
    static const int32_t fork[] = { 0, 0, 1, 2, 2 };
    struct grower_rig_options options = grower_rig_defaults();
    options.page_slots = 64;
    options.budget = 5;
    options.fanout = (struct fanout_options){ .kind = FANOUT_LIST, .list = { 2, 1, 2 }, .n_list = 3 };
    grower_rig_open(&rig, &options);
    grower_seq_start(&seqs[0], 0, 1, 9);
    grower_rig_run(&rig, seqs, 1); /* slots 0..8 */
    grower_seq_commit(&seqs[0], 0, 77);
    assert_int_equal(seqs[0].n_tokens, 10);
    grower_seq_propose(&seqs[0], (const int32_t[]){ 5, 6 }, 2);
    seqs[0].k_next = 2;
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(rig.n_passes, 3);
    assert_int_equal(rig.n_rows, 3 + 5 + 5);
    assert_int_equal(rig.tables[0].n_branches, 5);
    for (int32_t i = 0; i < 3; i++) {
        assert_row(&rig.rows[i], 9 + i, 9 + i, chain);
    }
    for (int32_t j = 0; j < 5; j++) {
        assert_int_equal(rig.tables[0].branch[j].n_accepted, fork[j]);
        for (int32_t step = 0; step < 2; step++) {
            const struct spied_row *row = &rig.rows[3 + 5 * step + j];
            assert_int_equal(row->position, position[step][j]);
            assert_int_equal(row->slot - rig.rows[0].slot, 12 + 5 * step + j - 9);
        }
    }
    assert_row(&rig.rows[3 + 2], 14, 11, step_0);
    assert_row(&rig.rows[3 + 5 + 2], 19, 12, step_1);
    grower_rig_check_mask(&rig, seqs, 1);
    grower_seq_commit(&seqs[0], 1, rig.tables[0].branch[2].token); /* a hit */
    assert_int_equal(seqs[0].n_tokens, 12);
    grower_seq_propose(&seqs[0], rig.tables[0].branch[2].next, 2);
    grower_rig_run(&rig, seqs, 1);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(rig.rows[i].position, 11 + i);
        assert_int_equal(rig.rows[i].pass, 1);
    }
    assert_int_equal(rig.rows[3].pass, 2);
    grower_rig_check_kv(&rig, &seqs[0]);
    grower_rig_close(&rig);
}

/* ---- many rounds ---- */
/* What became of a round: one of its branches, or something else. */
static void come_true(struct grower_seq *seq, const struct ahead_table *table, uint64_t *random)
{
    if (table->n_branches > 0 && random_below(random, 3) > 0) {
        const struct ahead_branch *branch = &table->branch[random_below(random, table->n_branches)];
        struct ahead_branch kept = *branch;
        const int32_t n = ahead_branch_n(table, branch), most = n < seq->k_next ? n : seq->k_next;
        grower_seq_commit(seq, branch->n_accepted, branch->token);
        grower_seq_propose(seq, kept.next, most);
        seq->after_miss = false;
        return;
    }
    grower_seq_commit(seq, random_below(random, seq->n_proposed + 1), random_below(random, GROWER_RIG_VOCAB));
    propose_random(seq, random, random_below(random, 9));
    seq->after_miss = true;
}

static const float TEMPERATURES[] = { 0, 1, 0.7f, 0 };

static void start_random(struct grower_seq *seq, int32_t place, uint64_t *random)
{
    grower_seq_start(seq, place, rng_mix64(*random + 5), 1 + random_below(random, 70));
    seq->params.temperature = TEMPERATURES[random_below(random, 4)];
    propose_random(seq, random, random_below(random, 9));
}

/* Sequences in random order; now and then one stays out of a run, or is followed by another in its place. */
static int32_t pick_seqs(struct grower_seq *picked, int32_t *origin, int32_t n_all, uint64_t *random)
{
    int32_t order[GROWER_RIG_MAX_BATCH], n = 0;
    for (int32_t i = 0; i < n_all; i++) {
        const int32_t at = random_below(random, i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (int32_t i = 0; i < n_all; i++) {
        struct grower_seq *seq = &seqs[order[i]];
        if (seq->n_tokens + 40 > GROWER_RIG_CONTEXT || random_below(random, 12) == 0) {
            grower_rig_forget(&rig, seq);
            start_random(seq, order[i], random);
        } else if (random_below(random, 10) == 0) {
            seq->epoch++; /* preempted */
        } else if (random_below(random, 8) == 0) {
            continue;
        }
        seq->k_next = 1 + random_below(random, rig.options.k_max);
        origin[n] = order[i];
        picked[n++] = *seq;
    }
    return n;
}

static void check_run(const struct grower_seq *picked, int32_t n)
{
    grower_rig_check_mask(&rig, picked, n);
    for (int32_t i = 0; i < n; i++) {
        const int32_t fed = grower_rig_n_fed(&rig, &picked[i]);
        assert_true(fed <= picked[i].n_tokens + picked[i].n_proposed);
        grower_rig_check_kv(&rig, &picked[i]);
        if (n_ready(i) >= 0) {
            assert_int_equal(fed, picked[i].n_tokens + picked[i].n_proposed);
            assert_int_equal(rig.tables[i].n_branches, rig.options.budget);
            grower_rig_check_branches(&rig, &picked[i], &rig.tables[i]);
        }
    }
}

static int32_t many_rounds(const struct grower_rig_options *options, uint64_t seed, int32_t n_runs)
{
    struct grower_seq picked[GROWER_RIG_MAX_BATCH];
    int32_t origin[GROWER_RIG_MAX_BATCH], n_prepared = 0;
    uint64_t random = seed;
    grower_rig_open(&rig, options);
    for (int32_t i = 0; i < options->max_batch; i++) {
        start_random(&seqs[i], i, &random);
        seqs[i].wants_prob = options->wants_prob;
    }
    for (int32_t run = 0; run < n_runs; run++) {
        const int32_t n = pick_seqs(picked, origin, options->max_batch, &random);
        rig.stop_in_pass = random_below(&random, 3) > 0 ? 0 : random_below(&random, 8) - 1;
        for (int32_t i = 0; i < n; i++) {
            picked[i].wants_prob = options->wants_prob;
        }
        grower_rig_run(&rig, picked, n);
        check_run(picked, n);
        for (int32_t i = 0; i < n; i++) {
            n_prepared += n_ready(i) > 0;
            come_true(&picked[i], &rig.tables[i], &random);
            seqs[origin[i]] = picked[i];
        }
    }
    grower_rig_close(&rig);
    return n_prepared;
}

static void any_outcome_stop_order_and_page_size(void **state)
{
    (void)state;
    static const int32_t pages[] = { 16, 32, 48, 64 };
    for (int32_t i = 0; i < draft_rig_scale(4, 2); i++) {
        struct grower_rig_options options = grower_rig_defaults();
        options.page_slots = pages[i];
        options.max_batch = 1 + 2 * i;
        options.budget = 4 + 3 * i;
        options.prefill_chunk = i % 2 == 0 ? 64 : 11;
        options.threads = 1 + i % 2;
        print_message("seed %d\n", 40 + i);
        assert_true(many_rounds(&options, 40 + (uint64_t)i, draft_rig_scale(30, 10)) > draft_rig_scale(8, 1));
    }
}

static void the_rejection_rule_prepares_the_same_rows(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.wants_prob = true;
    options.max_batch = 3;
    options.k_max = 4;
    assert_true(many_rounds(&options, 7, draft_rig_scale(20, 6)) > draft_rig_scale(8, 2));
}

/* ---- which outcomes ---- */
/* Ids by logit / temperature + noise of the token's position, the first of equals first. */
static void sort_row(const struct grower_seq *seq, const float *logits, int32_t position, int32_t *ids)
{
    float key[GROWER_RIG_VOCAB], noise[GROWER_RIG_VOCAB];
    const float temperature = seq->params.temperature;
    rng_gumbel_fill(seq->params.seed, COIN_TARGET, (uint32_t)position, 0, GROWER_RIG_VOCAB, noise);
    for (int32_t id = 0; id < GROWER_RIG_VOCAB; id++) {
        key[id] = temperature > 0 ? logits[id] / temperature + noise[id] : logits[id];
        int32_t at = id;
        while (at > 0 && key[id] > key[ids[at - 1]]) {
            ids[at] = ids[at - 1];
            at--;
        }
        ids[at] = id;
    }
}

static void check_forks(const struct grower_seq *seq, const struct ahead_table *table)
{
    const float *logits = grower_rig_fresh_logits(&rig, seq, seq->n_tokens + seq->n_proposed);
    int32_t ids[GROWER_RIG_VOCAB], j = 0;
    for (int32_t k = 0; k <= seq->n_proposed; k++) {
        sort_row(seq, logits + (size_t)(seq->n_tokens - 1 + k) * GROWER_RIG_VOCAB, seq->n_tokens + k, ids);
        for (int32_t i = 0, rank = 0; j < table->n_branches && table->branch[j].n_accepted == k; i++) {
            if (k < seq->n_proposed && ids[i] == seq->tokens[seq->n_tokens + k]) {
                continue; /* it cannot be what it was corrected to */
            }
            assert_int_equal(table->branch[j].token, ids[i]);
            assert_int_equal(table->branch[j].rank, rank++);
            j++;
        }
    }
    assert_int_equal(j, table->n_branches);
}

static void branches_are_the_likeliest_recovery_tokens(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.budget = 24;
    options.max_batch = 2;
    options.prefill_chunk = 512;
    grower_rig_open(&rig, &options);
    for (int32_t turn = 0; turn < draft_rig_scale(12, 4); turn++) {
        uint64_t random = 500 + (uint64_t)turn;
        for (int32_t i = 0; i < 2; i++) {
            grower_seq_start(&seqs[i], i, random + (uint64_t)i, 1 + random_below(&random, 40));
            seqs[i].params.temperature = TEMPERATURES[(turn + i) % 4];
            seqs[i].k_next = 1;
            const struct draft_proposal likely = grower_rig_ask_oracle(&rig, &seqs[i], 6);
            grower_seq_propose(&seqs[i], likely.token, turn % 7);
        }
        grower_rig_run(&rig, seqs, 2);
        for (int32_t i = 0; i < 2; i++) {
            assert_int_equal(rig.tables[i].n_branches, 24);
            check_forks(&seqs[i], &rig.tables[i]);
        }
    }
    grower_rig_close(&rig);
}

/* Requests of every kind; what they choose looks back along the branch. */
static void set_params(struct sampling_params *params, int32_t kind)
{
    static const struct sampling_bias biases[] = { { 3, 2.0f }, { 100, -MATHX_INF }, { 400, 3.0f } };
    params->temperature = kind % 3 == 0 ? 0 : 0.8f;
    params->repetition_penalty = kind == 1 || kind == 6 ? 1.4f : 1;
    params->presence_penalty = kind == 2 ? 1.5f : 0;
    params->frequency_penalty = kind == 3 ? 0.9f : 0;
    params->penalty_last_n = kind == 6 ? 5 : -1;
    params->top_k = kind == 4 ? 9 : 0;
    params->top_p = kind == 5 ? 0.9f : 1;
    params->biases = biases;
    params->n_biases = kind >= 5 ? 3 : 0;
}

static void compare_kinds(bool wants_prob)
{
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 7;
    options.prefill_chunk = 512;
    options.wants_prob = wants_prob;
    grower_rig_open(&rig, &options);
    uint64_t random = 77;
    for (int32_t i = 0; i < 7; i++) {
        grower_seq_start(&seqs[i], i, 30 + (uint64_t)i, 6 + 5 * i);
        set_params(&seqs[i].params, i);
        seqs[i].wants_prob = wants_prob;
        propose_random(&seqs[i], &random, i % 4);
    }
    for (int32_t run = 0; run < draft_rig_scale(5, 2); run++) {
        grower_rig_run(&rig, seqs, 7);
        for (int32_t i = 0; i < 7; i++) {
            assert_int_equal(n_ready(i), 8);
            assert_true(rig.tables[i].n_branches > 0);
            grower_rig_check_branches(&rig, &seqs[i], &rig.tables[i]);
            come_true(&seqs[i], &rig.tables[i], &random);
            seqs[i].tokens[seqs[i].n_tokens - 1] %= 50; /* what was said comes again */
        }
    }
    grower_rig_close(&rig);
}

static void penalties_biases_and_filters_count_along_a_branch(void **state)
{
    (void)state;
    compare_kinds(false);
    compare_kinds(true);
}

/* ---- ends ---- */
/* Branch tokens are as many as an ordinary draft has room for, and no row stands beyond the context. */
static void the_context_ends(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.context = 64;
    for (int32_t n = 44; n <= 64; n++) {
        uint64_t random = (uint64_t)n;
        grower_rig_open(&rig, &options);
        grower_seq_start(&seqs[0], 0, 9, n);
        propose_random(&seqs[0], &random, n % 5 < 64 - n ? n % 5 : 64 - n);
        grower_rig_run(&rig, seqs, 1);
        const struct ahead_table *table = &rig.tables[0];
        for (int32_t i = 0; i < rig.n_rows; i++) {
            assert_in_range(rig.rows[i].position, 0, 63);
        }
        for (int32_t j = 0; j < table->n_branches; j++) {
            const int32_t room = 64 - n - table->branch[j].n_accepted;
            assert_int_equal(ahead_branch_n(table, &table->branch[j]), room < 8 ? room : 8);
        }
        assert_int_equal(table->n_branches, 8);
        grower_rig_check_branches(&rig, &seqs[0], table);
        grower_rig_check_kv(&rig, &seqs[0]);
        grower_rig_close(&rig);
    }
}

static void a_round_beyond_the_context_is_left_alone(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.context = 64;
    grower_rig_open(&rig, &options);
    grower_seq_start(&seqs[0], 0, 9, 60);
    grower_seq_propose(&seqs[0], (const int32_t[]){ 1, 2, 3, 4, 5 }, 5);
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(rig.n_passes, 0);
    assert_int_equal(n_ready(0), -1);
    grower_rig_close(&rig);
}

/* Who finds no pages is not prepared for, and holds none; the others are served as ever. */
static void pages_run_out(void **state)
{
    (void)state;
    int32_t n_refused = 0, n_served = 0;
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 4;
    options.k_max = 2;
    options.budget = 1;
    options.n_pages = 1;
    grower_rig_open(&rig, &options);
    uint64_t random = 3;
    for (int32_t i = 0; i < 4; i++) {
        grower_seq_start(&seqs[i], i, 60 + (uint64_t)i, 50 + 9 * i);
        propose_random(&seqs[i], &random, 3);
        seqs[i].k_next = 2;
    }
    for (int32_t run = 0; run < 12; run++) {
        grower_rig_run(&rig, seqs, 4);
        for (int32_t i = 0; i < 4; i++) {
            const bool is_refused = kv_table_reserved_len(grower_rig_place(&rig, &seqs[i])->table) == 0;
            n_refused += is_refused;
            n_served += n_ready(i) == 2;
            assert_true(!is_refused || n_ready(i) == -1);
            grower_rig_check_kv(&rig, &seqs[i]);
            grower_rig_check_branches(&rig, &seqs[i], &rig.tables[i]);
        }
        if (run == 6) {
            grower_rig_forget(&rig, &seqs[0]);
            grower_seq_start(&seqs[0], 0, 5, 3);
            seqs[0].k_next = 2;
        }
    }
    assert_true(n_refused > 10 && n_served > 10);
    grower_rig_close(&rig);
}

static int32_t n_healthy_passes;

static enum status sick_after_a_while(struct backend *backend)
{
    (void)backend;
    return n_healthy_passes-- > 0 ? STATUS_OK : STATUS_IO;
}

/* What a device says after it failed is not listened to; what it said before stands. */
static void a_device_that_fails_prepares_nothing_more(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    for (int32_t n_healthy = 0; n_healthy < 6; n_healthy++) {
        grower_rig_open(&rig, &options);
        struct backend_ops ops = *rig.fresh.backend->ops;
        const struct backend_ops *healthy = rig.fresh.backend->ops;
        ops.health = sick_after_a_while;
        grower_seq_start(&seqs[0], 0, 9, 20);
        n_healthy_passes = n_healthy;
        rig.fresh.backend->ops = &ops;
        grower_rig_run(&rig, seqs, 1);
        assert_int_equal(rig.n_passes, n_healthy + 1);
        assert_int_equal(n_ready(0), n_healthy - 1);
        grower_rig_run(&rig, seqs, 1);
        assert_int_equal(n_ready(0), -1);
        rig.fresh.backend->ops = healthy;
        grower_rig_close(&rig);
    }
}

/* ---- stops ---- */
static void a_stop_leaves_what_was_grown(void **state)
{
    (void)state;
    for (int32_t pass = -1; pass <= 10; pass += pass < 0 ? 2 : 1) { /* -1: before glue; 1: in glue */
        struct grower_rig_options options = grower_rig_defaults();
        grower_rig_open(&rig, &options);
        grower_seq_start(&seqs[0], 0, 9, 20);
        grower_seq_propose(&seqs[0], (const int32_t[]){ 1, 2, 3 }, 3);
        rig.stop_in_pass = pass;
        grower_rig_run(&rig, seqs, 1);
        assert_int_equal(rig.n_passes, pass < 0 ? 0 : pass < 9 ? pass : 9);
        assert_int_equal(n_ready(0), pass < 0 ? -1 : pass < 9 ? pass - 1 : 8);
        assert_int_equal(grower_rig_n_fed(&rig, &seqs[0]), pass < 0 ? 0 : 23);
        grower_rig_check_mask(&rig, seqs, 1);
        grower_rig_check_kv(&rig, &seqs[0]);
        grower_rig_check_branches(&rig, &seqs[0], &rig.tables[0]);
        grower_rig_close(&rig);
    }
}

/* Seen whenever a batch of choices begins: what may be read is there, and the step under way is not. */
static void look_at_tables(struct grower_rig *r)
{
    for (int32_t t = 0; t < r->n_tables; t++) {
        const struct ahead_table *table = &r->tables[t];
        const int32_t n = atomic_load(&table->n_ready);
        assert_true(n <= r->n_passes - 2); /* glue, and the pass whose rows choose now */
        for (int32_t j = 0; n >= 0 && j < table->n_branches; j++) {
            assert_true(n == 0 || table->branch[j].next[n - 1] >= 0);
            assert_int_equal(table->branch[j].next[n], -1);
        }
    }
}

static void nothing_may_be_read_before_it_is_there(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 3;
    grower_rig_open(&rig, &options);
    rig.on_choose = look_at_tables;
    for (int32_t run = 0; run < 3; run++) {
        for (int32_t i = 0; i < 3; i++) {
            grower_seq_start(&seqs[i], i, 9 + (uint64_t)run, 20);
            seqs[i].k_next = 4 + i;
        }
        grower_rig_run(&rig, seqs, 3);
        for (int32_t i = 0; i < 3; i++) {
            assert_int_equal(n_ready(i), 4 + i);
        }
    }
    grower_rig_close(&rig);
}

/* A prompt takes several passes, and several runs when a neighbour has its rows. */
static void long_prompts_are_caught_up_on_in_chunks(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 2;
    options.prefill_chunk = 16;
    grower_rig_open(&rig, &options);
    grower_seq_start(&seqs[0], 0, 1, 100);
    grower_rig_run(&rig, &seqs[0], 1);
    assert_int_equal(rig.n_passes, 7 + 8); /* 99 rows before its own */
    assert_int_equal(n_ready(0), 8);
    grower_seq_start(&seqs[1], 1, 2, 100);
    for (int32_t run = 0; run < 7; run++) {
        grower_rig_run(&rig, seqs, 2);
        assert_int_equal(n_ready(0), 8);
        assert_int_equal(n_ready(1), run < 6 ? -1 : 8);
        grower_rig_check_kv(&rig, &seqs[1]);
        grower_seq_commit(&seqs[0], 0, 7);
    }
    grower_rig_close(&rig);
}

/* Full pages of one tenant's prompt serve the next who says the same, and nobody else's. */
static void prompts_are_shared_within_a_tenant(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 3;
    options.prefill_chunk = 512;
    grower_rig_open(&rig, &options);
    for (int32_t i = 0; i < 3; i++) {
        grower_seq_start(&seqs[i], i, 4, 50);
        seqs[i].tenant = i == 2 ? 1 : 0;
        grower_seq_propose(&seqs[i], (const int32_t[]){ 9, 8 + i }, 2);
        grower_rig_run(&rig, &seqs[i], 1);
        assert_int_equal(rig.rows[0].position, i == 1 ? 48 : 0);
        grower_rig_check_mask(&rig, &seqs[i], 1);
        grower_rig_check_kv(&rig, &seqs[i]);
        grower_rig_check_branches(&rig, &seqs[i], &rig.tables[0]);
    }
    grower_rig_run(&rig, seqs, 3); /* who shares pages writes to its own */
    for (int32_t i = 0; i < 3; i++) {
        grower_rig_check_kv(&rig, &seqs[i]);
        grower_rig_check_branches(&rig, &seqs[i], &rig.tables[i]);
    }
    grower_rig_close(&rig);
}

/* ---- what is learned ---- */
static void outcomes_are_learned_from_the_next_round(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    grower_rig_open(&rig, &options);
    grower_seq_start(&seqs[0], 0, 1, 10);
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(grower_report(rig.grower).outcomes, 0);
    const double before = grower_report(rig.grower).acceptance;
    grower_seq_commit(&seqs[0], 0, rig.tables[0].branch[1].token);
    grower_seq_propose(&seqs[0], (const int32_t[]){ 1, 2, 3 }, 3);
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(grower_report(rig.grower).outcomes, 1);
    assert_true(grower_report(rig.grower).acceptance == before); /* nothing had been proposed */
    grower_seq_commit(&seqs[0], 3, 9);
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(grower_report(rig.grower).outcomes, 2);
    assert_true(grower_report(rig.grower).acceptance > before);
    seqs[0].epoch++; /* another life: no outcome of the last one */
    grower_seq_commit(&seqs[0], 0, 9);
    grower_rig_run(&rig, seqs, 1);
    assert_int_equal(grower_report(rig.grower).outcomes, 2);
    grower_rig_close(&rig);
}

/* ---- memory ---- */
static void rounds_allocate_nothing(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    options.max_batch = 4;
    options.threads = 2;
    grower_rig_open(&rig, &options);
    uint64_t random = 5;
    const uint64_t before = mem_alloc_count();
    for (int32_t run = 0; run < 6; run++) {
        for (int32_t i = 0; i < 4; i++) {
            grower_seq_start(&seqs[i], i, 9 + (uint64_t)run, 20 + i);
            set_params(&seqs[i].params, i);
            propose_random(&seqs[i], &random, i);
        }
        grower_rig_run(&rig, seqs, 4);
        grower_rig_forget(&rig, &seqs[run % 4]);
    }
    assert_int_equal(mem_alloc_count(), before);
    grower_rig_close(&rig);
}

static void every_allocation_of_creation_may_fail(void **state)
{
    (void)state;
    enum status status = STATUS_NO_MEMORY;
    struct grower_rig_options options = grower_rig_defaults();
    struct grower *grower;
    uint64_t n = 0;
    grower_rig_open(&rig, &options);
    struct draft_model_options model = ((struct model_draft *)grower_model_draft(rig.grower))->options;
    model.common.wants_prob = true;
    model.scratch_slots = 0;
    while (status != STATUS_OK) {
        mem_fail_at(++n);
        status = grower_create(&(struct grower_options){ .model = model, .max_budget = 4 }, &grower);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && grower == NULL));
    }
    assert_true(n > 30);
    assert_true(grower_bytes(grower) > draft_model_bytes(grower_model_draft(grower)));
    grower_destroy(grower);
    grower_rig_close(&rig);
}

static void impossible_options_get_a_sentence(void **state)
{
    (void)state;
    struct grower_rig_options options = grower_rig_defaults();
    struct grower *grower;
    grower_rig_open(&rig, &options);
    const struct draft_model_options model = ((struct model_draft *)grower_model_draft(rig.grower))->options;
    for (int32_t budget = 0; budget <= 65; budget += 65) {
        assert_int_equal(grower_create(&(struct grower_options){ .model = model, .max_budget = budget }, &grower),
                         STATUS_INVALID);
        assert_null(grower);
        assert_non_null(strstr(status_message(), "1 to 64"));
    }
    grower_rig_close(&rig);
}

/* ---- tables ---- */
static bool outcome_of(const struct grower_seq *seq, uint64_t epoch, struct ahead_outcome *outcome)
{
    struct grower_seq copy = *seq;
    return ahead_table_outcome(&rig.tables[0], &(struct draft_ask){ .seq_id = copy.id, .epoch = epoch,
        .tokens = copy.tokens, .n_tokens = copy.n_tokens }, outcome);
}

static void a_table_answers_for_its_own_round_alone(void **state)
{
    (void)state;
    struct ahead_outcome outcome;
    struct grower_rig_options options = grower_rig_defaults();
    grower_rig_open(&rig, &options);
    grower_seq_start(&seqs[0], 0, 1, 10);
    grower_seq_propose(&seqs[0], (const int32_t[]){ 1, 2, 3 }, 3);
    rig.stop_in_pass = 4;
    grower_rig_run(&rig, seqs, 1);
    assert_false(outcome_of(&seqs[0], 0, &outcome)); /* not a token has come since */
    for (int32_t j = 0; j < rig.tables[0].n_branches; j++) {
        const struct ahead_branch *branch = &rig.tables[0].branch[j];
        struct grower_seq after = seqs[0];
        grower_seq_commit(&after, branch->n_accepted, branch->token);
        assert_true(outcome_of(&after, 0, &outcome));
        assert_int_equal(outcome.n_accepted, branch->n_accepted);
        assert_int_equal(outcome.token, branch->token);
        assert_ptr_equal(ahead_table_find(&rig.tables[0], outcome), branch);
        assert_int_equal(ahead_branch_n(&rig.tables[0], branch), 3);
        assert_false(outcome_of(&after, 1, &outcome));
        after.id++;
        assert_false(outcome_of(&after, 0, &outcome));
        after.id--;
        after.tokens[seqs[0].n_tokens] = 77; /* the target went down a side branch */
        assert_int_equal(outcome_of(&after, 0, &outcome), branch->n_accepted == 0);
        grower_seq_commit(&after, 0, 1);
        grower_seq_commit(&after, 0, 1);
        grower_seq_commit(&after, 0, 1);
        grower_seq_commit(&after, 0, 1);
        assert_false(outcome_of(&after, 0, &outcome)); /* more than one round */
    }
    assert_null(ahead_table_find(&rig.tables[0], (struct ahead_outcome){ 0, 1 })); /* what was proposed */
    assert_null(ahead_table_find(&rig.tables[0], (struct ahead_outcome){ 4, rig.tables[0].branch[0].token }));
    outcome = (struct ahead_outcome){ rig.tables[0].branch[0].n_accepted, rig.tables[0].branch[0].token };
    atomic_store(&rig.tables[0].n_ready, -1);
    assert_null(ahead_table_find(&rig.tables[0], outcome));
    grower_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worked_example_slot_by_slot),
        cmocka_unit_test(any_outcome_stop_order_and_page_size),
        cmocka_unit_test(the_rejection_rule_prepares_the_same_rows),
        cmocka_unit_test(branches_are_the_likeliest_recovery_tokens),
        cmocka_unit_test(penalties_biases_and_filters_count_along_a_branch),
        cmocka_unit_test(the_context_ends),
        cmocka_unit_test(a_round_beyond_the_context_is_left_alone),
        cmocka_unit_test(pages_run_out),
        cmocka_unit_test(a_device_that_fails_prepares_nothing_more),
        cmocka_unit_test(a_stop_leaves_what_was_grown),
        cmocka_unit_test(nothing_may_be_read_before_it_is_there),
        cmocka_unit_test(long_prompts_are_caught_up_on_in_chunks),
        cmocka_unit_test(prompts_are_shared_within_a_tenant),
        cmocka_unit_test(outcomes_are_learned_from_the_next_round),
        cmocka_unit_test(rounds_allocate_nothing),
        cmocka_unit_test(every_allocation_of_creation_may_fail),
        cmocka_unit_test(impossible_options_get_a_sentence),
        cmocka_unit_test(a_table_answers_for_its_own_round_alone),
    };
    return cmocka_run_group_tests_name("grower", tests, NULL, NULL);
}
