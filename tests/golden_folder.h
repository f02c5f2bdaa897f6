/* golden_folder: the small models of golden/models as sources, so that the transformer is held to
 * answers made in float64: grouped heads, RoPE scalings, sliding windows, float types. Reads only
 * these files and trusts them; their configs stand in the tests. */
#ifndef TESTS_GOLDEN_FOLDER_H
#define TESTS_GOLDEN_FOLDER_H

#include "model/model.h"

/* relative: the folder below the golden data. config: what its config.json says. */
enum status golden_folder_open(const char *relative, const struct model_config *config,
                               struct model_source **out);

#endif
