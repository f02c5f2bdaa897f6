/* clock: monotonic wall time and CPU time of the calling thread, in nanoseconds. Thread-safe. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_now_ns(void);
int64_t clock_thread_cpu_ns(void);
/* Returns once clock_now_ns() has passed it, a few microseconds late at most: the end is spun away. */
void clock_wait_until(int64_t ns);
/* Nanoseconds since the kernel started the process (first-token latency counts from here). */
int64_t clock_since_process_start_ns(void);

#endif
