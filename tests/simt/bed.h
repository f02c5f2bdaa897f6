/* bed: what the tests of device kernels share: a scalar device to compare with, random rows, outputs that
 * notice writes beside them, runs in both orders.
 *
 * Cases run twice: in the emulation, with memory that host and device share (bed_host.c), and on a GPU, with
 * memory of its own (gpu/bed_device.c). So all that a launch reads or writes is the bed's.
 */
#ifndef TESTS_SIMT_BED_H
#define TESTS_SIMT_BED_H

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/weight.h"

/* The definition, one worker. */
struct bed { struct backend *backend; struct lane *lane; };
void bed_init(struct bed *bed);
void bed_init_seeded(struct bed *bed, uint64_t seed);
void bed_deinit(struct bed *bed);
void bed_wait(struct bed *bed); /* for what was submitted to its lane */

uint64_t bed_word(void);
float bed_float(void); /* in -1 .. 1 */
void bed_seed(uint64_t seed);
/* Zeroed memory that both host and device code read; everything an operation names is of it or an output. */
void *bed_alloc(size_t n, size_t size);
/* For arrays that hold addresses themselves. */
void *bed_alloc_pointers(size_t n, size_t size);
void *bed_copy(const void *from, size_t bytes);
void bed_free(void *memory);
/* n floats of it; some rows' worth of zeros, tiny, large and equal ones among them */
float *bed_floats(size_t n);
/* Random rows of a type's file format, extreme codes and scales among them. */
unsigned char *bed_file_rows(enum tensor_type type, int32_t n_out, int32_t n_in);
size_t bed_row_bytes(enum tensor_type type, int32_t n_in);

/* n * size bytes, filled with a pattern, that nobody may write beside. */
void *bed_output(size_t n, size_t size);
/* Asserts that nobody did, and releases. */
void bed_output_free(void *output);

/* Launches an operation and waits for it: BED_RUN(cuda_add, &op). What an operation names and the bed does not
 * have is a failure. */
#define BED_RUN(launch, ...) bed_launched(launch(bed_enter(__VA_ARGS__, sizeof *(__VA_ARGS__)), NULL))
void *bed_enter(const void *op, size_t bytes);
/* Asserts that a launch was taken and that the emulation has nothing to say. */
void bed_launched(int error);
/* Backward: blocks and threads from last to first. */
void bed_order(int backward);
/* memcmp, and says where the first difference is */
void bed_assert_same(const char *what, const float *found, const float *expected, size_t n);

/* One weight, as the file has it, as the CPU and as the device read it. */
struct bed_weight { unsigned char *file; struct weight cpu; struct cuda_weight device; };
void bed_weight_init(struct bed_weight *weight, enum tensor_type type, int32_t n_out, int32_t n_in);
void bed_weight_deinit(struct bed_weight *weight);

/* Rows of activations of both: floats filled with x (NULL: left), panels of
 * the device with stale rows. */
struct bed_act { struct act cpu; void *cpu_memory; struct cuda_act device; };
void bed_act_init(struct bed_act *act, const float *x, int32_t n_rows, int32_t n_cols);
void bed_act_deinit(struct bed_act *act);
/* Asserts that the device's panels hold what the CPU's do. */
void bed_assert_same_panels(const struct bed_act *act, int32_t n_rows);
void bed_assert_same_floats(const struct bed_act *act, int32_t n_rows);

#endif
