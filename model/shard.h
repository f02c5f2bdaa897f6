/* shard: which part of a model a rank holds. Private to model.
 *
 * A layer that reads what ranks made apart (o, down) is cut along its inputs, where groups of the
 * canonical order end: a rank owns whole groups, so what ranks exchange are the group sums that one
 * process would have had. What feeds such a layer (q, k, v; gate, up) is cut along its outputs to match.
 *
 *              rank 0         rank 1
 *     q,k,v    heads 0..3     heads 4..7       outputs
 *     o        groups 0..3    groups 4..7      inputs: sums exchanged, added up by both
 *     gate,up  features ..    .. of down       outputs
 *     down     groups 0..3    groups 4..7      inputs
 *     embed, head   ids ..    ids ..           rows, of 32 each
 *     experts  0..3           4..7             whole; what they give is exchanged
 *
 * Where the end of a rank's groups would cut an attention head, heads are dealt out whole instead, what
 * they give is gathered, and o is cut along its outputs. KV heads go with the heads that read them; one
 * may be on two ranks. A rank may own nothing of a layer.
 */
#ifndef MODEL_SHARD_H
#define MODEL_SHARD_H

#include "model/family.h"

struct shard_range { int32_t first, n; };
struct shard {
    struct comm *comm;      /* NULL: the model is whole, and ranges are all there is */
    int32_t rank, n_ranks;
    bool o_by_inputs;
    struct shard_range heads, kv_heads, dim, ffn, vocab, experts; /* dim: o's outputs, where it is cut so */
    int32_t head_skip;      /* heads of the first KV head that are before the first head */
    struct linear_groups o_groups, down_groups; /* this rank's, none of them empty, segments of its own */
    /* of all ranks: where each one's part begins */
    int32_t q_first[COMM_MAX_RANKS + 1], dim_first[COMM_MAX_RANKS + 1], vocab_first[COMM_MAX_RANKS + 1];
    int32_t expert_first[COMM_MAX_RANKS + 1];
    int32_t o_group_first[COMM_MAX_RANKS + 1], down_group_first[COMM_MAX_RANKS + 1];
};
/* comm NULL or of one rank: whole. STATUS_UNSUPPORTED with the reason when a model cannot be cut so. */
enum status shard_plan(const struct model_config *config, struct comm *comm, struct shard *out);

/* The part of a tensor [n_out, n_in] of this role that a rank holds; vectors are held whole. */
struct shard_slice {
    int32_t first_out, n_out, first_in, n_in;
    int32_t first_stacked, n_stacked; /* matrices */
};
struct shard_slice shard_slice(const struct shard *shard, const struct model_config *config,
                               const struct family_binding *binding);

#endif
