/* Reading what Keras wrote, writing it, reading that again: equal networks, weights and flags; equal bytes. */
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
        assert_ok(thaw_keras_write_image(&two, &two_size, again, NULL));
        assert_int_equal(one_size, two_size);
        assert_memory_equal(one, two, one_size);
        thaw_free(one);
        thaw_free(two);
        thaw_model_free(model);
        thaw_model_free(again);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_of_fixtures),
        cmocka_unit_test(test_rewrite),
    };
    return cmocka_run_group_tests_name("formats/keras_file", tests, NULL, NULL);
}
