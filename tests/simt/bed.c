#include "tests/simt/bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/tile.h"
#include "backend/quant_block.h"

enum { GUARD_BYTES = 64, PATTERN = 0xc5 };

static uint64_t bed_state;

void bed_init(struct bed *bed) { bed_init_seeded(bed, 42); }

void bed_init_seeded(struct bed *bed, uint64_t seed)
{
    assert_int_equal(backend_create("cpu", "scalar", &bed->backend), STATUS_OK);
    const struct lane_options options = { .n_workers = 1, .caller_is_worker = true,
                                          .scratch_bytes = (size_t)1 << 20 };
    assert_int_equal(lane_create(bed->backend, &options, &bed->lane), STATUS_OK);
    bed_seed(seed);
}

void bed_deinit(struct bed *bed)
{
    lane_destroy(bed->lane);
    backend_destroy(bed->backend);
}

static void nothing(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    (void)args;
    (void)chunk;
    (void)worker;
}

void bed_wait(struct bed *bed)
{
    const int unused = 0;
    lane_wait(bed->lane, lane_submit(bed->lane, nothing, &unused, sizeof unused, 1));
}

void bed_seed(uint64_t seed) { bed_state = seed; }

uint64_t bed_word(void) { return bed_state = rng_mix64(bed_state + 1); }

float bed_float(void) { return (float)(int32_t)(bed_word() >> 32) * 0x1p-31f; }

float *bed_floats(size_t n)
{
    float *x = bed_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const size_t kind = i / 32 % 23; /* of a block of 32 */
        x[i] = kind == 5 ? 0.0f : kind == 9 ? bed_float() * 0x1p-110f : kind == 13 ? bed_float() * 1e6f
               : kind == 17 ? (i % 3 ? 2.5f : -2.5f) : bed_float() * 3.0f;
    }
    return x;
}

size_t bed_row_bytes(enum tensor_type type, int32_t n_in)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    return (size_t)n_in / info->block_elems * info->block_bytes;
}

/* Any codes and scales; every fifth block has the largest of both, of one sign. */
static void random_block(const struct quant_layout *layout, uint32_t n, unsigned char *file)
{
    const bool extreme = n % 5 == 2;
    const uint32_t n_codes = 1u << (layout->low_bits + layout->high_bits);
    const int32_t low = layout->type == TENSOR_Q6_K ? -128 : 0, high = layout->type == TENSOR_Q6_K ? 127 : 63;
    struct quant_block quant = { .d = (uint16_t)(0x1000u | (bed_word() & 0x87ffu)),
                                 .dmin = (uint16_t)(0x1000u | (bed_word() & 0x87ffu)) };
    for (int32_t i = 0; i < QUANT_MAX_PARTS; i++) {
        const int32_t any = low + (int32_t)(bed_word() % (uint64_t)(high - low + 1));
        quant.scale[i] = (int8_t)(!extreme ? any : n % 2 ? low : high);
        quant.min[i] = (uint8_t)(extreme ? 63 : bed_word() % 64);
    }
    for (int32_t i = 0; i < layout->elems; i++) {
        quant.code[i] = (uint8_t)(extreme ? (n % 3 ? n_codes - 1 : 0) : bed_word() % n_codes);
    }
    quant_block_write(layout, &quant, file);
}

unsigned char *bed_file_rows(enum tensor_type type, int32_t n_out, int32_t n_in)
{
    const struct quant_layout layout = quant_layout(type);
    const size_t row_bytes = bed_row_bytes(type, n_in);
    unsigned char *rows = mem_alloc((size_t)n_out, row_bytes);
    assert_non_null(rows);
    for (int32_t o = 0; o < n_out; o++) {
        unsigned char *row = rows + (size_t)o * row_bytes;
        for (int32_t i = 0; layout.elems > 0 && i < n_in / layout.elems; i++, row += layout.file_bytes) {
            random_block(&layout, (uint32_t)(o + i), row);
        }
        for (int32_t i = 0; layout.elems == 0 && i < n_in; i++) {
            const float x = bed_float();
            tensor_row_from_f32(type, &x, 1, row + (size_t)i * bed_row_bytes(type, 1));
        }
    }
    return rows;
}

void *bed_output(size_t n, size_t size)
{
    const size_t bytes = n * size;
    unsigned char *memory = bed_alloc(1, 2 * GUARD_BYTES + bytes);
    memset(memory, PATTERN, 2 * GUARD_BYTES + bytes);
    memcpy(memory, &bytes, sizeof bytes);
    return memory + GUARD_BYTES;
}

void bed_output_free(void *output)
{
    unsigned char *memory = (unsigned char *)output - GUARD_BYTES;
    size_t bytes;
    memcpy(&bytes, memory, sizeof bytes);
    for (size_t i = sizeof bytes; i < GUARD_BYTES; i++) {
        assert_int_equal(memory[i], PATTERN);
        assert_int_equal(memory[GUARD_BYTES + bytes + i], PATTERN);
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        assert_int_equal(memory[GUARD_BYTES + bytes + i], PATTERN);
    }
    bed_free(memory);
}

void *bed_copy(const void *from, size_t bytes)
{
    void *copy = bed_alloc(bytes, 1);
    memcpy(copy, from, bytes);
    return copy;
}

void bed_assert_same(const char *what, const float *found, const float *expected, size_t n)
{
    if (memcmp(found, expected, n * sizeof *found) == 0) {
        return;
    }
    size_t i = 0;
    while (mathx_to_bits(found[i]) == mathx_to_bits(expected[i])) {
        i++;
    }
    fail_msg("%s: element %zu of %zu is %a, expected %a", what, i, n, (double)found[i], (double)expected[i]);
}

void bed_weight_init(struct bed_weight *weight, enum tensor_type type, int32_t n_out, int32_t n_in)
{
    const size_t cpu_bytes = backend_weight_bytes(type, n_out, n_in);
    const size_t device_bytes = cuda_weight_bytes(type, n_out, n_in);
    assert_true(cpu_bytes > 0 && device_bytes > 0);
    unsigned char *data = bed_output(device_bytes, 1);
    memset(data, 0, device_bytes);
    weight->file = bed_file_rows(type, n_out, n_in);
    weight->cpu = (struct weight){ type, n_out, n_in, mem_alloc(1, cpu_bytes) };
    weight->device = (struct cuda_weight){ type, n_out, n_in, data };
    backend_weight_fill(&weight->cpu, 0, n_out, weight->file, bed_row_bytes(type, n_in));
    cuda_weight_fill(type, n_in, 0, n_out, weight->file, bed_row_bytes(type, n_in), data);
}

void bed_weight_deinit(struct bed_weight *weight)
{
    bed_output_free((unsigned char *)(uintptr_t)weight->device.data);
    mem_free(weight->cpu.data);
    mem_free(weight->file);
}

/* Rows as an earlier pass may have left them; NaN, so that they show wherever they are used. */
static void fill_stale(unsigned char *q8, size_t n_blocks)
{
    const float scale = MATHX_NAN;
    const int32_t sum = 32 * 77, half = 16 * 77;
    for (size_t b = 0; b < n_blocks; b++, q8 += CUDA_ACT_BLOCK_BYTES) {
        memset(q8, 77, CUDA_ACT_SCALES);
        for (int32_t r = 0; r < CUDA_PANEL_ROWS; r++) {
            memcpy(q8 + CUDA_ACT_SCALES + r * 4, &scale, 4);
            memcpy(q8 + CUDA_ACT_SUMS + r * 4, &sum, 4);
            memcpy(q8 + CUDA_ACT_HALVES + r * 4, &half, 4);
        }
    }
}

void bed_act_init(struct bed_act *act, const float *x, int32_t n_rows, int32_t n_cols)
{
    const int32_t stride = (n_cols + 3) / 4 * 4 + 4;
    act->cpu_memory = mem_alloc(1, backend_act_bytes(n_cols, n_rows));
    backend_act_init(&act->cpu, n_cols, n_rows, act->cpu_memory);
    act->device = (struct cuda_act){ .n_cols = n_cols, .f32_stride = stride,
                                     .f32 = bed_output((size_t)n_rows * (size_t)stride, sizeof(float)),
                                     .q8 = bed_output(cuda_act_q8_bytes(n_cols, n_rows), 1) };
    fill_stale(act->device.q8, cuda_act_q8_bytes(n_cols, n_rows) / CUDA_ACT_BLOCK_BYTES);
    for (int32_t row = 0; x != NULL && row < n_rows; row++) {
        const float *from = x + (size_t)row * (size_t)n_cols;
        memcpy(act->cpu.f32 + (size_t)row * (size_t)n_cols, from, (size_t)n_cols * sizeof *x);
        memcpy(act->device.f32 + (size_t)row * (size_t)stride, from, (size_t)n_cols * sizeof *x);
    }
}

void bed_act_deinit(struct bed_act *act)
{
    mem_free(act->cpu_memory);
    bed_output_free(act->device.f32);
    bed_output_free(act->device.q8);
}

void bed_assert_same_panels(const struct bed_act *act, int32_t n_rows)
{
    for (int32_t row = 0; row < n_rows; row++) {
        const int32_t panel = row / PANEL_ROWS, m = tile_panel_rows(n_rows, panel), r = row % PANEL_ROWS;
        unsigned char *cpu = tile_panel(&act->cpu, panel);
        for (int32_t b = 0; b < act->cpu.n_cols / QUANT_BLOCK; b++) {
            const unsigned char *device = act->device.q8 + cuda_act_block(act->cpu.n_cols, panel, b);
            assert_memory_equal(device + r * QUANT_BLOCK, tile_act_codes(cpu, m, b, r), QUANT_BLOCK);
            assert_memory_equal(device + CUDA_ACT_SCALES + r * 4, tile_act_scale(cpu, m, b, r), 4);
            assert_memory_equal(device + CUDA_ACT_SUMS + r * 4, tile_act_sum(cpu, m, b, r), 4);
            assert_memory_equal(device + CUDA_ACT_HALVES + r * 4, tile_act_half(cpu, m, b, r), 4);
        }
    }
}

void bed_assert_same_floats(const struct bed_act *act, int32_t n_rows)
{
    for (int32_t row = 0; row < n_rows; row++) {
        bed_assert_same("row", act->device.f32 + (size_t)row * (size_t)act->device.f32_stride,
                        act->cpu.f32 + (size_t)row * (size_t)act->cpu.n_cols, (size_t)act->cpu.n_cols);
    }
}
