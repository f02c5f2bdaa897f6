/* engine_memory: see the header. */
#include "scheduler/engine_memory.h"

#include <string.h>

enum { TARGET, DRAFT };

static double mib(uint64_t bytes) { return (double)bytes / (1024.0 * 1024.0); }

static uint64_t total_of(const struct td_memory *row)
{
    return row->weight_bytes + row->kv_bytes + row->scratch_bytes;
}

/* Two parts of one GPU have the same memory. */
static bool is_shared(const struct td_engine *engine)
{
    return engine->draft_backend == NULL ||
           strcmp(backend_name(engine->backend), backend_name(engine->draft_backend)) == 0;
}

/* ---- devices ---- */
/* Ranks of one machine share what is free there. */
static void open_row(struct td_engine *engine, int idx, struct backend *backend, uint64_t allowed_bytes)
{
    const uint64_t there = allowed_bytes > 0 ? allowed_bytes : backend_free_bytes(backend);
    engine->memory[idx] = (struct td_memory){ .device = backend_name(backend), .model = "",
                                              .device_bytes = there / (uint64_t)engine->plan.ranks.n_budgeted };
}

void engine_memory_begin(struct td_engine *engine, const struct td_engine_options *options)
{
    engine->memory_is_asked = options->memory_bytes > 0;
    open_row(engine, TARGET, engine->backend, options->memory_bytes);
    open_row(engine, DRAFT, engine->draft_backend == NULL ? engine->backend : engine->draft_backend, options->memory_bytes);
}

/* ---- refusals ---- */
static enum status refuse(const struct td_engine *engine, const struct td_memory *row, uint64_t total)
{
    const struct td_memory *draft = &engine->memory[DRAFT];
    const char *source = engine->memory_is_asked ? "allowed" : "free";
    if (row == &engine->memory[TARGET] && is_shared(engine) && total_of(draft) > 0) {
        return status_fail(STATUS_NO_MEMORY, "%s needs %.1f MiB for weights, %.1f MiB for KV and %.1f MiB to compute in, "
                           "its draft %.1f MiB, %.1f MiB and %.1f MiB, %.1f MiB in all on %s; %.1f MiB are %s", row->model,
                           mib(row->weight_bytes), mib(row->kv_bytes), mib(row->scratch_bytes), mib(draft->weight_bytes),
                           mib(draft->kv_bytes), mib(draft->scratch_bytes), mib(total), row->device,
                           mib(row->device_bytes), source);
    }
    return status_fail(STATUS_NO_MEMORY, "%s needs %.1f MiB for weights, %.1f MiB for the KV of %d sequences of %d "
                       "positions and %.1f MiB to compute in, %.1f MiB in all on %s; %.1f MiB are %s", row->model,
                       mib(row->weight_bytes), mib(row->kv_bytes), engine->plan.max_batch, engine->plan.context,
                       mib(row->scratch_bytes), mib(total), row->device, mib(row->device_bytes), source);
}

static enum status check(const struct td_engine *engine)
{
    for (int i = TARGET; i <= DRAFT; i++) {
        const struct td_memory *row = &engine->memory[i];
        const uint64_t total =
            total_of(row) + (i == TARGET && is_shared(engine) ? total_of(&engine->memory[DRAFT]) : 0);
        if (row->device_bytes > 0 && total > row->device_bytes) {
            return refuse(engine, row, total);
        }
    }
    return STATUS_OK;
}

/* ---- plans ---- */
static uint64_t kv_bytes(const struct td_engine *engine, const struct model_config *config, int32_t n_pages)
{
    return model_target_kv_bytes(config, &(struct model_target_options){
        .kv = engine->plan.kv, .page_slots = engine->plan.page_slots, .n_pages = n_pages });
}

enum status engine_memory_plan_target(struct td_engine *engine, const struct model_source *source)
{
    struct td_memory *row = &engine->memory[TARGET];
    row->model = model_source_config(source)->name;
    row->weight_bytes = model_source_bytes(source) / (uint64_t)engine->plan.ranks.n;
    row->kv_bytes = kv_bytes(engine, model_source_config(source), engine->plan.n_pages) / (uint64_t)engine->plan.ranks.n;
    return check(engine);
}

/* The target is there. */
static void take_target(struct td_engine *engine)
{
    struct td_memory *row = &engine->memory[TARGET];
    row->model = engine->info.model_name; /* its source is gone */
    row->weight_bytes = engine->info.resident_weight_bytes;
    row->kv_bytes = engine->info.kv_bytes;
    row->scratch_bytes = engine->info.scratch_bytes; /* of this rank: the target may be one of several */
}

enum status engine_memory_plan_draft(struct td_engine *engine, const struct model_source *source, int32_t n_pages)
{
    struct td_memory *row = &engine->memory[DRAFT];
    take_target(engine);
    row->model = model_source_config(source)->name;
    row->weight_bytes = model_source_bytes(source);
    row->kv_bytes = kv_bytes(engine, model_source_config(source), n_pages);
    return check(engine);
}

enum status engine_memory_settle(struct td_engine *engine)
{
    struct td_memory *draft = &engine->memory[DRAFT];
    take_target(engine);
    engine->memory[TARGET].recorded_bytes = backend_recorded_bytes(engine->backend);
    if (engine->draft_backend != NULL) {
        draft->recorded_bytes = backend_recorded_bytes(engine->draft_backend);
    }
    if (engine->draft_model != NULL) {
        draft->model = model_get_config(engine->draft_model)->name;
        draft->weight_bytes = model_resident_bytes(engine->draft_model);
        draft->scratch_bytes = engine->info.draft_bytes - draft->weight_bytes - draft->kv_bytes;
    }
    return check(engine);
}

int td_engine_get_memory(const struct td_engine *engine, struct td_memory rows[2])
{
    memcpy(rows, engine->memory, sizeof engine->memory);
    return engine->draft_model != NULL ? 2 : 1;
}
