/* mem: every heap byte of the product comes from here, so that tests can count allocations and make
 * each of them fail once. Thread-safe.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* n * size bytes, zeroed, 64-byte aligned; NULL when the product overflows, memory is out, or a
 * test asked for failure. Zero bytes give a unique non-NULL pointer. Free with mem_free. */
void *mem_alloc(size_t n, size_t size);
/* Grows or shrinks to n * size bytes keeping the old content; new bytes are not zeroed. */
void *mem_realloc(void *ptr, size_t n, size_t size);
char *mem_strdup(const char *text);
void mem_free(void *ptr);

/* Large, page-aligned, zeroed, huge pages asked for by madvise. `bytes` to be passed back on free.
 * For weights, KV pools and roof buffers: loops and models share the same page size. */
void *mem_map(size_t bytes);
void mem_unmap(void *ptr, size_t bytes);

/* Allocations (mem_alloc, mem_realloc, mem_strdup, mem_map) since program start. */
uint64_t mem_alloc_count(void);
/* Test hook: the n-th allocation from now on (1 = the next) fails once; 0 switches off. */
void mem_fail_at(uint64_t n);
/* MemAvailable of the machine, lowered by a cgroup limit where one is set; 0 if unknown. */
uint64_t mem_available_bytes(void);
/* Resident bytes of this process now, and at its peak; 0 if unknown. */
uint64_t mem_resident_bytes(void);
uint64_t mem_peak_bytes(void);

#endif
