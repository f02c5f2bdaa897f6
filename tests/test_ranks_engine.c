/* ranks, under the engine: rank 0's engine runs requests on a model that ranks hold together, and every
 * request has the text and digest it has on a model that is whole: any draft, prompts in chunks, choices
 * that part and copy pages, branches. Engines may follow each other in one group.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/scheduler.h"
#include "tests/comm_threads.h"
#include "tests/engine_rig.h"

enum { N_REQUESTS = 4, PROMPT = 40, TOKENS = 24 };

static int32_t prompts[N_REQUESTS][PROMPT];
static struct td_request requests[N_REQUESTS];
static struct rig_results alone, together;
static uint64_t n_page_copies; /* of rank 0's first engine */

/* Repeating prompts, so that lookups guess; one request has three choices. */
static void make_requests(void)
{
    for (int i = 0; i < N_REQUESTS; i++) {
        for (int j = 0; j < PROMPT; j++) {
            prompts[i][j] = 3 + (int32_t)(rng_mix64((uint64_t)(i / 2 * 100 + j % 9)) % 200);
        }
        td_request_init(&requests[i]);
        requests[i].ids = prompts[i];
        requests[i].n_ids = (size_t)(PROMPT - 9 * i);
        requests[i].max_tokens = TOKENS;
        requests[i].temperature = i == 1 ? 0.8f : 0;
        requests[i].n = i == 1 ? 3 : 1;
        requests[i].has_seed = 1;
        requests[i].seed = (uint64_t)i;
        requests[i].ignore_eos = 1;
    }
}

struct scene { const char *target, *draft; int32_t k; };

static void set_options(const struct scene *scene, struct td_engine_options *options)
{
    rig_options(options);
    options->target = scene->target;
    options->draft = scene->draft;
    options->k = scene->k;
    options->context = 128;
    options->page = 16;
    options->prefill_chunk = 7;
    options->max_batch = 4;
}

static void run_rank(struct comm *comm, void *user)
{
    struct td_engine_options options;
    struct td_ranks *ranks;
    set_options(user, &options);
    assert_int_equal(ranks_create(comm, &ranks), STATUS_OK);
    options.ranks = ranks;
    if (comm->rank > 0) {
        assert_int_equal(td_engine_follow(&options), TD_OK);
    } else {
        for (int round = 0; round < 2; round++) { /* a second engine finds followers waiting */
            struct td_engine *engine = rig_open(&options);
            struct td_engine_stats stats;
            rig_run(engine, requests, round == 0 ? N_REQUESTS : 1, &together);
            td_engine_get_stats(engine, &stats);
            n_page_copies = round == 0 ? stats.page_copies : n_page_copies;
            td_engine_close(engine);
            for (size_t i = 0; i < together.n_results; i++) {
                rig_assert_same(&alone.result[i], &together.result[i]);
                assert_true(together.result[i].usage.fingerprint == alone.result[i].usage.fingerprint);
            }
        }
    }
    td_ranks_leave(ranks);
}

static void check_scene(const struct scene *scene, int32_t n_ranks)
{
    struct td_engine_options options;
    set_options(scene, &options);
    struct td_engine *engine = rig_open(&options);
    make_requests();
    rig_run(engine, requests, N_REQUESTS, &alone);
    td_engine_close(engine);
    comm_threads_run_leaving(n_ranks, run_rank, (void *)(uintptr_t)scene);
}

static void test_plain(void **unused)
{
    (void)unused;
    check_scene(&(struct scene){ "synth:smol-135m,q8_0,layers=2,vocab=400,seed=1,context=256", "none", 0 }, 2);
    assert_true(n_page_copies > 0); /* else choices had nothing to part over */
}

static void test_lookups(void **unused)
{
    (void)unused;
    check_scene(&(struct scene){ "synth:tiny,q8_0,seed=3,context=256", "suffix,ngram", 6 }, 4);
}

static void test_model_draft(void **unused)
{
    (void)unused;
    check_scene(&(struct scene){ "synth:pair=tiny-256,q8_0,agree=0.7,seed=3,context=256", "auto", 4 }, 2);
}

static void test_layerskip(void **unused)
{
    (void)unused;
    check_scene(&(struct scene){ "synth:tiny,f16,seed=3,context=256", "layerskip:1", 3 }, 8);
}

/* What rank 0 cannot open leaves the others waiting, not stuck; what another rank cannot, rank 0 says. */
static void refuse_rank(struct comm *comm, void *user)
{
    struct td_engine_options options;
    struct td_ranks *ranks;
    struct td_engine *engine;
    set_options(user, &options);
    assert_int_equal(ranks_create(comm, &ranks), STATUS_OK);
    options.ranks = ranks;
    if (comm->rank > 0) {
        options.isa = "none such";
        assert_int_equal(td_engine_follow(&options), TD_OK);
    } else {
        options.draft = "no such draft";
        assert_int_not_equal(td_engine_open(&options, &engine), TD_OK);
        assert_non_null(strstr(td_error_message(), "rank 1"));
        options.target = "no such file";
        assert_int_not_equal(td_engine_open(&options, &engine), TD_OK);
        assert_non_null(strstr(td_error_message(), "no such file"));
    }
    td_ranks_leave(ranks);
}

static void test_refusals(void **unused)
{
    (void)unused;
    struct scene scene = { "synth:tiny,q8_0,seed=3", "none", 0 };
    comm_threads_run_leaving(2, refuse_rank, &scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_lookups), cmocka_unit_test(test_model_draft),
        cmocka_unit_test(test_layerskip), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
