/* test_rng: the generator against its published answers; each way to read it, too. */
#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "backend/backend.h"
#include "base/base.h"

struct answer { uint32_t counter[4], key[2], result[4]; };

/* Random123, kat_vectors, "philox4x32 10" */
static const struct answer published[] = {
    { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
      { 0xffffffff, 0xffffffff },
      { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
      { 0xa4093822, 0x299f31d0 },
      { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
};

static void philox_published(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        const struct philox_block block = rng_philox(published[i].counter, published[i].key);
        assert_memory_equal(block.word, published[i].result, sizeof block.word);
    }
}

static void words_of(const json_t *object, const char *name, uint32_t *word, size_t n)
{
    const json_t *array = json_object_get(object, name);
    assert_int_equal(json_array_size(array), n);
    for (size_t i = 0; i < n; i++) {
        word[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    }
}

static void philox_golden(void **state)
{
    (void)state;
    golden_or_skip();
    size_t n_bytes = 0;
    char *text = (char *)golden_read("golden/philox4x32-10.json", &n_bytes);
    assert_non_null(text);
    json_t *root = json_loadb(text, n_bytes, 0, NULL);
    assert_true(json_array_size(root) >= 3);
    for (size_t i = 0; i < json_array_size(root); i++) {
        struct answer answer;
        const json_t *object = json_array_get(root, i);
        words_of(object, "counter", answer.counter, 4);
        words_of(object, "key", answer.key, 2);
        words_of(object, "result", answer.result, 4);
        const struct philox_block block = rng_philox(answer.counter, answer.key);
        assert_memory_equal(block.word, answer.result, sizeof block.word);
    }
    json_decref(root);
    golden_free(text);
}

/* key = seed, low word first; counter = (index / 4, position, purpose, 0); lane index mod 4 */
static void coin_layout(void **state)
{
    (void)state;
    const uint64_t seed = 0x0123456789abcdefu;
    const uint32_t key[2] = { 0x89abcdefu, 0x01234567u };
    for (uint32_t purpose = COIN_TARGET; purpose <= COIN_DRAFT; purpose++) {
        for (uint32_t index = 0; index < 40; index++) {
            const uint32_t position = 1000 + 7 * index;
            const uint32_t counter[4] = { index / 4, position, purpose, 0 };
            const struct philox_block block = rng_philox(counter, key);
            const uint32_t word = rng_coin_word(seed, (enum coin_purpose)purpose, position, index);
            assert_int_equal(word, block.word[index % 4]);
            const float uniform =
                rng_coin_uniform(seed, (enum coin_purpose)purpose, position, index);
            assert_true((double)uniform == (double)(word >> 8) / 16777216.0);
            assert_true(uniform >= 0.0f && uniform < 1.0f);
        }
    }
}

static void choice_seeds(void **state)
{
    (void)state;
    const uint64_t seed = 0xfedcba9876543210u;
    const uint32_t key[2] = { 0x76543210u, 0xfedcba98u };
    assert_true(rng_choice_seed(seed, 0) == seed);
    for (uint32_t choice = 1; choice < 20; choice++) {
        const uint32_t counter[4] = { choice, 0, 4, 0 };
        const struct philox_block block = rng_philox(counter, key);
        const uint64_t expected = block.word[0] | (uint64_t)block.word[1] << 32;
        assert_true(rng_choice_seed(seed, choice) == expected);
    }
}

static void os_seeds_differ(void **state)
{
    (void)state;
    assert_true(rng_os_seed() != rng_os_seed());
}

enum { MAX_NOISE = 1200 };

static void expect_noise(const float *noise, uint64_t seed, uint32_t position, uint32_t first,
                         uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const float plain = mathx_gumbel(rng_coin_word(seed, COIN_TARGET, position, first + i));
        assert_int_equal(mathx_to_bits(noise[i]), mathx_to_bits(plain));
    }
    assert_true(noise[n] == -77.0f); /* nothing written behind the end */
}

/* Lengths on both sides of a chunk, several beginnings, all instruction sets there are. */
static void gumbel_fill(void **state)
{
    (void)state;
    static const char *const isas[] = { "scalar", "avx2", "avx512" };
    static const uint32_t lengths[] = { 0, 1, 3, 4, 63, 64, 65, 127, 128, 200, 1023 };
    float noise[MAX_NOISE];
    for (size_t s = 0; s < 3; s++) {
        struct backend *backend = NULL;
        if (backend_create("cpu", isas[s], &backend) != STATUS_OK) {
            printf("skipped: %s: %s\n", isas[s], status_message());
            continue;
        }
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            const uint64_t seed = rng_mix64(i);
            const uint32_t first = (uint32_t)i * 68, position = (uint32_t)(i * i);
            noise[lengths[i]] = -77.0f;
            backend_gumbel(backend, seed, position, first, lengths[i], noise);
            expect_noise(noise, seed, position, first, lengths[i]);
            rng_gumbel_fill(seed, COIN_TARGET, position, first, lengths[i], noise);
            expect_noise(noise, seed, position, first, lengths[i]);
        }
        backend_destroy(backend);
    }
}

/* The ends of the range are finite, and the noise falls as the word grows. */
static void gumbel_range(void **state)
{
    (void)state;
    assert_true(mathx_gumbel(0) > 22.8f && mathx_gumbel(0) < 22.9f);
    assert_true(mathx_gumbel(0xffffffffu) < -2.8f && mathx_gumbel(0xffffffffu) > -2.9f);
    float before = mathx_gumbel(0);
    for (uint64_t word = 0; word <= 0xffffffffu; word = word * 9 / 8 + 1) {
        const float noise = mathx_gumbel((uint32_t)word);
        assert_true(noise <= before);
        before = noise;
    }
}

/* Mean and variance of 2^20 values: Euler's constant and pi^2 / 6, within 5 standard errors. */
static void gumbel_moments(void **state)
{
    (void)state;
    enum { N = 1 << 20, STEP = 1024 };
    float noise[STEP];
    double sum = 0, squares = 0;
    for (uint32_t first = 0; first < N; first += STEP) {
        rng_gumbel_fill(42, COIN_TARGET, 5, first, STEP, noise);
        for (int i = 0; i < STEP; i++) {
            sum += (double)noise[i];
            squares += (double)noise[i] * (double)noise[i];
        }
    }
    const double mean = sum / N, variance = squares / N - mean * mean;
    assert_true(mean > 0.577216 - 0.0063 && mean < 0.577216 + 0.0063);
    assert_true(variance > 1.644934 - 0.017 && variance < 1.644934 + 0.017);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_published), cmocka_unit_test(philox_golden),
        cmocka_unit_test(coin_layout),      cmocka_unit_test(choice_seeds),
        cmocka_unit_test(os_seeds_differ),  cmocka_unit_test(gumbel_fill),
        cmocka_unit_test(gumbel_range),     cmocka_unit_test(gumbel_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
