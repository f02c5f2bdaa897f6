/* nccl: the emulated NCCL. What is asked of it between a group's start and end is one exchange, which stands on the
 * stream until every rank has come to its own (those it sends to or receives from, where it does nothing else); so
 * a missing call, another order, or a buffer that is not a device's shows. Complaints: simt_take_error().
 *
 *     rank 0   stream  [ ][ ][exchange]─┐
 *     rank 1   stream  [ ][exchange]────┴─► copies, by who comes last
 */
#include "tests/simt/include/nccl.h"

#include <stdlib.h>
#include <string.h>

#include "tests/simt/exchange.h"
#include "tests/simt/include/cuda_runtime.h"
#include "tests/simt/runtime.h"
#include "tests/simt/simt.h"

namespace {

enum { MAX_GROUPS = 512, MAX_RANKS = 8, MAX_ITEMS = 16, WORD = 4 };
enum item_kind { ITEM_BROADCAST, ITEM_GATHER, ITEM_SEND, ITEM_RECEIVE };

struct item { item_kind kind; const void *from; void *to; size_t bytes; int peer; };

/* Never freed: an exchange may stand on a stream when its group is gone. */
struct group {
    int n_ranks, n_joined, n_left, n_recorded;
    bool aborted;
    const simt_exchange *here[MAX_RANKS]; /* who has come to the exchange that is next */
    int device[MAX_RANKS];
    uint64_t n_done[MAX_RANKS];
};
group groups[MAX_GROUPS];
int n_groups;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
bool works = true;
__thread int depth;              /* of group starts */
__thread simt_exchange *pending; /* of this thread's group */

struct guard {
    guard() { pthread_mutex_lock(simt_lock()); }
    ~guard() { pthread_mutex_unlock(simt_lock()); }
};

} // namespace

struct ncclComm { group *of; int rank; };
struct simt_exchange {
    group *of;
    int rank, n_items;
    item items[MAX_ITEMS];
    cudaStream_t stream;
    bool is_posted, is_recorded;
    uint64_t turn; /* while posted: it has happened when the rank has done more */
};

void simt_set_nccl(int there) { works = there != 0; }

namespace {

/* ---- copies ---- */
void move(void *to, const void *from, size_t bytes)
{
    if (to != from) {
        memcpy(to, from, bytes);
    }
}

bool agree(const group *of, int n)
{
    const item *first = &of->here[0]->items[n];
    for (int r = 1; r < of->n_ranks; r++) {
        const item *other = &of->here[r]->items[n];
        if (n >= of->here[r]->n_items || other->kind != first->kind || other->bytes != first->bytes ||
            other->peer != first->peer) {
            simt_complain("ranks ask for different exchanges");
            return false;
        }
    }
    return true;
}

void run_collective(const group *of, int n)
{
    const item *first = &of->here[0]->items[n];
    for (int r = 0; r < of->n_ranks; r++) {
        unsigned char *to = static_cast<unsigned char *>(of->here[r]->items[n].to);
        for (int from = 0; from < of->n_ranks; from++) {
            if (first->kind == ITEM_GATHER) {
                move(to + (size_t)from * first->bytes, of->here[from]->items[n].from, first->bytes);
            } else if (from == first->peer) {
                move(to, of->here[from]->items[n].from, first->bytes);
            }
        }
    }
}

/* The n-th of what `rank` does with `peer`; NULL: no more. */
const item *find_item(const group *of, int rank, item_kind kind, int peer, int n)
{
    const simt_exchange *exchange = of->here[rank];
    for (int i = 0; i < exchange->n_items; i++) {
        if (exchange->items[i].kind == kind && exchange->items[i].peer == peer && n-- == 0) {
            return &exchange->items[i];
        }
    }
    return nullptr;
}

void run_pairs(const group *of, unsigned ranks)
{
    for (int from = 0; from < of->n_ranks; from++) {
        for (int to = 0; to < of->n_ranks; to++) {
            for (int n = 0; (ranks >> from & 1) != 0 && (ranks >> to & 1) != 0; n++) {
                const item *sent = find_item(of, from, ITEM_SEND, to, n);
                const item *received = find_item(of, to, ITEM_RECEIVE, from, n);
                if (sent == nullptr && received == nullptr) {
                    break;
                }
                if (sent == nullptr || received == nullptr || sent->bytes != received->bytes) {
                    simt_complain("what rank %d sends is not what rank %d receives", from, to);
                    break;
                }
                move(received->to, sent->from, sent->bytes);
            }
        }
    }
}

bool is_collective(const simt_exchange *exchange) { return exchange->items[0].kind < ITEM_SEND; }

/* The ranks, as bits, without which an exchange cannot be: all, or those that send to each other. */
unsigned ranks_of(const group *of, int rank)
{
    unsigned ranks = 1u << rank, before = 0;
    if (is_collective(of->here[rank])) {
        return (1u << of->n_ranks) - 1;
    }
    while (ranks != before) {
        before = ranks;
        for (int r = 0; r < of->n_ranks; r++) {
            for (int i = 0; (before >> r & 1) != 0 && of->here[r] != nullptr && i < of->here[r]->n_items; i++) {
                ranks |= 1u << of->here[r]->items[i].peer;
            }
        }
    }
    return ranks;
}

bool all_here(const group *of, unsigned ranks)
{
    for (int r = 0; r < of->n_ranks; r++) {
        if ((ranks >> r & 1) != 0 && of->here[r] == nullptr) {
            return false;
        }
    }
    return true;
}

/* All have come. */
void run_all(group *of, unsigned ranks, bool collective)
{
    simt_open_devices(true);
    for (int n = 0; collective && n < of->here[0]->n_items && agree(of, n); n++) {
        run_collective(of, n);
    }
    if (!collective) {
        run_pairs(of, ranks);
    }
    simt_open_devices(false);
    for (int r = 0; r < of->n_ranks; r++) {
        if ((ranks >> r & 1) != 0) {
            of->here[r] = nullptr;
            of->n_done[r]++;
        }
    }
    pthread_cond_broadcast(&changed);
}

/* ---- what is asked ---- */
ncclResult_t submit(simt_exchange *exchange)
{
    if (exchange->n_items == 0) {
        free(exchange);
        return ncclSuccess;
    }
    if (!simt_put_exchange(exchange->stream, exchange, &exchange->is_recorded)) {
        free(exchange);
        return ncclUnhandledCudaError;
    }
    __atomic_fetch_add(&exchange->of->n_recorded, (int)exchange->is_recorded, __ATOMIC_SEQ_CST);
    return ncclSuccess;
}

ncclResult_t ask(ncclComm_t comm, cudaStream_t stream, const item &asked)
{
    const guard hold;
    group *of = comm->of;
    const int device = of->device[comm->rank];
    const size_t received = asked.kind == ITEM_GATHER ? asked.bytes * (size_t)of->n_ranks : asked.bytes;
    const bool reads = asked.kind != ITEM_RECEIVE && (asked.kind != ITEM_BROADCAST || asked.peer == comm->rank);
    if ((reads && !simt_is_of_device(asked.from, asked.bytes, device)) ||
        (asked.kind != ITEM_SEND && !simt_is_of_device(asked.to, received, device))) {
        simt_complain("an exchange of %zu bytes that do not lie on device %d", asked.bytes, device);
        return ncclInvalidArgument;
    }
    if (pending == nullptr) {
        pending = static_cast<simt_exchange *>(calloc(1, sizeof *pending));
        pending->of = of;
        pending->rank = comm->rank;
        pending->stream = stream;
    }
    if (pending->of != of || pending->stream != stream || pending->n_items == MAX_ITEMS) {
        simt_complain("a group of exchanges of several communicators or streams, or of too many");
        return ncclInvalidUsage;
    }
    pending->items[pending->n_items++] = asked;
    if (depth > 0) {
        return ncclSuccess;
    }
    simt_exchange *exchange = pending;
    pending = nullptr;
    return submit(exchange);
}

} // namespace

bool simt_exchange_run(simt_exchange *exchange, bool may_wait, pthread_mutex_t *lock)
{
    group *of = exchange->of;
    const uint64_t *n_done = &of->n_done[exchange->rank];
    if (!exchange->is_posted && !of->aborted) {
        of->here[exchange->rank] = exchange;
        exchange->is_posted = true;
        exchange->turn = *n_done;
        const unsigned ranks = ranks_of(of, exchange->rank);
        if (all_here(of, ranks)) {
            run_all(of, ranks, is_collective(exchange));
        }
    }
    while (may_wait && *n_done == exchange->turn && !of->aborted) {
        pthread_cond_wait(&changed, lock);
    }
    if (*n_done == exchange->turn && !of->aborted) {
        return false;
    }
    exchange->is_posted = false; /* may come again, in a graph */
    return true;
}

void simt_exchange_free(simt_exchange *exchange)
{
    __atomic_fetch_sub(&exchange->of->n_recorded, (int)exchange->is_recorded, __ATOMIC_SEQ_CST); /* no lock is held */
    free(exchange);
}

/* ---- the calls ---- */
ncclResult_t ncclGetVersion(int *version)
{
    *version = 22800;
    return works ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    const guard hold;
    if (n_groups == MAX_GROUPS) {
        return ncclInternalError;
    }
    memcpy(id->internal, &n_groups, sizeof n_groups);
    n_groups++;
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank)
{
    const guard hold;
    int idx;
    memcpy(&idx, id.internal, sizeof idx);
    if (idx < 0 || idx >= n_groups || rank < 0 || rank >= n_ranks || n_ranks > MAX_RANKS) {
        return ncclInvalidArgument;
    }
    group *of = &groups[idx];
    of->n_ranks = n_ranks;
    of->device[rank] = simt_current_device();
    of->n_joined++;
    pthread_cond_broadcast(&changed);
    while (of->n_joined < n_ranks) {
        pthread_cond_wait(&changed, simt_lock());
    }
    for (int r = 0; r < n_ranks; r++) {
        if (r != rank && of->device[r] == of->device[rank]) {
            simt_complain("two ranks on device %d", of->device[r]);
            return ncclInvalidUsage;
        }
    }
    *comm = static_cast<ncclComm_t>(calloc(1, sizeof **comm));
    **comm = { of, rank };
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    const guard hold;
    group *of = comm->of;
    if (of->here[comm->rank] != nullptr) {
        simt_complain("a communicator goes while an exchange is under way");
    }
    if (++of->n_left == of->n_ranks && of->n_recorded > 0) {
        simt_complain("a communicator goes before the graphs that hold its exchanges");
    }
    free(comm);
    return ncclSuccess;
}

/* Kernels that wait end. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    const guard hold;
    comm->of->aborted = true;
    pthread_cond_broadcast(&changed);
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    const guard hold;
    *state = comm->of->aborted ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) { return result == ncclSuccess ? "no error" : "an emulated error"; }

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    const guard hold;
    simt_exchange *exchange = pending;
    if (--depth > 0 || exchange == nullptr) {
        return ncclSuccess;
    }
    pending = nullptr;
    return submit(exchange);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t, int root, ncclComm_t comm,
                           cudaStream_t stream)
{
    return ask(comm, stream, { ITEM_BROADCAST, from, to, n * WORD, root });
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t n_each, ncclDataType_t, ncclComm_t comm,
                           cudaStream_t stream)
{
    return ask(comm, stream, { ITEM_GATHER, from, to, n_each * WORD, 0 });
}

ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return ask(comm, stream, { ITEM_SEND, from, nullptr, n * WORD, peer });
}

ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return ask(comm, stream, { ITEM_RECEIVE, nullptr, to, n * WORD, peer });
}
