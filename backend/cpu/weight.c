/* weight: matrices from file order (row after row) into tiles of 32 interleaved outputs, and back. */
#include <string.h>

#include "backend/cpu/linear.h"
#include "backend/cpu/operations.h"

static size_t element_bytes(enum tensor_type type) { return type == TENSOR_F32 ? 4 : 2; }

int backend_act_kind(enum tensor_type type) { return quant_layout(type).elems > 0 ? ACT_Q8 : ACT_F32; }

size_t weight_tile_bytes(enum tensor_type type, int32_t n_in)
{
    const struct quant_layout layout = quant_layout(type);
    if (layout.elems == 0) {
        return ((size_t)n_in * TILE_OUTPUTS * element_bytes(type) + 63) & ~(size_t)63;
    }
    const size_t n_headers = (size_t)((n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS);
    return n_headers * (size_t)tile_header_bytes(&layout) +
           (size_t)(n_in / QUANT_BLOCK) * (size_t)tile_block_bytes(&layout);
}

size_t backend_weight_bytes(enum tensor_type type, int64_t n_out, int64_t n_in)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    if (!info || !info->native || n_out <= 0 || n_in <= 0 || n_out > INT32_MAX / 2 ||
        n_in > INT32_MAX / 2 || n_in % info->block_elems != 0) {
        return 0;
    }
    const size_t tiles = (size_t)((n_out + TILE_OUTPUTS - 1) / TILE_OUTPUTS);
    return tiles * weight_tile_bytes(type, (int32_t)n_in); /* < 2^25 * 2^38 */
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

/* Types whose code words stand in a file as they do in a tile, after one or two halves. */
struct plain_words { int32_t halves, groups; uint32_t flip; };

static struct plain_words plain_words(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_Q8_0: return (struct plain_words){ 1, 8, 0x80808080u }; /* signed → unsigned */
    case TENSOR_Q4_0: return (struct plain_words){ 1, 4, 0 };
    case TENSOR_Q4_1: return (struct plain_words){ 2, 4, 0 };
    default: return (struct plain_words){ 0, 0, 0 };
    }
}

static void fill_plain(unsigned char *tile, enum tensor_type type, int32_t n_in, int32_t n_valid,
                       const unsigned char *rows, size_t row_stride_bytes)
{
    const struct plain_words words = plain_words(type);
    const int32_t file_bytes = words.halves * 2 + words.groups * 4;
    for (int32_t b = 0; b < n_in / QUANT_BLOCK; b++) {
        unsigned char *codes = tile + words.halves * TILE_HALVES_BYTES;
        for (int32_t lane = 0; lane < n_valid; lane++) {
            const unsigned char *from =
                rows + (size_t)lane * row_stride_bytes + (size_t)b * (size_t)file_bytes;
            for (int32_t i = 0; i < words.halves; i++, from += 2) {
                memcpy(tile + i * TILE_HALVES_BYTES + lane * 2, from, 2);
            }
            for (int32_t i = 0; i < words.groups; i++, from += 4) {
                uint32_t word;
                memcpy(&word, from, 4);
                word ^= words.flip;
                memcpy(codes + i * TILE_GROUP_BYTES + lane * 4, &word, 4);
            }
        }
        tile = codes + words.groups * TILE_GROUP_BYTES;
    }
}

static void fill_quantised(unsigned char *tile, enum tensor_type type, int32_t n_in, int32_t n_valid,
                           const unsigned char *rows, size_t row_stride_bytes)
{
    const struct quant_layout layout = quant_layout(type);
    const int32_t step = layout.elems / QUANT_BLOCK;
    struct quant_block quant;
    for (int32_t first = 0; first < n_in / QUANT_BLOCK; first += SEGMENT_BLOCKS) {
        const int32_t left = n_in / QUANT_BLOCK - first;
        const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
        for (int32_t lane = 0; lane < n_valid; lane++) {
            const unsigned char *from = rows + (size_t)lane * row_stride_bytes +
                                        (size_t)(first / step) * (size_t)layout.file_bytes;
            for (int32_t b = 0; b < here; b += step, from += layout.file_bytes) {
                quant_block_read(&layout, from, &quant);
                tile_block_put(&layout, &quant, b, lane, tile);
            }
        }
        tile += tile_header_bytes(&layout) + here * tile_block_bytes(&layout);
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
        if (plain_words(weight->type).groups > 0) {
            fill_plain(tile, weight->type, weight->n_in, n_valid, from, row_stride_bytes);
            continue;
        }
        if (backend_act_kind(weight->type) == ACT_Q8) {
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
    const struct quant_layout layout = quant_layout(type);
    const int32_t step = layout.elems / QUANT_BLOCK;
    struct quant_block quant;
    for (int32_t first = 0; first < n_in / QUANT_BLOCK; first += SEGMENT_BLOCKS) {
        const int32_t left = n_in / QUANT_BLOCK - first;
        const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
        for (int32_t b = 0; b < here; b += step, row += layout.file_bytes) {
            tile_block_get(&layout, tile, b, lane, &quant);
            quant_block_write(&layout, &quant, row);
        }
        tile += tile_header_bytes(&layout) + here * tile_block_bytes(&layout);
    }
}

void backend_weight_row(const struct weight *weight, int32_t out_idx, void *row)
{
    ASSERT(out_idx >= 0 && out_idx < weight->n_out);
    const unsigned char *tile = weight->data + (size_t)(out_idx / TILE_OUTPUTS) *
                                                   weight_tile_bytes(weight->type, weight->n_in);
    const int32_t lane = out_idx % TILE_OUTPUTS;
    if (backend_act_kind(weight->type) == ACT_Q8) {
        row_quantised(tile, weight->type, weight->n_in, lane, row);
        return;
    }
    const size_t bytes = element_bytes(weight->type);
    for (int32_t i = 0; i < weight->n_in; i++) {
        memcpy((unsigned char *)row + (size_t)i * bytes,
               tile + ((size_t)i * TILE_OUTPUTS + (size_t)lane) * bytes, bytes);
    }
}

/* ---- the table of functions ---- */
enum status cpu_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out, int32_t n_rows,
                            const void *rows, size_t row_stride_bytes)
{
    (void)backend;
    backend_weight_fill(weight, first_out, n_rows, rows, row_stride_bytes);
    return STATUS_OK;
}

/* A tile's worth of rows at a time through memory in the format of files. */
enum status cpu_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                              const struct weight *to)
{
    const struct tensor_type_info *type = tensor_type_info((uint32_t)from->type);
    (void)backend;
    ASSERT(type != NULL && to->type == from->type && to->n_in == from->n_in);
    const size_t row_bytes = (size_t)from->n_in / type->block_elems * type->block_bytes;
    unsigned char *file = mem_alloc(TILE_OUTPUTS, row_bytes);
    if (file == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d rows of %d weights", TILE_OUTPUTS, from->n_in);
    }
    for (int32_t first = 0; first < to->n_out; first += TILE_OUTPUTS) {
        const int32_t left = to->n_out - first, n = left < TILE_OUTPUTS ? left : TILE_OUTPUTS;
        for (int32_t i = 0; i < n; i++) {
            backend_weight_row(from, rows[first + i], file + (size_t)i * row_bytes);
        }
        backend_weight_fill(to, first, n, file, row_bytes);
    }
    mem_free(file);
    return STATUS_OK;
}
