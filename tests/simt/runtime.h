/* runtime: devices, memory, streams, events and graphs of the emulation. What is put on a stream runs when
 * somebody waits for it and not before, so a missing wait shows as a result that is not there yet; an input
 * overwritten too early shows as the later one.
 *
 *     host ── launch, copy, record ──► stream  [ ][ ][ ][ ]   nothing has run
 *     host ── synchronise ───────────────────► all of it, in order, on this thread
 *
 * Device memory cannot be touched by the host (it has no access rights but while a stream runs), nor by
 * kernels of another device. It begins as NaN. Asynchronous copies want pinned memory, calls the device
 * that their stream is of; memory is freed when nothing is under way. What is wrong: simt_take_error().
 *
 * Any thread may call; one at a time gets in.
 */
#ifndef TESTS_SIMT_RUNTIME_H
#define TESTS_SIMT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void simt_set_devices(int n, size_t memory_bytes); /* 2 devices of 1 GiB unless told otherwise */
void simt_set_name(const char *name); /* of all of them; "emulated", a string that lasts */
/* Whether the driver cuts devices into parts, of which... */
void simt_set_parts(int gives);
/* ...this many multiprocessors are held in parts now. */
int simt_held_parts(void);
/* Whether there is an NCCL for ranks on devices (tests/simt/nccl.cpp); without, exchanges go through the host. */
void simt_set_nccl(int there);
/* The launch after n more of them fails, and from then on everything on that device; < 0: none. */
void simt_fail_launch(int64_t after);
/* All devices are well again and hold nothing of use. */
void simt_reset(void);
/* Bytes of device and pinned memory that were taken and not given back. */
size_t simt_held_bytes(void);
/* Reads or writes device memory, as a debugger would. */
void simt_peek(void *to, const void *from, size_t bytes);
void simt_poke(void *to, const void *from, size_t bytes);

/* What was asked for since simt_reset(). */
struct simt_counts { uint64_t launches, graph_launches, captures, copies_up, copies_down, bytes_down, waits; };
/* What this driver takes of a device for each operation of an instantiated graph. */
enum { SIMT_NODE_BYTES = 10000 };
struct simt_counts simt_counts_get(void);

/* ---- cublaslt.cpp; simt_reset() leaves it as it is ---- */
/* Whether there is a cuBLASLt to open: whole (1, as it begins), without its product (-1), none (0). */
void simt_set_blas(int gives);
/* The choice of an algorithm or product after n more of them fails, < 0: none. Counts begin again. */
void simt_fail_blas(int64_t after);
struct simt_blas_counts { uint64_t choices, products; };
struct simt_blas_counts simt_blas_counts_get(void);

#ifdef __cplusplus
}
#endif
#endif
