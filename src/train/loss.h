/* Losses and metrics on the network's raw output z (before a final sigmoid or softmax). */
#ifndef THAW_TRAIN_LOSS_H
#define THAW_TRAIN_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#include "job/job.h"
#include "thaw/model.h"
#include "thaw/status.h"

/* How labels, loss and the network's output fit together; made once per run. */
typedef struct thaw_objective {
    thaw_loss loss;
    thaw_activation final;  /* SIGMOID or SOFTMAX: z are logits; LINEAR: z is the output itself (any other activation is
                               already applied) */
    int64_t units;          /* outputs of the network, C */
    int64_t y_width;        /* 1: class index (categorical) or value; C: one-hot or values */
    int n_metrics;
    thaw_metric metrics[THAW_METRICS];
    const float *class_weight; /* per class (n_classes), NULL: none; borrowed */
    int n_classes;
} thaw_objective;

/* The loss of a job that names none: what fits the network's final activation. */
thaw_loss thaw_loss_default(thaw_activation final);

/* Checks that loss, units, labels and final activation fit (DESIGN 5, "Labels follow loss and units"). `n_classes`: class
 * folders, 0 for arrays. Warns once for cross-entropy on a linear output, and for a pair that Keras on TensorFlow computes
 * differently. Errors: THAW_USAGE saying which head fits. */
thaw_status thaw_objective_check(const thaw_objective *objective, int n_classes);

/* Sums over images, in double: added to by each batch, reduced over ranks, turned into values at the end of an epoch. */
typedef struct thaw_sums {
    double images, loss;
    double metric[THAW_METRICS]; /* by position in objective->metrics: sum over images (accuracy: number right) */
} thaw_sums;

/* For n images: adds loss and metric sums, and writes dz (n,units) = d(loss sum)/dz * scale (scale = 1/N of the global
 * batch); dz may be NULL. z (n,units), y (n,y_width). Per-image loss is Keras 3.15's (reference: keras-files.md 5.5): from
 * logits for matching pairs, Keras' clipped form otherwise; class_weight multiplies an image's loss but not the divisor.
 * One index and C units mean the one-hot row to binary cross-entropy, mse and mae too. Work is done in image order by one
 * thread. A label outside 0..C-1 (cross-entropy: a target outside 0..1) is THAW_DATA. */
thaw_status thaw_objective_batch(const thaw_objective *objective, int64_t n, const float *z, const float *y, double scale,
                                 float *dz, thaw_sums *sums);
/* Probabilities / outputs from z: applies `final`. p may be z. */
void thaw_objective_output(const thaw_objective *objective, int64_t n, const float *z, float *p);
#endif
