/* The job's head as layers: shapes, names, arguments, initializers, regularizers, and every refusal with its line. */
#include "train_case.h"

#include "train/head.h"

/* A base with a map (4,6,8) as output, and a layer named "dense" to avoid. */
static thaw_model *base(void) {
    thaw_model *model;
    thaw_layer layer;
    int node;
    assert_ok(thaw_model_create(&model, "base"));
    thaw_layer_default(&layer, THAW_LAYER_INPUT, "input");
    layer.config.target_rank = 3;
    memcpy(layer.config.target, (int64_t[]){4, 6, 3}, sizeof layer.config.target);
    assert_ok(thaw_model_add(model, &layer, NULL, 0, &node));
    thaw_layer_default(&layer, THAW_LAYER_CONV2D, "dense");
    layer.config.filters = 8;
    layer.config.kernel[0] = layer.config.kernel[1] = 3;
    layer.config.same = true;
    assert_ok(thaw_model_add(model, &layer, &node, 1, &node));
    assert_ok(thaw_model_finish(model, node, true));
    return model;
}

static thaw_job *job_with(const char *head) {
    thaw_job *job;
    char *text = thaw_format("model:\n  base: vgg16\n  include_top: false\n  head:\n%s\ndata: {train: photos}\nstages:\n"
                             "  - freeze: all\n", head);
    thaw_status status = thaw_job_parse(&job, "job.yaml", text, NULL, 0);
    if (status != THAW_OK)
        fail_msg("%s\n%s", thaw_message(), text);
    thaw_free(text);
    return job;
}

static thaw_model *append(const char *head) {
    thaw_model *model = base();
    thaw_job *job = job_with(head);
    thaw_status status = thaw_head_append(model, job);
    if (status != THAW_OK)
        fail_msg("%s\n%s", thaw_message(), head);
    thaw_job_free(job);
    return model;
}

static void refuse(const char *head, const char *words) {
    thaw_model *model = base();
    thaw_job *job = job_with(head);
    assert_int_equal(thaw_head_append(model, job), THAW_USAGE);
    char *copy = thaw_strdup(words), *rest = copy, *word;
    while ((word = strsep(&rest, "|")))
        assert_says(thaw_message(), word);
    thaw_free(copy);
    thaw_job_free(job);
    thaw_model_free(model);
}

static thaw_layer *layer_of(thaw_model *model, const char *name) {
    int i = thaw_model_find(model, name);
    if (i < 0)
        fail_msg("no layer %s", name);
    return &model->layers[i];
}

static void test_chain(void **state) {
    (void)state;
    size_t live = thaw_memory_live();
    thaw_model *m = append("    - Conv2D: {filters: 5, kernel_size: [3, 1], strides: 2, padding: same, activation: relu}\n"
                           "    - BatchNormalization: {momentum: 0.9, epsilon: 1e-5, scale: false}\n"
                           "    - ReLU: {max_value: 6}\n"
                           "    - MaxPooling2D:\n"
                           "    - Flatten: {}\n"
                           "    - Dense: {units: 7, activation: silu, use_bias: false}\n"
                           "    - Dropout: {rate: 0.25}\n"
                           "    - Dense: {units: 4, name: predictions}\n"
                           "    - Softmax\n");
    const char *names[] = {"input", "dense", "conv2d", "batch_normalization", "re_lu", "max_pooling2d", "flatten", "dense_1",
                           "dropout", "predictions", "softmax"};
    assert_int_equal(m->n_layers, 11);
    assert_int_equal(m->n_base_layers, 2);
    assert_true(m->changed);
    for (int i = 0; i < 11; i++) {
        assert_string_equal(m->layers[i].name, names[i]);
        assert_int_equal(m->layers[i].head, i >= 2);
        assert_int_equal(m->layers[i].list_index, i);
    }
    thaw_layer *conv = layer_of(m, "conv2d"), *norm = layer_of(m, "batch_normalization"), *dense = layer_of(m, "dense_1");
    assert_int_equal(conv->config.kernel[0] * 100 + conv->config.kernel[1] * 10 + conv->config.strides[1], 312);
    assert_int_equal(conv->config.activation, THAW_ACTIVATION_RELU);
    assert_int_equal(conv->n_tensors, 2);
    assert_near(norm->config.momentum, 0.9f, 0);
    assert_near(norm->config.epsilon, 1e-5f, 0);
    assert_int_equal(norm->n_tensors, 3);
    assert_near(layer_of(m, "re_lu")->config.max_value, 6, 0);
    assert_int_equal(dense->config.activation, THAW_ACTIVATION_SWISH);
    assert_int_equal(dense->n_tensors, 1);
    assert_int_equal(dense->tensors[0].shape[0], 5); /* (4,6) -> (2,3) -> (1,1) of 5 channels */
    assert_near(layer_of(m, "dropout")->config.rate, 0.25, 0);
    assert_int_equal(thaw_shape_count(&m->nodes[m->output].shape), 4);
    thaw_model_free(m);
    assert_int_equal(thaw_memory_live(), live);
}

static void test_other_layers(void **state) {
    (void)state;
    thaw_model *m = append("    - ZeroPadding2D: {padding: [1, 2]}\n"
                           "    - AveragePooling2D: {pool_size: [3, 5], strides: 1, padding: valid}\n"
                           "    - Rescaling: {scale: 2, offset: [1, 2, 3, 4, 5, 6, 7, 8]}\n"
                           "    - Activation: {activation: tanh}\n"
                           "    - Reshape: {target_shape: [2, -1, 8]}\n"
                           "    - GlobalAvgPool2D: {keepdims: true}\n"
                           "    - Reshape: {target_shape: [-1]}\n"
                           "    - Dense: {units: 3}\n"
                           "    - Dense: {units: 2}\n");
    const char *names[] = {"zero_padding2d", "average_pooling2d", "rescaling", "activation", "reshape",
                           "global_average_pooling2d", "reshape_1", "dense_1", "dense_2"};
    for (int i = 0; i < 9; i++)
        assert_string_equal(m->layers[2 + i].name, names[i]);
    thaw_layer *scale = layer_of(m, "rescaling");
    assert_int_equal(scale->config.n_rescale, 8);
    assert_near(scale->config.rescale[7], 2, 0);
    assert_near(scale->config.offset[7], 8, 0);
    assert_int_equal(layer_of(m, "reshape")->config.target[1], 12); /* (6,10) - (3,5) + 1 = (4,6): 2 x 12 */
    assert_int_equal(layer_of(m, "dense_1")->tensors[0].shape[0], 8);
    thaw_model_free(m);
    m = append("    - MaxPool2D: {pool_size: [4, 3]}\n    - Flatten\n"); /* strides follow: (4,6) becomes (1,2) */
    assert_int_equal(thaw_shape_count(&m->nodes[m->output].shape), 16);
    thaw_model_free(m);
    m = append("    - GlobalMaxPooling2D\n    - Rescaling: {offset: 1, scale: 0.5}\n    - Dense: {units: 1}\n");
    scale = layer_of(m, "rescaling");
    assert_int_equal(scale->config.n_rescale, 1);
    assert_near(scale->config.rescale[0], 0.5, 0);
    assert_near(scale->config.offset[0], 1, 0);
    thaw_model_free(m);
}

static void test_tensors(void **state) {
    (void)state;
    thaw_model *m = append("    - Flatten\n"
                           "    - Dense: {units: 3, kernel_initializer: he_normal, bias_initializer: {Constant: {value: 0.5}},\n"
                           "              kernel_regularizer: {l2: 0.001}, bias_regularizer: l1}\n"
                           "    - Dense: {units: 3, kernel_initializer: {RandomNormal: {stddev: 0.2}},\n"
                           "              kernel_regularizer: {L1L2: {l1: 0.1, l2: 0.2}}}\n"
                           "    - Dense: {units: 3, kernel_initializer: RandomUniform, bias_initializer: ones}\n"
                           "    - Dense: {units: 2, kernel_initializer: {RandomUniform: {minval: -2, maxval: 3}}}\n");
    thaw_tensor *a = layer_of(m, "dense_1")->tensors, *b = layer_of(m, "dense_2")->tensors, *c = layer_of(m, "dense_3")->tensors;
    assert_int_equal(a[0].initializer, THAW_INIT_HE_NORMAL);
    assert_int_equal(a[1].initializer, THAW_INIT_CONSTANT);
    assert_near(a[1].init_a, 0.5, 0);
    assert_near(a[0].l2, 0.001f, 0);
    assert_near(a[0].l1, 0, 0);
    assert_near(a[1].l1, 0.01f, 0);
    assert_int_equal(b[0].initializer, THAW_INIT_RANDOM_NORMAL);
    assert_near(b[0].init_a, 0.2f, 0);
    assert_near(b[0].l1, 0.1f, 0);
    assert_near(b[0].l2, 0.2f, 0);
    assert_near(c[0].init_a, -0.05f, 0);
    assert_near(c[0].init_b, 0.05f, 0);
    assert_near(c[1].init_a, 1, 0);
    c = layer_of(m, "dense_4")->tensors;
    assert_near(c[0].init_a, -2, 0);
    assert_near(c[0].init_b, 3, 0);
    thaw_model_free(m);
}

static void test_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = { /* line 5 is the first layer */
        {"    - Dense: {units: 3, name: top}", "job.yaml:5: |top|(4,6,8)|Flatten|GlobalAveragePooling2D"},
        {"    - Flatten\n    - Conv2D: {filters: 3, kernel_size: 3}", "job.yaml:6: |conv2d|map|192 values"},
        {"    - Flaten", "job.yaml:5: |'Flaten'|did you mean 'Flatten'|GlobalAveragePooling2D"},
        {"    - LSTM: {units: 3}", "job.yaml:5: |'LSTM'|known: "},
        {"    - Concatenate", "cannot stand in model.head"},
        {"    - InputLayer", "cannot stand in model.head"},
        {"    - Flatten\n    - Dense: {unit: 3}", "job.yaml:6: |'unit'|did you mean 'units'|use_bias"},
        {"    - Flatten\n    - Dense:\n        units: 3\n        activaton: relu", "job.yaml:8: |'activation'"},
        {"    - Flatten\n    - Dense: {activation: relu}", "job.yaml:6: Dense needs units"},
        {"    - Flatten\n    - Dense: {units: 2.5}", "'2.5'|whole number"},
        {"    - Flatten\n    - Dense: {units: many}", "'many'|whole number"},
        {"    - Flatten\n    - Dense: {units: 3, activation: gelu}", "'gelu'|relu6"},
        {"    - Flatten\n    - Dense: {units: 3, use_bias: maybe}", "true or false"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_initializer: xavier}", "'xavier'|glorot_uniform"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_initializer: {HeNormal: {stddev: 1}}}", "HeNormal takes no arguments"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_initializer: {HeNormal: {seed: 1}}}", "training.seed"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_regularizer: l3}", "'l3'|l1, l2"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_regularizer: {l2: -1}}", "at least 0"},
        {"    - Flatten\n    - Dense: {units: 3, use_bias: false, bias_regularizer: l2}", "no bias"},
        {"    - Flatten\n    - Dense: {units: 3, trainable: false}", "freeze:"},
        {"    - Flatten\n    - Dense: {units: 3, kernel_constraint: max_norm}", "constraints are not supported"},
        {"    - Flatten\n    - Dense: {units: 3, name: dense}", "'dense'|in use"},
        {"    - Flatten: {name: a/b}", "without '/'"},
        {"    - Flatten\n    - Dropout: {rate: 1.0}", "below 1"},
        {"    - Flatten\n    - Dropout: {rate: 0.5, seed: 3}", "training.seed"},
        {"    - Conv2D: {filters: 3, kernel_size: [3, 3, 3]}", "kernel_size|list of 3"},
        {"    - Conv2D: {filters: 3, kernel_size: 3, padding: full}", "same or valid"},
        {"    - Conv2D: {filters: 3, kernel_size: 3, groups: 3}", "groups"},
        {"    - Conv2D: {filters: 3, kernel_size: 9}", "job.yaml:5: |conv2d"},
        {"    - Reshape: {target_shape: [7, -1, 8]}", "target_shape"},
        {"    - Reshape: {target_shape: [100]}", "target_shape"},
        {"    - BatchNormalization: {axis: 1}", "axis"},
        {"    - Rescaling: {scale: [1, 2]}", "per channel"},
        {"    - Activation", "needs activation"},
    };
    size_t live = thaw_memory_live();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("  %.90s\n", cases[i][0]);
        refuse(cases[i][0], cases[i][1]);
        assert_null(strchr(thaw_message(), '\n'));
    }
    assert_int_equal(thaw_memory_live(), live);
}

static void test_no_head_and_no_memory(void **state) {
    (void)state;
    thaw_model *model = base();
    thaw_job *job = job_with("    - Flatten\n    - Rescaling: {scale: 2}\n    - Dense: {units: 3, kernel_regularizer: l2}");
    int n = job->n_head;
    job->n_head = 0;
    assert_ok(thaw_head_append(model, job));
    assert_int_equal(model->n_layers, 2);
    job->n_head = n;
    thaw_model_free(model);
    size_t live = thaw_memory_live();
    thaw_status status = THAW_RESOURCE;
    for (int k = 1; k < 500 && status != THAW_OK; k++) {
        model = base();
        thaw_memory_fail_after(k);
        status = thaw_head_append(model, job);
        thaw_memory_fail_after(-1);
        if (status != THAW_OK)
            assert_int_equal(status, THAW_RESOURCE);
        thaw_model_free(model);
        assert_int_equal(thaw_memory_live(), live);
    }
    assert_int_equal(status, THAW_OK);
    thaw_job_free(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chain), cmocka_unit_test(test_other_layers),
                                       cmocka_unit_test(test_tensors), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_no_head_and_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
