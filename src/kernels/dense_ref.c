/* Dense layer, reference. */
#include "kernels/kernels_ref.h"

static size_t dense_scratch(int64_t n, int64_t in, int64_t units) {
    (void)n, (void)in, (void)units;
    return 0;
}

static void dense_forward(int64_t n, int64_t in, int64_t units, const float *x, const float *kernel, const float *bias,
                          thaw_activation act, float *y, void *scratch) {
    (void)scratch;
    for (int64_t row = 0; row < n; row++)
        for (int64_t u = 0; u < units; u++) {
            double sum = bias ? (double)bias[u] : 0.0;
            for (int64_t i = 0; i < in; i++)
                sum += (double)x[row * in + i] * (double)kernel[i * units + u];
            y[row * units + u] = act == THAW_ACTIVATION_SOFTMAX ? (float)sum : thaw_ref_activate(act, (float)sum);
        }
    if (act == THAW_ACTIVATION_SOFTMAX)
        thaw_kernels_reference()->activation_forward(act, n * units, units, y, y);
}

static void dense_backward_data(int64_t n, int64_t in, int64_t units, const float *dy, const float *kernel, float *dx,
                                bool accumulate, void *scratch) {
    (void)scratch;
    for (int64_t row = 0; row < n; row++)
        for (int64_t i = 0; i < in; i++, dx++) {
            double sum = accumulate ? (double)*dx : 0.0;
            for (int64_t u = 0; u < units; u++)
                sum += (double)dy[row * units + u] * (double)kernel[i * units + u];
            *dx = (float)sum;
        }
}

static void dense_backward_weights(int64_t n, int64_t in, int64_t units, const float *x, const float *dy, float *dkernel,
                                   float *dbias, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; dkernel && i < in; i++)
        for (int64_t u = 0; u < units; u++) {
            double sum = 0.0;
            for (int64_t row = 0; row < n; row++)
                sum += (double)x[row * in + i] * (double)dy[row * units + u];
            dkernel[i * units + u] = (float)sum;
        }
    for (int64_t u = 0; dbias && u < units; u++) {
        double sum = 0.0;
        for (int64_t row = 0; row < n; row++)
            sum += (double)dy[row * units + u];
        dbias[u] = (float)sum;
    }
}

static bool dense_sums_slices(int slices) { return slices == 1; }

static void dense_backward_slices(int64_t in, int64_t units, int slices, const int64_t *start, const float *x, const float *dy,
                                  float *dkernel, void *scratch) {
    dense_backward_weights(start[slices] - start[0], in, units, x, dy, dkernel, NULL, scratch);
}

void thaw_ref_dense(thaw_kernels *table) {
    table->dense_scratch = dense_scratch;
    table->dense_forward = dense_forward;
    table->dense_backward_data = dense_backward_data;
    table->dense_backward_weights = dense_backward_weights;
    table->dense_sums_slices = dense_sums_slices;
    table->dense_backward_slices = dense_backward_slices;
}
