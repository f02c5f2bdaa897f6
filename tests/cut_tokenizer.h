/* cut_tokenizer: a golden tokenizer.json made small enough for a small model's vocabulary: the first
 * tokens, the merges that make them, and its special tokens behind them. Its rules stay what they are.
 */
#ifndef TESTS_CUT_TOKENIZER_H
#define TESTS_CUT_TOKENIZER_H

#include "tests/small_folder.h"

/* Writes golden/tokenizers/NAME as tokenizer.json of the folder, with ids below n_vocab. */
void cut_tokenizer_put(const struct small_folder *folder, const char *name, int n_vocab);

#endif
