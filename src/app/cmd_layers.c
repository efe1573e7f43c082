/* thaw layers MODEL: the summary as Keras prints it, with indices and trainable flags. Needs no weights. */
#include <string.h>

#include "app.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "thaw/train.h"

static int64_t layer_params(const thaw_layer *layer) {
    int64_t params = 0;
    for (int t = 0; t < layer->n_tensors; t++)
        params += (int64_t)layer->tensors[t].count;
    return params;
}

static thaw_status print_json(thaw_app *app, const thaw_model *model, const bool *trainable) {
    int64_t total, trained, frozen;
    thaw_model_count(model, trainable, &total, &trained, &frozen);
    cJSON *object = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(object, "layers");
    for (int i = 0; i < model->n_layers; i++) {
        const thaw_layer *layer = &model->layers[i];
        if (!layer->listed)
            continue;
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(list, row);
        thaw_json_int(row, "index", layer->list_index);
        cJSON_AddStringToObject(row, "name", layer->name);
        cJSON_AddStringToObject(row, "class", thaw_layer_class(layer->kind));
        cJSON_AddItemToObject(row, "output_shape", thaw_json_shape(thaw_layer_shape(model, i)));
        thaw_json_int(row, "params", layer_params(layer));
        cJSON_AddBoolToObject(row, "trainable", trainable[i]);
    }
    thaw_json_int(object, "total_params", total);
    thaw_json_int(object, "trainable_params", trained);
    thaw_json_int(object, "non_trainable_params", frozen);
    return thaw_app_print_json(app, object);
}

static thaw_status print_text(thaw_app *app, const thaw_model *model, const bool *trainable) {
    int64_t total, trained, frozen;
    int width = 8;
    thaw_buffer text = {0};
    thaw_words shape, a;
    thaw_model_count(model, trainable, &total, &trained, &frozen);
    for (int i = 0; i < model->n_layers; i++)
        width = (int)strlen(model->layers[i].name) > width ? (int)strlen(model->layers[i].name) : width;
    thaw_buffer_printf(&text, "Model: %s (%s)\n%5s  %-*s  %-22s  %-22s %13s  %s\n", model->name,
                       model->origin ? model->origin : "", "index", width, "name", "class", "output shape", "params",
                       "trainable");
    for (int i = 0; i < model->n_layers; i++) {
        const thaw_layer *layer = &model->layers[i];
        if (layer->listed)
            thaw_buffer_printf(&text, "%5d  %-*s  %-22s  %-22s %13s  %s\n", layer->list_index, width, layer->name,
                               thaw_layer_class(layer->kind), thaw_shape_words(&shape, thaw_layer_shape(model, i)),
                               thaw_commas(&a, layer_params(layer)), trainable[i] ? "yes" : "no");
    }
    thaw_buffer_printf(&text, "%s\n", thaw_freeze_describe(trainable, model));
    thaw_buffer_printf(&text, "Total params: %s\n", thaw_commas(&a, total));
    thaw_buffer_printf(&text, "Trainable params: %s\n", thaw_commas(&a, trained));
    thaw_buffer_printf(&text, "Non-trainable params: %s\n", thaw_commas(&a, frozen));
    return thaw_app_print_buffer(app, &text);
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *name = given->positional[0];
    thaw_builtin_options options;
    thaw_model *model = NULL;
    bool *trainable = NULL;
    THAW_TRY(thaw_app_builtin(&options, given, name));
    THAW_TRY(thaw_named_model(&model, app->comm, name, &options, NULL));
    thaw_status status = thaw_comm_agree(app->comm, thaw_app_freeze(&trainable, given, model, NULL));
    if (status == THAW_OK)
        status = !app->root                        ? THAW_OK
                 : thaw_arguments_has(given, "json") ? print_json(app, model, trainable)
                                                     : print_text(app, model, trainable);
    thaw_free(trainable);
    thaw_model_free(model);
    return status;
}

static const thaw_option options[] = {
    THAW_OPTION_INPUT_SHAPE,
    THAW_OPTION_NO_TOP,
    THAW_OPTION_FREEZE,
    THAW_OPTION_JSON,
};
const thaw_command thaw_command_layers = {
    .name = "layers",
    .positional = "MODEL",
    .least = 1,
    .most = 1,
    .summary = "layers of a model: index, name, class, shape, parameters, trainable or not",
    .details = "MODEL: a Keras .h5 file or a built-in name (vgg16, vgg19, resnet50, inceptionv3). Weights are not needed.\n"
               "Index and name are what `freeze` of a job takes; try a spec with --freeze. Parameters are counted as Keras\n"
               "does: moving statistics and variables of frozen layers are non-trainable.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
