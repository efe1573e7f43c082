/* Single layers: defaults, names, what they own. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "graph/build.h"

const char *thaw_layer_class(thaw_layer_kind kind) {
    static const char *const names[THAW_LAYER_KINDS] = {
#define THAW_LAYER_NAME(name, keras) keras,
        THAW_LAYER_LIST(THAW_LAYER_NAME)
#undef THAW_LAYER_NAME
    };
    return kind < THAW_LAYER_KINDS ? names[kind] : "unknown";
}

static const char *const activation_names[THAW_ACTIVATIONS] = {
#define THAW_ACTIVATION_NAME(name, keras) keras,
    THAW_ACTIVATION_LIST(THAW_ACTIVATION_NAME)
#undef THAW_ACTIVATION_NAME
};

const char *thaw_activation_name(thaw_activation activation) {
    return activation < THAW_ACTIVATIONS ? activation_names[activation] : "unknown";
}

bool thaw_activation_parse(thaw_activation *out, const char *name) {
    if (strcmp(name, "silu") == 0)
        name = "swish";
    for (int i = 0; i < THAW_ACTIVATIONS; i++)
        if (strcmp(activation_names[i], name) == 0) {
            *out = (thaw_activation)i;
            return true;
        }
    return false;
}

void thaw_layer_default(thaw_layer *layer, thaw_layer_kind kind, const char *name) {
    *layer = (thaw_layer){.name = thaw_strdup(name), .kind = kind, .trainable = true, .listed = true, .list_index = -1};
    thaw_layer_config *c = &layer->config;
    c->strides[0] = c->strides[1] = c->dilation[0] = c->dilation[1] = 1;
    c->use_bias = true;
    c->activation = kind == THAW_LAYER_SOFTMAX ? THAW_ACTIVATION_SOFTMAX : THAW_ACTIVATION_LINEAR;
    if (kind == THAW_LAYER_MAX_POOLING || kind == THAW_LAYER_AVERAGE_POOLING) {
        c->kernel[0] = c->kernel[1] = 2;
        c->strides[0] = c->strides[1] = 0;
    }
    if (kind == THAW_LAYER_ZERO_PADDING)
        for (int i = 0; i < 4; i++)
            c->pad[i] = 1;
    c->momentum = 0.99f;
    c->epsilon = 1e-3f;
    c->center = c->scale = true;
    c->seed = -1;
    c->max_value = INFINITY;
}

void thaw_layer_clear(thaw_layer *layer) {
    thaw_free(layer->name);
    thaw_free(layer->config.rescale);
    thaw_free(layer->config.offset);
    for (int i = 0; i < layer->n_tensors; i++) /* `data` may lie in a flat block, `home` is always the model's own */
        thaw_free(layer->tensors[i].home);
    *layer = (thaw_layer){.list_index = -1};
}

thaw_tensor *thaw_layer_tensor(thaw_layer *layer, const char *name) {
    for (int i = 0; i < layer->n_tensors; i++)
        if (strcmp(layer->tensors[i].name, name) == 0)
            return &layer->tensors[i];
    return NULL;
}
