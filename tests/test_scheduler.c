/* The loop over a table instead of a model. Every output is compared with plain decoding of the same
 * request alone (ids, digest, ending), after every step pages, lengths and slots are checked; numbers
 * are those of the cases in docs/DESIGN.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/sim.h"

static const int32_t page_sizes[] = { 16, 64 };
enum { N_PAGE_SIZES = sizeof page_sizes / sizeof page_sizes[0] };

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

static struct sim_options options_of_page(int32_t page)
{
    struct sim_options options = sim_defaults();
    options.page_slots = page;
    return options;
}

/* ---- cases ---- */
static void case_06_prompts_around_pages_together(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        const int32_t page = page_sizes[i];
        const int32_t lens[] = { 1, page - 1, page, page + 1, 10 * page };
        struct sim_options options = options_of_page(page);
        options.context = 12 * page;
        options.n_pages = 20;
        options.max_batch = 5;
        struct sim *sim = sim_open(&options);
        for (int j = 0; j < 5; j++) {
            sim_submit(sim, &(struct sim_spec){ .prompt_seed = (uint64_t)j, .n_prompt = lens[j],
                       .max_tokens = page + 3, .repetition_penalty = 1, .n = 1, .logprobs = -1,
                       .ignore_eos = 1 });
        }
        run_compare_close(sim);
    }
}

static void case_07_prompt_of_one_token(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        const struct sim_options options = options_of_page(page_sizes[i]);
        struct sim *sim = sim_open(&options);
        for (uint64_t j = 0; j < 4; j++) {
            const struct sim_spec spec = sim_spec(j, 1, 40);
            sim_submit(sim, &spec);
        }
        run_compare_close(sim);
    }
}

static void case_12_limits(void **state)
{
    (void)state;
    const struct sim_options options = sim_defaults();
    struct sim *sim = sim_open(&options);
    static const int64_t limits[] = { 1, 2, 15, 16, 17, -1, 1000, 0 };
    for (int i = 0; i < 8; i++) {
        const struct sim_spec spec = sim_spec((uint64_t)i, 9, limits[i]);
        sim_submit(sim, &spec);
    }
    check(sim_run(sim));
    assert_int_equal(sequence_n_generated(sim_request(sim, 0)->sequences), 1);
    assert_int_equal(sim_request(sim, 5)->sequences[0].ending, ENDING_CONTEXT);
    assert_int_equal(sim_request(sim, 6)->sequences[0].ending, ENDING_CONTEXT);
    assert_int_equal(sim_request(sim, 5)->sequences[0].n_tokens, options.context);
    assert_int_equal(sequence_n_generated(sim_request(sim, 7)->sequences), 0);
    run_compare_close(sim);
}

struct cancel_in_pass { struct sim *sim; int32_t idx; };

static void cancel_hook(void *user)
{
    const struct cancel_in_pass *cancel = user;
    sim_cancel(cancel->sim, cancel->idx);
}

static void case_17_cancel_at_any_point(void **state)
{
    (void)state;
    for (int when = 0; when < 5; when++) {
        struct sim_options options = sim_defaults();
        options.max_batch = 2;
        struct sim *sim = sim_open(&options);
        struct cancel_in_pass cancel = { sim, 0 };
        for (uint64_t i = 0; i < 4; i++) { /* two of them wait for a place */
            const struct sim_spec spec = sim_spec(i, 20, 12);
            sim_submit(sim, &spec);
        }
        for (int i = 0; i < 3 * when; i++) {
            check(sim_step(sim));
        }
        if (when == 1) { /* between plan and commit */
            sim_on_pass(sim, cancel_hook, &cancel);
            check(sim_step(sim));
            sim_on_pass(sim, NULL, NULL);
            assert_int_equal(sim_request(sim, 0)->sequences[0].state, SEQUENCE_FINISHED);
        } else if (when == 4) { /* after the end */
            check(sim_run(sim));
            sim_cancel(sim, 0);
        } else {
            sim_cancel(sim, 0);
        }
        const int32_t generated = sequence_n_generated(sim_request(sim, 0)->sequences);
        check(sim_step(sim)); /* its place is taken at once */
        assert_int_equal(sequence_n_generated(sim_request(sim, 0)->sequences), generated);
        assert_int_equal(sim_request(sim, 0)->sequences[0].state, SEQUENCE_FINISHED);
        if (when == 1) {
            assert_int_equal(sim_scheduler(sim)->running.n_items, 2);
        }
        run_compare_close(sim);
    }
}

static void case_18_two_cancels_and_a_join_with_shared_pages(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        struct sim_options options = options_of_page(page_sizes[i]);
        options.context = 4 * page_sizes[i];
        options.max_batch = 4;
        struct sim *sim = sim_open(&options);
        struct sim_spec spec = sim_spec(1, 2 * page_sizes[i] + 5, 30);
        spec.shared = 2 * page_sizes[i] + 2;
        sim_submit(sim, &spec);
        check(sim_step(sim));
        for (int j = 0; j < 8; j++) {
            check(sim_step(sim));
        }
        for (uint64_t j = 2; j < 4; j++) {
            spec.prompt_seed = j;
            sim_submit(sim, &spec);
        }
        check(sim_step(sim));
        check(sim_step(sim));
        assert_true(sim_scheduler(sim)->stats.prefix_hit_tokens > 0);
        sim_cancel(sim, 0);
        sim_cancel(sim, 1);
        spec.prompt_seed = 9;
        sim_submit(sim, &spec);
        check(sim_step(sim));
        run_compare_close(sim);
    }
}

static void case_19_preempt_and_resume(void **state)
{
    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        for (int i = 0; i < N_PAGE_SIZES; i++) {
            struct sim_options options = options_of_page(page_sizes[i]);
            options.prefix_cache = prefix;
            struct sim *sim = sim_open(&options);
            for (uint64_t j = 0; j < 4; j++) {
                struct sim_spec spec = sim_spec(j, 13 + (int32_t)j * 11, 50);
                spec.temperature = j % 2 ? 0.8f : 0;
                sim_submit(sim, &spec);
            }
            for (int step = 0; scheduler_is_busy(sim_scheduler(sim)); step++) {
                check(sim_step(sim));
                if (step % 5 == 2) {
                    scheduler_preempt_last(sim_scheduler(sim));
                }
            }
            assert_true(scheduler_stats(sim_scheduler(sim)).preemptions > 5);
            run_compare_close(sim);
        }
    }
}

static void case_20_pool_exhausted_and_exact_minimum(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        for (int32_t n_pages = 4; n_pages <= 7; n_pages++) { /* 4 pages are one context */
            struct sim_options options = options_of_page(page_sizes[i]);
            options.context = 4 * page_sizes[i];
            options.n_pages = n_pages;
            struct sim *sim = sim_open(&options);
            for (uint64_t j = 0; j < 6; j++) {
                const struct sim_spec spec = sim_spec(j, page_sizes[i] / 2, -1);
                sim_submit(sim, &spec);
            }
            check(sim_run(sim));
            assert_true(n_pages == 4 || scheduler_stats(sim_scheduler(sim)).preemptions > 0);
            run_compare_close(sim);
        }
    }
}

static void case_22_prefix_ends_inside_a_page(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        const int32_t page = page_sizes[i];
        struct sim_options options = options_of_page(page);
        options.context = 8 * page;
        struct sim *sim = sim_open(&options);
        struct sim_spec spec = sim_spec(0, 3 * page + 9, 20);
        for (uint64_t j = 1; j <= 6; j++) {
            spec.prompt_seed = j;
            spec.shared = 2 * page + (int32_t)(j % 3) * 4;
            sim_submit(sim, &spec);
            check(sim_step(sim));
        }
        check(sim_run(sim));
        assert_true(scheduler_stats(sim_scheduler(sim)).prefix_hit_tokens >= (uint64_t)page);
        run_compare_close(sim);
    }
}

static void case_23_fork_and_either_ends_first(void **state)
{
    (void)state;
    int parent_first = 0, child_first = 0, n_forked = 0;
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct sim_options options = options_of_page(page_sizes[seed % 2]);
        options.prefix_cache = seed % 4 < 2;
        struct sim *sim = sim_open(&options);
        struct sim_spec spec = sim_spec(seed, 1 + (int32_t)seed * 2, 60);
        spec.n = 3;
        spec.temperature = 1.5f;
        spec.ignore_eos = 0;
        sim_submit(sim, &spec);
        check(sim_run(sim));
        const struct sequence *choices = sim_request(sim, 0)->sequences;
        parent_first += choices[0].n_tokens < choices[1].n_tokens;
        child_first += choices[0].n_tokens > choices[1].n_tokens;
        /* the prompt was computed once: forks compute only its last row again; unless there was
         * nobody left to fork from */
        const bool alone = sequence_n_generated(&choices[0]) == 1;
        n_forked += !alone;
        assert_true(alone || scheduler_stats(sim_scheduler(sim)).rows ==
                    (uint64_t)(spec.n_prompt - 1) + scheduler_stats(sim_scheduler(sim)).committed_tokens);
        run_compare_close(sim);
    }
    assert_true(parent_first > 0 && child_first > 0 && n_forked > 12);
}

static void case_25_identical_prompts_different_seeds(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.max_batch = 8;
    options.n_pages = 64;
    struct sim *sim = sim_open(&options);
    for (uint64_t j = 0; j < 8; j++) {
        struct sim_spec spec = sim_spec(3, 37, 40);
        spec.seed = j / 2; /* pairs are equal */
        spec.temperature = 1;
        sim_submit(sim, &spec);
    }
    check(sim_run(sim));
    for (int32_t j = 0; j < 8; j += 2) {
        const struct sequence *a = sim_request(sim, j)->sequences, *b = sim_request(sim, j + 1)->sequences;
        assert_memory_equal(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
    }
    run_compare_close(sim);
}

static void case_26_prompts_around_a_cached_key(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAGE_SIZES; i++) {
        const int32_t page = page_sizes[i];
        struct sim_options options = options_of_page(page);
        options.context = 4 * page;
        struct sim *sim = sim_open(&options);
        struct sim_spec spec = sim_spec(5, 2 * page + 1, 4);
        sim_submit(sim, &spec);
        check(sim_run(sim)); /* two pages are known now */
        static const int32_t delta[] = { -1, 0, 1, 2 };
        for (int j = 0; j < 4; j++) {
            spec.n_prompt = 2 * page + delta[j];
            const int32_t idx = sim_submit(sim, &spec);
            check(sim_run(sim));
            /* whole pages, and never the last token */
            assert_int_equal(sim_request(sim, idx)->sequences[0].n_cached_prompt,
                             delta[j] > 0 ? 2 * page : page);
        }
        run_compare_close(sim);
    }
}

static void case_27_eviction_while_others_run(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.n_pages = 14;
    options.max_batch = 2;
    struct sim *sim = sim_open(&options);
    for (uint64_t j = 0; j < 30; j++) {
        struct sim_spec spec = sim_spec(j % 7, 20 + (int32_t)(j * 13 % 40), 25);
        spec.shared = (int32_t)(j % 3) * 16;
        sim_submit(sim, &spec);
    }
    check(sim_run(sim));
    assert_true(scheduler_stats(sim_scheduler(sim)).prefix_hit_tokens > 0);
    run_compare_close(sim);
}

static void case_31_chunks_beside_decoding_rows(void **state)
{
    (void)state;
    static const int32_t chunks[] = { 1, 7, 16, 64 };
    for (int i = 0; i < 4; i++) {
        struct sim_options options = sim_defaults();
        options.prefill_chunk = chunks[i];
        struct sim *sim = sim_open(&options);
        struct sim_spec spec = sim_spec(1, 3, 90);
        sim_submit(sim, &spec);
        check(sim_step(sim));
        check(sim_step(sim));
        check(sim_step(sim));
        spec = sim_spec(2, 100, 10);
        sim_submit(sim, &spec);
        int32_t before = sim_request(sim, 0)->sequences[0].n_tokens;
        for (int step = 0; step < 5; step++, before++) { /* decoding goes on, a token a step */
            assert_int_equal(sim_request(sim, 0)->sequences[0].n_tokens, before);
            check(sim_step(sim));
        }
        run_compare_close(sim);
    }
}

static void case_33_tied_logits(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.tied = 1;
    struct sim *sim = sim_open(&options);
    for (uint64_t j = 0; j < 8; j++) {
        struct sim_spec spec = sim_spec(j, 10, 40);
        spec.top_k = j % 2 ? 5 : 0;
        spec.temperature = j % 4 < 2 ? 0 : 0.7f;
        sim_submit(sim, &spec);
    }
    run_compare_close(sim);
}

static void case_34_first_and_last_id_are_ordinary(void **state)
{
    (void)state;
    const struct sim_options options = sim_defaults();
    struct sim *sim = sim_open(&options);
    static const int32_t ids[] = { 0, 1, SIM_EOS, SIM_VOCAB - 1 };
    for (int j = 0; j < 4; j++) {
        for (int32_t n = 1; n < 3; n++) {
            struct sim_spec spec = sim_spec(4, n, 30);
            spec.first_id = ids[j] + 1;
            spec.ignore_eos = n == 1; /* an end token inside the prompt ends nothing */
            sim_submit(sim, &spec);
        }
    }
    run_compare_close(sim);
}

static void case_37_seeded_alone_batched_reordered_preempted(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct sim_options options = sim_defaults();
        options.max_batch = way == 0 ? 1 : 4;
        options.threads = way == 3 ? 2 : 1;
        struct sim *sim = sim_open(&options);
        for (uint64_t j = 0; j < 6; j++) {
            struct sim_spec spec = sim_spec(way == 2 ? 5 - j : j, 12, 40);
            spec.temperature = 1;
            spec.repetition_penalty = 1.3f;
            spec.priority = way == 2 ? (int32_t)j % 3 : 0;
            sim_submit(sim, &spec);
        }
        for (int step = 0; scheduler_is_busy(sim_scheduler(sim)); step++) {
            check(sim_step(sim));
            if (way == 3 && step % 3 == 0) {
                scheduler_preempt_last(sim_scheduler(sim));
            }
        }
        run_compare_close(sim);
    }
}

static void case_39_logprobs(void **state)
{
    (void)state;
    const struct sim_options options = sim_defaults();
    struct sim *sim = sim_open(&options);
    for (int32_t n_top = 0; n_top <= 20; n_top += 4) {
        struct sim_spec spec = sim_spec((uint64_t)n_top, 5, 20);
        spec.logprobs = n_top;
        sim_submit(sim, &spec);
    }
    check(sim_run(sim));
    for (int32_t r = 0; r < sim_n_requests(sim); r++) {
        const struct sequence *seq = sim_request(sim, r)->sequences;
        const int32_t n_top = seq->params.n_top_logprobs;
        for (int32_t i = 0; i < sequence_n_generated(seq); i++) {
            const struct td_logprob *top = seq->top + i * n_top;
            assert_int_equal(seq->n_top[i], n_top);
            assert_true(seq->logprob[i] <= 0 && seq->logprob[i] > -20);
            for (int32_t j = 0; j < n_top; j++) {
                assert_true(j == 0 || top[j].logprob <= top[j - 1].logprob);
            }
            if (n_top > 0) { /* greedy: the first alternative is the token */
                assert_int_equal(top[0].id, seq->tokens[seq->request->n_prompt + i]);
                assert_memory_equal(&top[0].logprob, &seq->logprob[i], sizeof(float));
            }
        }
    }
    run_compare_close(sim);
}

static void case_40_counters(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.n_pages = 9;
    struct sim *sim = sim_open(&options);
    uint64_t generated = 0;
    for (uint64_t j = 0; j < 12; j++) {
        const struct sim_spec spec = sim_spec(j, 10 + (int32_t)j, 50);
        sim_submit(sim, &spec);
    }
    for (int32_t step = 0; scheduler_is_busy(sim_scheduler(sim)); step++) {
        check(sim_step(sim));
        if (step % 20 == 10 && step < 100) {
            sim_cancel(sim, step / 20);
        }
        const struct td_engine_stats stats = scheduler_stats(sim_scheduler(sim));
        assert_true(stats.running >= 0 && stats.waiting >= 0 && stats.pages_free >= 0);
        assert_int_equal(stats.pages_free + stats.pages_held + stats.pages_cached, stats.pages_total);
        assert_int_equal(stats.finished + (uint64_t)stats.running + (uint64_t)stats.waiting, 12);
    }
    const struct td_engine_stats stats = scheduler_stats(sim_scheduler(sim));
    for (int32_t r = 0; r < sim_n_requests(sim); r++) {
        generated += (uint64_t)sequence_n_generated(sim_request(sim, r)->sequences);
    }
    assert_int_equal(stats.committed_tokens, generated);
    assert_true(stats.cancelled > 0 && stats.cancelled <= 5 && stats.failed == 0);
    run_compare_close(sim);
}

/* ---- order ---- */
static void higher_priority_goes_first_and_equals_in_order(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.max_batch = 1;
    struct sim *sim = sim_open(&options);
    static const int32_t priority[] = { 0, 0, 5, -1, 5 }, order[] = { 2, 4, 0, 1, 3 };
    for (uint64_t j = 0; j < 5; j++) {
        struct sim_spec spec = sim_spec(j, 4, 3);
        spec.priority = priority[j];
        sim_submit(sim, &spec);
    }
    for (int j = 0; j < 5; j++) {
        const struct sequence *seq = sim_request(sim, order[j])->sequences;
        while (seq->state != SEQUENCE_FINISHED) {
            check(sim_step(sim));
            for (int k = j + 1; k < 5; k++) {
                assert_int_not_equal(sim_request(sim, order[k])->sequences[0].state, SEQUENCE_FINISHED);
            }
        }
    }
    run_compare_close(sim);
}

static void the_youngest_of_the_lowest_priority_gives_way(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.max_batch = 3;
    struct sim *sim = sim_open(&options);
    static const int32_t priority[] = { 1, 0, 2 };
    for (uint64_t j = 0; j < 3; j++) {
        struct sim_spec spec = sim_spec(j, 4, 20);
        spec.priority = priority[j];
        sim_submit(sim, &spec);
    }
    check(sim_step(sim));
    assert_true(scheduler_preempt_last(sim_scheduler(sim)));
    assert_int_equal(sim_request(sim, 1)->sequences[0].state, SEQUENCE_WAITING);
    assert_true(scheduler_preempt_last(sim_scheduler(sim)));
    assert_int_equal(sim_request(sim, 0)->sequences[0].state, SEQUENCE_WAITING);
    run_compare_close(sim);
}

/* ---- failures ---- */
static void nan_fails_its_own_sequence_only(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.nan_token = 1;
    struct sim *sim = sim_open(&options);
    struct sim_spec poisoned = sim_spec(1, 1, 20);
    poisoned.first_id = SIM_NAN + 1;
    const struct sim_spec healthy = sim_spec(2, 10, 6);
    sim_submit(sim, &healthy);
    sim_submit(sim, &poisoned);
    sim_submit(sim, &healthy);
    check(sim_run(sim));
    const struct sequence *failed = sim_request(sim, 1)->sequences;
    assert_int_equal(failed->ending, ENDING_ERROR);
    assert_int_equal(sequence_n_generated(failed), 0);
    assert_true(strlen(failed->error) > 10);
    assert_int_not_equal(sim_request(sim, 0)->sequences[0].ending, ENDING_ERROR);
    assert_int_not_equal(sim_request(sim, 2)->sequences[0].ending, ENDING_ERROR);
    run_compare_close(sim);
}

static void a_failing_device_fails_its_pass(void **state)
{
    (void)state;
    const struct sim_options options = sim_defaults();
    struct sim *sim = sim_open(&options);
    struct sim_spec spec = sim_spec(1, 10, 20);
    sim_submit(sim, &spec);
    check(sim_step(sim));
    sim_break_device(sim);
    check(sim_step(sim));
    const struct sequence *seq = sim_request(sim, 0)->sequences;
    assert_int_equal(seq->ending, ENDING_ERROR);
    assert_string_equal(seq->error, "the device has burnt down");
    const int32_t idx = sim_submit(sim, &spec);
    check(sim_run(sim));
    assert_int_equal(sim_request(sim, idx)->sequences[0].ending, ENDING_LENGTH);
    check(sim_is_empty(sim));
    sim_close(sim);
}

/* ---- memory ---- */
static void a_step_allocates_nothing(void **state)
{
    (void)state;
    struct sim_options options = sim_defaults();
    options.n_pages = 12; /* few: admission, preemption and eviction are among the steps */
    struct sim *sim = sim_open(&options);
    for (uint64_t j = 0; j < 10; j++) {
        struct sim_spec spec = sim_spec(j % 4, 30, 40);
        spec.temperature = j % 2 ? 0.9f : 0;
        spec.top_k = 10;
        spec.logprobs = 3;
        spec.n = 1 + (int32_t)(j % 3);
        sim_submit(sim, &spec);
    }
    const uint64_t before = mem_alloc_count();
    while (scheduler_is_busy(sim_scheduler(sim))) {
        scheduler_step(sim_scheduler(sim));
    }
    assert_int_equal(mem_alloc_count(), before);
    assert_true(scheduler_stats(sim_scheduler(sim)).preemptions > 0);
    run_compare_close(sim);
}

static void every_allocation_of_a_request_may_fail(void **state)
{
    (void)state;
    static const int32_t ids[] = { 3, 4, 5 }, eos = 2;
    static const struct td_bias biases[] = { { 9, 1 }, { 4, -1 } };
    const struct request_limits limits = { .n_vocab = SIM_VOCAB, .context = 64, .eos_ids = &eos, .n_eos = 1 };
    struct td_request asked;
    td_request_init(&asked);
    asked.ids = ids;
    asked.n_ids = 3;
    asked.biases = biases;
    asked.n_biases = 2;
    asked.logprobs = 2;
    asked.n = 3;
    uint64_t n_failed = 0;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        struct request *request;
        mem_fail_at(n);
        status = request_create(&limits, &asked, &request);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            request_destroy(request);
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_null(request);
            n_failed++;
        }
    }
    assert_true(n_failed > 8);
}

static void every_allocation_of_a_scheduler_may_fail(void **state)
{
    (void)state;
    const struct sim_options options = sim_defaults();
    struct sim *sim = sim_open(&options);
    const struct scheduler_options loop = sim_scheduler(sim)->options;
    enum status status = STATUS_NO_MEMORY;
    uint64_t n = 0;
    while (status != STATUS_OK) {
        struct scheduler *scheduler;
        mem_fail_at(++n);
        status = scheduler_create(&loop, &scheduler);
        mem_fail_at(0);
        assert_true(status == STATUS_OK ? scheduler != NULL : scheduler == NULL);
        scheduler_destroy(scheduler);
    }
    assert_true(n > 20);
    sim_close(sim);
}

/* ---- requests that cannot be ---- */
static void expect_refusal(const struct td_request *asked, enum status expected, const char *word)
{
    static const int32_t eos = 2;
    const struct request_limits limits = { .n_vocab = SIM_VOCAB, .context = 8, .eos_ids = &eos, .n_eos = 1 };
    struct request *request;
    assert_int_equal(request_create(&limits, asked, &request), expected);
    assert_null(request);
    if (strstr(status_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, status_message());
    }
}

static void impossible_requests_get_a_sentence(void **state)
{
    (void)state;
    static const int32_t good[] = { 1, 2, 3, 4, 5, 6, 7, 8 }, high[] = { 1, SIM_VOCAB }, low[] = { -1 };
    static const struct td_bias twice[] = { { 3, 1 }, { 3, 2 } };
    static const char *const stops[] = { "x" };
    struct td_request base, asked;
    td_request_init(&base);
    base.ids = good;
    base.n_ids = 3;
#define REFUSES(change, status, word)      \
    do {                                   \
        asked = base;                      \
        change;                            \
        expect_refusal(&asked, status, word); \
    } while (0)
    REFUSES(asked.n_ids = 0, STATUS_INVALID, "at least 1 token");
    REFUSES(asked.n_ids = 8, STATUS_INVALID, "the prompt has 8 tokens");
    REFUSES((asked.ids = high, asked.n_ids = 2), STATUS_INVALID, "61 at place 1");
    REFUSES((asked.ids = low, asked.n_ids = 1), STATUS_INVALID, "found -1");
    REFUSES(asked.temperature = -1, STATUS_INVALID, "temperature");
    REFUSES(asked.top_p = 2, STATUS_INVALID, "top_p");
    REFUSES(asked.n = 0, STATUS_INVALID, "choices");
    REFUSES(asked.n = 1 << 20, STATUS_INVALID, "choices");
    REFUSES(asked.logprobs = 21, STATUS_INVALID, "logprobs");
    REFUSES((asked.biases = twice, asked.n_biases = 2), STATUS_INVALID, "bias ids");
    REFUSES((asked.stop_ids = high, asked.n_stop_ids = 2), STATUS_INVALID, "stop ids");
    REFUSES((asked.stops = stops, asked.n_stops = 1), STATUS_UNSUPPORTED, "tokenizer");
#undef REFUSES
}

/* ---- proposals change nothing ---- */
static void drafts_change_nothing(void **state)
{
    (void)state;
    static const char *const patterns[] = { "0", "9", "01234", "990", "4", "123450", "a", "abc0", "b9c1" };
    for (int i = 0; i < 9; i++) {
        for (int32_t k = 1; k <= 5; k += 2) {
            struct sim_options options = options_of_page(16);
            options.draft_pattern = patterns[i];
            options.k_max = k;
            options.n_pages = 14;
            struct sim *sim = sim_open(&options);
            for (uint64_t j = 0; j < 6; j++) {
                struct sim_spec spec = sim_spec(j, 11 + (int32_t)j * 7, j % 2 ? 40 : -1);
                spec.temperature = j == 3 ? 0.5f : 0;
                spec.repetition_penalty = j == 4 ? 1.5f : 1;
                spec.ignore_eos = j % 3 == 0;
                sim_submit(sim, &spec);
            }
            run_compare_close(sim);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_06_prompts_around_pages_together),
        cmocka_unit_test(case_07_prompt_of_one_token),
        cmocka_unit_test(case_12_limits),
        cmocka_unit_test(case_17_cancel_at_any_point),
        cmocka_unit_test(case_18_two_cancels_and_a_join_with_shared_pages),
        cmocka_unit_test(case_19_preempt_and_resume),
        cmocka_unit_test(case_20_pool_exhausted_and_exact_minimum),
        cmocka_unit_test(case_22_prefix_ends_inside_a_page),
        cmocka_unit_test(case_23_fork_and_either_ends_first),
        cmocka_unit_test(case_25_identical_prompts_different_seeds),
        cmocka_unit_test(case_26_prompts_around_a_cached_key),
        cmocka_unit_test(case_27_eviction_while_others_run),
        cmocka_unit_test(case_31_chunks_beside_decoding_rows),
        cmocka_unit_test(case_33_tied_logits),
        cmocka_unit_test(case_34_first_and_last_id_are_ordinary),
        cmocka_unit_test(case_37_seeded_alone_batched_reordered_preempted),
        cmocka_unit_test(case_39_logprobs),
        cmocka_unit_test(case_40_counters),
        cmocka_unit_test(higher_priority_goes_first_and_equals_in_order),
        cmocka_unit_test(the_youngest_of_the_lowest_priority_gives_way),
        cmocka_unit_test(nan_fails_its_own_sequence_only),
        cmocka_unit_test(a_failing_device_fails_its_pass),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(every_allocation_of_a_request_may_fail),
        cmocka_unit_test(every_allocation_of_a_scheduler_may_fail),
        cmocka_unit_test(impossible_requests_get_a_sentence),
        cmocka_unit_test(drafts_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
