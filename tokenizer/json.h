/* json: what a tokenizer.json says, read into a spec and a recipe. json.c reads vocabulary, merges and
 * added tokens, json_steps.c the steps around them, json_value.c single values, each with a sentence
 * for what is wrong. The file's values live as long as the JSON itself. Private to tokenizer.
 */
#ifndef TOKENIZER_JSON_H
#define TOKENIZER_JSON_H

#include <jansson.h>

#include "tokenizer/kind.h"

enum {
    JSON_MAX_BYTES = 256 << 20, JSON_MAX_DEPTH = 64 /* of brackets */
};

/* ---- json_value.c: `file` names the file in sentences ---- */
/* Looks at brackets alone before anything is built; then duplicate keys are refused. */
enum status json_parse(const char *file, const char *bytes, size_t n_bytes, json_t **out);
/* Members of an object; absent and null give `missing`. The wrong type is STATUS_INVALID. */
enum status json_read_bool(const json_t *object, const char *key, bool missing, bool *out);
enum status json_read_text(const json_t *object, const char *key,
                           struct tokenizer_text *out);                        /* bytes NULL */
enum status json_read_id(const json_t *object, const char *key, int32_t *out); /* required */
/* A member that must be an array; NULL when absent or null. */
enum status json_read_array(const json_t *object, const char *key, const json_t **out);
/* The text of "type"; STATUS_INVALID when `object` is none or has none. `what`: "a normalizer". */
enum status json_read_type(const json_t *object, const char *what, const char **out);
bool json_is_there(const json_t *value); /* not absent, not null */
static inline bool json_text_is(struct tokenizer_text text, const char *expected)
{
    size_t n = 0;
    while (n < text.n_bytes && expected[n] && expected[n] == text.bytes[n]) {
        n++;
    }
    return text.bytes && n == text.n_bytes && !expected[n];
}

/* ---- json_steps.c ---- */
enum status json_read_normalizer(const json_t *value, struct recipe *recipe);
enum status json_read_pre_tokenizer(const json_t *value, struct recipe *recipe);
/* ---- json_ends.c ---- */
enum status json_read_decoder(const json_t *value, struct recipe *recipe);
enum status json_read_post_processor(const json_t *value, int32_t n_tokens, struct recipe *recipe);
/* {"String": …} or {"Regex": …} to a pattern; json_steps.c. */
enum status json_read_pattern(const json_t *object, struct split_pattern *out);

#endif
