/* Cases of ragged speculation that have no other home, by their numbers in the list of what breaks ragged
 * batches. Over a table instead of a model (tests/sim.h) every answer is compared with plain decoding of
 * the request alone; what an own draft accepts is asked of a small model (tests/draft_rig.h). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/chi_square.h"
#include "tests/draft_rig.h"
#include "tests/sim.h"

static void check(const char *wrong)
{
    if (wrong != NULL) {
        fail_msg("%s", wrong);
    }
}

static void run_compare_close(struct sim *sim)
{
    check(sim_run(sim));
    check(sim_compare(sim));
    check(sim_is_empty(sim));
    sim_close(sim);
}

static struct sim *open_with(const char *pattern, int32_t k, int32_t page)
{
    struct sim_options options = sim_defaults();
    options.draft_pattern = pattern;
    options.k_max = k;
    options.page_slots = page;
    options.n_pages = 4 * options.context / page;
    options.poisons = 1;
    return sim_open(&options);
}

static const struct sequence *sequence(struct sim *sim, int32_t idx)
{
    return sim_request(sim, idx)->sequences;
}

/* ---- pages ---- */
static void case_08_rounds_end_around_a_page(void **state)
{
    (void)state;
    static const char *const patterns[] = { "9", "0", "0123456789", "abc3" };
    for (int i = 0; i < 4; i++) {
        for (int32_t k = 1; k <= 9; k += 2) { /* pages of 4: K + 1 may need three of them */
            struct sim *sim = open_with(patterns[i], k, 4);
            for (int32_t n = 1; n <= 13; n++) {
                const struct sim_spec spec = sim_spec((uint64_t)n, n, 14);
                sim_submit(sim, &spec);
            }
            run_compare_close(sim);
        }
    }
}

/* Rounds that fill pages and are refused give them back; they come again with nonsense in them. */
static void case_09_rejected_across_a_page_and_grown_again(void **state)
{
    (void)state;
    struct sim *sim = open_with("0090", 10, 4);
    int32_t n_less = 0, before = 0;
    for (uint64_t j = 0; j < 4; j++) {
        const struct sim_spec spec = sim_spec(j, 3 + (int32_t)j, 60);
        sim_submit(sim, &spec);
    }
    while (scheduler_is_busy(sim_scheduler(sim))) {
        check(sim_step(sim));
        const int32_t held = scheduler_stats(sim_scheduler(sim)).pages_held;
        const struct sequence *first = sequence(sim, 0);
        if (first->state == SEQUENCE_RUNNING) { /* no more than the next token needs */
            assert_true(kv_table_reserved_len(first->table) <= (first->n_tokens + 1 + 3) / 4 * 4);
        }
        n_less += held < before;
        before = held;
    }
    assert_true(n_less > 0);
    run_compare_close(sim);
}

/* ---- ends inside a run ---- */
/* The place in its round of the token that ended the text: 0 the first, K the bonus; -1: the prompt's. */
static int32_t place_of_end(const struct sequence *seq, int32_t k)
{
    const int32_t n = sequence_n_generated(seq);
    return n == 1 ? -1 : (n - 2) % (k + 1);
}

/* Every proposal is right, so what was drafted beyond the end was cut, and counts as neither. */
static void case_10_end_token_anywhere_in_a_run(void **state)
{
    (void)state;
    enum { K = 3 };
    int32_t n_at[K + 1] = { 0 };
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sim *sim = open_with("9", K, 16);
        for (uint64_t j = 0; j < 3; j++) {
            struct sim_spec spec = sim_spec(3 * seed + j, 5, j == 2 ? 30 : 110);
            spec.ignore_eos = 0;
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        for (int32_t j = 0; j < 3; j++) {
            const struct sequence *seq = sequence(sim, j);
            const int32_t place = place_of_end(seq, K);
            assert_int_equal(seq->drafted.accepted, seq->drafted.proposed);
            if (seq->ending == ENDING_STOP_ID && place >= 0) {
                const int32_t n_rounds = (sequence_n_generated(seq) - 2) / (K + 1);
                const int32_t kept = place < K ? place + 1 : K; /* of the last round's proposals */
                n_at[place]++;
                if (j < 2 && sequence_n_generated(seq) < 100) { /* no limit lowered K */
                    assert_int_equal(seq->drafted.accepted, n_rounds * K + kept);
                }
                assert_int_equal(seq->tokens[seq->n_tokens - 1], SIM_EOS);
            }
        }
        run_compare_close(sim);
    }
    for (int32_t place = 0; place <= K; place++) {
        assert_true(n_at[place] > 0);
    }
}

static void case_10_end_token_drafted_and_rejected_or_ignored(void **state)
{
    (void)state;
    int32_t n_rejected = 0, n_ignored = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct sim *sim = open_with("012", 3, 16);
        for (uint64_t j = 0; j < 4; j++) {
            struct sim_spec spec = sim_spec(4 * seed + j, 4, 100);
            spec.ignore_eos = (int32_t)(j % 2);
            spec.first_id = j == 3 ? SIM_EOS + 1 : 0; /* inside the prompt it ends nothing */
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        for (int32_t j = 0; j < 4; j++) {
            const struct sequence *seq = sequence(sim, j);
            for (int32_t i = 0; i < sequence_n_generated(seq); i++) {
                n_rejected += seq->origin[i].rejected_id == SIM_EOS;
                n_ignored += j % 2 == 1 && seq->tokens[seq->request->n_prompt + i] == SIM_EOS;
            }
        }
        run_compare_close(sim);
    }
    assert_true(n_rejected > 0 && n_ignored > 0);
}

/* The end token as the last that is allowed: it is what ended the text. */
static void case_10_end_token_at_the_limit(void **state)
{
    (void)state;
    int32_t n_both = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct sim *sim = open_with("9", 4, 16);
        struct sim_spec spec = sim_spec(seed, 5, 100);
        spec.ignore_eos = 0;
        sim_submit(sim, &spec);
        check(sim_run(sim));
        const int32_t n = sequence_n_generated(sequence(sim, 0));
        if (sequence(sim, 0)->ending == ENDING_STOP_ID) {
            for (int32_t more = -1; more <= 1; more++) {
                spec.max_tokens = n + more;
                const int32_t idx = sim_submit(sim, &spec);
                check(sim_run(sim));
                assert_int_equal(sequence(sim, idx)->ending, more < 0 ? ENDING_LENGTH : ENDING_STOP_ID);
                n_both += more == 0;
            }
        }
        run_compare_close(sim);
    }
    assert_true(n_both > 3);
}

static void case_12_limit_is_exactly_a_run(void **state)
{
    (void)state;
    for (int32_t k = 1; k <= 6; k++) {
        struct sim *sim = open_with("9", k, 16);
        for (int64_t limit = 1; limit <= 2 * k + 4; limit++) {
            const struct sim_spec spec = sim_spec((uint64_t)limit, 7, limit);
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        for (int32_t i = 0; i < sim_n_requests(sim); i++) { /* nothing is drafted that could not be kept */
            assert_int_equal(sequence_n_generated(sequence(sim, i)), i + 1);
            assert_int_equal(sequence(sim, i)->drafted.accepted, sequence(sim, i)->drafted.proposed);
            assert_int_equal(sequence(sim, i)->n_passes, 1 + (i + k) / (k + 1));
        }
        run_compare_close(sim);
    }
}

/* ---- a K for each ---- */
static void case_14_all_k_different_some_none(void **state)
{
    (void)state;
    static const char *const patterns[] = { "9", "3140", "cb0a" };
    for (int i = 0; i < 3; i++) {
        struct sim_options options = sim_defaults();
        options.draft_pattern = patterns[i];
        options.k_max = 8;
        options.max_batch = 10;
        options.n_pages = 80;
        struct sim *sim = sim_open(&options);
        for (int32_t k = 0; k <= 8; k++) {
            struct sim_spec spec = sim_spec((uint64_t)k, 10 + k, 50);
            spec.k_and_one = k + 1;
            spec.temperature = k % 3 == 2 ? 0.8f : 0;
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        for (int32_t k = 0; k <= 8; k++) {
            const struct td_draft_counts *counts = &sequence(sim, k)->drafted;
            assert_true(k == 0 ? counts->proposed == 0 : counts->proposed > 0);
            assert_true(counts->proposed <= counts->rounds * k);
        }
        run_compare_close(sim);
    }
}

static void case_14_none_costs_what_plain_costs(void **state)
{
    (void)state;
    struct td_engine_stats stats[2];
    for (int plain = 0; plain < 2; plain++) {
        struct sim *sim = open_with("9", plain ? 0 : 8, 16);
        for (uint64_t j = 0; j < 8; j++) {
            struct sim_spec spec = sim_spec(j, 9 + 5 * (int32_t)j, 30);
            spec.k_and_one = plain ? 0 : 1;
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        stats[plain] = scheduler_stats(sim_scheduler(sim));
        assert_int_equal(sim_n_draft_rounds(sim), 0);
        run_compare_close(sim);
    }
    assert_int_equal(stats[0].rows, stats[1].rows);
    assert_int_equal(stats[0].target_passes, stats[1].target_passes);
    assert_int_equal(stats[0].steps, stats[1].steps);
}

/* ---- turns ---- */
/* A turn ends inside a run, by its end token or a limit; the next begins with all that was said. What was
 * rejected or cut behind the end is not what the pages are known by. */
static void case_28_second_turn_after_an_end_inside_a_run(void **state)
{
    (void)state;
    static int32_t turns[24][128];
    static const char *const patterns[] = { "9", "1302", "ba2" };
    int32_t n_hits = 0;
    for (int32_t i = 0; i < 24; i++) {
        struct sim *sim = open_with(patterns[i % 3], 5, 4);
        struct sim_spec spec = sim_spec((uint64_t)i, 11, 8 + i);
        spec.ignore_eos = i % 2;
        sim_submit(sim, &spec);
        check(sim_run(sim));
        const struct sequence *first = sequence(sim, 0);
        const int32_t n = first->n_tokens;
        memcpy(turns[i], first->tokens, (size_t)n * sizeof turns[i][0]);
        for (int32_t j = 0; j < 7; j++) {
            turns[i][n + j] = (5 * j + i) % SIM_VOCAB;
        }
        for (int32_t more = 1; more <= 7; more += 3) {
            spec.tokens = turns[i];
            spec.n_prompt = n + more;
            const int32_t idx = sim_submit(sim, &spec);
            check(sim_run(sim));
            /* all of the first turn but its last token has KV, in whole pages */
            assert_true(sequence(sim, idx)->n_cached_prompt >= (n - 1) / 4 * 4);
            n_hits++;
        }
        run_compare_close(sim);
    }
    assert_int_equal(n_hits, 72);
}

/* ---- room ---- */
static void case_32_budget_smaller_than_the_rows(void **state)
{
    (void)state;
    for (int32_t chunk = 1; chunk <= 7; chunk += 2) {
        struct sim_options options = sim_defaults();
        options.draft_pattern = "91a0";
        options.k_max = 6;
        options.prefill_chunk = chunk; /* six decode with up to 7 rows each while prompts wait for theirs */
        options.max_batch = 6;
        options.n_pages = 48;
        options.poisons = 1;
        struct sim *sim = sim_open(&options);
        for (uint64_t j = 0; j < 12; j++) {
            struct sim_spec spec = sim_spec(j, 1 + (int32_t)(j * 17 % 60), 25);
            spec.temperature = j % 3 == 1 ? 1 : 0;
            sim_submit(sim, &spec);
        }
        run_compare_close(sim);
    }
}

/* ---- distributions ---- */
/* The second token is the first that is chosen in a verified run. Its distribution over seeds is that of
 * the target, beside greedy requests, whatever the draft says. */
static void case_36_distribution_of_mixed_rows(void **state)
{
    (void)state;
    enum { N_GREEDY = 200, PROMPT = 9 };
    const int32_t n_sampled = draft_rig_scale(3600, 600);
    static const char *const patterns[] = { "0", "9", "b1" };
    for (int p = 0; p < 3; p++) {
        int32_t tokens[PROMPT + 1];
        float logits[SIM_VOCAB];
        double first[SIM_VOCAB], second[SIM_VOCAB] = { 0 };
        int64_t seen[SIM_VOCAB] = { 0 };
        struct sim *sim = open_with(patterns[p], 3, 16);
        struct sim_spec spec = sim_spec(8, PROMPT, 4);
        for (int32_t i = 0; i < n_sampled + N_GREEDY; i++) {
            spec.temperature = i % (n_sampled / N_GREEDY + 1) == 0 ? 0 : 1;
            spec.seed = (uint64_t)i;
            sim_submit(sim, &spec);
        }
        check(sim_run(sim));
        sim_prompt(&spec, tokens);
        for (int32_t id = -1; id < SIM_VOCAB; id++) { /* of the first token, then of the second after each */
            double sum = 0, *into = id < 0 ? first : second;
            const double share = id < 0 ? 1 : first[id];
            tokens[PROMPT] = id;
            sim_logits(sim, tokens, PROMPT + (id >= 0), logits);
            for (int32_t j = 0; j < SIM_VOCAB; j++) {
                sum += exp((double)logits[j]);
            }
            for (int32_t j = 0; j < SIM_VOCAB; j++) {
                into[j] = (id < 0 ? 0 : into[j]) + share * exp((double)logits[j]) / sum;
            }
        }
        int64_t n_draws = 0;
        for (int32_t i = 0; i < sim_n_requests(sim); i++) {
            const struct sequence *seq = sequence(sim, i);
            if (seq->params.temperature > 0) {
                seen[seq->tokens[PROMPT + 1]]++;
                n_draws++;
            }
        }
        assert_true(chi_square_sigmas(seen, second, SIM_VOCAB, n_draws) < 5);
        run_compare_close(sim);
    }
}

/* ---- history ---- */
static void case_38_penalties_and_biases_inside_a_run_and_rolled_back(void **state)
{
    (void)state;
    static const char *const patterns[] = { "9", "0", "203145", "cab" };
    for (int i = 0; i < 4; i++) {
        struct sim *sim = open_with(patterns[i], 5, 16);
        for (uint64_t j = 0; j < 12; j++) {
            struct sim_spec spec = sim_spec(j, 6, 60);
            spec.repetition_penalty = j % 2 ? 1.8f : 1;
            spec.presence_penalty = j % 3 == 1 ? 1.5f : 0;
            spec.frequency_penalty = j % 3 == 2 ? 0.8f : 0;
            spec.bias = j % 4 == 3 ? 6 : 0;
            spec.temperature = j % 5 == 4 ? 0.9f : 0;
            sim_submit(sim, &spec);
        }
        run_compare_close(sim);
    }
}

/* What looks back sees the run: an own draft, which looks back in the same way, is always right. */
static void case_38_an_own_draft_looks_back_as_the_target_does(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.max_batch = 3;
    draft_rig_open(&rig, &options);
    for (uint64_t j = 0; j < 6; j++) {
        draft_rig_submit(&rig, &(struct draft_rig_request){
            .prompt_seed = j, .seed = j, .n_prompt = 10, .max_tokens = 40, .repetition_penalty = 1.9f,
            .temperature = (float)(j % 2) });
    }
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_true(counts.proposed > 0);
    assert_int_equal(counts.accepted, counts.proposed);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

/* ---- long runs ---- */
#ifdef TANDEM_INSTRUMENTED
enum { KEEPS_FREED = 1 }; /* sanitizers do */
#else
enum { KEEPS_FREED = 0 };
#endif

/* Hours in small: as many pages, and as many bytes, after the last thousand requests as before them. */
static void case_43_a_soak_in_flat_memory(void **state)
{
    (void)state;
    uint64_t bytes[2] = { 0 };
    const int32_t n_requests = draft_rig_scale(1500, 60);
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.checks_kv = false;
    options.draft_pages = options.n_pages = 20;
    options.max_batch = 4;
    for (int half = 0; half < 2; half++) {
        draft_rig_open(&rig, &options);
        for (int32_t done = 0; done < n_requests; done += rig.n_requests, rig.n_requests = 0) {
            for (int32_t j = 0; j < DRAFT_RIG_MAX_REQUESTS; j++) {
                draft_rig_submit(&rig, &(struct draft_rig_request){
                    .prompt_seed = (uint64_t)(done + j) % 7, .seed = (uint64_t)j, .n_prompt = 1 + (done + 3 * j) % 50,
                    .max_tokens = 2 + j % 5, .temperature = (float)(j % 2) });
            }
            draft_rig_run(&rig);
            const struct kv_pool_counts target = kv_pool_counts(rig.scheduler->pool);
            const struct kv_pool_counts draft = kv_pool_counts(draft_rig_model(&rig)->pool);
            assert_int_equal(target.n_held + draft.n_held, 0);
            for (int32_t j = 0; j < rig.n_requests; j++) {
                request_destroy(rig.requests[j]);
            }
        }
        draft_rig_close(&rig);
        bytes[half] = mem_resident_bytes();
    }
    assert_true(KEEPS_FREED || bytes[0] == 0 || bytes[1] <= bytes[0] + (1 << 20));
}

/* What was proposed and refused for a request says nothing of who ran beside it. */
static void case_43_an_accept_trace_knows_no_neighbours(void **state)
{
    (void)state;
    enum { N = 5, MAX_NEW = 40 };
    static struct token_origin alone[N][MAX_NEW];
    static struct draft_rig rig;
    int32_t n_refused = 0;
    struct draft_rig_options options = draft_rig_defaults();
    options.target = "synth:tiny,f32,seed=7";
    options.draft_quant = "q8_0"; /* right most of the time */
    options.checks_kv = false;
    for (int32_t run = 0; run <= N; run++) { /* each alone, then all together */
        options.max_batch = run == N ? N : 1;
        draft_rig_open(&rig, &options);
        for (int32_t j = 0; j < N; j++) {
            if (run == N || run == j) {
                draft_rig_submit(&rig, &(struct draft_rig_request){
                    .prompt_seed = (uint64_t)j, .seed = (uint64_t)j, .n_prompt = 5 + 3 * j, .max_tokens = MAX_NEW,
                    .temperature = (float)(j % 2) });
            }
        }
        draft_rig_run(&rig);
        for (int32_t j = 0; j < rig.n_requests; j++) {
            const struct sequence *seq = draft_rig_sequence(&rig, j);
            assert_int_equal(sequence_n_generated(seq), MAX_NEW);
            if (run < N) {
                memcpy(alone[run], seq->origin, sizeof alone[run]);
            }
            for (int32_t i = 0; i < MAX_NEW; i++) {
                assert_int_equal(seq->origin[i].source, alone[run < N ? run : j][i].source);
                assert_int_equal(seq->origin[i].rejected_id, alone[run < N ? run : j][i].rejected_id);
                assert_int_equal(seq->origin[i].n_rejected, alone[run < N ? run : j][i].n_rejected);
                n_refused += seq->origin[i].rejected_id >= 0;
            }
        }
        draft_rig_close(&rig);
    }
    assert_true(n_refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_08_rounds_end_around_a_page),
        cmocka_unit_test(case_09_rejected_across_a_page_and_grown_again),
        cmocka_unit_test(case_10_end_token_anywhere_in_a_run),
        cmocka_unit_test(case_10_end_token_drafted_and_rejected_or_ignored),
        cmocka_unit_test(case_10_end_token_at_the_limit),
        cmocka_unit_test(case_12_limit_is_exactly_a_run),
        cmocka_unit_test(case_14_all_k_different_some_none),
        cmocka_unit_test(case_14_none_costs_what_plain_costs),
        cmocka_unit_test(case_28_second_turn_after_an_end_inside_a_run),
        cmocka_unit_test(case_32_budget_smaller_than_the_rows),
        cmocka_unit_test(case_36_distribution_of_mixed_rows),
        cmocka_unit_test(case_38_penalties_and_biases_inside_a_run_and_rolled_back),
        cmocka_unit_test(case_38_an_own_draft_looks_back_as_the_target_does),
        cmocka_unit_test(case_43_a_soak_in_flat_memory),
        cmocka_unit_test(case_43_an_accept_trace_knows_no_neighbours),
    };
    return cmocka_run_group_tests_name("batching_cases", tests, NULL, NULL);
}
