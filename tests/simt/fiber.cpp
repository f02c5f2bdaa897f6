/* fiber: by ucontext's calls, or, on x86-64, by keeping six registers: ucontext asks the kernel for the
 * signal mask at each switch, which made the tests of linear layers take six times as long.
 */
#include "tests/simt/fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

enum { GUARD_BYTES = 4096 };
unsigned char *stacks; /* [FIBER_CAP][FIBER_STACK_BYTES], the lowest page of each may not be touched */
unsigned running;

unsigned char *stack_of(unsigned fiber)
{
    if (stacks == nullptr) {
        void *memory = mmap(nullptr, (size_t)FIBER_CAP * FIBER_STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            perror("stacks of device threads");
            abort();
        }
        stacks = static_cast<unsigned char *>(memory);
        for (unsigned i = 0; i < FIBER_CAP; i++) {
            mprotect(stacks + (size_t)i * FIBER_STACK_BYTES, GUARD_BYTES, PROT_NONE);
        }
    }
    return stacks + (size_t)fiber * FIBER_STACK_BYTES;
}

/* ---- the address sanitizer wants to hear of switches ---- */
#if defined(__SANITIZE_ADDRESS__)
void *host_fake, *fiber_fake[FIBER_CAP];
const void *host_stack;
size_t host_stack_bytes;

void before_enter(unsigned fiber)
{
    __sanitizer_start_switch_fiber(&host_fake, stack_of(fiber), FIBER_STACK_BYTES);
}
void after_enter(void) { __sanitizer_finish_switch_fiber(host_fake, nullptr, nullptr); }
void before_leave(void) { __sanitizer_start_switch_fiber(&fiber_fake[running], host_stack, host_stack_bytes); }
void after_leave(void)
{
    __sanitizer_finish_switch_fiber(fiber_fake[running], &host_stack, &host_stack_bytes);
}
void forget(unsigned fiber) /* frames of a fiber that was left for good */
{
    fiber_fake[fiber] = nullptr;
    __asan_unpoison_memory_region(stack_of(fiber) + GUARD_BYTES, FIBER_STACK_BYTES - GUARD_BYTES);
}
#else
void before_enter(unsigned) {}
void after_enter(void) {}
void before_leave(void) {}
void after_leave(void) {}
void forget(unsigned) {}
#endif

void (*bodies[FIBER_CAP])(void);

void first_steps(void)
{
    after_leave();
    bodies[running]();
    abort();
}

} // namespace

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)

/* Pushes what a called function must keep, swaps stacks, pops. */
extern "C" void fiber_switch(void **keep, void *next);
__asm__(".text\n"
        ".globl fiber_switch\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");

static void *host_at, *fiber_at[FIBER_CAP];

void fiber_begin(unsigned fiber, void (*body)(void))
{
    bodies[fiber] = body;
    forget(fiber);
    /* as if fiber_switch had been called from where first_steps begins: six registers, its address, and
     * a word that leaves the stack as a call leaves it */
    uint64_t *top = reinterpret_cast<uint64_t *>(stack_of(fiber) + FIBER_STACK_BYTES) - 8;
    for (int i = 0; i < 8; i++) {
        top[i] = 0;
    }
    top[6] = reinterpret_cast<uint64_t>(&first_steps);
    fiber_at[fiber] = top;
}

void fiber_enter(unsigned fiber)
{
    running = fiber;
    before_enter(fiber);
    fiber_switch(&host_at, fiber_at[fiber]);
    after_enter();
}

void fiber_leave(void)
{
    before_leave();
    fiber_switch(&fiber_at[running], host_at);
    after_leave();
}

#else

#include <ucontext.h>

static ucontext_t host_at, fiber_at[FIBER_CAP];

void fiber_begin(unsigned fiber, void (*body)(void))
{
    bodies[fiber] = body;
    forget(fiber);
    getcontext(&fiber_at[fiber]);
    fiber_at[fiber].uc_stack.ss_sp = stack_of(fiber);
    fiber_at[fiber].uc_stack.ss_size = FIBER_STACK_BYTES;
    fiber_at[fiber].uc_link = nullptr;
    makecontext(&fiber_at[fiber], first_steps, 0);
}

void fiber_enter(unsigned fiber)
{
    running = fiber;
    before_enter(fiber);
    swapcontext(&host_at, &fiber_at[fiber]);
    after_enter();
}

void fiber_leave(void)
{
    before_leave();
    swapcontext(&fiber_at[running], &host_at);
    after_leave();
}

#endif
