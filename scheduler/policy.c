/* policy: see the header. */
#include "scheduler/policy.h"

struct policy {
    struct policy_options options;
    struct draft *draft; /* borrowed */
    struct policy_report report;
};

enum status policy_create(const struct policy_options *options, struct draft *draft, struct policy **out)
{
    struct policy *policy = *out = mem_alloc(1, sizeof *policy);
    if (policy == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the policy");
    }
    policy->options = *options;
    policy->draft = draft;
    return STATUS_OK;
}

void policy_destroy(struct policy *policy)
{
    mem_free(policy);
}

void policy_plan(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    (void)n_other_rows;
    for (int32_t i = 0; i < n_asks; i++) {
        const int32_t k = policy->options.fixed_k;
        asks[i].k_max = k >= 0 && k < asks[i].k_max ? k : asks[i].k_max;
        asks[i].n_nodes_max = asks[i].k_max;
    }
}

void policy_trim(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    (void)policy, (void)asks, (void)n_asks, (void)n_other_rows;
}

void policy_observe_verdict(struct policy *policy, const struct draft_verdict *verdict)
{
    (void)policy, (void)verdict;
}

void policy_observe_step(struct policy *policy, const struct policy_step *step)
{
    policy->report.draft_seconds += (double)step->draft_ns * 1e-9;
    policy->report.verify_seconds += (double)step->verify_ns * 1e-9;
}

void policy_observe_pass(struct policy *policy, int32_t n_rows, int64_t ns)
{
    (void)policy, (void)n_rows, (void)ns;
}

void policy_forget(struct policy *policy, int32_t place)
{
    (void)policy, (void)place;
}

struct policy_report policy_report(const struct policy *policy)
{
    return policy->report;
}

double policy_verify_seconds(const struct policy *policy, int32_t n_rows)
{
    (void)policy, (void)n_rows;
    return 0;
}
