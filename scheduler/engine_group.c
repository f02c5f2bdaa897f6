/* engine_group: see the header. */
#include "scheduler/engine_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rank_thread {
    struct td_engine_options options;
    char device[DEVICE_KIND_CAP];
    pthread_t thread;
    bool is_running;
};
struct engine_group {
    int32_t n;
    struct rank_thread ranks[COMM_MAX_RANKS]; /* [0] has no thread: it is the engine's */
};

/* ---- the list ---- */
static bool names_twice(const struct device_list *list, int32_t device)
{
    for (int32_t i = 0; i < list->n; i++) {
        if (list->device[i] == device) {
            return true;
        }
    }
    return false;
}

enum status device_list_parse(const char *text, struct device_list *out)
{
    static const char cuda[] = "cuda:";
    *out = (struct device_list){ .n = 0 };
    if (text == NULL || strncmp(text, cuda, sizeof cuda - 1) != 0 || strchr(text, ',') == NULL) {
        return STATUS_OK;
    }
    for (const char *at = text + sizeof cuda - 1;; at++) {
        char *end = NULL;
        const long device = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (device < 0 || device > INT16_MAX || (*end != ',' && *end != '\0')) {
            return status_fail(STATUS_INVALID, "expected GPUs like cuda:0,1, found '%s'", text);
        }
        if (names_twice(out, (int32_t)device)) {
            return status_fail(STATUS_INVALID, "GPU %ld is named twice in '%s'", device, text);
        }
        if (out->n == COMM_MAX_RANKS) {
            return status_fail(STATUS_UNSUPPORTED, "a model is spread over %d GPUs at most, found '%s'", COMM_MAX_RANKS,
                               text);
        }
        out->device[out->n++] = (int32_t)device;
        if (*end == '\0') {
            return STATUS_OK;
        }
        at = end;
    }
}

/* What no rank could do is refused before there are any. */
static enum status check_list(const struct device_list *list, const char *text)
{
    const int n_there = backend_n_cuda_devices();
    if (list->n != 2 && list->n != 4 && list->n != 8) {
        return status_fail(STATUS_UNSUPPORTED, "a model is spread over 2, 4 or 8 GPUs, found %d in '%s'", list->n, text);
    }
    for (int32_t i = 0; i < list->n; i++) {
        if (list->device[i] >= n_there) {
            return status_fail(STATUS_UNSUPPORTED, "'%s' names a GPU %d; there are %d here", text, list->device[i], n_there);
        }
    }
    return STATUS_OK;
}

/* ---- ranks ---- */
static void *follow(void *arg)
{
    struct rank_thread *rank = arg;
    (void)td_engine_follow(&rank->options); /* how it went is said where ranks agree */
    td_ranks_leave(rank->options.ranks);
    return NULL;
}

static enum status take_places(struct engine_group *group, const struct td_engine_options *options,
                               const struct device_list *list)
{
    struct comm *members[COMM_MAX_RANKS];
    TRY(comm_threads_open(list->n, members));
    for (int32_t r = 0; r < list->n; r++) {
        struct rank_thread *rank = &group->ranks[r];
        rank->options = *options;
        snprintf(rank->device, sizeof rank->device, "cuda:%d", list->device[r]);
        rank->options.target_device = rank->device;
        rank->options.threads = r == 0 ? options->threads : 1;
        const enum status status = ranks_create(members[r], &rank->options.ranks);
        if (status != STATUS_OK) {
            for (; r < list->n; r++) {
                comm_close(members[r]); /* those before it leave with the group */
            }
            return status;
        }
        group->n++;
    }
    return STATUS_OK;
}

static enum status start(struct engine_group *group)
{
    for (int32_t r = 1; r < group->n; r++) {
        struct rank_thread *rank = &group->ranks[r];
        const int error = pthread_create(&rank->thread, NULL, follow, rank);
        if (error != 0) {
            const enum status status = status_fail(STATUS_NO_MEMORY, "cannot start a thread for %s: %s", rank->device,
                                                   strerror(error));
            comm_give_up(ranks_comm(rank->options.ranks)); /* the others wait for all */
            return status;
        }
        rank->is_running = true;
    }
    return STATUS_OK;
}

static enum status make(struct engine_group *group, const struct td_engine_options *options,
                        const struct device_list *list)
{
    TRY(take_places(group, options, list));
    return start(group);
}

enum status engine_group_open(struct td_engine_options *options, struct engine_group **out)
{
    struct device_list list;
    *out = NULL;
    if (ranks_comm(options->ranks) != NULL) {
        return STATUS_OK; /* processes: each takes its own of a list */
    }
    TRY(device_list_parse(options->target_device, &list));
    if (list.n == 0) {
        return STATUS_OK;
    }
    TRY(check_list(&list, options->target_device));
    struct engine_group *group = mem_alloc(1, sizeof *group);
    if (group == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for ranks on several GPUs");
    }
    const enum status status = make(group, options, &list);
    if (status != STATUS_OK) {
        engine_group_close(group); /* makes no sentence of its own */
        return status;
    }
    *options = group->ranks[0].options;
    *out = group;
    return STATUS_OK;
}

void engine_group_close(struct engine_group *group)
{
    if (group == NULL) {
        return;
    }
    td_ranks_leave(group->ranks[0].options.ranks); /* tells the others to end */
    for (int32_t r = 1; r < group->n; r++) {
        if (group->ranks[r].is_running) {
            pthread_join(group->ranks[r].thread, NULL);
        } else {
            td_ranks_leave(group->ranks[r].options.ranks);
        }
    }
    mem_free(group);
}
