/* test_calibration: hints to acceptance. Sources that mean what they say, that say nothing, that are
 * sure of themselves and wrong; and hints that are no numbers. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/base.h"
#include "draft/calibration.h"

static float uniform(uint32_t seed, uint32_t idx)
{
    uint64_t x = ((uint64_t)seed << 32 | idx) * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return (float)((x ^ x >> 31) >> 40) * 0x1p-24f;
}

/* Acceptance as a function of the hint. */
typedef float truth_function(float hint);
static float as_said(float hint) { return hint; }
static float always(float hint) { (void)hint; return 1.0f; }
static float seldom(float hint) { (void)hint; return 0.2f; }
static float the_reverse(float hint) { return 1.0f - hint; }
static float a_step(float hint) { return hint < 0.5f ? 0.1f : 0.9f; }

static void feed(struct calibration *calibration, truth_function *truth, uint32_t seed, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const float hint = uniform(seed, 2 * i);
        calibration_observe(calibration, hint, uniform(seed, 2 * i + 1) < truth(hint));
    }
}

/* Largest error over the hints. */
static double worst_error(const struct calibration *calibration, truth_function *truth)
{
    double worst = 0.0;
    for (int32_t i = 0; i < CALIBRATION_BUCKETS; i++) {
        const float hint = ((float)i + 0.5f) / CALIBRATION_BUCKETS;
        worst = fmax(worst, fabs((double)calibration_survival(calibration, hint) - (double)truth(hint)));
    }
    return worst;
}

static void a_fresh_one_believes_the_hint(void **state)
{
    (void)state;
    struct calibration calibration, zeros = { .all_seen = 0.0f };
    calibration_init(&calibration);
    assert_memory_equal(&calibration, &zeros, sizeof zeros);
    assert_true(worst_error(&calibration, as_said) < 0.03);
    for (int32_t i = 0; i < 100; i++) {
        assert_true(calibration_survival(&calibration, (float)i / 100.0f) <=
                    calibration_survival(&calibration, (float)(i + 1) / 100.0f));
    }
}

static void learns_what_hints_mean(void **state)
{
    static truth_function *const truths[] = { as_said, always, seldom, the_reverse, a_step };
    (void)state;
    for (size_t t = 0; t < sizeof truths / sizeof truths[0]; t++) {
        struct calibration calibration;
        calibration_init(&calibration);
        feed(&calibration, truths[t], (uint32_t)t + 1, 8000);
        const double error = worst_error(&calibration, truths[t]);
        print_message("truth %zu, after 8000: off by %.3f at most\n", t, error);
        assert_true(error < 0.1);
    }
}

/* Hints that say nothing, all tokens right: 40 tokens are under three a bucket, and enough. */
static void empty_hints_are_found_out_early(void **state)
{
    (void)state;
    struct calibration calibration;
    calibration_init(&calibration);
    feed(&calibration, always, 9, 40);
    assert_true(worst_error(&calibration, always) < 0.25);
    calibration_init(&calibration);
    feed(&calibration, as_said, 9, 40); /* and good ones are not given up for chance */
    assert_true(worst_error(&calibration, as_said) < 0.3);
}

static void follows_a_change(void **state)
{
    (void)state;
    struct calibration calibration;
    calibration_init(&calibration);
    for (int32_t i = 0; i < 2000; i++) {
        calibration_observe(&calibration, 0.9f, 1);
    }
    assert_true(calibration_survival(&calibration, 0.9f) > 0.98f);
    for (int32_t i = 0; i < 800; i++) {
        calibration_observe(&calibration, 0.9f, 0);
    }
    assert_true(calibration_survival(&calibration, 0.9f) < 0.1f);
}

static void stays_within_bounds(void **state)
{
    static const float strange[] = { NAN, INFINITY, -INFINITY, -1.0f, 2.0f, 1e30f, 0.0f, 1.0f };
    (void)state;
    struct calibration calibration;
    calibration_init(&calibration);
    for (int32_t round = 0; round < 3000; round++) {
        for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
            const float survival = calibration_survival(&calibration, strange[i]);
            assert_true(survival > 0.0f && survival < 1.0f);
            calibration_observe(&calibration, strange[i], round < 1000 || (round < 2000 && i % 2 == 0));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_one_believes_the_hint),
        cmocka_unit_test(learns_what_hints_mean),
        cmocka_unit_test(empty_hints_are_found_out_early),
        cmocka_unit_test(follows_a_change),
        cmocka_unit_test(stays_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
