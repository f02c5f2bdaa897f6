/* hints: what a model's makers advise for sampling, as GGUF files carry it (keys general.sampling.*).
 * Private to model.
 */
#ifndef MODEL_HINTS_H
#define MODEL_HINTS_H

#include "model/gguf.h"

extern const struct model_hints HINTS_NONE;
/* Fields whose keys are there; the others say nothing. A key of another type is refused. */
enum status hints_from_gguf(const struct gguf *gguf, struct model_hints *hints);

enum { N_HINT_KEYS = 5 };
struct hint_key { const char *name; uint32_t type; double value; }; /* type: GGUF_FLOAT32 or GGUF_INT32 */
/* The keys that say this; returns how many. */
int hints_to_keys(const struct model_hints *hints, struct hint_key keys[N_HINT_KEYS]);

#endif
