/* model_target: passes through the table of functions; copies of pages come before what is begun after
 * them, in the order they were given, alone or as part of a pass's work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "target/target.h"

enum { SLOTS = 16, N_PAGES = 6, VOCAB = 512 };

struct fixture {
    struct backend *backend;
    struct lane *lane;
    struct model_source *source;
    struct model *model;
    struct target *target;
};

static struct fixture fixture_open(void)
{
    struct fixture f;
    assert_int_equal(backend_create("cpu", NULL, &f.backend), STATUS_OK);
    assert_int_equal(lane_create(f.backend, &(struct lane_options){ .n_workers = 1, .caller_is_worker = true },
                                 &f.lane), STATUS_OK);
    assert_int_equal(model_source_open("synth:tiny,q8_0,seed=7", &f.source), STATUS_OK);
    assert_int_equal(model_load(f.source, f.lane, &(struct model_load_options){ .context = 64 }, &f.model),
                     STATUS_OK);
    assert_int_equal(model_target_create(&(struct model_target_options){ .model = f.model, .lane = f.lane,
                     .kv = KV_F16, .page_slots = SLOTS, .n_pages = N_PAGES, .cap_rows = SLOTS,
                     .cap_logits = 1 }, &f.target), STATUS_OK);
    return f;
}

static void fixture_close(struct fixture *f)
{
    target_destroy(f->target);
    model_destroy(f->model);
    model_source_close(f->source);
    lane_destroy(f->lane);
    backend_destroy(f->backend);
}

/* A page full of tokens that `salt` makes: its first pass. */
static void fill_page(struct fixture *f, uint32_t page, uint64_t salt)
{
    int32_t token[SLOTS], position[SLOTS], slot[SLOTS], seq[SLOTS] = { 0 };
    const float *logits;
    for (int32_t i = 0; i < SLOTS; i++) {
        token[i] = (int32_t)(rng_mix64(salt * 100 + (uint64_t)i) % VOCAB);
        position[i] = i;
        slot[i] = (int32_t)page * SLOTS + i;
    }
    const struct kv_view view = { .pages = &page, .n_pages = 1 };
    const struct pass pass = { .n_rows = SLOTS, .n_seqs = 1, .token = token, .position = position,
                               .slot = slot, .seq_of_row = seq, .views = &view };
    f->target->kind->begin(f->target, &(struct target_work){ .pass = &pass });
    assert_int_equal(f->target->kind->end(f->target, &logits), STATUS_OK);
}

/* Logits of the token after a full page, whose own place is in page N_PAGES - 1. */
static void ask_after(struct fixture *f, uint32_t page, const struct kv_copy *copies, int32_t n_copies,
                      float *out)
{
    const uint32_t pages[2] = { page, N_PAGES - 1 };
    const int32_t token = 9, position = SLOTS, slot = (N_PAGES - 1) * SLOTS, zero = 0;
    const struct kv_view view = { .pages = pages, .n_pages = 2 };
    const struct pass pass = { .n_rows = 1, .n_seqs = 1, .n_logits = 1, .token = &token,
                               .position = &position, .slot = &slot, .seq_of_row = &zero, .views = &view,
                               .logits_row = &zero };
    const float *logits;
    f->target->kind->begin(f->target, &(struct target_work){ .copies = copies, .n_copies = n_copies,
                                                              .pass = &pass });
    assert_int_equal(f->target->kind->end(f->target, &logits), STATUS_OK);
    memcpy(out, logits, VOCAB * sizeof *out);
}

static void copies_come_first_and_in_order(void **state)
{
    (void)state;
    static float a[VOCAB], b[VOCAB], got[VOCAB];
    struct fixture f = fixture_open();
    fill_page(&f, 0, 1);
    fill_page(&f, 1, 2);
    ask_after(&f, 0, NULL, 0, a);
    ask_after(&f, 1, NULL, 0, b);
    assert_memory_not_equal(a, b, sizeof a);
    struct kv_copy chain[3] = { { 0, 2 }, { 2, 3 }, { 1, 2 } }; /* 3 gets page 0 only in this order */
    f.target->kind->copy(f.target, chain, 3);
    memset(chain, 0, sizeof chain); /* the list is not kept */
    ask_after(&f, 3, NULL, 0, got);
    assert_memory_equal(got, a, sizeof a);
    ask_after(&f, 2, NULL, 0, got);
    assert_memory_equal(got, b, sizeof b);
    /* with the work of a pass, after those submitted alone */
    f.target->kind->copy(f.target, &(struct kv_copy){ 1, 3 }, 1);
    ask_after(&f, 4, (const struct kv_copy[]){ { 3, 4 } }, 1, got);
    assert_memory_equal(got, b, sizeof b);
    f.target->kind->copy(f.target, NULL, 0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_come_first_and_in_order),
    };
    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
