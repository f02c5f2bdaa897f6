/* folder_names: what Hugging Face folders call the tensors of the table, and back. Private to model. */
#ifndef MODEL_FOLDER_NAMES_H
#define MODEL_FOLDER_NAMES_H

#include "model/family.h"

/* The folder's name of a tensor of this role, layer and expert (where they apply) into name
 * [SOURCE_NAME_CAP]; false where folders have none. */
bool folder_name_of(const struct model_config *config, enum tensor_role role, int32_t layer,
                    int32_t expert, char *name);
/* The folder's name for a name of the table; stacked experts, which folders have one by one, and
 * unknown names stay as they are. */
void folder_shown_name(const struct model_config *config, const char *name, char *shown);

#endif
