/* A short hand for building networks: layers as functions of nodes. After a failure `status` is set and every further call
 * does nothing, so that a network reads as a list of layers and is checked once at its end. */
#ifndef THAW_MODELS_BUILDER_H
#define THAW_MODELS_BUILDER_H

#include "thaw/model.h"

typedef struct thaw_builder {
    thaw_model *model;
    thaw_status status;
} thaw_builder;

/* What the networks do with their input and output. */
typedef struct thaw_network_options {
    bool top;
    int64_t input[3];        /* H W C, checked */
    thaw_layer_kind pooling; /* GLOBAL_AVERAGE_POOLING, GLOBAL_MAX_POOLING; INPUT: none */
} thaw_network_options;

/* All take and return node indices. */
int thaw_builder_input(thaw_builder *b, const int64_t shape[3]);
int thaw_builder_conv(thaw_builder *b, int in, const char *name, int64_t filters, int64_t kh, int64_t kw, int64_t stride,
                      bool same, bool bias, thaw_activation activation);
int thaw_builder_norm(thaw_builder *b, int in, const char *name, float epsilon, bool scale);
int thaw_builder_relu(thaw_builder *b, int in, const char *name);
int thaw_builder_pad(thaw_builder *b, int in, const char *name, int64_t pad);
int thaw_builder_pool(thaw_builder *b, int in, thaw_layer_kind kind, const char *name, int64_t size, int64_t stride,
                      bool same);
int thaw_builder_merge(thaw_builder *b, thaw_layer_kind kind, const char *name, const int *inputs, int n_inputs);
int thaw_builder_dense(thaw_builder *b, int in, const char *name, int64_t units, thaw_activation activation);
int thaw_builder_plain(thaw_builder *b, int in, thaw_layer_kind kind, const char *name); /* default arguments */
/* The `pooling` argument of keras.applications; the names of both layers. */
int thaw_builder_pooling(thaw_builder *b, int in, thaw_layer_kind pooling, const char *average, const char *max);

/* The networks. Each returns its output node. */
int thaw_vgg_build(thaw_builder *b, const thaw_network_options *options, const int blocks[5]);    /* convolutions each */
int thaw_resnet_build(thaw_builder *b, const thaw_network_options *options, const int blocks[4]); /* residual blocks each */
int thaw_inception_build(thaw_builder *b, const thaw_network_options *options, const int *blocks);               /* not used */

#define THAW_IMAGENET_CLASSES 1000
#endif
