/* synth_plant: pairs. What is planted is a law (one cycle, a share that agrees, ranks elsewhere); what
 * comes out of forward passes, in every type, is that law: ids, ranks and probabilities. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/synth_plant.h"
#include "model/weights.h"
#include "tests/model_rig.h"

static void must(enum status status)
{
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

static struct model_pair pair_of(enum model_pair_role role, double agree, double tail)
{
    return (struct model_pair){ .agree = agree, .tail = tail, .peak = 0.9, .role = role, .seed = 1,
                                .max_rank = MODEL_PAIR_MAX_RANK };
}

/* ---- the law ---- */

static void test_one_cycle(void **state)
{
    (void)state;
    static const int32_t SIZES[] = { 128, 129, 512, 1000, 32000, 65536, 128256 };
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        struct synth_plant plant, draft;
        const uint32_t n = (uint32_t)SIZES[i];
        unsigned char *seen = mem_alloc(n, 1);
        struct model_pair pair = pair_of(MODEL_PAIR_TARGET, 0.5, 1);
        must(synth_plant_init(&plant, &pair, SIZES[i], 512));
        pair.role = MODEL_PAIR_DRAFT;
        must(synth_plant_init(&draft, &pair, SIZES[i], 256));
        uint32_t n_neighbours = 0;
        for (uint32_t index = 0; index < n; index++) {
            const uint32_t id = synth_plant_id(&plant, index), next = synth_plant_id(&plant, (index + 1) % n);
            assert_true(id < n && !seen[id]);
            seen[id] = 1;
            assert_int_equal(synth_plant_index(&plant, id), index);
            assert_int_equal(synth_plant_id(&draft, index), id); /* both sides mean the same text */
            assert_int_equal(synth_plant_rank(&plant, index), 1);
            n_neighbours += next == id + 1;
        }
        assert_true(n_neighbours <= 10); /* and the order is no count */
        mem_free(seen);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    struct synth_plant a, b;
    struct model_pair pair = pair_of(MODEL_PAIR_DRAFT, 0.5, 1);
    uint32_t same = 0, agree = 0;
    must(synth_plant_init(&a, &pair, 4096, 256));
    pair.seed = 2;
    must(synth_plant_init(&b, &pair, 4096, 256));
    for (uint32_t index = 0; index < 4096; index++) {
        same += synth_plant_id(&a, index) == synth_plant_id(&b, index);
        agree += (synth_plant_rank(&a, index) == 1) == (synth_plant_rank(&b, index) == 1);
    }
    assert_true(same < 10);
    assert_true(agree > 1900 && agree < 2200);
}

/* Shares within 4 deviations of what was asked for. */
static void test_shares(void **state)
{
    (void)state;
    static const double AGREE[] = { 0, 0.3, 0.8, 1 }, TAIL[] = { 0.5, 1, 2.5 };
    enum { N = 128256 };
    for (int i = 0; i < 12; i++) {
        const double agree = AGREE[i / 3], tail = TAIL[i % 3];
        const struct model_pair pair = pair_of(MODEL_PAIR_DRAFT, agree, tail);
        struct synth_plant plant;
        int32_t above[MODEL_PAIR_MAX_RANK + 1] = { 0 }, n_agree = 0;
        must(synth_plant_init(&plant, &pair, N, 512));
        for (uint32_t index = 0; index < N; index++) {
            const int32_t rank = synth_plant_rank(&plant, index);
            assert_true(rank >= 1 && rank <= MODEL_PAIR_MAX_RANK);
            n_agree += rank == 1;
            for (int32_t f = 1; f < rank; f++) {
                above[f]++;
            }
        }
        assert_true(fabs(n_agree - agree * N) <= 4 * sqrt(agree * (1 - agree) * N));
        const double others = N - n_agree;
        assert_int_equal(above[1], N - n_agree);
        for (int32_t f = 2; f < MODEL_PAIR_MAX_RANK; f++) {
            const double share = pow(f, -tail);
            assert_true(fabs(above[f] - share * others) <= 4 * sqrt(share * (1 - share) * others) + 1);
        }
    }
}

static void test_too_narrow(void **state)
{
    (void)state;
    struct model_source *source;
    static const struct { const char *name, *words; } WRONG[] = {
        { "synth:pair=tiny,vocab=127", "a vocabulary of at least 128, asked for 127" },
        { "synth:pair=tiny,vocab=4194304,agree=0,peak=0.5", "a width of 128 is too narrow to plant 4194304 ids" },
        { "synth:pair=tinny", "unknown model 'tinny'; did you mean tiny?" },
        { "synth:pair=tiny,draft=smol-30", "did you mean smol-30m?" },
        { "synth:pair=tiny,draft-type=q4_1", "unknown type 'q4_1'" },
        { "synth:pair=tiny,agree=1.1", "agree: expected a number from 0 to 1, found '1.1'" },
        { "synth:pair=tiny,agree=nan", "found 'nan'" },
        { "synth:pair=tiny,agree=", "found ''" },
        { "synth:pair=tiny,agree=.", "found '.'" },
        { "synth:pair=tiny,peak=1", "peak: expected a number from 0.5 to 0.999" },
        { "synth:pair=tiny,tail=0", "tail: expected a number from 0.05 to 20" },
        { "synth:pair=tiny,tail=0.1234567890123456", "tail: expected a number" },
        { "synth:pair=tiny,role=judge", "unknown role 'judge'" },
        { "synth:pair=tiny,pike=1", "unknown option 'pike'; did you mean peak?" },
        { "synth:tiny,agree=0.5", "unknown option 'agree'" },
        { "synth:pair=", "unknown model ''" },
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        assert_int_equal(model_source_open(WRONG[i].name, &source), STATUS_INVALID);
        if (!strstr(status_message(), WRONG[i].words)) {
            print_error("%s\n", status_message());
        }
        assert_non_null(strstr(status_message(), WRONG[i].words));
    }
}

/* ---- sources ---- */

static void test_sides(void **state)
{
    (void)state;
    struct model_source *target, *draft, *plain;
    must(model_source_open("synth:pair=llama-1b,q8_0,seed=3,layers=4,vocab=32000,context=500,tail=1.5", &target));
    must(model_source_open("synth:pair=llama-1b,q8_0,seed=3,layers=4,vocab=32000,context=500,tail=1.5,"
                           "role=target,draft-layers=3,role=draft", &draft));
    must(model_source_open("synth:tiny", &plain));
    const struct model_config *a = model_source_config(target), *b = model_source_config(draft);
    assert_true(a->n_layers == 4 && a->n_vocab == 32000 && a->context_len == 500 && a->dim == 2048);
    assert_true(b->n_layers == 3 && b->n_vocab == 32000 && b->context_len == 500 && b->dim == 256);
    assert_true(!a->tied_head && !b->tied_head);
    const struct model_pair *pair = model_source_pair(draft);
    assert_null(model_source_pair(plain));
    assert_true(pair->agree == 0.8 && pair->tail == 1.5 && pair->peak == 0.9 && pair->seed == 3);
    assert_true(pair->role == MODEL_PAIR_DRAFT && model_source_pair(target)->role == MODEL_PAIR_TARGET);
    assert_string_equal(pair->target_shape, "llama-1b");
    assert_string_equal(pair->draft_shape, "smol-30m");
    assert_true(pair->target_type == TENSOR_Q8_0 && pair->draft_type == TENSOR_Q4_0);
    model_source_close(target);
    model_source_close(draft);
    model_source_close(plain);
}

static uint64_t digest_of(const char *name)
{
    struct model_rig rig;
    must(model_rig_open(&rig, &(struct model_rig_options){ .name = name, .context = 8, .cap_rows = 1 }));
    const uint64_t digest = model_digest(rig.model);
    model_rig_close(&rig);
    return digest;
}

/* The target is the same model whatever its draft is like: figures against it share one baseline. */
static void test_target_knows_no_draft(void **state)
{
    (void)state;
    const uint64_t digest = digest_of("synth:pair=tiny,q8_0");
    assert_true(digest_of("synth:pair=tiny,q8_0,agree=0.3,tail=2,draft=tiny,draft-type=f16") == digest);
    assert_true(digest_of("synth:pair=tiny,q8_0,peak=0.8") != digest);
    assert_true(digest_of("synth:pair=tiny,q8_0,seed=2") != digest);
    const uint64_t draft = digest_of("synth:pair=tiny,draft=tiny,role=draft");
    assert_true(digest_of("synth:pair=tiny,draft=tiny,role=draft") == draft);
    assert_true(digest_of("synth:pair=tiny,draft=tiny,role=draft,agree=0.7") != draft);
    assert_true(digest_of("synth:pair=tiny,draft=tiny,role=draft,tail=2") != draft);
}

/* Rows alone, in reverse, equal rows in bulk. */
static void test_rows_are_pure(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "synth:pair=tiny,q8_0,vocab=1000", "synth:pair=tiny,q4_0,vocab=1000", "synth:pair=tiny-256,q6_k",
        "synth:pair=tiny,draft=tiny,draft-type=f32,agree=0,role=draft",
        "synth:pair=tiny,draft=tiny-256,draft-type=q4_k,agree=0.2,role=draft",
        "synth:pair=tiny,draft=tiny,draft-type=q4_0,agree=0,role=draft",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        unsigned char bulk[32 * 512], one[512];
        struct model_source *source;
        must(model_source_open(NAMES[i], &source));
        for (int64_t tensor = 0; tensor < 2; tensor++) { /* embedding and head */
            struct model_tensor_info info;
            must(model_source_tensor(source, tensor, &info));
            const size_t row_bytes = (size_t)info.bytes / (size_t)info.dims[1];
            must(model_source_read(source, tensor, 200, 32, bulk));
            for (int64_t row = 31; row >= 0; row--) {
                must(model_source_read(source, tensor, 200 + row, 1, one));
                assert_memory_equal(one, bulk + (size_t)row * row_bytes, row_bytes);
            }
            assert_memory_not_equal(bulk, bulk + row_bytes, row_bytes);
        }
        model_source_close(source);
    }
}

/* ---- forward passes ---- */

enum { CHUNK = 32 };

struct realised {
    double right, agree, planted, as_planted, coupled; /* shares of all tokens */
    double peak[2];                                    /* means of the top's probability */
    double above[MODEL_PAIR_MAX_RANK + 1];             /* counts of ranks above F */
};

static int32_t top_of(const float *logits, const float *noise_or_null, int32_t n)
{
    int32_t top = 0;
    float best = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        const float value = logits[i] + (noise_or_null ? noise_or_null[i] : 0);
        top = value > best ? i : top;
        best = value > best ? value : best;
    }
    return top;
}

static double probability(const float *logits, int32_t n, int32_t id)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)(logits[i] - logits[id]));
    }
    return 1 / sum;
}

static int32_t rank_of(const float *logits, int32_t n, int32_t id)
{
    int32_t rank = 1;
    for (int32_t i = 0; i < n; i++) {
        rank += logits[i] > logits[id];
    }
    return rank;
}

static void count_row(struct realised *realised, const float *const logits[2], const float *noise, int32_t n,
                      int32_t truth, int32_t planted_rank)
{
    const int32_t target = top_of(logits[0], NULL, n), draft = top_of(logits[1], NULL, n);
    const int32_t rank = rank_of(logits[1], n, truth);
    realised->right += target == truth;
    realised->agree += draft == target;
    realised->planted += planted_rank == 1;
    realised->as_planted += rank == planted_rank;
    realised->coupled += top_of(logits[0], noise, n) == top_of(logits[1], noise, n);
    realised->peak[0] += probability(logits[0], n, target);
    realised->peak[1] += probability(logits[1], n, draft);
    for (int32_t f = 1; f < rank && f <= MODEL_PAIR_MAX_RANK; f++) {
        realised->above[f]++;
    }
}

/* Both sides of `name` over the first n_tokens of the planted text. */
static struct realised realise(const char *name, int32_t n_tokens)
{
    struct model_rig rig[2];
    struct synth_plant plant;
    struct realised realised = { 0 };
    for (int side = 0; side < 2; side++) {
        char full[160];
        snprintf(full, sizeof full, "%s,role=%s", name, side == 0 ? "target" : "draft");
        must(model_rig_open(&rig[side], &(struct model_rig_options){ .name = full, .context = n_tokens,
                                                                     .cap_rows = CHUNK }));
    }
    const struct model_config *config = model_get_config(rig[1].model);
    const int32_t n_vocab = config->n_vocab;
    float *noise = mem_alloc((size_t)n_vocab + RNG_CHUNK_IDS, sizeof *noise);
    must(synth_plant_init(&plant, model_source_pair(rig[1].source), n_vocab, config->dim));
    for (int32_t at = 0; at < n_tokens; at += CHUNK) {
        int32_t tokens[CHUNK + 1];
        for (int32_t i = 0; i <= CHUNK; i++) {
            tokens[i] = (int32_t)synth_plant_id(&plant, (uint32_t)((at + i) % n_vocab));
        }
        const struct model_rig_part part = { 0, at, n_tokens - at < CHUNK ? n_tokens - at : CHUNK, tokens };
        const float *rows[2] = { model_rig_pass(&rig[0], &part, 1), model_rig_pass(&rig[1], &part, 1) };
        for (int32_t i = 0; i < part.n_tokens; i++) {
            const size_t row = (size_t)i * (size_t)n_vocab;
            rng_gumbel_fill(5, COIN_TARGET, (uint32_t)(at + i + 1), 0, (uint32_t)n_vocab, noise);
            count_row(&realised, (const float *const[2]){ rows[0] + row, rows[1] + row }, noise, n_vocab,
                      tokens[i + 1], synth_plant_rank(&plant, (uint32_t)((at + i) % n_vocab)));
        }
    }
    double *shares[] = { &realised.right, &realised.agree, &realised.planted, &realised.as_planted,
                         &realised.coupled, &realised.peak[0], &realised.peak[1] };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        *shares[i] /= n_tokens;
    }
    mem_free(noise);
    model_rig_close(&rig[0]);
    model_rig_close(&rig[1]);
    return realised;
}

/* In every type, of wide and of narrow shapes: the target writes the planted text, and the draft
 * agrees where it was planted to, with the planted ranks and probabilities. (Where it disagrees and few
 * tokens stand below its top, those cannot hold the rest of a low peak and stay apart from it: its top
 * has more than that then, which is what the wider limit is for.) */
static void test_realised(void **state)
{
    (void)state;
    static const struct { const char *name; double agree, peak; } PAIRS[] = {
        { "synth:pair=tiny,q8_0,vocab=2048,draft=tiny,agree=0.8", 0.8, 0.9 },
        { "synth:pair=tiny,q4_0,vocab=2048,draft=tiny-256,draft-type=q8_0,agree=0.5,tail=0.7", 0.5, 0.9 },
        { "synth:pair=tiny,f32,vocab=2048,draft=tiny-256,draft-type=q6_k,agree=0.3,tail=2", 0.3, 0.9 },
        { "synth:pair=tiny,f16,vocab=2048,draft=tiny,draft-type=bf16,agree=1,peak=0.99", 1, 0.99 },
        { "synth:pair=tiny-256,q4_k,vocab=2048,draft=tiny-256,agree=0.7,peak=0.6", 0.7, 0.6 },
        { "synth:pair=tiny-moe,q8_0,vocab=2048,agree=0.6,seed=7", 0.6, 0.9 },
    };
    for (size_t i = 0; i < sizeof PAIRS / sizeof PAIRS[0]; i++) {
        const struct realised r = realise(PAIRS[i].name, 1024);
        if (!(r.right == 1 && fabs(r.agree - r.planted) < 0.004 && r.as_planted > 0.985 &&
              fabs(r.agree - PAIRS[i].agree) < 0.04 && fabs(r.peak[0] - PAIRS[i].peak) < 0.01 &&
              fabs(r.peak[1] - PAIRS[i].peak) < (PAIRS[i].peak < 0.8 ? 0.06 : 0.01) &&
              fabs(r.coupled - r.agree) < 0.06)) {
            print_error("%s: right %.4f agree %.4f planted %.4f ranks as planted %.4f peaks %.4f %.4f "
                        "at temperature 1 %.4f\n", PAIRS[i].name, r.right, r.agree, r.planted, r.as_planted,
                        r.peak[0], r.peak[1], r.coupled);
            fail();
        }
    }
}

/* Ranks that come out, against the law itself: 2 points, and 3 deviations where they are fewer. */
static void test_realised_ranks(void **state)
{
    (void)state;
    enum { N = 4096 };
    const struct realised r = realise("synth:pair=tiny,q8_0,vocab=4096,context=4096,draft=tiny-256,agree=0.2", N);
    assert_true(r.right == 1);
    assert_true(fabs(r.agree - 0.2) < 0.02);
    const double others = N * (1 - r.agree);
    for (int32_t f = 1; f < MODEL_PAIR_MAX_RANK; f++) {
        const double share = 1.0 / f, deviation = sqrt(share * (1 - share) / others);
        assert_true(fabs(r.above[f] / others - share) < (3 * deviation < 0.02 ? 0.02 : 3 * deviation));
        assert_true(r.above[f] / others > 0.5 * share);
    }
    assert_true(r.above[MODEL_PAIR_MAX_RANK] <= 0.005 * others);
}

/* Each layer adds to the residual stream, a hundredth and not more; and what stands before a token
 * changes its logits' bits. */
static void test_layers_work(void **state)
{
    (void)state;
    enum { N = 16 };
    static const char *const NAMES[] = { "synth:pair=tiny,q8_0,layers=6", "synth:pair=tiny-moe,q4_0",
                                         "synth:pair=tiny,role=draft", "synth:pair=tiny-256,q6_k" };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        struct model_rig rig;
        must(model_rig_open(&rig, &(struct model_rig_options){ .name = NAMES[i], .context = N, .cap_rows = N }));
        const struct model_config *config = model_get_config(rig.model);
        const size_t dim = (size_t)config->dim, n_vocab = (size_t)config->n_vocab;
        float *tap[2] = { mem_alloc(N * dim, sizeof(float)), mem_alloc(N * dim, sizeof(float)) };
        int32_t row[4][N];
        for (int32_t at = 0; at < N; at++) {
            row[0][at] = at % 2 == 0 ? 17 : at; /* token */
            row[1][at] = row[2][at] = row[3][at] = at; /* position, slot, logits row */
        }
        const int32_t seq[N] = { 0 };
        for (int32_t layer = 0; layer < config->n_layers; layer++) {
            double added = 0, squares = 0;
            for (int32_t end = 0; end < 2; end++) {
                const struct pass pass = { .n_rows = N, .n_seqs = 1, .n_logits = N, .token = row[0],
                                           .position = row[1], .slot = row[2], .seq_of_row = seq,
                                           .views = rig.views, .logits_row = row[3], .tap = tap[end],
                                           .tap_layer = layer + end };
                lane_wait(rig.lane, model_forward(rig.model, rig.lane, &rig.store, &pass, rig.buffers));
            }
            for (size_t at = 0; at < N * dim; at++) {
                const double difference = (double)tap[1][at] - (double)tap[0][at];
                added += difference * difference;
                squares += (double)tap[0][at] * (double)tap[0][at];
            }
            const double share = sqrt(added / squares);
            if (!(share > 0.004 && share < 0.025)) {
                print_error("%s: layer %d adds a share of %.4f\n", NAMES[i], layer, share);
                fail();
            }
        }
        const float *logits = pass_buffers_logits(rig.buffers);
        assert_memory_not_equal(logits, logits + 2 * n_vocab, n_vocab * sizeof *logits);
        mem_free(tap[0]);
        mem_free(tap[1]);
        model_rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_cycle),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_too_narrow),
        cmocka_unit_test(test_sides),
        cmocka_unit_test(test_target_knows_no_draft),
        cmocka_unit_test(test_rows_are_pure),
        cmocka_unit_test(test_realised),
        cmocka_unit_test(test_realised_ranks),
        cmocka_unit_test(test_layers_work),
    };
    return cmocka_run_group_tests_name("synth_pair", tests, NULL, NULL);
}
