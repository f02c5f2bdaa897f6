/* memory: what models take of which device, before text comes; and which devices there are. */
#include <stdio.h>

#include "backend/backend.h"
#include "cli/cli.h"
#include "model/model.h"

#define MIB (1024.0 * 1024.0)

void memory_say(const struct conf *conf, const struct td_engine *engine)
{
    struct td_memory rows[2];
    const int n = td_engine_get_memory(engine, rows);
    if (conf_flag(conf, OPT_JSON)) {
        return;
    }
    for (int i = 0; i < n; i++) {
        if (rows[i].recorded_bytes > 0) {
            say(conf, "%s%.1f MiB to compute in on %s are for passes that are recorded%s", style_dim(2),
                (double)rows[i].recorded_bytes / MIB, rows[i].device, style_off(2));
        }
    }
    say(conf, "%s%-10s %12s %12s %15s %12s   %s", style_dim(2), "memory", "weights", "KV", "to compute in", "in all",
        "of what is there");
    for (int i = 0; i < n; i++) {
        const struct td_memory *row = &rows[i];
        const uint64_t total = row->weight_bytes + row->kv_bytes + row->scratch_bytes;
        say(conf, "%-10s %8.1f MiB %8.1f MiB %11.1f MiB %8.1f MiB   %.1f MiB on %s%s", i == 0 ? "target" : "draft",
            (double)row->weight_bytes / MIB, (double)row->kv_bytes / MIB, (double)row->scratch_bytes / MIB,
            (double)total / MIB, (double)row->device_bytes / MIB, row->device, i == n - 1 ? style_off(2) : "");
    }
}

void devices_print(void)
{
    const int n = backend_n_cuda_devices();
    printf("devices      cpu\n");
    for (int i = 0; i < n; i++) {
        struct backend *backend;
        char kind[32];
        snprintf(kind, sizeof kind, "cuda:%d", i);
        if (backend_create(kind, NULL, &backend) == STATUS_OK) {
            printf("             %s, %.1f GB free\n", backend_name(backend), (double)backend_free_bytes(backend) * 1e-9);
            backend_destroy(backend);
        } else {
            printf("             %s: %s\n", kind, status_message());
        }
    }
    if (n == 0) {
        printf("             no GPU: %s\n", backend_has_cuda() ? "none is there, or its driver is too old"
                                                               : "built without CUDA");
    }
}

void memory_print_plan(const struct model_config *config, uint64_t weight_bytes, int32_t context)
{
    const struct kv_store kv = { .type = KV_F16, .n_layers = config->n_layers, .n_kv_heads = config->n_kv_heads,
                                 .head_dim = config->head_dim, .page_slots = KV_BLOCK_SLOTS,
                                 .n_pages = (context + KV_BLOCK_SLOTS - 1) / KV_BLOCK_SLOTS };
    const uint64_t kv_bytes = kv_store_bytes(&kv);
    printf("  memory: %.1f MiB of weights and %.1f MiB of KV for a text of %d positions, %.1f MiB and what passes "
           "compute in\n", (double)weight_bytes / MIB, (double)kv_bytes / MIB, context,
           (double)(weight_bytes + kv_bytes) / MIB);
}
