/* comm_threads: see the header. Ranks show each other their arrays between two barriers. */
#include "tests/comm_threads.h"

#include <pthread.h>
#include <string.h>

struct group {
    pthread_barrier_t barrier;
    const struct comm_parts *parts[COMM_MAX_RANKS];
    void *bytes; /* rank 0's */
};
struct member {
    struct comm base;
    struct group *group;
    pthread_t thread;
    void (*rank)(struct comm *comm, void *user);
    void *user;
};

static void threads_gather(struct comm *base, const struct comm_parts *parts)
{
    struct group *group = ((struct member *)base)->group;
    group->parts[base->rank] = parts;
    pthread_barrier_wait(&group->barrier);
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
    pthread_barrier_wait(&group->barrier);
}

static void threads_broadcast(struct comm *base, void *bytes, size_t n_bytes)
{
    struct group *group = ((struct member *)base)->group;
    if (base->rank == 0) {
        group->bytes = bytes;
    }
    pthread_barrier_wait(&group->barrier);
    if (base->rank > 0) {
        memcpy(bytes, group->bytes, n_bytes);
    }
    pthread_barrier_wait(&group->barrier);
}

static void threads_close(struct comm *base) { (void)base; }
static void threads_abort(struct comm *base) { (void)base; }

static const struct comm_kind threads_kind = {
    .name = "threads", .gather = threads_gather, .broadcast = threads_broadcast, .close = threads_close,
    .abort = threads_abort,
};

static void *member_main(void *arg)
{
    struct member *member = arg;
    member->rank(&member->base, member->user);
    return NULL;
}

void comm_threads_run(int32_t n_ranks, void (*rank)(struct comm *comm, void *user), void *user)
{
    struct group group;
    struct member members[COMM_MAX_RANKS];
    ASSERT(n_ranks >= 1 && n_ranks <= COMM_MAX_RANKS);
    memset(&group, 0, sizeof group);
    pthread_barrier_init(&group.barrier, NULL, (unsigned int)n_ranks);
    for (int32_t r = 0; r < n_ranks; r++) {
        members[r] = (struct member){ .base = { .kind = &threads_kind, .rank = r, .size = n_ranks,
                                                .local_size = n_ranks, .sharing_rank = r,
                                                .sharing_size = n_ranks },
                                      .group = &group, .rank = rank, .user = user };
        ASSERT(pthread_create(&members[r].thread, NULL, member_main, &members[r]) == 0);
    }
    for (int32_t r = 0; r < n_ranks; r++) {
        pthread_join(members[r].thread, NULL);
    }
    pthread_barrier_destroy(&group.barrier);
}
