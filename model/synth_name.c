/* synth_name: from a name to a shape, a type and a seed; and to both sides of a pair.
 *
 *     synth:SHAPE[,TYPE][,seed=N][,layers=N][,vocab=N][,context=N]
 *     synth:pair=SHAPE[,TYPE][,draft=SHAPE][,draft-type=TYPE][,draft-layers=N][,agree=X][,tail=X]
 *          [,peak=X][,role=target|draft][,seed=N][,layers=N][,vocab=N][,context=N]
 *
 * What stands later in a name counts, so that ",role=draft" appended to a pair's name names its draft.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "model/gguf.h"
#include "model/synth.h"

enum { OPTION_CAP = 64 };

static const struct synth_shape SHAPES[] = {
    { "llama-1b", "llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 500000.0, 32.0, 1e-5f, true, { 0 } },
    { "llama-8b", "llama", 4096, 32, 32, 8, 128, 14336, 128256, 131072, 500000.0, 8.0, 1e-5f, false, { 0 } },
    { "llama-70b", "llama", 8192, 80, 64, 8, 128, 28672, 128256, 131072, 500000.0, 8.0, 1e-5f, false, { 0 } },
    { "qwen3-8b", "qwen3", 4096, 36, 32, 8, 128, 12288, 151936, 40960, 1e6, 0.0, 1e-6f, false, { 0 } },
    { "qwen3-moe-30b", "qwen3moe", 2048, 48, 32, 4, 128, 6144, 151936, 40960, 1e6, 0.0, 1e-6f, false,
      { 128, 8, 768 } },
    { "smol-135m", "llama", 576, 30, 9, 3, 64, 1536, 49152, 8192, 100000.0, 0.0, 1e-5f, true, { 0 } },
    /* a draft for vocabularies of this size: nearly all of it is embedding and head */
    { "smol-30m", "llama", 256, 4, 4, 2, 64, 512, 128256, 8192, 100000.0, 0.0, 1e-5f, true, { 0 } },
    { "tiny", "llama", 128, 2, 4, 2, 32, 352, 512, 4096, 10000.0, 0.0, 1e-5f, false, { 0 } },
    /* for blocks of 256 */
    { "tiny-256", "llama", 256, 2, 4, 2, 64, 768, 512, 4096, 10000.0, 0.0, 1e-5f, false, { 0 } },
    { "tiny-moe", "qwen3moe", 128, 2, 4, 2, 32, 352, 512, 4096, 10000.0, 0.0, 1e-6f, false, { 8, 2, 64 } },
};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0] };

static const enum tensor_type TYPES[] = { TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0,
                                          TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K };
enum { N_TYPES = sizeof TYPES / sizeof TYPES[0] };

/* A name being read: adjusted settings are 0 until they are given. */
struct reading {
    struct synth_spec *spec;
    struct synth_shape draft;
    enum tensor_type draft_type;
    int32_t layers, draft_layers, vocab, context;
};

static enum status refuse_word(const char *what, const char *word, const char *const *words, int n)
{
    char list[256] = "", shown[OPTION_CAP];
    for (int i = 0; i < n; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    gguf_copy_text((struct model_text){ word, (uint32_t)strlen(word) }, shown, sizeof shown);
    return status_fail(STATUS_INVALID, "synth: unknown %s '%s'; did you mean %s? There are: %s", what,
                       shown, conf_nearest(word, words, n), list);
}

static enum status parse_number(const char *key, const char *text, uint64_t min, uint64_t max,
                                uint64_t *value)
{
    char *end;
    errno = 0;
    const unsigned long long parsed = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || parsed < min || parsed > max) {
        return status_fail(STATUS_INVALID, "synth: %s: expected a whole number from %llu to %llu, found '%s'",
                           key, (unsigned long long)min, (unsigned long long)max, text);
    }
    *value = parsed;
    return STATUS_OK;
}

/* Digits with at most one point: no locale, no exponent, no "nan". */
static enum status parse_decimal(const char *key, const char *text, double min, double max, double *value)
{
    double parsed = 0, unit = 1;
    const char *at = text;
    int n_digits = 0, n_points = 0;
    for (; (*at >= '0' && *at <= '9') || (*at == '.' && n_points == 0); at++) {
        if (*at == '.') {
            n_points++;
            continue;
        }
        parsed = parsed * 10 + (*at - '0');
        unit *= n_points ? 10 : 1;
        n_digits++;
    }
    parsed /= unit; /* both exact up to 15 digits */
    if (*at != '\0' || n_digits == 0 || n_digits > 15 || !(parsed >= min && parsed <= max)) {
        return status_fail(STATUS_INVALID, "synth: %s: expected a number from %g to %g, found '%s'", key,
                           min, max, text);
    }
    *value = parsed;
    return STATUS_OK;
}

static enum status parse_shape(const char *text, struct synth_shape *shape)
{
    const char *names[N_SHAPES];
    for (int i = 0; i < N_SHAPES; i++) {
        names[i] = SHAPES[i].name;
        if (strcmp(text, names[i]) == 0) {
            *shape = SHAPES[i];
            return STATUS_OK;
        }
    }
    return refuse_word("model", text, names, N_SHAPES);
}

static enum status parse_type(const char *text, enum tensor_type *type)
{
    static const char *const TYPE_NAMES[] = { "f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k" };
    const struct tensor_type_info *info = tensor_type_by_name(text);
    for (int i = 0; info && i < N_TYPES; i++) {
        if (info->number == (uint32_t)TYPES[i]) {
            *type = TYPES[i];
            return STATUS_OK;
        }
    }
    return refuse_word("type", text, TYPE_NAMES, N_TYPES);
}

static enum status parse_role(const char *text, enum model_pair_role *role)
{
    static const char *const ROLES[] = { "target", "draft" };
    for (int i = 0; i < 2; i++) {
        if (strcmp(text, ROLES[i]) == 0) {
            *role = i == 0 ? MODEL_PAIR_TARGET : MODEL_PAIR_DRAFT;
            return STATUS_OK;
        }
    }
    return refuse_word("role", text, ROLES, 2);
}

static enum status parse_int(const char *key, const char *text, int32_t min, int32_t max, int32_t *value)
{
    uint64_t parsed;
    TRY(parse_number(key, text, (uint64_t)min, (uint64_t)max, &parsed));
    *value = (int32_t)parsed;
    return STATUS_OK;
}

enum { N_KEYS = 4, N_PAIR_KEYS = 11 };
static const char *const KEYS[N_PAIR_KEYS] = { "seed", "layers", "vocab", "context", "draft", "draft-type",
                                               "draft-layers", "agree", "tail", "peak", "role" };

static enum status parse_setting(struct reading *reading, const char *key, const char *value)
{
    struct model_pair *pair = &reading->spec->pair;
    int which = 0;
    const int n_keys = reading->spec->is_pair ? N_PAIR_KEYS : N_KEYS;
    while (which < n_keys && strcmp(key, KEYS[which]) != 0) {
        which++;
    }
    switch (which < n_keys ? which : -1) {
    case 0: return parse_number(key, value, 0, UINT64_MAX, &reading->spec->seed);
    case 1: return parse_int(key, value, 1, 1024, &reading->layers);
    case 2: return parse_int(key, value, 2, 1 << 22, &reading->vocab);
    case 3: return parse_int(key, value, 1, 1 << 24, &reading->context);
    case 4: return parse_shape(value, &reading->draft);
    case 5: return parse_type(value, &reading->draft_type);
    case 6: return parse_int(key, value, 1, 1024, &reading->draft_layers);
    case 7: return parse_decimal(key, value, 0, 1, &pair->agree);
    case 8: return parse_decimal(key, value, 0.05, 20, &pair->tail);
    case 9: return parse_decimal(key, value, 0.5, 0.999, &pair->peak);
    case 10: return parse_role(value, &pair->role);
    default: return refuse_word("option", key, KEYS, n_keys);
    }
}

/* Copies the next part, up to a comma, and moves *at behind it. */
static enum status next_part(const char **at, char *part)
{
    const size_t n = strcspn(*at, ",");
    if (n >= OPTION_CAP) {
        return status_fail(STATUS_INVALID, "synth: a part of the name has %zu characters, expected at most %d",
                           n, OPTION_CAP - 1);
    }
    memcpy(part, *at, n);
    part[n] = '\0';
    *at += n;
    *at += **at == ',' ? 1 : 0;
    return STATUS_OK;
}

/* Settings are of the target; the draft has its vocabulary and, as far as it goes, its context. */
static void adjust_shapes(struct reading *reading)
{
    struct synth_spec *spec = reading->spec;
    spec->shape.n_layers = reading->layers > 0 ? reading->layers : spec->shape.n_layers;
    spec->shape.n_vocab = reading->vocab > 0 ? reading->vocab : spec->shape.n_vocab;
    spec->shape.context = reading->context > 0 ? reading->context : spec->shape.context;
    if (!spec->is_pair) {
        return;
    }
    struct synth_shape *draft = &reading->draft;
    draft->n_layers = reading->draft_layers > 0 ? reading->draft_layers : draft->n_layers;
    draft->n_vocab = spec->shape.n_vocab;
    draft->context = spec->shape.context;
    spec->pair.target_shape = spec->shape.name;
    spec->pair.draft_shape = draft->name;
    spec->pair.target_type = (uint32_t)spec->type;
    spec->pair.draft_type = (uint32_t)reading->draft_type;
    spec->pair.seed = spec->seed;
    if (spec->pair.role == MODEL_PAIR_DRAFT) {
        spec->shape = *draft;
        spec->type = reading->draft_type;
    }
    spec->shape.tied = false; /* a head row is the code of the token before, not its own */
}

enum status synth_name_parse(const char *name, struct synth_spec *spec)
{
    static const char synth[] = "synth:", pair[] = "pair=";
    const char *at = name + sizeof synth - 1;
    char part[OPTION_CAP];
    struct reading reading = { .spec = spec, .draft_type = TENSOR_Q4_0 };
    *spec = (struct synth_spec){ .type = TENSOR_Q8_0, .seed = 1,
                                 .pair = { .agree = 0.8, .tail = 1.0, .peak = 0.9,
                                           .role = MODEL_PAIR_TARGET, .max_rank = MODEL_PAIR_MAX_RANK } };
    TRY(next_part(&at, part));
    spec->is_pair = strncmp(part, pair, sizeof pair - 1) == 0;
    TRY(parse_shape(part + (spec->is_pair ? sizeof pair - 1 : 0), &spec->shape));
    TRY(parse_shape("smol-30m", &reading.draft));
    while (*at) {
        TRY(next_part(&at, part));
        char *equals = strchr(part, '=');
        if (!equals) {
            TRY(parse_type(part, &spec->type));
            continue;
        }
        *equals = '\0';
        TRY(parse_setting(&reading, part, equals + 1));
    }
    adjust_shapes(&reading);
    return STATUS_OK;
}
