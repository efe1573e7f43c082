/* Convolution: fast against reference on integers, to the bit; threads and batches never change a bit. */
#include "kernel_case.h"

typedef struct conv_case {
    const char *name;
    thaw_window s;
} conv_case;

/* Each case just misses a condition of the fast path, or just meets it. */
static int cases(const conv_case **out) {
    static conv_case list[32];
    int n = 0;
#define CASE(text, ...) list[n++] = (conv_case){text, window_of(__VA_ARGS__)}
    /*                          h   w  cin cout kh kw sh sw dh dw  pads */
    CASE("3x3 same", 14, 14, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("3x3, odd everything", 13, 11, 5, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("first layer", 19, 21, 3, 17, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("several tiles, a short last one", 53, 47, 16, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("several chunks of depth", 6, 5, 200, 19, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("many chunks of depth: weight gradient in one group", 4, 3, 600, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("many tiles: several for each group of the weight gradient", 77, 75, 1, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("7x7 stride 2 asymmetric padding", 22, 20, 3, 9, 7, 7, 2, 2, 1, 1, 2, 3, 2, 3);
    CASE("3x3 stride 2 even", 12, 12, 6, 6, 3, 3, 2, 2, 1, 1, 0, 1, 0, 1);
    CASE("3x3 stride 2 valid, cells that nobody reads", 12, 10, 4, 6, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0);
    CASE("strides 3 and 2", 13, 15, 4, 5, 3, 5, 3, 2, 1, 1, 1, 1, 2, 2);
    CASE("stride larger than the kernel", 11, 11, 4, 3, 2, 2, 3, 3, 1, 1, 0, 0, 0, 0);
    CASE("dilation 2", 12, 13, 6, 4, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2);
    CASE("dilation 2 in one direction", 12, 13, 6, 4, 3, 3, 1, 1, 1, 2, 1, 1, 2, 2);
    CASE("dilation 3, stride 2", 17, 16, 3, 4, 3, 3, 2, 2, 3, 3, 3, 3, 2, 3);
    CASE("dilation 2, stride 4", 17, 18, 3, 4, 3, 3, 4, 4, 2, 2, 2, 2, 2, 2);
    CASE("1x7", 9, 17, 12, 10, 1, 7, 1, 1, 1, 1, 0, 0, 3, 3);
    CASE("7x1", 17, 9, 12, 10, 7, 1, 1, 1, 1, 1, 3, 3, 0, 0);
    CASE("1x1", 15, 14, 24, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("1x1 stride 2", 15, 14, 24, 33, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0);
    CASE("1x1 with padding", 6, 5, 4, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("1x1 on 1x1", 1, 1, 40, 10, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("kernel as large as the image", 5, 4, 7, 6, 5, 4, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("kernel larger than the image", 2, 3, 5, 6, 5, 7, 1, 1, 1, 1, 2, 2, 3, 3);
    CASE("one channel each", 8, 9, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
#undef CASE
    *out = list;
    return n;
}

static int64_t input_of(const thaw_window *s) { return s->h * s->w * s->cin; }
static int64_t output_of(const thaw_window *s) { return s->oh * s->ow * s->cout; }
static int64_t kernel_of(const thaw_window *s) { return s->kh * s->kw * s->cin * s->cout; }

static void compare(const conv_case *t, int64_t n) {
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    const thaw_window *s = &t->s;
    int64_t in = n * input_of(s), out = n * output_of(s), size = kernel_of(s);
    float *x = integers(in, 3), *dy = integers(out, 3), *kernel = integers(size, 3), *bias = integers(s->cout, 3);
    float *a = unset(out), *b = unset(out);
    void *scratch = scratch_of(fast->conv_scratch(s, n));
    for (int with_bias = 0; with_bias < 2; with_bias++)
        for (int act = THAW_ACTIVATION_LINEAR; act <= THAW_ACTIVATION_RELU6; act++) {
            fast->conv_forward(s, n, x, kernel, with_bias ? bias : NULL, (thaw_activation)act, a, scratch);
            ref->conv_forward(s, n, x, kernel, with_bias ? bias : NULL, (thaw_activation)act, b, NULL);
            assert_same(a, b, out, t->name);
        }
    fast->conv_forward(s, n, x, kernel, bias, THAW_ACTIVATION_SWISH, a, scratch);
    ref->conv_forward(s, n, x, kernel, bias, THAW_ACTIVATION_SWISH, b, NULL);
    assert_near(a, b, out, 1e-6, t->name);

    float *dxa = integers(in, 5), *dxb = copy_of(dxa, in);
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        fast->conv_backward_data(s, n, dy, kernel, dxa, accumulate != 0, scratch);
        ref->conv_backward_data(s, n, dy, kernel, dxb, accumulate != 0, NULL);
        assert_same(dxa, dxb, in, t->name);
    }
    float *dka = unset(size), *dkb = unset(size), *dba = unset(s->cout), *dbb = unset(s->cout);
    fast->conv_backward_weights(s, n, x, dy, dka, dba, scratch);
    ref->conv_backward_weights(s, n, x, dy, dkb, dbb, NULL);
    assert_same(dka, dkb, size, t->name);
    assert_same(dba, dbb, s->cout, t->name);
    memset(dka, 0x5a, (size_t)size * sizeof *dka);
    memset(dba, 0x5a, (size_t)s->cout * sizeof *dba);
    fast->conv_backward_weights(s, n, x, dy, dka, NULL, scratch); /* each may be left out */
    fast->conv_backward_weights(s, n, x, dy, NULL, dba, scratch);
    assert_same(dka, dkb, size, t->name);
    assert_same(dba, dbb, s->cout, t->name);
    float *all[] = {x, dy, kernel, bias, a, b, dxa, dxb, dka, dkb, dba, dbb};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        thaw_free(all[i]);
    thaw_free(scratch);
}

static void test_fast_equals_reference(void **state) {
    (void)state;
    const conv_case *list;
    int count = cases(&list);
    for (int i = 0; i < count; i++)
        for (int64_t n = 0; n <= 3; n += n ? 2 : 1)
            compare(&list[i], n);
}

/* Bits of all three directions with 2 and 3 threads are those with 1. */
static void test_threads_never_change_bits(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const conv_case *list;
    int count = cases(&list);
    int64_t n = 3;
    for (int i = 0; i < count; i++) {
        const thaw_window *s = &list[i].s;
        int64_t in = n * input_of(s), out = n * output_of(s), size = kernel_of(s);
        float *x = fractions(in), *dy = fractions(out), *kernel = fractions(size), *bias = fractions(s->cout);
        float *y[4], *dx[4], *dk[4], *db[4];
        for (int threads = 1; threads <= 3; threads++) {
            thaw_threads_set(threads);
            void *scratch = scratch_of(fast->conv_scratch(s, n));
            y[threads] = unset(out), dx[threads] = unset(in), dk[threads] = unset(size), db[threads] = unset(s->cout);
            fast->conv_forward(s, n, x, kernel, bias, THAW_ACTIVATION_TANH, y[threads], scratch);
            fast->conv_backward_data(s, n, dy, kernel, dx[threads], false, scratch);
            fast->conv_backward_data(s, n, dy, kernel, dx[threads], true, scratch);
            fast->conv_backward_weights(s, n, x, dy, dk[threads], db[threads], scratch);
            thaw_free(scratch);
            assert_memory_equal(y[threads], y[1], (size_t)out * sizeof(float));
            assert_memory_equal(dx[threads], dx[1], (size_t)in * sizeof(float));
            assert_memory_equal(dk[threads], dk[1], (size_t)size * sizeof(float));
            assert_memory_equal(db[threads], db[1], (size_t)s->cout * sizeof(float));
        }
        thaw_threads_set(2);
        for (int threads = 1; threads <= 3; threads++) {
            thaw_free(y[threads]), thaw_free(dx[threads]), thaw_free(dk[threads]), thaw_free(db[threads]);
        }
        thaw_free(x), thaw_free(dy), thaw_free(kernel), thaw_free(bias);
    }
}

/* An image alone has the bits that it has at any place of a batch. */
static void test_batch_never_changes_bits(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const conv_case *list;
    int count = cases(&list);
    int64_t n = 5;
    for (int i = 0; i < count; i++) {
        const thaw_window *s = &list[i].s;
        int64_t in = input_of(s), out = output_of(s);
        float *x = fractions(n * in), *kernel = fractions(kernel_of(s)), *bias = fractions(s->cout);
        float *y = unset(n * out), *one = unset(out), *alone = thaw_malloc((size_t)in * sizeof *alone);
        void *scratch = scratch_of(fast->conv_scratch(s, n)), *small = scratch_of(fast->conv_scratch(s, 1));
        fast->conv_forward(s, n, x, kernel, bias, THAW_ACTIVATION_RELU, y, scratch);
        for (int64_t image = 0; image < n; image++) {
            memcpy(alone, x + image * in, (size_t)in * sizeof *alone);
            fast->conv_forward(s, 1, alone, kernel, bias, THAW_ACTIVATION_RELU, one, small);
            if (memcmp(one, y + image * out, (size_t)out * sizeof *one) != 0)
                fail_msg("%s: image %lld differs alone", list[i].name, (long long)image);
        }
        thaw_free(x), thaw_free(kernel), thaw_free(bias), thaw_free(y), thaw_free(one), thaw_free(alone);
        thaw_free(scratch), thaw_free(small);
    }
}

/* Central differences of the reference's forward function against its backward functions: <dy, conv(x)> is linear in x and
 * in the kernel, so that differences of integers are exact. */
static void test_reference_gradients(void **state) {
    (void)state;
    const thaw_kernels *ref = thaw_kernels_reference();
    const conv_case *list;
    int count = cases(&list);
    for (int i = 0; i < count; i++) {
        const thaw_window *s = &list[i].s;
        int64_t n = 2, in = n * input_of(s), out = n * output_of(s), size = kernel_of(s);
        float *x = integers(in, 3), *dy = integers(out, 3), *kernel = integers(size, 3), *y = unset(out);
        float *dx = unset(in), *dk = unset(size);
        ref->conv_backward_data(s, n, dy, kernel, dx, false, NULL);
        ref->conv_backward_weights(s, n, x, dy, dk, NULL, NULL);
        for (int probe = 0; probe < 6; probe++) {
            bool of_x = probe % 2 == 0;
            int64_t at = (int64_t)(case_draw() % (uint32_t)(of_x ? in : size));
            float *value = of_x ? &x[at] : &kernel[at], keep = *value;
            double loss[2];
            for (int side = 0; side < 2; side++) {
                *value = keep + (side ? 1.0f : -1.0f);
                ref->conv_forward(s, n, x, kernel, NULL, THAW_ACTIVATION_LINEAR, y, NULL);
                loss[side] = 0.0;
                for (int64_t e = 0; e < out; e++)
                    loss[side] += (double)y[e] * (double)dy[e];
            }
            *value = keep;
            if ((loss[1] - loss[0]) / 2.0 != (double)(of_x ? dx[at] : dk[at]))
                fail_msg("%s: gradient of %s[%lld]", list[i].name, of_x ? "x" : "kernel", (long long)at);
        }
        thaw_free(x), thaw_free(dy), thaw_free(kernel), thaw_free(y), thaw_free(dx), thaw_free(dk);
    }
}

/* Old contents of the output, even NaN, do not enter. */
static void test_output_is_overwritten(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    thaw_window s = window_of(9, 9, 200, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    int64_t in = input_of(&s), out = output_of(&s), size = kernel_of(&s);
    float *x = integers(in, 3), *kernel = integers(size, 3), *y = unset(out), *dx = unset(in), *dk = unset(size);
    void *scratch = thaw_malloc(fast->conv_scratch(&s, 1));
    memset(y, 0xff, (size_t)out * sizeof *y);
    memset(dx, 0xff, (size_t)in * sizeof *dx);
    memset(dk, 0xff, (size_t)size * sizeof *dk);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1));
    fast->conv_forward(&s, 1, x, kernel, NULL, THAW_ACTIVATION_LINEAR, y, scratch);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1));
    fast->conv_backward_data(&s, 1, y, kernel, dx, false, scratch);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1));
    fast->conv_backward_weights(&s, 1, x, y, dk, NULL, scratch);
    for (int64_t i = 0; i < out; i++)
        assert_true(isfinite(y[i]));
    for (int64_t i = 0; i < in; i++)
        assert_true(isfinite(dx[i]));
    for (int64_t i = 0; i < size; i++)
        assert_true(isfinite(dk[i]));
    thaw_free(x), thaw_free(kernel), thaw_free(y), thaw_free(dx), thaw_free(dk), thaw_free(scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_reference),  cmocka_unit_test(test_threads_never_change_bits),
        cmocka_unit_test(test_batch_never_changes_bits), cmocka_unit_test(test_reference_gradients),
        cmocka_unit_test(test_output_is_overwritten),
    };
    thaw_kernels_init();
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
