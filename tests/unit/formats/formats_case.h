/* Helpers of the tests of src/formats: fixtures, the values that make_formats.py gave to weights, comparison of models. */
#ifndef FORMATS_CASE_H
#define FORMATS_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/memory.h"
#include "thaw/model.h"

#define FIXTURES THAW_SOURCE_DIR "/tests/unit/formats/fixtures/"
#define assert_ok(expr) assert_string_equal((expr) == THAW_OK ? "" : thaw_message(), "")

static inline thaw_model *read_fixture(const char *name) {
    char path[512];
    thaw_model *model = NULL;
    snprintf(path, sizeof path, FIXTURES "%s.h5", name);
    assert_ok(thaw_keras_read(&model, path, true));
    return model;
}

/* `value` of make_formats.py. */
static inline float fixture_value(const char *layer, const char *variable, size_t index) {
    size_t key = '/';
    for (const char *c = layer; *c; c++)
        key += (unsigned char)*c;
    for (const char *c = variable; *c; c++)
        key += (unsigned char)*c;
    long steps = (long)((index * 7 + key) % 101);
    return strcmp(variable, "moving_variance") == 0 ? (float)(steps + 1) / 64.0f : (float)(steps - 50) / 64.0f;
}

static inline void assert_fixture_weights(const thaw_model *model) {
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            const thaw_tensor *tensor = &model->layers[i].tensors[t];
            assert_true(tensor->loaded);
            for (size_t k = 0; k < tensor->count; k++)
                if (tensor->data[k] != fixture_value(model->layers[i].name, tensor->name, k))
                    fail_msg("%s/%s[%zu] is %g", model->layers[i].name, tensor->name, k, (double)tensor->data[k]);
        }
}

static inline void assert_same_tensor(const thaw_tensor *a, const thaw_tensor *b) {
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->rank, b->rank);
    assert_memory_equal(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
    assert_int_equal(a->statistic, b->statistic);
    assert_true(a->l1 == b->l1 && a->l2 == b->l2);
    assert_int_equal(a->initializer, b->initializer);
    assert_true(a->init_a == b->init_a && a->init_b == b->init_b);
    assert_int_equal(a->data != NULL, b->data != NULL);
    if (a->data)
        assert_memory_equal(a->data, b->data, a->count * sizeof(float));
}

static inline void assert_same_config(const thaw_layer_config *a, const thaw_layer_config *b) {
    assert_memory_equal(a->kernel, b->kernel, sizeof a->kernel);
    assert_memory_equal(a->strides, b->strides, sizeof a->strides);
    assert_memory_equal(a->dilation, b->dilation, sizeof a->dilation);
    assert_memory_equal(a->pad, b->pad, sizeof a->pad);
    assert_memory_equal(a->target, b->target, sizeof a->target);
    assert_true(a->same == b->same && a->filters == b->filters && a->use_bias == b->use_bias);
    assert_true(a->activation == b->activation && a->center == b->center && a->scale == b->scale);
    assert_true(a->seed == b->seed && a->target_rank == b->target_rank && a->keepdims == b->keepdims);
    assert_true(a->momentum == b->momentum && a->epsilon == b->epsilon && a->rate == b->rate);
    assert_true(a->max_value == b->max_value && a->negative_slope == b->negative_slope && a->threshold == b->threshold);
    assert_int_equal(a->n_rescale, b->n_rescale);
    if (a->n_rescale) {
        assert_memory_equal(a->rescale, b->rescale, (size_t)a->n_rescale * sizeof(float));
        assert_memory_equal(a->offset, b->offset, (size_t)a->n_rescale * sizeof(float));
    }
}

/* Names, kinds, arguments, places, weights; not flags, notes or origin. */
static inline void assert_same_layers(const thaw_model *a, const thaw_model *b) {
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->sequential, b->sequential);
    assert_int_equal(a->nested, b->nested);
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->n_nodes, b->n_nodes);
    for (int i = 0; i < a->n_layers; i++) {
        const thaw_layer *x = &a->layers[i], *y = &b->layers[i];
        if (x->kind != THAW_LAYER_INPUT || a->layers[i].listed) /* the InputLayer of a Sequential may be made up */
            assert_string_equal(x->name, y->name);
        assert_int_equal(x->kind, y->kind);
        assert_int_equal(x->listed, y->listed);
        assert_int_equal(x->list_index, y->list_index);
        assert_int_equal(x->n_tensors, y->n_tensors);
        assert_same_config(&x->config, &y->config);
        for (int t = 0; t < x->n_tensors; t++)
            assert_same_tensor(&x->tensors[t], &y->tensors[t]);
    }
}

/* The same, and calls in the same order. */
static inline void assert_same_model(const thaw_model *a, const thaw_model *b) {
    assert_same_layers(a, b);
    assert_int_equal(a->input, b->input);
    assert_int_equal(a->output, b->output);
    for (int i = 0; i < a->n_nodes; i++) {
        const thaw_node *x = &a->nodes[i], *y = &b->nodes[i];
        assert_int_equal(x->layer, y->layer);
        assert_int_equal(x->n_inputs, y->n_inputs);
        assert_memory_equal(x->inputs, y->inputs, (size_t)x->n_inputs * sizeof *x->inputs);
        assert_int_equal(x->shape.rank, y->shape.rank);
        assert_memory_equal(x->shape.dim, y->shape.dim, (size_t)x->shape.rank * sizeof *x->shape.dim);
    }
}

/* Path of a scratch file NAME in the folder THAW_KEEP_WRITTEN (kept, for tests/parity/check_written.py) or the temporary
 * folder. */
static inline const char *scratch(const char *name) {
    static char path[512];
    const char *kept = getenv("THAW_KEEP_WRITTEN"), *folder = getenv("TMPDIR");
    if (kept)
        snprintf(path, sizeof path, "%s/%s", kept, name);
    else
        snprintf(path, sizeof path, "%s/thaw-%ld-%s", folder && *folder ? folder : "/tmp", (long)getpid(), name);
    return path;
}

/* Writes the model as NAME and reads it again. */
static inline thaw_model *rewrite(const thaw_model *model, const bool *trainable, const char *name) {
    void *bytes;
    size_t size;
    thaw_model *again = NULL;
    assert_ok(thaw_keras_write_image(&bytes, &size, model, trainable));
    assert_ok(thaw_io_write_atomic(scratch(name), bytes, size));
    thaw_free(bytes);
    assert_ok(thaw_keras_read(&again, scratch(name), true));
    if (!getenv("THAW_KEEP_WRITTEN"))
        assert_ok(thaw_io_remove(scratch(name)));
    return again;
}
#endif
