/* config: from GGUF keys to struct model_config, and the ranges every config must keep. Private. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "model/family.h"
#include "model/gguf.h"

/* Reads name and architecture (as far as they are there), then, for a known architecture, everything
 * else. n_vocab comes from the embedding's shape in the source, whose tensors may lie in further
 * files. The sentence says which key is wrong or missing. */
enum status config_from_gguf(const struct gguf *gguf, const struct model_source *source,
                             struct model_config *config);
/* Ranges and divisibilities; the same for every kind of source. */
enum status config_check(const char *label, const struct model_config *config);

#endif
