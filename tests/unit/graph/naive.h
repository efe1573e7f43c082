/* A network evaluated node by node in double, straight from Keras' definitions: nothing is fused, folded or shared. */
#ifndef THAW_TEST_NAIVE_H
#define THAW_TEST_NAIVE_H

#include "networks.h"

#include "base/hash.h"

typedef struct naive {
    const setup *s;
    bool training;
    double **values; /* per node: (IMAGES, values of the node) */
} naive;

static double apply(thaw_activation act, double v) {
    switch (act) {
    case THAW_ACTIVATION_RELU: return fmax(v, 0.0);
    case THAW_ACTIVATION_RELU6: return fmin(fmax(v, 0.0), 6.0);
    case THAW_ACTIVATION_ELU: return v < 0.0 ? exp(v) - 1.0 : v;
    case THAW_ACTIVATION_TANH: return tanh(v);
    case THAW_ACTIVATION_SIGMOID: return 1.0 / (1.0 + exp(-v));
    case THAW_ACTIVATION_SWISH: return v / (1.0 + exp(-v));
    default: return v;
    }
}

/* Activation in place; softmax over the last axis of `c` values. */
static void activate(thaw_activation act, int64_t count, int64_t c, double *y) {
    for (int64_t row = 0; act == THAW_ACTIVATION_SOFTMAX && row < count; row += c) {
        double sum = 0.0;
        for (int64_t i = row; i < row + c; i++)
            sum += y[i] = exp(y[i]);
        for (int64_t i = row; i < row + c; i++)
            y[i] /= sum;
    }
    for (int64_t i = 0; act != THAW_ACTIVATION_SOFTMAX && i < count; i++)
        y[i] = apply(act, y[i]);
}

static double value(const thaw_layer *layer, const char *name, int64_t i, double otherwise) {
    const thaw_tensor *tensor = thaw_layer_tensor((thaw_layer *)layer, name);
    return tensor ? (double)tensor->data[i] : otherwise;
}

/* Rows before the map, by TensorFlow's rule for "same". */
static int64_t pad_before(bool same, int64_t in, int64_t out, int64_t k, int64_t stride, int64_t dilation) {
    int64_t missing = (out - 1) * stride + (k - 1) * dilation + 1 - in;
    return same && missing > 0 ? missing / 2 : 0;
}

/* One image of Conv2D, MaxPooling2D or AveragePooling2D. */
static void slide(const thaw_layer *layer, const thaw_shape *from, const thaw_shape *to, const double *x, double *y) {
    const thaw_layer_config *c = &layer->config;
    bool conv = layer->kind == THAW_LAYER_CONV2D;
    int64_t d[2] = {conv ? c->dilation[0] : 1, conv ? c->dilation[1] : 1};
    int64_t top = pad_before(c->same, from->dim[0], to->dim[0], c->kernel[0], c->strides[0], d[0]);
    int64_t left = pad_before(c->same, from->dim[1], to->dim[1], c->kernel[1], c->strides[1], d[1]);
    for (int64_t oy = 0; oy < to->dim[0]; oy++)
        for (int64_t ox = 0; ox < to->dim[1]; ox++)
            for (int64_t co = 0; co < to->dim[2]; co++) {
                double sum = conv ? value(layer, "bias", co, 0.0) : 0.0, most = -INFINITY;
                int cells = 0;
                for (int64_t ky = 0; ky < c->kernel[0]; ky++)
                    for (int64_t kx = 0; kx < c->kernel[1]; kx++) {
                        int64_t iy = oy * c->strides[0] - top + ky * d[0], ix = ox * c->strides[1] - left + kx * d[1];
                        if (iy < 0 || iy >= from->dim[0] || ix < 0 || ix >= from->dim[1])
                            continue;
                        const double *cell = x + (iy * from->dim[1] + ix) * from->dim[2];
                        int64_t tap = (ky * c->kernel[1] + kx) * from->dim[2];
                        cells++;
                        for (int64_t ci = 0; conv && ci < from->dim[2]; ci++)
                            sum += cell[ci] * value(layer, "kernel", (tap + ci) * to->dim[2] + co, 0.0);
                        sum += conv ? 0.0 : cell[co];
                        most = conv ? 0.0 : fmax(most, cell[co]);
                    }
                *y++ = layer->kind == THAW_LAYER_MAX_POOLING ? most : conv ? sum : sum / cells;
            }
}

/* BatchNormalization of the whole batch. */
static void normalise(const naive *v, int node, const thaw_layer *layer, int64_t rows, int64_t c, const double *x, double *y) {
    bool batch = v->training && v->s->plan->batch_statistics[v->s->model->nodes[node].layer];
    for (int64_t i = 0; i < c; i++) {
        double mean = value(layer, "moving_mean", i, 0.0), variance = value(layer, "moving_variance", i, 0.0);
        if (batch) {
            mean = variance = 0.0;
            for (int64_t row = 0; row < rows; row++)
                mean += x[row * c + i] / (double)rows;
            for (int64_t row = 0; row < rows; row++)
                variance += (x[row * c + i] - mean) * (x[row * c + i] - mean) / (double)rows;
        }
        double deviation = sqrt(variance + (double)layer->config.epsilon);
        for (int64_t row = 0; row < rows; row++)
            y[row * c + i] = (x[row * c + i] - mean) / deviation * value(layer, "gamma", i, 1.0) + value(layer, "beta", i, 0.0);
    }
}

/* One image of a layer that is none of the above. */
static void evaluate_image(const naive *v, int node, int image, const double *x, double *y) {
    const thaw_model *m = v->s->model;
    const thaw_node *n = &m->nodes[node];
    const thaw_layer *layer = &m->layers[n->layer];
    const thaw_layer_config *c = &layer->config;
    const thaw_shape *from = &m->nodes[n->inputs[0]].shape, *to = &n->shape;
    int64_t in = thaw_shape_count(from), out = thaw_shape_count(to), depth = to->dim[to->rank - 1];
    switch (layer->kind) {
    case THAW_LAYER_CONV2D:
    case THAW_LAYER_MAX_POOLING:
    case THAW_LAYER_AVERAGE_POOLING: slide(layer, from, to, x, y); break;
    case THAW_LAYER_DENSE:
        for (int64_t i = 0; i < out; i++) {
            int64_t width = from->dim[from->rank - 1];
            y[i] = value(layer, "bias", i % depth, 0.0);
            for (int64_t k = 0; k < width; k++)
                y[i] += x[i / depth * width + k] * value(layer, "kernel", k * depth + i % depth, 0.0);
        }
        break;
    case THAW_LAYER_GLOBAL_AVERAGE_POOLING:
    case THAW_LAYER_GLOBAL_MAX_POOLING:
        for (int64_t i = 0; i < out; i++) {
            double sum = 0.0, most = -INFINITY;
            for (int64_t k = i; k < in; k += out) {
                sum += x[k];
                most = fmax(most, x[k]);
            }
            y[i] = layer->kind == THAW_LAYER_GLOBAL_MAX_POOLING ? most : sum * (double)out / (double)in;
        }
        break;
    case THAW_LAYER_ZERO_PADDING:
        for (int64_t i = 0; i < out; i++) {
            int64_t iy = i / depth / to->dim[1] - c->pad[0], ix = i / depth % to->dim[1] - c->pad[2];
            bool inside = iy >= 0 && iy < from->dim[0] && ix >= 0 && ix < from->dim[1];
            y[i] = inside ? x[(iy * from->dim[1] + ix) * depth + i % depth] : 0.0;
        }
        break;
    case THAW_LAYER_RELU:
        for (int64_t i = 0; i < out; i++) {
            double threshold = (double)c->threshold;
            y[i] = x[i] >= (double)c->max_value ? (double)c->max_value
                   : x[i] >= threshold          ? x[i]
                                                : (double)c->negative_slope * (x[i] - threshold);
        }
        break;
    case THAW_LAYER_RESCALING:
        for (int64_t i = 0; i < out; i++) {
            int64_t k = c->n_rescale > 1 ? i % depth : 0;
            y[i] = x[i] * (double)c->rescale[k] + (double)c->offset[k];
        }
        break;
    case THAW_LAYER_DROPOUT:
        for (int64_t i = 0; i < out; i++) {
            uint32_t key = (uint32_t)thaw_hash_text(layer->name, (uint64_t)node);
            thaw_draw words = thaw_philox(v->s->draws.seed, THAW_DRAW_DROPOUT, v->s->draws.epoch,
                                          (uint64_t)v->s->samples[image], key + (uint32_t)(i / 4));
            bool kept = (double)thaw_uniform(words.word[i % 4]) >= (double)c->rate;
            y[i] = !v->training ? x[i] : kept ? x[i] / (1.0 - (double)c->rate) : 0.0;
        }
        break;
    default: memcpy(y, x, (size_t)out * sizeof *y); break;
    }
    activate(layer->kind == THAW_LAYER_SOFTMAX ? THAW_ACTIVATION_SOFTMAX : c->activation, out, depth, y);
}

static void evaluate_node(naive *v, int node) {
    const thaw_model *m = v->s->model;
    const thaw_node *n = &m->nodes[node];
    const thaw_layer *layer = &m->layers[n->layer];
    int64_t out = thaw_shape_count(&n->shape), depth = n->shape.dim[n->shape.rank - 1];
    double *y = v->values[node] = calloc((size_t)(IMAGES * out), sizeof *y);
    if (node == m->input) {
        for (int64_t i = 0; i < IMAGES * out; i++)
            y[i] = (double)v->s->x[i];
    } else if (layer->kind == THAW_LAYER_BATCH_NORMALIZATION) {
        normalise(v, node, layer, IMAGES * out / depth, depth, v->values[n->inputs[0]], y);
    } else if (layer->kind == THAW_LAYER_ADD) {
        for (int k = 0; k < n->n_inputs; k++)
            for (int64_t i = 0; i < IMAGES * out; i++)
                y[i] += v->values[n->inputs[k]][i];
    } else if (layer->kind == THAW_LAYER_CONCATENATE) {
        int64_t at = 0, rows = IMAGES * out / depth;
        for (int k = 0; k < n->n_inputs; k++) {
            const thaw_shape *from = &m->nodes[n->inputs[k]].shape;
            int64_t part = from->dim[from->rank - 1];
            for (int64_t i = 0; i < rows * part; i++)
                y[i / part * depth + at + i % part] = v->values[n->inputs[k]][i];
            at += part;
        }
    } else {
        int64_t in = thaw_shape_count(&m->nodes[n->inputs[0]].shape);
        for (int image = 0; image < IMAGES; image++)
            evaluate_image(v, node, image, v->values[n->inputs[0]] + image * in, y + image * out);
    }
}

/* The network's outputs (IMAGES, outputs), to be freed. */
static double *evaluate(const setup *s, bool training) {
    naive v = {s, training, calloc((size_t)s->model->n_nodes, sizeof *v.values)};
    for (int i = 0; i < s->model->n_nodes; i++)
        evaluate_node(&v, i);
    double *outputs = v.values[s->model->output];
    for (int i = 0; i < s->model->n_nodes; i++)
        if (i != s->model->output)
            free(v.values[i]);
    free(v.values);
    return outputs;
}
#endif
