/* inspect: what a model file holds: its keys, its tensors, and whether it can be run. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "model/model.h"

static void print_key(void *user, const char *key, const char *value)
{
    (void)user;
    printf("  %-44s %s\n", key, value);
}

static void collect_key(void *user, const char *key, const char *value)
{
    json_object_set_new(user, key, json_string(value));
}

static const char *type_name(uint32_t number, char text[24])
{
    const struct tensor_type_info *type = tensor_type_info(number);
    snprintf(text, 24, "type %u", number);
    return type ? type->name : text;
}

static void print_tensor(const struct model_tensor_info *tensor)
{
    char shape[96] = "", name[24];
    size_t at = 0;
    for (int i = 0; i < tensor->n_dims && at < sizeof shape; i++) {
        at += (size_t)snprintf(shape + at, sizeof shape - at, i ? " x %lld" : "%lld", (long long)tensor->dims[i]);
    }
    printf("  %-44s %-6s %-20s %.3f MB\n", tensor->name, type_name(tensor->type, name), shape,
           (double)tensor->bytes * 1e-6);
}

static json_t *tensor_json(const struct model_tensor_info *tensor)
{
    char name[24];
    json_t *dims = json_array();
    for (int i = 0; i < tensor->n_dims; i++) {
        json_array_append_new(dims, json_integer(tensor->dims[i]));
    }
    return json_pack("{s:s,s:s,s:o,s:I}", "name", tensor->name, "type", type_name(tensor->type, name), "shape",
                     dims, "bytes", (json_int_t)tensor->bytes);
}

static enum status inspect_json(const char *model, const struct model_source *source, const char *cannot)
{
    json_t *keys = json_object(), *tensors = json_array();
    model_source_describe(source, collect_key, keys);
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info tensor;
        if (model_source_tensor(source, i, &tensor) == STATUS_OK) {
            json_array_append_new(tensors, tensor_json(&tensor));
        }
    }
    return output_json(json_pack("{s:s,s:I,s:b,s:s?,s:o,s:o}", "file", model, "bytes",
                                 (json_int_t)model_source_bytes(source), "runs", cannot == NULL,
                                 "why_not", cannot, "metadata", keys, "tensors", tensors));
}

static enum status inspect_print(const char *model, const struct model_source *source, const char *cannot)
{
    const struct model_config *config = model_source_config(source);
    printf("%s: %.3f MB, %lld tensors\n", model, (double)model_source_bytes(source) * 1e-6,
           (long long)model_source_n_tensors(source));
    if (cannot) {
        printf("cannot be run: %s\n", cannot);
    } else {
        printf("%s: %d layers, width %d, %d heads (%d kv) of %d, ffn %d, vocabulary %d, context %d\n",
               config->architecture, config->n_layers, config->dim, config->n_heads, config->n_kv_heads,
               config->head_dim, config->ffn_dim, config->n_vocab, config->context_len);
    }
    puts("keys:");
    model_source_describe(source, print_key, NULL);
    puts("tensors:");
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info tensor;
        TRY(model_source_tensor(source, i, &tensor));
        print_tensor(&tensor);
    }
    return output_flush();
}

enum status verb_inspect(const struct conf *conf)
{
    char path[PATH_CAP], why[1024];
    const char *model = conf->n_arguments > 0 ? conf->argument[0] : NULL;
    struct model_source *source = NULL;
    if (!model) {
        TRY(input_model(conf, path, &model));
    }
    TRY(model_source_open(model, &source));
    const int runs = model_source_check(source) == STATUS_OK;
    snprintf(why, sizeof why, "%s", runs ? "" : status_message());
    const enum status status = conf_flag(conf, OPT_JSON) ? inspect_json(model, source, runs ? NULL : why)
                                                         : inspect_print(model, source, runs ? NULL : why);
    model_source_close(source);
    return status;
}
