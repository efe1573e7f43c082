/* Lowering: nodes of the graph become operations on values. See tape.h for the terms. */
#include "graph/tape.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "graph/mark.h"

typedef struct lowering {
    const thaw_plan *plan;
    const thaw_model *model;
    const bool *in_set;
    bool training, fold;
    thaw_tape *lender;
    thaw_tape *tape;
    bool *done; /* per node: computed by the operation of a node before */
    int capacity_ops, capacity_values, capacity_places, capacity_packs;
    bool failed; /* a request for memory failed */
} lowering;

/* Appends one zeroed element to a list; NULL (and l->failed) without memory. */
static void *append(lowering *l, void **list, int *n, int *capacity, size_t bytes) {
    if (*n == *capacity) {
        int grown = *capacity ? 2 * *capacity : 32;
        void *bigger = thaw_realloc(*list, (size_t)grown * bytes);
        if (!bigger) {
            l->failed = true;
            return NULL;
        }
        *list = bigger;
        *capacity = grown;
    }
    return (char *)*list + (size_t)(*n)++ * bytes;
}

static thaw_op *new_op(lowering *l, thaw_op_kind kind, int layer, const int *in, int n_in, int out) {
    thaw_op *op = append(l, (void **)&l->tape->ops, &l->tape->n_ops, &l->capacity_ops, sizeof *op);
    if (!op)
        return NULL;
    *op = (thaw_op){.kind = kind, .layer = layer, .n_in = n_in, .out = out, .pack = -1, .pack_backward = -1,
                     .saved = -1, .rows = 1};
    op->in = thaw_calloc((size_t)n_in, sizeof *op->in);
    if (!op->in) {
        l->failed = true;
        l->tape->n_ops--;
        return NULL;
    }
    memcpy(op->in, in, (size_t)n_in * sizeof *op->in);
    return op;
}

static int new_value(lowering *l, thaw_region region, int slot, int64_t count) {
    thaw_value *value = append(l, (void **)&l->tape->values, &l->tape->n_values, &l->capacity_values, sizeof *value);
    if (!value)
        return -1;
    *value = (thaw_value){.region = region, .slot = slot, .count = count, .stride = 1, .gradient = -1,
                          .place = {.per_image = (size_t)count * sizeof(float), .first = 1, .last = 0}};
    return l->tape->n_values - 1;
}

static int new_place(lowering *l, size_t per_image, size_t fixed) {
    thaw_place *place = append(l, (void **)&l->tape->places, &l->tape->n_places, &l->capacity_places, sizeof *place);
    if (!place)
        return -1;
    *place = (thaw_place){.per_image = per_image, .fixed = fixed, .first = 1, .last = 0};
    return l->tape->n_places - 1;
}

static bool same_pack(const thaw_pack *a, const thaw_pack *b) {
    const thaw_window *v = &a->window, *w = &b->window;
    return a->kind == b->kind && a->layer == b->layer && a->norm == b->norm && a->backward == b->backward && v->h == w->h &&
           v->w == w->w && v->pad_top == w->pad_top && v->pad_left == w->pad_left && v->oh == w->oh && v->ow == w->ow;
}

/* The pack of a tape like `wanted`, or NULL. It serves a call that pools from now on, if `wanted` does. */
static thaw_pack *find_pack(thaw_tape *tape, const thaw_pack *wanted) {
    for (int i = 0; i < tape->n_packs; i++)
        if (same_pack(&tape->packs[i], wanted)) {
            tape->packs[i].window.pool |= wanted->window.pool;
            return &tape->packs[i];
        }
    return NULL;
}

/* Index of a pack like `wanted`, of wanted->count floats. */
static int new_pack(lowering *l, const thaw_pack *wanted) {
    const thaw_plan *plan = l->plan;
    thaw_pack *lent = l->lender ? find_pack(l->lender, wanted) : NULL, *own = find_pack(l->tape, wanted);
    if (own) /* calls of a shared layer share its packed form */
        return (int)(own - l->tape->packs);
    thaw_pack *pack = append(l, (void **)&l->tape->packs, &l->tape->n_packs, &l->capacity_packs, sizeof *pack);
    if (!pack)
        return -1;
    if (lent) {
        *pack = *lent;
        pack->lent = true;
        return l->tape->n_packs - 1;
    }
    *pack = *wanted;
    pack->count = thaw_align(wanted->count * sizeof(float)) / sizeof(float);
    pack->refresh = plan->model->layers[pack->layer].n_tensors > 0 && plan->trainable[pack->layer];
    size_t *floats = pack->refresh ? &l->tape->pack_floats : &l->tape->constant_floats;
    pack->offset = *floats;
    *floats += pack->count;
    return l->tape->n_packs - 1;
}

static int scale_pack(lowering *l, int layer, int64_t c) {
    return new_pack(l, &(thaw_pack){.kind = THAW_PACK_SCALE, .layer = layer, .norm = -1, .c = c, .count = 3 * (size_t)c});
}

/* Packed form of a convolution's kernel where the kernels have one; else its folded form, or none (-1). */
static int conv_pack(lowering *l, int layer, int norm, const thaw_window *window, bool backward) {
    size_t floats = thaw_kernels_get()->conv_pack_floats(window, backward), bias = norm >= 0 ? (size_t)window->cout : 0;
    thaw_pack pack = {.kind = THAW_PACK_CONV, .layer = layer, .norm = norm, .backward = backward, .window = *window,
                      .c = window->cout, .count = thaw_align(floats * sizeof(float)) / sizeof(float) + bias};
    if (floats > 0)
        return new_pack(l, &pack);
    if (norm < 0)
        return -1;
    return new_pack(l, &(thaw_pack){.kind = THAW_PACK_FOLDED, .layer = layer, .norm = norm, .c = window->cout,
                                    .count = l->model->layers[layer].tensors[0].count + bias});
}

static int slot_of(const thaw_plan *plan, int node) {
    for (int i = 0; i < plan->n_boundary; i++)
        if (plan->boundary[i] == node)
            return i;
    return -1;
}

/* Value that holds a node's output: computed in this tape, or given at the boundary. */
static int value_of(lowering *l, int node) {
    int *known = &l->tape->node_value[node];
    if (*known >= 0)
        return *known;
    int root = thaw_node_root(l->model, node, l->training);
    if (root != node) {
        *known = value_of(l, root);
        return *known;
    }
    int64_t count = thaw_shape_count(&l->model->nodes[node].shape);
    if (node == l->model->input)
        *known = new_value(l, THAW_REGION_INPUT, -1, count);
    else
        *known = new_value(l, THAW_REGION_BOUNDARY, slot_of(l->plan, node), count);
    return *known;
}

/* New value for the output of `node`: a boundary slot if later tapes read it there, else in the arena. */
static int output_value(lowering *l, int node) {
    int slot = l->in_set[node] && l->plan->prefix[node] ? slot_of(l->plan, node) : -1;
    int value = new_value(l, slot >= 0 ? THAW_REGION_BOUNDARY : THAW_REGION_ARENA, slot,
                          thaw_shape_count(&l->model->nodes[node].shape));
    l->tape->node_value[node] = value;
    return value;
}

/* The node that alone reads `node`, if it lies in the set; else -1. */
static int only_reader(const lowering *l, int node) {
    int reader = -1;
    for (int i = node + 1; i < l->model->n_nodes; i++)
        for (int k = 0; k < l->model->nodes[i].n_inputs; k++)
            if (l->model->nodes[i].inputs[k] == node) {
                if (reader >= 0)
                    return -1;
                reader = i;
            }
    return reader >= 0 && l->in_set[reader] ? reader : -1;
}

static const thaw_layer *layer_of(const lowering *l, int node) {
    return &l->model->layers[l->model->nodes[node].layer];
}

/* Activation that a Conv2D, Dense, Activation, ReLU or Softmax layer applies in this tape; *plain is false when the ReLU
 * layer's arguments go beyond relu and relu6. */
static thaw_activation activation_of(const lowering *l, int node, bool *plain) {
    const thaw_layer *layer = layer_of(l, node);
    thaw_activation act = layer->config.activation;
    *plain = true;
    if (layer->kind == THAW_LAYER_RELU) {
        const thaw_layer_config *c = &layer->config;
        *plain = c->negative_slope == 0.0f && c->threshold == 0.0f && (isinf(c->max_value) || c->max_value == 6.0f);
        act = isinf(c->max_value) ? THAW_ACTIVATION_RELU : THAW_ACTIVATION_RELU6;
    } else if (layer->kind == THAW_LAYER_SOFTMAX) {
        act = THAW_ACTIVATION_SOFTMAX;
    }
    if (node == l->model->output && act == l->plan->final)
        act = THAW_ACTIVATION_LINEAR; /* z is taken before it */
    return act;
}

/* May be applied in place behind an operation: softmax works on whole rows, and swish needs its input for backward. */
static bool fusible(const lowering *l, thaw_activation act) {
    return act != THAW_ACTIVATION_SOFTMAX && !(l->training && act == THAW_ACTIVATION_SWISH);
}

/* Takes in the activation layer behind *node, if that is all that reads it. */
static void fuse_activation(lowering *l, int *node, thaw_activation *act) {
    if (*act != THAW_ACTIVATION_LINEAR)
        return;
    int next = only_reader(l, *node);
    if (next < 0 || thaw_node_root(l->model, next, l->training) != next)
        return;
    thaw_layer_kind kind = layer_of(l, next)->kind;
    if (kind != THAW_LAYER_ACTIVATION && kind != THAW_LAYER_RELU)
        return;
    bool plain;
    thaw_activation fused = activation_of(l, next, &plain);
    if (!plain || !fusible(l, fused))
        return;
    *act = fused;
    *node = next;
    l->done[next] = true;
}

/* Takes in the Add behind *node where its other summand is there already: the value of that; -1: none. */
static int fuse_add(lowering *l, int *node) {
    int next = only_reader(l, *node);
    if (next < 0 || layer_of(l, next)->kind != THAW_LAYER_ADD || l->model->nodes[next].n_inputs != 2)
        return -1;
    const int *inputs = l->model->nodes[next].inputs;
    int other = inputs[0] == *node ? inputs[1] : inputs[0];
    other = thaw_node_root(l->model, other, l->training);
    if (l->tape->node_value[other] < 0 && l->in_set[other] && other != l->model->input)
        return -1;
    *node = next;
    l->done[next] = true;
    return value_of(l, other);
}

/* Takes in the MaxPooling2D of 2x2 behind *node, if that is all that reads it. */
static bool fuse_pool(lowering *l, int *node) {
    int next = only_reader(l, *node);
    if (next < 0 || layer_of(l, next)->kind != THAW_LAYER_MAX_POOLING || thaw_node_root(l->model, next, l->training) != next)
        return false;
    const thaw_layer_config *c = &layer_of(l, next)->config;
    const int64_t *from = l->model->nodes[*node].shape.dim, *to = l->model->nodes[next].shape.dim;
    for (int i = 0; i < 2; i++)
        if (c->kernel[i] != 2 || c->strides[i] != 2 || to[i] != from[i] / 2)
            return false;
    *node = next;
    l->done[next] = true;
    return true;
}

static void window_of(const lowering *l, int node, const thaw_shape *in, const int64_t pad[4], thaw_window *w) {
    const thaw_layer *layer = layer_of(l, node);
    const thaw_layer_config *c = &layer->config;
    const thaw_shape *out = &l->model->nodes[node].shape;
    *w = (thaw_window){.h = in->dim[0], .w = in->dim[1], .cin = in->dim[2], .kh = c->kernel[0], .kw = c->kernel[1],
                       .sh = c->strides[0], .sw = c->strides[1], .dh = 1, .dw = 1, .oh = out->dim[0],
                       .ow = out->dim[1], .cout = out->dim[2]};
    if (layer->kind == THAW_LAYER_CONV2D) {
        w->dh = c->dilation[0];
        w->dw = c->dilation[1];
    }
    if (c->same) { /* TensorFlow: the smaller half before, the larger behind */
        int64_t rows = (w->oh - 1) * w->sh + w->dh * (w->kh - 1) + 1 - w->h;
        int64_t cols = (w->ow - 1) * w->sw + w->dw * (w->kw - 1) + 1 - w->w;
        w->pad_top = rows > 0 ? rows / 2 : 0;
        w->pad_left = cols > 0 ? cols / 2 : 0;
    }
    if (pad) {
        w->pad_top += pad[0];
        w->pad_left += pad[2];
    }
}

static bool is_point(const thaw_window *w) { return w->kh == 1 && w->kw == 1 && w->pad_top == 0 && w->pad_left == 0; }

/* Stride of the 1x1 convolutions that alone read `node`: other cells of it are dead (ResNet, in front of each stage). 1: all
 * cells are read. */
static int64_t living_stride(const lowering *l, int node) {
    int64_t stride = 0;
    for (int i = node + 1; i < l->model->n_nodes; i++)
        for (int k = 0; k < l->model->nodes[i].n_inputs; k++) {
            if (l->model->nodes[i].inputs[k] != node)
                continue;
            const thaw_layer_config *c = &layer_of(l, i)->config;
            bool point = l->in_set[i] && layer_of(l, i)->kind == THAW_LAYER_CONV2D && c->kernel[0] == 1 && c->kernel[1] == 1;
            if (!point || c->strides[0] != c->strides[1] || (stride > 0 && stride != c->strides[0]))
                return 1;
            stride = c->strides[0];
        }
    return stride > 0 ? stride : 1;
}

/* The living cells of value `in` of shape (window->h, window->w, window->cout): a pooling of single cells. */
static int take_living(lowering *l, int layer, int in, const thaw_window *window) {
    int out = new_value(l, THAW_REGION_ARENA, -1, window->oh * window->ow * window->cout);
    thaw_op *op = new_op(l, THAW_OP_MAX_POOL, layer, &in, 1, out);
    if (!op)
        return -1;
    op->window = *window;
    op->window.cin = window->cout;
    op->c = window->cout;
    return out;
}

static double window_flop(const thaw_window *w) {
    return 2.0 * (double)(w->oh * w->ow) * (double)(w->kh * w->kw) * (double)w->cin * (double)w->cout;
}

static void lower_conv(lowering *l, int node) {
    int layer_index = l->model->nodes[node].layer;
    int source = l->model->nodes[node].inputs[0];
    const int64_t *pad = NULL;
    if (l->in_set[source] && thaw_node_pad_folds(l->model, source, l->in_set)) {
        pad = layer_of(l, source)->config.pad;
        source = l->model->nodes[source].inputs[0];
    }
    thaw_window window;
    window_of(l, node, &l->model->nodes[source].shape, pad, &window);
    bool plain;
    thaw_activation act = activation_of(l, node, &plain), late = THAW_ACTIVATION_LINEAR;
    if (!fusible(l, act)) {
        late = act;
        act = THAW_ACTIVATION_LINEAR;
    }
    int last = node, norm = -1, add = -1;
    if (late == THAW_ACTIVATION_LINEAR) {
        int next = l->fold && act == THAW_ACTIVATION_LINEAR ? only_reader(l, node) : -1;
        if (next >= 0 && layer_of(l, next)->kind == THAW_LAYER_BATCH_NORMALIZATION) {
            norm = l->model->nodes[next].layer;
            last = next;
            l->done[next] = true;
        }
        if (!l->training && act == THAW_ACTIVATION_LINEAR && thaw_kernels_get()->conv_pack_floats(&window, false) > 0)
            add = fuse_add(l, &last);
        fuse_activation(l, &last, &act);
        if (!l->training && add < 0 && (act == THAW_ACTIVATION_LINEAR || act == THAW_ACTIVATION_RELU) &&
            thaw_kernels_get()->conv_pools(&window) && fuse_pool(l, &last))
            window.pool = 2;
    }
    int in[2] = {value_of(l, source), add};
    int out = late == THAW_ACTIVATION_LINEAR ? output_value(l, last)
                                             : new_value(l, THAW_REGION_ARENA, -1,
                                                         thaw_shape_count(&l->model->nodes[node].shape));
    if (l->failed)
        return;
    const thaw_window whole = window; /* of the packed form */
    if (l->tape->values[in[0]].stride > 1) {
        window.h = window.oh;
        window.w = window.ow;
        window.sh = window.sw = 1;
    }
    int64_t stride = l->training || l->tape->values[out].region != THAW_REGION_ARENA || !is_point(&window) || window.sh > 1 ||
                             window.sw > 1
                         ? 1
                         : living_stride(l, last);
    if (stride > 1) {
        window.sh = window.sw = stride;
        window.oh = (window.oh - 1) / stride + 1;
        window.ow = (window.ow - 1) / stride + 1;
        l->tape->values[out].stride = stride;
        l->tape->values[out].count = window.oh * window.ow * window.cout;
        l->tape->values[out].place.per_image = (size_t)l->tape->values[out].count * sizeof(float);
        if (add >= 0)
            in[1] = take_living(l, layer_index, add, &window);
    }
    thaw_op *op = new_op(l, THAW_OP_CONV, layer_index, in, add >= 0 ? 2 : 1, out);
    if (!op)
        return;
    op->window = window;
    op->act = act;
    op->rows = l->tape->values[out].count / window.cout;
    op->c = window.cout;
    int pack = conv_pack(l, layer_index, norm, &whole, false);
    op->pack = pack;
    op->flop = window_flop(&whole);
    l->tape->forward_flop += op->flop;
    if (late != THAW_ACTIVATION_LINEAR) {
        int z = out;
        op = new_op(l, THAW_OP_ACTIVATION, layer_index, &z, 1, output_value(l, node));
        if (op) {
            op->act = late;
            op->rows = window.oh * window.ow;
            op->c = window.cout;
        }
    }
}

static void lower_dense(lowering *l, int node) {
    const thaw_layer *layer = layer_of(l, node);
    int layer_index = l->model->nodes[node].layer;
    int64_t count = thaw_shape_count(&l->model->nodes[node].shape), rows = count / layer->config.filters;
    bool plain;
    thaw_activation act = activation_of(l, node, &plain), late = THAW_ACTIVATION_LINEAR;
    if (!fusible(l, act)) {
        late = act;
        act = THAW_ACTIVATION_LINEAR;
    }
    int last = node;
    if (late == THAW_ACTIVATION_LINEAR)
        fuse_activation(l, &last, &act);
    int in = value_of(l, l->model->nodes[node].inputs[0]);
    int out = late == THAW_ACTIVATION_LINEAR ? output_value(l, last)
                                             : new_value(l, THAW_REGION_ARENA, -1, count);
    thaw_op *op = new_op(l, THAW_OP_DENSE, layer_index, &in, 1, out);
    if (!op)
        return;
    op->act = act;
    op->rows = rows; /* more than one: a map, whose cells are rows */
    op->in_c = layer->tensors[0].shape[0];
    op->c = layer->config.filters;
    op->flop = 2.0 * (double)op->rows * (double)op->in_c * (double)op->c;
    l->tape->forward_flop += op->flop;
    if (late != THAW_ACTIVATION_LINEAR) {
        int z = out;
        op = new_op(l, THAW_OP_ACTIVATION, layer_index, &z, 1, output_value(l, node));
        if (op) {
            op->act = late;
            op->rows = rows;
            op->c = layer->config.filters;
        }
    }
}

static void lower_norm(lowering *l, int node) {
    const thaw_node *n = &l->model->nodes[node];
    int64_t count = thaw_shape_count(&n->shape), c = n->shape.dim[n->shape.rank - 1];
    bool batch = l->training && l->plan->batch_statistics[n->layer] && !n->inference;
    thaw_activation act = THAW_ACTIVATION_LINEAR;
    int last = node;
    if (!batch)
        fuse_activation(l, &last, &act);
    int in = value_of(l, n->inputs[0]);
    thaw_op *op = new_op(l, batch ? THAW_OP_BATCH_NORM : THAW_OP_SCALE_SHIFT, n->layer, &in, 1, output_value(l, last));
    if (!op)
        return;
    op->act = act;
    op->rows = count / c;
    op->c = c;
    if (batch)
        op->saved = new_place(l, 0, 3 * (size_t)c * sizeof(float)); /* mean, inv_std, batch_var */
    else
        op->pack = scale_pack(l, n->layer, c);
}

/* ZeroPadding2D in front of a max pooling that may take it as its own padding, which never wins: where no input is below 0.
 * For inference: backward would give another one of equal zeros the gradient. */
static bool pad_folds_into_pool(const lowering *l, int node) {
    if (l->training || layer_of(l, node)->kind != THAW_LAYER_ZERO_PADDING)
        return false;
    int reader = only_reader(l, node), source = l->model->nodes[node].inputs[0];
    bool plain;
    if (reader < 0 || layer_of(l, reader)->kind != THAW_LAYER_MAX_POOLING || layer_of(l, reader)->config.same)
        return false;
    thaw_layer_kind kind = layer_of(l, source)->kind;
    if (kind != THAW_LAYER_CONV2D && kind != THAW_LAYER_ACTIVATION && kind != THAW_LAYER_RELU)
        return false;
    thaw_activation act = activation_of(l, source, &plain);
    return plain && (act == THAW_ACTIVATION_RELU || act == THAW_ACTIVATION_RELU6);
}

static void lower_pool(lowering *l, int node) {
    const thaw_node *n = &l->model->nodes[node];
    int source = n->inputs[0];
    const int64_t *pad = NULL;
    if (l->in_set[source] && pad_folds_into_pool(l, source)) {
        pad = layer_of(l, source)->config.pad;
        source = l->model->nodes[source].inputs[0];
    }
    const thaw_shape *from = &l->model->nodes[source].shape;
    thaw_layer_kind kind = layer_of(l, node)->kind;
    int in = value_of(l, source);
    thaw_op_kind op_kind = kind == THAW_LAYER_MAX_POOLING              ? THAW_OP_MAX_POOL
                           : kind == THAW_LAYER_AVERAGE_POOLING        ? THAW_OP_AVERAGE_POOL
                           : kind == THAW_LAYER_GLOBAL_AVERAGE_POOLING ? THAW_OP_GLOBAL_AVERAGE
                                                                       : THAW_OP_GLOBAL_MAX;
    thaw_op *op = new_op(l, op_kind, n->layer, &in, 1, output_value(l, node));
    if (!op)
        return;
    op->c = from->dim[2];
    if (op_kind == THAW_OP_MAX_POOL || op_kind == THAW_OP_AVERAGE_POOL)
        window_of(l, node, from, pad, &op->window);
    else
        op->rows = from->dim[0] * from->dim[1];
    if (l->training && l->plan->needs_grad[node]) {
        size_t outputs = (size_t)thaw_shape_count(&n->shape);
        if (op_kind == THAW_OP_MAX_POOL)
            op->saved = new_place(l, outputs * sizeof(uint16_t), 0);
        else if (op_kind == THAW_OP_GLOBAL_MAX)
            op->saved = new_place(l, outputs * sizeof(int32_t), 0);
    }
}

/* Operations on rows of channels without a window. */
static void lower_rows(lowering *l, int node, thaw_op_kind kind) {
    const thaw_node *n = &l->model->nodes[node];
    int64_t count = thaw_shape_count(&n->shape), c = n->shape.dim[n->shape.rank - 1];
    int *in = thaw_calloc((size_t)n->n_inputs, sizeof *in);
    if (!in) {
        l->failed = true;
        return;
    }
    for (int i = 0; i < n->n_inputs; i++)
        in[i] = value_of(l, n->inputs[i]);
    thaw_op *op = new_op(l, kind, n->layer, in, n->n_inputs, output_value(l, node));
    thaw_free(in);
    if (!op)
        return;
    bool plain;
    op->rows = count / c;
    op->c = c;
    op->act = kind == THAW_OP_ACTIVATION ? activation_of(l, node, &plain) : THAW_ACTIVATION_LINEAR;
    if (kind == THAW_OP_PAD) {
        const thaw_shape *from = &l->model->nodes[n->inputs[0]].shape;
        op->window = (thaw_window){.h = from->dim[0], .w = from->dim[1], .cin = c};
    } else if (kind == THAW_OP_SCALE_SHIFT) {
        op->pack = scale_pack(l, n->layer, c);
    } else if (kind == THAW_OP_DROPOUT) { /* one range of draw numbers a layer: draw = key + element/4 */
        op->key = (uint32_t)thaw_hash_text(layer_of(l, node)->name, (uint64_t)node);
    }
}

static void lower_node(lowering *l, int node) {
    if (l->done[node] || thaw_node_root(l->model, node, l->training) != node || node == l->model->input)
        return; /* taken in before, or only another name */
    if (thaw_node_pad_folds(l->model, node, l->in_set) || pad_folds_into_pool(l, node))
        return; /* becomes padding of the operation behind it */
    switch (layer_of(l, node)->kind) {
    case THAW_LAYER_CONV2D: lower_conv(l, node); return;
    case THAW_LAYER_DENSE: lower_dense(l, node); return;
    case THAW_LAYER_BATCH_NORMALIZATION: lower_norm(l, node); return;
    case THAW_LAYER_MAX_POOLING:
    case THAW_LAYER_AVERAGE_POOLING:
    case THAW_LAYER_GLOBAL_AVERAGE_POOLING:
    case THAW_LAYER_GLOBAL_MAX_POOLING: lower_pool(l, node); return;
    case THAW_LAYER_ZERO_PADDING: lower_rows(l, node, THAW_OP_PAD); return;
    case THAW_LAYER_ADD: lower_rows(l, node, THAW_OP_ADD); return;
    case THAW_LAYER_CONCATENATE: lower_rows(l, node, THAW_OP_CONCAT); return;
    case THAW_LAYER_DROPOUT: lower_rows(l, node, THAW_OP_DROPOUT); return;
    case THAW_LAYER_RESCALING: lower_rows(l, node, THAW_OP_SCALE_SHIFT); return;
    case THAW_LAYER_ACTIVATION:
    case THAW_LAYER_SOFTMAX: lower_rows(l, node, THAW_OP_ACTIVATION); return;
    case THAW_LAYER_RELU: lower_rows(l, node, THAW_OP_RELU); return;
    case THAW_LAYER_INPUT:
    case THAW_LAYER_FLATTEN:
    case THAW_LAYER_RESHAPE:
    case THAW_LAYER_KINDS: return; /* names of other values */
    }
}

static void use(thaw_place *place, int time) {
    if (place->first > place->last)
        place->first = place->last = time;
    else if (time > place->last)
        place->last = time;
    else if (time < place->first)
        place->first = time;
}

/* What backward of an operation reads. */
static bool backward_needs_input(const thaw_op *op) {
    switch (op->kind) {
    case THAW_OP_CONV:
    case THAW_OP_DENSE:
    case THAW_OP_SCALE_SHIFT: return op->wants_dw;
    case THAW_OP_BATCH_NORM:
    case THAW_OP_RELU: return true;
    case THAW_OP_ACTIVATION: return op->act == THAW_ACTIVATION_SWISH;
    default: return false;
    }
}

unsigned thaw_op_trained(const thaw_plan *plan, const thaw_op *op) {
    bool owns = op->kind == THAW_OP_CONV || op->kind == THAW_OP_DENSE || op->kind == THAW_OP_SCALE_SHIFT ||
                op->kind == THAW_OP_BATCH_NORM;
    if (!owns || !plan->trainable[op->layer])
        return 0;
    unsigned trained = 0;
    const thaw_layer *layer = &plan->model->layers[op->layer];
    for (int i = 0; i < layer->n_tensors; i++)
        if (!layer->tensors[i].statistic)
            trained |= 1u << i;
    return trained;
}

size_t thaw_op_gradient_bytes(const thaw_plan *plan, const thaw_op *op) {
    const thaw_layer *layer = &plan->model->layers[op->layer];
    size_t bytes = 0;
    for (int t = 0; t < layer->n_tensors; t++)
        bytes += thaw_align(layer->tensors[t].count * sizeof(float));
    return bytes;
}

int thaw_slice_levels(int slices) {
    int levels = 0;
    while (1 << levels < slices)
        levels++;
    return levels;
}

/* Decides which gradients exist and when every block lives. */
static void set_lifetimes(lowering *l) {
    thaw_tape *tape = l->tape;
    int n = tape->n_ops;
    if (l->training) {
        for (int i = 0; i < n; i++) { /* a value has a gradient where its operation or one before it is trained */
            thaw_op *op = &tape->ops[i];
            op->wants_dw = thaw_op_trained(l->plan, op) != 0;
            for (int k = 0; k < op->n_in; k++)
                op->wants_dx |= tape->values[op->in[k]].gradient >= 0;
            if (op->wants_dw || op->wants_dx) {
                int place = new_place(l, tape->values[op->out].place.per_image, 0);
                if (place < 0)
                    return;
                tape->values[op->out].gradient = place;
            }
            if (op->wants_dx && op->kind == THAW_OP_CONV) {
                int pack = conv_pack(l, op->layer, -1, &op->window, true);
                op->pack_backward = pack;
            }
            tape->backward_flop += op->flop * ((op->wants_dw ? 1 : 0) + (op->wants_dx ? 1 : 0));
        }
    }
    for (int i = 0; i < n; i++) {
        thaw_op *op = &tape->ops[i];
        int back = 2 * n - 1 - i;
        bool backward = op->wants_dw || op->wants_dx;
        use(&tape->values[op->out].place, i);
        for (int k = 0; k < op->n_in; k++)
            use(&tape->values[op->in[k]].place, i);
        if (op->saved >= 0) {
            use(&tape->places[op->saved], i);
            /* batch statistics stay until the moving statistics have taken them in, after backward */
            use(&tape->places[op->saved], op->kind == THAW_OP_BATCH_NORM ? 2 * n : backward ? back : i);
        }
        if (!backward)
            continue;
        for (int k = 0; k < op->n_in; k++) {
            if (backward_needs_input(op))
                use(&tape->values[op->in[k]].place, back);
            if (tape->values[op->in[k]].gradient >= 0)
                use(&tape->places[tape->values[op->in[k]].gradient], back);
        }
        if (op->act != THAW_ACTIVATION_LINEAR)
            use(&tape->values[op->out].place, back);
        use(&tape->places[tape->values[op->out].gradient], back);
    }
    if (tape->output >= 0) /* z is read while its gradient, which lives from time n on, is written */
        use(&tape->values[tape->output].place, n);
}

/* A layer called several times: which call is the first, in backward order, to write its gradient. */
static void mark_shared(thaw_tape *tape) {
    for (int i = 0; i < tape->n_ops; i++)
        for (int k = i + 1; k < tape->n_ops && tape->ops[i].wants_dw; k++)
            if (tape->ops[k].wants_dw && tape->ops[k].layer == tape->ops[i].layer)
                tape->ops[i].again = true;
}

thaw_status thaw_tape_lower(thaw_tape **out, const thaw_plan *plan, const bool *in_set, bool training, bool fold,
                            thaw_tape *lender) {
    const thaw_model *model = plan->model;
    thaw_tape *tape = thaw_calloc(1, sizeof *tape);
    lowering l = {.plan = plan, .model = model, .in_set = in_set, .training = training, .fold = fold, .lender = lender,
                  .tape = tape};
    *out = NULL;
    if (tape) {
        tape->training = training;
        tape->output = -1;
        tape->node_value = thaw_calloc((size_t)model->n_nodes, sizeof *tape->node_value);
    }
    l.done = thaw_calloc((size_t)model->n_nodes, sizeof *l.done);
    l.failed = !tape || !tape->node_value || !l.done;
    if (!l.failed) {
        for (int i = 0; i < model->n_nodes; i++)
            tape->node_value[i] = -1;
        for (int i = 0; i < model->n_nodes && !l.failed; i++)
            if (in_set[i])
                lower_node(&l, i);
        int root = thaw_node_root(model, model->output, training);
        if (!l.failed && (in_set[model->output] || slot_of(plan, root) >= 0 || root == model->input))
            tape->output = value_of(&l, root);
        if (!l.failed)
            set_lifetimes(&l);
        if (!l.failed)
            mark_shared(tape);
    }
    thaw_free(l.done);
    if (l.failed) {
        thaw_tape_free(tape);
        return thaw_fail(THAW_RESOURCE, "no memory to compile the plan of %s", model->name);
    }
    *out = tape;
    return THAW_OK;
}

void thaw_tape_free(thaw_tape *tape) {
    if (!tape)
        return;
    for (int i = 0; i < tape->n_ops; i++)
        thaw_free(tape->ops[i].in);
    thaw_free(tape->ops);
    thaw_free(tape->values);
    thaw_free(tape->places);
    thaw_free(tape->packs);
    thaw_free(tape->node_value);
    thaw_free(tape);
}
