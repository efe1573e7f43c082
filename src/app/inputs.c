/* Jobs, models and freeze specs that the command line names. */
#include <string.h>

#include "app.h"
#include "base/io.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "kernels/kernels.h"
#include "thaw/train.h"

/* A job file is written by hand: more than this is a mistake. */
#define JOB_BYTES ((size_t)16 << 20)

thaw_status thaw_app_job(thaw_job **out, thaw_app *app, const thaw_arguments *given) {
    const char *path = given->positional[0], **set = NULL;
    void *bytes = NULL;
    size_t size = 0;
    int n_set = 0;
    *out = NULL;
    thaw_status status = app->root ? thaw_io_read(&bytes, &size, path, JOB_BYTES) : THAW_OK;
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    THAW_GOTO(thaw_comm_broadcast_buffer(app->comm, &bytes, &size, 0));
    status = thaw_arguments_values(&set, &n_set, given, "set");
    if (status == THAW_OK && memchr(bytes, 0, size))
        status = thaw_fail(THAW_USAGE, "%s is no text: it holds a zero byte; a job file is YAML", path);
    if (status == THAW_OK)
        status = thaw_job_parse(out, path, bytes, set, n_set);
    status = thaw_comm_agree(app->comm, status);
    if (status != THAW_OK) {
        thaw_job_free(*out);
        *out = NULL;
    }
out:
    thaw_free((void *)set);
    thaw_free(bytes);
    return status;
}

thaw_status thaw_app_builtin(thaw_builtin_options *out, const thaw_arguments *given, const char *model) {
    const char *shape = thaw_arguments_value(given, "input-shape", NULL);
    *out = (thaw_builtin_options){.include_top = !thaw_arguments_has(given, "no-top"), .pooling = "none"};
    if ((shape || !out->include_top) && !thaw_builtin_known(model))
        return thaw_fail(THAW_USAGE, "%s: --%s is for built-in networks (%s), and %s is none", given->command->name,
                         shape ? "input-shape" : "no-top", thaw_builtin_names(), model);
    if (!shape)
        return THAW_OK;
    int64_t *numbers = NULL;
    int n = 0;
    THAW_TRY(thaw_numbers_parse(&numbers, &n, shape, 1, 1 << 20, "--input-shape"));
    const bool right = n == 3;
    for (int i = 0; right && i < 3; i++)
        out->input_shape[i] = numbers[i];
    thaw_free(numbers);
    return right ? THAW_OK : thaw_fail(THAW_USAGE, "--input-shape: expected H,W,C such as 224,224,3, found '%s'", shape);
}

thaw_status thaw_app_model(thaw_model **out, thaw_app *app, const thaw_arguments *given, const char *name) {
    thaw_builtin_options options;
    *out = NULL;
    THAW_TRY(thaw_app_builtin(&options, given, name));
    const char *weights = thaw_arguments_value(given, "weights", NULL);
    if (weights && strcmp(weights, "imagenet") == 0 && !thaw_builtin_known(name))
        return thaw_fail(THAW_USAGE, "%s: --weights imagenet is for built-in networks (%s), and %s is none; leave it out for "
                                     "the file's own weights", given->command->name, thaw_builtin_names(), name);
    return thaw_named_model(out, app->comm, name, &options, weights ? weights : "imagenet");
}

thaw_status thaw_app_convolution(const thaw_arguments *given) {
    const char *name = thaw_arguments_value(given, "conv", NULL);
    if (!name)
        return THAW_OK;
    if (!thaw_kernels_choose_convolution(name))
        return thaw_fail(THAW_USAGE, "%s: --conv: expected auto, direct, winograd or blas, found '%s'", given->command->name,
                         name);
    if (thaw_kernels_get() == thaw_kernels_reference())
        return thaw_fail(THAW_USAGE, "%s: --conv %s chooses among the fast kernels, and THAW_KERNELS=reference is in the "
                                     "environment; leave one of them out", given->command->name, name);
    return THAW_OK;
}

thaw_status thaw_app_freeze(bool **trainable, const thaw_arguments *given, const thaw_model *model, const char *otherwise) {
    thaw_freeze_spec spec = {0};
    const char **texts = NULL;
    int n = 0;
    thaw_status status = THAW_OK;
    *trainable = thaw_calloc((size_t)model->n_layers, sizeof **trainable);
    if (!*trainable) {
        status = thaw_fail(THAW_RESOURCE, "not enough memory for the flags of %d layers", model->n_layers);
        goto out;
    }
    THAW_GOTO(thaw_arguments_values(&texts, &n, given, "freeze"));
    for (int i = 0; i < n; i++)
        THAW_GOTO(thaw_freeze_spec_add(&spec, texts[i], 0, "--freeze"));
    if (n == 0 && otherwise)
        THAW_GOTO(thaw_freeze_spec_add(&spec, otherwise, 0, "--freeze"));
    if (spec.n > 0)
        THAW_GOTO(thaw_freeze_resolve(*trainable, model, &spec, NULL, NULL, "--freeze"));
    for (int i = 0; spec.n == 0 && i < model->n_layers; i++)
        (*trainable)[i] = model->layers[i].trainable;
out:
    thaw_free((void *)texts);
    thaw_freeze_spec_free(&spec);
    if (status != THAW_OK) {
        thaw_free(*trainable);
        *trainable = NULL;
    }
    return status;
}
