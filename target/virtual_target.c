/* virtual_target: see the header. */
#include "target/target.h"

struct virtual_target {
    struct target base;
    struct virtual_target_options options;
    int64_t due_ns;              /* when the pass under way ends */
    struct virtual_target_report report;
};

static void virtual_begin(struct target *base, const struct target_work *work)
{
    struct virtual_target *target = (struct virtual_target *)base;
    target->due_ns = clock_now_ns() + target->options.pass_ns + target->options.row_ns * work->pass->n_rows;
    target->options.behind->kind->begin(target->options.behind, work);
}

static enum status virtual_end(struct target *base, const float **logits)
{
    struct virtual_target *target = (struct virtual_target *)base;
    TRY(target->options.behind->kind->end(target->options.behind, logits));
    target->report.passes++;
    if (clock_now_ns() > target->due_ns) {
        target->report.late++;
    }
    clock_wait_until(target->due_ns);
    return STATUS_OK;
}

static void virtual_copy(struct target *base, const struct kv_copy *copies, int32_t n)
{
    struct virtual_target *target = (struct virtual_target *)base;
    target->options.behind->kind->copy(target->options.behind, copies, n);
}

static void virtual_destroy(struct target *base)
{
    mem_free(base); /* its first member */
}

static const struct target_kind virtual_target_kind = {
    .name = "virtual", .begin = virtual_begin, .end = virtual_end, .copy = virtual_copy,
    .destroy = virtual_destroy,
};

enum status virtual_target_create(const struct virtual_target_options *options, struct target **out)
{
    *out = NULL;
    if (options->pass_ns < 0 || options->row_ns < 0) {
        return status_fail(STATUS_INVALID, "expected times of a virtual pass of 0 and more, found %lld and %lld ns",
                           (long long)options->pass_ns, (long long)options->row_ns);
    }
    struct virtual_target *target = mem_alloc(1, sizeof *target);
    if (target == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a virtual target");
    }
    target->base = (struct target){ .kind = &virtual_target_kind, .lane = options->behind->lane,
                                    .n_vocab = options->behind->n_vocab };
    target->options = *options;
    *out = &target->base;
    return STATUS_OK;
}

struct virtual_target_report virtual_target_report(const struct target *base)
{
    return base->kind == &virtual_target_kind ? ((const struct virtual_target *)base)->report
                                              : (struct virtual_target_report){ .passes = 0 };
}
