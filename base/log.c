/* log: one write(2) a line, so that lines of several threads never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic int log_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&log_level, (int)level);
}

void log_print(enum log_level level, const char *format, ...)
{
    static const char *const prefix[] = { "error: ", "warning: ", "", "debug: " };
    char line[2048];
    if ((int)level > atomic_load(&log_level) || (unsigned)level > LOG_DEBUG) {
        return;
    }
    int n = snprintf(line, sizeof line, "%s", prefix[level]);
    va_list args;
    va_start(args, format);
    const int room = (int)sizeof line - 1 - n; /* keeps a byte for the newline */
    const int written = vsnprintf(line + n, (size_t)room, format, args);
    va_end(args);
    if (written > 0) {
        n += written < room ? written : room - 1;
    }
    line[n++] = '\n';
    for (int done = 0; done < n;) {
        const ssize_t part = write(STDERR_FILENO, line + done, (size_t)(n - done));
        if (part <= 0) {
            return; /* nobody is left to tell */
        }
        done += (int)part;
    }
}
