/* comm_threads: ranks that are threads of one process, a device each. They show each other their arrays between
 * two meetings, and nothing is copied twice.
 *
 *     rank 0   shows its part ─┐       copies ─┐
 *     rank 1   shows its part ─┴ meet ► copies ─┴ meet ► may change its part
 *
 * A group is broken by a rank that cannot go on. Whoever waits at the first meeting then leaves with nothing; the
 * second one all reach who passed the first, since nothing in between can fail.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "backend/comm.h"

enum { LOOKS = 2000, WHY_CAP = 512 }; /* looks before a rank sleeps: longer than others are late on idle cores */

struct group {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int32_t n_ranks, n_here, n_open;
    _Atomic uint32_t turn;     /* moves when all have come */
    atomic_int broken;
    char why[WHY_CAP];         /* written before broken */
    const struct comm_parts *parts[COMM_MAX_RANKS];
    void *bytes;               /* rank 0's */
};
struct member { struct comm base; struct group *group; };

static bool is_over(struct group *group, uint32_t turn, bool whatever_happens)
{
    return atomic_load(&group->turn) != turn || (!whatever_happens && atomic_load(&group->broken));
}

/* Returns when all have come, true; false when some will not. Who has broken the group comes to no meeting, so
 * none is ever complete afterwards. */
static bool meet(struct group *group, bool whatever_happens)
{
    if (!whatever_happens && atomic_load(&group->broken)) {
        return false;
    }
    pthread_mutex_lock(&group->mutex);
    const uint32_t turn = atomic_load(&group->turn);
    if (++group->n_here == group->n_ranks) {
        group->n_here = 0;
        atomic_fetch_add(&group->turn, 1);
        pthread_cond_broadcast(&group->changed);
    }
    pthread_mutex_unlock(&group->mutex);
    for (int i = 0; i < LOOKS && !is_over(group, turn, whatever_happens); i++) {
    }
    pthread_mutex_lock(&group->mutex);
    while (!is_over(group, turn, whatever_happens)) {
        pthread_cond_wait(&group->changed, &group->mutex);
    }
    pthread_mutex_unlock(&group->mutex);
    return atomic_load(&group->turn) != turn;
}

static void threads_gather(struct comm *base, const struct comm_parts *parts)
{
    struct group *group = ((struct member *)base)->group;
    group->parts[base->rank] = parts;
    if (!meet(group, false)) {
        return;
    }
    for (int32_t r = 0; r < base->size && (parts->root == COMM_ALL || parts->root == base->rank); r++) {
        const struct comm_parts *from = group->parts[r];
        ASSERT(from->unit_floats == parts->unit_floats && from->root == parts->root);
        ASSERT(memcmp(from->first, parts->first, sizeof *parts->first * (size_t)(base->size + 1)) == 0);
        const size_t begin = (size_t)parts->first[r] * parts->unit_floats;
        const size_t n = (size_t)parts->first[r + 1] * parts->unit_floats - begin;
        if (n > 0 && from->own != parts->all + begin) {
            memcpy(parts->all + begin, from->own, n * sizeof(float));
        }
    }
    meet(group, true);
}

static void threads_broadcast(struct comm *base, void *bytes, size_t n_bytes)
{
    struct group *group = ((struct member *)base)->group;
    if (base->rank == 0) {
        group->bytes = bytes;
    }
    if (!meet(group, false)) {
        return;
    }
    if (base->rank > 0) {
        memcpy(bytes, group->bytes, n_bytes);
    }
    meet(group, true);
}

static void group_free(struct group *group)
{
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->mutex);
    mem_free(group);
}

static void threads_close(struct comm *base)
{
    struct group *group = ((struct member *)base)->group;
    pthread_mutex_lock(&group->mutex);
    const bool is_last = --group->n_open == 0;
    pthread_mutex_unlock(&group->mutex);
    if (is_last) {
        group_free(group);
    }
    mem_free(base);
}

static void threads_abort(struct comm *base, const char *why)
{
    struct group *group = ((struct member *)base)->group;
    pthread_mutex_lock(&group->mutex);
    if (!atomic_load(&group->broken)) { /* the first reason is the reason */
        snprintf(group->why, sizeof group->why, "rank %d: %s", base->rank, why);
        atomic_store(&group->broken, 1);
        pthread_cond_broadcast(&group->changed);
    }
    pthread_mutex_unlock(&group->mutex);
}

static const char *threads_broken(const struct comm *base)
{
    struct group *group = ((const struct member *)base)->group;
    return atomic_load(&group->broken) ? group->why : NULL;
}

static int threads_is_alive(struct comm *base) { return threads_broken(base) == NULL; }

static const struct comm_kind threads_kind = {
    .name = "threads", .gather = threads_gather, .broadcast = threads_broadcast, .close = threads_close,
    .abort = threads_abort, .broken = threads_broken,
    .is_alive = threads_is_alive,
};

enum status comm_threads_open(int32_t size, struct comm *members[COMM_MAX_RANKS])
{
    ASSERT(size >= 1 && size <= COMM_MAX_RANKS);
    struct group *group = mem_alloc(1, sizeof *group);
    struct member *made[COMM_MAX_RANKS] = { NULL };
    bool is_whole = group != NULL;
    for (int32_t r = 0; r < size && is_whole; r++) {
        made[r] = mem_alloc(1, sizeof *made[r]);
        is_whole = made[r] != NULL;
    }
    if (!is_whole) {
        for (int32_t r = 0; r < size; r++) {
            mem_free(made[r]);
        }
        mem_free(group);
        return status_fail(STATUS_NO_MEMORY, "no memory for a group of ranks");
    }
    group->n_ranks = group->n_open = size;
    pthread_mutex_init(&group->mutex, NULL);
    pthread_cond_init(&group->changed, NULL);
    for (int32_t r = 0; r < size; r++) {
        *made[r] = (struct member){
            .base = { .kind = &threads_kind, .rank = r, .size = size, .local_rank = r, .local_size = size,
                      .sharing_rank = r, .sharing_size = size },
            .group = group };
        members[r] = &made[r]->base;
    }
    return STATUS_OK;
}
