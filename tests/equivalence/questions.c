/* questions: sixteen requests as unlike each other as requests can be: lengths, seeds, temperatures,
 * filters, penalties, biases, stops, logprobs, choices, priorities. */
#include <string.h>

#include "base/base.h"
#include "tests/equivalence/equivalence.h"

static const char STORY[] =
    "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her dog. "
    "One day she found a big red ball in the grass. The ball was very old, but she liked the ball. She ran home "
    "and said to her mom, look, I found a ball. Her mom smiled and said, that is a nice ball, Lily. The dog saw "
    "the ball too, and the dog wanted to play with the ball. So Lily threw the ball and the dog ran after it. "
    "They played all day, and when the sun went down they were tired and happy. ";

/* Stories from different places of one text, so that some begin alike. */
static void fill_story(struct question *question, int32_t idx, int32_t len, struct td_engine *engine)
{
    int32_t ids[512];
    size_t n_ids = 0;
    if (td_tokenize(engine, STORY, sizeof STORY - 1, 0, ids, 512, &n_ids) != TD_OK || n_ids < 100 || n_ids > 512) {
        n_ids = 1;
        ids[0] = 1;
    }
    const size_t skip = (size_t)(idx / 3) * 9;
    for (int32_t i = 0; i < len; i++) {
        question->ids[i] = i == 0 ? ids[0] : ids[1 + (skip + (size_t)i) % (n_ids - 1)];
    }
}

/* Ids that come back after a while, so that a search for what was seen finds something. Neighbours share
 * the first half. */
static void fill_numbers(struct question *question, int32_t idx, int32_t len, int32_t n_ids)
{
    for (int32_t i = 0; i < len; i++) {
        const uint64_t seed = i < len / 2 ? (uint64_t)(idx / 2) : 100 + (uint64_t)idx;
        const uint64_t place = (uint64_t)(i % (11 + idx));
        question->ids[i] = 3 + (int32_t)(rng_mix64(seed * 1000 + place) % (uint64_t)(n_ids - 3));
    }
}

static void fill_sampling(struct td_request *request, int32_t idx)
{
    static const float TEMPERATURES[] = { 0, 0.7f, 1 };
    request->temperature = TEMPERATURES[idx % 3];
    request->has_seed = 1;
    request->seed = 1000 + (uint64_t)(idx / 2);
    request->top_k = idx % 5 == 2 ? 20 : 0;
    request->top_p = idx % 5 == 3 ? 0.9f : 1;
    request->min_p = idx % 5 == 4 ? 0.05f : 0;
    request->repetition_penalty = idx % 4 == 1 ? 1.3f : 1;
    request->presence_penalty = idx % 8 == 2 ? 0.5f : 0;
    request->frequency_penalty = idx % 8 == 2 ? 0.3f : 0;
}

static void fill_rest(struct question *question, int32_t idx, bool has_text)
{
    struct td_request *request = &question->request;
    request->max_tokens = idx % 4 == 0 ? 130 : 12 + (idx * 11) % 45; /* some outgrow the pages they came in with */
    request->logprobs = idx % 4 == 3 ? idx % 3 : -1;
    request->n = idx % 8 == 6 ? 2 : 1;
    request->priority = idx % 5 == 1 ? 1 : 0;
    request->ignore_eos = idx % 4 != 2;
    request->want_text = has_text;
    if (idx % 6 == 1) {
        question->biases[0] = (struct td_bias){ 9, 2.5f };
        question->biases[1] = (struct td_bias){ 13, -100 };
        question->biases[2] = (struct td_bias){ 200, 4 };
        request->biases = question->biases;
        request->n_biases = 3;
    }
}

void questions_make(struct question *questions, const struct subject *subject, struct td_engine *engine)
{
    for (int32_t i = 0; i < MAX_QUESTIONS; i++) {
        struct question *question = &questions[i];
        const int32_t len = subject->lengths[i];
        memset(question, 0, sizeof *question);
        td_request_init(&question->request);
        if (subject->has_text) {
            fill_story(question, i, len, engine);
        } else {
            fill_numbers(question, i, len, subject->n_ids);
        }
        question->request.ids = question->ids;
        question->request.n_ids = (size_t)len;
        fill_sampling(&question->request, i);
        fill_rest(question, i, subject->has_text);
    }
}

/* From the middle of a text, where no character is cut. */
static bool take_stop(struct question *question, const struct answer *answer)
{
    const size_t len = 6, from = answer->n_text / 2;
    for (size_t at = from; at + len < answer->n_text; at++) {
        bool is_plain = true;
        for (size_t i = 0; i < len; i++) {
            is_plain = is_plain && answer->text[at + i] >= ' ' && answer->text[at + i] < 127;
        }
        if (is_plain) {
            memcpy(question->stop, answer->text + at, len);
            question->stops[0] = question->stop;
            question->request.stops = question->stops;
            question->request.n_stops = 1;
            return true;
        }
    }
    return false;
}

void questions_add_stops(struct question *questions, const struct answers *answers, bool has_text)
{
    for (int32_t i = 3; i < MAX_QUESTIONS; i += 4) {
        struct question *question = &questions[i];
        const struct answer *answer = &answers->answer[i][0];
        if ((has_text && i % 8 == 3 && take_stop(question, answer)) || answer->n_ids == 0) {
            continue;
        }
        question->stop_id = answer->ids[answer->n_ids / 2];
        question->request.stop_ids = &question->stop_id;
        question->request.n_stop_ids = 1;
    }
}
