/* draft_layerskip: the target's first layers as its draft, under the real scheduler. With all layers it
 * is the target itself and accepted whole; with fewer it errs, and the text is that of plain decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/draft_rig.h"

static const char FOUR_LAYERS[] = "synth:tiny,q8_0,seed=7,layers=4";

static struct draft_rig_options options_of(int32_t n_layers)
{
    struct draft_rig_options options = draft_rig_defaults();
    options.target = FOUR_LAYERS;
    options.draft_layers = n_layers;
    options.max_batch = 4;
    return options;
}

static void submit_mixed(struct draft_rig *rig, int32_t n)
{
    for (int32_t i = 0; i < n; i++) { /* the last ones share a prompt with the first */
        draft_rig_submit(rig, &(struct draft_rig_request){
            .prompt_seed = 100 + (uint64_t)(i % 5), .seed = (uint64_t)i, .n_prompt = 1 + 9 * (i % 5),
            .max_tokens = 30 + i, .n = i % 4 == 3 ? 3 : 1, .temperature = i % 2 ? 0.8f : 0, .repetition_penalty = i % 3 == 2 ? 1.2f : 1 });
    }
}

static void all_layers_are_accepted_whole(void **state)
{
    (void)state;
    for (int32_t k = 1; k <= 7; k += 3) {
        struct draft_rig rig;
        struct draft_rig_options options = options_of(4);
        options.k = k;
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, draft_rig_scale(9, 5));
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_true(counts.proposed > 0);
        assert_int_equal(counts.accepted, counts.proposed);
        assert_int_equal(rig.n_offered, rig.n_asked);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

static void fewer_layers_err_and_change_nothing(void **state)
{
    (void)state;
    for (int32_t n_layers = 1; n_layers < 4; n_layers++) {
        struct draft_rig rig;
        struct draft_rig_options options = options_of(n_layers);
        options.k_pattern = "4103";
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, draft_rig_scale(9, 5));
        for (int32_t step = 0; scheduler_is_busy(rig.scheduler); step++) {
            draft_rig_step(&rig);
            if (step % 11 == 7) {
                scheduler_preempt_last(rig.scheduler);
            }
        }
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_true(counts.proposed > 0);
        assert_true(counts.accepted < counts.proposed);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

static void rounds_allocate_nothing(void **state)
{
    (void)state;
    struct draft_rig rig;
    const struct draft_rig_options options = options_of(2);
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 5);
    const uint64_t before = mem_alloc_count();
    while (scheduler_is_busy(rig.scheduler)) {
        scheduler_step(rig.scheduler);
    }
    assert_int_equal(mem_alloc_count(), before);
    draft_rig_close(&rig);
}

static uint64_t n_accepted(int32_t n_layers)
{
    struct draft_rig rig;
    struct draft_rig_options options = options_of(n_layers);
    options.target = "synth:tiny,q8_0,seed=7,layers=8";
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 5);
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    draft_rig_close(&rig);
    return (uint64_t)counts.accepted;
}

static void a_quarter_of_the_layers_by_default(void **state)
{
    (void)state;
    assert_true(n_accepted(-1) == n_accepted(2));
    assert_true(n_accepted(1) != n_accepted(2));
    assert_true(n_accepted(3) != n_accepted(2));
}

static void creation_fails_with_a_sentence(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft *draft;
    struct draft_rig_options options = options_of(1);
    draft_rig_open(&rig, &options);
    struct draft_layerskip_options creation = {
        .common = { .n_vocab = 512, .context = 128, .max_batch = 2, .k_max = 4 }, .target = rig.target,
        .n_target_layers = 4,
    };
    assert_int_equal(draft_layerskip_create(&creation, &draft), STATUS_OK);
    assert_string_equal(draft->kind->name, "layerskip");
    draft->kind->destroy(draft);
    creation.n_layers = 5;
    assert_int_equal(draft_layerskip_create(&creation, &draft), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "1 to 4 layers"));
    creation.n_layers = 0;
    enum status status = STATUS_NO_MEMORY;
    uint64_t n = 0;
    while (status != STATUS_OK) {
        mem_fail_at(++n);
        status = draft_layerskip_create(&creation, &draft);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && draft == NULL));
    }
    assert_true(n > 8);
    draft->kind->destroy(draft);
    draft_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_layers_are_accepted_whole),
        cmocka_unit_test(fewer_layers_err_and_change_nothing),
        cmocka_unit_test(rounds_allocate_nothing),
        cmocka_unit_test(a_quarter_of_the_layers_by_default),
        cmocka_unit_test(creation_fails_with_a_sentence),
    };
    return cmocka_run_group_tests_name("draft_layerskip", tests, NULL, NULL);
}
