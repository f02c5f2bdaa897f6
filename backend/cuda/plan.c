/* plan: which kernels linear layers go through. All else that a GPU computes is the exact plan's on any of them, and
 * so are layers of experts.
 *
 *     exact    linear.cu: the canonical order, the CPU's bits
 *     native   weights of 16 bits on tensor cores (linear_float.cu), the others as exact: a row's bits depend on its
 *              own inputs alone
 *     fast     passes of many rows by cuBLASLt (gemm.c), of any type; shorter ones as native
 */
#include "backend/cuda/gemm.h"

enum status cuda_set_plan(struct backend *base, enum numeric_plan plan)
{
    struct cuda_backend *backend = cuda_backend_of(base);
    return plan == PLAN_FAST && backend->gemm == NULL ? cuda_gemm_open(backend, &backend->gemm) : STATUS_OK;
}

static bool is_by_library(const struct lane *lane, int32_t n_rows)
{
    return lane->backend->plan == PLAN_FAST && n_rows >= CUDA_GEMM_LEAST_ROWS;
}

int cuda_plan_kinds(const struct lane *lane, int kinds, int32_t n_rows)
{
    return is_by_library(lane, n_rows) ? (int)ACT_F32 : kinds;
}

void cuda_plan_linear(struct lane *lane, const struct cuda_op_linear *job)
{
    const enum tensor_type type = job->part[0].weight.type;
    const struct pass_desk *desk = cuda_lane_of(lane)->desk;
    if (is_by_library(lane, job->n_rows)) {
        if (desk != NULL) { /* NULL: no pass is under way, the device has failed */
            cuda_gemm_linear(cuda_lane_of(lane), cuda_desk_gemm(desk), job);
        }
    } else if (lane->backend->plan != PLAN_EXACT && (type == TENSOR_BF16 || type == TENSOR_F16)) {
        CUDA_RUN(lane, cuda_linear_native, job, "a linear layer");
    } else {
        CUDA_RUN(lane, cuda_linear, job, "a linear layer");
    }
}
