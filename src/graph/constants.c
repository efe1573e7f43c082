#include "graph/constants.h"

#include <string.h>

#include "base/memory.h"

size_t thaw_constants_begin(const thaw_plan *plan, int which) {
    const thaw_tape *const tapes[] = {plan->tape_prefix, plan->tape_train, plan->tape_infer};
    size_t floats = 0;
    for (int i = 0; i < which; i++)
        floats += tapes[i] ? tapes[i]->constant_floats : 0;
    return floats;
}

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

bool thaw_constants_mine(const thaw_plan *plan, const thaw_constants *constants, size_t at) {
    const double share = (double)thaw_plan_constants(plan) / constants->parts;
    const int part = (int)((double)at / share);
    return (part < constants->parts ? part : constants->parts - 1) == constants->part;
}

void thaw_constants_move(const thaw_plan *plan, thaw_model *model, const thaw_constants *constants) {
    size_t at = thaw_constants_begin(plan, 3);
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            if (!held(plan, i, tensor))
                continue;
            if (thaw_constants_mine(plan, constants, at))
                memcpy(constants->block + at, tensor->data, tensor->count * sizeof *tensor->data);
            tensor->data = constants->block + at;
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
