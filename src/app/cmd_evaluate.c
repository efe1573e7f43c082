/* thaw evaluate MODEL DATA */
#include "app.h"
#include "thaw/train.h"

static thaw_status print(thaw_app *app, const thaw_evaluation *found, bool json) {
    if (json) {
        cJSON *object = cJSON_CreateObject();
        if (found->has_loss)
            cJSON_AddNumberToObject(object, "loss", found->loss);
        else
            cJSON_AddNullToObject(object, "loss");
        for (int m = 0; m < found->n_metrics; m++)
            cJSON_AddNumberToObject(object, found->metric_names[m], found->metrics[m]);
        thaw_json_int(object, "images", found->images);
        return thaw_app_print_json(app, object);
    }
    thaw_buffer text = {0};
    if (found->has_loss)
        thaw_buffer_printf(&text, "loss      %.9g\n", found->loss);
    for (int m = 0; m < found->n_metrics; m++)
        thaw_buffer_printf(&text, "%-9s %.9g\n", found->metric_names[m], found->metrics[m]);
    thaw_buffer_printf(&text, "images    %lld\n", (long long)found->images);
    return thaw_app_print_buffer(app, &text);
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    int64_t batch = 32;
    thaw_model *model = NULL;
    thaw_evaluation found = {0};
    THAW_TRY(thaw_app_convolution(given));
    THAW_TRY(thaw_arguments_int(&batch, given, "batch", 1, 1 << 20));
    THAW_TRY(thaw_comm_watch(app->comm, THAW_WATCH_SECONDS));
    THAW_TRY(thaw_app_threads(app, 0, true));
    THAW_TRY(thaw_app_same_kernels(app));
    THAW_TRY(thaw_app_model(&model, app, given, given->positional[0]));
    thaw_status status = thaw_evaluate(&found, app->comm, model, given->positional[1],
                                       thaw_arguments_value(given, "preprocess", NULL), batch);
    thaw_model_free(model);
    return status == THAW_OK ? print(app, &found, thaw_arguments_has(given, "json")) : status;
}

static const thaw_option options[] = {
    THAW_OPTION_PREPROCESS,
    {"batch", "N", false, "images of a batch over all ranks (default: 32)"},
    THAW_OPTION_WEIGHTS,
    THAW_OPTION_NO_TOP,
    THAW_OPTION_INPUT_SHAPE,
    THAW_OPTION_CONV,
    THAW_OPTION_JSON,
};
const thaw_command thaw_command_evaluate = {
    .name = "evaluate",
    .positional = "MODEL DATA",
    .least = 2,
    .most = 2,
    .summary = "loss and metrics of a model on labelled data",
    .details = "MODEL: a Keras .h5 file or a built-in name (vgg16, vgg19, resnet50, inceptionv3), with its classifier unless\n"
               "--no-top.\n"
               "DATA: a folder of class folders, or FILE.h5:/x with the labels in FILE.h5:/y.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
