#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

const char *golden_dir(void)
{
    const char *dir = getenv("TANDEM_SHARED");
    if (dir == NULL || dir[0] == '\0') {
        dir = "../shared/data";
    }
    struct stat info;
    return stat(dir, &info) == 0 && S_ISDIR(info.st_mode) ? dir : NULL;
}

void golden_or_skip(void)
{
    if (golden_dir() == NULL) {
        puts("skipped: no golden data");
        skip();
    }
}

bool golden_path(const char *relative, char *buf, size_t buf_bytes)
{
    const char *dir = golden_dir();
    if (dir == NULL) {
        return false;
    }
    const int n = snprintf(buf, buf_bytes, "%s/%s", dir, relative);
    return n > 0 && (size_t)n < buf_bytes;
}

bool golden_exists(const char *relative)
{
    char path[4096];
    struct stat info;
    return golden_path(relative, path, sizeof path) && stat(path, &info) == 0;
}

unsigned char *golden_read_file(const char *path, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    unsigned char *data = NULL;
    struct stat info;
    if (fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode)) {
        *n_bytes = (size_t)info.st_size;
        data = malloc(*n_bytes + 1);
        if (data != NULL && fread(data, 1, *n_bytes, file) == *n_bytes) {
            data[*n_bytes] = 0;
        } else {
            free(data);
            data = NULL;
        }
    }
    fclose(file);
    return data;
}

unsigned char *golden_read(const char *relative, size_t *n_bytes)
{
    char path[4096];
    return golden_path(relative, path, sizeof path) ? golden_read_file(path, n_bytes) : NULL;
}

float *golden_read_floats(const char *relative, size_t *n_floats)
{
    size_t n_bytes = 0;
    unsigned char *data = golden_read(relative, &n_bytes);
    if (data != NULL && n_bytes % sizeof(float) != 0) {
        golden_free(data);
        return NULL;
    }
    *n_floats = n_bytes / sizeof(float);
    return (float *)(void *)data;
}

void golden_free(void *data)
{
    free(data);
}
