/* Losses, their gradients and metrics against Keras, against finite differences, and at their edges. */
#include "train_case.h"

#include "keras_numbers.h"
#include "train/loss_row.h"

static thaw_objective objective_of(const keras_loss *k) {
    return (thaw_objective){.loss = k->loss, .final = k->final, .units = k->units, .y_width = k->width, .n_metrics = 3,
                            .metrics = {THAW_METRIC_ACCURACY, THAW_METRIC_MSE, THAW_METRIC_MAE}};
}

static void test_keras(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof keras_losses / sizeof *keras_losses; c++) {
        const keras_loss *k = &keras_losses[c];
        thaw_objective o = objective_of(k);
        thaw_sums sums = {0};
        float dz[16] = {0};
        print_message("  case %zu: %s, final %d, units %d, width %d\n", c, thaw_loss_name(k->loss), k->final, k->units, k->width);
        assert_ok(thaw_objective_batch(&o, k->n, k->z, k->y, 1.0 / k->n, dz, &sums));
        assert_near(sums.images, k->n, 0.0);
        assert_near(sums.loss / k->n, k->value, 2e-6 * (1.0 + fabs(k->value)));
        for (int i = 0; i < k->n * k->units; i++)
            assert_near(dz[i], k->dz[i], 2e-6 + 2e-5 * fabs(k->dz[i]));
        assert_near(sums.metric[0] / k->n, k->accuracy, 1e-6);
        assert_near(sums.metric[1] / k->n, k->mse, 1e-5);
        assert_near(sums.metric[2] / k->n, k->mae, 1e-5);
    }
}

static double loss_at(const thaw_objective *o, const float *z, const float *y) {
    thaw_sums sums = {0};
    assert_ok(thaw_objective_batch(o, 1, z, y, 0.0, NULL, &sums));
    return sums.loss;
}

/* dz of every combination by central differences. Where the loss sees float32 outputs their rounding limits the step. */
static void test_finite_differences(void **state) {
    (void)state;
    static const thaw_loss losses[] = {THAW_LOSS_BINARY_CROSSENTROPY, THAW_LOSS_CATEGORICAL_CROSSENTROPY, THAW_LOSS_MSE,
                                       THAW_LOSS_MAE};
    static const thaw_activation finals[] = {THAW_ACTIVATION_LINEAR, THAW_ACTIVATION_SIGMOID, THAW_ACTIVATION_SOFTMAX};
    for (int l = 0; l < 4; l++)
        for (int f = 0; f < 3; f++)
            for (int index = 0; index < 2; index++) {
                thaw_objective o = {.loss = losses[l], .final = finals[f], .units = 3, .y_width = index ? 1 : 3};
                float z[3] = {0.31f, 0.62f, 0.17f}, dz[3], y[3] = {index ? 2.0f : 0.2f, 0.3f, 0.5f};
                thaw_sums sums = {0};
                assert_ok(thaw_objective_batch(&o, 1, z, y, 1.0, dz, &sums));
                for (int i = 0; i < 3; i++) {
                    const float h = 1.0f / 1024;
                    float up[3], down[3];
                    memcpy(up, z, sizeof z);
                    memcpy(down, z, sizeof z);
                    up[i] += h;
                    down[i] -= h;
                    assert_near(dz[i], (loss_at(&o, up, y) - loss_at(&o, down, y)) / (up[i] - down[i]), 3e-4);
                }
            }
}

/* A batch in pieces gives the sums of the batch; the scale only multiplies dz. */
static void test_pieces(void **state) {
    (void)state;
    const keras_loss *k = &keras_losses[6];
    thaw_objective o = objective_of(k);
    thaw_sums whole = {0}, parts = {0};
    float dz[16], piece[16];
    assert_ok(thaw_objective_batch(&o, k->n, k->z, k->y, 0.25, dz, &whole));
    for (int i = 0; i < k->n; i++)
        assert_ok(thaw_objective_batch(&o, 1, k->z + i * k->units, k->y + i * k->width, 0.5, piece + i * k->units, &parts));
    assert_memory_equal(&whole, &parts, sizeof whole);
    for (int i = 0; i < k->n * k->units; i++)
        assert_true(piece[i] == 2.0f * dz[i]);
}

static void test_class_weight(void **state) {
    (void)state;
    const float weights[] = {2.0f, 0.0f, 0.5f}, z[] = {1, 2, 3, 1, 2, 3, 1, 2, 3}, y[] = {0, 1, 2};
    thaw_objective o = {.loss = THAW_LOSS_CATEGORICAL_CROSSENTROPY, .final = THAW_ACTIVATION_SOFTMAX, .units = 3, .y_width = 1,
                        .n_classes = 3};
    float plain[9], weighted[9];
    double want = 0.0;
    thaw_sums sums = {0};
    assert_ok(thaw_objective_batch(&o, 3, z, y, 1.0, plain, &sums));
    for (int i = 0; i < 3; i++)
        want += loss_at(&o, z + 3 * i, y + i) * weights[i];
    o.class_weight = weights;
    sums = (thaw_sums){0};
    assert_ok(thaw_objective_batch(&o, 3, z, y, 1.0, weighted, &sums));
    assert_near(sums.loss, want, 1e-12);
    assert_near(sums.images, 3.0, 0.0); /* weights are no part of the divisor */
    for (int i = 0; i < 9; i++)
        assert_near(weighted[i], plain[i] * weights[i / 3], 1e-7);
}

static void test_bad_labels(void **state) {
    (void)state;
    const float z[3] = {0}, bad[] = {3.0f, -1.0f, 0.5f, (float)NAN};
    thaw_objective o = {.loss = THAW_LOSS_CATEGORICAL_CROSSENTROPY, .final = THAW_ACTIVATION_SOFTMAX, .units = 3, .y_width = 1};
    thaw_sums sums = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(thaw_objective_batch(&o, 1, z, &bad[i], 1.0, NULL, &sums), THAW_DATA);
    assert_says(thaw_message(), "0 to 2");
    thaw_objective one = {.loss = THAW_LOSS_BINARY_CROSSENTROPY, .final = THAW_ACTIVATION_SIGMOID, .units = 1, .y_width = 1};
    const float two = 2.0f, infinite = INFINITY;
    assert_int_equal(thaw_objective_batch(&one, 1, z, &two, 1.0, NULL, &sums), THAW_DATA);
    one.loss = THAW_LOSS_MSE;
    assert_int_equal(thaw_objective_batch(&one, 1, z, &infinite, 1.0, NULL, &sums), THAW_DATA);
    assert_ok(thaw_objective_batch(&one, 1, z, &two, 1.0, NULL, &sums));
}

static void test_check(void **state) {
    (void)state;
    thaw_objective o = {.loss = THAW_LOSS_BINARY_CROSSENTROPY, .final = THAW_ACTIVATION_SIGMOID, .units = 1, .y_width = 1};
    catch_warnings();
    assert_ok(thaw_objective_check(&o, 2));
    assert_int_equal(n_caught, 0);
    assert_int_equal(thaw_objective_check(&o, 3), THAW_USAGE);
    assert_says(thaw_message(), "Dense: {units: 3, activation: softmax}");
    o.loss = THAW_LOSS_CATEGORICAL_CROSSENTROPY;
    assert_int_equal(thaw_objective_check(&o, 2), THAW_USAGE);
    o.units = 5;
    o.final = THAW_ACTIVATION_SOFTMAX;
    assert_int_equal(thaw_objective_check(&o, 4), THAW_USAGE);
    assert_ok(thaw_objective_check(&o, 5));
    o.y_width = 4;
    assert_int_equal(thaw_objective_check(&o, 0), THAW_USAGE);
    assert_int_equal(n_caught, 0);
    o.y_width = 5;
    o.final = THAW_ACTIVATION_LINEAR;
    assert_ok(thaw_objective_check(&o, 0));
    assert_int_equal(n_caught, 1);
    assert_says(caught, "softmax");
    assert_int_equal(thaw_loss_default(THAW_ACTIVATION_SOFTMAX), THAW_LOSS_CATEGORICAL_CROSSENTROPY);
    assert_int_equal(thaw_loss_default(THAW_ACTIVATION_SIGMOID), THAW_LOSS_BINARY_CROSSENTROPY);
    assert_int_equal(thaw_loss_default(THAW_ACTIVATION_LINEAR), THAW_LOSS_MSE);
}

static void test_outputs(void **state) {
    (void)state;
    thaw_objective o = {.final = THAW_ACTIVATION_SOFTMAX, .units = 3, .y_width = 1};
    float z[6] = {1000, 1001, 999, -5, -5, -5};
    thaw_objective_output(&o, 2, z, z); /* in place */
    assert_near(z[0], 0.24472847, 1e-7);
    assert_near(z[1], 0.66524096, 1e-7);
    assert_near(z[3], 1.0 / 3, 1e-7);
    o = (thaw_objective){.final = THAW_ACTIVATION_SIGMOID, .units = 1, .y_width = 1};
    float s[3] = {0, 100, -100};
    thaw_objective_output(&o, 3, s, s);
    assert_true(s[0] == 0.5f && s[1] == 1.0f && s[2] > 0.0f && s[2] < 1e-40f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keras),      cmocka_unit_test(test_finite_differences), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_class_weight), cmocka_unit_test(test_bad_labels),       cmocka_unit_test(test_check),
        cmocka_unit_test(test_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
