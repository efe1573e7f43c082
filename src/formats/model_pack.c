/* A model as bytes, for the ranks that do not read files. Field by field, so that both sides agree; the reader checks
 * every index and size, since these bytes crossed a network. */
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "thaw/model.h"

#define MARK INT64_C(0x31304c444f4d) /* "MODL01" */

enum { MOST = 1 << 20 }; /* layers, nodes, classes */

static void put_i64s(thaw_buffer *to, const int64_t *values, int n) { thaw_buffer_put(to, values, (size_t)n * sizeof *values); }
static void put_floats(thaw_buffer *to, const float *values, size_t n) { thaw_buffer_put(to, values, n * sizeof *values); }

static void pack_config(thaw_buffer *to, const thaw_layer_config *c) {
    put_i64s(to, c->kernel, 2);
    put_i64s(to, c->strides, 2);
    put_i64s(to, c->dilation, 2);
    put_i64s(to, c->pad, 4);
    put_i64s(to, c->target, 3);
    put_i64s(to, (int64_t[]){c->same, c->filters, c->use_bias, c->activation, c->center, c->scale, c->seed, c->target_rank,
                             c->keepdims, c->rescale ? c->n_rescale : 0}, 10);
    put_floats(to, (float[]){c->momentum, c->epsilon, c->rate, c->max_value, c->negative_slope, c->threshold}, 6);
    if (c->rescale && c->offset) {
        put_floats(to, c->rescale, (size_t)c->n_rescale);
        put_floats(to, c->offset, (size_t)c->n_rescale);
    }
}

static void pack_layer(thaw_buffer *to, const thaw_layer *layer) {
    thaw_buffer_text(to, layer->name);
    put_i64s(to, (int64_t[]){layer->kind, layer->trainable, layer->head, layer->listed, layer->list_index, layer->n_tensors}, 6);
    pack_config(to, &layer->config);
    for (int t = 0; t < layer->n_tensors; t++) {
        const thaw_tensor *tensor = &layer->tensors[t];
        thaw_buffer_text(to, tensor->name);
        put_i64s(to, (int64_t[]){tensor->rank, tensor->statistic, tensor->loaded, tensor->initializer, tensor->data != NULL}, 5);
        put_i64s(to, tensor->shape, THAW_MAX_RANK);
        put_floats(to, (float[]){tensor->l1, tensor->l2, tensor->init_a, tensor->init_b}, 4);
        if (tensor->data)
            put_floats(to, tensor->data, tensor->count);
    }
}

static void pack_node(thaw_buffer *to, const thaw_node *node) {
    put_i64s(to, (int64_t[]){node->layer, node->n_inputs, node->inference, node->shape.rank}, 4);
    put_i64s(to, node->shape.dim, 3);
    for (int k = 0; k < node->n_inputs; k++)
        thaw_buffer_i64(to, node->inputs[k]);
}

thaw_status thaw_model_pack(void **bytes, size_t *size, const thaw_model *model) {
    thaw_buffer to = {0};
    const thaw_model_notes *notes = &model->notes;
    *bytes = NULL;
    *size = 0;
    thaw_buffer_i64(&to, MARK);
    const char *const texts[] = {model->name, model->origin, model->family, model->source_config, model->keras_version,
                                 notes->preprocess, notes->loss, notes->metrics};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        thaw_buffer_text(&to, texts[i]);
    int n_classes = notes->class_names ? notes->n_classes : 0;
    put_i64s(&to, (int64_t[]){n_classes, model->sequential, model->nested, model->changed, model->n_layers, model->n_nodes,
                              model->input, model->output, model->n_base_layers}, 9);
    for (int i = 0; i < n_classes; i++)
        thaw_buffer_text(&to, notes->class_names[i]);
    for (int i = 0; i < model->n_layers; i++)
        pack_layer(&to, &model->layers[i]);
    for (int i = 0; i < model->n_nodes; i++)
        pack_node(&to, &model->nodes[i]);
    if (to.failed) {
        thaw_buffer_free(&to);
        return thaw_fail(THAW_RESOURCE, "no memory to pack the model %s", model->name);
    }
    *bytes = to.data;
    *size = to.size;
    return THAW_OK;
}

/* Integer in [low, high], else the reader fails. */
static int get_int(thaw_reader *from, int64_t low, int64_t high) {
    int64_t value = thaw_reader_i64(from);
    if (value < low || value > high)
        from->failed = true;
    return from->failed ? 0 : (int)value;
}

static bool get_bool(thaw_reader *from) { return get_int(from, 0, 1) == 1; }

static float *get_floats(thaw_reader *from, size_t n) {
    size_t bytes;
    const void *data = thaw_mul_overflow(n, sizeof(float), &bytes) ? NULL : thaw_reader_borrow(from, bytes);
    float *values = data ? thaw_malloc(bytes) : NULL;
    if (values)
        memcpy(values, data, bytes);
    else
        from->failed = true;
    return values;
}

static void unpack_config(thaw_reader *from, thaw_layer_config *c) {
    thaw_reader_get(from, c->kernel, sizeof c->kernel);
    thaw_reader_get(from, c->strides, sizeof c->strides);
    thaw_reader_get(from, c->dilation, sizeof c->dilation);
    thaw_reader_get(from, c->pad, sizeof c->pad);
    thaw_reader_get(from, c->target, sizeof c->target);
    c->same = get_bool(from);
    c->filters = thaw_reader_i64(from);
    c->use_bias = get_bool(from);
    c->activation = (thaw_activation)get_int(from, 0, THAW_ACTIVATIONS - 1);
    c->center = get_bool(from);
    c->scale = get_bool(from);
    c->seed = thaw_reader_i64(from);
    c->target_rank = get_int(from, 0, 3);
    c->keepdims = get_bool(from);
    c->n_rescale = get_int(from, 0, MOST);
    float reals[6];
    thaw_reader_get(from, reals, sizeof reals);
    c->momentum = reals[0];
    c->epsilon = reals[1];
    c->rate = reals[2];
    c->max_value = reals[3];
    c->negative_slope = reals[4];
    c->threshold = reals[5];
    if (c->n_rescale > 0) {
        c->rescale = get_floats(from, (size_t)c->n_rescale);
        c->offset = get_floats(from, (size_t)c->n_rescale);
    }
}

/* The static copy of a tensor's name. */
static const char *tensor_name(const char *text) {
    static const char *const names[] = {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"};
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0)
            return names[i];
    return NULL;
}

static void unpack_tensor(thaw_reader *from, thaw_tensor *tensor) {
    char *name = thaw_reader_text(from);
    tensor->name = tensor_name(name);
    thaw_free(name);
    tensor->rank = get_int(from, 0, THAW_MAX_RANK);
    tensor->statistic = get_bool(from);
    tensor->loaded = get_bool(from);
    tensor->initializer = (thaw_initializer)get_int(from, 0, THAW_INIT_CONSTANT);
    bool data = get_bool(from);
    thaw_reader_get(from, tensor->shape, sizeof tensor->shape);
    float reals[4];
    thaw_reader_get(from, reals, sizeof reals);
    tensor->l1 = reals[0];
    tensor->l2 = reals[1];
    tensor->init_a = reals[2];
    tensor->init_b = reals[3];
    tensor->count = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] < 1 || thaw_mul_overflow(tensor->count, (size_t)tensor->shape[i], &tensor->count))
            from->failed = true;
    if (!tensor->name)
        from->failed = true;
    if (data && !from->failed)
        tensor->data = tensor->home = get_floats(from, tensor->count);
}

static void unpack_layer(thaw_reader *from, thaw_layer *layer) {
    layer->name = thaw_reader_text(from);
    layer->kind = (thaw_layer_kind)get_int(from, 0, THAW_LAYER_KINDS - 1);
    layer->trainable = get_bool(from);
    layer->head = get_bool(from);
    layer->listed = get_bool(from);
    layer->list_index = get_int(from, -1, MOST);
    int n_tensors = get_int(from, 0, THAW_MAX_TENSORS);
    unpack_config(from, &layer->config);
    for (; layer->n_tensors < n_tensors && !from->failed; layer->n_tensors++)
        unpack_tensor(from, &layer->tensors[layer->n_tensors]);
    if (!layer->name)
        from->failed = true;
}

static void unpack_node(thaw_reader *from, thaw_node *node, int index, int n_layers) {
    node->layer = get_int(from, 0, n_layers - 1);
    int n_inputs = get_int(from, 0, MOST);
    node->inference = get_bool(from);
    node->shape.rank = get_int(from, 1, 3);
    thaw_reader_get(from, node->shape.dim, sizeof node->shape.dim);
    for (int i = 0; i < node->shape.rank; i++)
        if (node->shape.dim[i] < 1)
            from->failed = true;
    if (from->failed || (size_t)n_inputs > (from->size - from->at) / sizeof(int64_t)) {
        from->failed = true;
        return;
    }
    node->inputs = thaw_calloc((size_t)n_inputs + 1, sizeof *node->inputs);
    if (!node->inputs) {
        from->failed = true;
        return;
    }
    node->n_inputs = n_inputs;
    for (int k = 0; k < n_inputs; k++)
        node->inputs[k] = get_int(from, 0, index - 1);
}

static void unpack_body(thaw_reader *from, thaw_model *model) {
    thaw_model_notes *notes = &model->notes;
    char **const texts[] = {&model->name, &model->origin, &model->family, &model->source_config, &model->keras_version,
                            &notes->preprocess, &notes->loss, &notes->metrics};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        thaw_free(*texts[i]);
        *texts[i] = thaw_reader_text(from);
    }
    int n_classes = get_int(from, 0, MOST);
    model->sequential = get_bool(from);
    model->nested = get_bool(from);
    model->changed = get_bool(from);
    int n_layers = get_int(from, 1, MOST), n_nodes = get_int(from, 1, MOST);
    model->input = get_int(from, 0, n_nodes - 1);
    model->output = get_int(from, 0, n_nodes - 1);
    model->n_base_layers = get_int(from, 0, n_layers);
    if (from->failed)
        return;
    if (n_classes)
        notes->class_names = thaw_calloc((size_t)n_classes, sizeof *notes->class_names);
    for (; notes->class_names && notes->n_classes < n_classes && !from->failed; notes->n_classes++)
        notes->class_names[notes->n_classes] = thaw_reader_text(from);
    model->layers = thaw_calloc((size_t)n_layers, sizeof *model->layers);
    model->nodes = thaw_calloc((size_t)n_nodes, sizeof *model->nodes);
    if (!model->layers || !model->nodes || (n_classes && !notes->class_names))
        from->failed = true;
    for (; model->n_layers < n_layers && !from->failed; model->n_layers++)
        unpack_layer(from, &model->layers[model->n_layers]);
    for (; model->n_nodes < n_nodes && !from->failed; model->n_nodes++)
        unpack_node(from, &model->nodes[model->n_nodes], model->n_nodes, n_layers);
    if (from->at != from->size || !model->name)
        from->failed = true;
}

thaw_status thaw_model_unpack(thaw_model **out, const void *bytes, size_t size) {
    thaw_reader from = {.data = bytes, .size = size};
    thaw_model *model;
    *out = NULL;
    if (thaw_reader_i64(&from) != MARK || from.failed)
        return thaw_fail(THAW_INTERNAL, "these %zu bytes are not a packed model", size);
    THAW_TRY(thaw_model_create(&model, ""));
    unpack_body(&from, model);
    if (from.failed) {
        thaw_model_free(model);
        return thaw_fail(THAW_INTERNAL, "the packed model (%zu bytes) is damaged, or there is no memory for it", size);
    }
    *out = model;
    return THAW_OK;
}
