/* rpc: every message there and back, against another reader of msgpack; what is cut, changed, too long or
 * unknown is refused by name; addresses, keys, and peers over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <msgpack.h>

#include "tests/rpc_messages.h"

enum { N_SEEDS = 40 };

static struct rpc_message message, again;
static uint8_t frame[RPC_FRAME_CAP], frame_again[RPC_FRAME_CAP];

static size_t encode(const struct rpc_message *from, uint8_t *out)
{
    size_t n;
    assert_int_equal(rpc_frame_encode(from, out, RPC_FRAME_CAP, &n), STATUS_OK);
    return n;
}

static enum status decode(const uint8_t *bytes, size_t n)
{
    return rpc_frame_decode(bytes + RPC_HEAD_BYTES, n - RPC_HEAD_BYTES, &again);
}

/* ---- frames ---- */
/* Another program's reader finds one array and nothing behind it. */
static void assert_is_msgpack(size_t n)
{
    msgpack_unpacked unpacked;
    size_t at = 0;
    msgpack_unpacked_init(&unpacked);
    assert_int_equal(msgpack_unpack_next(&unpacked, (const char *)frame + RPC_HEAD_BYTES, n - RPC_HEAD_BYTES, &at),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, n - RPC_HEAD_BYTES);
    assert_int_equal(unpacked.data.type, MSGPACK_OBJECT_ARRAY);
    assert_true(unpacked.data.via.array.size >= 3);
    assert_int_equal(unpacked.data.via.array.ptr[0].via.u64, RPC_VERSION);
    assert_int_equal(unpacked.data.via.array.ptr[1].via.u64, message.type);
    assert_int_equal(unpacked.data.via.array.ptr[2].via.u64, message.id);
    msgpack_unpacked_destroy(&unpacked);
}

static void every_message_comes_back(void **state)
{
    (void)state;
    for (int type = RPC_HELLO; type <= RPC_ERROR; type++) {
        for (uint64_t seed = 0; seed <= N_SEEDS; seed++) {
            rpc_message_draw((enum rpc_type)type, seed, seed == N_SEEDS, &message);
            const size_t n = encode(&message, frame);
            size_t n_said;
            assert_int_equal(rpc_frame_size(frame, n, &n_said), STATUS_OK);
            assert_int_equal(n_said, n);
            assert_is_msgpack(n);
            assert_int_equal(decode(frame, n), STATUS_OK);
            assert_int_equal(again.type, message.type);
            assert_int_equal(encode(&again, frame_again), n);
            assert_memory_equal(frame, frame_again, n);
        }
    }
}

/* Fields of one message of each kind, looked at one by one: an order that is wrong twice is seen too. */
static void fields_keep_their_places(void **state)
{
    (void)state;
    message = (struct rpc_message){ .type = RPC_ROUND, .id = 7, .round = {
        .sequence = { 11, 12 }, .first = 13, .k_next = 5, .verify_rows = 15, .verify_us = 14, .after_miss = true, .tokens = { 2, { 21, 22 } }, .n_proposed = 3,
        .proposed = { 31, 32, 33 } } };
    assert_int_equal(decode(frame, encode(&message, frame)), STATUS_OK);
    assert_int_equal(again.round.sequence.id, 11);
    assert_int_equal(again.round.sequence.epoch, 12);
    assert_int_equal(again.round.first, 13);
    assert_int_equal(again.round.k_next, 5);
    assert_int_equal(again.round.verify_rows, 15);
    assert_int_equal(again.round.verify_us, 14);
    assert_true(again.round.after_miss);
    assert_int_equal(again.round.tokens.id[1], 22);
    assert_int_equal(again.round.proposed[2], 33);
    message = (struct rpc_message){ .type = RPC_TABLE, .table = { .sequence = { 1, 2 }, .n_tokens = 9,
        .n_proposed = 4, .n_branches = 1, .branch = {{ .n_accepted = 3, .token = 77, .rank = 2, .n = 2,
        .next = { 5, 6 }, .hint = { 255, 9 } }} } };
    assert_int_equal(decode(frame, encode(&message, frame)), STATUS_OK);
    const struct rpc_branch *branch = &again.table.branch[0];
    assert_int_equal(again.table.n_tokens, 9);
    assert_int_equal(again.table.n_proposed, 4);
    assert_true(branch->n_accepted == 3 && branch->token == 77 && branch->rank == 2 && branch->n == 2);
    assert_true(branch->next[1] == 6 && branch->hint[0] == 255 && branch->hint[1] == 9);
    rpc_message_draw(RPC_OPEN, 3, false, &message);
    message.open.params.penalty_last_n = -1;
    message.open.params.n_biases = 1;
    message.open.biases[0] = (struct sampling_bias){ 42, -1.5f };
    assert_int_equal(decode(frame, encode(&message, frame)), STATUS_OK);
    assert_int_equal(again.open.params.penalty_last_n, -1);
    assert_ptr_equal(again.open.params.biases, again.open.biases);
    assert_true(again.open.biases[0].id == 42 && again.open.biases[0].bias == -1.5f);
    assert_int_equal(again.open.params.seed, message.open.params.seed);
    assert_int_equal(again.open.params.n_top_logprobs, -1);
}

static void what_is_cut_is_refused(void **state)
{
    (void)state;
    for (int type = RPC_HELLO; type <= RPC_ERROR; type++) {
        rpc_message_draw((enum rpc_type)type, 5, false, &message);
        const size_t n = encode(&message, frame);
        for (size_t cut = RPC_HEAD_BYTES; cut < n; cut++) {
            assert_int_equal(decode(frame, cut), STATUS_INVALID);
        }
        frame[n] = 0xc0;
        assert_int_equal(decode(frame, n + 1), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "1 bytes too many"));
    }
}

/* A changed byte makes another legal message, or is refused; never something beyond the limits. */
static void what_is_changed_stays_within_limits(void **state)
{
    (void)state;
    int n_refused = 0, n_taken = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        const uint64_t bits = rng_mix64(seed + 1);
        rpc_message_draw((enum rpc_type)(1 + bits % RPC_ERROR), seed % 50, false, &message);
        const size_t n = encode(&message, frame);
        const size_t at = RPC_HEAD_BYTES + (size_t)(bits >> 8) % (n - RPC_HEAD_BYTES);
        frame[at] = (uint8_t)(bits >> 48);
        if (decode(frame, n) != STATUS_OK) {
            n_refused++;
            continue;
        }
        n_taken++;
        encode(&again, frame_again); /* asserts its counts */
    }
    assert_true(n_refused > 1000 && n_taken > 1000);
}

static void assert_refused(size_t n, const char *words)
{
    assert_int_equal(decode(frame, n), STATUS_INVALID);
    if (strstr(status_message(), words) == NULL) {
        fail_msg("expected '%s' in: %s", words, status_message());
    }
}

/* Bytes of a frame, by hand. */
static size_t put(const uint8_t *bytes, size_t n)
{
    memcpy(frame + RPC_HEAD_BYTES, bytes, n);
    return RPC_HEAD_BYTES + n;
}
#define PUT(...) put((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void limits_have_sentences(void **state)
{
    (void)state;
    assert_refused(PUT(0x93, 2, 9, 0), "expected rpc version 1, found 2");
    assert_refused(PUT(0x93, 1, 12, 0), "has no message of type 12");
    assert_refused(PUT(0x93, 1, 0xce, 0xff, 0xff, 0xff, 0xff, 0), "has no message of type 4294967295");
    assert_refused(PUT(0x94, 1, 9, 0, 0), "rpc message ping: expected 3 items, found 4");
    assert_refused(PUT(0x93, 1, 9, 0xc3), "expected a whole number for its id, found byte 0xc3");
    assert_refused(PUT(0x93, 1, 9, 0xff), "found byte 0xff"); /* a negative number */
    assert_refused(PUT(0xdd, 0xff, 0xff, 0xff, 0xff, 1), "items, found 4294967295");
    /* four thousand million branches, claimed in five bytes */
    assert_refused(PUT(0x98, 1, 7, 0, 1, 1, 9, 0, 0xdd, 0xff, 0xff, 0xff, 0xff),
                   "expected between 0 and 64 branches, found 4294967295");
    assert_refused(PUT(0x98, 1, 7, 0, 1, 1, 9, 2, 0x91, 0x95, 3), "number of accepted tokens between 0 and 2");
    assert_refused(PUT(0x98, 1, 7, 0, 1, 1, 9, 0x11), "number of proposed tokens between 0 and 16, found 17");
    assert_refused(PUT(0x98, 1, 6, 0, 1, 1, 0, 0, 0), "length between 1 and");
    assert_refused(PUT(0x98, 1, 6, 0, 1, 1, 1, 0, 0xce, 0, 0x40, 0, 0), "recovery token between 0 and 4194303");
    assert_refused(PUT(0x95, 1, 11, 0, 99, 0xa0), "code between 0 and");
    assert_refused(PUT(0x95, 1, 11, 0, 0, 0xda, 0xff, 0xff), "a text of at most 255 bytes");
    assert_refused(PUT(0x90), "items, found 0");
    size_t n;
    const uint8_t huge[] = { 0x7f, 0xff, 0xff, 0xff }, empty[] = { 0, 0, 0, 0 };
    assert_int_equal(rpc_frame_size(huge, sizeof huge, &n), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "found a length of 2147483647"));
    assert_int_equal(rpc_frame_size(empty, sizeof empty, &n), STATUS_INVALID);
    assert_int_equal(rpc_frame_size(huge, 3, &n), STATUS_OK);
    assert_int_equal(n, 0);
}

static void texts_of_others_steer_no_terminal(void **state)
{
    (void)state;
    const size_t n = PUT(0x95, 1, 11, 0, 0, 0xa4, 0x1b, '[', '\n', 'm');
    assert_int_equal(decode(frame, n), STATUS_OK);
    assert_string_equal(again.error.text.bytes, "?[?m");
}

static void a_frame_needs_its_room(void **state)
{
    (void)state;
    rpc_message_draw(RPC_TABLE, 8, true, &message);
    const size_t n = encode(&message, frame);
    for (size_t cap = 0; cap < n; cap += 97) {
        size_t n_written = 1;
        assert_int_equal(rpc_frame_encode(&message, frame_again, cap, &n_written), STATUS_REFUSED);
        assert_int_equal(n_written, 0);
    }
}

/* ---- addresses and keys ---- */
static void assert_no_address(const char *text, const char *words)
{
    struct rpc_address address;
    assert_int_not_equal(rpc_address_parse(text, &address), STATUS_OK);
    assert_non_null(strstr(status_message(), words));
}

static void addresses_are_read(void **state)
{
    (void)state;
    struct rpc_address address;
    static const char *const good[] = { "unix:/tmp/x", "unix:///tmp/x", "tcp:127.0.0.1:80", "tcp://127.0.0.1:80",
                                        "tcp:80", "tcp:[::1]:80" };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(rpc_address_is(good[i]));
        assert_int_equal(rpc_address_parse(good[i], &address), STATUS_OK);
        assert_int_equal(address.is_unix, i < 2);
        assert_true(address.is_loopback);
    }
    assert_int_equal(rpc_address_parse("tcp:localhost:80", &address), STATUS_OK); /* one place or two */
    assert_true(address.is_loopback && address.n_places >= 1);
    const struct rpc_address first = address;
    for (int32_t i = 0; i < address.n_places; i++) {
        rpc_address_turn(&address);
    }
    assert_memory_equal(&address.socket, &first.socket, sizeof first.socket);
    assert_int_equal(rpc_address_parse("tcp:0.0.0.0:80", &address), STATUS_OK);
    assert_false(address.is_loopback);
    assert_false(rpc_address_is("model.gguf"));
    assert_no_address("unix:", "expected a path");
    assert_no_address("tcp:host:", "expected tcp:HOST:PORT");
    assert_no_address("tcp:host:http", "expected tcp:HOST:PORT");
    assert_no_address("tcp:127.0.0.1:65536", "expected tcp:HOST:PORT");
    assert_no_address("udp:host:1", "expected unix:/PATH or tcp:HOST:PORT");
    char path[200] = "unix:/";
    memset(path + 6, 'x', 150);
    assert_no_address(path, "expected a path of 1 to 107 bytes");
}

static void keys_are_compared_whole(void **state)
{
    (void)state;
    struct rpc_text a, b;
    rpc_text_set(&a, "open sesame");
    rpc_text_set(&b, "open sesame");
    assert_true(rpc_key_equal(&a, &b));
    b.bytes[10] = 'E';
    assert_false(rpc_key_equal(&a, &b));
    rpc_text_set(&b, "open");
    assert_false(rpc_key_equal(&a, &b));
    rpc_text_set(&a, "");
    rpc_text_set(&b, "");
    assert_true(rpc_key_equal(&a, &b));

    char path[] = "/tmp/tandem-key-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "secret\nmore\n", 12) == 12);
    assert_int_equal(rpc_key_read(path, &a), STATUS_OK);
    assert_string_equal(a.bytes, "secret");
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(rpc_key_read(path, &a), STATUS_INVALID);
    close(fd);
    unlink(path);
    assert_int_equal(rpc_key_read(path, &a), STATUS_IO);
    assert_int_equal(rpc_key_read(NULL, &a), STATUS_OK);
    assert_int_equal(a.n, 0);
}

/* ---- sockets ---- */
struct pair { struct rpc_address address; int listen_fd; struct rpc_peer *near, *far; char folder[32]; };

static void pair_open(struct pair *pair, const char *text, size_t out_cap)
{
    int fd;
    assert_int_equal(rpc_address_parse(text, &pair->address), STATUS_OK);
    assert_int_equal(rpc_listen(&pair->address, &pair->listen_fd), STATUS_OK);
    assert_int_equal(rpc_accept(pair->listen_fd, &fd), STATUS_REFUSED);
    assert_int_equal(rpc_peer_create(out_cap, &pair->near), STATUS_OK);
    assert_int_equal(rpc_peer_create(out_cap, &pair->far), STATUS_OK);
    assert_int_equal(rpc_peer_connect(pair->near, &pair->address), STATUS_OK);
    struct pollfd wait = { .fd = pair->listen_fd, .events = POLLIN };
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(rpc_accept(pair->listen_fd, &fd), STATUS_OK);
    rpc_peer_attach(pair->far, fd);
}

static void pair_close(struct pair *pair)
{
    rpc_peer_destroy(pair->near);
    rpc_peer_destroy(pair->far);
    rpc_unlisten(&pair->address, pair->listen_fd);
}

static enum status receive(struct rpc_peer *peer)
{
    for (int i = 0; i < 100; i++) {
        const enum status filled = rpc_peer_fill(peer);
        if (filled != STATUS_OK) {
            return filled;
        }
        const enum status status = rpc_peer_next(peer, &again);
        if (status != STATUS_REFUSED) {
            return status;
        }
        rpc_wait(peer, 20000000);
    }
    return STATUS_REFUSED;
}

static void all_messages_over(const char *text)
{
    struct pair pair;
    pair_open(&pair, text, 1 << 17);
    for (int type = RPC_HELLO; type <= RPC_ERROR; type++) {
        rpc_message_draw((enum rpc_type)type, 1, type == RPC_TABLE, &message);
        assert_int_equal(rpc_peer_send(pair.near, &message), STATUS_OK);
        assert_int_equal(rpc_peer_flush(pair.near), STATUS_OK);
        const size_t n = encode(&message, frame);
        assert_int_equal(receive(pair.far), STATUS_OK);
        assert_int_equal(encode(&again, frame_again), n);
        assert_memory_equal(frame, frame_again, n);
    }
    assert_int_equal(rpc_peer_counts(pair.near).frames_out, RPC_ERROR);
    assert_int_equal(rpc_peer_counts(pair.far).frames_in, RPC_ERROR);
    rpc_peer_hang_up(pair.near);
    assert_int_equal(receive(pair.far), STATUS_IO);
    pair_close(&pair);
}

static void peers_talk_over_a_path_and_a_port(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "unix:/tmp/tandem-rpc-%d", (int)getpid());
    all_messages_over(path);
    all_messages_over("tcp:127.0.0.1:0");
}

static void last_words_are_heard(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, "tcp:127.0.0.1:0", 4096);
    message = (struct rpc_message){ .type = RPC_ERROR, .error.code = RPC_ERROR_KEY };
    rpc_text_set(&message.error.text, "no");
    assert_int_equal(rpc_peer_send(pair.far, &message), STATUS_OK);
    assert_int_equal(rpc_peer_flush(pair.far), STATUS_OK);
    rpc_peer_hang_up(pair.far);
    rpc_wait(pair.near, 1000000000);
    assert_int_equal(receive(pair.near), STATUS_OK);
    assert_string_equal(again.error.text.bytes, "no");
    assert_int_equal(receive(pair.near), STATUS_IO);
    pair_close(&pair);
}

/* Bytes one at a time make the same messages; a full buffer refuses and loses nothing that was queued. */
static void halves_and_full_buffers(void **state)
{
    (void)state;
    struct rpc_peer *peer;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(rpc_peer_create(300, &peer), STATUS_OK);
    rpc_peer_attach(peer, ends[0]);
    rpc_message_draw(RPC_OUTCOME, 2, false, &message);
    const size_t n = encode(&message, frame);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rpc_peer_next(peer, &again), STATUS_REFUSED);
        assert_int_equal(write(ends[1], frame + i, 1), 1);
        assert_int_equal(rpc_peer_fill(peer), STATUS_OK);
    }
    assert_int_equal(rpc_peer_next(peer, &again), STATUS_OK);
    assert_int_equal(again.outcome.token, message.outcome.token);

    int n_queued = 0;
    while (rpc_peer_send(peer, &message) == STATUS_OK) {
        n_queued++;
    }
    assert_int_equal(n_queued, 300 / n);
    assert_true(rpc_peer_room(peer) < n);
    assert_true((rpc_peer_events(peer) & POLLOUT) != 0);
    assert_int_equal(rpc_peer_flush(peer), STATUS_OK);
    assert_int_equal(rpc_peer_room(peer), 300);
    assert_int_equal(read(ends[1], frame_again, sizeof frame_again), (ssize_t)(n * (size_t)n_queued));
    assert_memory_equal(frame_again, frame, n);

    const uint8_t huge[] = { 0xff, 0, 0, 0, 0 };
    assert_int_equal(write(ends[1], huge, sizeof huge), sizeof huge);
    assert_int_equal(rpc_peer_fill(peer), STATUS_OK);
    assert_int_equal(rpc_peer_next(peer, &again), STATUS_INVALID);
    rpc_peer_destroy(peer);
    close(ends[1]);
}

static void a_path_has_one_listener(void **state)
{
    (void)state;
    char text[64];
    struct rpc_address address, other;
    struct stat about;
    int fd, fd_other;
    snprintf(text, sizeof text, "unix:/tmp/tandem-one-%d", (int)getpid());
    assert_int_equal(rpc_address_parse(text, &address), STATUS_OK);
    other = address;
    assert_int_equal(rpc_listen(&address, &fd), STATUS_OK);
    assert_int_equal(stat(text + 5, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    assert_int_equal(rpc_listen(&other, &fd_other), STATUS_IO);
    assert_non_null(strstr(status_message(), "another program does"));
    close(fd); /* as when it is killed: the path stays */
    assert_int_equal(rpc_listen(&other, &fd_other), STATUS_OK);
    rpc_unlisten(&other, fd_other);
    assert_int_not_equal(stat(text + 5, &about), 0);
    FILE *file = fopen(text + 5, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(rpc_listen(&other, &fd_other), STATUS_INVALID);
    unlink(text + 5);
    struct rpc_peer *peer;
    assert_int_equal(rpc_peer_create(100, &peer), STATUS_OK);
    assert_int_equal(rpc_peer_connect(peer, &address), STATUS_IO);
    assert_int_equal(rpc_peer_fd(peer), -1);
    rpc_peer_destroy(peer);
}

static void memory_is_taken_once(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, "tcp:127.0.0.1:0", 1 << 17);
    const uint64_t before = mem_alloc_count();
    for (uint64_t seed = 0; seed < 20; seed++) {
        rpc_message_draw(RPC_OPEN, seed, false, &message);
        assert_int_equal(rpc_peer_send(pair.near, &message), STATUS_OK);
        assert_int_equal(rpc_peer_flush(pair.near), STATUS_OK);
        assert_int_equal(receive(pair.far), STATUS_OK);
    }
    assert_int_equal(mem_alloc_count(), before);
    pair_close(&pair);
    for (uint64_t n = 1; n <= 3; n++) {
        struct rpc_peer *peer;
        mem_fail_at(n);
        assert_int_equal(rpc_peer_create(100, &peer), STATUS_NO_MEMORY);
        assert_null(peer);
    }
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(fields_keep_their_places),
        cmocka_unit_test(what_is_cut_is_refused),
        cmocka_unit_test(what_is_changed_stays_within_limits),
        cmocka_unit_test(limits_have_sentences),
        cmocka_unit_test(texts_of_others_steer_no_terminal),
        cmocka_unit_test(a_frame_needs_its_room),
        cmocka_unit_test(addresses_are_read),
        cmocka_unit_test(keys_are_compared_whole),
        cmocka_unit_test(peers_talk_over_a_path_and_a_port),
        cmocka_unit_test(last_words_are_heard),
        cmocka_unit_test(halves_and_full_buffers),
        cmocka_unit_test(a_path_has_one_listener),
        cmocka_unit_test(memory_is_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
