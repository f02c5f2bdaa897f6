/* hints: see the header. A value below 0 is one that is not said: no setting has such values but top-k,
 * where it means what 0 means. */
#include "model/hints.h"

#include <stddef.h>

const struct model_hints HINTS_NONE = { -1, -1, -1, -1, -1 };

static const char TOP_K[] = "general.sampling.top_k";
static const struct { const char *name; size_t offset; } FLOATS[] = {
    { "general.sampling.temp", offsetof(struct model_hints, temperature) },
    { "general.sampling.top_p", offsetof(struct model_hints, top_p) },
    { "general.sampling.min_p", offsetof(struct model_hints, min_p) },
    { "general.sampling.penalty_repeat", offsetof(struct model_hints, repetition_penalty) },
};
enum { N_FLOATS = sizeof FLOATS / sizeof FLOATS[0] };

enum status hints_from_gguf(const struct gguf *gguf, struct model_hints *hints)
{
    int64_t top_k = -1;
    *hints = HINTS_NONE;
    for (int i = 0; i < N_FLOATS; i++) {
        TRY(gguf_read_float(gguf, FLOATS[i].name, (double *)(void *)((char *)hints + FLOATS[i].offset)));
    }
    TRY(gguf_read_int(gguf, TOP_K, (struct gguf_range){ -1, INT32_MAX }, &top_k));
    hints->top_k = (int32_t)top_k;
    return STATUS_OK;
}

int hints_to_keys(const struct model_hints *hints, struct hint_key keys[N_HINT_KEYS])
{
    int n = 0;
    for (int i = 0; i < N_FLOATS; i++) {
        const double value = *(const double *)(const void *)((const char *)hints + FLOATS[i].offset);
        if (value >= 0) {
            keys[n++] = (struct hint_key){ FLOATS[i].name, GGUF_FLOAT32, value };
        }
    }
    if (hints->top_k >= 0) {
        keys[n++] = (struct hint_key){ TOP_K, GGUF_INT32, hints->top_k };
    }
    return n;
}
