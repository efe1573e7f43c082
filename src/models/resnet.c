/* ResNet, version 1 with the stride on the first 1x1 (He et al. 2015): keras.applications.ResNet50. */
#include <stdio.h>

#include "models/builder.h"

#define EPSILON 1.001e-5f

/* Convolution, batch norm and, with `relu`, activation: names p_{part}_conv, p_{part}_bn, p_{part}_relu. */
static int unit(thaw_builder *b, int x, const char *prefix, int part, int64_t filters, int64_t kernel, int64_t stride,
                bool relu) {
    char name[64];
    snprintf(name, sizeof name, "%s_%d_conv", prefix, part);
    x = thaw_builder_conv(b, x, name, filters, kernel, kernel, stride, kernel > 1, true, THAW_ACTIVATION_LINEAR);
    snprintf(name, sizeof name, "%s_%d_bn", prefix, part);
    x = thaw_builder_norm(b, x, name, EPSILON, true);
    if (!relu)
        return x;
    snprintf(name, sizeof name, "%s_%d_relu", prefix, part);
    return thaw_builder_relu(b, x, name);
}

static int block(thaw_builder *b, int x, const char *prefix, int64_t filters, int64_t stride, bool project) {
    char name[64];
    int inputs[2] = {x, x}; /* shortcut, residual */
    if (project)
        inputs[0] = unit(b, x, prefix, 0, 4 * filters, 1, stride, false);
    x = unit(b, x, prefix, 1, filters, 1, stride, true);
    x = unit(b, x, prefix, 2, filters, 3, 1, true);
    inputs[1] = unit(b, x, prefix, 3, 4 * filters, 1, 1, false);
    snprintf(name, sizeof name, "%s_add", prefix);
    x = thaw_builder_merge(b, THAW_LAYER_ADD, name, inputs, 2);
    snprintf(name, sizeof name, "%s_out", prefix);
    return thaw_builder_relu(b, x, name);
}

int thaw_resnet_build(thaw_builder *b, const thaw_network_options *options, const int blocks[4]) {
    char prefix[40];
    int x = thaw_builder_input(b, options->input);
    x = thaw_builder_pad(b, x, "conv1_pad", 3);
    x = thaw_builder_conv(b, x, "conv1_conv", 64, 7, 7, 2, false, true, THAW_ACTIVATION_LINEAR);
    x = thaw_builder_norm(b, x, "conv1_bn", EPSILON, true);
    x = thaw_builder_relu(b, x, "conv1_relu");
    x = thaw_builder_pad(b, x, "pool1_pad", 1);
    x = thaw_builder_pool(b, x, THAW_LAYER_MAX_POOLING, "pool1_pool", 3, 2, false);
    for (int stack = 0; stack < 4; stack++)
        for (int i = 0; i < blocks[stack]; i++) {
            snprintf(prefix, sizeof prefix, "conv%d_block%d", stack + 2, i + 1);
            x = block(b, x, prefix, (int64_t)64 << stack, i == 0 && stack > 0 ? 2 : 1, i == 0);
        }
    if (options->top) {
        x = thaw_builder_plain(b, x, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "avg_pool");
        return thaw_builder_dense(b, x, "predictions", THAW_IMAGENET_CLASSES, THAW_ACTIVATION_SOFTMAX);
    }
    return thaw_builder_pooling(b, x, options->pooling, "avg_pool", "max_pool");
}
