/* One image's row of z, its outputs and its targets: what losses and metrics share. Private to src/train. */
#ifndef THAW_TRAIN_LOSS_ROW_H
#define THAW_TRAIN_LOSS_ROW_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "train/loss.h"

typedef struct thaw_row {
    const float *z; /* (units) */
    const float *y; /* (y_width) */
    int64_t units;
    thaw_activation final;
    double top, sum; /* SOFTMAX: largest z, and sum of exp(z - top) */
    int64_t index;   /* class when y is one index for several units, else -1 */
} thaw_row;

/* Sum of exp(z - top) in index order, so that bits do not depend on anything but z. */
static inline void thaw_row_softmax(thaw_row *row) {
    row->top = (double)row->z[0];
    for (int64_t i = 1; i < row->units; i++)
        row->top = (double)row->z[i] > row->top ? (double)row->z[i] : row->top;
    row->sum = 0.0;
    for (int64_t i = 0; i < row->units; i++)
        row->sum += exp((double)row->z[i] - row->top);
}

/* A NULL y makes a row without targets. */
static inline thaw_row thaw_row_make(const thaw_objective *objective, const float *z, const float *y) {
    thaw_row row = {.z = z, .y = y, .units = objective->units, .final = objective->final, .index = -1};
    if (row.final == THAW_ACTIVATION_SOFTMAX)
        thaw_row_softmax(&row);
    if (y && objective->y_width == 1 && objective->units > 1)
        row.index = (int64_t)y[0];
    return row;
}

/* Output i in float32, as Keras' losses and metrics see it. */
static inline float thaw_row_output(const thaw_row *row, int64_t i) {
    double z = (double)row->z[i];
    switch (row->final) {
    case THAW_ACTIVATION_SIGMOID: return (float)(1.0 / (1.0 + exp(-z)));
    case THAW_ACTIVATION_SOFTMAX: return (float)(exp(z - row->top) / row->sum);
    default: return row->z[i];
    }
}

static inline double thaw_row_target(const thaw_row *row, int64_t i) {
    return row->index >= 0 ? (i == row->index ? 1.0 : 0.0) : (double)row->y[i];
}

/* First index of the largest value, as argmax. */
static inline int64_t thaw_argmax(const float *values, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* Adds the row's metrics (metric.c). */
void thaw_metric_add(const thaw_objective *objective, const thaw_row *row, thaw_sums *sums);
#endif
