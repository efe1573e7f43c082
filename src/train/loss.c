/* Losses and their gradients in z (Keras 3.15 losses/losses.py, backend/tensorflow/nn.py). Per image, C = units:
 *
 *   sigmoid + binary:      L = 1/C sum max(z,0) - z t + log(1 + exp(-|z|))        dL/dz = (p - t)/C
 *   softmax + categorical: L = sum t (log sum exp z - z)                          dL/dz = p - t
 *   else, with q = clip(p, 1e-7, 1 - 1e-7):
 *   binary:                L = -1/C sum t log q + (1-t) log(1-q)
 *   categorical, one-hot:  L = -sum t log clip(p / sum p)
 *   categorical, index k:  L = -log(q_k / sum q)
 *   mse, mae:              L = 1/C sum (t-p)^2, 1/C sum |t-p|
 *
 * The clip passes no gradient outside of its interval. Arithmetic is double on float32 outputs. */
#include <math.h>
#include <stdbool.h>

#include "base/log.h"
#include "train/loss_row.h"

/* The clip's ends as TensorFlow rounds them: 1 - 1e-7 is 0.99999988 in float32. */
#define LOW 1e-7f
#define HIGH ((float)(1.0 - 1e-7))

static bool inside(float p) { return !(p < LOW || p > HIGH); }
static float clip(float p) { return p < LOW ? LOW : p > HIGH ? HIGH : p; }

static bool is_crossentropy(thaw_loss loss) {
    return loss == THAW_LOSS_BINARY_CROSSENTROPY || loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY;
}

/* Loss and final activation match: computed from logits. */
static bool from_logits(const thaw_objective *o) {
    return (o->loss == THAW_LOSS_BINARY_CROSSENTROPY && o->final == THAW_ACTIVATION_SIGMOID) ||
           (o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY && o->final == THAW_ACTIVATION_SOFTMAX);
}

thaw_loss thaw_loss_default(thaw_activation final) {
    return final == THAW_ACTIVATION_SIGMOID   ? THAW_LOSS_BINARY_CROSSENTROPY
           : final == THAW_ACTIVATION_SOFTMAX ? THAW_LOSS_CATEGORICAL_CROSSENTROPY
                                              : THAW_LOSS_MSE;
}

thaw_status thaw_objective_check(const thaw_objective *o, int n_classes) {
    const char *loss = thaw_loss_name(o->loss);
    long long units = o->units, width = o->y_width;
    if (n_classes == 1 && is_crossentropy(o->loss))
        return thaw_fail(THAW_USAGE, "loss %s: the data has one class folder; telling classes apart takes two or more", loss);
    if (units == 1 && o->final == THAW_ACTIVATION_SOFTMAX)
        return thaw_fail(THAW_USAGE, "the network ends in a softmax over one unit, which is always 1; for two classes use "
                                     "Dense: {units: 1, activation: sigmoid} with loss binary_crossentropy");
    if (units == 1 && o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY)
        return thaw_fail(THAW_USAGE, "loss %s needs one unit per class, the network ends in one unit; use Dense: {units: %d, "
                                     "activation: softmax}, or loss binary_crossentropy for two classes",
                         loss, n_classes > 1 ? n_classes : 2);
    if (units == 1 && n_classes && n_classes != 2 && o->loss == THAW_LOSS_BINARY_CROSSENTROPY)
        return thaw_fail(THAW_USAGE, "loss %s with one unit takes two classes, the data has %d; use Dense: {units: %d, "
                                     "activation: softmax} with loss categorical_crossentropy",
                         loss, n_classes, n_classes);
    if (units > 1 && n_classes && n_classes != units)
        return thaw_fail(THAW_USAGE, "the network ends in %lld units, the data has %d classes; end model.head with Dense: "
                                     "{units: %d, activation: %s}%s",
                         units, n_classes, n_classes == 2 && o->loss == THAW_LOSS_BINARY_CROSSENTROPY ? 1 : n_classes,
                         o->loss == THAW_LOSS_BINARY_CROSSENTROPY ? "sigmoid" : "softmax",
                         n_classes > 2 && o->loss == THAW_LOSS_BINARY_CROSSENTROPY
                             ? ", or with activation softmax and loss categorical_crossentropy"
                             : "");
    if (width != 1 && width != units)
        return thaw_fail(THAW_USAGE, "y has %lld values a sample, the network ends in %lld unit%s; end model.head with Dense: "
                                     "{units: %lld}",
                         width, units, units == 1 ? "" : "s", width);
    if (width == 1 && units > 1 && !n_classes && !is_crossentropy(o->loss))
        return thaw_fail(THAW_USAGE, "loss %s: y has one value a sample, the network ends in %lld units; end model.head with "
                                     "Dense: {units: 1}, or give y one value a unit",
                         loss, units);
    if (is_crossentropy(o->loss) && !from_logits(o)) {
        bool binary = o->loss == THAW_LOSS_BINARY_CROSSENTROPY;
        if (o->final == THAW_ACTIVATION_LINEAR)
            thaw_warn("loss %s takes the network's last values for probabilities and clips them to 1e-7 .. 1 - 1e-7, as Keras "
                      "does; the last layer has neither sigmoid nor softmax: give it activation: %s",
                      loss, binary ? "sigmoid" : "softmax");
        else
            thaw_warn("loss %s on a %s is computed from the probabilities (clipped); Keras on TensorFlow puts the logits of "
                      "the %s into a %s there, so its losses differ",
                      loss, binary ? "softmax" : "sigmoid", binary ? "softmax" : "sigmoid",
                      binary ? "sigmoid" : "softmax");
    }
    return THAW_OK;
}

/* Refuses labels that the loss has no meaning for. */
static thaw_status check_labels(const thaw_objective *o, const float *y) {
    if (o->y_width == 1 && o->units > 1) {
        double label = (double)y[0];
        if (!(label >= 0.0 && label < (double)o->units) || label != floor(label))
            return thaw_fail(THAW_DATA, "label %g: the network has %lld units, so labels are whole numbers from 0 to %lld",
                             label, (long long)o->units, (long long)o->units - 1);
        return THAW_OK;
    }
    for (int64_t i = 0; i < o->y_width; i++) {
        double label = (double)y[i];
        if (is_crossentropy(o->loss) ? !(label >= 0.0 && label <= 1.0) : !isfinite(label))
            return thaw_fail(THAW_DATA, "label %g: %s takes %s", label, thaw_loss_name(o->loss),
                             is_crossentropy(o->loss) ? "values from 0 to 1" : "finite values");
    }
    return THAW_OK;
}

/* Keras' class_weight: by the index, the largest of several values, or the rounded value; 1 for a class without weight. */
static double image_weight(const thaw_objective *o, const thaw_row *row) {
    if (!o->class_weight)
        return 1.0;
    double k = row->index >= 0 ? (double)row->index
               : o->y_width > 1 ? (double)thaw_argmax(row->y, o->y_width)
                                : nearbyint((double)row->y[0]);
    return k >= 0.0 && k < (double)o->n_classes ? (double)o->class_weight[(int)k] : 1.0;
}

static double binary_from_logits(const thaw_row *row, double factor, float *dz) {
    double loss = 0.0, c = (double)row->units;
    for (int64_t i = 0; i < row->units; i++) {
        double z = (double)row->z[i], t = thaw_row_target(row, i);
        loss += (z > 0.0 ? z : 0.0) - z * t + log1p(exp(-fabs(z)));
        if (dz)
            dz[i] = (float)((1.0 / (1.0 + exp(-z)) - t) / c * factor);
    }
    return loss / c;
}

static double categorical_from_logits(const thaw_row *row, double factor, float *dz) {
    double loss = 0.0, log_sum = log(row->sum);
    for (int64_t i = 0; i < row->units; i++) {
        double z = (double)row->z[i] - row->top, t = thaw_row_target(row, i);
        if (t != 0.0) /* a logit of -inf with target 0 costs nothing */
            loss += t * (log_sum - z);
        if (dz)
            dz[i] = (float)((exp(z) / row->sum - t) * factor);
    }
    return loss;
}

/* Sums over a row that the clipped losses need before their elements: of p (one-hot), of q and nothing else (index). */
static double row_total(const thaw_objective *o, const thaw_row *row) {
    double total = 0.0;
    if (o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY)
        for (int64_t i = 0; i < row->units; i++) {
            float p = thaw_row_output(row, i);
            total += (double)(row->index >= 0 ? clip(p) : p);
        }
    return total;
}

/* Output i's part of the loss, and dL/du: u = p / total for one-hot targets, else p itself. */
static double element(const thaw_objective *o, const thaw_row *row, double total, int64_t i, double *du) {
    float p = thaw_row_output(row, i);
    double t = thaw_row_target(row, i), c = (double)row->units, error = (double)p - t;
    double q = (double)clip(p);
    switch (o->loss) {
    case THAW_LOSS_BINARY_CROSSENTROPY:
        *du = inside(p) ? ((1.0 - t) / (1.0 - q) - t / q) / c : 0.0;
        return -(t * log(q) + (1.0 - t) * log(1.0 - q)) / c;
    case THAW_LOSS_CATEGORICAL_CROSSENTROPY:
        if (row->index >= 0) {
            *du = inside(p) ? 1.0 / total - t / q : 0.0;
            return t > 0.0 ? log(total) - log(q) : 0.0;
        }
        p = (float)((double)p / total);
        q = (double)clip(p);
        *du = inside(p) ? -t / q : 0.0;
        return -t * log(q);
    case THAW_LOSS_MSE: *du = 2.0 * error / c; return error * error / c;
    case THAW_LOSS_MAE: break;
    }
    *du = (error > 0.0 ? 1.0 : error < 0.0 ? -1.0 : 0.0) / c; /* the derivative of |x| at 0 is 0, as TensorFlow's sign */
    return fabs(error) / c;
}

/* Any loss on outputs: dL/dp, then through the division by the sum and the final activation. */
static double from_outputs(const thaw_objective *o, const thaw_row *row, double factor, float *dz) {
    double total = row_total(o, row), loss = 0.0, along_u = 0.0, along_p = 0.0, du;
    bool divided = o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY && row->index < 0;
    for (int64_t i = 0; i < row->units; i++) {
        loss += element(o, row, total, i, &du);
        along_u += du * (double)thaw_row_output(row, i);
    }
    if (!dz)
        return loss;
    along_u = divided ? along_u / total : 0.0;
    double inverse = divided ? 1.0 / total : 1.0; /* dL/dp = (dL/du - sum_j dL/du_j u_j) / total */
    for (int64_t i = 0; row->final == THAW_ACTIVATION_SOFTMAX && i < row->units; i++) {
        element(o, row, total, i, &du);
        along_p += (du - along_u) * inverse * (double)thaw_row_output(row, i);
    }
    for (int64_t i = 0; i < row->units; i++) {
        element(o, row, total, i, &du);
        double p = (double)thaw_row_output(row, i), dp = (du - along_u) * inverse;
        if (row->final == THAW_ACTIVATION_SIGMOID)
            dp *= p * (1.0 - p);
        else if (row->final == THAW_ACTIVATION_SOFTMAX)
            dp = p * (dp - along_p);
        dz[i] = (float)(dp * factor);
    }
    return loss;
}

thaw_status thaw_objective_batch(const thaw_objective *o, int64_t n, const float *z, const float *y, double scale,
                                 float *dz, thaw_sums *sums) {
    for (int64_t image = 0; image < n; image++) {
        THAW_TRY(check_labels(o, y + image * o->y_width));
        thaw_row row = thaw_row_make(o, z + image * o->units, y + image * o->y_width);
        double weight = image_weight(o, &row), loss;
        float *row_dz = dz ? dz + image * o->units : NULL;
        if (!from_logits(o))
            loss = from_outputs(o, &row, scale * weight, row_dz);
        else if (o->loss == THAW_LOSS_BINARY_CROSSENTROPY)
            loss = binary_from_logits(&row, scale * weight, row_dz);
        else
            loss = categorical_from_logits(&row, scale * weight, row_dz);
        sums->loss += loss * weight;
        sums->images += 1.0;
        thaw_metric_add(o, &row, sums);
    }
    return THAW_OK;
}
