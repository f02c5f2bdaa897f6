/* output: standard output checked, sentences and a progress bar on standard error, JSON. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static enum status output_failed(void)
{
    return status_fail(STATUS_IO, "cannot write to standard output: %s", strerror(errno));
}

enum status output_write(const char *bytes, size_t n)
{
    return n == 0 || fwrite(bytes, 1, n, stdout) == n ? STATUS_OK : output_failed();
}

/* An earlier printf may have failed too: its mark stays. */
enum status output_flush(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? STATUS_OK : output_failed();
}

/* ---- JSON ---- */
static void *json_memory(size_t n) { return mem_alloc(n, 1); }

void output_json_init(void) { json_set_alloc_funcs(json_memory, mem_free); }

enum status output_json(json_t *object)
{
    char *line = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (!line) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a line of JSON");
    }
    enum status status = output_write(line, strlen(line));
    mem_free(line);
    TRY(status);
    TRY(output_write("\n", 1));
    return output_flush();
}

json_t *json_hex(uint64_t value)
{
    char digits[17];
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)value);
    return json_string(digits);
}

json_t *json_ids(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) {
        if (json_array_append_new(array, json_integer(ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* ---- standard error ---- */
void say(const struct conf *conf, const char *format, ...)
{
    if (conf_flag(conf, OPT_QUIET)) {
        return;
    }
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static int wants_style(int fd)
{
    const char *term = conf_environment("TERM");
    const char *plain = conf_environment("NO_COLOR");
    return isatty(fd) && term && strcmp(term, "dumb") != 0 && !(plain && *plain);
}

const char *style_dim(int fd) { return wants_style(fd) ? "\033[2m" : ""; }
const char *style_bold(int fd) { return wants_style(fd) ? "\033[1m" : ""; }
const char *style_off(int fd) { return wants_style(fd) ? "\033[0m" : ""; }

/* ---- progress ---- */
static const int64_t PROGRESS_AFTER_NS = 300000000, PROGRESS_EVERY_NS = 50000000;
enum { BAR_CELLS = 32 };

void progress_init(struct progress *progress, const struct conf *conf, const char *what)
{
    *progress = (struct progress){.what = what, .begin_ns = clock_now_ns()};
    progress->on = isatty(STDERR_FILENO) && !conf_flag(conf, OPT_QUIET);
}

void progress_show(void *user, uint64_t done, uint64_t total)
{
    struct progress *progress = user;
    const int64_t now = clock_now_ns();
    const int early = now - progress->begin_ns < PROGRESS_AFTER_NS;
    if (!progress->on || total == 0 || early || now - progress->last_ns < PROGRESS_EVERY_NS) {
        return;
    }
    const double part = done < total ? (double)done / (double)total : 1.0;
    const int full = (int)(part * BAR_CELLS);
    fprintf(stderr, "\r%s [%.*s%.*s] %3.0f %% of %.2f GB", progress->what, full,
            "################################", BAR_CELLS - full, "................................",
            part * 100, (double)total * 1e-9);
    fflush(stderr);
    progress->last_ns = now;
    progress->shown = 1;
}

void progress_end(struct progress *progress)
{
    if (progress->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
