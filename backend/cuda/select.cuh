/* select: what a block of 1024 threads finds in one row of floats: its maximum, its sum in the canonical
 * order, the key down to which the highest ones weigh a given amount. A row stays where it is, in global
 * memory, and is read once for each question; nothing is sorted.
 *
 * "The highest that weigh `wanted`" is top-k with weights of 1, top-p with integer probabilities. Digits of
 * the keys from the top: a histogram of weights in shared memory, the digit at which the sum from above
 * reaches what is wanted, then the same among the keys with that digit:
 *
 *     bits 63..52  51..40  39..32 of the value | 23..12  11..0 of ~id      ids below 2^24: 31..24 are ones
 *
 * It ends early where all keys with the digit are wanted. Sums are of integers, so no order matters.
 * Every function is for whole blocks.
 */
#ifndef BACKEND_CUDA_SELECT_CUH
#define BACKEND_CUDA_SELECT_CUH

#include "backend/cuda/keys.cuh"

enum { SELECT_THREADS = 1024, SELECT_WARPS = SELECT_THREADS / CUDA_WARP, SELECT_BUCKETS = 4096,
       SELECT_OWN = SELECT_BUCKETS / SELECT_THREADS, /* buckets of a thread */
       SELECT_TILE = 2048, SELECT_MAX_ID = 1 << 24 };

/* Shared memory of a block, 41 KB in all. Each call leaves it free, but where it says otherwise. */
struct select_room {
    SHARED_PTR(unsigned) bucket;     /* [2, SELECT_BUCKETS] lower halves, upper halves */
    SHARED_PTR(float) tile;          /* [SELECT_TILE] */
    SHARED_PTR(choose_key_t) warp;   /* [SELECT_WARPS] */
    SHARED_PTR(choose_key_t) found;  /* [SELECT_FOUND] */
};
enum { SELECT_FOUND = 4 };
#define SELECT_ROOM(room)                                   \
    SHARED(unsigned, room##_bucket, 2 * SELECT_BUCKETS);    \
    SHARED(float, room##_tile, SELECT_TILE);                \
    SHARED(choose_key_t, room##_warp, SELECT_WARPS);        \
    SHARED(choose_key_t, room##_found, SELECT_FOUND);       \
    const select_room room = { room##_bucket, room##_tile, room##_warp, room##_found }

DEVICE_FN choose_key_t select_bucket(const select_room &room, int32_t i)
{
    return (choose_key_t)room.bucket[SELECT_BUCKETS + i] << 32 | room.bucket[i];
}

DEVICE_FN void select_put(const select_room &room, int32_t i, choose_key_t value)
{
    room.bucket[i] = (unsigned)value;
    room.bucket[SELECT_BUCKETS + i] = (unsigned)(value >> 32);
}

/* Shared memory adds words of 32 bits by itself, longer ones by trying: so the halves, and a carry. */
DEVICE_FN void select_add(const select_room &room, int32_t i, choose_key_t weight)
{
    const unsigned low = (unsigned)weight, old = atomicAdd(&room.bucket[i], low);
    const unsigned high = (unsigned)(weight >> 32) + (old + low < low ? 1u : 0u);
    if (high != 0) {
        atomicAdd(&room.bucket[SELECT_BUCKETS + i], high);
    }
}

/* The highest key of the block, in every thread. */
DEVICE_FN choose_key_t select_max(const select_room &room, choose_key_t key)
{
    key = choose_warp_max(key);
    __syncthreads();
    if (cuda_lane() == 0) {
        room.warp[cuda_warp()] = key;
    }
    __syncthreads();
    return choose_warp_max(room.warp[cuda_lane()]); /* as many warps as lanes */
}

/* The canonical sum of a row of n terms: 64 partials, term i in partial i mod 64, ascending, then a tree. Terms
 * that are missing count +0. 64 threads run the chains, out of shared memory; all of them make the terms. */
template <class Term> DEVICE_FN float select_row_sum(const select_room &room, int32_t n, const Term &term)
{
    float sum = 0.0f;
    for (int32_t base = 0; base < n; base += SELECT_TILE) {
        for (int32_t i = (int32_t)threadIdx.x; i < SELECT_TILE; i += SELECT_THREADS) {
            room.tile[i] = base + i < n ? term(base + i) : 0.0f;
        }
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; threadIdx.x < CUDA_PARTIALS && i < SELECT_TILE; i += CUDA_PARTIALS) {
            sum += room.tile[i];
        }
        __syncthreads();
    }
    if (threadIdx.x < CUDA_PARTIALS) {
        room.tile[threadIdx.x] = sum;
    }
    for (unsigned stride = CUDA_PARTIALS / 2; stride > 0; stride /= 2) {
        __syncthreads();
        if (threadIdx.x < stride) {
            room.tile[threadIdx.x] = room.tile[threadIdx.x] + room.tile[threadIdx.x + stride];
        }
    }
    __syncthreads();
    sum = room.tile[0];
    __syncthreads();
    return sum;
}

/* Where the sum of buckets, from the last one down, reaches what is wanted. */
struct select_border { int32_t bucket; /* -1: the sum of all does not */ choose_key_t left, weight; };

/* wanted >= 1. Thread t has buckets 4095 - 4 t and the three below it. */
DEVICE_FN select_border select_find(const select_room &room, choose_key_t wanted)
{
    const int32_t top = SELECT_BUCKETS - 1 - (int32_t)threadIdx.x * SELECT_OWN;
    choose_key_t own = 0;
    for (int32_t i = 0; i < SELECT_OWN; i++) {
        own += select_bucket(room, top - i);
    }
    choose_key_t upto = own; /* of the warp's threads so far */
    for (int step = 1; step < CUDA_WARP; step *= 2) {
        const choose_key_t before = __shfl_up_sync(WHOLE_WARP, upto, step);
        upto += cuda_lane() >= step ? before : 0;
    }
    if (cuda_lane() == CUDA_WARP - 1) {
        room.warp[cuda_warp()] = upto;
    }
    if (threadIdx.x == 0) {
        room.found[0] = SELECT_BUCKETS;
    }
    __syncthreads();
    choose_key_t above = upto - own;
    for (int w = 0; w < cuda_warp(); w++) {
        above += room.warp[w];
    }
    if (above < wanted && above + own >= wanted) { /* one thread, or none */
        int32_t bucket = top;
        for (; above + select_bucket(room, bucket) < wanted; bucket--) {
            above += select_bucket(room, bucket);
        }
        room.found[0] = (choose_key_t)bucket;
        room.found[1] = wanted - above;
        room.found[2] = select_bucket(room, bucket);
    }
    __syncthreads();
    const select_border border = { room.found[0] == SELECT_BUCKETS ? -1 : (int32_t)room.found[0], room.found[1],
                                   room.found[2] };
    __syncthreads();
    return border;
}

/* Keys whose bits above `shift + bits` are those of `prefix`, by their digit. */
template <class Row>
DEVICE_FN void select_count(const select_room &room, const Row &row, int32_t n, choose_key_t prefix, int shift,
                            int bits)
{
    for (int32_t i = (int32_t)threadIdx.x; i < 2 * SELECT_BUCKETS; i += SELECT_THREADS) {
        room.bucket[i] = 0;
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += SELECT_THREADS) {
        choose_key_t key, weight;
        if (row(i, &key, &weight) && (shift + bits == 64 || key >> (shift + bits) == prefix >> (shift + bits))) {
            select_add(room, (int32_t)(key >> shift & ((1u << bits) - 1u)), weight);
        }
    }
    __syncthreads();
}

/* The highest key such that keys from it up weigh `wanted` (at least 1) or more; 0 when all of them do not.
 * row(i, &key, &weight) says what element i is, or false: it is not there. Ids below SELECT_MAX_ID. */
template <class Row>
DEVICE_FN choose_key_t select_lowest(const select_room &room, const Row &row, int32_t n, choose_key_t wanted)
{
    choose_key_t prefix = 0;
    for (int digit = 0; digit < 5; digit++) {
        const int shift = digit == 0 ? 52 : digit == 1 ? 40 : digit == 2 ? 32 : digit == 3 ? 12 : 0;
        const int bits = digit == 2 ? 8 : 12;
        select_count(room, row, n, prefix, shift, bits);
        const select_border border = select_find(room, wanted);
        if (border.bucket < 0) {
            return 0;
        }
        prefix |= (choose_key_t)border.bucket << shift;
        if (digit == 2) {
            prefix |= 0xff000000u;
        }
        wanted = border.left;
        if (border.weight == border.left) {
            break;
        }
    }
    return prefix;
}

/* The keys from `lowest` up, of which there are at most `most` <= SELECT_THREADS: each has a thread, which
 * finds it as select_bucket(room, threadIdx.x). Returned is its place among them, 0 for the highest; -1 in threads
 * without a key. The buckets are in use until the next barrier. */
template <class Row>
DEVICE_FN int32_t select_take(const select_room &room, const Row &row, int32_t n, choose_key_t lowest, int32_t most)
{
    if (threadIdx.x == 0) {
        room.found[0] = 0;
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += SELECT_THREADS) {
        choose_key_t key, weight;
        if (row(i, &key, &weight) && key >= lowest) {
            const choose_key_t at = atomicAdd(&room.found[0], (choose_key_t)1);
            if (at < (choose_key_t)most) {
                select_put(room, (int32_t)at, key);
            }
        }
    }
    __syncthreads();
    const int32_t n_taken = room.found[0] < (choose_key_t)most ? (int32_t)room.found[0] : most;
    int32_t place = (int32_t)threadIdx.x < n_taken ? 0 : -1;
    for (int32_t i = 0; place >= 0 && i < n_taken; i++) {
        place += select_bucket(room, i) > select_bucket(room, (int32_t)threadIdx.x) ? 1 : 0;
    }
    return place;
}

#endif
