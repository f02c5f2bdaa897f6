/* comm: what a group of ranks promises, on groups over TCP and of threads: parts of any size come together,
 * on all ranks or on one; a broadcast is rank 0's; a failure of one is one of all. What a launcher left in the
 * environment is understood or refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/comm_threads.h"

enum { UNIT = 3, MAX_FLOATS = 64, ROUNDS = 20 };

/* Rank r brings r units, so that rank 0 brings none. */
static void fill_first(int32_t n_ranks, int32_t *first)
{
    first[0] = 0;
    for (int32_t r = 0; r < n_ranks; r++) {
        first[r + 1] = first[r] + r;
    }
}

static void check_gather(struct comm *comm, int32_t root, int round)
{
    int32_t first[COMM_MAX_RANKS + 1];
    float own[MAX_FLOATS * UNIT], all[MAX_FLOATS * UNIT];
    fill_first(comm->size, first);
    for (int32_t i = 0; i < comm->rank * UNIT; i++) {
        own[i] = (float)(round * 1000 + first[comm->rank] * UNIT + i);
    }
    memset(all, 0xff, sizeof all);
    comm_gather(comm, &(struct comm_parts){ .own = own, .all = all, .first = first, .unit_floats = UNIT, .root = root });
    for (int32_t i = 0; (root == COMM_ALL || root == comm->rank) && i < first[comm->size] * UNIT; i++) {
        assert_true(all[i] == (float)(round * 1000 + i));
    }
}

/* Each rank's own part lies where the whole goes. */
static void check_gather_in_place(struct comm *comm)
{
    int32_t first[COMM_MAX_RANKS + 1];
    float all[MAX_FLOATS * UNIT];
    fill_first(comm->size, first);
    memset(all, 0xff, sizeof all);
    float *own = all + first[comm->rank] * UNIT;
    for (int32_t i = 0; i < comm->rank * UNIT; i++) {
        own[i] = (float)(first[comm->rank] * UNIT + i);
    }
    comm_gather(comm, &(struct comm_parts){ .own = own, .all = all, .first = first, .unit_floats = UNIT,
                                            .root = COMM_ALL });
    for (int32_t i = 0; i < first[comm->size] * UNIT; i++) {
        assert_true(all[i] == (float)i);
    }
}

static void check_all(struct comm *comm, void *user)
{
    char text[5000] = "";
    (void)user;
    for (int round = 0; round < ROUNDS; round++) {
        check_gather(comm, COMM_ALL, round);
        check_gather(comm, 0, round);
        check_gather_in_place(comm);
        memset(text, comm->rank == 0 ? 'a' + round : 'z', sizeof text);
        comm_broadcast(comm, text, sizeof text);
        assert_true(text[0] == 'a' + round && text[sizeof text - 1] == 'a' + round);
        comm_barrier(comm);
    }
    assert_int_equal(comm_agree(comm, STATUS_OK), STATUS_OK);
    const int32_t lame = comm->size - 1;
    const enum status status = comm_agree(comm, comm->rank == lame ? status_fail(STATUS_IO, "lame") : STATUS_OK);
    assert_int_equal(status, STATUS_IO);
    assert_non_null(strstr(status_message(), ": lame"));
}

static void test_threads(void **unused)
{
    (void)unused;
    for (int32_t n = 1; n <= COMM_MAX_RANKS; n++) {
        if (n > 1) {
            comm_threads_run(n, check_all, NULL);
        }
    }
}

/* ---- over TCP ---- */

static int free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void *join_and_check(void *arg)
{
    const struct comm_place *place = arg;
    struct comm *comm;
    assert_int_equal(comm_tcp_open(place, &comm), STATUS_OK);
    assert_int_equal(comm->rank, place->rank);
    check_all(comm, NULL);
    comm_close(comm);
    return NULL;
}

/* Connects as soon as somebody listens and says what no rank would. */
static void *be_a_stranger(void *arg)
{
    const struct comm_place *place = arg;
    const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                         .sin_port = htons((uint16_t)place->port) };
    const uint32_t wrong[][3] = { { 0, 1, 2 }, { 0x74646d31u, 7, 2 }, { 0x74646d31u, 1, 3 }, { 0x74646d31u, 0, 2 } };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int fd;
        do {
            usleep(1000);
            fd = socket(AF_INET, SOCK_STREAM, 0);
        } while (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 && close(fd) == 0);
        assert_int_equal(send(fd, wrong[i], sizeof wrong[i], MSG_NOSIGNAL), (int)sizeof wrong[i]);
        close(fd);
    }
    return NULL;
}

static void run_star(int32_t n_ranks, bool with_strangers)
{
    pthread_t threads[COMM_MAX_RANKS + 1];
    struct comm_place places[COMM_MAX_RANKS];
    const int port = free_port();
    for (int32_t r = 0; r < n_ranks; r++) {
        places[r] = (struct comm_place){ .rank = r, .size = n_ranks, .address = "127.0.0.1", .port = port };
    }
    assert_int_equal(pthread_create(&threads[0], NULL, join_and_check, &places[0]), 0);
    if (with_strangers) {
        pthread_t stranger;
        assert_int_equal(pthread_create(&stranger, NULL, be_a_stranger, &places[0]), 0);
        pthread_join(stranger, NULL);
    }
    for (int32_t r = 1; r < n_ranks; r++) {
        assert_int_equal(pthread_create(&threads[r], NULL, join_and_check, &places[r]), 0);
    }
    for (int32_t r = 0; r < n_ranks; r++) {
        pthread_join(threads[r], NULL);
    }
}

static void test_tcp(void **unused)
{
    (void)unused;
    run_star(2, false);
    run_star(8, false);
}

static void test_strangers_are_dropped(void **unused)
{
    (void)unused;
    run_star(2, true);
}

static void test_places_that_cannot_be(void **unused)
{
    (void)unused;
    struct comm *comm;
    const struct comm_place places[] = {
        { .rank = 2, .size = 2, .address = "127.0.0.1", .port = 1 }, { .rank = 0, .size = 9, .address = "127.0.0.1", .port = 1 },
        { .rank = 0, .size = 2, .address = "127.0.0.1", .port = 0 }, { .rank = -1, .size = 2, .address = "127.0.0.1", .port = 1 },
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        assert_int_equal(comm_tcp_open(&places[i], &comm), STATUS_INVALID);
        assert_null(comm);
    }
    const struct comm_place nowhere = { .rank = 1, .size = 2, .address = "no such host.", .port = 5 };
    assert_int_equal(comm_tcp_open(&nowhere, &comm), STATUS_IO);
}

/* ---- launchers ---- */

static void expect_join(enum status expected, const char *sentence)
{
    struct comm *comm;
    assert_int_equal(comm_join(&comm), expected);
    if (expected == STATUS_OK) {
        assert_int_equal(comm->size, 1);
        comm_close(comm);
    } else {
        assert_null(comm);
        assert_non_null(strstr(status_message(), sentence));
    }
}

static void test_launchers(void **unused)
{
    (void)unused;
    expect_join(STATUS_OK, "");
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    expect_join(STATUS_OK, "");
    setenv("OMPI_COMM_WORLD_SIZE", "two", 1);
    expect_join(STATUS_OK, "");
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    expect_join(STATUS_UNSUPPORTED, "mpirun started 2 of these, but this program was built without MPI: make MPI=1");
    assert_int_equal(comm_launched_rank(), 1);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("OMPI_COMM_WORLD_RANK");
    setenv("WORLD_SIZE", "2", 1);
    expect_join(STATUS_OK, ""); /* a size alone may be anybody's */
    setenv("RANK", "1", 1);
    setenv("MASTER_ADDR", "localhost", 1);
    assert_int_equal(comm_launched_rank(), 1);
    setenv("WORLD_SIZE", "3", 1);
    expect_join(STATUS_UNSUPPORTED, "found 3");
    unsetenv("WORLD_SIZE");
    assert_int_equal(comm_launched_rank(), 0);
}

/* Two processes that the environment has told of each other; LOCAL_RANK says which device is whose. */
static int join_by_environment(const char *rank, const char *local_rank, int port)
{
    struct comm *comm;
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    setenv("WORLD_SIZE", "2", 1);
    setenv("RANK", rank, 1);
    setenv("LOCAL_RANK", local_rank, 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", text, 1);
    if (comm_join(&comm) != STATUS_OK) {
        return 1;
    }
    const int is_right = comm->size == 2 && comm->local_size == 2 && comm->sharing_size == 2 &&
                         comm->sharing_rank == comm->rank && comm->local_rank == local_rank[0] - '0' &&
                         comm_is_alive(comm);
    check_gather(comm, COMM_ALL, 1);
    comm_close(comm);
    return is_right ? 0 : 2;
}

static void test_processes_told_by_the_environment(void **unused)
{
    (void)unused;
    int ended = -1;
    const int port = free_port();
    const pid_t other = fork();
    if (other == 0) {
        _exit(join_by_environment("1", "5", port));
    }
    assert_int_equal(join_by_environment("0", "0", port), 0);
    assert_int_equal(waitpid(other, &ended, 0), other);
    assert_int_equal(ended, 0);
    unsetenv("WORLD_SIZE");
    unsetenv("LOCAL_RANK");
}

/* A rank that goes is seen by who waits for it elsewhere. */
static void *join_and_go(void *arg)
{
    struct comm *comm;
    assert_int_equal(comm_tcp_open(arg, &comm), STATUS_OK);
    comm_barrier(comm);
    comm_close(comm);
    return NULL;
}

static void test_who_is_gone_is_seen(void **unused)
{
    (void)unused;
    pthread_t thread;
    struct comm *comm;
    const int port = free_port();
    struct comm_place first = { .rank = 0, .size = 2, .address = "127.0.0.1", .port = port }, second = first;
    second.rank = 1;
    assert_int_equal(pthread_create(&thread, NULL, join_and_go, &second), 0);
    assert_int_equal(comm_tcp_open(&first, &comm), STATUS_OK);
    assert_true(comm_is_alive(comm)); /* it waits for us */
    comm_barrier(comm);
    pthread_join(thread, NULL);
    assert_false(comm_is_alive(comm));
    comm_close(comm);
}

/* ---- threads that give up ---- */

struct quitting { int32_t rank; int n_broken; pthread_mutex_t mutex; };

static void give_up_in_the_middle(struct comm *comm, void *user)
{
    struct quitting *quitting = user;
    float own = (float)comm->rank, all[COMM_MAX_RANKS] = { 0 };
    static const int32_t first[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };
    const struct comm_parts parts = { .own = &own, .all = all, .first = first, .unit_floats = 1, .root = COMM_ALL };
    for (int round = 0; round < ROUNDS; round++) {
        if (round == ROUNDS / 2 && comm->rank == quitting->rank) {
            (void)status_fail(STATUS_IO, "out of order");
            comm_give_up(comm);
        }
        comm_gather(comm, &parts); /* nobody is left waiting */
        assert_true(round >= ROUNDS / 2 || all[comm->size - 1] == (float)(comm->size - 1));
    }
    assert_int_equal(comm_check(comm), STATUS_IO);
    assert_non_null(strstr(status_message(), "out of order"));
    assert_int_equal(comm_agree(comm, STATUS_OK), STATUS_IO);
    assert_false(comm_is_alive(comm));
    pthread_mutex_lock(&quitting->mutex);
    quitting->n_broken++;
    pthread_mutex_unlock(&quitting->mutex);
}

static void test_threads_that_give_up(void **unused)
{
    (void)unused;
    for (int32_t n = 2; n <= 4; n *= 2) {
        for (int32_t rank = 0; rank < n; rank++) {
            struct quitting quitting = { .rank = rank, .mutex = PTHREAD_MUTEX_INITIALIZER };
            comm_threads_run(n, give_up_in_the_middle, &quitting);
            assert_int_equal(quitting.n_broken, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_strangers_are_dropped),
        cmocka_unit_test(test_places_that_cannot_be),
        cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_processes_told_by_the_environment),
        cmocka_unit_test(test_who_is_gone_is_seen),
        cmocka_unit_test(test_threads_that_give_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
