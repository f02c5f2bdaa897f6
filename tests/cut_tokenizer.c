/* cut_tokenizer: see the header. */
#include "tests/cut_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/golden.h"

enum { N_SPECIAL = 8, WORD_CAP = 1024 };

static json_t *read_tokenizer(const char *name)
{
    char path[256];
    size_t n_bytes;
    snprintf(path, sizeof path, "golden/tokenizers/%s/tokenizer.json", name);
    unsigned char *bytes = golden_read(path, &n_bytes);
    assert_non_null(bytes);
    json_t *root = json_loadb((const char *)bytes, n_bytes, JSON_ALLOW_NUL, NULL);
    golden_free(bytes);
    assert_non_null(root);
    return root;
}

static json_t *cut_vocab(json_t *vocab, int n_kept)
{
    json_t *kept = json_object(), *id;
    const char *text;
    json_object_foreach(vocab, text, id) {
        if (json_integer_value(id) < n_kept) {
            json_object_set(kept, text, id);
        }
    }
    assert_int_equal(json_object_size(kept), n_kept); /* ids without gaps */
    return kept;
}

/* "left right" or ["left", "right"] to what it makes. */
static void join(const json_t *merge, char word[WORD_CAP])
{
    if (json_is_array(merge)) {
        snprintf(word, WORD_CAP, "%s%s", json_string_value(json_array_get(merge, 0)),
                 json_string_value(json_array_get(merge, 1)));
        return;
    }
    const char *text = json_string_value(merge), *space = strchr(text, ' ');
    snprintf(word, WORD_CAP, "%.*s%s", (int)(space - text), text, space + 1);
}

static json_t *cut_merges(json_t *merges, const json_t *vocab)
{
    json_t *kept = json_array(), *merge;
    char word[WORD_CAP];
    size_t i;
    json_array_foreach(merges, i, merge) {
        join(merge, word);
        if (json_object_get(vocab, word)) {
            json_array_append(kept, merge);
        }
    }
    assert_true(json_array_size(kept) > 100); /* enough to join something */
    return kept;
}

static void move_added(json_t *added, int n_kept, int n_vocab)
{
    json_t *token;
    size_t i;
    int next = n_kept;
    json_array_foreach(added, i, token) {
        if (json_integer_value(json_object_get(token, "id")) >= n_kept) {
            json_object_set_new(token, "id", json_integer(next++));
        }
    }
    assert_in_range(next, n_kept, n_vocab);
}

void cut_tokenizer_put(const struct small_folder *folder, const char *name, int n_vocab)
{
    json_t *root = read_tokenizer(name), *model = json_object_get(root, "model");
    json_t *vocab = cut_vocab(json_object_get(model, "vocab"), n_vocab - N_SPECIAL);
    json_object_set_new(model, "merges", cut_merges(json_object_get(model, "merges"), vocab));
    json_object_set_new(model, "vocab", vocab);
    move_added(json_object_get(root, "added_tokens"), n_vocab - N_SPECIAL, n_vocab);
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    small_folder_put(folder, "tokenizer.json", text, strlen(text));
    free(text);
    json_decref(root);
}
