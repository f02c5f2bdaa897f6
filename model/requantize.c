/* requantize: another source with its tensors in other types, row by row as they are read, so that
 * converting a file needs memory for a few rows alone. Tensors of one dimension become F32; a row
 * whose length is no multiple of a block gets the next type that fits it; what has the wanted type
 * already passes through bit for bit.
 *
 * With a lane, rows are converted in parallel and the error made is summed per tensor, in row order:
 * one thread reads then, each row once. Without one, any thread reads and nothing is summed.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "model/source.h"

enum { CHUNK_ELEMS = 1 << 15, TYPE_LIST_CAP = 96, NATIVE = -1 };

struct chunk_sum { double error_squares, squares, largest; };

struct requantize_source {
    struct model_source base;
    struct model_source *inner;
    int keeps_inner;                         /* open when this one closes: it is the caller's */
    struct model_requantize_report *reports; /* [n_tensors] */
    struct lane *lane;                       /* NULL: none */
    int (*stop)(void *user);
    void *stop_user;
    struct chunk_sum *sums;                  /* [cap_sums] of the read in progress, with a lane */
    size_t cap_sums;
};

/* One read, cut into chunks of whole rows. */
struct requantize_job {
    struct requantize_source *self;
    int64_t tensor_idx, first_row, n_rows, chunk_rows;
    unsigned char *out;
    struct chunk_sum *sums;                  /* [chunks] or NULL */
    _Atomic int failed;
    enum status status;
    char sentence[SOURCE_SENTENCE_CAP];
};

/* ---- types ---- */

static bool fits(uint32_t type, int64_t row_elems)
{
    return row_elems % tensor_type_info(type)->block_elems == 0;
}

static bool is_float(uint32_t type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

/* A router chooses experts: a small error there is a whole expert's, and it is a small matrix. */
static bool is_router(const char *name)
{
    static const char suffix[] = ".ffn_gate_inp.weight";
    const size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static uint32_t type_of(const struct model_tensor_info *info, uint32_t wanted)
{
    if (info->n_dims < 2) {
        return TENSOR_F32;
    }
    if (is_router(info->name) && !is_float(wanted)) {
        return is_float(info->type) ? info->type : (uint32_t)TENSOR_F32;
    }
    if (fits(wanted, info->dims[0])) {
        return wanted;
    }
    return fits(TENSOR_Q8_0, info->dims[0]) ? TENSOR_Q8_0 : TENSOR_F16;
}

static enum status refuse_type(uint32_t type)
{
    char list[TYPE_LIST_CAP] = "";
    size_t at = 0;
    for (uint32_t number = 0; number < 64 && at < sizeof list; number++) {
        if (tensor_type_can_write(number)) {
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at > 0 ? ", " : "",
                                   tensor_type_info(number)->name);
        }
    }
    const struct tensor_type_info *info = tensor_type_info(type);
    if (!info) {
        return status_fail(STATUS_INVALID, "type %u is unknown; there are %s", type, list);
    }
    return status_fail(STATUS_UNSUPPORTED, "type %s can be read but not written; there are %s", info->name,
                       list);
}

/* ---- rows ---- */

static enum status refuse_value(const struct requantize_job *job, int64_t row, int64_t col, float value,
                                const char *problem)
{
    return status_fail(STATUS_INVALID, "%s: %s, row %lld, column %lld: %g %s", job->self->inner->label,
                       job->self->inner->tensors[job->tensor_idx].name, (long long)row, (long long)col,
                       (double)value, problem);
}

static enum status check_row(const struct requantize_job *job, int64_t row, const float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return refuse_value(job, row, i, values[i], "is no number that can be converted");
        }
    }
    return STATUS_OK;
}

static enum status sum_row(const struct requantize_job *job, int64_t row, const float *before,
                           const float *after, int64_t n, struct chunk_sum *sum)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(after[i])) {
            return refuse_value(job, row, i, before[i], "is beyond the largest number of this type");
        }
        const double error = fabs((double)after[i] - (double)before[i]);
        sum->error_squares += error * error;
        sum->squares += (double)before[i] * (double)before[i];
        sum->largest = error > sum->largest ? error : sum->largest;
    }
    return STATUS_OK;
}

/* before, after: [n_in] each; from: [chunk_rows] rows of the inner source's type. */
static enum status convert_rows(const struct requantize_job *job, int64_t first, int64_t n_rows,
                                const unsigned char *from, float *before, float *after,
                                struct chunk_sum *sum)
{
    const struct model_tensor_info *old = &job->self->inner->tensors[job->tensor_idx];
    const struct model_tensor_info *new = &job->self->base.tensors[job->tensor_idx];
    const uint64_t old_bytes = source_row_bytes(old), new_bytes = source_row_bytes(new);
    const int64_t n = old->dims[0];
    for (int64_t i = 0; i < n_rows; i++) {
        const int64_t row = job->first_row + first + i;
        unsigned char *to = job->out + (uint64_t)(first + i) * new_bytes;
        tensor_row_to_f32((enum tensor_type)old->type, from + (uint64_t)i * old_bytes, n, before);
        TRY(check_row(job, row, before, n));
        tensor_row_from_f32((enum tensor_type)new->type, before, n, to);
        tensor_row_to_f32((enum tensor_type)new->type, to, n, after);
        TRY(sum_row(job, row, before, after, n, sum));
    }
    return STATUS_OK;
}

static enum status convert_chunk(const struct requantize_job *job, int64_t chunk)
{
    const struct model_tensor_info *old = &job->self->inner->tensors[job->tensor_idx];
    const int64_t first = chunk * job->chunk_rows, left = job->n_rows - first, n = old->dims[0];
    const int64_t n_rows = left < job->chunk_rows ? left : job->chunk_rows;
    struct chunk_sum sum = { 0 };
    float *floats = mem_alloc((size_t)n, 2 * sizeof *floats);
    unsigned char *from = mem_alloc((size_t)n_rows, (size_t)source_row_bytes(old));
    enum status status = STATUS_OK;
    if (!floats || !from) {
        status = status_fail(STATUS_NO_MEMORY, "no memory to convert rows of %lld elements", (long long)n);
    }
    if (status == STATUS_OK) {
        status = model_source_read(job->self->inner, job->tensor_idx, job->first_row + first, n_rows, from);
    }
    if (status == STATUS_OK) {
        status = convert_rows(job, first, n_rows, from, floats, floats + n, &sum);
    }
    if (job->sums) {
        job->sums[chunk] = sum;
    }
    mem_free(from);
    mem_free(floats);
    return status;
}

struct chunk_args { struct requantize_job *job; };

static void convert_chunk_fn(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    struct requantize_job *job = ((const struct chunk_args *)args)->job;
    (void)worker;
    if (atomic_load(&job->failed) != 0) {
        return;
    }
    const enum status status = convert_chunk(job, chunk);
    int expected = 0;
    if (status != STATUS_OK && atomic_compare_exchange_strong(&job->failed, &expected, 1)) {
        job->status = status;
        snprintf(job->sentence, sizeof job->sentence, "%s", status_message());
    }
}

/* ---- the kind ---- */

static enum status read_by_lane(struct requantize_source *self, struct requantize_job *job, int64_t n_chunks)
{
    if ((size_t)n_chunks > self->cap_sums) {
        struct chunk_sum *sums = mem_realloc(self->sums, (size_t)n_chunks, sizeof *sums);
        if (!sums) {
            return status_fail(STATUS_NO_MEMORY, "no memory for the errors of %lld chunks",
                               (long long)n_chunks);
        }
        self->sums = sums;
        self->cap_sums = (size_t)n_chunks;
    }
    job->sums = self->sums;
    const struct chunk_args args = { job };
    lane_wait(self->lane, lane_submit(self->lane, convert_chunk_fn, &args, sizeof args, (uint32_t)n_chunks));
    if (atomic_load(&job->failed) != 0) {
        return status_fail(job->status, "%s", job->sentence);
    }
    struct model_requantize_report *report = &self->reports[job->tensor_idx];
    for (int64_t i = 0; i < n_chunks; i++) {
        report->error_squares += self->sums[i].error_squares;
        report->squares += self->sums[i].squares;
        report->largest_error = fmax(report->largest_error, self->sums[i].largest);
    }
    return STATUS_OK;
}

static enum status requantize_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                   int64_t n_rows, void *out)
{
    struct requantize_source *self = (struct requantize_source *)source;
    const struct model_tensor_info *info = &source->tensors[tensor_idx];
    if (self->stop && self->stop(self->stop_user)) {
        return status_fail(STATUS_INTERRUPTED, "interrupted while converting %s", info->name);
    }
    if (self->inner->tensors[tensor_idx].type == info->type) {
        return model_source_read(self->inner, tensor_idx, first_row, n_rows, out);
    }
    const int64_t rows = CHUNK_ELEMS / info->dims[0];
    struct requantize_job job = { .self = self, .tensor_idx = tensor_idx, .first_row = first_row,
                                  .n_rows = n_rows, .chunk_rows = rows > 0 ? rows : 1, .out = out };
    const int64_t n_chunks = (n_rows + job.chunk_rows - 1) / job.chunk_rows;
    if (self->lane) {
        return read_by_lane(self, &job, n_chunks);
    }
    for (int64_t i = 0; i < n_chunks; i++) {
        TRY(convert_chunk(&job, i));
    }
    return STATUS_OK;
}

static void requantize_close(struct model_source *source)
{
    struct requantize_source *self = (struct requantize_source *)source;
    mem_free(self->sums);
    mem_free(self->reports);
    mem_free(source->tensors);
    if (!self->keeps_inner) {
        model_source_close(self->inner);
    }
}

static void requantize_describe(const struct model_source *source,
                                void (*line)(void *user, const char *key, const char *value), void *user)
{
    model_source_describe(((const struct requantize_source *)source)->inner, line, user);
}

static void requantize_consumed(struct model_source *source)
{
    struct model_source *inner = ((struct requantize_source *)source)->inner;
    if (inner->kind->consumed) {
        inner->kind->consumed(inner);
    }
}

static const struct source_kind REQUANTIZE_SOURCE = {
    .close = requantize_close, .read = requantize_read, .describe = requantize_describe,
    .consumed = requantize_consumed,
};

/* ---- the door ---- */

static void plan_tensor(struct requantize_source *self, int64_t idx, int wanted_or_native)
{
    const struct model_tensor_info *old = &self->inner->tensors[idx];
    struct model_tensor_info *new = &self->base.tensors[idx];
    const int native = tensor_type_info(old->type)->native ? (int)old->type : tensor_type_convert_to(old->type);
    const uint32_t wanted = (uint32_t)(wanted_or_native != NATIVE ? wanted_or_native : native);
    *new = *old;
    new->type = wanted == old->type ? wanted : type_of(old, wanted);
    new->bytes = source_row_bytes(new) * (uint64_t)source_n_rows(new);
    self->base.total_bytes += new->bytes;
    self->reports[idx] = (struct model_requantize_report){
        .from = old->type, .to = new->type,
        .falls_back = new->n_dims > 1 && !fits(wanted, new->dims[0]) && !is_router(new->name),
    };
}

/* The new source over `inner`, every tensor planned; closes `inner` unless told to keep it. */
static enum status requantize_create(struct model_source *inner, int wanted_or_native,
                                     struct requantize_source **out)
{
    *out = NULL;
    TRY(model_source_check(inner));
    struct requantize_source *self = mem_alloc(1, sizeof *self);
    struct model_tensor_info *tensors = mem_alloc((size_t)inner->n_tensors, sizeof *tensors);
    struct model_requantize_report *reports = mem_alloc((size_t)inner->n_tensors, sizeof *reports);
    if (!self || !tensors || !reports) {
        mem_free(reports);
        mem_free(tensors);
        mem_free(self);
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %lld tensors",
                           (long long)inner->n_tensors);
    }
    self->base = *inner; /* config, vocabulary, label, metadata: borrowed from it until both close */
    self->base.kind = &REQUANTIZE_SOURCE;
    self->base.tensors = tensors;
    self->base.tensor_index = (struct name_index){ 0 };
    self->base.total_bytes = 0;
    self->inner = inner;
    self->reports = reports;
    for (int64_t i = 0; i < inner->n_tensors; i++) {
        plan_tensor(self, i, wanted_or_native);
    }
    const enum status status = source_index_tensors(&self->base);
    if (status != STATUS_OK) {
        source_base_deinit(&self->base);
        mem_free(reports);
        mem_free(tensors);
        mem_free(self);
        return status;
    }
    *out = self;
    return STATUS_OK;
}

enum status model_source_requantize(struct model_source *inner, const struct model_requantize_options *options,
                                    struct model_source **out)
{
    struct requantize_source *self;
    *out = NULL;
    if (!tensor_type_can_write(options->type)) {
        return refuse_type(options->type);
    }
    TRY(requantize_create(inner, (int)options->type, &self));
    if (options->vocab) {
        self->base.vocab = *options->vocab;
        self->base.has_vocab = true;
    }
    self->lane = options->lane;
    self->stop = options->stop;
    self->stop_user = options->stop_user;
    *out = &self->base;
    return STATUS_OK;
}

enum status requantize_to_native(struct model_source *inner, struct model_source **out)
{
    struct requantize_source *self;
    bool native = true;
    *out = NULL;
    for (int64_t i = 0; i < inner->n_tensors; i++) {
        native = native && tensor_type_info(inner->tensors[i].type)->native;
    }
    if (native) {
        return STATUS_OK;
    }
    TRY(requantize_create(inner, NATIVE, &self));
    self->keeps_inner = 1;
    *out = &self->base;
    return STATUS_OK;
}

void requantize_adopt(struct model_source *source)
{
    ASSERT(source->kind == &REQUANTIZE_SOURCE);
    ((struct requantize_source *)source)->keeps_inner = 0;
}

/* The open source in another type; closed when that fails. */
static enum status open_in_type(struct model_source *source, const char *type_name, struct model_source **out)
{
    const struct tensor_type_info *type = tensor_type_by_name(type_name);
    const struct model_requantize_options options = { .type = type ? type->number : UINT32_MAX };
    const enum status status = type ? model_source_requantize(source, &options, out)
                                    : status_fail(STATUS_INVALID, "unknown type '%.32s'", type_name);
    if (status != STATUS_OK) {
        model_source_close(source);
    }
    return status;
}

enum status model_source_open_as(const char *name, const char *type_or_null, struct model_source **out)
{
    struct model_source *source, *native;
    *out = NULL;
    TRY(model_source_open(name, &source));
    if (type_or_null) {
        return open_in_type(source, type_or_null, out);
    }
    if (source->check != STATUS_OK) {
        *out = source; /* model_source_check() says why */
        return STATUS_OK;
    }
    const enum status status = requantize_to_native(source, &native);
    if (status != STATUS_OK) {
        model_source_close(source);
        return status;
    }
    if (native) {
        requantize_adopt(native);
    }
    *out = native ? native : source;
    return STATUS_OK;
}

void requantize_say(const struct model_source *source, uint64_t memory_bytes)
{
    const double mib = 1024.0 * 1024.0;
    const struct requantize_source *self = (const struct requantize_source *)source;
    int64_t n = 0, example = 0;
    if (source->kind != &REQUANTIZE_SOURCE) {
        return;
    }
    for (int64_t i = 0; i < source->n_tensors; i++) {
        if (source->tensors[i].n_dims > 1 && self->reports[i].from != self->reports[i].to) {
            example = n++ > 0 ? example : i;
        }
    }
    if (n > 0) {
        log_info("%s: %lld tensors become %s while loading (%s is %s): weights take %.1f MiB of memory, "
                 "%.1f MiB in the file", source->label, (long long)n,
                 tensor_type_info(self->reports[example].to)->name, source->tensors[example].name,
                 tensor_type_info(self->reports[example].from)->name, (double)memory_bytes / mib,
                 (double)self->inner->total_bytes / mib);
    }
}

void model_requantize_get_report(const struct model_source *source, int64_t tensor_idx,
                                 struct model_requantize_report *report)
{
    ASSERT(source->kind == &REQUANTIZE_SOURCE && tensor_idx >= 0 && tensor_idx < source->n_tensors);
    *report = ((const struct requantize_source *)source)->reports[tensor_idx];
}
