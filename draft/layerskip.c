/* layerskip: the target's own first layers and its head guess (Zhang et al., "Draft & Verify", 2023;
 * Elhoushi et al., "LayerSkip", 2024). No second model, no second KV: rows are written to the sequence's
 * own slots, where the verify pass writes the same bits again for these layers and the rest besides. So
 * nothing has to be undone, and what the first layers cached for committed tokens is there already.
 */
#include "draft/chains.h"

struct layerskip_draft {
    struct draft base;
    struct target *target;       /* borrowed */
    int32_t n_layers, k_max;
    struct pass_desk *desk;      /* of rows that stay on the device; NULL: none do */
    struct pass pass;            /* the one under way */
    struct draft_chains *chains;
};

/* False: the device failed, and the verify pass will say so. */
static bool layerskip_forward(void *user, const struct pass *pass, const float **logits)
{
    struct layerskip_draft *draft = user;
    struct target *target = draft->target;
    draft->pass = *pass;
    draft->pass.n_layers = draft->n_layers;
    draft->pass.rows_stay = draft->desk != NULL && pass->n_logits > 0;
    target->kind->begin(target, &(struct target_work){ .pass = &draft->pass });
    return target->kind->end(target, logits) == STATUS_OK;
}

static void layerskip_propose(struct draft *base, struct draft_ask *asks, int32_t n_asks)
{
    struct layerskip_draft *draft = (struct layerskip_draft *)base;
    draft_chains_begin(draft->chains);
    for (int32_t i = 0; i < n_asks; i++) {
        struct draft_ask *ask = &asks[i];
        const int32_t cached = kv_table_cached_len(ask->table);
        ask->proposal.n = 0;
        /* More than a round can leave behind is a prompt, whose rows the target has not computed yet. */
        if (ask->k_max > 0 && ask->n_tokens - cached <= draft->k_max + 1) {
            struct draft_chain *chain = draft_chains_add(draft->chains, ask);
            chain->table = ask->table;
            chain->next_position = cached;
            chain->k_max = ask->k_max;
        }
    }
    draft_chains_run(draft->chains);
}

static void layerskip_destroy(struct draft *base)
{
    struct layerskip_draft *draft = (struct layerskip_draft *)base;
    draft_chains_destroy(draft->chains);
    mem_free(draft);
}

static enum status check_options(const struct draft_layerskip_options *options)
{
    const struct draft_options *common = &options->common;
    if (common->max_batch < 1 || common->k_max < 1 || common->k_max > DRAFT_MAX_NODES) {
        return status_fail(STATUS_INVALID, "expected a batch of at least 1 and K between 1 and %d for a draft, found "
                           "%d and %d", DRAFT_MAX_NODES, common->max_batch, common->k_max);
    }
    if (options->n_target_layers < 1 || options->n_layers < 0 || options->n_layers > options->n_target_layers) {
        return status_fail(STATUS_INVALID, "expected a draft of 1 to %d layers, those of the target, found %d",
                           options->n_target_layers, options->n_layers);
    }
    return STATUS_OK;
}

enum status draft_layerskip_create(const struct draft_layerskip_options *options, struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "layerskip",
        .propose = layerskip_propose,
        .observe = draft_observe_nothing,
        .forget = draft_forget_nothing, /* it has no memory of its own */
        .destroy = layerskip_destroy,
    };
    const struct draft_options *common = &options->common;
    const int32_t quarter = options->n_target_layers / 4;
    *out = NULL;
    TRY(check_options(options));
    struct layerskip_draft *draft = mem_alloc(1, sizeof *draft);
    if (draft == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft");
    }
    draft_base_init(&draft->base, &kind, "layerskip");
    draft->base.context = common->context;
    draft->base.is_costly = true;
    draft->target = options->target;
    draft->k_max = common->k_max;
    draft->desk = common->wants_prob ? NULL : options->target->desk;
    draft->n_layers = options->n_layers > 0 ? options->n_layers : quarter > 0 ? quarter : 1;
    const enum status status = draft_chains_create(&(struct draft_chains_options){
        .draft = &draft->base, .common = *common, .catch_up_rows = common->max_batch * common->k_max,
        .n_ids = common->n_vocab, .forward = layerskip_forward, .user = draft, .row_len = common->n_vocab,
        .chooser = { .lane = options->target->lane, .n_vocab = common->n_vocab,
                     .n_vocab_common = common->n_vocab, .desk = draft->desk, .cap_choices = common->max_batch },
    }, &draft->chains);
    if (status != STATUS_OK) {
        layerskip_destroy(&draft->base);
        return status;
    }
    *out = &draft->base;
    return STATUS_OK;
}
