/* Shared by the tests of graph and models: short ways to add layers and to expect a message. */
#ifndef THAW_TEST_GRAPH_CASE_H
#define THAW_TEST_GRAPH_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "thaw/model.h"

#define OK(expr)                                      \
    do {                                              \
        if ((expr) != THAW_OK)                        \
            fail_msg("%s: %s", #expr, thaw_message()); \
    } while (0)

/* The call fails with `code`, and its one-line message holds every part ('|' separates parts). */
__attribute__((unused)) static void expect(thaw_status status, thaw_status code, const char *parts) {
    if (status == THAW_OK)
        fail_msg("accepted; expected a message with: %s", parts);
    if (status != code)
        fail_msg("status %d, expected %d: %s", status, code, thaw_message());
    char *copy = strdup(parts), *rest = copy, *part;
    while ((part = strsep(&rest, "|")) != NULL)
        if (strstr(thaw_message(), part) == NULL)
            fail_msg("no \"%s\" in the message: %s", part, thaw_message());
    if (strchr(thaw_message(), '\n') != NULL)
        fail_msg("more than one line: %s", thaw_message());
    free(copy);
}

__attribute__((unused)) static thaw_model *new_model(void) {
    thaw_model *model;
    OK(thaw_model_create(&model, "test"));
    return model;
}

__attribute__((unused)) static int add_input(thaw_model *model, const char *name, int rank, int64_t h, int64_t w,
                                             int64_t c) {
    thaw_layer layer;
    int node = -1;
    thaw_layer_default(&layer, THAW_LAYER_INPUT, name);
    layer.config.target_rank = rank;
    layer.config.target[0] = h;
    layer.config.target[1] = w;
    layer.config.target[2] = c;
    OK(thaw_model_add(model, &layer, NULL, 0, &node));
    return node;
}

__attribute__((unused)) static int add_layer(thaw_model *model, thaw_layer *layer, int input) {
    int node = -1;
    OK(thaw_model_add(model, layer, &input, 1, &node));
    return node;
}

__attribute__((unused)) static int add_plain(thaw_model *model, thaw_layer_kind kind, const char *name, int input) {
    thaw_layer layer;
    thaw_layer_default(&layer, kind, name);
    return add_layer(model, &layer, input);
}

__attribute__((unused)) static int add_conv(thaw_model *model, const char *name, int input, int64_t filters, int64_t k) {
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_CONV2D, name);
    layer.config.filters = filters;
    layer.config.kernel[0] = layer.config.kernel[1] = k;
    layer.config.same = true;
    return add_layer(model, &layer, input);
}

__attribute__((unused)) static int add_dense(thaw_model *model, const char *name, int input, int64_t units, bool head) {
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_DENSE, name);
    layer.config.filters = units;
    layer.head = head;
    return add_layer(model, &layer, input);
}

__attribute__((unused)) static int add_merge(thaw_model *model, thaw_layer_kind kind, const char *name, const int *inputs,
                                             int n_inputs) {
    thaw_layer layer;
    int node = -1;
    thaw_layer_default(&layer, kind, name);
    OK(thaw_model_add(model, &layer, inputs, n_inputs, &node));
    return node;
}

/* Layer names of the model, separated by spaces. */
__attribute__((unused)) static const char *names_of(const thaw_model *model) {
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < model->n_layers; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? " " : "", model->layers[i].name);
    return text;
}

/* What every finished model must hold. */
__attribute__((unused)) static void check_sound(const thaw_model *model) {
    int base = 0;
    assert_in_range(model->input, 0, model->n_nodes - 1);
    assert_in_range(model->output, 0, model->n_nodes - 1);
    assert_int_equal(model->layers[model->nodes[model->input].layer].kind, THAW_LAYER_INPUT);
    for (int i = 0; i < model->n_nodes; i++) {
        assert_in_range(model->nodes[i].layer, 0, model->n_layers - 1);
        for (int k = 0; k < model->nodes[i].n_inputs; k++)
            assert_in_range(model->nodes[i].inputs[k], 0, i - 1);
    }
    for (int i = 0; i < model->n_layers; i++) {
        bool called = false;
        for (int k = 0; k < model->n_nodes; k++)
            called = called || model->nodes[k].layer == i;
        assert_true(called);
        base += !model->layers[i].head;
        if (model->layers[i].head)
            assert_true(i >= model->n_base_layers);
    }
    assert_int_equal(base, model->n_base_layers);
}
#endif
