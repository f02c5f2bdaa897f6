/* quantize: a model as a GGUF file in another type, and what that costs: the error of each tensor's
 * weights, and on a text the perplexity of both models. The file is written as OUT.part and moved to
 * its name when it is whole; an interruption or a full disk leaves nothing behind.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "bench/bench.h"
#include "cli/cli.h"
#include "cli/folder_vocab.h"
#include "model/model.h"
#include "scheduler/scheduler.h"
#include "tokenizer/tokenizer.h"

enum { TEXT_MAX_TOKENS = 2048, WINDOW = 512, PASS_ROWS = 64, MAX_TYPES = 64 };

struct quantize {
    const struct conf *conf;
    const char *in, *out;
    const struct tensor_type_info *type;
    struct backend *backend;
    struct lane *lane;
    struct model_source *source;       /* the requantizing one, once there is */
    struct folder_vocab vocab;         /* of a folder */
    uint64_t in_bytes;
    struct id_list ids;                /* of --text */
    double perplexity_in, perplexity_out;
};

static int stop_asked(void *user)
{
    (void)user;
    return interrupt_seen();
}

/* ---- what may be asked ---- */

static enum status find_type(struct quantize *self, const char *name)
{
    const char *names[MAX_TYPES];
    char list[128] = "";
    int n = 0;
    size_t at = 0;
    for (uint32_t number = 0; number < MAX_TYPES; number++) {
        if (tensor_type_can_write(number) && at < sizeof list) {
            names[n] = tensor_type_info(number)->name;
            at += (size_t)snprintf(list + at, sizeof list - at, n > 0 ? ", %s" : "%s", names[n]);
            n++;
        }
    }
    self->type = tensor_type_by_name(name);
    if (!self->type) {
        return status_fail(STATUS_USAGE, "unknown type '%s'; the nearest is '%s'; there are %s", name,
                           conf_nearest(name, names, n), list);
    }
    if (!tensor_type_can_write(self->type->number)) {
        return status_fail(STATUS_USAGE, "type %s can be read but not written; there are %s", self->type->name,
                           list);
    }
    return STATUS_OK;
}

/* Bytes of "model" in "model-00001-of-00003.gguf"; 0 when the name is not of a part. */
static size_t split_stem(const char *name)
{
    static const char pattern[] = "-00000-of-00000.gguf";
    const size_t n = strlen(name), n_pattern = sizeof pattern - 1;
    if (n <= n_pattern) {
        return 0;
    }
    const char *tail = name + n - n_pattern;
    for (size_t i = 0; i < n_pattern; i++) {
        if (pattern[i] == '0' ? tail[i] < '0' || tail[i] > '9' : tail[i] != pattern[i]) {
            return 0;
        }
    }
    return n - n_pattern;
}

/* A file of the folder `in`, or another part of the split file `in`. */
static int is_part_of_input(const char *in, const char *out, int in_is_folder)
{
    const size_t stem = split_stem(in);
    if (!in_is_folder) {
        return stem > 0 && split_stem(out) == stem && memcmp(in, out, stem) == 0;
    }
    char folder[PATH_CAP];
    struct stat a, b;
    const char *slash = strrchr(out, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - out + 1) : 1, slash ? out : ".");
    return stat(folder, &a) == 0 && stat(in, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static enum status check_regular(const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return status_fail(STATUS_IO, "cannot write %s: it is there, and is no regular file", path);
    }
    return STATUS_OK;
}

static enum status check_out(const struct quantize *self)
{
    char part[PATH_CAP];
    struct stat in, out;
    if (snprintf(part, sizeof part, "%s.part", self->out) >= (int)sizeof part) {
        return status_fail(STATUS_USAGE, "the name of the file to write is over %d bytes", PATH_CAP - 6);
    }
    TRY(check_regular(self->out));
    TRY(check_regular(part));
    const int has_in = stat(self->in, &in) == 0;
    if (has_in && stat(self->out, &out) == 0) {
        const int same = in.st_dev == out.st_dev && in.st_ino == out.st_ino;
        if (same || is_part_of_input(self->in, self->out, S_ISDIR(in.st_mode))) {
            return status_fail(STATUS_USAGE, "%s is %sthe input; the file to write needs another name",
                               self->out, same ? "" : "part of ");
        }
    }
    return STATUS_OK;
}

/* Said before the work instead of after it; where the system cannot tell, writing will. */
static enum status check_space(const struct quantize *self)
{
    char folder[PATH_CAP];
    struct statvfs disk;
    const char *slash = strrchr(self->out, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - self->out + 1) : 1, slash ? self->out : ".");
    const uint64_t needed = model_source_bytes(self->source);
    if (statvfs(folder, &disk) == 0 && disk.f_blocks > 0 && needed / disk.f_frsize >= disk.f_bavail) {
        return status_fail(STATUS_IO, "%s needs %.1f MB, and %.1f MB are free where it would lie", self->out,
                           (double)needed * 1e-6, (double)disk.f_bavail * (double)disk.f_frsize * 1e-6);
    }
    return STATUS_OK;
}

/* ---- perplexity ---- */

/* -log of the probability that the row gives `id`, in double. */
static double surprise(const float *logits, int32_t n_vocab, int32_t id)
{
    double max = (double)logits[0], sum = 0;
    for (int32_t i = 1; i < n_vocab; i++) {
        max = (double)logits[i] > max ? (double)logits[i] : max;
    }
    for (int32_t i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i] - max);
    }
    return log(sum) + max - (double)logits[id];
}

/* Rows [0, n) of one window; every token but the first is predicted from those before it. */
static enum status window_surprise(struct bench_rig *rig, const int32_t *ids, int32_t n, double *sum)
{
    for (int32_t first = 0; first < n; first += rig->cap_rows) {
        const int32_t left = n - first, rows = left < rig->cap_rows ? left : rig->cap_rows;
        if (interrupt_seen()) {
            return status_fail(STATUS_INTERRUPTED, "interrupted while measuring perplexity");
        }
        bench_rig_pass(rig, ids + first, first, rows, rows);
        const float *logits = pass_buffers_logits(rig->buffers);
        for (int32_t i = 0; i < rows && first + i + 1 < n; i++) {
            *sum += surprise(logits + (size_t)i * (size_t)rig->config->n_vocab, rig->config->n_vocab,
                             ids[first + i + 1]);
        }
    }
    return STATUS_OK;
}

static enum status perplexity_of_rig(struct bench_rig *rig, const struct id_list *ids, double *perplexity)
{
    double sum = 0;
    int64_t n_predicted = 0;
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] < 0 || ids->ids[i] >= rig->config->n_vocab) {
            return status_fail(STATUS_INVALID, "the text has id %d, the model %d tokens", ids->ids[i],
                               rig->config->n_vocab);
        }
    }
    for (size_t first = 0; first + 1 < ids->n; first += (size_t)rig->context) {
        const size_t left = ids->n - first;
        const int32_t n = left < (size_t)rig->context ? (int32_t)left : rig->context;
        TRY(window_surprise(rig, ids->ids + first, n, &sum));
        n_predicted += n - 1;
    }
    *perplexity = exp(sum / (double)(n_predicted > 0 ? n_predicted : 1));
    return STATUS_OK;
}

static enum status perplexity(const struct quantize *self, const char *model, int32_t context, double *out)
{
    struct bench_rig rig = {0};
    struct progress progress;
    progress_init(&progress, self->conf, "loading");
    enum status status = bench_rig_init(&rig, &(struct bench_rig_options){
        .target = model, .kv = KV_F16, .context = context, .cap_rows = PASS_ROWS, .cap_logits = PASS_ROWS,
        .threads = (int)conf_int(self->conf, OPT_THREADS), .progress = progress_show,
        .progress_user = &progress,
    });
    progress_end(&progress);
    if (status == STATUS_OK) {
        status = perplexity_of_rig(&rig, &self->ids, out);
    }
    bench_rig_deinit(&rig);
    return status;
}

/* The text's ids by the input's vocabulary. */
static enum status tokenize_text(struct quantize *self, const char *path)
{
    struct text text = {0};
    struct tokenizer *tokenizer = NULL;
    enum status status;
    TRY_GOTO(text_open_path(self->in, &tokenizer), out);
    TRY_GOTO(input_read(path, &text), out);
    self->ids.cap = text.n + 8; /* a byte is a token at most; begin and end */
    self->ids.ids = mem_alloc(self->ids.cap, sizeof *self->ids.ids);
    if (!self->ids.ids) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for %zu ids", self->ids.cap);
        goto out;
    }
    TRY_GOTO(tokenizer_encode(tokenizer, text.bytes, text.n, TOKENIZE_SPECIAL, self->ids.ids, self->ids.cap,
                              &self->ids.n), out);
    self->ids.n = self->ids.n < TEXT_MAX_TOKENS ? self->ids.n : TEXT_MAX_TOKENS;
    self->ids.n = self->ids.n < self->ids.cap ? self->ids.n : self->ids.cap;
    if (self->ids.n < 2) {
        status = status_fail(STATUS_INVALID, "%s has %zu tokens, perplexity needs 2", path, self->ids.n);
    }
out:
    text_close(tokenizer);
    text_free(&text);
    return status;
}

static int32_t window_of(const struct quantize *self)
{
    const int32_t context = model_source_config(self->source)->context_len;
    const int32_t window = context < WINDOW ? context : WINDOW;
    return window > 2 ? window : 2;
}

/* ---- report ---- */

static double relative_error(double error_squares, double squares)
{
    return squares > 0 ? sqrt(error_squares / squares) : 0;
}

static const char *type_name(uint32_t number) { return tensor_type_info(number)->name; }

/* A line for each type that matrices fall back to. */
static void say_fallbacks(const struct quantize *self)
{
    int64_t n[MAX_TYPES] = {0}, first[MAX_TYPES] = {0};
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_requantize_report report;
        model_requantize_get_report(self->source, i, &report);
        if (report.falls_back && report.to < MAX_TYPES && n[report.to]++ == 0) {
            first[report.to] = i;
        }
    }
    for (uint32_t to = 0; to < MAX_TYPES; to++) {
        struct model_tensor_info tensor;
        if (n[to] > 0 && model_source_tensor(self->source, first[to], &tensor) == STATUS_OK) {
            say(self->conf, "%lld matrices become %s: their rows are no whole number of %s blocks of %u (%s: %lld)",
                (long long)n[to], type_name(to), self->type->name, self->type->block_elems, tensor.name,
                (long long)tensor.dims[0]);
        }
    }
}

struct total { double error_squares, squares, largest; };

static struct total total_error(const struct quantize *self)
{
    struct total total = {0};
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_requantize_report report;
        model_requantize_get_report(self->source, i, &report);
        total.error_squares += report.error_squares;
        total.squares += report.squares;
        total.largest = fmax(total.largest, report.largest_error);
    }
    return total;
}

static enum status print_report(const struct quantize *self)
{
    const struct total total = total_error(self);
    printf("%-36s %-14s %10s %12s\n", "tensor", "type", "error/rms", "largest");
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_requantize_report report;
        struct model_tensor_info tensor;
        char types[32];
        TRY(model_source_tensor(self->source, i, &tensor));
        model_requantize_get_report(self->source, i, &report);
        snprintf(types, sizeof types, report.from == report.to ? "%s" : "%s to %s", type_name(report.from),
                 type_name(report.to));
        if (report.from == report.to) {
            printf("%-36s %-14s %10s\n", tensor.name, types, "as it was");
        } else {
            printf("%-36s %-14s %10.6f %12.3g\n", tensor.name, types,
                   relative_error(report.error_squares, report.squares), report.largest_error);
        }
    }
    printf("%s: %.1f MB, from %.1f MB; error %.4f %% of the converted weights' rms, largest %.3g\n", self->out,
           (double)model_source_bytes(self->source) * 1e-6, (double)self->in_bytes * 1e-6,
           100 * relative_error(total.error_squares, total.squares), total.largest);
    if (self->ids.n > 0) {
        printf("perplexity of %zu tokens: %.4f before, %.4f after (%+.2f %%)\n", self->ids.n,
               self->perplexity_in, self->perplexity_out,
               100 * (self->perplexity_out / self->perplexity_in - 1));
    }
    return output_flush();
}

static json_t *tensor_json(const struct quantize *self, int64_t idx)
{
    struct model_requantize_report report;
    struct model_tensor_info tensor;
    if (model_source_tensor(self->source, idx, &tensor) != STATUS_OK) {
        return NULL;
    }
    model_requantize_get_report(self->source, idx, &report);
    return json_pack("{s:s,s:s,s:s,s:b,s:f,s:f}", "name", tensor.name, "from", type_name(report.from), "to",
                     type_name(report.to), "fallback", report.falls_back, "error_rms",
                     relative_error(report.error_squares, report.squares), "error_max", report.largest_error);
}

static enum status write_json(const struct quantize *self)
{
    const struct total total = total_error(self);
    json_t *tensors = json_array(), *text = NULL;
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        json_array_append_new(tensors, tensor_json(self, i));
    }
    if (self->ids.n > 0) {
        text = json_pack("{s:I,s:f,s:f}", "tokens", (json_int_t)self->ids.n, "before", self->perplexity_in,
                         "after", self->perplexity_out);
    }
    return output_json(json_pack("{s:s,s:s,s:s,s:I,s:I,s:f,s:f,s:o,s:o?}", "in", self->in, "out", self->out,
                                 "type", self->type->name, "in_bytes", (json_int_t)self->in_bytes, "bytes",
                                 (json_int_t)model_source_bytes(self->source), "error_rms",
                                 relative_error(total.error_squares, total.squares), "error_max",
                                 total.largest, "tensors", tensors, "perplexity", text));
}

/* ---- the work ---- */

static enum status open_lane(struct quantize *self)
{
    int cpus[RIG_MAX_CPUS], n_physical = 0;
    const int n_cpus = backend_cpu_list(cpus, RIG_MAX_CPUS, &n_physical);
    const int wanted = conf_is_set(self->conf, OPT_THREADS) ? (int)conf_int(self->conf, OPT_THREADS) : n_physical;
    if (wanted > n_cpus) {
        return status_fail(STATUS_USAGE, "--threads %d: this process may use %d cores", wanted, n_cpus);
    }
    TRY(backend_create("cpu", NULL, &self->backend));
    const struct lane_options options = {.n_workers = wanted > 0 ? wanted : 1, .caller_is_worker = true};
    return lane_create(self->backend, &options, &self->lane);
}

/* self->source is the input first and what wraps it after. */
static enum status open_source(struct quantize *self)
{
    TRY(model_source_open(self->in, &self->source));
    TRY(model_source_check(self->source));
    self->in_bytes = model_source_bytes(self->source);
    const char *folder = model_source_folder(self->source);
    if (folder) {
        TRY(folder_vocab_init(&self->vocab, folder, model_source_config(self->source)));
    }
    if (self->vocab.n_unlisted_joins > 0) {
        say(self->conf, "%s: tokenizer.json lists %lld joins of tokens less than GGUF's kind 'llama' makes: rare "
            "texts may get other ids from %s", folder, (long long)self->vocab.n_unlisted_joins, self->out);
    }
    if (!self->vocab.has_vocab && !model_source_vocab(self->source)) {
        say(self->conf, "%s has no vocabulary, so %s will have none: it runs on ids, not on text", self->in,
            self->out);
    }
    const struct model_requantize_options options = {
        .type = self->type->number, .lane = self->lane, .stop = stop_asked,
        .vocab = self->vocab.has_vocab ? &self->vocab.vocab : NULL,
    };
    struct model_source *inner = self->source;
    const enum status status = model_source_requantize(inner, &options, &self->source);
    if (status != STATUS_OK) {
        self->source = inner;
    }
    return status;
}

static enum status convert(struct quantize *self)
{
    struct progress progress;
    TRY(check_space(self));
    say_fallbacks(self);
    progress_init(&progress, self->conf, "converting");
    const enum status status = model_source_write_gguf(self->source, self->out, progress_show, &progress);
    progress_end(&progress);
    return status;
}

static enum status quantize_all(struct quantize *self)
{
    const char *text = conf_text(self->conf, OPT_TEXT);
    TRY(check_out(self));
    TRY(open_lane(self));
    TRY(open_source(self));
    if (text) {
        TRY(tokenize_text(self, text));
        TRY(perplexity(self, self->in, window_of(self), &self->perplexity_in));
    }
    TRY(convert(self));
    if (text) {
        TRY(perplexity(self, self->out, window_of(self), &self->perplexity_out));
    }
    return conf_flag(self->conf, OPT_JSON) ? write_json(self) : print_report(self);
}

enum status verb_quantize(const struct conf *conf)
{
    struct quantize self = {.conf = conf, .in = conf->argument[0], .out = conf->argument[1]};
    TRY(find_type(&self, conf->argument[2]));
    interrupt_catch();
    const enum status status = quantize_all(&self);
    model_source_close(self.source);
    folder_vocab_deinit(&self.vocab);
    if (self.lane) {
        lane_destroy(self.lane);
    }
    if (self.backend) {
        backend_destroy(self.backend);
    }
    id_list_free(&self.ids);
    return status;
}
