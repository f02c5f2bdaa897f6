/* comm: what every kind of group does the same way, and which kind a process is in.
 *
 * The launcher's environment is read through base/conf.h. A batch system sets sizes for the shell it
 * gives too, so only what it sets for a started step counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "base/conf.h"

void comm_close(struct comm *comm)
{
    if (comm) {
        comm->kind->close(comm);
    }
}

void comm_give_up(struct comm *comm)
{
    char why[512];
    if (comm_check(comm) != STATUS_OK) {
        return; /* another rank has said it */
    }
    snprintf(why, sizeof why, "%s", status_message());
    log_error("rank %d: %s", comm->rank, why);
    comm->kind->abort(comm, why);
}

enum status comm_check(const struct comm *comm)
{
    const char *why = comm->kind->broken != NULL ? comm->kind->broken(comm) : NULL;
    return why == NULL ? STATUS_OK : status_fail(STATUS_IO, "%s", why);
}

int comm_is_alive(struct comm *comm)
{
    return comm->kind->is_alive == NULL || comm->kind->is_alive(comm);
}

void comm_barrier(struct comm *comm)
{
    static const int32_t none[COMM_MAX_RANKS + 1];
    float nothing = 0;
    comm_gather(comm, &(struct comm_parts){ .own = &nothing, .all = &nothing, .first = none,
                                            .unit_floats = 1, .root = COMM_ALL });
}

/* ---- agreement ---- */

struct verdict { int32_t status; char sentence[508]; };
enum { VERDICT_FLOATS = sizeof(struct verdict) / sizeof(float) };

enum status comm_agree(struct comm *comm, enum status status)
{
    struct verdict own = { .status = (int32_t)status }, all[COMM_MAX_RANKS];
    int32_t first[COMM_MAX_RANKS + 1];
    if (comm->size == 1) {
        return status;
    }
    snprintf(own.sentence, sizeof own.sentence, "%s", status == STATUS_OK ? "" : status_message());
    for (int32_t r = 0; r <= comm->size; r++) {
        first[r] = r;
    }
    float sent[VERDICT_FLOATS], received[COMM_MAX_RANKS * VERDICT_FLOATS];
    memcpy(sent, &own, sizeof own);
    comm_gather(comm, &(struct comm_parts){ .own = sent, .all = received, .first = first,
                                            .unit_floats = VERDICT_FLOATS, .root = COMM_ALL });
    TRY(comm_check(comm));
    memcpy(all, received, (size_t)comm->size * sizeof *all);
    for (int32_t r = 0; r < comm->size; r++) {
        if (all[r].status != STATUS_OK) {
            all[r].sentence[sizeof all[r].sentence - 1] = '\0';
            const enum status failed = (enum status)all[r].status;
            return r > 0 ? status_fail(failed, "rank %d: %s", r, all[r].sentence)
                         : status_fail(failed, "%s", all[r].sentence);
        }
    }
    return STATUS_OK;
}

/* ---- the launcher ---- */

struct launcher { const char *size_variable, *rank_variable, *name; };
static const struct launcher LAUNCHERS[] = {
    { "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun" },
    { "PMI_SIZE", "PMI_RANK", "mpiexec" },
    { "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun" },
};
enum { N_LAUNCHERS = sizeof LAUNCHERS / sizeof LAUNCHERS[0], MAX_NUMBER = 1 << 20 };

/* A whole number in the environment; -1 when it is not there or is none. */
static long environment_number(const char *name)
{
    const char *text = conf_environment(name);
    char *end;
    if (!text || text[0] < '0' || text[0] > '9') {
        return -1;
    }
    const long value = strtol(text, &end, 10);
    return *end == '\0' && value <= MAX_NUMBER ? value : -1;
}

int32_t comm_launched_rank(void)
{
    for (int i = 0; i < N_LAUNCHERS; i++) {
        if (environment_number(LAUNCHERS[i].size_variable) > 1) {
            const long rank = environment_number(LAUNCHERS[i].rank_variable);
            return rank > 0 ? (int32_t)rank : 0;
        }
    }
    const long rank = environment_number("WORLD_SIZE") > 1 ? environment_number("RANK") : 0;
    return rank > 0 ? (int32_t)rank : 0;
}

/* ---- places ---- */

/* Numbers that ranks of one machine, and ranks that may use the same cores of it, have in common. */
struct whereabouts { uint64_t machine, cores; };
enum { WHEREABOUTS_FLOATS = sizeof(struct whereabouts) / sizeof(float) };

static struct whereabouts find_whereabouts(void)
{
    enum { MAX_CPUS = 1024 };
    int cpus[MAX_CPUS];
    char host[256] = "";
    struct whereabouts own;
    struct digest digest;
    const int n = backend_cpu_list(cpus, MAX_CPUS, NULL);
    gethostname(host, sizeof host - 1);
    digest_init(&digest);
    digest_update(&digest, host, strlen(host) + 1);
    own.machine = digest_value(&digest);
    digest_update(&digest, cpus, (size_t)n * sizeof *cpus);
    own.cores = digest_value(&digest);
    return own;
}

static void find_places(struct comm *comm)
{
    const struct whereabouts own = find_whereabouts();
    struct whereabouts all[COMM_MAX_RANKS];
    int32_t first[COMM_MAX_RANKS + 1];
    for (int32_t r = 0; r <= comm->size; r++) {
        first[r] = r;
    }
    comm_gather(comm, &(struct comm_parts){ .own = (const float *)(const void *)&own,
                                            .all = (float *)(void *)all, .first = first,
                                            .unit_floats = WHEREABOUTS_FLOATS, .root = COMM_ALL });
    comm->machine = own.machine;
    comm->sharing_rank = comm->sharing_size = comm->local_rank = comm->local_size = 0;
    for (int32_t r = 0; r < comm->size; r++) {
        comm->local_rank += r < comm->rank && all[r].machine == own.machine;
        comm->local_size += all[r].machine == own.machine;
        comm->sharing_rank += r < comm->rank && all[r].cores == own.cores;
        comm->sharing_size += all[r].cores == own.cores;
    }
}

static enum status check_size(int32_t size)
{
    if (size != 1 && size != 2 && size != 4 && size != 8) {
        return status_fail(STATUS_UNSUPPORTED, "a model is spread over 1, 2, 4 or 8 ranks, found %d", size);
    }
    return STATUS_OK;
}

static enum status join_mpi(const struct launcher *launcher, long size, struct comm **out)
{
    struct comm *comm;
    const enum status status = comm_mpi_open(&comm);
    if (status == STATUS_UNSUPPORTED) {
        char why[256];
        snprintf(why, sizeof why, "%s", status_message());
        return status_fail(status, "%s started %ld of these, but %s", launcher->name, size, why);
    }
    TRY(status);
    const enum status checked = check_size(comm->size); /* the same on every rank */
    if (checked != STATUS_OK) {
        comm_close(comm);
        return checked;
    }
    find_places(comm);
    *out = comm;
    return STATUS_OK;
}

/* The environment that torchrun and its like leave. A launcher's word on places on a machine counts. */
static enum status join_tcp(int32_t size, int32_t rank, struct comm **out)
{
    enum { DEFAULT_PORT = 29500 };
    const long local = environment_number("LOCAL_RANK"), port = environment_number("MASTER_PORT");
    const struct comm_place place = { .rank = rank, .size = size, .address = conf_environment("MASTER_ADDR"),
                                      .port = port > 0 ? (int32_t)port : DEFAULT_PORT };
    TRY(check_size(size));
    TRY(comm_tcp_open(&place, out));
    find_places(*out);
    if (local >= 0 && local < COMM_MAX_RANKS) {
        (*out)->local_rank = (int32_t)local;
    }
    return STATUS_OK;
}

enum status comm_join(struct comm **out)
{
    *out = NULL;
    for (int i = 0; i < N_LAUNCHERS; i++) {
        const long size = environment_number(LAUNCHERS[i].size_variable);
        if (size > 1) {
            return join_mpi(&LAUNCHERS[i], size, out);
        }
    }
    const long size = environment_number("WORLD_SIZE"), rank = environment_number("RANK");
    if (size > 1 && rank >= 0 && conf_environment("MASTER_ADDR")) {
        return join_tcp((int32_t)size, (int32_t)rank, out);
    }
    return comm_single_open(out);
}
