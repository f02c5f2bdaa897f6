/* The emulation of device code: it finds what is planted, and sound kernels pass in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "tests/simt/planted.h"
#include "tests/simt/simt.h"

enum { N = PLANTED_THREADS, N_BLOCKS = 5 };

static void set_backward(int backward)
{
    const enum simt_order order = backward ? SIMT_BACKWARD : SIMT_FORWARD;
    simt_set_order(order, order);
}

static void a_sound_kernel_passes(void **state)
{
    (void)state;
    for (int backward = 0; backward < 2; backward++) {
        uint32_t out[N];
        set_backward(backward);
        assert_int_equal(planted_run(PLANTED_NONE, out), 0);
        assert_null(simt_take_error());
        for (uint32_t i = 0; i < N; i++) {
            const uint32_t first = i / 32 * 32;
            assert_int_equal(out[i], N - 1 - i + 32 * first + 31 * 32 / 2);
        }
    }
}

static void each_fault_is_found_and_named(void **state)
{
    static const char *const said[PLANTED_N_FAULTS] = {
        [PLANTED_BARRIER_MISSED] = "barrier",
        [PLANTED_BARRIER_OTHER] = "at that of line",
        [PLANTED_BARRIER_RETURNED] = "32 that ended",
        [PLANTED_OVERFLOW] = "element 64 of 64",
        [PLANTED_BELOW] = "element 4294967295 of 64",
        [PLANTED_DYNAMIC_OVERFLOW] = "element 64 of 64",
        [PLANTED_LANE_ABSENT] = "lane 8, which has ended",
        [PLANTED_LANE_OUTSIDE] = "lane 5 is not in the mask ffff0000",
        [PLANTED_SOURCE_OUTSIDE] = "which is not in the mask 0000ffff",
        [PLANTED_MASKS_DIFFER] = "mask",
        [PLANTED_TOO_MUCH_SHARED] = "of shared memory",
        [PLANTED_TOO_MANY_THREADS] = "1025 threads",
    };
    (void)state;
    for (int backward = 0; backward < 2; backward++) {
        set_backward(backward);
        for (int fault = PLANTED_NONE + 1; fault < PLANTED_N_FAULTS; fault++) {
            uint32_t out[N] = { 0 };
            assert_int_not_equal(planted_run((enum planted_fault)fault, out), 0);
            const char *error = simt_take_error();
            assert_non_null(error);
            if (strstr(error, said[fault]) == NULL) {
                fail_msg("fault %d: expected '%s' in '%s'", fault, said[fault], error);
            }
        }
        uint32_t out[N]; /* and nothing of it stays */
        assert_int_equal(planted_run(PLANTED_NONE, out), 0);
        assert_null(simt_take_error());
    }
}

static void a_missing_barrier_shows_in_the_order_of_threads(void **state)
{
    uint32_t forward[N_BLOCKS * N], backward[N_BLOCKS * N];
    (void)state;
    for (int barrier = 0; barrier < 2; barrier++) {
        set_backward(0);
        assert_int_equal(planted_race(barrier, N_BLOCKS, forward), 0);
        set_backward(1);
        assert_int_equal(planted_race(barrier, N_BLOCKS, backward), 0);
        assert_null(simt_take_error());
        assert_int_equal(memcmp(forward, backward, sizeof forward) == 0, barrier);
        for (uint32_t i = 0; barrier && i < N_BLOCKS * N; i++) {
            assert_int_equal(forward[i], i / N * N + N - 1 - i % N);
        }
    }
}

static void what_depends_on_the_order_of_blocks_shows(void **state)
{
    (void)state;
    for (int note = 0; note < 2; note++) {
        uint32_t out[2][N_BLOCKS], count[2] = { 0, 0 };
        for (int backward = 0; backward < 2; backward++) {
            set_backward(backward);
            assert_int_equal(planted_blocks(note, N_BLOCKS, &count[backward], out[backward]), 0);
        }
        assert_int_equal(count[0], N_BLOCKS * (N_BLOCKS + 1) / 2);
        assert_int_equal(count[1], count[0]);
        assert_int_equal(memcmp(out[0], out[1], sizeof out[0]) != 0, note);
    }
}

static void shared_memory_begins_as_nan(void **state)
{
    float out[N];
    (void)state;
    assert_int_equal(planted_unwritten(out), 0);
    for (int i = 0; i < N; i++) {
        assert_true(out[i] != out[i]);
    }
}

static void a_matrix_product_is_exact(void **state)
{
    int8_t a[16 * 32], b[8 * 32];
    int32_t out[16 * 8];
    (void)state;
    for (uint32_t i = 0; i < sizeof a; i++) {
        a[i] = (int8_t)(rng_mix64(i) >> 56);
    }
    for (uint32_t i = 0; i < sizeof b; i++) {
        b[i] = (int8_t)(rng_mix64(1000 + i) >> 56);
    }
    assert_int_equal(planted_mma(a, b, out), 0);
    assert_null(simt_take_error());
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            int32_t sum = 0;
            for (int k = 0; k < 32; k++) {
                sum += a[row * 32 + k] * b[column * 32 + k];
            }
            assert_int_equal(out[row * 8 + column], sum);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_kernel_passes),
        cmocka_unit_test(each_fault_is_found_and_named),
        cmocka_unit_test(a_missing_barrier_shows_in_the_order_of_threads),
        cmocka_unit_test(what_depends_on_the_order_of_blocks_shows),
        cmocka_unit_test(shared_memory_begins_as_nan),
        cmocka_unit_test(a_matrix_product_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
