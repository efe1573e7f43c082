/* Reading what Keras wrote, writing it, reading that again: equal networks, weights and flags; equal bytes. */
#include <hdf5.h>

#include "formats_case.h"

static const char *const fixtures[] = {
    "k3_functional", "k3_sequential", "k3_nested_sequential", "k3_nested_functional", "k3_twice",
    "tk_functional", "tk_sequential", "tk_nested_sequential", "tk_nested_functional", "tk_twice",
    "k2_sequential", "k2_model"};
enum { N_FIXTURES = sizeof fixtures / sizeof *fixtures };

static void test_weights_of_fixtures(void **state) {
    (void)state;
    for (int i = 0; i < N_FIXTURES; i++) {
        thaw_model *model = read_fixture(fixtures[i]);
        assert_fixture_weights(model);
        thaw_model_free(model);
    }
}

static void test_rewrite(void **state) {
    (void)state;
    for (int i = 0; i < N_FIXTURES; i++) {
        char name[64];
        void *one, *two;
        size_t one_size, two_size;
        thaw_model *model = read_fixture(fixtures[i]);
        snprintf(name, sizeof name, "%s.written.h5", fixtures[i]);
        thaw_model *again = rewrite(model, NULL, name);
        assert_same_model(model, again);
        for (int k = 0; k < model->n_layers; k++)
            assert_int_equal(model->layers[k].trainable, again->layers[k].trainable);
        for (int k = 0; k < model->n_nodes; k++)
            assert_int_equal(model->nodes[k].inference, again->nodes[k].inference);
        assert_ok(thaw_keras_write_image(&one, &one_size, model, NULL));
        if (i == 0)
            usleep(1100000); /* another second: no times in the file */
        assert_ok(thaw_keras_write_image(&two, &two_size, again, NULL));
        assert_int_equal(one_size, two_size);
        assert_memory_equal(one, two, one_size);
        thaw_free(one);
        thaw_free(two);
        thaw_model_free(model);
        thaw_model_free(again);
    }
}

/* Appends a head of Flatten (on maps) and Dense. */
static void add_head(thaw_model *model, const char *prefix) {
    char name[64];
    thaw_layer layer;
    int node = model->output;
    if (model->nodes[node].shape.rank == 3) {
        snprintf(name, sizeof name, "%s_flatten", prefix);
        thaw_layer_default(&layer, THAW_LAYER_FLATTEN, name);
        layer.head = true;
        assert_ok(thaw_model_add(model, &layer, &node, 1, &node));
    }
    snprintf(name, sizeof name, "%s_dense", prefix);
    thaw_layer_default(&layer, THAW_LAYER_DENSE, name);
    layer.config.filters = 3;
    layer.config.activation = THAW_ACTIVATION_SOFTMAX;
    layer.head = true;
    assert_ok(thaw_model_add(model, &layer, &node, 1, &node));
    assert_ok(thaw_model_finish(model, node, true));
    assert_ok(thaw_model_allocate(model));
    thaw_model_initialize(model, 5);
}

/* Cut behind a layer and given a new head: names and nesting stay, the weights too; twice in a row. */
static void test_cut_and_head(void **state) {
    (void)state;
    static const struct {
        const char *fixture, *cut, *family;
    } cases[] = {{"k3_functional", "cat", ""},      {"tk_functional", "relu_a", ""},
                 {"k3_sequential", "bn", ""},       {"k2_sequential", "flatten_1", ""},
                 {"tk_nested_sequential", "block2_conv", ""}, {"k3_nested_sequential", "tiny/block1_relu", ""},
                 {"k3_nested_sequential", "flat", ""}, {"k3_nested_functional", "block2_bn", ".keras3"},
                 {"tk_nested_functional", "tiny/block2_bn", ".keras2"}, {"tk_nested_functional", "top/flat", ".keras2"},
                 {"k3_twice", "gap", ".keras3"},     {"tk_twice", "cat", ".keras2"}, {"k3_twice", "squash", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        thaw_model *model = read_fixture(cases[i].fixture);
        assert_ok(thaw_model_cut(model, cases[i].cut));
        add_head(model, "head");
        assert_true(model->changed);
        snprintf(name, sizeof name, "cut%zu%s.h5", i, cases[i].family);
        thaw_model *again = rewrite(model, NULL, name);
        assert_false(again->changed);
        bool nested = false; /* the cut may leave no nested model */
        for (int k = 0; k < again->n_layers; k++)
            nested = nested || strchr(again->layers[k].name, '/');
        assert_int_equal(again->nested, nested);
        again->nested = model->nested;
        assert_same_model(model, again);
        again->nested = nested;
        /* The written file is a base like any other. */
        add_head(again, "second");
        snprintf(name, sizeof name, "second%zu%s.h5", i, cases[i].family);
        thaw_model *third = rewrite(again, NULL, name);
        assert_same_model(again, third);
        thaw_model_free(model);
        thaw_model_free(again);
        thaw_model_free(third);
    }
}

#define INPUT "{\"class_name\":\"InputLayer\",\"config\":{\"name\":\"i\",\"batch_input_shape\":[null,4]},\"name\":\"i\"," \
              "\"inbound_nodes\":[]}"
#define ACTIVATION(name, input) "{\"class_name\":\"Activation\",\"config\":{\"name\":\"" name "\",\"activation\":\"tanh\"}," \
                                "\"name\":\"" name "\",\"inbound_nodes\":[[[\"" input "\",0,0,{}]]]}"
#define ENDS(output) "\"input_layers\":[[\"i\",0,0]],\"output_layers\":[[" output ",0]]"

/* A cut inside a model that is called on itself: the nesting cannot stay, since its two calls are now different; the
 * network does. */
static void test_cut_inside_shared_model(void **state) {
    (void)state;
    static const char config[] =
        "{\"class_name\":\"Functional\",\"config\":{\"name\":\"outer\",\"layers\":[" INPUT ","
        "{\"class_name\":\"Functional\",\"config\":{\"name\":\"n\",\"layers\":[" INPUT "," ACTIVATION("a", "i") ","
        ACTIVATION("b", "a") "]," ENDS("\"b\",0") "},\"name\":\"n\",\"inbound_nodes\":[[[\"i\",0,0,{}]],[[\"n\",1,0,{}]]]}],"
        ENDS("\"n\",2") "}}";
    const char *text = config;
    thaw_model *model;
    hid_t file = H5Fcreate(scratch("shared"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    hid_t attribute = H5Acreate2(file, "model_config", type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, &text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(file);
    assert_ok(thaw_keras_read(&model, scratch("shared"), false));
    unlink(scratch("shared"));
    assert_int_equal(model->n_nodes, 5);
    thaw_model *again = rewrite(model, NULL, "shared.keras2.h5");
    assert_same_model(model, again);
    thaw_model_free(again);
    assert_ok(thaw_model_cut(model, "n/a"));
    assert_int_equal(model->n_nodes, 4);
    again = rewrite(model, NULL, "cut_shared.h5");
    assert_false(again->nested);
    assert_int_equal(again->n_nodes, 4);
    assert_string_equal(again->layers[again->nodes[1].layer].name, "a");
    assert_string_equal(again->layers[again->nodes[2].layer].name, "b");
    assert_int_equal(again->nodes[3].layer, again->nodes[1].layer);
    thaw_model_free(model);
    thaw_model_free(again);
}

static void set_text(char **field, const char *text) {
    thaw_free(*field);
    *field = thaw_strdup(text);
}

/* More classes than one HDF5 attribute holds, in UTF-8. */
static void test_notes(void **state) {
    (void)state;
    enum { CLASSES = 5000 };
    thaw_model *model = read_fixture("tk_functional");
    thaw_model_notes *notes = &model->notes;
    assert_null(notes->preprocess);
    assert_null(notes->class_names);
    set_text(&notes->preprocess, "caffe");
    set_text(&notes->loss, "categorical_crossentropy");
    set_text(&notes->metrics, "accuracy,mse");
    notes->class_names = thaw_calloc(CLASSES, sizeof *notes->class_names);
    notes->n_classes = CLASSES;
    for (int i = 0; i < CLASSES; i++)
        notes->class_names[i] = thaw_format("Stra\xc3\x9f" "e %d", i);
    thaw_model *again = rewrite(model, NULL, "notes.h5");
    assert_string_equal(again->notes.preprocess, "caffe");
    assert_string_equal(again->notes.loss, "categorical_crossentropy");
    assert_string_equal(again->notes.metrics, "accuracy,mse");
    assert_int_equal(again->notes.n_classes, CLASSES);
    for (int i = 0; i < CLASSES; i++)
        assert_string_equal(again->notes.class_names[i], notes->class_names[i]);
    thaw_model_free(again);
    set_text(&notes->preprocess, "sepia");
    void *bytes;
    size_t size;
    assert_ok(thaw_keras_write_image(&bytes, &size, model, NULL));
    assert_ok(thaw_io_write_atomic(scratch("sepia"), bytes, size));
    assert_int_equal(thaw_keras_read(&again, scratch("sepia"), true), THAW_DATA);
    assert_non_null(strstr(thaw_message(), "sepia"));
    unlink(scratch("sepia"));
    thaw_free(bytes);
    thaw_model_free(model);
}

/* What the files say about layers that have arguments of their own. */
static void test_arguments(void **state) {
    (void)state;
    static const char *const files[] = {"k3_sequential", "tk_sequential"};
    for (int f = 0; f < 2; f++) {
        thaw_model *model = read_fixture(files[f]);
        const thaw_layer *layers = model->layers;
        assert_true(model->sequential && !model->nested && !layers[0].listed);
        assert_string_equal(model->name, "chain");
        const thaw_layer *rescale = &layers[thaw_model_find(model, "rescale")];
        assert_int_equal(rescale->config.n_rescale, 2);
        assert_true(rescale->config.rescale[1] == 0.25f && rescale->config.offset[0] == -1.0f);
        const thaw_layer *pad = &layers[thaw_model_find(model, "pad")];
        assert_memory_equal(pad->config.pad, ((int64_t[]){1, 0, 2, 1}), 4 * sizeof(int64_t));
        const thaw_layer *conv = &layers[thaw_model_find(model, "conv")];
        assert_true(conv->config.dilation[1] == 2 && conv->config.kernel[0] == 3 && conv->config.kernel[1] == 2);
        assert_true(conv->tensors[0].l1 == 1e-4f && conv->tensors[0].l2 == 1e-3f && conv->tensors[1].l2 == 0.0f);
        assert_int_equal(layers[thaw_model_find(model, "act")].config.activation, THAW_ACTIVATION_SWISH);
        assert_true(layers[thaw_model_find(model, "gmp")].config.keepdims);
        const thaw_layer *bn = &layers[thaw_model_find(model, "bn")];
        assert_true(!bn->config.scale && bn->config.center && bn->config.momentum == 0.9f && bn->n_tensors == 3);
        assert_true(layers[thaw_model_find(model, "drop")].config.rate == 0.5f);
        assert_true(layers[thaw_model_find(model, "drop")].config.seed == -1);
        thaw_model_free(model);
    }
    thaw_model *model = read_fixture("k3_functional");
    const thaw_layer *shared = &model->layers[thaw_model_find(model, "conv_shared")];
    assert_int_equal(shared->tensors[0].initializer, THAW_INIT_HE_NORMAL);
    assert_true(model->layers[thaw_model_find(model, "relu_a")].config.max_value == 6.0f);
    assert_int_equal(model->layers[thaw_model_find(model, "drop")].config.seed, 3);
    assert_false(model->layers[thaw_model_find(model, "bn_a")].trainable);
    assert_true(shared->trainable);
    int calls = 0;
    for (int i = 0; i < model->n_nodes; i++) {
        calls += model->nodes[i].layer == thaw_model_find(model, "conv_shared");
        assert_false(model->nodes[i].inference); /* Keras 3 writes training: false for every Dropout */
    }
    assert_int_equal(calls, 2);
    thaw_model_free(model);
    model = read_fixture("k2_model"); /* Glorot as VarianceScaling, L2 as L1L2 */
    assert_int_equal(model->layers[1].tensors[0].initializer, THAW_INIT_GLOROT_UNIFORM);
    assert_true(model->layers[1].tensors[0].l2 == 0.0005f && model->layers[1].tensors[0].l1 == 0.0f);
    thaw_model_free(model);
}

/* base(x, training=False): all calls inside are inference; other calls are not. */
static void test_inference(void **state) {
    (void)state;
    static const char *const files[] = {"k3_nested_functional", "tk_nested_functional"};
    for (int f = 0; f < 2; f++) {
        thaw_model *model = read_fixture(files[f]);
        assert_true(model->nested && !model->sequential);
        for (int i = 0; i < model->n_nodes; i++) {
            const char *name = model->layers[model->nodes[i].layer].name;
            assert_int_equal(model->nodes[i].inference, strncmp(name, "tiny/", 5) == 0);
        }
        assert_int_equal(model->layers[thaw_model_find(model, "block1_bn")].list_index, 1);
        assert_int_equal(model->layers[thaw_model_find(model, "fc")].list_index, 2);
        assert_int_equal(model->layers[thaw_model_find(model, "out")].list_index, 3);
        assert_false(model->layers[thaw_model_find(model, "block1_bn")].trainable);
        thaw_model_free(model);
    }
}

/* VGG16 with a head, as most jobs make it. */
static void test_builtin_with_head(void **state) {
    (void)state;
    thaw_model *model;
    thaw_builtin_options options = {.include_top = false, .input_shape = {32, 32, 3}, .pooling = "none"};
    assert_ok(thaw_builtin_build(&model, "vgg16", &options));
    assert_ok(thaw_model_allocate(model));
    add_head(model, "head");
    bool trainable[64];
    for (int i = 0; i < model->n_layers; i++)
        trainable[i] = i > 14;
    thaw_model *again = rewrite(model, trainable, "vgg16.h5");
    assert_same_layers(model, again);
    assert_string_equal(again->family, "vgg16");
    for (int i = 1; i < model->n_layers; i++)
        assert_int_equal(again->layers[i].trainable, trainable[i]);
    thaw_model_free(model);
    thaw_model_free(again);
}

/* Memory that fails anywhere while reading and writing: a status, nothing lost. */
static void test_memory(void **state) {
    (void)state;
    static const char *const files[] = {"tk_nested_functional", "k3_functional"};
    for (int f = 0; f < 2; f++) {
        char path[512];
        snprintf(path, sizeof path, FIXTURES "%s.h5", files[f]);
        size_t before = thaw_memory_live();
        bool done = false;
        for (int n = 1; !done; n += n < 50 ? 1 : 7) {
            thaw_model *model = NULL;
            void *bytes = NULL;
            size_t size;
            thaw_memory_fail_after(n);
            thaw_status status = thaw_keras_read(&model, path, true);
            if (status == THAW_OK)
                status = thaw_keras_write_image(&bytes, &size, model, NULL);
            done = status == THAW_OK;
            thaw_memory_fail_after(-1);
            thaw_free(bytes);
            thaw_model_free(model);
            assert_int_equal(thaw_memory_live(), before);
            assert_true(n < 100000);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_of_fixtures),
        cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_cut_and_head),
        cmocka_unit_test(test_cut_inside_shared_model),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_builtin_with_head),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("formats/keras_file", tests, NULL, NULL);
}
