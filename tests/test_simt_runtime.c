/* The runtime of backend/cuda on emulated devices, beneath the engine: lanes, recorded passes and their pads
 * (cases 29 and 30), what is sent and fetched, weights that move, devices that fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backend/cuda/cuda.h"
#include "model/pass.h"
#include "tests/model_rig.h"
#include "tests/simt/bed.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { CONTEXT = 64, CAP_ROWS = 24, MAX_TOKENS = 20 };
static const char MODEL[] = "synth:tiny,q8_0,seed=3,vocab=96";
static const struct model_rig_options ON_CPU = { .name = MODEL, .context = CONTEXT, .n_seqs = 3, .page_slots = 16,
                                                 .cap_rows = CAP_ROWS };

static size_t held_before;

static int begin(void **state)
{
    (void)state;
    simt_reset();
    (void)simt_take_error();
    held_before = simt_held_bytes();
    return 0;
}

static void open_rig(struct model_rig *rig, const char *device)
{
    struct model_rig_options options = ON_CPU;
    options.device = device;
    if (model_rig_open(rig, &options) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

static void close_rig(struct model_rig *rig)
{
    model_rig_close(rig);
    simt_expect_silence();
    assert_int_equal(simt_held_bytes(), held_before);
}

/* ---- lanes ---- */
struct note { int32_t *at, value; };

static void note_fn(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    const struct note *note = args;
    (void)chunk;
    (void)worker;
    *note->at = *note->at * 10 + note->value;
}

static void a_lane_keeps_the_order_of_device_and_host(void **state)
{
    struct backend *backend;
    struct lane *lane;
    int32_t noted = 0;
    (void)state;
    assert_int_equal(backend_create("cuda:1", "scalar", &backend), STATUS_OK);
    assert_string_equal(backend_name(backend), "cuda:1 emulated");
    assert_false(backend_is_host(backend));
    assert_int_equal(lane_create(backend, &(struct lane_options){ .n_workers = 1, .caller_is_worker = true }, &lane),
                     STATUS_OK);
    float *x = backend_alloc(backend, 96 * sizeof *x), *y = backend_alloc(backend, 96 * sizeof *y);
    const float ones[32] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                             1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    float back[32] = { 0 };
    const struct act act = { .n_cols = 32, .cap_rows = 1, .f32 = y };
    assert_int_equal(backend_upload(backend, x, ones, sizeof ones), STATUS_OK);
    for (int32_t i = 1; i <= 200; i++) { /* more than there are tickets */
        const struct note note = { &noted, i % 10 };
        noted = i % 5 == 0 ? 0 : noted;
        backend_swiglu(lane, &(struct op_swiglu){ x, x, 1, ACT_F32, &act });
        const uint64_t ticket = i % 3 == 0 ? lane_mark(lane) : lane_submit(lane, note_fn, &note, sizeof note, 1);
        assert_true(i % 7 != 0 || ticket >= 1);
        if (i % 5 == 0) {
            lane_wait(lane, ticket);
            assert_true(lane_done(lane, ticket));
        }
    }
    assert_int_equal(backend_upload(backend, y, back, sizeof back), STATUS_OK);
    backend_swiglu(lane, &(struct op_swiglu){ x, x, 1, ACT_F32, &act });
    assert_int_equal(backend_download(backend, back, y, sizeof back), STATUS_OK);
    assert_true(back[5] == 0); /* nobody has waited for it */
    const struct note last = { &noted, 1 };
    lane_wait(lane, lane_submit(lane, note_fn, &last, sizeof last, 1)); /* behind the device's work */
    assert_int_equal(backend_download(backend, back, y, sizeof back), STATUS_OK);
    assert_true(back[5] == mathx_silu(1.0f));
    assert_true(lane_busy_ns(lane) > 0);
    backend_free(backend, x, 96 * sizeof *x);
    backend_free(backend, y, 96 * sizeof *y);
    lane_destroy(lane);
    backend_destroy(backend);
    bed_launched(0);
}

/* ---- passes ---- */
/* The same rows on both, of as many sequences as there are; bits of all logits and of KV are the same. */
static void expect_same_pass(struct model_rig *cpu, struct model_rig *gpu, int32_t first, int32_t n_tokens,
                             int32_t n_parts)
{
    int32_t tokens[MAX_TOKENS];
    struct model_rig_part parts[3];
    for (int32_t i = 0; i < MAX_TOKENS; i++) {
        tokens[i] = (first * 7 + i * 13) % 96;
    }
    for (int32_t p = 0; p < n_parts; p++) {
        parts[p] = (struct model_rig_part){ p, first, n_tokens, tokens + p };
    }
    const float *expected = model_rig_pass(cpu, parts, n_parts), *got = model_rig_pass(gpu, parts, n_parts);
    bed_launched(0);
    assert_int_equal(backend_health(gpu->backend), STATUS_OK);
    bed_assert_same("logits", got, expected, (size_t)(n_tokens * n_parts) * 96);
}

static uint64_t gpu_kv_digest(struct model_rig *gpu, int32_t seq, int32_t n)
{
    struct model_rig here = *gpu;
    const size_t half = kv_store_bytes(&gpu->store) / 2;
    here.store.k = mem_alloc(1, half);
    here.store.v = mem_alloc(1, half);
    simt_peek(here.store.k, gpu->store.k, half);
    simt_peek(here.store.v, gpu->store.v, half);
    const uint64_t digest = model_rig_kv_digest(&here, seq, n);
    mem_free(here.store.k);
    mem_free(here.store.v);
    return digest;
}

static void passes_of_all_sizes_are_the_cpus(void **state)
{
    struct model_rig cpu, gpu;
    (void)state;
    open_rig(&cpu, NULL);
    open_rig(&gpu, "cuda:0");
    int32_t at = 0;
    for (int32_t n = 1; n <= 7; n++) {
        expect_same_pass(&cpu, &gpu, at, n, 3);
        at += n;
    }
    for (int32_t seq = 0; seq < 3; seq++) {
        assert_int_equal(model_rig_kv_digest(&cpu, seq, at), gpu_kv_digest(&gpu, seq, at));
    }
    close_rig(&gpu);
    model_rig_close(&cpu);
}

/* One copy up, one down and one wait a pass, and nothing else but launches. */
static void a_pass_is_one_copy_up_and_one_down(void **state)
{
    struct model_rig cpu, gpu;
    (void)state;
    open_rig(&cpu, NULL);
    open_rig(&gpu, "cuda:0");
    for (int32_t i = 0; i < 6; i++) {
        const struct simt_counts before = simt_counts_get();
        expect_same_pass(&cpu, &gpu, i * 2, 2, 2);
        const struct simt_counts after = simt_counts_get();
        assert_int_equal(after.copies_up - before.copies_up, 1);
        assert_int_equal(after.copies_down - before.copies_down, 1);
        assert_true(after.waits - before.waits <= 2); /* for the pass, and for a block of inputs used before */
        assert_int_equal(after.graph_launches - before.graph_launches, i == 0 ? 0 : 1);
        assert_int_equal(after.captures - before.captures, i == 1 ? 1 : 0);
        assert_true(i < 2 ? after.launches > before.launches : after.launches == before.launches);
    }
    close_rig(&gpu);
    model_rig_close(&cpu);
}

/* Case 30: a recorded pass has the bits of the same pass launched kernel by kernel, as K grows and shrinks. */
static void case_30_graph_is_eager(void **state)
{
    struct model_rig eager, graph;
    (void)state;
    open_rig(&eager, "cuda:0");
    cuda_backend_keep_graphs(eager.backend, false);
    open_rig(&graph, "cuda:1");
    int32_t at = 0;
    for (int32_t i = 0; i < 12; i++) {
        const int32_t n = i % 3 + 1;
        expect_same_pass(&eager, &graph, at, n, 2);
        at += n;
    }
    assert_true(simt_counts_get().graph_launches >= 6);
    assert_int_equal(gpu_kv_digest(&eager, 1, at), gpu_kv_digest(&graph, 1, at));
    model_rig_close(&eager);
    close_rig(&graph);
}

/* NaN in every float that a pass leaves behind, and in every slot that is not cached. */
static void poison(const unsigned char *memory, size_t bytes)
{
    unsigned char *nan = mem_alloc(1, bytes);
    memset(nan, 0xff, bytes);
    simt_poke((void *)(uintptr_t)memory, nan, bytes);
    mem_free(nan);
}

/* Case 29: rows one below, at and one above a bucket's size; pad rows find NaN wherever an earlier pass was. */
static void case_29_pad_rows_with_nan(void **state)
{
    static const int32_t n_rows[] = { 11, 12, 13, 15, 16, 17, 9, 8 };
    struct model_rig cpu, gpu;
    (void)state;
    open_rig(&cpu, NULL);
    open_rig(&gpu, "cuda:0");
    const size_t half = kv_store_bytes(&gpu.store) / 2;
    poison(gpu.store.k, half);
    poison(gpu.store.v, half);
    for (int32_t round = 0; round < 3; round++) { /* as it is, recorded, replayed */
        for (size_t i = 0; i < sizeof n_rows / sizeof n_rows[0]; i++) {
            poison(gpu.buffers->memory, gpu.buffers->memory_bytes);
            expect_same_pass(&cpu, &gpu, round, n_rows[i], 1);
        }
    }
    assert_int_equal(model_rig_kv_digest(&cpu, 0, 19), gpu_kv_digest(&gpu, 0, 19));
    close_rig(&gpu);
    model_rig_close(&cpu);
}

/* Chunks of a prompt go out without a wait between them: inputs of the one are not those of the next. */
static const float *feed_unwaited(struct model_rig *rig, int32_t n_passes)
{
    uint64_t ticket = 0;
    for (int32_t i = 0; i < n_passes; i++) {
        const int32_t token[2] = { i * 5, i * 11 + 1 }, position[2] = { 2 * i, 2 * i + 1 }, seq[2] = { 0, 0 };
        const int32_t page = (int32_t)rig->views[0].pages[2 * i / 16], last = 1;
        const int32_t slot[2] = { page * 16 + 2 * i % 16, page * 16 + 2 * i % 16 + 1 };
        ticket = model_forward(rig->model, rig->lane, &rig->store, &(struct pass){
            .n_rows = 2, .n_seqs = rig->n_seqs, .n_logits = i == n_passes - 1, .token = token, .position = position,
            .slot = slot, .seq_of_row = seq, .views = rig->views, .logits_row = &last }, rig->buffers);
        if (backend_is_host(rig->backend)) { /* there the arrays are read in place */
            lane_wait(rig->lane, ticket);
        }
    }
    lane_wait(rig->lane, ticket);
    return pass_buffers_logits(rig->buffers);
}

static void passes_follow_each_other_unwaited(void **state)
{
    struct model_rig cpu, gpu;
    (void)state;
    open_rig(&cpu, NULL);
    open_rig(&gpu, "cuda:0");
    bed_assert_same("logits", feed_unwaited(&gpu, 9), feed_unwaited(&cpu, 9), 96);
    assert_int_equal(model_rig_kv_digest(&cpu, 0, 18), gpu_kv_digest(&gpu, 0, 18));
    close_rig(&gpu);
    model_rig_close(&cpu);
}

/* n rows at the beginning of the first sequence, logits of the last n_logits. */
static const float *pass_of_shape(struct model_rig *rig, int32_t n, int32_t n_logits)
{
    int32_t token[CAP_ROWS], position[CAP_ROWS], slot[CAP_ROWS], seq[CAP_ROWS] = { 0 }, logits_row[CAP_ROWS];
    for (int32_t i = 0; i < n; i++) {
        token[i] = (n * 5 + i * 11) % 96;
        position[i] = i;
        slot[i] = (int32_t)rig->views[0].pages[i / 16] * 16 + i % 16;
        logits_row[i] = n - n_logits + i;
    }
    lane_wait(rig->lane, model_forward(rig->model, rig->lane, &rig->store, &(struct pass){
        .n_rows = n, .n_seqs = rig->n_seqs, .n_logits = n_logits, .token = token, .position = position,
        .slot = slot, .seq_of_row = seq, .views = rig->views, .logits_row = logits_row }, rig->buffers));
    return pass_buffers_logits(rig->buffers);
}

/* More shapes than are recorded; with experts there are more kernels in a layer than room is kept for, so that
 * fewer are. What the driver takes stays below what the buffers count, and all passes have the CPU's bits. */
static void recordings_keep_to_the_memory_kept_for_them(void **state)
{
    static const char *const models[] = { MODEL, "synth:tiny-moe,q8_0,seed=2,vocab=96" };
    static const int32_t sizes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24 };
    uint64_t n_recorded[2];
    (void)state;
    for (int m = 0; m < 2; m++) {
        struct model_rig cpu, gpu;
        struct model_rig_options options = ON_CPU;
        options.name = models[m];
        assert_int_equal(model_rig_open(&cpu, &options), STATUS_OK);
        options.device = "cuda:0";
        assert_int_equal(model_rig_open(&gpu, &options), STATUS_OK);
        const uint64_t before = simt_held_bytes(), captures = simt_counts_get().captures;
        const uint64_t kept = backend_recorded_bytes(gpu.backend);
        assert_true(kept > 0 && kept < pass_buffers_bytes(gpu.buffers));
        for (int round = 0; round < 3; round++) {
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
                for (int32_t n_logits = 1; n_logits <= sizes[s]; n_logits += n_logits < 8 ? 1 : 4) {
                    const float *got = pass_of_shape(&gpu, sizes[s], n_logits);
                    if (round == 2) {
                        bed_assert_same("logits", got, pass_of_shape(&cpu, sizes[s], n_logits), (size_t)n_logits * 96);
                    }
                }
            }
        }
        n_recorded[m] = simt_counts_get().captures - captures;
        assert_in_range(simt_held_bytes() - before, 1, kept);
        close_rig(&gpu);
        model_rig_close(&cpu);
    }
    assert_int_equal(n_recorded[0], 64);
    assert_in_range(n_recorded[1], 32, 63);
}

/* The residual stream comes to the host's memory, of the rows asked for alone. */
static void taps_come_to_the_host(void **state)
{
    struct model_rig rig[2];
    float tap[2][2 * 128 + 1];
    (void)state;
    open_rig(&rig[0], NULL);
    open_rig(&rig[1], "cuda:0");
    for (int r = 0; r < 2; r++) {
        const int32_t token[2] = { 7, 9 }, position[2] = { 0, 1 }, seq[2] = { 0, 0 }, slot[2] = { 0, 1 };
        tap[r][2 * 128] = 42.0f;
        for (int32_t i = 0; i < 3; i++) {
            lane_wait(rig[r].lane, model_forward(rig[r].model, rig[r].lane, &rig[r].store, &(struct pass){
                .n_rows = 2, .n_seqs = 3, .token = token, .position = position, .slot = slot, .seq_of_row = seq,
                .views = rig[r].views, .tap = tap[r], .tap_layer = 1 }, rig[r].buffers));
        }
    }
    bed_assert_same("tap", tap[1], tap[0], 2 * 128 + 1);
    close_rig(&rig[1]);
    model_rig_close(&rig[0]);
}

/* ---- weights ---- */
static void gathered_rows_are_rows_filled(void **state)
{
    enum { N_OUT = 70, N_IN = 512, N = 37 };
    struct backend *backend;
    int32_t rows[N];
    (void)state;
    assert_int_equal(backend_create("cuda:0", "scalar", &backend), STATUS_OK);
    for (int32_t i = 0; i < N; i++) {
        rows[i] = (i * 29 + 3) % N_OUT;
    }
    for (uint32_t number = 0; number < 64; number++) {
        const enum tensor_type type = (enum tensor_type)number;
        const size_t bytes = backend_matrix_bytes(backend, type, N, N_IN);
        if (bytes == 0) {
            continue;
        }
        const size_t row_bytes = bed_row_bytes(type, N_IN);
        unsigned char *file = bed_file_rows(type, N_OUT, N_IN), *picked = mem_alloc(N, row_bytes);
        struct weight all = { type, N_OUT, N_IN, backend_alloc(backend, backend_matrix_bytes(backend, type, N_OUT, N_IN)) };
        struct weight filled = { type, N, N_IN, backend_alloc(backend, bytes) };
        struct weight gathered = { type, N, N_IN, backend_alloc(backend, bytes) };
        for (int32_t i = 0; i < N; i++) {
            memcpy(picked + (size_t)i * row_bytes, file + (size_t)rows[i] * row_bytes, row_bytes);
        }
        assert_int_equal(backend_matrix_fill(backend, &all, 0, 64, file, row_bytes), STATUS_OK);
        assert_int_equal(backend_matrix_fill(backend, &all, 64, N_OUT - 64, file + 64 * row_bytes, row_bytes), STATUS_OK);
        assert_int_equal(backend_matrix_fill(backend, &filled, 0, N, picked, row_bytes), STATUS_OK);
        assert_int_equal(backend_matrix_gather(backend, &all, rows, &gathered), STATUS_OK);
        unsigned char *a = mem_alloc(2, bytes), *b = a + bytes;
        assert_int_equal(backend_download(backend, a, filled.data, bytes), STATUS_OK);
        assert_int_equal(backend_download(backend, b, gathered.data, bytes), STATUS_OK);
        assert_memory_equal(a, b, bytes);
        backend_free(backend, all.data, 0);
        backend_free(backend, filled.data, bytes);
        backend_free(backend, gathered.data, bytes);
        mem_free(a);
        mem_free(file);
        mem_free(picked);
    }
    backend_destroy(backend);
    bed_launched(0);
    assert_int_equal(simt_held_bytes(), held_before);
}

/* ---- what is refused, what fails ---- */
static void devices_that_are_not_there(void **state)
{
    static const char *const kinds[] = { "cuda:2", "cuda:x", "cuda:", "cuda:0,1", "cuda:-1" };
    struct backend *backend;
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        assert_int_not_equal(backend_create(kinds[i], NULL, &backend), STATUS_OK);
        assert_null(backend);
        assert_non_null(strstr(status_message(), "cuda:"));
    }
    simt_set_devices(0, 1 << 20);
    assert_int_equal(backend_create("cuda:0", NULL, &backend), STATUS_UNSUPPORTED);
    assert_non_null(strstr(status_message(), "no GPU"));
}

/* A part of a GPU and what it leaves; all of it where the driver gives no parts. */
static void parts_of_a_device(void **state)
{
    static const char *const wrong[] = { "cuda:0/", "cuda:0/0", "cuda:0/x", "cuda:0/-", "cuda:0/5000", "cuda:0/4x" };
    struct model_rig cpu, part, rest;
    (void)state;
    open_rig(&cpu, NULL);
    open_rig(&part, "cuda:0/5");
    assert_int_equal(simt_held_parts(), 6);
    open_rig(&rest, "cuda:0/-5");
    assert_int_equal(simt_held_parts(), 16);
    expect_same_pass(&cpu, &part, 0, 3, 2);
    expect_same_pass(&cpu, &rest, 0, 3, 2);
    model_rig_close(&part);
    close_rig(&rest);
    assert_int_equal(simt_held_parts(), 0);
    simt_set_parts(0);
    open_rig(&part, "cuda:0/5");
    assert_int_equal(simt_held_parts(), 0);
    expect_same_pass(&cpu, &part, 0, 3, 2);
    close_rig(&part);
    model_rig_close(&cpu);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct backend *backend;
        assert_int_equal(backend_create(wrong[i], NULL, &backend), STATUS_INVALID);
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    int n_refused = 0, n_opened = 0;
    (void)state;
    for (size_t kib = 64; kib < 8192; kib += kib / 2) {
        struct model_rig rig;
        struct model_rig_options options = ON_CPU;
        options.device = "cuda:0";
        simt_set_devices(2, kib << 10);
        const enum status status = model_rig_open(&rig, &options);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        if (status != STATUS_OK) {
            assert_true(strlen(status_message()) > 10);
        }
        n_refused += status == STATUS_NO_MEMORY;
        n_opened += status == STATUS_OK;
        model_rig_close(&rig);
        assert_int_equal(simt_held_bytes(), held_before);
    }
    assert_true(n_refused > 2 && n_opened > 2);
    bed_launched(0);
}

/* An error of the device is for good: every later pass says the same sentence, and closing works. */
static void an_error_is_for_good(void **state)
{
    (void)state;
    for (int64_t after = 0; after < 60; after += 13) {
        struct model_rig gpu;
        const int32_t tokens[4] = { 1, 2, 3, 4 };
        char sentence[256] = "";
        open_rig(&gpu, "cuda:0");
        simt_fail_launch(after);
        for (int32_t i = 0; i < 8; i++) {
            const struct model_rig_part part = { 0, i * 4, 4, tokens };
            model_rig_pass(&gpu, &part, 1);
            const enum status status = backend_health(gpu.backend);
            assert_true(status == STATUS_OK || strstr(status_message(), "cuda:0 failed for good") != NULL);
            assert_true(sentence[0] == '\0' || (status == STATUS_IO && strcmp(sentence, status_message()) == 0));
            if (status != STATUS_OK) {
                strncpy(sentence, status_message(), sizeof sentence - 1);
            }
        }
        assert_true(sentence[0] != '\0');
        model_rig_close(&gpu);
        assert_int_equal(simt_held_bytes(), held_before);
        simt_reset();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_lane_keeps_the_order_of_device_and_host, begin),
        cmocka_unit_test_setup(passes_of_all_sizes_are_the_cpus, begin),
        cmocka_unit_test_setup(a_pass_is_one_copy_up_and_one_down, begin),
        cmocka_unit_test_setup(case_30_graph_is_eager, begin),
        cmocka_unit_test_setup(case_29_pad_rows_with_nan, begin),
        cmocka_unit_test_setup(passes_follow_each_other_unwaited, begin),
        cmocka_unit_test_setup(recordings_keep_to_the_memory_kept_for_them, begin),
        cmocka_unit_test_setup(taps_come_to_the_host, begin),
        cmocka_unit_test_setup(gathered_rows_are_rows_filled, begin),
        cmocka_unit_test_setup(devices_that_are_not_there, begin),
        cmocka_unit_test_setup(parts_of_a_device, begin),
        cmocka_unit_test_setup(what_does_not_fit_is_refused, begin),
        cmocka_unit_test_setup(an_error_is_for_good, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
