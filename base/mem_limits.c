/* mem_limits: what this process may still take and what it has, as the kernel's text files tell. A
 * control group (v2, or the memory controller of v1) often allows less than the machine has, and
 * exceeding it means being killed: every group from ours up to the root is asked. */
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEM_PATH_BYTES = 1024 };

/* The first number after `key` at the start of a line, times `unit`; 0 when absent. */
static uint64_t mem_file_number(const char *path, const char *key, uint64_t unit)
{
    char line[256];
    uint64_t value = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            value = (uint64_t)strtoull(line + strlen(key), NULL, 10) * unit;
            break;
        }
    }
    fclose(file);
    return value;
}

struct mem_group_files { const char *root, *limit, *usage; };
static const struct mem_group_files mem_group_v1 = {
    "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
};
static const struct mem_group_files mem_group_v2 = {
    "/sys/fs/cgroup", "memory.max", "memory.current"
};

/* What one group leaves; UINT64_MAX when it sets no limit. Pages of files count as used there but
 * are given back under pressure, so they are added again. */
static uint64_t mem_group_left(const struct mem_group_files *files, const char *group)
{
    char path[MEM_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s%s/%s", files->root, group, files->limit);
    const uint64_t limit = mem_file_number(path, "", 1); /* "max" reads as 0 */
    if (limit == 0 || limit >= (uint64_t)1 << 60) {
        return UINT64_MAX;
    }
    snprintf(path, sizeof path, "%s%s/%s", files->root, group, files->usage);
    const uint64_t usage = mem_file_number(path, "", 1);
    snprintf(path, sizeof path, "%s%s/memory.stat", files->root, group);
    const uint64_t cached = mem_file_number(path, "inactive_file ", 1)
                          + mem_file_number(path, "active_file ", 1);
    const uint64_t held = usage > cached ? usage - cached : 0;
    return limit > held ? limit - held : 1;
}

/* The least that is left from `group` up to the root. */
static uint64_t mem_groups_left(const struct mem_group_files *files, char *group)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        const uint64_t left = mem_group_left(files, strcmp(group, "/") == 0 ? "" : group);
        least = left < least ? left : least;
        char *slash = strrchr(group, '/');
        if (slash == NULL || group[0] == '\0') {
            return least;
        }
        *slash = '\0';
    }
}

static uint64_t mem_cgroup_left(void)
{
    char line[MEM_PATH_BYTES];
    uint64_t least = UINT64_MAX;
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'); /* id:controllers:path */
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        const struct mem_group_files *files = NULL;
        if (controllers[1] == '\0') {
            files = &mem_group_v2;
        } else if (strstr(controllers + 1, "memory") != NULL) {
            files = &mem_group_v1;
        }
        if (files != NULL) {
            const uint64_t left = mem_groups_left(files, group);
            least = left < least ? left : least;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return least;
}

uint64_t mem_available_bytes(void)
{
    const uint64_t machine = mem_file_number("/proc/meminfo", "MemAvailable:", 1024);
    const uint64_t group = mem_cgroup_left();
    if (group == UINT64_MAX) {
        return machine;
    }
    return machine == 0 || group < machine ? group : machine;
}

uint64_t mem_resident_bytes(void)
{
    return mem_file_number("/proc/self/status", "VmRSS:", 1024);
}

uint64_t mem_peak_bytes(void)
{
    return mem_file_number("/proc/self/status", "VmHWM:", 1024);
}
