/* small_vocab: a vocabulary made by hand, for tests: unknown, begin and end, 256 byte tokens, and
 * what the test adds. */
#ifndef TESTS_SMALL_VOCAB_H
#define TESTS_SMALL_VOCAB_H

#include "tokenizer/tokenizer.h"

enum { SMALL_VOCAB_CAP = 1024, SMALL_VOCAB_UNK = 0, SMALL_VOCAB_BOS = 1, SMALL_VOCAB_EOS = 2,
       SMALL_VOCAB_BYTE = 3, SMALL_VOCAB_FIRST = 259 };

struct small_vocab {
    struct tokenizer_spec spec; /* points into this struct */
    struct tokenizer_text tokens[SMALL_VOCAB_CAP];
    float scores[SMALL_VOCAB_CAP];
    int32_t classes[SMALL_VOCAB_CAP];
    char byte_texts[256][8];
};

void small_vocab_init(struct small_vocab *vocab);
/* Returns the id; `text` must outlive the vocabulary. */
int32_t small_vocab_add(struct small_vocab *vocab, const char *text, float score, enum token_class class);
/* The tokenizer, or a failed assertion with its sentence. */
struct tokenizer *small_vocab_create(const struct small_vocab *vocab);

#endif
