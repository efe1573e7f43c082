/* Legacy HDF5 files of Keras, whole: the functions of thaw/model.h. */
#include <string.h>

#include "base/memory.h"
#include "formats/hdf5_read.h"
#include "formats/hdf5_write.h"
#include "formats/keras_config_write.h"
#include "formats/keras_tree.h"
#include "formats/keras_weights.h"

#define HOW_TO_SAVE "save the whole model from Keras as legacy HDF5: model.save('model.h5')"

/* What an HDF5 file without the wanted parts is. */
static thaw_status other_kind(const thaw_h5 *h5) {
    if (thaw_h5_has_link(h5->file, "layers") || thaw_h5_has_link(h5->file, "_layer_checkpoint_dependencies") ||
        thaw_h5_has_link(h5->file, "vars"))
        return thaw_fail(THAW_DATA, "%s is in Keras 3's .weights.h5 format, which this version does not read; " HOW_TO_SAVE,
                         h5->path);
    return thaw_fail(THAW_DATA, "%s is an HDF5 file, but not a Keras model: it has neither model_config nor layer_names; "
                     HOW_TO_SAVE, h5->path);
}

static thaw_status replace_text(char **field, const char *text) {
    char *copy = text ? thaw_strdup(text) : NULL;
    if (text && !copy)
        return thaw_fail(THAW_RESOURCE, "no memory to read a model");
    thaw_free(*field);
    *field = copy;
    return THAW_OK;
}

static thaw_status read_notes(thaw_model *model, const thaw_h5 *h5) {
    static const char *const known[] = {"caffe", "tf", "torch", "rescale", "none"};
    thaw_model_notes *notes = &model->notes;
    THAW_TRY(thaw_h5_text(&notes->preprocess, h5, h5->file, "thaw_preprocess"));
    THAW_TRY(thaw_h5_text(&notes->loss, h5, h5->file, "thaw_loss"));
    THAW_TRY(thaw_h5_text(&notes->metrics, h5, h5->file, "thaw_metrics"));
    THAW_TRY(thaw_h5_texts(&notes->class_names, &notes->n_classes, h5, h5->file, "thaw_class_names"));
    if (notes->n_classes <= 0) {
        thaw_h5_free_texts(notes->class_names, 0);
        notes->class_names = NULL;
        notes->n_classes = 0;
    }
    bool fits = !notes->preprocess;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        fits = fits || strcmp(notes->preprocess, known[i]) == 0;
    return fits ? THAW_OK
                : thaw_fail(THAW_DATA, "%s: attribute thaw_preprocess is '%.40s'; caffe, tf, torch, rescale or none was expected",
                            h5->path, notes->preprocess);
}

/* Built-in networks are recognised by name and layers together. */
static thaw_status recognise(thaw_model *model) {
    static const struct {
        const char *family, *name, *layer; /* `layer`: near the end of the base */
        int convs;
    } networks[] = {{"vgg16", "vgg16", "block5_conv3", 13},
                    {"vgg19", "vgg19", "block5_conv4", 16},
                    {"resnet50", "resnet50", "conv5_block3_3_conv", 53},
                    {"inceptionv3", "inception_v3", "mixed10", 94}};
    int convs = 0;
    for (int i = 0; i < model->n_layers; i++)
        convs += model->layers[i].kind == THAW_LAYER_CONV2D;
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        if (!model->nested && convs == networks[i].convs && strcmp(model->name, networks[i].name) == 0 &&
            thaw_model_find(model, networks[i].layer) >= 0)
            return replace_text(&model->family, networks[i].family);
    return THAW_OK;
}

static thaw_status read_model(thaw_model *model, const thaw_h5 *h5, bool weights) {
    thaw_keras_tree tree;
    hid_t group;
    THAW_TRY(replace_text(&model->origin, h5->path));
    THAW_TRY(thaw_h5_text(&model->source_config, h5, h5->file, "model_config"));
    THAW_TRY(thaw_h5_text(&model->keras_version, h5, h5->file, "keras_version"));
    THAW_TRY(thaw_keras_tree_parse(&tree, model->source_config, h5->path));
    thaw_status status = replace_text(&model->name, tree.top->name);
    if (status == THAW_OK)
        status = thaw_keras_tree_to_model(model, &tree, h5->path);
    thaw_keras_tree_free(&tree);
    if (status != THAW_OK)
        return status;
    THAW_TRY(recognise(model));
    THAW_TRY(read_notes(model, h5));
    if (!weights)
        return THAW_OK;
    if (!thaw_h5_has_link(h5->file, "model_weights"))
        return thaw_fail(THAW_DATA, "%s: the file has a model_config but no weights (no group model_weights); " HOW_TO_SAVE,
                         h5->path);
    THAW_TRY(thaw_h5_group(&group, h5, h5->file, "model_weights", "model_weights"));
    status = thaw_keras_weights_read(model, h5, group, false, true);
    H5Oclose(group);
    return status;
}

thaw_status thaw_keras_read(thaw_model **out, const char *path, bool weights) {
    thaw_h5 h5;
    thaw_model *model = NULL;
    *out = NULL;
    THAW_TRY(thaw_h5_open(&h5, path));
    thaw_status status;
    if (thaw_h5_has_attribute(h5.file, "model_config")) {
        THAW_GOTO(thaw_model_create(&model, "model"));
        THAW_GOTO(read_model(model, &h5, weights));
    } else if (thaw_h5_has_attribute(h5.file, "layer_names") || thaw_h5_has_attribute(h5.file, "layer_names0") ||
               thaw_h5_has_link(h5.file, "model_weights")) {
        status = thaw_fail(THAW_DATA, "%s holds weights only (no model_config); use it as weights of a network, or "
                           HOW_TO_SAVE, path);
    } else {
        status = other_kind(&h5);
    }
out:
    thaw_h5_close(&h5);
    if (status == THAW_OK)
        *out = model;
    else
        thaw_model_free(model);
    return status;
}

thaw_status thaw_keras_load_weights(thaw_model *model, const char *path, bool base_only) {
    thaw_h5 h5;
    thaw_status status;
    THAW_TRY(thaw_h5_open(&h5, path));
    bool root = thaw_h5_has_attribute(h5.file, "layer_names") || thaw_h5_has_attribute(h5.file, "layer_names0") ||
                thaw_h5_has_attribute(h5.file, "nb_layers");
    if (root) {
        status = thaw_keras_weights_read(model, &h5, h5.file, base_only, false);
    } else if (thaw_h5_has_link(h5.file, "model_weights")) {
        hid_t group;
        status = thaw_h5_group(&group, &h5, h5.file, "model_weights", "model_weights");
        if (status == THAW_OK) {
            status = thaw_keras_weights_read(model, &h5, group, base_only, false);
            H5Oclose(group);
        }
    } else {
        status = other_kind(&h5);
    }
    thaw_h5_close(&h5);
    return status;
}

static thaw_status write_notes(hid_t file, const thaw_model_notes *notes) {
    if (notes->preprocess)
        THAW_TRY(thaw_h5_put_text(file, "thaw_preprocess", notes->preprocess));
    if (notes->class_names && notes->n_classes > 0)
        THAW_TRY(thaw_h5_put_texts(file, "thaw_class_names", (const char *const *)notes->class_names, notes->n_classes));
    if (notes->loss)
        THAW_TRY(thaw_h5_put_text(file, "thaw_loss", notes->loss));
    if (notes->metrics)
        THAW_TRY(thaw_h5_put_text(file, "thaw_metrics", notes->metrics));
    return thaw_h5_put_text(file, "thaw_version", THAW_VERSION);
}

static thaw_status write_file(hid_t file, const thaw_model *model, const thaw_keras_tree *tree, const char *config,
                              const bool *trainable) {
    /* An absent version means Keras 1 to its readers. */
    const char *version = model->keras_version && strcmp(model->keras_version, "1") != 0 && model->keras_version[0]
                              ? model->keras_version
                              : "2.15.0";
    hid_t weights;
    THAW_TRY(thaw_h5_put_fixed(file, "keras_version", version));
    THAW_TRY(thaw_h5_put_fixed(file, "backend", "tensorflow"));
    THAW_TRY(thaw_h5_put_text(file, "model_config", config));
    THAW_TRY(write_notes(file, &model->notes));
    THAW_TRY(thaw_h5_make_group(&weights, file, "model_weights"));
    thaw_status status = thaw_h5_put_fixed(weights, "backend", "tensorflow");
    if (status == THAW_OK)
        status = thaw_h5_put_fixed(weights, "keras_version", version);
    if (status == THAW_OK)
        status = thaw_keras_weights_write(weights, model, tree, trainable);
    H5Gclose(weights);
    return status;
}

thaw_status thaw_keras_write_image(void **bytes, size_t *size, const thaw_model *model, const bool *trainable) {
    thaw_keras_tree tree;
    char *config = NULL;
    hid_t file = -1;
    thaw_h5_image image = {0};
    thaw_status status;
    int64_t total;
    *bytes = NULL;
    *size = 0;
    thaw_model_count(model, NULL, &total, NULL, NULL);
    THAW_TRY(thaw_keras_tree_of_model(&tree, model));
    bool keras3 = tree.keras3 || (model->keras_version && model->keras_version[0] == '3');
    THAW_GOTO(thaw_keras_tree_print(&config, &tree, model, trainable, keras3));
    THAW_GOTO(thaw_h5_create(&file, &image, (size_t)total * sizeof(float) + strlen(config)));
    THAW_GOTO(write_file(file, model, &tree, config, trainable));
    status = thaw_h5_finish(bytes, size, file, &image);
    file = -1;
out:
    thaw_h5_drop(file, &image);
    thaw_free(config);
    thaw_keras_tree_free(&tree);
    return status;
}
