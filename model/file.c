/* file: opening and reading files that hold weights, with a sentence for each way it can fail. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/file.h"

enum status file_open(const char *path, const char *kind, int *fd, uint64_t *n_bytes)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &info) != 0) {
        return status_fail(STATUS_IO, "cannot open %s %s: %s", kind, path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return status_fail(STATUS_UNSUPPORTED, "%s is %s; expected a %s", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "not a regular file", kind);
    }
    if (info.st_size <= 0) {
        return status_fail(STATUS_INVALID, "%s is empty; expected a %s", path, kind);
    }
    *n_bytes = (uint64_t)info.st_size;
    return STATUS_OK;
}

enum status file_read_all(int fd, const char *label, const char *what, uint64_t at, uint64_t n, void *out)
{
    unsigned char *to = out;
    while (n > 0) {
        const ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return status_fail(STATUS_IO, "%s: cannot read %s at byte %" PRIu64 ": %s", label, what, at,
                               got == 0 ? "the file has become shorter" : strerror(errno));
        }
        to += got;
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return STATUS_OK;
}

/* A small file may stay in the system's cache, so that the next start finds it there; one that takes
 * more than half of what is free would push out everything else. */
void file_consumed(int fd, uint64_t n_bytes)
{
    if (fd >= 0 && n_bytes > mem_available_bytes() / 2) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}
