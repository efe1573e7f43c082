/* Batch normalization, fast. Statistics are made in two passes (mean, then squares around the mean of all ranks), in double,
 * over pieces of rows. */
#include <math.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"
#include "kernels/norm_slices.h"

/* Sums of each slice, two of each channel and the count of rows; of all slices; two of each channel for each piece; factors of
 * the channels. */
static size_t batch_norm_scratch(int64_t rows, int64_t c, int slices) {
    return (size_t)((slices + 1) * (2 * c + 1) + thaw_fast_sum_pieces(rows, c) * 2 * c + c) * sizeof(double);
}

/* sum(c) of x, around `mean` (c) squared if that is given. */
static void channel_sums(int64_t rows, int64_t c, const float *x, const double *mean, double *partial, double *sum) {
    int64_t pieces = thaw_fast_sum_pieces(rows, c);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        double *to = partial + piece * c;
        for (int64_t i = 0; i < c; i++)
            to[i] = 0.0;
        for (int64_t row = piece * rows / pieces; row < (piece + 1) * rows / pieces; row++) {
            const float *from = x + row * c;
            if (!mean) {
                for (int64_t i = 0; i < c; i++)
                    to[i] += (double)from[i];
                continue;
            }
            for (int64_t i = 0; i < c; i++) {
                double d = (double)from[i] - mean[i];
                to[i] += d * d;
            }
        }
    }
    thaw_fast_sum_merge(pieces, c, partial, sum);
}

static void batch_norm_forward(int64_t rows, int64_t c, float epsilon, const float *x, const float *gamma,
                               const float *beta, float *y, float *mean, float *inv_std, float *batch_var,
                               const thaw_hooks *hooks, void *scratch) {
    double *sum = scratch, *m2 = sum + c + 1, *slices = m2 + c; /* sum(c), count; m2(c) around the mean of all ranks */
    const thaw_slices cut = thaw_norm_slices(hooks);
    double *partial = slices + cut.total * (2 * c + 1);
    for (int i = 0; i < cut.count; i++) {
        double *to = thaw_norm_slice(&cut, i, c + 1, slices);
        int64_t r0 = thaw_norm_row(&cut, i, rows), r1 = thaw_norm_row(&cut, i + 1, rows);
        channel_sums(r1 - r0, c, x + r0 * c, NULL, partial, to);
        to[c] = (double)(r1 - r0);
    }
    thaw_norm_reduce(hooks, &cut, c + 1, slices, sum);
    double all = sum[c] > 0.0 ? sum[c] : 1.0;
    for (int64_t i = 0; i < c; i++)
        sum[i] /= all;
    for (int i = 0; i < cut.count; i++) {
        int64_t r0 = thaw_norm_row(&cut, i, rows), r1 = thaw_norm_row(&cut, i + 1, rows);
        channel_sums(r1 - r0, c, x + r0 * c, sum, partial, thaw_norm_slice(&cut, i, c, slices));
    }
    thaw_norm_reduce(hooks, &cut, c, slices, m2);
    for (int64_t i = 0; i < c; i++) {
        mean[i] = (float)sum[i];
        batch_var[i] = (float)(m2[i] / all);
        inv_std[i] = (float)(1.0 / sqrt(m2[i] / all + (double)epsilon));
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (rows * c > THAW_PIECE)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * c;
        float *to = y + row * c;
        for (int64_t i = 0; i < c; i++) {
            float normal = (from[i] - mean[i]) * inv_std[i];
            to[i] = normal * (gamma ? gamma[i] : 1.0f) + (beta ? beta[i] : 0.0f);
        }
    }
}

/* sums(2,c): sum(dy) and sum(dy * (x - mean)) * inv_std of each channel. Without `product` x and mean are not read. */
static void gradient_sums(int64_t rows, int64_t c, const float *x, const float *mean, const float *inv_std, const float *dy,
                          bool product, double *partial, double *sums) {
    int64_t pieces = thaw_fast_sum_pieces(rows, c);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        double *sum_dy = partial + piece * 2 * c, *sum_dy_x = sum_dy + c;
        for (int64_t i = 0; i < 2 * c; i++)
            sum_dy[i] = 0.0;
        for (int64_t row = piece * rows / pieces; row < (piece + 1) * rows / pieces; row++) {
            const float *d = dy + row * c, *from = product ? x + row * c : NULL;
            for (int64_t i = 0; i < c; i++)
                sum_dy[i] += (double)d[i];
            for (int64_t i = 0; product && i < c; i++)
                sum_dy_x[i] += (double)d[i] * ((double)from[i] - (double)mean[i]);
        }
    }
    thaw_fast_sum_merge(pieces, 2 * c, partial, sums);
    for (int64_t i = 0; product && i < c; i++)
        sums[c + i] *= (double)inv_std[i];
}

static void give_sums(int64_t c, const double *sums, float *dgamma, float *dbeta) {
    for (int64_t i = 0; dbeta && i < c; i++)
        dbeta[i] = (float)sums[i];
    for (int64_t i = 0; dgamma && i < c; i++)
        dgamma[i] = (float)sums[c + i];
}

static void batch_norm_backward(int64_t rows, int64_t c, const float *x, const float *gamma, const float *mean,
                                const float *inv_std, const float *dy, float *dx, bool accumulate, float *dgamma,
                                float *dbeta, const thaw_hooks *hooks, void *scratch) {
    double *sums = scratch, *slices = sums + 2 * c + 1; /* sum(dy), sum(dy*normal), count */
    const thaw_slices cut = thaw_norm_slices(hooks);
    double *partial = slices + cut.total * (2 * c + 1);
    for (int i = 0; i < cut.count; i++) {
        double *to = thaw_norm_slice(&cut, i, 2 * c + 1, slices);
        int64_t r0 = thaw_norm_row(&cut, i, rows), r1 = thaw_norm_row(&cut, i + 1, rows);
        gradient_sums(r1 - r0, c, x + r0 * c, mean, inv_std, dy + r0 * c, true, partial, to);
        to[2 * c] = (double)(r1 - r0);
    }
    if (cut.total == 1)
        give_sums(c, slices, dgamma, dbeta);
    if (cut.total == 1 && !dx)
        return;
    thaw_norm_reduce(hooks, &cut, 2 * c + 1, slices, sums);
    if (cut.total > 1)
        give_sums(c, thaw_norm_total(&cut, 2 * c, sums, slices), dgamma, dbeta);
    if (!dx)
        return;
    double all = sums[2 * c] > 0.0 ? sums[2 * c] : 1.0;
    for (int64_t i = 0; i < 2 * c; i++)
        sums[i] /= all;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (rows * c > THAW_PIECE)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * c, *d = dy + row * c;
        float *to = dx + row * c;
        for (int64_t i = 0; i < c; i++) {
            double normal = ((double)from[i] - (double)mean[i]) * (double)inv_std[i];
            double scale = (gamma ? (double)gamma[i] : 1.0) * (double)inv_std[i];
            float gradient = (float)(scale * ((double)d[i] - sums[i] - normal * sums[c + i]));
            to[i] = accumulate ? to[i] + gradient : gradient;
        }
    }
}

/* One pass over the rows: sums by pieces, gradients on the way. */
static void batch_norm_moving_backward(int64_t rows, int64_t c, const float *x, const float *y, const float *gamma,
                                       const float *mean, const float *inv_std, const float *dy, float *dx, bool accumulate,
                                       float *dgamma, float *dbeta, void *scratch) {
    const thaw_isa *isa = thaw_isa_get();
    const int64_t pieces = thaw_fast_sum_pieces(rows, c);
    const bool wanted = dgamma || dbeta;
    double *sums = scratch, *partial = sums + 2 * c; /* (2,c); pieces of them */
    float *scale = (float *)(void *)(partial + pieces * 2 * c);
    for (int64_t i = 0; i < c; i++)
        scale[i] = (gamma ? gamma[i] : 1.0f) * inv_std[i];
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        double *to = partial + piece * 2 * c;
        const int64_t r0 = piece * rows / pieces, at = r0 * c;
        memset(to, 0, (size_t)(2 * c) * sizeof *to);
        isa->norm_gradient((piece + 1) * rows / pieces - r0, c, dgamma ? x + at : NULL, y ? y + at : NULL, mean, scale, dy + at,
                           dx ? dx + at : NULL, accumulate, wanted ? to : NULL);
    }
    if (!wanted)
        return;
    thaw_fast_sum_merge(pieces, 2 * c, partial, sums);
    for (int64_t i = 0; i < c; i++)
        sums[c + i] *= (double)inv_std[i];
    give_sums(c, sums, dgamma, dbeta);
}

void thaw_fast_batch_norm(thaw_kernels *table) {
    table->batch_norm_forward = batch_norm_forward;
    table->batch_norm_backward = batch_norm_backward;
    table->batch_norm_moving_backward = batch_norm_moving_backward;
    table->batch_norm_scratch = batch_norm_scratch;
}
