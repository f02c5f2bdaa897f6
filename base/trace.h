/* trace: the last events of the program, in a ring, dumped when an ASSERT breaks. Lock-free,
 * thread-safe; an event is a static string and two numbers, a few nanoseconds to record. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <stdint.h>

void trace_event(const char *name /* static */, int64_t a, int64_t b);
void trace_dump(void); /* to standard error, oldest first */

#endif
