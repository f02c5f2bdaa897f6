/* synth_plant: see the header. */
#include "model/synth_plant.h"

#include <math.h>
#include <string.h>

enum {
    HASH_BITS = 53, CHUNK_ELEMS = 256, CHUNK_WORDS = CHUNK_ELEMS / 64,
    MAX_COMPONENTS = MODEL_PAIR_MAX_RANK + PLANT_MAX_ALTERNATIVES,
    MIN_VOCAB = 128, MAX_TOP = 64, ROUND_LANES = 4
};
/* Planted logits carry some noise of their own, 0.2 to 0.3 of a unit: whatever must stay in order
 * stands at least this far apart. */
static const double GAP = 1.5;
/* What random products may take, of the mass that is not the top's; more where it cannot be less. */
static const double NOISE_GOAL = 0.02, NOISE_LIMIT = 0.5;

/* ---- the circle ---- */

/* A Feistel network over 2 * half_bits bits, walked until it comes back below n_vocab: a permutation
 * of the ids. The domain is under 4 times as large, so a few steps do. */
static uint32_t scramble(const struct synth_plant *plant, uint32_t x)
{
    const uint32_t bits = plant->half_bits, mask = (UINT32_C(1) << bits) - 1;
    uint32_t left = x >> bits, right = x & mask;
    for (int i = 0; i < 4; i++) {
        const uint32_t next = left ^ ((uint32_t)rng_mix64(plant->round_key[i] ^ right) & mask);
        left = right;
        right = next;
    }
    return left << bits | right;
}

static uint32_t unscramble(const struct synth_plant *plant, uint32_t y)
{
    const uint32_t bits = plant->half_bits, mask = (UINT32_C(1) << bits) - 1;
    uint32_t left = y >> bits, right = y & mask;
    for (int i = 3; i >= 0; i--) {
        const uint32_t before = right ^ ((uint32_t)rng_mix64(plant->round_key[i] ^ left) & mask);
        right = left;
        left = before;
    }
    return left << bits | right;
}

uint32_t synth_plant_id(const struct synth_plant *plant, uint32_t index)
{
    uint32_t id = scramble(plant, index);
    while (id >= plant->n_vocab) {
        id = scramble(plant, id);
    }
    return id;
}

uint32_t synth_plant_index(const struct synth_plant *plant, uint32_t id)
{
    uint32_t index = unscramble(plant, id);
    while (index >= plant->n_vocab) {
        index = unscramble(plant, index);
    }
    return index;
}

static uint32_t index_before(const struct synth_plant *plant, uint32_t index, uint32_t offset)
{
    return index >= offset ? index - offset : index + (plant->n_vocab - offset);
}

/* ---- ranks ---- */

static uint64_t rank_hash(const struct synth_plant *plant, uint32_t index, uint64_t which)
{
    return rng_mix64(plant->rank_stream + 2 * (uint64_t)index + which) >> (64 - HASH_BITS);
}

static bool agrees(const struct synth_plant *plant, uint32_t index)
{
    return rank_hash(plant, index, 0) >= plant->agrees_from;
}

int32_t synth_plant_rank(const struct synth_plant *plant, uint32_t index)
{
    if (agrees(plant, index)) {
        return 1;
    }
    const uint64_t hash = rank_hash(plant, index, 1);
    int32_t low = 2, high = MODEL_PAIR_MAX_RANK; /* beyond[] falls */
    while (low < high) {
        const int32_t mid = (low + high) / 2;
        if (hash < plant->beyond[mid]) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* ---- logits ---- */

static double exp_of(double x) { return (double)mathx_exp((float)x); }
static double log_of(double x) { return (double)mathx_log((float)x); }

/* Of indices where the draft disagrees: those whose rank is above F. */
static double share_beyond(const struct synth_plant *plant, int32_t f)
{
    return (double)plant->beyond[f] * (1.0 / 9007199254740992.0);
}

static double min_of(double a, double b) { return a < b ? a : b; }

/* The logits of everything that is not at the top, so that together they leave it `peak`. */
static void place_levels(struct synth_plant *plant, double top, double odds_against)
{
    const double below = top + log_of(odds_against * (1.0 - plant->noise_share));
    plant->top = top;
    plant->alternative = min_of(below - log_of(plant->n_alternatives), top - GAP);
    plant->last[1] = top;
    for (int32_t rank = 2; rank <= MODEL_PAIR_MAX_RANK; rank++) {
        const double mass = rank == 2 ? 1.0 : rank - 2 + exp_of(-GAP);
        plant->wrong[rank] = min_of(below - log_of(mass), top - GAP);
        plant->last[rank] = rank == 2 ? plant->wrong[rank] : plant->wrong[rank] - GAP;
    }
}

/* ln of the sum of e^noise over all ids. A random product has a deviation of `top` / sqrt(width) for
 * a row of one code at full weight, so E[e^noise] of a row is the product of e^(t w^2) over its codes'
 * weights w, t = top^2 / (2 width): a mean over which codes a row has, independent of each other. */
static double log_noise(const struct synth_plant *plant)
{
    const double t = plant->top * plant->top / (2.0 * plant->width);
    const double disagree = (double)plant->agrees_from * (1.0 / 9007199254740992.0), agree = 1 - disagree;
    const double alternative = plant->alternative / plant->top;
    double grown[MODEL_PAIR_MAX_RANK + 1]; /* by a wrong token at a place, where the rank is r */
    double predecessor = agree * exp_of(t), sum = log_of(plant->n_vocab);
    for (int32_t rank = 2; rank <= MODEL_PAIR_MAX_RANK; rank++) {
        const double share = disagree * (share_beyond(plant, rank - 1) - share_beyond(plant, rank));
        const double last = plant->last[rank] / plant->top, wrong = plant->wrong[rank] / plant->top;
        predecessor += share * exp_of(t * last * last);
        grown[rank] = share * (exp_of(t * wrong * wrong) - 1);
    }
    sum += log_of(predecessor);
    sum += plant->n_alternatives * log_of(1 + agree * (exp_of(t * alternative * alternative) - 1));
    sum += log_of(1 + disagree * (exp_of(t) - 1)); /* first place: at the top whatever the rank */
    for (int32_t place = 2; place < MODEL_PAIR_MAX_RANK; place++) {
        double grows = 0;
        for (int32_t rank = place + 1; rank <= MODEL_PAIR_MAX_RANK; rank++) {
            grows += grown[rank];
        }
        sum += log_of(1 + grows);
    }
    return sum;
}

/* The lowest top that lifts the planted logits out of the noise: noise grows with its square, so
 * there is a best one, and narrow models may not get far. */
static enum status choose_top(struct synth_plant *plant, const struct model_pair *pair)
{
    const double odds_against = (1 - pair->peak) / pair->peak, step = 0.125;
    double best_top = 0, best_share = 1e9;
    for (double top = 8; top <= MAX_TOP && best_share > NOISE_GOAL; top += step) {
        plant->noise_share = NOISE_GOAL;
        place_levels(plant, top, odds_against);
        const double share = exp_of(min_of(log_noise(plant) - top, 40)) / odds_against;
        if (share < best_share) {
            best_top = top;
            best_share = share;
        }
    }
    if (best_share > NOISE_LIMIT) {
        return status_fail(STATUS_INVALID,
                           "synth: a width of %d is too narrow to plant %u ids with a peak of %g: a wider shape "
                           "or a smaller vocabulary is needed", plant->width, plant->n_vocab,
                           pair->peak);
    }
    plant->noise_share = best_share;
    place_levels(plant, best_top, odds_against);
    return STATUS_OK;
}

/* ---- setting up ---- */

/* Different from each other and from 1, the true token's. */
static void choose_offsets(struct synth_plant *plant, uint64_t stream)
{
    uint64_t at = 0;
    for (int32_t i = 0; i < PLANT_N_OFFSETS;) {
        const uint32_t offset = (uint32_t)(rng_mix64(stream + at++) % plant->n_vocab);
        bool taken = offset < 2;
        for (int32_t j = 0; j < i; j++) {
            taken = taken || plant->offset[j] == offset;
        }
        plant->offset[i] = offset;
        i += taken ? 0 : 1;
    }
}

enum status synth_plant_init(struct synth_plant *plant, const struct model_pair *pair, int32_t n_vocab,
                             int32_t width)
{
    const double whole = 9007199254740992.0; /* 2^HASH_BITS */
    const bool is_draft = pair->role == MODEL_PAIR_DRAFT;
    const uint64_t stream = rng_mix64(pair->seed ^ UINT64_C(0x70616972)); /* "pair" */
    if (n_vocab < MIN_VOCAB) {
        return status_fail(STATUS_INVALID, "synth: a pair needs a vocabulary of at least %d, asked for %d",
                           MIN_VOCAB, n_vocab);
    }
    *plant = (struct synth_plant){ .n_vocab = (uint32_t)n_vocab, .width = width };
    while (UINT64_C(1) << (2 * plant->half_bits) < (uint64_t)n_vocab) {
        plant->half_bits++;
    }
    for (uint64_t i = 0; i < 4; i++) {
        plant->round_key[i] = rng_mix64(stream + i);
    }
    plant->rank_stream = rng_mix64(stream + 4);
    choose_offsets(plant, rng_mix64(stream + 5));
    plant->code_stream = rng_mix64(stream + (is_draft ? 7 : 6));
    plant->agrees_from = is_draft ? (uint64_t)((1 - pair->agree) * whole) : 0;
    for (int32_t f = 1; f < MODEL_PAIR_MAX_RANK; f++) { /* beyond[64] stays 0: the cap */
        plant->beyond[f] = (uint64_t)(exp_of(-pair->tail * log_of(f)) * whole);
    }
    const double odds_against = (1 - pair->peak) / pair->peak;
    plant->n_alternatives = 1;
    while (plant->n_alternatives < PLANT_MAX_ALTERNATIVES &&
           odds_against / plant->n_alternatives > exp_of(-GAP)) {
        plant->n_alternatives++;
    }
    return choose_top(plant, pair);
}

float synth_plant_gain(const struct synth_plant *plant, double noise_squares)
{
    return (float)(plant->top * sqrt(1 + noise_squares) / plant->width);
}

/* ---- rows ---- */

struct component { uint64_t code; double weight; };

static uint64_t code_of(const struct synth_plant *plant, uint32_t index)
{
    return rng_mix64(plant->code_stream ^ ((uint64_t)index * 0xd1342543de82ef95u));
}

static uint64_t code_word(uint64_t code, int32_t word) { return rng_mix64(code + (uint64_t)word); }

/* Where `id` is planted, and how strongly. At most one index per offset. */
static int32_t find_components(const struct synth_plant *plant, uint32_t id, struct component *components)
{
    const uint32_t index = synth_plant_index(plant, id), before = index_before(plant, index, 1);
    int32_t n = 0;
    components[n++] = (struct component){ code_of(plant, before),
                                          plant->last[synth_plant_rank(plant, before)] / plant->top };
    for (int32_t i = 0; i < plant->n_alternatives; i++) {
        const uint32_t from = index_before(plant, index, plant->offset[MODEL_PAIR_MAX_RANK + i]);
        if (agrees(plant, from)) {
            components[n++] = (struct component){ code_of(plant, from), plant->alternative / plant->top };
        }
    }
    for (int32_t place = 1; plant->agrees_from > 0 && place < MODEL_PAIR_MAX_RANK; place++) {
        const uint32_t from = index_before(plant, index, plant->offset[place]);
        if (!agrees(plant, from) && rank_hash(plant, from, 1) < plant->beyond[place]) {
            const double level = place == 1 ? plant->top : plant->wrong[synth_plant_rank(plant, from)];
            components[n++] = (struct component){ code_of(plant, from), level / plant->top };
        }
    }
    ASSERT(n <= MAX_COMPONENTS);
    return n;
}

/* Products of the codes with each other: width - 2 * differing signs. */
static void multiply_codes(const struct synth_plant *plant, const struct component *components, int32_t n,
                           double *products /* [n, n], lower half */)
{
    int32_t differing[MAX_COMPONENTS * (MAX_COMPONENTS + 1) / 2] = { 0 };
    uint64_t words[MAX_COMPONENTS];
    for (int32_t word = 0; word * 64 < plant->width; word++) {
        const int32_t left = plant->width - word * 64;
        const uint64_t mask = left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
        int32_t at = 0;
        for (int32_t i = 0; i < n; i++) {
            words[i] = code_word(components[i].code, word) & mask;
            for (int32_t j = 0; j <= i; j++) {
                differing[at++] += __builtin_popcountll(words[i] ^ words[j]);
            }
        }
    }
    for (int32_t i = 0, at = 0; i < n; i++) {
        for (int32_t j = 0; j <= i; j++) {
            products[i * n + j] = plant->width - 2.0 * differing[at++];
        }
    }
}

/* Weights such that the sum of the codes has exactly the wanted product with each of them, though they
 * are not orthogonal: a Cholesky factorisation, in place. */
static void correct_weights(const struct synth_plant *plant, struct component *components, int32_t n)
{
    double factor[MAX_COMPONENTS * MAX_COMPONENTS];
    if (n == 1) {
        return;
    }
    multiply_codes(plant, components, n, factor);
    for (int32_t i = 0; i < n; i++) {
        double *row = factor + i * n;
        for (int32_t j = 0; j <= i; j++) {
            double sum = row[j];
            for (int32_t k = 0; k < j; k++) {
                sum -= row[k] * factor[j * n + k];
            }
            const double least = 1e-3 * plant->width; /* codes that are nearly the same */
            row[j] = j < i ? sum / factor[j * n + j] : sqrt(sum > least ? sum : least);
        }
        double wanted = components[i].weight * plant->width;
        for (int32_t k = 0; k < i; k++) {
            wanted -= row[k] * components[k].weight;
        }
        components[i].weight = wanted / row[i];
    }
    for (int32_t i = n - 1; i >= 0; i--) {
        for (int32_t k = i + 1; k < n; k++) {
            components[i].weight -= factor[k * n + i] * components[k].weight;
        }
        components[i].weight /= factor[i * n + i];
    }
}

/* A row being made, 64 elements at a time: the signs of its codes there, as the bit a float has for
 * them, and what rounding has added so far to the row's product with each code. */
struct mixture {
    int32_t n;
    float weight[MAX_COMPONENTS], lost[MAX_COMPONENTS][ROUND_LANES];
    uint32_t sign[MAX_COMPONENTS][64];
};

static inline float with_sign(float value, uint32_t sign) { return mathx_from_bits(mathx_to_bits(value) ^ sign); }

/* A bit of 0 is the minus. */
static void expand_signs(uint64_t word, uint32_t *sign /* [64] */)
{
    static const uint32_t BIT[8] = { 1, 2, 4, 8, 16, 32, 64, 128 };
    for (int byte = 0; byte < 8; byte++, word >>= 8, sign += 8) {
        const uint32_t bits = (uint32_t)word & 0xffu;
        for (int i = 0; i < 8; i++) {
            sign[i] = bits & BIT[i] ? 0 : 0x80000000u;
        }
    }
}

/* Elements to codes of -7 .. 7 (the published rounding has an eighth one, on one side alone). Sums of a
 * few signs take few values, and rounding each to the nearest code would shift a product as a whole; so
 * each element is rounded towards what those before it lost. Each lane keeps its own account, so that
 * they need not wait for each other. */
static void round_q4_0(struct mixture *mixture, const float *values, float scale, int at,
                       float *codes /* [ROUND_LANES] */)
{
    const float inverse = scale > 0 ? 1.0f / scale : 0, share = 1.0f / (float)mixture->n;
    float lost[ROUND_LANES] = { 0 }, error[ROUND_LANES];
    for (int32_t i = 0; i < mixture->n; i++) {
        for (int lane = 0; lane < ROUND_LANES; lane++) {
            lost[lane] += with_sign(mixture->lost[i][lane], mixture->sign[i][at + lane]);
        }
    }
    for (int lane = 0; lane < ROUND_LANES; lane++) {
        const float wanted = (values[lane] - lost[lane] * share) * inverse;
        const float capped = wanted > 7.0f ? 7.0f : wanted, code = capped < -7.0f ? -7.0f : capped;
        codes[lane] = mathx_rint_small(code);
        error[lane] = codes[lane] * scale - values[lane];
    }
    for (int32_t i = 0; i < mixture->n; i++) {
        for (int lane = 0; lane < ROUND_LANES; lane++) {
            mixture->lost[i][lane] += with_sign(error[lane], mixture->sign[i][at + lane]);
        }
    }
}

/* A block of 32, from element `at` of the 64. */
static void write_q4_0(struct mixture *mixture, const float *values, int at, unsigned char *out)
{
    float largest = 0, codes[32];
    for (int i = 0; i < 32; i++) {
        largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    }
    const uint16_t half = mathx_f32_to_f16(largest / 7.0f);
    memcpy(out, &half, sizeof half);
    for (int i = 0; i < 32; i += ROUND_LANES) {
        round_q4_0(mixture, values + i, mathx_f16_to_f32(half), at + i, codes + i);
    }
    for (int i = 0; i < 16; i++) {
        out[2 + i] = (unsigned char)((8 + (int)codes[i]) | (8 + (int)codes[i + 16]) << 4);
    }
}

/* Types whose scales are searched for cannot be fed back to. Random numbers of up to half a step make
 * the rounding of sums right on average instead. */
static void dither(uint64_t stream, double steps_of_range, float *values, int32_t n)
{
    for (int32_t first = 0; first < n; first += 32) {
        float largest = 0;
        for (int32_t i = first; i < first + 32; i++) {
            largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
        }
        const float unit = largest / (float)steps_of_range * 0x1p-31f;
        for (int32_t i = first; i < first + 32; i++) {
            values[i] += (float)(int32_t)(uint32_t)rng_mix64(stream + (uint64_t)i) * unit;
        }
    }
}

/* Word `word` of the row's codes, and the sum of them there. */
static void mix_word(const struct component *components, int32_t word, struct mixture *mixture,
                     float *out /* [64] */)
{
    for (int32_t i = 0; i < mixture->n; i++) {
        const uint32_t *sign = mixture->sign[i];
        const float weight = mixture->weight[i];
        expand_signs(code_word(components[i].code, word), mixture->sign[i]);
        for (int at = 0; at < 64; at++) {
            out[at] += with_sign(weight, sign[at]);
        }
    }
}

static void mix_row(const struct synth_plant *plant, const struct component *components, int32_t n,
                    enum tensor_type type, unsigned char *out)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    struct mixture mixture;
    mixture.n = n;
    memset(mixture.lost, 0, (size_t)n * sizeof mixture.lost[0]);
    for (int32_t i = 0; i < n; i++) {
        mixture.weight[i] = (float)components[i].weight;
    }
    for (int32_t first = 0; first < plant->width; first += CHUNK_ELEMS) {
        const int32_t left = plant->width - first, n_elems = left < CHUNK_ELEMS ? left : CHUNK_ELEMS;
        float sums[CHUNK_ELEMS] = { 0 };
        for (int32_t at = 0; at < n_elems; at += 64) {
            mix_word(components, (first + at) / 64, &mixture, sums + at);
            for (int32_t half = 0; type == TENSOR_Q4_0 && half < 64 && at + half < n_elems; half += 32) {
                write_q4_0(&mixture, sums + at + half, half, out + (at + half) / 32 * 18);
            }
        }
        if (n > 1 && (type == TENSOR_Q4_K || type == TENSOR_Q6_K)) {
            dither(~components[0].code + (uint64_t)first, type == TENSOR_Q4_K ? 15 : 62, sums, n_elems);
        }
        if (type != TENSOR_Q4_0) {
            tensor_row_from_f32(type, sums, n_elems, out);
        }
        out += (uint32_t)n_elems / info->block_elems * info->block_bytes;
    }
}

void synth_plant_embed_row(const struct synth_plant *plant, uint32_t id, float amplitude,
                           enum tensor_type type, unsigned char *out)
{
    const struct component one = { code_of(plant, synth_plant_index(plant, id)), (double)amplitude };
    mix_row(plant, &one, 1, type, out);
}

void synth_plant_head_row(const struct synth_plant *plant, uint32_t id, enum tensor_type type,
                          unsigned char *out)
{
    struct component components[MAX_COMPONENTS];
    const int32_t n = find_components(plant, id, components);
    correct_weights(plant, components, n);
    mix_row(plant, components, n, type, out);
}
