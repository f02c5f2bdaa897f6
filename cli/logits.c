/* logits: one float32 row of the vocabulary for each id, written as the passes end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"
#include "cli/cli.h"
#include "scheduler/scheduler.h"

enum { MAX_ROWS = 64, DEFAULT_CONTEXT = 4096 };

/* Rows of a pass: the chunk asked for, and no more logits at once than MAX_ROWS rows. */
static int32_t rows_of_pass(const struct conf *conf, size_t n_ids)
{
    const int64_t chunk = conf_int(conf, OPT_PREFILL_CHUNK);
    const int64_t rows = chunk < MAX_ROWS ? chunk : MAX_ROWS;
    return (int32_t)(rows < (int64_t)n_ids ? rows : (int64_t)n_ids);
}

static enum status logits_open(const struct conf *conf, const struct id_list *ids, struct bench_rig *rig)
{
    char path[PATH_CAP];
    struct progress progress;
    const char *target = NULL;
    const int64_t limit = conf_is_set(conf, OPT_CONTEXT) ? conf_int(conf, OPT_CONTEXT) : DEFAULT_CONTEXT;
    if (strcmp(conf_text(conf, OPT_PLAN), "exact") != 0) {
        return status_fail(STATUS_UNSUPPORTED, "logits are computed on a CPU, whose plan is exact; found --plan %s",
                           conf_text(conf, OPT_PLAN));
    }
    if (conf_int(conf, OPT_PAGE) % 16 != 0) {
        return status_fail(STATUS_USAGE, "--page is a multiple of 16, found %lld",
                           (long long)conf_int(conf, OPT_PAGE));
    }
    if ((int64_t)ids->n > limit) {
        return status_fail(STATUS_INVALID, "%zu ids are more than the context of %lld; --context sets it",
                           ids->n, (long long)limit);
    }
    TRY(input_model(conf, path, &target));
    const int32_t rows = rows_of_pass(conf, ids->n);
    progress_init(&progress, conf, "loading");
    const enum status status = bench_rig_init(rig, &(struct bench_rig_options){
        .target = target, .isa = conf_text(conf, OPT_ISA), .context = (int32_t)ids->n,
        .quant = conf_text(conf, OPT_QUANT),
        .kv = strcmp(conf_text(conf, OPT_KV), "f32") == 0 ? KV_F32 : KV_F16,
        .page_slots = (int32_t)conf_int(conf, OPT_PAGE), .cap_rows = rows, .cap_logits = rows,
        .threads = (int)conf_int(conf, OPT_THREADS), .mlock = conf_flag(conf, OPT_MLOCK),
        .budget_bytes = (uint64_t)conf_int(conf, OPT_MEMORY), .comm = ranks_comm(ranks_group()),
        .progress = progress_show, .progress_user = &progress,
    });
    progress_end(&progress);
    return status;
}

static enum status logits_check(const struct bench_rig *rig, const struct id_list *ids)
{
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] >= rig->config->n_vocab) {
            return status_fail(STATUS_INVALID, "id %d is outside the vocabulary of %d tokens", ids->ids[i],
                               rig->config->n_vocab);
        }
    }
    return STATUS_OK;
}

static enum status logits_write(struct bench_rig *rig, const struct id_list *ids, FILE *out, const char *name,
                                uint64_t *digest)
{
    struct digest sum;
    digest_init(&sum);
    for (size_t first = 0; first < ids->n;) {
        const size_t left = ids->n - first;
        const int32_t n = left < (size_t)rig->cap_rows ? (int32_t)left : rig->cap_rows;
        bench_rig_pass(rig, ids->ids + first, (int32_t)first, n, n);
        const float *logits = rig->logits; /* [n, n_vocab], little-endian here */
        const size_t n_floats = (size_t)n * (size_t)rig->config->n_vocab;
        digest_update(&sum, logits, n_floats * sizeof *logits);
        if (fwrite(logits, sizeof *logits, n_floats, out) != n_floats) {
            return status_fail(STATUS_IO, "cannot write %s: %s", name, strerror(errno));
        }
        first += (size_t)n;
    }
    *digest = digest_value(&sum);
    return STATUS_OK;
}

static enum status logits_say(const struct conf *conf, const struct bench_rig *rig, size_t n_rows,
                              const char *out, uint64_t digest)
{
    if (conf_flag(conf, OPT_JSON)) {
        return output_json(json_pack("{s:s,s:I,s:i,s:s,s:o,s:s}", "file", out, "rows", (json_int_t)n_rows,
                                     "vocabulary", rig->config->n_vocab, "plan", "exact", "digest",
                                     json_hex(digest), "isa", isa_name(backend_isa(rig->backend))));
    }
    say(conf, "%zu rows of %d float32 to %s, digest %016llx, plan exact", n_rows, rig->config->n_vocab, out,
        (unsigned long long)digest);
    return STATUS_OK;
}

static enum status logits_run(const struct conf *conf, const struct id_list *ids, struct bench_rig *rig)
{
    const char *name = conf_text(conf, OPT_OUT);
    const int to_stdout = strcmp(name, "-") == 0;
    uint64_t digest = 0;
    TRY(logits_open(conf, ids, rig));
    TRY(logits_check(rig, ids));
    FILE *out = to_stdout ? stdout : fopen(name, "wb");
    if (!out) {
        return status_fail(STATUS_IO, "cannot write %s: %s", name, strerror(errno));
    }
    struct stat info;
    const int is_file = !to_stdout && fstat(fileno(out), &info) == 0 && S_ISREG(info.st_mode);
    enum status status = logits_write(rig, ids, out, name, &digest);
    if (to_stdout) {
        status = status == STATUS_OK ? output_flush() : status;
    } else if (fclose(out) != 0 && status == STATUS_OK) {
        status = status_fail(STATUS_IO, "cannot write %s: %s", name, strerror(errno));
    }
    if (status != STATUS_OK && is_file) {
        remove(name); /* half a file would pass for a whole one */
    }
    TRY(status);
    return logits_say(conf, rig, ids->n, name, digest);
}

enum status verb_logits(const struct conf *conf)
{
    struct bench_rig rig = {0};
    struct id_list ids = {0};
    const char *text = conf_text(conf, OPT_IDS), *out = conf_text(conf, OPT_OUT);
    if (!text || !out) {
        return status_fail(STATUS_USAGE, "'logits' needs --ids 1,2,3 and --out FILE (- is standard output)");
    }
    if (strcmp(out, "-") == 0 && conf_flag(conf, OPT_JSON)) {
        return status_fail(STATUS_USAGE, "--out - and --json both want standard output");
    }
    enum status status = id_list_parse("--ids", text, strlen(text), &ids);
    if (status == STATUS_OK && ids.n == 0) {
        status = status_fail(STATUS_USAGE, "--ids holds no id");
    }
    if (status == STATUS_OK) {
        status = logits_run(conf, &ids, &rig);
        bench_rig_deinit(&rig);
    }
    id_list_free(&ids);
    return status;
}
