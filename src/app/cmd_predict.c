/* thaw predict MODEL INPUT... --output FILE */
#include "app.h"
#include "thaw/train.h"

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    int64_t batch = 32;
    thaw_model *model = NULL;
    const char *output = thaw_arguments_value(given, "output", NULL);
    if (!output)
        return thaw_fail(THAW_USAGE, "predict: --output is missing: name a .csv, .jsonl or .h5 file for the results");
    THAW_TRY(thaw_app_convolution(given));
    THAW_TRY(thaw_arguments_int(&batch, given, "batch", 1, 1 << 20));
    THAW_TRY(thaw_comm_watch(app->comm, THAW_WATCH_SECONDS));
    THAW_TRY(thaw_app_threads(app, 0, true));
    THAW_TRY(thaw_app_same_kernels(app));
    THAW_TRY(thaw_app_model(&model, app, given, given->positional[0]));
    thaw_status status = thaw_predict(app->comm, model, given->positional + 1, given->n_positional - 1, output,
                                      thaw_arguments_value(given, "preprocess", NULL), thaw_arguments_has(given, "logits"),
                                      batch);
    thaw_model_free(model);
    return status;
}

static const thaw_option options[] = {
    {"output", "FILE", false, "results as .csv, .jsonl or .h5 (required)"},
    {"logits", NULL, false, "values before a final sigmoid or softmax"},
    THAW_OPTION_PREPROCESS,
    {"batch", "N", false, "images of a batch over all ranks (default: 32)"},
    THAW_OPTION_WEIGHTS,
    THAW_OPTION_NO_TOP,
    THAW_OPTION_INPUT_SHAPE,
    THAW_OPTION_CONV,
};
const thaw_command thaw_command_predict = {
    .name = "predict",
    .positional = "MODEL INPUT...",
    .least = 2,
    .most = -1,
    .summary = "outputs of a model for images or arrays, in the order of the inputs",
    .details = "MODEL: a Keras .h5 file or a built-in name (vgg16, vgg19, resnet50, inceptionv3), with its classifier unless\n"
               "--no-top.\n"
               "INPUT: image files, folders (classes, then files, sorted), or FILE.h5:/dataset.\n"
               "An .h5 result holds /y (images, outputs) and /files.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
