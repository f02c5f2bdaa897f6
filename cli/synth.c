/* synth: a model of random weights in a named shape, described or written as a GGUF file. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "model/model.h"

static enum status synth_describe(const struct conf *conf, const char *name, const struct model_source *source)
{
    const struct model_config *config = model_source_config(source);
    uint64_t n_weights = 0;
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info tensor;
        TRY(model_source_tensor(source, i, &tensor));
        uint64_t n = 1;
        for (int d = 0; d < tensor.n_dims; d++) {
            n *= (uint64_t)tensor.dims[d];
        }
        n_weights += n;
    }
    const char *out = conf_text(conf, OPT_OUT);
    if (conf_flag(conf, OPT_JSON)) {
        return output_json(json_pack(
            "{s:s,s:I,s:I,s:i,s:i,s:i,s:i,s:s?}", "name", name, "parameters", (json_int_t)n_weights, "bytes",
            (json_int_t)model_source_bytes(source), "layers", config->n_layers, "width", config->dim,
            "vocabulary", config->n_vocab, "context", config->context_len, "file", out));
    }
    if (!out) {
        printf("%s: %.3f billion parameters, %.3f GB, %d layers, width %d, vocabulary %d, context %d\n", name,
               (double)n_weights * 1e-9, (double)model_source_bytes(source) * 1e-9, config->n_layers,
               config->dim, config->n_vocab, config->context_len);
        say(conf, "--out FILE writes it; --target %s uses it without a file", name);
    }
    return output_flush();
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
    if (status == STATUS_OK) {
        status = synth_describe(conf, name, source);
    }
    model_source_close(source);
    return status;
}
