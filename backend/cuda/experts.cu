/* experts: mixtures of experts on the device. Which experts a row takes, and how many rows an expert has, never
 * leaves the device: kernels are launched for the most there can be, and blocks without a part return.
 *
 *     route     row → its experts and weights; then places
 *     gather    rows → places          expert linear, swiglu   over places
 *     combine   places → rows, ascending expert id
 *
 *     places   | expert 2: rows 0 5 . . . . . . | expert 7: rows 0 1 3 4 5 6 8 9 | 11 . . . . . . . | ...
 *
 * A run of places begins at a panel of eight, so that an expert's rows are panels of its own; what is left of
 * its last panel has no row. backend/cpu/ops_moe.c is the definition; there runs are not rounded up, which
 * moves places and changes no result.
 */
#include "backend/cuda/keys.cuh"
#include "backend/cuda/linear.cuh"

enum { EXPERT_THREADS = 256, EXPERT_CAP = 1024, EXPERT_WARPS = EXPERT_THREADS / CUDA_WARP,
       PLACES_THREADS = 1024 /* an expert each */ };

/* ---- memory ---- */

/* Words of the arrays of routes, which `routes` gets when memory is given. */
static size_t routes_words(struct cuda_routes *routes, int32_t *memory)
{
    const size_t places = (size_t)cuda_routes_places(routes), used = (size_t)routes->cap_rows * (size_t)routes->n_used;
    const size_t n_experts = (size_t)routes->n_experts;
    const size_t words[8] = { used, used, used, places, places, n_experts + 1, n_experts, n_experts + 1 };
    int32_t *piece[8];
    size_t all = 0;
    for (int i = 0; i < 8; i++) {
        piece[i] = memory != nullptr ? memory + all : nullptr;
        all += (words[i] + 15) / 16 * 16;
    }
    routes->expert = piece[0];
    routes->weight = reinterpret_cast<float *>(piece[1]);
    routes->place = piece[2];
    routes->row = piece[3];
    routes->owner = piece[4];
    routes->begin = piece[5];
    routes->count = piece[6];
    routes->touched = piece[7];
    return all;
}

extern "C" int32_t cuda_routes_places(const struct cuda_routes *routes)
{
    const int32_t places = routes->cap_rows * routes->n_used;
    const int32_t runs = places < routes->n_experts ? places : routes->n_experts;
    return places + runs * (CUDA_PANEL_ROWS - 1);
}

extern "C" size_t cuda_routes_bytes(int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    struct cuda_routes routes = {};
    if (n_used < 1 || n_used > n_experts || n_experts > EXPERT_CAP || cap_rows < 1 || cap_rows > INT32_MAX / 32 / n_used) {
        return 0;
    }
    routes.n_experts = n_experts;
    routes.n_used = n_used;
    routes.cap_rows = cap_rows;
    return routes_words(&routes, nullptr) * sizeof(int32_t);
}

extern "C" void cuda_routes_init(struct cuda_routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows,
                                 void *memory)
{
    *routes = {};
    routes->n_experts = n_experts;
    routes->n_used = n_used;
    routes->cap_rows = cap_rows;
    routes_words(routes, static_cast<int32_t *>(memory));
}

/* Places that a pass of n_rows can take at most: what kernels over places are launched for. */
static unsigned experts_most_places(const struct cuda_routes &routes, int32_t n_rows)
{
    struct cuda_routes pass = routes;
    pass.cap_rows = n_rows;
    return (unsigned)cuda_routes_places(&pass);
}

static bool experts_pass_is_sound(const struct cuda_routes &routes, int32_t n_rows)
{
    return routes.n_experts <= EXPERT_CAP && routes.n_used >= 1 && routes.n_used <= routes.n_experts &&
           n_rows <= routes.cap_rows;
}

/* ---- route ---- */

/* Probabilities of a row into shared memory: softmax, its sum in the canonical order of a row. */
DEVICE_FN void route_softmax(const float *logits, int32_t n, SHARED_PTR(float) prob, SHARED_PTR(float) partial,
                             SHARED_PTR(choose_key_t) warp)
{
    choose_key_t highest = choose_key(-MATHX_INF, 0);
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EXPERT_THREADS) {
        const choose_key_t key = logits[e] > -MATHX_INF ? choose_key(logits[e], (uint32_t)e) : 0;
        highest = key > highest ? key : highest;
    }
    highest = choose_warp_max(highest);
    if (cuda_lane() == 0) {
        warp[cuda_warp()] = highest;
    }
    __syncthreads();
    for (int w = 0; w < EXPERT_WARPS; w++) {
        highest = warp[w] > highest ? warp[w] : highest;
    }
    const float max = choose_key_value(highest);
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EXPERT_THREADS) {
        prob[e] = mathx_exp(logits[e] - max);
    }
    __syncthreads();
    if (threadIdx.x < CUDA_PARTIALS) {
        float sum = 0.0f;
        for (int32_t e = (int32_t)threadIdx.x; e < n; e += CUDA_PARTIALS) {
            sum += prob[e];
        }
        partial[threadIdx.x] = sum;
    }
    cuda_add_partials(partial);
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EXPERT_THREADS) {
        prob[e] = prob[e] / partial[0];
    }
    __syncthreads();
}

/* Shapes: logits [n_rows, n_experts], routes [n_rows, n_used]. Grid: rows. Block: 256 threads of some experts
 * each. Every thread counts the experts that come before its own: the n_used with the fewest are chosen. Reads
 * 4 bytes an expert; bound by n_experts / 256 walks over shared memory. Accumulates: 64 partials and a tree.
 * Plan: exact. Reference: route_row of ops_moe.c. A row with a NaN is NaN throughout, and gets the first. */
static __global__ void __launch_bounds__(EXPERT_THREADS) route_row_kernel(const cuda_op_route op)
{
    SHARED(float, prob, EXPERT_CAP);
    SHARED(float, partial, CUDA_PARTIALS);
    SHARED(choose_key_t, warp, EXPERT_WARPS);
    SHARED(int, chosen, EXPERT_CAP);
    const int32_t row = (int32_t)blockIdx.x, n = op.routes.n_experts, n_used = op.routes.n_used;
    if (op.position[row] < 0) {
        return;
    }
    route_softmax(op.logits + (size_t)row * (size_t)n, n, prob, partial, warp);
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EXPERT_THREADS) {
        int32_t before = 0;
        for (int32_t other = 0; other < n; other++) {
            before += prob[other] > prob[e] || (!(prob[e] > prob[other]) && other < e) ? 1 : 0;
        }
        chosen[e] = before < n_used ? 1 : 0;
    }
    __syncthreads();
    float sum = 0.0f; /* of the chosen, ascending, the same in every thread */
    for (int32_t e = 0; e < n; e++) {
        sum = chosen[e] != 0 ? sum + prob[e] : sum;
    }
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EXPERT_THREADS) {
        if (chosen[e] != 0) {
            int32_t j = 0;
            for (int32_t other = 0; other < e; other++) {
                j += chosen[other];
            }
            const size_t at = (size_t)row * (size_t)n_used + (size_t)j;
            op.routes.expert[at] = e;
            op.routes.weight[at] = op.normalised != 0 ? prob[e] / sum : prob[e];
        }
    }
}

/* Shapes: routes [n_rows, n_used] into places. One block, a thread an expert: it counts its rows, finds where
 * its run begins, and hands places out, rows ascending. Reads the choices twice, all threads the same; bound by
 * that latency. Accumulates: integers. Plan: exact. Reference: places_chunk of ops_moe.c, runs rounded up. */
static __global__ void __launch_bounds__(PLACES_THREADS) route_places_kernel(const cuda_op_route op)
{
    SHARED(int, counts, PLACES_THREADS);
    const struct cuda_routes &routes = op.routes;
    const int32_t e = (int32_t)threadIdx.x, n_used = routes.n_used, n = op.n_rows * n_used;
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        count += op.position[i / n_used] >= 0 && routes.expert[i] == e ? 1 : 0;
    }
    counts[e] = count;
    __syncthreads();
    int32_t begin = 0, rank = 0;
    for (int32_t other = 0; other < e; other++) {
        begin += (counts[other] + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS * CUDA_PANEL_ROWS;
        rank += counts[other] > 0 ? 1 : 0;
    }
    const int32_t end = begin + (count + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS * CUDA_PANEL_ROWS;
    if (e < routes.n_experts) {
        routes.begin[e] = begin;
        routes.count[e] = count;
        if (count > 0) {
            routes.touched[rank] = e;
        }
        if (e == routes.n_experts - 1) {
            routes.begin[e + 1] = end;
            routes.touched[routes.n_experts] = rank + (count > 0 ? 1 : 0); /* how many */
        }
    }
    int32_t place = begin;
    for (int32_t i = 0; i < n; i++) {
        const bool pad = op.position[i / n_used] < 0;
        if (pad && e == 0) {
            routes.place[i] = -1;
        }
        if (!pad && routes.expert[i] == e) {
            routes.place[i] = place;
            routes.row[place] = i / n_used;
            routes.owner[place++] = e;
        }
    }
    for (; place < end; place++) {
        routes.row[place] = routes.owner[place] = -1;
    }
}

extern "C" int cuda_route(const struct cuda_op_route *op, struct CUstream_st *stream)
{
    if (!experts_pass_is_sound(op->routes, op->n_rows)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    CUDA_LAUNCH(route_row_kernel, (unsigned)op->n_rows, EXPERT_THREADS, 0, stream, *op);
    CUDA_LAUNCH(route_places_kernel, 1, PLACES_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- gather, SwiGLU: rows are places ---- */

/* The row of a place, -1 where there is none. */
DEVICE_FN int32_t experts_row(const struct cuda_routes &routes, int32_t place)
{
    return place < routes.begin[routes.n_experts] ? routes.row[place] : -1;
}

/* Shapes: x [n_rows, n_cols], out rows are places. Grid: (pieces of 256 columns, places there can be). Block:
 * 256 columns, one a thread. Reads 4 bytes an element, writes 1.4 or 4; bound by memory. Accumulates nothing.
 * Plan: exact. Reference: backend_gather. */
static __global__ void gather_place_kernel(const cuda_op_gather op)
{
    const int32_t place = (int32_t)blockIdx.y, row = experts_row(op.routes, place);
    const int32_t i = (int32_t)(blockIdx.x * EXPERT_THREADS + threadIdx.x), n_cols = op.out.n_cols;
    if (row >= 0 && i < cuda_padded(n_cols)) {
        cuda_put(op.out, place, i, i < n_cols ? op.x[(size_t)row * (size_t)n_cols + (size_t)i] : 0.0f);
    }
}

/* Shapes: gate, up [places, n_cols], out rows are places. Grid, block and bounds as gather_place_kernel.
 * Accumulates nothing. Plan: exact. Reference: backend_expert_swiglu. */
static __global__ void expert_swiglu_kernel(const cuda_op_expert_swiglu op)
{
    const int32_t place = (int32_t)blockIdx.y, n_cols = op.out.n_cols;
    const int32_t i = (int32_t)(blockIdx.x * EXPERT_THREADS + threadIdx.x);
    if (experts_row(op.routes, place) >= 0 && i < cuda_padded(n_cols)) {
        const size_t at = (size_t)place * (size_t)n_cols + (size_t)i;
        cuda_put(op.out, place, i, i < n_cols ? mathx_silu(op.gate[at]) * op.up[at] : 0.0f);
    }
}

static dim3 experts_grid(const struct cuda_routes &routes, int32_t n_rows, int32_t n_cols)
{
    return dim3((unsigned)((n_cols + EXPERT_THREADS - 1) / EXPERT_THREADS), experts_most_places(routes, n_rows));
}

extern "C" int cuda_gather(const struct cuda_op_gather *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->out) || !experts_pass_is_sound(op->routes, op->n_rows)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 grid = experts_grid(op->routes, op->n_rows, op->out.n_cols);
    CUDA_LAUNCH(gather_place_kernel, grid, EXPERT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

extern "C" int cuda_expert_swiglu(const struct cuda_op_expert_swiglu *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->out) || !experts_pass_is_sound(op->routes, op->n_rows)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 grid = experts_grid(op->routes, op->n_rows, op->out.n_cols);
    CUDA_LAUNCH(expert_swiglu_kernel, grid, EXPERT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- linear ---- */

/* The rows of one expert from `first` on, at most CUDA_LINEAR_ROWS, as an act of their own. */
DEVICE_FN cuda_act experts_act(const cuda_act &places, int32_t place)
{
    cuda_act act = places;
    act.f32 = places.f32 != nullptr ? places.f32 + (size_t)place * (size_t)places.f32_stride : nullptr;
    act.q8 = places.q8 != nullptr ? places.q8 + cuda_act_block(places.n_cols, place / CUDA_PANEL_ROWS, 0) : nullptr;
    return act;
}

/* Shapes: weights of all experts in tiles, x and out rows are places. Grid: (tiles of all parts, experts that
 * can be touched). Block: as linear_stream_kernel's, for the rows of one expert. Reads each touched expert's
 * weights once for up to 64 rows; bound by memory while experts have few rows each. Accumulates: as linear
 * layers. Plan: exact. Reference: backend_expert_linear. Which code runs follows from the rows of the expert;
 * all of them are in one kernel, which takes the registers of the greediest. */
template <class Few, class Many>
static __global__ void __launch_bounds__(LINEAR_THREADS, Few::TYPE == TENSOR_Q8_0 ? 1 : Few::IS_FLOAT ? 2 : 0)
expert_linear_kernel(const cuda_op_expert_linear op)
{
    SHARED(float, sums, LINEAR_WARPS * CUDA_PANEL_ROWS * CUDA_WARP);
    SHARED_DYNAMIC(float, running);
    const struct cuda_routes &routes = op.routes;
    if ((int32_t)blockIdx.y >= routes.touched[routes.n_experts]) {
        return;
    }
    const int32_t expert = routes.touched[blockIdx.y];
    int32_t p = 0, tile_idx = (int32_t)blockIdx.x;
    while (tile_idx >= cuda_n_tiles(op.part[p].weights.n_out)) {
        tile_idx -= cuda_n_tiles(op.part[p++].weights.n_out);
    }
    for (int32_t done = 0; done < routes.count[expert]; done += CUDA_LINEAR_ROWS) {
        const int32_t place = routes.begin[expert] + done, left = routes.count[expert] - done;
        const int32_t n_rows = left < CUDA_LINEAR_ROWS ? left : (int32_t)CUDA_LINEAR_ROWS;
        const cuda_act x = experts_act(op.x, place);
        cuda_op_linear::cuda_linear_part part = {};
        part.weight = op.part[p].weights;
        part.weight.data += (size_t)expert * op.part[p].stride_bytes;
        part.out = op.part[p].out + (size_t)place * (size_t)part.weight.n_out;
        if (n_rows == 1) {
            linear_tile<Few, 1>(part, tile_idx, x, n_rows, sums, running);
        } else if (n_rows <= 4) {
            linear_tile<Few, 4>(part, tile_idx, x, n_rows, sums, running);
        } else {
            linear_tile<Many, CUDA_PANEL_ROWS>(part, tile_idx, x, n_rows, sums, running);
        }
        __syncthreads();
    }
}

template <class Few, class Many>
static void expert_linear_launch(const cuda_op_expert_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    const auto kernel = expert_linear_kernel<Few, Many>;
    const int32_t places = op.n_rows * op.routes.n_used;
    const int32_t most_rows = op.n_rows < CUDA_LINEAR_ROWS ? op.n_rows : (int32_t)CUDA_LINEAR_ROWS;
    const dim3 grid(n_tiles, (unsigned)(places < op.routes.n_experts ? places : op.routes.n_experts));
    CUDA_LAUNCH(kernel, grid, LINEAR_THREADS, 2 * (size_t)most_rows * CUDA_WARP * sizeof(float), stream, op);
}

template <int TYPE>
static void expert_floats(const cuda_op_expert_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    expert_linear_launch<weights_float<TYPE>, weights_float<TYPE>>(op, n_tiles, stream);
}

template <int TYPE>
static void expert_planes(const cuda_op_expert_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    expert_linear_launch<weights_planes<TYPE>, mma_planes<TYPE>>(op, n_tiles, stream);
}

extern "C" int cuda_expert_linear(const struct cuda_op_expert_linear *op, struct CUstream_st *stream)
{
    unsigned n_tiles = 0;
    if (op->n_parts < 1 || op->n_parts > CUDA_EXPERT_PARTS || !experts_pass_is_sound(op->routes, op->n_rows)) {
        return cudaErrorInvalidValue;
    }
    for (int32_t p = 0; p < op->n_parts; p++) {
        const struct cuda_weight *weights = &op->part[p].weights;
        if (weights->type != op->part[0].weights.type || weights->n_in != op->x.n_cols) {
            return cudaErrorInvalidValue;
        }
        n_tiles += (unsigned)cuda_n_tiles(weights->n_out);
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    switch ((int)op->part[0].weights.type) {
    case TENSOR_F32: expert_floats<TENSOR_F32>(*op, n_tiles, stream); break;
    case TENSOR_F16: expert_floats<TENSOR_F16>(*op, n_tiles, stream); break;
    case TENSOR_BF16: expert_floats<TENSOR_BF16>(*op, n_tiles, stream); break;
    case TENSOR_Q8_0: expert_linear_launch<weights_q8_0, mma_small<2, 0>>(*op, n_tiles, stream); break;
    case TENSOR_Q4_0: expert_linear_launch<weights_q4_0, mma_small<1, 8>>(*op, n_tiles, stream); break;
    case TENSOR_Q4_K: expert_linear_launch<weights_q4_k, mma_q4_k>(*op, n_tiles, stream); break;
    case TENSOR_Q6_K: expert_linear_launch<weights_q6_k, mma_q6_k>(*op, n_tiles, stream); break;
    case TENSOR_Q4_1: expert_planes<TENSOR_Q4_1>(*op, n_tiles, stream); break;
    case TENSOR_Q5_0: expert_planes<TENSOR_Q5_0>(*op, n_tiles, stream); break;
    case TENSOR_Q5_1: expert_planes<TENSOR_Q5_1>(*op, n_tiles, stream); break;
    case TENSOR_Q2_K: expert_planes<TENSOR_Q2_K>(*op, n_tiles, stream); break;
    case TENSOR_Q3_K: expert_planes<TENSOR_Q3_K>(*op, n_tiles, stream); break;
    case TENSOR_Q5_K: expert_planes<TENSOR_Q5_K>(*op, n_tiles, stream); break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* ---- combine ---- */

/* Shapes: y [places, n_cols], x [n_rows, n_cols]. Grid: (pieces of 256 columns, rows). Block: 256 columns, one a
 * thread. Reads 4 n_used bytes an element and 4 more, writes 4; bound by memory. Accumulates: a chain of fma,
 * experts ascending. Plan: exact. Reference: backend_combine. */
static __global__ void combine_row_kernel(const cuda_op_combine op)
{
    const int32_t i = (int32_t)(blockIdx.x * EXPERT_THREADS + threadIdx.x), row = (int32_t)blockIdx.y;
    const int32_t n_used = op.routes.n_used;
    if (i >= op.n_cols) {
        return;
    }
    float acc = 0.0f;
    for (int32_t j = 0; j < n_used; j++) {
        const size_t at = (size_t)row * (size_t)n_used + (size_t)j;
        const int32_t place = op.routes.place[at];
        if (place >= 0) {
            acc = mathx_fma(op.routes.weight[at], op.y[(size_t)place * (size_t)op.n_cols + (size_t)i], acc);
        }
    }
    float *x = op.x + (size_t)row * (size_t)op.n_cols + (size_t)i;
    *x = *x + acc;
}

extern "C" int cuda_combine(const struct cuda_op_combine *op, struct CUstream_st *stream)
{
    if (!experts_pass_is_sound(op->routes, op->n_rows) || op->n_cols < 1) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 grid((unsigned)((op->n_cols + EXPERT_THREADS - 1) / EXPERT_THREADS), (unsigned)op->n_rows);
    CUDA_LAUNCH(combine_row_kernel, grid, EXPERT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
