/* Cutting a model behind one of its layers. */
#include <string.h>

#include "base/memory.h"
#include "graph/build.h"

/* The last call of layer or nested model `name`; of a nested model the node that others read. -1 if there is none. */
static int last_call(const thaw_model *model, const char *name) {
    int layer = thaw_model_find(model, name), found = -1;
    size_t length = strlen(name);
    for (int i = 0; i < model->n_nodes; i++) {
        const char *path = model->layers[model->nodes[i].layer].name;
        bool inside = layer < 0 && length > 0 && strncmp(path, name, length) == 0 && path[length] == '/';
        bool read_outside = i == model->output;
        for (int k = i + 1; inside && k < model->n_nodes; k++) {
            const char *reader = model->layers[model->nodes[k].layer].name;
            for (int j = 0; j < model->nodes[k].n_inputs; j++)
                read_outside = read_outside || (model->nodes[k].inputs[j] == i &&
                                                !(strncmp(reader, name, length) == 0 && reader[length] == '/'));
        }
        if (model->nodes[i].layer == layer || (inside && read_outside))
            found = i;
    }
    return found;
}

thaw_status thaw_model_cut(thaw_model *model, const char *name) {
    int node = last_call(model, name);
    if (node < 0)
        return thaw_fail(THAW_USAGE, "output: no layer named '%s' in %s; nearest: %s (`thaw layers` lists all)", name,
                         model->name, thaw_model_nearest(model, name));
    if (node == model->output)
        return THAW_OK;
    THAW_TRY(thaw_model_finish(model, node, true));
    model->changed = true;
    thaw_model_notes *notes = &model->notes;
    for (int i = 0; notes->class_names && i < notes->n_classes; i++)
        thaw_free(notes->class_names[i]);
    thaw_free(notes->class_names);
    thaw_free(notes->loss);
    thaw_free(notes->metrics);
    *notes = (thaw_model_notes){.preprocess = notes->preprocess};
    return THAW_OK;
}
