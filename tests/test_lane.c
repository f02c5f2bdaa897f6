/* lanes: order, every chunk exactly once, two lanes side by side, lending, a full ring, sleep and
 * wake, and the floating-point mode.
 */
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "backend/backend.h"

enum { N_CELLS = 64 };

struct cells_args { _Atomic int *count; int *value; int expected; _Atomic int *wrong; };

/* Each operation finds what the one before it left and moves it on by one. */
static void step_cell(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct cells_args *args = arguments;
    (void)worker;
    if (args->value[chunk] != args->expected) {
        atomic_fetch_add(args->wrong, 1);
    }
    args->value[chunk]++;
    atomic_fetch_add(args->count, 1);
}

static struct lane *make_lane(struct backend *backend, int n_workers, bool caller_is_worker)
{
    struct lane *lane;
    const struct lane_options options = { .n_workers = n_workers,
                                          .caller_is_worker = caller_is_worker };
    assert_int_equal(lane_create(backend, &options, &lane), STATUS_OK);
    return lane;
}

static struct backend *make_backend(void)
{
    struct backend *backend;
    assert_int_equal(backend_create("cpu", NULL, &backend), STATUS_OK);
    return backend;
}

/* 5000 operations overflow the ring several times. */
static void ordered(int n_workers, bool caller_is_worker)
{
    struct backend *backend = make_backend();
    struct lane *lane = make_lane(backend, n_workers, caller_is_worker);
    _Atomic int count = 0, wrong = 0;
    int value[N_CELLS] = { 0 };
    uint64_t ticket = 0;
    for (int i = 0; i < 5000; i++) {
        const struct cells_args args = { &count, value, i, &wrong };
        ticket = lane_submit(lane, step_cell, &args, sizeof args, N_CELLS);
    }
    lane_wait(lane, ticket);
    assert_true(lane_done(lane, ticket));
    assert_int_equal(atomic_load(&count), 5000 * N_CELLS);
    assert_int_equal(atomic_load(&wrong), 0);
    lane_destroy(lane);
    backend_destroy(backend);
}

static void test_order_one_worker(void **unused) { (void)unused; ordered(1, true); }
static void test_order_caller_and_one(void **unused) { (void)unused; ordered(2, true); }
static void test_order_own_threads(void **unused) { (void)unused; ordered(3, false); }

static void test_two_lanes_and_lending(void **unused)
{
    (void)unused;
    struct backend *backend = make_backend();
    struct lane *a = make_lane(backend, 1, true), *b = make_lane(backend, 2, false);
    lane_lend(b, a);
    _Atomic int count[2] = { 0 }, wrong = 0;
    int value[2][N_CELLS];
    memset(value, 0, sizeof value);
    for (int round = 0; round < 200; round++) {
        uint64_t ticket[2];
        for (int i = 0; i < 4; i++) {
            const struct cells_args to_a = { &count[0], value[0], round * 4 + i, &wrong };
            const struct cells_args to_b = { &count[1], value[1], round * 4 + i, &wrong };
            ticket[0] = lane_submit(a, step_cell, &to_a, sizeof to_a, N_CELLS);
            ticket[1] = lane_submit(b, step_cell, &to_b, sizeof to_b, N_CELLS);
        }
        lane_wait(a, ticket[0]);
        lane_wait(b, ticket[1]);
    }
    assert_int_equal(atomic_load(&count[0]), 800 * N_CELLS);
    assert_int_equal(atomic_load(&count[1]), 800 * N_CELLS);
    assert_int_equal(atomic_load(&wrong), 0);
    lane_destroy(b);
    lane_destroy(a);
    backend_destroy(backend);
}

struct helped_args { _Atomic int *by_guest; };

/* Long enough that an idle lane's worker comes to help. */
static void slow_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct helped_args *args = arguments;
    (void)chunk;
    const struct timespec nap = { 0, 2 * 1000 * 1000 };
    nanosleep(&nap, NULL);
    if (worker->idx == 1) { /* the borrowing lane has worker 0 only */
        atomic_fetch_add(args->by_guest, 1);
    }
}

struct alone_args { _Atomic int *by_guest; int64_t caller; };

static void other_thread_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct alone_args *args = arguments;
    (void)chunk;
    (void)worker;
    const struct timespec nap = { 0, 2 * 1000 * 1000 };
    nanosleep(&nap, NULL);
    if ((int64_t)pthread_self() != args->caller) {
        atomic_fetch_add(args->by_guest, 1);
    }
}

static void test_idle_cores_are_lent(void **unused)
{
    (void)unused;
    struct backend *backend = make_backend();
    struct lane *busy = make_lane(backend, 1, true), *idle = make_lane(backend, 2, false);
    lane_lend(idle, busy);
    _Atomic int by_guest = 0;
    const struct helped_args args = { &by_guest };
    lane_wait(busy, lane_submit(busy, slow_chunk, &args, sizeof args, 40));
    assert_true(atomic_load(&by_guest) > 0);
    lane_destroy(idle);
    lane_destroy(busy);
    backend_destroy(backend);
}

struct waiter { struct lane *lane; atomic_int until, is_back; };

static void *wait_and_help(void *arg)
{
    struct waiter *waiter = arg;
    lane_pin_caller(waiter->lane);
    lane_idle_until(waiter->lane, &waiter->until);
    atomic_store(&waiter->is_back, 1);
    return NULL;
}

/* Two lanes of a thread each that has nothing to do yet: both help, whichever is busy, and each is back
 * when it is called. */
static void test_waiting_threads_help(void **unused)
{
    (void)unused;
    struct backend *backend = make_backend();
    struct lane *target = make_lane(backend, 1, true), *draft = make_lane(backend, 1, true);
    struct waiter waiter = { .lane = draft };
    struct lane *lanes[] = { target, draft };
    pthread_t thread;
    _Atomic int by_guest = 0, count = 0, wrong = 0;
    int value[N_CELLS] = { 0 };
    lane_lend(target, draft);
    lane_lend(draft, target);
    assert_int_equal(pthread_create(&thread, NULL, wait_and_help, &waiter), 0);
    for (int i = 0; i < 2000; i++) {
        const struct cells_args args = { &count, value, i, &wrong };
        lane_wait(target, lane_submit(target, step_cell, &args, sizeof args, N_CELLS));
    }
    assert_int_equal(atomic_load(&count), 2000 * N_CELLS);
    assert_int_equal(atomic_load(&wrong), 0);
    const struct timespec nap = { 0, 5 * 1000 * 1000 }; /* long enough to fall asleep */
    for (int i = 0; i < 2; i++) {
        const int64_t caller = (int64_t)pthread_self();
        const struct alone_args args = { &by_guest, caller };
        lane_wait(target, lane_submit(target, other_thread_chunk, &args, sizeof args, 40));
        nanosleep(&nap, NULL);
    }
    assert_true(atomic_load(&by_guest) > 0);
    assert_false(atomic_load(&waiter.is_back));
    atomic_store(&waiter.until, 1);
    lane_wake(draft);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++) {
        lane_stop(lanes[i]);
    }
    for (int i = 0; i < 2; i++) {
        lane_destroy(lanes[i]);
    }
    backend_destroy(backend);
}

/* Workers that went to sleep are woken by the next operation. */
static void test_sleep_and_wake(void **unused)
{
    (void)unused;
    struct backend *backend = make_backend();
    struct lane *lane = make_lane(backend, 2, false);
    _Atomic int count = 0, wrong = 0;
    int value[N_CELLS] = { 0 };
    for (int i = 0; i < 5; i++) {
        const struct timespec nap = { 0, 5 * 1000 * 1000 };
        nanosleep(&nap, NULL);
        const struct cells_args args = { &count, value, i, &wrong };
        const int64_t before = clock_now_ns();
        lane_wait(lane, lane_submit(lane, step_cell, &args, sizeof args, N_CELLS));
        assert_true(clock_now_ns() - before < 2000 * 1000 * 1000LL);
    }
    assert_int_equal(atomic_load(&count), 5 * N_CELLS);
    assert_int_equal(atomic_load(&wrong), 0);
    lane_destroy(lane);
    backend_destroy(backend);
}

static void read_mode(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    _Atomic int *const *bad = arguments;
    (void)chunk;
    (void)worker;
    volatile float one = 1.0f, small = 1e-20f, tiny = 1.17549435e-38f, half = 0.5f;
    if (one + small != one || tiny * half == 0.0f) { /* rounded upwards; flushed to zero */
        atomic_fetch_add(*bad, 1);
    }
}

/* A host program that rounds upwards must not change a bit, and gets its mode back. */
static void test_float_mode(void **unused)
{
    (void)unused;
    struct backend *backend = make_backend();
    struct lane *lane = make_lane(backend, 2, true);
    _Atomic int bad = 0, *where = &bad;
    fesetround(FE_UPWARD);
    lane_wait(lane, lane_submit(lane, read_mode, &where, sizeof where, 16));
    assert_int_equal(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    assert_int_equal(atomic_load(&bad), 0);
    lane_destroy(lane);
    backend_destroy(backend);
}

static void test_cpu_list(void **unused)
{
    (void)unused;
    int cpus[64], n_physical = 0;
    const int n = backend_cpu_list(cpus, 64, &n_physical);
    assert_true(n >= 1 && n_physical >= 1 && n_physical <= n);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(cpus[i], cpus[j]);
        }
    }
}

static void test_refusals(void **unused)
{
    (void)unused;
    struct backend *backend;
    assert_int_equal(backend_create("cpu", "mmx", &backend), STATUS_UNSUPPORTED);
    assert_non_null(strstr(status_message(), "mmx"));
    assert_int_equal(backend_create("abacus", NULL, &backend), STATUS_UNSUPPORTED);
    backend = make_backend();
    for (uint64_t n = 1; n <= 4; n++) { /* every allocation of a lane fails once */
        struct lane *lane;
        const struct lane_options options = { .n_workers = 2, .caller_is_worker = true };
        mem_fail_at(n);
        assert_int_equal(lane_create(backend, &options, &lane), STATUS_NO_MEMORY);
    }
    mem_fail_at(0);
    backend_destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_one_worker),      cmocka_unit_test(test_order_caller_and_one),
        cmocka_unit_test(test_order_own_threads),     cmocka_unit_test(test_two_lanes_and_lending),
        cmocka_unit_test(test_idle_cores_are_lent),   cmocka_unit_test(test_waiting_threads_help),
        cmocka_unit_test(test_sleep_and_wake),
        cmocka_unit_test(test_float_mode),            cmocka_unit_test(test_cpu_list),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
