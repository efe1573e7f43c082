/* The plan compiler: marks, boundary, tapes, flat order, buckets, figures. */
#include "thaw/plan.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "graph/constants.h"
#include "graph/mark.h"
#include "graph/tape.h"

/* Bucket size of the exchange: large enough to amortise latency, small enough to start while backward still runs. */
#define BUCKET_FLOATS ((size_t)1 << 20)

/* Bytes of weights, packs and slots from which the ranks of a host update parts of one copy. */
#define SHARED_UPDATE ((size_t)2 << 20)

/* Activations of a prefix whose results go into the boundary: large enough for many threads, and no share of memory that
 * training would miss. */
#define PREFIX_BYTES ((size_t)256 << 20)

/* Images of a run of the prefix, where steps have so few that several go into it: with 16 a packed kernel's way from memory
 * weighs little. */
#define PREFIX_IMAGES 16

/* Sets of images that are there at once for that, at least: those that are used, computed, and read. */
#define INPUT_SETS 3

static bool layer_trains(const thaw_layer *layer) {
    for (int i = 0; i < layer->n_tensors; i++)
        if (!layer->tensors[i].statistic)
            return true;
    return false;
}

static void set_marks(thaw_plan *plan) {
    const thaw_model *model = plan->model;
    for (int i = 0; i < model->n_nodes; i++) { /* topological order: inputs come first */
        const thaw_node *node = &model->nodes[i];
        const thaw_layer *layer = &model->layers[node->layer];
        plan->needs_grad[i] = plan->trainable[node->layer] && layer_trains(layer);
        /* also a call in inference form: what the other calls do to the moving statistics changes it */
        plan->varies[i] = plan->batch_statistics[node->layer] || thaw_node_drops(model, i);
        for (int k = 0; k < node->n_inputs; k++) {
            plan->needs_grad[i] = plan->needs_grad[i] || plan->needs_grad[node->inputs[k]];
            plan->varies[i] = plan->varies[i] || plan->varies[node->inputs[k]];
        }
        plan->prefix[i] = !plan->needs_grad[i] && !plan->varies[i];
    }
}

/* Storage that suffix operations read and the prefix computes. The input itself is not a slot; neither is the output of a
 * plan without a suffix, which the prefix leaves in its arena. */
static void set_boundary(thaw_plan *plan) {
    const thaw_model *model = plan->model;
    for (int i = 0; i < model->n_nodes; i++) {
        bool crosses = false;
        for (int k = i + 1; k < model->n_nodes && !crosses; k++)
            for (int j = 0; j < model->nodes[k].n_inputs && !crosses; j++)
                crosses = !plan->prefix[k] && plan->prefix[model->nodes[k].inputs[j]] &&
                          thaw_node_root(model, model->nodes[k].inputs[j], true) == i;
        if (crosses && i != model->input && plan->prefix[i])
            plan->boundary[plan->n_boundary++] = i;
    }
}

/* Closes the bucket that ends at `end`, of which `payload` floats are no padding; `op` completes it. */
static void close_bucket(thaw_plan *plan, thaw_op *op, size_t begin, size_t end, size_t payload) {
    op->ready_first = plan->n_buckets;
    op->ready_count = 1;
    plan->buckets[plan->n_buckets++] = (thaw_bucket){begin, end - begin, payload};
}

/* Flat order: trained tensors as backward completes them (the last write of a shared layer's gradient counts). */
static void set_order(thaw_plan *plan) {
    const thaw_model *model = plan->model;
    thaw_tape *tape = plan->tape_train;
    thaw_op *last = NULL; /* the last operation, in backward order, that writes a gradient */
    size_t at = 0, begin = 0, payload = 0;
    for (int i = tape->n_ops - 1; i >= 0; i--) {
        thaw_op *op = &tape->ops[i];
        bool final = op->wants_dw;
        for (int k = 0; k < i; k++)
            final = final && !(tape->ops[k].wants_dw && tape->ops[k].layer == op->layer);
        unsigned trained = final ? thaw_op_trained(plan, op) : 0;
        for (int t = 0; t < model->layers[op->layer].n_tensors; t++) {
            if (!(trained & 1u << t))
                continue;
            size_t count = model->layers[op->layer].tensors[t].count;
            plan->tensors[plan->n_tensors++] = (thaw_plan_tensor){op->layer, t, at, count};
            at += thaw_align(count * sizeof(float)) / sizeof(float);
            payload += count;
            plan->gradient_bytes += (int64_t)(count * sizeof(float));
        }
        if (op->wants_dw)
            last = op;
        if (trained && at - begin >= BUCKET_FLOATS) {
            close_bucket(plan, op, begin, at, payload);
            begin = at;
            payload = 0;
        }
    }
    plan->count = at;
    if (at > begin) /* all that is left is complete with the last operation */
        close_bucket(plan, last, begin, at, payload);
}

/* Multiply-adds of a whole backward, were every layer trained. */
static double full_backward(const thaw_model *model, bool *upstream) {
    double flop = 0.0;
    for (int i = 0; i < model->n_nodes; i++) {
        const thaw_node *node = &model->nodes[i];
        const thaw_layer *layer = &model->layers[node->layer];
        bool before = false;
        for (int k = 0; k < node->n_inputs; k++)
            before = before || upstream[node->inputs[k]];
        upstream[i] = before || layer_trains(layer);
        if (layer->kind == THAW_LAYER_CONV2D || layer->kind == THAW_LAYER_DENSE) {
            double cells = node->shape.rank == 3 ? (double)(node->shape.dim[0] * node->shape.dim[1]) : 1.0;
            flop += 2.0 * cells * (double)layer->tensors[0].count * (before ? 2.0 : 1.0);
        }
    }
    return flop;
}

static void set_figures(thaw_plan *plan, const thaw_plan_request *request) {
    const thaw_model *model = plan->model;
    const thaw_tape *prefix = plan->tape_prefix, *train = plan->tape_train, *infer = plan->tape_infer;
    thaw_model_count(model, plan->trainable, &plan->total_params, &plan->trainable_params, &plan->frozen_params);
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++)
            if (!model->layers[i].tensors[t].statistic)
                plan->full_gradient_bytes += (int64_t)(model->layers[i].tensors[t].count * sizeof(float));
    plan->prefix_flop = prefix->forward_flop;
    plan->forward_flop = prefix->forward_flop + (train ? train->forward_flop : 0.0);
    plan->backward_flop = train ? train->backward_flop : 0.0;

    thaw_plan_memory *m = &plan->memory;
    /* A trained tensor lies in the flat block; its home rests. */
    m->weights = (size_t)plan->total_params * sizeof(float) + plan->count * sizeof(float) - (size_t)plan->gradient_bytes;
    m->packed = (thaw_plan_packs(plan) + thaw_constants_begin(plan, 3)) * sizeof(float);
    m->constants = thaw_plan_constants(plan) * sizeof(float);
    m->gradients = plan->count * sizeof(float);
    m->optimizer = plan->count * sizeof(float) * (size_t)request->optimizer_slots;
    m->updated = (plan->count + thaw_plan_packs(plan)) * sizeof(float) + m->optimizer;
    if (m->updated < SHARED_UPDATE)
        m->updated = 0;
    m->prefix = prefix->arena_bytes;
    for (int i = 0; i < plan->n_boundary; i++)
        m->boundary += thaw_plan_slot_images(plan) * (size_t)thaw_shape_count(&model->nodes[plan->boundary[i]].shape) *
                       sizeof(float);
    size_t scratch = prefix->scratch_bytes;
    if (train) {
        m->suffix = train->arena_bytes > infer->arena_bytes ? train->arena_bytes : infer->arena_bytes;
        scratch = train->scratch_bytes > scratch ? train->scratch_bytes : scratch;
        scratch = infer->scratch_bytes > scratch ? infer->scratch_bytes : scratch;
    }
    m->scratch = scratch;
    m->input = (size_t)plan->prefix_images * (size_t)thaw_shape_count(&model->nodes[model->input].shape) * sizeof(float);
    plan->memory_bytes = m->weights + m->packed + m->gradients + m->optimizer + m->prefix + m->boundary + m->suffix +
                         m->scratch + m->input;
}

/* Bytes that the kernels of a tape want at most for n images. */
static void set_scratch(thaw_tape *tape, const thaw_plan *plan, int64_t n) {
    const thaw_kernels *kernels = thaw_kernels_get();
    for (int i = 0; i < tape->n_ops; i++) {
        const thaw_op *op = &tape->ops[i];
        size_t bytes = 0;
        if (op->kind == THAW_OP_CONV)
            bytes = op->wants_dx || op->wants_dw ? kernels->conv_scratch(&op->window, n, plan->slices)
                                                 : kernels->conv_forward_scratch(&op->window);
        else if (op->kind == THAW_OP_DENSE)
            bytes = kernels->dense_scratch(n * op->rows, op->in_c, op->c);
        else if (op->kind == THAW_OP_SCALE_SHIFT || op->kind == THAW_OP_BATCH_NORM)
            bytes = kernels->batch_norm_scratch(n * op->rows, op->c, plan->slices);
        if (op->again) /* gradients of one more call before they are added */
            bytes = thaw_align(bytes) + thaw_op_gradient_bytes(plan, op);
        if (op->pack >= 0 && bytes < (size_t)tape->packs[op->pack].c * sizeof(double)) /* the engine folds in it */
            bytes = (size_t)tape->packs[op->pack].c * sizeof(double);
        bytes = thaw_align(bytes); /* gradients of one more call, or of slices, are placed from its end */
        if (op->wants_dw && plan->slices > 1)
            bytes += (size_t)thaw_slice_levels(plan->slices) * thaw_op_gradient_bytes(plan, op);
        if (bytes > tape->scratch_bytes)
            tape->scratch_bytes = bytes;
    }
}

static thaw_status lay_out(thaw_tape *tape, const thaw_plan *plan, int64_t images) {
    THAW_TRY(thaw_layout(tape, images));
    tape->scratch_bytes = 0;
    set_scratch(tape, plan, images);
    return THAW_OK;
}

static thaw_status make_tape(thaw_tape **out, const thaw_plan *plan, const bool *in_set, bool training, bool fold,
                             thaw_tape *lender, int64_t images) {
    THAW_TRY(thaw_tape_lower(out, plan, in_set, training, fold, lender));
    return lay_out(*out, plan, images);
}

/* The steps that have their prefix together: as long as that makes runs of PREFIX_IMAGES, and what is there for them stays small.
 * A suffix that reads the images themselves wants them one step at a time. The prefix' tape is laid out for one image. */
static void set_together(thaw_plan *plan, int64_t step_images) {
    const int64_t input = thaw_shape_count(&plan->model->nodes[plan->model->input].shape);
    const size_t row = (size_t)(2 * thaw_plan_boundary_floats(plan) + INPUT_SETS * input) * sizeof(float);
    int steps = step_images > 0 && thaw_plan_boundary_suffices(plan) ? (int)(PREFIX_IMAGES / step_images) : 1;
    while (steps > 1 && (size_t)(steps * step_images) * (row + plan->tape_prefix->arena_bytes) > PREFIX_BYTES)
        steps--;
    plan->together = steps > 1 ? steps : 1;
    plan->block_images = steps > 1 ? steps * step_images : 0;
    plan->prefix_images = plan->block_images > plan->max_batch ? plan->block_images : plan->max_batch;
}

/* The prefix in equal pieces of its images, where there are so many activations. */
static thaw_status make_pieces(thaw_plan *plan) {
    int64_t pieces = (int64_t)((plan->tape_prefix->arena_bytes + PREFIX_BYTES - 1) / PREFIX_BYTES);
    if (pieces < 2)
        return THAW_OK;
    plan->prefix_batch = pieces < plan->prefix_images ? (plan->prefix_images + pieces - 1) / pieces : 1;
    return lay_out(plan->tape_prefix, plan, plan->prefix_batch);
}

/* Calls of a layer are added rank by rank: their sum by slices would want the gradients of all slices at once. */
static thaw_status check_slices(const thaw_plan *plan) {
    for (int i = 0; i < plan->tape_train->n_ops && plan->slices > 1; i++)
        if (plan->tape_train->ops[i].again)
            return thaw_fail(THAW_USAGE, "training.reproducible: ranks does not go with layer %s, which is trained and called "
                                         "more than once; leave it at threads, or freeze the layer",
                             plan->model->layers[plan->tape_train->ops[i].layer].name);
    return THAW_OK;
}

static thaw_status no_memory(const thaw_model *model) {
    return thaw_fail(THAW_RESOURCE, "no memory to compile the plan of %s", model->name);
}

thaw_status thaw_plan_compile(thaw_plan **out, const thaw_plan_request *request) {
    const thaw_model *model = request->model;
    size_t nodes = (size_t)model->n_nodes, layers = (size_t)model->n_layers;
    bool *suffix = thaw_calloc(nodes, sizeof *suffix);
    thaw_plan *plan = thaw_calloc(1, sizeof *plan);
    thaw_status status = THAW_OK;
    *out = NULL;
    if (!plan || !suffix) {
        thaw_free(plan);
        thaw_free(suffix);
        return no_memory(model);
    }
    plan->model = model;
    plan->max_batch = request->max_batch > 0 ? request->max_batch : 1;
    plan->slices = request->slices > 0 ? request->slices : 1;
    plan->trainable = thaw_calloc(layers, sizeof(bool));
    plan->batch_statistics = thaw_calloc(layers, sizeof(bool));
    plan->needs_grad = thaw_calloc(nodes, sizeof(bool));
    plan->varies = thaw_calloc(nodes, sizeof(bool));
    plan->prefix = thaw_calloc(nodes, sizeof(bool));
    plan->boundary = thaw_calloc(nodes, sizeof(int));
    plan->tensors = thaw_calloc(layers * THAW_MAX_TENSORS, sizeof *plan->tensors);
    plan->buckets = thaw_calloc(layers + 1, sizeof *plan->buckets);
    if (!plan->trainable || !plan->batch_statistics || !plan->needs_grad || !plan->varies || !plan->prefix ||
        !plan->boundary || !plan->tensors || !plan->buckets) {
        status = no_memory(model);
        goto out;
    }
    plan->final = thaw_model_final(model);
    plan->outputs = thaw_shape_count(&model->nodes[model->output].shape);
    bool trains = false;
    if (request->trainable)
        for (size_t i = 0; i < layers; i++) {
            plan->trainable[i] = request->trainable[i];
            trains = trains || (request->trainable[i] && layer_trains(&model->layers[i]));
            plan->batch_statistics[i] = request->trainable[i] && request->batch_statistics &&
                                        request->batch_statistics[i] &&
                                        model->layers[i].kind == THAW_LAYER_BATCH_NORMALIZATION;
        }
    if (request->trainable && !trains) {
        status = thaw_fail(THAW_USAGE, "nothing is left to train in %s: every layer with weights is frozen; add `head:` "
                                       "layers, or freeze less, for example freeze: \"[:-1]\"", model->name);
        goto out;
    }
    if (trains) {
        set_marks(plan);
    } else { /* inference: no draw, no statistic, no gradient */
        for (size_t i = 0; i < nodes; i++)
            plan->prefix[i] = true;
    }
    for (size_t i = 0; i < nodes; i++)
        suffix[i] = !plan->prefix[i];
    set_boundary(plan);
    if (trains) {
        THAW_GOTO(make_tape(&plan->tape_train, plan, suffix, true, false, NULL, plan->max_batch));
        THAW_GOTO(make_tape(&plan->tape_infer, plan, suffix, false, false, plan->tape_train, plan->max_batch));
    }
    THAW_GOTO(make_tape(&plan->tape_prefix, plan, plan->prefix, false, true, NULL, 1));
    set_together(plan, request->step_images);
    plan->prefix_batch = plan->prefix_images;
    THAW_GOTO(lay_out(plan->tape_prefix, plan, plan->prefix_images));
    if (trains) {
        THAW_GOTO(make_pieces(plan)); /* without a suffix, the prefix leaves the output of all images in its arena */
        set_order(plan);
        THAW_GOTO(check_slices(plan));
    }
    memset(suffix, 0, nodes * sizeof *suffix);
    plan->full_backward_flop = full_backward(model, suffix);
    set_figures(plan, request);
out:
    thaw_free(suffix);
    if (status != THAW_OK) {
        thaw_plan_free(plan);
        return status;
    }
    *out = plan;
    return THAW_OK;
}

void thaw_plan_free(thaw_plan *plan) {
    if (!plan)
        return;
    thaw_tape_free(plan->tape_prefix);
    thaw_tape_free(plan->tape_train);
    thaw_tape_free(plan->tape_infer);
    thaw_free(plan->trainable);
    thaw_free(plan->batch_statistics);
    thaw_free(plan->needs_grad);
    thaw_free(plan->varies);
    thaw_free(plan->prefix);
    thaw_free(plan->boundary);
    thaw_free(plan->tensors);
    thaw_free(plan->buckets);
    thaw_free(plan);
}

uint64_t thaw_plan_hash(const thaw_plan *plan) {
    uint64_t hash = thaw_hash_text(plan->model->name, 0);
    hash = thaw_hash(plan->trainable, (size_t)plan->model->n_layers * sizeof(bool), hash);
    hash = thaw_hash(plan->batch_statistics, (size_t)plan->model->n_layers * sizeof(bool), hash);
    hash = thaw_hash(plan->boundary, (size_t)plan->n_boundary * sizeof(int), hash);
    for (int i = 0; i < plan->n_tensors; i++) { /* field by field: padding bytes are not part of a plan */
        const thaw_plan_tensor *t = &plan->tensors[i];
        uint64_t place[4] = {(uint64_t)t->layer, (uint64_t)t->tensor, t->offset, t->count};
        hash = thaw_hash(place, sizeof place, hash);
    }
    for (int i = 0; i < plan->n_buckets; i++) {
        uint64_t place[3] = {plan->buckets[i].offset, plan->buckets[i].count, plan->buckets[i].payload};
        hash = thaw_hash(place, sizeof place, hash);
    }
    return hash;
}
