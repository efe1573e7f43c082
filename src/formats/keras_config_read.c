/* Tree -> graph: nested models are laid out flat, layers get path names ("vgg16/block5_conv1"). */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "formats/keras_json.h"
#include "formats/keras_layer_config.h"
#include "formats/keras_tree.h"

enum { MOST_CALLS = 100000 }; /* of layers and nested models: nesting multiplies them */

typedef struct builder {
    thaw_model *model;
    const char *file;
    int n_calls;
} builder;

/* The message of a failed call of src/graph, with the file in front. */
static thaw_status named(const builder *b, thaw_status status) {
    return status == THAW_OK ? status : thaw_fail(status, "%s: %s", b->file, thaw_message());
}

static thaw_status add_layer(builder *b, thaw_keras_item *item, const char *path, const int *inputs, int n_inputs,
                             int *node) {
    thaw_layer layer;
    thaw_keras_place place = {b->file, path};
    thaw_layer_default(&layer, item->kind, path);
    if (item->kind == THAW_LAYER_INPUT) {
        layer.config.target_rank = item->rank;
        memcpy(layer.config.target, item->shape, sizeof layer.config.target);
    }
    thaw_status status = THAW_OK;
    if (item->config && !item->made_up)
        status = thaw_keras_config_to_layer(&layer, item->config, n_inputs ? b->model->nodes[inputs[0]].shape.rank : 0,
                                            &place);
    if (status != THAW_OK) {
        thaw_free(layer.name);
        thaw_free(layer.config.rescale);
        thaw_free(layer.config.offset);
        return status;
    }
    bool trainable = layer.trainable;
    THAW_TRY(named(b, thaw_model_add(b->model, &layer, inputs, n_inputs, node)));
    item->layer = b->model->nodes[*node].layer;
    thaw_layer *added = &b->model->layers[item->layer];
    added->trainable = trainable;
    return item->config && !item->made_up ? thaw_keras_config_to_tensors(added, item->config, &place) : THAW_OK;
}

static thaw_status check_input(const builder *b, const thaw_keras_net *net, int node) {
    const thaw_keras_item *input = &net->items[net->input];
    const thaw_shape *shape = &b->model->nodes[node].shape;
    bool fits = input->rank == 0 || input->rank == shape->rank;
    for (int i = 0; fits && i < input->rank; i++)
        fits = input->shape[i] < 0 || input->shape[i] == shape->dim[i];
    return fits ? THAW_OK
                : thaw_fail(THAW_DATA, "%s: model '%s' is called on something of another shape than that of its InputLayer "
                                       "'%s'", b->file, net->name, input->name);
}

static thaw_status run_net(builder *b, thaw_keras_net *net, const char *prefix, int input, bool inference, int *output);

static thaw_status run_call(builder *b, thaw_keras_item *item, const thaw_keras_call *call, const char *prefix,
                            const int *inputs, bool inference, int *node) {
    if (++b->n_calls > MOST_CALLS)
        return thaw_fail(THAW_DATA, "%s: its nested models make more than %d calls of layers", b->file, MOST_CALLS);
    char *path = thaw_format("%s%s", prefix, item->name);
    if (!path)
        return thaw_fail(THAW_RESOURCE, "no memory to read %s", b->file);
    thaw_status status;
    bool fixed = inference || call->inference;
    if (item->net) {
        status = run_net(b, item->net, path, inputs[0], fixed, node);
    } else {
        status = item->layer < 0 ? add_layer(b, item, path, inputs, call->n_inputs, node)
                                 : named(b, thaw_model_call(b->model, item->layer, inputs, call->n_inputs, node));
        if (status == THAW_OK)
            b->model->nodes[*node].inference = fixed;
    }
    thaw_free(path);
    return status;
}

/* Lays out one call of a net. `input`: the node that it is called on, -1 for the whole model. Calls are made as soon as
 * their inputs are there, as Keras does (functional_from_config), in rounds over the list of layers. */
static thaw_status run_net(builder *b, thaw_keras_net *net, const char *path, int input, bool inference, int *output) {
    int n_calls = 0, left = 0, *values = NULL, *first = thaw_calloc((size_t)net->n_items, sizeof *first), inputs_most = 1;
    int *inputs = NULL;
    char *prefix = input < 0 ? thaw_strdup("") : thaw_format("%s/", path);
    thaw_status status = THAW_OK;
    for (int i = 0; first && i < net->n_items; i++) {
        first[i] = n_calls;
        n_calls += i == net->input ? 1 : net->items[i].n_calls;
        for (int c = 0; c < net->items[i].n_calls; c++)
            if (net->items[i].calls[c].n_inputs > inputs_most)
                inputs_most = net->items[i].calls[c].n_inputs;
    }
    values = thaw_calloc((size_t)n_calls + 1, sizeof *values);
    inputs = thaw_calloc((size_t)inputs_most, sizeof *inputs);
    if (!first || !prefix || !values || !inputs) {
        status = thaw_fail(THAW_RESOURCE, "no memory to read %s", b->file);
        goto out;
    }
    for (int i = 0; i < n_calls; i++)
        values[i] = -1;
    if (input < 0)
        THAW_GOTO(add_layer(b, &net->items[net->input], net->items[net->input].name, NULL, 0, &input));
    else
        THAW_GOTO(check_input(b, net, input));
    values[first[net->input]] = input;
    left = n_calls - 1;
    for (bool progress = true; progress && left > 0;) {
        progress = false;
        for (int i = 0; i < net->n_items; i++)
            for (int c = 0; i != net->input && c < net->items[i].n_calls; c++) {
                const thaw_keras_call *call = &net->items[i].calls[c];
                bool ready = values[first[i] + c] < 0;
                for (int k = 0; ready && k < call->n_inputs; k++) {
                    inputs[k] = values[first[call->inputs[k].item] + call->inputs[k].call];
                    ready = inputs[k] >= 0;
                }
                if (!ready)
                    continue;
                THAW_GOTO(run_call(b, &net->items[i], call, prefix, inputs, inference, &values[first[i] + c]));
                progress = true;
                left--;
            }
    }
    *output = values[first[net->output.item] + net->output.call];
    if (*output < 0 || left > 0)
        status = thaw_fail(THAW_DATA, "%s: the calls of the layers of '%s' form a cycle", b->file, net->name);
out:
    thaw_free(first);
    thaw_free(prefix);
    thaw_free(values);
    thaw_free(inputs);
    return status;
}

static bool has_nested(const thaw_keras_net *net) {
    for (int i = 0; i < net->n_items; i++)
        if (net->items[i].net)
            return true;
    return false;
}

thaw_status thaw_keras_tree_to_model(thaw_model *model, thaw_keras_tree *tree, const char *file) {
    builder b = {.model = model, .file = file};
    const thaw_keras_item *input = &tree->top->items[tree->top->input];
    for (int i = 0; i < input->rank; i++)
        if (input->shape[i] < 0)
            return thaw_fail(THAW_DATA, "%s: layer '%s': the input shape has an open dim; save the model with a fixed one, as "
                                        "Input((224, 224, 3))", file, input->name);
    if (input->rank == 0)
        return thaw_fail(THAW_DATA, "%s: '%s' has no input shape; save the model after it was built, with "
                                    "Input((224, 224, 3)) in front", file, tree->top->name);
    int output;
    model->sequential = tree->top->sequential;
    model->nested = has_nested(tree->top);
    THAW_TRY(run_net(&b, tree->top, "", -1, false, &output));
    return named(&b, thaw_model_finish(model, output, true));
}
