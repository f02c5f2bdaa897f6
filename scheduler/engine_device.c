/* engine_device: see the header. */
#include "scheduler/engine_device.h"
#include "scheduler/engine_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CORES_PER_DRAFT_CORE = 8 }; /* where nobody says how many */

struct core_list { int cpus[ENGINE_MAX_THREADS]; int n; };

static bool core_list_has(const struct core_list *list, int cpu)
{
    for (int i = 0; i < list->n; i++) {
        if (list->cpus[i] == cpu) {
            return true;
        }
    }
    return false;
}

static void core_list_without(struct core_list *list, const struct core_list *taken)
{
    int n = 0;
    for (int i = 0; i < list->n; i++) {
        if (!core_list_has(taken, list->cpus[i])) {
            list->cpus[n++] = list->cpus[i];
        }
    }
    list->n = n;
}

/* ---- words ---- */
struct device_words {
    const char *whose, *text; /* "target", "cpu:0-3" */
    struct core_list cores;   /* named ones; none: they are chosen here */
    bool is_gpu;
};

static enum status add_core(struct device_words *device, const struct core_list *usable, long cpu)
{
    if (cpu > INT32_MAX || !core_list_has(usable, (int)cpu)) {
        return status_fail(STATUS_INVALID, "core %ld of the %s device is not one this process may use", cpu,
                           device->whose);
    }
    if (core_list_has(&device->cores, (int)cpu)) {
        return status_fail(STATUS_INVALID, "core %ld is named twice in the %s device", cpu, device->whose);
    }
    device->cores.cpus[device->cores.n++] = (int)cpu; /* no two the same, so no more than usable holds */
    return STATUS_OK;
}

static long parse_core(const char **at)
{
    char *end;
    if (**at < '0' || **at > '9') {
        return -1;
    }
    const long cpu = strtol(*at, &end, 10);
    *at = end;
    return cpu;
}

/* "0-3,6" */
static enum status parse_cores(struct device_words *device, const char *text, const struct core_list *usable)
{
    for (const char *at = text;; at++) {
        const long first = parse_core(&at);
        long last = first;
        if (first >= 0 && *at == '-') {
            at++;
            last = parse_core(&at);
        }
        if (first < 0 || last < first || (*at != ',' && *at != '\0')) {
            return status_fail(STATUS_INVALID, "expected a %s device like cpu:0-3, found '%s'", device->whose,
                               device->text);
        }
        for (long cpu = first; cpu <= last; cpu++) {
            TRY(add_core(device, usable, cpu));
        }
        if (*at == '\0') {
            return STATUS_OK;
        }
    }
}

static bool is_gpu_text(const char *text) { return text != NULL && strncmp(text, "cuda", 4) == 0; }

/* Of several GPUs, or of any, this rank's: processes that a launcher started take them in order of their places on
 * the machine. */
static enum status choose_own(const struct ranks_plan *ranks, const char **text, char own[DEVICE_KIND_CAP])
{
    struct device_list list;
    TRY(device_list_parse(*text, &list));
    list.n = ranks->n > 1 ? list.n : 0; /* else one process is to have one, and who opens it will say so */
    const bool is_any = *text != NULL && strcmp(*text, "cuda") == 0;
    if (list.n > 0 && ranks->local_idx >= list.n) {
        return status_fail(STATUS_INVALID, "'%s' names %d GPUs, and rank %d of this machine is to have one", *text, list.n,
                           ranks->local_idx);
    }
    if (list.n > 0 || is_any) {
        const int n_there = backend_n_cuda_devices();
        snprintf(own, DEVICE_KIND_CAP, "cuda:%d", list.n > 0 ? list.device[ranks->local_idx]
                                                  : ranks->local_idx % (n_there > 0 ? n_there : 1));
        *text = own;
    }
    return STATUS_OK;
}

/* NULL and "cpu" name no core. What follows "cuda:" is for the backend to read. */
static enum status parse_device(struct device_words *device, const struct core_list *usable, struct device_plan *plan)
{
    strcpy(plan->kind, "cpu");
    if (device->text == NULL || strcmp(device->text, "cpu") == 0) {
        return STATUS_OK;
    }
    if (strncmp(device->text, "cuda:", 5) == 0 && strlen(device->text) < sizeof plan->kind) {
        strcpy(plan->kind, device->text);
        device->is_gpu = true;
        return STATUS_OK;
    }
    if (strncmp(device->text, "cpu:", 4) != 0) {
        return status_fail(STATUS_UNSUPPORTED, "there is no device '%s' for the %s; there are: cpu, cpu:0-3, "
                           "cuda:0, cuda:0,1",
                           device->text, device->whose);
    }
    return parse_cores(device, device->text + 4, usable);
}

/* ---- cores ---- */
struct machine_cores { struct core_list usable, physical; };

static void find_cores(struct machine_cores *machine)
{
    int n_physical = 1;
    machine->usable.n = backend_cpu_list(machine->usable.cpus, ENGINE_MAX_THREADS, &n_physical);
    machine->physical = machine->usable; /* physical ones come first */
    machine->physical.n = n_physical < machine->usable.n ? n_physical : machine->usable.n;
}

/* A rank on a GPU drives it from one core; the first one samples and drafts on those that are left. */
static void leave_driving_cores(const struct ranks_plan *ranks, struct machine_cores *machine)
{
    const int n_others = ranks->n_sharing - 1, first = machine->physical.n - n_others;
    if (first < 1) {
        return; /* shared by all */
    }
    if (ranks->sharing_idx > 0) {
        machine->physical.cpus[0] = machine->physical.cpus[first + ranks->sharing_idx - 1];
    }
    machine->physical.n = ranks->sharing_idx > 0 ? 1 : first;
    machine->usable = machine->physical;
}

/* Ranks that may use the same cores take turns at them: each has as many, next to each other. */
static void leave_own_cores(const struct ranks_plan *ranks, struct machine_cores *machine)
{
    const int each = machine->physical.n / ranks->n_sharing, n = each > 0 ? each : 1;
    const int first = ranks->sharing_idx * each;
    for (int i = 0; i < n; i++) {
        machine->usable.cpus[i] = machine->physical.cpus[each > 0 ? first + i : ranks->sharing_idx % machine->physical.n];
    }
    machine->usable.n = n;
    machine->physical = machine->usable;
}

static void use_cores(struct device_plan *device, const struct core_list *list, int n_threads)
{
    device->n_threads = n_threads;
    device->n_pinned = n_threads <= list->n ? n_threads : 0;
    memcpy(device->cpus, list->cpus, (size_t)device->n_pinned * sizeof *device->cpus);
}

/* `all` but those taken; all, where nothing is left. */
static struct core_list what_is_left(const struct core_list *all, const struct core_list *taken)
{
    struct core_list left = *all;
    core_list_without(&left, taken);
    return left.n > 0 ? left : *all;
}

/* Nobody has named a core: the last physical ones are the draft's, few beside a target on them, most beside
 * one on a GPU. */
static void choose_draft_cores(const struct machine_cores *machine, bool target_is_gpu, struct core_list *draft)
{
    const struct core_list *physical = &machine->physical;
    const int few = (physical->n + CORES_PER_DRAFT_CORE - 1) / CORES_PER_DRAFT_CORE;
    const int wanted = target_is_gpu && physical->n > few ? physical->n - few : few;
    draft->n = physical->n > wanted ? wanted : 0;
    for (int i = 0; i < draft->n; i++) {
        draft->cpus[i] = physical->cpus[physical->n - draft->n + i];
    }
}

static enum status plan_target(const struct td_engine_options *options, const struct machine_cores *machine,
                               const struct device_words *target, const struct device_words *draft,
                               struct device_plan *plan)
{
    const int threads = options->threads;
    if (target->cores.n > 0) {
        if (threads > target->cores.n) {
            return status_fail(STATUS_INVALID, "%d threads do not fit on the %d cores of '%s'", threads,
                               target->cores.n, target->text);
        }
        use_cores(plan, &target->cores, threads > 0 ? threads : target->cores.n);
        return STATUS_OK;
    }
    const struct core_list left = what_is_left(&machine->usable, &draft->cores);
    const struct core_list by_default = what_is_left(&machine->physical, &draft->cores);
    use_cores(plan, threads > left.n ? &machine->usable : &left, threads > 0 ? threads : by_default.n);
    return STATUS_OK;
}

static void plan_draft(const struct machine_cores *machine, const struct device_words *draft,
                       const struct device_plan *target, struct device_plan *plan)
{
    struct core_list cores = draft->cores;
    if (draft->is_gpu) {
        plan->n_threads = 1; /* not pinned: it chooses tokens, which is little */
        return;
    }
    if (cores.n == 0) {
        struct core_list taken = { .n = target->n_pinned };
        memcpy(taken.cpus, target->cpus, (size_t)target->n_pinned * sizeof *target->cpus);
        cores = what_is_left(&machine->physical, &taken);
    }
    use_cores(plan, &cores, cores.n);
}

/* A core that serves both would help itself. */
static bool are_apart(const struct device_plan *a, const struct device_plan *b)
{
    for (int i = 0; i < a->n_pinned; i++) {
        for (int j = 0; j < b->n_pinned; j++) {
            if (a->cpus[i] == b->cpus[j]) {
                return false;
            }
        }
    }
    return a->n_pinned > 0 && b->n_pinned > 0;
}

enum status engine_device_plan(const struct td_engine_options *options, struct engine_plan *plan)
{
    struct machine_cores machine = { .usable = { .n = 0 } };
    struct device_words target = { .whose = "target", .text = options->target_device };
    struct device_words draft = { .whose = "draft", .text = options->draft_device };
    const bool has_draft = options->draft_device != NULL || plan->drafts_ahead;
    find_cores(&machine);
    if (plan->ranks.n_sharing > 1 && is_gpu_text(target.text)) {
        leave_driving_cores(&plan->ranks, &machine);
    } else if (plan->ranks.n_sharing > 1) {
        leave_own_cores(&plan->ranks, &machine);
    }
    char own[DEVICE_KIND_CAP];
    TRY(choose_own(&plan->ranks, &target.text, own));
    TRY(parse_device(&target, &machine.usable, &plan->target));
    if (has_draft && options->draft_device == NULL) { /* a lane of its own where the target is */
        draft.is_gpu = target.is_gpu;
        strcpy(plan->draft.kind, plan->target.kind);
    } else {
        TRY(parse_device(&draft, &machine.usable, &plan->draft));
    }
    if (has_draft && !draft.is_gpu && target.cores.n == 0 && draft.cores.n == 0) {
        choose_draft_cores(&machine, target.is_gpu, &draft.cores);
    }
    TRY(plan_target(options, &machine, &target, &draft, &plan->target));
    if (has_draft) {
        plan_draft(&machine, &draft, &plan->target, &plan->draft);
    }
    plan->lends = options->lend && are_apart(&plan->target, &plan->draft);
    return STATUS_OK;
}

/* ---- lanes ---- */
static enum status open_lane(struct backend *backend, const struct device_plan *device,
                             struct lane_options options, struct lane **out)
{
    options.cpus = device->n_pinned > 0 ? device->cpus : NULL;
    options.n_workers = device->n_threads;
    return lane_create(backend, &options, out);
}

enum status engine_device_open(struct td_engine *engine, const struct td_engine_options *options)
{
    const struct engine_plan *plan = &engine->plan;
    TRY(backend_create(plan->target.kind, options->isa, &engine->backend));
    TRY(backend_set_plan(engine->backend, plan->numeric));
    TRY(open_lane(engine->backend, &plan->target, (struct lane_options){ .caller_is_worker = true }, &engine->lane));
    if (plan->draft.n_threads == 0) {
        return STATUS_OK;
    }
    if (strcmp(plan->draft.kind, plan->target.kind) != 0) {
        TRY(backend_create(plan->draft.kind, options->isa, &engine->draft_backend));
        TRY(backend_set_plan(engine->draft_backend,
                             backend_is_host(engine->draft_backend) ? PLAN_EXACT : plan->numeric));
    }
    /* The step thread sits on a core of the target, so a draft without a thread of its own leaves its
     * lane's work to the lane's workers. */
    TRY(open_lane(engine->draft_backend != NULL ? engine->draft_backend : engine->backend, &plan->draft,
                  (struct lane_options){ .caller_is_worker = plan->drafts_ahead }, &engine->draft_lane));
    if (plan->lends) {
        lane_lend(engine->draft_lane, engine->lane);
        lane_lend(engine->lane, engine->draft_lane);
    }
    return STATUS_OK;
}

void engine_device_close(struct td_engine *engine)
{
    lane_stop(engine->draft_lane); /* both before either goes: they look at each other */
    lane_stop(engine->lane);
    lane_destroy(engine->draft_lane);
    lane_destroy(engine->lane);
    backend_destroy(engine->draft_backend);
    backend_destroy(engine->backend);
}
