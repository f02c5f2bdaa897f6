/* stop: the window holds at most one token's text and the longest beginning of a stop string. */
#include "scheduler/stop.h"

#include <string.h>

enum status stop_set_init(struct stop_set *set, const char *const *strings, size_t n_strings)
{
    *set = (struct stop_set){ 0 };
    if (n_strings > STOP_MAX_STRINGS) {
        return status_fail(STATUS_INVALID, "expected at most %d stop strings, found %zu",
                           STOP_MAX_STRINGS, n_strings);
    }
    for (size_t i = 0; i < n_strings; i++) {
        const size_t n_bytes = strings[i] == NULL ? 0 : strnlen(strings[i], STOP_MAX_BYTES + 1);
        if (n_bytes < 1 || n_bytes > STOP_MAX_BYTES) {
            stop_set_deinit(set);
            return status_fail(STATUS_INVALID, "expected stop strings of 1 to %d bytes, number %zu is %s",
                               STOP_MAX_BYTES, i + 1, n_bytes < 1 ? "empty" : "longer");
        }
        char *copy = mem_strdup(strings[i]);
        if (copy == NULL) {
            stop_set_deinit(set);
            return status_fail(STATUS_NO_MEMORY, "no memory for a stop string of %zu bytes", n_bytes);
        }
        set->string[set->n_strings++] = (struct tokenizer_text){ copy, (uint32_t)n_bytes };
        set->max_bytes = n_bytes > set->max_bytes ? n_bytes : set->max_bytes;
    }
    return STATUS_OK;
}

void stop_set_deinit(struct stop_set *set)
{
    for (int32_t i = 0; i < set->n_strings; i++) {
        mem_free((void *)(uintptr_t)set->string[i].bytes);
    }
    *set = (struct stop_set){ 0 };
}

static size_t stop_scan_cap(const struct stop_set *set, const struct tokenizer *tokenizer)
{
    return set->max_bytes + text_push_cap(tokenizer);
}

enum status stop_scan_init(struct stop_scan *scan, const struct stop_set *set,
                           const struct detokenizer *stream)
{
    *scan = (struct stop_scan){ .stream = *stream };
    if (set->n_strings > 0) {
        scan->window = mem_alloc(1, stop_scan_cap(set, stream->tokenizer));
        if (scan->window == NULL) {
            return status_fail(STATUS_NO_MEMORY, "no memory to look for stop strings");
        }
    }
    return STATUS_OK;
}

void stop_scan_deinit(struct stop_scan *scan)
{
    mem_free(scan->window);
    *scan = (struct stop_scan){ 0 };
}

/* Where in the window the first complete stop string begins, or -1. */
static int64_t stop_scan_find(const struct stop_scan *scan, const struct stop_set *set)
{
    size_t best_begin = 0, best_end = SIZE_MAX;
    for (int32_t i = 0; i < set->n_strings; i++) {
        const size_t n = set->string[i].n_bytes;
        const char *at = memmem(scan->window, scan->n_window, set->string[i].bytes, n);
        if (at == NULL) {
            continue;
        }
        const size_t begin = (size_t)(at - scan->window), end = begin + n;
        if (end < best_end || (end == best_end && begin < best_begin)) {
            best_begin = begin;
            best_end = end;
        }
    }
    return best_end == SIZE_MAX ? -1 : (int64_t)best_begin;
}

static bool begins_a_stop(const struct stop_set *set, const char *tail, size_t n_tail)
{
    for (int32_t i = 0; i < set->n_strings; i++) {
        if (n_tail < set->string[i].n_bytes && memcmp(tail, set->string[i].bytes, n_tail) == 0) {
            return true;
        }
    }
    return false;
}

/* Bytes at the end of the window that could be the beginning of a stop string. */
static size_t stop_scan_held(const struct stop_scan *scan, const struct stop_set *set)
{
    size_t n_tail = scan->n_window < set->max_bytes - 1 ? scan->n_window : set->max_bytes - 1;
    while (n_tail > 0 && !begins_a_stop(set, scan->window + scan->n_window - n_tail, n_tail)) {
        n_tail--;
    }
    return n_tail;
}

bool stop_scan_push(struct stop_scan *scan, const struct stop_set *set, int32_t id)
{
    const size_t cap = stop_scan_cap(set, scan->stream.tokenizer);
    scan->n_window += text_stream_push(&scan->stream, id, scan->window + scan->n_window,
                                       cap - scan->n_window);
    const int64_t begin = stop_scan_find(scan, set);
    if (begin >= 0) {
        scan->n_released += begin;
        scan->n_window = 0;
        return true;
    }
    const size_t n_held = stop_scan_held(scan, set);
    memmove(scan->window, scan->window + scan->n_window - n_held, n_held);
    scan->n_released += (int64_t)(scan->n_window - n_held);
    scan->n_window = n_held;
    return false;
}
