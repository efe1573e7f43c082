#include "train/guards.h"

#include <string.h>

#include "base/log.h"

/* Holds weights that training changes (moving statistics alone do not count). */
static bool has_weights(const thaw_layer *layer) {
    for (int t = 0; t < layer->n_tensors; t++)
        if (!layer->tensors[t].statistic)
            return true;
    return false;
}

static bool is_pretrained(const thaw_layer *layer) {
    for (int t = 0; t < layer->n_tensors; t++)
        if (layer->tensors[t].loaded)
            return true;
    return false;
}

/* First pretrained layer that trains now and did not before; -1 if there is none. */
static int first_thawed(const thaw_model *model, const bool *trainable, const bool *before) {
    for (int i = 0; i < model->n_layers; i++)
        if (trainable[i] && !(before && before[i]) && has_weights(&model->layers[i]) && is_pretrained(&model->layers[i]))
            return i;
    return -1;
}

void thaw_guard_stage(const thaw_model *model, const thaw_job *job, int stage, const bool *trainable, const bool *before,
                      const bool *touched) {
    const thaw_job_stage *now = &job->stages[stage];
    int pretrained = first_thawed(model, trainable, NULL), random = -1;
    for (int i = model->n_layers - 1; i >= 0; i--)
        if (trainable[i] && !touched[i] && has_weights(&model->layers[i]))
            random = i;
    if (pretrained >= 0 && random >= 0)
        thaw_warn("stage %s trains pretrained layers (%s, ...) together with layers that still hold random weights (%s, ...): "
                  "the first large gradients can undo what was learned before; train the new layers alone in a stage before "
                  "this one",
                  now->name, model->layers[pretrained].name, model->layers[random].name);
    int thawed = before ? first_thawed(model, trainable, before) : -1;
    if (thawed < 0)
        return;
    const thaw_job_optimizer *last = &job->stages[stage - 1].optimizer;
    if (last->kind == now->optimizer.kind && now->optimizer.learning_rate >= last->learning_rate)
        thaw_warn("stage %s unfreezes pretrained layers (%s, ...) with learning_rate %g, stage %s had %g: fine-tuning usually "
                  "takes a rate 10 to 100 times lower than the training of new layers",
                  now->name, model->layers[thawed].name, now->optimizer.learning_rate, job->stages[stage - 1].name,
                  last->learning_rate);
}

void thaw_guard_preprocess(const thaw_model *model, thaw_preprocess preprocess) {
    const char *meant = model->notes.preprocess, *given = thaw_preprocess_name(preprocess);
    bool pretrained = false;
    for (int i = 0; i < model->n_layers; i++)
        pretrained = pretrained || is_pretrained(&model->layers[i]);
    if (!meant && model->family)
        meant = thaw_builtin_preprocess(model->family);
    if (pretrained && meant && strcmp(meant, given) != 0)
        thaw_warn("data.preprocess: the weights of %s were trained on images prepared with %s, this job gives %s; use %s or "
                  "auto unless the images are prepared already",
                  model->origin ? model->origin : model->name, meant, given, meant);
}
