/* test_rejection_model: the rejection rule on a real model with coins of real seeds. The target is
 * the default model with filters and penalties; the draft is the same model hotter, with filters of
 * its own, so that both miss tokens the other has. Two tokens of many seeds are counted against the
 * target's own probabilities; rules that are wrong on purpose must be seen in as few draws.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/chi_square.h"
#include "tests/model_rig.h"
#include "verify/verify.h"

enum { N_KEPT = 8, N_DRAFTED = 6, N_UNCUT = 24, MAX_ROWS = N_KEPT + N_DRAFTED + 1, K = 2 };
enum { N_TOKENS = 2, CELLS = N_KEPT * N_KEPT, N_SEEDS = 3000, MAX_IDS = 4096 };

enum flaw {
    FLAW_NONE, FLAW_ARGMAX, FLAW_FIRST_FREE, FLAW_DRAFT_COIN, FLAW_STATED, FLAW_STALE, FLAWS,
};
static const char *const flaw_names[FLAWS] = { "none", "accepts by argmax", "first one free",
                                               "coin of the draft's draw", "stated unfiltered",
                                               "penalties not told" };

/* "Once upon a time, there was a" in the ids of the model. */
static const int32_t prompt[] = { 1, 9038, 2501, 263, 931, 29892, 727, 471, 263 };
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

/* Rows after the prompt alone (0) and after the prompt and a token; first of the whole vocabulary,
 * then of the ids that have a probability in any of them, which are drawn with the same coins. */
enum kind { TARGET, STALE, DRAFT, UNCUT, KINDS };
static struct table {
    int32_t n_vocab, n_rows, n_ids;
    int32_t id[MAX_IDS]; /* in the vocabulary */
    int32_t token[MAX_ROWS];
    float *whole[KINDS][MAX_ROWS]; /* [n_vocab] */
    float *prob[KINDS][MAX_ROWS];  /* [n_ids] */
} table;

static int32_t row_after(int32_t token)
{
    for (int32_t row = 1; row < table.n_rows; row++) {
        if (table.token[row] == token) {
            return row;
        }
    }
    return -1;
}

/* ---- rows ---- */
static struct sampling_params params_of(float temperature, int32_t top_k, float penalty)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.temperature = temperature;
    params.top_k = top_k;
    params.frequency_penalty = params.presence_penalty = penalty;
    params.penalty_last_n = 1;
    return params;
}

static float *distribution(const struct model_rig *rig, struct sampling_scratch *scratch,
                           const struct sampling_params *params, const float *logits,
                           const int32_t *history, int32_t n_history)
{
    float *prob = mem_alloc((size_t)table.n_vocab, sizeof *prob);
    assert_non_null(prob);
    assert_int_equal(sampling_distribution(rig->backend, params, logits, table.n_vocab, history,
                                           n_history, scratch, prob), STATUS_OK);
    return prob;
}

/* All rows from the logits of the prompt's last token, or of the token after it. The target's
 * penalties see one token back and are negative, far more than requests may ask, so that the last
 * token is likely to come again; the stale target takes the prompt's for the last. */
static void add_row(const struct model_rig *rig, struct sampling_scratch *scratch, int32_t token,
                    const float *logits)
{
    const struct sampling_params params[KINDS] = {
        [TARGET] = params_of(1.2f, N_KEPT, -5), [STALE] = params_of(1.2f, N_KEPT, -5),
        [DRAFT] = params_of(1.8f, N_DRAFTED, 0), [UNCUT] = params_of(1.8f, N_UNCUT, 0),
    };
    const int32_t row = table.n_rows++;
    int32_t history[N_PROMPT + 1];
    memcpy(history, prompt, sizeof prompt);
    history[N_PROMPT] = token;
    table.token[row] = token;
    for (enum kind kind = TARGET; kind < KINDS; kind++) {
        const int32_t n_history = row == 0 || kind == STALE ? N_PROMPT : N_PROMPT + 1;
        table.whole[kind][row] =
            distribution(rig, scratch, &params[kind], logits, history, n_history);
    }
}

static bool is_possible(int32_t id)
{
    bool found = false;
    for (int32_t row = 0; row < table.n_rows && !found; row++) {
        for (enum kind kind = TARGET; kind < KINDS; kind++) {
            found |= table.whole[kind][row][id] > 0;
        }
    }
    return found;
}

static void gather_ids(void)
{
    for (int32_t id = 0; id < table.n_vocab; id++) {
        if (is_possible(id)) {
            assert_true(table.n_ids < MAX_IDS);
            table.id[table.n_ids++] = id;
        }
    }
    for (int32_t row = 0; row < table.n_rows; row++) {
        for (enum kind kind = TARGET; kind < KINDS; kind++) {
            float *prob = table.prob[kind][row] = mem_alloc((size_t)table.n_ids, sizeof *prob);
            assert_non_null(prob);
            for (int32_t i = 0; i < table.n_ids; i++) {
                prob[i] = table.whole[kind][row][table.id[i]];
            }
        }
        for (int32_t i = 0; row > 0 && i < table.n_ids; i++) {
            if (table.id[i] == table.token[row]) {
                table.token[row] = i; /* from here on ids are places in table.id */
                break;
            }
        }
    }
}

static int open_all(void **state)
{
    (void)state;
    struct model_rig rig;
    struct sampling_scratch *scratch;
    const struct model_rig_options options = { .name = "models/stories15M.Q8_0.gguf",
                                               .context = 64, .cap_rows = N_PROMPT };
    if (model_rig_open(&rig, &options) != STATUS_OK) {
        print_message("cannot open the model: %s\n", status_message());
        return 1;
    }
    table.n_vocab = model_get_config(rig.model)->n_vocab;
    assert_int_equal(sampling_scratch_create(table.n_vocab, &scratch), STATUS_OK);
    struct model_rig_part part = { 0, 0, N_PROMPT, prompt };
    const float *logits = model_rig_pass(&rig, &part, 1) + (N_PROMPT - 1) * table.n_vocab;
    add_row(&rig, scratch, -1, logits);
    for (int32_t id = 0; id < table.n_vocab; id++) {
        if (table.whole[TARGET][0][id] > 0 || table.whole[DRAFT][0][id] > 0) {
            part = (struct model_rig_part){ 0, N_PROMPT, 1, &id };
            add_row(&rig, scratch, id, model_rig_pass(&rig, &part, 1));
        }
    }
    gather_ids();
    sampling_scratch_destroy(scratch);
    model_rig_close(&rig);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (int32_t row = 0; row < table.n_rows; row++) {
        for (enum kind kind = TARGET; kind < KINDS; kind++) {
            mem_free(table.whole[kind][row]);
            mem_free(table.prob[kind][row]);
        }
    }
    return 0;
}

/* Ids without a probability do not move a draw: the whole vocabulary or the gathered ids. */
static void gathered_ids_draw_alike(void **state)
{
    (void)state;
    for (int32_t row = 0; row < table.n_rows; row++) {
        for (uint32_t i = 0; i < 20; i++) {
            const float coin = rng_coin_uniform(8, COIN_RESIDUAL, i, (uint32_t)row);
            const int32_t whole = verify_residual_draw(
                table.whole[TARGET][row], table.whole[DRAFT][row], -1, table.n_vocab, coin);
            const int32_t gathered = verify_residual_draw(
                table.prob[TARGET][row], table.prob[DRAFT][row], -1, table.n_ids, coin);
            assert_int_equal(whole, table.id[gathered]);
        }
    }
}

/* ---- rounds ---- */
struct round {
    enum flaw flaw;
    uint64_t seed;
    int32_t first_row; /* of the round: 0, or the row after the token before it */
    int32_t proposed[K];
};

/* Row i of the round; the third of a first round is asked for its token, which is not counted. */
static int32_t round_row(const struct round *round, int32_t i)
{
    return i == 0 ? round->first_row : i == 1 && round->first_row == 0
               ? row_after(round->proposed[0]) : 0;
}

static enum status target_prob(void *context, int32_t i, const float **prob)
{
    const struct round *round = context;
    const int32_t row = round_row(round, i);
    *prob = i > 0 && round->flaw == FLAW_STALE ? table.prob[STALE][row] : table.prob[TARGET][row];
    return STATUS_OK;
}

static int32_t argmax(const float *row)
{
    int32_t best = 0;
    for (int32_t id = 1; id < table.n_ids; id++) {
        best = row[id] > row[best] ? id : best;
    }
    return best;
}

struct flawed_coins { const struct round *round; int32_t position; };

/* Coins of the seed, but for what is wrong with them. */
static float flawed_coin(void *context, enum coin_purpose purpose, int32_t position, int32_t index)
{
    const struct flawed_coins *coins = context;
    const struct round *round = coins->round;
    const int32_t i = position - coins->position;
    if (purpose == COIN_ACCEPT && round->flaw == FLAW_DRAFT_COIN) {
        purpose = COIN_DRAFT;
    }
    if (purpose == COIN_ACCEPT && round->flaw == FLAW_FIRST_FREE && i == 0) {
        return 0; /* accepts what the target gives any probability */
    }
    if (purpose == COIN_ACCEPT && round->flaw == FLAW_ARGMAX) {
        const float *row = table.prob[TARGET][round_row(round, i)];
        return round->proposed[i] == argmax(row) ? 0 : 0x1.fffffep-1f;
    }
    return rng_coin_uniform(round->seed, purpose, (uint32_t)position, (uint32_t)index);
}

/* One round from `position`; token [k + 1] becomes what it writes, and the count is returned. */
static int32_t write_round(struct round *round, int32_t position, int32_t k, int32_t *token)
{
    const float *stated[K];
    for (int32_t i = 0; i < k; i++) {
        const int32_t row = round_row(round, i);
        const float coin = rng_coin_uniform(round->seed, COIN_DRAFT, (uint32_t)(position + i), 0);
        round->proposed[i] = sampling_draw_from(table.prob[DRAFT][row], table.n_ids, coin);
        stated[i] = round->flaw == FLAW_STATED ? table.prob[UNCUT][row] : table.prob[DRAFT][row];
    }
    struct flawed_coins coins = { round, position };
    const struct verify_run run = {
        .target = { table.n_ids, target_prob, round },
        .coins = { .seed = round->seed, .position = position, .context = &coins,
                   .coin = round->flaw == FLAW_NONE ? NULL : flawed_coin },
        .proposed = round->proposed, .n_proposed = k, .draft_prob = stated,
    };
    struct verify_outcome outcome;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
    memcpy(token, round->proposed, (size_t)outcome.n_accepted * sizeof *token);
    token[outcome.n_accepted] = outcome.recovery_token;
    return outcome.n_accepted + 1;
}

/* The two tokens after the prompt with this seed; returns how many came by acceptance. */
static int32_t write_text(enum flaw flaw, uint64_t seed, int32_t *token)
{
    struct round round = { .flaw = flaw, .seed = seed };
    int32_t written[K + 1], n = write_round(&round, N_PROMPT, K, written);
    const int32_t n_accepted = n - 1;
    if (n == 1) {
        round.first_row = row_after(written[0]);
        assert_true(round.first_row > 0);
        write_round(&round, N_PROMPT + 1, 1, written + 1);
    }
    memcpy(token, written, N_TOKENS * sizeof *token);
    return n_accepted;
}

/* ---- counts ---- */
/* The target's texts of two tokens, and their probabilities. */
static struct { int32_t token[CELLS][N_TOKENS], n; double prob[CELLS + 1]; } texts;

static void list_texts(void)
{
    for (int32_t first = 0; first < table.n_ids; first++) {
        const float prob = table.prob[TARGET][0][first];
        for (int32_t next = 0; prob > 0 && next < table.n_ids; next++) {
            const float next_prob = table.prob[TARGET][row_after(first)][next];
            if (next_prob > 0) {
                assert_true(texts.n < CELLS);
                texts.token[texts.n][0] = first;
                texts.token[texts.n][1] = next;
                texts.prob[texts.n++] = (double)prob * (double)next_prob;
            }
        }
    }
}

/* The text's place in the list; the place behind it for texts that the target never writes. */
static int32_t cell_of(const int32_t *token)
{
    for (int32_t cell = 0; cell < texts.n; cell++) {
        if (memcmp(texts.token[cell], token, sizeof texts.token[cell]) == 0) {
            return cell;
        }
    }
    return texts.n;
}

static void text_is_the_targets(void **state)
{
    (void)state;
    list_texts();
    for (enum flaw flaw = FLAW_NONE; flaw < FLAWS; flaw++) {
        int64_t seen[CELLS + 1] = { 0 }, n_accepted = 0;
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            int32_t token[N_TOKENS];
            n_accepted += write_text(flaw, seed, token);
            seen[cell_of(token)]++;
        }
        const double sigmas = chi_square_sigmas(seen, texts.prob, texts.n + 1, N_SEEDS);
        printf("%-24s %+.2f sigma, %.2f of %d accepted\n", flaw_names[flaw], sigmas,
               (double)n_accepted / N_SEEDS, (int)K);
        assert_true(flaw == FLAW_NONE ? sigmas < 4 && n_accepted > N_SEEDS / 2 : sigmas > 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathered_ids_draw_alike),
        cmocka_unit_test(text_is_the_targets),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
