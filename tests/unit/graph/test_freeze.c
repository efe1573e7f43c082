/* Freeze specs against networks: the selectors of the job file's `freeze` and `train` keys. */
#include "graph_case.h"

#include "graph/freeze.h"

/* Parses selectors separated by '|'. */
static thaw_freeze_spec spec_of(const char *text) {
    thaw_freeze_spec spec = {0};
    char *copy = strdup(text), *rest = copy, *part;
    while ((part = strsep(&rest, "|")) != NULL)
        OK(thaw_freeze_spec_add(&spec, part, 7, "a.yaml:7"));
    free(copy);
    return spec;
}

static thaw_status resolve(bool *flags, const thaw_model *model, const char *freeze, const char *train,
                           const bool *previous) {
    thaw_freeze_spec a = spec_of(freeze), b = spec_of(train ? train : "none");
    thaw_status status = thaw_freeze_resolve(flags, model, &a, train ? &b : NULL, previous, "a.yaml");
    thaw_freeze_spec_free(&a);
    thaw_freeze_spec_free(&b);
    return status;
}

/* Frozen layers as runs of positions in the model: "0-14 20". */
static const char *frozen(const bool *flags, const thaw_model *model) {
    static char text[1024];
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < model->n_layers; i++) {
        int first = i;
        while (i < model->n_layers && !flags[i])
            i++;
        if (i > first)
            at += (size_t)snprintf(text + at, sizeof text - at, i - 1 > first ? "%s%d-%d" : "%s%d", at ? " " : "", first,
                                   i - 1);
    }
    return text;
}

static void check(const thaw_model *model, const char *freeze, const char *train, const char *wanted) {
    bool flags[64];
    OK(resolve(flags, model, freeze, train, NULL));
    if (strcmp(frozen(flags, model), wanted) != 0)
        fail_msg("freeze %s, train %s: frozen %s, expected %s", freeze, train ? train : "-", frozen(flags, model), wanted);
}

static void refuse(const thaw_model *model, const char *freeze, const char *parts) {
    bool flags[64];
    expect(resolve(flags, model, freeze, NULL, NULL), THAW_USAGE, parts);
}

/* VGG16 without its top, 19 layers: 0 input, 1-3 block1, 4-6 block2, 7-10 block3, 11-14 block4, 15-18 block5. */
static thaw_model *vgg16(bool head) {
    thaw_model *model;
    OK(thaw_builtin_build(&model, "vgg16", &(thaw_builtin_options){.input_shape = {64, 64, 3}}));
    if (head) {
        thaw_layer layer;
        thaw_layer_default(&layer, THAW_LAYER_FLATTEN, "flatten");
        layer.head = true;
        int x = add_layer(model, &layer, model->output);
        x = add_dense(model, "fc1", x, 8, true);
        OK(thaw_model_finish(model, add_dense(model, "predictions", x, 2, true), false));
    }
    return model;
}

static void test_selectors(void **state) {
    (void)state;
    thaw_model *model = vgg16(true); /* head: 19 flatten, 20 fc1, 21 predictions */
    static const struct {
        const char *freeze, *train, *frozen;
    } cases[] = {{"all", NULL, "0-18"},
                 {"none", NULL, ""},
                 {"before:block5_conv1", NULL, "0-14"},
                 {"before:fc1", NULL, "0-19"},
                 {"before:input_layer", NULL, ""},
                 {"block5_conv1", NULL, "15"},
                 {"[block1_conv1, fc1]", NULL, "1 20"},
                 {"3", NULL, "3"},
                 {"-1", NULL, "18"},
                 {"[0, 3, 5]", NULL, "0 3 5"},
                 {"[:-5]", NULL, "0-13"},
                 {"[0:15]", NULL, "0-14"},
                 {"[:]", NULL, "0-18"},
                 {"[-4:]", NULL, "15-18"},
                 {"[0:7:3]", NULL, "0 3 6"},
                 {"[5:2]", NULL, ""},
                 {"[0:19]", NULL, "0-18"},
                 {"model[:-5]", NULL, "0-16"},
                 {"model[0:21]", NULL, "0-20"},
                 {"glob:block[1-4]_*", NULL, "1-14"},
                 {"glob:fc?", NULL, "20"},
                 {"class:MaxPooling2D", NULL, "3 6 10 14 18"},
                 {"class:Dense", NULL, "20-21"},
                 {"all", "block5_conv3", "0-16 18"},
                 {"all", "before:block1_pool", "3-18"},
                 {"all", "glob:block5_*", "0-14"},
                 {"before:block2_conv1|block5_pool|fc1", "block1_conv2", "0-1 3 18 20"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(model, cases[i].freeze, cases[i].train, cases[i].frozen);
    thaw_model_free(model);
}

static void test_whole_model_is_base(void **state) {
    (void)state;
    thaw_model *model = vgg16(false);
    check(model, "all", NULL, "0-18");
    check(model, "model[:-5]", NULL, "0-13");
    check(model, "[:-1]", NULL, "0-17");
    thaw_model_free(model);
}

static void test_refusals(void **state) {
    (void)state;
    thaw_model *model = vgg16(true);
    refuse(model, "block5_conv4", "a.yaml:7|block5_conv4|vgg16|'block5_conv");
    refuse(model, "before:blok5_conv1", "blok5_conv1|'block5_conv1'");
    refuse(model, "glob:stage*", "glob:stage*|matches no layer");
    refuse(model, "class:Conv3D", "class:Conv3D|'Conv2D'");
    refuse(model, "class:BatchNormalization", "BatchNormalization|no layer of that class");
    refuse(model, "19", "19|0..18");
    refuse(model, "-20", "-20|0..18");
    refuse(model, "[0:20]", "20|19 layers");
    refuse(model, "[-20:]", "-20|19 layers");
    refuse(model, "model[:23]", "23|22 layers");
    thaw_model_free(model);
}

static void test_file_and_keep(void **state) {
    (void)state;
    thaw_model *model = vgg16(true);
    bool flags[22], previous[22];
    for (int i = 0; i < 22; i++)
        previous[i] = i != 20 && i != 2;
    for (int i = 0; i < 9; i++)
        model->layers[i].trainable = false;
    check(model, "file", NULL, "0-8");
    check(model, "keep", NULL, "0-8"); /* the first stage: the file's */
    OK(resolve(flags, model, "keep", NULL, previous));
    assert_string_equal(frozen(flags, model), "2 20");
    OK(resolve(flags, model, "keep|[0:2]", "fc1", previous));
    assert_string_equal(frozen(flags, model), "0-2");
    thaw_model_free(model);
}

/* Sequential[vgg, gap, dense]: the list has no InputLayer, and one place for the nested model. */
static thaw_model *nested(void) {
    thaw_model *model = new_model();
    model->nested = model->sequential = true;
    int x = add_input(model, "input_layer", 3, 8, 8, 3);
    x = add_conv(model, "vgg/block1_conv1", x, 4, 3);
    x = add_conv(model, "vgg/block5_conv1", x, 4, 3);
    x = add_plain(model, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "gap", x);
    OK(thaw_model_finish(model, add_dense(model, "dense", x, 2, false), true));
    return model;
}

static void test_nested(void **state) {
    (void)state;
    thaw_model *model = nested();
    check(model, "block5_conv1", NULL, "2");
    check(model, "vgg/block5_conv1", NULL, "2");
    check(model, "before:block5_conv1", NULL, "0-1");
    check(model, "vgg", NULL, "1-2");
    check(model, "before:vgg", NULL, "0");
    check(model, "before:gap", NULL, "0-2");
    check(model, "0", NULL, "1-2");
    check(model, "[:-1]", NULL, "1-3");
    check(model, "glob:block*", NULL, "1-2");
    check(model, "glob:vgg/*_conv1", NULL, "1-2");
    check(model, "all", "vgg/block5_conv1", "0-1 3-4");
    refuse(model, "3", "3|0..2");
    refuse(model, "vg", "vg");
    thaw_model_free(model);
}

static void test_describe(void **state) {
    (void)state;
    bool flags[22];
    thaw_model *model = vgg16(true);
    OK(resolve(flags, model, "before:block5_conv1", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen 0-14, first trained: 15 block5_conv1");
    OK(resolve(flags, model, "all", NULL, NULL)); /* flatten has nothing to train */
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen 0-18, first trained: 20 fc1");
    OK(resolve(flags, model, "[0, 3, 4]", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen 0,3-4, first trained: 1 block1_conv1");
    OK(resolve(flags, model, "none", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen none, first trained: 1 block1_conv1");
    thaw_model_free(model);
    /* A Sequential model's InputLayer has no index. */
    model = new_model();
    model->sequential = true;
    int x = add_dense(model, "b", add_dense(model, "a", add_input(model, "in", 1, 4, 0, 0), 3, false), 2, false);
    OK(thaw_model_finish(model, x, false));
    OK(resolve(flags, model, "before:a", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen none, first trained: 0 a");
    OK(resolve(flags, model, "before:b", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen 0, first trained: 1 b");
    OK(resolve(flags, model, "all", NULL, NULL));
    assert_string_equal(thaw_freeze_describe(flags, model), "frozen 0-1");
    thaw_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selectors),     cmocka_unit_test(test_whole_model_is_base), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_file_and_keep), cmocka_unit_test(test_nested),              cmocka_unit_test(test_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
