/* matrix: weights on their way to the device and within it, in its tiles (layout.h). At load; not a step. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/layout.h"
#include "backend/cuda/weight.h"

size_t cuda_matrix_bytes(enum tensor_type type, int64_t n_out, int64_t n_in)
{
    return cuda_align(cuda_weight_bytes(type, n_out, n_in));
}

enum status cuda_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out, int32_t n_rows,
                             const void *rows, size_t row_stride_bytes)
{
    const size_t tile_bytes = cuda_tile_bytes(weight->type, weight->n_in);
    const size_t bytes = (size_t)cuda_n_tiles(n_rows) * tile_bytes;
    ASSERT(first_out % CUDA_WARP == 0 && first_out + n_rows <= weight->n_out);
    ASSERT(n_rows % CUDA_WARP == 0 || first_out + n_rows == weight->n_out);
    unsigned char *tiles = mem_alloc(1, bytes); /* zeros where outputs end */
    if (tiles == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of weights on their way", bytes);
    }
    cuda_weight_fill(weight->type, weight->n_in, 0, n_rows, rows, row_stride_bytes, tiles);
    const enum status status =
        backend_upload(backend, weight->data + (size_t)(first_out / CUDA_WARP) * tile_bytes, tiles, bytes);
    mem_free(tiles);
    return status;
}

/* Tiles through the host, one of each matrix at a time; ids mostly ascend, so a tile is fetched about once. */
enum status cuda_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                               const struct weight *to)
{
    const size_t tile_bytes = cuda_tile_bytes(to->type, to->n_in);
    unsigned char *tiles = mem_alloc(2, tile_bytes), *there = tiles + tile_bytes;
    int32_t held = -1;
    enum status status = STATUS_OK;
    ASSERT(from->type == to->type && from->n_in == to->n_in);
    if (tiles == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of weights on their way", 2 * tile_bytes);
    }
    for (int32_t first = 0; first < to->n_out; first += CUDA_WARP) {
        memset(there, 0, tile_bytes);
        for (int32_t lane = 0; lane < CUDA_WARP && first + lane < to->n_out; lane++) {
            const int32_t row = rows[first + lane], tile = row / CUDA_WARP;
            if (tile != held) {
                TRY_GOTO(backend_download(backend, tiles, from->data + (size_t)tile * tile_bytes, tile_bytes), out);
                held = tile;
            }
            cuda_weight_move(to->type, to->n_in, (struct cuda_lane_place){ tiles, row % CUDA_WARP },
                             (struct cuda_lane_place){ there, lane });
        }
        TRY_GOTO(backend_upload(backend, to->data + (size_t)(first / CUDA_WARP) * tile_bytes, there, tile_bytes), out);
    }
out:
    mem_free(tiles);
    return status;
}
