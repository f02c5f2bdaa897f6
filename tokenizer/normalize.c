/* normalize: the list of steps, and all of them but the Unicode forms. */
#include "tokenizer/normalize.h"

#include <string.h>
#include <utf8proc.h>

#include "tokenizer/character.h"

/* ---- making ---- */
enum status normalizer_add(struct normalizer *normalizer, enum normalize_kind kind,
                           const char *content, size_t n_content, struct pattern *pattern)
{
    if (normalizer->n_steps == NORMALIZE_MAX_STEPS || n_content > NORMALIZE_MAX_CONTENT_BYTES) {
        pattern_destroy(pattern);
        return status_fail(STATUS_UNSUPPORTED,
                           "expected a normalizer of at most %d steps, and at most %d bytes "
                           "put in by one, found more",
                           NORMALIZE_MAX_STEPS, NORMALIZE_MAX_CONTENT_BYTES);
    }
    struct normalize_step *step = &normalizer->steps[normalizer->n_steps++];
    *step = (struct normalize_step){ .kind = kind, .pattern = pattern, .n_content = n_content };
    if (n_content > 0) {
        memcpy(step->content, content, n_content);
    }
    return STATUS_OK;
}

void normalizer_deinit(struct normalizer *normalizer)
{
    for (int i = 0; i < normalizer->n_steps; i++) {
        pattern_destroy(normalizer->steps[i].pattern);
    }
    normalizer->n_steps = 0;
}

/* ---- character by character ---- */
static enum status put_point(utf8proc_int32_t point, struct bytes *out)
{
    utf8proc_uint8_t character[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(point, character);
    return bytes_append(out, (const char *)character, (size_t)n);
}

static enum status put_character(enum normalize_kind kind, utf8proc_int32_t point,
                                 struct bytes *out)
{
    if (kind == NORMALIZE_STRIP_ACCENTS) {
        return character_is_mark(point) ? STATUS_OK : put_point(point, out);
    }
    TRY(put_point(utf8proc_tolower(point), out));
    /* the one letter whose small form is two characters */
    return point == 0x130 ? put_point(0x307, out) : STATUS_OK;
}

static enum status run_characters(enum normalize_kind kind, const char *text, size_t n_bytes,
                                  struct bytes *out)
{
    for (size_t at = 0; at < n_bytes;) {
        int32_t point;
        const size_t n = character_first(text + at, n_bytes - at, &point);
        TRY(point < 0 ? bytes_append(out, text + at, n) : put_character(kind, point, out));
        at += n;
    }
    return STATUS_OK;
}

static enum status run_strip(enum normalize_kind kind, const char *text, size_t n_bytes,
                             struct bytes *out)
{
    size_t begin = 0, end = n_bytes;
    int32_t point;
    while (kind == NORMALIZE_STRIP_LEFT && begin < n_bytes) {
        const size_t n = character_first(text + begin, n_bytes - begin, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
        begin += n;
    }
    while (kind == NORMALIZE_STRIP_RIGHT && end > begin) {
        const size_t n = character_last(text + begin, end - begin, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
        end -= n;
    }
    return bytes_append(out, text + begin, end - begin);
}

/* ---- replacing ---- */
struct replace { const struct normalize_step *step; const char *text; struct bytes *out; };

static enum status replace_part(void *user, struct pattern_part part)
{
    const struct replace *replace = user;
    return part.is_match
               ? bytes_append(replace->out, replace->step->content, replace->step->n_content)
               : bytes_append(replace->out, replace->text + part.begin, part.end - part.begin);
}

static enum status run_replace(const struct normalize_step *step, const char *text, size_t n_bytes,
                               struct bytes *out)
{
    struct pattern_scan scan;
    TRY(pattern_scan_init(&scan, step->pattern));
    struct replace replace = { .step = step, .text = text, .out = out };
    const enum status status = pattern_scan_text(&scan, text, n_bytes, replace_part, &replace);
    pattern_scan_deinit(&scan);
    return status;
}

/* ---- a text ---- */
static enum status run_step(const struct normalize_step *step, const char *text, size_t n_bytes,
                            struct bytes *out)
{
    switch (step->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFD:
    case NORMALIZE_NFKC:
    case NORMALIZE_NFKD:
        return normalize_form(step->kind, text, n_bytes, out);
    case NORMALIZE_LOWERCASE:
    case NORMALIZE_STRIP_ACCENTS:
        return run_characters(step->kind, text, n_bytes, out);
    case NORMALIZE_STRIP_LEFT:
    case NORMALIZE_STRIP_RIGHT:
        return run_strip(step->kind, text, n_bytes, out);
    case NORMALIZE_PREPEND:
        if (n_bytes > 0) {
            TRY(bytes_append(out, step->content, step->n_content));
        }
        return bytes_append(out, text, n_bytes);
    case NORMALIZE_REPLACE:
        break;
    }
    return run_replace(step, text, n_bytes, out);
}

enum status normalizer_run(const struct normalizer *normalizer, const char *text, size_t n_bytes,
                           struct bytes *out)
{
    *out = (struct bytes){ .at = NULL };
    TRY(bytes_append(out, normalizer->n_steps > 0 ? "" : text,
                     normalizer->n_steps > 0 ? 0 : n_bytes));
    for (int i = 0; i < normalizer->n_steps; i++) {
        struct bytes next = { .at = NULL };
        enum status status = bytes_append(&next, "", 0);
        if (status == STATUS_OK) {
            status = run_step(&normalizer->steps[i], i == 0 ? text : out->at,
                              i == 0 ? n_bytes : out->n, &next);
        }
        bytes_deinit(out);
        *out = next;
        TRY(status);
    }
    return STATUS_OK;
}
