/* toy_text: see the header. */
#include "tests/toy_text.h"

#include <math.h>
#include <string.h>

static void fill_row(float *row, int32_t n_vocab, uint64_t seed)
{
    int32_t weight[TOY_VOCAB], sum = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        const uint64_t bits = rng_mix64(seed * 31 + (uint64_t)i);
        weight[i] = bits % 4 == 0 ? 0 : (int32_t)(bits / 4 % 9) + 1;
        sum += weight[i];
    }
    if (sum == 0) {
        weight[seed % (uint64_t)n_vocab] = sum = 1;
    }
    for (int32_t i = 0; i < n_vocab; i++) {
        row[i] = (float)((double)weight[i] / (double)sum);
    }
}

void toy_text_fill(struct toy_text *toy, int32_t n_vocab, int32_t n_tokens, uint64_t seed)
{
    ASSERT(n_vocab <= TOY_VOCAB && n_tokens <= TOY_TOKENS);
    *toy = (struct toy_text){ .n_vocab = n_vocab, .n_tokens = n_tokens };
    for (int32_t row = 0; row <= n_vocab; row++) {
        fill_row(toy->target[row], n_vocab, seed * 1000 + (uint64_t)row * 2);
        fill_row(toy->draft[row], n_vocab, seed * 1000 + (uint64_t)row * 2 + 1);
    }
    if (seed % 8 == 3) {
        memcpy(toy->draft, toy->target, sizeof toy->draft);
    } else if (seed % 8 == 7) {
        memset(toy->target[0], 0, sizeof toy->target[0]);
        memset(toy->draft[0], 0, sizeof toy->draft[0]);
        toy->target[0][0] = 0.75f;
        toy->target[0][1] = 0.25f;
        toy->draft[0][2] = 1.0f;
    }
}

void toy_text_begin(struct toy_text *toy) { memset(toy->seen, 0, sizeof toy->seen); }

void toy_text_add(struct toy_text *toy, const int32_t *token, double prob)
{
    int32_t text = 0;
    for (int32_t i = 0; i < toy->n_tokens; i++) {
        text = text * toy->n_vocab + token[i];
    }
    toy->seen[text] += prob;
}

/* Of text number `text`, by the target alone; rows may miss 1 by the rounding of their floats. */
static double promised(const struct toy_text *toy, int32_t text)
{
    int32_t token[TOY_TOKENS], previous = -1;
    for (int32_t i = toy->n_tokens - 1; i >= 0; i--, text /= toy->n_vocab) {
        token[i] = text % toy->n_vocab;
    }
    double prob = 1;
    for (int32_t i = 0; i < toy->n_tokens; i++) {
        const float *row = toy_text_target(toy, previous);
        double sum = 0;
        for (int32_t id = 0; id < toy->n_vocab; id++) {
            sum += (double)row[id];
        }
        prob *= (double)row[token[i]] / sum;
        previous = token[i];
    }
    return prob;
}

double toy_text_worst(const struct toy_text *toy)
{
    int32_t n_texts = 1;
    for (int32_t i = 0; i < toy->n_tokens; i++) {
        n_texts *= toy->n_vocab;
    }
    double worst = 0;
    for (int32_t text = 0; text < n_texts; text++) {
        const double prob = promised(toy, text);
        if (prob == 0 && toy->seen[text] > 0) {
            return 1;
        }
        worst = fmax(worst, fabs(toy->seen[text] - prob));
    }
    return worst;
}
