/* Element types: names and sizes, and the native ones against blocks that another program made. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "tests/golden.h"

enum { N_NATIVES = 13 };

static void names_and_numbers(void **state)
{
    (void)state;
    int n_known = 0, n_native = 0;
    for (uint32_t number = 0; number < 64; number++) {
        const struct tensor_type_info *info = tensor_type_info(number);
        if (info) {
            n_known++;
            n_native += info->native;
            assert_int_equal(info->number, number);
            assert_ptr_equal(tensor_type_by_name(info->name), info);
            assert_true(info->block_elems == 1 || info->block_elems == 32 || info->block_elems == 256);
        }
    }
    assert_int_equal(n_known, 38);
    assert_int_equal(n_native, N_NATIVES);
    assert_null(tensor_type_info(4)); /* never given out again */
    assert_null(tensor_type_info(5));
    assert_null(tensor_type_info(40));
    assert_null(tensor_type_info(UINT32_MAX));
    assert_null(tensor_type_by_name("Q9_9"));
    assert_null(tensor_type_by_name(""));
    assert_ptr_equal(tensor_type_by_name("q4_k"), tensor_type_info(12));
    assert_int_equal(tensor_type_by_name("mxfp4")->block_bytes, 17);
}

/* "NAME": { "ggml_type": n, "block_elements": n, "block_bytes": n, ... of the manifest */
static void sizes_agree_with_the_manifest(void **state)
{
    (void)state;
    golden_or_skip();
    size_t n_bytes;
    char *manifest = (char *)golden_read("golden/quant/MANIFEST.json", &n_bytes);
    assert_non_null(manifest);
    int n_seen = 0;
    for (char *at = strstr(manifest, "\"ggml_type\":"); at; at = strstr(at + 1, "\"ggml_type\":")) {
        char *end_of_name = at;
        while (end_of_name > manifest && *end_of_name != '{') {
            end_of_name--;
        }
        while (end_of_name > manifest && *end_of_name != '"') {
            end_of_name--;
        }
        char *name = end_of_name;
        while (name > manifest && name[-1] != '"') {
            name--;
        }
        char found[32];
        snprintf(found, sizeof found, "%.*s", (int)(end_of_name - name), name);
        const struct tensor_type_info *info = tensor_type_by_name(found);
        assert_non_null(info);
        assert_int_equal(info->number, strtol(at + 12, NULL, 10));
        assert_int_equal(info->block_elems,
                         strtol(strstr(at, "\"block_elements\":") + 17, NULL, 10));
        assert_int_equal(info->block_bytes, strtol(strstr(at, "\"block_bytes\":") + 14, NULL, 10));
        n_seen++;
    }
    assert_true(n_seen > 20);
    golden_free(manifest);
}

static unsigned char *read_golden(const char *name, const char *suffix, size_t *n_bytes)
{
    char path[96];
    snprintf(path, sizeof path, "golden/quant/%s.%s", name, suffix);
    unsigned char *bytes = golden_read(path, n_bytes);
    assert_non_null(bytes);
    return bytes;
}

/* every type of the manifest that a model may hold */
static const char *const golden_types[] = {
    "F16",   "BF16",   "Q8_0",  "Q4_0",  "Q4_1",    "Q5_0",   "Q5_1",    "Q2_K",
    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "IQ1_S",   "IQ1_M",  "IQ2_XXS", "IQ2_XS",
    "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",   "MXFP4",
};
enum { N_GOLDEN_TYPES = sizeof golden_types / sizeof golden_types[0] };

static void blocks_stand_for_the_golden_floats(void **state)
{
    (void)state;
    golden_or_skip();
    for (int t = 0; t < N_GOLDEN_TYPES; t++) {
        const struct tensor_type_info *info = tensor_type_by_name(golden_types[t]);
        size_t n_blocks_bytes, n_float_bytes;
        unsigned char *blocks = read_golden(info->name, "blocks", &n_blocks_bytes);
        unsigned char *floats = read_golden(info->name, "f32", &n_float_bytes);
        const size_t n = n_blocks_bytes / info->block_bytes * info->block_elems;
        assert_true(n > 0 && n * sizeof(float) == n_float_bytes);
        float *out = mem_alloc(n, sizeof *out);
        tensor_row_to_f32((enum tensor_type)info->number, blocks, (int64_t)n, out);
        if (memcmp(out, floats, n_float_bytes) != 0) {
            fail_msg("%s: other floats than the reference", info->name);
        }
        mem_free(out);
        golden_free(floats);
        golden_free(blocks);
    }
}

/* A type in the manifest that no test reads would go unnoticed. */
static void every_golden_type_is_read(void **state)
{
    (void)state;
    golden_or_skip();
    size_t n_bytes;
    char *manifest = (char *)golden_read("golden/quant/MANIFEST.json", &n_bytes);
    assert_non_null(manifest);
    int n_in_manifest = 0;
    for (char *at = strstr(manifest, "\"ggml_type\":"); at; at = strstr(at + 1, "\"ggml_type\":")) {
        n_in_manifest++;
    }
    assert_int_equal(n_in_manifest, N_GOLDEN_TYPES);
    golden_free(manifest);
}

static void what_is_not_native_is_converted_or_refused(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < 64; number++) {
        const struct tensor_type_info *info = tensor_type_info(number);
        const int to = tensor_type_convert_to(number);
        if (!info || info->native) {
            assert_int_equal(to, -1);
        } else if (to >= 0) {
            assert_true(tensor_type_info((uint32_t)to)->native && tensor_type_can_write((uint32_t)to));
            assert_int_equal(info->block_elems % tensor_type_info((uint32_t)to)->block_elems, 0);
        }
    }
    assert_int_equal(tensor_type_convert_to(TENSOR_IQ1_S), TENSOR_Q8_0);
    assert_int_equal(tensor_type_convert_to(9), -1);  /* Q8_1: never in a file */
    assert_int_equal(tensor_type_convert_to(28), -1); /* F64 */
}

/* ---- blocks of 256, written by a search ---- */

static double rms_error(enum tensor_type type, const float *x, int64_t n)
{
    const struct tensor_type_info *info = tensor_type_info(type);
    unsigned char *blocks = mem_alloc((size_t)n / info->block_elems, info->block_bytes);
    float *back = mem_alloc((size_t)n, sizeof *back);
    double sum = 0;
    tensor_row_from_f32(type, x, n, blocks);
    tensor_row_to_f32(type, blocks, n, back);
    for (int64_t i = 0; i < n; i++) {
        sum += ((double)back[i] - (double)x[i]) * ((double)back[i] - (double)x[i]);
    }
    mem_free(blocks);
    mem_free(back);
    return sqrt(sum / (double)n);
}

/* Normal deviates: expected errors are those of the format, not of a lucky sample. */
static void searched_scales_lose_little(void **state)
{
    enum { N = 256 * 64 };
    static float x[N];
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        double sum = -6;
        for (uint32_t k = 0; k < 12; k++) {
            sum += (double)(rng_mix64(i * 12 + k) >> 11) * 0x1p-53;
        }
        x[i] = (float)sum;
    }
    const double q8 = rms_error(TENSOR_Q8_0, x, N), q6 = rms_error(TENSOR_Q6_K, x, N);
    const double q4k = rms_error(TENSOR_Q4_K, x, N), q4 = rms_error(TENSOR_Q4_0, x, N);
    print_message("rms error: Q8_0 %.5f, Q6_K %.5f, Q4_K %.5f, Q4_0 %.5f\n", q8, q6, q4k, q4);
    assert_true(q8 < q6 && q6 < 0.025 && q6 < q4k / 3);
    assert_true(q4k < 0.085 && q4k < q4 * 0.9);
    for (int32_t i = 0; i < N; i++) {
        x[i] = 0.0f;
    }
    assert_true(rms_error(TENSOR_Q4_K, x, N) == 0 && rms_error(TENSOR_Q6_K, x, N) == 0);
    for (int32_t i = 0; i < N; i++) {
        x[i] = i % 256 < 128 ? -0.75f : 3.0f; /* equal elements: no spread to search */
    }
    assert_true(rms_error(TENSOR_Q4_K, x, N) < 0.05 && rms_error(TENSOR_Q6_K, x, N) < 0.02);
}

static void quantising_gives_the_golden_blocks(void **state)
{
    (void)state;
    golden_or_skip();
    size_t n;
    float *x = golden_read_floats("golden/quant/x.f32", &n);
    assert_non_null(x);
    for (int t = 0; t < 4; t++) { /* those whose quantiser is published to the bit */
        const struct tensor_type_info *info = tensor_type_by_name(golden_types[t]);
        size_t n_bytes;
        unsigned char *blocks = read_golden(info->name, "blocks", &n_bytes);
        assert_int_equal(n / info->block_elems * info->block_bytes, n_bytes);
        unsigned char *made = mem_alloc(n_bytes, 1);
        tensor_row_from_f32((enum tensor_type)info->number, x, (int64_t)n, made);
        assert_memory_equal(made, blocks, n_bytes);
        mem_free(made);
        golden_free(blocks);
    }
    golden_free(x);
}

/* Halves and brain floats that were floats come back; every half is one. */
static void sixteen_bits_come_back(void **state)
{
    static const enum tensor_type types[] = { TENSOR_F16, TENSOR_BF16 };
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000u; bits++) {
        for (int t = 0; t < 2; t++) {
            const uint16_t in = (uint16_t)bits;
            uint16_t out;
            float value;
            tensor_row_to_f32(types[t], &in, 1, &value);
            tensor_row_from_f32(types[t], &value, 1, &out);
            assert_true(isnan(value) ? (out & 0x7c00u) == 0x7c00u : out == in);
        }
    }
}

static void blocks_survive_what_is_no_number(void **state)
{
    static const enum tensor_type types[] = { TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K };
    static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f };
    (void)state;
    for (int t = 0; t < 4; t++) {
        for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
            float x[256] = { 1.0f, -2.0f, 0.25f };
            unsigned char block[34 * 8];
            x[5] = odd[i];
            tensor_row_from_f32(types[t], x, 256, block); /* the sanitizers listen */
            tensor_row_to_f32(types[t], block, 256, x);
        }
    }
}

static void weight_sizes_refuse_what_cannot_be(void **state)
{
    (void)state;
    assert_int_equal(backend_weight_bytes(TENSOR_Q4_0, 16, 48), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_Q4_K, 16, 288), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_IQ4_XS, 16, 256), 0);
    assert_int_equal(backend_weight_bytes((enum tensor_type)4, 16, 256), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_F32, 0, 256), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_F32, 16, -1), 0);
    assert_int_equal(backend_weight_bytes(TENSOR_F32, INT64_MAX, INT64_MAX), 0);
    assert_true(backend_weight_bytes(TENSOR_F32, 17, 48) >= 17 * 48 * 4);
}

/* One element of a row of floats, or one scale of a row of blocks, that is no number is found; the
 * largest and smallest numbers are numbers. */
static void what_is_no_number_is_found(void **state)
{
    (void)state;
    static const struct { enum tensor_type type; int bytes; uint32_t nan, inf, largest; } FLOATS[] = {
        { TENSOR_F32, 4, 0x7fc00000u, 0xff800000u, 0x7f7fffffu },
        { TENSOR_F16, 2, 0x7c01u, 0xfc00u, 0xfbffu },
        { TENSOR_BF16, 2, 0xffc1u, 0x7f80u, 0x7f7fu },
    };
    static const struct { enum tensor_type type; int place; } SCALES[] = {
        { TENSOR_Q8_0, 0 },  { TENSOR_Q4_0, 0 },  { TENSOR_Q4_1, 2 },  { TENSOR_Q5_0, 0 },
        { TENSOR_Q5_1, 2 },  { TENSOR_Q2_K, 80 }, { TENSOR_Q2_K, 82 }, { TENSOR_Q3_K, 108 },
        { TENSOR_Q4_K, 0 },  { TENSOR_Q4_K, 2 },  { TENSOR_Q5_K, 2 },  { TENSOR_Q6_K, 208 },
    };
    unsigned char row[2048];
    for (size_t f = 0; f < sizeof FLOATS / sizeof FLOATS[0]; f++) {
        for (int n = 1; n <= 19; n++) {
            for (int i = 0; i < n; i++) {
                memset(row, 0x3b, sizeof row); /* 0.002 or so in each of the three */
                memcpy(row + i * FLOATS[f].bytes, &FLOATS[f].largest, (size_t)FLOATS[f].bytes);
                assert_true(tensor_row_is_finite(FLOATS[f].type, row, n));
                memcpy(row + i * FLOATS[f].bytes, &FLOATS[f].nan, (size_t)FLOATS[f].bytes);
                assert_false(tensor_row_is_finite(FLOATS[f].type, row, n));
                assert_true(tensor_row_is_finite(FLOATS[f].type, row, i)); /* looks no further */
                memcpy(row + i * FLOATS[f].bytes, &FLOATS[f].inf, (size_t)FLOATS[f].bytes);
                assert_false(tensor_row_is_finite(FLOATS[f].type, row, n));
            }
        }
    }
    for (size_t t = 0; t < sizeof SCALES / sizeof SCALES[0]; t++) {
        const struct tensor_type_info *info = tensor_type_info((uint32_t)SCALES[t].type);
        for (uint32_t block = 0; block < 3; block++) {
            const uint16_t inf = 0x7c00;
            memset(row, 0x3b, sizeof row);
            assert_true(tensor_row_is_finite(SCALES[t].type, row, 3 * info->block_elems));
            memcpy(row + block * info->block_bytes + (uint32_t)SCALES[t].place, &inf, 2);
            assert_false(tensor_row_is_finite(SCALES[t].type, row, 3 * info->block_elems));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers),
        cmocka_unit_test(sizes_agree_with_the_manifest),
        cmocka_unit_test(blocks_stand_for_the_golden_floats),
        cmocka_unit_test(every_golden_type_is_read),
        cmocka_unit_test(what_is_not_native_is_converted_or_refused),
        cmocka_unit_test(searched_scales_lose_little),
        cmocka_unit_test(quantising_gives_the_golden_blocks),
        cmocka_unit_test(sixteen_bits_come_back),
        cmocka_unit_test(blocks_survive_what_is_no_number),
        cmocka_unit_test(what_is_no_number_is_found),
        cmocka_unit_test(weight_sizes_refuse_what_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
