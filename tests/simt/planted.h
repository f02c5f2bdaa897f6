/* planted: kernels with a fault each, which the emulation has to find, and their sound twins. */
#ifndef TESTS_SIMT_PLANTED_H
#define TESTS_SIMT_PLANTED_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PLANTED_THREADS = 64 };
enum planted_fault {
    PLANTED_NONE,
    PLANTED_BARRIER_MISSED,   /* thread 3 does not come to the barrier */
    PLANTED_BARRIER_OTHER,    /* half of the threads waits at another line */
    PLANTED_BARRIER_RETURNED, /* a warp ends before the barrier */
    PLANTED_OVERFLOW,         /* element n of n in shared memory */
    PLANTED_BELOW,            /* element -1 */
    PLANTED_DYNAMIC_OVERFLOW,
    PLANTED_LANE_ABSENT,      /* a lane of the mask does not come */
    PLANTED_LANE_OUTSIDE,     /* a lane comes that its mask does not name */
    PLANTED_SOURCE_OUTSIDE,   /* a value is wanted of a lane outside the mask */
    PLANTED_MASKS_DIFFER,
    PLANTED_TOO_MUCH_SHARED,
    PLANTED_TOO_MANY_THREADS,
    PLANTED_N_FAULTS
};
/* out [PLANTED_THREADS]: sound, each thread's value is its neighbour's index plus its warp's sum. */
int planted_run(enum planted_fault fault, uint32_t *out);

/* Reverses [n_blocks * PLANTED_THREADS] within blocks through shared memory, without the barrier it needs
 * when `barrier` is 0. */
int planted_race(int barrier, uint32_t n_blocks, uint32_t *out);
/* Blocks that count up a number: each notes what it found, or all add to it. */
int planted_blocks(int note, uint32_t n_blocks, uint32_t *count, uint32_t *out);
/* out[i] = what thread i finds in shared memory before anybody has written there */
int planted_unwritten(float *out);
/* [16][8] = a [16][32] times b [8][32] by one matrix instruction */
int planted_mma(const int8_t *a, const int8_t *b, int32_t *out);

#ifdef __cplusplus
}
#endif
#endif
