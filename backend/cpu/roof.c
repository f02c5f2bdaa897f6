/* roof: runs the roof loops on pinned threads and reports the best rate, so that every speed can be
 * told as a fraction of what this machine could do in the same minute.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"

enum { MIN_BUFFER_MIB = 256, MAX_BUFFER_MIB = 1024, MAX_THREADS = 256 };
enum { TURN_BYTES = 8 << 20, SLICE_UNIT_BYTES = 64 << 10 };

enum roof_kind { ROOF_READ, ROOF_INT, ROOF_FLOAT };

struct roof_thread {
    pthread_t thread;
    const struct cpu_kernels *kernels;
    pthread_barrier_t *barrier;
    const unsigned char *buf; /* [bytes] this thread's slice */
    size_t bytes;
    enum roof_kind kind;
    int cpu, variant;         /* cpu < 0: not pinned */
    double seconds, rate;     /* rate: result, units per second */
};

static double roof_turn(const struct roof_thread *self, size_t *at)
{
    if (self->kind == ROOF_INT) {
        return self->kernels->roof_int(20000);
    }
    if (self->kind == ROOF_FLOAT) {
        return self->kernels->roof_float(20000);
    }
    const size_t bytes = self->bytes < TURN_BYTES ? self->bytes : TURN_BYTES;
    *at = *at + bytes > self->bytes ? 0 : *at;
    const double done = self->kernels->roof_read(self->buf + *at, bytes, self->variant);
    *at += bytes;
    return done;
}

static void *roof_thread_main(void *arg)
{
    struct roof_thread *self = arg;
    if (self->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)self->cpu, &set);
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    cpu_float_mode_enter();
    size_t at = 0;
    roof_turn(self, &at); /* warm the clock and the TLB */
    pthread_barrier_wait(self->barrier);
    const int64_t begin = clock_now_ns();
    int64_t now = begin;
    double work = 0;
    while ((double)(now - begin) < self->seconds * 1e9) {
        work += roof_turn(self, &at);
        now = clock_now_ns();
    }
    self->rate = work / ((double)(now - begin) * 1e-9);
    return NULL;
}

/* Sum of the threads' rates for one variant. */
static double roof_run(struct roof_thread *threads, int n)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned int)n);
    int started = 0;
    for (; started < n; started++) {
        threads[started].barrier = &barrier;
        if (pthread_create(&threads[started].thread, NULL, roof_thread_main, &threads[started]) != 0) {
            break;
        }
    }
    ASSERT(started == n); /* a machine without room for a thread cannot be measured */
    double rate = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i].thread, NULL);
        rate += threads[i].rate;
    }
    pthread_barrier_destroy(&barrier);
    return rate;
}

/* One buffer for the life of the process: roofs are measured many times between other things. */
static unsigned char *roof_buffer(size_t *bytes)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static unsigned char *buffer;
    static size_t buffer_bytes;
    pthread_mutex_lock(&mutex);
    if (!buffer) {
        const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
        size_t mib = cache > 0 ? (size_t)cache / (1 << 20) * 8 : 0;
        mib = mib < MIN_BUFFER_MIB ? MIN_BUFFER_MIB : mib > MAX_BUFFER_MIB ? MAX_BUFFER_MIB : mib;
        buffer = mem_map(mib << 20);
        buffer_bytes = buffer ? mib << 20 : 0;
        for (size_t i = 0; i < buffer_bytes; i += 4096) {
            buffer[i] = (unsigned char)i; /* real pages, not the shared zero page */
        }
    }
    pthread_mutex_unlock(&mutex);
    *bytes = buffer_bytes;
    return buffer;
}

static double roof_measure(struct backend *backend, const struct roof_options *options,
                           enum roof_kind kind)
{
    struct roof_thread threads[MAX_THREADS];
    const int n = options->n_threads < MAX_THREADS ? options->n_threads : MAX_THREADS;
    const int variants = kind == ROOF_READ ? backend->kernels->roof_read_variants : 1;
    size_t bytes = options->memory_bytes;
    const unsigned char *buffer = options->memory;
    if (kind == ROOF_READ && !buffer) {
        buffer = roof_buffer(&bytes);
    }
    const size_t slice = bytes / (size_t)n / SLICE_UNIT_BYTES * SLICE_UNIT_BYTES;
    if (kind == ROOF_READ && (!buffer || slice == 0)) {
        return 0;
    }
    double best = 0;
    for (int variant = 0; variant < variants; variant++) {
        for (int i = 0; i < n; i++) {
            threads[i] = (struct roof_thread){
                .kernels = backend->kernels, .kind = kind, .variant = variant,
                .buf = buffer ? buffer + (size_t)i * slice : NULL, .bytes = slice,
                .cpu = options->cpus ? options->cpus[i] : -1,
                .seconds = options->seconds / variants,
            };
        }
        const double rate = roof_run(threads, n);
        best = rate > best ? rate : best;
    }
    return best;
}

double roof_read_bandwidth(struct backend *backend, const struct roof_options *options)
{
    return roof_measure(backend, options, ROOF_READ);
}

double roof_integer_peak(struct backend *backend, const struct roof_options *options)
{
    return roof_measure(backend, options, ROOF_INT);
}

double roof_float_peak(struct backend *backend, const struct roof_options *options)
{
    return roof_measure(backend, options, ROOF_FLOAT);
}
