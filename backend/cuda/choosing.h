/* choosing: tokens chosen from a pass's rows of logits where they lie, right behind the pass and on its stream.
 * What the files of it share: choosing.c (memory, portions), choose_rows.c (tokens), rank_rows.c (the likeliest).
 * Private to backend/cuda.
 *
 *     asks ─ packed ─► pinned ─ one copy ─► device ─► kernels ─► answers ─ one copy ─► pinned ─► host
 *
 * Asks are taken in portions: as many as scratch and the pinned block hold, which is nearly always all of them.
 * Rows of a cut head are spread over all ids first. Not here: the rejection rule, whose rows go to the host.
 */
#ifndef BACKEND_CUDA_CHOOSING_H
#define BACKEND_CUDA_CHOOSING_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/pack.h"

enum { CHOOSING_STAGES = 1 + CHOICE_SIBLINGS, CHOOSING_ALIGN = 8 /* of what holds addresses */ };

/* One row of a portion: what was sent for it, and where its answers come. */
struct placed {
    const int32_t *history;   /* of the device, here and below */
    const struct cuda_bias *biases;
    int32_t at[CHOOSING_STAGES]; /* among its group's answers */
    const int32_t *id[CHOOSING_STAGES];
};

struct cuda_choosing {
    struct cuda_backend *backend;
    struct pass_shape shape;
    size_t in_bytes, out_bytes, work_bytes;
    unsigned char *in_pinned, *in_device, *out_pinned, *out_device;
    unsigned char *work;      /* of the device: keys of choose.cu, then sums of hint.cu */
    struct placed *placed;    /* [cap_logits] */
};
uint64_t *choosing_keys(const struct cuda_choosing *choosing);
float *choosing_sums(const struct cuda_choosing *choosing);

/* Asks of either kind: both begin with a struct choice_ask. */
struct asks { const void *first; size_t stride_bytes; int32_t n; };
static inline const struct choice_ask *ask_at(const struct asks *asks, int32_t i)
{
    return (const void *)((const unsigned char *)asks->first + (size_t)i * asks->stride_bytes);
}

struct portion {
    struct cuda_choosing *choosing;
    struct lane *lane;
    cudaStream_t stream;
    struct choice_domain domain;
    struct cuda_logits rows;
    struct asks asks;
    struct packer in, out;
    const int32_t *spread_idx; /* rows of the pass that are spread over all ids; NULL: none are */
    const float *full;         /* rows by id: those of the pass, or spread ones */
    int32_t full_stride;
    float *scratch;            /* behind what is spread */
    size_t plain_rows;         /* of scratch, that a plain row wants: 0, or 1 where it is ranked */
};

/* Begins with as many of the asks as fit, and sends their arrays. False: none are left, or the device failed. */
bool portion_begin(struct portion *portion, struct pass_desk *desk, const struct asks *left);
/* What is packed goes up, and rows are spread; launches may follow. */
void portion_send(struct portion *portion);
/* Answers come down; waits. False: the device failed. */
bool portion_end(struct portion *portion);

/* Row i as the device is told of it. */
struct cuda_sampling portion_sampling(const struct portion *portion, int32_t i);
/* Its place among the rows by id. */
static inline int32_t portion_full_row(const struct portion *portion, int32_t i)
{
    return portion->spread_idx != NULL ? i : ask_at(&portion->asks, i)->row;
}

/* Rows that one launch takes: arrays in the pinned block, and answers, side by side. */
struct group {
    int32_t n, n_put;
    void *rows;                /* [n] as the kernel has them */
    int32_t *idx;              /* [n] among the rows by id */
    struct cuda_taken *taken;  /* [n] or NULL */
    const void *rows_there;
    struct cuda_rows from;
    unsigned char *out, *out_there; /* of [n] answers, pinned and on the device */
    size_t out_bytes;          /* of each */
};
/* Room for the n rows counted; `passes_over` where there is a stage before. */
struct group_sizes { size_t row_bytes, out_bytes; bool passes_over; };
void group_open(struct portion *portion, struct group *group, const struct group_sizes *sizes);

#endif
