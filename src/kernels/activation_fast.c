/* Activations, fast: pieces of a fixed number of values, simple loops that compilers vectorise. NaN stays NaN. */
#include <math.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

static float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

void thaw_fast_activate(thaw_activation act, int64_t count, float *y) {
    switch (act) {
    case THAW_ACTIVATION_RELU:
        for (int64_t i = 0; i < count; i++)
            y[i] = y[i] < 0.0f ? 0.0f : y[i];
        break;
    case THAW_ACTIVATION_RELU6:
        for (int64_t i = 0; i < count; i++) {
            float v = y[i] < 0.0f ? 0.0f : y[i];
            y[i] = v > 6.0f ? 6.0f : v;
        }
        break;
    case THAW_ACTIVATION_ELU:
        for (int64_t i = 0; i < count; i++)
            y[i] = y[i] < 0.0f ? expm1f(y[i]) : y[i];
        break;
    case THAW_ACTIVATION_TANH:
        for (int64_t i = 0; i < count; i++)
            y[i] = tanhf(y[i]);
        break;
    case THAW_ACTIVATION_SIGMOID:
        for (int64_t i = 0; i < count; i++)
            y[i] = sigmoid(y[i]);
        break;
    case THAW_ACTIVATION_SWISH:
        for (int64_t i = 0; i < count; i++)
            y[i] *= sigmoid(y[i]);
        break;
    case THAW_ACTIVATION_LINEAR:
    case THAW_ACTIVATION_SOFTMAX:
    case THAW_ACTIVATIONS: break;
    }
}

void thaw_fast_finish(int64_t rows, int64_t c, int64_t stride, const float *bias, thaw_activation act, float *y) {
    for (int64_t row = 0; row < rows; row++, y += stride) {
        for (int64_t i = 0; bias && i < c; i++)
            y[i] += bias[i];
        thaw_fast_activate(act, c, y);
    }
}

/* y(c) = exp(x - max) / sum; the sum in double, in order. */
static void softmax(int64_t c, const float *x, float *y) {
    float most = x[0];
    double sum = 0.0;
    for (int64_t i = 1; i < c; i++)
        most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < c; i++) {
        y[i] = expf(x[i] - most);
        sum += (double)y[i];
    }
    for (int64_t i = 0; i < c; i++)
        y[i] = (float)((double)y[i] / sum);
}

static void activation_forward(thaw_activation act, int64_t count, int64_t c, const float *x, float *y) {
    if (act == THAW_ACTIVATION_SOFTMAX) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (count > THAW_PIECE)
        for (int64_t row = 0; row < count / c; row++)
            softmax(c, x + row * c, y + row * c);
        return;
    }
    int64_t pieces = thaw_ceil_div(count, THAW_PIECE);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t at = piece * THAW_PIECE, size = thaw_least(THAW_PIECE, count - at);
        if (x != y)
            memcpy(y + at, x + at, (size_t)size * sizeof *y);
        thaw_fast_activate(act, size, y + at);
    }
}

static void softmax_backward(int64_t c, const float *y, const float *dy, float *dx, bool accumulate) {
    double dot = 0.0;
    for (int64_t i = 0; i < c; i++)
        dot += (double)dy[i] * (double)y[i];
    for (int64_t i = 0; i < c; i++)
        dx[i] = (accumulate ? dx[i] : 0.0f) + (float)((double)y[i] * ((double)dy[i] - dot));
}

/* One piece: dx (+)= dy * derivative. At the kinks as TensorFlow: relu 0 at 0, relu6 also 0 at 6. */
static void backward_piece(thaw_activation act, int64_t count, const float *x, const float *y, const float *dy, float *dx,
                           bool accumulate) {
#define THAW_GRADIENT(expression)                            \
    for (int64_t i = 0; i < count; i++) {                    \
        float gradient = (expression);                       \
        dx[i] = accumulate ? dx[i] + gradient : gradient;    \
    }                                                        \
    break
    switch (act) {
    case THAW_ACTIVATION_RELU: thaw_isa_get()->relu_gradient(count, y, dy, dx, accumulate); break;
    case THAW_ACTIVATION_RELU6: THAW_GRADIENT(((y[i] > 0.0f) & (y[i] < 6.0f)) ? dy[i] : 0.0f);
    case THAW_ACTIVATION_ELU: THAW_GRADIENT(y[i] < 0.0f ? dy[i] * (y[i] + 1.0f) : dy[i]);
    case THAW_ACTIVATION_TANH: THAW_GRADIENT(dy[i] * ((1.0f - y[i]) * (1.0f + y[i])));
    case THAW_ACTIVATION_SIGMOID: THAW_GRADIENT(dy[i] * (y[i] * (1.0f - y[i])));
    case THAW_ACTIVATION_SWISH: THAW_GRADIENT(dy[i] * (sigmoid(x[i]) * (1.0f + x[i] * (1.0f - sigmoid(x[i])))));
    case THAW_ACTIVATION_LINEAR: THAW_GRADIENT(dy[i]);
    case THAW_ACTIVATION_SOFTMAX:
    case THAW_ACTIVATIONS: break;
    }
#undef THAW_GRADIENT
}

static void activation_backward(thaw_activation act, int64_t count, int64_t c, const float *x, const float *y,
                                const float *dy, float *dx, bool accumulate) {
    if (act == THAW_ACTIVATION_SOFTMAX) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (count > THAW_PIECE)
        for (int64_t row = 0; row < count / c; row++)
            softmax_backward(c, y + row * c, dy + row * c, dx + row * c, accumulate);
        return;
    }
    if (act == THAW_ACTIVATION_LINEAR && dx == dy && !accumulate)
        return;
    bool uses_x = act == THAW_ACTIVATION_SWISH, uses_y = act != THAW_ACTIVATION_LINEAR && !uses_x;
    int64_t pieces = thaw_ceil_div(count, THAW_PIECE);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t at = piece * THAW_PIECE;
        backward_piece(act, thaw_least(THAW_PIECE, count - at), uses_x ? x + at : NULL, uses_y ? y + at : NULL, dy + at,
                       dx + at, accumulate);
    }
}

static void relu_forward(float max_value, float slope, float threshold, int64_t count, const float *x, float *y) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (count > THAW_PIECE)
    for (int64_t i = 0; i < count; i++) {
        float v = x[i], above = v < max_value ? v : max_value, below = slope == 0.0f ? 0.0f : slope * (v - threshold);
        y[i] = v > threshold ? above : v <= threshold ? below : v;
    }
}

/* At the kinks as Keras on TensorFlow, which builds the layer from relu, relu6, leaky_relu and clip: at the threshold 0, or
 * `slope` in the leaky form; at max_value 1 (clip), or 0 in the form of relu6. */
static void relu_backward(float max_value, float slope, float threshold, int64_t count, const float *x, const float *dy,
                          float *dx, bool accumulate) {
    bool none = threshold == 0.0f;
    float at_threshold = none && isinf(max_value) ? slope : 0.0f, at_most = none && max_value == 6.0f ? 0.0f : 1.0f;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (count > THAW_PIECE)
    for (int64_t i = 0; i < count; i++) {
        float v = x[i];
        float above = v < max_value ? 1.0f : v == max_value ? at_most : 0.0f;
        float below = v < threshold ? slope : v == threshold ? at_threshold : 0.0f;
        float factor = v > threshold ? above : below, gradient = factor == 0.0f ? 0.0f : factor * dy[i];
        dx[i] = accumulate ? dx[i] + gradient : gradient;
    }
}

void thaw_fast_activation(thaw_kernels *table) {
    table->activation_forward = activation_forward;
    table->activation_backward = activation_backward;
    table->relu_forward = relu_forward;
    table->relu_backward = relu_backward;
}
