/* wire: msgpack, the part of it that our messages are made of. Inside the room only.
 *
 * Written with msgpack-c's packer. Read by a cursor that takes each field with its limits, because a
 * general unpacker takes memory by what a header claims, and makes a tree that is checked only afterwards.
 */
#ifndef RPC_WIRE_H
#define RPC_WIRE_H

#include <msgpack/pack.h>

#include "rpc/rpc.h"

/* ---- writing ---- */
struct wire_out { uint8_t *bytes; size_t n, cap; bool is_full; };
/* msgpack-c's callback; user is a struct wire_out. */
int wire_write(void *user, const char *bytes, size_t n);

/* ---- reading ---- */
/* After the first failure all further reads fail and change nothing; `failed` says so once at the end. */
struct wire_in {
    const uint8_t *at, *end;
    const char *message;     /* name of the message, for the sentence */
    bool failed;             /* the sentence is in status_message() */
};
struct wire_range { uint64_t low, high; };

uint64_t wire_read_uint(struct wire_in *in, const char *field, struct wire_range range);
/* A whole number 0 <= low <= value <= high. */
int32_t wire_read_i32(struct wire_in *in, const char *field, int32_t low, int32_t high);
float wire_read_float(struct wire_in *in, const char *field);
/* Items of an array. */
int32_t wire_read_array(struct wire_in *in, const char *field, int32_t low, int32_t high);
void wire_read_text(struct wire_in *in, const char *field, struct rpc_text *out);
/* Nothing may follow. */
enum status wire_end(struct wire_in *in);

#endif
