/* virtual_target: passes last as long as asked, and nothing else is different. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "target/target.h"
#include "tests/engine_rig.h"

/* ---- a target that is nothing but slow ---- */
struct slow_target { struct target base; int64_t pass_ns; int n_begun, n_ended, n_copied; };
static const float row[1] = { 1 };

static void slow_begin(struct target *base, const struct target_work *work)
{
    (void)work;
    ((struct slow_target *)base)->n_begun++;
}
static enum status slow_end(struct target *base, const float **logits)
{
    struct slow_target *target = (struct slow_target *)base;
    const int64_t begin_ns = clock_now_ns();
    while (clock_now_ns() - begin_ns < target->pass_ns) {
    }
    target->n_ended++;
    *logits = row;
    return target->pass_ns < 0 ? status_fail(STATUS_IO, "the device is gone") : STATUS_OK;
}
static void slow_copy(struct target *base, const struct kv_copy *copies, int32_t n)
{
    (void)copies;
    ((struct slow_target *)base)->n_copied += n;
}
static void slow_destroy(struct target *base) { (void)base; }
static const struct target_kind slow_kind = { "slow", slow_begin, slow_end, slow_copy, slow_destroy };

static int64_t time_pass(struct target *target, int32_t n_rows)
{
    const struct pass pass = { .n_rows = n_rows };
    const float *logits = NULL;
    const int64_t begin_ns = clock_now_ns();
    target->kind->begin(target, &(struct target_work){ .pass = &pass });
    assert_int_equal(target->kind->end(target, &logits), STATUS_OK);
    assert_ptr_equal(logits, row);
    return clock_now_ns() - begin_ns;
}

static void a_pass_lasts_as_long_as_asked(void **state)
{
    enum { MS = 1000000 };
    struct slow_target slow = { .base = { .kind = &slow_kind, .n_vocab = 1 } };
    struct target *target;
    (void)state;
    assert_int_equal(virtual_target_create(&(struct virtual_target_options){
        .behind = &slow.base, .pass_ns = 4 * MS, .row_ns = MS / 2 }, &target), STATUS_OK);
    assert_int_equal(target->n_vocab, 1);
    const int64_t one_ns = time_pass(target, 1), eight_ns = time_pass(target, 8);
    assert_true(one_ns >= 4.5 * MS && eight_ns >= 8 * MS);
    assert_int_equal(virtual_target_report(target).late, 0);
    slow.pass_ns = 10 * MS; /* more than a virtual pass of one row */
    assert_true(time_pass(target, 1) >= 10 * MS);
    assert_int_equal(virtual_target_report(target).late, 1);
    assert_int_equal(virtual_target_report(target).passes, 3);
    target->kind->copy(target, NULL, 3);
    assert_int_equal(slow.n_begun, 3);
    assert_int_equal(slow.n_ended, 3);
    assert_int_equal(slow.n_copied, 3);
    const float *logits;
    slow.pass_ns = -1;
    target->kind->begin(target, &(struct target_work){ .pass = &(struct pass){ .n_rows = 1 } });
    assert_int_equal(target->kind->end(target, &logits), STATUS_IO);
    target_destroy(target);
    assert_int_equal(virtual_target_report(&slow.base).passes, 0);
}

static void impossible_times_are_refused(void **state)
{
    struct slow_target slow = { .base = { .kind = &slow_kind } };
    struct target *target;
    (void)state;
    assert_int_equal(virtual_target_create(&(struct virtual_target_options){ .behind = &slow.base, .row_ns = -1 },
                                           &target), STATUS_INVALID);
    mem_fail_at(1);
    assert_int_equal(virtual_target_create(&(struct virtual_target_options){ .behind = &slow.base }, &target),
                     STATUS_NO_MEMORY);
    mem_fail_at(0);
}

/* ---- in an engine ---- */
static void run(int32_t pass_us, const char *ahead, struct rig_results *results)
{
    static const int32_t ids[] = { 1, 300, 41 };
    struct td_engine_options options;
    struct td_engine_stats stats;
    struct td_request request;
    rig_options(&options);
    options.target = "synth:pair=tiny,q8_0,draft=tiny,agree=0.7,seed=1";
    options.threads = 0;
    options.draft = "auto";
    options.ahead = ahead;
    options.k = 3;
    options.virtual_pass_us = pass_us;
    td_request_init(&request);
    request.ids = ids;
    request.n_ids = sizeof ids / sizeof ids[0];
    request.max_tokens = 32;
    request.ignore_eos = 1;
    struct td_engine *engine = rig_open(&options);
    rig_run(engine, &request, 1, results);
    td_engine_get_stats(engine, &stats);
    td_engine_close(engine);
    assert_true(pass_us == 0 || stats.pass_ns >= stats.target_passes * (uint64_t)pass_us * 1000);
    assert_true(pass_us > 0 || stats.late_passes == 0);
}

static void an_engine_writes_the_same(void **state)
{
    static struct rig_results plain, slowed;
    static const char *const whens[] = { "off", "on" };
    (void)state;
    run(0, "off", &plain);
    for (int i = 0; i < 2; i++) {
        run(3000, whens[i], &slowed);
        rig_assert_same(&plain.result[0], &slowed.result[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_lasts_as_long_as_asked),
        cmocka_unit_test(impossible_times_are_refused),
        cmocka_unit_test(an_engine_writes_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
