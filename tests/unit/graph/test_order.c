/* Order of layers against Keras (make_orders.py), finishing, indices in the list, cutting. */
#include "graph_case.h"

/* Adds call `name` of the file: a new layer, or one more call of an old one. */
static void add_call(thaw_model *model, const char *name, const int *inputs, int n_inputs) {
    int known = thaw_model_find(model, name), node;
    if (known >= 0 && strcmp(model->layers[known].name, name) == 0) {
        OK(thaw_model_call(model, known, inputs, n_inputs, &node));
        return;
    }
    const char *last = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    if (strncmp(last, "dense", 5) == 0)
        add_dense(model, name, inputs[0], 2, false);
    else
        add_merge(model, THAW_LAYER_ADD, name, inputs, n_inputs);
}

static int compare_orders(FILE *file, const char *path) {
    char line[8192];
    thaw_model *model = NULL;
    int output = -1, graphs = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *rest = line, *word = strsep(&rest, " ");
        if (strcmp(word, "graph") == 0) {
            model = new_model();
            model->nested = true;
            add_input(model, "in", 1, 2, 0, 0);
        } else if (strcmp(word, "node") == 0) {
            int inputs[8], n = 0;
            char *name = strsep(&rest, " ");
            while (rest && n < 8)
                inputs[n++] = atoi(strsep(&rest, " "));
            add_call(model, name, inputs, n);
        } else if (strcmp(word, "output") == 0) {
            output = atoi(rest);
        } else {
            OK(thaw_model_finish(model, output, true));
            check_sound(model);
            if (strcmp(names_of(model), rest) != 0)
                fail_msg("graph %d of %s\n  %s, in Keras\n  %s", graphs, path, names_of(model), rest);
            thaw_model_free(model);
            graphs++;
        }
    }
    fclose(file);
    return graphs;
}

static void test_orders(void **state) {
    (void)state;
    const char *other = getenv("THAW_TEST_ORDERS"); /* a longer list of make_orders.py */
    const char *path = other ? other : THAW_SOURCE_DIR "/tests/unit/graph/fixtures/orders.txt";
    assert_true(compare_orders(fopen(path, "r"), path) > 50);
}

/* A nested model that is called once and calls each of its layers twice itself (order by Keras 3.15.1). */
static void test_shared_inside(void **state) {
    (void)state;
    char text[] = "graph\nnode dense1 0\nnode dense2 0\nnode m5/dense0 2\nnode m5/dense0 3\nnode m5/dense2 2\n"
                  "node m5/dense2 3\nnode add6 1 6\noutput 7\norder in dense2 dense1 m5/dense0 m5/dense2 add6\n";
    assert_int_equal(compare_orders(fmemopen(text, sizeof text - 1, "r"), "text"), 1);
}

/* in -> a -> b -> add(a, b) -> flat; a side branch that nothing needs. */
static thaw_model *small(bool sequential) {
    thaw_model *model = new_model();
    model->sequential = sequential;
    int in = add_input(model, "in", 3, 4, 4, 2);
    int a = add_conv(model, "a", in, 3, 3), side = add_conv(model, "side", a, 5, 1), b = add_conv(model, "b", a, 3, 1);
    (void)side;
    int sum = add_merge(model, THAW_LAYER_ADD, "sum", (int[]){a, b}, 2);
    int flat = add_plain(model, THAW_LAYER_FLATTEN, "flat", sum);
    OK(thaw_model_finish(model, flat, true));
    check_sound(model);
    return model;
}

static void test_drops(void **state) {
    (void)state;
    size_t before = thaw_memory_live();
    thaw_model *model = small(false);
    assert_string_equal(names_of(model), "in a b sum flat");
    assert_int_equal(model->n_nodes, 5);
    assert_int_equal(model->n_base_layers, 5);
    assert_false(model->changed);
    for (int i = 0; i < 5; i++) {
        assert_true(model->layers[i].listed);
        assert_int_equal(model->layers[i].list_index, i);
    }
    expect(thaw_model_finish(model, 5, true), THAW_DATA, "output");
    expect(thaw_model_finish(model, -1, false), THAW_DATA, "output");
    thaw_model_free(model);
    model = new_model();
    expect(thaw_model_finish(model, 0, true), THAW_DATA, "InputLayer");
    thaw_model_free(model);
    assert_true(thaw_memory_live() == before);
}

/* Without reordering layers stay as they were added, even where Keras would move them. */
static void test_keep_order(void **state) {
    (void)state;
    for (int reorder = 0; reorder < 2; reorder++) {
        thaw_model *model = new_model();
        int in = add_input(model, "in", 3, 4, 4, 2), shallow = add_conv(model, "shallow", in, 3, 1);
        int deep = add_conv(model, "deep2", add_conv(model, "deep1", in, 3, 1), 3, 1);
        OK(thaw_model_finish(model, add_merge(model, THAW_LAYER_ADD, "sum", (int[]){shallow, deep}, 2), reorder));
        check_sound(model);
        assert_string_equal(names_of(model), reorder ? "in deep1 shallow deep2 sum" : "in shallow deep1 deep2 sum");
        thaw_model_free(model);
    }
}

static void test_sequential(void **state) {
    (void)state;
    thaw_model *model = small(true);
    assert_false(model->layers[0].listed);
    assert_int_equal(model->layers[0].list_index, -1);
    for (int i = 1; i < model->n_layers; i++)
        assert_int_equal(model->layers[i].list_index, i - 1);
    thaw_model_free(model);
}

/* The head is appended to a finished base; base layers keep their order and indices. */
static void test_head(void **state) {
    (void)state;
    thaw_model *model = small(false);
    int fc = add_dense(model, "fc", model->output, 7, true), out = add_dense(model, "out", fc, 2, true);
    OK(thaw_model_finish(model, out, false));
    check_sound(model);
    assert_string_equal(names_of(model), "in a b sum flat fc out");
    assert_int_equal(model->n_base_layers, 5);
    assert_int_equal(model->layers[6].list_index, 6);
    assert_true(model->changed);
    assert_int_equal(model->output, model->n_nodes - 1);
    thaw_model_free(model);
}

/* All layers of a nested model share one place of the list. */
static thaw_model *nested(void) {
    thaw_model *model = new_model();
    model->nested = true;
    int in = add_input(model, "in", 3, 8, 8, 2), first = add_conv(model, "first", in, 2, 1);
    int a = add_conv(model, "net/a", first, 3, 3), b = add_conv(model, "net/b", a, 3, 3);
    int c = add_conv(model, "net/c", a, 3, 1), sum = add_merge(model, THAW_LAYER_ADD, "net/sum", (int[]){c, b}, 2);
    int other = add_conv(model, "other/a", sum, 2, 1);
    OK(thaw_model_finish(model, add_plain(model, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "gap", other), true));
    check_sound(model);
    return model;
}

static void test_nested(void **state) {
    (void)state;
    thaw_model *model = nested();
    static const int index[] = {0, 1, 2, 2, 2, 2, 3, 4};
    assert_string_equal(names_of(model), "in first net/a net/c net/b net/sum other/a gap");
    for (int i = 0; i < model->n_layers; i++)
        assert_int_equal(model->layers[i].list_index, index[i]);
    assert_int_equal(thaw_model_find(model, "net/b"), 4);
    assert_int_equal(thaw_model_find(model, "b"), 4);
    assert_int_equal(thaw_model_find(model, "a"), -1); /* two of them */
    assert_int_equal(thaw_model_find(model, "net"), -1);
    assert_int_equal(thaw_model_find(model, ""), -1);
    assert_int_equal(thaw_model_find(model, "/b"), -1);
    thaw_model_free(model);

    model = nested();
    OK(thaw_model_cut(model, "net")); /* behind the nested model */
    check_sound(model);
    assert_string_equal(names_of(model), "in first net/a net/c net/b net/sum");
    OK(thaw_model_cut(model, "b"));
    assert_string_equal(names_of(model), "in first net/a net/b");
    thaw_model_free(model);
}

static void test_cut(void **state) {
    (void)state;
    size_t before = thaw_memory_live();
    thaw_model *model = small(false);
    model->notes = (thaw_model_notes){.preprocess = thaw_strdup("tf"), .loss = thaw_strdup("mse"), .n_classes = 1,
                                      .class_names = thaw_calloc(1, sizeof(char *)), .metrics = thaw_strdup("accuracy")};
    model->notes.class_names[0] = thaw_strdup("cat");
    OK(thaw_model_allocate(model));
    OK(thaw_model_cut(model, "flat")); /* the output already */
    assert_false(model->changed);
    assert_non_null(model->notes.class_names);
    expect(thaw_model_cut(model, "flet"), THAW_USAGE, "flet|flat|thaw layers");
    assert_string_equal(names_of(model), "in a b sum flat");
    OK(thaw_model_cut(model, "b"));
    check_sound(model);
    assert_string_equal(names_of(model), "in a b");
    assert_true(model->changed);
    assert_null(model->notes.class_names);
    assert_null(model->notes.loss);
    assert_string_equal(model->notes.preprocess, "tf");
    assert_int_equal(model->layers[2].tensors[0].shape[2], 3);
    assert_non_null(model->layers[2].tensors[0].data);
    OK(thaw_model_cut(model, "in"));
    assert_int_equal(model->input, model->output);
    thaw_model_free(model);
    assert_true(thaw_memory_live() == before);
}

/* A layer called twice: the last call counts. */
static void test_cut_shared(void **state) {
    (void)state;
    thaw_model *model = new_model();
    int in = add_input(model, "in", 1, 3, 0, 0), a = add_dense(model, "a", in, 3, false), again, relu;
    relu = add_plain(model, THAW_LAYER_RELU, "relu", a);
    OK(thaw_model_call(model, 1, &relu, 1, &again));
    OK(thaw_model_finish(model, add_plain(model, THAW_LAYER_SOFTMAX, "out", again), true));
    OK(thaw_model_cut(model, "a"));
    check_sound(model);
    assert_int_equal(model->n_nodes, 4);
    OK(thaw_model_cut(model, "relu"));
    assert_int_equal(model->n_nodes, 3);
    thaw_model_free(model);
}

/* Depth does not cost stack. */
static void test_long_chain(void **state) {
    (void)state;
    thaw_model *model = new_model();
    int x = add_input(model, "in", 1, 1, 0, 0);
    char name[32];
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "relu_%d", i);
        x = add_plain(model, THAW_LAYER_RELU, name, x);
    }
    OK(thaw_model_finish(model, x, true));
    check_sound(model);
    assert_string_equal(model->layers[3000].name, "relu_2999");
    thaw_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),     cmocka_unit_test(test_drops),      cmocka_unit_test(test_keep_order),
        cmocka_unit_test(test_sequential), cmocka_unit_test(test_head),       cmocka_unit_test(test_nested),
        cmocka_unit_test(test_cut),        cmocka_unit_test(test_cut_shared), cmocka_unit_test(test_long_chain),
        cmocka_unit_test(test_shared_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
