/* rng: one Philox block at a time, and what is read from it. The vector form of the same function
 * is in rng.h; tests/test_rng.c holds both to the published answers. */
#include "base/rng.h"

#include <errno.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/status.h"

struct philox_block rng_philox(const uint32_t counter[4], const uint32_t key[2])
{
    struct philox_block c = { { counter[0], counter[1], counter[2], counter[3] } };
    uint32_t key0 = key[0], key1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = (uint64_t)c.word[0] * 0xd2511f53u;
        const uint64_t product1 = (uint64_t)c.word[2] * 0xcd9e8d57u;
        c.word[0] = (uint32_t)(product1 >> 32) ^ c.word[1] ^ key0;
        c.word[2] = (uint32_t)(product0 >> 32) ^ c.word[3] ^ key1;
        c.word[1] = (uint32_t)product1;
        c.word[3] = (uint32_t)product0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

static struct philox_block rng_block(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2)
{
    const uint32_t counter[4] = { c0, c1, c2, 0 };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    return rng_philox(counter, key);
}

uint32_t rng_coin_word(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index)
{
    return rng_block(seed, index / 4, position, (uint32_t)purpose).word[index % 4];
}

float rng_coin_uniform(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t index)
{
    return (float)(rng_coin_word(seed, purpose, position, index) >> 8) * 0x1p-24f;
}

void rng_gumbel_fill(uint64_t seed, enum coin_purpose purpose, uint32_t position, uint32_t first,
                     uint32_t n, float *noise)
{
    ASSERT(first % 4 == 0);
    rng_gumbel_fill_inline(seed, purpose, position, first, n, noise);
}

uint64_t rng_choice_seed(uint64_t seed, uint32_t choice)
{
    if (choice == 0) {
        return seed;
    }
    const struct philox_block block = rng_block(seed, choice, 0, COIN_CHOICE);
    return (uint64_t)block.word[1] << 32 | block.word[0];
}

uint64_t rng_os_seed(void)
{
    uint64_t seed = 0;
    ssize_t n;
    do {
        n = getrandom(&seed, sizeof seed, 0);
    } while (n < 0 && errno == EINTR);
    /* Without the system call (very old kernels): the clock, well mixed. */
    return n == (ssize_t)sizeof seed ? seed : rng_mix64((uint64_t)clock_now_ns());
}
