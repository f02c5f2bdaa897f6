/* fuzz_frame: any bytes as what a draft worker, or a target, sends. They come in two parts, cut where the
 * first byte says, through a real peer's buffer. A message that is accepted is within its limits, and
 * what is written for it is read again as the same. */
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { FRAME_CAP = RPC_HEAD_BYTES + RPC_MAX_FRAME_BYTES };

static void check_table(const struct rpc_table *table)
{
    ASSERT(table->n_branches >= 0 && table->n_branches <= RPC_MAX_BRANCHES);
    for (int32_t i = 0; i < table->n_branches; i++) {
        const struct rpc_branch *branch = &table->branch[i];
        ASSERT(branch->n_accepted >= 0 && branch->n_accepted <= table->n_proposed);
        ASSERT(branch->n >= 0 && branch->n <= RPC_MAX_CHAIN);
        ASSERT(branch->token >= 0 && branch->token < RPC_MAX_VOCAB);
    }
}

static void check_message(const struct rpc_message *message)
{
    static uint8_t first[FRAME_CAP], second[FRAME_CAP];
    static struct rpc_message again;
    size_t n, n_again;
    if (message->type == RPC_TABLE) {
        check_table(&message->table);
    }
    ASSERT(rpc_frame_encode(message, first, sizeof first, &n) == STATUS_OK);
    ASSERT(rpc_frame_decode(first + RPC_HEAD_BYTES, n - RPC_HEAD_BYTES, &again) == STATUS_OK);
    ASSERT(again.type == message->type && again.id == message->id);
    ASSERT(rpc_frame_encode(&again, second, sizeof second, &n_again) == STATUS_OK);
    ASSERT(n == n_again && memcmp(first, second, n) == 0);
}

/* All messages that have come; false: what came is none. */
static int take_messages(struct rpc_peer *peer)
{
    static struct rpc_message message;
    for (;;) {
        const enum status status = rpc_peer_next(peer, &message);
        if (status != STATUS_OK) {
            ASSERT(status == STATUS_REFUSED || strlen(status_message()) > 0);
            return status == STATUS_REFUSED;
        }
        check_message(&message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct rpc_peer *peer;
    int ends[2];
    if (n_bytes < 1 || n_bytes > FRAME_CAP) { /* more than a socket takes at once proves nothing more */
        return 0;
    }
    const size_t n_first = 1 + (n_bytes - 1) * data[0] / UINT8_MAX;
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    ASSERT(rpc_peer_create(1 << 16, &peer) == STATUS_OK);
    rpc_peer_attach(peer, ends[0]);
    int is_sound = 1;
    for (int part = 0; part < 2 && is_sound; part++) {
        const uint8_t *from = part == 0 ? data + 1 : data + n_first;
        const size_t n = part == 0 ? n_first - 1 : n_bytes - n_first;
        ASSERT(n == 0 || send(ends[1], from, n, MSG_NOSIGNAL) == (ssize_t)n);
        ASSERT(rpc_peer_fill(peer) == STATUS_OK);
        is_sound = take_messages(peer);
    }
    rpc_peer_destroy(peer);
    close(ends[1]);
    return 0;
}
