/* machine: what this computer says it is. Files of the system that are missing leave zeros. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

/* First line of a small file, without its end; "" when there is none. */
static void read_line(const char *path, char *line, size_t cap)
{
    FILE *file = fopen(path, "r");
    line[0] = '\0';
    if (file) {
        if (!fgets(line, (int)cap, file)) {
            line[0] = '\0';
        }
        line[strcspn(line, "\n")] = '\0';
        fclose(file);
    }
}

static void read_cpu_name(char *name, size_t cap)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(name, cap, "unknown processor");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value) {
            value += strspn(value, ": \t");
            snprintf(name, cap, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

/* "32768K" in bytes. */
static int64_t cache_size(const char *text)
{
    char *end;
    const long long n = strtoll(text, &end, 10);
    return *end == 'M' ? n << 20 : *end == 'K' ? n << 10 : n;
}

static void read_caches(struct machine *machine)
{
    for (int i = 0; i < 8; i++) {
        char path[96], level[16], kind[32], size[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        read_line(path, level, sizeof level);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        read_line(path, kind, sizeof kind);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        read_line(path, size, sizeof size);
        const int64_t bytes = cache_size(size);
        if (strcmp(kind, "Instruction") == 0) {
            continue;
        }
        if (strcmp(level, "1") == 0) {
            machine->l1d_bytes = bytes;
        } else if (strcmp(level, "2") == 0) {
            machine->l2_bytes = bytes;
        } else if (strcmp(level, "3") == 0) {
            machine->l3_bytes = bytes;
        }
    }
}

static void machine_read(struct machine *machine)
{
    int cpus[RIG_MAX_CPUS];
    read_cpu_name(machine->cpu, sizeof machine->cpu);
    machine->n_cpus = backend_cpu_list(cpus, RIG_MAX_CPUS, &machine->n_physical);
    read_caches(machine);
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    machine->memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    machine->available_bytes = mem_available_bytes();
    for (int i = 0; i < 64; i++) {
        char path[64];
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", i);
        machine->n_nodes += access(path, F_OK) == 0;
    }
}

const struct machine *machine_get(void)
{
    static struct machine machine;
    if (machine.n_cpus == 0) {
        machine_read(&machine);
    }
    return &machine;
}
