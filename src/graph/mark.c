#include "graph/mark.h"

thaw_activation thaw_model_final(const thaw_model *model) {
    const thaw_layer *layer = &model->layers[model->nodes[model->output].layer];
    thaw_activation act = THAW_ACTIVATION_LINEAR;
    if (layer->kind == THAW_LAYER_SOFTMAX)
        act = THAW_ACTIVATION_SOFTMAX;
    else if (layer->kind == THAW_LAYER_ACTIVATION || layer->kind == THAW_LAYER_DENSE ||
             layer->kind == THAW_LAYER_CONV2D)
        act = layer->config.activation;
    /* Behind z, softmax goes over all outputs of an image; on a map it goes over each cell's channels, inside. */
    const thaw_shape *shape = &model->nodes[model->output].shape;
    if (act == THAW_ACTIVATION_SOFTMAX && thaw_shape_count(shape) != shape->dim[shape->rank - 1])
        act = THAW_ACTIVATION_LINEAR;
    return act == THAW_ACTIVATION_SOFTMAX || act == THAW_ACTIVATION_SIGMOID ? act : THAW_ACTIVATION_LINEAR;
}

bool thaw_node_drops(const thaw_model *model, int node) {
    const thaw_layer *layer = &model->layers[model->nodes[node].layer];
    return layer->kind == THAW_LAYER_DROPOUT && layer->config.rate > 0.0f && !model->nodes[node].inference;
}

int thaw_node_root(const thaw_model *model, int node, bool training) {
    for (;;) {
        const thaw_node *n = &model->nodes[node];
        const thaw_layer *layer = &model->layers[n->layer];
        bool renames = false;
        switch (layer->kind) {
        case THAW_LAYER_FLATTEN:
        case THAW_LAYER_RESHAPE: renames = true; break;
        case THAW_LAYER_DROPOUT: renames = !training || !thaw_node_drops(model, node); break;
        case THAW_LAYER_ACTIVATION: renames = layer->config.activation == THAW_ACTIVATION_LINEAR; /* fall through */
        case THAW_LAYER_SOFTMAX:
            renames = renames || (node == model->output && thaw_model_final(model) != THAW_ACTIVATION_LINEAR);
            break;
        default: break;
        }
        if (!renames || n->n_inputs == 0)
            return node;
        node = n->inputs[0];
    }
}

bool thaw_node_pad_folds(const thaw_model *model, int node, const bool *in_set) {
    if (!in_set[node] || model->layers[model->nodes[node].layer].kind != THAW_LAYER_ZERO_PADDING)
        return false;
    int reader = -1;
    for (int i = node + 1; i < model->n_nodes; i++)
        for (int k = 0; k < model->nodes[i].n_inputs; k++)
            if (model->nodes[i].inputs[k] == node) {
                if (reader >= 0)
                    return false;
                reader = i;
            }
    if (reader < 0 || !in_set[reader])
        return false;
    const thaw_layer *layer = &model->layers[model->nodes[reader].layer];
    return layer->kind == THAW_LAYER_CONV2D && !layer->config.same;
}
