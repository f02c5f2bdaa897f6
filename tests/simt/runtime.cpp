/* runtime: see the header. */
#include "tests/simt/runtime.h"

#include "tests/simt/include/cuda.h"
#include <cuda_runtime.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/simt/exchange.h"
#include "tests/simt/simt.h"

namespace {

enum { MAX_DEVICES = 8, MAX_REGIONS = 4096, PAGE = 4096, NAN_BYTE = 0xff };

enum op_kind { OP_LAUNCH, OP_COPY, OP_RECORD, OP_WAIT, OP_GRAPH, OP_HOST, OP_EXCHANGE };
struct sim_op {
    op_kind kind;
    simt_launch_shape shape;
    void (*body)(const void *);
    void *args;         /* a launch's, owned */
    void *to;           /* a copy's */
    const void *from;
    size_t bytes;
    cudaEvent_t event;  /* a record's, and the count it brings it to; a wait's, and the count it waits for */
    uint64_t count;
    cudaGraphExec_t exec;
    cudaHostFn_t fn;    /* of the host, with `to` */
    simt_exchange *exchange; /* owned */
};
struct op_list { sim_op *ops; size_t n, cap; };

struct region { unsigned char *at; size_t bytes; int device; /* -1: pinned memory of the host */ int taken_on; };
struct device_state { cudaError_t sticky; size_t held; };

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
int n_devices = 2;
size_t memory_bytes = (size_t)1 << 30;
device_state devices[MAX_DEVICES];
region regions[MAX_REGIONS];
int n_regions;
size_t pinned_bytes;
int64_t launches_left = -1;
const char *device_name = "emulated";
simt_counts counts;
__thread int current_device;
__thread cudaError_t last_error;

struct guard {
    guard() { pthread_mutex_lock(&lock); }
    ~guard() { pthread_mutex_unlock(&lock); }
};

} // namespace

struct CUstream_st {
    int device;
    op_list queue;
    size_t graph_at; /* of the graph that is first, what has run */
    cudaGraph_t capture;
    CUstream_st *next;
};
struct CUevent_st { cudaStream_t stream; uint64_t wanted, reached; bool keeps_time; timespec at; };
struct CUgraph_st { op_list list; };
struct CUgraphExec_st { op_list list; int device; size_t bytes; };

namespace {

cudaStream_t streams; /* all there are */

cudaError_t fail(cudaError_t error)
{
    last_error = error;
    return error;
}

/* ---- lists ---- */
void push(op_list *list, const sim_op &op)
{
    if (list->n == list->cap) {
        list->cap = list->cap ? 2 * list->cap : 64;
        list->ops = static_cast<sim_op *>(realloc(static_cast<void *>(list->ops), list->cap * sizeof op));
    }
    list->ops[list->n++] = op;
}

void free_op(const sim_op &op)
{
    free(op.args);
    if (op.exchange != nullptr) {
        simt_exchange_free(op.exchange);
    }
}

void empty(op_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free_op(list->ops[i]);
    }
    free(list->ops);
    *list = {};
}

/* ---- memory ---- */
const region *find(const void *ptr)
{
    const unsigned char *at = static_cast<const unsigned char *>(ptr);
    for (int i = 0; i < n_regions; i++) {
        if (at >= regions[i].at && at < regions[i].at + regions[i].bytes) {
            return &regions[i];
        }
    }
    return nullptr;
}

void open_device(int device, bool open)
{
    for (int i = 0; i < n_regions; i++) {
        if (regions[i].device == device) {
            mprotect(regions[i].at, regions[i].bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
        }
    }
}

cudaError_t take(void **ptr, size_t bytes, int device)
{
    const size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    *ptr = nullptr;
    if (bytes == 0 || n_regions == MAX_REGIONS || (device >= 0 && whole > memory_bytes - devices[device].held)) {
        return fail(cudaErrorMemoryAllocation);
    }
    void *at = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        return fail(cudaErrorMemoryAllocation);
    }
    memset(at, NAN_BYTE, bytes);
    regions[n_regions++] = { static_cast<unsigned char *>(at), whole, device, current_device };
    (device >= 0 ? devices[device].held : pinned_bytes) += whole;
    if (device >= 0) {
        mprotect(at, whole, PROT_NONE);
    }
    *ptr = at;
    return cudaSuccess;
}

cudaError_t give(void *ptr, bool pinned)
{
    if (ptr == nullptr) {
        return cudaSuccess;
    }
    region *at = const_cast<region *>(find(ptr));
    if (at == nullptr || at->at != ptr || (at->device < 0) != pinned) {
        simt_complain("memory is freed that was not taken so");
        return fail(cudaErrorInvalidValue);
    }
    for (cudaStream_t stream = streams; stream != nullptr; stream = stream->next) {
        if (stream->queue.n > 0 && stream->device == at->taken_on) {
            simt_complain("memory is freed while %zu operations are under way", stream->queue.n);
        }
    }
    (pinned ? pinned_bytes : devices[at->device].held) -= at->bytes;
    munmap(at->at, at->bytes);
    *at = regions[--n_regions];
    return cudaSuccess;
}

/* Both ends of a copy lie where its kind says, whole. */
bool lies_in(const void *ptr, size_t bytes, int device, bool wants_pinned)
{
    const region *at = find(ptr);
    if (device < 0 && at == nullptr) {
        return !wants_pinned;
    }
    return at != nullptr && at->device == device &&
           bytes <= at->bytes - (size_t)(static_cast<const unsigned char *>(ptr) - at->at);
}

bool copy_is_sound(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, int device, bool wants_pinned)
{
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return lies_in(to, bytes, to_device ? device : -1, wants_pinned) &&
           lies_in(from, bytes, from_device ? device : -1, wants_pinned);
}

/* ---- running ---- */
void run_until(cudaStream_t stream, cudaEvent_t event, uint64_t count, bool may_wait);

/* False: it waits for other devices. */
bool run_op(const sim_op &op, cudaStream_t stream, bool may_wait)
{
    device_state *state = &devices[stream->device];
    switch (op.kind) {
    case OP_LAUNCH:
        if (launches_left == 0) {
            state->sticky = cudaErrorIllegalAddress;
        }
        launches_left -= launches_left > 0;
        if (state->sticky == cudaSuccess && simt_run(op.shape, op.body, op.args) != cudaSuccess) {
            state->sticky = cudaErrorLaunchFailure;
        }
        break;
    case OP_COPY:
        if (state->sticky == cudaSuccess) {
            memcpy(op.to, op.from, op.bytes);
        }
        break;
    case OP_RECORD:
        op.event->reached = op.count;
        clock_gettime(CLOCK_MONOTONIC, &op.event->at);
        break;
    case OP_HOST:
        op.fn(op.to);
        break;
    case OP_WAIT: /* whoever is waited for comes first */
        run_until(op.event->stream, op.event, op.count, may_wait);
        open_device(stream->device, true);
        return op.event->reached >= op.count;
    case OP_EXCHANGE:
        if (state->sticky == cudaSuccess && !simt_exchange_run(op.exchange, may_wait, &lock)) {
            return false;
        }
        open_device(stream->device, true); /* others were here meanwhile */
        break;
    case OP_GRAPH:
        for (; stream->graph_at < op.exec->list.n; stream->graph_at++) {
            if (!run_op(op.exec->list.ops[stream->graph_at], stream, may_wait)) {
                return false;
            }
        }
        stream->graph_at = 0;
        break;
    }
    return true;
}

/* Runs the stream's operations until `event` has come so often, all when there is none; or up to one that waits for
 * other devices. */
void run_until(cudaStream_t stream, cudaEvent_t event, uint64_t count, bool may_wait)
{
    op_list *queue = &stream->queue;
    size_t done = 0;
    if (queue->n == 0) {
        return;
    }
    open_device(stream->device, true);
    while (done < queue->n && (event == nullptr || event->reached < count)) {
        const sim_op op = queue->ops[done];
        if (!run_op(op, stream, may_wait)) {
            break;
        }
        free_op(op);
        done++;
    }
    open_device(stream->device, false);
    memmove(queue->ops, queue->ops + done, (queue->n - done) * sizeof *queue->ops);
    queue->n -= done;
}

void run_stream(cudaStream_t stream, cudaEvent_t event, bool may_wait)
{
    run_until(stream, event, event != nullptr ? event->wanted : 0, may_wait);
}

bool takes(cudaStream_t stream)
{
    if (stream->device != current_device) {
        simt_complain("device %d is current, the stream is device %d's", current_device, stream->device);
        fail(cudaErrorInvalidResourceHandle);
        return false;
    }
    if (devices[stream->device].sticky != cudaSuccess) {
        fail(devices[stream->device].sticky);
        return false;
    }
    return true;
}

void put(cudaStream_t stream, const sim_op &op)
{
    push(stream->capture != nullptr ? &stream->capture->list : &stream->queue, op);
}

cudaError_t state_of(int device)
{
    return devices[device].sticky == cudaSuccess ? cudaSuccess : fail(devices[device].sticky);
}

} // namespace

void simt_enqueue(cudaStream_t stream, const simt_launch_shape &shape, void (*body)(const void *), const void *args,
                  size_t args_bytes)
{
    const guard hold;
    if (!simt_check(shape)) {
        fail(cudaErrorInvalidValue);
        return;
    }
    counts.launches++;
    if (stream == nullptr) {
        const cudaError_t error = simt_run(shape, body, args);
        if (error != cudaSuccess) {
            fail(error);
        }
        return;
    }
    if (!takes(stream)) {
        return;
    }
    sim_op op = {};
    op.kind = OP_LAUNCH;
    op.shape = shape;
    op.body = body;
    op.args = malloc(args_bytes);
    memcpy(op.args, args, args_bytes);
    put(stream, op);
}

/* ---- for the emulated NCCL ---- */
bool simt_put_exchange(cudaStream_t stream, simt_exchange *exchange, bool *is_recorded)
{
    if (!takes(stream)) {
        return false;
    }
    sim_op op = {};
    op.kind = OP_EXCHANGE;
    op.exchange = exchange;
    *is_recorded = stream->capture != nullptr;
    put(stream, op);
    return true;
}

pthread_mutex_t *simt_lock(void) { return &lock; }
int simt_current_device(void) { return current_device; }
bool simt_is_of_device(const void *ptr, size_t bytes, int device) { return lies_in(ptr, bytes, device, false); }

void simt_open_devices(bool open)
{
    for (int device = 0; device < n_devices; device++) {
        open_device(device, open);
    }
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int len, int device)
{
    snprintf(id, (size_t)len, "0000:%02x:00.0", (unsigned)device);
    return device < n_devices ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

/* ---- what tests say ---- */
void simt_set_devices(int n, size_t bytes)
{
    n_devices = n;
    memory_bytes = bytes;
}

void simt_fail_launch(int64_t after) { launches_left = after; }

void simt_set_name(const char *name) { device_name = name; }


void simt_reset(void)
{
    simt_set_parts(1);
    device_name = "emulated";
    for (device_state &device : devices) {
        device.sticky = cudaSuccess;
    }
    launches_left = -1;
    counts = {};
    simt_set_devices(2, (size_t)1 << 30);
    simt_set_nccl(1);
    (void)cudaGetLastError();
}

size_t simt_held_bytes(void)
{
    size_t held = pinned_bytes;
    for (const device_state &device : devices) {
        held += device.held;
    }
    return held;
}

void simt_peek(void *to, const void *from, size_t bytes)
{
    const guard hold;
    const region *at = find(from);
    open_device(at->device, true);
    memcpy(to, from, bytes);
    open_device(at->device, false);
}

void simt_poke(void *to, const void *from, size_t bytes)
{
    const guard hold;
    const region *at = find(to);
    open_device(at->device, true);
    memcpy(to, from, bytes);
    open_device(at->device, false);
}

struct simt_counts simt_counts_get(void) { return counts; }

/* ---- devices ---- */
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = n_devices;
    return n_devices > 0 ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= n_devices) {
        return fail(cudaErrorInvalidDevice);
    }
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    snprintf(prop->name, sizeof prop->name, "%s", device_name);
    return device < n_devices ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    *value = attr == cudaDevAttrMultiProcessorCount ? 1 : attr == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return device < n_devices ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "another error";
    }
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

/* ---- memory ---- */
cudaError_t cudaMalloc(void **ptr, size_t bytes)
{
    const guard hold;
    const cudaError_t error = state_of(current_device);
    return error == cudaSuccess ? take(ptr, bytes, current_device) : error;
}

cudaError_t cudaFree(void *ptr)
{
    const guard hold;
    return give(ptr, false);
}

cudaError_t cudaMallocHost(void **ptr, size_t bytes)
{
    const guard hold;
    return take(ptr, bytes, -1);
}

cudaError_t cudaFreeHost(void *ptr)
{
    const guard hold;
    return give(ptr, true);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    const guard hold;
    *total_bytes = memory_bytes;
    *free_bytes = memory_bytes - devices[current_device].held;
    return state_of(current_device);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    const guard hold;
    if (!lies_in(to, bytes, current_device, false)) {
        simt_complain("%zu bytes are set that are not all the device's", bytes);
        return fail(cudaErrorInvalidValue);
    }
    open_device(current_device, true);
    memset(to, value, bytes);
    open_device(current_device, false);
    return state_of(current_device);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    const guard hold;
    const cudaError_t error = state_of(current_device);
    if (error != cudaSuccess) {
        return error;
    }
    if (!copy_is_sound(to, from, bytes, kind, current_device, false)) {
        simt_complain("a copy of %zu bytes, kind %d, whose ends do not lie there", bytes, (int)kind);
        return fail(cudaErrorInvalidValue);
    }
    open_device(current_device, true);
    memcpy(to, from, bytes);
    open_device(current_device, false);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    const guard hold;
    if (!takes(stream)) {
        return last_error;
    }
    if (!copy_is_sound(to, from, bytes, kind, stream->device, true)) {
        simt_complain("an asynchronous copy of %zu bytes, kind %d, whose ends are not device and pinned memory",
                      bytes, (int)kind);
        return fail(cudaErrorInvalidValue);
    }
    sim_op op = {};
    op.kind = OP_COPY;
    op.to = to;
    op.from = from;
    op.bytes = bytes;
    counts.copies_up += kind == cudaMemcpyHostToDevice;
    counts.copies_down += kind == cudaMemcpyDeviceToHost;
    counts.bytes_down += kind == cudaMemcpyDeviceToHost ? bytes : 0;
    put(stream, op);
    return cudaSuccess;
}

/* ---- streams and events ---- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    const guard hold;
    (void)flags;
    *stream = static_cast<cudaStream_t>(calloc(1, sizeof **stream));
    (*stream)->device = current_device;
    (*stream)->next = streams;
    streams = *stream;
    return state_of(current_device);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const guard hold;
    cudaStream_t *at = &streams;
    while (*at != stream) {
        at = &(*at)->next;
    }
    *at = stream->next;
    empty(&stream->queue);
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    const guard hold;
    if (stream == nullptr) { /* the default stream: copies that are done at once */
        return state_of(current_device);
    }
    if (stream->capture != nullptr) {
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    counts.waits++;
    run_stream(stream, nullptr, true);
    return state_of(stream->device);
}

/* What the event stands for now; nothing where it was never recorded. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const guard hold;
    (void)flags;
    if (!takes(stream)) {
        return last_error;
    }
    if (event->stream != nullptr && event->stream != stream) {
        sim_op op = {};
        op.kind = OP_WAIT;
        op.event = event;
        op.count = event->wanted;
        put(stream, op);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    const guard hold;
    for (cudaStream_t stream = streams; stream != nullptr; stream = stream->next) {
        if (stream->device == current_device) {
            run_stream(stream, nullptr, true);
        }
    }
    return state_of(current_device);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = static_cast<cudaEvent_t>(calloc(1, sizeof **event));
    (*event)->keeps_time = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const guard hold;
    if (!takes(stream)) {
        return last_error;
    }
    sim_op op = {};
    op.kind = OP_RECORD;
    op.event = event;
    op.count = ++event->wanted;
    event->stream = stream;
    put(stream, op);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    const guard hold;
    counts.waits++;
    if (event->stream == nullptr) {
        return cudaSuccess;
    }
    run_stream(event->stream, event, true);
    return state_of(event->stream->device);
}

/* Who asks again and again is not let down: each time a bit more is done. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    const guard hold;
    if (event->stream != nullptr && event->reached < event->wanted) {
        run_stream(event->stream, event, false);
        return cudaErrorNotReady; /* no error of the last kind */
    }
    return event->stream != nullptr ? state_of(event->stream->device) : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    const guard hold;
    if (!from->keeps_time || !to->keeps_time || from->wanted == 0 || to->wanted == 0) {
        return fail(cudaErrorInvalidResourceHandle);
    }
    if (from->reached < from->wanted || to->reached < to->wanted) {
        return cudaErrorNotReady;
    }
    *ms = (float)((double)(to->at.tv_sec - from->at.tv_sec) * 1e3 + (double)(to->at.tv_nsec - from->at.tv_nsec) * 1e-6);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *data)
{
    const guard hold;
    if (!takes(stream)) {
        return last_error;
    }
    sim_op op = {};
    op.kind = OP_HOST;
    op.fn = fn;
    op.to = data;
    put(stream, op);
    return cudaSuccess;
}

/* ---- graphs ---- */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    const guard hold;
    (void)mode;
    if (!takes(stream) || stream->capture != nullptr) {
        return fail(cudaErrorInvalidValue);
    }
    stream->capture = static_cast<cudaGraph_t>(calloc(1, sizeof(CUgraph_st)));
    counts.captures++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    const guard hold;
    *graph = stream->capture;
    stream->capture = nullptr;
    return *graph != nullptr ? cudaSuccess : fail(cudaErrorInvalidValue);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    const guard hold;
    device_state *device = &devices[current_device];
    const size_t bytes = graph->list.n * SIMT_NODE_BYTES;
    (void)flags;
    if (bytes > memory_bytes - device->held) {
        return fail(cudaErrorMemoryAllocation);
    }
    *exec = static_cast<cudaGraphExec_t>(calloc(1, sizeof(CUgraphExec_st)));
    (*exec)->list = graph->list; /* moves: a graph is instantiated once here */
    (*exec)->device = current_device;
    (*exec)->bytes = bytes;
    device->held += bytes;
    graph->list = {};
    return cudaSuccess;
}

/* Their number alone. */
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    *n = graph->list.n;
    return nodes == nullptr ? cudaSuccess : fail(cudaErrorInvalidValue);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    empty(&graph->list);
    free(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    const guard hold;
    devices[exec->device].held -= exec->bytes;
    empty(&exec->list);
    free(exec);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    const guard hold;
    if (!takes(stream)) {
        return last_error;
    }
    sim_op op = {};
    op.kind = OP_GRAPH;
    op.exec = exec;
    counts.graph_launches++;
    put(stream, op);
    return cudaSuccess;
}
