/* Where target and draft run changes nothing: one core each, shared cores, more threads than cores, with
 * and without lending. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/base.h"
#include "tests/engine_rig.h"

enum { N_PROMPT = 6, MAX_CPUS = 256, NAME_CAP = 32 };

static struct rig_results wanted, found;
static char first_core[NAME_CAP], last_core[NAME_CAP], both_cores[NAME_CAP]; /* "cpu:0", "cpu:1", "cpu:0,1" */
static int n_cpus;

static int find_cores(void **state)
{
    int cpus[MAX_CPUS], n_physical;
    (void)state;
    n_cpus = backend_cpu_list(cpus, MAX_CPUS, &n_physical);
    const int last = n_physical > 1 ? n_physical - 1 : n_cpus - 1;
    snprintf(first_core, sizeof first_core, "cpu:%d", cpus[0]);
    snprintf(last_core, sizeof last_core, "cpu:%d", cpus[last]);
    snprintf(both_cores, sizeof both_cores, "cpu:%d,%d", cpus[0], cpus[last]);
    return 0;
}

static void set_options(struct td_engine_options *options)
{
    rig_options(options);
    options->threads = 0;
    options->draft = "auto";
    options->k = 3;
    if (getenv("TANDEM_TEST_QUICK") != NULL) {
        options->target = "synth:pair=tiny,q8_0,draft=tiny,agree=0.7,seed=1";
    }
}

static void run(const struct td_engine_options *options, struct rig_results *results)
{
    static const int32_t ids[N_PROMPT] = { 1, 300, 41, 77, 120, 9 };
    struct td_request requests[2];
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < 2; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids;
        requests[i].n_ids = N_PROMPT;
        requests[i].max_tokens = 24;
        requests[i].temperature = i == 0 ? 0 : 0.8f;
        requests[i].has_seed = 1;
        requests[i].seed = 5;
        requests[i].ignore_eos = 1;
    }
    rig_run(engine, requests, 2, results);
    td_engine_close(engine);
}

static void expect_the_same(const struct td_engine_options *options)
{
    run(options, &found);
    assert_int_equal(found.n_results, wanted.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        rig_assert_same(&wanted.result[i], &found.result[i]);
        assert_int_equal(wanted.result[i].usage.drafted.proposed, found.result[i].usage.drafted.proposed);
        assert_int_equal(wanted.result[i].usage.drafted.accepted, found.result[i].usage.drafted.accepted);
    }
}

static void placement_changes_nothing(void **state)
{
    (void)state;
    const char *const targets[] = { NULL, "cpu", first_core, both_cores };
    const char *const drafts[] = { NULL, "cpu", first_core, last_core, both_cores };
    struct td_engine_options options;
    set_options(&options);
    options.max_batch = 2;
    run(&options, &wanted);
    assert_true(wanted.result[0].usage.drafted.accepted > 0);
    for (size_t t = 0; t < sizeof targets / sizeof targets[0]; t++) {
        for (size_t d = 0; d < sizeof drafts / sizeof drafts[0]; d++) {
            const int is_shared = n_cpus < 2 && (targets[t] == both_cores || drafts[d] == both_cores);
            for (int32_t lend = 0; lend < 2 && !is_shared; lend++) {
                options.target_device = targets[t];
                options.draft_device = drafts[d];
                options.lend = lend;
                expect_the_same(&options);
            }
        }
    }
}

/* A draft that works ahead has a thread of its own, and may have cores of its own, shared ones or lent
 * ones. How far it gets is a matter of time, the text is not. */
static void working_ahead_anywhere_writes_the_same(void **state)
{
    (void)state;
    const char *const targets[] = { NULL, first_core, both_cores };
    const char *const drafts[] = { NULL, first_core, last_core, both_cores };
    struct td_engine_options options;
    set_options(&options);
    options.max_batch = 2;
    options.ahead = "off";
    run(&options, &wanted);
    options.ahead = "on";
    for (int i = 0; i < 3 * 4 * 2; i++) {
        options.target_device = targets[i / 2 % 3];
        options.draft_device = drafts[i / 6];
        options.lend = i % 2;
        if (n_cpus < 2 && (options.target_device == both_cores || options.draft_device == both_cores)) {
            continue;
        }
        run(&options, &found);
        assert_int_equal(found.n_results, wanted.n_results);
        for (size_t r = 0; r < found.n_results; r++) {
            rig_assert_same(&wanted.result[r], &found.result[r]);
        }
    }
}

static void more_threads_than_cores(void **state)
{
    (void)state;
    struct td_engine_options options;
    set_options(&options);
    options.max_batch = 2;
    run(&options, &wanted);
    options.threads = n_cpus + 1;
    options.draft_device = last_core;
    expect_the_same(&options);
}

/* Threads of both, as the header's table says. */
static void unnamed_cores_are_what_is_left(void **state)
{
    int cpus[MAX_CPUS], n_physical;
    struct td_engine_options options;
    struct td_engine_info info;
    (void)state;
    backend_cpu_list(cpus, MAX_CPUS, &n_physical);
    const struct { const char *target, *draft; int32_t n_target, n_draft; } cases[] = {
        { NULL, NULL, n_physical, 0 },
        { NULL, last_core, n_physical > 1 ? n_physical - 1 : 1, 1 },
        { first_core, "cpu", 1, n_physical > 1 ? n_physical - 1 : 1 },
        { "cpu", "cpu", n_physical > 1 ? n_physical - (n_physical + 7) / 8 : 1, n_physical > 1 ? (n_physical + 7) / 8 : 1 },
        { first_core, first_core, 1, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_options(&options);
        options.ahead = "off";
        options.target_device = cases[i].target;
        options.draft_device = cases[i].draft;
        struct td_engine *engine = rig_open(&options);
        td_engine_get_info(engine, &info);
        td_engine_close(engine);
        assert_int_equal(info.threads, cases[i].n_target);
        assert_int_equal(info.draft_threads, cases[i].n_draft);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placement_changes_nothing),
        cmocka_unit_test(working_ahead_anywhere_writes_the_same),
        cmocka_unit_test(more_threads_than_cores),
        cmocka_unit_test(unnamed_cores_are_what_is_left),
    };
    return cmocka_run_group_tests(tests, find_cores, NULL);
}
