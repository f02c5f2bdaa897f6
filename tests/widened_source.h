/* widened_source: another source with every matrix as F32, so that nothing quantises activations and
 * the forward pass can be held to a tight tolerance. Closes the inner source when it is closed. */
#ifndef TESTS_WIDENED_SOURCE_H
#define TESTS_WIDENED_SOURCE_H

#include "model/model.h"

enum status widened_source_open(const char *name, struct model_source **out);

#endif
