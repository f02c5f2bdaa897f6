/* coin_integral: a program that asks for coins, run for every value they can have.
 *
 * A coin has 2^24 values, but what a program does with it changes at few of them. The integral
 * walks the tree of what can happen: it replays the program with the coins so far, halves the
 * values of the next coin until it has found where the program's behaviour changes, and goes on
 * below each part. A coin asked for twice keeps its value: the second question is put within the
 * part that the first one left. Probabilities are shares of values, so nothing is estimated.
 *
 * Behaviour is what the program notes and which coin it asks for next. As a coin grows, no
 * behaviour may come back after another one: true of comparisons with a threshold and of inverse
 * running sums.
 */
#ifndef TESTS_COIN_INTEGRAL_H
#define TESTS_COIN_INTEGRAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

enum { COIN_INTEGRAL_ASKS = 48 };

struct coin_ask { uint64_t key; uint32_t first, last, value; }; /* values first..last are alike */
struct coin_walk {
    struct coin_ask ask[COIN_INTEGRAL_ASKS];
    int n_scripted, n_asked;
    uint64_t open_key;  /* of the first coin that no script has */
    bool is_open;
    uint64_t behaviour; /* digest of what was noted and asked before that */
};

/* A coin, for the program; `walk` a struct coin_walk (the signature of struct verify_coins). */
float coin_walk_ask(void *walk, enum coin_purpose purpose, int32_t position, int32_t index);
/* The program says what it did. */
void coin_walk_note(struct coin_walk *walk, int32_t what);

struct coin_program {
    void (*run)(void *context, struct coin_walk *walk);
    void (*ended)(void *context, double prob); /* after each run() that needs no further coin */
    void *context;
};
void coin_integrate(const struct coin_program *program);

#endif
