/* rng: coins. A coin is a pure function of (seed, purpose, position, index): nothing depends on the
 * order of calls, on the batch or on a thread. Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011): key = seed (low word first), counter =
 * (index / 4, position, purpose, 0), lane index mod 4.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

enum coin_purpose { COIN_TARGET = 0, COIN_ACCEPT = 1, COIN_RESIDUAL = 2, COIN_DRAFT = 3, COIN_CHOICE = 4 };

struct philox_block { uint32_t word[4]; };

struct philox_block rng_philox(const uint32_t counter[4], const uint32_t key[2]);
uint32_t rng_coin_word(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* In [0, 1), 24 bits. */
float rng_coin_uniform(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* noise[i] = Gumbel noise of index first + i; `first` must be a multiple of 4. Vectorises. */
void rng_gumbel_fill(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t first,
                     uint32_t n, float *noise /* [n] */);
/* Seed of choice i of a request with n > 1; choice 0 keeps the seed. */
uint64_t rng_choice_seed(uint64_t seed, uint32_t choice);
/* 64 bits from the operating system. */
uint64_t rng_os_seed(void);
/* splitmix64 finaliser: well-mixed 64 bits from any 64 bits (synthetic weights, hash tables). */
static inline uint64_t rng_mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif
