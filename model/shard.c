/* shard: see the header. Every rank computes the same bounds of all ranks from the config alone. */
#include "model/shard.h"

#include <string.h>

/* First of n segments that group `group` of 8 holds. */
static int32_t group_begin(int32_t group, int32_t n_segments)
{
    return (int32_t)((int64_t)group * n_segments / SUM_GROUPS);
}

static int32_t segments_of(int32_t n_in) { return (n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS; }

static int32_t first_group(const struct shard *shard, int32_t rank) { return rank * SUM_GROUPS / shard->n_ranks; }

/* First input of a rank, of n_in that are cut where groups end. */
static int32_t first_input(const struct shard *shard, int32_t rank, int32_t n_in)
{
    const int32_t first = group_begin(first_group(shard, rank), segments_of(n_in)) * SEGMENT_ELEMS;
    return first < n_in ? first : n_in;
}

static struct shard_range inputs_of_rank(const struct shard *shard, int32_t n_in)
{
    const int32_t first = first_input(shard, shard->rank, n_in);
    return (struct shard_range){ first, first_input(shard, shard->rank + 1, n_in) - first };
}

/* Groups of this rank that hold segments, and how many of them the ranks before have. */
static void plan_groups(const struct shard *shard, int32_t n_in, struct linear_groups *own, int32_t *first)
{
    const int32_t n_segments = segments_of(n_in);
    int32_t rank = 0, n = 0;
    const int32_t own_begin = group_begin(first_group(shard, shard->rank), n_segments);
    *own = (struct linear_groups){ .n = 0 };
    for (int32_t group = 0; group < SUM_GROUPS; group++) {
        while (rank <= shard->n_ranks && first_group(shard, rank) <= group) {
            first[rank++] = n;
        }
        const int32_t begin = group_begin(group, n_segments), end = group_begin(group + 1, n_segments);
        if (begin == end) {
            continue;
        }
        n++;
        if (rank - 1 == shard->rank) {
            own->begin[own->n++] = begin - own_begin;
            own->begin[own->n] = end - own_begin;
        }
    }
    first[shard->n_ranks] = n;
}

/* n things in units, which are dealt out whole. */
struct dealt { int32_t n, unit; };

static int32_t dealt_first(const struct shard *shard, int32_t rank, struct dealt things)
{
    const int32_t n_units = (things.n + things.unit - 1) / things.unit;
    const int64_t first = (int64_t)n_units * rank / shard->n_ranks * things.unit;
    return first < things.n ? (int32_t)first : things.n;
}

static struct shard_range deal(const struct shard *shard, struct dealt things, int32_t *first)
{
    for (int32_t rank = 0; rank <= shard->n_ranks; rank++) {
        first[rank] = dealt_first(shard, rank, things);
    }
    return (struct shard_range){ first[shard->rank], first[shard->rank + 1] - first[shard->rank] };
}

/* ---- heads ---- */

/* Heads that fill whole tiles of outputs. */
static int32_t heads_unit(int32_t head_dim)
{
    int32_t unit = 1;
    while (unit * head_dim % TILE_OUTPUTS != 0) {
        unit++; /* at most 32 */
    }
    return unit;
}

static bool groups_end_between_heads(const struct shard *shard, const struct model_config *config)
{
    for (int32_t rank = 1; rank < shard->n_ranks; rank++) {
        if (first_input(shard, rank, config->n_heads * config->head_dim) % config->head_dim != 0) {
            return false;
        }
    }
    return true;
}

/* Whole KV heads with all that read them while every rank can have one, else heads alone. */
static int32_t dealt_first_head(const struct shard *shard, const struct model_config *config, int32_t rank)
{
    const int32_t unit = heads_unit(config->head_dim), per_kv = config->n_heads / config->n_kv_heads;
    if ((config->n_kv_heads + unit - 1) / unit >= shard->n_ranks) {
        return dealt_first(shard, rank, (struct dealt){ config->n_kv_heads, unit }) * per_kv;
    }
    return dealt_first(shard, rank, (struct dealt){ config->n_heads, unit });
}

static void plan_heads(const struct model_config *config, struct shard *shard)
{
    const int32_t q_dim = config->n_heads * config->head_dim, per_kv = config->n_heads / config->n_kv_heads;
    const int32_t unit = heads_unit(config->head_dim);
    shard->o_by_inputs = groups_end_between_heads(shard, config);
    for (int32_t rank = 0; rank <= shard->n_ranks; rank++) {
        shard->q_first[rank] = shard->o_by_inputs ? first_input(shard, rank, q_dim)
                                                  : dealt_first_head(shard, config, rank) * config->head_dim;
    }
    const int32_t first = shard->q_first[shard->rank] / config->head_dim;
    const int32_t end = shard->q_first[shard->rank + 1] / config->head_dim;
    shard->heads = (struct shard_range){ first, end - first };
    if (end > first) { /* tiles whole here too */
        const int32_t kv_first = first / per_kv / unit * unit;
        int32_t kv_end = ((end + per_kv - 1) / per_kv + unit - 1) / unit * unit;
        kv_end = kv_end < config->n_kv_heads ? kv_end : config->n_kv_heads;
        shard->kv_heads = (struct shard_range){ kv_first, kv_end - kv_first };
        shard->head_skip = first - kv_first * per_kv;
    }
}

enum status shard_plan(const struct model_config *config, struct comm *comm, struct shard *out)
{
    *out = (struct shard){ .comm = comm && comm->size > 1 ? comm : NULL, .n_ranks = 1 };
    if (out->comm) {
        out->rank = comm->rank;
        out->n_ranks = comm->size;
        if (SUM_GROUPS % comm->size != 0) {
            return status_fail(STATUS_UNSUPPORTED, "a model is spread over 1, 2, 4 or 8 ranks, found %d",
                               comm->size);
        }
    }
    plan_heads(config, out);
    out->ffn = inputs_of_rank(out, config->ffn_dim);
    out->dim = deal(out, (struct dealt){ config->dim, TILE_OUTPUTS }, out->dim_first);
    out->vocab = deal(out, (struct dealt){ config->n_vocab, TILE_OUTPUTS }, out->vocab_first);
    out->experts = deal(out, (struct dealt){ config->experts.n, 1 }, out->expert_first);
    plan_groups(out, config->n_heads * config->head_dim, &out->o_groups, out->o_group_first);
    plan_groups(out, config->ffn_dim, &out->down_groups, out->down_group_first);
    return STATUS_OK;
}

/* ---- tensors ---- */

static struct shard_slice outputs(struct shard_range range, int32_t n_in)
{
    return (struct shard_slice){ range.first, range.n, 0, n_in, 0, 1 };
}

static struct shard_slice inputs(struct shard_range range, int32_t n_out)
{
    return (struct shard_slice){ 0, n_out, range.first, range.n, 0, 1 };
}

struct shard_slice shard_slice(const struct shard *shard, const struct model_config *config,
                               const struct family_binding *binding)
{
    const int32_t n_in = (int32_t)binding->n_in, n_out = (int32_t)binding->n_out, head_dim = config->head_dim;
    const struct shard_range q = { shard->heads.first * head_dim, shard->heads.n * head_dim };
    const struct shard_range kv = { shard->kv_heads.first * head_dim, shard->kv_heads.n * head_dim };
    const struct shard_slice whole = { 0, n_out, 0, n_in, 0, binding->n_stacked };
    if (!shard->comm || (binding->tensor->flags & FAMILY_VECTOR)) {
        return whole;
    }
    if (binding->tensor->flags & FAMILY_STACKED) {
        return (struct shard_slice){ 0, n_out, 0, n_in, shard->experts.first, shard->experts.n };
    }
    switch ((int)binding->tensor->role) {
    case ROLE_EMBED:
    case ROLE_HEAD: return outputs(shard->vocab, n_in);
    case ROLE_Q: return outputs(q, n_in);
    case ROLE_K:
    case ROLE_V: return outputs(kv, n_in);
    case ROLE_O: return shard->o_by_inputs ? inputs(q, n_out) : outputs(shard->dim, n_in);
    case ROLE_GATE:
    case ROLE_UP: return outputs(shard->ffn, n_in);
    case ROLE_DOWN: return inputs(shard->ffn, n_out);
    default: return whole;
    }
}
