/* cublaslt: the products of cuBLASLt as a plain loop on the emulated device, and the library that has them. It
 * notices descriptors that do not fit each other, an algorithm used for another product than it was chosen for,
 * operands that lie worse than was promised, and a workspace that is too small.
 */
#include "tests/simt/include/cublasLt.h"

#include <cuda_runtime.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/mathx.h"
#include "tests/simt/include/dlfcn.h"
#include "tests/simt/runtime.h"
#include "tests/simt/simt.h"

struct cublasLtContext { int device; };

namespace {

enum { NEEDS_BYTES = 1 << 20, DEFAULT_ALIGNMENT = 256 };

/* What lies in the opaque structs. */
struct layout { uint64_t is_set, type, rows, cols; int64_t ld; };
struct desc { uint64_t is_set, transposes_a; };
struct wishes { uint64_t is_set, workspace, c_alignment, d_alignment; };
struct algorithm { uint64_t m, n, k; int64_t lda, ldb, ldc; uint64_t c_alignment, d_alignment; };

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
int gives = 1;
int64_t calls_left = -1;
simt_blas_counts counts;

template <class T, class Opaque> T read(const Opaque *opaque)
{
    static_assert(sizeof(T) <= sizeof(Opaque), "room for it");
    T value;
    memcpy(&value, opaque, sizeof value);
    return value;
}

template <class T, class Opaque> void write(Opaque *opaque, const T &value)
{
    static_assert(sizeof(T) <= sizeof(Opaque), "room for it");
    memcpy(opaque, &value, sizeof value);
}

/* Whether this call is the one that was to fail; counts it. */
bool fails(uint64_t *count)
{
    pthread_mutex_lock(&lock);
    const bool now = calls_left == 0;
    calls_left -= calls_left > 0;
    ++*count;
    pthread_mutex_unlock(&lock);
    return now;
}

cublasStatus_t invalid(const char *what)
{
    simt_complain("cuBLASLt: %s", what);
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* d (m x n by columns) = a^T b + beta c; a [k x m], b [k x n], of bf16. */
bool fits(const layout &a, const layout &b, const layout &c, const layout &d)
{
    return a.is_set && b.is_set && c.is_set && d.is_set && a.type == CUDA_R_16BF && b.type == CUDA_R_16BF &&
           c.type == CUDA_R_32F && d.type == CUDA_R_32F && a.rows == b.rows && a.cols == d.rows &&
           b.cols == d.cols && c.rows == d.rows && c.cols == d.cols && c.ld == d.ld &&
           a.ld >= (int64_t)a.rows && b.ld >= (int64_t)b.rows && d.ld >= (int64_t)d.rows;
}

struct product {
    const uint16_t *a, *b;
    const float *c;
    float *d;
    algorithm shape;
    float alpha, beta;
};

void multiply(const void *args)
{
    const product *p = static_cast<const product *>(args);
    const algorithm &s = p->shape;
    for (uint64_t column = 0; column < s.n; column++) {
        for (uint64_t row = 0; row < s.m; row++) {
            const size_t at = column * (size_t)s.ldc + row;
            float sum = 0.0f;
            for (uint64_t k = 0; k < s.k; k++) {
                sum = mathx_fma(mathx_bf16_to_f32(p->a[row * (size_t)s.lda + k]),
                                mathx_bf16_to_f32(p->b[column * (size_t)s.ldb + k]), sum);
            }
            p->d[at] = p->beta == 0.0f ? p->alpha * sum : p->alpha * sum + p->beta * p->c[at];
        }
    }
}

bool lies(const void *ptr, uint64_t alignment) { return (uintptr_t)ptr % alignment == 0; }

} // namespace

void simt_set_blas(int gives_) { gives = gives_; }
void simt_fail_blas(int64_t after)
{
    calls_left = after;
    counts = {};
}
struct simt_blas_counts simt_blas_counts_get(void) { return counts; }

/* ---- the library ---- */
void *dlopen(const char *path, int flags)
{
    static int library;
    (void)flags;
    return gives != 0 && strcmp(path, "libcublasLt.so.13") == 0 ? &library : nullptr;
}

char *dlerror(void)
{
    static char why[] = "cannot open shared object file";
    return why;
}

void *dlsym(void *library, const char *name)
{
#define ENTRY(function) { #function, reinterpret_cast<void *>(function) }
    static const struct { const char *name; void *function; } entries[] = {
        ENTRY(cublasLtCreate), ENTRY(cublasLtDestroy), ENTRY(cublasLtGetStatusString),
        ENTRY(cublasLtMatmulDescInit_internal), ENTRY(cublasLtMatmulDescSetAttribute),
        ENTRY(cublasLtMatrixLayoutInit_internal), ENTRY(cublasLtMatmulPreferenceInit_internal),
        ENTRY(cublasLtMatmulPreferenceSetAttribute), ENTRY(cublasLtMatmulAlgoGetHeuristic), ENTRY(cublasLtMatmul) };
#undef ENTRY
    (void)library;
    for (const auto &entry : entries) {
        if (strcmp(entry.name, name) == 0 && (gives > 0 || strcmp(name, "cublasLtMatmul") != 0)) {
            return entry.function;
        }
    }
    return nullptr;
}

/* ---- calls ---- */
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = static_cast<cublasLtHandle_t>(calloc(1, sizeof **handle));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS         ? "success"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "the requested functionality is not supported"
                                                   : "an emulated failure";
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t to, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale)
{
    write(to, desc{ 1, 0 });
    return size == sizeof *to && compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                                                     : invalid("a product of other types");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t to, cublasLtMatmulDescAttributes_t attr,
                                              const void *buf, size_t size)
{
    if (attr != CUBLASLT_MATMUL_DESC_TRANSA || size != sizeof(cublasOperation_t)) {
        return invalid("an attribute of a product");
    }
    write(to, desc{ read<desc>(to).is_set, *static_cast<const cublasOperation_t *>(buf) == CUBLAS_OP_T });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t to, size_t size, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t ld)
{
    write(to, layout{ 1, (uint64_t)type, rows, cols, ld });
    return size == sizeof *to && rows > 0 && cols > 0 ? CUBLAS_STATUS_SUCCESS : invalid("a matrix without elements");
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t to, size_t size)
{
    write(to, wishes{ 1, 0, DEFAULT_ALIGNMENT, DEFAULT_ALIGNMENT });
    return size == sizeof *to ? CUBLAS_STATUS_SUCCESS : invalid("a preference of another size");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t to,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void *buf,
                                                    size_t size)
{
    wishes pref = read<wishes>(to);
    const bool is_workspace = attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (size != (is_workspace ? sizeof(uint64_t) : sizeof(uint32_t))) {
        return invalid("a preference of another size");
    }
    uint64_t value = 0;
    memcpy(&value, buf, size);
    (is_workspace                                         ? pref.workspace
     : attr == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES ? pref.c_alignment
                                                          : pref.d_alignment) = value;
    write(to, pref);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a_layout, cublasLtMatrixLayout_t b_layout,
                                              cublasLtMatrixLayout_t c_layout, cublasLtMatrixLayout_t d_layout,
                                              cublasLtMatmulPreference_t pref, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *n_found)
{
    const layout a = read<layout>(a_layout), b = read<layout>(b_layout), c = read<layout>(c_layout),
                 d = read<layout>(d_layout);
    const wishes wanted = read<wishes>(pref);
    *n_found = 0;
    if (handle == nullptr || n_wanted < 1 || !read<desc>(product).is_set || !read<desc>(product).transposes_a ||
        !wanted.is_set || !fits(a, b, c, d)) {
        return invalid("an algorithm is asked for matrices that do not fit");
    }
    if (fails(&counts.choices) || wanted.workspace < NEEDS_BYTES) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    *found = {};
    write(&found->algo, algorithm{ d.rows, d.cols, a.rows, a.ld, b.ld, d.ld, wanted.c_alignment, wanted.d_alignment });
    found->workspaceSize = NEEDS_BYTES;
    *n_found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product_desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    const layout of_a = read<layout>(a_layout), of_b = read<layout>(b_layout), of_c = read<layout>(c_layout),
                 of_d = read<layout>(d_layout);
    const algorithm shape = read<algorithm>(algo);
    if (handle == nullptr || !read<desc>(product_desc).transposes_a || !fits(of_a, of_b, of_c, of_d) ||
        shape.m != of_d.rows || shape.n != of_d.cols || shape.k != of_a.rows || shape.lda != of_a.ld ||
        shape.ldb != of_b.ld || shape.ldc != of_d.ld) {
        return invalid("an algorithm that was chosen for another product");
    }
    if (!lies(a, DEFAULT_ALIGNMENT) || !lies(b, DEFAULT_ALIGNMENT) || !lies(c, shape.c_alignment) ||
        !lies(d, shape.d_alignment) || !lies(workspace, DEFAULT_ALIGNMENT) || workspace_bytes < NEEDS_BYTES) {
        return invalid("matrices that lie elsewhere than was said, or too small a workspace");
    }
    if (fails(&counts.products)) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    const product job = { static_cast<const uint16_t *>(a), static_cast<const uint16_t *>(b), static_cast<const float *>(c),
                          static_cast<float *>(d), shape, *static_cast<const float *>(alpha),
                          *static_cast<const float *>(beta) };
    simt_enqueue(stream, { dim3(1), dim3(1), 0 }, multiply, &job, sizeof job);
    return CUBLAS_STATUS_SUCCESS;
}
