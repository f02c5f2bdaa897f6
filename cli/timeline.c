/* timeline: what target and draft did in the last rounds, drawn side by side; a column is a span of time,
 * and shows what took most of it.
 *
 *     target   VVVVVVVVVVVVVVVV VVVVVVVVVVVVVVV VVVVVV
 *     draft    gggf1111222233   ggf11112222333  ggf111
 *     outcome                 H                M
 */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/timeline.h"

enum {
    PLAIN_WIDTH = 80, MIN_WIDTH = 40, MAX_WIDTH = 400, LABEL_WIDTH = 9, COLUMNS_PER_ROUND = 18, MAX_ROUNDS = 8,
    SPANS_READ = 4096, N_LINES = 3
};
enum line { LINE_TARGET, LINE_DRAFT, LINE_OUTCOME };

/* Spans that are drawn. A step of growing is shown by its number. */
struct pen { const struct timeline_kind *kind; char letter; enum line line; const char *style, *meaning; };
static const struct pen pens[] = {
    { &timeline_verify, 'V', LINE_TARGET, "\033[97;44m", "verify" },
    { &timeline_prefill, 'P', LINE_TARGET, "\033[97;45m", "prefill" },
    { &timeline_glue, 'g', LINE_DRAFT, "\033[30;43m", "glue" },
    { &timeline_fork, 'f', LINE_DRAFT, "\033[30;46m", "fork" },
    { &timeline_grow, '1', LINE_DRAFT, "\033[30;42m", "grow, by step" },
    { &timeline_draft, 'd', LINE_DRAFT, "\033[97;41m", "draft while the target waits" },
    { &timeline_hit, 'H', LINE_OUTCOME, "\033[32m", "hit" },
    { &timeline_miss, 'M', LINE_OUTCOME, "\033[31m", "miss" },
};
enum { N_PENS = sizeof pens / sizeof pens[0] };
static const char step_letters[] = "123456789abcdefg";

struct cell { char letter; int8_t pen; int64_t ns; }; /* ns: of the cell's time that its pen took */
struct drawing {
    struct cell cell[N_LINES][MAX_WIDTH];
    int n_columns;
    int64_t begin_ns, end_ns;
    int is_used[N_PENS];
};

static int pen_of(const struct timeline_span *span)
{
    for (int i = 0; i < N_PENS; i++) {
        if (pens[i].kind == span->kind) {
            return i;
        }
    }
    return -1;
}

/* From the end of the pass before the last n rounds, so that what was drafted for the first is in it. */
static void find_window(const struct timeline_span *spans, size_t n, int n_rounds, struct drawing *drawing)
{
    int n_seen = 0;
    for (size_t i = n; i > 0 && n_seen <= n_rounds; i--) {
        const struct timeline_span *span = &spans[i - 1];
        const int pen = pen_of(span);
        if (pen >= 0) {
            drawing->end_ns = span->end_ns > drawing->end_ns ? span->end_ns : drawing->end_ns;
        }
        if (span->kind == &timeline_verify) {
            n_seen++;
            drawing->begin_ns = n_seen <= n_rounds ? span->begin_ns : span->end_ns;
        }
    }
}

static int64_t overlap_ns(int64_t begin_ns, int64_t end_ns, const struct timeline_span *span)
{
    const int64_t from = span->begin_ns > begin_ns ? span->begin_ns : begin_ns;
    const int64_t to = span->end_ns < end_ns ? span->end_ns : end_ns;
    return to > from ? to - from : 0;
}

static int64_t column_begin_ns(const struct drawing *drawing, int column)
{
    return drawing->begin_ns + (drawing->end_ns - drawing->begin_ns) * column / drawing->n_columns;
}

static int column_of(const struct drawing *drawing, int64_t ns)
{
    const int64_t at = (ns - drawing->begin_ns) * drawing->n_columns / (drawing->end_ns - drawing->begin_ns);
    return at < 0 ? 0 : at < drawing->n_columns ? (int)at : drawing->n_columns - 1;
}

static void paint(struct drawing *drawing, const struct timeline_span *span)
{
    const int pen = pen_of(span);
    if (pen < 0 || span->end_ns < drawing->begin_ns || span->begin_ns > drawing->end_ns) {
        return;
    }
    const size_t step = (size_t)span->a < sizeof step_letters - 1 ? (size_t)span->a : sizeof step_letters - 2;
    const char letter = span->kind == &timeline_grow ? step_letters[step] : pens[pen].letter;
    const int is_mark = span->begin_ns == span->end_ns;
    for (int i = column_of(drawing, span->begin_ns); i <= column_of(drawing, span->end_ns); i++) {
        struct cell *cell = &drawing->cell[pens[pen].line][i];
        const int64_t ns = overlap_ns(column_begin_ns(drawing, i), column_begin_ns(drawing, i + 1), span);
        if (is_mark || ns > cell->ns) {
            *cell = (struct cell){ .letter = letter, .pen = (int8_t)pen, .ns = ns };
            drawing->is_used[pen] = 1;
        }
    }
}

static void write_line(FILE *out, const struct drawing *drawing, enum line line, int colours)
{
    static const char *const labels[N_LINES] = { "target", "draft", "outcome" };
    fprintf(out, "%-*s", LABEL_WIDTH, labels[line]);
    int pen = -1; /* whose colour is on */
    for (int i = 0; i < drawing->n_columns; i++) {
        const struct cell *cell = &drawing->cell[line][i];
        const int next = cell->letter != '\0' ? cell->pen : -1;
        if (colours && next != pen) {
            fprintf(out, "%s%s", pen >= 0 ? "\033[0m" : "", next >= 0 ? pens[next].style : "");
            pen = next;
        }
        fputc(cell->letter != '\0' ? cell->letter : ' ', out);
    }
    fprintf(out, "%s\n", pen >= 0 ? "\033[0m" : "");
}

static void write_legend(FILE *out, const struct drawing *drawing, int colours)
{
    const char *comma = "";
    for (int i = 0; i < N_PENS; i++) {
        if (drawing->is_used[i]) {
            fprintf(out, "%s%s%c%s %s", comma, colours ? pens[i].style : "", pens[i].letter, colours ? "\033[0m" : "",
                    pens[i].meaning);
            comma = ", ";
        }
    }
    fputc('\n', out);
}

/* How much of the draft's time in the window lay beside a verify. */
static void write_hidden(FILE *out, const struct timeline_span *spans, size_t n, const struct drawing *drawing)
{
    int64_t draft_ns = 0, hidden_ns = 0;
    for (size_t i = 0; i < n; i++) {
        const struct timeline_span *span = &spans[i];
        const int64_t ns = span->row == TIMELINE_DRAFT ? overlap_ns(drawing->begin_ns, drawing->end_ns, span) : 0;
        draft_ns += ns;
        for (size_t j = 0; j < n && ns > 0; j++) {
            hidden_ns += spans[j].row == TIMELINE_TARGET
                         ? overlap_ns(span->begin_ns > drawing->begin_ns ? span->begin_ns : drawing->begin_ns,
                                      span->end_ns, &spans[j]) : 0;
        }
    }
    if (draft_ns > 0) {
        fprintf(out, "the draft worked %.2f ms, %.0f %% of it beside the target\n", (double)draft_ns * 1e-6,
                100.0 * (double)hidden_ns / (double)draft_ns);
    }
}

void timeline_draw(FILE *out, const struct timeline_span *spans, size_t n, const struct timeline_look *look)
{
    struct drawing drawing = { .n_columns = 0 };
    const int width = look->width < MIN_WIDTH ? MIN_WIDTH : look->width > MAX_WIDTH ? MAX_WIDTH : look->width;
    drawing.n_columns = width - LABEL_WIDTH - 1; /* a terminal's last column may wrap */
    const int fitting = drawing.n_columns / COLUMNS_PER_ROUND;
    find_window(spans, n, fitting < 1 ? 1 : fitting < MAX_ROUNDS ? fitting : MAX_ROUNDS, &drawing);
    if (drawing.end_ns <= drawing.begin_ns) {
        fputs("no round to draw\n", out);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        paint(&drawing, &spans[i]);
    }
    const double ms = (double)(drawing.end_ns - drawing.begin_ns) * 1e-6;
    fprintf(out, "the last %.2f ms, %.3f ms a column\n", ms, ms / drawing.n_columns);
    write_line(out, &drawing, LINE_TARGET, look->colours);
    write_line(out, &drawing, LINE_DRAFT, look->colours);
    write_line(out, &drawing, LINE_OUTCOME, look->colours);
    write_legend(out, &drawing, look->colours);
    write_hidden(out, spans, n, &drawing);
}

static int terminal_width(int fd)
{
    struct winsize size;
    return isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : PLAIN_WIDTH;
}

enum status timeline_show(const struct conf *conf)
{
    if (!conf_flag(conf, OPT_TIMELINE) || conf_flag(conf, OPT_QUIET)) {
        return STATUS_OK;
    }
    struct timeline_span *spans = mem_alloc(SPANS_READ, sizeof *spans);
    if (spans == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory to draw a timeline");
    }
    const struct timeline_range kept = timeline_kept();
    size_t n = 0;
    for (uint64_t number = kept.end - kept.first > SPANS_READ ? kept.end - SPANS_READ : kept.first;
         number < kept.end; number++) {
        n += timeline_get(number, &spans[n]);
    }
    timeline_draw(stderr, spans, n, &(struct timeline_look){ .width = terminal_width(STDERR_FILENO),
                                                             .colours = *style_off(STDERR_FILENO) != '\0' });
    mem_free(spans);
    return STATUS_OK;
}
