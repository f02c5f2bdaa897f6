/* clock: three questions to the kernel. */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_read_ns(clockid_t id)
{
    struct timespec now;
    if (clock_gettime(id, &now) != 0) {
        return 0;
    }
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_now_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

int64_t clock_thread_cpu_ns(void)
{
    return clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
}

void clock_wait_until(int64_t ns)
{
    const int64_t spun_ns = 100 * 1000; /* the system may wake us so late */
    for (int64_t left = ns - clock_now_ns(); left > 0; left = ns - clock_now_ns()) {
        if (left > spun_ns) {
            const int64_t slept = left - spun_ns;
            nanosleep(&(struct timespec){ .tv_sec = slept / 1000000000, .tv_nsec = slept % 1000000000 }, NULL);
        }
    }
}

/* Field 22 of /proc/self/stat: start time in clock ticks since boot; -1 if unreadable. The name in
 * field 2 may hold spaces and brackets, so fields are counted from its last closing bracket. */
static int64_t clock_start_ticks(void)
{
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "r");
    if (file == NULL) {
        return -1;
    }
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? -1 : (int64_t)strtoll(at + 1, NULL, 10);
}

int64_t clock_since_process_start_ns(void)
{
    const int64_t ticks = clock_start_ticks();
    const int64_t ticks_per_s = (int64_t)sysconf(_SC_CLK_TCK);
    if (ticks < 0 || ticks_per_s <= 0) {
        return 0;
    }
    /* Seconds and rest apart: ticks * 10^9 may overflow. The start is known to a tick (10 ms). */
    const int64_t start_ns = ticks / ticks_per_s * 1000000000
                           + ticks % ticks_per_s * 1000000000 / ticks_per_s;
    const int64_t age_ns = clock_read_ns(CLOCK_BOOTTIME) - start_ns;
    return age_ns > 0 ? age_ns : 0;
}
