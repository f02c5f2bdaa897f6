/* rig: a model, a lane and one sequence's KV, with no engine around: what a pass alone costs. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

enum { RIG_PAGE_SLOTS = 64 };

enum status bench_rig_use_threads(struct bench_rig *rig, int n)
{
    if (n < 1 || n > rig->n_cpus) {
        return status_fail(STATUS_USAGE, "--threads %d: this process may use %d cores", n, rig->n_cpus);
    }
    if (rig->lane) {
        lane_destroy(rig->lane);
        rig->lane = NULL;
    }
    const struct lane_options options = {.cpus = rig->cpus, .n_workers = n, .caller_is_worker = true};
    TRY(lane_create(rig->backend, &options, &rig->lane));
    lane_pin_caller(rig->lane);
    rig->n_threads = n;
    return STATUS_OK;
}

static int32_t page_slots_of(const struct bench_rig_options *options)
{
    return options->page_slots ? options->page_slots : RIG_PAGE_SLOTS;
}

static int32_t n_pages_of(const struct bench_rig_options *options)
{
    return (options->context + page_slots_of(options) - 1) / page_slots_of(options);
}

/* This rank's part, and a target that runs passes on all. */
static enum status rig_load_rank(struct bench_rig *rig, const struct bench_rig_options *options,
                                 const struct model_load_options *load)
{
    struct rank_order order = { .context = options->context, .kv = (int32_t)options->kv,
                                .page_slots = page_slots_of(options), .n_pages = n_pages_of(options),
                                .cap_rows = options->cap_rows, .cap_logits = options->cap_logits, .cap_seqs = 1 };
    snprintf(order.model, sizeof order.model, "%s", options->target);
    snprintf(order.quant, sizeof order.quant, "%s", options->quant ? options->quant : "");
    ranks_lead(options->comm, &order);
    TRY(model_load(rig->source, rig->lane, load, &rig->model));
    rig->config = model_get_config(rig->model);
    const enum status status = model_target_create(&(struct model_target_options){
        .model = rig->model, .lane = rig->lane, .kv = options->kv, .page_slots = order.page_slots,
        .n_pages = order.n_pages, .cap_rows = options->cap_rows, .cap_logits = options->cap_logits }, &rig->target);
    return parallel_target_open(options->comm, &order, status, &rig->target);
}

static enum status rig_load(struct bench_rig *rig, const struct bench_rig_options *options)
{
    TRY(model_source_open_as(options->target, options->quant, &rig->source));
    TRY(model_source_check(rig->source));
    const int32_t model_context = model_source_config(rig->source)->context_len;
    if (options->context > model_context) {
        return status_fail(STATUS_INVALID, "%d positions are wanted, the model's context is %d",
                           options->context, model_context);
    }
    const struct model_load_options load = {
        .context = options->context, .mlock = options->mlock != 0, .budget_bytes = options->budget_bytes,
        .comm = options->comm, .progress = options->progress, .progress_user = options->progress_user,
    };
    if (options->comm) {
        return rig_load_rank(rig, options, &load);
    }
    TRY(model_load(rig->source, rig->lane, &load, &rig->model));
    rig->config = model_get_config(rig->model);
    return pass_buffers_create(rig->model, options->cap_rows, options->cap_logits, &rig->buffers);
}

/* Pages are handed out in order: one sequence, nothing shared. */
static enum status rig_take_kv(struct bench_rig *rig, const struct bench_rig_options *options)
{
    const int32_t page_slots = page_slots_of(options), n_pages = n_pages_of(options);
    rig->store = (struct kv_store){
        .type = options->kv, .n_layers = rig->config->n_layers, .n_kv_heads = rig->config->n_kv_heads,
        .head_dim = rig->config->head_dim, .page_slots = page_slots, .n_pages = n_pages,
    };
    if (!rig->target) {
        TRY(kv_store_init(rig->backend, &rig->store));
    }
    rig->pages = mem_alloc((size_t)n_pages, sizeof *rig->pages);
    rig->position = mem_alloc((size_t)options->cap_rows * 4, sizeof *rig->position);
    if (!rig->pages || !rig->position) {
        return status_fail(STATUS_NO_MEMORY, "no memory for lists of %d rows", options->cap_rows);
    }
    for (int32_t i = 0; i < n_pages; i++) {
        rig->pages[i] = (uint32_t)i;
    }
    rig->view = (struct kv_view){.pages = rig->pages, .n_pages = n_pages};
    rig->slot = rig->position + options->cap_rows;
    rig->seq_of_row = rig->slot + options->cap_rows;
    rig->logits_row = rig->seq_of_row + options->cap_rows;
    return STATUS_OK;
}

enum status bench_rig_init(struct bench_rig *rig, const struct bench_rig_options *options)
{
    memset(rig, 0, sizeof *rig);
    rig->cap_rows = options->cap_rows;
    rig->cap_logits = options->cap_logits;
    rig->context = options->context;
    machine_get();
    sched_getaffinity(0, sizeof rig->affinity, &rig->affinity);
    TRY(backend_create(options->device ? options->device : "cpu", options->isa, &rig->backend));
    TRY(backend_set_plan(rig->backend, options->plan));
    rig->n_cpus = backend_cpu_list(rig->cpus, RIG_MAX_CPUS, &rig->n_physical);
    const int shared = options->comm ? rig->n_physical / options->comm->sharing_size : rig->n_physical;
    TRY(bench_rig_use_threads(rig, options->threads ? options->threads : shared > 1 ? shared : 1));
    TRY(rig_load(rig, options));
    return rig_take_kv(rig, options);
}

void bench_rig_deinit(struct bench_rig *rig)
{
    target_destroy(rig->target);
    if (rig->buffers) {
        pass_buffers_destroy(rig->buffers);
    }
    if (rig->store.k) {
        kv_store_deinit(rig->backend, &rig->store);
    }
    if (rig->lane) {
        lane_destroy(rig->lane);
    }
    if (rig->model) {
        model_destroy(rig->model);
    }
    if (rig->source) {
        model_source_close(rig->source);
    }
    if (rig->backend) {
        backend_destroy(rig->backend);
    }
    if (CPU_COUNT(&rig->affinity) > 0) {
        sched_setaffinity(0, sizeof rig->affinity, &rig->affinity);
    }
    mem_free(rig->pages);
    mem_free(rig->position);
    memset(rig, 0, sizeof *rig);
}

int64_t bench_rig_pass(struct bench_rig *rig, const int32_t *token, int32_t first, int32_t n, int32_t n_logits)
{
    ASSERT(n <= rig->cap_rows && n_logits <= rig->cap_logits && n_logits <= n && first + n <= rig->context);
    for (int32_t i = 0; i < n; i++) {
        rig->position[i] = first + i;
        rig->slot[i] = first + i;
        rig->seq_of_row[i] = 0;
    }
    for (int32_t i = 0; i < n_logits; i++) {
        rig->logits_row[i] = n - n_logits + i;
    }
    const struct pass pass = {
        .n_rows = n, .n_seqs = 1, .n_logits = n_logits, .token = token, .position = rig->position,
        .slot = rig->slot, .seq_of_row = rig->seq_of_row, .views = &rig->view, .logits_row = rig->logits_row,
    };
    const int64_t begin = clock_now_ns();
    if (rig->target) {
        rig->target->kind->begin(rig->target, &(struct target_work){ .pass = &pass });
        rig->target->kind->end(rig->target, &rig->logits); /* on CPUs it does not fail */
    } else {
        lane_wait(rig->lane, model_forward(rig->model, rig->lane, &rig->store, &pass, rig->buffers));
        rig->logits = pass_buffers_logits(rig->buffers);
    }
    return clock_now_ns() - begin;
}
