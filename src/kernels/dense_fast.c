/* Dense layer, fast.
 *
 * Forward and in the data gradient a row must have the same bits whatever rows are beside it: the inner kernels of isa.h promise
 * that, OpenBLAS does not. A block of the kernel is copied into panels, and all rows of a piece pass over it. */
#include <cblas.h>
#include <omp.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

enum {
    BLOCK_ROWS = 96, /* rows of x that pass over a block of the kernel: THAW_DEPTH rows of some columns */
    AHEAD = 16,      /* rows of the kernel that are fetched before they are copied */
    LINE = 16,       /* floats of a line of the cache */
    PANEL_STEP = (THAW_DEPTH + 1) * THAW_PANEL, /* from panel to panel of a block: a row goes to all, so no power of two */
    GRADIENT_IN = 256, /* rows of dkernel, columns of dx in one piece */
    GRADIENT_UNITS = 1024,
    SLICED_IN = 64, SLICED_UNITS = 256, /* of a piece of dkernel whose slices are added in the cache of a core */
    SLICED = SLICED_IN * SLICED_UNITS
};

static int64_t block_width(int64_t units) { return units >= 4096 ? 512 : units >= 1024 ? 256 : thaw_least(units, 64); }

/* Of a thread: a block of x, one of the kernel in panels, results of a panel that is not full, bias of a panel. */
typedef struct room {
    int64_t panels, side, bias, all;
} room;

static room room_of(int64_t units) {
    room r = {.panels = BLOCK_ROWS * THAW_DEPTH};
    r.side = r.panels + thaw_panels(block_width(units)) * PANEL_STEP;
    r.bias = r.side + BLOCK_ROWS * THAW_PANEL;
    r.all = r.bias + THAW_PANEL + LINE;
    return r;
}

static size_t dense_scratch(int64_t n, int64_t in, int64_t units) {
    (void)in;
    size_t forward = (size_t)(thaw_threads() * room_of(units).all) * sizeof(float);
    size_t sums = (size_t)(thaw_fast_sum_pieces(n, units) * units) * sizeof(double);
    size_t slices = (size_t)(thaw_threads() * (THAW_TREE_LEVELS + 1) * SLICED) * sizeof(float);
    size_t most = forward > sums ? forward : sums;
    return most > slices ? most : slices;
}

/* Rows [k0, k0+k) and columns [u0, u1) of the kernel, as panels (k, width). */
static void copy_panels(int64_t units, const float *kernel, int64_t k0, int64_t k, int64_t u0, int64_t u1, float *to) {
    for (int64_t row = 0; row < k; row++) {
        const float *from = kernel + (k0 + row) * units;
        for (int64_t panel = 0; u0 + panel * THAW_PANEL < u1; panel++) {
            int64_t u = u0 + panel * THAW_PANEL, width = thaw_panel_width(u1 - u0, panel), n = thaw_least(width, u1 - u);
            float *at = to + panel * PANEL_STEP + row * width;
            for (int64_t i = 0; i < n; i += LINE) /* rows lie on pages of their own */
                __builtin_prefetch(from + AHEAD * units + u + i, 0, 2);
            if (n == THAW_PANEL) { /* of a constant size it is no call */
                memcpy(at, from + u, THAW_PANEL * sizeof *at);
                continue;
            }
            memcpy(at, from + u, (size_t)n * sizeof *at);
            memset(at + n, 0, (size_t)(width - n) * sizeof *at);
        }
    }
}

/* y rows [r0, r1), columns [u0, u1). */
static void forward_block(int64_t in, int64_t units, const float *x, const float *kernel, const float *bias,
                          thaw_activation act, int64_t r0, int64_t r1, int64_t u0, int64_t u1, float *y, float *scratch) {
    static const float zero[THAW_PANEL];
    const thaw_isa *isa = thaw_isa_get();
    const room r = room_of(units);
    const int64_t rows = r1 - r0;
    float *panels = scratch + r.panels, *side = scratch + r.side, *shift = scratch + r.bias;
    for (int64_t k0 = 0; k0 < in; k0 += THAW_DEPTH) {
        thaw_progress();
        int64_t k = thaw_least(THAW_DEPTH, in - k0);
        bool last = k0 + k == in;
        for (int64_t row = 0; row < rows; row++)
            memcpy(scratch + row * THAW_DEPTH, x + (r0 + row) * in + k0, (size_t)k * sizeof *x);
        copy_panels(units, kernel, k0, k, u0, u1, panels);
        for (int64_t panel = 0; u0 + panel * THAW_PANEL < u1; panel++) {
            int64_t u = u0 + panel * THAW_PANEL, width = thaw_panel_width(u1 - u0, panel), n = thaw_least(width, u1 - u);
            bool whole = n == width; /* only the last panel is not, and has `side` to itself */
            float *to = y + r0 * units + u;
            const float *start = k0 ? NULL : zero;
            if (k0 == 0 && bias) {
                for (int64_t i = 0; i < width; i++)
                    shift[i] = i < n ? bias[u + i] : 0.0f;
                start = shift;
            }
            isa->multiply(rows, width, k, scratch, THAW_DEPTH, 0, panels + panel * PANEL_STEP, start, NULL,
                          act == THAW_ACTIVATION_RELU && last, false, whole ? to : side, whole ? units : width,
                          NULL);
            for (int64_t row = 0; row < rows && last && !whole; row++)
                memcpy(to + row * units, side + row * width, (size_t)n * sizeof *to);
            if (last && act != THAW_ACTIVATION_RELU)
                thaw_fast_finish(rows, n, units, NULL, act, to);
        }
    }
}

static void dense_forward(int64_t n, int64_t in, int64_t units, const float *x, const float *kernel, const float *bias,
                          thaw_activation act, float *y, void *scratch) {
    int64_t width = block_width(units), blocks = thaw_ceil_div(units, width), groups = thaw_ceil_div(n, BLOCK_ROWS);
    thaw_activation fused = act == THAW_ACTIVATION_SOFTMAX ? THAW_ACTIVATION_LINEAR : act;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < blocks * groups; item++) {
        int64_t u0 = item / groups * width, u1 = thaw_least(u0 + width, units);
        int64_t r0 = item % groups * n / groups, r1 = (item % groups + 1) * n / groups;
        forward_block(in, units, x, kernel, bias, fused, r0, r1, u0, u1, y,
                      (float *)scratch + omp_get_thread_num() * room_of(units).all);
    }
    if (act == THAW_ACTIVATION_SOFTMAX)
        thaw_kernels_fast()->activation_forward(act, n * units, units, y, y);
}

/* dx rows [r0, r1), columns [i0, i1). */
static void gradient_block(int64_t in, int64_t units, const float *dy, const float *kernel, int64_t r0, int64_t r1, int64_t i0,
                           int64_t i1, bool accumulate, float *dx, float *scratch) {
    static const float zero[THAW_PANEL];
    const thaw_isa *isa = thaw_isa_get();
    const room r = room_of(units);
    const int64_t rows = r1 - r0;
    float *turned = scratch + r.panels, *side = scratch + r.side;
    for (int64_t k0 = 0; k0 < units; k0 += THAW_DEPTH) {
        int64_t k = thaw_least(THAW_DEPTH, units - k0);
        for (int64_t row = 0; row < rows; row++)
            memcpy(scratch + row * THAW_DEPTH, dy + (r0 + row) * units + k0, (size_t)k * sizeof *dy);
        for (int64_t i = i0; i < i1; i += THAW_PANEL) {
            thaw_progress();
            int64_t n = thaw_least(THAW_PANEL, i1 - i), width = thaw_sixteens(n);
            float *to = dx + r0 * in + i;
            bool add = accumulate || k0 > 0, whole = n == width;
            thaw_transpose_panel(n, k, kernel + i * units + k0, units, turned, width);
            isa->multiply(rows, width, k, scratch, THAW_DEPTH, 0, turned, add && whole ? NULL : zero, NULL, false, false,
                          whole ? to : side, whole ? in : width, NULL);
            for (int64_t row = 0; row < rows && !whole; row++)
                for (int64_t j = 0; j < n; j++)
                    to[row * in + j] = side[row * width + j] + (add ? to[row * in + j] : 0.0f);
        }
    }
}

static void dense_backward_data(int64_t n, int64_t in, int64_t units, const float *dy, const float *kernel, float *dx,
                                bool accumulate, void *scratch) {
    int64_t blocks = thaw_ceil_div(in, GRADIENT_IN), groups = thaw_ceil_div(n, BLOCK_ROWS);
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < blocks * groups; item++) {
        int64_t i0 = item / groups * GRADIENT_IN, r0 = item % groups * n / groups, r1 = (item % groups + 1) * n / groups;
        gradient_block(in, units, dy, kernel, r0, r1, i0, thaw_least(i0 + GRADIENT_IN, in), accumulate, dx,
                       (float *)scratch + omp_get_thread_num() * room_of(units).all);
    }
}

static void dense_backward_weights(int64_t n, int64_t in, int64_t units, const float *x, const float *dy, float *dkernel,
                                   float *dbias, void *scratch) {
    if (dbias)
        thaw_fast_column_sums(n, units, dy, scratch, dbias);
    if (dkernel && n == 0)
        memset(dkernel, 0, (size_t)(in * units) * sizeof *dkernel);
    if (!dkernel || n == 0)
        return;
    int64_t rows = thaw_ceil_div(in, GRADIENT_IN), columns = thaw_ceil_div(units, GRADIENT_UNITS);
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < rows * columns; item++) {
        thaw_progress();
        int64_t i0 = item / columns * GRADIENT_IN, u0 = item % columns * GRADIENT_UNITS;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)thaw_least(GRADIENT_IN, in - i0),
                    (blasint)thaw_least(GRADIENT_UNITS, units - u0), (blasint)n, 1.0f, x + i0, (blasint)in, dy + u0,
                    (blasint)units, 0.0f, dkernel + i0 * units + u0, (blasint)units);
    }
}

static bool dense_sums_slices(int slices) { return slices <= 1 << THAW_TREE_LEVELS; }

/* Rows [i0, i1), columns [u0, u1) of dkernel. Sums that wait for their right halves lie behind `piece`, one of each level. */
static void piece_of_slices(int64_t in, int64_t units, int slices, const int64_t *start, const float *x, const float *dy,
                            int64_t i0, int64_t i1, int64_t u0, int64_t u1, float *dkernel, float *piece) {
    const int64_t width = u1 - u0, count = (i1 - i0) * width;
    for (int slice = 0; slice < slices; slice++) {
        const int64_t row = start[slice] - start[0], rows = start[slice + 1] - start[slice];
        const int ended = thaw_tree_ended(slice);
        if (rows == 0)
            memset(piece, 0, (size_t)count * sizeof *piece);
        else
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)(i1 - i0), (blasint)width, (blasint)rows, 1.0f,
                        x + row * in + i0, (blasint)in, dy + row * units + u0, (blasint)units, 0.0f, piece, (blasint)width);
        for (int level = 0; level < ended; level++) {
            const float *left = piece + (level + 1) * SLICED;
            for (int64_t i = 0; i < count; i++)
                piece[i] += left[i];
        }
        if (slice < slices - 1)
            memcpy(piece + (ended + 1) * SLICED, piece, (size_t)count * sizeof *piece);
    }
    for (int64_t i = i0; i < i1; i++)
        memcpy(dkernel + i * units + u0, piece + (i - i0) * width, (size_t)width * sizeof *piece);
}

static void dense_backward_slices(int64_t in, int64_t units, int slices, const int64_t *start, const float *x, const float *dy,
                                  float *dkernel, void *scratch) {
    const int64_t rows = thaw_ceil_div(in, SLICED_IN), columns = thaw_ceil_div(units, SLICED_UNITS);
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < rows * columns; item++) {
        thaw_progress();
        const int64_t i0 = item / columns * SLICED_IN, u0 = item % columns * SLICED_UNITS;
        piece_of_slices(in, units, slices, start, x, dy, i0, thaw_least(i0 + SLICED_IN, in), u0,
                        thaw_least(u0 + SLICED_UNITS, units), dkernel,
                        (float *)scratch + omp_get_thread_num() * (THAW_TREE_LEVELS + 1) * SLICED);
    }
}

void thaw_fast_dense(thaw_kernels *table) {
    table->dense_scratch = dense_scratch;
    table->dense_forward = dense_forward;
    table->dense_backward_data = dense_backward_data;
    table->dense_backward_weights = dense_backward_weights;
    table->dense_sums_slices = dense_sums_slices;
    table->dense_backward_slices = dense_backward_slices;
}

const char *thaw_dense_algorithm(thaw_direction direction) {
    if (thaw_kernels_get() == thaw_kernels_reference())
        return "reference";
    return direction == THAW_BACKWARD_WEIGHTS ? "blas" : "direct";
}
