/* toy_text: a target and a draft as tables, each token depending on the one before it, and the
 * judgement whether what a rule wrote is distributed as the target's own text. */
#ifndef TESTS_TOY_TEXT_H
#define TESTS_TOY_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

enum { TOY_VOCAB = 5, TOY_TOKENS = 3, TOY_TEXTS = TOY_VOCAB * TOY_VOCAB * TOY_VOCAB };

struct toy_text {
    int32_t n_vocab, n_tokens;              /* texts of n_tokens are judged */
    float target[TOY_VOCAB + 1][TOY_VOCAB]; /* row t + 1: after token t; row 0: at the start */
    float draft[TOY_VOCAB + 1][TOY_VOCAB];
    double seen[TOY_TEXTS];                 /* probability with which each text was written */
};
/* Rows are small whole numbers over their sum, zeros and lone tokens among them; every fourth seed
 * has a draft equal to the target or sharing no token with it at the start. */
void toy_text_fill(struct toy_text *toy, int32_t n_vocab, int32_t n_tokens, uint64_t seed);
static inline const float *toy_text_target(const struct toy_text *toy, int32_t previous)
{
    return toy->target[previous + 1];
}
static inline const float *toy_text_draft(const struct toy_text *toy, int32_t previous)
{
    return toy->draft[previous + 1];
}

void toy_text_begin(struct toy_text *toy);
void toy_text_add(struct toy_text *toy, const int32_t *token /* [n_tokens] */, double prob);
/* Largest difference to what the target writes alone; 1 if a text was written that it never does,
 * however rarely. */
double toy_text_worst(const struct toy_text *toy);

#endif
