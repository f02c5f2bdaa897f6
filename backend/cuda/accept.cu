/* accept: where proposals and the target's choices part, on the device, so that a step reads back outcomes and
 * no rows. The coupled rule of verify/, chains and trees: a proposal is accepted iff it is the token chosen.
 */
#include "backend/cuda/device.cuh"

enum { ACCEPT_THREADS = 64 };

DEVICE_FN const cuda_choice *accept_choice(const cuda_op_accept &op, const cuda_accept_run &run, int32_t node)
{
    const unsigned char *at = reinterpret_cast<const unsigned char *>(op.choice);
    return reinterpret_cast<const cuda_choice *>(at + (size_t)(run.first_row + node + 1) * op.choice_stride_bytes);
}

/* The first child of `node` (-1: the root) that has `token`, or -1. Children stand behind their parents. */
DEVICE_FN int32_t accept_child(const cuda_op_accept &op, const cuda_accept_run &run, int32_t node, int32_t token)
{
    for (int32_t i = node + 1; i < run.n_proposed; i++) {
        const int32_t parent = op.parent != nullptr ? op.parent[run.first_proposed + i] : i - 1;
        if (parent == node && op.token[run.first_proposed + i] == token) {
            return i;
        }
    }
    return -1;
}

/* Shapes: choice [n_rows] by stride, token and parent of all runs, out [n_runs], path [n_runs, path_stride]. A
 * thread a run, which walks its nodes once. Bound by the launch. Accumulates nothing. Plan: exact.
 * Reference: verify_coupled, verify_tree_coupled. */
static __global__ void accept_run_kernel(const cuda_op_accept op)
{
    const int32_t i = (int32_t)(blockIdx.x * ACCEPT_THREADS + threadIdx.x);
    if (i >= op.n_runs) {
        return;
    }
    const cuda_accept_run run = op.runs[i];
    struct cuda_outcome outcome = { 0, -1, CUDA_CHOICE_GOOD };
    for (int32_t node = -1;;) {
        const cuda_choice choice = *accept_choice(op, run, node);
        if (choice.bad != CUDA_CHOICE_GOOD) { /* what was accepted before it stands */
            outcome.bad = choice.bad;
            break;
        }
        outcome.recovery_token = choice.id;
        node = accept_child(op, run, node, choice.id);
        if (node < 0) {
            break;
        }
        if (op.path != nullptr && outcome.n_accepted < op.path_stride) {
            op.path[(size_t)i * (size_t)op.path_stride + (size_t)outcome.n_accepted] = node;
        }
        outcome.n_accepted++;
        outcome.recovery_token = -1;
    }
    op.out[i] = outcome;
}

extern "C" int cuda_accept(const struct cuda_op_accept *op, struct CUstream_st *stream)
{
    if (op->choice_stride_bytes < sizeof(struct cuda_choice) || op->choice_stride_bytes % 4 != 0) {
        return cudaErrorInvalidValue;
    }
    if (op->n_runs <= 0) {
        return cudaSuccess;
    }
    const unsigned blocks = (unsigned)((op->n_runs + ACCEPT_THREADS - 1) / ACCEPT_THREADS);
    CUDA_LAUNCH(accept_run_kernel, blocks, ACCEPT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
