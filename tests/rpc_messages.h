/* rpc_messages: messages to test with: every type, filled from a seed within its limits. */
#ifndef TESTS_RPC_MESSAGES_H
#define TESTS_RPC_MESSAGES_H

#include "rpc/rpc.h"

enum { RPC_FRAME_CAP = RPC_HEAD_BYTES + RPC_MAX_FRAME_BYTES };

/* Sizes are drawn too, up to what the type may have; `fullest` takes the largest of everything. */
void rpc_message_draw(enum rpc_type type, uint64_t seed, bool fullest, struct rpc_message *out);

#endif
