/* coin_integral: see the header. */
#include "tests/coin_integral.h"

enum { N_VALUES = 1 << 24 };

static uint64_t mix(uint64_t digest, uint64_t what) { return rng_mix64(digest ^ rng_mix64(what)); }

float coin_walk_ask(void *context, enum coin_purpose purpose, int32_t position, int32_t index)
{
    struct coin_walk *walk = context;
    const uint64_t key = (uint64_t)purpose << 48 | (uint64_t)position << 16 | (uint64_t)index;
    const int n = walk->n_asked++;
    if (n < walk->n_scripted) {
        ASSERT(walk->ask[n].key == key);
        return (float)walk->ask[n].value * 0x1p-24f;
    }
    if (!walk->is_open) { /* what comes after is of no interest: it is run again */
        walk->is_open = true;
        walk->open_key = key;
        walk->behaviour = mix(walk->behaviour, key + 1);
    }
    return 0.0f;
}

void coin_walk_note(struct coin_walk *walk, int32_t what)
{
    if (!walk->is_open) {
        walk->behaviour = mix(walk->behaviour, (uint64_t)(uint32_t)what << 20);
    }
}

static void replay(const struct coin_program *program, struct coin_walk *walk)
{
    walk->n_asked = 0;
    walk->is_open = false;
    walk->behaviour = 0;
    program->run(program->context, walk);
}

static uint64_t behaviour_at(const struct coin_program *program, struct coin_walk *walk,
                             uint32_t value)
{
    walk->ask[walk->n_scripted - 1].value = value;
    replay(program, walk);
    return walk->behaviour;
}

/* The last value up to `last` that is as good as `first`. */
static uint32_t last_alike(const struct coin_program *program, struct coin_walk *walk,
                           uint32_t first, uint32_t last)
{
    const uint64_t wanted = behaviour_at(program, walk, first);
    if (behaviour_at(program, walk, last) == wanted) {
        return last;
    }
    uint32_t alike = first, other = last;
    while (other - alike > 1) {
        const uint32_t middle = alike + (other - alike) / 2;
        if (behaviour_at(program, walk, middle) == wanted) {
            alike = middle;
        } else {
            other = middle;
        }
    }
    return alike;
}

static void explore(const struct coin_program *program, struct coin_walk *walk, double prob)
{
    replay(program, walk);
    if (!walk->is_open) {
        program->ended(program->context, prob);
        return;
    }
    const int n = walk->n_scripted;
    ASSERT(n < COIN_INTEGRAL_ASKS);
    struct coin_ask whole = { .key = walk->open_key, .last = N_VALUES - 1 };
    for (int i = 0; i < n; i++) {
        if (walk->ask[i].key == whole.key) {
            whole = walk->ask[i]; /* the latest is the narrowest */
        }
    }
    const double share = prob / ((double)(whole.last - whole.first) + 1);
    for (uint32_t first = whole.first; first <= whole.last;) {
        walk->ask[n] = (struct coin_ask){ .key = whole.key };
        walk->n_scripted = n + 1;
        const uint32_t last = last_alike(program, walk, first, whole.last);
        walk->ask[n] = (struct coin_ask){ whole.key, first, last, first };
        explore(program, walk, share * ((double)(last - first) + 1));
        first = last + 1;
    }
    walk->n_scripted = n;
}

void coin_integrate(const struct coin_program *program)
{
    struct coin_walk walk = { .n_scripted = 0 };
    explore(program, &walk, 1.0);
}
