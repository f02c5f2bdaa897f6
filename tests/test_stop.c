/* Stop strings over text that arrives token by token, against a search in the whole text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "scheduler/stop.h"

static const char model_path[] = "models/stories15M.Q8_0.gguf";
enum { N_IDS = 40, TEXT_CAP = 8192 };

struct text { char bytes[TEXT_CAP]; size_t len[N_IDS + 1]; /* after i tokens */ };

static struct tokenizer *open_tokenizer(void)
{
    struct tokenizer *tokenizer;
    if (text_open_path(model_path, &tokenizer) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
    return tokenizer;
}

static void whole_text(const struct tokenizer *tokenizer, const int32_t *ids, struct text *text)
{
    struct detokenizer stream;
    text_stream_begin(&stream, tokenizer, false);
    text->len[0] = 0;
    for (int i = 0; i < N_IDS; i++) {
        text->len[i + 1] = text->len[i] + text_stream_push(&stream, ids[i], text->bytes + text->len[i],
                                                           TEXT_CAP - text->len[i]);
    }
}

/* Beginning and end of the stop string that ends first in the text; end is 0 when there is none. */
struct place { size_t begin, end; };

static struct place first_stop(const struct stop_set *set, const char *text, size_t n)
{
    for (size_t end = 1; end <= n; end++) {
        struct place place = { end, 0 };
        for (int32_t i = 0; i < set->n_strings; i++) {
            const size_t len = set->string[i].n_bytes;
            if (len <= end && memcmp(text + end - len, set->string[i].bytes, len) == 0) {
                place.end = end;
                place.begin = end - len < place.begin ? end - len : place.begin;
            }
        }
        if (place.end != 0) {
            return place;
        }
    }
    return (struct place){ 0, 0 };
}

static void check_scan(const struct tokenizer *tokenizer, const struct stop_set *set, const int32_t *ids)
{
    struct text text;
    struct stop_scan scan;
    struct detokenizer stream;
    whole_text(tokenizer, ids, &text);
    text_stream_begin(&stream, tokenizer, false);
    assert_int_equal(stop_scan_init(&scan, set, &stream), STATUS_OK);
    const struct place stop = first_stop(set, text.bytes, text.len[N_IDS]);
    for (int i = 0; i < N_IDS; i++) {
        const bool found = stop_scan_push(&scan, set, ids[i]);
        const bool complete = stop.end != 0 && text.len[i + 1] >= stop.end;
        assert_int_equal(found, complete);
        if (found) {
            assert_int_equal(scan.n_released, stop.begin);
            break;
        }
        /* nothing of the stop goes out, and no more is held back than could be one */
        assert_true(stop.end == 0 || (size_t)scan.n_released <= stop.begin);
        assert_true(text.len[i + 1] - (size_t)scan.n_released < set->max_bytes);
    }
    stop_scan_deinit(&scan);
}

static void scanning_equals_searching(void **state)
{
    struct tokenizer *tokenizer = open_tokenizer();
    int n_with_stop = 0;
    (void)state;
    for (uint64_t seed = 1; seed < 3000; seed++) {
        static const char *const fixed[] = { "zq", "a b c", "\n\n" };
        int32_t ids[N_IDS];
        struct text text;
        char own[3][32];
        const char *stops[4] = { own[0], own[1], own[2], fixed[seed % 3] };
        for (int i = 0; i < N_IDS; i++) { /* few different ids, so that beginnings repeat */
            const uint64_t bits = rng_mix64(seed * 64 + (uint64_t)i);
            ids[i] = 3 + (int32_t)(bits % 8 < 6 ? (rng_mix64(seed) + bits % 5) % 900 : bits % 30000);
        }
        whole_text(tokenizer, ids, &text);
        for (size_t i = 0; i < 3; i++) { /* pieces of the text, wherever characters begin */
            const uint64_t bits = rng_mix64(seed + i);
            const size_t len = 1 + (bits >> 8) % 20;
            const size_t begin = bits % (text.len[N_IDS] - len);
            memcpy(own[i], text.bytes + begin, len);
            own[i][len] = '\0';
            if (i == 2) {
                own[i][len - 1] = '~'; /* nearly */
            }
        }
        struct stop_set set;
        assert_int_equal(stop_set_init(&set, stops + seed % 4, 4 - seed % 4), STATUS_OK);
        n_with_stop += first_stop(&set, text.bytes, text.len[N_IDS]).end != 0;
        check_scan(tokenizer, &set, ids);
        stop_set_deinit(&set);
    }
    assert_true(n_with_stop > 500 && n_with_stop < 2900);
    text_close(tokenizer);
}

static void impossible_sets_are_refused(void **state)
{
    static char longest[STOP_MAX_BYTES + 2];
    static const char *many[STOP_MAX_STRINGS + 1];
    struct stop_set set;
    (void)state;
    const char *empty[] = { "x", "" }, *too_long[] = { longest };
    memset(longest, 'x', STOP_MAX_BYTES + 1);
    for (size_t i = 0; i <= STOP_MAX_STRINGS; i++) {
        many[i] = "x";
    }
    assert_int_equal(stop_set_init(&set, empty, 2), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "number 2 is empty"));
    assert_int_equal(stop_set_init(&set, too_long, 1), STATUS_INVALID);
    assert_int_equal(stop_set_init(&set, many, STOP_MAX_STRINGS + 1), STATUS_INVALID);
    assert_int_equal(stop_set_init(&set, many, STOP_MAX_STRINGS), STATUS_OK);
    stop_set_deinit(&set);
    longest[STOP_MAX_BYTES] = '\0';
    assert_int_equal(stop_set_init(&set, too_long, 1), STATUS_OK);
    stop_set_deinit(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanning_equals_searching),
        cmocka_unit_test(impossible_sets_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
