/* The table of built-in networks, and the checks of keras.applications' arguments. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "models/builder.h"

typedef struct network {
    const char *name, *alias, *keras_name;
    int64_t default_size, min_size; /* of height and width */
    const char *preprocess;
    int (*build)(thaw_builder *b, const thaw_network_options *options, const int *blocks);
    int blocks[5];
} network;

static const network networks[] = {
    {"vgg16", NULL, "vgg16", 224, 32, "caffe", thaw_vgg_build, {2, 2, 3, 3, 3}},
    {"vgg19", NULL, "vgg19", 224, 32, "caffe", thaw_vgg_build, {2, 2, 4, 4, 4}},
    {"resnet50", NULL, "resnet50", 224, 32, "caffe", thaw_resnet_build, {3, 4, 6, 3}},
    {"inceptionv3", "inception_v3", "inception_v3", 299, 75, "tf", thaw_inception_build, {0}},
};
#define N_NETWORKS (sizeof networks / sizeof *networks)

static const network *find(const char *name) {
    for (size_t i = 0; name && i < N_NETWORKS; i++)
        if (strcmp(networks[i].name, name) == 0 || (networks[i].alias && strcmp(networks[i].alias, name) == 0))
            return &networks[i];
    return NULL;
}

bool thaw_builtin_known(const char *name) { return find(name) != NULL; }

const char *thaw_builtin_preprocess(const char *name) {
    const network *known = find(name);
    return known ? known->preprocess : NULL;
}

const char *thaw_builtin_names(void) { return "vgg16 vgg19 resnet50 inceptionv3"; }

static thaw_status check_options(thaw_network_options *out, const network *net, const thaw_builtin_options *options) {
    const char *pooling = options->pooling ? options->pooling : "none";
    const int64_t defaults[3] = {net->default_size, net->default_size, 3};
    *out = (thaw_network_options){.top = options->include_top, .pooling = THAW_LAYER_INPUT};
    if (strcmp(pooling, "avg") == 0)
        out->pooling = THAW_LAYER_GLOBAL_AVERAGE_POOLING;
    else if (strcmp(pooling, "max") == 0)
        out->pooling = THAW_LAYER_GLOBAL_MAX_POOLING;
    else if (strcmp(pooling, "none") != 0)
        return thaw_fail(THAW_USAGE, "%s: pooling '%s' is unknown; choose none, avg or max", net->name, pooling);
    for (int i = 0; i < 3; i++)
        out->input[i] = options->input_shape[i] ? options->input_shape[i] : defaults[i];
    if (out->input[0] < net->min_size || out->input[1] < net->min_size || out->input[2] < 1)
        return thaw_fail(THAW_USAGE, "%s: input_shape (%" PRId64 ", %" PRId64 ", %" PRId64 ") is below the minimum (%" PRId64
                                     ", %" PRId64 ", 1); give larger images", net->name, out->input[0], out->input[1],
                         out->input[2], net->min_size, net->min_size);
    return THAW_OK;
}

thaw_status thaw_builtin_build(thaw_model **out, const char *name, const thaw_builtin_options *options) {
    const network *net = find(name);
    thaw_network_options checked;
    *out = NULL;
    if (!net)
        return thaw_fail(THAW_USAGE, "'%s' is no built-in network; choose one of %s", name, thaw_builtin_names());
    THAW_TRY(check_options(&checked, net, options));
    thaw_builder builder = {.status = THAW_OK};
    THAW_TRY(thaw_model_create(&builder.model, net->keras_name));
    int output = net->build(&builder, &checked, net->blocks);
    thaw_model *model = builder.model;
    thaw_status status = builder.status;
    if (status == THAW_OK)
        status = thaw_model_finish(model, output, true);
    if (status == THAW_OK) {
        model->family = thaw_strdup(net->name);
        model->origin = thaw_strdup(net->name);
        model->notes.preprocess = thaw_strdup(net->preprocess);
        if (!model->family || !model->origin || !model->notes.preprocess)
            status = thaw_fail(THAW_RESOURCE, "no memory to build %s", net->name);
    } else if (status == THAW_DATA) { /* the networks are sound: what does not fit is the input shape of the user */
        char message[512];
        snprintf(message, sizeof message, "%s", thaw_message());
        status = thaw_fail(THAW_USAGE, "%s: input_shape (%" PRId64 ", %" PRId64 ", %" PRId64 "): %s", net->name,
                           checked.input[0], checked.input[1], checked.input[2], message);
    }
    if (status != THAW_OK) {
        thaw_model_free(model);
        return status;
    }
    *out = model;
    return THAW_OK;
}
