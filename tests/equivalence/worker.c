/* worker: a draft worker on a socket in the folder for temporary files, served by a thread of its own, as it
 * would be by a process. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "scheduler/scheduler.h"
#include "tests/equivalence/equivalence.h"

enum { WORKER_BATCH = 16 };

static struct engine_worker *worker;
static pthread_t thread;
static char address[64];

static void *serve(void *arg)
{
    (void)arg;
    draft_worker_serve(engine_worker_draft(worker), NULL);
    return NULL;
}

const char *worker_start(const struct subject *subject)
{
    struct engine_worker_options options = { .listen = address };
    td_engine_options_init(&options.model);
    options.model.target = subject->drafts[DRAFT_REMOTE];
    options.model.context = subject->context;
    options.model.max_batch = WORKER_BATCH;
    options.model.threads = 1;
    options.model.ahead = "off";
    snprintf(address, sizeof address, "unix:/tmp/tandem-equivalence-%ld", (long)getpid());
    if (engine_worker_open(&options, &worker) != STATUS_OK || pthread_create(&thread, NULL, serve, NULL) != 0) {
        printf("cannot start a draft worker of %s: %s\n", options.model.target, status_message());
        engine_worker_close(worker);
        worker = NULL;
        return NULL;
    }
    return address;
}

void worker_end(void)
{
    if (worker != NULL) {
        draft_worker_stop(engine_worker_draft(worker));
        pthread_join(thread, NULL);
        engine_worker_close(worker);
        worker = NULL;
    }
}
