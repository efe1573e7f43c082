/* Activations, ReLU layers, scale and shift, padding, sums, copies, dropout: fast against reference, and their meaning. */
#include "base/random.h"
#include "kernel_case.h"

static const int64_t counts[] = {0, 1, 37, 8192, 20001}; /* below, at and above a piece */
enum { COUNTS = sizeof counts / sizeof *counts };

static bool exact(thaw_activation act) {
    return act == THAW_ACTIVATION_LINEAR || act == THAW_ACTIVATION_RELU || act == THAW_ACTIVATION_RELU6;
}

static void compare(const float *a, const float *b, int64_t count, thaw_activation act, const char *what) {
    if (exact(act))
        assert_same(a, b, count, what);
    else
        assert_near(a, b, count, 3e-6, what); /* gradients up to 5 cancel old values up to 5 */
}

static void test_activations(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    for (int k = 0; k < COUNTS; k++)
        for (int i = 0; i < THAW_ACTIVATIONS; i++) {
            thaw_activation act = (thaw_activation)i;
            int64_t c = counts[k] % 3 == 0 ? 3 : 1, count = counts[k];
            float *x = integers(count, 8), *dy = integers(count, 5), *a = unset(count), *b = unset(count);
            fast->activation_forward(act, count, c, x, a);
            ref->activation_forward(act, count, c, x, b);
            compare(a, b, count, act, "activation");
            float *in_place = copy_of(x, count);
            fast->activation_forward(act, count, c, in_place, in_place);
            assert_same(in_place, a, count, "activation in place");
            float *da = integers(count, 5), *db = copy_of(da, count);
            const float *input = act == THAW_ACTIVATION_SWISH ? x : NULL;
            for (int accumulate = 1; accumulate >= 0; accumulate--) {
                fast->activation_backward(act, count, c, input, b, dy, da, accumulate != 0);
                ref->activation_backward(act, count, c, input, b, dy, db, accumulate != 0);
                compare(da, db, count, act, "activation gradient");
            }
            memcpy(in_place, dy, (size_t)count * sizeof *dy);
            fast->activation_backward(act, count, c, input, b, in_place, in_place, false);
            assert_same(in_place, da, count, "activation gradient in place");
            memcpy(in_place, dy, (size_t)count * sizeof *dy);
            ref->activation_backward(act, count, c, input, b, in_place, in_place, false);
            assert_same(in_place, db, count, "reference gradient in place");
            thaw_free(x), thaw_free(dy), thaw_free(a), thaw_free(b), thaw_free(in_place), thaw_free(da), thaw_free(db);
        }
}

/* Derivatives by central differences; away from kinks. */
static void test_activation_gradients(void **state) {
    (void)state;
    const thaw_kernels *ref = thaw_kernels_reference();
    enum { C = 5 };
    const float x[C] = {-1.5f, -0.4f, 0.3f, 0.9f, 7.5f}, dy[C] = {1.0f, -2.0f, 0.5f, 3.0f, 1.5f}, step = 1e-2f;
    for (int i = 0; i < THAW_ACTIVATIONS; i++) {
        thaw_activation act = (thaw_activation)i;
        float y[C], dx[C];
        ref->activation_forward(act, C, C, x, y);
        ref->activation_backward(act, C, C, act == THAW_ACTIVATION_SWISH ? x : NULL, y, dy, dx, false);
        for (int at = 0; at < C; at++) {
            double loss[2] = {0.0, 0.0};
            for (int side = 0; side < 2; side++) {
                float moved[C];
                memcpy(moved, x, sizeof x);
                moved[at] += side ? step : -step;
                ref->activation_forward(act, C, C, moved, y);
                for (int j = 0; j < C; j++)
                    loss[side] += (double)y[j] * (double)dy[j];
            }
            double expected = (loss[1] - loss[0]) / (2.0 * (double)step);
            if (!(fabs(expected - (double)dx[at]) < 2e-3))
                fail_msg("activation %d at %g: gradient %g, differences %g", i, (double)x[at], (double)dx[at], expected);
        }
    }
}

static void test_kinks_and_nan(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
        const float edge[3] = {0.0f, 6.0f, 3.0f}, ones[3] = {1, 1, 1}, bad[3] = {NAN, -INFINITY, INFINITY};
        float out[3];
        k->activation_backward(THAW_ACTIVATION_RELU, 3, 3, NULL, edge, ones, out, false);
        assert_true(out[0] == 0 && out[1] == 1 && out[2] == 1);
        k->activation_backward(THAW_ACTIVATION_RELU6, 3, 3, NULL, edge, ones, out, false);
        assert_true(out[0] == 0 && out[1] == 0 && out[2] == 1);
        for (int i = 0; i < THAW_ACTIVATIONS; i++) {
            k->activation_forward((thaw_activation)i, 3, 3, bad, out);
            assert_true(isnan(out[0]));
        }
        k->activation_forward(THAW_ACTIVATION_RELU6, 3, 3, bad, out);
        assert_true(out[1] == 0 && out[2] == 6);
        k->relu_forward(INFINITY, 0, 0, 3, bad, out);
        assert_true(isnan(out[0]) && out[1] == 0 && isinf(out[2]));
        /* Rows that exp alone would overflow. */
        const float large[3] = {1000.0f, 999.0f, -1000.0f};
        k->activation_forward(THAW_ACTIVATION_SOFTMAX, 3, 3, large, out);
        assert_true(fabsf(out[0] - 0.7310586f) < 1e-6f && fabsf(out[1] - 0.2689414f) < 1e-6f && out[2] == 0);
    }
}

/* Keras' ReLU layer: {max_value, slope, threshold}, x, y, gradient. */
static void test_relu_layer(void **state) {
    (void)state;
    static const struct {
        float max_value, slope, threshold, x, y, gradient;
    } cases[] = {
        {INFINITY, 0, 0, -2, 0, 0},         {INFINITY, 0, 0, 0, 0, 0},         {INFINITY, 0, 0, 2, 2, 1},
        {INFINITY, 0.5f, 0, -2, -1, 0.5f},  {INFINITY, 0.5f, 0, 0, 0, 0.5f},   {INFINITY, 0.5f, 0, 2, 2, 1},
        {6, 0, 0, 5, 5, 1},                 {6, 0, 0, 6, 6, 0},                {6, 0, 0, 7, 6, 0},
        {4, 0, 0, 4, 4, 1},                 {4, 0, 0, 5, 4, 0},                {6, 0.5f, 0, 0, 0, 0},
        {6, 0.5f, 0, -4, -2, 0.5f},         {6, 0.5f, 1, 6, 6, 1},             {INFINITY, 0, 2, 1, 0, 0},
        {INFINITY, 0, 2, 2, 0, 0},          {INFINITY, 0, 2, 3, 3, 1},         {INFINITY, 0.5f, 2, 2, 0, 0},
        {INFINITY, 0.5f, 2, 0, -1, 0.5f},   {8, 0.25f, 2, 9, 8, 0},            {8, 0.25f, 2, -2, -1, 0.25f},
    };
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const float dy = 2.0f;
            float y = 99.0f, dx = 10.0f;
            k->relu_forward(cases[i].max_value, cases[i].slope, cases[i].threshold, 1, &cases[i].x, &y);
            if (y != cases[i].y)
                fail_msg("%s case %zu: y %g, expected %g", k->name, i, (double)y, (double)cases[i].y);
            k->relu_backward(cases[i].max_value, cases[i].slope, cases[i].threshold, 1, &cases[i].x, &dy, &dx, true);
            if (dx != 10.0f + 2.0f * cases[i].gradient)
                fail_msg("%s case %zu: dx %g", k->name, i, (double)dx);
            k->relu_backward(cases[i].max_value, cases[i].slope, cases[i].threshold, 1, &cases[i].x, &dy, &dx, false);
            assert_true(dx == 2.0f * cases[i].gradient);
        }
    }
    int64_t count = 20001;
    float *x = integers(count, 9), *a = unset(count), *b = unset(count);
    thaw_kernels_fast()->relu_forward(6, 0.5f, 1, count, x, a);
    thaw_kernels_reference()->relu_forward(6, 0.5f, 1, count, x, b);
    assert_same(a, b, count, "relu layer");
    thaw_kernels_fast()->relu_forward(6, 0.5f, 1, count, x, x);
    assert_same(x, b, count, "relu layer in place");
    thaw_free(x), thaw_free(a), thaw_free(b);
}

static void test_scale_shift(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{0, 3}, {1, 1}, {50, 7}, {300, 64}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        for (int act = THAW_ACTIVATION_LINEAR; act <= THAW_ACTIVATION_RELU6; act++) {
            int64_t rows = shapes[k][0], c = shapes[k][1];
            float *x = integers(rows * c, 9), *scale = integers(c, 4), *shift = integers(c, 4);
            float *a = unset(rows * c), *b = unset(rows * c);
            thaw_kernels_fast()->scale_shift(rows, c, x, scale, shift, (thaw_activation)act, a);
            thaw_kernels_reference()->scale_shift(rows, c, x, scale, shift, (thaw_activation)act, b);
            assert_same(a, b, rows * c, "scale and shift");
            thaw_free(x), thaw_free(scale), thaw_free(shift), thaw_free(a), thaw_free(b);
        }
}

static void test_padding(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    static const int64_t pads[][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {3, 0, 1, 2}, {0, 2, 4, 0}};
    for (size_t k = 0; k < 4; k++)
        for (int64_t n = 0; n <= 3; n += n ? 2 : 1) {
            int64_t h = 5, w = 4, c = 3, oh = h + pads[k][0] + pads[k][1], ow = w + pads[k][2] + pads[k][3];
            int64_t in = n * h * w * c, out = n * oh * ow * c;
            float *x = integers(in, 9), *dy = integers(out, 9), *a = unset(out), *b = unset(out);
            fast->zero_pad_forward(n, h, w, c, pads[k], x, a);
            ref->zero_pad_forward(n, h, w, c, pads[k], x, b);
            assert_same(a, b, out, "zero padding");
            if (n) /* the first cell lies behind pad[top] rows and pad[left] columns */
                assert_true(a[(pads[k][0] * ow + pads[k][2]) * c] == x[0]);
            float *da = integers(in, 5), *db = copy_of(da, in);
            for (int accumulate = 1; accumulate >= 0; accumulate--) {
                fast->zero_pad_backward(n, h, w, c, pads[k], dy, da, accumulate != 0);
                ref->zero_pad_backward(n, h, w, c, pads[k], dy, db, accumulate != 0);
                assert_same(da, db, in, "zero padding gradient");
            }
            thaw_free(x), thaw_free(dy), thaw_free(a), thaw_free(b), thaw_free(da), thaw_free(db);
        }
}

static void test_add_and_copy(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    for (int k = 0; k < COUNTS; k++) {
        int64_t count = counts[k];
        float *x = integers(count, 9), *y = integers(count, 9), *a = unset(count), *b = unset(count);
        fast->add_forward(count, x, y, a);
        ref->add_forward(count, x, y, b);
        assert_same(a, b, count, "add");
        fast->add_forward(count, x, y, x);
        assert_same(x, b, count, "add in place");
        thaw_free(x), thaw_free(y), thaw_free(a), thaw_free(b);
    }
    static const int64_t shapes[][4] = {{0, 2, 5, 5}, {7, 3, 5, 9}, {100, 90, 90, 200}, {100, 90, 200, 90}};
    for (size_t k = 0; k < 4; k++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            int64_t rows = shapes[k][0], c = shapes[k][1], from = shapes[k][2], to = shapes[k][3];
            float *x = integers(rows * from, 9), *a = integers(rows * to, 9), *b = copy_of(a, rows * to);
            fast->copy_rows(rows, c, x, from, a, to, accumulate != 0);
            ref->copy_rows(rows, c, x, from, b, to, accumulate != 0);
            assert_same(a, b, rows * to, "copy rows");
            if (rows && !accumulate)
                assert_true(a[to + c - 1] == x[from + c - 1]);
            thaw_free(x), thaw_free(a), thaw_free(b);
        }
}

static void test_dropout(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    const int64_t samples[3] = {7, INT64_C(1) << 40, 7};
    for (int64_t n = 0; n <= 3; n += n ? 2 : 1)
        for (int64_t count = 1; count <= 1030; count = count * 2 + 1) {
            float *x = integers(n * count, 9), *a = integers(n * count, 9), *b = copy_of(a, n * count);
            for (int accumulate = 1; accumulate >= 0; accumulate--) {
                fast->dropout(n, count, 0.3f, 5, 2, 99, samples, x, a, accumulate != 0);
                ref->dropout(n, count, 0.3f, 5, 2, 99, samples, x, b, accumulate != 0);
                assert_same(a, b, n * count, "dropout");
            }
            float *in_place = copy_of(x, n * count);
            fast->dropout(n, count, 0.3f, 5, 2, 99, samples, in_place, in_place, false);
            assert_same(in_place, a, n * count, "dropout in place");
            thaw_free(x), thaw_free(a), thaw_free(b), thaw_free(in_place);
        }
    enum { MANY = 10000 };
    static float ones[3 * MANY], y[3 * MANY];
    for (int i = 0; i < 3 * MANY; i++)
        ones[i] = 1.0f;
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? fast : ref;
        k->dropout(3, MANY, 0.25f, 1, 0, 4, samples, ones, y, false);
        int kept = 0;
        for (int i = 0; i < MANY; i++) {
            thaw_draw draw = thaw_philox(1, THAW_DRAW_DROPOUT, 0, 7, 4 + (uint32_t)i / 4);
            float expected = thaw_uniform(draw.word[i % 4]) >= 0.25f ? 1.0f / 0.75f : 0.0f;
            assert_true(y[i] == expected);
            kept += y[i] != 0.0f;
        }
        assert_in_range(kept, 7300, 7700);
        assert_memory_equal(y, y + 2 * MANY, MANY * sizeof *y); /* the same sample, another place in the batch */
        assert_memory_not_equal(y, y + MANY, MANY * sizeof *y);
        k->dropout(3, MANY, 0.0f, 1, 0, 4, samples, ones, y, false);
        assert_memory_equal(y, ones, sizeof ones);
        k->dropout(3, MANY, 1.0f, 1, 0, 4, samples, ones, y, false);
        for (int i = 0; i < MANY; i++)
            assert_true(y[i] == 0.0f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations), cmocka_unit_test(test_activation_gradients),
        cmocka_unit_test(test_kinks_and_nan), cmocka_unit_test(test_relu_layer),
        cmocka_unit_test(test_scale_shift),   cmocka_unit_test(test_padding),
        cmocka_unit_test(test_add_and_copy),  cmocka_unit_test(test_dropout),
    };
    thaw_threads_set(3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
