/* Writing of model_config: the dialect that TensorFlow's Keras from 2.4 on and Keras 3 read (no "module" keys, K2-style
 * inbound_nodes, strings for types). */
#include "formats/keras_config_write.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "formats/keras_json.h"
#include "formats/keras_layer_config.h"

static thaw_status no_memory(const thaw_model *model) {
    return thaw_fail(THAW_RESOURCE, "no memory to write the configuration of %s", model->name);
}

/* Tree of the file, brought up to what the model is now. */

/* Binds the items of layers to the model's layers by path; those that are gone keep -1. */
static bool bind(thaw_keras_net *net, const char *prefix, const thaw_model *model) {
    for (int i = 0; i < net->n_items; i++) {
        thaw_keras_item *item = &net->items[i];
        char *path = thaw_format("%s%s%s", prefix, item->name, item->net ? "/" : "");
        if (!path)
            return false;
        bool ok = !item->net || bind(item->net, path, model);
        item->layer = -1;
        for (int k = 0; !item->net && k < model->n_base_layers; k++)
            if (strcmp(model->layers[k].name, path) == 0)
                item->layer = k;
        thaw_free(path);
        if (!ok)
            return false;
    }
    return true;
}

/* The layer whose last call is the net's output. */
static int output_layer(const thaw_keras_net *net) {
    const thaw_keras_item *item = &net->items[net->output.item];
    return item->net ? output_layer(item->net) : item->layer;
}

/* Marks what the net's output does not need, in all nets. */
static void prune(thaw_keras_net *net) {
    bool progress = true;
    for (int i = 0; i < net->n_items; i++)
        for (int c = 0; c < net->items[i].n_calls; c++)
            net->items[i].calls[c].dropped = !(i == net->output.item && c == net->output.call);
    while (progress) { /* from outputs to inputs; lists are in order, so few rounds */
        progress = false;
        for (int i = net->n_items - 1; i >= 0; i--)
            for (int c = net->items[i].n_calls - 1; c >= 0; c--) {
                const thaw_keras_call *call = &net->items[i].calls[c];
                for (int k = 0; !call->dropped && k < call->n_inputs; k++) {
                    thaw_keras_item *from = &net->items[call->inputs[k].item];
                    if (call->inputs[k].item != net->input && from->calls[call->inputs[k].call].dropped) {
                        from->calls[call->inputs[k].call].dropped = false;
                        progress = true;
                    }
                }
            }
    }
    for (int i = 0; i < net->n_items; i++)
        if (net->items[i].net)
            prune(net->items[i].net);
}

/* Makes the last call of `layer` the output of all nets around it. */
static bool cut(thaw_keras_net *net, int layer) {
    for (int i = 0; i < net->n_items; i++) {
        thaw_keras_item *item = &net->items[i];
        if (item->net ? cut(item->net, layer) : item->layer == layer) {
            net->output = (thaw_keras_ref){i, item->n_calls > 0 ? item->n_calls - 1 : 0};
            return true;
        }
    }
    return false;
}

/* Appends the head's layers. */
static bool add_head(thaw_keras_net *net, const thaw_model *model) {
    thaw_keras_ref *of_node = thaw_calloc((size_t)model->n_nodes, sizeof *of_node);
    bool ok = of_node != NULL;
    thaw_keras_ref base = net->output;
    for (int i = 0; ok && i < model->n_nodes; i++) {
        const thaw_node *node = &model->nodes[i];
        const thaw_layer *layer = &model->layers[node->layer];
        of_node[i] = base; /* the only call of the base that the head reads */
        if (node->layer < model->n_base_layers)
            continue;
        int index = -1;
        for (int k = 0; k < net->n_items && index < 0; k++)
            if (net->items[k].layer == node->layer)
                index = k;
        if (index < 0 && (index = thaw_keras_net_add(net, layer->name, layer->kind)) >= 0)
            net->items[index].layer = node->layer;
        thaw_keras_ref *inputs = thaw_calloc((size_t)node->n_inputs + 1, sizeof *inputs);
        for (int k = 0; inputs && k < node->n_inputs; k++)
            inputs[k] = of_node[node->inputs[k]];
        int call = index >= 0 && inputs ? thaw_keras_item_call(&net->items[index], inputs, node->n_inputs, node->inference)
                                        : -1;
        thaw_free(inputs);
        ok = call >= 0;
        of_node[i] = (thaw_keras_ref){index, call};
        if (i == model->output)
            net->output = of_node[i];
    }
    thaw_free(of_node);
    return ok;
}

/* Node of the base that is the model's output or what the head reads. */
static int base_output(const thaw_model *model) {
    for (int i = 0; i < model->n_nodes; i++)
        if (model->nodes[i].layer >= model->n_base_layers)
            for (int k = 0; k < model->nodes[i].n_inputs; k++)
                if (model->nodes[model->nodes[i].inputs[k]].layer < model->n_base_layers)
                    return model->nodes[i].inputs[k];
    return model->output;
}

/* Tree of the graph: one net. */

/* Unique name for a layer in a flat model: its last part if no other layer has that. */
static char *flat_name(const thaw_model *model, int layer) {
    const char *name = model->layers[layer].name, *slash = model->nested ? strrchr(name, '/') : NULL;
    if (!slash)
        return thaw_strdup(name);
    bool unique = thaw_model_find(model, slash + 1) == layer;
    char *flat = thaw_strdup(unique ? slash + 1 : name);
    for (char *at = flat; at && *at; at++)
        if (*at == '/')
            *at = '_';
    return flat;
}

static thaw_status flat_tree(thaw_keras_tree *tree, const thaw_model *model) {
    thaw_keras_ref *of_node = thaw_calloc((size_t)model->n_nodes + 1, sizeof *of_node);
    bool ok = of_node != NULL;
    *tree = (thaw_keras_tree){.top = thaw_keras_net_create(model->name, model->sequential)};
    ok = ok && tree->top;
    for (int i = 0; ok && i < model->n_layers; i++) {
        char *name = flat_name(model, i);
        int index = name ? thaw_keras_net_add(tree->top, name, model->layers[i].kind) : -1;
        thaw_free(name);
        ok = index >= 0;
        if (!ok)
            break;
        thaw_keras_item *item = &tree->top->items[index];
        item->layer = i;
        if (item->kind == THAW_LAYER_INPUT) {
            tree->top->input = index;
            item->rank = model->layers[i].config.target_rank;
            memcpy(item->shape, model->layers[i].config.target, sizeof item->shape);
        }
    }
    for (int i = 0; ok && i < model->n_nodes; i++) {
        const thaw_node *node = &model->nodes[i];
        thaw_keras_ref *inputs = thaw_calloc((size_t)node->n_inputs + 1, sizeof *inputs);
        for (int k = 0; inputs && k < node->n_inputs; k++)
            inputs[k] = of_node[node->inputs[k]];
        bool input = model->layers[node->layer].kind == THAW_LAYER_INPUT;
        int call = !inputs ? -1
                   : input ? 0
                           : thaw_keras_item_call(&tree->top->items[node->layer], inputs, node->n_inputs, node->inference);
        thaw_free(inputs);
        ok = call >= 0;
        of_node[i] = (thaw_keras_ref){node->layer, call};
        if (i == model->output)
            tree->top->output = of_node[i];
        /* A Sequential is a chain of single calls. */
        if (!input && (call != 0 || node->n_inputs != 1 || node->inputs[0] != i - 1 || node->layer != i))
            tree->top->sequential = false;
    }
    thaw_free(of_node);
    if (ok)
        return THAW_OK;
    thaw_keras_tree_free(tree);
    return no_memory(model);
}

/* Is the text's graph the model's graph? */
static bool same_graph(const char *text, const thaw_model *model) {
    thaw_keras_tree tree;
    thaw_model *other = NULL;
    bool same = thaw_keras_tree_parse(&tree, text, "model_config") == THAW_OK;
    if (!same)
        return false;
    same = thaw_model_create(&other, model->name) == THAW_OK &&
           thaw_keras_tree_to_model(other, &tree, "model_config") == THAW_OK && other->n_layers == model->n_layers &&
           other->n_nodes == model->n_nodes && other->output == model->output;
    for (int i = 0; same && i < model->n_layers; i++)
        same = strcmp(model->layers[i].name, other->layers[i].name) == 0 && model->layers[i].kind == other->layers[i].kind;
    for (int i = 0; same && i < model->n_nodes; i++) {
        const thaw_node *a = &model->nodes[i], *b = &other->nodes[i];
        same = a->layer == b->layer && a->n_inputs == b->n_inputs && a->inference == b->inference;
        for (int k = 0; same && k < a->n_inputs; k++)
            same = a->inputs[k] == b->inputs[k];
    }
    thaw_model_free(other);
    thaw_keras_tree_free(&tree);
    return same;
}

thaw_status thaw_keras_tree_of_model(thaw_keras_tree *tree, const thaw_model *model) {
    if (!model->nested || !model->source_config)
        return flat_tree(tree, model);
    THAW_TRY(thaw_keras_tree_parse(tree, model->source_config, model->origin ? model->origin : model->name));
    int output = model->nodes[base_output(model)].layer;
    bool ok = bind(tree->top, "", model);
    if (ok && output_layer(tree->top) != output)
        ok = cut(tree->top, output);
    if (ok)
        prune(tree->top);
    ok = ok && (model->n_base_layers == model->n_layers || add_head(tree->top, model));
    char *text = NULL;
    if (ok && model->changed) {
        thaw_status status = thaw_keras_tree_print(&text, tree, model, NULL, true);
        if (status != THAW_OK) {
            thaw_keras_tree_free(tree);
            return status;
        }
        ok = same_graph(text, model);
    }
    thaw_free(text);
    if (ok)
        return THAW_OK;
    thaw_warn("%s: its nested models cannot keep their form after the cut; the file gets one flat model", model->name);
    thaw_keras_tree_free(tree);
    return flat_tree(tree, model);
}

/* Printing. */

typedef struct printer {
    const thaw_model *model;
    const bool *trainable;
    bool keras3;
} printer;

static bool is_dropped(const thaw_keras_net *net, int index) {
    const thaw_keras_item *item = &net->items[index];
    if (index == net->input)
        return false;
    for (int c = 0; c < item->n_calls; c++)
        if (!item->calls[c].dropped)
            return false;
    return true;
}

/* Does a Sequential have its InputLayer in the file? Inside a Functional it counts as a call in Keras 2 but not in Keras 3,
 * so it is left out where the layers behind it do not bring it back. */
static bool has_input_layer(const thaw_keras_net *net, bool inside_functional) {
    return !net->sequential || !inside_functional || (net->n_items > 1 && net->items[1].net);
}

/* Number of a call as it is written. `endpoint`: in output_layers. */
static int call_number(const printer *p, const thaw_keras_item *item, int call, bool endpoint) {
    int number = 0;
    for (int c = 0; c < call; c++)
        number += !item->calls[c].dropped;
    if (!item->net || !has_input_layer(item->net, true))
        return number;
    if (p->keras3)
        return number + (endpoint && !item->net->sequential);
    return number + 1;
}

static cJSON *triple(const printer *p, const thaw_keras_net *net, thaw_keras_ref ref, bool endpoint) {
    const thaw_keras_item *item = &net->items[ref.item];
    cJSON *list = cJSON_CreateArray();
    cJSON_AddItemToArray(list, cJSON_CreateString(item->name));
    cJSON_AddItemToArray(list, cJSON_CreateNumber(ref.item == net->input ? 0 : call_number(p, item, ref.call, endpoint)));
    cJSON_AddItemToArray(list, cJSON_CreateNumber(0));
    return list;
}

static cJSON *print_calls(const printer *p, const thaw_keras_net *net, const thaw_keras_item *item) {
    cJSON *nodes = cJSON_CreateArray();
    /* Only these take the argument. */
    bool takes = item->net || item->kind == THAW_LAYER_BATCH_NORMALIZATION || item->kind == THAW_LAYER_DROPOUT;
    for (int c = 0; c < item->n_calls; c++) {
        const thaw_keras_call *call = &item->calls[c];
        if (call->dropped)
            continue;
        cJSON *inputs = cJSON_CreateArray();
        for (int k = 0; k < call->n_inputs; k++) {
            cJSON *one = triple(p, net, call->inputs[k], false), *kwargs = cJSON_CreateObject();
            if (call->inference && takes)
                cJSON_AddFalseToObject(kwargs, "training");
            cJSON_AddItemToArray(one, kwargs);
            cJSON_AddItemToArray(inputs, one);
        }
        cJSON_AddItemToArray(nodes, inputs);
    }
    return nodes;
}

static bool any_trains(const printer *p, const thaw_keras_net *net) {
    for (int i = 0; i < net->n_items; i++) {
        const thaw_keras_item *item = &net->items[i];
        if (item->net ? any_trains(p, item->net)
                      : i != net->input && item->layer >= 0 &&
                            (p->trainable ? p->trainable[item->layer] : p->model->layers[item->layer].trainable))
            return true;
    }
    return false;
}

static int input_rank(const thaw_model *model, int layer) {
    for (int i = 0; i < model->n_nodes; i++)
        if (model->nodes[i].layer == layer && model->nodes[i].n_inputs > 0)
            return model->nodes[model->nodes[i].inputs[0]].shape.rank;
    return 0;
}

static cJSON *print_net(const printer *p, const thaw_keras_net *net, bool inside_functional);

static cJSON *print_item(const printer *p, const thaw_keras_net *net, int index) {
    const thaw_keras_item *item = &net->items[index];
    cJSON *entry;
    if (item->net) {
        entry = print_net(p, item->net, !net->sequential);
    } else {
        entry = cJSON_CreateObject();
        cJSON_AddStringToObject(entry, "class_name", thaw_layer_class(item->kind));
        cJSON *config;
        if (index == net->input) {
            config = thaw_keras_input_config(item->name, item->shape, item->rank);
        } else {
            const thaw_layer *layer = &p->model->layers[item->layer];
            config = thaw_keras_layer_to_config(layer, item->name, p->trainable ? p->trainable[item->layer] : layer->trainable,
                                                input_rank(p->model, item->layer));
        }
        cJSON_AddItemToObject(entry, "config", config);
    }
    if (net->sequential)
        return entry;
    cJSON_AddStringToObject(entry, "name", item->name);
    cJSON_AddItemToObject(entry, "inbound_nodes", print_calls(p, net, item));
    return entry;
}

static cJSON *print_net(const printer *p, const thaw_keras_net *net, bool inside_functional) {
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddStringToObject(entry, "class_name", net->sequential ? "Sequential" : "Functional");
    cJSON *config = cJSON_AddObjectToObject(entry, "config");
    cJSON_AddStringToObject(config, "name", net->name);
    if (!net->sequential)
        cJSON_AddBoolToObject(config, "trainable", any_trains(p, net));
    cJSON *layers = cJSON_AddArrayToObject(config, "layers");
    for (int i = 0; i < net->n_items; i++) {
        bool bare = i == net->input && (!has_input_layer(net, inside_functional) || net->items[i].rank == 0);
        if (!bare && !is_dropped(net, i))
            cJSON_AddItemToArray(layers, print_item(p, net, i));
    }
    if (net->sequential)
        return entry;
    /* Bare triples: a list of one would make Keras 3 give a list of one tensor. */
    cJSON_AddItemToObject(config, "input_layers", triple(p, net, (thaw_keras_ref){net->input, 0}, true));
    cJSON_AddItemToObject(config, "output_layers", triple(p, net, net->output, true));
    return entry;
}

thaw_status thaw_keras_tree_print(char **text, const thaw_keras_tree *tree, const thaw_model *model, const bool *trainable,
                                  bool keras3) {
    printer p = {model, trainable, keras3};
    cJSON *json = print_net(&p, tree->top, false);
    char *printed = json ? cJSON_PrintUnformatted(json) : NULL;
    *text = printed ? thaw_strdup(printed) : NULL;
    cJSON_free(printed);
    cJSON_Delete(json);
    return *text ? THAW_OK : no_memory(model);
}
