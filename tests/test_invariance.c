/* invariance: one prompt, one digest. The logits digest of a request is the same for every
 * instruction set, 1 and 2 threads, alone and among 15 others, prompt chunks of 1, 7, 64 and 512,
 * pages of 16 and 64; at the prompt lengths where segments of 256 positions end.
 *
 * Every variation differs from the reference in one thing and, in the last ones, in all of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "tandem.h"

enum { MAX_PROMPTS = 7, N_NEIGHBOURS = 15, N_TOKENS = 6 };

struct variation {
    const char *isa;
    int32_t threads, chunk, page, max_batch; /* max_batch 16: neighbours run beside each prompt */
};

static const struct variation variations[] = {
    { "avx2", 1, 512, 64, 1 },   { "avx512", 1, 512, 64, 1 }, { "avx512", 2, 512, 64, 1 },
    { "avx512", 1, 1, 64, 1 },   { "avx512", 1, 7, 64, 1 },   { "avx512", 1, 64, 64, 1 },
    { "avx512", 1, 512, 16, 1 }, { "avx512", 1, 512, 64, 16 }, { "avx512", 2, 7, 16, 16 },
    { "avx2", 2, 64, 16, 16 },   { "scalar", 2, 7, 16, 16 },
};
enum { N_VARIATIONS = sizeof variations / sizeof *variations };

struct scene {
    const char *target;
    int32_t lengths[MAX_PROMPTS], n_prompts, n_vocab, scalar_max; /* longest prompt for scalar code */
};

/* For sanitizers, under which kernels take minutes: what runs beside each other, but little of it. */
static int is_quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static void fill_prompt(const struct scene *scene, int32_t *ids, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) {
        ids[i] = 3 + (int32_t)(rng_mix64(seed * 100003 + (uint64_t)i) % (uint64_t)(scene->n_vocab - 3));
    }
}

static uint64_t submit(struct td_engine *engine, const struct scene *scene, int32_t length,
                       uint64_t seed)
{
    int32_t *ids = mem_alloc((size_t)length, sizeof *ids);
    struct td_request request;
    uint64_t id = 0;
    fill_prompt(scene, ids, length, seed);
    td_request_init(&request);
    request.ids = ids;
    request.n_ids = (size_t)length;
    request.max_tokens = N_TOKENS;
    request.ignore_eos = 1;
    request.want_text = 0;
    request.temperature = 0.8f;
    request.has_seed = 1;
    request.seed = seed;
    assert_int_equal(td_submit(engine, &request, &id), TD_OK);
    mem_free(ids);
    return id;
}

/* Runs until everything ended; returns the digest of request `wanted`. */
static uint64_t drain(struct td_engine *engine, uint64_t wanted)
{
    struct td_event event;
    uint64_t digest = 0;
    enum td_status status;
    while ((status = td_next_event(engine, -1, &event)) == TD_OK) {
        if (event.kind == TD_EVENT_FINISHED) {
            assert_int_equal(event.finish, TD_FINISH_LENGTH);
            assert_int_equal(event.usage.completion_tokens, N_TOKENS);
            digest = event.id == wanted ? event.usage.logits_digest : digest;
        }
    }
    assert_int_equal(status, TD_CLOSED);
    return digest;
}

static int run_variation(const struct scene *scene, const struct variation *v, uint64_t *digests)
{
    struct td_engine_options options;
    struct td_engine *engine;
    td_engine_options_init(&options);
    options.target = scene->target;
    options.isa = v->isa;
    options.threads = v->threads;
    options.prefill_chunk = v->chunk;
    options.page = v->page;
    options.max_batch = v->max_batch;
    options.prefix_cache = 0;
    const enum td_status status = td_engine_open(&options, &engine);
    if (status == TD_UNSUPPORTED || (status == TD_INVALID && v->threads > 1)) {
        print_message("skipped %s, %d threads: %s\n", v->isa, v->threads, td_error_message());
        return 0;
    }
    assert_int_equal(status, TD_OK);
    for (int32_t p = 0; p < scene->n_prompts; p++) {
        const int too_long = strcmp(v->isa, "scalar") == 0 && scene->lengths[p] > scene->scalar_max;
        if (too_long || (is_quick() && (p > 0 || scene->lengths[p] > 256))) {
            continue;
        }
        for (int32_t i = 1; v->max_batch > 1 && i < N_NEIGHBOURS / 2; i++) {
            submit(engine, scene, 1 + 13 * i % 97, 1000 + (uint64_t)i);
        }
        const uint64_t id = submit(engine, scene, scene->lengths[p], 77 + (uint64_t)p);
        for (int32_t i = N_NEIGHBOURS / 2; v->max_batch > 1 && i <= N_NEIGHBOURS; i++) {
            submit(engine, scene, 1 + 13 * i % 97, 1000 + (uint64_t)i);
        }
        digests[p] = drain(engine, id);
        assert_true(digests[p] != 0);
    }
    td_engine_close(engine);
    return 1;
}

static void check_scene(const struct scene *scene)
{
    const struct variation reference = { "auto", 1, 512, 64, 1 };
    uint64_t want[MAX_PROMPTS] = { 0 };
    assert_true(run_variation(scene, &reference, want));
    const size_t first = is_quick() ? N_VARIATIONS - 3 : 0;
    const size_t end = is_quick() ? N_VARIATIONS - 1 : N_VARIATIONS; /* scalar code is the last */
    for (size_t i = first; i < end; i++) {
        const struct variation *v = &variations[i];
        uint64_t got[MAX_PROMPTS];
        memcpy(got, want, sizeof got);
        if (!run_variation(scene, v, got)) {
            continue;
        }
        for (int32_t p = 0; p < scene->n_prompts; p++) {
            if (got[p] != want[p]) {
                fail_msg("%s, prompt of %d: %016llx, reference %016llx (isa %s, %d threads, chunk "
                         "%d, page %d, batch %d)", scene->target, scene->lengths[p],
                         (unsigned long long)got[p], (unsigned long long)want[p], v->isa, v->threads,
                         v->chunk, v->page, v->max_batch);
            }
        }
    }
}

static void test_default_model(void **unused)
{
    (void)unused;
    const struct scene scene = { "models/stories15M.Q8_0.gguf", { 1, 63, 200 }, 3, 32000, 63 };
    check_scene(&scene);
}

static void test_segment_ends(void **unused)
{
    (void)unused;
    const struct scene scene = { "synth:tiny,q8_0,seed=3", { 255, 256, 257, 511, 512, 513, 2048 }, 7,
                                 512, 600 };
    check_scene(&scene);
}

static void test_segment_ends_q4(void **unused)
{
    (void)unused;
    const struct scene scene = { "synth:tiny,q4_0,seed=4", { 256, 513 }, 2, 512, 600 };
    check_scene(&scene);
}

/* Another seed of the weights must give another digest, else equality above proves nothing. */
static void test_other_weights_differ(void **unused)
{
    (void)unused;
    const struct variation reference = { "auto", 1, 512, 64, 1 };
    const struct scene a = { "synth:tiny,q8_0,seed=3", { 20 }, 1, 512, 0 };
    const struct scene b = { "synth:tiny,q8_0,seed=5", { 20 }, 1, 512, 0 };
    uint64_t digest_a = 0, digest_b = 0;
    run_variation(&a, &reference, &digest_a);
    run_variation(&b, &reference, &digest_b);
    assert_true(digest_a != digest_b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_model),
        cmocka_unit_test(test_segment_ends),
        cmocka_unit_test(test_segment_ends_q4),
        cmocka_unit_test(test_other_weights_differ),
    };
    return cmocka_run_group_tests_name("invariance", tests, NULL, NULL);
}
