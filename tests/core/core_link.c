/* core_link: the engine core carried alone. Linked with every object of libtandem-core.a and nothing
 * but libm and pthreads; writes a few tokens with a model built in memory, ids in, ids out.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tandem.h"

static int fail(const char *what)
{
    printf("not ok - %s: %s\n", what, td_error_message());
    return 1;
}

static int write_tokens(struct td_engine *engine)
{
    const int32_t ids[] = {1, 2, 3};
    struct td_request request;
    td_request_init(&request);
    request.ids = ids;
    request.n_ids = sizeof ids / sizeof ids[0];
    request.max_tokens = 4;
    request.ignore_eos = 1;
    request.want_text = 0;
    uint64_t id;
    if (td_submit(engine, &request, &id) != TD_OK) {
        return fail("td_submit");
    }
    size_t n_tokens = 0;
    struct td_event event;
    do {
        if (td_next_event(engine, 60 * INT64_C(1000000000), &event) != TD_OK) {
            return fail("td_next_event");
        }
        n_tokens += event.n_tokens;
    } while (event.kind != TD_EVENT_FINISHED);
    if (n_tokens != 4 || event.finish != TD_FINISH_LENGTH) {
        printf("not ok - expected 4 tokens, found %zu, finish %s\n", n_tokens,
               td_finish_name(event.finish));
        return 1;
    }
    printf("ok - the core alone wrote %zu tokens, digest %016" PRIx64 "\n", n_tokens,
           event.usage.logits_digest);
    return 0;
}

int main(void)
{
    struct td_engine_options options;
    td_engine_options_init(&options);
    options.target = "synth:tiny,q8_0,seed=1";
    options.threads = 1;
    options.context = 64;
    struct td_engine *engine;
    if (td_engine_open(&options, &engine) != TD_OK) {
        return fail("td_engine_open");
    }
    const int status = write_tokens(engine);
    td_engine_close(engine);
    return status;
}
