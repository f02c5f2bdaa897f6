/* start: what it takes to begin: loading a file, the first token of a new process, memory.
 *
 * load's bound is reading the same file from the page cache into fresh memory; the other two are held
 * to a promise: 300 ms to the first byte, 1.1 times weights and KV at the peak.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "tandem.h"

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

static enum status load_ms(const struct bench_options *options, const char *model, double *ms)
{
    struct bench_rig rig;
    const int64_t begin = clock_now_ns();
    const enum status status = bench_rig_init(&rig, &(struct bench_rig_options){
        .target = model, .isa = options->isa, .context = 16, .cap_rows = 1, .cap_logits = 1,
        .threads = options->threads});
    *ms = (double)(clock_now_ns() - begin) * 1e-6;
    bench_rig_deinit(&rig);
    return status;
}

enum status bench_load(const struct bench_options *options)
{
    struct samples loads = {0}, reads = {0};
    const char *model = NULL;
    TRY(model_of(options, &model));
    const int reps = bench_reps(options, 7, 3);
    for (int i = 0; i <= reps; i++) {
        double read = 0, load = 0;
        TRY(read_file_ms(model, &read));
        TRY(load_ms(options, model, &load));
        if (i > 0) { /* the first round brings the file into the page cache */
            samples_add(&reads, read);
            samples_add(&loads, load);
        }
    }
    return line_write(options, &(struct line){
        .bench = "load", .unit = "ms", .better = LOWER, .values = &loads, .bound = samples_median(&reads),
        .isa = options->isa ? options->isa : "best", .which = json_pack("{s:s}", "model", name_of(model)),
    });
}

/* ---- first token ---- */
/* Starts this program anew and waits for the first byte of its text. */
static enum status first_byte_ms(const char *model, double *ms)
{
    int ends[2];
    char byte = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return status_fail(STATUS_IO, "no pipe: %s", strerror(errno));
    }
    const int64_t begin = clock_now_ns();
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "tandem", "run", "--quiet", "--target", model, "--prompt", "Once upon a time",
              "--max-tokens", "4", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    const ssize_t n = child > 0 ? read(ends[0], &byte, 1) : -1;
    *ms = (double)(clock_now_ns() - begin) * 1e-6;
    while (n > 0 && read(ends[0], &byte, 1) > 0) {
    }
    close(ends[0]);
    if (child > 0) {
        waitpid(child, NULL, 0);
    }
    return n == 1 ? STATUS_OK : status_fail(STATUS_INVALID, "'tandem run' with %s wrote nothing", model);
}

enum status bench_first_token(const struct bench_options *options)
{
    struct samples times = {0};
    const char *model = NULL;
    TRY(model_of(options, &model));
    const int reps = bench_reps(options, 9, 3);
    for (int i = 0; i <= reps; i++) {
        double ms = 0;
        TRY(first_byte_ms(model, &ms));
        samples_add(&times, ms);
        times.n = i == 0 ? 0 : times.n;
    }
    return line_write(options, &(struct line){
        .bench = "first-token", .unit = "ms", .better = LOWER, .values = &times, .bound = 300,
        .isa = options->isa ? options->isa : "best", .which = json_pack("{s:s}", "model", name_of(model)),
    });
}

/* ---- memory ---- */
static enum status memory_run(struct td_engine *engine)
{
    static const int32_t prompt[] = {1, 2, 3, 4};
    struct td_request request;
    struct td_event event = {0};
    uint64_t id;
    td_request_init(&request);
    request.ids = prompt;
    request.n_ids = 4;
    request.max_tokens = 16;
    request.ignore_eos = 1;
    enum td_status td = td_submit(engine, &request, &id);
    while (td == TD_OK && event.kind != TD_EVENT_FINISHED) {
        td = td_next_event(engine, -1, &event);
    }
    return td == TD_OK ? STATUS_OK : status_fail(STATUS_INVALID, "the request did not end");
}

enum status bench_memory(const struct bench_options *options)
{
    struct td_engine_options engine_options;
    struct td_engine *engine = NULL;
    struct td_engine_info info;
    struct samples ratio = {0};
    td_engine_options_init(&engine_options);
    engine_options.target = options->target ? options->target
                            : options->quick ? "synth:llama-1b,q4_0,layers=4,vocab=32000,seed=1"
                                             : "synth:llama-1b,q8_0,seed=1";
    engine_options.isa = options->isa;
    engine_options.threads = options->threads;
    if (td_engine_open(&engine_options, &engine) != TD_OK) {
        char sentence[1024];
        snprintf(sentence, sizeof sentence, "%s", td_error_message());
        return status_fail(STATUS_INVALID, "%s", sentence);
    }
    td_engine_get_info(engine, &info);
    enum status status = memory_run(engine);
    samples_add(&ratio, (double)mem_peak_bytes() / (double)(info.weight_bytes + info.kv_bytes));
    if (status == STATUS_OK) {
        status = line_write(options, &(struct line){
            .bench = "memory", .unit = "ratio", .better = LOWER, .values = &ratio, .bound = 1.1, .isa = info.isa,
            .seed = 1,
            .which = json_pack("{s:s,s:I,s:I,s:I,s:I}", "model", engine_options.target, "weight_bytes",
                               (json_int_t)info.weight_bytes, "kv_bytes", (json_int_t)info.kv_bytes,
                               "scratch_bytes", (json_int_t)info.scratch_bytes, "peak_bytes",
                               (json_int_t)mem_peak_bytes()),
        });
    }
    td_engine_close(engine);
    return status;
}
