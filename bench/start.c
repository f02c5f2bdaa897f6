/* start: what it takes to begin: loading a file, the first token of a new process, memory.
 *
 * Each starts this program anew with the verb run, so that what is measured is what a person sees.
 * load's bound is reading the same file from the page cache into fresh memory; the other two are held
 * to a promise: 300 ms to the first byte, 1.1 times the model's bytes at the peak.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

static enum status model_of(const struct bench_options *options, const char **model)
{
    *model = options->target ? options->target : options->default_model;
    return *model ? STATUS_OK : status_fail(STATUS_USAGE, "this bench needs a model file: --target FILE");
}

/* The file's name without the folders of this machine. */
static const char *name_of(const char *model)
{
    const char *slash = strncmp(model, "synth:", 6) == 0 ? NULL : strrchr(model, '/');
    return slash ? slash + 1 : model;
}

/* ---- a run ---- */
enum { RUN_TEXT_CAP = 1 << 16 };
struct run_seen {
    double first_byte_ms;
    uint64_t peak_bytes;       /* of memory, as /usr/bin/time says it */
    char text[RUN_TEXT_CAP];   /* what it wrote to standard output, as far as it fits */
};

/* The child's side: errors stay on standard error, the closing lines of a good run do not. */
static void run_exec(const struct bench_options *options, const char *model, const char *json)
{
    const char *words[24] = {"tandem", "run", "--target", model, "--max-tokens", "4", "--ignore-eos", json};
    int n = 8;
    char threads[16];
    if (options->threads > 0) {
        snprintf(threads, sizeof threads, "%d", options->threads);
        words[n++] = "--threads";
        words[n++] = threads;
    }
    if (options->isa) {
        words[n++] = "--isa";
        words[n++] = options->isa;
    }
    if (strcmp(json, "--json") == 0) {
        words[n++] = "--ids";
        words[n++] = "1,2,3,4";
    } else {
        words[n++] = "--prompt";
        words[n++] = "Once upon a time";
    }
    execv("/proc/self/exe", (char *const *)(uintptr_t)words);
    _exit(127);
}

/* Reads all that the run writes, notes when the first byte came, and waits for its end. */
static int run_watch(pid_t child, int from, int64_t begin, struct run_seen *seen)
{
    struct rusage usage;
    char rest[4096];
    size_t used = 0;
    int exit_status = -1;
    for (;;) {
        const size_t room = sizeof seen->text - 1 - used;
        const ssize_t n = read(from, room > 0 ? seen->text + used : rest, room > 0 ? room : sizeof rest);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        seen->first_byte_ms = used == 0 ? (double)(clock_now_ns() - begin) * 1e-6 : seen->first_byte_ms;
        used += room > 0 ? (size_t)n : 0;
    }
    seen->text[used] = '\0';
    while (wait4(child, &exit_status, 0, &usage) < 0 && errno == EINTR) {
    }
    seen->peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
    return used > 0 && exit_status == 0;
}

/* Runs the model in a new process: a few words with "--quiet", ids with "--json". */
static enum status run_once(const struct bench_options *options, const char *model, const char *json,
                            struct run_seen *seen)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return status_fail(STATUS_IO, "no pipe: %s", strerror(errno));
    }
    const int64_t begin = clock_now_ns();
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        run_exec(options, model, json);
    }
    close(ends[1]);
    const int good = child > 0 && run_watch(child, ends[0], begin, seen);
    close(ends[0]);
    return good ? STATUS_OK : status_fail(STATUS_INVALID, "'tandem run' with %s failed", model);
}

/* ---- load ---- */
/* Milliseconds to read the file once into memory taken for it. */
static enum status read_file_ms(const char *path, double *ms)
{
    struct stat info;
    const int64_t begin = clock_now_ns();
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size <= 0) {
        if (fd >= 0) {
            close(fd);
        }
        return status_fail(STATUS_IO, "cannot read %s: %s", path, fd < 0 ? strerror(errno) : "it is empty");
    }
    const size_t size = (size_t)info.st_size;
    unsigned char *bytes = mem_map(size);
    size_t done = 0;
    ssize_t n = bytes ? 1 : -1;
    while (n > 0 && done < size) {
        n = read(fd, bytes + done, size - done);
        done += n > 0 ? (size_t)n : 0;
    }
    *ms = (double)(clock_now_ns() - begin) * 1e-6;
    close(fd);
    if (bytes) {
        mem_unmap(bytes, size);
    }
    return done == size ? STATUS_OK : status_fail(STATUS_IO, "cannot read %zu bytes of %s", size, path);
}

/* Milliseconds from the start of the process's work to a model ready to run, as run --json says it. */
static enum status load_ms(const struct bench_options *options, const char *model, double *ms)
{
    struct run_seen seen;
    double seconds = -1;
    TRY(run_once(options, model, "--json", &seen));
    json_t *object = json_loads(seen.text, 0, NULL);
    json_unpack(object, "{s:{s:F}}", "seconds", "load", &seconds);
    json_decref(object);
    *ms = seconds * 1e3;
    return seconds >= 0 ? STATUS_OK : status_fail(STATUS_INVALID, "'tandem run --json' named no load time");
}

enum status bench_load(const struct bench_options *options)
{
    struct samples loads = {0}, reads = {0};
    const char *model = NULL;
    double first = 0;
    TRY(model_of(options, &model));
    const int reps = bench_reps(options, 7, 3);
    for (int i = 0; i <= reps; i++) {
        double read = 0, load = 0;
        TRY(load_ms(options, model, &load));
        TRY(read_file_ms(model, &read));
        if (i == 0) { /* brings the file into the page cache, if it was not there */
            first = load;
            continue;
        }
        samples_add(&reads, read);
        samples_add(&loads, load);
    }
    return line_write(options, &(struct line){
        .bench = "load", .unit = "ms", .better = LOWER, .values = &loads, .bound = samples_median(&reads),
        .isa = options->isa ? options->isa : "best",
        .which = json_pack("{s:s,s:f}", "model", name_of(model), "first_ms", first),
    });
}

/* ---- first token ---- */
enum status bench_first_token(const struct bench_options *options)
{
    struct samples times = {0};
    struct run_seen seen;
    const char *model = NULL;
    TRY(model_of(options, &model));
    const int reps = bench_reps(options, 9, 3);
    for (int i = 0; i <= reps; i++) {
        TRY(run_once(options, model, "--quiet", &seen));
        samples_add(&times, seen.first_byte_ms);
        times.n = i == 0 ? 0 : times.n;
    }
    return line_write(options, &(struct line){
        .bench = "first-token", .unit = "ms", .better = LOWER, .values = &times, .bound = 300,
        .isa = options->isa ? options->isa : "best", .which = json_pack("{s:s}", "model", name_of(model)),
    });
}

/* ---- memory ---- */
static enum status model_bytes_of(const char *model, uint64_t *bytes)
{
    struct model_source *source;
    TRY(model_source_open(model, &source));
    *bytes = model_source_bytes(source);
    model_source_close(source);
    return STATUS_OK;
}

enum status bench_memory(const struct bench_options *options)
{
    struct samples ratio = {0};
    struct run_seen seen;
    uint64_t bytes = 0, peak = 0;
    const char *model = options->target ? options->target
                        : options->quick ? "synth:llama-1b,q4_0,layers=4,vocab=32000,seed=1"
                                         : "synth:llama-1b,q8_0,seed=1";
    TRY(model_bytes_of(model, &bytes));
    const int reps = bench_reps(options, 3, 1);
    for (int i = 0; i < reps; i++) {
        TRY(run_once(options, model, "--json", &seen));
        samples_add(&ratio, (double)seen.peak_bytes / (double)bytes);
        peak = seen.peak_bytes > peak ? seen.peak_bytes : peak;
    }
    return line_write(options, &(struct line){
        .bench = "memory", .unit = "ratio", .better = LOWER, .values = &ratio, .bound = 1.1,
        .isa = options->isa ? options->isa : "best", .seed = 1,
        .which = json_pack("{s:s,s:I,s:I}", "model", name_of(model), "model_bytes", (json_int_t)bytes,
                           "peak_bytes", (json_int_t)peak),
    });
}
