/* status: how a failure travels. A function that can fail returns `enum status`; the sentence for
 * the user is written once, where the cause is known, with status_fail(). The message lives in the
 * calling thread until the next status_fail() there; copy it before handing it to another thread.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#define STATUS_TABLE(X)                                                                        \
    X(STATUS_OK, "ok")                                                                         \
    X(STATUS_INVALID, "invalid input")        /* a file, request or option that is wrong */    \
    X(STATUS_UNSUPPORTED, "unsupported")      /* well-formed, but not something we can do */   \
    X(STATUS_NO_MEMORY, "out of memory")                                                       \
    X(STATUS_IO, "input/output error")                                                         \
    X(STATUS_REFUSED, "refused")              /* no pages now, queue full: try later */        \
    X(STATUS_CANCELLED, "cancelled")                                                           \
    X(STATUS_INTERRUPTED, "interrupted")                                                       \
    X(STATUS_NUMERIC, "not a number")         /* NaN or +inf where a logit was expected */     \
    X(STATUS_DIFFERENT, "a difference was found")                                              \
    X(STATUS_USAGE, "wrong usage")

enum status {
#define X(name, text) name,
    STATUS_TABLE(X)
#undef X
};

/* Stores the formatted sentence for this thread and returns `status`. Truncates at 1023 bytes. */
enum status status_fail(enum status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Last sentence of this thread; never NULL. */
const char *status_message(void);
/* The general word for a status; never NULL. */
const char *status_name(enum status status);

/* TRY while nothing is owned; TRY_GOTO after, with `enum status status` declared in scope. */
#define TRY(call)                                       \
    do {                                                \
        enum status try_status_ = (call);               \
        if (try_status_ != STATUS_OK) {                 \
            return try_status_;                         \
        }                                               \
    } while (0)
#define TRY_GOTO(call, label)                           \
    do {                                                \
        status = (call);                                \
        if (status != STATUS_OK) {                      \
            goto label;                                 \
        }                                               \
    } while (0)

/* A broken ASSERT is a bug in Tandem, never in its input: prints, dumps the trace ring, aborts. */
#define ASSERT(condition)                                                  \
    ((condition) ? (void)0 : status_assert_fail(#condition, __FILE__, __LINE__))
_Noreturn void status_assert_fail(const char *condition, const char *file, int line);
/* Called by status_assert_fail before abort (the trace ring registers itself here). */
void status_on_assert(void (*hook)(void));

#endif
