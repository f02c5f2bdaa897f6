/* automaton: against a plain reading of what it promises, on random texts of few letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "draft/automaton.h"

enum { MAX_TEXT = 200, LETTERS = 3 };

static void random_text(uint64_t seed, int32_t *text, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        text[i] = (int32_t)(rng_mix64(seed * 1000 + (uint64_t)i) % LETTERS);
    }
}

/* Ends (exclusive) of the places in text[0..n) where the m tokens stand. */
static int32_t find(const int32_t *text, int32_t n, const int32_t *what, int32_t m, int32_t *ends)
{
    int32_t n_found = 0;
    for (int32_t i = 0; i + m <= n; i++) {
        if (memcmp(text + i, what, (size_t)m * sizeof *what) == 0) {
            ends[n_found++] = i + m;
        }
    }
    return n_found;
}

static void repeats_are_the_longest(void **state)
{
    (void)state;
    int32_t text[MAX_TEXT], ends[MAX_TEXT];
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct automaton *a;
        assert_int_equal(automaton_create(MAX_TEXT, &a), STATUS_OK);
        random_text(seed, text, MAX_TEXT);
        for (int32_t n = 1; n <= MAX_TEXT; n++) {
            int32_t longest = n - 1;
            assert_true(automaton_append(a, text[n - 1]));
            while (longest > 0 && find(text, n, text + n - longest, longest, ends) < 2) {
                longest--;
            }
            assert_int_equal(automaton_repeat(a).len, longest);
        }
        automaton_destroy(a);
    }
}

static void matches_of_another_text_are_the_longest(void **state)
{
    (void)state;
    int32_t text[MAX_TEXT], other[MAX_TEXT], ends[MAX_TEXT];
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct automaton *a;
        struct automaton_match match = { 0, 0 };
        assert_int_equal(automaton_create(MAX_TEXT, &a), STATUS_OK);
        random_text(seed, text, 60);
        random_text(seed + 100, other, MAX_TEXT);
        for (int32_t i = 0; i < 60; i++) {
            automaton_append(a, text[i]);
        }
        for (int32_t n = 1; n <= MAX_TEXT; n++) {
            int32_t longest = n;
            automaton_advance(a, &match, other[n - 1]);
            while (longest > 0 && find(text, 60, other + n - longest, longest, ends) == 0) {
                longest--;
            }
            assert_int_equal(match.len, longest);
        }
        automaton_destroy(a);
    }
}

/* What followed a repeated suffix most often; shares are exact while contexts are few. */
static void next_is_what_followed_most_often(void **state)
{
    (void)state;
    int32_t text[MAX_TEXT], ends[MAX_TEXT];
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct automaton *a;
        assert_int_equal(automaton_create(MAX_TEXT, &a), STATUS_OK);
        random_text(seed, text, MAX_TEXT);
        for (int32_t n = 1; n < MAX_TEXT; n++) {
            struct automaton_next next[2];
            int32_t followers[LETTERS] = { 0 }, most = 0, total = 0;
            automaton_append(a, text[n - 1]);
            const struct automaton_match match = automaton_repeat(a);
            const int32_t n_found = find(text, n - 1, text + n - match.len, match.len, ends);
            for (int32_t i = 0; i < n_found; i++) {
                total++;
                most = ++followers[text[ends[i]]] > most ? followers[text[ends[i]]] : most;
            }
            const int32_t n_next = automaton_next(a, match.state, next);
            assert_true(n_next >= 1 || total == 0);
            if (n_next >= 1) {
                assert_int_equal(followers[next[0].token], most);
                assert_true(next[0].share > 0.999f * (float)most / (float)total &&
                            next[0].share < 1.001f * (float)most / (float)total);
            }
            if (n_next == 2) {
                assert_int_not_equal(next[0].token, next[1].token);
                assert_true(next[1].share <= next[0].share);
            }
        }
        automaton_destroy(a);
    }
}

/* A text after a break is not joined to the one before it. */
static void texts_stay_apart(void **state)
{
    (void)state;
    static const int32_t first[] = { 1, 2, 3 }, second[] = { 4, 5, 1, 2, 6 }, joined[] = { 3, 4 };
    struct automaton *a;
    struct automaton_match match = { 0, 0 };
    struct automaton_next next[2];
    assert_int_equal(automaton_create(16, &a), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        automaton_append(a, first[i]);
    }
    automaton_break(a);
    for (int i = 0; i < 5; i++) {
        automaton_append(a, second[i]);
    }
    automaton_advance(a, &match, joined[0]);
    automaton_advance(a, &match, joined[1]);
    assert_int_equal(match.len, 1);
    match = (struct automaton_match){ 0, 0 };
    automaton_advance(a, &match, 1);
    automaton_advance(a, &match, 2);
    assert_int_equal(automaton_next(a, match.state, next), 2); /* 3 and 6, once each */
    assert_int_equal(next[0].token + next[1].token, 9);
    automaton_clear(a);
    assert_int_equal(automaton_n_tokens(a), 0);
    assert_int_equal(automaton_next(a, 0, next), 0);
    automaton_destroy(a);
}

/* Memory never grows: what does not fit is refused and changes nothing. Periods are the worst case. */
static void full_is_refused(void **state)
{
    (void)state;
    for (int32_t period = 1; period <= 7; period += 2) {
        struct automaton *a;
        int32_t n = 0;
        assert_int_equal(automaton_create(1000, &a), STATUS_OK);
        while (automaton_append(a, n % period)) {
            n++;
        }
        assert_int_equal(n, 1000);
        assert_int_equal(automaton_n_tokens(a), 1000);
        assert_int_equal(automaton_repeat(a).len, 1000 - period);
        assert_false(automaton_append(a, 0));
        assert_int_equal(automaton_repeat(a).len, 1000 - period);
        automaton_destroy(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeats_are_the_longest),
        cmocka_unit_test(matches_of_another_text_are_the_longest),
        cmocka_unit_test(next_is_what_followed_most_often),
        cmocka_unit_test(texts_stay_apart),
        cmocka_unit_test(full_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
