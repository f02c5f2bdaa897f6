/* doctor: what this machine is, what it can do, how fast a model could be here, and what holds it
 * back. Roofs are measured for half a second each; a prediction is arithmetic on them.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/cli.h"

/* Speed reached against the roof, as bench measures it; what a prediction counts on. */
static const double DECODE_PART = 0.85, PREFILL_PART = 0.55, ROOF_SECONDS = 0.4;

struct rates { int threads; double read, integer, fp32; }; /* bytes/s, MAC/s, FMA/s */
struct doctor {
    const struct machine *machine;
    struct backend *backend;
    int cpus[RIG_MAX_CPUS];
    int n_rates;
    struct rates rates[2];   /* one thread, all */
    const char *model;
    struct model_source *source;
    double weight_bytes;     /* of the model that passes read; 0 without one */
    double token_bytes, body_macs; /* of one token: not of experts it does not use */
    int quantised;           /* its layers are computed in integers */
    char isas[64];
};

static void doctor_isas(struct doctor *doctor)
{
    size_t at = 0;
    for (int i = 0; i < ISA_COUNT; i++) {
        struct backend *backend = NULL;
        if (backend_create("cpu", isa_name((enum isa)i), &backend) == STATUS_OK) {
            backend_destroy(backend);
            at += (size_t)snprintf(doctor->isas + at, sizeof doctor->isas - at, "%s%s", at ? " " : "",
                                   isa_name((enum isa)i));
        }
    }
}

static enum status doctor_measure(const struct conf *conf, struct doctor *doctor)
{
    int n_physical = 0;
    TRY(backend_create("cpu", conf_text(conf, OPT_ISA), &doctor->backend));
    const int n_cpus = backend_cpu_list(doctor->cpus, RIG_MAX_CPUS, &n_physical);
    const int wanted = conf_is_set(conf, OPT_THREADS) ? (int)conf_int(conf, OPT_THREADS) : n_physical;
    if (wanted > n_cpus) {
        return status_fail(STATUS_USAGE, "--threads %d: this process may use %d cores", wanted, n_cpus);
    }
    doctor->n_rates = wanted > 1 ? 2 : 1;
    for (int i = 0; i < doctor->n_rates; i++) {
        struct rates *rates = &doctor->rates[i];
        rates->threads = i == 0 ? 1 : wanted;
        const struct roof_options options = {.cpus = doctor->cpus, .n_threads = rates->threads,
                                             .seconds = ROOF_SECONDS};
        rates->read = roof_read_bandwidth(doctor->backend, &options);
        rates->integer = roof_integer_peak(doctor->backend, &options);
        rates->fp32 = roof_float_peak(doctor->backend, &options);
    }
    return STATUS_OK;
}

/* What a pass reads and computes: every tensor, but the embedding when the head is another. */
static enum status doctor_model(const struct conf *conf, struct doctor *doctor, char path[PATH_CAP])
{
    if (input_model(conf, path, &doctor->model) != STATUS_OK) {
        doctor->model = NULL;
        return STATUS_OK; /* nothing was asked for, and nothing came with the program */
    }
    TRY(model_source_open(doctor->model, &doctor->source));
    TRY(model_source_check(doctor->source));
    const struct model_config *config = model_source_config(doctor->source);
    for (int64_t i = 0; i < model_source_n_tensors(doctor->source); i++) {
        struct model_tensor_info tensor;
        TRY(model_source_tensor(doctor->source, i, &tensor));
        const int embedding = strcmp(tensor.name, "token_embd.weight") == 0;
        const double bytes = embedding && !config->tied_head ? 0 : (double)tensor.bytes;
        const double used = tensor.n_dims == 3 ? config->experts.n_used : 1; /* of matrices stacked */
        doctor->weight_bytes += bytes;
        doctor->token_bytes += tensor.n_dims == 3 ? bytes * used / (double)tensor.dims[2] : bytes;
        if (tensor.n_dims >= 2 && !embedding && strcmp(tensor.name, "output.weight") != 0) {
            doctor->body_macs += (double)tensor.dims[0] * (double)tensor.dims[1] * used;
            doctor->quantised = backend_act_kind((enum tensor_type)tensor.type) == ACT_Q8;
        }
    }
    return STATUS_OK;
}

static double predicted_decode(const struct doctor *doctor, const struct rates *rates)
{
    return DECODE_PART * rates->read / doctor->token_bytes;
}

static double predicted_prefill(const struct doctor *doctor, const struct rates *rates)
{
    return PREFILL_PART * (doctor->quantised ? rates->integer : rates->fp32) / doctor->body_macs;
}

/* The sentence for people: which roof is in the way of the next token. */
static void what_holds_back(const struct doctor *doctor, char *text, size_t cap)
{
    const struct rates *all = &doctor->rates[doctor->n_rates - 1];
    const struct machine *machine = doctor->machine;
    if (doctor->weight_bytes > (double)machine->available_bytes) {
        snprintf(text, cap, "memory: the weights take %.1f GB and %.1f GB are free", doctor->weight_bytes * 1e-9,
                 (double)machine->available_bytes * 1e-9);
    } else if (doctor->weight_bytes < 0.8 * (double)machine->l3_bytes) {
        snprintf(text, cap, "little: the weights (%.1f MB) fit in the last-level cache, so it will run faster "
                 "than predicted from memory", doctor->weight_bytes * 1e-6);
    } else if (doctor->n_rates == 2 && all->read < 1.3 * doctor->rates[0].read) {
        snprintf(text, cap, "memory bandwidth: one thread reads %.0f of the %.0f GB/s that %d read; more cores "
                 "help prompts and batches, not a single stream", doctor->rates[0].read * 1e-9, all->read * 1e-9,
                 all->threads);
    } else {
        snprintf(text, cap, "memory bandwidth: each token reads %.2f GB, and %d thread%s read %.0f GB/s",
                 doctor->token_bytes * 1e-9, all->threads, all->threads == 1 ? "" : "s", all->read * 1e-9);
    }
}

static void doctor_print(const struct doctor *doctor)
{
    const struct machine *machine = doctor->machine;
    char text[256];
    printf("processor    %s\n", machine->cpu);
    printf("cores        %d physical, %d usable, %d memory node%s\n", machine->n_physical, machine->n_cpus,
           machine->n_nodes, machine->n_nodes == 1 ? "" : "s");
    printf("caches       L1 %lld KiB, L2 %lld KiB, L3 %lld KiB\n", (long long)machine->l1d_bytes >> 10,
           (long long)machine->l2_bytes >> 10, (long long)machine->l3_bytes >> 10);
    printf("memory       %.1f GB, %.1f GB free\n", (double)machine->memory_bytes * 1e-9,
           (double)machine->available_bytes * 1e-9);
    printf("sets         %s (in use: %s)\n", doctor->isas, isa_name(backend_isa(doctor->backend)));
    devices_print();
    printf("\n");
    printf("threads      read GB/s   int8 GMAC/s   fp32 GFMA/s\n");
    for (int i = 0; i < doctor->n_rates; i++) {
        const struct rates *r = &doctor->rates[i];
        printf("%7d    %11.1f %13.1f %13.1f\n", r->threads, r->read * 1e-9, r->integer * 1e-9, r->fp32 * 1e-9);
    }
    if (!doctor->model) {
        return;
    }
    printf("\n%s: a token reads %.3f GB\n", doctor->model, doctor->token_bytes * 1e-9);
    for (int i = 0; i < doctor->n_rates; i++) {
        const struct rates *r = &doctor->rates[i];
        printf("  %d thread%s  about %.1f tok/s decoding, %.0f tok/s on a prompt\n", r->threads,
               r->threads == 1 ? ": " : "s:", predicted_decode(doctor, r), predicted_prefill(doctor, r));
    }
    what_holds_back(doctor, text, sizeof text);
    printf("  held back by %s\n", text);
    const struct model_config *config = model_source_config(doctor->source);
    memory_print_plan(config, model_source_bytes(doctor->source), config->context_len < 4096 ? config->context_len : 4096);
}

static json_t *rates_json(const struct doctor *doctor)
{
    json_t *array = json_array();
    for (int i = 0; array && i < doctor->n_rates; i++) {
        const struct rates *r = &doctor->rates[i];
        json_t *object = json_pack("{s:i,s:f,s:f,s:f}", "threads", r->threads, "gb_per_s", r->read * 1e-9,
                                   "gmac_per_s", r->integer * 1e-9, "gfma_per_s", r->fp32 * 1e-9);
        if (object && doctor->model) {
            json_object_set_new(object, "decode_tok_per_s", json_real(predicted_decode(doctor, r)));
            json_object_set_new(object, "prefill_tok_per_s", json_real(predicted_prefill(doctor, r)));
        }
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *doctor_json(const struct doctor *doctor)
{
    const struct machine *m = doctor->machine;
    char text[256] = "";
    if (doctor->model) {
        what_holds_back(doctor, text, sizeof text);
    }
    return json_pack("{s:s,s:i,s:i,s:i,s:{s:I,s:I,s:I},s:{s:I,s:I},s:s,s:s,s:o,s:s?,s:f,s:f,s:s?}", "processor",
                     m->cpu, "physical_cores", m->n_physical, "usable_cpus", m->n_cpus, "memory_nodes",
                     m->n_nodes, "cache_bytes", "l1d", (json_int_t)m->l1d_bytes, "l2", (json_int_t)m->l2_bytes,
                     "l3", (json_int_t)m->l3_bytes, "memory_bytes", "total", (json_int_t)m->memory_bytes,
                     "free", (json_int_t)m->available_bytes, "instruction_sets", doctor->isas, "isa",
                     isa_name(backend_isa(doctor->backend)), "roofs", rates_json(doctor), "model",
                     doctor->model, "weight_bytes", doctor->weight_bytes, "token_bytes", doctor->token_bytes, "held_back_by",
                     doctor->model ? text : NULL);
}

static enum status doctor_say(const struct conf *conf, const struct doctor *doctor, const char *path)
{
    const int json = conf_flag(conf, OPT_JSON);
    json_t *object = json ? doctor_json(doctor) : NULL;
    enum status status = STATUS_OK;
    if (!json) {
        doctor_print(doctor);
        TRY(output_flush());
    }
    if (conf_is_set(conf, OPT_DRAFT)) {
        status = doctor_pair(conf, path, object);
    }
    if (status == STATUS_OK && json) {
        return output_json(object);
    }
    json_decref(object);
    return status;
}

enum status verb_doctor(const struct conf *conf)
{
    struct doctor doctor = {0};
    char path[PATH_CAP];
    enum status status;
    doctor.machine = machine_get();
    doctor_isas(&doctor);
    TRY_GOTO(doctor_model(conf, &doctor, path), out);
    TRY_GOTO(doctor_measure(conf, &doctor), out);
    status = doctor_say(conf, &doctor, path);
out:
    if (doctor.source) {
        model_source_close(doctor.source);
    }
    if (doctor.backend) {
        backend_destroy(doctor.backend);
    }
    return status;
}
