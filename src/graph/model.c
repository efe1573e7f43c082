/* Models: lifetime, building, memory, counts. */
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "graph/build.h"

/* Networks are far smaller; a hostile file may claim anything, and the plan compiler looks at pairs of nodes. */
#define MAX_NODES 16384

thaw_status thaw_model_create(thaw_model **out, const char *name) {
    thaw_model *model = thaw_calloc(1, sizeof *model);
    *out = NULL;
    if (model) {
        model->input = model->output = -1;
        model->name = thaw_strdup(name);
    }
    if (!model || !model->name) {
        thaw_model_free(model);
        return thaw_fail(THAW_RESOURCE, "no memory for a model");
    }
    *out = model;
    return THAW_OK;
}

void thaw_model_free(thaw_model *model) {
    if (!model)
        return;
    for (int i = 0; i < model->n_layers; i++)
        thaw_layer_clear(&model->layers[i]);
    for (int i = 0; i < model->n_nodes; i++)
        thaw_free(model->nodes[i].inputs);
    for (int i = 0; model->notes.class_names && i < model->notes.n_classes; i++)
        thaw_free(model->notes.class_names[i]);
    thaw_free(model->notes.class_names);
    thaw_free(model->notes.preprocess);
    thaw_free(model->notes.loss);
    thaw_free(model->notes.metrics);
    thaw_free(model->layers);
    thaw_free(model->nodes);
    thaw_free(model->name);
    thaw_free(model->origin);
    thaw_free(model->family);
    thaw_free(model->source_config);
    thaw_free(model->keras_version);
    thaw_free(model);
}

static thaw_status no_memory(const thaw_model *model) {
    return thaw_fail(THAW_RESOURCE, "no memory to build the model %s", model->name);
}

/* Room for one more element of an array. */
static bool reserve(void **array, int n, int *capacity, size_t bytes) {
    if (n < *capacity)
        return true;
    int grown = n < 16 ? 32 : 2 * n;
    void *bigger = thaw_realloc(*array, (size_t)grown * bytes);
    if (!bigger)
        return false;
    *array = bigger;
    *capacity = grown;
    return true;
}

/* Shapes of `inputs` (thaw_free); the node indices are checked. */
static thaw_status input_shapes(thaw_shape **out, const thaw_model *model, const char *name, const int *inputs,
                                int n_inputs) {
    *out = NULL;
    if (n_inputs < 0 || n_inputs > MAX_NODES)
        return thaw_fail(THAW_DATA, "layer %s: a call with %d inputs; at most %d are supported", name, n_inputs, MAX_NODES);
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] < 0 || inputs[i] >= model->n_nodes)
            return thaw_fail(THAW_DATA, "layer %s: its input is call %d of %d", name, inputs[i], model->n_nodes);
    *out = thaw_calloc((size_t)n_inputs + 1, sizeof **out);
    if (!*out)
        return no_memory(model);
    for (int i = 0; i < n_inputs; i++)
        (*out)[i] = model->nodes[inputs[i]].shape;
    return THAW_OK;
}

static thaw_status add_node(thaw_model *model, int layer, const int *inputs, int n_inputs, const thaw_shape *shape,
                            int *node) {
    int *copy = thaw_calloc((size_t)n_inputs + 1, sizeof *copy);
    if (!copy || !reserve((void **)&model->nodes, model->n_nodes, &model->node_capacity, sizeof *model->nodes)) {
        thaw_free(copy);
        return no_memory(model);
    }
    for (int i = 0; i < n_inputs; i++)
        copy[i] = inputs[i];
    *node = model->n_nodes++;
    model->nodes[*node] = (thaw_node){.layer = layer, .n_inputs = n_inputs, .inputs = copy, .shape = *shape};
    return THAW_OK;
}

static thaw_status check_layer(const thaw_model *model, const thaw_layer *layer) {
    if (!layer->name)
        return no_memory(model);
    if (!layer->name[0])
        return thaw_fail(THAW_DATA, "a layer of class %s has no name", thaw_layer_class(layer->kind));
    if (model->n_nodes >= MAX_NODES || model->n_layers >= MAX_NODES)
        return thaw_fail(THAW_DATA, "layer %s: more than %d layers or calls are not supported", layer->name, MAX_NODES);
    for (int i = 0; i < model->n_layers; i++)
        if (strcmp(model->layers[i].name, layer->name) == 0)
            return thaw_fail(THAW_DATA, "layer %s: another layer has this name; names must be unique", layer->name);
    if (layer->kind == THAW_LAYER_INPUT && model->input >= 0)
        return thaw_fail(THAW_DATA, "layer %s: a second InputLayer; networks with several inputs are not supported",
                         layer->name);
    return THAW_OK;
}

thaw_status thaw_model_add(thaw_model *model, thaw_layer *layer, const int *inputs, int n_inputs, int *node) {
    thaw_layer own = *layer;
    thaw_shape *in = NULL, shape;
    thaw_status status;
    *layer = (thaw_layer){.list_index = -1};
    own.n_tensors = 0;
    THAW_GOTO(check_layer(model, &own));
    THAW_GOTO(input_shapes(&in, model, own.name, inputs, n_inputs));
    int n_tensors = 0; /* the layer owns them from here on */
    THAW_GOTO(thaw_shape_infer(&own, in, n_inputs, &shape, own.tensors, &n_tensors));
    own.n_tensors = n_tensors;
    if (!reserve((void **)&model->layers, model->n_layers, &model->layer_capacity, sizeof *model->layers)) {
        status = no_memory(model);
        goto out;
    }
    THAW_GOTO(add_node(model, model->n_layers, inputs, n_inputs, &shape, node));
    if (own.kind == THAW_LAYER_INPUT)
        model->input = *node;
    model->layers[model->n_layers++] = own;
    own = (thaw_layer){.list_index = -1};
out:
    thaw_free(in);
    thaw_layer_clear(&own);
    return status;
}

thaw_status thaw_model_call(thaw_model *model, int layer, const int *inputs, int n_inputs, int *node) {
    if (layer < 0 || layer >= model->n_layers)
        return thaw_fail(THAW_INTERNAL, "call of layer %d of %d", layer, model->n_layers);
    thaw_layer *called = &model->layers[layer];
    if (called->kind == THAW_LAYER_INPUT)
        return thaw_fail(THAW_DATA, "layer %s: an InputLayer is called", called->name);
    if (model->n_nodes >= MAX_NODES)
        return thaw_fail(THAW_DATA, "layer %s: more than %d calls of layers are not supported", called->name, MAX_NODES);
    thaw_tensor wanted[THAW_MAX_TENSORS];
    thaw_shape *in, shape;
    int n_wanted = 0;
    THAW_TRY(input_shapes(&in, model, called->name, inputs, n_inputs));
    thaw_status status = thaw_shape_infer(called, in, n_inputs, &shape, wanted, &n_wanted);
    if (status == THAW_OK)
        for (int t = 0; t < n_wanted && t < called->n_tensors; t++)
            for (int k = 0; k < wanted[t].rank && status == THAW_OK; k++)
                if (wanted[t].shape[k] != called->tensors[t].shape[k])
                    status = thaw_fail(THAW_DATA, "layer %s: called again on %s, which does not fit its %s made for other "
                                                  "channels", called->name, thaw_shape_text(&in[0]), wanted[t].name);
    if (status == THAW_OK)
        status = add_node(model, layer, inputs, n_inputs, &shape, node);
    thaw_free(in);
    return status;
}

int thaw_model_find(const thaw_model *model, const char *name) {
    int found = -1, ends = 0;
    size_t length = strlen(name);
    for (int i = 0; i < model->n_layers; i++) {
        const char *path = model->layers[i].name;
        size_t size = strlen(path);
        if (strcmp(path, name) == 0)
            return i;
        if (length > 0 && size > length && path[size - length - 1] == '/' && strcmp(path + size - length, name) == 0) {
            found = i;
            ends++;
        }
    }
    return ends == 1 ? found : -1;
}

const char *thaw_model_nearest(const thaw_model *model, const char *name) {
    const char **names = thaw_calloc((size_t)model->n_layers + 1, sizeof *names);
    const char *nearest = "";
    if (names) {
        for (int i = 0; i < model->n_layers; i++)
            names[i] = model->layers[i].name;
        nearest = thaw_nearest(name, names, model->n_layers);
    }
    thaw_free(names);
    return *nearest ? nearest : "none";
}

thaw_status thaw_model_allocate(thaw_model *model) {
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            if (tensor->data)
                continue;
            tensor->data = tensor->home = thaw_calloc(tensor->count, sizeof *tensor->data);
            if (!tensor->data) {
                int64_t total;
                thaw_model_count(model, NULL, &total, NULL, NULL);
                return thaw_fail(THAW_RESOURCE, "not enough memory for the weights of %s (%.2f GiB in all, %.2f GiB for "
                                                "%s/%s)", model->name, (double)total * 4 / 0x1p30,
                                 (double)tensor->count * 4 / 0x1p30, model->layers[i].name, tensor->name);
            }
        }
    return THAW_OK;
}

void thaw_model_count(const thaw_model *model, const bool *trainable, int64_t *total, int64_t *trainable_params,
                      int64_t *frozen_params) {
    int64_t all = 0, trained = 0;
    for (int i = 0; i < model->n_layers; i++) {
        const thaw_layer *layer = &model->layers[i];
        bool trains = trainable ? trainable[i] : layer->trainable;
        for (int t = 0; t < layer->n_tensors; t++) {
            all += (int64_t)layer->tensors[t].count;
            if (trains && !layer->tensors[t].statistic)
                trained += (int64_t)layer->tensors[t].count;
        }
    }
    if (total)
        *total = all;
    if (trainable_params)
        *trainable_params = trained;
    if (frozen_params)
        *frozen_params = all - trained;
}
