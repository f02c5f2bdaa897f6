/* split_gguf: see the header. */
#include "tests/split_gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "model/gguf.h"
#include "tests/hostile_gguf.h"

/* Where the tensor infos begin. */
static size_t end_of_keys(const struct gguf *gguf)
{
    const unsigned char *at = gguf->keys[gguf->n_keys - 1].data;
    const char *name = gguf->tensors[0].name;
    const uint64_t n = strlen(name);
    for (;; at++) {
        assert_true(at + 8 + n < gguf->bytes + gguf->n_bytes);
        if (memcmp(at, &n, 8) == 0 && memcmp(at + 8, name, n) == 0) {
            return (size_t)(at - gguf->bytes);
        }
    }
}

static uint64_t up(uint64_t bytes) { return (bytes + 31) & ~UINT64_C(31); }

/* Tensors [first, first + n) of the file as part `no`; the first part holds the keys. */
static struct bytes make_part(const struct gguf *gguf, int no, int n_parts, uint32_t first,
                              uint32_t n, const struct split_change *change)
{
    struct bytes part = { 0 };
    const bool twice = change->twice && no == n_parts - 1;
    uint64_t offset = 0;
    bytes_put_header(&part, 3, n + (twice ? 1 : 0), (no == 0 ? gguf->n_keys : 0) + 3);
    if (no == 0) {
        bytes_put(&part, gguf->bytes + 24, end_of_keys(gguf) - 24);
    }
    bytes_put_key_u32(&part, "split.no", (uint32_t)no);
    bytes_put_key_u32(&part, "split.count",
                      no == 1 && change->count > 0 ? change->count : (uint32_t)n_parts);
    bytes_put_key_u32(&part, "split.tensors.count",
                      change->n_tensors > 0 ? change->n_tensors : gguf->n_tensors);
    for (uint32_t i = first; i < first + n + (twice ? 1 : 0); i++) {
        const struct model_tensor_info *info = &gguf->tensors[i < first + n ? i : 0];
        uint64_t dims[MODEL_MAX_DIMS];
        for (int32_t d = 0; d < info->n_dims; d++) {
            dims[d] = (uint64_t)info->dims[d];
        }
        bytes_put_tensor(&part, info->name, (uint32_t)info->n_dims, dims, info->type, offset);
        offset += up(info->bytes);
    }
    bytes_pad(&part, 32);
    for (uint32_t i = first; i < first + n + (twice ? 1 : 0); i++) {
        const uint32_t from = i < first + n ? i : 0;
        bytes_put(&part, gguf->bytes + gguf->tensor_begin[from], gguf->tensors[from].bytes);
        bytes_pad(&part, 32);
    }
    return part;
}

static void part_name(char *name, size_t cap, const struct split_change *change, int no, int n_parts)
{
    snprintf(name, cap, change->pattern ? change->pattern : "m-%05d-of-%05d.gguf", no + 1, n_parts);
}

void split_gguf_write(const struct small_folder *out, const unsigned char *whole, size_t n_whole,
                      int n_parts, const struct split_change *change)
{
    struct gguf gguf = { .label = "whole" };
    struct bytes last = { 0 };
    assert_int_equal(gguf_parse(&gguf, whole, n_whole), STATUS_OK);
    for (int no = 0; no < n_parts; no++) {
        const uint32_t n_all = gguf.n_tensors, parts = (uint32_t)n_parts - 1, at = (uint32_t)no;
        const uint32_t first = no == 0 ? 0 : n_all * (at - 1) / parts;
        const uint32_t n = no == 0 ? 0 : n_all * at / parts - first;
        char name[64];
        struct bytes part = make_part(&gguf, no, n_parts, first, n, change);
        const struct bytes *written = change->repeats == no && no > 0 ? &last : &part;
        part_name(name, sizeof name, change, no, n_parts);
        if (!(change->missing == no && no > 0)) {
            small_folder_put(out, name, written->data, written->n);
        }
        bytes_free(&last);
        last = part;
    }
    bytes_free(&last);
    gguf_deinit(&gguf);
}

void split_gguf_path(const struct small_folder *out, const struct split_change *change, int n_parts, int no,
                     char path[512])
{
    char name[64];
    part_name(name, sizeof name, change, no, n_parts);
    snprintf(path, 512, "%s/%s", out->path, name);
}
