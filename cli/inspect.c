/* inspect: what a model file or folder holds: its keys, its tensors, where its bytes lie, what it
 * needs in memory, and what would hinder running it. No weight is read.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "model/model.h"
#include "scheduler/scheduler.h"

enum { MAX_TYPES = 64, MAX_ROWS = 2048, MAX_HINDRANCES = 8, SENTENCE_CAP = 1024, BAR_COLUMNS = 48,
       DEFAULT_CONTEXT = 4096 };

/* A layer, or a tensor that stands outside them, as one row of the picture. */
struct inspect_row {
    char name[48];
    uint64_t bytes;
    uint64_t by_type[MAX_TYPES];
    int32_t n_alike;                   /* layers in a row with the same bytes */
};
struct inspect {
    const char *model;
    struct model_source *source;
    char why_not[SENTENCE_CAP];        /* "": it runs */
    uint64_t weight_bytes, by_type[MAX_TYPES];
    int64_t n_by_type[MAX_TYPES], n_parameters;
    uint64_t kv_bytes_per_position;    /* at f16; 0 unknown */
    struct inspect_row *rows;          /* [n_rows] */
    int32_t n_rows;
    enum chat_format chat;             /* CHAT_NONE: why in chat_why */
    char chat_why[SENTENCE_CAP], no_text[SENTENCE_CAP]; /* no_text "": there is a tokenizer */
    char hindrance[MAX_HINDRANCES][SENTENCE_CAP];
    int n_hindrances;
};

static const char *type_name(uint32_t number, char text[24])
{
    const struct tensor_type_info *type = tensor_type_info(number);
    snprintf(text, 24, "type %u", number);
    return type ? type->name : text;
}

/* ---- what there is ---- */

/* "layer 3" for blk.3.attn_q.weight, the name itself for what exists once. */
static void row_name(const char *tensor, char name[48])
{
    int layer, n = 0;
    if (sscanf(tensor, "blk.%9d.%n", &layer, &n) == 1 && n > 0) {
        snprintf(name, 48, "layer %d", layer);
    } else {
        snprintf(name, 48, "%.47s", tensor);
    }
}

static struct inspect_row *find_row(struct inspect *self, const char *name)
{
    for (int32_t i = self->n_rows - 1; i >= 0; i--) {
        if (strcmp(self->rows[i].name, name) == 0) {
            return &self->rows[i];
        }
    }
    struct inspect_row *row = &self->rows[self->n_rows < MAX_ROWS - 1 ? self->n_rows++ : MAX_ROWS - 1];
    snprintf(row->name, sizeof row->name, "%s", name);
    row->n_alike = 1;
    return row;
}

static enum status count_tensors(struct inspect *self)
{
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_tensor_info tensor;
        char name[48];
        TRY(model_source_tensor(self->source, i, &tensor));
        row_name(tensor.name, name);
        struct inspect_row *row = find_row(self, name);
        const uint32_t type = tensor.type < MAX_TYPES ? tensor.type : MAX_TYPES - 1;
        int64_t n = 1;
        for (int d = 0; d < tensor.n_dims; d++) {
            n *= tensor.dims[d];
        }
        row->bytes += tensor.bytes;
        row->by_type[type] += tensor.bytes;
        self->by_type[type] += tensor.bytes;
        self->n_by_type[type]++;
        self->weight_bytes += tensor.bytes;
        self->n_parameters += n;
    }
    return STATUS_OK;
}

/* Neighbouring layers of equal bytes in equal types become one row. */
static void join_rows(struct inspect *self)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < self->n_rows; i++) {
        struct inspect_row *last = kept > 0 ? &self->rows[kept - 1] : NULL, *row = &self->rows[i];
        const int both_layers = last && strncmp(last->name, "layer ", 6) == 0 &&
                                strncmp(row->name, "layer ", 6) == 0;
        if (both_layers && memcmp(last->by_type, row->by_type, sizeof row->by_type) == 0) {
            last->n_alike++;
        } else {
            self->rows[kept++] = *row;
        }
    }
    self->n_rows = kept;
}

/* ---- what would hinder ---- */

static char *add_hindrance(struct inspect *self)
{
    ASSERT(self->n_hindrances < MAX_HINDRANCES);
    return self->hindrance[self->n_hindrances++];
}

static void check_types(struct inspect *self)
{
    size_t at = 0;
    char list[SENTENCE_CAP / 2] = "";
    for (uint32_t type = 0; type < MAX_TYPES && at < sizeof list; type++) {
        const int to = self->n_by_type[type] > 0 ? tensor_type_convert_to(type) : -1;
        if (to >= 0) {
            const struct tensor_type_info *a = tensor_type_info(type), *b = tensor_type_info((uint32_t)to);
            const double bytes = (double)self->by_type[type] * a->block_elems / a->block_bytes *
                                 b->block_bytes / b->block_elems;
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%lld of type %s to %s, %.1f MB in memory",
                                   at > 0 ? "; " : "", (long long)self->n_by_type[type], a->name, b->name,
                                   bytes * 1e-6);
        }
    }
    if (list[0]) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "tensors converted when loaded: %s", list);
    }
}

static void check_text(struct inspect *self)
{
    struct tokenizer *tokenizer = NULL;
    if (!model_source_vocab(self->source) && !model_source_folder(self->source)) {
        snprintf(self->no_text, SENTENCE_CAP, "no vocabulary: ids go in and out, no text");
    } else if (text_open(self->source, &tokenizer) != STATUS_OK) {
        snprintf(self->no_text, SENTENCE_CAP, "no text, ids alone: %.900s", status_message());
    } else if (tokenizer_chat_format(tokenizer, NULL, &self->chat) != STATUS_OK) {
        snprintf(self->chat_why, SENTENCE_CAP, "%s", status_message());
    }
    if (self->no_text[0]) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "%s", self->no_text);
    }
    text_close(tokenizer);
}

static void check_memory(struct inspect *self)
{
    const struct model_config *config = model_source_config(self->source);
    const uint64_t available = mem_available_bytes(), kv = self->kv_bytes_per_position;
    const int64_t context = config->context_len < DEFAULT_CONTEXT ? config->context_len : DEFAULT_CONTEXT;
    if (available == 0) {
        return;
    }
    if (self->weight_bytes > available) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "memory: the weights take %.1f MB, %.1f MB are free",
                 (double)self->weight_bytes * 1e-6, (double)available * 1e-6);
    } else if (self->weight_bytes + kv * (uint64_t)context > available) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "memory: beside the weights there is room for a --context "
                 "of %llu, the default is %lld", (unsigned long long)((available - self->weight_bytes) / kv),
                 (long long)context);
    } else if (self->weight_bytes + kv * (uint64_t)config->context_len > available) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "memory: beside the weights there is room for %llu "
                 "positions, the model's context is %d",
                 (unsigned long long)((available - self->weight_bytes) / kv), config->context_len);
    }
}

static void find_hindrances(struct inspect *self)
{
    if (self->why_not[0]) {
        snprintf(add_hindrance(self), SENTENCE_CAP, "it cannot be run: %.990s", self->why_not);
    }
    check_types(self);
    check_text(self);
    if (!self->why_not[0]) {
        check_memory(self);
    }
}

/* ---- for people ---- */

static void print_key(void *user, const char *key, const char *value)
{
    (void)user;
    printf("  %-44s %s\n", key, value);
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

static char type_mark(const struct inspect *self, uint32_t type)
{
    static const char marks[] = "#=+*o%@x";
    uint32_t n_larger = 0; /* the type with the most bytes has the first mark */
    for (uint32_t i = 0; i < MAX_TYPES; i++) {
        n_larger += self->by_type[i] > self->by_type[type] || (self->by_type[i] == self->by_type[type] && i < type);
    }
    return marks[n_larger < sizeof marks - 2 ? n_larger : sizeof marks - 2];
}

static void print_types(const struct inspect *self)
{
    if (self->n_rows > 0) {
        puts("types:");
    }
    for (uint32_t i = 0; i < MAX_TYPES; i++) {
        char name[24];
        if (self->n_by_type[i] > 0) {
            printf("  %c %-8s %6lld tensors %12.3f MB %5.1f %%\n", type_mark(self, i), type_name(i, name),
                   (long long)self->n_by_type[i], (double)self->by_type[i] * 1e-6,
                   100 * (double)self->by_type[i] / (double)(self->weight_bytes ? self->weight_bytes : 1));
        }
    }
}

static void print_bar(const struct inspect *self, const struct inspect_row *row, uint64_t largest)
{
    char name[64], bar[BAR_COLUMNS + 1];
    uint64_t sum = 0;
    int at = 0;
    for (uint32_t i = 0; i < MAX_TYPES; i++) {
        sum += row->by_type[i];
        const int end = (int)((double)sum / (double)(largest ? largest : 1) * BAR_COLUMNS + 0.5);
        while (row->by_type[i] > 0 && at < end && at < BAR_COLUMNS) {
            bar[at++] = type_mark(self, i);
        }
    }
    bar[at] = '\0';
    snprintf(name, sizeof name, row->n_alike > 1 ? "%s and %d more" : "%s", row->name, row->n_alike - 1);
    printf("  %-28s %10.3f MB  %s\n", name, (double)row->bytes * 1e-6, bar);
}

static void print_picture(const struct inspect *self)
{
    uint64_t largest = 0, others = 0;
    for (int32_t i = 0; i < self->n_rows; i++) {
        largest = self->rows[i].bytes > largest ? self->rows[i].bytes : largest;
    }
    if (self->n_rows > 0) {
        puts("where the bytes are (each layer's in MB):");
    }
    for (int32_t i = 0; i < self->n_rows; i++) {
        const int is_layer = strncmp(self->rows[i].name, "layer ", 6) == 0;
        if (!is_layer && self->rows[i].bytes * 2 * BAR_COLUMNS < largest) { /* norms: an empty bar */
            others += self->rows[i].bytes;
        } else {
            print_bar(self, &self->rows[i], largest);
        }
    }
    if (others > 0) {
        printf("  %-28s %10.3f MB\n", "the rest", (double)others * 1e-6);
    }
}

static void print_text(const struct inspect *self)
{
    const struct model_vocab *vocab = model_source_vocab(self->source);
    const char *folder = model_source_folder(self->source);
    if (self->no_text[0]) {
        return; /* a note says why */
    }
    if (vocab) {
        printf("tokenizer: %s%s%s, %d tokens, %d merges%s\n", vocab->kind, vocab->pre[0] ? ", cut as " : "",
               vocab->pre, vocab->n_tokens, vocab->n_merges, vocab->chat_template.n_bytes ? "" : ", no chat template");
    } else if (folder) {
        printf("tokenizer: tokenizer.json in %s\n", folder);
    }
    if (self->chat != CHAT_NONE) {
        printf("chat format: %s\n", chat_format_name(self->chat));
    } else {
        printf("chat format: not known: %s\n", self->chat_why);
    }
}

static void print_hints(const struct inspect *self)
{
    char text[160];
    const struct model_hints from = model_source_hints(self->source);
    const struct td_hints hints = {(float)from.temperature, (float)from.top_p, (float)from.min_p,
                                   (float)from.repetition_penalty, from.top_k};
    if (hints_text(&hints, text, sizeof text) > 0) {
        printf("sampling advised: %s (used with --sampling model)\n", text);
    }
}

static void print_summary(const struct inspect *self)
{
    const struct model_config *config = model_source_config(self->source);
    const int millions = self->n_parameters < 100000000;
    printf("%s: %.3f MB, %lld tensors, %.3f %s parameters\n", self->model,
           (double)model_source_bytes(self->source) * 1e-6, (long long)model_source_n_tensors(self->source),
           (double)self->n_parameters * (millions ? 1e-6 : 1e-9), millions ? "million" : "billion");
    if (self->why_not[0]) {
        printf("cannot be run: %s\n", self->why_not);
        return;
    }
    printf("%s: %d layers, width %d, %d heads (%d kv) of %d, ffn %d, vocabulary %d, context %d\n",
           config->architecture, config->n_layers, config->dim, config->n_heads, config->n_kv_heads,
           config->head_dim, config->ffn_dim, config->n_vocab, config->context_len);
    if (config->experts.n > 0) {
        printf("experts: %d in a layer, of ffn %d; a token uses %d\n", config->experts.n, config->experts.ffn_dim,
               config->experts.n_used);
    }
    printf("memory: weights %.1f MB, KV %.1f KB a position at f16, %.1f MB for a context of %d\n",
           (double)self->weight_bytes * 1e-6, (double)self->kv_bytes_per_position * 1e-3,
           (double)self->kv_bytes_per_position * config->context_len * 1e-6, config->context_len);
}

static enum status inspect_print(const struct inspect *self)
{
    print_summary(self);
    print_text(self);
    print_hints(self);
    for (int i = self->why_not[0] ? 1 : 0; i < self->n_hindrances; i++) { /* the first has been said */
        printf("note: %s\n", self->hindrance[i]);
    }
    print_types(self);
    print_picture(self);
    puts("keys:");
    model_source_describe(self->source, print_key, NULL);
    puts("tensors:");
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_tensor_info tensor;
        TRY(model_source_tensor(self->source, i, &tensor));
        print_tensor(&tensor);
    }
    return output_flush();
}

/* ---- for programs ---- */

static void collect_key(void *user, const char *key, const char *value)
{
    json_object_set_new(user, key, json_string(value));
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

static json_t *types_json(const struct inspect *self)
{
    json_t *types = json_object();
    for (uint32_t i = 0; i < MAX_TYPES; i++) {
        char name[24];
        if (self->n_by_type[i] > 0) {
            json_object_set_new(types, type_name(i, name),
                                json_pack("{s:I,s:I}", "tensors", (json_int_t)self->n_by_type[i], "bytes",
                                          (json_int_t)self->by_type[i]));
        }
    }
    return types;
}

static json_t *tokenizer_json(const struct inspect *self)
{
    const struct model_vocab *vocab = model_source_vocab(self->source);
    const char *folder = model_source_folder(self->source);
    const char *chat = self->chat == CHAT_NONE ? NULL : chat_format_name(self->chat);
    if (vocab) {
        return json_pack("{s:s,s:s,s:i,s:i,s:b,s:s?}", "kind", vocab->kind, "pre", vocab->pre, "tokens",
                         vocab->n_tokens, "merges", vocab->n_merges, "chat_template",
                         vocab->chat_template.n_bytes > 0, "chat_format", chat);
    }
    return folder && !self->no_text[0] ? json_pack("{s:s,s:s,s:s?}", "kind", "tokenizer.json", "folder", folder,
                                                   "chat_format", chat)
                                       : NULL;
}

static enum status inspect_json(const struct inspect *self)
{
    json_t *keys = json_object(), *tensors = json_array(), *notes = json_array();
    model_source_describe(self->source, collect_key, keys);
    for (int64_t i = 0; i < model_source_n_tensors(self->source); i++) {
        struct model_tensor_info tensor;
        if (model_source_tensor(self->source, i, &tensor) == STATUS_OK) {
            json_array_append_new(tensors, tensor_json(&tensor));
        }
    }
    for (int i = 0; i < self->n_hindrances; i++) {
        json_array_append_new(notes, json_string(self->hindrance[i]));
    }
    const int runs = self->why_not[0] == '\0';
    return output_json(json_pack("{s:s,s:I,s:b,s:s?,s:I,s:I,s:I,s:o,s:o?,s:o,s:o,s:o}", "file", self->model,
                                 "bytes", (json_int_t)model_source_bytes(self->source), "runs", runs, "why_not",
                                 runs ? NULL : self->why_not, "parameters", (json_int_t)self->n_parameters,
                                 "weight_bytes", (json_int_t)self->weight_bytes, "kv_bytes_per_position",
                                 (json_int_t)self->kv_bytes_per_position, "types", types_json(self),
                                 "tokenizer", tokenizer_json(self), "notes", notes, "metadata", keys, "tensors",
                                 tensors));
}

static enum status inspect_all(const struct conf *conf, struct inspect *self)
{
    const struct model_config *config = model_source_config(self->source);
    if (model_source_check(self->source) != STATUS_OK) {
        snprintf(self->why_not, sizeof self->why_not, "%s", status_message());
    } else {
        self->kv_bytes_per_position = (uint64_t)config->n_layers * (uint64_t)config->n_kv_heads *
                                      (uint64_t)config->head_dim * 2 * 2;
    }
    TRY(count_tensors(self));
    join_rows(self);
    find_hindrances(self);
    return conf_flag(conf, OPT_JSON) ? inspect_json(self) : inspect_print(self);
}

enum status verb_inspect(const struct conf *conf)
{
    static struct inspect self; /* sentences, one */
    char path[PATH_CAP];
    self.model = conf->n_arguments > 0 ? conf->argument[0] : NULL;
    if (!self.model) {
        TRY(input_model(conf, path, &self.model));
    }
    TRY(model_source_open(self.model, &self.source));
    self.rows = mem_alloc(MAX_ROWS, sizeof *self.rows);
    const enum status status = self.rows ? inspect_all(conf, &self)
                                         : status_fail(STATUS_NO_MEMORY, "no memory for a table of layers");
    mem_free(self.rows);
    model_source_close(self.source);
    return status;
}
