/* synth: a model of random weights in a named shape, or a planted pair, described or written as a GGUF
 * file. Of a pair both sides are described, and the side asked for is written. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "model/model.h"

/* What is said of a model. */
struct synth_facts {
    const struct model_config *config;
    uint64_t n_weights, bytes, pass_bytes; /* a pass reads all but the embedding's rows it does not need */
};

static enum status synth_count(const struct model_source *source, struct synth_facts *facts)
{
    *facts = (struct synth_facts){ .config = model_source_config(source), .bytes = model_source_bytes(source) };
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info tensor;
        TRY(model_source_tensor(source, i, &tensor));
        uint64_t n = 1;
        for (int d = 0; d < tensor.n_dims; d++) {
            n *= (uint64_t)tensor.dims[d];
        }
        facts->n_weights += n;
        const bool rows = strcmp(tensor.name, "token_embd.weight") == 0 && !facts->config->tied_head;
        facts->pass_bytes += rows ? 0 : tensor.bytes;
    }
    return STATUS_OK;
}

static json_t *synth_json(const char *name, const struct synth_facts *facts)
{
    return json_pack("{s:s,s:I,s:I,s:i,s:i,s:i,s:i}", "name", name, "parameters",
                     (json_int_t)facts->n_weights, "bytes", (json_int_t)facts->bytes, "layers",
                     facts->config->n_layers, "width", facts->config->dim, "vocabulary",
                     facts->config->n_vocab, "context", facts->config->context_len);
}

static enum status synth_describe(const struct conf *conf, const char *name, const struct synth_facts *facts)
{
    const char *out = conf_text(conf, OPT_OUT);
    if (conf_flag(conf, OPT_JSON)) {
        json_t *object = synth_json(name, facts);
        if (object && json_object_set_new(object, "file", out ? json_string(out) : json_null()) != 0) {
            json_decref(object);
            object = NULL;
        }
        return output_json(object);
    }
    if (!out) {
        printf("%s: %.3f billion parameters, %.3f GB, %d layers, width %d, vocabulary %d, context %d\n", name,
               (double)facts->n_weights * 1e-9, (double)facts->bytes * 1e-9, facts->config->n_layers,
               facts->config->dim, facts->config->n_vocab, facts->config->context_len);
        say(conf, "--out FILE writes it; --target %s uses it without a file", name);
    }
    return output_flush();
}

/* ---- pairs ---- */

static void synth_say_side(const char *role, const char *shape, uint32_t type, const struct synth_facts *facts)
{
    printf("%s: %s %s, %.3f billion parameters, %.3f GB, %d layers, width %d, context %d; a pass reads %.4f GB",
           role, shape, tensor_type_info(type)->name, (double)facts->n_weights * 1e-9,
           (double)facts->bytes * 1e-9, facts->config->n_layers, facts->config->dim,
           facts->config->context_len, (double)facts->pass_bytes * 1e-9);
}

static json_t *synth_pair_json(const char *name, const struct model_pair *pair,
                               const struct synth_facts sides[2], const char *out)
{
    json_t *side_json[2];
    for (int i = 0; i < 2; i++) {
        char side[600];
        snprintf(side, sizeof side, "%s,role=%s", name, i == 0 ? "target" : "draft");
        side_json[i] = synth_json(side, &sides[i]);
        if (side_json[i] && json_object_set_new(side_json[i], "pass_bytes",
                                                json_integer((json_int_t)sides[i].pass_bytes)) != 0) {
            json_decref(side_json[i]);
            side_json[i] = NULL;
        }
    }
    return json_pack("{s:s,s:s,s:o,s:o,s:{s:f,s:f,s:f,s:i,s:I},s:s?}", "kind", "synthetic pair", "name", name,
                     "target", side_json[0], "draft", side_json[1], "planted", "agree", pair->agree, "tail",
                     pair->tail, "peak", pair->peak, "max_rank", pair->max_rank, "seed",
                     (json_int_t)pair->seed, "file", out);
}

static enum status synth_describe_sides(const struct conf *conf, const char *name, const struct model_pair *pair,
                                        const struct synth_facts sides[2])
{
    const char *out = conf_text(conf, OPT_OUT);
    if (conf_flag(conf, OPT_JSON)) {
        return output_json(synth_pair_json(name, pair, sides, out));
    }
    if (!out) {
        printf("synthetic pair, seed %llu: a text planted in embedding and head, %d ids on a single cycle\n",
               (unsigned long long)pair->seed, sides[0].config->n_vocab);
        synth_say_side("target", pair->target_shape, pair->target_type, &sides[0]);
        printf("\n");
        synth_say_side("draft", pair->draft_shape, pair->draft_type, &sides[1]);
        printf(", %.2f %% of the target's\n",
               100.0 * (double)sides[1].pass_bytes / (double)sides[0].pass_bytes);
        printf("planted: the draft agrees after %g of the ids; elsewhere the true token has a rank r > 1 with "
               "P(r > F) = F^-%g, at most %d; the top token has probability %g at temperature 1\n",
               pair->agree, pair->tail, pair->max_rank, pair->peak);
        say(conf, "--out FILE writes the side asked for (role=target, role=draft)");
        say(conf, "--target %s uses the target without a file, the name with ,role=draft is its draft", name);
    }
    return output_flush();
}

static enum status synth_describe_pair(const struct conf *conf, const char *name, const struct model_pair *pair)
{
    static const char *const ROLES[2] = { "target", "draft" };
    struct model_source *sources[2] = { NULL, NULL };
    struct synth_facts sides[2];
    enum status status = STATUS_OK;
    for (int i = 0; i < 2; i++) {
        char side[600];
        snprintf(side, sizeof side, "%s,role=%s", name, ROLES[i]); /* what stands later counts */
        TRY_GOTO(model_source_open(side, &sources[i]), out);
        TRY_GOTO(synth_count(sources[i], &sides[i]), out);
    }
    status = synth_describe_sides(conf, name, pair, sides);
out:
    model_source_close(sources[0]);
    model_source_close(sources[1]);
    return status;
}

/* The file is written beside its place and moved there: a device or a folder must not be moved over. */
static enum status synth_check_out(const char *out)
{
    struct stat info;
    if (out && stat(out, &info) == 0 && !S_ISREG(info.st_mode)) {
        return status_fail(STATUS_IO, "cannot write %s: it is there, and is no regular file", out);
    }
    return STATUS_OK;
}

enum status verb_synth(const struct conf *conf)
{
    static const char prefix[] = "synth:";
    char name[512];
    const char *given = conf->argument[0], *out = conf_text(conf, OPT_OUT);
    struct model_source *source = NULL;
    const int has_prefix = strncmp(given, prefix, sizeof prefix - 1) == 0;
    if (snprintf(name, sizeof name, "%s%s", has_prefix ? "" : prefix, given) >= (int)sizeof name) {
        return status_fail(STATUS_USAGE, "the name of a synthetic model is over %zu bytes", sizeof name);
    }
    TRY(synth_check_out(out));
    TRY(model_source_open(name, &source));
    enum status status = model_source_check(source);
    if (status == STATUS_OK && out) {
        struct progress progress;
        progress_init(&progress, conf, "writing");
        status = model_source_write_gguf(source, out, progress_show, &progress);
        progress_end(&progress);
    }
    if (status == STATUS_OK && model_source_pair(source)) {
        status = synth_describe_pair(conf, name, model_source_pair(source));
    } else if (status == STATUS_OK) {
        struct synth_facts facts;
        status = synth_count(source, &facts);
        status = status == STATUS_OK ? synth_describe(conf, name, &facts) : status;
    }
    model_source_close(source);
    return status;
}
