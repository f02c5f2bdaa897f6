/* The cases of a ragged batch that concern pages, at K = 0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kv_sim.h"

static void case_06_prompts_around_a_page(void **state)
{
    (void)state;
    static const int32_t lens[5] = {1, SLOTS - 1, SLOTS, SLOTS + 1, 10 * SLOTS};
    int32_t tokens[5][10 * SLOTS + 1];
    struct kv_sim cache = kv_sim_open(24, 5);
    for (int32_t i = 0; i < 5; i++) {
        kv_sim_tokens(tokens[i], 10 * SLOTS + 1, 100 * i);
        kv_sim_prefill(&cache, i, 0, tokens[i], lens[i]);
        kv_sim_publish(&cache, i, 0, tokens[i]);
    }
    for (int32_t i = 0; i < 5; i++) { /* one decoding step each, all beside each other */
        struct kv_table *table = cache.tables[i];
        assert_int_equal(kv_table_reserve(table, lens[i] + 1), STATUS_OK);
        kv_table_commit(table, 1);
        kv_sim_write(&cache, table, tokens[i], lens[i], lens[i] + 1);
        kv_table_set_cached(table, lens[i] + 1);
    }
    for (int32_t i = 0; i < 5; i++) {
        kv_sim_assert_content(&cache, cache.tables[i], tokens[i]);
        int32_t n_pages = 0;
        (void)kv_table_pages(cache.tables[i], &n_pages);
        assert_int_equal(n_pages, (lens[i] + 1 + SLOTS - 1) / SLOTS);
    }
    kv_sim_close(&cache);
}

static void case_20_exhausted_and_exact_minimum_pool(void **state)
{
    (void)state;
    int32_t tokens[16];
    kv_sim_tokens(tokens, 16, 1);
    struct kv_sim cache = kv_sim_open(4, 2);
    kv_sim_prefill(&cache, 0, 0, tokens, 15); /* 16 slots with the next token: exactly the pool */
    kv_sim_assert_counts(&cache, 0, 4, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    assert_non_null(strstr(status_message(), "0 of 4"));
    assert_int_equal(kv_table_reserve(cache.tables[0], 17), STATUS_REFUSED);
    assert_int_equal(kv_table_reserved_len(cache.tables[0]), 16);
    kv_table_trim(cache.tables[0], 15);
    kv_sim_assert_counts(&cache, 0, 4, 0);
    kv_table_rollback(cache.tables[0], 5);
    kv_table_trim(cache.tables[0], 5);
    kv_sim_assert_counts(&cache, 2, 2, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 3 * SLOTS), STATUS_REFUSED);
    kv_sim_assert_counts(&cache, 2, 2, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 2 * SLOTS), STATUS_OK);
    kv_sim_assert_content(&cache, cache.tables[0], tokens);
    kv_sim_close(&cache);
}

static void case_22_two_share_prefix_mid_page(void **state)
{
    (void)state;
    int32_t left[20], right[20];
    kv_sim_tokens(left, 20, 1);
    memcpy(right, left, sizeof left);
    for (int32_t i = 10; i < 20; i++) {
        right[i] = 500 + i; /* same for two pages and a half */
    }
    struct kv_sim cache = kv_sim_open(16, 2);
    kv_sim_prefill(&cache, 0, 0, left, 13);
    kv_sim_publish(&cache, 0, 0, left);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, right, 13), 8);
    for (int32_t n = 13; n < 20; n++) {
        for (int32_t i = 0; i < 2; i++) {
            const int32_t *tokens = i == 0 ? left : right;
            assert_int_equal(kv_table_reserve(cache.tables[i], n + 1), STATUS_OK);
            kv_table_commit(cache.tables[i], 1);
            assert_int_equal(kv_sim_write(&cache, cache.tables[i], tokens, n, n + 1), 0);
            kv_table_set_cached(cache.tables[i], n + 1);
            kv_sim_publish(&cache, i, 0, tokens);
        }
        kv_sim_assert_content(&cache, cache.tables[0], left);
        kv_sim_assert_content(&cache, cache.tables[1], right);
    }
    kv_sim_assert_counts(&cache, 8, 8, 0); /* 2 shared, 3 each alone */
    kv_sim_close(&cache);
}

static void fork_and_end(int32_t first_to_end)
{
    int32_t tokens[2][16];
    kv_sim_tokens(tokens[0], 16, 1);
    kv_sim_tokens(tokens[1], 16, 1);
    for (int32_t i = 10; i < 16; i++) {
        tokens[1][i] = 700 + i;
    }
    struct kv_sim cache = kv_sim_open(8, 2);
    kv_sim_prefill(&cache, 0, 0, tokens[0], 10);
    assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_OK);
    for (int32_t n = 10; n < 13; n++) {
        for (int32_t i = 0; i < 2; i++) {
            assert_int_equal(kv_table_reserve(cache.tables[i], n + 1), STATUS_OK);
            kv_table_commit(cache.tables[i], 1);
            kv_sim_write(&cache, cache.tables[i], tokens[i], n, n + 1);
            kv_table_set_cached(cache.tables[i], n + 1);
        }
        kv_sim_assert_content(&cache, cache.tables[0], tokens[0]);
        kv_sim_assert_content(&cache, cache.tables[1], tokens[1]);
    }
    kv_sim_assert_counts(&cache, 2, 6, 0);
    const int32_t other = 1 - first_to_end;
    kv_table_clear(cache.tables[first_to_end]);
    kv_sim_assert_counts(&cache, 4, 4, 0);
    kv_sim_assert_content(&cache, cache.tables[other], tokens[other]);
    /* its place and pages are used again at once */
    kv_sim_prefill(&cache, first_to_end, 0, tokens[0] + 3, 12);
    kv_sim_assert_content(&cache, cache.tables[other], tokens[other]);
    kv_table_clear(cache.tables[other]);
    kv_sim_assert_counts(&cache, 4, 4, 0);
    kv_sim_close(&cache);
}

static void case_23_fork_parent_ends_first(void **state)
{
    (void)state;
    fork_and_end(0);
}

static void case_23_fork_child_ends_first(void **state)
{
    (void)state;
    fork_and_end(1);
}

static void case_26_prompt_is_a_cached_key_plus_one(void **state)
{
    (void)state;
    int32_t tokens[13];
    kv_sim_tokens(tokens, 13, 1);
    struct kv_sim cache = kv_sim_open(16, 2);
    kv_sim_remember(&cache, 0, tokens, 8);
    /* of the key itself the last token must be computed */
    assert_int_equal(kv_sim_prefill(&cache, 0, 0, tokens, 8), 4);
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_sim_prefill(&cache, 0, 0, tokens, 9), 8);
    kv_sim_close(&cache);
}

/* Rows of rejected tokens fill a page to its end; they are not what the page is known by. */
static void case_26_prompt_is_committed_plus_rejected_tokens(void **state)
{
    (void)state;
    int32_t committed[12], guessed[12];
    kv_sim_tokens(committed, 12, 1);
    kv_sim_tokens(guessed, 12, 1);
    committed[6] = 50;
    committed[7] = 51;
    struct kv_sim cache = kv_sim_open(16, 2);
    struct kv_table *table = cache.tables[0];
    kv_sim_prefill(&cache, 0, 0, committed, 5);
    kv_table_commit(table, 1);
    assert_int_equal(kv_table_reserve(table, 12), STATUS_OK);
    kv_table_propose(table, 3);
    kv_sim_write(&cache, table, guessed, 5, 9); /* 6, 7, 8 will be rejected */
    kv_table_commit(table, 1);
    kv_table_set_cached(table, 6);
    kv_sim_publish(&cache, 0, 0, committed);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, guessed, 12), 4);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_table_reserve(table, 10), STATUS_OK);
    kv_table_commit(table, 2);
    kv_sim_write(&cache, table, committed, 6, 9);
    kv_table_set_cached(table, 9);
    kv_sim_publish(&cache, 0, 0, committed);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, guessed, 12), 4);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, committed, 12), 8);
    kv_sim_close(&cache);
}

static void case_27_eviction_during_a_pass(void **state)
{
    (void)state;
    int32_t read[9], old[9];
    kv_sim_tokens(read, 9, 100);
    kv_sim_tokens(old, 9, 200);
    struct kv_sim cache = kv_sim_open(6, 3);
    kv_sim_remember(&cache, 0, old, 8);
    kv_sim_prefill(&cache, 0, 0, read, 8);
    kv_sim_publish(&cache, 0, 0, read);
    kv_table_trim(cache.tables[0], 8);
    kv_sim_assert_counts(&cache, 2, 2, 2);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]); /* cancelled while its pages are read */
    kv_sim_assert_counts(&cache, 2, 2, 2);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_REFUSED);
    assert_int_equal(kv_table_reserve(cache.tables[1], 4 * SLOTS), STATUS_OK); /* old is evicted */
    for (int32_t i = 0; i < 4 * SLOTS; i++) {
        cache.content[kv_table_slot(cache.tables[1], i)] = 0;
    }
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, read, 9, cache.tables[2]), 8);
    kv_sim_assert_content(&cache, cache.tables[2], read);
    kv_table_clear(cache.tables[2]);
    kv_sim_assert_counts(&cache, 0, 6, 0);
    kv_pool_pass_end(cache.pool);
    kv_sim_assert_counts(&cache, 0, 4, 2);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_OK);
    kv_sim_close(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_06_prompts_around_a_page),
        cmocka_unit_test(case_20_exhausted_and_exact_minimum_pool),
        cmocka_unit_test(case_22_two_share_prefix_mid_page),
        cmocka_unit_test(case_23_fork_parent_ends_first),
        cmocka_unit_test(case_23_fork_child_ends_first),
        cmocka_unit_test(case_26_prompt_is_a_cached_key_plus_one),
        cmocka_unit_test(case_26_prompt_is_committed_plus_rejected_tokens),
        cmocka_unit_test(case_27_eviction_during_a_pass),
    };
    return cmocka_run_group_tests_name("kv_cases", tests, NULL, NULL);
}
