/* hello: open a model, ask it to continue a text, print what comes.
 *
 *     hello [MODEL [PROMPT]]
 */
#include <stdio.h>
#include <string.h>

#include "tandem.h"

static int complain(const char *what)
{
    fprintf(stderr, "hello: %s: %s\n", what, td_error_message());
    return 1;
}

static int write_story(struct td_engine *engine, const char *prompt)
{
    int32_t ids[256];
    size_t n_ids;
    uint64_t id;
    struct td_request request;
    struct td_event event = { 0 };
    td_request_init(&request);
    if (td_tokenize(engine, prompt, strlen(prompt), 0, ids, 256, &n_ids) != TD_OK || n_ids > 256) {
        return complain("the prompt");
    }
    request.ids = ids;
    request.n_ids = n_ids;
    request.max_tokens = 60;
    if (td_submit(engine, &request, &id) != TD_OK) {
        return complain("the request");
    }
    printf("%s", prompt);
    while (event.kind != TD_EVENT_FINISHED) {
        if (td_next_event(engine, -1, &event) != TD_OK) {
            return complain("the text");
        }
        fwrite(event.text, 1, event.n_text, stdout);
        fflush(stdout);
    }
    printf("\n");
    return event.finish == TD_FINISH_ERROR;
}

int main(int argc, char **argv)
{
    struct td_engine_options options;
    struct td_engine *engine;
    td_engine_options_init(&options);
    options.target = argc > 1 ? argv[1] : "models/stories15M.Q8_0.gguf";
    if (td_engine_open(&options, &engine) != TD_OK) {
        return complain("the model");
    }
    const int failed = write_story(engine, argc > 2 ? argv[2] : "Once upon a time");
    td_engine_close(engine);
    return failed;
}
