/* test_verify: the coupled rule on every proposal and every answer of up to four tokens. */
#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "verify/verify.h"

enum { MAX_K = 4, N_TOKENS = 3 };

/* Digits of `code` in base N_TOKENS. */
static void tokens_of(int32_t code, int32_t n, int32_t *token)
{
    for (int32_t i = 0; i < n; i++, code /= N_TOKENS) {
        token[i] = code % N_TOKENS;
    }
}

static int32_t power(int32_t n)
{
    return n == 0 ? 1 : N_TOKENS * power(n - 1);
}

/* Said differently: k is the largest number such that the first k agree. */
static int32_t longest_agreement(const int32_t *proposed, int32_t n, const int32_t *target)
{
    for (int32_t k = n; k > 0; k--) {
        int32_t equal = 0;
        for (int32_t i = 0; i < k; i++) {
            equal += proposed[i] == target[i];
        }
        if (equal == k) {
            return k;
        }
    }
    return 0;
}

static void coupled_exhaustively(void **state)
{
    (void)state;
    for (int32_t k = 0; k <= MAX_K; k++) {
        for (int32_t p = 0; p < power(k); p++) {
            for (int32_t t = 0; t < power(k + 1); t++) {
                int32_t proposed[MAX_K] = { 0 }, target[MAX_K + 1];
                tokens_of(p, k, proposed);
                tokens_of(t, k + 1, target);
                const struct verify_outcome outcome = verify_coupled(proposed, k, target);
                const int32_t expected = longest_agreement(proposed, k, target);
                assert_int_equal(outcome.n_accepted, expected);
                assert_int_equal(outcome.recovery_token, target[expected]);
            }
        }
    }
}

/* What is committed is what the target alone would have written, whatever was proposed: the
 * accepted tokens and the recovery token are a prefix of the target's choices. */
static void commits_the_targets_text(void **state)
{
    (void)state;
    for (int32_t p = 0; p < power(MAX_K); p++) {
        for (int32_t t = 0; t < power(MAX_K + 1); t++) {
            int32_t proposed[MAX_K], target[MAX_K + 1];
            tokens_of(p, MAX_K, proposed);
            tokens_of(t, MAX_K + 1, target);
            const struct verify_outcome outcome = verify_coupled(proposed, MAX_K, target);
            for (int32_t i = 0; i < outcome.n_accepted; i++) {
                assert_int_equal(proposed[i], target[i]);
            }
            assert_int_equal(outcome.recovery_token, target[outcome.n_accepted]);
        }
    }
}

static void proposes_nothing(void **state)
{
    (void)state;
    const int32_t target = 7;
    const struct verify_outcome outcome = verify_coupled(NULL, 0, &target);
    assert_int_equal(outcome.n_accepted, 0);
    assert_int_equal(outcome.recovery_token, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coupled_exhaustively),
        cmocka_unit_test(commits_the_targets_text),
        cmocka_unit_test(proposes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
