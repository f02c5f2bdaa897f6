/* attention in vectors: one source for every vector width, included by attention_avx2.c and _avx512.c
 * after they have said what a VEC is. The definition is attention_scalar.c.
 *
 * No chain is split: a lane is an output. Scores: lanes are positions, tiles of H heads x N vectors
 * of positions walk head_dim together, so that a K vector is loaded (and widened) once for H heads.
 * Values: lanes are dimensions, tiles of H heads x N vectors of dimensions walk the positions, so
 * that a V vector is loaded once for H heads; the denominators' chains ride along. Bytes: K and V of
 * the visible positions, each once per group of H heads, from memory once: while a segment's K is
 * read its V is prefetched, and meanwhile the next segment's K.
 *
 * Tiles are functions with H, N and the KV type as constants: inlining unrolls them into registers.
 */
#define ATTENTION_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8") /* early, so that the arrays of a tile become registers */

enum {
    VECTORS_PER_BLOCK = KV_BLOCK_SLOTS / VEC_LANES,
    PREFETCH_LINE = 64,
    MAX_TILE_VECTORS = 8
};

struct tile_place {
    const struct attention_job *job;
    const struct attention_segment *segment;
    const unsigned char *const *ahead; /* [blocks] what to prefetch while values are summed */
    float *score;                      /* [n_group, 256] */
    float *out, *sum;                  /* [n_group, head_dim], [n_group] */
    int32_t head;                      /* first of the tile */
    int32_t vector;                    /* first of the tile: of positions, or of dimensions */
};

/* Lines of consecutive blocks in address order: hardware prefetchers follow runs, not strides. */
struct line_walk {
    const unsigned char *const *block;
    const unsigned char *line;
    int32_t n_blocks, n_lines, left; /* blocks to come, lines of a block, lines to come of this one */
};

ATTENTION_INLINE void line_walk_prefetch(struct line_walk *walk)
{
    __builtin_prefetch(walk->line);
    walk->line += PREFETCH_LINE;
    if (--walk->left == 0 && --walk->n_blocks > 0) {
        walk->line = *++walk->block;
        walk->left = walk->n_lines;
    }
}

ATTENTION_INLINE VEC load_kv(const unsigned char *from, int32_t idx, const enum kv_type type)
{
    return type == KV_F16 ? vec_from_f16(from + (size_t)idx * 2)
                          : vec_load((const float *)(const void *)from + idx);
}

ATTENTION_INLINE void score_tile(const struct tile_place *place, const int H, const int N,
                                 const enum kv_type type)
{
    const struct attention_job *job = place->job;
    const float *q = job->q + (size_t)place->head * (size_t)job->head_dim;
    const int32_t n_blocks = N < VECTORS_PER_BLOCK ? 1 : N / VECTORS_PER_BLOCK;
    const int32_t step = type == KV_F16 ? 2 : 1; /* dimensions whose K of a block fills a cache line */
    struct line_walk values = { .block = place->segment->v + place->vector / VECTORS_PER_BLOCK,
                                .n_blocks = n_blocks, .n_lines = job->head_dim / step,
                                .left = job->head_dim / step };
    const unsigned char *k[MAX_TILE_VECTORS];
    VEC acc[4][MAX_TILE_VECTORS];
    UNROLL
    for (int n = 0; n < N; n++) {
        const int32_t vector = place->vector + n;
        const size_t lane = (size_t)(vector % VECTORS_PER_BLOCK) * VEC_LANES;
        k[n] = place->segment->k[vector / VECTORS_PER_BLOCK] + lane * attention_kv_bytes(type);
        UNROLL
        for (int h = 0; h < H; h++) {
            acc[h][n] = vec_zero();
        }
    }
    values.line = *values.block;
    for (int32_t d0 = 0; d0 < job->head_dim; d0 += step) {
        UNROLL
        for (int32_t d = d0; d < d0 + step; d++) {
            VEC x[4];
            UNROLL
            for (int h = 0; h < H; h++) {
                x[h] = vec_set1(q[h * job->head_dim + d]);
            }
            UNROLL
            for (int n = 0; n < N; n++) {
                const VEC kv = load_kv(k[n], d * KV_BLOCK_SLOTS, type);
                UNROLL
                for (int h = 0; h < H; h++) {
                    acc[h][n] = vec_fma(x[h], kv, acc[h][n]);
                }
            }
        }
        for (int b = 0; b < n_blocks; b++) {
            line_walk_prefetch(&values);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        UNROLL
        for (int n = 0; n < N; n++) {
            vec_store(place->score + (place->head + h) * SEGMENT_ELEMS + (place->vector + n) * VEC_LANES,
                      vec_mul(acc[h][n], vec_set1(job->scale)));
        }
    }
}

/* `with_sum`: this tile also chains the denominators of its heads. */
ATTENTION_INLINE void value_tile(const struct tile_place *place, const int H, const int N,
                                 const enum kv_type type, const int with_sum)
{
    const struct attention_job *job = place->job;
    const struct attention_segment *segment = place->segment;
    const int32_t d0 = place->vector * VEC_LANES, head_dim = job->head_dim;
    const float *score = place->score + place->head * SEGMENT_ELEMS;
    VEC acc[4][MAX_TILE_VECTORS], sum[4];
    UNROLL
    for (int h = 0; h < H; h++) {
        sum[h] = vec_zero();
        UNROLL
        for (int n = 0; n < N; n++) {
            acc[h][n] = vec_zero();
        }
    }
    for (int32_t p = segment->begin; p < segment->end;) {
        const int32_t b = p / KV_BLOCK_SLOTS;
        const int32_t stop = (b + 1) * KV_BLOCK_SLOTS < segment->end ? (b + 1) * KV_BLOCK_SLOTS
                                                                     : segment->end;
        int32_t at = p % KV_BLOCK_SLOTS * head_dim + d0;
        for (; p < stop; p++, at += head_dim) {
            VEC v[MAX_TILE_VECTORS];
            UNROLL
            for (int n = 0; n < N; n++) {
                v[n] = load_kv(segment->v[b], at + n * VEC_LANES, type);
            }
            UNROLL
            for (int n = 0; n < N; n += PREFETCH_LINE / (VEC_LANES * (type == KV_F16 ? 2 : 4))) {
                __builtin_prefetch(place->ahead[b] +
                                   (size_t)(at + n * VEC_LANES) * attention_kv_bytes(type));
            }
            UNROLL
            for (int h = 0; h < H; h++) {
                const VEC weight = vec_set1(score[h * SEGMENT_ELEMS + p]);
                sum[h] = with_sum ? vec_add(sum[h], weight) : sum[h];
                UNROLL
                for (int n = 0; n < N; n++) {
                    acc[h][n] = vec_fma(weight, v[n], acc[h][n]);
                }
            }
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        float lanes[VEC_LANES];
        UNROLL
        for (int n = 0; n < N; n++) {
            vec_store(place->out + (place->head + h) * head_dim + d0 + n * VEC_LANES, acc[h][n]);
        }
        if (with_sum) {
            vec_store(lanes, sum[h]);
            place->sum[place->head + h] = lanes[0];
        }
    }
}

/* ---- one function per tile shape, chosen by (H, N) ---- */
#define TILE_SHAPES(X) X(4, 4) X(4, 2) X(4, 1) X(2, 8) X(2, 4) X(2, 2) X(2, 1) X(1, 8) X(1, 4) X(1, 2) X(1, 1)
#define TILE_CODE(H, N) ((H) * 16 + (N))

static void score_tile_run(const struct tile_place *place, int32_t code)
{
#define CASE(H, N)                                                                \
    case TILE_CODE(H, N):                                                         \
        if (place->job->store->type == KV_F16) { score_tile(place, H, N, KV_F16); } \
        else { score_tile(place, H, N, KV_F32); }                                 \
        break;
    switch (code) { TILE_SHAPES(CASE) }
#undef CASE
}

static void value_tile_run(const struct tile_place *place, int32_t code)
{
    const int32_t kind = (place->job->store->type == KV_F16 ? 0 : 2) + (place->vector == 0);
#define CASE(H, N)                                                        \
    case TILE_CODE(H, N):                                                 \
        switch (kind) {                                                   \
        case 0: value_tile(place, H, N, KV_F16, 0); break;                \
        case 1: value_tile(place, H, N, KV_F16, 1); break;                \
        case 2: value_tile(place, H, N, KV_F32, 0); break;                \
        default: value_tile(place, H, N, KV_F32, 1); break;               \
        }                                                                 \
        break;
    switch (code) { TILE_SHAPES(CASE) }
#undef CASE
}

/* Walks heads in fours, twos, ones, and vectors [first, end) in as wide tiles as registers hold. */
static void tiles_run(const struct tile_place *start, int32_t end,
                      void (*run)(const struct tile_place *, int32_t))
{
    struct tile_place place = *start;
    while (place.head < place.job->n_group) {
        const int32_t left = place.job->n_group - place.head;
        const int32_t heads = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        int32_t width = VEC_CHAINS / heads < MAX_TILE_VECTORS ? VEC_CHAINS / heads : MAX_TILE_VECTORS;
        for (place.vector = start->vector; place.vector < end; place.vector += width) {
            while (width > end - place.vector) {
                width /= 2;
            }
            run(&place, TILE_CODE(heads, width));
        }
        place.head += heads;
    }
}

/* Scores of visible positions become exp(score - max); whole blocks are computed, and what the row
 * may not see in them (it may be NaN) is replaced before it can matter. */
static void segment_exp(const struct attention_segment *segment, float *score, float *max_here)
{
    const int32_t begin = segment->begin / KV_BLOCK_SLOTS * KV_BLOCK_SLOTS;
    const int32_t end = (segment->end + KV_BLOCK_SLOTS - 1) / KV_BLOCK_SLOTS * KV_BLOCK_SLOTS;
    for (int32_t p = begin; p < segment->begin; p++) {
        score[p] = -MATHX_INF;
    }
    for (int32_t p = segment->end; p < end; p++) {
        score[p] = -MATHX_INF;
    }
    VEC lanes = vec_set1(-MATHX_INF);
    for (int32_t p = begin; p < end; p += VEC_LANES) {
        lanes = vec_max(vec_load(score + p), lanes);
    }
    const float max = vec_max_lane(lanes);
    for (int32_t p = begin; p < end; p++) {
        score[p] = mathx_exp(score[p] - max);
    }
    *max_here = max;
}

static void segment_merge(const struct attention_job *job, const struct attention_scratch *s, int32_t h)
{
    const float *out_here = s->out + h * job->head_dim;
    float *out = job->out + h * job->head_dim;
    const float max = s->max_here[h] > s->max[h] ? s->max_here[h] : s->max[h];
    const float a = mathx_exp(s->max[h] - max), b = mathx_exp(s->max_here[h] - max);
    s->max[h] = max;
    s->sum[h] = mathx_fma(s->sum_here[h], b, s->sum[h] * a);
    for (int32_t d = 0; d < job->head_dim; d++) {
        out[d] = mathx_fma(out_here[d], b, out[d] * a);
    }
}

static void segment_run(const struct attention_job *job, const struct attention_scratch *s,
                        const struct attention_segment *segment, const struct attention_segment *next,
                        int is_first)
{
    const unsigned char *ahead[ATTENTION_BLOCKS];
    const int32_t begin = segment->begin / KV_BLOCK_SLOTS;
    const int32_t end = (segment->end + KV_BLOCK_SLOTS - 1) / KV_BLOCK_SLOTS;
    for (int32_t b = begin; b < end; b++) { /* only the last segment ends early: next has it or none */
        ahead[b] = next && b * KV_BLOCK_SLOTS < next->end ? next->k[b] : segment->v[b];
    }
    const struct tile_place place = {
        .job = job, .segment = segment, .ahead = ahead, .score = s->score,
        .out = is_first ? job->out : s->out, .sum = is_first ? s->sum : s->sum_here,
    };
    struct tile_place scores = place;
    scores.vector = begin * VECTORS_PER_BLOCK;
    tiles_run(&scores, end * VECTORS_PER_BLOCK, score_tile_run);
    for (int32_t h = 0; h < job->n_group; h++) {
        segment_exp(segment, s->score + h * SEGMENT_ELEMS, is_first ? &s->max[h] : &s->max_here[h]);
    }
    tiles_run(&place, job->head_dim / VEC_LANES, value_tile_run);
    for (int32_t h = 0; !is_first && h < job->n_group; h++) {
        segment_merge(job, s, h);
    }
}

static void attention_run(const struct attention_job *job)
{
    const struct attention_scratch s = attention_scratch_split(job);
    const int32_t first = job->first / SEGMENT_ELEMS, last = job->last / SEGMENT_ELEMS;
    struct attention_segment segments[2];
    attention_segment_init(&segments[first % 2], job, first);
    for (int32_t idx = first; idx <= last; idx++) {
        struct attention_segment *next = idx < last ? &segments[(idx + 1) % 2] : NULL;
        if (next) {
            attention_segment_init(next, job, idx + 1);
        }
        segment_run(job, &s, &segments[idx % 2], next, idx == first);
    }
    for (int32_t h = 0; h < job->n_group; h++) {
        float *out = job->out + h * job->head_dim;
        for (int32_t d = 0; d < job->head_dim; d++) {
            out[d] = out[d] / s.sum[h];
        }
    }
}
