/* weight: rows of a file into the device's tiles, in host memory; layout.h draws them. */
#ifndef BACKEND_CUDA_WEIGHT_H
#define BACKEND_CUDA_WEIGHT_H

#include "backend/cuda/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0 when the layout does not have the type, or n_out, n_in cannot be. A multiple of 16. */
size_t cuda_weight_bytes(enum tensor_type type, int64_t n_out, int64_t n_in);
/* Repacks rows first_out.. of file-format data, row_stride_bytes apart, into `data`, which holds the whole
 * matrix, zeroed. */
void cuda_weight_fill(enum tensor_type type, int32_t n_in, int32_t first_out, int32_t n_rows,
                      const void *rows, size_t row_stride_bytes, unsigned char *data);
/* One output of a tile; both of one type and n_in. */
struct cuda_lane_place { unsigned char *tile; int32_t lane; };
void cuda_weight_move(enum tensor_type type, int32_t n_in, struct cuda_lane_place from, struct cuda_lane_place to);
size_t cuda_act_q8_bytes(int32_t n_cols, int32_t n_rows);

#ifdef __cplusplus
}
#endif
#endif
