/* Attention: every instruction set gives the definition's bits, at every shape; the definition is close
 * to double precision; what a row may not see cannot touch it; planted bugs show.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/attention.h"

enum { N_LAYERS = 2, N_KV_HEADS = 2, MAX_GROUP = 9, MAX_LEN = 768, LAYER = 1, KV_HEAD = 1,
       SPARE_SLOTS = 256 /* of a fixture, for paths */ };

struct shape { enum kv_type type; int32_t head_dim, n_group, len, page_slots, window; };

/* One sequence of `len` positions in shuffled pages; everything it has not written is NaN. */
struct fixture {
    struct shape shape;
    struct backend *backend;
    struct kv_store store;
    uint32_t pages[MAX_LEN / KV_BLOCK_SLOTS];
    struct kv_view view;
    int32_t path[KV_PATH_CAP];
    float *q;              /* [n_group, head_dim] */
    float *k, *v;          /* [len, head_dim] as stored, of KV_HEAD */
    float *scratch;
    unsigned char *path_blocks;
};

static uint64_t noise_state;

static float noise(void) /* in -1 .. 1 */
{
    noise_state = rng_mix64(noise_state + 1);
    return (float)(int32_t)(noise_state >> 32) * 0x1p-31f;
}

static void put_half(unsigned char *block, int32_t idx, float value)
{
    const uint16_t half = mathx_f32_to_f16(value);
    memcpy(block + (size_t)idx * 2, &half, 2);
}

static void put_in_slot(const struct fixture *f, int32_t slot, int32_t d, float k, float v)
{
    const struct kv_store *store = &f->store;
    const int32_t in_page = slot % store->page_slots, lane = in_page % KV_BLOCK_SLOTS;
    const size_t offset = attention_block_offset(store, LAYER, (uint32_t)(slot / store->page_slots),
                                                 KV_HEAD, in_page / KV_BLOCK_SLOTS);
    if (store->type == KV_F16) {
        put_half(store->k + offset, d * KV_BLOCK_SLOTS + lane, k);
        put_half(store->v + offset, lane * store->head_dim + d, v);
    } else {
        memcpy(store->k + offset + (size_t)(d * KV_BLOCK_SLOTS + lane) * 4, &k, 4);
        memcpy(store->v + offset + (size_t)(lane * store->head_dim + d) * 4, &v, 4);
    }
}

static void put(const struct fixture *f, int32_t position, int32_t d, float k, float v)
{
    put_in_slot(f, kv_view_slot(&f->view, f->store.page_slots, position), d, k, v);
}

static void fill(struct fixture *f, float sharpness)
{
    const struct shape *s = &f->shape;
    for (int32_t i = 0; i < s->n_group * s->head_dim; i++) {
        f->q[i] = noise() * sharpness;
    }
    for (int32_t p = 0; p < s->len; p++) {
        for (int32_t d = 0; d < s->head_dim; d++) {
            const size_t at = (size_t)(p * s->head_dim + d);
            f->k[at] = noise();
            f->v[at] = noise() * 3.0f;
            if (s->type == KV_F16) {
                f->k[at] = mathx_f16_to_f32(mathx_f32_to_f16(f->k[at]));
                f->v[at] = mathx_f16_to_f32(mathx_f32_to_f16(f->v[at]));
            }
            put(f, p, d, f->k[at], f->v[at]);
        }
    }
}

static void fixture_init(struct fixture *f, const struct shape *shape, float sharpness)
{
    const int32_t n_pages = (shape->len + shape->page_slots - 1) / shape->page_slots;
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    noise_state = (uint64_t)(shape->head_dim * 1000003 + shape->len * 1009 + shape->n_group);
    assert_int_equal(backend_create("cpu", "scalar", &f->backend), STATUS_OK);
    f->store = (struct kv_store){ .type = shape->type, .n_layers = N_LAYERS,
                                  .n_kv_heads = N_KV_HEADS, .head_dim = shape->head_dim,
                                  .page_slots = shape->page_slots,
                                  .n_pages = n_pages + 1 + SPARE_SLOTS / shape->page_slots };
    assert_int_equal(kv_store_init(f->backend, &f->store), STATUS_OK);
    for (int32_t p = 0; p < f->store.n_pages; p++) {
        kv_store_poison(&f->store, (uint32_t)p, 0, shape->page_slots);
    }
    for (int32_t p = 0; p < n_pages; p++) { /* backwards, and one page left out */
        f->pages[p] = (uint32_t)((n_pages - 1 - p + 1) % (n_pages + 1));
    }
    f->view = (struct kv_view){ .pages = f->pages, .n_pages = n_pages };
    f->q = mem_alloc((size_t)(shape->n_group * shape->head_dim), sizeof(float));
    f->k = mem_alloc((size_t)(shape->len * shape->head_dim), sizeof(float));
    f->v = mem_alloc((size_t)(shape->len * shape->head_dim), sizeof(float));
    f->scratch = mem_alloc(attention_scratch_floats(shape->n_group, shape->head_dim), sizeof(float));
    f->path_blocks = mem_alloc(attention_path_bytes(&f->store), 1);
    assert_non_null(f->scratch);
    assert_non_null(f->path_blocks);
    fill(f, sharpness);
}

static void fixture_deinit(struct fixture *f)
{
    kv_store_deinit(f->backend, &f->store);
    backend_destroy(f->backend);
    mem_free(f->q);
    mem_free(f->k);
    mem_free(f->v);
    mem_free(f->scratch);
    mem_free(f->path_blocks);
}

static int32_t first_of(const struct shape *s)
{
    return s->window > 0 && s->len > s->window ? s->len - s->window : 0;
}

static void attend(struct fixture *f, void (*attention)(const struct attention_job *), float *out)
{
    const struct shape *s = &f->shape;
    const struct attention_job job = {
        .q = f->q, .out = out, .n_group = s->n_group, .head_dim = s->head_dim,
        .first = first_of(s), .last = s->len - 1, .scale = 0.125f, .store = &f->store,
        .view = &f->view, .layer = LAYER, .kv_head = KV_HEAD, .scratch = f->scratch,
        .path_blocks = f->path_blocks,
    };
    const size_t n_scratch = attention_scratch_floats(s->n_group, s->head_dim);
    memset(f->scratch, 0xff, n_scratch * sizeof(float)); /* NaN: scratch is not read unwritten */
    memset(f->path_blocks, 0xff, attention_path_bytes(&f->store));
    attention(&job);
}

static void explain(const struct shape *s, const char *who)
{
    print_error("%s differs: %s head_dim %d group %d len %d page %d window %d\n", who,
                s->type == KV_F16 ? "f16" : "f32", s->head_dim, s->n_group, s->len, s->page_slots,
                s->window);
}

static void check_parity(const struct shape *shape)
{
    static float want[MAX_GROUP * ATTENTION_MAX_HEAD_DIM], got[MAX_GROUP * ATTENTION_MAX_HEAD_DIM];
    const size_t bytes = (size_t)(shape->n_group * shape->head_dim) * sizeof(float);
    struct fixture f;
    fixture_init(&f, shape, 4.0f);
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, want);
    for (int32_t i = 0; i < shape->n_group * shape->head_dim; i++) {
        assert_true(isfinite(want[i]));
    }
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        if (cpu_kernels_for(isa)) {
            memset(got, 0, bytes);
            attend(&f, cpu_kernels_for(isa)->attention, got);
            if (memcmp(want, got, bytes) != 0) {
                explain(shape, isa_name(isa));
                fail();
            }
        }
    }
    fixture_deinit(&f);
}

static const int32_t head_dims[] = { 16, 48, 64, 80, 128, 256 };
static const int32_t lens[] = { 1, 2, 15, 16, 17, 31, 255, 256, 257, 511, 512, 513, 700 };
static const int32_t page_slots[] = { 16, 48, 64, 256 };
#define COUNT(array) ((int32_t)(sizeof(array) / sizeof((array)[0])))

static void parity_at_every_length_and_page_size(void **state)
{
    (void)state;
    for (int32_t l = 0; l < COUNT(lens); l++) {
        for (int32_t p = 0; p < COUNT(page_slots); p++) {
            for (int t = 0; t < 2; t++) {
                check_parity(&(struct shape){ t ? KV_F32 : KV_F16, 64, 1 + (l + p) % 4, lens[l],
                                              page_slots[p], 0 });
            }
        }
    }
}

static void parity_at_every_head_size_and_group(void **state)
{
    (void)state;
    for (int32_t d = 0; d < COUNT(head_dims); d++) {
        for (int32_t n_group = 1; n_group <= MAX_GROUP; n_group++) {
            for (int t = 0; t < 2; t++) {
                check_parity(&(struct shape){ t ? KV_F32 : KV_F16, head_dims[d], n_group,
                                              lens[(d + n_group * 5) % COUNT(lens)], 16, 0 });
            }
        }
    }
}

static void parity_with_a_window(void **state)
{
    static const int32_t windows[] = { 1, 15, 16, 17, 200, 256, 257, 400 };
    (void)state;
    for (int32_t w = 0; w < COUNT(windows); w++) {
        for (int32_t l = 0; l < COUNT(lens); l++) {
            check_parity(&(struct shape){ KV_F16, 48, 3, lens[l], 48, windows[w] });
        }
    }
}

static void parity_of_the_definition_compiled_twice(void **state)
{
    static float want[4 * 64], got[4 * 64];
    const struct shape shape = { KV_F16, 64, 4, 300, 16, 0 };
    struct fixture f;
    (void)state;
    fixture_init(&f, &shape, 4.0f);
    attend(&f, cpu_kernels_scalar->attention, want); /* fma by function call */
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_memory_equal(want, got, sizeof want);
    fixture_deinit(&f);
}

/* Softmax attention in double, no segments. */
static void reference(const struct fixture *f, int32_t head, double *out)
{
    const struct shape *s = &f->shape;
    double weight[MAX_LEN], sum = 0, max = -INFINITY;
    for (int32_t p = first_of(s); p < s->len; p++) {
        double dot = 0;
        for (int32_t d = 0; d < s->head_dim; d++) {
            dot += (double)f->q[head * s->head_dim + d] * (double)f->k[p * s->head_dim + d];
        }
        weight[p] = dot * 0.125;
        max = weight[p] > max ? weight[p] : max;
    }
    for (int32_t d = 0; d < s->head_dim; d++) {
        out[d] = 0;
    }
    for (int32_t p = first_of(s); p < s->len; p++) {
        weight[p] = exp(weight[p] - max);
        sum += weight[p];
    }
    for (int32_t p = first_of(s); p < s->len; p++) {
        for (int32_t d = 0; d < s->head_dim; d++) {
            out[d] += weight[p] / sum * (double)f->v[p * s->head_dim + d];
        }
    }
}

static double error_against_double(struct fixture *f, const float *out)
{
    const struct shape *s = &f->shape;
    double want[ATTENTION_MAX_HEAD_DIM], worst = 0;
    for (int32_t h = 0; h < s->n_group; h++) {
        reference(f, h, want);
        for (int32_t d = 0; d < s->head_dim; d++) {
            const double error = fabs((double)out[h * s->head_dim + d] - want[d]);
            worst = error > worst ? error : worst;
        }
    }
    return worst;
}

static void the_definition_is_close_to_double(void **state)
{
    static float out[4 * 128];
    static const float sharpness[] = { 0.5f, 8.0f, 60.0f }; /* flat to nearly one-hot */
    (void)state;
    for (int32_t i = 0; i < COUNT(sharpness); i++) {
        for (int32_t l = 0; l < COUNT(lens); l++) {
            const struct shape shape = { KV_F32, l % 2 ? 128 : 64, 4, lens[l], 16, l % 3 ? 0 : 300 };
            struct fixture f;
            fixture_init(&f, &shape, sharpness[i]);
            attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, out);
            assert_true(error_against_double(&f, out) < 3e-5);
            fixture_deinit(&f);
        }
    }
}

/* Two things a wrong kernel might do; the comparison must see both. */
static void planted_bugs_show(void **state)
{
    static float want[64], got[64];
    const struct shape shape = { KV_F32, 64, 1, 300, 16, 0 };
    struct fixture f;
    (void)state;
    fixture_init(&f, &shape, 4.0f);
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, want);
    /* a chain split in two: the sum over the last segment, its halves added at the end */
    float whole = 0, low = 0, high = 0;
    for (int32_t p = 0; p < SEGMENT_ELEMS; p++) {
        whole = mathx_fma(f.v[p * 64], 0.3f, whole);
        *(p < SEGMENT_ELEMS / 2 ? &low : &high) =
            mathx_fma(f.v[p * 64], 0.3f, p < SEGMENT_ELEMS / 2 ? low : high);
    }
    assert_true(whole != low + high);
    /* segments anchored at the row's end instead of position 0: same numbers, other bits */
    struct fixture moved;
    const struct shape longer = { KV_F32, 64, 1, 301, 16, 300 };
    fixture_init(&moved, &longer, 4.0f);
    memcpy(moved.q, f.q, 64 * sizeof(float));
    for (int32_t p = 0; p < 300; p++) {
        for (int32_t d = 0; d < 64; d++) {
            put(&moved, p + 1, d, f.k[p * 64 + d], f.v[p * 64 + d]);
            moved.k[(p + 1) * 64 + d] = f.k[p * 64 + d];
            moved.v[(p + 1) * 64 + d] = f.v[p * 64 + d];
        }
    }
    attend(&moved, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_true(error_against_double(&moved, got) < 3e-5);
    assert_memory_not_equal(want, got, sizeof want);
    /* reading one poisoned position too many */
    f.shape.len = 301;
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_true(isnan(got[0]));
    fixture_deinit(&moved);
    fixture_deinit(&f);
}

/* ---- paths: where a position lies does not matter ---- */

/* Moves positions fork .. len - 1 to spare slots, in an order that has none; where they were is NaN.
 * The view's path gets `n_more` slots beyond the row's own position. */
static void scatter(struct fixture *f, int32_t fork, int32_t n_more)
{
    const int32_t page_len = f->store.page_slots, n_path = f->shape.len - fork;
    const int32_t first_spare = (f->store.n_pages - SPARE_SLOTS / page_len) * page_len;
    const int32_t n_spare = SPARE_SLOTS / page_len * page_len;
    for (int32_t i = 0; i < n_path + n_more; i++) { /* 37 has no factor in common with any n_spare */
        f->path[i] = first_spare + (i * 37 + fork) % n_spare;
    }
    for (int32_t i = 0; i < n_path; i++) {
        const int32_t was = kv_view_slot(&f->view, page_len, fork + i);
        kv_store_poison(&f->store, (uint32_t)(was / page_len), was % page_len, 1);
        for (int32_t d = 0; d < f->shape.head_dim; d++) {
            const size_t at = (size_t)((fork + i) * f->shape.head_dim + d);
            put_in_slot(f, f->path[i], d, f->k[at], f->v[at]);
        }
    }
    f->view.fork = fork;
    f->view.path = f->path;
    f->view.n_path = n_path + n_more;
}

static void check_path(const struct shape *shape, int32_t n_path, int32_t n_more)
{
    static float want[MAX_GROUP * ATTENTION_MAX_HEAD_DIM], got[MAX_GROUP * ATTENTION_MAX_HEAD_DIM];
    const size_t bytes = (size_t)(shape->n_group * shape->head_dim) * sizeof(float);
    struct fixture f;
    fixture_init(&f, shape, 4.0f);
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, want);
    scatter(&f, shape->len - n_path, n_more);
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (cpu_kernels_for(isa)) {
            memset(got, 0, bytes);
            attend(&f, cpu_kernels_for(isa)->attention, got);
            if (memcmp(want, got, bytes) != 0) {
                explain(shape, isa_name(isa));
                fail_msg("with a path of %d positions", n_path);
            }
        }
    }
    fixture_deinit(&f);
}

static const int32_t path_lens[] = { 1, 2, 15, 16, 17, 33, 63, 64 };

static void a_path_has_the_bits_of_a_chain(void **state)
{
    static const int32_t path_head_dims[] = { 16, 64, 80 };
    (void)state;
    for (int32_t l = 0; l < COUNT(lens); l++) {
        for (int32_t n = 0; n < COUNT(path_lens); n++) {
            for (int t = 0; t < 2 && path_lens[n] <= lens[l]; t++) {
                const int32_t n_more = path_lens[n] < KV_PATH_CAP ? n % 3 % 2 : 0;
                check_path(&(struct shape){ t ? KV_F32 : KV_F16, path_head_dims[(l + n) % 3], 1 + n % 5,
                                            lens[l], page_slots[(l + n) % 4], 0 },
                           path_lens[n], n_more);
            }
        }
    }
}

static void a_path_under_a_window(void **state)
{
    static const int32_t windows[] = { 1, 15, 16, 17, 40, 256 };
    (void)state;
    for (int32_t w = 0; w < COUNT(windows); w++) {
        for (int32_t n = 0; n < COUNT(path_lens); n++) {
            for (int32_t l = 9; l < 13; l++) {
                check_path(&(struct shape){ KV_F16, 48, 3, lens[l], 48, windows[w] }, path_lens[n], 0);
            }
        }
    }
}

/* Every place of the fork in a block, and both ends of a segment. */
static void a_path_at_every_alignment(void **state)
{
    (void)state;
    for (int32_t len = 240; len <= 273; len++) {
        check_path(&(struct shape){ KV_F16, 32, 2, len, 16, 0 }, 1 + len % 5, 0);
        check_path(&(struct shape){ KV_F16, 32, 2, len + 256, 64, 0 }, KV_PATH_CAP, 0);
    }
}

/* A row below the fork does not see the path; two positions changed for each other do show. */
static void the_path_is_what_is_read(void **state)
{
    static float want[64], got[64];
    struct fixture f;
    (void)state;
    fixture_init(&f, &(struct shape){ KV_F32, 64, 1, 300, 16, 0 }, 4.0f);
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, want);
    f.view.fork = 300;
    f.view.path = f.path; /* slots that hold NaN */
    f.view.n_path = 1;
    f.path[0] = (f.store.n_pages - 1) * 16;
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_memory_equal(want, got, sizeof want);
    f.view.n_path = 0;
    scatter(&f, 280, 0);
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_memory_equal(want, got, sizeof want);
    const int32_t slot = f.path[3];
    f.path[3] = f.path[11];
    f.path[11] = slot;
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_memory_not_equal(want, got, sizeof want);
    assert_true(error_against_double(&f, got) < 3e-5); /* the same sum in another order: other bits only */
    f.path[3] = slot + 1;
    attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, got);
    assert_true(error_against_double(&f, got) > 3e-5 || isnan(got[0]));
    fixture_deinit(&f);
}

/* ---- through a lane ---- */

static void lane_run(const char *isa, int n_workers, int32_t first_row, int32_t n_rows, float *out)
{
    enum { HEADS = 6, DIM = 48, LEN = 270, DIMS_KV = N_KV_HEADS * DIM };
    static float q[LEN * HEADS * DIM], k[LEN * DIMS_KV], v[LEN * DIMS_KV], q_row[LEN * HEADS * DIM];
    static float k_row[LEN * DIMS_KV], cosines[LEN * DIM / 2], sines[LEN * DIM / 2];
    int32_t position[LEN], slot[LEN], seq[LEN] = { 0 };
    struct backend *backend;
    struct lane *lane;
    uint32_t pages[LEN / 48 + 1];
    noise_state = 7;
    for (int32_t i = 0; i < LEN * DIM / 2; i++) {
        cosines[i] = noise();
        sines[i] = noise();
    }
    for (int32_t i = 0; i < LEN * HEADS * DIM; i++) {
        q[i] = noise() * 4.0f;
    }
    for (int32_t i = 0; i < LEN * DIMS_KV; i++) {
        k[i] = noise();
        v[i] = noise();
    }
    for (uint32_t i = 0; i < LEN / 48 + 1; i++) {
        pages[i] = LEN / 48 - i;
    }
    assert_int_equal(backend_create("cpu", isa, &backend), STATUS_OK);
    const struct lane_options options = { .n_workers = n_workers, .caller_is_worker = true,
                                          .scratch_bytes = 1 << 16 };
    assert_int_equal(lane_create(backend, &options, &lane), STATUS_OK);
    struct kv_store store = { .type = KV_F16, .n_layers = N_LAYERS, .n_kv_heads = N_KV_HEADS,
                              .head_dim = DIM, .page_slots = 48, .n_pages = LEN / 48 + 1 };
    assert_int_equal(kv_store_init(backend, &store), STATUS_OK);
    const struct kv_view view = { .pages = pages, .n_pages = LEN / 48 + 1 };
    /* all positions are stored first, one pass of rows each; then the rows asked for attend */
    for (int32_t i = 0; i < LEN; i++) {
        position[i] = i;
        slot[i] = (int32_t)pages[i / 48] * 48 + i % 48;
    }
    memcpy(q_row, q, sizeof q);
    memcpy(k_row, k, sizeof k);
    const struct op_rope_store rope = {
        .q = q_row, .k = k_row, .v = v, .cos = cosines, .sin = sines, .position = position,
        .slot = slot, .store = &store, .layer = LAYER, .n_rows = LEN, .n_heads = HEADS,
        .rope_dims = DIM,
    };
    backend_rope_store(lane, &rope);
    lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0)); /* positions change next */
    position[first_row + n_rows - 1] = n_rows > 1 ? -1 : position[first_row]; /* a pad row */
    const struct op_attention op = {
        .q = q_row + first_row * HEADS * DIM, .out = out, .views = &view, .seq_of_row = seq,
        .position = position + first_row, .store = &store, .layer = LAYER, .n_rows = n_rows,
        .n_heads = HEADS, .window = 0, .scale = 0.2f,
    };
    backend_attention(lane, &op);
    const struct op_page_copy copy = { &store, 0, 1 };
    backend_page_copy(lane, &copy);
    lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0));
    float k0[DIMS_KV], v0[DIMS_KV], k1[DIMS_KV], v1[DIMS_KV];
    kv_store_read(&store, LAYER, 0 * 48 + 5, k0, v0);
    kv_store_read(&store, LAYER, 1 * 48 + 5, k1, v1);
    assert_memory_equal(k0, k1, sizeof k0);
    assert_memory_equal(v0, v1, sizeof v0);
    kv_store_deinit(backend, &store);
    lane_destroy(lane);
    backend_destroy(backend);
}

static void rows_alone_or_together_on_any_number_of_workers(void **state)
{
    enum { HEADS = 6, DIM = 48, ROW = HEADS * DIM, N = 17 };
    static float together[N * ROW], again[N * ROW], alone[ROW];
    static const float zeros[ROW];
    (void)state;
    lane_run("scalar", 1, 250, N, together);
    assert_memory_equal(together + (N - 1) * ROW, zeros, sizeof zeros);
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (cpu_kernels_for(isa)) {
            lane_run(isa_name(isa), 2, 250, N, again);
            assert_memory_equal(together, again, sizeof again);
            for (int32_t i = 0; i < 16; i += 5) {
                lane_run(isa_name(isa), 1, 250 + i, 1, alone);
                assert_memory_equal(together + i * ROW, alone, sizeof alone);
            }
        }
    }
}

/* The operation hands the kernel at most ATTENTION_MAX_GROUP heads, and the last `window` positions. */
static void windows_and_many_heads_through_the_operation(void **state)
{
    enum { HEADS_OF_KV = 21, DIM = 16, LEN = 300 };
    static float q[N_KV_HEADS * HEADS_OF_KV * DIM], out[N_KV_HEADS * HEADS_OF_KV * DIM];
    static float want[DIM];
    static const int32_t windows[] = { 0, 1, 17, 256, 299, 300, 301 };
    (void)state;
    for (int32_t w = 0; w < COUNT(windows); w++) {
        struct fixture f;
        fixture_init(&f, &(struct shape){ KV_F16, DIM, 1, LEN, 16, windows[w] }, 4.0f);
        for (int32_t i = 0; i < N_KV_HEADS * HEADS_OF_KV * DIM; i++) {
            q[i] = noise() * 4.0f;
        }
        struct lane *lane;
        const struct lane_options options = { .n_workers = 1, .caller_is_worker = true,
                                              .scratch_bytes = 1 << 16 };
        assert_int_equal(lane_create(f.backend, &options, &lane), STATUS_OK);
        const int32_t seq = 0, position = LEN - 1;
        const struct op_attention op = {
            .q = q, .out = out, .views = &f.view, .seq_of_row = &seq, .position = &position,
            .store = &f.store, .layer = LAYER, .n_rows = 1, .n_heads = N_KV_HEADS * HEADS_OF_KV,
            .window = windows[w], .scale = 0.125f,
        };
        backend_attention(lane, &op);
        lane_wait(lane, lane_submit(lane, NULL, NULL, 0, 0));
        for (int32_t h = KV_HEAD * HEADS_OF_KV; h < (KV_HEAD + 1) * HEADS_OF_KV; h++) {
            memcpy(f.q, q + h * DIM, sizeof want);
            attend(&f, cpu_kernels_for(ISA_SCALAR)->attention, want);
            assert_memory_equal(want, out + h * DIM, sizeof want);
            assert_true(error_against_double(&f, want) < 3e-5);
        }
        lane_destroy(lane);
        fixture_deinit(&f);
    }
}

static void impossible_stores_are_refused(void **state)
{
    struct backend *backend;
    struct kv_store store = { .type = KV_F16, .n_layers = 1, .n_kv_heads = 1, .head_dim = 24,
                              .page_slots = 16, .n_pages = 1 };
    (void)state;
    assert_int_equal(backend_create("cpu", NULL, &backend), STATUS_OK);
    assert_int_equal(kv_store_init(backend, &store), STATUS_UNSUPPORTED);
    store.head_dim = 64;
    store.page_slots = 20;
    assert_int_equal(kv_store_init(backend, &store), STATUS_INVALID);
    store.page_slots = 1 << 30;
    store.n_kv_heads = store.n_layers = store.n_pages = INT32_MAX;
    assert_int_equal(kv_store_bytes(&store), 0);
    assert_int_equal(kv_store_init(backend, &store), STATUS_INVALID);
    store = (struct kv_store){ .type = KV_F32, .n_layers = 2, .n_kv_heads = 3, .head_dim = 64,
                               .page_slots = 32, .n_pages = 5 };
    assert_int_equal(kv_store_bytes(&store), 2 * 2 * 3 * 64 * 32 * 5 * 4);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(kv_store_init(backend, &store), STATUS_NO_MEMORY);
        assert_null(store.k);
        assert_null(store.v);
    }
    mem_fail_at(0);
    backend_destroy(backend);
}

static int compare_offsets(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* Blocks of one layout: as many places as there are blocks, none twice, none outside; and the pages a
 * sequence takes first lie before all that no sequence has reached. */
static void check_places(const struct kv_store *store)
{
    enum { CAP = 4096 };
    static size_t places[CAP];
    const size_t block_bytes = (size_t)KV_BLOCK_SLOTS * (size_t)store->head_dim * 2;
    const int32_t blocks = store->page_slots / KV_BLOCK_SLOTS;
    size_t n = 0, end_of_first_run = 0;
    for (int32_t page = 0; page < store->n_pages; page++) {
        for (int32_t i = 0; i < store->n_layers * store->n_kv_heads * blocks; i++, n++) {
            assert_true(n < CAP);
            places[n] = attention_block_offset(store, i / blocks / store->n_kv_heads, (uint32_t)page,
                                               i / blocks % store->n_kv_heads, i % blocks);
            if (page < KV_RUN_PAGES) {
                end_of_first_run = places[n] > end_of_first_run ? places[n] : end_of_first_run;
            } else {
                assert_true(places[n] > end_of_first_run);
            }
        }
    }
    qsort(places, n, sizeof places[0], compare_offsets);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(places[i], i * block_bytes);
    }
    assert_int_equal(2 * n * block_bytes, kv_store_bytes(store));
}

static void blocks_have_places_of_their_own(void **state)
{
    (void)state;
    static const int32_t n_pages[] = { 1, 2, 15, 16, 17, 32, 37 };
    for (size_t i = 0; i < sizeof n_pages / sizeof n_pages[0]; i++) {
        check_places(&(struct kv_store){ .type = KV_F16, .n_layers = 3, .n_kv_heads = 5, .head_dim = 32,
                                         .page_slots = 32, .n_pages = n_pages[i] });
    }
}

/* A head's pages within a run follow one another: reading goes straight on. */
static void pages_of_a_run_follow_one_another(void **state)
{
    (void)state;
    const struct kv_store store = { .type = KV_F16, .n_layers = 3, .n_kv_heads = 5, .head_dim = 32,
                                    .page_slots = 32, .n_pages = 37 };
    for (uint32_t page = 0; page + 1 < 37; page++) {
        if ((page + 1) % KV_RUN_PAGES != 0) {
            assert_int_equal(attention_block_offset(&store, 2, page + 1, 3, 0),
                             attention_block_offset(&store, 2, page, 3, 0) + 32 * 32 * 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity_at_every_length_and_page_size),
        cmocka_unit_test(parity_at_every_head_size_and_group),
        cmocka_unit_test(parity_with_a_window),
        cmocka_unit_test(parity_of_the_definition_compiled_twice),
        cmocka_unit_test(the_definition_is_close_to_double),
        cmocka_unit_test(planted_bugs_show),
        cmocka_unit_test(a_path_has_the_bits_of_a_chain),
        cmocka_unit_test(a_path_under_a_window),
        cmocka_unit_test(a_path_at_every_alignment),
        cmocka_unit_test(the_path_is_what_is_read),
        cmocka_unit_test(rows_alone_or_together_on_any_number_of_workers),
        cmocka_unit_test(windows_and_many_heads_through_the_operation),
        cmocka_unit_test(impossible_stores_are_refused),
        cmocka_unit_test(blocks_have_places_of_their_own),
        cmocka_unit_test(pages_of_a_run_follow_one_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
