/* ahead_table: what was prepared for a round, looked up by its outcome. See ahead.h. */
#include "draft/ahead.h"

#include <string.h>

enum status ahead_tables_create(int32_t n_tables, int32_t max_budget, struct ahead_table **out)
{
    ASSERT(n_tables >= 1 && max_budget >= 1 && max_budget <= FANOUT_MAX_BUDGET);
    struct ahead_table *tables = mem_alloc((size_t)n_tables, sizeof *tables);
    struct ahead_branch *branches = mem_alloc((size_t)n_tables * (size_t)max_budget, sizeof *branches);
    *out = tables;
    if (tables == NULL || branches == NULL) {
        mem_free(tables);
        mem_free(branches);
        *out = NULL;
        return status_fail(STATUS_NO_MEMORY, "no memory for what is prepared for %d sequences", n_tables);
    }
    for (int32_t i = 0; i < n_tables; i++) {
        tables[i].branch = branches + (size_t)i * (size_t)max_budget; /* the first table's: all of them */
        atomic_init(&tables[i].n_ready, -1);
    }
    return STATUS_OK;
}

void ahead_tables_destroy(struct ahead_table *tables)
{
    if (tables != NULL) {
        mem_free(tables->branch);
        mem_free(tables);
    }
}

void ahead_table_begin(struct ahead_table *table, const struct draft_ask *ask, int32_t n_chain)
{
    table->place = ask->place;
    table->seq_id = ask->seq_id;
    table->epoch = ask->epoch;
    table->n_tokens = ask->n_tokens;
    table->n_proposed = n_chain;
    memcpy(table->proposed, ask->proposal.token, (size_t)n_chain * sizeof *table->proposed);
    table->n_branches = 0;
    atomic_store(&table->n_ready, -1);
}

bool ahead_table_outcome(const struct ahead_table *table, const struct draft_ask *ask, struct ahead_outcome *out)
{
    const int32_t k = ask->n_tokens - table->n_tokens - 1;
    const bool is_another = table->epoch != ask->epoch && !mutant(MUTANT_TABLE_OF_ANOTHER_EPOCH);
    if (table->seq_id != ask->seq_id || is_another || k < 0 || k > table->n_proposed) {
        return false;
    }
    for (int32_t i = 0; i < k; i++) {
        if (ask->tokens[table->n_tokens + i] != table->proposed[i]) {
            return false; /* the target went down a side branch */
        }
    }
    *out = (struct ahead_outcome){ k, ask->tokens[ask->n_tokens - 1] };
    return true;
}

const struct ahead_branch *ahead_table_find(const struct ahead_table *table, struct ahead_outcome outcome)
{
    if (atomic_load_explicit(&table->n_ready, memory_order_acquire) < 0) {
        return NULL;
    }
    for (int32_t i = 0; i < table->n_branches; i++) {
        const struct ahead_branch *branch = &table->branch[i];
        const bool is_there = branch->n_accepted == outcome.n_accepted || mutant(MUTANT_TABLE_KEY_WITHOUT_K);
        if (is_there && branch->token == outcome.token) {
            return branch;
        }
    }
    return NULL;
}

const struct ahead_branch *ahead_table_neighbour(const struct ahead_table *table, int32_t n_accepted)
{
    const int32_t n = atomic_load_explicit(&table->n_ready, memory_order_acquire) < 0 ? 0 : table->n_branches;
    for (int32_t i = 0; i < n; i++) { /* likeliest first */
        if (table->branch[i].n_accepted == n_accepted) {
            return &table->branch[i];
        }
    }
    return NULL;
}

int32_t ahead_branch_n(const struct ahead_table *table, const struct ahead_branch *branch)
{
    const int32_t n_ready = atomic_load_explicit(&table->n_ready, memory_order_acquire);
    int32_t n = 0;
    while (n < n_ready && branch->next[n] >= 0) {
        n++;
    }
    return n;
}
