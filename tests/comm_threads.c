/* comm_threads: see the header. */
#include "tests/comm_threads.h"

#include <pthread.h>

struct rank_thread {
    pthread_t thread;
    struct comm *comm;
    void (*rank)(struct comm *comm, void *user);
    void *user;
};

static void *rank_main(void *arg)
{
    struct rank_thread *rank = arg;
    rank->rank(rank->comm, rank->user);
    return NULL;
}

static void *rank_main_closing(void *arg)
{
    struct rank_thread *rank = arg;
    rank->rank(rank->comm, rank->user);
    comm_close(rank->comm);
    return NULL;
}

static void run(int32_t n_ranks, void *(*thread_main)(void *arg), void (*rank)(struct comm *comm, void *user), void *user)
{
    struct comm *members[COMM_MAX_RANKS];
    struct rank_thread threads[COMM_MAX_RANKS];
    ASSERT(comm_threads_open(n_ranks, members) == STATUS_OK);
    for (int32_t r = 0; r < n_ranks; r++) {
        threads[r] = (struct rank_thread){ .comm = members[r], .rank = rank, .user = user };
        ASSERT(pthread_create(&threads[r].thread, NULL, thread_main, &threads[r]) == 0);
    }
    for (int32_t r = 0; r < n_ranks; r++) {
        pthread_join(threads[r].thread, NULL);
    }
}

void comm_threads_run(int32_t n_ranks, void (*rank)(struct comm *comm, void *user), void *user)
{
    run(n_ranks, rank_main_closing, rank, user);
}

void comm_threads_run_leaving(int32_t n_ranks, void (*rank)(struct comm *comm, void *user), void *user)
{
    run(n_ranks, rank_main, rank, user);
}
