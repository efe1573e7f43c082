#include "graph/constants.h"

#include <string.h>

#include "base/memory.h"

/* Floats in front of what tape `which` has of one kind of packs. */
static size_t begin(const thaw_plan *plan, int which, bool refresh) {
    const thaw_tape *const tapes[] = {plan->tape_prefix, plan->tape_train, plan->tape_infer};
    size_t floats = 0;
    for (int i = 0; i < which; i++)
        if (tapes[i])
            floats += refresh ? tapes[i]->pack_floats : tapes[i]->constant_floats;
    return floats;
}

size_t thaw_constants_begin(const thaw_plan *plan, int which) { return begin(plan, which, false); }
size_t thaw_packs_begin(const thaw_plan *plan, int which) { return begin(plan, which, true); }
size_t thaw_plan_packs(const thaw_plan *plan) { return begin(plan, 3, true); }

/* Statistics stay at home: packs that are made again read them. */
static bool held(const thaw_plan *plan, int layer, const thaw_tensor *tensor) {
    return !plan->trainable[layer] && !tensor->statistic && tensor->count >= THAW_MEMORY_LARGE / sizeof *tensor->data;
}

size_t thaw_plan_constants(const thaw_plan *plan) {
    size_t floats = thaw_constants_begin(plan, 3);
    for (int i = 0; i < plan->model->n_layers; i++)
        for (int t = 0; t < plan->model->layers[i].n_tensors; t++)
            if (held(plan, i, &plan->model->layers[i].tensors[t]))
                floats += thaw_align(plan->model->layers[i].tensors[t].count * sizeof(float)) / sizeof(float);
    return floats;
}

bool thaw_constants_mine(const thaw_plan *plan, const thaw_host_block *constants, size_t at) {
    const int64_t all = (int64_t)thaw_plan_constants(plan);
    return (int64_t)at >= thaw_part_begin(constants->mine, all) && (int64_t)at < thaw_part_end(constants->mine, all);
}

void thaw_constants_move(const thaw_plan *plan, thaw_model *model, const thaw_host_block *constants) {
    size_t at = thaw_constants_begin(plan, 3);
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            if (!held(plan, i, tensor))
                continue;
            if (thaw_constants_mine(plan, constants, at))
                memcpy(constants->floats + at, tensor->data, tensor->count * sizeof *tensor->data);
            tensor->data = constants->floats + at;
            thaw_memory_rest(tensor->home);
            at += thaw_align(tensor->count * sizeof(float)) / sizeof(float);
        }
}

void thaw_constants_return(const thaw_plan *plan, thaw_model *model) {
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            if (!held(plan, i, tensor) || tensor->data == tensor->home)
                continue;
            memcpy(tensor->home, tensor->data, tensor->count * sizeof *tensor->data);
            tensor->data = tensor->home;
        }
}
