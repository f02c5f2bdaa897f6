/* test_base: status, memory, clock, log, arena, queue, digest, trace. Coins and elementary
 * functions have suites of their own.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

/* Standard error of a child that runs `body`, as text; its wait status in *how. */
static void child_stderr(void (*body)(void), char *text, size_t text_bytes, int *how)
{
    int pipe_fd[2];
    fflush(NULL);
    assert_int_equal(pipe(pipe_fd), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipe_fd[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    close(pipe_fd[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(pipe_fd[0], text + used, text_bytes - 1 - used)) > 0;) {
        used += (size_t)n;
    }
    text[used] = '\0';
    close(pipe_fd[0]);
    assert_true(waitpid(child, how, 0) == child);
}

/* ---- status ---- */
static enum status fails_inside(void)
{
    TRY(status_fail(STATUS_IO, "expected %d bytes, found %d", 8, 3));
    return STATUS_OK;
}

static void *other_thread_message(void *unused)
{
    (void)unused;
    status_fail(STATUS_INVALID, "of another thread");
    return NULL;
}

static void status_sentences(void **state)
{
    (void)state;
    assert_int_equal(fails_inside(), STATUS_IO);
    assert_string_equal(status_message(), "expected 8 bytes, found 3");
    status_fail(STATUS_INVALID, "in file x: %s", status_message()); /* its own argument */
    assert_string_equal(status_message(), "in file x: expected 8 bytes, found 3");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, other_thread_message, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(status_message(), "in file x: expected 8 bytes, found 3");
    status_fail(STATUS_INVALID, "%02000d", 0);
    assert_int_equal(strlen(status_message()), 1023);
    assert_string_equal(status_name(STATUS_OK), "ok");
    assert_string_equal(status_name(STATUS_USAGE), "wrong usage");
    assert_string_equal(status_name((enum status)999), "unknown status");
}

static void break_assert(void)
{
    for (int i = 0; i < 3000; i++) {
        trace_event("step", i, -i);
    }
    trace_event("last breath", 7, 8);
    const int two = 2;
    ASSERT(two + 2 == 5);
}

static void assert_dumps_and_aborts(void **state)
{
    (void)state;
    static char text[1 << 18];
    int how = 0;
    child_stderr(break_assert, text, sizeof text, &how);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT);
    assert_non_null(strstr(text, "ASSERT(two + 2 == 5)"));
    const char *step = strstr(text, " 2999 -2999\n");
    const char *last = strstr(text, "last breath");
    assert_true(step != NULL && last != NULL && step < last); /* oldest first */
    assert_non_null(strstr(last, " 7 8\n"));
    assert_non_null(strstr(text, "1024 of 3001 events"));
    assert_null(strstr(text, " 1976 -1976\n")); /* overwritten */
    assert_non_null(strstr(text, " 1977 -1977\n"));
}

/* ---- mem ---- */
static void mem_blocks(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        unsigned char *block = mem_alloc(n, 3);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t i = 0; i < 3 * n; i++) {
            assert_int_equal(block[i], 0);
            block[i] = (unsigned char)i;
        }
        unsigned char *grown = mem_realloc(block, n + 100, 3);
        for (size_t i = 0; i < 3 * n; i++) {
            assert_int_equal(grown[i], (unsigned char)i);
        }
        unsigned char *shrunk = mem_realloc(grown, 1, 2);
        assert_non_null(shrunk);
        mem_free(shrunk);
    }
    char *copy = mem_strdup("tandem");
    assert_string_equal(copy, "tandem");
    mem_free(copy);
    mem_free(NULL);
}

static void mem_refuses(void **state)
{
    (void)state;
    volatile size_t half = SIZE_MAX / 2;
    assert_null(mem_alloc(half, 3)); /* the product overflows */
    assert_null(mem_alloc(3, half));
    assert_null(mem_alloc(half, 1));
    assert_null(mem_map(SIZE_MAX));
    unsigned char *block = mem_alloc(8, 1);
    block[0] = 9;
    assert_null(mem_realloc(block, half, 4)); /* and the old block lives on */
    assert_int_equal(block[0], 9);
    mem_free(block);
}

static void mem_counts_and_fails_once(void **state)
{
    (void)state;
    void *block[3];
    const uint64_t before = mem_alloc_count();
    mem_fail_at(2);
    for (int i = 0; i < 3; i++) {
        block[i] = mem_alloc(1, 1);
    }
    assert_true(block[0] != NULL && block[1] == NULL && block[2] != NULL);
    assert_int_equal(mem_alloc_count() - before, 3);
    mem_fail_at(1);
    assert_null(mem_map(100));
    mem_fail_at(1);
    assert_null(mem_strdup("x"));
    mem_fail_at(1);
    assert_null(mem_realloc(block[0], 2, 1));
    mem_fail_at(1);
    mem_fail_at(0);
    void *fine = mem_alloc(1, 1);
    assert_non_null(fine);
    mem_free(fine);
    mem_free(block[0]);
    mem_free(block[2]);
}

static void mem_maps(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 4096, 5000, 2097151, 2097152, 2097153, 9000000 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *area = mem_map(sizes[i]);
        assert_non_null(area);
        assert_int_equal((uintptr_t)area % (sizes[i] >= 2097152 ? 2097152 : 4096), 0);
        assert_int_equal(area[0], 0);
        area[0] = area[sizes[i] - 1] = 1;
        mem_unmap(area, sizes[i]);
    }
    mem_unmap(NULL, 5);
}

static void mem_limits(void **state)
{
    (void)state;
    const uint64_t available = mem_available_bytes(), resident = mem_resident_bytes();
    assert_true(available > (uint64_t)1 << 20 && available < (uint64_t)1 << 50);
    assert_true(resident > (uint64_t)100 << 10 && mem_peak_bytes() >= resident);
    const size_t bytes = (size_t)32 << 20;
    unsigned char *area = mem_map(bytes);
    assert_non_null(area);
    memset(area, 1, bytes);
    assert_true(mem_resident_bytes() >= resident + bytes / 2);
    mem_unmap(area, bytes);
    assert_true(mem_peak_bytes() >= resident + bytes / 2);
}

/* ---- clock ---- */
static void clocks(void **state)
{
    (void)state;
    const int64_t age = clock_since_process_start_ns(), wall = clock_now_ns();
    const int64_t cpu = clock_thread_cpu_ns();
    nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
    assert_true(clock_now_ns() - wall >= 30000000);
    assert_true(clock_thread_cpu_ns() - cpu < 25000000); /* sleep costs no CPU time */
    assert_true(age >= 0 && age < (int64_t)600 * 1000000000);
    assert_true(clock_since_process_start_ns() - age >= 20000000);
}

/* ---- log ---- */
static void write_log(void)
{
    log_info("one %d", 1);
    log_print(LOG_DEBUG, "hidden");
    log_warn("two");
    log_set_level(LOG_ERROR);
    log_warn("hidden");
    log_error("three %s", "3");
    log_error("%03000d", 0);
}

static void log_lines(void **state)
{
    (void)state;
    static char text[8192];
    int how = 0;
    child_stderr(write_log, text, sizeof text, &how);
    const char *expected = "one 1\nwarning: two\nerror: three 3\nerror: 000";
    assert_int_equal(strncmp(text, expected, strlen(expected)), 0);
    assert_true(strlen(text) < 2200 && text[strlen(text) - 1] == '\n'); /* cut, but a line */
}

/* ---- arena ---- */
static void arena_pieces(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_init(&arena, 300), STATUS_OK);
    unsigned char *a = arena_alloc(&arena, 1, 1), *b = arena_alloc(&arena, 10, 8);
    assert_true(a != NULL && b == a + 64 && (uintptr_t)a % 64 == 0);
    assert_null(arena_alloc(&arena, 109, 1)); /* 300 - 192 = 108 are left */
    assert_null(arena_alloc(&arena, SIZE_MAX / 2, 4));
    unsigned char *c = arena_alloc(&arena, 108, 1);
    assert_true(c == a + 192);
    assert_null(arena_alloc(&arena, 1, 1));
    arena_reset(&arena);
    assert_ptr_equal(arena_alloc(&arena, 300, 1), a);
    arena_deinit(&arena);
    mem_fail_at(1);
    assert_int_equal(arena_init(&arena, 300), STATUS_NO_MEMORY);
    mem_fail_at(0);
    assert_null(arena_alloc(&arena, 1, 1));
    arena_deinit(&arena);
}

/* ---- queue ---- */
static void queue_in_order(void **state)
{
    (void)state;
    struct queue *queue = NULL;
    assert_int_equal(queue_create(sizeof(int), 3, &queue), STATUS_OK);
    int next_in = 0, next_out = 0, item = 0;
    for (int round = 0; round < 50; round++) { /* the ring wraps at every place */
        for (int i = 0; i < 1 + round % 3; i++, next_in++) {
            assert_int_equal(queue_push(queue, &next_in), STATUS_OK);
        }
        if (queue_len(queue) == 3) {
            assert_int_equal(queue_push(queue, &next_in), STATUS_REFUSED);
        }
        while (queue_len(queue) > 0) {
            assert_int_equal(queue_pop(queue, &item, 0), STATUS_OK);
            assert_int_equal(item, next_out++);
        }
    }
    assert_int_equal(queue_pop(queue, &item, 0), STATUS_REFUSED);
    const int64_t before = clock_now_ns();
    assert_int_equal(queue_pop(queue, &item, 20000000), STATUS_REFUSED);
    assert_true(clock_now_ns() - before >= 19000000);
    queue_push(queue, &next_in);
    queue_close(queue);
    assert_int_equal(queue_push(queue, &next_in), STATUS_REFUSED);
    assert_int_equal(queue_pop(queue, &item, -1), STATUS_OK); /* what is inside still comes out */
    assert_int_equal(queue_pop(queue, &item, -1), STATUS_CANCELLED);
    queue_destroy(queue);
    queue_destroy(NULL);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(queue_create(4, 4, &queue), STATUS_NO_MEMORY);
    }
    mem_fail_at(0);
}

enum { PRODUCERS = 3, PER_PRODUCER = 4000 };
struct message { int producer, number; };

static void *produce(void *argument)
{
    struct queue **queue_and_id = argument;
    static _Atomic int next_id;
    struct message message = { .producer = next_id++ };
    for (; message.number < PER_PRODUCER; message.number++) {
        while (queue_push(*queue_and_id, &message) != STATUS_OK) {
            sched_yield();
        }
    }
    return NULL;
}

static _Atomic int n_popped;

static void *consume(void *argument)
{
    struct queue **queue = argument;
    int last[PRODUCERS] = { -1, -1, -1 };
    struct message message;
    while (queue_pop(*queue, &message, -1) == STATUS_OK) {
        ASSERT(message.number > last[message.producer]); /* each producer's messages in order */
        last[message.producer] = message.number;
        n_popped++;
    }
    return NULL;
}

static void queue_between_threads(void **state)
{
    (void)state;
    struct queue *queue = NULL;
    pthread_t producer[PRODUCERS], consumer[2];
    assert_int_equal(queue_create(sizeof(struct message), 16, &queue), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&consumer[i], NULL, consume, &queue), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&producer[i], NULL, produce, &queue), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producer[i], NULL);
    }
    queue_close(queue);
    for (int i = 0; i < 2; i++) {
        pthread_join(consumer[i], NULL);
    }
    assert_int_equal(n_popped, PRODUCERS * PER_PRODUCER);
    queue_destroy(queue);
}

/* ---- digest ---- */
static void digests(void **state)
{
    (void)state;
    static unsigned char bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)rng_mix64(i);
    }
    /* XXH3-64, seed 0, of nothing: published with the algorithm */
    assert_true(digest_bytes("", 0) == 0x2d06800538d394c2u);
    for (size_t n = 0; n <= sizeof bytes; n += 1 + n / 3) {
        const uint64_t whole = digest_bytes(bytes, n);
        for (size_t cut = 1; cut <= 4097; cut = cut * 4 + 1) {
            struct digest digest;
            digest_init(&digest);
            for (size_t at = 0; at < n; at += cut) {
                digest_update(&digest, bytes + at, n - at < cut ? n - at : cut);
            }
            assert_true(digest_value(&digest) == whole);
            assert_true(digest_value(&digest) == whole); /* asking changes nothing */
        }
    }
    const uint64_t before = digest_bytes(bytes, 1000);
    bytes[500] ^= 1;
    assert_true(digest_bytes(bytes, 1000) != before);
}

/* ---- trace ---- */
static void *trace_much(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        trace_event("much", i, i);
    }
    return NULL;
}

static void trace_while_writing(void)
{
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread[i], NULL, trace_much, NULL);
    }
    trace_dump();
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    trace_dump();
}

static void trace_from_threads(void **state)
{
    (void)state;
    static char text[1 << 19];
    int how = 0, n_lines = 0;
    child_stderr(trace_while_writing, text, sizeof text, &how);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    char *last = strstr(text, "1024 of 40000 events");
    assert_non_null(last);
    /* on a busy machine the threads may be done before the first dump: then it is whole as well */
    char *second = strstr(last + 1, "1024 of 40000 events");
    last = second != NULL ? second : last;
    for (char *line = strchr(last, '\n'); line != NULL && line[1] != '\0';
         line = strchr(line + 1, '\n')) {
        long long a = -1, b = -2;
        char *numbers = strstr(line, "much");
        assert_non_null(numbers);
        assert_int_equal(sscanf(numbers, "much %lld %lld", &a, &b), 2);
        assert_true(a == b); /* no event is torn */
        n_lines++;
    }
    /* some met another writer; all that were overwritten while the dump itself had to wait are gone */
    assert_true(n_lines > 0 && n_lines <= 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_sentences),      cmocka_unit_test(assert_dumps_and_aborts),
        cmocka_unit_test(mem_blocks),            cmocka_unit_test(mem_refuses),
        cmocka_unit_test(mem_counts_and_fails_once), cmocka_unit_test(mem_maps),
        cmocka_unit_test(mem_limits),            cmocka_unit_test(clocks),
        cmocka_unit_test(log_lines),             cmocka_unit_test(arena_pieces),
        cmocka_unit_test(queue_in_order),        cmocka_unit_test(queue_between_threads),
        cmocka_unit_test(digests),               cmocka_unit_test(trace_from_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
