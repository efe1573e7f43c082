/* Pooling: fast against reference; ties, NaN, threads, batches. */
#include "kernel_case.h"

static int cases(thaw_window *list) {
    int n = 0;
    /*                     h   w   c   c  kh kw sh sw dh dw  pads */
    list[n++] = window_of(14, 14, 64, 64, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0);
    list[n++] = window_of(15, 13, 65, 65, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0); /* cells that nobody reads */
    list[n++] = window_of(15, 13, 7, 7, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1);   /* overlap, padding */
    list[n++] = window_of(12, 12, 130, 130, 3, 3, 2, 2, 1, 1, 0, 1, 0, 1);
    list[n++] = window_of(9, 8, 5, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    list[n++] = window_of(9, 8, 3, 3, 2, 5, 3, 1, 1, 1, 0, 0, 2, 2);
    list[n++] = window_of(11, 10, 3, 3, 3, 2, 1, 2, 2, 3, 2, 2, 1, 2); /* dilation */
    list[n++] = window_of(4, 4, 1, 1, 2, 2, 2, 2, 1, 1, 3, 3, 3, 3);   /* windows outside the image */
    list[n++] = window_of(3, 2, 9, 9, 3, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return n;
}

enum { MOST_CASES = 9 };

static void compare(const thaw_window *s, int64_t n) {
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    int64_t in = n * s->h * s->w * s->cin, out = n * s->oh * s->ow * s->cin;
    float *x = integers(in, 2), *dy = integers(out, 9), *a = unset(out), *b = unset(out); /* many ties */
    uint16_t *ta = thaw_malloc((size_t)out * 2), *tb = thaw_malloc((size_t)out * 2);
    fast->max_pool_forward(s, n, x, a, ta);
    ref->max_pool_forward(s, n, x, b, tb);
    assert_same(a, b, out, "max pooling");
    assert_memory_equal(ta, tb, (size_t)out * 2);
    memset(a, 0x5a, (size_t)out * sizeof *a);
    fast->max_pool_forward(s, n, x, a, NULL);
    assert_same(a, b, out, "max pooling without argmax");
    float *dxa = integers(in, 5), *dxb = copy_of(dxa, in);
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        fast->max_pool_backward(s, n, dy, ta, dxa, accumulate != 0);
        ref->max_pool_backward(s, n, dy, tb, dxb, accumulate != 0);
        assert_same(dxa, dxb, in, "max pooling gradient");
    }
    fast->average_pool_forward(s, n, x, a);
    ref->average_pool_forward(s, n, x, b);
    assert_same(a, b, out, "average pooling");
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        fast->average_pool_backward(s, n, dy, dxa, accumulate != 0);
        ref->average_pool_backward(s, n, dy, dxb, accumulate != 0);
        assert_near(dxa, dxb, in, 1e-6, "average pooling gradient");
    }
    thaw_free(x), thaw_free(dy), thaw_free(a), thaw_free(b), thaw_free(ta), thaw_free(tb), thaw_free(dxa), thaw_free(dxb);
}

static void test_windows(void **state) {
    (void)state;
    thaw_window list[MOST_CASES];
    int count = cases(list);
    for (int i = 0; i < count; i++)
        for (int64_t n = 0; n <= 3; n += n ? 2 : 1)
            compare(&list[i], n);
}

static void test_global(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    static const int64_t shapes[][3] = {{0, 4, 3}, {1, 1, 1}, {3, 49, 70}, {2, 64, 64}, {3, 5, 200}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        int64_t n = shapes[k][0], hw = shapes[k][1], c = shapes[k][2], in = n * hw * c, out = n * c;
        float *x = integers(in, 4), *dy = integers(out, 9), *a = unset(out), *b = unset(out);
        float *dxa = integers(in, 5), *dxb = copy_of(dxa, in);
        int32_t *pa = thaw_malloc((size_t)out * 4), *pb = thaw_malloc((size_t)out * 4);
        fast->global_average_forward(n, hw, c, x, a);
        ref->global_average_forward(n, hw, c, x, b);
        assert_same(a, b, out, "global average");
        for (int accumulate = 1; accumulate >= 0; accumulate--) {
            fast->global_average_backward(n, hw, c, dy, dxa, accumulate != 0);
            ref->global_average_backward(n, hw, c, dy, dxb, accumulate != 0);
            assert_same(dxa, dxb, in, "global average gradient");
        }
        fast->global_max_forward(n, hw, c, x, a, pa);
        ref->global_max_forward(n, hw, c, x, b, pb);
        assert_same(a, b, out, "global max");
        assert_memory_equal(pa, pb, (size_t)out * 4);
        fast->global_max_forward(n, hw, c, x, a, NULL);
        assert_same(a, b, out, "global max without argmax");
        for (int accumulate = 1; accumulate >= 0; accumulate--) {
            fast->global_max_backward(n, hw, c, dy, pa, dxa, accumulate != 0);
            ref->global_max_backward(n, hw, c, dy, pb, dxb, accumulate != 0);
            assert_same(dxa, dxb, in, "global max gradient");
        }
        thaw_free(x), thaw_free(dy), thaw_free(a), thaw_free(b), thaw_free(dxa), thaw_free(dxb), thaw_free(pa), thaw_free(pb);
    }
}

/* First maximum wins; padding never does; NaN reaches the output; -infinity is a value. Both tables. */
static void test_meaning(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
        thaw_window s = window_of(2, 3, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0);
        assert_int_equal(s.oh, 2);
        assert_int_equal(s.ow, 2);
        float x[64 / 4 * 4] = {-5, -2, -2, -3, -1, -1}, y[16], dx[16];
        uint16_t tap[16];
        k->max_pool_forward(&s, 1, x, y, tap);
        assert_true(y[0] == -5 && y[1] == -2 && y[2] == -3 && y[3] == -1);
        assert_true(tap[0] == 3 && tap[1] == 2 && tap[2] == 1 && tap[3] == 0);
        const float dy[16] = {1, 2, 3, 4};
        k->max_pool_backward(&s, 1, dy, tap, dx, false);
        assert_true(dx[0] == 1 && dx[1] == 2 && dx[2] == 0 && dx[3] == 3 && dx[4] == 4 && dx[5] == 0);
        k->average_pool_forward(&s, 1, x, y);
        assert_true(y[0] == -5 && y[1] == -2 && y[2] == -3 && y[3] == -1);

        thaw_window whole = window_of(2, 3, 1, 1, 2, 3, 1, 1, 1, 1, 0, 0, 0, 0);
        int32_t cell[16];
        for (int at = 0; at < 6; at++) {
            float with_nan[16] = {1, 2, 3, 4, 5, 6};
            with_nan[at] = NAN;
            k->max_pool_forward(&whole, 1, with_nan, y, tap);
            assert_true(isnan(y[0]));
            assert_int_equal(tap[0], at);
            k->max_pool_forward(&whole, 1, with_nan, y, NULL);
            assert_true(isnan(y[0]));
            k->global_max_forward(1, 6, 1, with_nan, y, cell);
            assert_true(isnan(y[0]));
            assert_int_equal(cell[0], at);
        }
        float low[16];
        for (int i = 0; i < 16; i++)
            low[i] = -INFINITY;
        k->max_pool_forward(&whole, 1, low, y, tap);
        assert_true(isinf(y[0]) && y[0] < 0 && tap[0] == 0);
    }
}

static void test_threads_and_batch_never_change_bits(void **state) {
    (void)state;
    const thaw_kernels *k = thaw_kernels_fast();
    thaw_window list[MOST_CASES];
    int count = cases(list);
    int64_t n = 3;
    for (int i = 0; i < count; i++) {
        const thaw_window *s = &list[i];
        int64_t in = s->h * s->w * s->cin, out = s->oh * s->ow * s->cin, hw = s->h * s->w, c = s->cin;
        float *x = fractions(n * in), *dy = fractions(n * out), *y[4], *z[4], *dx[4], *g[4];
        uint16_t *tap = thaw_malloc((size_t)(n * out) * 2);
        for (int threads = 1; threads <= 3; threads++) {
            thaw_threads_set(threads);
            y[threads] = unset(n * out), z[threads] = unset(n * out), dx[threads] = unset(n * in), g[threads] = unset(n * c);
            k->average_pool_forward(s, n, x, y[threads]);
            k->max_pool_forward(s, n, x, z[threads], tap);
            k->max_pool_backward(s, n, dy, tap, dx[threads], false);
            k->average_pool_backward(s, n, dy, dx[threads], true);
            k->global_average_forward(n, hw, c, x, g[threads]);
            assert_memory_equal(y[threads], y[1], (size_t)(n * out) * sizeof(float));
            assert_memory_equal(z[threads], z[1], (size_t)(n * out) * sizeof(float));
            assert_memory_equal(dx[threads], dx[1], (size_t)(n * in) * sizeof(float));
            assert_memory_equal(g[threads], g[1], (size_t)(n * c) * sizeof(float));
        }
        thaw_threads_set(2);
        for (int64_t image = 0; image < n; image++) {
            k->average_pool_forward(s, 1, x + image * in, y[2]);
            assert_memory_equal(y[2], y[1] + image * out, (size_t)out * sizeof(float));
            k->max_pool_forward(s, 1, x + image * in, z[2], NULL);
            assert_memory_equal(z[2], z[1] + image * out, (size_t)out * sizeof(float));
            k->global_average_forward(1, hw, c, x + image * in, g[2]);
            assert_memory_equal(g[2], g[1] + image * c, (size_t)c * sizeof(float));
        }
        for (int threads = 1; threads <= 3; threads++) {
            thaw_free(y[threads]), thaw_free(z[threads]), thaw_free(dx[threads]), thaw_free(g[threads]);
        }
        thaw_free(x), thaw_free(dy), thaw_free(tap);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_threads_and_batch_never_change_bits),
    };
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
