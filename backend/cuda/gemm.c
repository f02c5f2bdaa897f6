/* gemm: see the header. cuBLASLt thinks in columns: a row here is a column there.
 *
 *     out [n_rows, n_out] row by row  =  D, n_out x n_rows by columns  =  A^T B
 *     A: weights, n_in x n_out        B: rows, n_in x n_rows           C: what is added, or nothing (beta 0)
 */
#include "backend/cuda/gemm.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda/layout.h"

enum {
    MAX_SHAPES = 64,              /* whose algorithms are kept; a further one takes the place of the oldest */
    WORKSPACE_BYTES = 32 << 20,   /* what cuBLAS itself takes on Hopper */
    OUT_ALIGNMENT = 16            /* of outputs, which lie in a pass's buffers or 32 columns further */
};

/* ---- the library ---- */
struct cuda_gemm {
    cublasLtHandle_t handle;
    cublasLtMatmulDescOpaque_t product;       /* A^T B in fp32 */
    cublasLtMatmulPreferenceOpaque_t wanted;
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtGetStatusString) *status_string;
    __typeof__(cublasLtMatmulDescInit_internal) *product_init;
    __typeof__(cublasLtMatmulDescSetAttribute) *product_set;
    __typeof__(cublasLtMatrixLayoutInit_internal) *layout_init;
    __typeof__(cublasLtMatmulPreferenceInit_internal) *wanted_init;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *wanted_set;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *choose;
    __typeof__(cublasLtMatmul) *multiply;
};

static const struct { const char *name; size_t at; } functions[] = {
    { "cublasLtCreate", offsetof(struct cuda_gemm, create) },
    { "cublasLtDestroy", offsetof(struct cuda_gemm, destroy) },
    { "cublasLtGetStatusString", offsetof(struct cuda_gemm, status_string) },
    { "cublasLtMatmulDescInit_internal", offsetof(struct cuda_gemm, product_init) },
    { "cublasLtMatmulDescSetAttribute", offsetof(struct cuda_gemm, product_set) },
    { "cublasLtMatrixLayoutInit_internal", offsetof(struct cuda_gemm, layout_init) },
    { "cublasLtMatmulPreferenceInit_internal", offsetof(struct cuda_gemm, wanted_init) },
    { "cublasLtMatmulPreferenceSetAttribute", offsetof(struct cuda_gemm, wanted_set) },
    { "cublasLtMatmulAlgoGetHeuristic", offsetof(struct cuda_gemm, choose) },
    { "cublasLtMatmul", offsetof(struct cuda_gemm, multiply) },
};

/* Of the major version that the headers are of, where the loader looks or where CUDA is usually put. It stays open:
 * a library that has touched the device is not unloaded. */
static enum status find_library(void **library)
{
    static const char *const places[] = { "", "/usr/local/cuda/lib64/" };
    char path[64], why[160] = "";
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%slibcublasLt.so.%d", places[i], CUDART_VERSION / 1000);
        *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (*library != NULL) {
            return STATUS_OK;
        }
        const char *said = dlerror();
        if (i == 0) {
            snprintf(why, sizeof why, "%s", said != NULL ? said : "no reason is given");
        }
    }
    return status_fail(STATUS_UNSUPPORTED, "the plan fast needs cuBLASLt, which is not here (%s); exact and native do "
                       "without", why);
}

static enum status find_functions(struct cuda_gemm *gemm)
{
    void *library;
    TRY(find_library(&library));
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (function == NULL) {
            return status_fail(STATUS_UNSUPPORTED, "the plan fast needs cuBLASLt, and the one here has no %s",
                               functions[i].name);
        }
        memcpy((unsigned char *)gemm + functions[i].at, &function, sizeof function);
    }
    return STATUS_OK;
}

static enum status set_up(struct cuda_gemm *gemm, cublasStatus_t *said)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t alignment = OUT_ALIGNMENT;
    *said = gemm->create(&gemm->handle);
    if (*said == CUBLAS_STATUS_SUCCESS) {
        *said = gemm->product_init(&gemm->product, sizeof gemm->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    }
    if (*said == CUBLAS_STATUS_SUCCESS) {
        *said = gemm->product_set(&gemm->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    }
    if (*said == CUBLAS_STATUS_SUCCESS) {
        *said = gemm->wanted_init(&gemm->wanted, sizeof gemm->wanted);
    }
    const struct { cublasLtMatmulPreferenceAttributes_t name; const void *value; size_t size; } wishes[] = {
        { CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment } };
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0] && *said == CUBLAS_STATUS_SUCCESS; i++) {
        *said = gemm->wanted_set(&gemm->wanted, wishes[i].name, wishes[i].value, wishes[i].size);
    }
    return *said == CUBLAS_STATUS_SUCCESS ? STATUS_OK
                                          : status_fail(STATUS_UNSUPPORTED, "the plan fast needs cuBLASLt, which says: %s",
                                                        gemm->status_string(*said));
}

enum status cuda_gemm_open(struct cuda_backend *backend, struct cuda_gemm **out)
{
    cublasStatus_t said;
    *out = NULL;
    struct cuda_gemm *gemm = mem_alloc(1, sizeof *gemm);
    if (gemm == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for what products need");
    }
    enum status status = find_functions(gemm);
    if (status == STATUS_OK) {
        status = cuda_enter(backend) ? set_up(gemm, &said) : backend_health(&backend->base);
    }
    if (status != STATUS_OK) {
        cuda_gemm_close(gemm);
        return status;
    }
    *out = gemm;
    return STATUS_OK;
}

void cuda_gemm_close(struct cuda_gemm *gemm)
{
    if (gemm != NULL && gemm->handle != NULL) {
        (void)gemm->destroy(gemm->handle);
    }
    mem_free(gemm);
}

/* ---- what a desk keeps ---- */
/* A product and how it is computed. */
struct gemm_shape {
    int32_t n_rows, n_out, n_in, out_stride;
    cublasLtMatrixLayoutOpaque_t weights, rows, out;
    cublasLtMatmulAlgo_t algorithm;
};
struct cuda_gemm_desk {
    struct cuda_backend *backend;
    int32_t cap_rows, cap_cols;       /* of rows; widened columns */
    size_t weight_elems;
    uint16_t *weights;                /* [weight_elems] bf16, of the device; all three */
    uint16_t *rows;                   /* [cap_rows, cap_cols] */
    unsigned char *workspace;         /* [WORKSPACE_BYTES] */
    struct gemm_shape shapes[MAX_SHAPES];
    int32_t n_shapes, next_shape;
};

static size_t weights_bytes(const struct cuda_gemm_desk *desk)
{
    return cuda_align(desk->weight_elems * sizeof *desk->weights);
}

static size_t rows_bytes(const struct cuda_gemm_desk *desk)
{
    return cuda_align((size_t)desk->cap_rows * (size_t)desk->cap_cols * sizeof *desk->rows);
}

uint64_t cuda_gemm_desk_bytes(const struct cuda_gemm_desk *desk)
{
    return desk == NULL ? 0 : weights_bytes(desk) + rows_bytes(desk) + WORKSPACE_BYTES;
}

static enum status take_memory(struct cuda_gemm_desk *desk)
{
    struct backend *backend = &desk->backend->base;
    desk->weights = backend_alloc(backend, weights_bytes(desk));
    desk->rows = backend_alloc(backend, rows_bytes(desk));
    desk->workspace = backend_alloc(backend, WORKSPACE_BYTES);
    if (desk->weights != NULL && desk->rows != NULL && desk->workspace != NULL) {
        return STATUS_OK;
    }
    return status_fail(STATUS_NO_MEMORY, "the plan fast needs %.1f MiB on %s for widened weights and rows, %.1f MiB are "
                       "free; exact and native do without", (double)cuda_gemm_desk_bytes(desk) / (1024.0 * 1024.0),
                       backend_name(backend), (double)backend_free_bytes(backend) / (1024.0 * 1024.0));
}

void cuda_gemm_desk_destroy(struct cuda_gemm_desk *desk)
{
    if (desk != NULL) {
        struct backend *backend = &desk->backend->base;
        backend_free(backend, desk->weights, weights_bytes(desk));
        backend_free(backend, desk->rows, rows_bytes(desk));
        backend_free(backend, desk->workspace, WORKSPACE_BYTES);
        mem_free(desk);
    }
}

/* ---- algorithms ---- */
/* Describes the product and asks for the library's favourite. */
static cublasStatus_t choose_algorithm(const struct cuda_gemm *gemm, struct gemm_shape *shape)
{
    const uint64_t n_in = (uint64_t)shape->n_in, n_out = (uint64_t)shape->n_out, n_rows = (uint64_t)shape->n_rows;
    const int64_t stride = cuda_widened_cols(shape->n_in);
    cublasLtMatmulDescOpaque_t product = gemm->product;
    cublasLtMatmulPreferenceOpaque_t wanted = gemm->wanted;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    cublasStatus_t said = gemm->layout_init(&shape->weights, sizeof shape->weights, CUDA_R_16BF, n_in, n_out, stride);
    if (said == CUBLAS_STATUS_SUCCESS) {
        said = gemm->layout_init(&shape->rows, sizeof shape->rows, CUDA_R_16BF, n_in, n_rows, stride);
    }
    if (said == CUBLAS_STATUS_SUCCESS) {
        said = gemm->layout_init(&shape->out, sizeof shape->out, CUDA_R_32F, n_out, n_rows, shape->out_stride);
    }
    if (said == CUBLAS_STATUS_SUCCESS) {
        said = gemm->choose(gemm->handle, &product, &shape->weights, &shape->rows, &shape->out, &shape->out, &wanted, 1,
                            &found, &n_found);
    }
    if (said != CUBLAS_STATUS_SUCCESS || n_found < 1 || found.state != CUBLAS_STATUS_SUCCESS) {
        return said != CUBLAS_STATUS_SUCCESS ? said : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    shape->algorithm = found.algo;
    return CUBLAS_STATUS_SUCCESS;
}

/* The product of this shape, met before or not; NULL: it cannot be, and the device has failed. */
static struct gemm_shape *find_shape(struct cuda_gemm_desk *desk, const struct gemm_shape *wanted)
{
    for (int32_t i = 0; i < desk->n_shapes; i++) {
        struct gemm_shape *shape = &desk->shapes[i];
        if (shape->n_rows == wanted->n_rows && shape->n_out == wanted->n_out && shape->n_in == wanted->n_in &&
            shape->out_stride == wanted->out_stride) {
            return shape;
        }
    }
    struct gemm_shape found = *wanted;
    const struct cuda_gemm *gemm = desk->backend->gemm;
    const cublasStatus_t said = choose_algorithm(gemm, &found);
    if (said != CUBLAS_STATUS_SUCCESS) {
        cuda_fail(desk->backend, "choosing how cuBLASLt multiplies", gemm->status_string(said));
        return NULL;
    }
    struct gemm_shape *shape = &desk->shapes[desk->next_shape];
    desk->next_shape = (desk->next_shape + 1) % MAX_SHAPES;
    desk->n_shapes += desk->n_shapes < MAX_SHAPES;
    *shape = found;
    return shape;
}

/* A device that has no such product says so now: the longest pass by as much of a matrix as there is room for. */
static enum status try_largest(struct cuda_gemm_desk *desk, int32_t n_in)
{
    const int32_t n_out = (int32_t)(desk->weight_elems / (size_t)cuda_widened_cols(n_in));
    const struct gemm_shape largest = { .n_rows = desk->cap_rows, .n_out = n_out, .n_in = n_in, .out_stride = n_out };
    (void)find_shape(desk, &largest);
    return backend_health(&desk->backend->base);
}

enum status cuda_gemm_desk_create(struct cuda_backend *backend, const struct pass_shape *shape,
                                  struct cuda_gemm_desk **out)
{
    *out = NULL;
    if (shape->cap_rows < CUDA_GEMM_LEAST_ROWS) {
        return STATUS_OK;
    }
    struct cuda_gemm_desk *desk = mem_alloc(1, sizeof *desk);
    if (desk == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for what products need");
    }
    desk->backend = backend;
    desk->cap_rows = shape->cap_rows;
    desk->cap_cols = cuda_widened_cols(shape->most_in);
    desk->weight_elems = (size_t)desk->cap_cols * CUDA_WARP; /* a tile at least */
    desk->weight_elems = shape->matrix_elems > desk->weight_elems ? shape->matrix_elems : desk->weight_elems;
    enum status status = take_memory(desk);
    if (status == STATUS_OK) {
        status = cuda_enter(backend) ? try_largest(desk, shape->most_in) : backend_health(&backend->base);
    }
    if (status != STATUS_OK) {
        cuda_gemm_desk_destroy(desk);
        return status;
    }
    *out = desk;
    return STATUS_OK;
}

/* ---- products ---- */
/* The weights that lie widened times the rows that do; out and add begin at the first of these outputs. */
static void multiply(struct cuda_gemm_desk *desk, cudaStream_t stream, const struct gemm_shape *wanted, float *out,
                     const float *add)
{
    static const float nothing = 0.0f, once = 1.0f;
    const struct cuda_gemm *gemm = desk->backend->gemm;
    struct gemm_shape *shape = find_shape(desk, wanted);
    cublasLtMatmulDescOpaque_t product = gemm->product;
    if (shape == NULL) {
        return;
    }
    const cublasStatus_t said = gemm->multiply(
        gemm->handle, &product, &once, desk->weights, &shape->weights, desk->rows, &shape->rows,
        add != NULL ? &once : &nothing, add != NULL ? add : out, &shape->out, out, &shape->out, &shape->algorithm,
        desk->workspace, WORKSPACE_BYTES, stream);
    if (said != CUBLAS_STATUS_SUCCESS) {
        cuda_fail(desk->backend, "a product of cuBLASLt", gemm->status_string(said));
    }
}

/* As many outputs at a time as there is room for, by whole tiles. */
static void multiply_part(struct cuda_gemm_desk *desk, cudaStream_t stream, const struct cuda_linear_part *part,
                          int32_t n_rows)
{
    const int32_t n_out = part->weight.n_out, n_in = part->weight.n_in;
    const size_t room = desk->weight_elems / (size_t)cuda_widened_cols(n_in) / CUDA_WARP * CUDA_WARP;
    const int32_t step = room < (size_t)n_out ? (int32_t)room : n_out;
    for (int32_t first = 0; first < n_out; first += step) {
        const int32_t n = n_out - first < step ? n_out - first : step;
        const struct cuda_op_widen widen = { part->weight, first, n, desk->weights };
        const struct gemm_shape shape = { .n_rows = n_rows, .n_out = n, .n_in = n_in, .out_stride = n_out };
        if (!cuda_ok(desk->backend, cuda_widen(&widen, stream), "widening weights")) {
            return;
        }
        multiply(desk, stream, &shape, part->out + first, part->add != NULL ? part->add + first : NULL);
    }
    if (part->bias != NULL) {
        const struct cuda_op_bias bias = { part->out, part->bias, n_rows, n_out };
        cuda_ok(desk->backend, cuda_bias(&bias, stream), "adding a bias");
    }
}

void cuda_gemm_linear(struct cuda_lane *lane, struct cuda_gemm_desk *desk, const struct cuda_op_linear *job)
{
    const cudaStream_t stream = cuda_lane_enter(lane);
    const struct cuda_op_round rows = { job->x, job->n_rows, desk->rows };
    ASSERT(job->n_rows <= desk->cap_rows && job->x.n_cols <= desk->cap_cols);
    if (stream == NULL || !cuda_ok(desk->backend, cuda_round(&rows, stream), "rounding rows")) {
        return;
    }
    for (int32_t p = 0; p < job->n_parts && !cuda_has_failed(desk->backend); p++) {
        multiply_part(desk, stream, &job->part[p], job->n_rows);
    }
}
