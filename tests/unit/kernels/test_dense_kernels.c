/* Dense layers: fast against reference on integers; threads and batches never change a bit. */
#include "kernel_case.h"

static const int64_t shapes[][2] = {{1, 1},    {7, 10},     {64, 64},    {65, 63},    {100, 1000}, {1025, 70},
                                    {300, 1024}, {257, 1030}, {2050, 128}, {1023, 257}, {33, 2051}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void compare(int64_t n, int64_t in, int64_t units) {
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    float *x = integers(n * in, 3), *kernel = integers(in * units, 3), *bias = integers(units, 3), *dy = integers(n * units, 3);
    float *a = unset(n * units), *b = unset(n * units);
    void *scratch = scratch_of(fast->dense_scratch(n, in, units));
    for (int i = 0; i < 4; i++) {
        thaw_activation act = i % 2 ? THAW_ACTIVATION_RELU : THAW_ACTIVATION_LINEAR;
        fast->dense_forward(n, in, units, x, kernel, i < 2 ? bias : NULL, act, a, scratch);
        ref->dense_forward(n, in, units, x, kernel, i < 2 ? bias : NULL, act, b, NULL);
        assert_same(a, b, n * units, "dense forward");
    }
    for (int64_t i = 0; i < in * units; i++)
        kernel[i] /= 64.0f;
    fast->dense_forward(n, in, units, x, kernel, bias, THAW_ACTIVATION_SOFTMAX, a, scratch);
    ref->dense_forward(n, in, units, x, kernel, bias, THAW_ACTIVATION_SOFTMAX, b, NULL);
    assert_near(a, b, n * units, 1e-6, "dense softmax");

    float *dxa = integers(n * in, 5), *dxb = copy_of(dxa, n * in);
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        fast->dense_backward_data(n, in, units, dy, kernel, dxa, accumulate != 0, scratch);
        ref->dense_backward_data(n, in, units, dy, kernel, dxb, accumulate != 0, NULL);
        assert_same(dxa, dxb, n * in, "dense data gradient");
    }
    float *dka = unset(in * units), *dkb = unset(in * units), *dba = unset(units), *dbb = unset(units);
    fast->dense_backward_weights(n, in, units, x, dy, dka, dba, scratch);
    ref->dense_backward_weights(n, in, units, x, dy, dkb, dbb, NULL);
    assert_same(dka, dkb, in * units, "dense weight gradient");
    assert_same(dba, dbb, units, "dense bias gradient");
    fast->dense_backward_weights(n, in, units, x, dy, NULL, NULL, scratch);
    float *all[] = {x, kernel, bias, dy, a, b, dxa, dxb, dka, dkb, dba, dbb};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        thaw_free(all[i]);
    thaw_free(scratch);
}

static void test_fast_equals_reference(void **state) {
    (void)state;
    static const int64_t rows[] = {0, 1, 3, 33};
    for (int i = 0; i < SHAPES; i++)
        for (int r = 0; r < 4; r++)
            compare(rows[r], shapes[i][0], shapes[i][1]);
    compare(300, 40, 20); /* more rows than a piece of the data gradient */
}

static void test_threads_and_batch_never_change_bits(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    int64_t n = 37;
    for (int i = 0; i < SHAPES; i++) {
        int64_t in = shapes[i][0], units = shapes[i][1];
        float *x = fractions(n * in), *kernel = fractions(in * units), *bias = fractions(units), *dy = fractions(n * units);
        float *y[4], *dx[4], *dk[4], *db[4];
        for (int threads = 1; threads <= 3; threads++) {
            thaw_threads_set(threads);
            void *scratch = scratch_of(fast->dense_scratch(n, in, units));
            y[threads] = unset(n * units), dx[threads] = unset(n * in), dk[threads] = unset(in * units);
            db[threads] = unset(units);
            fast->dense_forward(n, in, units, x, kernel, bias, THAW_ACTIVATION_SIGMOID, y[threads], scratch);
            fast->dense_backward_data(n, in, units, dy, kernel, dx[threads], false, scratch);
            fast->dense_backward_weights(n, in, units, x, dy, dk[threads], db[threads], scratch);
            thaw_free(scratch);
            assert_memory_equal(y[threads], y[1], (size_t)(n * units) * sizeof(float));
            assert_memory_equal(dx[threads], dx[1], (size_t)(n * in) * sizeof(float));
            assert_memory_equal(dk[threads], dk[1], (size_t)(in * units) * sizeof(float));
            assert_memory_equal(db[threads], db[1], (size_t)units * sizeof(float));
        }
        thaw_threads_set(2);
        /* Batches of every length up to n start anywhere: rows keep their bits. */
        void *scratch = scratch_of(fast->dense_scratch(n, in, units));
        float *part = unset(n * units);
        for (int64_t first = 0; first < n; first += 3) {
            int64_t rows = first % 2 ? 1 : thaw_threads() + first / 2 < n - first ? thaw_threads() + first / 2 : n - first;
            fast->dense_forward(rows, in, units, x + first * in, kernel, bias, THAW_ACTIVATION_SIGMOID, part, scratch);
            assert_memory_equal(part, y[1] + first * units, (size_t)(rows * units) * sizeof(float));
        }
        thaw_free(scratch), thaw_free(part);
        for (int threads = 1; threads <= 3; threads++) {
            thaw_free(y[threads]), thaw_free(dx[threads]), thaw_free(dk[threads]), thaw_free(db[threads]);
        }
        thaw_free(x), thaw_free(kernel), thaw_free(bias), thaw_free(dy);
    }
}

/* A gradient by slices has the bits of its halves added, whatever the number of threads; empty slices count as zeros. */
static void test_slices(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    static const int64_t start[] = {2, 5, 5, 6, 10, 11, 13, 13, 16}; /* not the first rows */
    for (int i = 0; i < SHAPES; i++) {
        const int64_t in = shapes[i][0], units = shapes[i][1], size = in * units;
        float *x = fractions(16 * in), *dy = fractions(16 * units), *leaf[8], *got = unset(size), *plain = unset(size);
        for (int threads = 1; threads <= 3; threads++) {
            thaw_threads_set(threads);
            void *scratch = scratch_of(fast->dense_scratch(16, in, units));
            for (int slice = 0; slice < 8; slice++) {
                const int64_t from = start[slice];
                leaf[slice] = unset(size);
                fast->dense_backward_slices(in, units, 1, start + slice, x + from * in, dy + from * units, leaf[slice], scratch);
                fast->dense_backward_weights(start[slice + 1] - from, in, units, x + from * in, dy + from * units, plain, NULL,
                                             scratch);
                assert_near(leaf[slice], plain, size, 1e-6, "one slice");
            }
            for (int half = 1; half < 8; half *= 2)
                for (int slice = 0; slice < 8; slice += 2 * half)
                    fast->add_forward(size, leaf[slice], leaf[slice + half], leaf[slice]);
            assert_true(fast->dense_sums_slices(8));
            fast->dense_backward_slices(in, units, 8, start, x + start[0] * in, dy + start[0] * units, got, scratch);
            assert_memory_equal(got, leaf[0], (size_t)size * sizeof *got);
            for (int slice = 0; slice < 8; slice++)
                thaw_free(leaf[slice]);
            thaw_free(scratch);
        }
        thaw_free(x), thaw_free(dy), thaw_free(got), thaw_free(plain);
    }
    thaw_threads_set(2);
}

static void test_table(void **state) {
    (void)state;
    assert_string_equal(thaw_kernels_reference()->name, "reference");
    assert_string_equal(thaw_kernels_fast()->name, "fast");
    assert_ptr_equal(thaw_kernels_get(), thaw_kernels_fast());
    assert_memory_equal(thaw_kernels_describe(), "fast (", 6);
    assert_non_null(strstr(thaw_kernels_describe(), ", convolution auto; OpenBLAS "));
    assert_non_null(strstr(thaw_kernels_describe(), ", 1 thread a call)"));
    for (int which = 0; which < 2; which++) { /* every function is there */
        const thaw_kernels *table = which ? thaw_kernels_fast() : thaw_kernels_reference();
        void (*function)(void);
        for (size_t at = offsetof(thaw_kernels, conv_scratch); at < sizeof *table; at += sizeof function) {
            memcpy(&function, (const char *)table + at, sizeof function);
            assert_non_null(function);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_reference),
        cmocka_unit_test(test_threads_and_batch_never_change_bits),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_table),
    };
    unsetenv("THAW_KERNELS");
    thaw_kernels_init();
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
