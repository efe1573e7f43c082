/* Loading of weights by position and name, order inside nested models, built-in networks. */
#include <hdf5.h>

#include "formats_case.h"

static thaw_model *zeroed(const char *fixture) {
    char path[512];
    thaw_model *model;
    snprintf(path, sizeof path, FIXTURES "%s.h5", fixture);
    assert_ok(thaw_keras_read(&model, path, false));
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++)
            assert_null(model->layers[i].tensors[t].data);
    assert_ok(thaw_model_allocate(model));
    return model;
}

static void test_structure_alone(void **state) {
    (void)state;
    thaw_model *model = zeroed("k3_nested_sequential");
    assert_false(model->layers[1].tensors[0].loaded);
    assert_ok(thaw_keras_load_weights(model, FIXTURES "k3_nested_sequential.h5", false));
    assert_fixture_weights(model);
    thaw_model_free(model);
}

/* Keras 1's names and no versions, half floats, lists in chunks: by position. */
static void test_weights_files(void **state) {
    (void)state;
    static const char *const files[] = {"k1_weights", "k2_weights_chunked", "k2_sequential"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        thaw_model *model = zeroed("k2_sequential");
        snprintf(path, sizeof path, FIXTURES "%s.h5", files[i]);
        assert_ok(thaw_keras_load_weights(model, path, false));
        assert_fixture_weights(model);
        thaw_model_free(model);
    }
}

static void test_base_only(void **state) {
    (void)state;
    thaw_model *model = zeroed("k2_sequential");
    int node = model->output;
    thaw_layer head;
    thaw_layer_default(&head, THAW_LAYER_DENSE, "top");
    head.config.filters = 3;
    head.head = true;
    assert_ok(thaw_model_add(model, &head, &node, 1, &node));
    assert_ok(thaw_model_finish(model, node, true));
    assert_ok(thaw_model_allocate(model));
    assert_int_equal(thaw_keras_load_weights(model, FIXTURES "k1_weights.h5", false), THAW_DATA);
    assert_non_null(strstr(thaw_message(), "the file has 2 layers with weights, the model needs 3"));
    assert_ok(thaw_keras_load_weights(model, FIXTURES "k1_weights.h5", true));
    assert_true(model->layers[1].tensors[0].loaded);
    assert_false(model->layers[model->n_layers - 1].tensors[0].loaded);
    thaw_model_free(model);
}

/* weight_names of a group in the file. */
static int names_of(char names[][80], const char *path, const char *group) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), object = H5Gopen2(file, group, H5P_DEFAULT);
    hid_t attribute = H5Aopen(object, "weight_names", H5P_DEFAULT), type = H5Aget_type(attribute),
          space = H5Aget_space(attribute);
    int n = (int)H5Sget_simple_extent_npoints(space);
    size_t width = H5Tget_size(type);
    char *raw = calloc((size_t)n + 1, width);
    assert_true(H5Aread(attribute, type, raw) >= 0);
    for (int i = 0; i < n; i++)
        snprintf(names[i], 80, "%.*s", (int)width, raw + (size_t)i * width);
    free(raw);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    H5Gclose(object);
    H5Fclose(file);
    return n;
}

/* What is trained first, then the rest, as the flags that are written say (Keras loads by position). */
static void test_order_in_nested_model(void **state) {
    (void)state;
    static const char *const orders[3][12] = {
        {"block1_conv/kernel:0", "block1_conv/bias:0", "block1_bn/gamma:0", "block1_bn/beta:0", "block2_conv/kernel:0",
         "block2_conv/bias:0", "block2_bn/gamma:0", "block2_bn/beta:0", "block1_bn/moving_mean:0",
         "block1_bn/moving_variance:0", "block2_bn/moving_mean:0", "block2_bn/moving_variance:0"},
        {"block1_conv/kernel:0", "block1_conv/bias:0", "block1_bn/gamma:0", "block1_bn/beta:0", "block1_bn/moving_mean:0",
         "block1_bn/moving_variance:0", "block2_conv/kernel:0", "block2_conv/bias:0", "block2_bn/gamma:0",
         "block2_bn/beta:0", "block2_bn/moving_mean:0", "block2_bn/moving_variance:0"},
        {"block2_conv/kernel:0", "block2_conv/bias:0", "block2_bn/gamma:0", "block2_bn/beta:0", "block1_conv/kernel:0",
         "block1_conv/bias:0", "block1_bn/gamma:0", "block1_bn/beta:0", "block1_bn/moving_mean:0",
         "block1_bn/moving_variance:0", "block2_bn/moving_mean:0", "block2_bn/moving_variance:0"}};
    for (int kind = 0; kind < 3; kind++) { /* all trained, all frozen, block1 frozen */
        thaw_model *model = read_fixture("tk_nested_sequential");
        bool trainable[16];
        void *bytes;
        size_t size;
        char names[16][80];
        for (int i = 0; i < model->n_layers; i++)
            trainable[i] = kind == 0 || (kind == 2 && !strstr(model->layers[i].name, "block1"));
        assert_ok(thaw_keras_write_image(&bytes, &size, model, trainable));
        assert_ok(thaw_io_write_atomic(scratch("order.h5"), bytes, size));
        thaw_free(bytes);
        assert_int_equal(names_of(names, scratch("order.h5"), "model_weights/tiny"), 12);
        for (int i = 0; i < 12; i++)
            assert_string_equal(names[i], orders[kind][i]);
        thaw_model *again;
        assert_ok(thaw_keras_read(&again, scratch("order.h5"), true));
        assert_same_model(model, again);
        for (int i = 0; i < model->n_layers; i++)
            if (model->layers[i].kind != THAW_LAYER_INPUT)
                assert_int_equal(again->layers[i].trainable, trainable[i]);
        unlink(scratch("order.h5"));
        thaw_model_free(model);
        thaw_model_free(again);
    }
}

/* A weights-only file whose names say nothing, in the order of other flags than the model's: by position, with the flags
 * of the model; with names that agree: by name. */
static void test_names_before_position(void **state) {
    (void)state;
    thaw_model *model = zeroed("tk_nested_sequential"); /* block1 frozen; the file below is of an all-trained one */
    bool all[16];
    void *bytes;
    size_t size;
    thaw_model *source = read_fixture("tk_nested_sequential");
    for (int i = 0; i < 16; i++)
        all[i] = true;
    assert_ok(thaw_keras_write_image(&bytes, &size, source, all));
    assert_ok(thaw_io_write_atomic(scratch("named.h5"), bytes, size));
    thaw_free(bytes);
    assert_ok(thaw_keras_load_weights(model, scratch("named.h5"), false));
    assert_fixture_weights(model);
    unlink(scratch("named.h5"));
    thaw_model_free(source);
    thaw_model_free(model);
}

static void put_names(hid_t object, const char *attribute, const char *flat, int n, size_t width) {
    hsize_t dim = (hsize_t)n;
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &dim, NULL);
    H5Tset_size(type, width);
    hid_t made = H5Acreate2(object, attribute, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(made, type, flat) >= 0);
    H5Aclose(made);
    H5Sclose(space);
    H5Tclose(type);
}

/* Keras 1's names, in an order that is not the natural one: "running_std" is the variance. */
static void test_old_names(void **state) {
    (void)state;
    static const char names[4][20] = {"bn_running_std_1:0", "bn_beta_1:0", "bn_gamma_1:0", "bn_running_mean_1:0"};
    static const char *const expected[4] = {"moving_variance", "beta", "gamma", "moving_mean"};
    hid_t file = H5Fcreate(scratch("old_names.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t group = H5Gcreate2(file, "bn", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    put_names(file, "layer_names", "bn", 1, 2);
    put_names(group, "weight_names", names[0], 4, 20);
    for (int i = 0; i < 4; i++) {
        hsize_t dim = 2;
        float values[2] = {(float)i, 0.5f};
        hid_t space = H5Screate_simple(1, &dim, NULL);
        hid_t set = H5Dcreate2(group, names[i], H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
        H5Dclose(set);
        H5Sclose(space);
    }
    H5Gclose(group);
    H5Fclose(file);
    thaw_model *model;
    thaw_layer layer;
    int node;
    assert_ok(thaw_model_create(&model, "m"));
    thaw_layer_default(&layer, THAW_LAYER_INPUT, "i");
    layer.config.target[0] = 2;
    layer.config.target_rank = 1;
    assert_ok(thaw_model_add(model, &layer, NULL, 0, &node));
    thaw_layer_default(&layer, THAW_LAYER_BATCH_NORMALIZATION, "norm");
    assert_ok(thaw_model_add(model, &layer, &node, 1, &node));
    assert_ok(thaw_model_finish(model, node, true));
    assert_ok(thaw_model_allocate(model));
    assert_ok(thaw_keras_load_weights(model, scratch("old_names.h5"), false));
    for (int i = 0; i < 4; i++)
        assert_true(thaw_layer_tensor(&model->layers[1], expected[i])->data[0] == (float)i);
    unlink(scratch("old_names.h5"));
    thaw_model_free(model);
}

/* Built-in network, written and loaded as the official file is used: counts tell top from no top. */
static void test_builtin(void **state) {
    (void)state;
    thaw_model *small, *top, *again;
    thaw_builtin_options options = {.include_top = false, .input_shape = {32, 32, 3}, .pooling = "avg"};
    void *bytes;
    size_t size;
    assert_ok(thaw_builtin_build(&small, "resnet50", &options));
    assert_ok(thaw_model_allocate(small));
    thaw_model_initialize(small, 7);
    assert_ok(thaw_keras_write_image(&bytes, &size, small, NULL));
    assert_ok(thaw_io_write_atomic(scratch("resnet.h5"), bytes, size));
    thaw_free(bytes);
    assert_ok(thaw_builtin_build(&again, "resnet50", &options));
    assert_ok(thaw_model_allocate(again));
    assert_ok(thaw_keras_load_weights(again, scratch("resnet.h5"), true));
    for (int i = 0; i < small->n_layers; i++)
        for (int t = 0; t < small->layers[i].n_tensors; t++)
            assert_memory_equal(small->layers[i].tensors[t].data, again->layers[i].tensors[t].data,
                                small->layers[i].tensors[t].count * sizeof(float));
    thaw_model_free(again);
    assert_ok(thaw_keras_read(&again, scratch("resnet.h5"), true));
    assert_string_equal(again->family, "resnet50");
    assert_same_layers(small, again);
    thaw_model_free(again);
    options = (thaw_builtin_options){.include_top = true, .pooling = "none"};
    assert_ok(thaw_builtin_build(&top, "resnet50", &options));
    assert_int_equal(thaw_keras_load_weights(top, scratch("resnet.h5"), true), THAW_DATA);
    assert_non_null(strstr(thaw_message(), "the file has 106 layers with weights, the model needs 107"));
    unlink(scratch("resnet.h5"));
    thaw_model_free(top);
    thaw_model_free(small);
}

/* The ResNet50 of before 2019 has the same file name and number of layers. */
static void test_old_resnet(void **state) {
    (void)state;
    thaw_model *old, *model;
    thaw_layer layer;
    int node;
    void *bytes;
    size_t size;
    assert_ok(thaw_model_create(&old, "resnet50"));
    thaw_layer_default(&layer, THAW_LAYER_INPUT, "input_1");
    layer.config.target[0] = layer.config.target[1] = 4;
    layer.config.target[2] = 3;
    layer.config.target_rank = 3;
    assert_ok(thaw_model_add(old, &layer, NULL, 0, &node));
    thaw_layer_default(&layer, THAW_LAYER_BATCH_NORMALIZATION, "bn_conv1");
    assert_ok(thaw_model_add(old, &layer, &node, 1, &node));
    assert_ok(thaw_model_finish(old, node, true));
    assert_ok(thaw_model_allocate(old));
    assert_ok(thaw_keras_write_image(&bytes, &size, old, NULL));
    assert_ok(thaw_io_write_atomic(scratch("old.h5"), bytes, size));
    thaw_free(bytes);
    thaw_builtin_options options = {.include_top = false, .input_shape = {32, 32, 3}, .pooling = "none"};
    assert_ok(thaw_builtin_build(&model, "resnet50", &options));
    assert_int_equal(thaw_keras_load_weights(model, scratch("old.h5"), true), THAW_DATA);
    assert_non_null(strstr(thaw_message(), "before 2019"));
    unlink(scratch("old.h5"));
    thaw_model_free(old);
    thaw_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structure_alone),       cmocka_unit_test(test_weights_files),
        cmocka_unit_test(test_base_only),             cmocka_unit_test(test_order_in_nested_model),
        cmocka_unit_test(test_names_before_position), cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_old_resnet),            cmocka_unit_test(test_old_names),
    };
    return cmocka_run_group_tests_name("formats/keras_weights", tests, NULL, NULL);
}
