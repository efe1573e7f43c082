/* Activations, reference. Comparisons are written so that NaN stays NaN. */
#include <math.h>

#include "kernels/kernels_ref.h"

static double sigmoid(double v) { return 1.0 / (1.0 + exp(-v)); }

float thaw_ref_activate(thaw_activation act, float x) {
    double v = (double)x;
    switch (act) {
    case THAW_ACTIVATION_RELU: return v < 0.0 ? 0 : x;
    case THAW_ACTIVATION_RELU6: return v < 0.0 ? 0 : v > 6.0 ? 6 : x;
    case THAW_ACTIVATION_ELU: return v < 0.0 ? (float)expm1(v) : x;
    case THAW_ACTIVATION_TANH: return (float)tanh(v);
    case THAW_ACTIVATION_SIGMOID: return (float)sigmoid(v);
    case THAW_ACTIVATION_SWISH: return (float)(v * sigmoid(v));
    case THAW_ACTIVATION_LINEAR:
    case THAW_ACTIVATION_SOFTMAX:
    case THAW_ACTIVATIONS: break;
    }
    return x;
}

/* y(c) = exp(x - max) / sum */
static void softmax(int64_t c, const float *x, float *y) {
    double most = (double)x[0], sum = 0.0;
    for (int64_t i = 1; i < c; i++)
        most = (double)x[i] > most ? (double)x[i] : most;
    for (int64_t i = 0; i < c; i++)
        sum += exp((double)x[i] - most);
    for (int64_t i = 0; i < c; i++)
        y[i] = (float)(exp((double)x[i] - most) / sum);
}

static void activation_forward(thaw_activation act, int64_t count, int64_t c, const float *x, float *y) {
    if (act == THAW_ACTIVATION_SOFTMAX) {
        for (int64_t at = 0; at < count; at += c)
            softmax(c, x + at, y + at);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        y[i] = thaw_ref_activate(act, x[i]);
}

/* Derivative of act where the input is x (used by swish) and the output y. At the kinks as TensorFlow: relu 0 at 0, relu6
 * also 0 at 6. */
static double slope_of(thaw_activation act, double x, double y) {
    switch (act) {
    case THAW_ACTIVATION_RELU: return y > 0.0 ? 1.0 : 0.0;
    case THAW_ACTIVATION_RELU6: return y > 0.0 && y < 6.0 ? 1.0 : 0.0;
    case THAW_ACTIVATION_ELU: return y < 0.0 ? y + 1.0 : 1.0;
    case THAW_ACTIVATION_TANH: return 1.0 - y * y;
    case THAW_ACTIVATION_SIGMOID: return y * (1.0 - y);
    case THAW_ACTIVATION_SWISH: return sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    case THAW_ACTIVATION_LINEAR:
    case THAW_ACTIVATION_SOFTMAX:
    case THAW_ACTIVATIONS: break;
    }
    return 1.0;
}

static void activation_backward(thaw_activation act, int64_t count, int64_t c, const float *x, const float *y,
                                const float *dy, float *dx, bool accumulate) {
    for (int64_t at = 0; act == THAW_ACTIVATION_SOFTMAX && at < count; at += c) {
        double dot = 0.0;
        for (int64_t i = at; i < at + c; i++)
            dot += (double)dy[i] * (double)y[i];
        for (int64_t i = at; i < at + c; i++)
            dx[i] = (float)((accumulate ? (double)dx[i] : 0.0) + (double)y[i] * ((double)dy[i] - dot));
    }
    if (act == THAW_ACTIVATION_SOFTMAX)
        return;
    for (int64_t i = 0; i < count; i++) {
        double in = act == THAW_ACTIVATION_SWISH ? (double)x[i] : 0.0, out = act ? (double)y[i] : 0.0;
        double slope = slope_of(act, in, out);
        double gradient = slope == 0.0 ? 0.0 : (double)dy[i] * slope;
        dx[i] = (float)((accumulate ? (double)dx[i] : 0.0) + gradient);
    }
}

static void relu_forward(float max_value, float slope, float threshold, int64_t count, const float *x, float *y) {
    for (int64_t i = 0; i < count; i++) {
        float v = x[i];
        if (v > threshold)
            y[i] = v < max_value ? v : max_value;
        else if (v <= threshold)
            y[i] = slope == 0 ? 0 : slope * (v - threshold);
        else /* NaN */
            y[i] = v;
    }
}

/* At the kinks as Keras on TensorFlow, which builds the layer from relu, relu6, leaky_relu and clip: at the threshold 0, or
 * `slope` in the leaky form; at max_value 1 (clip), or 0 in the form of relu6. */
static void relu_backward(float max_value, float slope, float threshold, int64_t count, const float *x, const float *dy,
                          float *dx, bool accumulate) {
    bool leaky = threshold == 0 && max_value == (float)INFINITY, six = threshold == 0 && max_value == 6;
    for (int64_t i = 0; i < count; i++) {
        float v = x[i], gradient = 0;
        if (v > threshold)
            gradient = v < max_value || (v == max_value && !six) ? dy[i] : 0;
        else if ((v < threshold || leaky) && slope != 0)
            gradient = slope * dy[i];
        dx[i] = (accumulate ? dx[i] : 0) + gradient;
    }
}

void thaw_ref_activation(thaw_kernels *table) {
    table->activation_forward = activation_forward;
    table->activation_backward = activation_backward;
    table->relu_forward = relu_forward;
    table->relu_backward = relu_backward;
}
