/* Small networks that hold every layer and argument, and a way to run them: shared by the tests of plan and engine in float
 * and of gradients in double (there `float` is a macro, see tests/support/in_double.h). */
#ifndef THAW_TEST_NETWORKS_H
#define THAW_TEST_NETWORKS_H

#include "graph_case.h"

#include "base/random.h"
#include "graph/engine.h"
#include "graph/tape.h"
#include "train/loss.h"

enum { IMAGES = 3 };

typedef struct network {
    const char *name;
    int (*build)(thaw_model *model); /* returns the output node */
    const char *frozen;              /* names of frozen layers, separated by spaces; "" is none */
    bool batch_statistics;           /* of all trainable BatchNormalization layers */
    const char *zero;                /* tensors "layer/tensor " whose gradient is 0 by nature */
    thaw_loss loss;
    bool one_hot; /* targets as wide as the output */
} network;

/* Uniform in [low, high), a function of `stream` and i. */
static double draw(uint32_t stream, uint64_t i, double low, double high) {
    return low + (high - low) * (double)thaw_uniform(thaw_philox(7, THAW_DRAW_INIT, stream, i, 0).word[0]);
}

typedef struct arguments {
    int64_t filters, kh, kw, sh, sw, dh, dw;
    bool same, no_bias, no_scale, no_center, keepdims, head;
    thaw_activation act;
    double rate, max_value, slope, threshold;
    int64_t pad[4], target[3];
    int target_rank;
} arguments;

static int add(thaw_model *model, thaw_layer_kind kind, const char *name, int input, arguments a) {
    thaw_layer layer;
    thaw_layer_default(&layer, kind, name);
    thaw_layer_config *c = &layer.config;
    c->filters = a.filters;
    if (a.kh) {
        c->kernel[0] = a.kh;
        c->kernel[1] = a.kw ? a.kw : a.kh;
    }
    if (a.sh) {
        c->strides[0] = a.sh;
        c->strides[1] = a.sw ? a.sw : a.sh;
    }
    if (a.dh) {
        c->dilation[0] = a.dh;
        c->dilation[1] = a.dw ? a.dw : a.dh;
    }
    c->same = a.same;
    c->use_bias = !a.no_bias;
    c->scale = !a.no_scale;
    c->center = !a.no_center;
    c->keepdims = a.keepdims;
    if (kind != THAW_LAYER_SOFTMAX)
        c->activation = a.act;
    c->rate = (float)a.rate;
    if (kind == THAW_LAYER_RELU) {
        c->max_value = a.max_value > 0.0 ? (float)a.max_value : (float)INFINITY;
        c->negative_slope = (float)a.slope;
        c->threshold = (float)a.threshold;
    }
    memcpy(c->pad, a.pad, sizeof a.pad);
    memcpy(c->target, a.target, sizeof a.target);
    c->target_rank = a.target_rank;
    layer.head = a.head;
    return add_layer(model, &layer, input);
}

#define ARGUMENTS(...) ((arguments){__VA_ARGS__})
#define CONV(name, input, ...) add(m, THAW_LAYER_CONV2D, name, input, ARGUMENTS(__VA_ARGS__))
#define DENSE(name, input, ...) add(m, THAW_LAYER_DENSE, name, input, ARGUMENTS(__VA_ARGS__))
#define LAYER(KIND, name, input, ...) add(m, THAW_LAYER_##KIND, name, input, ARGUMENTS(__VA_ARGS__))
#define PLAIN(KIND, name, input) add(m, THAW_LAYER_##KIND, name, input, ARGUMENTS(.filters = 0))
#define ACT(KIND, name, input) add(m, THAW_LAYER_ACTIVATION, name, input, ARGUMENTS(.act = THAW_ACTIVATION_##KIND))
#define MERGE(KIND, name, ...) \
    add_merge(m, THAW_LAYER_##KIND, name, (const int[]){__VA_ARGS__}, sizeof(const int[]){__VA_ARGS__} / sizeof(int))

static int call_again(thaw_model *m, const char *name, int input) {
    int node = -1;
    OK(thaw_model_call(m, thaw_model_find(m, name), &input, 1, &node));
    return node;
}

static int build_convolutions(thaw_model *m) {
    int x = add_input(m, "input", 3, 9, 8, 3);
    x = CONV("valid", x, .filters = 4, .kh = 3);
    x = CONV("same", x, .filters = 3, .kh = 3, .sh = 2, .same = true, .no_bias = true, .act = THAW_ACTIVATION_RELU);
    x = CONV("even", x, .filters = 4, .kh = 2, .kw = 4, .sh = 1, .sw = 2, .same = true, .act = THAW_ACTIVATION_TANH);
    x = CONV("point", x, .filters = 5, .kh = 1);
    x = PLAIN(FLATTEN, "flatten", x);
    return DENSE("logit", x, .filters = 1, .act = THAW_ACTIVATION_SIGMOID);
}

static int build_activations_fused(thaw_model *m) {
    int x = add_input(m, "input", 3, 8, 9, 2);
    x = CONV("dilated", x, .filters = 3, .kh = 3, .dh = 2, .act = THAW_ACTIVATION_ELU);
    x = CONV("dilated_same", x, .filters = 3, .kh = 3, .dh = 2, .dw = 1, .same = true, .act = THAW_ACTIVATION_TANH);
    x = CONV("row", x, .filters = 3, .kh = 1, .kw = 3, .same = true, .act = THAW_ACTIVATION_SIGMOID);
    x = CONV("column", x, .filters = 4, .kh = 3, .kw = 1, .sh = 2, .sw = 1, .act = THAW_ACTIVATION_SWISH);
    x = CONV("six", x, .filters = 4, .kh = 2, .same = true, .act = THAW_ACTIVATION_RELU6);
    x = CONV("soft", x, .filters = 3, .kh = 1, .act = THAW_ACTIVATION_SOFTMAX);
    x = CONV("plain", x, .filters = 4, .kh = 1);
    x = PLAIN(GLOBAL_AVERAGE_POOLING, "pool", x);
    return DENSE("logits", x, .filters = 3, .act = THAW_ACTIVATION_SOFTMAX);
}

static int build_pools(thaw_model *m) {
    int x = add_input(m, "input", 3, 13, 12, 2);
    x = CONV("a", x, .filters = 3, .kh = 3, .same = true);
    x = LAYER(MAX_POOLING, "max_overlap", x, .kh = 3, .sh = 2, .same = true);
    x = CONV("b", x, .filters = 3, .kh = 1);
    x = LAYER(AVERAGE_POOLING, "mean_overlap", x, .kh = 3, .kw = 2, .sh = 1, .sw = 2, .same = true);
    x = CONV("c", x, .filters = 4, .kh = 1);
    int valid_max = LAYER(MAX_POOLING, "max_valid", x, .kh = 2, .kw = 3, .sh = 2, .sw = 1);
    int valid_mean = LAYER(AVERAGE_POOLING, "mean_valid", x, .kh = 3, .kw = 3, .sh = 2, .sw = 3);
    int a = PLAIN(GLOBAL_MAX_POOLING, "global_max", valid_max);
    int b = LAYER(GLOBAL_AVERAGE_POOLING, "global_mean", valid_mean, .keepdims = true);
    b = PLAIN(FLATTEN, "flatten", b);
    x = MERGE(CONCATENATE, "both", a, b);
    return DENSE("out", x, .filters = 2);
}

/* Maps whose tiles have 3 outputs, one pooled on the way where nothing is trained on it, which takes tiles of 4. */
static int build_threes(thaw_model *m) {
    int x = add_input(m, "input", 3, 9, 9, 16);
    x = CONV("a", x, .filters = 16, .kh = 3, .same = true, .act = THAW_ACTIVATION_RELU);
    x = CONV("b", x, .filters = 16, .kh = 3, .same = true, .act = THAW_ACTIVATION_RELU);
    x = LAYER(MAX_POOLING, "pool", x, .kh = 2, .kw = 2, .sh = 2, .sw = 2);
    x = PLAIN(GLOBAL_AVERAGE_POOLING, "mean", x);
    return DENSE("out", x, .filters = 2);
}

/* One layer on two maps, of which the second call is pooled. */
static int build_shared_threes(thaw_model *m) {
    int x = add_input(m, "input", 3, 9, 9, 16);
    x = CONV("a", x, .filters = 16, .kh = 3, .same = true, .act = THAW_ACTIVATION_RELU);
    int conv = CONV("b", x, .filters = 16, .kh = 3, .same = true, .act = THAW_ACTIVATION_RELU);
    x = call_again(m, "b", conv);
    x = LAYER(MAX_POOLING, "pool", x, .kh = 2, .kw = 2, .sh = 2, .sw = 2);
    x = PLAIN(GLOBAL_AVERAGE_POOLING, "mean", x);
    return DENSE("out", x, .filters = 2);
}

static int build_dense(thaw_model *m) {
    int x = add_input(m, "input", 3, 2, 3, 4);
    x = DENSE("on_map", x, .filters = 5, .act = THAW_ACTIVATION_TANH);
    x = DENSE("soft_map", x, .filters = 4, .act = THAW_ACTIVATION_SOFTMAX);
    x = PLAIN(FLATTEN, "flatten", x);
    x = DENSE("relu", x, .filters = 12, .act = THAW_ACTIVATION_RELU);
    x = DENSE("elu", x, .filters = 7, .act = THAW_ACTIVATION_ELU, .no_bias = true);
    x = DENSE("swish", x, .filters = 7, .act = THAW_ACTIVATION_SWISH);
    x = DENSE("six", x, .filters = 9, .act = THAW_ACTIVATION_RELU6);
    x = DENSE("soft", x, .filters = 6, .act = THAW_ACTIVATION_SOFTMAX);
    x = DENSE("sigmoid", x, .filters = 6, .act = THAW_ACTIVATION_SIGMOID);
    return DENSE("out", x, .filters = 4);
}

static int build_vector(thaw_model *m) {
    int x = add_input(m, "input", 1, 6, 0, 0);
    x = DENSE("a", x, .filters = 12, .act = THAW_ACTIVATION_TANH);
    x = PLAIN(BATCH_NORMALIZATION, "norm", x);
    x = LAYER(RESHAPE, "map", x, .target = {2, 3, 2}, .target_rank = 3);
    x = CONV("b", x, .filters = 2, .kh = 2);
    x = LAYER(RESHAPE, "row", x, .target = {4}, .target_rank = 1);
    return DENSE("out", x, .filters = 1);
}

static int build_norms(thaw_model *m) {
    int x = add_input(m, "input", 3, 6, 5, 2);
    x = CONV("a", x, .filters = 4, .kh = 3, .same = true, .no_bias = true);
    x = PLAIN(BATCH_NORMALIZATION, "full", x);
    x = ACT(RELU, "act_a", x);
    x = CONV("b", x, .filters = 3, .kh = 3);
    x = LAYER(BATCH_NORMALIZATION, "no_scale", x, .no_scale = true);
    x = PLAIN(RELU, "act_b", x);
    x = CONV("c", x, .filters = 3, .kh = 1);
    x = LAYER(BATCH_NORMALIZATION, "no_center", x, .no_center = true);
    x = ACT(SWISH, "act_c", x);
    x = CONV("d", x, .filters = 3, .kh = 1, .act = THAW_ACTIVATION_TANH);
    x = LAYER(BATCH_NORMALIZATION, "neither", x, .no_scale = true, .no_center = true);
    x = PLAIN(FLATTEN, "flatten", x);
    return DENSE("out", x, .filters = 3, .act = THAW_ACTIVATION_SOFTMAX);
}

static int build_padding(thaw_model *m) {
    int x = add_input(m, "input", 3, 6, 7, 2);
    x = LAYER(ZERO_PADDING, "pad_a", x, .pad = {3, 2, 1, 0}); /* folds into a */
    x = CONV("a", x, .filters = 3, .kh = 3, .sh = 2);
    x = LAYER(ZERO_PADDING, "pad_b", x, .pad = {1, 1, 0, 2}); /* read by three */
    int p = LAYER(MAX_POOLING, "p", x, .kh = 2, .sh = 1);
    int b = CONV("b", x, .filters = 3, .kh = 2), c = CONV("c", x, .filters = 3, .kh = 2, .act = THAW_ACTIVATION_TANH);
    x = MERGE(ADD, "sum", p, b, c);
    x = LAYER(ZERO_PADDING, "pad_c", x, .pad = {0, 1, 2, 1}); /* before a same convolution */
    x = CONV("d", x, .filters = 3, .kh = 3, .sh = 2, .same = true);
    x = LAYER(ZERO_PADDING, "pad_d", x, .pad = {1, 1, 1, 1}); /* before pooling */
    x = LAYER(MAX_POOLING, "pool", x, .kh = 3, .sh = 2);
    x = PLAIN(FLATTEN, "flatten", x);
    return DENSE("out", x, .filters = 2);
}

static int build_branches(thaw_model *m) {
    int input = add_input(m, "input", 3, 5, 4, 3);
    int a = CONV("a", input, .filters = 3, .kh = 3, .same = true, .act = THAW_ACTIVATION_TANH);
    int b = CONV("b", input, .filters = 3, .kh = 1);
    int sum = MERGE(ADD, "three", a, b, a); /* a twice */
    int relu = ACT(RELU, "relu", sum);
    int c = CONV("c", relu, .filters = 2, .kh = 3, .same = true);
    int cat = MERGE(CONCATENATE, "cat", c, relu, a, c);
    int d = CONV("d", cat, .filters = 3, .kh = 1);
    int back = MERGE(ADD, "shortcut", d, input); /* an input without gradient */
    int act = ACT(TANH, "tanh", d); /* the second reader of d cannot be taken in */
    int twice = MERGE(ADD, "doubled", back, back, act);
    int one = MERGE(CONCATENATE, "one", twice);
    int alone = MERGE(ADD, "alone", one);
    return DENSE("out", PLAIN(GLOBAL_AVERAGE_POOLING, "pool", alone), .filters = 2, .act = THAW_ACTIVATION_SOFTMAX);
}

static int build_dropout(thaw_model *m) {
    int x = add_input(m, "input", 3, 5, 5, 2);
    x = LAYER(DROPOUT, "at_input", x, .rate = 0.2);
    x = CONV("a", x, .filters = 3, .kh = 3, .act = THAW_ACTIVATION_TANH);
    x = LAYER(DROPOUT, "half", x, .rate = 0.5);
    x = LAYER(DROPOUT, "none", x, .rate = 0.0);
    x = PLAIN(FLATTEN, "flatten", x);
    x = DENSE("b", x, .filters = 7);
    x = LAYER(DROPOUT, "third", x, .rate = 0.3);
    return DENSE("out", x, .filters = 1, .act = THAW_ACTIVATION_SIGMOID);
}

/* Activation layers behind what cannot take them in, and behind what can. */
static int build_activations(thaw_model *m) {
    int x = add_input(m, "input", 3, 4, 4, 4);
    int a = CONV("a", x, .filters = 4, .kh = 1), b = CONV("b", x, .filters = 4, .kh = 1);
    x = ACT(SWISH, "swish", MERGE(ADD, "s1", a, b));
    x = ACT(ELU, "elu", MERGE(ADD, "s2", x, b));
    x = ACT(TANH, "tanh", MERGE(ADD, "s3", x, b));
    x = ACT(SIGMOID, "sigmoid", MERGE(ADD, "s4", x, b));
    x = ACT(RELU6, "six", MERGE(ADD, "s5", x, b));
    x = ACT(LINEAR, "linear", MERGE(ADD, "s6", x, b));
    x = PLAIN(SOFTMAX, "soft", MERGE(ADD, "s7", x, b));
    x = ACT(SOFTMAX, "soft_too", MERGE(ADD, "s8", x, b));
    x = ACT(SWISH, "behind_conv", CONV("c", x, .filters = 3, .kh = 1));
    x = ACT(SOFTMAX, "soft_conv", CONV("d", x, .filters = 3, .kh = 1));
    x = ACT(ELU, "elu_conv", CONV("e", x, .filters = 3, .kh = 1));
    x = PLAIN(FLATTEN, "flatten", x);
    x = ACT(TANH, "tanh_dense", DENSE("f", x, .filters = 5));
    x = PLAIN(RELU, "relu_dense", DENSE("g", x, .filters = 9));
    return ACT(SIGMOID, "final", DENSE("out", x, .filters = 2));
}

static int build_relus(thaw_model *m) {
    int x = add_input(m, "input", 3, 5, 4, 3);
    x = LAYER(RELU, "leaky", CONV("a", x, .filters = 6, .kh = 1), .slope = 0.25);
    x = LAYER(RELU, "bounded", CONV("b", x, .filters = 6, .kh = 1), .max_value = 0.5);
    x = LAYER(RELU, "six", CONV("c", x, .filters = 6, .kh = 1), .max_value = 6.0);
    x = LAYER(RELU, "all", CONV("d", x, .filters = 6, .kh = 1), .max_value = 1.0, .slope = 0.125, .threshold = 0.125);
    x = LAYER(RELU, "shifted", CONV("e", x, .filters = 6, .kh = 1), .threshold = 0.25);
    x = LAYER(MAX_POOLING, "pool", x, .kh = 2);
    x = PLAIN(RELU, "behind_pool", x);
    x = PLAIN(FLATTEN, "flatten", x);
    return DENSE("out", x, .filters = 1);
}

static int rescaling(thaw_model *m, const char *name, int input, int n, double scale) {
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_RESCALING, name);
    layer.config.n_rescale = n;
    layer.config.rescale = thaw_calloc((size_t)n, sizeof *layer.config.rescale);
    layer.config.offset = thaw_calloc((size_t)n, sizeof *layer.config.offset);
    for (int i = 0; i < n; i++) {
        layer.config.rescale[i] = (float)(scale - i);
        layer.config.offset[i] = (float)(0.25 * i - 0.5);
    }
    return add_layer(m, &layer, input);
}

static int build_rescaling(thaw_model *m) {
    int x = add_input(m, "input", 3, 4, 3, 3);
    x = rescaling(m, "front", x, 3, 1.5);
    x = CONV("a", x, .filters = 4, .kh = 2, .act = THAW_ACTIVATION_TANH);
    x = rescaling(m, "one", x, 1, 1.5);
    x = ACT(SIGMOID, "act", x);
    x = rescaling(m, "four", x, 4, 1.5);
    x = PLAIN(FLATTEN, "flatten", x);
    return DENSE("out", x, .filters = 2);
}

/* Values up to 20, so that relu6 and max_value are reached. */
static int build_bounds(thaw_model *m) {
    int x = rescaling(m, "gain", add_input(m, "input", 3, 4, 4, 3), 1, 20.0);
    int a = CONV("fused", x, .filters = 4, .kh = 1, .act = THAW_ACTIVATION_RELU6);
    int b = ACT(RELU6, "behind", CONV("b", x, .filters = 4, .kh = 1));
    int c = LAYER(RELU, "layer", CONV("c", x, .filters = 4, .kh = 1), .max_value = 6.0);
    int d = LAYER(RELU, "eight", CONV("d", x, .filters = 4, .kh = 1), .max_value = 8.0, .slope = 0.5);
    int e = ACT(RELU6, "behind_sum", MERGE(ADD, "sum", a, b, c, d));
    x = MERGE(CONCATENATE, "cat", a, b, c, d, e);
    return DENSE("out", PLAIN(GLOBAL_AVERAGE_POOLING, "pool", x), .filters = 2);
}

static int build_shared(thaw_model *m) {
    int input = add_input(m, "input", 3, 5, 5, 3);
    int a = CONV("conv", input, .filters = 3, .kh = 3, .same = true, .act = THAW_ACTIVATION_TANH);
    int b = call_again(m, "conv", a);
    int c = call_again(m, "conv", b);
    int n = PLAIN(BATCH_NORMALIZATION, "norm", c);
    int o = call_again(m, "norm", b);
    int x = MERGE(ADD, "sum", n, o);
    x = PLAIN(GLOBAL_AVERAGE_POOLING, "pool", x);
    x = DENSE("dense", x, .filters = 3, .act = THAW_ACTIVATION_ELU);
    x = call_again(m, "dense", x);
    return DENSE("out", x, .filters = 2, .act = THAW_ACTIVATION_SOFTMAX);
}

static int build_deep(thaw_model *m) {
    int x = add_input(m, "input", 3, 8, 8, 3);
    x = CONV("one", x, .filters = 4, .kh = 3, .same = true, .act = THAW_ACTIVATION_TANH);
    x = CONV("two", x, .filters = 4, .kh = 3, .same = true, .no_bias = true);
    x = PLAIN(BATCH_NORMALIZATION, "norm_two", x);
    x = ACT(TANH, "act_two", x);
    x = LAYER(MAX_POOLING, "pool", x, .kh = 2);
    x = CONV("three", x, .filters = 4, .kh = 3, .same = true);
    x = PLAIN(BATCH_NORMALIZATION, "norm_three", x);
    x = ACT(RELU, "act_three", x);
    x = PLAIN(FLATTEN, "flatten", x);
    x = DENSE("four", x, .filters = 5, .act = THAW_ACTIVATION_TANH, .head = true);
    return DENSE("out", x, .filters = 1, .act = THAW_ACTIVATION_SIGMOID, .head = true);
}

/* Four values cross the boundary: two branches, an input that is read twice, and what a folded norm makes. */
static int build_two_branches(thaw_model *m) {
    int input = add_input(m, "input", 3, 6, 6, 3);
    int padded = LAYER(ZERO_PADDING, "pad", input, .pad = {1, 1, 1, 1});
    int a = CONV("a", padded, .filters = 3, .kh = 3, .no_bias = true);
    int n = PLAIN(BATCH_NORMALIZATION, "norm", a);
    int r = ACT(RELU, "act", n);
    int b = CONV("b", input, .filters = 3, .kh = 1, .act = THAW_ACTIVATION_TANH);
    int left = CONV("left", r, .filters = 3, .kh = 3, .same = true);
    int right = CONV("right", b, .filters = 3, .kh = 1);
    int again = CONV("again", input, .filters = 3, .kh = 1);
    int frozen = CONV("frozen", r, .filters = 3, .kh = 1);
    int drop = LAYER(DROPOUT, "drop", b, .rate = 0.25);
    int sum = MERGE(ADD, "sum", left, right, again);
    int cat = MERGE(CONCATENATE, "cat", sum, frozen, drop);
    int pool = PLAIN(GLOBAL_MAX_POOLING, "pool", cat);
    return DENSE("out", pool, .filters = 3);
}

/* ResNet in small: sums inside convolutions, padding inside a pooling, cells that the strides of the next stage skip. */
static int build_residual(thaw_model *m) {
    int x = LAYER(ZERO_PADDING, "pad", add_input(m, "input", 3, 9, 10, 3), .pad = {1, 1, 1, 1});
    x = ACT(RELU, "act", PLAIN(BATCH_NORMALIZATION, "norm", CONV("stem", x, .filters = 4, .kh = 3, .no_bias = true)));
    x = LAYER(ZERO_PADDING, "pool_pad", x, .pad = {1, 1, 1, 1});
    x = LAYER(MAX_POOLING, "pool", x, .kh = 3, .sh = 2);
    int a = PLAIN(BATCH_NORMALIZATION, "norm_a", CONV("a", x, .filters = 6, .kh = 1));
    int b = PLAIN(BATCH_NORMALIZATION, "norm_b", CONV("b", x, .filters = 6, .kh = 1));
    x = ACT(RELU, "act_ab", MERGE(ADD, "sum_ab", a, b));
    int c = CONV("c", CONV("wide", x, .filters = 18, .kh = 3, .same = true, .act = THAW_ACTIVATION_RELU), .filters = 6, .kh = 1);
    x = ACT(RELU, "act_c", MERGE(ADD, "sum_c", x, c));
    int d = CONV("d", x, .filters = 5, .kh = 1, .sh = 2), e = CONV("e", x, .filters = 5, .kh = 1, .sh = 2);
    x = ACT(TANH, "act_de", MERGE(ADD, "sum_de", d, CONV("f", e, .filters = 5, .kh = 3, .same = true)));
    return DENSE("out", PLAIN(GLOBAL_AVERAGE_POOLING, "mean", x), .filters = 3, .act = THAW_ACTIVATION_SOFTMAX);
}

/* Softmax at the end of a map goes over channels, sigmoid over all. */
static int build_map_output(thaw_model *m) {
    int x = add_input(m, "input", 3, 3, 3, 2);
    x = CONV("a", x, .filters = 3, .kh = 2, .act = THAW_ACTIVATION_TANH);
    return CONV("out", x, .filters = 2, .kh = 1, .act = THAW_ACTIVATION_SOFTMAX);
}

static const network NETWORKS[] = {
    {"convolutions", build_convolutions, "", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"activations fused", build_activations_fused, "", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, false},
    {"pools", build_pools, "", false, "", THAW_LOSS_MSE, true},
    {"threes", build_threes, "", false, "", THAW_LOSS_MSE, true},
    {"threes, frozen front", build_threes, "a", false, "", THAW_LOSS_MSE, true},
    {"threes, shared", build_shared_threes, "", false, "", THAW_LOSS_MSE, true},
    {"dense", build_dense, "", false, "", THAW_LOSS_MSE, true},
    {"vector", build_vector, "", false, "", THAW_LOSS_MSE, true},
    {"vector, batch", build_vector, "", true, "", THAW_LOSS_MSE, true},
    {"norms, moving", build_norms, "", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"norms, batch", build_norms, "", true, "b/bias c/bias ", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"norms, one frozen", build_norms, "full d", true, "b/bias c/bias ", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"padding", build_padding, "", false, "", THAW_LOSS_MSE, true},
    {"padding in the prefix", build_padding, "a d", false, "", THAW_LOSS_MSE, true},
    {"branches", build_branches, "", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, false},
    {"dropout", build_dropout, "", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"dropout before frozen", build_dropout, "a", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"activations", build_activations, "", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"relus", build_relus, "", false, "", THAW_LOSS_MSE, true},
    {"rescaling", build_rescaling, "", false, "", THAW_LOSS_MSE, true},
    {"bounds", build_bounds, "", false, "", THAW_LOSS_MSE, true},
    {"shared", build_shared, "", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"shared, batch", build_shared, "", true, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"shared, frozen", build_shared, "conv dense", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, true},
    {"deep", build_deep, "", true, "three/bias ", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"deep, frozen middle", build_deep, "two norm_two three norm_three", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"deep, frozen front", build_deep, "one two norm_two", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"deep, frozen base", build_deep, "one two norm_two three norm_three", false, "", THAW_LOSS_BINARY_CROSSENTROPY, true},
    {"two branches", build_two_branches, "", false, "", THAW_LOSS_MSE, true},
    {"two branches, frozen front", build_two_branches, "a norm b frozen", false, "", THAW_LOSS_MSE, true},
    {"residual", build_residual, "", false, "", THAW_LOSS_CATEGORICAL_CROSSENTROPY, false},
    {"residual, frozen front", build_residual, "pad stem norm a norm_a b norm_b wide c d e f", false, "",
     THAW_LOSS_CATEGORICAL_CROSSENTROPY, false},
    {"map at the end", build_map_output, "", false, "", THAW_LOSS_MSE, true},
};
enum { N_NETWORKS = sizeof NETWORKS / sizeof *NETWORKS };

/* Is `name` one of the words of `list`? */
static bool listed_in(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += length)
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0))
            return true;
    return false;
}

/* A network with values in all its tensors, its plan, its engine, and a batch for it. */
typedef struct setup {
    thaw_model *model;
    thaw_plan *plan;
    thaw_engine *engine;
    bool *trainable, *batch_statistics; /* per layer */
    float *parameters, *gradients;      /* plan->count each */
    float *x, *y;                       /* (IMAGES, input), (IMAGES, y_width) */
    int64_t samples[IMAGES];
    thaw_draws draws;
    thaw_objective objective;
} setup;

static thaw_model *make_model(int (*build)(thaw_model *)) {
    thaw_model *model = new_model();
    OK(thaw_model_finish(model, build(model), false));
    check_sound(model);
    OK(thaw_model_allocate(model));
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            bool positive = strcmp(tensor->name, "moving_variance") == 0 || strcmp(tensor->name, "gamma") == 0;
            /* Kernels keep the size of what goes through; biases matter. */
            size_t fan = tensor->rank > 1 ? tensor->count / (size_t)tensor->shape[tensor->rank - 1] : 4;
            double reach = sqrt(3.0 / (double)fan);
            for (size_t k = 0; k < tensor->count; k++)
                tensor->data[k] = (float)(positive ? draw((uint32_t)(8 * i + t), k, 0.5, 1.5)
                                                   : draw((uint32_t)(8 * i + t), k, -reach, reach));
        }
    return model;
}

/* `frozen`: names of frozen layers; NULL compiles a plan for inference. step_images: of thaw_plan_request. */
static setup *set_up_steps(thaw_model *model, const char *frozen, bool batch_statistics, const thaw_hooks *hooks,
                           int64_t step_images) {
    setup *s = thaw_calloc(1, sizeof *s);
    s->model = model;
    s->trainable = thaw_calloc((size_t)model->n_layers, sizeof(bool));
    s->batch_statistics = thaw_calloc((size_t)model->n_layers, sizeof(bool));
    for (int i = 0; i < model->n_layers; i++) {
        s->trainable[i] = frozen && !listed_in(frozen, model->layers[i].name);
        s->batch_statistics[i] = batch_statistics;
    }
    thaw_plan_request request = {model, frozen ? s->trainable : NULL, s->batch_statistics, IMAGES, step_images, 1, 1};
    OK(thaw_plan_compile(&s->plan, &request));
    s->parameters = thaw_calloc(s->plan->count, sizeof(float));
    s->gradients = thaw_calloc(s->plan->count, sizeof(float));
    OK(thaw_engine_create(&s->engine, s->plan, model, hooks, s->parameters, s->gradients));
    int64_t values = thaw_shape_count(&model->nodes[model->input].shape);
    s->x = thaw_calloc((size_t)(IMAGES * values), sizeof(float));
    for (int64_t i = 0; i < IMAGES * values; i++)
        s->x[i] = (float)draw(1000, (uint64_t)i, -1.0, 1.0);
    for (int i = 0; i < IMAGES; i++)
        s->samples[i] = 11 + i * INT64_C(7000000000);
    s->draws = (thaw_draws){5, 2, s->samples};
    return s;
}

static setup *set_up(thaw_model *model, const char *frozen, bool batch_statistics, const thaw_hooks *hooks) {
    return set_up_steps(model, frozen, batch_statistics, hooks, 0);
}

static void set_objective(setup *s, thaw_loss loss, bool one_hot, const float *class_weight) {
    int64_t units = s->plan->outputs;
    s->objective = (thaw_objective){.loss = loss, .final = s->plan->final, .units = units, .y_width = one_hot ? units : 1,
                                    .class_weight = class_weight, .n_classes = (int)units};
    s->y = thaw_calloc((size_t)(IMAGES * units), sizeof(float));
    for (int64_t i = 0; i < IMAGES; i++)
        for (int64_t k = 0; k < s->objective.y_width; k++)
            s->y[i * s->objective.y_width + k] = (float)(!one_hot     ? (double)((2 * i + 1) % units)
                                                         : units == 1 ? (double)(i % 2)
                                                                      : (double)(k == (2 * i + 1) % units));
}

__attribute__((unused)) static setup *set_up_network(const network *net, const thaw_hooks *hooks) {
    setup *s = set_up(make_model(net->build), net->frozen, net->batch_statistics, hooks);
    set_objective(s, net->loss, net->one_hot, NULL);
    return s;
}

__attribute__((unused)) static void tear_down(setup *s) {
    thaw_engine_free(s->engine);
    thaw_plan_free(s->plan);
    thaw_model_free(s->model);
    thaw_free(s->trainable);
    thaw_free(s->batch_statistics);
    thaw_free(s->parameters);
    thaw_free(s->gradients);
    thaw_free(s->x);
    thaw_free(s->y);
    thaw_free(s);
}

/* Loss of images [first, first + n) of the batch, over `all` images; with `backward` also the gradient. */
static double run_part(setup *s, int64_t first, int64_t n, int64_t all, bool backward) {
    int64_t values = thaw_shape_count(&s->model->nodes[s->model->input].shape);
    thaw_draws draws = s->draws;
    draws.samples += first;
    thaw_engine_prefix(s->engine, n, s->x + first * values);
    const float *z = thaw_engine_forward(s->engine, 0, n, &draws);
    thaw_sums sums = {0};
    OK(thaw_objective_batch(&s->objective, n, z, s->y + first * s->objective.y_width, 1.0 / (double)all,
                            backward ? thaw_engine_output_gradient(s->engine) : NULL, &sums));
    if (backward)
        thaw_engine_backward(s->engine);
    return sums.loss / (double)all;
}

__attribute__((unused)) static double run_step(setup *s, bool backward) {
    return run_part(s, 0, IMAGES, IMAGES, backward);
}
#endif
