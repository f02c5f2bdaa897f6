/* split: the steps, each from one list of pieces to the next. */
#include "tokenizer/split.h"

#include <string.h>

/* ---- making ---- */
static enum status new_step(struct splitter *splitter, enum split_step_kind kind,
                            struct split_step **out)
{
    if (splitter->n_steps == SPLIT_MAX_STEPS) {
        return status_fail(STATUS_UNSUPPORTED,
                           "expected a pre-tokenizer of at most %d steps, found more",
                           SPLIT_MAX_STEPS);
    }
    *out = &splitter->steps[splitter->n_steps++];
    **out = (struct split_step){ .kind = kind };
    return STATUS_OK;
}

enum status splitter_add_pattern(struct splitter *splitter, const struct split_pattern *pattern)
{
    struct split_step *step = NULL;
    TRY(new_step(splitter, SPLIT_STEP_PATTERN, &step));
    step->behavior = pattern->behavior;
    step->invert = pattern->invert;
    return pattern_create(pattern->syntax, pattern->source, pattern->n_bytes, &step->pattern);
}

enum status splitter_add_spaces(struct splitter *splitter, const char *mark,
                                enum split_prefix prefix)
{
    struct split_step *step = NULL;
    TRY(new_step(splitter, SPLIT_STEP_SPACES, &step));
    ASSERT(strlen(mark) < sizeof step->mark);
    memcpy(step->mark, mark, strlen(mark) + 1);
    step->prefix = prefix;
    return STATUS_OK;
}

void splitter_deinit(struct splitter *splitter)
{
    for (int i = 0; i < splitter->n_steps; i++) {
        pattern_destroy(splitter->steps[i].pattern);
    }
    splitter->n_steps = 0;
}

/* ---- lists ---- */
static enum status pieces_add(struct pieces *pieces, size_t begin, size_t end)
{
    if (pieces->n == pieces->cap) {
        const size_t cap = pieces->cap + pieces->cap / 2 + 64;
        struct piece *bigger = mem_realloc(pieces->at, cap, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu pieces of text", cap);
        }
        pieces->at = bigger;
        pieces->cap = cap;
    }
    pieces->at[pieces->n++] = (struct piece){ (uint32_t)begin, (uint32_t)(end - begin) };
    return STATUS_OK;
}

static void pieces_deinit(struct pieces *pieces)
{
    mem_free(pieces->at);
    *pieces = (struct pieces){ .at = NULL };
}

/* ---- cutting at a pattern ---- */
/* Parts come in order; what has been decided about them goes to `next`. */
struct cut {
    const struct split_step *step;
    struct pieces *next;
    size_t first;       /* index in next of the first piece that came from this one */
    size_t offset;      /* of the piece in the text */
    bool last_matched;
    bool has_held;      /* a match that waits for what comes next */
    struct piece held;
};

static enum status cut_push(struct cut *cut, size_t begin, size_t end)
{
    return pieces_add(cut->next, cut->offset + begin, cut->offset + end);
}

static bool cut_extend(struct cut *cut, size_t end)
{
    if (cut->next->n == cut->first) {
        return false;
    }
    struct piece *last = &cut->next->at[cut->next->n - 1];
    last->n_bytes = (uint32_t)(cut->offset + end - last->begin);
    return true;
}

static enum status cut_release(struct cut *cut)
{
    if (!cut->has_held) {
        return STATUS_OK;
    }
    cut->has_held = false;
    return pieces_add(cut->next, cut->held.begin, (size_t)cut->held.begin + cut->held.n_bytes);
}

/* A match waits: the next part takes it in, unless it is a match itself. */
static enum status cut_merge_next(struct cut *cut, struct pattern_part part, bool matches)
{
    if (matches) {
        TRY(cut_release(cut));
        cut->has_held = true;
        cut->held =
            (struct piece){(uint32_t)(cut->offset + part.begin), (uint32_t)(part.end - part.begin)};
        return STATUS_OK;
    }
    const size_t begin = cut->has_held ? cut->held.begin - cut->offset : part.begin;
    cut->has_held = false;
    return cut_push(cut, begin, part.end);
}

static enum status cut_part(void *user, struct pattern_part part)
{
    struct cut *cut = user;
    const bool matches = part.is_match != cut->step->invert;
    const bool follows_match = cut->last_matched, is_begun = cut->next->n > cut->first;
    cut->last_matched = matches;
    switch (cut->step->behavior) {
    case SPLIT_REMOVED:
        return matches ? STATUS_OK : cut_push(cut, part.begin, part.end);
    case SPLIT_ISOLATED:
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        if (matches && !follows_match && cut_extend(cut, part.end)) {
            return STATUS_OK;
        }
        break;
    case SPLIT_MERGED_WITH_NEXT:
        return cut_merge_next(cut, part, matches);
    case SPLIT_CONTIGUOUS:
        if (is_begun && matches == follows_match && cut_extend(cut, part.end)) {
            return STATUS_OK;
        }
        break;
    }
    return cut_push(cut, part.begin, part.end);
}

static enum status run_pattern(const struct split_step *step, struct split *split,
                               struct pieces *next)
{
    struct pattern_scan scan;
    enum status status;
    TRY(pattern_scan_init(&scan, step->pattern));
    for (size_t i = 0; i < split->pieces.n; i++) {
        const struct piece piece = split->pieces.at[i];
        struct cut cut = { .step = step, .next = next, .first = next->n, .offset = piece.begin };
        TRY_GOTO(pattern_scan_text(&scan, split->text + piece.begin, piece.n_bytes, cut_part, &cut),
                 out);
        TRY_GOTO(cut_release(&cut), out);
    }
    status = STATUS_OK;
out:
    pattern_scan_deinit(&scan);
    return status;
}

/* ---- spaces ---- */
static enum status put_marked(const struct split_step *step, const char *text, size_t n_bytes,
                              bool is_first, struct bytes *out)
{
    const size_t mark_bytes = strlen(step->mark);
    const bool begins = n_bytes >= mark_bytes && memcmp(text, step->mark, mark_bytes) == 0;
    const bool wanted =
        step->prefix == SPLIT_PREFIX_ALWAYS || (step->prefix == SPLIT_PREFIX_FIRST && is_first);
    if (wanted && !begins && text[0] != ' ') {
        TRY(bytes_append(out, step->mark, mark_bytes));
    }
    size_t begin = 0;
    for (size_t at = 0; at < n_bytes; at++) {
        if (text[at] == ' ') {
            TRY(bytes_append(out, text + begin, at - begin));
            TRY(bytes_append(out, step->mark, mark_bytes));
            begin = at + 1;
        }
    }
    return bytes_append(out, text + begin, n_bytes - begin);
}

static enum status run_spaces(const struct split_step *step, bool is_first, struct split *split,
                              struct pieces *next)
{
    struct bytes changed = { .at = NULL };
    enum status status;
    TRY_GOTO(bytes_append(&changed, "", 0), out);
    for (size_t i = 0; i < split->pieces.n; i++) {
        const struct piece piece = split->pieces.at[i];
        const size_t begin = changed.n;
        TRY_GOTO(put_marked(step, split->text + piece.begin, piece.n_bytes, is_first && i == 0,
                            &changed),
                 out);
        TRY_GOTO(pieces_add(next, begin, changed.n), out);
    }
    bytes_deinit(&split->changed);
    split->changed = changed;
    split->text = changed.at;
    changed = (struct bytes){ .at = NULL };
    status = STATUS_OK;
out:
    bytes_deinit(&changed);
    return status;
}

/* ---- a text ---- */
static void drop_empty(struct pieces *pieces)
{
    size_t n = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        if (pieces->at[i].n_bytes > 0) {
            pieces->at[n++] = pieces->at[i];
        }
    }
    pieces->n = n;
}

enum status splitter_run(const struct splitter *splitter, struct split_text text, struct split *out)
{
    *out = (struct split){ .text = text.bytes };
    ASSERT(text.n_bytes <= BYTES_MAX);
    TRY(pieces_add(&out->pieces, 0, text.n_bytes));
    drop_empty(&out->pieces);
    for (int i = 0; i < splitter->n_steps; i++) {
        const struct split_step *step = &splitter->steps[i];
        struct pieces next = { .at = NULL };
        const enum status status = step->kind == SPLIT_STEP_PATTERN
                                       ? run_pattern(step, out, &next)
                                       : run_spaces(step, text.is_first, out, &next);
        pieces_deinit(&out->pieces);
        drop_empty(&next);
        out->pieces = next;
        TRY(status);
    }
    return STATUS_OK;
}

void split_deinit(struct split *split)
{
    bytes_deinit(&split->changed);
    pieces_deinit(&split->pieces);
}
