/* pattern: PCRE2 around a text, run by run of UTF-8. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include <pcre2.h>
#include <string.h>

#include "tokenizer/utf8.h"

enum {
    MATCH_LIMIT = 20 << 20,   /* steps of one search: a run of a million blanks takes a million */
    HEAP_LIMIT_KIB = 64 << 10 /* where the machine code's stack does not suffice */
};

struct pattern {
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *code;
    char *source;             /* for sentences */
};

static void *pattern_alloc(size_t n_bytes, void *user)
{
    (void)user;
    return mem_alloc(n_bytes, 1);
}

static void pattern_free(void *block, void *user)
{
    (void)user;
    mem_free(block);
}

/* ---- making ---- */
static enum status no_memory(void)
{
    return status_fail(STATUS_NO_MEMORY, "no memory for a pattern");
}

static enum status compile(struct pattern *pattern, const struct bytes *text, uint32_t options)
{
    pcre2_compile_context *context = pcre2_compile_context_create(pattern->memory);
    if (!context) {
        return no_memory();
    }
    int error = 0;
    PCRE2_SIZE at = 0;
    pattern->code = pcre2_compile((PCRE2_SPTR)text->at, text->n, options, &error, &at, context);
    pcre2_compile_context_free(context);
    if (!pattern->code && error == PCRE2_ERROR_HEAP_FAILED) {
        return no_memory();
    }
    if (!pattern->code) {
        char why[160] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        return status_fail(STATUS_INVALID, "expected a regular expression, found '%.200s': %s",
                           pattern->source, why);
    }
    /* Where it cannot be compiled to machine code, the interpreter gives the same, only slower. */
    (void)pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    return STATUS_OK;
}

enum status pattern_create(enum pattern_syntax syntax, const char *source, size_t n_bytes,
                           struct pattern **out)
{
    *out = NULL;
    if (n_bytes > PATTERN_MAX_BYTES) {
        return status_fail(STATUS_INVALID, "expected a pattern of at most %d bytes, found %zu",
                           PATTERN_MAX_BYTES, n_bytes);
    }
    struct pattern *pattern = mem_alloc(1, sizeof *pattern);
    if (!pattern) {
        return no_memory();
    }
    struct bytes text = { .at = NULL };
    enum status status;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE;
    TRY_GOTO(bytes_append(&text, "", 0), out);
    pattern->memory = pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    pattern->limits = pattern->memory ? pcre2_match_context_create(pattern->memory) : NULL;
    pattern->source = mem_alloc(n_bytes + 1, 1);
    if (!pattern->limits || !pattern->source) {
        status = no_memory();
        goto out;
    }
    pcre2_set_match_limit(pattern->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(pattern->limits, HEAP_LIMIT_KIB);
    if (n_bytes > 0) {
        memcpy(pattern->source, source, n_bytes);
    }
    if (syntax == PATTERN_LITERAL) {
        options = PCRE2_UTF | PCRE2_LITERAL;
        TRY_GOTO(bytes_append(&text, source, n_bytes), out);
    } else {
        TRY_GOTO(pattern_rewrite(source, n_bytes, &text), out);
    }
    TRY_GOTO(compile(pattern, &text, options), out);
    *out = pattern;
    pattern = NULL;
out:
    bytes_deinit(&text);
    pattern_destroy(pattern);
    return status;
}

void pattern_destroy(struct pattern *pattern)
{
    if (!pattern) {
        return;
    }
    pcre2_code_free(pattern->code);
    pcre2_match_context_free(pattern->limits);
    pcre2_general_context_free(pattern->memory);
    mem_free(pattern->source);
    mem_free(pattern);
}

/* ---- searching ---- */
enum status pattern_scan_init(struct pattern_scan *scan, const struct pattern *pattern)
{
    scan->pattern = pattern;
    scan->match_data = pcre2_match_data_create_from_pattern(pattern->code, pattern->memory);
    return scan->match_data ? STATUS_OK : no_memory();
}

void pattern_scan_deinit(struct pattern_scan *scan)
{
    pcre2_match_data_free(scan->match_data);
    scan->match_data = NULL;
}

/* *found: the next match in text[at, n), which is UTF-8. */
static enum status search(struct pattern_scan *scan, const char *text, size_t n, size_t at,
                          bool *found)
{
    const struct pattern *pattern = scan->pattern;
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, n, at, options, scan->match_data,
                         pattern->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        options |= PCRE2_NO_JIT;
        rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, n, at, options, scan->match_data,
                         pattern->limits);
    }
    *found = rc > 0;
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return status_fail(STATUS_NO_MEMORY, "no memory to search %zu bytes of text", n);
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        char why[160] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return status_fail(STATUS_INVALID,
                           "the tokenizer's pattern '%.200s' runs away on this text: %s",
                           pattern->source, why);
    }
    return STATUS_OK;
}

/* Where a run of UTF-8 that begins at `at` ends. */
static size_t run_end(const char *text, size_t at, size_t n_bytes)
{
    while (at < n_bytes) {
        if ((unsigned char)text[at] < 0x80) {
            at++;
            continue;
        }
        const struct utf8_part part = utf8_first((const unsigned char *)text + at, n_bytes - at);
        if (part.state != UTF8_WHOLE) {
            break;
        }
        at += part.len;
    }
    return at;
}

struct visitor { pattern_visit *visit; void *user; size_t last_end; };

/* What lies between the last match and this one, then this one. */
static enum status visit_match(struct visitor *visitor, size_t begin, size_t end)
{
    if (begin > visitor->last_end) {
        TRY(visitor->visit(visitor->user, (struct pattern_part){visitor->last_end, begin, false}));
    }
    visitor->last_end = end;
    return visitor->visit(visitor->user, (struct pattern_part){ begin, end, true });
}

/* All matches in text[begin, end), which is UTF-8. No empty one right behind another. */
static enum status scan_run(struct pattern_scan *scan, const char *text, size_t begin, size_t end,
                            struct visitor *visitor)
{
    const char *run = text + begin;
    const size_t n = end - begin;
    size_t last_match = SIZE_MAX;
    for (size_t at = 0; at <= n;) {
        bool found = false;
        TRY(search(scan, run, n, at, &found));
        if (!found) {
            break;
        }
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(scan->match_data);
        /* \K and lookaround could put a start behind its end, or before the search */
        if (range[0] > range[1] || range[0] < at) {
            break;
        }
        if (range[0] == range[1] && range[1] == last_match) {
            at += at < n ? utf8_first((const unsigned char *)run + at, n - at).len : 1;
            continue;
        }
        at = last_match = range[1];
        TRY(visit_match(visitor, begin + range[0], begin + range[1]));
    }
    return STATUS_OK;
}

enum status pattern_scan_text(struct pattern_scan *scan, const char *text, size_t n_bytes,
                              pattern_visit *visit, void *user)
{
    struct visitor visitor = { .visit = visit, .user = user };
    for (size_t at = 0; at < n_bytes;) {
        const size_t end = run_end(text, at, n_bytes);
        if (end > at) {
            TRY(scan_run(scan, text, at, end, &visitor));
            at = end;
        } else {
            at += utf8_first((const unsigned char *)text + at, n_bytes - at).len;
        }
    }
    if (visitor.last_end < n_bytes) {
        TRY(visit(user, (struct pattern_part){ visitor.last_end, n_bytes, false }));
    }
    return STATUS_OK;
}
