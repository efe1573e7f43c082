/* What a boundary kept from before depends on. */
#include <string.h>

#include "base/hash.h"
#include "graph/tape.h"

int64_t thaw_plan_boundary_floats(const thaw_plan *plan) {
    int64_t floats = 0;
    for (int i = 0; i < plan->n_boundary; i++)
        floats += thaw_shape_count(&plan->model->nodes[plan->boundary[i]].shape);
    return floats;
}

static bool reads_input(const thaw_tape *tape) {
    for (int i = 0; i < tape->n_values; i++)
        if (tape->values[i].region == THAW_REGION_INPUT)
            return true;
    return false;
}

bool thaw_plan_boundary_suffices(const thaw_plan *plan) {
    return plan->tape_train && plan->n_boundary > 0 && !reads_input(plan->tape_train) && !reads_input(plan->tape_infer);
}

static uint64_t hash_tensors(const thaw_layer *layer, uint64_t hash) {
    for (int t = 0; t < layer->n_tensors; t++) {
        const thaw_tensor *tensor = &layer->tensors[t];
        hash = thaw_hash(tensor->shape, (size_t)tensor->rank * sizeof *tensor->shape, hash);
        hash = thaw_hash(tensor->data, tensor->count * sizeof *tensor->data, hash);
    }
    return hash;
}

/* Arguments that kernels and packed weights take from the layer; what becomes of the others is in the operation. Field by
 * field: padding bytes are no argument. */
static uint64_t hash_layer(const thaw_layer *layer, uint64_t hash) {
    const thaw_layer_config *c = &layer->config;
    const float numbers[] = {c->epsilon, c->max_value, c->negative_slope, c->threshold};
    const int64_t words[] = {(int64_t)layer->kind, c->center, c->scale, c->use_bias, c->n_rescale};
    hash = thaw_hash(numbers, sizeof numbers, hash);
    hash = thaw_hash(words, sizeof words, hash);
    hash = thaw_hash(c->pad, sizeof c->pad, hash);
    if (layer->kind == THAW_LAYER_RESCALING) {
        hash = thaw_hash(c->rescale, (size_t)c->n_rescale * sizeof *c->rescale, hash);
        hash = thaw_hash(c->offset, (size_t)c->n_rescale * sizeof *c->offset, hash);
    }
    return hash_tensors(layer, hash);
}

static uint64_t hash_op(const thaw_plan *plan, const thaw_tape *tape, const thaw_op *op, uint64_t hash) {
    const thaw_window *w = &op->window;
    const int64_t window[] = {w->h,  w->w,  w->cin, w->kh, w->kw,      w->sh,       w->sw,
                              w->dh, w->dw, w->oh,  w->ow, w->pad_top, w->pad_left, w->cout};
    const int64_t words[] = {op->kind, op->act, op->rows, op->c, op->in_c, op->n_in, op->out, op->pack >= 0};
    hash = thaw_hash(words, sizeof words, hash);
    hash = thaw_hash(window, sizeof window, hash);
    hash = thaw_hash(op->in, (size_t)op->n_in * sizeof *op->in, hash);
    hash = hash_layer(&plan->model->layers[op->layer], hash);
    if (op->pack >= 0 && tape->packs[op->pack].norm >= 0)
        hash = hash_layer(&plan->model->layers[tape->packs[op->pack].norm], hash);
    return hash;
}

uint64_t thaw_plan_prefix_hash(const thaw_plan *plan) {
    const thaw_tape *tape = plan->tape_prefix;
    const thaw_shape *in = &plan->model->nodes[plan->model->input].shape;
    uint64_t hash = thaw_hash(in->dim, (size_t)in->rank * sizeof *in->dim, 0);
    for (int i = 0; i < tape->n_values; i++) {
        const thaw_value *v = &tape->values[i];
        const int64_t words[] = {v->region, v->region == THAW_REGION_BOUNDARY ? v->slot : -1, v->count};
        hash = thaw_hash(words, sizeof words, hash);
    }
    for (int i = 0; i < tape->n_ops; i++)
        hash = hash_op(plan, tape, &tape->ops[i], hash);
    return hash;
}
