/* rpc_proxy: a wire between a target and its draft worker that does, frame by frame and by its seed, what
 * wires and programs at their ends do: loses, holds back, repeats, cuts, mixes up, invents. A thread. */
#ifndef TESTS_RPC_PROXY_H
#define TESTS_RPC_PROXY_H

#include "rpc/rpc.h"

enum rpc_fault {
    FAULT_DROP,       /* a frame is lost */
    FAULT_TWICE,      /* it comes twice */
    FAULT_LATER,      /* it comes after the next one */
    FAULT_DELAY,      /* everything waits for some milliseconds */
    FAULT_HALVES,     /* it comes in small pieces */
    FAULT_CUT,        /* its end is missing: what follows is out of step */
    FAULT_GARBAGE,    /* bytes within it are others */
    FAULT_HUGE,       /* its length word claims two thousand million */
    FAULT_HANG_UP,    /* the line goes dead */
    FAULT_N_KINDS
};
const char *rpc_fault_name(enum rpc_fault fault);

struct rpc_proxy;
/* Of 1000 frames, per_mille[kind] suffer so. The proxy listens on `listen` and calls `to` for each that
 * comes. */
void rpc_proxy_open(const char *listen, const char *to, const int32_t *per_mille, uint64_t seed,
                    struct rpc_proxy **out);
/* From now on no byte passes, and nothing is closed: the worker hangs. */
void rpc_proxy_freeze(struct rpc_proxy *proxy);
uint64_t rpc_proxy_n_faults(struct rpc_proxy *proxy);
void rpc_proxy_close(struct rpc_proxy *proxy);

#endif
