/* bench: what the questions of gpu_bench share: device memory, times, results as lines of JSON with the fields
 * of every bench (bench/measure.h). C++, one thread, the first device. A CUDA error ends the program.
 */
#ifndef GPU_BENCH_H
#define GPU_BENCH_H

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#define MUST(call) must(call, #call)
void must(cudaError_t error, const char *what);

/* Bytes that look random; zeroed where `zeroed`. Freed when the program ends. NULL when there are none left. */
enum fill { FILL_RANDOM, FILL_ZERO };
void *device_bytes(size_t bytes, enum fill fill);
void *device_copy(const void *from, size_t bytes);

/* ---- time ---- */
/* Microseconds a launch: launch i of a repetition gets i, so that data can rotate past the caches. */
struct timing { int n; double min, median, max; };
typedef void (*launch_fn)(void *context, int i);
struct timing time_launches(launch_fn launch, void *context, int reps, double rep_us);
double seconds_left(void); /* of the budget the program was given */

/* ---- results ---- */
struct roofs { double copy_gb, read_gb, int8_tmac, bf16_tmac, fp32_tmac; }; /* per second */
extern struct roofs roofs;
struct result {
    const char *bench;
    char shape[200];         /* members of "case", JSON */
    const char *unit;
    struct timing value;
    double bound;            /* the roof's prediction, same unit; 0: none */
    int lower_is_better;
};
void put_result(const struct result *result);

/* ---- questions ---- */
void measure_roofs(void);
void measure_launches(void);
void measure_linear(void);
void measure_attention(void);
void measure_choices(void);
double wgmma_bf16_tmac(void); /* 0 where the device has no such instruction */

#endif
