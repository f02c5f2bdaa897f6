/* draft-worker: a model that guesses for targets elsewhere, until a signal ends it. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "scheduler/scheduler.h"

enum { DEFAULT_MAX_BATCH = 8 };

static enum status read_k(const struct conf *conf, int32_t *k)
{
    const char *text = conf_text(conf, OPT_K);
    char *end;
    const long asked = strtol(text, &end, 10);
    *k = -1;
    if (strcmp(text, "auto") == 0) {
        return STATUS_OK;
    }
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || asked < 1 || asked > TD_MAX_DRAFTED) {
        return status_fail(STATUS_USAGE, "--k of a draft worker is auto or a number from 1 to %d, found '%s'",
                           TD_MAX_DRAFTED, text);
    }
    *k = (int32_t)asked;
    return STATUS_OK;
}

static enum status open_worker(const struct conf *conf, struct engine_worker **out)
{
    struct engine_worker_options options = { .listen = conf_text(conf, OPT_LISTEN),
        .key_file = conf_text(conf, OPT_DRAFT_KEY_FILE), .is_open_to_all = conf_flag(conf, OPT_INSECURE) };
    struct td_engine_options *model = &options.model;
    struct progress progress;
    td_engine_options_init(model);
    model->target = conf_text(conf, OPT_MODEL);
    if (model->target == NULL || options.listen == NULL) {
        return status_fail(STATUS_USAGE, "draft-worker needs --model MODEL and --listen unix:/PATH or tcp:PORT");
    }
    TRY(read_k(conf, &model->k));
    model->target_device = conf_text(conf, OPT_DRAFT_DEVICE);
    model->lend = 0;
    model->ahead = "off";
    model->ahead_budget = (int32_t)conf_int(conf, OPT_AHEAD_BUDGET);
    model->fanout = conf_text(conf, OPT_FANOUT);
    model->isa = conf_text(conf, OPT_ISA);
    model->kv = conf_text(conf, OPT_KV);
    model->quant = conf_text(conf, OPT_QUANT);
    model->threads = (int32_t)conf_int(conf, OPT_THREADS);
    model->context = (int32_t)conf_int(conf, OPT_CONTEXT);
    model->page = (int32_t)conf_int(conf, OPT_PAGE);
    model->prefill_chunk = (int32_t)conf_int(conf, OPT_PREFILL_CHUNK);
    model->max_batch = conf_is_set(conf, OPT_MAX_BATCH) ? (int32_t)conf_int(conf, OPT_MAX_BATCH)
                                                        : DEFAULT_MAX_BATCH;
    model->memory_bytes = (uint64_t)conf_int(conf, OPT_MEMORY);
    model->mlock = conf_flag(conf, OPT_MLOCK);
    progress_init(&progress, conf, "loading");
    model->progress = progress_show;
    model->progress_user = &progress;
    const enum status status = engine_worker_open(&options, out);
    progress_end(&progress);
    return status;
}

enum status verb_draft_worker(const struct conf *conf)
{
    struct engine_worker *host;
    TRY(open_worker(conf, &host));
    const struct engine_worker_info info = engine_worker_info(host);
    interrupt_catch();
    say(conf, "draft worker: %s, %d ids, fingerprint %016llx, %d sequences of %d positions on %d thread%s, %.1f MB; "
        "listening on %s", info.model_name, info.n_vocab, (unsigned long long)info.fingerprint, info.max_batch,
        info.context, info.threads, info.threads == 1 ? "" : "s", (double)info.bytes * 1e-6, info.address);
    struct draft_worker *worker = engine_worker_draft(host);
    const enum status status = draft_worker_serve(worker, interrupt_seen);
    const struct draft_worker_report report = draft_worker_report(worker);
    say(conf, "draft worker: ends after %llu targets, %llu sequences, %llu rounds in %llu jobs (%llu shared by targets)",
        (unsigned long long)report.targets, (unsigned long long)report.sequences, (unsigned long long)report.rounds,
        (unsigned long long)report.batches, (unsigned long long)report.shared_batches);
    engine_worker_close(host);
    return status;
}
