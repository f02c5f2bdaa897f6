/* linear layers: every instruction set gives the definition's bits, whatever rows, threads and shapes;
 * repacked weights give back the file's rows; and the definition itself is right to rounding.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/cpu.h"
#include "backend/quant_block.h"

static const enum tensor_type types[] = {
    TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0,
    TENSOR_Q5_1, TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K,
};
enum { N_TYPES = sizeof types / sizeof *types, MAX_TEST_ROWS = 72 };

struct bench {
    struct backend *backend;
    struct lane *lane;
    struct weight weight;
    struct act act;
    unsigned char *file_rows; /* [n_out] in file format */
    void *act_memory;
    float *x;                 /* [MAX_TEST_ROWS, n_in] */
};

static uint64_t state;
static float next_float(void)
{
    state = rng_mix64(state);
    return (float)((double)(state >> 11) / 9007199254740992.0 * 2 - 1);
}

static size_t row_bytes(enum tensor_type type, int32_t n_in)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    return (size_t)n_in / info->block_elems * info->block_bytes;
}

static uint32_t next_word(void)
{
    state = rng_mix64(state);
    return (uint32_t)(state >> 32);
}

/* Any codes and scales; every fifth block has the largest of both, of one sign. Halves are small
 * numbers of both signs. */
static void random_block(const struct quant_layout *layout, uint32_t n, unsigned char *file)
{
    const int extreme = n % 5 == 2;
    const int32_t low = layout->type == TENSOR_Q6_K ? -128 : layout->type == TENSOR_Q3_K ? -32 : 0;
    const int32_t high = layout->type == TENSOR_Q6_K   ? 127
                         : layout->type == TENSOR_Q3_K ? 31
                         : layout->type == TENSOR_Q2_K ? 15
                                                       : 63;
    const uint32_t n_codes = 1u << (layout->low_bits + layout->high_bits);
    struct quant_block quant = { .d = (uint16_t)(0x1000u | (next_word() & 0x87ffu)),
                                 .dmin = (uint16_t)(0x1000u | (next_word() & 0x87ffu)) };
    for (int32_t i = 0; i < QUANT_MAX_PARTS; i++) {
        quant.scale[i] = (int8_t)(extreme ? (n % 2 && low < 0 ? low : high)
                                          : low + (int32_t)(next_word() % (uint32_t)(high - low + 1)));
        quant.min[i] = (uint8_t)(extreme ? high & 63 : (int32_t)(next_word() % (uint32_t)(high + 1)) & 63);
    }
    for (int32_t i = 0; i < layout->elems; i++) {
        quant.code[i] = (uint8_t)(extreme ? (n % 3 ? n_codes - 1 : 0) : next_word() % n_codes);
    }
    quant_block_write(layout, &quant, file);
}

static void random_row(enum tensor_type type, int32_t n_in, uint32_t n, unsigned char *file)
{
    const struct quant_layout layout = quant_layout(type);
    if (layout.elems > 0) {
        for (int32_t i = 0; i < n_in / layout.elems; i++, file += layout.file_bytes) {
            random_block(&layout, n + (uint32_t)i, file);
        }
        return;
    }
    for (int32_t i = 0; i < n_in; i++) {
        const float x = next_float();
        tensor_row_from_f32(type, &x, 1, file + (size_t)i * row_bytes(type, 1));
    }
}

static void make_weight(struct bench *b, enum tensor_type type, int32_t n_out, int32_t n_in)
{
    const size_t bytes = backend_weight_bytes(type, n_out, n_in);
    assert_true(bytes > 0);
    b->file_rows = mem_alloc((size_t)n_out, row_bytes(type, n_in));
    for (int32_t o = 0; o < n_out; o++) {
        random_row(type, n_in, (uint32_t)o, b->file_rows + (size_t)o * row_bytes(type, n_in));
    }
    b->weight = (struct weight){ .type = type, .n_out = n_out, .n_in = n_in,
                                 .data = mem_alloc(1, bytes) };
    backend_weight_fill(&b->weight, 0, n_out, b->file_rows, row_bytes(type, n_in));
}

static void bench_init(struct bench *b, const char *isa, int n_workers, enum tensor_type type,
                       int32_t n_out, int32_t n_in)
{
    memset(b, 0, sizeof *b);
    state = 42;
    assert_int_equal(backend_create("cpu", isa, &b->backend), STATUS_OK);
    const struct lane_options options = { .n_workers = n_workers, .caller_is_worker = true };
    assert_int_equal(lane_create(b->backend, &options, &b->lane), STATUS_OK);
    make_weight(b, type, n_out, n_in);
    b->act_memory = mem_alloc(1, backend_act_bytes(n_in, MAX_TEST_ROWS));
    backend_act_init(&b->act, n_in, MAX_TEST_ROWS, b->act_memory);
    b->x = mem_alloc((size_t)MAX_TEST_ROWS * (size_t)n_in, sizeof(float));
    for (size_t i = 0; i < (size_t)MAX_TEST_ROWS * (size_t)n_in; i++) {
        b->x[i] = next_float() * 3;
    }
    for (int32_t i = 0; i < n_in; i++) { /* codes of 127 or -127 only: the largest dots there are */
        b->x[n_in + i] = 2.5f;
        b->x[n_in * 2 + i] = -2.5f;
        b->x[n_in * 3 + i] = i % 32 < 16 ? 2.5f : -2.5f;
    }
}

static void bench_deinit(struct bench *b)
{
    lane_destroy(b->lane);
    backend_destroy(b->backend);
    mem_free(b->weight.data);
    mem_free(b->file_rows);
    mem_free(b->act_memory);
    mem_free(b->x);
}

/* out = W x of rows [first, first + n), computed as one pass */
static void run(struct bench *b, int32_t first, int32_t n, const float *add, const float *bias,
                float *out)
{
    const size_t n_in = (size_t)b->weight.n_in;
    memcpy(b->act.f32, b->x + (size_t)first * n_in, (size_t)n * n_in * sizeof(float));
    if (backend_act_kind(b->weight.type) == ACT_Q8) {
        backend_quantize(b->lane, &(struct op_quantize){ .act = &b->act, .n_rows = n });
    }
    struct op_linear op = { .n_parts = 1, .x = &b->act, .n_rows = n };
    op.part[0].weight = &b->weight;
    op.part[0].out = out;
    op.part[0].add = add;
    op.part[0].bias = bias;
    backend_linear(b->lane, &op);
    const uint64_t last = lane_submit(b->lane, NULL, NULL, 0, 0);
    lane_wait(b->lane, last);
}

static int has_isa(const char *isa)
{
    struct backend *backend;
    const int has = backend_create("cpu", isa, &backend) == STATUS_OK;
    if (has) {
        backend_destroy(backend);
    } else {
        print_message("skipped: this machine lacks %s\n", isa);
    }
    return has;
}

/* shapes: odd block counts, cut tiles, more segments than groups; the last four for blocks of 256 too */
static const struct { int32_t n_out, n_in; } shapes[] = {
    { 1, 32 }, { 31, 64 }, { 40, 2336 }, { 32, 4128 }, { 33, 256 }, { 64, 256 }, { 50, 768 }, { 17, 2560 },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static int shape_fits(enum tensor_type type, int32_t n_in)
{
    return n_in % (int32_t)tensor_type_info((uint32_t)type)->block_elems == 0;
}

static void check_isa_shape(const char *isa, enum tensor_type type, int32_t n_out, int32_t n_in)
{
    struct bench a, b;
    bench_init(&a, "scalar", 1, type, n_out, n_in);
    bench_init(&b, isa, 1, type, n_out, n_in);
    const size_t n = (size_t)n_out * 17;
    float *want = mem_alloc(n, 4), *got = mem_alloc(n, 4);
    for (int32_t rows = 1; rows <= 17; rows++) {
        memset(got, 0xff, n * 4);
        memset(want, 0xff, n * 4);
        run(&a, 0, rows, NULL, NULL, want);
        run(&b, 0, rows, NULL, NULL, got);
        if (memcmp(want, got, n * 4) != 0) {
            fail_msg("%s: %s, %d x %d, %d rows: other bits than the definition", isa,
                     tensor_type_info((uint32_t)type)->name, n_out, n_in, rows);
        }
    }
    mem_free(want);
    mem_free(got);
    bench_deinit(&a);
    bench_deinit(&b);
}

static void test_isa_parity(void **unused)
{
    (void)unused;
    for (int v = 0; v < 2; v++) {
        const char *isa = v == 0 ? "avx2" : "avx512";
        for (int t = 0; has_isa(isa) && t < N_TYPES; t++) {
            for (int s = 0; s < N_SHAPES; s++) {
                if (shape_fits(types[t], shapes[s].n_in)) {
                    check_isa_shape(isa, types[t], shapes[s].n_out, shapes[s].n_in);
                }
            }
        }
    }
}

/* Row i alone equals row i among 72, on one worker and on three. */
static void test_rows_and_workers(void **unused)
{
    (void)unused;
    for (int t = 0; t < N_TYPES; t++) {
        struct bench a, b;
        const int32_t n_in = shape_fits(types[t], 800) ? 800 : 768;
        bench_init(&a, NULL, 1, types[t], 200, n_in);
        bench_init(&b, NULL, 3, types[t], 200, n_in);
        float *all = mem_alloc(200 * MAX_TEST_ROWS, 4), one[200];
        run(&b, 0, MAX_TEST_ROWS, NULL, NULL, all);
        for (int32_t i = 0; i < MAX_TEST_ROWS; i++) {
            run(&a, i, 1, NULL, NULL, one);
            assert_memory_equal(one, all + (size_t)i * 200, sizeof one);
        }
        mem_free(all);
        bench_deinit(&a);
        bench_deinit(&b);
    }
}

enum { GROUP_OUTPUTS = 40, GROUP_SEGMENTS = 73, GROUP_ROWS = 11 }; /* up to ten segments a group */

/* Sums of groups, folded in their order, are the totals; every instruction set has the same sums. */
static void check_group_sums(const char *isa, enum tensor_type type, const float *want, float *sums)
{
    struct bench b;
    struct linear_groups groups = { .n = SUM_GROUPS };
    const size_t n = (size_t)GROUP_OUTPUTS * GROUP_ROWS;
    float total[GROUP_OUTPUTS * GROUP_ROWS], folded[GROUP_OUTPUTS * GROUP_ROWS] = { 0 };
    for (int32_t g = 0; g <= SUM_GROUPS; g++) {
        groups.begin[g] = g * GROUP_SEGMENTS / SUM_GROUPS;
    }
    bench_init(&b, isa, 2, type, GROUP_OUTPUTS, GROUP_SEGMENTS * SEGMENT_ELEMS);
    run(&b, 0, GROUP_ROWS, NULL, NULL, total);
    backend_linear(b.lane, &(struct op_linear){ .part = { { .weight = &b.weight, .out = sums } }, .n_parts = 1,
                                                .x = &b.act, .n_rows = GROUP_ROWS, .groups = &groups });
    backend_fold(b.lane, &(struct op_fold){ .sums = sums, .x = folded, .n_groups = SUM_GROUPS,
                                            .n_rows = GROUP_ROWS, .n_cols = GROUP_OUTPUTS });
    lane_wait(b.lane, lane_submit(b.lane, NULL, NULL, 0, 0));
    assert_memory_equal(folded, total, sizeof total);
    if (want != NULL && memcmp(sums, want, SUM_GROUPS * n * sizeof *sums) != 0) {
        fail_msg("%s: %s: other group sums than the definition", isa, tensor_type_info((uint32_t)type)->name);
    }
    bench_deinit(&b);
}

static void test_group_sums(void **unused)
{
    (void)unused;
    const size_t n = (size_t)SUM_GROUPS * GROUP_OUTPUTS * GROUP_ROWS;
    float *want = mem_alloc(n, sizeof *want), *got = mem_alloc(n, sizeof *got);
    for (int t = 0; t < N_TYPES; t++) {
        check_group_sums("scalar", types[t], NULL, want);
        for (int v = 0; v < 2; v++) {
            if (has_isa(v == 0 ? "avx2" : "avx512")) {
                check_group_sums(v == 0 ? "avx2" : "avx512", types[t], want, got);
            }
        }
    }
    mem_free(want);
    mem_free(got);
}

static void test_bias_and_add(void **unused)
{
    (void)unused;
    struct bench b;
    bench_init(&b, NULL, 1, TENSOR_Q8_0, 45, 96);
    float plain[45 * 3], got[45 * 3], add[45 * 3], bias[45];
    for (int i = 0; i < 45 * 3; i++) {
        add[i] = next_float();
        bias[i % 45] = next_float();
    }
    run(&b, 0, 3, NULL, NULL, plain);
    run(&b, 0, 3, add, bias, got);
    for (int i = 0; i < 45 * 3; i++) {
        assert_true(got[i] == (plain[i] + bias[i % 45]) + add[i]);
    }
    memcpy(got, add, sizeof got); /* out == add: the residual stream is updated in place */
    run(&b, 0, 3, got, NULL, got);
    for (int i = 0; i < 45 * 3; i++) {
        assert_true(got[i] == plain[i] + add[i]);
    }
    bench_deinit(&b);
}

/* Any bytes at all come back, so nothing that a file may hold is lost. */
static void test_repack_round_trip(void **unused)
{
    (void)unused;
    for (int t = 0; t < N_TYPES; t++) {
        struct bench b;
        const int32_t n_in = shape_fits(types[t], 320) ? 320 : 512;
        bench_init(&b, NULL, 1, types[t], 70, n_in);
        const size_t bytes = row_bytes(types[t], n_in);
        for (size_t i = 0; i < bytes * 70; i++) {
            b.file_rows[i] = (unsigned char)next_word();
        }
        backend_weight_fill(&b.weight, 0, 70, b.file_rows, bytes);
        unsigned char *row = mem_alloc(1, bytes);
        for (int32_t o = 0; o < 70; o++) {
            backend_weight_row(&b.weight, o, row);
            assert_memory_equal(row, b.file_rows + (size_t)o * bytes, bytes);
        }
        mem_free(row);
        bench_deinit(&b);
    }
}

/* The definition against double arithmetic on the dequantised weights and activations. */
static void check_definition(struct bench *b, int32_t row, const float *got)
{
    const enum tensor_type type = b->weight.type;
    const int32_t n_in = b->weight.n_in;
    float w[2560], x[2560];
    for (int32_t i = 0; i < n_in; i++) {
        x[i] = b->x[(size_t)row * (size_t)n_in + (size_t)i];
        if (backend_act_kind(type) == ACT_Q8) {
            const int32_t block = i / QUANT_BLOCK;
            unsigned char *panel = tile_panel(&b->act, 0);
            x[i] = (float)tile_act_codes(panel, 5, block, row)[i % QUANT_BLOCK] *
                   *tile_act_scale(panel, 5, block, row);
        }
    }
    for (int32_t o = 0; o < b->weight.n_out; o++) {
        double want = 0, size = 0;
        tensor_row_to_f32(type, b->file_rows + (size_t)o * row_bytes(type, n_in), n_in, w);
        for (int32_t i = 0; i < n_in; i++) {
            want += (double)w[i] * (double)x[i];
            size += fabs((double)w[i] * (double)x[i]);
        }
        if (!(fabs((double)got[o] - want) <= 3e-6 * size)) {
            fail_msg("%s: row %d, output %d: %g, expected %g", tensor_type_info((uint32_t)type)->name,
                     row, o, (double)got[o], want);
        }
    }
}

static void test_definition(void **unused)
{
    (void)unused;
    for (int t = 0; t < N_TYPES; t++) {
        struct bench b;
        float got[5 * 33];
        bench_init(&b, "scalar", 1, types[t], 33, shape_fits(types[t], 2336) ? 2336 : 2560);
        run(&b, 0, 5, NULL, NULL, got);
        for (int32_t row = 0; row < 5; row++) {
            check_definition(&b, row, got + row * 33);
        }
        bench_deinit(&b);
    }
}

/* One chain over all segments must give other bits: else the parity tests prove nothing. */
static void test_planted_split_is_seen(void **unused)
{
    (void)unused;
    struct bench b;
    bench_init(&b, "scalar", 1, TENSOR_F32, 32, 2336);
    float got[32];
    int differ = 0;
    run(&b, 0, 1, NULL, NULL, got);
    for (int o = 0; o < 32; o++) {
        float chain = 0, w[2336];
        memcpy(w, b.file_rows + (size_t)o * sizeof w, sizeof w);
        for (int i = 0; i < 2336; i++) {
            chain = mathx_fma(w[i], b.x[i], chain);
        }
        differ += memcmp(&chain, &got[o], 4) != 0;
    }
    assert_true(differ > 0);
    bench_deinit(&b);
}

static void test_impossible_shapes(void **unused)
{
    (void)unused;
    assert_int_equal(backend_weight_bytes(TENSOR_Q8_0, 10, 33), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_Q8_0, 0, 32), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_Q8_0, INT64_MAX, 32), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_F32, 4, -1), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_Q6_K, 32, 288), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_MXFP4, 32, 256), 0); /* known, not native */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isa_parity),       cmocka_unit_test(test_rows_and_workers),
        cmocka_unit_test(test_bias_and_add),     cmocka_unit_test(test_repack_round_trip),
        cmocka_unit_test(test_group_sums),
        cmocka_unit_test(test_definition),       cmocka_unit_test(test_planted_split_is_seen),
        cmocka_unit_test(test_impossible_shapes),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
