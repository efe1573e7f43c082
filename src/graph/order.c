/* Order of layers as Keras' Functional models have it (keras/src/ops/function.py: map_graph), needed to read weights by
 * position, and thaw_model_finish.
 *
 * Keras: layers by falling depth (longest way to the output), ties in the order in which a depth-first walk from the output
 * first meets them. A nested model counts as one layer. Since thaw's graph is flat, each level of nesting is one walk over
 * groups (nested models of that level, or single layers), in which edges inside a call of a nested model have length 0. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "graph/build.h"

#define MAX_LEVELS 8 /* deeper nesting is ordered as if it were flat there */

typedef struct sort_key {
    int layer;
    bool head;
    int n; /* values: per level -depth, index */
    int values[2 * MAX_LEVELS];
} sort_key;

static int by_key(const void *a, const void *b) {
    const sort_key *x = a, *y = b;
    if (x->head != y->head)
        return x->head ? 1 : -1;
    for (int i = 0; i < x->n; i++)
        if (x->values[i] != y->values[i])
            return x->values[i] < y->values[i] ? -1 : 1;
    return x->layer - y->layer;
}

/* Length of the name's part that is its group on this level: up to the slash number `level` (from 0), or all. */
static size_t group_length(const char *name, int level) {
    const char *slash = strchr(name, '/');
    for (; slash && level > 0; level--)
        slash = strchr(slash + 1, '/');
    return slash ? (size_t)(slash - name) : strlen(name);
}

/* Group of each layer: index of the first layer with the same prefix. */
static void set_groups(const thaw_model *model, int level, int *group) {
    for (int i = 0; i < model->n_layers; i++) {
        const char *name = model->layers[i].name;
        size_t length = group_length(name, level);
        group[i] = i;
        for (int k = 0; model->nested && name[length] == '/' && k < i; k++) {
            const char *other = model->layers[k].name;
            if (group_length(other, level) == length && other[length] == '/' && memcmp(name, other, length) == 0) {
                group[i] = group[k];
                break;
            }
        }
    }
}

/* Work arrays of a walk. */
typedef struct walk {
    int *post, *stack, *next_input, *node_depth, *call; /* per node */
    int *index, *depth, *calls, *common, *last;         /* per group */
    int *total, *so_far;                                /* per layer: calls */
    bool *seen;                                         /* per node */
} walk;

static int divisor(int a, int b) { return b == 0 ? a : divisor(b, a % b); }

/* Sets call[node] of the nested models' nodes for the numbers of calls assumed. False, with one fewer assumed, where the
 * calls of a model would not lie behind each other. */
static bool try_calls(const thaw_model *model, int level, const int *group, walk *w) {
    bool fits = true;
    for (int i = 0; i < model->n_layers; i++)
        w->so_far[i] = w->last[i] = 0;
    for (int i = 0; i < model->n_nodes; i++) {
        int layer = model->nodes[i].layer, g = group[layer];
        const char *name = model->layers[layer].name;
        w->call[i] = -1;
        if (!model->nested || name[group_length(name, level)] != '/')
            continue;
        w->call[i] = w->so_far[layer]++ / (w->total[layer] / w->calls[g]);
        if (w->call[i] < w->last[g]) {
            do
                w->calls[g]--;
            while (w->common[g] % w->calls[g] != 0); /* ends at 1, which always fits */
            fits = false;
            break;
        }
        w->last[g] = w->call[i];
    }
    return fits;
}

/* Numbers the calls of each nested model: call[node], -1 for a single layer. A model that is called r times calls each of its
 * layers a multiple of r times, one call behind the other; r is the largest number that fits. (Wrong only for a model that
 * itself calls every one of its layers several times in a row.) */
static void number_calls(const thaw_model *model, int level, const int *group, walk *w) {
    for (int i = 0; i < model->n_layers; i++)
        w->total[i] = w->common[i] = 0;
    for (int i = 0; i < model->n_nodes; i++)
        w->total[model->nodes[i].layer]++;
    for (int i = 0; i < model->n_layers; i++)
        w->common[group[i]] = w->calls[group[i]] = divisor(w->total[i], w->common[group[i]]);
    while (!try_calls(model, level, group, w)) {
    }
}

/* Steps 1 and 2 of the algorithm on one level. */
static void walk_level(const thaw_model *model, int output, int level, const int *group, walk *w) {
    int n_post = 0, n_stack = 0, n_index = 0;
    for (int i = 0; i < model->n_nodes; i++) {
        w->seen[i] = false;
        w->next_input[i] = w->node_depth[i] = 0;
    }
    for (int i = 0; i < model->n_layers; i++) {
        w->index[i] = -1;
        w->depth[i] = 0;
    }
    w->stack[n_stack++] = output;
    w->seen[output] = true;
    while (n_stack > 0) { /* depth-first; a node is on the stack at most once, since inputs have smaller numbers */
        int node = w->stack[n_stack - 1];
        const thaw_node *n = &model->nodes[node];
        if (w->index[group[n->layer]] < 0)
            w->index[group[n->layer]] = n_index++;
        if (w->next_input[node] == n->n_inputs) {
            w->post[n_post++] = node;
            n_stack--;
            continue;
        }
        int input = n->inputs[w->next_input[node]++];
        if (!w->seen[input]) {
            w->seen[input] = true;
            w->stack[n_stack++] = input;
        }
    }
    number_calls(model, level, group, w);
    while (n_post > 0) {
        int node = w->post[--n_post], g = group[model->nodes[node].layer];
        if (w->node_depth[node] < w->depth[g])
            w->node_depth[node] = w->depth[g];
        w->depth[g] = w->node_depth[node];
        for (int k = 0; k < model->nodes[node].n_inputs; k++) {
            int input = model->nodes[node].inputs[k];
            bool inside = w->call[node] >= 0 && w->call[input] == w->call[node] && group[model->nodes[input].layer] == g;
            int depth = w->node_depth[node] + !inside;
            if (w->node_depth[input] < depth)
                w->node_depth[input] = depth;
        }
    }
}

static int count_levels(const thaw_model *model) {
    int levels = 1;
    for (int i = 0; model->nested && i < model->n_layers; i++) {
        int slashes = 0;
        for (const char *c = model->layers[i].name; *c; c++)
            slashes += *c == '/';
        if (slashes + 1 > levels)
            levels = slashes + 1;
    }
    return levels < MAX_LEVELS ? levels : MAX_LEVELS;
}

thaw_status thaw_order_layers(const thaw_model *model, int output, const bool *needed, bool reorder, int *order, int *n,
                              int *group) {
    size_t nodes = (size_t)model->n_nodes, layers = (size_t)model->n_layers;
    walk w = {0};
    thaw_status status = THAW_OK;
    sort_key *keys = thaw_calloc(layers + 1, sizeof *keys);
    int *work = thaw_calloc(5 * nodes + 7 * layers + 1, sizeof *work);
    bool *flags = thaw_calloc(nodes + layers + 1, sizeof *flags), *used = flags ? flags + nodes : NULL;
    *n = 0;
    if (!keys || !work || !flags) {
        status = thaw_fail(THAW_RESOURCE, "no memory to order the layers of %s", model->name);
        goto out;
    }
    int *per_layer = work + 5 * nodes;
    w = (walk){.post = work, .stack = work + nodes, .next_input = work + 2 * nodes, .node_depth = work + 3 * nodes,
               .call = work + 4 * nodes, .index = per_layer, .depth = per_layer + layers, .calls = per_layer + 2 * layers,
               .total = per_layer + 3 * layers, .so_far = per_layer + 4 * layers, .common = per_layer + 5 * layers,
               .last = per_layer + 6 * layers, .seen = flags};
    int levels = count_levels(model);
    for (int i = 0; i < model->n_nodes; i++)
        if (needed[i])
            used[model->nodes[i].layer] = true;
    for (int i = 0; i < model->n_layers; i++)
        keys[i] = (sort_key){.layer = i, .head = model->layers[i].head, .n = reorder ? 2 * levels : 0};
    for (int level = 0; reorder && level < levels; level++) {
        set_groups(model, level, group);
        walk_level(model, output, level, group, &w);
        for (int i = 0; i < model->n_layers; i++) {
            keys[i].values[2 * level] = -w.depth[group[i]];
            keys[i].values[2 * level + 1] = w.index[group[i]];
        }
    }
    set_groups(model, 0, group);
    qsort(keys, layers, sizeof *keys, by_key);
    for (int i = 0; i < model->n_layers; i++)
        if (used[keys[i].layer])
            order[(*n)++] = keys[i].layer;
out:
    thaw_free(keys);
    thaw_free(work);
    thaw_free(flags);
    return status;
}

/* Places in Keras' top-level `layers` list. [in] group: per old layer index; [in] order: old index of each layer. */
static void set_list(thaw_model *model, const int *order, const int *group, int *position) {
    int next = 0;
    model->n_base_layers = 0;
    for (int i = 0; i < model->n_layers; i++) {
        thaw_layer *layer = &model->layers[i];
        int *at = &position[group[order[i]]]; /* 0: not listed yet */
        layer->listed = !(model->sequential && layer->kind == THAW_LAYER_INPUT);
        layer->list_index = -1;
        if (layer->listed) {
            if (*at == 0)
                *at = ++next;
            layer->list_index = *at - 1;
        }
        model->n_base_layers += !layer->head;
        model->changed = model->changed || layer->head;
    }
}

thaw_status thaw_model_finish(thaw_model *model, int output, bool reorder) {
    if (output < 0 || output >= model->n_nodes || model->input < 0)
        return thaw_fail(THAW_DATA, "%s has no %s", model->name, model->input < 0 ? "InputLayer" : "output");
    size_t nodes = (size_t)model->n_nodes, layers = (size_t)model->n_layers;
    int *work = thaw_calloc(nodes + 4 * layers, sizeof *work), n = 0;
    bool *needed = thaw_calloc(nodes, sizeof *needed);
    thaw_layer *sorted = thaw_calloc(layers, sizeof *sorted);
    thaw_status status = THAW_OK;
    if (!work || !needed || !sorted) {
        status = thaw_fail(THAW_RESOURCE, "no memory to order the layers of %s", model->name);
        goto out;
    }
    int *new_node = work, *order = work + nodes, *group = order + layers, *new_layer = group + layers,
        *position = new_layer + layers;
    needed[output] = true;
    for (int i = output; i >= 0; i--) /* inputs have smaller numbers */
        for (int k = 0; needed[i] && k < model->nodes[i].n_inputs; k++)
            needed[model->nodes[i].inputs[k]] = true;
    THAW_GOTO(thaw_order_layers(model, output, needed, reorder, order, &n, group));

    for (int i = 0; i < model->n_layers; i++)
        new_layer[i] = -1;
    for (int i = 0; i < n; i++) {
        new_layer[order[i]] = i;
        sorted[i] = model->layers[order[i]];
    }
    for (int i = 0; i < model->n_layers; i++)
        if (new_layer[i] < 0)
            thaw_layer_clear(&model->layers[i]);
    thaw_free(model->layers);
    model->layers = sorted;
    model->layer_capacity = model->n_layers;
    model->n_layers = n;
    sorted = NULL;

    int kept = 0;
    for (int i = 0; i < model->n_nodes; i++) {
        thaw_node node = model->nodes[i];
        if (!needed[i]) {
            thaw_free(node.inputs);
            continue;
        }
        new_node[i] = kept;
        node.layer = new_layer[node.layer];
        for (int k = 0; k < node.n_inputs; k++)
            node.inputs[k] = new_node[node.inputs[k]];
        model->nodes[kept++] = node;
    }
    model->n_nodes = kept;
    model->input = new_node[model->input];
    model->output = new_node[output];
    set_list(model, order, group, position);
out:
    thaw_free(work);
    thaw_free(needed);
    thaw_free(sorted);
    return status;
}
