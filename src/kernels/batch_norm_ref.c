/* Batch normalization, reference. */
#include <math.h>

#include "kernels/kernels_ref.h"
#include "kernels/norm_slices.h"

/* Two sums of each channel and the count of rows, of all slices and of each. */
static size_t batch_norm_scratch(int64_t rows, int64_t c, int slices) {
    (void)rows;
    return (size_t)(slices + 1) * (2 * (size_t)c + 1) * sizeof(double);
}

static void batch_norm_forward(int64_t rows, int64_t c, float epsilon, const float *x, const float *gamma,
                               const float *beta, float *y, float *mean, float *inv_std, float *batch_var,
                               const thaw_hooks *hooks, void *scratch) {
    double *sum = scratch, *m2 = sum + c + 1, *slices = m2 + c; /* sum(c), count; m2(c) around the mean of all ranks */
    const thaw_slices cut = thaw_norm_slices(hooks);
    for (int slice = 0; slice < cut.count; slice++) {
        double *to = thaw_norm_slice(&cut, slice, c + 1, slices);
        int64_t r0 = thaw_norm_row(&cut, slice, rows), r1 = thaw_norm_row(&cut, slice + 1, rows);
        for (int64_t i = 0; i < c; i++)
            for (int64_t row = r0; row < r1; row++)
                to[i] += (double)x[row * c + i];
        to[c] = (double)(r1 - r0);
    }
    thaw_norm_reduce(hooks, &cut, c + 1, slices, sum);
    double all = sum[c] > 0.0 ? sum[c] : 1.0;
    for (int slice = 0; slice < cut.count; slice++) {
        double *to = thaw_norm_slice(&cut, slice, c, slices);
        for (int64_t i = 0; i < c; i++)
            for (int64_t row = thaw_norm_row(&cut, slice, rows); row < thaw_norm_row(&cut, slice + 1, rows); row++) {
                double d = (double)x[row * c + i] - sum[i] / all;
                to[i] += d * d;
            }
    }
    thaw_norm_reduce(hooks, &cut, c, slices, m2);
    for (int64_t i = 0; i < c; i++) {
        mean[i] = (float)(sum[i] / all);
        batch_var[i] = (float)(m2[i] / all);
        inv_std[i] = (float)(1.0 / sqrt(m2[i] / all + (double)epsilon));
    }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i++)
            *y++ = (float)(((double)x[row * c + i] - (double)mean[i]) * (double)inv_std[i] *
                               (gamma ? (double)gamma[i] : 1.0) + (beta ? (double)beta[i] : 0.0));
}

/* sum(dy) and sum(dy * (x - mean) * inv_std) of each channel. Without `product` x and mean are not read. */
static void gradient_sums(int64_t rows, int64_t c, const float *x, const float *mean, const float *inv_std, const float *dy,
                          bool product, double *sum_dy, double *sum_dy_x) {
    for (int64_t i = 0; i < c; i++) {
        sum_dy[i] = sum_dy_x[i] = 0.0;
        for (int64_t row = 0; row < rows; row++) {
            double d = (double)dy[row * c + i];
            sum_dy[i] += d;
            if (product)
                sum_dy_x[i] += d * ((double)x[row * c + i] - (double)mean[i]) * (double)inv_std[i];
        }
    }
}

static void give_sums(int64_t c, const double *sums, float *dgamma, float *dbeta) {
    for (int64_t i = 0; i < c; i++) {
        if (dbeta)
            dbeta[i] = (float)sums[i];
        if (dgamma)
            dgamma[i] = (float)sums[c + i];
    }
}

static void batch_norm_backward(int64_t rows, int64_t c, const float *x, const float *gamma, const float *mean,
                                const float *inv_std, const float *dy, float *dx, bool accumulate, float *dgamma,
                                float *dbeta, const thaw_hooks *hooks, void *scratch) {
    double *sum_dy = scratch, *sum_dy_x = sum_dy + c, *slices = sum_dy_x + c + 1;
    const thaw_slices cut = thaw_norm_slices(hooks);
    for (int slice = 0; slice < cut.count; slice++) {
        double *to = thaw_norm_slice(&cut, slice, 2 * c + 1, slices);
        int64_t r0 = thaw_norm_row(&cut, slice, rows), r1 = thaw_norm_row(&cut, slice + 1, rows);
        gradient_sums(r1 - r0, c, x + r0 * c, mean, inv_std, dy + r0 * c, true, to, to + c);
        to[2 * c] = (double)(r1 - r0);
    }
    if (cut.total == 1)
        give_sums(c, slices, dgamma, dbeta);
    if (cut.total == 1 && !dx)
        return;
    thaw_norm_reduce(hooks, &cut, 2 * c + 1, slices, sum_dy);
    if (cut.total > 1)
        give_sums(c, thaw_norm_total(&cut, 2 * c, sum_dy, slices), dgamma, dbeta);
    if (!dx)
        return;
    double all = sum_dy[2 * c] > 0.0 ? sum_dy[2 * c] : 1.0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i++, dx++) {
            double normal = ((double)x[row * c + i] - (double)mean[i]) * (double)inv_std[i];
            double d = (double)dy[row * c + i] - sum_dy[i] / all - normal * (sum_dy_x[i] / all);
            *dx = (float)((accumulate ? (double)*dx : 0.0) + (gamma ? (double)gamma[i] : 1.0) * (double)inv_std[i] * d);
        }
}

static void batch_norm_moving_backward(int64_t rows, int64_t c, const float *x, const float *y, const float *gamma,
                                       const float *mean, const float *inv_std, const float *dy, float *dx, bool accumulate,
                                       float *dgamma, float *dbeta, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < c; i++) {
        double sum_dy = 0.0, sum_dy_x = 0.0;
        for (int64_t at = i; at < rows * c; at += c) {
            double d = y && !(y[at] > 0.0f) ? 0.0 : (double)dy[at];
            sum_dy += d;
            if (dgamma)
                sum_dy_x += d * ((double)x[at] - (double)mean[i]) * (double)inv_std[i];
            if (dx)
                dx[at] = (float)((accumulate ? (double)dx[at] : 0.0) +
                                 d * (gamma ? (double)gamma[i] : 1.0) * (double)inv_std[i]);
        }
        if (dbeta)
            dbeta[i] = (float)sum_dy;
        if (dgamma)
            dgamma[i] = (float)sum_dy_x;
    }
}

void thaw_ref_batch_norm(thaw_kernels *table) {
    table->batch_norm_forward = batch_norm_forward;
    table->batch_norm_backward = batch_norm_backward;
    table->batch_norm_moving_backward = batch_norm_moving_backward;
    table->batch_norm_scratch = batch_norm_scratch;
}
