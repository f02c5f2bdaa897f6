/* weight: matrices from file order (row after row) into tiles of 32 interleaved outputs, and back. */
#include <string.h>

#include "backend/cpu/linear.h"

static size_t element_bytes(enum tensor_type type) { return type == TENSOR_F32 ? 4 : 2; }

static int is_quantised(enum tensor_type type) { return backend_act_kind(type) == ACT_Q8; }

int backend_act_kind(enum tensor_type type)
{
    return type == TENSOR_Q8_0 || type == TENSOR_Q4_0 ? ACT_Q8 : ACT_F32;
}

size_t weight_tile_bytes(enum tensor_type type, int32_t n_in)
{
    if (!is_quantised(type)) {
        return ((size_t)n_in * TILE_OUTPUTS * element_bytes(type) + 63) & ~(size_t)63;
    }
    return (size_t)(n_in / QUANT_BLOCK) * tile_block_bytes(type);
}

size_t backend_weight_bytes(enum tensor_type type, int64_t n_out, int64_t n_in)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    if (!info || !info->native || n_out <= 0 || n_in <= 0 || n_out > INT32_MAX / 2 ||
        n_in > INT32_MAX / 2 || n_in % info->block_elems != 0) {
        return 0;
    }
    const size_t tiles = (size_t)((n_out + TILE_OUTPUTS - 1) / TILE_OUTPUTS);
    return tiles * weight_tile_bytes(type, (int32_t)n_in); /* < 2^26 * 2^36 */
}

size_t backend_act_bytes(int32_t n_cols, int32_t cap_rows)
{
    const size_t blocks = (size_t)((n_cols + QUANT_BLOCK - 1) / QUANT_BLOCK);
    const size_t floats = ((size_t)n_cols * (size_t)cap_rows * sizeof(float) + 63) & ~(size_t)63;
    return floats + ((blocks * (size_t)cap_rows * ACT_BLOCK_BYTES + 63) & ~(size_t)63);
}

void backend_act_init(struct act *act, int32_t n_cols, int32_t cap_rows, void *memory)
{
    const size_t floats = ((size_t)n_cols * (size_t)cap_rows * sizeof(float) + 63) & ~(size_t)63;
    *act = (struct act){ .n_cols = n_cols, .cap_rows = cap_rows, .f32 = memory,
                         .q8 = (unsigned char *)memory + floats };
}

/* ---- file order → tile ---- */

static void fill_float(unsigned char *tile, enum tensor_type type, int32_t n_in, int32_t lane,
                       const unsigned char *row)
{
    if (type == TENSOR_F32) {
        for (int32_t i = 0; i < n_in; i++) {
            memcpy(tile + ((size_t)i * TILE_OUTPUTS + (size_t)lane) * 4, row + (size_t)i * 4, 4);
        }
    } else {
        for (int32_t i = 0; i < n_in; i++) {
            memcpy(tile + ((size_t)i * TILE_OUTPUTS + (size_t)lane) * 2, row + (size_t)i * 2, 2);
        }
    }
}

/* One block of one output: 2 scale bytes and 16 or 32 code bytes, in groups of four. */
static void fill_block(unsigned char *block, int32_t n_groups, int32_t lane, uint32_t flip,
                       const unsigned char *from)
{
    memcpy(block + (size_t)lane * 2, from, 2);
    for (int32_t i = 0; i < n_groups; i++) {
        uint32_t word;
        memcpy(&word, from + 2 + i * 4, 4);
        word ^= flip; /* Q8_0: signed → unsigned by + 128 */
        memcpy(block + TILE_SCALE_BYTES + i * TILE_GROUP_BYTES + lane * 4, &word, 4);
    }
}

static void fill_quantised(unsigned char *tile, enum tensor_type type, int32_t n_in, int32_t n_valid,
                           const unsigned char *rows, size_t row_stride_bytes)
{
    const int32_t n_groups = type == TENSOR_Q4_0 ? 4 : 8;
    const size_t file_bytes = type == TENSOR_Q4_0 ? 18 : 34;
    const uint32_t flip = type == TENSOR_Q4_0 ? 0 : 0x80808080u;
    for (int32_t b = 0; b < n_in / QUANT_BLOCK; b++) {
        for (int32_t lane = 0; lane < n_valid; lane++) {
            fill_block(tile, n_groups, lane, flip,
                       rows + (size_t)lane * row_stride_bytes + (size_t)b * file_bytes);
        }
        tile += tile_block_bytes(type);
    }
}

void backend_weight_fill(const struct weight *weight, int32_t first_out, int32_t n_rows,
                         const void *rows, size_t row_stride_bytes)
{
    ASSERT(first_out % TILE_OUTPUTS == 0 && first_out + n_rows <= weight->n_out);
    ASSERT(n_rows % TILE_OUTPUTS == 0 || first_out + n_rows == weight->n_out);
    const size_t tile_bytes = weight_tile_bytes(weight->type, weight->n_in);
    for (int32_t done = 0; done < n_rows; done += TILE_OUTPUTS) {
        unsigned char *tile =
            weight->data + (size_t)((first_out + done) / TILE_OUTPUTS) * tile_bytes;
        const unsigned char *from = (const unsigned char *)rows + (size_t)done * row_stride_bytes;
        const int32_t n_valid = n_rows - done < TILE_OUTPUTS ? n_rows - done : TILE_OUTPUTS;
        if (n_valid < TILE_OUTPUTS) {
            memset(tile, 0, tile_bytes); /* outputs that do not exist: scale 0 */
        }
        if (is_quantised(weight->type)) {
            fill_quantised(tile, weight->type, weight->n_in, n_valid, from, row_stride_bytes);
            continue;
        }
        for (int32_t lane = 0; lane < n_valid; lane++) {
            fill_float(tile, weight->type, weight->n_in, lane, from + (size_t)lane * row_stride_bytes);
        }
    }
}

/* ---- tile → file order, one row ---- */

static void row_quantised(const unsigned char *tile, enum tensor_type type, int32_t n_in, int32_t lane,
                          unsigned char *row)
{
    const int32_t n_groups = type == TENSOR_Q4_0 ? 4 : 8;
    const uint32_t flip = type == TENSOR_Q4_0 ? 0 : 0x80808080u;
    for (int32_t b = 0; b < n_in / QUANT_BLOCK; b++, tile += tile_block_bytes(type)) {
        memcpy(row, tile + (size_t)lane * 2, 2);
        row += 2;
        for (int32_t i = 0; i < n_groups; i++, row += 4) {
            uint32_t word;
            memcpy(&word, tile + TILE_SCALE_BYTES + i * TILE_GROUP_BYTES + lane * 4, 4);
            word ^= flip;
            memcpy(row, &word, 4);
        }
    }
}

void backend_weight_row(const struct weight *weight, int32_t out_idx, void *row)
{
    ASSERT(out_idx >= 0 && out_idx < weight->n_out);
    const unsigned char *tile = weight->data + (size_t)(out_idx / TILE_OUTPUTS) *
                                                   weight_tile_bytes(weight->type, weight->n_in);
    const int32_t lane = out_idx % TILE_OUTPUTS;
    if (is_quantised(weight->type)) {
        row_quantised(tile, weight->type, weight->n_in, lane, row);
        return;
    }
    const size_t bytes = element_bytes(weight->type);
    for (int32_t i = 0; i < weight->n_in; i++) {
        memcpy((unsigned char *)row + (size_t)i * bytes,
               tile + ((size_t)i * TILE_OUTPUTS + (size_t)lane) * bytes, bytes);
    }
}
