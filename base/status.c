/* status: the sentence of the last failure, kept per thread, and how a program with a bug ends. */
#include "base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_MESSAGE_BYTES = 1024 };

static _Thread_local char status_text[STATUS_MESSAGE_BYTES];
static _Atomic(void (*)(void)) status_assert_hook;

enum status status_fail(enum status status, const char *format, ...)
{
    /* An argument may be the previous sentence itself: format beside it, then copy. */
    char text[STATUS_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, sizeof text, format, args) < 0) {
        text[0] = '\0';
    }
    va_end(args);
    memcpy(status_text, text, sizeof text);
    return status;
}

const char *status_message(void)
{
    return status_text;
}

const char *status_name(enum status status)
{
    static const char *const names[] = {
#define X(name, text) [name] = text,
        STATUS_TABLE(X)
#undef X
    };
    const size_t idx = (size_t)status;
    return idx < sizeof names / sizeof names[0] ? names[idx] : "unknown status";
}

void status_on_assert(void (*hook)(void))
{
    atomic_store(&status_assert_hook, hook);
}

_Noreturn void status_assert_fail(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: bug: ASSERT(%s) does not hold\n", file, line, condition);
    /* Taken out first, so that an ASSERT inside the hook cannot come back here for ever. */
    void (*hook)(void) = atomic_exchange(&status_assert_hook, NULL);
    if (hook != NULL) {
        hook();
    }
    abort();
}
