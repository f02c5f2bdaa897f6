/* wire: see the header. A cursor over msgpack: each read names its field and its range. */
#include "rpc/wire.h"

#include <string.h>

int wire_write(void *user, const char *bytes, size_t n)
{
    struct wire_out *out = user;
    if (out->is_full || n > out->cap - out->n) {
        out->is_full = true;
        return -1;
    }
    memcpy(out->bytes + out->n, bytes, n);
    out->n += n;
    return 0;
}

/* ---- bytes ---- */
static void fail_short(struct wire_in *in, const char *field)
{
    in->failed = true;
    (void)status_fail(STATUS_INVALID, "rpc message %s ends within its %s", in->message, field);
}

static void fail_kind(struct wire_in *in, const char *field, const char *expected, uint8_t tag)
{
    in->failed = true;
    (void)status_fail(STATUS_INVALID, "rpc message %s: expected %s for its %s, found byte 0x%02x", in->message,
                      expected, field, tag);
}

static bool has(const struct wire_in *in, size_t n) { return (size_t)(in->end - in->at) >= n; }

/* Big-endian, n of 1, 2, 4, 8; the bytes are there. */
static uint64_t take(struct wire_in *in, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++) {
        value = value << 8 | *in->at++;
    }
    return value;
}

/* The first byte of a value. False when there is none, or something failed before. */
static bool take_tag(struct wire_in *in, const char *field, uint8_t *tag)
{
    if (in->failed) {
        return false;
    }
    if (!has(in, 1)) {
        fail_short(in, field);
        return false;
    }
    *tag = *in->at++;
    return true;
}

/* A length or number of n bytes behind the tag. */
static bool take_sized(struct wire_in *in, const char *field, int n, uint64_t *value)
{
    if (!has(in, (size_t)n)) {
        fail_short(in, field);
        return false;
    }
    *value = take(in, n);
    return true;
}

/* ---- values ---- */
uint64_t wire_read_uint(struct wire_in *in, const char *field, struct wire_range range)
{
    uint8_t tag;
    uint64_t value = 0;
    if (!take_tag(in, field, &tag)) {
        return 0;
    }
    if (tag <= 0x7f) { /* positive fixint */
        value = tag;
    } else if (tag >= 0xcc && tag <= 0xcf) { /* uint 8, 16, 32, 64 */
        if (!take_sized(in, field, 1 << (tag - 0xcc), &value)) {
            return 0;
        }
    } else {
        fail_kind(in, field, "a whole number", tag);
        return 0;
    }
    if (value < range.low || value > range.high) {
        in->failed = true;
        (void)status_fail(STATUS_INVALID, "rpc message %s: expected a %s between %llu and %llu, found %llu",
                          in->message, field, (unsigned long long)range.low, (unsigned long long)range.high,
                          (unsigned long long)value);
        return 0;
    }
    return value;
}

int32_t wire_read_i32(struct wire_in *in, const char *field, int32_t low, int32_t high)
{
    ASSERT(low >= 0 && low <= high);
    return (int32_t)wire_read_uint(in, field, (struct wire_range){ (uint64_t)low, (uint64_t)high });
}

float wire_read_float(struct wire_in *in, const char *field)
{
    uint8_t tag;
    uint64_t bits;
    float value;
    if (!take_tag(in, field, &tag)) {
        return 0;
    }
    if (tag != 0xca) { /* float 32: what the engine has */
        fail_kind(in, field, "a 32-bit float", tag);
        return 0;
    }
    if (!take_sized(in, field, 4, &bits)) {
        return 0;
    }
    const uint32_t word = (uint32_t)bits;
    memcpy(&value, &word, sizeof value);
    return value;
}

int32_t wire_read_array(struct wire_in *in, const char *field, int32_t low, int32_t high)
{
    uint8_t tag;
    uint64_t n = 0;
    if (!take_tag(in, field, &tag)) {
        return 0;
    }
    if ((tag & 0xf0) == 0x90) { /* fixarray */
        n = tag & 0x0f;
    } else if (tag == 0xdc || tag == 0xdd) { /* array 16, 32 */
        if (!take_sized(in, field, tag == 0xdc ? 2 : 4, &n)) {
            return 0;
        }
    } else {
        fail_kind(in, field, "an array", tag);
        return 0;
    }
    if (n < (uint64_t)low || n > (uint64_t)high) {
        in->failed = true;
        (void)status_fail(STATUS_INVALID, "rpc message %s: expected between %d and %d %s, found %llu", in->message,
                          low, high, field, (unsigned long long)n);
        return 0;
    }
    return (int32_t)n;
}

void wire_read_text(struct wire_in *in, const char *field, struct rpc_text *out)
{
    uint8_t tag;
    uint64_t n = 0;
    out->n = 0;
    out->bytes[0] = '\0';
    if (!take_tag(in, field, &tag)) {
        return;
    }
    if ((tag & 0xe0) == 0xa0) { /* fixstr */
        n = tag & 0x1f;
    } else if (tag == 0xd9) { /* str 8; longer ones are not ours */
        if (!take_sized(in, field, 1, &n)) {
            return;
        }
    } else {
        fail_kind(in, field, "a text of at most 255 bytes", tag);
        return;
    }
    if (!has(in, (size_t)n)) {
        fail_short(in, field);
        return;
    }
    memcpy(out->bytes, in->at, (size_t)n);
    out->bytes[n] = '\0';
    out->n = (int32_t)n;
    in->at += n;
}

enum status wire_end(struct wire_in *in)
{
    if (in->failed) {
        return STATUS_INVALID;
    }
    if (in->at != in->end) {
        return status_fail(STATUS_INVALID, "rpc message %s has %zu bytes too many", in->message,
                           (size_t)(in->end - in->at));
    }
    return STATUS_OK;
}
