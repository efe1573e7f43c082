/* Dense layer, fast.
 *
 * Forward, a row must have the same bits whatever rows are beside it, and a matrix product does not promise that (its kernels
 * differ by the place of a row). So each row is multiplied alone, as matrix times vector, but block by block: a block of the
 * kernel stays in the second-level cache while all rows pass. */
#include <cblas.h>
#include <omp.h>
#include <string.h>

#include "kernels/kernels_fast.h"

enum {
    BLOCK_FLOATS = 64 * 1024, /* of the kernel: 256 KiB */
    BLOCK_ROWS = 32,          /* rows of x that pass in one piece */
    GRADIENT_IN = 256,        /* rows of dkernel, columns of dx in one piece */
    GRADIENT_UNITS = 1024,
    GRADIENT_ROWS = 256
};

static int64_t block_width(int64_t units) { return units >= 1024 ? 256 : thaw_least(units, 64); }

static int64_t thread_floats(int64_t in, int64_t units) {
    int64_t width = block_width(units);
    return thaw_lines(BLOCK_ROWS * thaw_lines(width)) + thaw_lines(thaw_least(in, BLOCK_FLOATS / width));
}

static size_t dense_scratch(int64_t n, int64_t in, int64_t units) {
    size_t forward = (size_t)(thaw_threads() * thread_floats(in, units)) * sizeof(float);
    size_t sums = (size_t)(thaw_fast_sum_pieces(n, units) * units) * sizeof(double);
    return forward > sums ? forward : sums;
}

/* y rows [r0, r1), columns [u0, u1), before bias and activation. Sums are made in `sum` (BLOCK_ROWS, lines of the width). */
static void forward_block(int64_t in, int64_t units, const float *x, const float *kernel, int64_t r0, int64_t r1, int64_t u0,
                          int64_t u1, float *sum, float *y) {
    int64_t width = block_width(units), stride = thaw_lines(width), depth = BLOCK_FLOATS / width;
    float *part = sum + thaw_lines(BLOCK_ROWS * stride); /* a part of a row of x, where alignment is the same for all rows */
    memset(sum, 0, (size_t)((r1 - r0) * stride) * sizeof *sum);
    for (int64_t k0 = 0; k0 < in; k0 += depth) {
        int64_t k = thaw_least(depth, in - k0);
        for (int64_t r = r0; r < r1; r++) {
            memcpy(part, x + r * in + k0, (size_t)k * sizeof *part);
            cblas_sgemv(CblasRowMajor, CblasTrans, (blasint)k, (blasint)(u1 - u0), 1.0f, kernel + k0 * units + u0,
                        (blasint)units, part, 1, 1.0f, sum + (r - r0) * stride, 1);
        }
    }
    for (int64_t r = r0; r < r1; r++)
        memcpy(y + r * units + u0, sum + (r - r0) * stride, (size_t)(u1 - u0) * sizeof *y);
}

static void dense_forward(int64_t n, int64_t in, int64_t units, const float *x, const float *kernel, const float *bias,
                          thaw_activation act, float *y, void *scratch) {
    int64_t width = block_width(units), blocks = thaw_ceil_div(units, width), groups = thaw_ceil_div(n, BLOCK_ROWS);
    thaw_activation fused = act == THAW_ACTIVATION_SOFTMAX ? THAW_ACTIVATION_LINEAR : act;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < blocks * groups; item++) {
        int64_t u0 = item / groups * width, u1 = thaw_least(u0 + width, units);
        int64_t r0 = item % groups * BLOCK_ROWS, r1 = thaw_least(r0 + BLOCK_ROWS, n);
        float *sum = (float *)scratch + omp_get_thread_num() * thread_floats(in, units);
        forward_block(in, units, x, kernel, r0, r1, u0, u1, sum, y);
        thaw_fast_finish(r1 - r0, u1 - u0, units, bias ? bias + u0 : NULL, fused, y + r0 * units + u0);
    }
    if (act == THAW_ACTIVATION_SOFTMAX)
        thaw_kernels_fast()->activation_forward(act, n * units, units, y, y);
}

static void dense_backward_data(int64_t n, int64_t in, int64_t units, const float *dy, const float *kernel, float *dx,
                                bool accumulate, void *scratch) {
    (void)scratch;
    int64_t blocks = thaw_ceil_div(in, GRADIENT_IN), groups = thaw_ceil_div(n, GRADIENT_ROWS);
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < blocks * groups; item++) {
        int64_t i0 = item / groups * GRADIENT_IN, r0 = item % groups * GRADIENT_ROWS;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)thaw_least(GRADIENT_ROWS, n - r0),
                    (blasint)thaw_least(GRADIENT_IN, in - i0), (blasint)units, 1.0f, dy + r0 * units, (blasint)units,
                    kernel + i0 * units, (blasint)units, accumulate ? 1.0f : 0.0f, dx + r0 * in + i0, (blasint)in);
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
        int64_t i0 = item / columns * GRADIENT_IN, u0 = item % columns * GRADIENT_UNITS;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)thaw_least(GRADIENT_IN, in - i0),
                    (blasint)thaw_least(GRADIENT_UNITS, units - u0), (blasint)n, 1.0f, x + i0, (blasint)in, dy + u0,
                    (blasint)units, 0.0f, dkernel + i0 * units + u0, (blasint)units);
    }
}

void thaw_fast_dense(thaw_kernels *table) {
    table->dense_scratch = dense_scratch;
    table->dense_forward = dense_forward;
    table->dense_backward_data = dense_backward_data;
    table->dense_backward_weights = dense_backward_weights;
}
