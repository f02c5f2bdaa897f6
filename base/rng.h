/* rng: coins. A coin is a pure function of (seed, purpose, position, index): nothing depends on the
 * order of calls, on the batch or on a thread. Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011): key = seed (low word first), counter =
 * (index / 4, position, purpose, 0), lane index mod 4.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mathx.h"

enum coin_purpose {
    COIN_TARGET = 0,
    COIN_ACCEPT = 1,
    COIN_RESIDUAL = 2,
    COIN_DRAFT = 3,
    COIN_CHOICE = 4
};

struct philox_block { uint32_t word[4]; };

struct philox_block rng_philox(const uint32_t counter[4], const uint32_t key[2]);
uint32_t rng_coin_word(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* In [0, 1), 24 bits. */
float rng_coin_uniform(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index);
/* noise[i] = Gumbel noise of index first + i; `first` must be a multiple of 4. Vectorises. */
void rng_gumbel_fill(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t first,
                     uint32_t n, float *noise /* [n] */);
/* Where it is known that noise of a word of `limit` or more is of no use, it may come out as -inf: chunks
 * of 64 ids without a smaller word (noise falls as words grow) are spared the logarithms. Of use are all
 * below 2^32. */
static inline void rng_gumbel_fill_below_inline(uint64_t seed, enum coin_purpose purpose,
                                                uint32_t position, uint32_t first, uint32_t n,
                                                uint64_t limit, float *noise /* [n] */);
/* The same as rng_gumbel_fill, compiled into the caller with its instruction set. Chunks of
 * 64 ids lie on the stack by word (16 counters at a time), so that every loop runs over lanes. */
static inline void rng_gumbel_fill_inline(uint64_t seed, enum coin_purpose purpose,
                                          uint32_t position, uint32_t first, uint32_t n,
                                          float *noise /* [n] */);
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

/* One round on one counter; `round` is a constant wherever this is written out. */
MATHX_FN struct philox_block rng_round(struct philox_block c, uint64_t seed, uint32_t round)
{
    const uint64_t product0 = (uint64_t)c.word[0] * 0xd2511f53u;
    const uint64_t product1 = (uint64_t)c.word[2] * 0xcd9e8d57u;
    const uint32_t key0 = (uint32_t)seed + round * 0x9e3779b9u;         /* golden ratio */
    const uint32_t key1 = (uint32_t)(seed >> 32) + round * 0xbb67ae85u; /* sqrt 3, less 1 */
    const uint32_t word0 = (uint32_t)(product1 >> 32) ^ c.word[1] ^ key0;
    const uint32_t word2 = (uint32_t)(product0 >> 32) ^ c.word[3] ^ key1;
    const struct philox_block next = { { word0, (uint32_t)product1, word2, (uint32_t)product0 } };
    return next;
}

/* The ten rounds written out: a loop here would keep one around it from becoming vectors. */
MATHX_FN struct philox_block rng_rounds(struct philox_block c, uint64_t seed)
{
    c = rng_round(rng_round(rng_round(c, seed, 0), seed, 1), seed, 2);
    c = rng_round(rng_round(rng_round(c, seed, 3), seed, 4), seed, 5);
    c = rng_round(rng_round(rng_round(c, seed, 6), seed, 7), seed, 8);
    return rng_round(c, seed, 9);
}

/* words of ids 4 * block .. 4 * block + 63, in order */
static inline void rng_chunk_words(uint64_t seed, enum coin_purpose purpose, uint32_t position,
                                   uint32_t block, uint32_t word[RNG_CHUNK_IDS])
{
    for (uint32_t i = 0; i < RNG_CHUNK_COUNTERS; i++) {
        const struct philox_block counter = { { block + i, position, (uint32_t)purpose, 0 } };
        const struct philox_block c = rng_rounds(counter, seed);
        word[4 * i] = c.word[0];
        word[4 * i + 1] = c.word[1];
        word[4 * i + 2] = c.word[2];
        word[4 * i + 3] = c.word[3];
    }
}

static inline void rng_gumbel_fill_below_inline(uint64_t seed, enum coin_purpose purpose,
                                                uint32_t position, uint32_t first, uint32_t n,
                                                uint64_t limit, float *noise)
{
    uint32_t word[RNG_CHUNK_IDS];
    float chunk[RNG_CHUNK_IDS];
    for (uint32_t done = 0; done < n; done += RNG_CHUNK_IDS) {
        rng_chunk_words(seed, purpose, position, (first + done) / 4, word);
        uint32_t least = UINT32_MAX;
        for (int i = 0; i < RNG_CHUNK_IDS; i++) {
            least = word[i] < least ? word[i] : least;
        }
        const bool spared = least >= limit;
        for (int i = 0; spared && i < RNG_CHUNK_IDS; i++) {
            chunk[i] = -MATHX_INF;
        }
        for (int i = 0; !spared && i < RNG_CHUNK_IDS; i++) {
            chunk[i] = mathx_gumbel(word[i]);
        }
        const uint32_t left = n - done;
        memcpy(noise + done, chunk, (left < (uint32_t)RNG_CHUNK_IDS ? left : (uint32_t)RNG_CHUNK_IDS) * sizeof *noise);
    }
}

static inline void rng_gumbel_fill_inline(uint64_t seed, enum coin_purpose purpose,
                                          uint32_t position, uint32_t first, uint32_t n,
                                          float *noise)
{
    rng_gumbel_fill_below_inline(seed, purpose, position, first, n, (uint64_t)1 << 32, noise);
}

#endif
