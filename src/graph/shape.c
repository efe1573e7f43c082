/* Shape inference (Keras' rules) with the checks that make every later product of dims safe.
 *
 * A file may say anything. After this file a dim, kernel, stride or pad is at most INT32_MAX, an activation has at most
 * MAX_VALUES values an image, a tensor at most MAX_WEIGHTS, so that sums and products of them fit into 64 bits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/memory.h"
#include "graph/build.h"

#define MAX_VALUES ((int64_t)INT32_MAX) /* global pooling keeps the cell of the maximum in 32 bits */
#define MAX_WEIGHTS ((int64_t)1 << 36)
#define MAX_TAPS 65535 /* max pooling keeps the tap of the maximum in 16 bits */

int64_t thaw_shape_count(const thaw_shape *shape) {
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++)
        count *= shape->dim[i];
    return count;
}

const char *thaw_shape_text(const thaw_shape *shape) {
    static _Thread_local char texts[4][80];
    static _Thread_local unsigned next;
    char *text = texts[next++ % 4];
    if (shape->rank == 3)
        snprintf(text, sizeof texts[0], "(%" PRId64 ", %" PRId64 ", %" PRId64 ")", shape->dim[0], shape->dim[1],
                 shape->dim[2]);
    else if (shape->rank == 2)
        snprintf(text, sizeof texts[0], "(%" PRId64 ", %" PRId64 ")", shape->dim[0], shape->dim[1]);
    else
        snprintf(text, sizeof texts[0], "(%" PRId64 ")", shape->dim[0]);
    return text;
}

/* One call that is being inferred. */
typedef struct inference {
    thaw_layer *layer;
    const thaw_shape *in;
    int n_in;
    thaw_shape *out;
    thaw_tensor *tensors;
    int n_tensors;
} inference;

/* Product of positive factors, or 0 when it exceeds `limit`. */
static int64_t product(const int64_t *factors, int n, int64_t limit) {
    int64_t total = 1;
    for (int i = 0; i < n; i++) {
        if (factors[i] < 1 || factors[i] > limit / total)
            return 0;
        total *= factors[i];
    }
    return total;
}

static thaw_status add_tensor(inference *call, const char *name, const int64_t *shape, int rank, bool statistic,
                              thaw_initializer initializer, float a) {
    int64_t count = product(shape, rank, MAX_WEIGHTS);
    if (!count)
        return thaw_fail(THAW_DATA, "layer %s: its %s would have more than 2^36 weights; the arguments of the layer or the "
                                    "input size are wrong", call->layer->name, name);
    thaw_tensor *tensor = &call->tensors[call->n_tensors++];
    *tensor = (thaw_tensor){.name = name, .rank = rank, .count = (size_t)count, .statistic = statistic,
                            .initializer = initializer, .init_a = a};
    for (int i = 0; i < rank; i++)
        tensor->shape[i] = shape[i];
    return THAW_OK;
}

/* An integer argument of the layer. */
static thaw_status check_range(const inference *call, const char *what, int64_t value, int64_t lowest) {
    if (value < lowest || value > INT32_MAX)
        return thaw_fail(THAW_DATA, "layer %s (%s): %s must be from %" PRId64 " to %d, found %" PRId64, call->layer->name,
                         thaw_layer_class(call->layer->kind), what, lowest, INT32_MAX, value);
    return THAW_OK;
}

/* A real argument of the layer: finite and at least `lowest`. */
static thaw_status check_real(const inference *call, const char *what, float value, double lowest) {
    if (!isfinite(value) || (double)value < lowest)
        return thaw_fail(THAW_DATA, "layer %s (%s): %s must be a finite number of %g or more, found %g", call->layer->name,
                         thaw_layer_class(call->layer->kind), what, lowest, (double)value);
    return THAW_OK;
}

static thaw_status need_map(const inference *call) {
    if (call->in[0].rank != 3)
        return thaw_fail(THAW_DATA, "layer %s: %s works on a map (H, W, C), its input is a vector of %" PRId64 " values",
                         call->layer->name, thaw_layer_class(call->layer->kind), call->in[0].dim[0]);
    return THAW_OK;
}

static thaw_status infer_input(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    *call->out = (thaw_shape){.rank = c->target_rank};
    if (c->target_rank != 1 && c->target_rank != 3)
        return thaw_fail(THAW_DATA, "layer %s: inputs of %d dims are not supported; images (H, W, C) and vectors are",
                         call->layer->name, c->target_rank);
    for (int i = 0; i < c->target_rank; i++)
        call->out->dim[i] = c->target[i];
    if (!product(c->target, c->target_rank, MAX_VALUES))
        return thaw_fail(THAW_DATA, "layer %s: input shape %s is not usable: every dim must be known and positive, with "
                                    "fewer than 2^31 values in all", call->layer->name, thaw_shape_text(call->out));
    return THAW_OK;
}

/* Convolution and pooling, rows (i = 0) and columns: VALID floor((n - d(k-1) - 1)/s) + 1, SAME ceil(n/s). */
static thaw_status infer_window(inference *call, bool conv) {
    thaw_layer_config *c = &call->layer->config;
    THAW_TRY(need_map(call));
    *call->out = call->in[0];
    for (int i = 0; i < 2; i++) {
        if (!conv && c->strides[i] == 0)
            c->strides[i] = c->kernel[i];
        int64_t n = call->in[0].dim[i], d = conv ? c->dilation[i] : 1;
        THAW_TRY(check_range(call, conv ? "kernel_size" : "pool_size", c->kernel[i], 1));
        THAW_TRY(check_range(call, "strides", c->strides[i], 1));
        THAW_TRY(check_range(call, "dilation_rate", d, 1));
        int64_t reach = d * (c->kernel[i] - 1) + 1; /* rows that one window spans */
        if (!c->same && n < reach)
            return thaw_fail(THAW_DATA, "layer %s: its window of %" PRId64 " %s is larger than the map %s before it; use a "
                                        "larger input size", call->layer->name, reach, i ? "columns" : "rows",
                             thaw_shape_text(&call->in[0]));
        call->out->dim[i] = c->same ? (n - 1) / c->strides[i] + 1 : (n - reach) / c->strides[i] + 1;
    }
    return THAW_OK;
}

static thaw_status infer_conv(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    THAW_TRY(infer_window(call, true));
    THAW_TRY(check_range(call, "filters", c->filters, 1));
    if ((c->strides[0] > 1 || c->strides[1] > 1) && (c->dilation[0] > 1 || c->dilation[1] > 1))
        return thaw_fail(THAW_DATA, "layer %s: strides (%" PRId64 ", %" PRId64 ") together with dilation_rate (%" PRId64
                                    ", %" PRId64 "); Keras allows one of them above 1", call->layer->name, c->strides[0],
                         c->strides[1], c->dilation[0], c->dilation[1]);
    call->out->dim[2] = c->filters;
    int64_t kernel[4] = {c->kernel[0], c->kernel[1], call->in[0].dim[2], c->filters};
    THAW_TRY(add_tensor(call, "kernel", kernel, 4, false, THAW_INIT_GLOROT_UNIFORM, 0.0f));
    return c->use_bias ? add_tensor(call, "bias", &c->filters, 1, false, THAW_INIT_CONSTANT, 0.0f) : THAW_OK;
}

static thaw_status infer_pool(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    THAW_TRY(infer_window(call, false));
    if (call->layer->kind == THAW_LAYER_MAX_POOLING && !product(c->kernel, 2, MAX_TAPS))
        return thaw_fail(THAW_DATA, "layer %s: a pool_size of %" PRId64 " x %" PRId64 " has more than %d cells; use "
                                    "GlobalMaxPooling2D for whole maps", call->layer->name, c->kernel[0], c->kernel[1],
                         MAX_TAPS);
    return THAW_OK;
}

static thaw_status infer_global_pool(inference *call) {
    THAW_TRY(need_map(call));
    int64_t c = call->in[0].dim[2];
    *call->out = call->layer->config.keepdims ? (thaw_shape){3, {1, 1, c}} : (thaw_shape){1, {c, 0, 0}};
    return THAW_OK;
}

static thaw_status infer_reshape(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    thaw_shape *out = call->out;
    *out = (thaw_shape){.rank = c->target_rank};
    if (c->target_rank != 1 && c->target_rank != 3)
        return thaw_fail(THAW_DATA, "layer %s: Reshape to %d dims is not supported; a map (H, W, C) and a vector are",
                         call->layer->name, c->target_rank);
    int64_t total = thaw_shape_count(&call->in[0]), known = 1;
    int open = -1;
    bool fits = true;
    for (int i = 0; i < out->rank; i++) {
        out->dim[i] = c->target[i];
        if (c->target[i] == -1 && open < 0) {
            open = i;
        } else if (c->target[i] < 1 || c->target[i] > total / known) {
            fits = false;
            break;
        } else {
            known *= c->target[i];
        }
    }
    if (fits && open >= 0) {
        fits = total % known == 0;
        out->dim[open] = total / known;
    } else {
        fits = fits && known == total;
    }
    if (!fits)
        return thaw_fail(THAW_DATA, "layer %s: Reshape to %s does not hold the %" PRId64 " values of its input %s",
                         call->layer->name, thaw_shape_text(&(thaw_shape){c->target_rank, {c->target[0], c->target[1],
                                                                                          c->target[2]}}),
                         total, thaw_shape_text(&call->in[0]));
    return THAW_OK;
}

static thaw_status infer_dense(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    THAW_TRY(check_range(call, "units", c->filters, 1));
    *call->out = call->in[0]; /* Keras: the last axis, each cell of a map by itself */
    call->out->dim[call->out->rank - 1] = c->filters;
    int64_t kernel[2] = {call->in[0].dim[call->in[0].rank - 1], c->filters};
    THAW_TRY(add_tensor(call, "kernel", kernel, 2, false, THAW_INIT_GLOROT_UNIFORM, 0.0f));
    return c->use_bias ? add_tensor(call, "bias", &c->filters, 1, false, THAW_INIT_CONSTANT, 0.0f) : THAW_OK;
}

static thaw_status infer_norm(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    const int64_t *channels = &call->in[0].dim[call->in[0].rank - 1];
    *call->out = call->in[0];
    THAW_TRY(check_real(call, "epsilon", c->epsilon, 0.0));
    THAW_TRY(check_real(call, "momentum", c->momentum, 0.0));
    if (c->momentum > 1.0f)
        return thaw_fail(THAW_DATA, "layer %s: momentum must lie in [0, 1], found %g", call->layer->name,
                         (double)c->momentum);
    if (c->scale)
        THAW_TRY(add_tensor(call, "gamma", channels, 1, false, THAW_INIT_CONSTANT, 1.0f));
    if (c->center)
        THAW_TRY(add_tensor(call, "beta", channels, 1, false, THAW_INIT_CONSTANT, 0.0f));
    THAW_TRY(add_tensor(call, "moving_mean", channels, 1, true, THAW_INIT_CONSTANT, 0.0f));
    return add_tensor(call, "moving_variance", channels, 1, true, THAW_INIT_CONSTANT, 1.0f);
}

static thaw_status infer_padding(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    THAW_TRY(need_map(call));
    *call->out = call->in[0];
    for (int i = 0; i < 4; i++) {
        THAW_TRY(check_range(call, "padding", c->pad[i], 0));
        call->out->dim[i / 2] += c->pad[i];
    }
    return THAW_OK;
}

static thaw_status infer_merge(inference *call) {
    bool concatenates = call->layer->kind == THAW_LAYER_CONCATENATE;
    *call->out = call->in[0];
    int last = call->out->rank - 1;
    for (int i = 1; i < call->n_in; i++) {
        const thaw_shape *in = &call->in[i];
        bool same = in->rank == call->out->rank;
        for (int k = 0; same && k < in->rank; k++)
            same = in->dim[k] == call->in[0].dim[k] || (concatenates && k == last);
        if (!same)
            return thaw_fail(THAW_DATA, "layer %s: %s of %s and %s: %s", call->layer->name,
                             thaw_layer_class(call->layer->kind), thaw_shape_text(&call->in[0]), thaw_shape_text(in),
                             concatenates ? "all dims but the last must be equal" : "the shapes must be equal");
        if (concatenates)
            call->out->dim[last] += in->dim[last]; /* at most 2^31 each, and the number of inputs is bounded */
    }
    return THAW_OK;
}

static float *constant_array(int n, float value) {
    float *array = thaw_calloc((size_t)n, sizeof *array);
    for (int i = 0; array && i < n; i++)
        array[i] = value;
    return array;
}

static thaw_status infer_rescaling(inference *call) {
    thaw_layer_config *c = &call->layer->config;
    int64_t channels = call->in[0].dim[call->in[0].rank - 1];
    *call->out = call->in[0];
    if (c->n_rescale == 0 && !c->rescale && !c->offset)
        c->n_rescale = 1;
    if (c->n_rescale != 1 && c->n_rescale != channels)
        return thaw_fail(THAW_DATA, "layer %s: Rescaling by %d values on %" PRId64 " channels; 1 or %" PRId64
                                    " were expected", call->layer->name, c->n_rescale, channels, channels);
    if (!c->rescale)
        c->rescale = constant_array(c->n_rescale, 1.0f);
    if (!c->offset)
        c->offset = constant_array(c->n_rescale, 0.0f);
    if (!c->rescale || !c->offset)
        return thaw_fail(THAW_RESOURCE, "no memory for layer %s", call->layer->name);
    for (int i = 0; i < c->n_rescale; i++)
        if (!isfinite(c->rescale[i]) || !isfinite(c->offset[i]))
            return thaw_fail(THAW_DATA, "layer %s: Rescaling by scale %g and offset %g; finite numbers were expected",
                             call->layer->name, (double)c->rescale[i], (double)c->offset[i]);
    return THAW_OK;
}

/* Layers that leave the shape alone: their arguments. */
static thaw_status infer_elementwise(inference *call) {
    const thaw_layer_config *c = &call->layer->config;
    *call->out = call->in[0];
    if (call->layer->kind == THAW_LAYER_DROPOUT && !(c->rate >= 0.0f && c->rate < 1.0f))
        return thaw_fail(THAW_DATA, "layer %s: the rate of Dropout must lie in [0, 1), found %g", call->layer->name,
                         (double)c->rate);
    if (call->layer->kind == THAW_LAYER_RELU) {
        THAW_TRY(check_real(call, "negative_slope", c->negative_slope, 0.0));
        THAW_TRY(check_real(call, "threshold", c->threshold, 0.0));
        if (!(c->max_value >= 0.0f)) /* also NaN; INFINITY is none */
            return thaw_fail(THAW_DATA, "layer %s: max_value of ReLU must be 0 or more, found %g", call->layer->name,
                             (double)c->max_value);
    }
    return THAW_OK;
}

static thaw_status infer_kind(inference *call) {
    switch (call->layer->kind) {
    case THAW_LAYER_INPUT: return infer_input(call);
    case THAW_LAYER_CONV2D: return infer_conv(call);
    case THAW_LAYER_MAX_POOLING:
    case THAW_LAYER_AVERAGE_POOLING: return infer_pool(call);
    case THAW_LAYER_GLOBAL_AVERAGE_POOLING:
    case THAW_LAYER_GLOBAL_MAX_POOLING: return infer_global_pool(call);
    case THAW_LAYER_FLATTEN: *call->out = (thaw_shape){1, {thaw_shape_count(&call->in[0]), 0, 0}}; return THAW_OK;
    case THAW_LAYER_RESHAPE: return infer_reshape(call);
    case THAW_LAYER_DENSE: return infer_dense(call);
    case THAW_LAYER_BATCH_NORMALIZATION: return infer_norm(call);
    case THAW_LAYER_ZERO_PADDING: return infer_padding(call);
    case THAW_LAYER_ADD:
    case THAW_LAYER_CONCATENATE: return infer_merge(call);
    case THAW_LAYER_RESCALING: return infer_rescaling(call);
    case THAW_LAYER_DROPOUT:
    case THAW_LAYER_ACTIVATION:
    case THAW_LAYER_RELU:
    case THAW_LAYER_SOFTMAX: return infer_elementwise(call);
    case THAW_LAYER_KINDS: break;
    }
    return thaw_fail(THAW_DATA, "layer %s: unknown kind of layer %d", call->layer->name, (int)call->layer->kind);
}

thaw_status thaw_shape_infer(thaw_layer *layer, const thaw_shape *inputs, int n_inputs, thaw_shape *shape,
                             thaw_tensor *tensors, int *n_tensors) {
    inference call = {.layer = layer, .in = inputs, .n_in = n_inputs, .out = shape, .tensors = tensors};
    bool merges = layer->kind == THAW_LAYER_ADD || layer->kind == THAW_LAYER_CONCATENATE;
    int wanted = layer->kind == THAW_LAYER_INPUT ? 0 : 1;
    if (merges ? n_inputs < 1 : n_inputs != wanted)
        return thaw_fail(THAW_DATA, "layer %s: %s takes %s%d input%s, found %d", layer->name, thaw_layer_class(layer->kind),
                         merges ? "at least " : "", wanted, wanted == 1 ? "" : "s", n_inputs);
    THAW_TRY(infer_kind(&call));
    *n_tensors = call.n_tensors;
    if (!product(shape->dim, shape->rank, MAX_VALUES))
        return thaw_fail(THAW_DATA, "layer %s: its output %s would have 2^31 or more values an image; use a smaller input "
                                    "size", layer->name, thaw_shape_text(shape));
    return THAW_OK;
}
