/* Drafts that look things up, and several drafts together: what they propose, against a plain reading of
 * the rule; memory that stays where it was; places that change hands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "draft/draft.h"

enum { CONTEXT = 4096, ROOM = CONTEXT + DRAFT_MAX_NODES };

static const struct draft_options options = { .n_vocab = 1000, .context = CONTEXT, .max_batch = 3, .k_max = 8 };
static struct sampling_params greedy;

/* A chain of k is asked for, and n_nodes in all. */
static struct draft_ask ask_of(uint64_t seq_id, int32_t *tokens, int32_t n, int32_t k, int32_t n_nodes)
{
    return (struct draft_ask){ .place = (int32_t)(seq_id % 3), .seq_id = seq_id, .tokens = tokens, .n_tokens = n,
                               .n_prompt = 1, .params = &greedy, .k_max = k, .n_nodes_max = n_nodes };
}

static void propose(struct draft *draft, struct draft_ask *ask) { draft->kind->propose(draft, ask, 1); }

static void finish(struct draft *draft, const struct draft_ask *ask, uint64_t tenant)
{
    draft->kind->forget(draft, &(struct draft_farewell){ .place = ask->place, .seq_id = ask->seq_id,
        .tokens = ask->tokens, .n_tokens = ask->n_tokens, .n_prompt = ask->n_prompt, .tenant = tenant,
        .is_finished = true });
}

static void assert_chain(const struct draft_proposal *proposal, const int32_t *tokens, int32_t n)
{
    assert_int_equal(draft_proposal_chain_len(proposal), n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(proposal->token[i], tokens[i]);
        assert_true(proposal->hint[i] >= 0 && proposal->hint[i] <= 1);
    }
}

/* ---- ngram ---- */
static void ngram_continues_the_longest_match(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 5, 1, 2, 3, 70, 71, 9, 2, 3, 80, 81, 6, 1, 2, 3 };
    static const int32_t after_longest[] = { 70, 71, 9, 2 }, after_other[] = { 80, 81 };
    struct draft *draft;
    assert_int_equal(draft_ngram_create(&options, &draft), STATUS_OK);
    struct draft_ask ask = ask_of(1, tokens, 15, 4, 4);
    propose(draft, &ask);
    assert_int_equal(ask.proposal.n, 4);
    assert_chain(&ask.proposal, after_longest, 4);
    ask = ask_of(1, tokens, 15, 4, 6); /* and what came after the other match, beside it */
    propose(draft, &ask);
    assert_int_equal(ask.proposal.n, 6);
    assert_int_equal(ask.proposal.parent[4], -1);
    assert_int_equal(ask.proposal.parent[5], 4);
    assert_int_equal(ask.proposal.token[4], after_other[0]);
    assert_int_equal(ask.proposal.token[5], after_other[1]);
    draft->kind->destroy(draft);
}

static void ngram_equals_a_search(void **state)
{
    (void)state;
    static int32_t tokens[ROOM];
    struct draft *draft;
    assert_int_equal(draft_ngram_create(&options, &draft), STATUS_OK);
    for (uint64_t seq = 1; seq <= 20; seq++) {
        for (int32_t n = 1; n <= 120; n++) {
            tokens[n - 1] = (int32_t)(rng_mix64(seq * 1000 + (uint64_t)n) % 4);
            struct draft_ask ask = ask_of(seq, tokens, n, 3, 3);
            propose(draft, &ask);
            int32_t best = 0, best_len = 0; /* newest of the longest */
            for (int32_t p = n - 2; p >= 1; p--) {
                int32_t len = 0;
                while (len <= p && len < 32 && tokens[p - len] == tokens[n - 1 - len]) {
                    len++;
                }
                best = len > best_len ? p : best;
                best_len = len > best_len ? len : best_len;
            }
            assert_int_equal(ask.proposal.n > 0, best_len >= 2);
            for (int32_t i = 0; i < ask.proposal.n; i++) {
                const int32_t from = best + 1 + i;
                assert_int_equal(ask.proposal.token[i], from < n ? tokens[from] : ask.proposal.token[from - n]);
            }
        }
    }
    draft->kind->destroy(draft);
}

static void ngram_repeats_a_period(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 4, 7, 8, 7, 8 };
    static const int32_t period[] = { 7, 8, 7, 8, 7, 8, 7, 8 };
    struct draft *draft;
    assert_int_equal(draft_ngram_create(&options, &draft), STATUS_OK);
    struct draft_ask ask = ask_of(1, tokens, 5, 8, 8);
    propose(draft, &ask);
    assert_chain(&ask.proposal, period, 8);
    draft->kind->destroy(draft);
}

/* A place that another sequence has taken knows nothing of the last one; so does a new epoch. */
static void places_change_hands(void **state)
{
    (void)state;
    int32_t first[ROOM] = { 1, 2, 3, 1, 2 }, second[ROOM] = { 9, 8, 7, 1, 2 };
    struct draft *drafts[2];
    assert_int_equal(draft_ngram_create(&options, &drafts[0]), STATUS_OK);
    assert_int_equal(draft_suffix_create(&options, 4 << 20, &drafts[1]), STATUS_OK);
    for (int d = 0; d < 2; d++) {
        struct draft_ask ask = ask_of(1, first, 5, 4, 4);
        propose(drafts[d], &ask);
        assert_int_equal(ask.proposal.token[0], 3);
        ask = ask_of(4, second, 5, 4, 4); /* same place */
        propose(drafts[d], &ask);
        assert_int_equal(ask.proposal.n, 0);
        ask = ask_of(4, first, 5, 4, 4);
        ask.epoch = 1;
        propose(drafts[d], &ask);
        assert_int_equal(ask.proposal.token[0], 3);
        drafts[d]->kind->destroy(drafts[d]);
    }
}

static void what_is_not_worth_a_row_is_not_proposed(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4 };
    struct draft *drafts[2];
    assert_int_equal(draft_ngram_create(&options, &drafts[0]), STATUS_OK);
    assert_int_equal(draft_suffix_create(&options, 4 << 20, &drafts[1]), STATUS_OK);
    for (int d = 0; d < 2; d++) {
        int32_t n_before = 9;
        for (float least = 0.0f; least < 1.0f; least += 0.09f) {
            struct draft_ask ask = ask_of(1, tokens, 13, 8, 8);
            ask.stop_below = least;
            propose(drafts[d], &ask);
            assert_true(ask.proposal.n <= n_before);
            n_before = ask.proposal.n;
        }
        assert_int_equal(n_before, 0);
        drafts[d]->kind->destroy(drafts[d]);
    }
}

/* ---- suffix ---- */
static void suffix_follows_the_most_frequent(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 1, 2, 3, 50, 9, 1, 2, 3, 60, 8, 1, 2, 3, 50, 7, 1, 2, 3 };
    struct draft *draft;
    assert_int_equal(draft_suffix_create(&options, 4 << 20, &draft), STATUS_OK);
    struct draft_ask ask = ask_of(1, tokens, 18, 1, 4);
    propose(draft, &ask);
    assert_int_equal(ask.proposal.token[0], 50);
    assert_int_equal(ask.proposal.n, 2); /* and what came second, as a side branch of one token */
    assert_int_equal(ask.proposal.token[1], 60);
    assert_int_equal(ask.proposal.parent[1], -1);
    assert_true(ask.proposal.hint[1] < ask.proposal.hint[0]);
    draft->kind->destroy(draft);
}

static void suffix_remembers_outputs_of_the_same_tenant(void **state)
{
    (void)state;
    int32_t first[ROOM], second[ROOM] = { 900, 10, 11, 12 };
    struct draft *draft;
    assert_int_equal(draft_suffix_create(&options, 4 << 20, &draft), STATUS_OK);
    for (int32_t i = 0; i < 40; i++) {
        first[i] = i;
    }
    struct draft_ask ask = ask_of(1, first, 40, 4, 4);
    ask.tenant = 7;
    propose(draft, &ask);
    finish(draft, &ask, 7);
    static const int32_t onward[] = { 13, 14, 15, 16 };
    ask = ask_of(2, second, 4, 4, 4);
    ask.tenant = 7;
    propose(draft, &ask);
    assert_chain(&ask.proposal, onward, 4);
    ask = ask_of(5, second, 4, 4, 4);
    ask.tenant = 8; /* not for others */
    propose(draft, &ask);
    assert_int_equal(ask.proposal.n, 0);
    draft->kind->destroy(draft);
}

/* Little memory and much text: it forgets, and goes on proposing what is recent. */
static void suffix_stays_within_its_memory(void **state)
{
    (void)state;
    static int32_t tokens[ROOM];
    struct draft *draft;
    assert_int_equal(draft_suffix_create(&options, 1 << 16, &draft), STATUS_OK);
    const uint64_t before = mem_alloc_count();
    for (uint64_t seq = 1; seq <= 12; seq++) {
        struct draft_ask ask = { 0 };
        for (int32_t n = 1; n <= 3000; n += 5) {
            for (int32_t i = n - 1; i < n + 4; i++) {
                tokens[i] = (int32_t)((uint64_t)i % (20 + seq));
            }
            ask = ask_of(seq, tokens, n + 4, 8, 8);
            propose(draft, &ask);
            assert_true(n < 100 || ask.proposal.n == 8);
            for (int32_t i = 0; i < ask.proposal.n; i++) {
                assert_true(n < 100 || ask.proposal.token[i] == (int32_t)((uint64_t)(n + 4 + i) % (20 + seq)));
            }
        }
        finish(draft, &ask, seq % 6);
    }
    assert_int_equal(mem_alloc_count(), before);
    draft->kind->destroy(draft);
}

/* ---- several ---- */
/* A draft that says what it is told. */
struct parrot {
    struct draft base;
    struct draft_proposal says;
    int n_asked;
};
static void parrot_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    struct parrot *parrot = (struct parrot *)draft;
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal = parrot->says;
        asks[i].proposal.n = asks[i].k_max > 0 ? parrot->says.n : 0;
        parrot->n_asked += asks[i].k_max > 0;
    }
}
static void parrot_destroy(struct draft *draft) { (void)draft; }

static void parrot_init(struct parrot *parrot, const char *name, const int32_t *tokens, const float *hints, int32_t n)
{
    static const struct draft_kind kind = { "parrot", parrot_propose, draft_observe_nothing, draft_forget_nothing,
                                            parrot_destroy, NULL, NULL, NULL };
    memset(parrot, 0, sizeof *parrot);
    draft_base_init(&parrot->base, &kind, name);
    draft_proposal_chain(&parrot->says, tokens, n, 0, hints);
}

static void several_take_the_best_at_each_position(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 1, 2 };
    static const int32_t a[] = { 10, 11, 12 }, b[] = { 10, 21, 22 };
    static const float hints_a[] = { 0.9f, 0.3f, 0.9f }, hints_b[] = { 0.5f, 0.8f, 0.2f };
    struct parrot parrots[2];
    parrot_init(&parrots[0], "a", a, hints_a, 3);
    parrot_init(&parrots[1], "b", b, hints_b, 3);
    struct draft *parts[] = { &parrots[0].base, &parrots[1].base }, *draft;
    assert_int_equal(draft_several_create(&options, parts, 2, &draft), STATUS_OK);
    assert_string_equal(draft->source_name[1], "b");
    struct draft_ask ask = ask_of(1, tokens, 2, 3, 3);
    propose(draft, &ask);
    static const int32_t best[] = { 10, 21, 22 };
    assert_int_equal(ask.proposal.n, 3);
    assert_chain(&ask.proposal, best, 3);
    assert_int_equal(ask.proposal.source[0], 0); /* both say it; the surer one is credited */
    assert_int_equal(ask.proposal.source[1], 1);
    ask = ask_of(1, tokens, 2, 3, 5); /* what lost, beside it */
    propose(draft, &ask);
    assert_int_equal(ask.proposal.n, 5);
    assert_int_equal(ask.proposal.token[3], 11);
    assert_int_equal(ask.proposal.parent[3], 0);
    assert_int_equal(ask.proposal.token[4], 12);
    assert_int_equal(ask.proposal.parent[4], 3);
    draft->kind->destroy(draft);
}

static void several_follow_calibration_not_claims(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 1, 2 };
    static const int32_t a[] = { 10 }, b[] = { 20 };
    static const float sure[] = { 0.9f }, modest[] = { 0.6f };
    struct parrot parrots[2];
    parrot_init(&parrots[0], "a", a, sure, 1);
    parrot_init(&parrots[1], "b", b, modest, 1);
    struct draft *parts[] = { &parrots[0].base, &parrots[1].base }, *draft;
    assert_int_equal(draft_several_create(&options, parts, 2, &draft), STATUS_OK);
    for (int i = 0; i < 100; i++) { /* the sure one is wrong */
        calibration_observe(&draft->calibration[0], 0.9f, 0);
        calibration_observe(&draft->calibration[1], 0.6f, 1);
    }
    struct draft_ask ask = ask_of(1, tokens, 2, 1, 1);
    propose(draft, &ask);
    assert_int_equal(ask.proposal.token[0], 20);
    draft->kind->destroy(draft);
}

/* A costly part is left alone while a lookup promises more than it has brought. */
static void several_spare_the_costly(void **state)
{
    (void)state;
    int32_t tokens[ROOM] = { 1, 2 };
    static const int32_t a[] = { 10, 11, 12, 13 };
    static const float sure[] = { 0.95f, 0.95f, 0.95f, 0.95f }, poor[] = { 0.05f, 0.05f, 0.05f, 0.05f };
    for (int is_sure = 0; is_sure < 2; is_sure++) {
        struct parrot parrots[2];
        parrot_init(&parrots[0], "lookup", a, is_sure ? sure : poor, 4);
        parrot_init(&parrots[1], "model", a, sure, 4);
        parrots[1].base.is_costly = true;
        struct draft *parts[] = { &parrots[0].base, &parrots[1].base }, *draft;
        assert_int_equal(draft_several_create(&options, parts, 2, &draft), STATUS_OK);
        struct draft_ask ask = ask_of(1, tokens, 2, 4, 4);
        propose(draft, &ask);
        assert_int_equal(parrots[1].n_asked, !is_sure);
        draft->kind->destroy(draft);
    }
}

static void nonsense_is_no_proposal(void **state)
{
    (void)state;
    struct draft_proposal proposal;
    static const int32_t tokens[] = { 1, 2, 3, 4 };
    draft_proposal_chain(&proposal, tokens, 4, 0, NULL);
    assert_int_equal(draft_proposal_n_valid(&proposal, 1000), 4);
    assert_int_equal(draft_proposal_n_valid(&proposal, 3), 2);
    proposal.token[1] = -1;
    assert_int_equal(draft_proposal_n_valid(&proposal, 1000), 1);
    proposal.token[1] = 2;
    proposal.parent[2] = 3;
    assert_int_equal(draft_proposal_n_valid(&proposal, 1000), 2);
    proposal.parent[2] = -2;
    assert_int_equal(draft_proposal_n_valid(&proposal, 1000), 2);
    proposal.parent[2] = 1;
    proposal.source[3] = 200;
    assert_int_equal(draft_proposal_n_valid(&proposal, 1000), 3);
    proposal.n = 1000;
    proposal.source[3] = 0;
    assert_in_range(draft_proposal_n_valid(&proposal, 1000), 4, DRAFT_MAX_NODES);
}

int main(void)
{
    sampling_params_defaults(&greedy);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ngram_continues_the_longest_match),
        cmocka_unit_test(ngram_equals_a_search),
        cmocka_unit_test(ngram_repeats_a_period),
        cmocka_unit_test(places_change_hands),
        cmocka_unit_test(what_is_not_worth_a_row_is_not_proposed),
        cmocka_unit_test(suffix_follows_the_most_frequent),
        cmocka_unit_test(suffix_remembers_outputs_of_the_same_tenant),
        cmocka_unit_test(suffix_stays_within_its_memory),
        cmocka_unit_test(several_take_the_best_at_each_position),
        cmocka_unit_test(several_follow_calibration_not_claims),
        cmocka_unit_test(several_spare_the_costly),
        cmocka_unit_test(nonsense_is_no_proposal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
