/* Batch normalization, reference. */
#include <math.h>

#include "kernels/kernels_ref.h"

/* Two sums of each channel and the count of rows, as they go over the ranks. */
static size_t batch_norm_scratch(int64_t rows, int64_t c) {
    (void)rows;
    return (2 * (size_t)c + 1) * sizeof(double);
}

static void reduce(const thaw_hooks *hooks, double *values, int64_t count) {
    if (hooks && hooks->reduce_sum)
        hooks->reduce_sum(hooks->payload, values, (size_t)count);
}

static void batch_norm_forward(int64_t rows, int64_t c, float epsilon, const float *x, const float *gamma,
                               const float *beta, float *y, float *mean, float *inv_std, float *batch_var,
                               const thaw_hooks *hooks, void *scratch) {
    double *sum = scratch, *m2 = sum + c + 1; /* sum(c), count; m2(c) around the mean of all ranks */
    for (int64_t i = 0; i < c; i++) {
        sum[i] = 0.0;
        for (int64_t row = 0; row < rows; row++)
            sum[i] += (double)x[row * c + i];
    }
    sum[c] = (double)rows;
    reduce(hooks, sum, c + 1);
    double all = sum[c] > 0.0 ? sum[c] : 1.0;
    for (int64_t i = 0; i < c; i++) {
        m2[i] = 0.0;
        for (int64_t row = 0; row < rows; row++) {
            double d = (double)x[row * c + i] - sum[i] / all;
            m2[i] += d * d;
        }
    }
    reduce(hooks, m2, c);
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

static void batch_norm_backward(int64_t rows, int64_t c, const float *x, const float *gamma, const float *mean,
                                const float *inv_std, const float *dy, float *dx, bool accumulate, float *dgamma,
                                float *dbeta, const thaw_hooks *hooks, void *scratch) {
    double *sum_dy = scratch, *sum_dy_x = sum_dy + c;
    gradient_sums(rows, c, x, mean, inv_std, dy, true, sum_dy, sum_dy_x);
    for (int64_t i = 0; i < c; i++) {
        if (dbeta)
            dbeta[i] = (float)sum_dy[i];
        if (dgamma)
            dgamma[i] = (float)sum_dy_x[i];
    }
    if (!dx)
        return;
    sum_dy[2 * c] = (double)rows;
    reduce(hooks, sum_dy, 2 * c + 1);
    double all = sum_dy[2 * c] > 0.0 ? sum_dy[2 * c] : 1.0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i++, dx++) {
            double normal = ((double)x[row * c + i] - (double)mean[i]) * (double)inv_std[i];
            double d = (double)dy[row * c + i] - sum_dy[i] / all - normal * (sum_dy_x[i] / all);
            *dx = (float)((accumulate ? (double)*dx : 0.0) + (gamma ? (double)gamma[i] : 1.0) * (double)inv_std[i] * d);
        }
}

static void batch_norm_moving_backward(int64_t rows, int64_t c, const float *x, const float *gamma, const float *mean,
                                       const float *inv_std, const float *dy, float *dx, bool accumulate, float *dgamma,
                                       float *dbeta, void *scratch) {
    double *sum_dy = scratch, *sum_dy_x = sum_dy + c;
    if (dgamma || dbeta)
        gradient_sums(rows, c, x, mean, inv_std, dy, dgamma != NULL, sum_dy, sum_dy_x);
    for (int64_t i = 0; dbeta && i < c; i++)
        dbeta[i] = (float)sum_dy[i];
    for (int64_t i = 0; dgamma && i < c; i++)
        dgamma[i] = (float)sum_dy_x[i];
    for (int64_t row = 0; dx && row < rows; row++)
        for (int64_t i = 0; i < c; i++, dx++)
            *dx = (float)((accumulate ? (double)*dx : 0.0) +
                          (double)dy[row * c + i] * (gamma ? (double)gamma[i] : 1.0) * (double)inv_std[i]);
}

void thaw_ref_batch_norm(thaw_kernels *table) {
    table->batch_norm_forward = batch_norm_forward;
    table->batch_norm_backward = batch_norm_backward;
    table->batch_norm_moving_backward = batch_norm_moving_backward;
    table->batch_norm_scratch = batch_norm_scratch;
}
