/* bed_device: the bed's memory, once on the host and once on a device. Cases fill and compare the host's; a
 * launch sends all of it over, runs on the device's, and brings all of it back:
 *
 *     host    [block][block][block with addresses][output]     host + x  ◄─►  device + x
 *     device  [block][block][ ... theirs         ][output]
 *
 * Addresses in operations, and in blocks that are said to hold some, are moved by the distance of the two;
 * one that lies in neither stays, and the kernel that follows it fails. While a launch runs nobody may touch
 * the host's, so that a kernel given one of its addresses does not pass by chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "gpu/device.h"
#include "tests/simt/bed.h"

enum { BLOCK_ALIGN = 64, OP_CAP_BYTES = 1024, LARGEST_SIZE = 0xffff /* in an operation's padded words */ };
static const size_t arena_bytes = (size_t)512 << 20;

/* Before each block's memory, in a BLOCK_ALIGN of its own. */
struct block { size_t bytes /* with this */, previous /* where */; int in_use, holds_addresses; };
static struct { unsigned char *host, *device; size_t top, last; } arena;

/* Of twice the memory that is wanted the half that does not hold a multiple of 2^32. */
static unsigned char *half_of(unsigned char *memory)
{
    const uintptr_t first = (uintptr_t)memory, last = first + arena_bytes - 1;
    return first >> 32 != last >> 32 || (uint32_t)first <= LARGEST_SIZE ? memory + arena_bytes : memory;
}

static void arena_begin(void)
{
    arena.host = mmap(NULL, 2 * arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(arena.host != MAP_FAILED);
    arena.device = device_alloc(2 * arena_bytes);
    assert_non_null(arena.device);
    arena.host = half_of(arena.host);
    arena.device = half_of(arena.device);
}

static struct block *block_at(size_t at) { return (struct block *)(void *)(arena.host + at); }

static void *take(size_t n, size_t size, int holds_addresses)
{
    if (arena.host == NULL) {
        arena_begin();
    }
    assert_true(size > 0 && n <= arena_bytes / size);
    const size_t bytes = BLOCK_ALIGN + (n * size + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    assert_true(bytes <= arena_bytes - arena.top);
    struct block *block = block_at(arena.top);
    memset(block, 0, bytes);
    *block = (struct block){ bytes, arena.last, 1, holds_addresses };
    arena.last = arena.top;
    arena.top += bytes;
    return (unsigned char *)block + BLOCK_ALIGN;
}

void *bed_alloc(size_t n, size_t size) { return take(n, size, 0); }
void *bed_alloc_pointers(size_t n, size_t size) { return take(n, size, 1); }

void bed_free(void *memory)
{
    if (memory == NULL) {
        return;
    }
    struct block *block = (struct block *)(void *)((unsigned char *)memory - BLOCK_ALIGN);
    assert_true(block->in_use);
    block->in_use = 0;
    while (arena.top > 0 && !block_at(arena.last)->in_use) {
        arena.top = arena.last;
        arena.last = block_at(arena.top)->previous;
    }
}

/* A lone size or float has padding beside it, which may hold half an address that the stack held before. */
static int may_be_address(uintptr_t word) { return word % sizeof(float) == 0 && (uint32_t)word > LARGEST_SIZE; }

/* Words that lie in `from`'s arena, moved to `to`'s. */
static void move_addresses(void *memory, size_t bytes, const unsigned char *from, const unsigned char *to)
{
    unsigned char *at = memory;
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, at + i, sizeof word);
        if (may_be_address(word) && word - (uintptr_t)from < arena_bytes) {
            word += (uintptr_t)to - (uintptr_t)from;
            memcpy(at + i, &word, sizeof word);
        }
    }
}

/* Fails on addresses of this process that are none of the bed's. A sanitizer maps so much that two numbers
 * beside each other look like an address; what it finds itself is more. */
static void expect_no_strangers(const unsigned char *op, size_t bytes)
{
#ifdef TANDEM_INSTRUMENTED
    return;
#endif
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
        uintptr_t word;
        unsigned char resident;
        memcpy(&word, op + i, sizeof word);
        if (may_be_address(word) && word - (uintptr_t)arena.host >= arena_bytes &&
            mincore((void *)(word & ~(uintptr_t)4095), 1, &resident) == 0) {
            fail_msg("the operation's word %zu is an address that is not of the bed", i / sizeof word);
        }
    }
}

static void move_blocks(const unsigned char *from, const unsigned char *to)
{
    for (size_t at = 0; at < arena.top; at += block_at(at)->bytes) {
        const struct block *block = block_at(at);
        if (block->in_use && block->holds_addresses) {
            move_addresses(arena.host + at + BLOCK_ALIGN, block->bytes - BLOCK_ALIGN, from, to);
        }
    }
}

static void must(const char *why_not)
{
    if (why_not != NULL) {
        fail_msg("%s", why_not);
    }
}

void *bed_enter(const void *op, size_t bytes)
{
    static _Alignas(16) unsigned char moved[OP_CAP_BYTES];
    assert_true(bytes <= sizeof moved && arena.host != NULL);
    memcpy(moved, op, bytes);
    expect_no_strangers(moved, bytes);
    move_addresses(moved, bytes, arena.host, arena.device);
    move_blocks(arena.host, arena.device);
    must(device_put(arena.device, arena.host, arena.top));
    assert_int_equal(mprotect(arena.host, arena_bytes, PROT_NONE), 0);
    return moved;
}

void bed_launched(int error)
{
    const char *why_not = device_wait();
    assert_int_equal(mprotect(arena.host, arena_bytes, PROT_READ | PROT_WRITE), 0);
    if (why_not == NULL) {
        why_not = device_get(arena.host, arena.device, arena.top);
    }
    move_blocks(arena.device, arena.host);
    must(why_not);
    assert_int_equal(error, 0);
}

void bed_order(int backward) { device_order(backward); }
