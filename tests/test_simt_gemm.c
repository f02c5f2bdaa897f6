/* Products of the fast plan on an emulated GPU with an emulated cuBLASLt (tests/simt/cublaslt.cpp says what that would
 * notice): sums against doubles, what is added, matrices that take turns, algorithms that are kept, what fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "backend/cuda/gemm.h"
#include "tests/simt/bed.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { CAP_ROWS = 90, MOST_IN = 320, PARTS = 2 };

/* A lane of the plan, with a pass under way. */
struct fast {
    struct backend *backend;
    struct lane *lane;
    struct pass_desk *desk;
    size_t held_before;
};

static enum status fast_open(struct fast *fast, size_t matrix_elems)
{
    const struct lane_options options = { .n_workers = 1, .caller_is_worker = true };
    *fast = (struct fast){ .held_before = simt_held_bytes() };
    TRY(backend_create("cuda:0", "scalar", &fast->backend));
    TRY(backend_set_plan(fast->backend, PLAN_FAST));
    assert_int_equal(backend_plan(fast->backend), PLAN_FAST);
    TRY(lane_create(fast->backend, &options, &fast->lane));
    return backend_desk_create(fast->backend, &(struct pass_shape){
        .cap_rows = CAP_ROWS, .cap_logits = 1, .n_vocab = 8, .n_heads = 1, .head_dim = 32, .context = 64,
        .most_in = MOST_IN, .matrix_elems = matrix_elems }, &fast->desk);
}

static void fast_close(struct fast *fast)
{
    if (fast->desk != NULL) {
        backend_desk_destroy(fast->backend, fast->desk);
    }
    lane_destroy(fast->lane);
    backend_destroy(fast->backend);
    assert_int_equal(simt_held_bytes(), fast->held_before);
}

static int begin(void **state)
{
    (void)state;
    simt_reset();
    simt_set_blas(1);
    simt_fail_blas(-1);
    (void)simt_take_error();
    bed_seed(11);
    return 0;
}

/* Submits within a pass of so many rows, and waits. */
static void run_pass(struct fast *fast, int32_t n_rows, const struct op_linear *op)
{
    static const int32_t zeros[CAP_ROWS];
    static const uint32_t page;
    static int32_t slots[CAP_ROWS];
    const struct kv_view view = { .pages = &page, .n_pages = 1 };
    const struct kv_store store = { .page_slots = 16, .n_pages = 1 };
    struct pass_inputs inputs = { .n_rows = n_rows, .n_seqs = 1, .n_logits = 1, .token = zeros, .position = zeros,
                                  .slot = slots, .seq_of_row = zeros, .views = &view, .logits_row = zeros,
                                  .store = &store };
    const struct pass_result result = { .n_logits = 0 };
    assert_int_equal(backend_pass_begin(fast->lane, fast->desk, &inputs), PASS_SUBMIT);
    backend_linear(fast->lane, op);
    lane_wait(fast->lane, backend_pass_end(fast->lane, fast->desk, &result));
}

/* ---- one layer ---- */
struct layer {
    enum tensor_type type;
    int32_t n_in, n_rows, n_out[PARTS];
    unsigned char *file[PARTS];
    float *x, *add, *bias;              /* of the host; add belongs to part 0, bias to part 1 */
    struct weight weight[PARTS];
    struct act act;
    void *act_memory;
    float *out[PARTS], *device_bias;
};

static void *upload(struct fast *fast, const void *from, size_t bytes)
{
    void *to = backend_alloc(fast->backend, bytes);
    assert_non_null(to);
    assert_int_equal(backend_upload(fast->backend, to, from, bytes), STATUS_OK);
    return to;
}

static size_t out_bytes(const struct layer *l, int p) { return (size_t)l->n_rows * (size_t)l->n_out[p] * sizeof(float); }

static void layer_open(struct fast *fast, struct layer *l)
{
    const int32_t stride = (l->n_in + 3) / 4 * 4;
    l->x = bed_floats((size_t)l->n_rows * (size_t)l->n_in);
    l->add = bed_floats((size_t)l->n_rows * (size_t)l->n_out[0]);
    l->bias = bed_floats((size_t)l->n_out[1]);
    l->act_memory = backend_alloc(fast->backend, backend_rows_bytes(fast->backend, l->n_in, l->n_rows));
    backend_rows_init(fast->backend, &l->act, l->n_in, l->n_rows, l->act_memory);
    for (int32_t r = 0; r < l->n_rows; r++) {
        assert_int_equal(backend_upload(fast->backend, l->act.f32 + (size_t)r * (size_t)stride,
                                        l->x + (size_t)r * (size_t)l->n_in, (size_t)l->n_in * sizeof(float)), STATUS_OK);
    }
    for (int p = 0; p < PARTS; p++) {
        l->file[p] = bed_file_rows(l->type, l->n_out[p], l->n_in);
        l->weight[p] = (struct weight){ l->type, l->n_out[p], l->n_in, NULL };
        l->weight[p].data = backend_alloc(fast->backend,
                                          backend_matrix_bytes(fast->backend, l->type, l->n_out[p], l->n_in));
        assert_int_equal(backend_matrix_fill(fast->backend, &l->weight[p], 0, l->n_out[p], l->file[p],
                                             bed_row_bytes(l->type, l->n_in)), STATUS_OK);
        l->out[p] = backend_alloc(fast->backend, out_bytes(l, p));
    }
    assert_int_equal(backend_upload(fast->backend, l->out[0], l->add, out_bytes(l, 0)), STATUS_OK);
    l->device_bias = upload(fast, l->bias, (size_t)l->n_out[1] * sizeof(float));
}

static void layer_close(struct fast *fast, struct layer *l)
{
    backend_free(fast->backend, l->act_memory, backend_rows_bytes(fast->backend, l->n_in, l->n_rows));
    backend_free(fast->backend, l->device_bias, (size_t)l->n_out[1] * sizeof(float));
    for (int p = 0; p < PARTS; p++) {
        backend_free(fast->backend, l->weight[p].data,
                     backend_matrix_bytes(fast->backend, l->type, l->n_out[p], l->n_in));
        backend_free(fast->backend, l->out[p], out_bytes(l, p));
        mem_free(l->file[p]);
    }
    bed_free(l->x);
    bed_free(l->add);
    bed_free(l->bias);
}

/* Part 0 adds to what lies in its output, part 1 has a bias. */
static struct op_linear layer_op(const struct layer *l)
{
    struct op_linear op = { .n_parts = PARTS, .x = &l->act, .n_rows = l->n_rows };
    for (int p = 0; p < PARTS; p++) {
        op.part[p].weight = &l->weight[p];
        op.part[p].out = l->out[p];
    }
    op.part[0].add = l->out[0];
    op.part[1].bias = l->device_bias;
    return op;
}

static double bf16(float x)
{
    uint16_t bits;
    tensor_row_from_f32(TENSOR_BF16, &x, 1, &bits);
    return (double)mathx_bf16_to_f32(bits);
}

/* Products of bf16 are exact; each joins a sum once, and so does what is added: 2^-23 of the largest sum at most. */
static void check_part(struct fast *fast, const struct layer *l, int p)
{
    float *row = mem_alloc((size_t)l->n_in, sizeof *row), *out = mem_alloc(1, out_bytes(l, p));
    assert_int_equal(backend_download(fast->backend, out, l->out[p], out_bytes(l, p)), STATUS_OK);
    for (int32_t o = 0; o < l->n_out[p]; o++) {
        tensor_row_to_f32(l->type, l->file[p] + (size_t)o * bed_row_bytes(l->type, l->n_in), l->n_in, row);
        for (int32_t r = 0; r < l->n_rows; r++) {
            const size_t at = (size_t)r * (size_t)l->n_out[p] + (size_t)o;
            const double added = (double)(p == 0 ? l->add[at] : l->bias[o]);
            double sum = added, magnitudes = fabs(added);
            for (int32_t i = 0; i < l->n_in; i++) {
                const double product = bf16(row[i]) * bf16(l->x[(size_t)r * (size_t)l->n_in + (size_t)i]);
                sum += product;
                magnitudes += fabs(product);
            }
            const double bound = (l->n_in + 2) * (0x1p-23 * 1.001 * magnitudes + 0x1p-126);
            if (!(fabs((double)out[at] - sum) <= bound)) {
                fail_msg("%s, part %d, row %d, output %d: %a, expected %a within %g",
                         tensor_type_info((uint32_t)l->type)->name, p, r, o, (double)out[at], sum, bound);
            }
        }
    }
    mem_free(row);
    mem_free(out);
}

static void products_are_those_of_doubles(void **state)
{
    static const struct layer layers[] = {
        { .type = TENSOR_BF16, .n_in = 301, .n_rows = 65, .n_out = { 33, 70 } },
        { .type = TENSOR_F16, .n_in = 64, .n_rows = CAP_ROWS, .n_out = { 100, 1 } },
        { .type = TENSOR_F32, .n_in = 7, .n_rows = 66, .n_out = { 5, 64 } },
        { .type = TENSOR_Q8_0, .n_in = 320, .n_rows = 70, .n_out = { 96, 40 } },
        { .type = TENSOR_Q4_K, .n_in = 256, .n_rows = 65, .n_out = { 40, 33 } } };
    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        struct fast fast;
        struct layer layer = layers[i];
        assert_int_equal(fast_open(&fast, 0), STATUS_OK); /* room for a tile of 32 outputs at a time */
        layer_open(&fast, &layer);
        const struct op_linear op = layer_op(&layer);
        run_pass(&fast, layer.n_rows, &op);
        assert_int_equal(backend_health(fast.backend), STATUS_OK);
        for (int p = 0; p < PARTS; p++) {
            check_part(&fast, &layer, p);
        }
        layer_close(&fast, &layer);
        fast_close(&fast);
        simt_expect_silence();
    }
}

/* A shape's algorithm is chosen once; outputs that do not fit take turns; nothing is allocated. */
static void algorithms_are_kept(void **state)
{
    struct layer layer = { .type = TENSOR_Q8_0, .n_in = 320, .n_rows = 70, .n_out = { 96, 40 } };
    struct fast fast;
    (void)state;
    assert_int_equal(fast_open(&fast, 64 * 320), STATUS_OK); /* 64 outputs */
    assert_true(backend_desk_bytes(fast.backend, fast.desk) > (32u << 20) + 2u * 320 * (64 + CAP_ROWS));
    layer_open(&fast, &layer);
    struct op_linear op = layer_op(&layer);
    simt_fail_blas(-1);
    run_pass(&fast, 70, &op);
    assert_int_equal(simt_blas_counts_get().choices, 3); /* 64 and 32 outputs of 96, 40 */
    assert_int_equal(simt_blas_counts_get().products, 3);
    const uint64_t n_allocs = mem_alloc_count();
    run_pass(&fast, 70, &op);
    assert_int_equal(simt_blas_counts_get().choices, 3);
    assert_int_equal(simt_blas_counts_get().products, 6);
    op.n_rows = 65;
    run_pass(&fast, 65, &op); /* a new shape is no allocation either */
    assert_int_equal(simt_blas_counts_get().choices, 6);
    assert_int_equal(mem_alloc_count(), n_allocs);
    layer_close(&fast, &layer);
    fast_close(&fast);
    simt_expect_silence();
}

static void a_full_table_drops_the_oldest(void **state)
{
    struct layer layer = { .type = TENSOR_F16, .n_in = 8, .n_rows = CAP_ROWS, .n_out = { 40, 3 } };
    struct fast fast;
    (void)state;
    assert_int_equal(fast_open(&fast, 0), STATUS_OK);
    layer_open(&fast, &layer);
    struct op_linear op = layer_op(&layer);
    op.part[0].add = NULL;
    simt_fail_blas(-1);
    for (int round = 0; round < 2; round++) {
        for (int32_t n = CUDA_GEMM_LEAST_ROWS; n <= CAP_ROWS; n++) { /* 26 numbers of rows, two shapes each: they fit */
            op.n_rows = n;
            run_pass(&fast, n, &op);
        }
    }
    const uint64_t n_kept = simt_blas_counts_get().choices;
    assert_int_equal(n_kept, 2 * (CAP_ROWS - CUDA_GEMM_LEAST_ROWS + 1));
    op.n_parts = 1;
    for (int32_t n = CUDA_GEMM_LEAST_ROWS; n < CUDA_GEMM_LEAST_ROWS + 20; n++) { /* other strides: 20 further */
        struct weight narrow = layer.weight[0];
        narrow.n_out = 39;
        op.part[0].weight = &narrow;
        op.n_rows = n;
        run_pass(&fast, n, &op);
    }
    assert_int_equal(simt_blas_counts_get().choices, n_kept + 20);
    op.part[0].weight = &layer.weight[0];
    op.n_rows = CUDA_GEMM_LEAST_ROWS; /* its place was taken */
    run_pass(&fast, op.n_rows, &op);
    assert_int_equal(simt_blas_counts_get().choices, n_kept + 21);
    layer_close(&fast, &layer);
    fast_close(&fast);
    simt_expect_silence();
}

static void short_passes_are_the_other_kernels(void **state)
{
    struct layer layer = { .type = TENSOR_BF16, .n_in = 40, .n_rows = CUDA_GEMM_LEAST_ROWS - 1, .n_out = { 33, 4 } };
    struct fast fast;
    (void)state;
    assert_int_equal(fast_open(&fast, 0), STATUS_OK);
    layer_open(&fast, &layer);
    const struct op_linear op = layer_op(&layer);
    simt_fail_blas(-1);
    run_pass(&fast, layer.n_rows, &op);
    assert_int_equal(simt_blas_counts_get().products, 0);
    for (int p = 0; p < PARTS; p++) {
        check_part(&fast, &layer, p);
    }
    layer_close(&fast, &layer);
    fast_close(&fast);
    simt_expect_silence();
}

/* ---- what fails ---- */
static void expect_refusal(struct fast *fast, enum status status, const char *words)
{
    assert_int_equal(fast_open(fast, 0), status);
    if (strstr(status_message(), words) == NULL) {
        fail_msg("expected '%s' in '%s'", words, status_message());
    }
    fast_close(fast);
    simt_expect_silence();
}

static void what_is_missing_is_said_at_the_start(void **state)
{
    struct fast fast;
    (void)state;
    simt_set_blas(0);
    expect_refusal(&fast, STATUS_UNSUPPORTED, "the plan fast needs cuBLASLt, which is not here (");
    simt_set_blas(-1);
    expect_refusal(&fast, STATUS_UNSUPPORTED, "the one here has no cublasLtMatmul");
    simt_set_blas(1);
    simt_fail_blas(0);
    expect_refusal(&fast, STATUS_IO, "choosing how cuBLASLt multiplies: the requested functionality is not supported");
    simt_fail_blas(-1);
    simt_set_devices(1, (size_t)8 << 20);
    expect_refusal(&fast, STATUS_NO_MEMORY, "the plan fast needs 32.");
}

static void a_product_that_fails_ends_the_device(void **state)
{
    struct layer layer = { .type = TENSOR_BF16, .n_in = 40, .n_rows = 66, .n_out = { 33, 4 } };
    struct fast fast;
    (void)state;
    assert_int_equal(fast_open(&fast, 0), STATUS_OK);
    layer_open(&fast, &layer);
    const struct op_linear op = layer_op(&layer);
    simt_fail_blas(1); /* the choice is made, the product fails */
    run_pass(&fast, layer.n_rows, &op);
    assert_int_equal(backend_health(fast.backend), STATUS_IO);
    assert_non_null(strstr(status_message(), "a product of cuBLASLt: an emulated failure"));
    assert_int_equal(simt_blas_counts_get().products, 1);
    layer_close(&fast, &layer);
    fast_close(&fast);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(products_are_those_of_doubles, begin),
        cmocka_unit_test_setup(algorithms_are_kept, begin),
        cmocka_unit_test_setup(a_full_table_drops_the_oldest, begin),
        cmocka_unit_test_setup(short_passes_are_the_other_kernels, begin),
        cmocka_unit_test_setup(what_is_missing_is_said_at_the_start, begin),
        cmocka_unit_test_setup(a_product_that_fails_ends_the_device, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
