/* Built-in networks: every layer in order against lists written by Keras (make_layer_lists.py), arguments, order vectors. */
#include "../graph/graph_case.h"

#include <glob.h>

static thaw_model *build(const char *name, bool top, int64_t h, int64_t w, int64_t c, const char *pooling) {
    thaw_model *model;
    thaw_builtin_options options = {.include_top = top, .input_shape = {h, w, c}, .pooling = pooling};
    OK(thaw_builtin_build(&model, name, &options));
    check_sound(model);
    return model;
}

/* Output shape of a layer as "112x112x64". */
static const char *shape_of(const thaw_model *model, int layer) {
    static char text[80];
    size_t at = 0;
    for (int i = 0; i < model->n_nodes; i++)
        if (model->nodes[i].layer == layer)
            for (int k = 0; k < model->nodes[i].shape.rank; k++)
                at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld", k ? "x" : "",
                                       (long long)model->nodes[i].shape.dim[k]);
    return text;
}

static int compare(const char *path) {
    char name[64], network[64], pooling[16], class[64], shape[64];
    long long h, w, c, params, trainable, total, trained;
    int top, n = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%63s %63s %d %lldx%lldx%lld %15s %lld %lld", name, network, &top, &h, &w, &c, pooling,
                            &params, &trainable), 9);
    thaw_model *model = build(network, top, h, w, c, pooling);
    assert_string_equal(model->name, name);
    int64_t total64, trained64;
    thaw_model_count(model, NULL, &total64, &trained64, NULL);
    total = total64, trained = trained64;
    if (total != params || trained != trainable)
        fail_msg("%s: %lld parameters, %lld trainable", path, total, trained);
    while (fscanf(file, "%63s %63s %63s %lld", name, class, shape, &params) == 4) {
        assert_in_range(n, 0, model->n_layers - 1);
        const thaw_layer *layer = &model->layers[n];
        long long count = 0;
        for (int t = 0; t < layer->n_tensors; t++)
            count += (long long)layer->tensors[t].count;
        if (strcmp(layer->name, name) != 0 || strcmp(thaw_layer_class(layer->kind), class) != 0 ||
            strcmp(shape_of(model, n), shape) != 0 || count != params)
            fail_msg("%s: layer %d is %s %s %s %lld, in Keras %s %s %s %lld", path, n, layer->name,
                     thaw_layer_class(layer->kind), shape_of(model, n), count, name, class, shape, params);
        assert_int_equal(layer->list_index, n);
        n++;
    }
    assert_int_equal(n, model->n_layers);
    fclose(file);
    thaw_model_free(model);
    return n;
}

static void test_layer_lists(void **state) {
    (void)state;
    glob_t found;
    assert_int_equal(glob(THAW_SOURCE_DIR "/tests/unit/models/fixtures/*.txt", 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 14);
    for (size_t i = 0; i < found.gl_pathc; i++)
        assert_true(compare(found.gl_pathv[i]) > 15);
    globfree(&found);
}

/* Counts that Keras documents, and what the model says about itself. */
static void test_figures(void **state) {
    (void)state;
    static const struct {
        const char *name, *keras_name, *family, *preprocess;
        bool top;
        long long total;
        int layers, tensors;
    } cases[] = {{"vgg16", "vgg16", "vgg16", "caffe", true, 138357544, 23, 32},
                 {"vgg16", "vgg16", "vgg16", "caffe", false, 14714688, 19, 26},
                 {"vgg19", "vgg19", "vgg19", "caffe", true, 143667240, 26, 38},
                 {"vgg19", "vgg19", "vgg19", "caffe", false, 20024384, 22, 32},
                 {"resnet50", "resnet50", "resnet50", "caffe", true, 25636712, 177, 320},
                 {"resnet50", "resnet50", "resnet50", "caffe", false, 23587712, 175, 318},
                 {"inceptionv3", "inception_v3", "inceptionv3", "tf", true, 23851784, 313, 378},
                 {"inception_v3", "inception_v3", "inceptionv3", "tf", false, 21802784, 311, 376}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_model *model = build(cases[i].name, cases[i].top, 0, 0, 0, NULL);
        int64_t total;
        int tensors = 0;
        thaw_model_count(model, NULL, &total, NULL, NULL);
        for (int k = 0; k < model->n_layers; k++)
            tensors += model->layers[k].n_tensors;
        assert_true(total == cases[i].total);
        assert_int_equal(model->n_layers, cases[i].layers);
        assert_int_equal(model->n_base_layers, cases[i].layers);
        assert_int_equal(tensors, cases[i].tensors);
        assert_string_equal(model->name, cases[i].keras_name);
        assert_string_equal(model->family, cases[i].family);
        assert_string_equal(model->notes.preprocess, cases[i].preprocess);
        assert_string_equal(thaw_builtin_preprocess(cases[i].name), cases[i].preprocess);
        assert_false(model->changed);
        assert_false(model->sequential);
        assert_null(model->layers[1].tensors[0].data);
        thaw_model_free(model);
    }
}

/* Order of InceptionV3's convolutions by number of creation, as its official weight file has them. */
static void test_inception_order(void **state) {
    (void)state;
    static const int wanted[] = {0,  1,  2,  3,  4,  8,  6,  9,  5,  7,  10, 11, 15, 13, 16, 12, 14, 17, 18, 22, 20, 23, 19, 21,
                                 24, 25, 27, 28, 26, 29, 34, 35, 31, 36, 32, 37, 30, 33, 38, 39, 44, 45, 41, 46, 42, 47, 40, 43,
                                 48, 49, 54, 55, 51, 56, 52, 57, 50, 53, 58, 59, 64, 65, 61, 66, 62, 67, 60, 63, 68, 69, 72, 73,
                                 70, 74, 71, 75, 80, 77, 81, 78, 79, 82, 83, 76, 84, 89, 86, 90, 87, 88, 91, 92, 85, 93};
    thaw_model *model = build("inceptionv3", true, 0, 0, 0, NULL);
    size_t n = 0;
    for (int i = 0; i < model->n_layers; i++) {
        if (model->layers[i].kind != THAW_LAYER_CONV2D)
            continue;
        const char *number = strrchr(model->layers[i].name, '_');
        assert_true(n < sizeof wanted / sizeof *wanted);
        assert_int_equal(number ? atoi(number + 1) : 0, wanted[n++]);
    }
    assert_int_equal(n, sizeof wanted / sizeof *wanted);
    thaw_model_free(model);
}

/* Arguments that decide numbers and that no shape shows. */
static void test_arguments(void **state) {
    (void)state;
    thaw_model *model = build("resnet50", true, 0, 0, 0, NULL);
    const thaw_layer *layer = &model->layers[thaw_model_find(model, "conv3_block1_1_conv")];
    assert_int_equal(layer->config.strides[0], 2);
    assert_int_equal(model->layers[thaw_model_find(model, "conv3_block1_2_conv")].config.strides[0], 1);
    assert_true(layer->config.use_bias);
    layer = &model->layers[thaw_model_find(model, "conv3_block1_1_bn")];
    assert_float_equal(layer->config.epsilon, 1.001e-5f, 1e-12f);
    assert_float_equal(layer->config.momentum, 0.99f, 0.0f);
    layer = &model->layers[thaw_model_find(model, "predictions")];
    assert_int_equal(layer->config.activation, THAW_ACTIVATION_SOFTMAX);
    for (int i = 0; i < model->n_nodes; i++) /* Add([shortcut, x]) */
        if (strcmp(model->layers[model->nodes[i].layer].name, "conv2_block1_add") == 0) {
            const thaw_node *node = &model->nodes[i];
            assert_string_equal(model->layers[model->nodes[node->inputs[0]].layer].name, "conv2_block1_0_bn");
            assert_string_equal(model->layers[model->nodes[node->inputs[1]].layer].name, "conv2_block1_3_bn");
        }
    thaw_model_free(model);

    model = build("inceptionv3", false, 0, 0, 0, "none");
    layer = &model->layers[thaw_model_find(model, "batch_normalization_93")];
    assert_false(layer->config.scale);
    assert_float_equal(layer->config.epsilon, 1e-3f, 0.0f);
    assert_string_equal(layer->tensors[0].name, "beta");
    layer = &model->layers[thaw_model_find(model, "conv2d_31")]; /* (rows, columns): mixed4's 1x7 */
    assert_false(layer->config.use_bias);
    layer = &model->layers[thaw_model_find(model, "conv2d_32")];
    assert_int_equal(layer->config.kernel[0], 1);
    assert_int_equal(layer->config.kernel[1], 7);
    assert_string_equal(model->layers[model->n_layers - 1].name, "mixed10");
    thaw_model_free(model);

    model = build("vgg16", true, 0, 0, 0, NULL);
    assert_int_equal(model->layers[1].config.activation, THAW_ACTIVATION_RELU);
    assert_string_equal(model->layers[0].name, "input_layer");
    thaw_model_free(model);
}

static void test_usage(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool top;
        int64_t shape[3];
        const char *pooling, *parts;
    } cases[] = {{"vgg16", false, {31, 32, 3}, "none", "vgg16|(31, 32, 3)|minimum (32, 32, 1)"},
                 {"vgg16", true, {32, 31, 3}, NULL, "minimum (32, 32, 1)"},
                 {"resnet50", false, {8, 8, 3}, "avg", "resnet50|minimum (32, 32, 1)"},
                 {"inceptionv3", false, {74, 299, 3}, "none", "inceptionv3|minimum (75, 75, 1)"},
                 {"inception_v3", false, {-5, 0, 0}, "none", "minimum (75, 75, 1)"},
                 {"vgg16", false, {224, 224, -1}, "none", "(224, 224, -1)"},
                 {"vgg16", false, {224, 224, 3}, "average", "pooling|average|none, avg or max"},
                 {"vgg16", false, {100000, 100000, 3}, "none", "vgg16|(100000, 100000, 3)"},
                 {"resnet50", false, {INT64_MAX, INT64_MAX, INT64_MAX}, "none", "resnet50|input_shape"},
                 {"vgg19", true, {40000, 1000, 1}, "none", "vgg19|block1_conv1"},
                 {"vgg17", false, {0, 0, 0}, NULL, "vgg17|vgg16 vgg19 resnet50 inceptionv3"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_model *model;
        thaw_builtin_options options = {.include_top = cases[i].top, .pooling = cases[i].pooling};
        memcpy(options.input_shape, cases[i].shape, sizeof options.input_shape);
        expect(thaw_builtin_build(&model, cases[i].name, &options), THAW_USAGE, cases[i].parts);
        assert_null(model);
    }
    assert_true(thaw_builtin_known("resnet50"));
    assert_true(thaw_builtin_known("inception_v3"));
    assert_false(thaw_builtin_known("resnet"));
    assert_null(thaw_builtin_preprocess("model.h5"));
}

/* Every request for memory may fail: an error, nothing lost. */
static void test_no_memory(void **state) {
    (void)state;
    size_t before = thaw_memory_live();
    bool done = false;
    for (int64_t n = 1; !done; n += n < 40 ? 1 : 17) {
        thaw_model *model;
        thaw_builtin_options options = {.include_top = true};
        thaw_memory_fail_after(n);
        thaw_status status = thaw_builtin_build(&model, "resnet50", &options);
        done = status == THAW_OK;
        if (!done)
            assert_int_equal(status, THAW_RESOURCE);
        thaw_memory_fail_after(-1);
        thaw_model_free(model);
        assert_true(thaw_memory_live() == before);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_lists),     cmocka_unit_test(test_figures), cmocka_unit_test(test_inception_order),
        cmocka_unit_test(test_arguments),       cmocka_unit_test(test_usage),   cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
