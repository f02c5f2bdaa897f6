/* test_mathx: accuracy of the elementary functions against double precision, special values, equal
 * bits on every instruction set, and half conversions against the hardware's.
 */
#include "mathx_sweep.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mathx.h"

enum { BATCH = 4096 };

/* Sweeps go over all 2^32 patterns in a stride that is a prime; quick builds take a longer one. */
static uint32_t sweep_stride(void)
{
    return getenv("TANDEM_TEST_QUICK") != NULL ? 6007 : 751;
}

/* ---- accuracy ---- */
struct accuracy_case {
    const char *name;
    enum sweep_op op;
    double (*exact)(double x);
    double limit_ulp;
    uint32_t first, last, stride; /* bit patterns; stride 0 = sweep_stride() */
};

static double exact_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double exact_silu(double x) { return x / (1.0 + exp(-x)); }

static double ulp_of(double exact)
{
    int exponent;
    if (fabs(exact) < 0x1p-126) {
        return 0x1p-149;
    }
    frexp(exact, &exponent);
    return ldexp(1.0, exponent - 24);
}

/* Error in ulp of the exact value's binade; special values must be the same. */
static double error_ulp(float found, double exact)
{
    if (isnan(exact)) {
        return isnan(found) ? 0 : INFINITY;
    }
    if (fabs(exact) >= 0x1.ffffffp127) { /* rounds to infinity */
        return isinf(found) && !signbit(found) == !signbit(exact) ? 0 : INFINITY;
    }
    return fabs((double)found - exact) / ulp_of(exact);
}

static void check_accuracy(const struct accuracy_case *c)
{
    static uint32_t in[BATCH], out[BATCH];
    const uint32_t stride = c->stride == 0 ? sweep_stride() : c->stride;
    const sweep_fn wide = mathx_sweep_avx2();
    double worst = 0;
    uint32_t worst_in = 0;
    for (uint64_t at = c->first; at <= c->last;) {
        int n = 0;
        for (; n < BATCH && at <= c->last; at += stride) {
            in[n++] = (uint32_t)at;
        }
        (wide != NULL ? wide : mathx_sweep_scalar)(c->op, in, out, n); /* same bits: see below */
        for (int i = 0; i < n; i++) {
            const double exact = c->exact((double)mathx_from_bits(in[i]));
            const double error = error_ulp(mathx_from_bits(out[i]), exact);
            if (!(error <= worst)) {
                worst = error;
                worst_in = in[i];
            }
        }
    }
    printf("%-8s %08x..%08x worst %.3f ulp at %a\n", c->name, c->first, c->last, worst,
           (double)mathx_from_bits(worst_in));
    assert_true(worst <= c->limit_ulp);
}

static void accuracy(void **state)
{
    (void)state;
    static const struct accuracy_case cases[] = {
        { "exp", SWEEP_EXP, exp, 1.0, 0, 0x42d00000u, 0 },
        { "exp", SWEEP_EXP, exp, 1.0, 0x80000000u, 0xc2d80000u, 0 },
        { "exp", SWEEP_EXP, exp, 1.0, 0x42b17100u, 0x42b17300u, 1 }, /* the border of +inf */
        { "exp", SWEEP_EXP, exp, 1.0, 0xc2ae0000u, 0xc2d40000u, 61 }, /* subnormal results */
        { "exp", SWEEP_EXP, exp, 1.0, 0x42b00000u, 0xffffffffu, 65521 },
        { "log", SWEEP_LOG, log, 1.0, 0, 0x7fffffffu, 0 },
        { "log", SWEEP_LOG, log, 1.0, 0, 0x00810000u, 61 },          /* subnormal arguments */
        { "log", SWEEP_LOG, log, 1.0, 0x3f7f0000u, 0x3f810000u, 1 }, /* about 1 */
        { "log", SWEEP_LOG, log, 1.0, 0x80000000u, 0xffffffffu, 65521 },
        { "log1p", SWEEP_LOG1P, log1p, 1.5, 0, 0x7fffffffu, 0 },
        { "log1p", SWEEP_LOG1P, log1p, 1.5, 0x80000000u, 0xbf7fffffu, 0 },
        { "log1p", SWEEP_LOG1P, log1p, 1.5, 0xb3000000u, 0xb5000000u, 31 }, /* about -2^-24 */
        { "log1p", SWEEP_LOG1P, log1p, 1.5, 0xbf7f0000u, 0xbf800000u, 1 },  /* about -1 */
        { "log1p", SWEEP_LOG1P, log1p, 1.5, 0xbf800000u, 0xffffffffu, 65521 },
        { "sigmoid", SWEEP_SIGMOID, exact_sigmoid, 2.0, 0, 0x7f800000u, 0 },
        { "sigmoid", SWEEP_SIGMOID, exact_sigmoid, 2.0, 0x80000000u, 0xff800000u, 0 },
        /* the written formula, x / (1 + exp(-x)), as far as its divisor is finite */
        { "silu", SWEEP_SILU, exact_silu, 2.5, 0, 0x7f7fffffu, 0 },
        { "silu", SWEEP_SILU, exact_silu, 2.5, 0x80000000u, 0xc2b00000u, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_accuracy(&cases[i]);
    }
}

/* The measure itself must be able to fail: an exp with a cut polynomial is over the limit. */
static void accuracy_sees_a_bad_exp(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -1; x < 1; x += 1.0f / 64) {
        float sum = 1.0f, term = 1.0f;
        for (int i = 1; i < 7; i++) {
            term *= x / (float)i;
            sum += term;
        }
        worst = fmax(worst, error_ulp(sum, exp((double)x)));
    }
    assert_true(worst > 2.0);
}

static void special_values(void **state)
{
    (void)state;
    const float inf = INFINITY, tiny = mathx_from_bits(1);
    assert_true(mathx_exp(0.0f) == 1.0f && mathx_exp(-0.0f) == 1.0f);
    assert_true(mathx_exp(inf) == inf && mathx_exp(1000.0f) == inf && mathx_exp(-inf) == 0.0f);
    assert_true(mathx_exp(-103.9f) == tiny && mathx_exp(-104.5f) == 0.0f);
    assert_true(isnan(mathx_exp(NAN)) && isnan(mathx_log(NAN)) && isnan(mathx_log1p(NAN)));
    assert_true(mathx_log(1.0f) == 0.0f && !signbit(mathx_log(1.0f)));
    assert_true(mathx_log(0.0f) == -inf && mathx_log(-0.0f) == -inf && mathx_log(inf) == inf);
    assert_true(isnan(mathx_log(-1.0f)) && isnan(mathx_log(-inf)) && isnan(mathx_log(-tiny)));
    assert_true(mathx_log1p(0.0f) == 0.0f && mathx_log1p(-1.0f) == -inf && mathx_log1p(inf) == inf);
    assert_true(mathx_log1p(tiny) == tiny && mathx_log1p(-tiny) == -tiny);
    assert_true(isnan(mathx_log1p(-2.0f)));
    assert_true(mathx_sigmoid(0.0f) == 0.5f && mathx_sigmoid(inf) == 1.0f &&
                mathx_sigmoid(-inf) == 0);
    assert_true(mathx_silu(0.0f) == 0.0f && mathx_silu(100.0f) == 100.0f &&
                mathx_silu(-100.0f) == 0);
    assert_true(isnan(mathx_sigmoid(NAN)) && isnan(mathx_silu(NAN)));
    assert_true(mathx_rint_small(2.5f) == 2.0f && mathx_rint_small(3.5f) == 4.0f);
    assert_true(mathx_bf16_to_f32(0x3fc0) == 1.5f);
}

/* ---- equal bits ---- */
/* A NaN is a NaN: which of two operands hands on its payload is the compiler's choice of order. */
static bool same_value(uint32_t a, uint32_t b)
{
    const bool both_nan = (a & 0x7fffffffu) > 0x7f800000u && (b & 0x7fffffffu) > 0x7f800000u;
    return a == b || both_nan;
}

static void check_equal(const char *name, sweep_fn other, enum sweep_op op, uint32_t stride)
{
    static uint32_t in[BATCH], expected[BATCH], found[BATCH];
    for (uint64_t at = 0; at <= 0xffffffffu;) {
        int n = 0;
        for (; n < BATCH - 5 && at <= 0xffffffffu; at += stride) { /* odd lengths: tails too */
            in[n++] = (uint32_t)at;
        }
        mathx_sweep_scalar(op, in, expected, n);
        other(op, in, found, n);
        for (int i = 0; i < n; i++) {
            if (!same_value(expected[i], found[i])) {
                fail_msg("%s, operation %d: %08x gives %08x, expected %08x", name, (int)op, in[i],
                         found[i], expected[i]);
            }
        }
    }
}

static void equal_bits(void **state)
{
    (void)state;
    const struct { const char *name; sweep_fn fn; } variants[] = {
        { "avx2", mathx_sweep_avx2() }, { "avx512", mathx_sweep_avx512() }
    };
    for (size_t v = 0; v < 2; v++) {
        if (variants[v].fn == NULL) {
            printf("skipped: this machine has no %s\n", variants[v].name);
            continue;
        }
        for (int op = 0; op < SWEEP_OPS; op++) {
            check_equal(variants[v].name, variants[v].fn, (enum sweep_op)op,
                        2 * sweep_stride() + 1);
        }
    }
}

/* Every half, and a sweep of floats, against the hardware: NaN payloads too. */
static void halves_as_the_hardware(void **state)
{
    (void)state;
    static uint32_t in[65536], expected[65536], found[65536];
    const sweep_fn hardware = mathx_sweep_f16c();
    if (hardware == NULL) {
        puts("skipped: this machine has no f16c");
        skip();
    }
    for (uint32_t i = 0; i < 65536; i++) {
        in[i] = i;
    }
    hardware(SWEEP_HALF_TO_FLOAT, in, expected, 65536);
    mathx_sweep_scalar(SWEEP_HALF_TO_FLOAT, in, found, 65536);
    assert_memory_equal(expected, found, sizeof found);
    for (uint64_t at = 0; at <= 0xffffffffu;) {
        int n = 0;
        for (; n < 65536 && at <= 0xffffffffu; at += 127) {
            in[n++] = (uint32_t)at;
        }
        hardware(SWEEP_FLOAT_TO_HALF, in, expected, n);
        mathx_sweep_scalar(SWEEP_FLOAT_TO_HALF, in, found, n);
        assert_memory_equal(expected, found, (size_t)n * sizeof *found);
    }
}

/* Exact without hardware: every half survives the way there and back; ties go to even. */
static void halves_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        const float value = mathx_f16_to_f32((uint16_t)half);
        const uint32_t quiet = (half & 0x7fffu) > 0x7c00u ? half | 0x0200u : half;
        assert_int_equal(mathx_f32_to_f16(value), quiet);
    }
    assert_int_equal(mathx_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);         /* tie, even below */
    assert_int_equal(mathx_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);     /* tie, even above */
    assert_int_equal(mathx_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(mathx_f32_to_f16(65520.0f), 0x7c00);                /* tie with infinity */
    assert_int_equal(mathx_f32_to_f16(0x1p-25f), 0);                     /* tie with zero */
    assert_int_equal(mathx_f32_to_f16(mathx_from_bits(0x33000001u)), 1); /* just above it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accuracy),
        cmocka_unit_test(accuracy_sees_a_bad_exp),
        cmocka_unit_test(special_values),
        cmocka_unit_test(equal_bits),
        cmocka_unit_test(halves_as_the_hardware),
        cmocka_unit_test(halves_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
