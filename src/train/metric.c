/* Metrics and outputs (Keras 3.15 metrics/accuracy_metrics.py, regression_metrics.py). */
#include "train/loss_row.h"

/* First index of the largest output; ties in float32, where saturated probabilities meet, go to the lowest index. */
static int64_t output_argmax(const thaw_row *row) {
    int64_t best = 0;
    float top = thaw_row_output(row, 0);
    for (int64_t i = 1; i < row->units; i++) {
        float value = thaw_row_output(row, i);
        if (value > top) {
            top = value;
            best = i;
        }
    }
    return best;
}

/* Keras' choice by shapes: binary for one unit (threshold strict), else sparse categorical for an index, else categorical. */
static bool is_right(const thaw_row *row) {
    if (row->units == 1)
        return (thaw_row_output(row, 0) > 0.5f ? 1.0f : 0.0f) == row->y[0];
    return output_argmax(row) == (row->index >= 0 ? row->index : thaw_argmax(row->y, row->units));
}

/* Mean over the units of squared or absolute errors. */
static double mean_error(const thaw_row *row, bool squared) {
    double sum = 0.0;
    for (int64_t i = 0; i < row->units; i++) {
        double error = thaw_row_target(row, i) - (double)thaw_row_output(row, i);
        sum += squared ? error * error : fabs(error);
    }
    return sum / (double)row->units;
}

void thaw_metric_add(const thaw_objective *objective, const thaw_row *row, thaw_sums *sums) {
    for (int m = 0; m < objective->n_metrics; m++)
        switch (objective->metrics[m]) {
        case THAW_METRIC_ACCURACY: sums->metric[m] += is_right(row) ? 1.0 : 0.0; break;
        case THAW_METRIC_MSE: sums->metric[m] += mean_error(row, true); break;
        case THAW_METRIC_MAE: sums->metric[m] += mean_error(row, false); break;
        case THAW_METRICS: break;
        }
}

void thaw_objective_output(const thaw_objective *objective, int64_t n, const float *z, float *p) {
    for (int64_t image = 0; image < n; image++, z += objective->units, p += objective->units) {
        thaw_row row = thaw_row_make(objective, z, NULL);
        for (int64_t i = 0; i < row.units; i++) /* reads z[i] before p[i] is written: p may be z */
            p[i] = thaw_row_output(&row, i);
    }
}
