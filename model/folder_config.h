/* folder_config: config.json and generation_config.json of a Hugging Face folder into struct
 * model_config. Private to model, of the full library alone.
 */
#ifndef MODEL_FOLDER_CONFIG_H
#define MODEL_FOLDER_CONFIG_H

#include "model/config.h"
#include "model/folder_json.h"

/* Fills name and architecture as far as they are there, then everything else. Numbers are rounded to
 * floats where a GGUF file would hold floats, so that a folder and the file made of it give the same
 * bits. */
enum status folder_config_read(const char *label, const json_t *root, struct model_config *config);
/* Adds the end-of-text ids of config.json or generation_config.json. */
enum status folder_config_eos(const char *label, const json_t *root, struct model_config *config);
/* What generation_config.json advises for sampling; fields below 0 are not said. */
enum status folder_config_hints(const char *label, const json_t *root, struct model_hints *hints);

#endif
