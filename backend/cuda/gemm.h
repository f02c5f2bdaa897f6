/* gemm: linear layers of long passes by cuBLASLt, for the fast plan. Private to backend/cuda.
 *
 *     a matrix, any type ─ widen.cu ─► bf16 rows ─┐
 *     rows, floats       ─ widen.cu ─► bf16 rows ─┴─► cuBLASLt, sums in fp32 ─► out (+ add) ─► + bias
 *
 * The library is opened when the plan is chosen and linked nowhere, so a program runs without it. What products
 * need lies in a desk and is taken with it: one layer's largest matrix (a larger one, the head, takes turns), a
 * pass's rows, a workspace, and the algorithms of as many shapes as a table holds. Nothing is promised of bits.
 */
#ifndef BACKEND_CUDA_GEMM_H
#define BACKEND_CUDA_GEMM_H

#include "backend/cuda/cuda.h"

/* Passes that a launch of the other kernels takes whole are theirs: they read a matrix once as it is. These are also
 * all that are recorded. */
enum { CUDA_GEMM_LEAST_ROWS = CUDA_LINEAR_ROWS + 1 };

/* STATUS_UNSUPPORTED with a sentence where the library or one of its functions is not there. */
enum status cuda_gemm_open(struct cuda_backend *backend, struct cuda_gemm **out);
void cuda_gemm_close(struct cuda_gemm *gemm); /* NULL is fine */

/* *out NULL: no pass of this shape is long enough. */
enum status cuda_gemm_desk_create(struct cuda_backend *backend, const struct pass_shape *shape,
                                  struct cuda_gemm_desk **out);
void cuda_gemm_desk_destroy(struct cuda_gemm_desk *desk); /* NULL is fine */
uint64_t cuda_gemm_desk_bytes(const struct cuda_gemm_desk *desk); /* of the device */

/* As op_linear, with the floats of x there. Submits to the lane's stream; takes no memory. */
void cuda_gemm_linear(struct cuda_lane *lane, struct cuda_gemm_desk *desk, const struct cuda_op_linear *job);

#endif
