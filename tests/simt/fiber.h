/* fiber: stacks that take turns. Fiber i runs from fiber_enter(i) until it calls fiber_leave(), and goes on
 * there when it is entered again. Nothing is cleaned up: a fiber that is begun anew forgets where it was.
 */
#ifndef TESTS_SIMT_FIBER_H
#define TESTS_SIMT_FIBER_H

enum { FIBER_CAP = 1024, FIBER_STACK_BYTES = 64 * 1024 };

void fiber_begin(unsigned fiber, void (*body)(void)); /* body must not return */
void fiber_enter(unsigned fiber);
void fiber_leave(void);

#endif
