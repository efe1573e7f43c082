/* Running tapes. Everything is placed when the engine is made; a run walks lists. */
#include "graph/engine.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "graph/constants.h"
#include "graph/tape.h"

struct thaw_engine {
    const thaw_plan *plan;
    thaw_model *model;
    thaw_hooks hooks;
    const thaw_kernels *kernels;
    float *parameters, *gradients;
    char *prefix_arena, *suffix_arena, *scratch;
    float **slots; /* per boundary node: (thaw_plan_slot_images, values) */
    /* Packs to refresh, and those that stay; blocks are the engine's own where the hooks have none. */
    thaw_host_block packs, constants;
    float **tensor_gradient; /* per (layer, tensor): place in gradients, NULL if not trained */
    bool *written;           /* per value of tape_train: its gradient has a first contribution */
    const float *x;          /* images of the prefix' piece; of the last run of it */
    int64_t first, image;    /* where the images of what is under way begin in the slots, and in the arena and x */
    int64_t home;            /* where those of the suffix begin in the slots */
    struct run {             /* of the prefix, under way */
        const float *x;
        int64_t n, home;     /* images, and where they begin in the slots */
        int64_t piece, done; /* first image of the piece, images of it that have their operation */
        int op;
        double flop;         /* done so far */
    } run;
    int64_t n;               /* images of the last forward */
    thaw_draws draws;        /* of the last forward */
};

static const thaw_tape *tape_of(const thaw_engine *e, int which) {
    return which == 0 ? e->plan->tape_prefix : which == 1 ? e->plan->tape_train : e->plan->tape_infer;
}

static float *value_data(const thaw_engine *e, const thaw_tape *tape, char *arena, int value) {
    const thaw_value *v = &tape->values[value];
    if (v->region == THAW_REGION_INPUT) /* operations never write to it */
        return (float *)(uintptr_t)e->x + e->image * v->count;
    if (v->region == THAW_REGION_BOUNDARY)
        return e->slots[v->slot] + e->first * v->count;
    return (float *)(void *)(arena + v->place.offset) + e->image * v->count;
}

static float *gradient_data(const thaw_engine *e, const thaw_tape *tape, int value) {
    return (float *)(void *)(e->suffix_arena + tape->places[tape->values[value].gradient].offset);
}

static float *layer_tensor_data(const thaw_engine *e, int layer, const char *name) {
    const thaw_tensor *tensor = thaw_layer_tensor(&e->model->layers[layer], name);
    return tensor ? tensor->data : NULL;
}

/* Tensors of a BatchNormalization; NULL gamma is 1, NULL beta is 0. */
typedef struct norm_tensors {
    const float *gamma, *beta, *mean, *variance; /* (c) each */
    double epsilon;
} norm_tensors;

static norm_tensors norm_of(const thaw_engine *e, int layer) {
    return (norm_tensors){layer_tensor_data(e, layer, "gamma"), layer_tensor_data(e, layer, "beta"),
                          layer_tensor_data(e, layer, "moving_mean"), layer_tensor_data(e, layer, "moving_variance"),
                          (double)e->model->layers[layer].config.epsilon};
}

/* scale = gamma/sqrt(var+eps), shift = beta - mean*scale of channel i, from moving statistics; in double, rounded once. */
static void norm_constants(const norm_tensors *norm, int64_t i, double *scale, double *shift, double *inv_std) {
    *inv_std = 1.0 / sqrt((double)norm->variance[i] + norm->epsilon);
    *scale = (norm->gamma ? (double)norm->gamma[i] : 1.0) * *inv_std;
    *shift = (norm->beta ? (double)norm->beta[i] : 0.0) - (double)norm->mean[i] * *scale;
}

/* Scale, shift and inverse deviation, (c) each. */
static void make_scale(const thaw_engine *e, const thaw_pack *pack, float *to) {
    const thaw_layer *layer = &e->model->layers[pack->layer];
    const bool rescaling = layer->kind == THAW_LAYER_RESCALING;
    const norm_tensors norm = rescaling ? (norm_tensors){0} : norm_of(e, pack->layer);
    int64_t c = pack->c;
    for (int64_t i = 0; i < c; i++) {
        double scale, shift, inv_std;
        if (rescaling) {
            int64_t k = layer->config.n_rescale > 1 ? i : 0;
            scale = inv_std = (double)layer->config.rescale[k];
            shift = (double)layer->config.offset[k];
        } else {
            norm_constants(&norm, i, &scale, &shift, &inv_std);
        }
        to[i] = (float)scale;
        to[c + i] = (float)shift;
        to[2 * c + i] = (float)inv_std;
    }
}

/* kernel(kh,kw,Cin,Cout) * scale(Cout), then bias*scale + shift (Cout). */
static void make_folded(const thaw_engine *e, const thaw_pack *pack, float *to) {
    const float *kernel = layer_tensor_data(e, pack->layer, "kernel"), *bias = layer_tensor_data(e, pack->layer, "bias");
    const norm_tensors norm = norm_of(e, pack->norm);
    size_t c = (size_t)pack->c, count = e->model->layers[pack->layer].tensors[0].count;
    for (size_t i = 0; i < c; i++) {
        double scale, shift, inv_std;
        norm_constants(&norm, (int64_t)i, &scale, &shift, &inv_std);
        for (size_t at = i; at < count; at += c)
            to[at] = (float)((double)kernel[at] * scale);
        to[count + i] = (float)((bias ? (double)bias[i] : 0.0) * scale + shift);
    }
}

static size_t packed_floats(const thaw_engine *e, const thaw_pack *pack) {
    return thaw_align(e->kernels->conv_pack_floats(&pack->window, pack->backward) * sizeof(float)) / sizeof(float);
}

/* The packed kernel; with a norm folded in, times scale(Cout), and behind it bias*scale + shift (Cout). */
static void make_conv(const thaw_engine *e, const thaw_pack *pack, float *to, thaw_part part) {
    const float *kernel = layer_tensor_data(e, pack->layer, "kernel"), *bias = layer_tensor_data(e, pack->layer, "bias");
    double *scales = NULL;
    if (pack->norm >= 0) {
        const norm_tensors norm = norm_of(e, pack->norm);
        float *folded = to + packed_floats(e, pack);
        scales = (double *)(void *)e->scratch;
        for (int64_t i = 0; i < pack->c; i++) {
            double shift, inv_std;
            norm_constants(&norm, i, &scales[i], &shift, &inv_std);
            if (part.number == 0)
                folded[i] = (float)((bias ? (double)bias[i] : 0.0) * scales[i] + shift);
        }
    }
    e->kernels->conv_pack(&pack->window, pack->backward, kernel, scales, to, part);
}

/* A part of a pack; small ones have one part. */
static void make_pack(const thaw_engine *e, const thaw_pack *pack, float *to, thaw_part part) {
    if (pack->kind == THAW_PACK_CONV)
        make_conv(e, pack, to, part);
    else if (part.number > 0)
        return;
    else if (pack->kind == THAW_PACK_SCALE)
        make_scale(e, pack, to);
    else
        make_folded(e, pack, to);
}

/* Packs of the suffix in inference form may lie among those of its training form. */
static float *pack_place(const thaw_engine *e, int which, const thaw_pack *p) {
    const int owner = p->lent ? 1 : which;
    return p->offset + (p->refresh ? e->packs.floats + thaw_packs_begin(e->plan, owner)
                                   : e->constants.floats + thaw_constants_begin(e->plan, owner));
}

static const float *pack_data(const thaw_engine *e, int which, int pack) {
    return pack_place(e, which, &tape_of(e, which)->packs[pack]);
}

static void conv_forward(thaw_engine *e, int which, const thaw_op *op, int64_t n, const float *x, const float *add, float *y) {
    const thaw_pack *pack = op->pack >= 0 ? &tape_of(e, which)->packs[op->pack] : NULL;
    const thaw_tensor *kernel = &e->model->layers[op->layer].tensors[0];
    const float *data = pack ? pack_data(e, which, op->pack) : kernel->data, *bias = layer_tensor_data(e, op->layer, "bias");
    bool packed = pack && pack->kind == THAW_PACK_CONV;
    if (pack && pack->norm >= 0)
        bias = data + (packed ? packed_floats(e, pack) : kernel->count);
    if (packed)
        e->kernels->conv_forward_packed(&op->window, n, x, data, bias, add, op->act, y, e->scratch);
    else
        e->kernels->conv_forward(&op->window, n, x, data, bias, op->act, y, e->scratch);
}

static void conv_backward_data(thaw_engine *e, const thaw_op *op, int64_t n, const float *dy, float *dx, bool add) {
    if (op->pack_backward >= 0)
        e->kernels->conv_backward_data_packed(&op->window, n, dy, pack_data(e, 1, op->pack_backward), dx, add, e->scratch);
    else
        e->kernels->conv_backward_data(&op->window, n, dy, e->model->layers[op->layer].tensors[0].data, dx, add, e->scratch);
}

/* All that is this rank's to make, or what is to refresh. */
static void make_packs(thaw_engine *e, bool all) {
    for (int which = 0; which < 3; which++) {
        const thaw_tape *tape = tape_of(e, which);
        for (int i = 0; tape && i < tape->n_packs; i++) {
            const thaw_pack *pack = &tape->packs[i];
            float *place = pack_place(e, which, pack);
            if (pack->lent)
                continue;
            if (pack->refresh)
                make_pack(e, pack, place, e->packs.mine);
            else if (all && thaw_constants_mine(e->plan, &e->constants, (size_t)(place - e->constants.floats)))
                make_pack(e, pack, place, THAW_WHOLE);
        }
    }
}

static thaw_status no_memory(const thaw_plan *plan) {
    return thaw_fail(THAW_RESOURCE, "not enough memory: the plan of %s needs %.2f GiB on each rank with %lld images a "
                                    "rank; use a smaller batch_size or more ranks on other nodes",
                     plan->model->name, (double)plan->memory_bytes / 0x1p30, (long long)plan->max_batch);
}

/* A block of the hooks, or one of the engine's own. */
static bool find_block(thaw_host_block *block, const thaw_host_block *given, size_t floats) {
    *block = given ? *given : (thaw_host_block){thaw_calloc(floats + 1, sizeof(float)), THAW_WHOLE};
    return block->floats != NULL;
}

thaw_status thaw_engine_create(thaw_engine **out, const thaw_plan *plan, thaw_model *model, const thaw_hooks *hooks,
                               float *parameters, float *gradients) {
    *out = NULL;
    if (model != plan->model)
        return thaw_fail(THAW_INTERNAL, "engine: the plan belongs to another model");
    if (plan->n_tensors && (!parameters || !gradients))
        return thaw_fail(THAW_INTERNAL, "engine: the plan trains %d tensors, and there is no memory for them", plan->n_tensors);
    thaw_engine *e = thaw_calloc(1, sizeof *e);
    if (!e)
        return no_memory(plan);
    e->plan = plan;
    e->model = model;
    e->kernels = thaw_kernels_get();
    if (hooks)
        e->hooks = *hooks;
    bool ok = true;
    e->prefix_arena = thaw_malloc(plan->memory.prefix);
    e->suffix_arena = thaw_malloc(plan->memory.suffix);
    e->scratch = thaw_malloc(plan->memory.scratch);
    e->slots = thaw_calloc((size_t)plan->n_boundary + 1, sizeof *e->slots);
    e->tensor_gradient = thaw_calloc((size_t)model->n_layers * THAW_MAX_TENSORS, sizeof *e->tensor_gradient);
    e->written = thaw_calloc(plan->tape_train ? (size_t)plan->tape_train->n_values + 1 : 1, sizeof *e->written);
    ok = e->prefix_arena && e->suffix_arena && e->scratch && e->slots && e->tensor_gradient && e->written;
    for (int i = 0; ok && i < plan->n_boundary; i++) {
        size_t count = (size_t)thaw_shape_count(&model->nodes[plan->boundary[i]].shape);
        e->slots[i] = thaw_calloc(thaw_plan_slot_images(plan) * count, sizeof(float));
        ok = e->slots[i] != NULL;
    }
    ok = ok && find_block(&e->packs, e->hooks.packs, thaw_plan_packs(plan)) &&
         find_block(&e->constants, e->hooks.constants, thaw_constants_begin(plan, 3));
    if (!ok) {
        thaw_engine_free(e);
        return no_memory(plan);
    }
    e->parameters = parameters;
    e->gradients = gradients;
    for (int i = 0; i < plan->n_tensors; i++) {
        const thaw_plan_tensor *t = &plan->tensors[i];
        thaw_tensor *tensor = &model->layers[t->layer].tensors[t->tensor];
        memcpy(parameters + t->offset, tensor->data, t->count * sizeof(float));
        tensor->data = parameters + t->offset;
        thaw_memory_rest(tensor->home); /* until the tensor comes home again */
        e->tensor_gradient[t->layer * THAW_MAX_TENSORS + t->tensor] = gradients + t->offset;
    }
    make_packs(e, true);
    if (e->hooks.constants)
        thaw_constants_move(plan, model, &e->constants);
    *out = e;
    return THAW_OK;
}

void thaw_engine_free(thaw_engine *e) {
    if (!e)
        return;
    thaw_free(e->prefix_arena); /* before home is filled again */
    thaw_free(e->suffix_arena);
    thaw_free(e->scratch);
    for (int i = 0; e->parameters && i < e->plan->n_tensors; i++) {
        const thaw_plan_tensor *t = &e->plan->tensors[i];
        thaw_tensor *tensor = &e->model->layers[t->layer].tensors[t->tensor];
        memcpy(tensor->home, e->parameters + t->offset, t->count * sizeof(float));
        tensor->data = tensor->home;
    }
    for (int i = 0; e->slots && i < e->plan->n_boundary; i++)
        thaw_free(e->slots[i]);
    if (!e->hooks.packs)
        thaw_free(e->packs.floats);
    if (e->hooks.constants)
        thaw_constants_return(e->plan, e->model);
    else
        thaw_free(e->constants.floats);
    thaw_free(e->slots);
    thaw_free(e->tensor_gradient);
    thaw_free(e->written);
    thaw_free(e);
}

static void forward_op(thaw_engine *e, int which, const thaw_op *op, int64_t n) {
    const thaw_tape *tape = tape_of(e, which);
    char *arena = which == 0 ? e->prefix_arena : e->suffix_arena;
    const thaw_kernels *k = e->kernels;
    const thaw_layer *layer = &e->model->layers[op->layer];
    const float *x = value_data(e, tape, arena, op->in[0]);
    float *y = value_data(e, tape, arena, op->out);
    char *saved = op->saved >= 0 ? arena + tape->places[op->saved].offset : NULL;
    const float *pack = op->pack >= 0 ? pack_data(e, which, op->pack) : NULL;
    int64_t rows = n * op->rows, c = op->c;
    switch (op->kind) {
    case THAW_OP_CONV:
        conv_forward(e, which, op, n, x, op->n_in > 1 ? value_data(e, tape, arena, op->in[1]) : NULL, y);
        break;
    case THAW_OP_DENSE:
        k->dense_forward(rows, op->in_c, c, x, layer->tensors[0].data, layer_tensor_data(e, op->layer, "bias"), op->act, y,
                         e->scratch);
        break;
    case THAW_OP_MAX_POOL: k->max_pool_forward(&op->window, n, x, y, (uint16_t *)(void *)saved); break;
    case THAW_OP_AVERAGE_POOL: k->average_pool_forward(&op->window, n, x, y); break;
    case THAW_OP_GLOBAL_AVERAGE: k->global_average_forward(n, op->rows, c, x, y); break;
    case THAW_OP_GLOBAL_MAX: k->global_max_forward(n, op->rows, c, x, y, (int32_t *)(void *)saved); break;
    case THAW_OP_ACTIVATION: k->activation_forward(op->act, rows * c, c, x, y); break;
    case THAW_OP_RELU:
        k->relu_forward(layer->config.max_value, layer->config.negative_slope, layer->config.threshold, rows * c, x, y);
        break;
    case THAW_OP_SCALE_SHIFT: k->scale_shift(rows, c, x, pack, pack + c, op->act, y); break;
    case THAW_OP_BATCH_NORM: {
        float *mean = (float *)(void *)saved;
        k->batch_norm_forward(rows, c, layer->config.epsilon, x, layer_tensor_data(e, op->layer, "gamma"),
                              layer_tensor_data(e, op->layer, "beta"), y, mean, mean + c, mean + 2 * c, &e->hooks,
                              e->scratch);
        break;
    }
    case THAW_OP_PAD:
        k->zero_pad_forward(n, op->window.h, op->window.w, op->window.cin, layer->config.pad, x, y);
        break;
    case THAW_OP_ADD:
        if (op->n_in == 1)
            k->activation_forward(THAW_ACTIVATION_LINEAR, rows * c, c, x, y);
        for (int i = 1; i < op->n_in; i++)
            k->add_forward(rows * c, i == 1 ? x : y, value_data(e, tape, arena, op->in[i]), y);
        break;
    case THAW_OP_CONCAT:
        for (int64_t i = 0, at = 0; i < op->n_in; i++) {
            int64_t part = tape->values[op->in[i]].count / op->rows;
            k->copy_rows(rows, part, value_data(e, tape, arena, op->in[i]), part, y + at, c, false);
            at += part;
        }
        break;
    case THAW_OP_DROPOUT:
        k->dropout(n, op->rows * c, layer->config.rate, e->draws.seed, e->draws.epoch, op->key, e->draws.samples, x, y,
                   false);
        break;
    }
}

/* Gradient of one trained tensor of an operation: its place in the flat block, or scratch for one more call. */
static float *tensor_gradient(const thaw_engine *e, const thaw_op *op, const char *name) {
    const thaw_layer *layer = &e->model->layers[op->layer];
    for (int t = 0; t < layer->n_tensors; t++)
        if (strcmp(layer->tensors[t].name, name) == 0)
            return e->tensor_gradient[op->layer * THAW_MAX_TENSORS + t];
    return NULL;
}

/* Weight gradients of images [from, from+n): kernel or gamma, bias or beta. */
static void images_gradient(thaw_engine *e, const thaw_op *op, int64_t from, int64_t n, float *first, float *second) {
    const thaw_tape *tape = e->plan->tape_train;
    const thaw_kernels *k = e->kernels;
    const float *x = value_data(e, tape, e->suffix_arena, op->in[0]) + from * tape->values[op->in[0]].count;
    const float *dy = gradient_data(e, tape, op->out) + from * tape->values[op->out].count;
    if (op->kind == THAW_OP_CONV) {
        k->conv_backward_weights(&op->window, n, x, dy, first, second, e->scratch);
    } else if (op->kind == THAW_OP_DENSE) {
        k->dense_backward_weights(n * op->rows, op->in_c, op->c, x, dy, first, second, e->scratch);
    } else { /* SCALE_SHIFT: a norm by moving statistics */
        const float *inv_std = pack_data(e, 1, op->pack) + 2 * op->c;
        k->batch_norm_moving_backward(n * op->rows, op->c, x, NULL, layer_tensor_data(e, op->layer, "gamma"),
                                      layer_tensor_data(e, op->layer, "moving_mean"), inv_std, dy, NULL, false, first, second,
                                      e->scratch);
    }
}

/* The kernel's gradient of slices [lo, hi) of this rank together; false: their kernels do not add slices. */
static bool kernel_gradient(thaw_engine *e, const thaw_op *op, int lo, int hi, float *to) {
    const thaw_tape *tape = e->plan->tape_train;
    const thaw_kernels *k = e->kernels;
    const int64_t *start = e->hooks.slices->start + lo;
    const float *x = value_data(e, tape, e->suffix_arena, op->in[0]) + start[0] * tape->values[op->in[0]].count;
    const float *dy = gradient_data(e, tape, op->out) + start[0] * tape->values[op->out].count;
    const int slices = hi - lo;
    if (op->kind == THAW_OP_CONV && k->conv_sums_slices(&op->window, start[slices] - start[0], slices))
        k->conv_backward_slices(&op->window, slices, start, x, dy, to, e->scratch);
    else if (op->kind == THAW_OP_DENSE && op->rows == 1 && k->dense_sums_slices(slices))
        k->dense_backward_slices(op->in_c, op->c, slices, start, x, dy, to, e->scratch);
    else
        return false;
    return true;
}

/* The sum of slices [lo, hi) of this rank, a power of two of them, in a binary tree. Right halves wait in the end of the
 * scratch, one for each level. */
static void tree_gradient(thaw_engine *e, const thaw_op *op, int lo, int hi, float *first, float *second, int level) {
    const int64_t *start = e->hooks.slices->start;
    if (first && !second && kernel_gradient(e, op, lo, hi, first))
        return;
    if (hi - lo == 1) {
        images_gradient(e, op, start[lo], start[hi] - start[lo], first, second);
        return;
    }
    thaw_layer *layer = &e->model->layers[op->layer];
    const size_t at = e->plan->memory.scratch - (size_t)(level + 1) * thaw_op_gradient_bytes(e->plan, op);
    const bool norm = op->kind == THAW_OP_SCALE_SHIFT;
    const thaw_tensor *a = thaw_layer_tensor(layer, norm ? "gamma" : "kernel");
    const thaw_tensor *b = thaw_layer_tensor(layer, norm ? "beta" : "bias");
    float *other = (float *)(void *)(e->scratch + at);
    float *other_second = other + (a ? thaw_align(a->count * sizeof *other) / sizeof *other : 0);
    tree_gradient(e, op, lo, (lo + hi) / 2, first, second, level);
    tree_gradient(e, op, (lo + hi) / 2, hi, first ? other : NULL, second ? other_second : NULL, level + 1);
    if (first)
        e->kernels->add_forward((int64_t)a->count, first, other, first);
    if (second)
        e->kernels->add_forward((int64_t)b->count, second, other_second, second);
}

static void weight_gradient(thaw_engine *e, const thaw_op *op, float *first, float *second) {
    const thaw_slices *slices = e->hooks.slices;
    if (!slices || e->plan->slices == 1) {
        images_gradient(e, op, 0, e->n, first, second);
        return;
    }
    if (op->kind == THAW_OP_SCALE_SHIFT) { /* both from one look at the images */
        tree_gradient(e, op, 0, slices->count, first, second, 0);
        return;
    }
    if (first)
        tree_gradient(e, op, 0, slices->count, first, NULL, 0);
    if (second)
        tree_gradient(e, op, 0, slices->count, NULL, second, 0);
}

static void backward_op(thaw_engine *e, const thaw_op *op) {
    const thaw_tape *tape = e->plan->tape_train;
    const thaw_kernels *k = e->kernels;
    const thaw_layer *layer = &e->model->layers[op->layer];
    int64_t n = e->n, rows = n * op->rows, c = op->c;
    const float *x = value_data(e, tape, e->suffix_arena, op->in[0]);
    const float *y = value_data(e, tape, e->suffix_arena, op->out);
    float *dy = gradient_data(e, tape, op->out);
    char *saved = op->saved >= 0 ? e->suffix_arena + tape->places[op->saved].offset : NULL;
    const float *pack = op->pack >= 0 ? pack_data(e, 1, op->pack) : NULL;
    float *dx = tape->values[op->in[0]].gradient >= 0 ? gradient_data(e, tape, op->in[0]) : NULL;
    bool add = dx && e->written[op->in[0]];

    /* Weight gradients go to the flat block, or, for one more call of the layer, behind the scratch of the kernel. */
    float *first = NULL, *second = NULL, *first_home = NULL, *second_home = NULL; /* kernel, bias / gamma, beta */
    if (op->wants_dw) {
        bool norm = layer->kind == THAW_LAYER_BATCH_NORMALIZATION;
        first = first_home = tensor_gradient(e, op, norm ? "gamma" : "kernel");
        second = second_home = tensor_gradient(e, op, norm ? "beta" : "bias");
        if (op->again) {
            size_t at = e->plan->memory.scratch;
            for (int t = layer->n_tensors - 1; t >= 0; t--) {
                at -= thaw_align(layer->tensors[t].count * sizeof(float));
                float *place = (float *)(void *)(e->scratch + at);
                if (strcmp(layer->tensors[t].name, norm ? "gamma" : "kernel") == 0)
                    first = first_home ? place : NULL;
                else if (strcmp(layer->tensors[t].name, norm ? "beta" : "bias") == 0)
                    second = second_home ? place : NULL;
            }
        }
    }
    bool fused = op->act != THAW_ACTIVATION_LINEAR && op->kind != THAW_OP_ACTIVATION;
    /* A norm takes the relu behind it in its own pass; not by slices, where its gradient is read several times. */
    bool relu = op->kind == THAW_OP_SCALE_SHIFT && op->act == THAW_ACTIVATION_RELU && e->plan->slices == 1;
    if (fused && !relu) /* in place: nobody else reads this gradient */
        k->activation_backward(op->act, rows * c, c, NULL, y, dy, dy, false);

    switch (op->kind) {
    case THAW_OP_CONV:
        if (op->wants_dw)
            weight_gradient(e, op, first, second);
        if (dx)
            conv_backward_data(e, op, n, dy, dx, add);
        break;
    case THAW_OP_DENSE:
        if (op->wants_dw)
            weight_gradient(e, op, first, second);
        if (dx)
            k->dense_backward_data(rows, op->in_c, c, dy, layer->tensors[0].data, dx, add, e->scratch);
        break;
    case THAW_OP_MAX_POOL: k->max_pool_backward(&op->window, n, dy, (const uint16_t *)(void *)saved, dx, add); break;
    case THAW_OP_AVERAGE_POOL: k->average_pool_backward(&op->window, n, dy, dx, add); break;
    case THAW_OP_GLOBAL_AVERAGE: k->global_average_backward(n, op->rows, c, dy, dx, add); break;
    case THAW_OP_GLOBAL_MAX:
        k->global_max_backward(n, op->rows, c, dy, (const int32_t *)(void *)saved, dx, add);
        break;
    case THAW_OP_ACTIVATION: k->activation_backward(op->act, rows * c, c, x, y, dy, dx, add); break;
    case THAW_OP_RELU:
        k->relu_backward(layer->config.max_value, layer->config.negative_slope, layer->config.threshold, rows * c, x, dy,
                         dx, add);
        break;
    case THAW_OP_SCALE_SHIFT: {
        const float *gamma = layer_tensor_data(e, op->layer, "gamma"), *mean = layer_tensor_data(e, op->layer, "moving_mean");
        bool sliced = op->wants_dw && e->plan->slices > 1;
        if (sliced)
            weight_gradient(e, op, first, second);
        if (dx || !sliced)
            k->batch_norm_moving_backward(rows, c, x, relu ? y : NULL, gamma, mean, pack + 2 * c, dy, dx, add,
                                          sliced ? NULL : first, sliced ? NULL : second, e->scratch);
        break;
    }
    case THAW_OP_BATCH_NORM: {
        const float *mean = (const float *)(const void *)saved;
        k->batch_norm_backward(rows, c, x, layer_tensor_data(e, op->layer, "gamma"), mean, mean + c, dy, dx, add, first,
                               second, &e->hooks, e->scratch);
        break;
    }
    case THAW_OP_PAD:
        k->zero_pad_backward(n, op->window.h, op->window.w, op->window.cin, layer->config.pad, dy, dx, add);
        break;
    case THAW_OP_ADD:
        for (int i = 0; i < op->n_in; i++) {
            int in = op->in[i];
            if (tape->values[in].gradient < 0)
                continue;
            k->activation_backward(THAW_ACTIVATION_LINEAR, rows * c, c, NULL, y, dy, gradient_data(e, tape, in),
                                   e->written[in]);
            e->written[in] = true;
        }
        break;
    case THAW_OP_CONCAT:
        for (int64_t i = 0, at = 0; i < op->n_in; i++) {
            int in = op->in[i];
            int64_t part = tape->values[in].count / op->rows;
            if (tape->values[in].gradient >= 0) {
                k->copy_rows(rows, part, dy + at, c, gradient_data(e, tape, in), part, e->written[in]);
                e->written[in] = true;
            }
            at += part;
        }
        break;
    case THAW_OP_DROPOUT: /* the mask comes from the counter again */
        k->dropout(n, op->rows * c, layer->config.rate, e->draws.seed, e->draws.epoch, op->key, e->draws.samples, dy, dx,
                   add);
        break;
    }
    if (dx)
        e->written[op->in[0]] = true;
    if (op->again) {
        bool norm = layer->kind == THAW_LAYER_BATCH_NORMALIZATION;
        const thaw_tensor *a = thaw_layer_tensor(&e->model->layers[op->layer], norm ? "gamma" : "kernel");
        const thaw_tensor *b = thaw_layer_tensor(&e->model->layers[op->layer], norm ? "beta" : "bias");
        if (first)
            k->add_forward((int64_t)a->count, first_home, first, first_home);
        if (second)
            k->add_forward((int64_t)b->count, second_home, second, second_home);
    }
}

void thaw_engine_prefix_begin(thaw_engine *e, int64_t n, const float *x) {
    e->run = (struct run){.x = x, .n = n, .home = e->plan->block_images - e->home};
}

void thaw_engine_prefix_run(thaw_engine *e, double share) {
    const thaw_tape *tape = e->plan->tape_prefix;
    const int64_t row = thaw_shape_count(&e->model->nodes[e->model->input].shape);
    const double wanted = share * (double)e->run.n * tape->forward_flop;
    struct run *r = &e->run;
    while (r->piece < r->n) {
        const int64_t images = r->n - r->piece < e->plan->prefix_batch ? r->n - r->piece : e->plan->prefix_batch;
        while (r->op < tape->n_ops) {
            const thaw_op *op = &tape->ops[r->op];
            int64_t n = images - r->done;
            if (share < 1.0 && op->flop > 0.0) { /* others go along */
                const double left = (wanted - r->flop) / op->flop;
                n = left < 0.5 ? 0 : left < (double)n ? (int64_t)(left + 0.5) : n;
                if (n == 0)
                    return;
            }
            e->x = r->x + r->piece * row;
            e->image = r->done;
            e->first = r->home + r->piece + r->done;
            forward_op(e, 0, op, n);
            r->flop += op->flop * (double)n;
            r->done += n;
            if (r->done == images) {
                r->done = 0;
                r->op++;
            }
            if (e->hooks.poll)
                e->hooks.poll(e->hooks.payload);
        }
        r->op = 0;
        r->piece += images;
    }
}

void thaw_engine_prefix_turn(thaw_engine *e) {
    e->x = e->run.x;
    e->home = e->run.home;
    e->image = 0;
}

void thaw_engine_prefix(thaw_engine *e, int64_t n, const float *x) {
    thaw_engine_prefix_begin(e, n, x);
    thaw_engine_prefix_run(e, 1.0);
    thaw_engine_prefix_turn(e);
}

void thaw_engine_rest(thaw_engine *e) {
    e->run = (struct run){0};
    thaw_memory_rest(e->prefix_arena);
    thaw_memory_rest(e->suffix_arena);
    thaw_memory_rest(e->scratch);
}

float *thaw_engine_slot(const thaw_engine *e, int i) {
    return e->slots[i] + e->home * thaw_shape_count(&e->model->nodes[e->plan->boundary[i]].shape);
}

/* Images [first, first+n) of the slots. They stay what is under way, for backward. */
static void run_suffix(thaw_engine *e, int which, int64_t first, int64_t n) {
    const thaw_tape *tape = tape_of(e, which);
    e->first = e->home + first;
    e->image = 0;
    for (int i = 0; i < tape->n_ops; i++) {
        forward_op(e, which, &tape->ops[i], n);
        if (e->hooks.poll)
            e->hooks.poll(e->hooks.payload);
    }
}

const float *thaw_engine_forward(thaw_engine *e, int64_t first, int64_t n, const thaw_draws *draws) {
    e->n = n;
    e->draws = *draws;
    run_suffix(e, 1, first, n);
    return value_data(e, e->plan->tape_train, e->suffix_arena, e->plan->tape_train->output);
}

float *thaw_engine_output_gradient(thaw_engine *e) {
    return gradient_data(e, e->plan->tape_train, e->plan->tape_train->output);
}

void thaw_engine_backward(thaw_engine *e) {
    const thaw_tape *tape = e->plan->tape_train;
    memset(e->written, 0, (size_t)tape->n_values * sizeof *e->written);
    for (int i = tape->n_ops - 1; i >= 0; i--) {
        const thaw_op *op = &tape->ops[i];
        if (!op->wants_dw && !op->wants_dx)
            continue;
        backward_op(e, op);
        for (int b = 0; b < op->ready_count && e->hooks.bucket_ready; b++)
            e->hooks.bucket_ready(e->hooks.payload, op->ready_first + b);
        if (e->hooks.poll)
            e->hooks.poll(e->hooks.payload);
    }
}

void thaw_engine_update_statistics(thaw_engine *e) {
    const thaw_tape *tape = e->plan->tape_train;
    for (int i = 0; i < tape->n_ops; i++) {
        const thaw_op *op = &tape->ops[i];
        if (op->kind != THAW_OP_BATCH_NORM)
            continue;
        const float *mean = (const float *)(const void *)(e->suffix_arena + tape->places[op->saved].offset);
        const float *var = mean + 2 * op->c;
        float *moving_mean = layer_tensor_data(e, op->layer, "moving_mean");
        float *moving_var = layer_tensor_data(e, op->layer, "moving_variance");
        float keep = e->model->layers[op->layer].config.momentum, take = 1.0f - keep;
        for (int64_t c = 0; c < op->c; c++) {
            moving_mean[c] = moving_mean[c] * keep + mean[c] * take;
            moving_var[c] = moving_var[c] * keep + var[c] * take;
        }
    }
}

void thaw_engine_refresh(thaw_engine *e) { make_packs(e, false); }

const float *thaw_engine_infer(thaw_engine *e, int64_t n) {
    int which = e->plan->tape_infer ? 2 : 0; /* without a suffix the prefix has computed z */
    const thaw_tape *tape = tape_of(e, which);
    if (which)
        run_suffix(e, which, 0, n);
    return value_data(e, tape, which ? e->suffix_arena : e->prefix_arena, tape->output);
}

/* A tensor that this stage leaves alone: not trained, and no moving statistic of a batch norm that takes in batches. */
static bool frozen(const thaw_plan *plan, int layer, const thaw_tensor *tensor) {
    return tensor->statistic ? !plan->batch_statistics[layer] : !plan->trainable[layer];
}

static uint64_t hash_tensors(const thaw_engine *e, bool want_frozen) {
    uint64_t hash = 0;
    for (int i = 0; i < e->model->n_layers; i++)
        for (int t = 0; t < e->model->layers[i].n_tensors; t++) {
            const thaw_tensor *tensor = &e->model->layers[i].tensors[t];
            if (frozen(e->plan, i, tensor) == want_frozen)
                hash = thaw_hash(tensor->data, tensor->count * sizeof(float), hash);
        }
    return hash;
}

uint64_t thaw_engine_frozen_hash(const thaw_engine *e) {
    uint64_t hash = hash_tensors(e, true);
    for (int which = 0; which < 3; which++) {
        const thaw_tape *tape = tape_of(e, which);
        for (int i = 0; tape && i < tape->n_packs; i++)
            if (!tape->packs[i].lent && !tape->packs[i].refresh)
                hash = thaw_hash(pack_data(e, which, i), tape->packs[i].count * sizeof(float), hash);
    }
    return hash;
}

uint64_t thaw_engine_trained_hash(const thaw_engine *e) { return hash_tensors(e, false); }
