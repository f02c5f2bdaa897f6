/* replay: runs a fuzz target over the files of its corpus, without a fuzzer, so that every input
 * that once mattered is tried by each `make test` and under each sanitizer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Feeds one file; the copy is exactly as long as the file, so that a read past it is seen. */
static int replay_file(const char *path, size_t n_bytes)
{
    uint8_t *data = mem_alloc(n_bytes, 1);
    FILE *file = fopen(path, "rb");
    int read_all = data && file && fread(data, 1, n_bytes, file) == n_bytes;
    if (read_all) {
        LLVMFuzzerTestOneInput(data, n_bytes);
    } else {
        printf("not ok - cannot read %s\n", path);
    }
    if (file) {
        fclose(file);
    }
    mem_free(data);
    return read_all ? 0 : 1;
}

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (!folder) {
        printf("not ok - expected a corpus folder, found '%s'\n", argc > 1 ? argv[1] : "");
        return 1;
    }
    int n_files = 0, n_bad = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[4096];
        struct stat info;
        const int len = snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        if (len < 0 || (size_t)len >= sizeof path || stat(path, &info) || !S_ISREG(info.st_mode)) {
            continue;
        }
        n_files++;
        n_bad += replay_file(path, (size_t)info.st_size);
    }
    closedir(folder);
    if (n_files == 0) {
        printf("not ok - expected inputs in %s, found none\n", argv[1]);
        return 1;
    }
    if (n_bad == 0) {
        printf("ok - %d inputs of %s\n", n_files, argv[1]);
    }
    return n_bad != 0;
}
