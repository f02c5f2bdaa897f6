/* simt: blocks, threads and what they wait for. fiber.cpp switches stacks. */
#include "tests/simt/simt.h"

#include <cuda_runtime.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/mathx.h"
#include "tests/simt/fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

enum { MAX_THREADS = 1024, MAX_ARRAYS = 32, SHARED_LIMIT_BYTES = 48 * 1024, ARRAY_ALIGN = 16 };

enum wait { READY, AT_BARRIER, AT_WARP, ENDED };

struct thread_state {
    wait state;
    const char *file; /* of the barrier */
    int line;
    simt_warp_op op;
    unsigned mask;
    int source;
    uint32_t in[SIMT_WORDS_IN], out[SIMT_WORDS_OUT];
};

struct shared_array { const void *key; size_t offset, bytes; };

simt_order block_order, thread_order;
char error[512]; /* the first since it was taken */
char taken[512];
bool launch_failed, block_failed;

thread_state threads[MAX_THREADS];
unsigned n_threads, current;
void (*thread_body)(const void *);
const void *thread_args;

alignas(64) unsigned char shared_memory[SHARED_LIMIT_BYTES];
shared_array arrays[MAX_ARRAYS];
int n_arrays;
size_t shared_used, dynamic_bytes;

void note(const char *format, va_list args)
{
    launch_failed = block_failed = true;
    if (error[0] == 0) {
        const int n = snprintf(error, sizeof error, "block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z);
        vsnprintf(error + n, sizeof error - (size_t)n, format, args);
    }
}

__attribute__((format(printf, 1, 2))) void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(format, args);
    va_end(args);
}

void thread_main(void)
{
    thread_body(thread_args);
    threads[current].state = ENDED;
    fiber_leave();
}

/* Hands over to the others until what this thread waits for has come. */
void wait_as(wait state)
{
    threads[current].state = state;
    fiber_leave();
}

void resume(unsigned thread)
{
    current = thread;
    threadIdx = { thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y) };
    fiber_enter(thread);
}

unsigned count(wait state)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        n += threads[i].state == state;
    }
    return n;
}

unsigned first_in(wait state)
{
    unsigned i = 0;
    while (i < n_threads && threads[i].state != state) {
        i++;
    }
    return i;
}

/* All threads wait at a barrier: the same one? Then on. */
void pass_barrier(void)
{
    for (unsigned i = 0; i < n_threads; i++) {
        if (threads[i].line != threads[0].line || strcmp(threads[i].file, threads[0].file) != 0) {
            complain("thread 0 waits at the barrier of line %d, thread %u at that of line %d",
                     threads[0].line, i, threads[i].line);
            return;
        }
    }
    for (unsigned i = 0; i < n_threads; i++) {
        threads[i].state = READY;
    }
}

/* Nobody can run on, and not all wait at a barrier. */
void complain_of_standstill(void)
{
    const unsigned at_barrier = count(AT_BARRIER), at_warp = count(AT_WARP), ended = count(ENDED);
    if (at_warp > 0) {
        const unsigned thread = first_in(AT_WARP), warp = thread / SIMT_WARP * SIMT_WARP;
        for (unsigned lane = 0; lane < SIMT_WARP; lane++) {
            if ((threads[thread].mask >> lane & 1) && threads[warp + lane].state != AT_WARP) {
                complain("thread %u waits in a warp operation with mask %08x for lane %u, which %s", thread,
                         threads[thread].mask, lane,
                         threads[warp + lane].state == ENDED ? "has ended" : "waits at a barrier");
                return;
            }
        }
    }
    complain("%u threads wait at the barrier of line %d, which %u that ended and %u in warp operations never "
             "reach", at_barrier, threads[first_in(AT_BARRIER) % MAX_THREADS].line, ended, at_warp);
}

void run_block(void)
{
    memset(shared_memory, 0xff, sizeof shared_memory); /* NaN */
    n_arrays = 0;
    shared_used = (dynamic_bytes + ARRAY_ALIGN - 1) / ARRAY_ALIGN * ARRAY_ALIGN;
    block_failed = false;
    for (unsigned i = 0; i < n_threads; i++) {
        threads[i].state = READY;
        fiber_begin(i, thread_main);
    }
    while (!block_failed) {
        bool ran = false;
        for (unsigned i = 0; i < n_threads && !block_failed; i++) {
            const unsigned thread = thread_order == SIMT_FORWARD ? i : n_threads - 1 - i;
            if (threads[thread].state == READY) {
                ran = true;
                resume(thread);
            }
        }
        if (block_failed || ran) {
            continue;
        }
        if (count(ENDED) == n_threads) {
            return;
        }
        if (count(AT_BARRIER) == n_threads) {
            pass_barrier();
        } else {
            complain_of_standstill();
        }
    }
}

/* ---- warp operations ---- */

thread_state *warp_of(unsigned thread) { return threads + thread / SIMT_WARP * SIMT_WARP; }

/* d = a b, m16n8k32 of signed bytes: lane l holds of a rows l / 4 (words 0, 2) and l / 4 + 8 (1, 3), bytes
 * 4 (l % 4) (words 0, 1) and 16 further (2, 3); of b column l / 4, bytes likewise; of d row l / 4 columns
 * 2 (l % 4) and the next one (words 0, 1), and row l / 4 + 8 (2, 3). PTX ISA, "mma.m16n8k32". */
void warp_mma(thread_state *warp)
{
    int8_t a[16][32], b[8][32];
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        const uint32_t *in = warp[lane].in;
        const int row = lane / 4, at = lane % 4 * 4;
        memcpy(&a[row][at], &in[0], 4);
        memcpy(&a[row + 8][at], &in[1], 4);
        memcpy(&a[row][at + 16], &in[2], 4);
        memcpy(&a[row + 8][at + 16], &in[3], 4);
        memcpy(&b[row][at], &in[4], 4);
        memcpy(&b[row][at + 16], &in[5], 4);
    }
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            int32_t sum = 0;
            for (int k = 0; k < 32; k++) {
                sum += a[row][k] * b[column][k];
            }
            memcpy(&warp[lane].out[i], &sum, 4);
        }
    }
}

/* d = c + a b, m16n8k16 of bf16 or halves: as above, with a pair for four bytes and c in words 6 to 9. Hardware
 * does not say in which order it adds; here it is c, then inputs ascending, each by fma: products are exact. */
void warp_mma_float(thread_state *warp, bool is_bf16)
{
    float a[16][16], b[8][16];
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        const int row = lane / 4, at = lane % 4 * 2;
        for (int word = 0; word < 6; word++) {
            float *to = word < 4 ? &a[row + word % 2 * 8][at + word / 2 * 8] : &b[row][at + (word - 4) * 8];
            for (int half = 0; half < 2; half++) {
                const uint16_t bits = (uint16_t)(warp[lane].in[word] >> (16 * half));
                to[half] = is_bf16 ? mathx_bf16_to_f32(bits) : mathx_f16_to_f32(bits);
            }
        }
    }
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum;
            memcpy(&sum, &warp[lane].in[6 + i], 4);
            for (int k = 0; k < 16; k++) {
                sum = mathx_fma(a[row][k], b[column][k], sum);
            }
            memcpy(&warp[lane].out[i], &sum, 4);
        }
    }
}

bool is_product(simt_warp_op op) { return op == SIMT_MMA || op == SIMT_MMA_BF16 || op == SIMT_MMA_F16; }

void warp_complete(thread_state *warp, unsigned mask)
{
    const simt_warp_op op = warp[__builtin_ctz(mask)].op;
    if (op == SIMT_MMA) {
        warp_mma(warp);
    } else if (is_product(op)) {
        warp_mma_float(warp, op == SIMT_MMA_BF16);
    }
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        if (mask >> lane & 1) {
            if (warp[lane].op == SIMT_SHUFFLE) {
                memcpy(warp[lane].out, warp[warp[lane].source].in, sizeof warp[lane].out);
            }
            warp[lane].state = READY;
        }
    }
}

void warp_check(unsigned mask, simt_warp_op op, int source)
{
    const unsigned lane = current % SIMT_WARP, first = current / SIMT_WARP * SIMT_WARP;
    const unsigned left = n_threads - first, n_lanes = left < SIMT_WARP ? left : (unsigned)SIMT_WARP;
    if (!(mask >> lane & 1)) {
        simt_fail("lane %u is not in the mask %08x of its own warp operation", lane, mask);
    }
    if (n_lanes < SIMT_WARP && mask >> n_lanes != 0) {
        simt_fail("the mask %08x names lanes of a warp that has %u", mask, n_lanes);
    }
    if (op == SIMT_SHUFFLE && !(mask >> source & 1)) {
        simt_fail("lane %u wants the value of lane %d, which is not in the mask %08x", lane, source, mask);
    }
    if (is_product(op) && mask != 0xffffffffu) {
        simt_fail("a matrix product with mask %08x; it takes the whole warp", mask);
    }
    const thread_state *warp = warp_of(current);
    for (unsigned other = 0; other < n_lanes; other++) {
        if (warp[other].state == AT_WARP && (warp[other].mask != mask || warp[other].op != op)) {
            simt_fail("lane %u comes with mask %08x and operation %d, lane %u waits with %08x and %d", lane,
                      mask, op, other, warp[other].mask, warp[other].op);
        }
    }
}

} // namespace

int simt_lane(void) { return (int)(current % SIMT_WARP); }

void simt_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(format, args);
    va_end(args);
    for (;;) { /* the block has ended: nobody comes back here */
        fiber_leave();
    }
}

void simt_barrier(const char *file, int line)
{
    threads[current].file = file;
    threads[current].line = line;
    wait_as(AT_BARRIER);
}

void simt_warp(simt_warp_op op, unsigned mask, int source, const uint32_t *words_in, uint32_t *words_out)
{
    warp_check(mask, op, source);
    thread_state *self = &threads[current], *warp = warp_of(current);
    self->op = op;
    self->mask = mask;
    self->source = source;
    self->state = AT_WARP;
    if (words_in != nullptr) {
        memcpy(self->in, words_in, sizeof self->in);
    }
    unsigned arrived = 0;
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        arrived |= (mask >> lane & 1) != 0 && warp[lane].state == AT_WARP ? 1u << lane : 0;
    }
    if (arrived == mask) {
        warp_complete(warp, mask);
    } else {
        wait_as(AT_WARP);
    }
    if (words_out != nullptr) {
        memcpy(words_out, self->out, sizeof self->out);
    }
}

void *simt_shared_array(const void *key, size_t bytes)
{
    for (int i = 0; i < n_arrays; i++) {
        if (arrays[i].key == key) {
            return shared_memory + arrays[i].offset;
        }
    }
    const size_t room = (bytes + ARRAY_ALIGN - 1) / ARRAY_ALIGN * ARRAY_ALIGN;
    if (n_arrays == MAX_ARRAYS || room > SHARED_LIMIT_BYTES - shared_used) {
        simt_fail("%zu bytes of shared memory beside %zu, expected %d in all at most", bytes, shared_used,
                  SHARED_LIMIT_BYTES);
    }
    arrays[n_arrays++] = { key, shared_used, bytes };
    shared_used += room;
    return shared_memory + shared_used - room;
}

void *simt_shared_dynamic(size_t *bytes)
{
    *bytes = dynamic_bytes;
    return shared_memory;
}

bool simt_check(const simt_launch_shape &shape)
{
    const dim3 grid = shape.grid, block = shape.block;
    const unsigned long long in_block = (unsigned long long)block.x * block.y * block.z;
    const unsigned long long in_grid = (unsigned long long)grid.x * grid.y * grid.z;
    blockIdx = { 0, 0, 0 };
    if (in_block == 0 || in_block > MAX_THREADS || in_grid == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || shape.shared_bytes > SHARED_LIMIT_BYTES) {
        complain("a launch of %u x %u x %u blocks of %llu threads with %zu bytes of shared memory", grid.x,
                 grid.y, grid.z, in_block, shape.shared_bytes);
        return false;
    }
    return true;
}

cudaError_t simt_run(const simt_launch_shape &shape, void (*body)(const void *), const void *args)
{
    const dim3 grid = shape.grid, block = shape.block;
    const unsigned long long in_grid = (unsigned long long)grid.x * grid.y * grid.z;
    launch_failed = false;
    if (!simt_check(shape)) {
        return cudaErrorInvalidValue;
    }
    gridDim = grid;
    blockDim = block;
    n_threads = block.x * block.y * block.z;
    dynamic_bytes = shape.shared_bytes;
    thread_body = body;
    thread_args = args;
    for (unsigned long long i = 0; i < in_grid && !launch_failed; i++) {
        const unsigned long long at = block_order == SIMT_FORWARD ? i : in_grid - 1 - i;
        blockIdx = { (unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                     (unsigned)(at / grid.x / grid.y) };
        run_block();
    }
    return launch_failed ? cudaErrorLaunchFailure : cudaSuccess;
}

void simt_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(format, args);
    va_end(args);
}

void simt_set_order(enum simt_order blocks, enum simt_order threads_)
{
    block_order = blocks;
    thread_order = threads_;
}

const char *simt_take_error(void)
{
    if (error[0] == 0) {
        return nullptr;
    }
    memcpy(taken, error, sizeof taken);
    error[0] = 0;
    return taken;
}
