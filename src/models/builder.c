#include "models/builder.h"

/* Adds a layer unless the builder has failed. */
static int add(thaw_builder *b, thaw_layer *layer, const int *inputs, int n_inputs) {
    int node = -1;
    b->status = thaw_model_add(b->model, layer, inputs, n_inputs, &node);
    return node;
}

int thaw_builder_input(thaw_builder *b, const int64_t shape[3]) {
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_INPUT, "input_layer"); /* the name that Keras 3 gives it */
    layer.config.target_rank = 3;
    for (int i = 0; i < 3; i++)
        layer.config.target[i] = shape[i];
    return add(b, &layer, NULL, 0);
}

int thaw_builder_conv(thaw_builder *b, int in, const char *name, int64_t filters, int64_t kh, int64_t kw, int64_t stride,
                      bool same, bool bias, thaw_activation activation) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_CONV2D, name);
    layer.config.filters = filters;
    layer.config.kernel[0] = kh;
    layer.config.kernel[1] = kw;
    layer.config.strides[0] = layer.config.strides[1] = stride;
    layer.config.same = same;
    layer.config.use_bias = bias;
    layer.config.activation = activation;
    return add(b, &layer, &in, 1);
}

int thaw_builder_norm(thaw_builder *b, int in, const char *name, float epsilon, bool scale) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_BATCH_NORMALIZATION, name);
    layer.config.epsilon = epsilon;
    layer.config.scale = scale;
    return add(b, &layer, &in, 1);
}

int thaw_builder_relu(thaw_builder *b, int in, const char *name) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_ACTIVATION, name);
    layer.config.activation = THAW_ACTIVATION_RELU;
    return add(b, &layer, &in, 1);
}

int thaw_builder_pad(thaw_builder *b, int in, const char *name, int64_t pad) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_ZERO_PADDING, name);
    for (int i = 0; i < 4; i++)
        layer.config.pad[i] = pad;
    return add(b, &layer, &in, 1);
}

int thaw_builder_pool(thaw_builder *b, int in, thaw_layer_kind kind, const char *name, int64_t size, int64_t stride,
                      bool same) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, kind, name);
    for (int i = 0; i < 2; i++) {
        layer.config.kernel[i] = size;
        layer.config.strides[i] = stride;
    }
    layer.config.same = same;
    return add(b, &layer, &in, 1);
}

int thaw_builder_merge(thaw_builder *b, thaw_layer_kind kind, const char *name, const int *inputs, int n_inputs) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, kind, name);
    return add(b, &layer, inputs, n_inputs);
}

int thaw_builder_dense(thaw_builder *b, int in, const char *name, int64_t units, thaw_activation activation) {
    if (b->status != THAW_OK)
        return -1;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_DENSE, name);
    layer.config.filters = units;
    layer.config.activation = activation;
    return add(b, &layer, &in, 1);
}

int thaw_builder_plain(thaw_builder *b, int in, thaw_layer_kind kind, const char *name) {
    return thaw_builder_merge(b, kind, name, &in, 1);
}

int thaw_builder_pooling(thaw_builder *b, int in, thaw_layer_kind pooling, const char *average, const char *max) {
    if (pooling == THAW_LAYER_INPUT)
        return in;
    return thaw_builder_plain(b, in, pooling, pooling == THAW_LAYER_GLOBAL_AVERAGE_POOLING ? average : max);
}
