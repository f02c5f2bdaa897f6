/* timeline: the ring keeps the last spans whole, from any thread; the file is JSON whose spans nest; an
 * engine's steps fill it; and what is drawn of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "base/base.h"
#include "cli/timeline.h"
#include "tests/engine_rig.h"

enum { MAX_SPANS = 8192, MAX_DEPTH = 8, N_WRITTEN = 100000 };

static const struct timeline_kind numbered = { "numbered", "number", "thread" };

static void off_records_nothing(void **state)
{
    (void)state;
    assert_int_equal(timeline_begin(), 0);
    timeline_end(TIMELINE_STEP, &numbered, 0, 1, 2);
    timeline_mark(TIMELINE_STEP, &numbered, 1, 2);
    assert_int_equal(timeline_kept().end, 0);
    assert_int_equal(timeline_finish(), STATUS_OK);
}

static void the_last_are_kept(void **state)
{
    struct timeline_span span;
    (void)state;
    assert_int_equal(timeline_open(10), STATUS_OK);
    for (int64_t i = 1; i <= 25; i++) {
        timeline_end(TIMELINE_DRAFT, &numbered, timeline_begin(), i, 2 * i);
    }
    const struct timeline_range kept = timeline_kept();
    assert_int_equal(kept.first, 16);
    assert_int_equal(kept.end, 26);
    assert_false(timeline_get(15, &span));
    int64_t before_ns = 0;
    for (uint64_t number = kept.first; number < kept.end; number++) {
        assert_true(timeline_get(number, &span));
        assert_int_equal(span.a, number);
        assert_int_equal(span.b, 2 * number);
        assert_int_equal(span.row, TIMELINE_DRAFT);
        assert_ptr_equal(span.kind, &numbered);
        assert_true(before_ns <= span.begin_ns && span.begin_ns < span.end_ns);
        before_ns = span.begin_ns;
    }
    timeline_close();
    assert_false(timeline_is_open());
}

struct writer { int64_t idx; atomic_int *is_done; };

static void *write_spans(void *arg)
{
    const struct writer *writer = arg;
    for (int64_t i = 0; i < N_WRITTEN; i++) {
        const int64_t a = i * 4 + writer->idx;
        timeline_end(TIMELINE_STEP, &numbered, timeline_begin(), a, 7 * a);
    }
    atomic_fetch_add(writer->is_done, 1);
    return NULL;
}

/* What a reader gets while four write is whole: its two numbers belong together. */
static void many_write_while_one_reads(void **state)
{
    enum { N = 4 };
    pthread_t threads[N];
    struct writer writers[N];
    atomic_int n_done = 0;
    uint64_t n_read = 0;
    (void)state;
    assert_int_equal(timeline_open(8), STATUS_OK); /* written over all the time */
    for (int i = 0; i < N; i++) {
        writers[i] = (struct writer){ i, &n_done };
        assert_int_equal(pthread_create(&threads[i], NULL, write_spans, &writers[i]), 0);
    }
    while (atomic_load(&n_done) < N || n_read == 0) {
        const struct timeline_range kept = timeline_kept();
        for (uint64_t number = kept.first; number < kept.end; number++) {
            struct timeline_span span;
            if (timeline_get(number, &span)) {
                assert_int_equal(7 * span.a, span.b);
                n_read++;
            }
        }
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(timeline_kept().end, N * N_WRITTEN + 1);
    timeline_close();
}

/* ---- the file ---- */
struct event { char name[32]; double ts, dur; int tid; };
struct trace { struct event event[MAX_SPANS]; size_t n; int n_marks, n_rows_named; };
static struct trace the_trace;

static int by_begin(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->tid != y->tid || x->ts != y->ts) {
        return x->tid != y->tid ? x->tid - y->tid : x->ts < y->ts ? -1 : 1;
    }
    return x->dur > y->dur ? -1 : x->dur < y->dur; /* the outer one first */
}

static void take_event(json_t *object)
{
    const char *name = NULL, *phase = NULL;
    int pid = 0, tid = 0;
    double ts = -1, dur = -1;
    assert_int_equal(json_unpack(object, "{s:s,s:s,s:i}", "name", &name, "ph", &phase, "pid", &pid), 0);
    assert_int_equal(pid, 1);
    if (strcmp(phase, "M") == 0) {
        the_trace.n_rows_named += strcmp(name, "thread_name") == 0;
        assert_true(json_is_object(json_object_get(object, "args")));
        return;
    }
    assert_int_equal(json_unpack(object, "{s:F,s:i}", "ts", &ts, "tid", &tid), 0);
    assert_true(ts >= 0 && tid >= 1 && tid <= TIMELINE_ROWS);
    if (strcmp(phase, "i") == 0) {
        assert_string_equal(json_string_value(json_object_get(object, "s")), "t");
        the_trace.n_marks++;
        return;
    }
    assert_string_equal(phase, "X");
    assert_int_equal(json_unpack(object, "{s:F}", "dur", &dur), 0);
    assert_true(dur > 0 && the_trace.n < MAX_SPANS);
    struct event *event = &the_trace.event[the_trace.n++];
    *event = (struct event){ .ts = ts, .dur = dur, .tid = tid };
    snprintf(event->name, sizeof event->name, "%s", name);
}

/* Reads a trace; its spans are sorted by row and beginning. */
static void read_trace(const char *path)
{
    json_error_t error;
    size_t i;
    json_t *object;
    json_t *root = json_load_file(path, 0, &error);
    if (root == NULL) {
        fail_msg("%s, line %d: %s", path, error.line, error.text);
    }
    memset(&the_trace, 0, sizeof the_trace);
    json_t *events = json_object_get(root, "traceEvents");
    assert_true(json_is_array(events));
    json_array_foreach(events, i, object) {
        take_event(object);
    }
    json_decref(root);
    qsort(the_trace.event, the_trace.n, sizeof *the_trace.event, by_begin);
    assert_int_equal(the_trace.n_rows_named, TIMELINE_ROWS);
}

/* Of one row, a span that begins within another ends within it. */
static void expect_nesting(void)
{
    const struct event *open[MAX_DEPTH];
    int depth = 0;
    const double rounding_us = 0.002;
    for (size_t i = 0; i < the_trace.n; i++) {
        const struct event *event = &the_trace.event[i];
        while (depth > 0 && (open[depth - 1]->tid != event->tid ||
                             open[depth - 1]->ts + open[depth - 1]->dur <= event->ts + rounding_us)) {
            depth--;
        }
        if (depth > 0) {
            assert_true(event->ts + event->dur <= open[depth - 1]->ts + open[depth - 1]->dur + rounding_us);
        }
        assert_true(depth < MAX_DEPTH);
        open[depth++] = event;
    }
}

static size_t count(const char *name, enum timeline_row row)
{
    size_t n = 0;
    for (size_t i = 0; i < the_trace.n; i++) {
        n += the_trace.event[i].tid == (int)row + 1 && strcmp(the_trace.event[i].name, name) == 0;
    }
    return n;
}

static void temporary_path(char *path, size_t cap)
{
    snprintf(path, cap, "/tmp/tandem-timeline-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static void the_file_is_a_trace(void **state)
{
    char path[64];
    (void)state;
    temporary_path(path, sizeof path);
    assert_int_equal(timeline_record(path), STATUS_OK);
    const int64_t outer_ns = timeline_begin();
    timeline_end(TIMELINE_STEP, &timeline_plan, timeline_begin(), 1, 0);
    timeline_mark(TIMELINE_DRAFT, &timeline_hit, 2, 3);
    timeline_end(TIMELINE_DRAFT, &timeline_wait, timeline_begin(), 0, 0); /* no numbers at all */
    timeline_end(TIMELINE_STEP, &timeline_step, outer_ns, 1, -4);
    assert_int_equal(timeline_finish(), STATUS_OK);
    read_trace(path);
    expect_nesting();
    assert_int_equal(the_trace.n, 3);
    assert_int_equal(the_trace.n_marks, 1);
    assert_string_equal(the_trace.event[0].name, "step");
    assert_string_equal(the_trace.event[1].name, "plan");
    unlink(path);
}

static void files_that_cannot_be_written(void **state)
{
    (void)state;
    assert_int_equal(timeline_record("/nowhere/at/all.json"), STATUS_IO);
    assert_non_null(strstr(status_message(), "/nowhere/at/all.json"));
    assert_false(timeline_is_open());
    if (access("/dev/full", W_OK) != 0) {
        print_message("/dev/full is not here: a full disk is not tried\n");
        return;
    }
    assert_int_equal(timeline_record("/dev/full"), STATUS_OK);
    timeline_end(TIMELINE_STEP, &timeline_plan, timeline_begin(), 1, 0);
    assert_int_equal(timeline_finish(), STATUS_IO);
    assert_non_null(strstr(status_message(), "No space left"));
    assert_false(timeline_is_open());
}

static struct rig_results results;

/* 64 tokens of the default pair with K = 3; the trace is read. */
static void run_traced(const char *ahead)
{
    static const int32_t ids[] = { 1, 300, 41 };
    char path[64];
    struct td_engine_options options;
    struct td_request request;
    temporary_path(path, sizeof path);
    rig_options(&options);
    options.threads = 0;
    options.draft = "auto";
    options.ahead = ahead;
    options.k = 3;
    td_request_init(&request);
    request.ids = ids;
    request.n_ids = sizeof ids / sizeof ids[0];
    request.max_tokens = 64;
    request.ignore_eos = 1;
    assert_int_equal(timeline_record(path), STATUS_OK);
    struct td_engine *engine = rig_open(&options);
    rig_run(engine, &request, 1, &results);
    td_engine_close(engine);
    assert_int_equal(timeline_finish(), STATUS_OK);
    read_trace(path);
    unlink(path);
    expect_nesting();
}

/* Pairs of a target's and a draft's span that share some time. */
static size_t n_overlaps(void)
{
    size_t n = 0;
    for (size_t i = 0; i < the_trace.n; i++) {
        const struct event *a = &the_trace.event[i];
        for (size_t j = 0; j < the_trace.n && a->tid == TIMELINE_TARGET + 1; j++) {
            const struct event *b = &the_trace.event[j];
            n += b->tid == TIMELINE_DRAFT + 1 && a->ts < b->ts + b->dur && b->ts < a->ts + a->dur;
        }
    }
    return n;
}

/* A step has a plan, a proposal, a pass and a commit; a draft model's passes lie within the proposal, and
 * so beside no verify. */
static void an_engine_fills_it(void **state)
{
    (void)state;
    run_traced("off");
    const size_t n_passes = (size_t)results.result[0].usage.target_passes;
    assert_int_equal(count("verify", TIMELINE_TARGET) + count("prefill", TIMELINE_TARGET), n_passes);
    assert_int_equal(count("commit", TIMELINE_STEP), n_passes);
    assert_int_equal(count("propose", TIMELINE_STEP), results.result[0].usage.drafted.rounds);
    assert_true(count("draft", TIMELINE_DRAFT) >= (size_t)results.result[0].usage.drafted.proposed);
    assert_int_equal(n_overlaps(), 0);
}

/* A draft that works ahead does so beside the verify. */
static void lanes_overlap(void **state)
{
    int cpus[2], n_physical;
    (void)state;
    if (backend_cpu_list(cpus, 2, &n_physical) < 2) {
        print_message("one core: two lanes cannot run beside each other\n");
        skip();
    }
    run_traced("on");
    const size_t n_glued = count("glue", TIMELINE_DRAFT);
    assert_true(n_glued > 0 && count("fork", TIMELINE_DRAFT) == n_glued);
    assert_true(count("grow", TIMELINE_DRAFT) > 0);
    assert_true(the_trace.n_marks > 0);
    assert_true(n_overlaps() > 0);
}

/* ---- drawn ---- */
/* Two rounds: a hit, drafted beside the verify before; and a miss, drafted for while the target waits. */
static void rounds_are_drawn(void **state)
{
    enum { MS = 1000000 };
    static const struct timeline_span spans[] = {
        { TIMELINE_TARGET, &timeline_verify, 0, 20 * MS, 4, 1 },
        { TIMELINE_STEP, &timeline_hit, 20 * MS, 20 * MS, 1, 2 },
        { TIMELINE_DRAFT, &timeline_glue, 20 * MS, 24 * MS, 3, 1 },
        { TIMELINE_DRAFT, &timeline_fork, 24 * MS, 25 * MS, 8, 1 },
        { TIMELINE_DRAFT, &timeline_grow, 25 * MS, 30 * MS, 0, 8 },
        { TIMELINE_TARGET, &timeline_verify, 20 * MS, 35 * MS, 3, 1 },
        { TIMELINE_DRAFT, &timeline_grow, 30 * MS, 35 * MS, 1, 8 },
        { TIMELINE_STEP, &timeline_miss, 36 * MS, 36 * MS, 0, 7 },
        { TIMELINE_DRAFT, &timeline_draft, 36 * MS, 44 * MS, 1, 1 },
        { TIMELINE_TARGET, &timeline_verify, 45 * MS, 60 * MS, 3, 1 },
    };
    static const char expected[] =
        "the last 40.00 ms, 1.000 ms a column\n"
        "target   VVVVVVVVVVVVVVV          VVVVVVVVVVVVVVV\n"
        "draft    ggggf1111122222 dddddddd                \n"
        "outcome  H               M                       \n"
        "V verify, g glue, f fork, 1 grow, by step, d draft while the target waits, H hit, M miss\n"
        "the draft worked 23.00 ms, 65 % of it beside the target\n";
    char drawn[1024] = "";
    (void)state;
    FILE *file = fmemopen(drawn, sizeof drawn, "w");
    assert_non_null(file);
    timeline_draw(file, spans, sizeof spans / sizeof spans[0], &(struct timeline_look){ .width = 50 });
    fclose(file);
    assert_string_equal(drawn, expected);
}

/* Whatever the width and the spans: no line is wider, and nothing lies outside. */
static void nothing_is_drawn_outside(void **state)
{
    static struct timeline_span spans[200];
    static char drawn[16384];
    static const struct timeline_kind *const kinds[] = { &timeline_verify, &timeline_grow, &timeline_hit,
                                                         &timeline_glue, &timeline_plan };
    (void)state;
    for (int width = -1; width < 500; width += 7) {
        int64_t now_ns = 0;
        for (size_t i = 0; i < 200; i++) {
            const uint64_t draw = rng_mix64((uint64_t)width * 1000 + i);
            spans[i] = (struct timeline_span){ (enum timeline_row)(draw % 3), kinds[draw / 8 % 5], now_ns,
                                               now_ns + (int64_t)(draw / 64 % 5) * 1000, (int64_t)(draw % 40) - 10, 0 };
            now_ns += (int64_t)(draw / 512 % 2000);
        }
        memset(drawn, 0, sizeof drawn);
        FILE *file = fmemopen(drawn, sizeof drawn, "w");
        timeline_draw(file, spans, (size_t)(width % 3 == 0 ? 0 : 200), &(struct timeline_look){ .width = width });
        fclose(file);
        const int most = width < 40 ? 40 : width > 400 ? 400 : width;
        int n_lines = 0;
        for (const char *line = drawn; *line != '\0'; line = strchr(line, '\n') + 1, n_lines++) {
            assert_true(n_lines == 0 || n_lines > 3 || strcspn(line, "\n") < (size_t)most);
        }
        assert_true(n_lines > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_are_drawn),           cmocka_unit_test(nothing_is_drawn_outside),
        cmocka_unit_test(off_records_nothing),        cmocka_unit_test(the_last_are_kept),
        cmocka_unit_test(many_write_while_one_reads), cmocka_unit_test(the_file_is_a_trace),
        cmocka_unit_test(files_that_cannot_be_written), cmocka_unit_test(an_engine_fills_it),
        cmocka_unit_test(lanes_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
