/* normalize_form: NFC, NFD, NFKC and NFKD. utf8proc knows what each character is made of and what two
 * compose to; marks are put in order here, since its own way takes quadratic time on a long run of
 * them. A text is worked on in runs that nothing reaches over: from one ASCII character that plain
 * ASCII follows to the next.
 */
#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "tokenizer/normalize.h"
#include "tokenizer/utf8.h"

enum { MAX_EXPANSION = 32 }; /* characters one becomes; Unicode's longest is 18 */

struct form_work {
    utf8proc_option_t options;  /* of decomposing */
    bool composes;
    utf8proc_int32_t *points;   /* [cap] */
    utf8proc_int32_t *sorted;   /* [cap] */
    size_t n, cap;
};

static int combining_class(utf8proc_int32_t point)
{
    return utf8proc_get_property(point)->combining_class;
}

static enum status reserve(struct form_work *work, size_t more)
{
    if (work->n + more <= work->cap) {
        return STATUS_OK;
    }
    const size_t cap = (work->n + more) + (work->n + more) / 2;
    utf8proc_int32_t *points = mem_realloc(work->points, cap, sizeof *points);
    work->points = points ? points : work->points;
    utf8proc_int32_t *sorted = points ? mem_realloc(work->sorted, cap, sizeof *sorted) : NULL;
    work->sorted = sorted ? sorted : work->sorted;
    if (!points || !sorted) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu characters", cap);
    }
    work->cap = cap;
    return STATUS_OK;
}

static enum status decompose(struct form_work *work, const char *text, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        utf8proc_int32_t point = 0;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                    (utf8proc_ssize_t)(n_bytes - at), &point);
        ASSERT(n > 0); /* the run is UTF-8 */
        TRY(reserve(work, MAX_EXPANSION));
        int last_class = 0;
        const utf8proc_ssize_t n_points = utf8proc_decompose_char(
            point, work->points + work->n, MAX_EXPANSION, work->options, &last_class);
        ASSERT(n_points >= 0 && n_points <= MAX_EXPANSION);
        work->n += (size_t)n_points;
        at += (size_t)n;
    }
    return STATUS_OK;
}

/* Points [begin, end), all marks, by class, equal ones as they stand: a counting sort. */
static void sort_marks(struct form_work *work, size_t begin, size_t end)
{
    size_t starts[257] = { 0 };
    for (size_t i = begin; i < end; i++) {
        starts[combining_class(work->points[i]) + 1]++;
    }
    for (int class = 0; class < 256; class++) {
        starts[class + 1] += starts[class];
    }
    for (size_t i = begin; i < end; i++) {
        work->sorted[starts[combining_class(work->points[i])]++] = work->points[i];
    }
    memcpy(work->points + begin, work->sorted, (end - begin) * sizeof *work->points);
}

/* Short runs, nearly all there are, by insertion. */
static void order_marks(struct form_work *work, size_t begin, size_t end)
{
    enum { SHORT = 16 };
    if (end - begin > SHORT) {
        sort_marks(work, begin, end);
        return;
    }
    for (size_t i = begin + 1; i < end; i++) {
        const utf8proc_int32_t point = work->points[i];
        size_t at = i;
        for (; at > begin && combining_class(work->points[at - 1]) > combining_class(point); at--) {
            work->points[at] = work->points[at - 1];
        }
        work->points[at] = point;
    }
}

static void order(struct form_work *work)
{
    for (size_t at = 0; at < work->n;) {
        size_t end = at;
        while (end < work->n && combining_class(work->points[end]) > 0) {
            end++;
        }
        order_marks(work, at, end);
        at = end + (end == at);
    }
}

static enum status put_run(struct form_work *work, const char *text, size_t n_bytes,
                           struct bytes *out)
{
    work->n = 0;
    TRY(decompose(work, text, n_bytes));
    order(work);
    if (work->composes && work->n > 0) {
        const utf8proc_option_t options = UTF8PROC_COMPOSE | UTF8PROC_STABLE;
        const utf8proc_ssize_t n =
            utf8proc_normalize_utf32(work->points, (utf8proc_ssize_t)work->n, options);
        ASSERT(n >= 0);
        work->n = (size_t)n;
    }
    for (size_t i = 0; i < work->n; i++) {
        utf8proc_uint8_t character[4];
        const utf8proc_ssize_t n = utf8proc_encode_char(work->points[i], character);
        TRY(bytes_append(out, (const char *)character, (size_t)n));
    }
    return STATUS_OK;
}

static bool is_ascii(char c) { return (unsigned char)c < 0x80; }

/* How far a run from `at` goes that must be worked on as one: the characters that are not ASCII, with
 * the ASCII character before them. 0: ASCII follows ASCII here, or the text ends, or it is broken. */
static size_t run_bytes(const char *text, size_t at, size_t n_bytes)
{
    size_t end = at + is_ascii(text[at]);
    while (end < n_bytes && !is_ascii(text[end])) {
        const struct utf8_part part = utf8_first((const unsigned char *)text + end, n_bytes - end);
        if (part.state != UTF8_WHOLE) {
            break;
        }
        end += part.len;
    }
    return end - at - (is_ascii(text[at]) && end == at + 1);
}

enum status normalize_form(enum normalize_kind form, const char *text, size_t n_bytes,
                           struct bytes *out)
{
    const bool compatible = form == NORMALIZE_NFKC || form == NORMALIZE_NFKD;
    struct form_work work = {
        .options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0),
        .composes = form == NORMALIZE_NFC || form == NORMALIZE_NFKC,
    };
    enum status status = STATUS_OK;
    for (size_t at = 0; at < n_bytes && status == STATUS_OK;) {
        const size_t run = run_bytes(text, at, n_bytes);
        if (run > 0) {
            status = put_run(&work, text + at, run, out);
            at += run;
            continue;
        }
        size_t plain = 1; /* an ASCII character, or a broken byte */
        while (is_ascii(text[at]) && at + plain < n_bytes && is_ascii(text[at + plain]) &&
               (at + plain + 1 == n_bytes || is_ascii(text[at + plain + 1]))) {
            plain++;
        }
        status = bytes_append(out, text + at, plain);
        at += plain;
    }
    mem_free(work.sorted);
    mem_free(work.points);
    return status;
}
