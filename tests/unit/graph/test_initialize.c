/* Initial weights: distributions (Keras' variances), determinism, independence, what is left alone. */
#include "graph_case.h"

typedef struct moments {
    double mean, stddev, lowest, highest;
} moments;

static moments moments_of(const thaw_tensor *tensor) {
    moments m = {.lowest = INFINITY, .highest = -INFINITY};
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < tensor->count; i++) {
        double v = (double)tensor->data[i];
        sum += v;
        squares += v * v;
        m.lowest = v < m.lowest ? v : m.lowest;
        m.highest = v > m.highest ? v : m.highest;
    }
    m.mean = sum / (double)tensor->count;
    m.stddev = sqrt(squares / (double)tensor->count - m.mean * m.mean);
    return m;
}

/* A Dense layer (300, 200) named `name` with one initializer, and a Conv2D (3,3,20,50). */
static thaw_model *with(const char *name, thaw_initializer initializer, float a, float b, uint64_t seed) {
    thaw_model *model = new_model();
    int in = add_input(model, "in", 3, 5, 3, 20), conv = add_conv(model, "conv", in, 50, 3);
    int fc = add_dense(model, name, add_plain(model, THAW_LAYER_FLATTEN, "flat", in), 200, false);
    (void)conv;
    for (int i = 1; i < 4; i += 2) {
        thaw_tensor *kernel = thaw_layer_tensor(&model->layers[i == 1 ? 1 : 3], "kernel");
        kernel->initializer = initializer;
        kernel->init_a = a;
        kernel->init_b = b;
    }
    (void)fc;
    OK(thaw_model_allocate(model));
    thaw_model_initialize(model, seed);
    return model;
}

static void test_distributions(void **state) {
    (void)state;
    /* fans: dense 300 and 200, conv 180 and 450; stddev of the values and bound of their size */
    static const double cut = 0.87962566103423978;
    const double glorot[2] = {sqrt(2.0 / 500), sqrt(2.0 / 630)}, he[2] = {sqrt(2.0 / 300), sqrt(2.0 / 180)};
    const double lecun[2] = {sqrt(1.0 / 300), sqrt(1.0 / 180)}, flat = sqrt(3.0), normal = 2 / cut;
    const struct {
        thaw_initializer initializer;
        float a, b;
        double stddev[2], reach, mean; /* dense, conv; largest value in standard deviations, 0: none */
    } cases[] = {
        {THAW_INIT_GLOROT_UNIFORM, 0, 0, {glorot[0], glorot[1]}, flat, 0},
        {THAW_INIT_HE_UNIFORM, 0, 0, {he[0], he[1]}, flat, 0},
        {THAW_INIT_LECUN_UNIFORM, 0, 0, {lecun[0], lecun[1]}, flat, 0},
        {THAW_INIT_GLOROT_NORMAL, 0, 0, {glorot[0], glorot[1]}, normal, 0},
        {THAW_INIT_HE_NORMAL, 0, 0, {he[0], he[1]}, normal, 0},
        {THAW_INIT_LECUN_NORMAL, 0, 0, {lecun[0], lecun[1]}, normal, 0},
        {THAW_INIT_RANDOM_NORMAL, 0.05f, 0, {0.05, 0.05}, 0, 0},
        {THAW_INIT_TRUNCATED_NORMAL, 0.05f, 0, {0.05 * cut, 0.05 * cut}, normal, 0},
        {THAW_INIT_RANDOM_UNIFORM, 1.0f, 3.0f, {2 / sqrt(12.0), 2 / sqrt(12.0)}, flat, 2},
        {THAW_INIT_CONSTANT, 0.25f, 0, {0, 0}, 0, 0.25},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_model *model = with("fc", cases[i].initializer, cases[i].a, cases[i].b, 5);
        for (int conv = 0; conv < 2; conv++) {
            const thaw_tensor *kernel = thaw_layer_tensor(&model->layers[conv ? 1 : 3], "kernel");
            moments m = moments_of(kernel);
            double stddev = cases[i].stddev[conv], bound = cases[i].reach * stddev, n = (double)kernel->count;
            double far = fmax(m.highest - cases[i].mean, cases[i].mean - m.lowest);
            if (fabs(m.mean - cases[i].mean) > 5 * stddev / sqrt(n) || fabs(m.stddev - stddev) > 5 * stddev / sqrt(n))
                fail_msg("case %zu/%d: mean %g stddev %g, expected %g and %g", i, conv, m.mean, m.stddev, cases[i].mean,
                         stddev);
            if (bound > 0 && (far > bound * 1.000001 || far < bound * 0.99))
                fail_msg("case %zu/%d: values up to %g, expected up to %g", i, conv, far, bound);
            if (bound == 0 && far < 3.5 * stddev) /* a normal that is not truncated reaches further in 9000 draws */
                fail_msg("case %zu/%d: no value beyond %g", i, conv, far);
        }
        thaw_model_free(model);
    }
}

static void test_defaults(void **state) {
    (void)state;
    thaw_model *model = new_model();
    int x = add_conv(model, "conv", add_input(model, "in", 3, 5, 5, 2), 8, 3);
    add_plain(model, THAW_LAYER_BATCH_NORMALIZATION, "bn", x);
    OK(thaw_model_allocate(model));
    thaw_model_initialize(model, 1);
    static const float wanted[] = {1, 0, 0, 1}; /* gamma, beta, moving mean, moving variance */
    for (int t = 0; t < 4; t++)
        for (int c = 0; c < 8; c++)
            assert_float_equal(model->layers[2].tensors[t].data[c], wanted[t], 0.0f);
    for (int c = 0; c < 8; c++)
        assert_float_equal(model->layers[1].tensors[1].data[c], 0.0f, 0.0f);
    thaw_model_free(model);
}

static bool equal(const thaw_model *a, const thaw_model *b, int layer) {
    const thaw_tensor *x = &a->layers[layer].tensors[0], *y = &b->layers[layer].tensors[0];
    return memcmp(x->data, y->data, x->count * sizeof(float)) == 0;
}

/* Values follow from seed, names and element alone. */
static void test_counter(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        thaw_initializer kind = i ? THAW_INIT_HE_NORMAL : THAW_INIT_GLOROT_UNIFORM;
        thaw_model *a = with("fc", kind, 0, 0, 5), *b = with("fc", kind, 0, 0, 5), *other = with("fc", kind, 0, 0, 6);
        thaw_model *named = with("fc2", kind, 0, 0, 5);
        assert_true(equal(a, b, 1) && equal(a, b, 3));
        assert_false(equal(a, other, 1) || equal(a, other, 3));
        assert_true(equal(a, named, 1)); /* the layer with the same name */
        assert_false(equal(a, named, 3));
        assert_memory_not_equal(a->layers[1].tensors[0].data, a->layers[3].tensors[0].data, 64 * sizeof(float));
        thaw_model_free(a);
        thaw_model_free(b);
        thaw_model_free(other);
        thaw_model_free(named);
    }
}

/* Neighbours in a draw are not correlated, also where a truncated one was drawn again. */
static void test_independence(void **state) {
    (void)state;
    thaw_model *model = with("fc", THAW_INIT_HE_NORMAL, 0, 0, 11);
    const thaw_tensor *kernel = &model->layers[3].tensors[0];
    double variance = pow(moments_of(kernel).stddev, 2);
    for (size_t lag = 1; lag <= 8; lag++) {
        double sum = 0.0;
        for (size_t i = 0; i + lag < kernel->count; i++)
            sum += (double)kernel->data[i] * (double)kernel->data[i + lag];
        double correlation = sum / (double)kernel->count / variance;
        if (fabs(correlation) > 5 / sqrt((double)kernel->count))
            fail_msg("correlation %g at lag %zu", correlation, lag);
    }
    thaw_model_free(model);
}

static void test_loaded(void **state) {
    (void)state;
    thaw_model *model = with("fc", THAW_INIT_GLOROT_UNIFORM, 0, 0, 5);
    thaw_tensor *kernel = &model->layers[3].tensors[0];
    kernel->loaded = true;
    kernel->data[7] = 42.0f;
    model->layers[1].tensors[0].data[7] = 42.0f;
    thaw_model_initialize(model, 9);
    assert_float_equal(kernel->data[7], 42.0f, 0.0f);
    assert_true(model->layers[1].tensors[0].data[7] < 1.0f);
    const float *place = kernel->data;
    OK(thaw_model_allocate(model)); /* keeps what is there */
    assert_ptr_equal(kernel->data, place);
    assert_ptr_equal(kernel->home, place);
    thaw_model_free(model);
}

static void test_without_memory(void **state) {
    (void)state;
    thaw_model *model = new_model();
    add_conv(model, "conv", add_input(model, "in", 3, 5, 5, 2), 8, 3);
    thaw_model_initialize(model, 1); /* structure alone: nothing to do */
    thaw_memory_fail_after(2);
    expect(thaw_model_allocate(model), THAW_RESOURCE, "weights of test|conv/bias");
    thaw_memory_fail_after(-1);
    OK(thaw_model_allocate(model));
    thaw_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions), cmocka_unit_test(test_defaults), cmocka_unit_test(test_counter),
        cmocka_unit_test(test_independence),  cmocka_unit_test(test_loaded),   cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
