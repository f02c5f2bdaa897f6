/* request: from what the caller asks to what the step thread can run without asking anybody. */
#include "scheduler/request.h"

#include <string.h>

/* ---- checks ---- */
static enum status check_prompt(const struct request_limits *limits, const struct td_request *asked)
{
    if (asked->ids == NULL || asked->n_ids == 0) {
        return status_fail(STATUS_INVALID, "expected a prompt of at least 1 token, found none");
    }
    if (asked->n_ids >= (size_t)limits->context) {
        return status_fail(STATUS_INVALID, "the prompt has %zu tokens; the context of %d positions "
                           "leaves room for at most %d", asked->n_ids, limits->context,
                           limits->context - 1);
    }
    for (size_t i = 0; i < asked->n_ids; i++) {
        if (asked->ids[i] < 0 || asked->ids[i] >= limits->n_vocab) {
            return status_fail(STATUS_INVALID, "expected token ids between 0 and %d, found %d at place %zu",
                               limits->n_vocab - 1, asked->ids[i], i);
        }
    }
    return STATUS_OK;
}

static enum status check_stops(const struct request_limits *limits, const struct td_request *asked)
{
    if (asked->n_stop_ids > REQUEST_MAX_STOP_IDS || (asked->n_stop_ids > 0 && !asked->stop_ids)) {
        return status_fail(STATUS_INVALID, "expected at most %d stop ids, found %zu",
                           REQUEST_MAX_STOP_IDS, asked->n_stop_ids);
    }
    for (size_t i = 0; i < asked->n_stop_ids; i++) {
        if (asked->stop_ids[i] < 0 || asked->stop_ids[i] >= limits->n_vocab) {
            return status_fail(STATUS_INVALID, "expected stop ids between 0 and %d, found %d",
                               limits->n_vocab - 1, asked->stop_ids[i]);
        }
    }
    if (asked->n_stops > 0 && (limits->tokenizer == NULL || asked->stops == NULL)) {
        return status_fail(STATUS_UNSUPPORTED, "stop strings need a tokenizer, and this model has none");
    }
    return STATUS_OK;
}

static enum status check_numbers(const struct td_request *asked)
{
    if (asked->n < 1 || asked->n > REQUEST_MAX_CHOICES) {
        return status_fail(STATUS_INVALID, "expected 1 to %d choices, found %d", REQUEST_MAX_CHOICES,
                           asked->n);
    }
    if (asked->n_biases > SAMPLING_MAX_BIASES || (asked->n_biases > 0 && asked->biases == NULL)) {
        return status_fail(STATUS_INVALID, "expected at most %d biases, found %zu", SAMPLING_MAX_BIASES,
                           asked->n_biases);
    }
    return STATUS_OK;
}

/* ---- copies ---- */
static enum status no_memory(void)
{
    return status_fail(STATUS_NO_MEMORY, "no memory for a request");
}

/* Insertion keeps equal ids in order; sampling_params_check() refuses them by name. */
static enum status copy_biases(struct request *request, const struct td_request *asked)
{
    request->biases = mem_alloc(asked->n_biases, sizeof *request->biases);
    if (request->biases == NULL) {
        return no_memory();
    }
    for (size_t n = 0; n < asked->n_biases; n++) {
        const struct sampling_bias bias = { asked->biases[n].id, asked->biases[n].bias };
        size_t at = n;
        for (; at > 0 && request->biases[at - 1].id > bias.id; at--) {
            request->biases[at] = request->biases[at - 1];
        }
        request->biases[at] = bias;
    }
    return STATUS_OK;
}

static enum status copy_stop_ids(struct request *request, const struct request_limits *limits,
                                 const struct td_request *asked)
{
    const size_t n_eos = asked->ignore_eos ? 0 : (size_t)limits->n_eos;
    request->stop_ids = mem_alloc(asked->n_stop_ids + n_eos, sizeof *request->stop_ids);
    if (request->stop_ids == NULL) {
        return no_memory();
    }
    if (asked->n_stop_ids > 0) {
        memcpy(request->stop_ids, asked->stop_ids, asked->n_stop_ids * sizeof *request->stop_ids);
    }
    if (n_eos > 0) {
        memcpy(request->stop_ids + asked->n_stop_ids, limits->eos_ids, n_eos * sizeof *request->stop_ids);
    }
    request->n_stop_ids = (int32_t)(asked->n_stop_ids + n_eos);
    return STATUS_OK;
}

static struct sampling_params params_of(const struct request *request, const struct td_request *asked)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.temperature = asked->temperature;
    params.top_k = asked->top_k;
    params.top_p = asked->top_p;
    params.min_p = asked->min_p;
    params.repetition_penalty = asked->repetition_penalty;
    params.presence_penalty = asked->presence_penalty;
    params.frequency_penalty = asked->frequency_penalty;
    params.seed = request->seed;
    params.biases = request->biases;
    params.n_biases = (int32_t)asked->n_biases;
    params.n_top_logprobs = asked->logprobs;
    return params;
}

/* Where the prompt's text ends: a character begun there is completed by what follows, and the
 * vocabulary's first space is dropped when the prompt had no text. */
static enum status read_prompt(const struct request *request, const int32_t *ids,
                               struct detokenizer *stream)
{
    const size_t cap = text_push_cap(request->tokenizer);
    char *text = mem_alloc(1, cap);
    if (text == NULL) {
        return no_memory();
    }
    text_stream_begin(stream, request->tokenizer, true);
    for (int32_t i = 0; i < request->n_prompt; i++) {
        text_stream_push(stream, ids[i], text, cap);
    }
    mem_free(text);
    return STATUS_OK;
}

static enum status take_logprobs(struct sequence *seq)
{
    const int32_t n_top = seq->params.n_top_logprobs;
    const size_t n = (size_t)seq->request->max_new;
    if (n_top < 0) {
        return STATUS_OK;
    }
    seq->logprob = mem_alloc(n, sizeof *seq->logprob);
    seq->n_top = mem_alloc(n, sizeof *seq->n_top);
    seq->top = mem_alloc(n * (size_t)n_top, sizeof *seq->top);
    return seq->logprob && seq->n_top && seq->top ? STATUS_OK : no_memory();
}

static enum status sequence_init(struct sequence *seq, const struct td_request *asked,
                                 const struct detokenizer *stream)
{
    const struct request *request = seq->request;
    seq->place.priority = asked->priority;
    seq->params = params_of(request, asked);
    seq->params.seed = rng_choice_seed(request->seed, (uint32_t)seq->choice);
    digest_init(&seq->digest);
    seq->n_tokens = request->n_prompt;
    seq->tokens = mem_alloc((size_t)request->n_prompt + (size_t)request->max_new + SEQUENCE_MAX_PROPOSED,
                            sizeof *seq->tokens);
    seq->origin = mem_alloc((size_t)request->max_new, sizeof *seq->origin);
    if (seq->tokens == NULL || seq->origin == NULL) {
        return no_memory();
    }
    memcpy(seq->tokens, asked->ids, asked->n_ids * sizeof *seq->tokens);
    TRY(take_logprobs(seq));
    if (request->tokenizer == NULL) {
        return STATUS_OK;
    }
    seq->stream = *stream;
    seq->held = mem_alloc(request->stops.max_bytes, 1);
    return seq->held == NULL ? no_memory() : stop_scan_init(&seq->scan, &request->stops, stream);
}

static void sequence_deinit(struct sequence *seq)
{
    stop_scan_deinit(&seq->scan);
    mem_free(seq->held);
    mem_free(seq->top);
    mem_free(seq->n_top);
    mem_free(seq->logprob);
    mem_free(seq->origin);
    mem_free(seq->tokens);
}

static enum status take_sequences(struct request *request, const struct td_request *asked)
{
    struct detokenizer stream = { 0 };
    if (request->tokenizer != NULL) {
        TRY(read_prompt(request, asked->ids, &stream));
    }
    request->sequences = mem_alloc((size_t)asked->n, sizeof *request->sequences);
    if (request->sequences == NULL) {
        return no_memory();
    }
    for (int32_t i = 0; i < asked->n; i++) {
        request->n_choices = i + 1;
        request->sequences[i].request = request;
        request->sequences[i].choice = i;
        TRY(sequence_init(&request->sequences[i], asked, &stream));
    }
    request->n_undelivered = request->n_choices;
    return STATUS_OK;
}

static int32_t max_new_of(const struct request *request)
{
    const int32_t room = request->context - request->n_prompt;
    return request->max_tokens < 0 || request->max_tokens > room ? room : (int32_t)request->max_tokens;
}

enum status request_create(const struct request_limits *limits, const struct td_request *asked,
                           struct request **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    TRY(check_prompt(limits, asked));
    TRY(check_stops(limits, asked));
    TRY(check_numbers(asked));
    struct request *request = mem_alloc(1, sizeof *request);
    if (request == NULL) {
        return no_memory();
    }
    request->user = asked->user;
    request->n_prompt = (int32_t)asked->n_ids;
    request->context = limits->context;
    request->max_tokens = asked->max_tokens;
    request->k = asked->k;
    request->tenant = asked->tenant;
    request->max_new = max_new_of(request);
    request->seed = asked->has_seed ? asked->seed : rng_os_seed();
    request->want_text = asked->want_text;
    request->tokenizer = asked->want_text || asked->n_stops > 0 ? limits->tokenizer : NULL;
    atomic_init(&request->cancelled, 0);
    TRY_GOTO(copy_biases(request, asked), out);
    const struct sampling_params params = params_of(request, asked);
    TRY_GOTO(sampling_params_check(&params, limits->n_vocab), out);
    TRY_GOTO(copy_stop_ids(request, limits, asked), out);
    TRY_GOTO(stop_set_init(&request->stops, asked->stops, asked->n_stops), out);
    TRY_GOTO(take_sequences(request, asked), out);
    request->submitted_ns = clock_now_ns();
    *out = request;
    return STATUS_OK;
out:
    request_destroy(request);
    return status;
}

void request_destroy(struct request *request)
{
    if (request == NULL) {
        return;
    }
    for (int32_t i = 0; i < request->n_choices; i++) {
        sequence_deinit(&request->sequences[i]);
    }
    mem_free(request->sequences);
    stop_set_deinit(&request->stops);
    mem_free(request->stop_ids);
    mem_free(request->biases);
    mem_free(request);
}
