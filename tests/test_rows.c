/* Row operations: every instruction set gives the definition's bits at odd sizes, any place in a panel,
 * any worker count; planted bugs (wrong tie, split sum, flush to zero) show.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cmocka.h>

#include "backend/cpu/rows.h"

enum { MAX_N = 4096 };
#define COUNT(array) ((int32_t)(sizeof(array) / sizeof((array)[0])))

static const int32_t sizes[] = { 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129,
                                 255, 257, 1000, 2048, 4095 };
static float input[MAX_N], second[MAX_N], third[MAX_N], want[MAX_N], got[MAX_N];
static uint64_t noise_state;

static uint32_t noise_word(void)
{
    noise_state = rng_mix64(noise_state + 1);
    return (uint32_t)(noise_state >> 32);
}

/* Mostly ordinary numbers; some tiny, subnormal, zero or huge. */
static float noise(void)
{
    const uint32_t word = noise_word();
    const float plain = (float)(int32_t)noise_word() * 0x1p-29f;
    switch (word % 32) {
    case 0: return plain * 0x1p-126f;
    case 1: return plain * 0x1p-140f;
    case 2: return word & 64 ? 0.0f : -0.0f;
    case 3: return plain * 0x1p+20f;
    default: return plain;
    }
}

static void fill(float *x, int32_t n, uint64_t seed)
{
    noise_state = seed;
    for (int32_t i = 0; i < n; i++) {
        x[i] = noise();
    }
}

/* The definition, then each instruction set: calls body with `kernels` and `out`. */
#define FOR_VECTOR_KERNELS(kernels)                                                         \
    for (enum isa isa_ = ISA_AVX2; isa_ < ISA_COUNT; isa_++)                                 \
        for (const struct cpu_kernels *kernels = cpu_kernels_for(isa_); kernels; kernels = NULL)

static const struct cpu_kernels *definition(void) { return cpu_kernels_for(ISA_SCALAR); }

static void norm_has_the_same_bits(void **state)
{
    (void)state;
    for (int32_t s = 0; s < COUNT(sizes); s++) {
        const int32_t n = sizes[s];
        fill(input, n, (uint64_t)n);
        fill(second, n, (uint64_t)n + 99);
        definition()->norm_row(input, second, 1e-5f, n, want);
        FOR_VECTOR_KERNELS(kernels) {
            kernels->norm_row(input, second, 1e-5f, n, got);
            assert_memory_equal(want, got, (size_t)n * sizeof(float));
        }
        cpu_kernels_scalar->norm_row(input, second, 1e-5f, n, got);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
    }
}

static void swiglu_has_the_same_bits(void **state)
{
    (void)state;
    for (int32_t s = 0; s < COUNT(sizes); s++) {
        const int32_t n = sizes[s];
        fill(input, n, (uint64_t)n);
        fill(second, n, (uint64_t)n + 99);
        definition()->swiglu(input, second, n, want);
        FOR_VECTOR_KERNELS(kernels) {
            kernels->swiglu(input, second, n, got);
            assert_memory_equal(want, got, (size_t)n * sizeof(float));
        }
        cpu_kernels_scalar->swiglu(input, second, n, got);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
    }
}

static void swiglu_is_what_it_says(void **state)
{
    (void)state;
    for (int32_t i = 0; i < MAX_N; i++) {
        input[i] = (float)(i - MAX_N / 2) * 0.02f;
        second[i] = 1.5f;
    }
    definition()->swiglu(input, second, MAX_N, want);
    for (int32_t i = 0; i < MAX_N; i++) {
        const double x = (double)input[i], y = x / (1.0 + exp(-x)) * 1.5;
        assert_true(fabs((double)want[i] - y) <= 1e-6 * fabs(y) + 1e-30);
    }
}

static void rope_has_the_same_bits(void **state)
{
    (void)state;
    for (int32_t half = 1; half <= 130; half++) {
        fill(input, 2 * half, (uint64_t)half);
        for (int32_t i = 0; i < half; i++) {
            second[i] = (float)(int32_t)noise_word() * 0x1p-31f;
            third[i] = (float)(int32_t)noise_word() * 0x1p-31f;
        }
        memcpy(want, input, sizeof want);
        definition()->rope_row(want, second, third, half);
        FOR_VECTOR_KERNELS(kernels) {
            memcpy(got, input, sizeof got);
            kernels->rope_row(got, second, third, half);
            assert_memory_equal(want, got, sizeof got);
        }
    }
}

static void to_f16_has_the_same_bits(void **state)
{
    static uint16_t half_want[MAX_N], half_got[MAX_N];
    (void)state;
    for (int32_t round = 0; round < 64; round++) { /* any 32 bits, NaN and ties among them */
        const int32_t n = MAX_N - round;
        noise_state = (uint64_t)round;
        for (int32_t i = 0; i < n; i++) {
            const uint32_t word = noise_word();
            input[i] = mathx_from_bits(i % 2 ? word : word << 12 | (word & 0x80000000u));
        }
        for (int32_t i = 0; i < n; i += 5) { /* exactly between two halves */
            input[i] = mathx_from_bits((noise_word() & 0x8fffe000u) | 0x30001000u);
        }
        definition()->to_f16(input, n, half_want);
        FOR_VECTOR_KERNELS(kernels) {
            kernels->to_f16(input, n, half_got);
            assert_memory_equal(half_want, half_got, (size_t)n * 2);
        }
    }
}

static void argmax_takes_the_lowest_of_equals(void **state)
{
    bool bad;
    (void)state;
    for (int32_t s = 0; s < COUNT(sizes); s++) {
        const int32_t n = sizes[s];
        for (int32_t first = 0; first < n; first += 1 + n / 9) {
            for (int32_t later = first; later < n; later += 1 + n / 7) {
                fill(input, n, (uint64_t)n);
                input[first] = input[later] = 3e7f;
                for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
                    if (cpu_kernels_for(isa)) {
                        assert_int_equal(cpu_kernels_for(isa)->argmax(input, n, &bad), first);
                        assert_false(bad);
                    }
                }
            }
        }
    }
}

static void argmax_sees_what_is_no_number(void **state)
{
    static const float bads[] = { NAN, -NAN, INFINITY };
    bool bad;
    (void)state;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        const struct cpu_kernels *kernels = cpu_kernels_for(isa);
        for (int32_t s = 0; kernels && s < COUNT(sizes); s++) {
            const int32_t n = sizes[s];
            for (int32_t at = 0; at < n; at += 1 + n / 40) {
                fill(input, n, (uint64_t)n);
                input[at] = bads[at % 3];
                kernels->argmax(input, n, &bad);
                assert_true(bad);
                input[at] = -INFINITY; /* an excluded token: no failure */
                const int32_t best = kernels->argmax(input, n, &bad);
                assert_false(bad);
                assert_true(n == 1 || best != at);
            }
        }
        for (int32_t i = 0; i < 100; i++) {
            input[i] = -INFINITY;
        }
        if (kernels) {
            assert_int_equal(kernels->argmax(input, 100, &bad), 0);
            assert_false(bad);
            input[0] = -0.0f;
            input[70] = 0.0f;
            assert_int_equal(kernels->argmax(input, 100, &bad), 0);
        }
    }
}

static void exp_sum_has_the_same_bits(void **state)
{
    (void)state;
    for (int32_t s = 0; s < COUNT(sizes); s++) {
        const int32_t n = sizes[s];
        fill(input, n, (uint64_t)n);
        for (int32_t i = 0; i < n; i++) {
            input[i] = i % 97 == 96 ? -INFINITY : fabsf(input[i]) < 100.0f ? input[i] * 5 : 0.0f;
        }
        memcpy(want, input, sizeof want);
        const float sum = definition()->exp_sum(want, n, 21.0f);
        double check = 0;
        for (int32_t i = 0; i < n; i++) {
            check += exp((double)input[i] - 21.0);
        }
        assert_true(fabs((double)sum - check) <= 1e-5 * check + 1e-30);
        FOR_VECTOR_KERNELS(kernels) {
            memcpy(got, input, sizeof got);
            const float other = kernels->exp_sum(got, n, 21.0f);
            assert_memory_equal(want, got, sizeof got);
            assert_memory_equal(&sum, &other, sizeof sum);
        }
    }
}

static void gumbel_has_the_same_bits(void **state)
{
    (void)state;
    for (int32_t s = 0; s < COUNT(sizes); s++) {
        for (uint32_t first = 0; first < 40; first += 12) {
            const uint32_t n = (uint32_t)sizes[s];
            rng_gumbel_fill(UINT64_C(0x123456789abcdef0), COIN_TARGET, 77, first, n, want);
            for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
                if (cpu_kernels_for(isa)) {
                    memset(got, 0, sizeof got);
                    cpu_kernels_for(isa)->gumbel(UINT64_C(0x123456789abcdef0), 77, first, n, (uint64_t)1 << 32, got);
                    assert_memory_equal(want, got, n * sizeof(float));
                    assert_true(n == MAX_N || got[n] == 0.0f);
                }
            }
        }
    }
}

/* ---- quantisation ---- */

enum { Q_COLS = 32 * 9 };

static void quantise_panel(const struct cpu_kernels *kernels, const float *x, int32_t m,
                           unsigned char *panel)
{
    for (int32_t r = 0; r < m; r++) {
        kernels->quantize_row(x + r * Q_COLS, 0, 4, panel, m, r);
        kernels->quantize_row(x + r * Q_COLS, 4, 5, panel, m, r);
    }
}

static void quantise_has_the_same_bits(void **state)
{
    static float x[PANEL_ROWS * Q_COLS];
    static unsigned char a[PANEL_ROWS * 9 * ACT_BLOCK_BYTES], b[sizeof a];
    (void)state;
    for (int32_t round = 0; round < 200; round++) {
        const int32_t m = 1 + round % PANEL_ROWS;
        fill(x, PANEL_ROWS * Q_COLS, (uint64_t)round);
        for (int32_t i = 0; i < 32; i++) { /* exact ties: amax 127, so that x * inv = x */
            x[32 + i] = i == 7 ? -127.0f : (float)((int32_t)(noise_word() % 250) - 125) + 0.5f;
            x[64 + i] *= 0x1p-110f;             /* counts as zero */
            x[96 + i] = mathx_from_bits(noise_word()); /* anything at all */
        }
        x[(round * 37) % (m * Q_COLS)] = round % 3 == 0 ? NAN : round % 3 == 1 ? -INFINITY : 1.0f;
        memset(a, 0xaa, sizeof a);
        quantise_panel(definition(), x, m, a);
        FOR_VECTOR_KERNELS(kernels) {
            memset(b, 0xaa, sizeof b);
            quantise_panel(kernels, x, m, b);
            assert_memory_equal(a, b, sizeof a);
        }
    }
}

static void quantise_rounds_ties_to_even_and_marks_nan(void **state)
{
    float x[QUANT_BLOCK] = { 127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f };
    static unsigned char panel[ACT_BLOCK_BYTES];
    static const int8_t codes[] = { 127, 0, 2, 2, 0, -2, -2, 126 };
    (void)state;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        const struct cpu_kernels *kernels = cpu_kernels_for(isa);
        if (!kernels) {
            continue;
        }
        x[9] = 0.0f;
        kernels->quantize_row(x, 0, 1, panel, 1, 0);
        assert_memory_equal(tile_act_codes(panel, 1, 0, 0), codes, sizeof codes);
        assert_true(*tile_act_scale(panel, 1, 0, 0) == 1.0f);
        assert_int_equal(*tile_act_sum(panel, 1, 0, 0), 253);
        int8_t wrong[sizeof codes]; /* the planted bug: ties away from zero */
        for (size_t i = 0; i < sizeof codes; i++) {
            wrong[i] = (int8_t)roundf(x[i]);
        }
        assert_memory_not_equal(wrong, codes, sizeof codes);
        x[9] = NAN;
        kernels->quantize_row(x, 0, 1, panel, 1, 0);
        assert_true(isnan(*tile_act_scale(panel, 1, 0, 0)));
        assert_int_equal(*tile_act_sum(panel, 1, 0, 0), 0);
        assert_int_equal(*tile_act_codes(panel, 1, 0, 0), 0);
    }
}

/* ---- planted bugs ---- */

static void a_sum_in_another_order_shows(void **state)
{
    const int32_t n = 2048;
    (void)state;
    fill(input, n, 5);
    for (int32_t i = 0; i < n; i++) {
        input[i] = fabsf(input[i]) < 100 ? input[i] : 1.0f;
        second[i] = 1.0f;
    }
    definition()->norm_row(input, second, 1e-5f, n, want);
    float plain = 0.0f; /* one chain instead of 64 and a tree */
    for (int32_t i = 0; i < n; i++) {
        plain = mathx_fma(input[i], input[i], plain);
    }
    const float inv = 1.0f / sqrtf(plain / (float)n + 1e-5f);
    for (int32_t i = 0; i < n; i++) {
        got[i] = input[i] * inv;
    }
    assert_memory_not_equal(want, got, (size_t)n * sizeof(float));
    for (int32_t i = 0; i < n; i++) {
        assert_true(fabsf(want[i] - got[i]) <= 1e-5f * fabsf(want[i]));
    }
}

static void flush_to_zero_shows_and_direct_calls_survive_it(void **state)
{
#if defined(__x86_64__)
    struct backend *backend;
    (void)state;
    assert_int_equal(backend_create("cpu", NULL, &backend), STATUS_OK);
    for (int32_t i = 0; i < 200; i++) {
        input[i] = -88.0f - (float)i * 0.05f; /* exp is subnormal */
    }
    memcpy(want, input, sizeof want);
    const float sum = definition()->exp_sum(want, 200, 0.0f);
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u); /* flush to zero, denormals are zero */
    memcpy(got, input, sizeof got);
    definition()->exp_sum(got, 200, 0.0f);
    memcpy(third, input, sizeof third);
    const float protected_sum = backend_exp_sum(backend, third, 200, 0.0f);
    const unsigned int after = _mm_getcsr();
    _mm_setcsr(mode);
    assert_memory_not_equal(want, got, sizeof got);
    assert_memory_equal(want, third, sizeof want);
    assert_memory_equal(&sum, &protected_sum, sizeof sum);
    assert_true((after & 0x8040u) == 0x8040u);
    backend_destroy(backend);
#else
    (void)state;
    print_message("skipped: no flush-to-zero switch is known here\n");
    skip();
#endif
}

/* ---- through a lane ---- */

enum { OP_COLS = 1312, OP_ROWS = 17, VOCAB = 21 }; /* 41 blocks: more than one piece, an odd end */

struct op_results {
    float embed[OP_ROWS * OP_COLS];
    float norm[OP_ROWS * OP_COLS], swiglu[OP_ROWS * OP_COLS];
    unsigned char norm_q8[OP_ROWS * OP_COLS / 32 * ACT_BLOCK_BYTES];
    unsigned char swiglu_q8[OP_ROWS * OP_COLS / 32 * ACT_BLOCK_BYTES];
    unsigned char requantised[OP_ROWS * OP_COLS / 32 * ACT_BLOCK_BYTES];
};

static void run_ops(const char *isa, int n_workers, enum tensor_type type, struct op_results *results)
{
    static float table[VOCAB * OP_COLS], weight[OP_COLS], act_memory[OP_ROWS * OP_COLS * 3];
    static unsigned char file[VOCAB * OP_COLS * 4];
    int32_t token[OP_ROWS], row_idx[OP_ROWS];
    struct backend *backend;
    struct lane *lane;
    struct act act;
    const struct tensor_type_info *info = tensor_type_info(type);
    const size_t row_bytes = (size_t)OP_COLS / info->block_elems * info->block_bytes;
    noise_state = 11;
    for (int32_t i = 0; i < VOCAB * OP_COLS; i++) {
        table[i] = (float)(int32_t)noise_word() * 0x1p-30f;
        weight[i % OP_COLS] = table[i];
    }
    for (int32_t i = 0; i < OP_ROWS; i++) {
        token[i] = (i * 8 + 3) % VOCAB;
        row_idx[i] = (i * 5 + 1) % OP_ROWS;
    }
    assert_int_equal(backend_create("cpu", isa, &backend), STATUS_OK);
    const struct lane_options options = { .n_workers = n_workers, .caller_is_worker = true,
                                          .scratch_bytes = 1 << 16 };
    assert_int_equal(lane_create(backend, &options, &lane), STATUS_OK);
    for (int32_t i = 0; i < VOCAB; i++) {
        tensor_row_from_f32(type, table + i * OP_COLS, OP_COLS, file + (size_t)i * row_bytes);
    }
    const size_t weight_bytes = backend_weight_bytes(type, VOCAB, OP_COLS);
    struct weight embedding = { type, VOCAB, OP_COLS, backend_alloc(backend, weight_bytes) };
    assert_non_null(embedding.data);
    backend_weight_fill(&embedding, 0, VOCAB, file, row_bytes);
    backend_act_init(&act, OP_COLS, OP_ROWS, act_memory);
    assert_true(backend_act_bytes(OP_COLS, OP_ROWS) <= sizeof act_memory);
    backend_embed(lane, &(struct op_embed){ &embedding, token, results->embed, OP_ROWS });
    backend_norm(lane, &(struct op_norm){ .x = results->embed, .row_idx = row_idx, .weight = weight,
                                          .eps = 1e-5f, .n_rows = OP_ROWS,
                                          .kinds = ACT_F32 | ACT_Q8, .out = &act });
    lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0));
    memcpy(results->norm, act.f32, sizeof results->norm);
    memcpy(results->norm_q8, act.q8, sizeof results->norm_q8);
    backend_swiglu(lane, &(struct op_swiglu){ results->embed, results->norm, OP_ROWS, ACT_Q8, &act });
    lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0));
    memcpy(results->swiglu_q8, act.q8, sizeof results->swiglu_q8);
    backend_swiglu(lane, &(struct op_swiglu){ results->embed, results->norm, OP_ROWS, ACT_F32, &act });
    backend_quantize(lane, &(struct op_quantize){ &act, OP_ROWS });
    lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0));
    memcpy(results->swiglu, act.f32, sizeof results->swiglu);
    memcpy(results->requantised, act.q8, sizeof results->requantised);
    for (int32_t i = 0; i < OP_ROWS; i++) { /* embed is the file's row, whatever the repacking */
        tensor_row_to_f32(type, file + (size_t)token[i] * row_bytes, OP_COLS, got);
        assert_memory_equal(got, results->embed + i * OP_COLS, OP_COLS * sizeof(float));
    }
    lane_destroy(lane);
    backend_free(backend, embedding.data, weight_bytes);
    backend_destroy(backend);
}

static void operations_are_the_same_on_any_worker_count(void **state)
{
    static struct op_results first, other;
    static const enum tensor_type kinds[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0,
                                              TENSOR_Q4_0 };
    (void)state;
    for (int32_t t = 0; t < COUNT(kinds); t++) {
        run_ops("scalar", 1, kinds[t], &first);
        assert_memory_equal(first.swiglu_q8, first.requantised, sizeof first.swiglu_q8);
        for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
            for (int n_workers = 1; cpu_kernels_for(isa) && n_workers <= 3; n_workers++) {
                memset(&other, 0, sizeof other);
                run_ops(isa_name(isa), n_workers, kinds[t], &other);
                assert_memory_equal(&first, &other, sizeof first);
            }
        }
    }
    /* row i of the operations is the row kernel, alone */
    definition()->swiglu(first.embed, first.norm, OP_COLS, want);
    assert_memory_equal(want, first.swiglu, OP_COLS * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_has_the_same_bits),
        cmocka_unit_test(swiglu_has_the_same_bits),
        cmocka_unit_test(swiglu_is_what_it_says),
        cmocka_unit_test(rope_has_the_same_bits),
        cmocka_unit_test(to_f16_has_the_same_bits),
        cmocka_unit_test(argmax_takes_the_lowest_of_equals),
        cmocka_unit_test(argmax_sees_what_is_no_number),
        cmocka_unit_test(exp_sum_has_the_same_bits),
        cmocka_unit_test(gumbel_has_the_same_bits),
        cmocka_unit_test(quantise_has_the_same_bits),
        cmocka_unit_test(quantise_rounds_ties_to_even_and_marks_nan),
        cmocka_unit_test(a_sum_in_another_order_shows),
        cmocka_unit_test(flush_to_zero_shows_and_direct_calls_survive_it),
        cmocka_unit_test(operations_are_the_same_on_any_worker_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
