/* folder_json: JSON from outside, bounded before it is parsed. Private to model, of the full library alone.
 *
 * A file is refused by its size, its nesting or a duplicate key before memory is spent on it; what is
 * parsed then costs a few times its own bytes, no more.
 */
#ifndef MODEL_FOLDER_JSON_H
#define MODEL_FOLDER_JSON_H

#include <jansson.h>

#include "base/base.h"

enum { FOLDER_JSON_MAX_NESTING = 32, FOLDER_JSON_MAX_FILE_BYTES = 64 << 20 };

/* An object; `label` is how sentences call the text. */
enum status folder_json_parse(const char *label, const void *bytes, size_t n_bytes, json_t **out);
/* Reads and parses a whole file; *out NULL and STATUS_OK where there is no such file. */
enum status folder_json_read_file(const char *path, json_t **out);

/* Readers of one key of an object. An absent key, or null, leaves *value as it is; a value of another
 * type or out of range is refused with a sentence that names what was expected. */
struct folder_json_range { int64_t min, max; };
enum status folder_json_read_int(const char *label, const json_t *object, const char *key,
                          struct folder_json_range range, int64_t *value);
enum status folder_json_read_float(const char *label, const json_t *object, const char *key, double *value);
enum status folder_json_read_flag(const char *label, const json_t *object, const char *key, int *value);
enum status folder_json_read_text(const char *label, const json_t *object, const char *key, const char **value);
/* The value of a key; NULL where it is absent or null. */
const json_t *folder_json_find(const json_t *object, const char *key);
/* A value in a few words, for sentences and for people; control characters become '?'. */
void folder_json_value_text(const json_t *value, char *text, size_t cap);

#endif
