/* timeline_file: a timeline as Chrome's trace event JSON, object form: complete events ("X") with times in
 * microseconds, instants ("i") for marks, and metadata ("M") that names process and rows. Written at the
 * end, span by span, so that it takes no memory beyond the ring. */
#include "base/timeline.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TIMELINE_SPANS = 1 << 17, PATH_SHOWN = 1024, PROCESS = 1 };

static struct { FILE *file; char path[PATH_SHOWN]; } the_output; /* one thread: whoever runs the program */

enum status timeline_record(const char *path)
{
    if (path != NULL) {
        snprintf(the_output.path, sizeof the_output.path, "%s", path);
        the_output.file = fopen(path, "w");
        if (the_output.file == NULL) {
            return status_fail(STATUS_IO, "cannot write a timeline to %s: %s", path, strerror(errno));
        }
    }
    return timeline_open(TIMELINE_SPANS);
}

static void write_name(FILE *file, enum timeline_row row)
{
    static const char *const names[TIMELINE_ROWS] = { "step thread", "target", "draft" };
    fprintf(file, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s\"}}"
            ",\n{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"sort_index\":%d}}",
            PROCESS, (int)row + 1, names[row], PROCESS, (int)row + 1, (int)row);
}

static void write_span(FILE *file, const struct timeline_span *span)
{
    const struct timeline_kind *kind = span->kind;
    const double us = 1e-3;
    fprintf(file, ",\n{\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f", kind->name, PROCESS, (int)span->row + 1,
            (double)span->begin_ns * us);
    if (span->end_ns > span->begin_ns) {
        fprintf(file, ",\"ph\":\"X\",\"dur\":%.3f", (double)(span->end_ns - span->begin_ns) * us);
    } else {
        fputs(",\"ph\":\"i\",\"s\":\"t\"", file);
    }
    fputs(",\"args\":{", file);
    if (kind->a != NULL) {
        fprintf(file, "\"%s\":%lld", kind->a, (long long)span->a);
    }
    if (kind->b != NULL) {
        fprintf(file, "%s\"%s\":%lld", kind->a != NULL ? "," : "", kind->b, (long long)span->b);
    }
    fputs("}}", file);
}

static void write_all(FILE *file)
{
    const struct timeline_range kept = timeline_kept();
    fprintf(file, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"program\":\"tandem\",\"spans_lost\":%llu},\n"
            "\"traceEvents\":[\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"tandem\"}}",
            (unsigned long long)(kept.first > 0 ? kept.first - 1 : 0), PROCESS);
    for (int row = 0; row < TIMELINE_ROWS; row++) {
        write_name(file, (enum timeline_row)row);
    }
    for (uint64_t number = kept.first; number < kept.end; number++) {
        struct timeline_span span;
        if (timeline_get(number, &span)) {
            write_span(file, &span);
        }
    }
    fputs("\n]}\n", file);
}

enum status timeline_finish(void)
{
    FILE *file = the_output.file;
    enum status status = STATUS_OK;
    the_output.file = NULL;
    if (file != NULL) {
        errno = 0;
        if (timeline_is_open()) {
            write_all(file);
        }
        const int failed = ferror(file), reason = errno;
        if (fclose(file) != 0 || failed) {
            status = status_fail(STATUS_IO, "cannot write the timeline to %s: %s", the_output.path,
                                 strerror(failed ? reason : errno));
        }
    }
    timeline_close();
    return status;
}
