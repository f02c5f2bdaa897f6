/* rng: coins. A coin is a pure function of (seed, purpose, position, index): nothing depends on the
 * order of calls, on the batch or on a thread. Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011): key = seed (low word first), counter =
 * (index / 4, position, purpose, 0), lane index mod 4.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

#include "base/mathx.h"

enum coin_purpose { COIN_TARGET = 0, COIN_ACCEPT = 1, COIN_RESIDUAL = 2, COIN_DRAFT = 3, COIN_CHOICE = 4 };

struct philox_block { uint32_t word[4]; };

struct philox_block rng_philox(const uint32_t counter[4], const uint32_t key[2]);
uint32_t rng_coin_word(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* In [0, 1), 24 bits. */
float rng_coin_uniform(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* noise[i] = Gumbel noise of index first + i; `first` must be a multiple of 4. Vectorises. */
void rng_gumbel_fill(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t first,
                     uint32_t n, float *noise /* [n] */);
/* The same as rng_gumbel_fill, compiled into the caller with the caller's instruction set. Chunks of
 * 64 ids lie on the stack by word (16 counters at a time), so that every loop runs over lanes. */
static inline void rng_gumbel_fill_inline(uint64_t seed, enum coin_purpose purpose, uint32_t position,
                                          uint32_t first, uint32_t n, float *noise /* [n] */);
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

enum { RNG_CHUNK_COUNTERS = 16, RNG_CHUNK_IDS = 4 * RNG_CHUNK_COUNTERS };

/* words of ids 4 * block .. 4 * block + 63, in order */
static inline void rng_chunk_words(uint64_t seed, enum coin_purpose purpose, uint32_t position,
                                   uint32_t block, uint32_t word[RNG_CHUNK_IDS])
{
    uint32_t c0[RNG_CHUNK_COUNTERS], c1[RNG_CHUNK_COUNTERS];
    uint32_t c2[RNG_CHUNK_COUNTERS], c3[RNG_CHUNK_COUNTERS];
    for (uint32_t i = 0; i < RNG_CHUNK_COUNTERS; i++) {
        c0[i] = block + i;
        c1[i] = position;
        c2[i] = (uint32_t)purpose;
        c3[i] = 0;
    }
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < RNG_CHUNK_COUNTERS; i++) {
            const uint64_t product0 = (uint64_t)c0[i] * 0xd2511f53u;
            const uint64_t product1 = (uint64_t)c2[i] * 0xcd9e8d57u;
            c0[i] = (uint32_t)(product1 >> 32) ^ c1[i] ^ key0;
            c2[i] = (uint32_t)(product0 >> 32) ^ c3[i] ^ key1;
            c1[i] = (uint32_t)product1;
            c3[i] = (uint32_t)product0;
        }
        key0 += 0x9e3779b9u; /* golden ratio */
        key1 += 0xbb67ae85u; /* square root of 3, less 1 */
    }
    for (int i = 0; i < RNG_CHUNK_COUNTERS; i++) {
        word[4 * i] = c0[i];
        word[4 * i + 1] = c1[i];
        word[4 * i + 2] = c2[i];
        word[4 * i + 3] = c3[i];
    }
}

static inline void rng_gumbel_fill_inline(uint64_t seed, enum coin_purpose purpose, uint32_t position,
                                          uint32_t first, uint32_t n, float *noise)
{
    uint32_t word[RNG_CHUNK_IDS];
    float last[RNG_CHUNK_IDS];
    uint32_t done = 0;
    for (; n - done >= RNG_CHUNK_IDS; done += RNG_CHUNK_IDS) {
        rng_chunk_words(seed, purpose, position, (first + done) / 4, word);
        for (int i = 0; i < RNG_CHUNK_IDS; i++) {
            noise[done + (uint32_t)i] = mathx_gumbel(word[i]);
        }
    }
    if (done == n) {
        return;
    }
    rng_chunk_words(seed, purpose, position, (first + done) / 4, word);
    for (int i = 0; i < RNG_CHUNK_IDS; i++) {
        last[i] = mathx_gumbel(word[i]);
    }
    memcpy(noise + done, last, (n - done) * sizeof *noise);
}

#endif
