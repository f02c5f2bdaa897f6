/* mem: the one door to the heap. It counts, it can be told to fail, and it knows what the machine
 * has left. Blocks carry a header of one cache line that remembers their size, for mem_realloc. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEM_ALIGN_BYTES = 64 };
static const size_t mem_huge_bytes = (size_t)2 << 20;
/* No machine has a terabyte for one block: more is a size gone wrong, and not worth asking for. */
static const size_t mem_limit_bytes = ((size_t)1 << 40) - MEM_ALIGN_BYTES * 2;

struct mem_header { size_t bytes; };
_Static_assert(sizeof(struct mem_header) <= MEM_ALIGN_BYTES, "the header has one cache line");

static _Atomic uint64_t mem_count;
static _Atomic uint64_t mem_fail_number; /* value of mem_count at which to fail; 0 = never */

uint64_t mem_alloc_count(void)
{
    return atomic_load(&mem_count);
}

void mem_fail_at(uint64_t n)
{
    atomic_store(&mem_fail_number, n == 0 ? 0 : atomic_load(&mem_count) + n);
}

/* Counts an allocation; 1 when a test wants this one to fail. */
static int mem_count_and_test(void)
{
    const uint64_t number = atomic_fetch_add_explicit(&mem_count, 1, memory_order_relaxed) + 1;
    return number == atomic_load_explicit(&mem_fail_number, memory_order_relaxed);
}

static void *mem_take(size_t n, size_t size)
{
    if (mem_count_and_test() || (size != 0 && n > mem_limit_bytes / size)) {
        return NULL;
    }
    const size_t bytes = n * size;
    const size_t whole = (bytes + 2 * MEM_ALIGN_BYTES - 1) / MEM_ALIGN_BYTES * MEM_ALIGN_BYTES;
    unsigned char *block = aligned_alloc(MEM_ALIGN_BYTES, whole);
    if (block == NULL) {
        return NULL;
    }
    ((struct mem_header *)(void *)block)->bytes = bytes;
    return block + MEM_ALIGN_BYTES;
}

void *mem_alloc(size_t n, size_t size)
{
    void *ptr = mem_take(n, size);
    return ptr == NULL ? NULL : memset(ptr, 0, n * size);
}

void *mem_realloc(void *ptr, size_t n, size_t size)
{
    unsigned char *fresh = mem_take(n, size);
    if (fresh == NULL || ptr == NULL) {
        return fresh;
    }
    const struct mem_header *old = (const void *)((unsigned char *)ptr - MEM_ALIGN_BYTES);
    memcpy(fresh, ptr, old->bytes < n * size ? old->bytes : n * size);
    mem_free(ptr);
    return fresh;
}

char *mem_strdup(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *copy = mem_take(bytes, 1);
    return copy == NULL ? NULL : memcpy(copy, text, bytes);
}

void mem_free(void *ptr)
{
    if (ptr != NULL) {
        free((unsigned char *)ptr - MEM_ALIGN_BYTES);
    }
}

/* Whole pages; whole huge pages from 2 MiB on. 0 when the size cannot be. */
static size_t mem_map_rounded(size_t bytes)
{
    const size_t unit = bytes >= mem_huge_bytes ? mem_huge_bytes : (size_t)sysconf(_SC_PAGESIZE);
    if (bytes > SIZE_MAX / 2) {
        return 0; /* maps may be larger than blocks: address space is all they take at first */
    }
    return bytes == 0 ? unit : (bytes + unit - 1) / unit * unit;
}

void *mem_map(size_t bytes)
{
    const size_t rounded = mem_map_rounded(bytes);
    if (mem_count_and_test() || rounded == 0) {
        return NULL;
    }
    const size_t slack = bytes >= mem_huge_bytes ? mem_huge_bytes : 0;
    unsigned char *area = mmap(NULL, rounded + slack, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return NULL;
    }
    if (slack == 0) {
        return area;
    }
    /* The kernel places at any page: give back what lies before and after the huge-page border. */
    const size_t before = (mem_huge_bytes - (uintptr_t)area % mem_huge_bytes) % mem_huge_bytes;
    if (before > 0) {
        munmap(area, before);
    }
    if (slack - before > 0) {
        munmap(area + before + rounded, slack - before);
    }
    (void)madvise(area + before, rounded, MADV_HUGEPAGE); /* a wish: kernels may lack it */
    return area + before;
}

void mem_unmap(void *ptr, size_t bytes)
{
    if (ptr != NULL) {
        munmap(ptr, mem_map_rounded(bytes));
    }
}
