/* Convolution: fast against reference on integers, to the bit; threads and batches never change a bit. Every instruction set
 * that the processor has, with packed kernels and without. Winograd's errors: test_winograd.c. */
#include "kernel_case.h"

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"
#include "kernels/winograd.h"

static const char *const ISAS[] = {"avx512", "avx2", "portable"};

typedef struct conv_case {
    const char *name;
    thaw_window s;
} conv_case;

/* Each case just misses a condition of the fast path, or just meets it. */
static int cases(const conv_case **out) {
    static conv_case list[40];
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
    CASE("3x3 same 40 to 48, partial tiles", 9, 14, 40, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("3x3 valid, a panel and a part", 12, 7, 17, 41, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("3x3 padding 2", 5, 6, 16, 16, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2);
    CASE("one channel each", 8, 9, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
#undef CASE
    *out = list;
    return n;
}

static int64_t input_of(const thaw_window *s) { return s->h * s->w * s->cin; }
static int64_t output_of(const thaw_window *s) { return s->oh * s->ow * s->cout; }
static int64_t kernel_of(const thaw_window *s) { return s->kh * s->kw * s->cin * s->cout; }

/* Both passes that a packed kernel serves; its room ends where it says. */
static void compare_packed(const conv_case *t, int64_t n, const float *x, const float *dy, const float *kernel,
                           const float *bias, void *scratch) {
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    const thaw_window *s = &t->s;
    int64_t in = n * input_of(s), out = n * output_of(s);
    float *packed = unset((int64_t)fast->conv_pack_floats(s, false)), *turned = unset((int64_t)fast->conv_pack_floats(s, true));
    float *a = unset(out), *b = unset(out), *dxa = integers(in, 5), *dxb = copy_of(dxa, in);
    fast->conv_pack(s, false, kernel, NULL, packed, THAW_WHOLE);
    fast->conv_pack(s, true, kernel, NULL, turned, THAW_WHOLE);
    for (int with_bias = 0; with_bias < 2; with_bias++)
        for (int act = THAW_ACTIVATION_LINEAR; act <= THAW_ACTIVATION_RELU6; act++) {
            fast->conv_forward_packed(s, n, x, packed, with_bias ? bias : NULL, NULL, (thaw_activation)act, a, scratch);
            ref->conv_forward(s, n, x, kernel, with_bias ? bias : NULL, (thaw_activation)act, b, NULL);
            assert_same(a, b, out, t->name);
        }
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        fast->conv_backward_data_packed(s, n, dy, turned, dxa, accumulate != 0, scratch);
        ref->conv_backward_data(s, n, dy, kernel, dxb, accumulate != 0, NULL);
        assert_same(dxa, dxb, in, t->name);
    }
    double *scale = thaw_malloc((size_t)s->cout * sizeof *scale); /* powers of two keep it exact */
    float *scaled = copy_of(kernel, kernel_of(s));
    for (int64_t i = 0; i < s->cout; i++)
        scale[i] = (double)(1 << i % 3);
    for (int64_t i = 0; i < kernel_of(s); i++)
        scaled[i] *= (float)scale[i % s->cout];
    fast->conv_pack(s, false, kernel, scale, packed, THAW_WHOLE);
    void *less = scratch_of(fast->conv_forward_scratch(s));
    fast->conv_forward_packed(s, n, x, packed, bias, NULL, THAW_ACTIVATION_LINEAR, a, less);
    thaw_free(less);
    ref->conv_forward(s, n, x, scaled, bias, THAW_ACTIVATION_LINEAR, b, NULL);
    assert_same(a, b, out, t->name);
    thaw_free(scale);
    float *all[] = {packed, turned, a, b, dxa, dxb, scaled};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        thaw_free(all[i]);
}

static void compare(const conv_case *t, int64_t n) {
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    const thaw_window *s = &t->s;
    int64_t in = n * input_of(s), out = n * output_of(s), size = kernel_of(s);
    float *x = integers(in, 3), *dy = integers(out, 3), *kernel = integers(size, 3), *bias = integers(s->cout, 3);
    float *a = unset(out), *b = unset(out);
    void *scratch = scratch_of(fast->conv_scratch(s, n, 1)), *less = scratch_of(fast->conv_forward_scratch(s));
    assert_true(fast->conv_forward_scratch(s) <= fast->conv_scratch(s, n, 1));
    for (int with_bias = 0; with_bias < 2; with_bias++)
        for (int act = THAW_ACTIVATION_LINEAR; act <= THAW_ACTIVATION_RELU6; act++) {
            fast->conv_forward(s, n, x, kernel, with_bias ? bias : NULL, (thaw_activation)act, a, less);
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
    if (fast->conv_pack_floats(s, false) > 0)
        compare_packed(t, n, x, dy, kernel, bias, scratch);
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
    thaw_free(scratch), thaw_free(less);
}

static void test_fast_equals_reference(void **state) {
    (void)state;
    const conv_case *list;
    int count = cases(&list), compared = 0;
    for (int isa = 0; isa < 3; isa++) {
        if (!thaw_isa_choose(ISAS[isa]))
            continue;
        thaw_conv_mode_set(THAW_CONV_DIRECT);
        for (int i = 0; i < count; i++)
            for (int64_t n = 0; n <= 3; n += n ? 2 : 1)
                compare(&list[i], n);
        compared++;
    }
    assert_true(compared >= 1);
    thaw_conv_mode_set(THAW_CONV_BLAS);
    for (int i = 0; i < count; i++) {
        assert_int_equal(thaw_kernels_fast()->conv_pack_floats(&list[i].s, false), 0);
        compare(&list[i], 2);
    }
}

/* All results of one call of each function. */
typedef struct results {
    float *y, *dx, *dk, *db, *packed_y, *packed_dx;
} results;

static results run_all(const thaw_window *s, int64_t n, const float *x, const float *dy, const float *kernel,
                       const float *bias) {
    const thaw_kernels *fast = thaw_kernels_fast();
    int64_t in = n * input_of(s), out = n * output_of(s);
    results r = {unset(out), unset(in), unset(kernel_of(s)), unset(s->cout), unset(out), unset(in)};
    void *scratch = scratch_of(fast->conv_scratch(s, n, 1));
    fast->conv_forward(s, n, x, kernel, bias, THAW_ACTIVATION_TANH, r.y, scratch);
    fast->conv_backward_data(s, n, dy, kernel, r.dx, false, scratch);
    fast->conv_backward_data(s, n, dy, kernel, r.dx, true, scratch);
    fast->conv_backward_weights(s, n, x, dy, r.dk, r.db, scratch);
    for (int backward = 0; backward < 2 && fast->conv_pack_floats(s, false) > 0; backward++) {
        float *packed = unset((int64_t)fast->conv_pack_floats(s, backward));
        fast->conv_pack(s, backward, kernel, NULL, packed, THAW_WHOLE);
        if (backward) {
            fast->conv_backward_data_packed(s, n, dy, packed, r.packed_dx, false, scratch);
            fast->conv_backward_data_packed(s, n, dy, packed, r.packed_dx, true, scratch);
        } else {
            fast->conv_forward_packed(s, n, x, packed, bias, NULL, THAW_ACTIVATION_RELU, r.packed_y, scratch);
        }
        thaw_free(packed);
    }
    thaw_free(scratch);
    return r;
}

static void free_results(results *r) {
    float *all[] = {r->y, r->dx, r->dk, r->db, r->packed_y, r->packed_dx};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        thaw_free(all[i]);
}

static void assert_bits(const float *a, const float *b, int64_t count, const char *name, const char *what) {
    if (memcmp(a, b, (size_t)count * sizeof *a) != 0)
        fail_msg("%s: other bits: %s", name, what);
}

/* Calls `check` for each case, instruction set and algorithm. */
static void each_case(void (*check)(const conv_case *t)) {
    static const thaw_conv_mode modes[] = {THAW_CONV_DIRECT, THAW_CONV_WINOGRAD, THAW_CONV_BLAS};
    const conv_case *list;
    int count = cases(&list);
    for (int isa = 0; isa < 3; isa++)
        for (int mode = 0; mode < 3 && thaw_isa_choose(ISAS[isa]); mode++) {
            thaw_conv_mode_set(modes[mode]);
            for (int i = 0; i < count; i++)
                check(&list[i]);
        }
}

/* Bits with 2, 3 and 7 threads are those with 1, also in scratch made for more threads. */
static void check_threads(const conv_case *t) {
    static const int threads[] = {1, 2, 3, 7};
    const thaw_window *s = &t->s;
    int64_t n = 3, in = n * input_of(s), out = n * output_of(s), size = kernel_of(s);
    float *x = fractions(in), *dy = fractions(out), *kernel = fractions(size), *bias = fractions(s->cout);
    results r[4];
    for (int i = 0; i < 4; i++) {
        thaw_threads_set(threads[i]);
        r[i] = run_all(s, n, x, dy, kernel, bias);
        assert_bits(r[i].y, r[0].y, out, t->name, "y");
        assert_bits(r[i].dx, r[0].dx, in, t->name, "dx");
        assert_bits(r[i].dk, r[0].dk, size, t->name, "dkernel");
        assert_bits(r[i].db, r[0].db, s->cout, t->name, "dbias");
        assert_bits(r[i].packed_y, r[0].packed_y, out, t->name, "y, packed");
        assert_bits(r[i].packed_dx, r[0].packed_dx, in, t->name, "dx, packed");
    }
    void *scratch = scratch_of(thaw_kernels_fast()->conv_scratch(s, n, 1));
    thaw_threads_set(2);
    thaw_kernels_fast()->conv_backward_weights(s, n, x, dy, r[1].dk, NULL, scratch);
    assert_bits(r[1].dk, r[0].dk, size, t->name, "dkernel with the scratch of more threads");
    for (int i = 0; i < 4; i++)
        free_results(&r[i]);
    thaw_free(x), thaw_free(dy), thaw_free(kernel), thaw_free(bias), thaw_free(scratch);
}

static void test_threads_never_change_bits(void **state) {
    (void)state;
    each_case(check_threads);
}

/* An image alone has the bits that it has at any place of a batch. */
static void check_batch(const conv_case *t) {
    const thaw_window *s = &t->s;
    int64_t n = 5, in = input_of(s), out = output_of(s);
    float *x = fractions(n * in), *dy = fractions(n * out), *kernel = fractions(kernel_of(s)), *bias = fractions(s->cout);
    results all = run_all(s, n, x, dy, kernel, bias);
    for (int64_t image = 0; image < n; image++) {
        float *alone = copy_of(x + image * in, in);
        results one = run_all(s, 1, alone, dy + image * out, kernel, bias);
        assert_bits(one.y, all.y + image * out, out, t->name, "y of an image alone");
        assert_bits(one.packed_y, all.packed_y + image * out, out, t->name, "y of an image alone, packed");
        free_results(&one);
        thaw_free(alone);
    }
    free_results(&all);
    thaw_free(x), thaw_free(dy), thaw_free(kernel), thaw_free(bias);
}

static void test_batch_never_changes_bits(void **state) {
    (void)state;
    each_case(check_batch);
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
static void assert_finite(const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        assert_true(isfinite(values[i]));
}

static void check_overwritten(thaw_window s) {
    const thaw_kernels *fast = thaw_kernels_fast();
    int64_t in = input_of(&s), out = output_of(&s), size = kernel_of(&s);
    float *x = integers(in, 3), *kernel = integers(size, 3), *y = unset(out), *dx = unset(in), *dk = unset(size);
    void *scratch = thaw_malloc(fast->conv_scratch(&s, 1, 1));
    memset(y, 0xff, (size_t)out * sizeof *y);
    memset(dx, 0xff, (size_t)in * sizeof *dx);
    memset(dk, 0xff, (size_t)size * sizeof *dk);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1, 1));
    fast->conv_forward(&s, 1, x, kernel, NULL, THAW_ACTIVATION_LINEAR, y, scratch);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1, 1));
    fast->conv_backward_data(&s, 1, y, kernel, dx, false, scratch);
    memset(scratch, 0xff, fast->conv_scratch(&s, 1, 1));
    fast->conv_backward_weights(&s, 1, x, y, dk, NULL, scratch);
    assert_finite(y, out);
    assert_finite(dx, in);
    assert_finite(dk, size);
    for (int backward = 0; backward < 2; backward++) {
        size_t floats = fast->conv_pack_floats(&s, backward);
        float *packed = thaw_malloc(floats * sizeof *packed), *to = backward ? dx : y;
        int64_t count = backward ? in : out;
        memset(packed, 0xff, floats * sizeof *packed);
        fast->conv_pack(&s, backward, kernel, NULL, packed, THAW_WHOLE);
        memset(scratch, 0xff, fast->conv_scratch(&s, 1, 1));
        memset(to, 0xff, (size_t)count * sizeof *to);
        if (backward)
            fast->conv_backward_data_packed(&s, 1, y, packed, dx, false, scratch);
        else
            fast->conv_forward_packed(&s, 1, x, packed, NULL, NULL, THAW_ACTIVATION_LINEAR, y, scratch);
        assert_finite(to, count);
        thaw_free(packed);
    }
    thaw_free(x), thaw_free(kernel), thaw_free(y), thaw_free(dx), thaw_free(dk), thaw_free(scratch);
}

static void test_output_is_overwritten(void **state) {
    (void)state;
    for (int isa = 0; isa < 3; isa++)
        for (int mode = 0; mode < 3 && thaw_isa_choose(ISAS[isa]); mode++) {
            thaw_conv_mode_set((thaw_conv_mode)mode);
            check_overwritten(window_of(9, 9, 200, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1));
            check_overwritten(window_of(9, 7, 33, 50, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1));
        }
}

/* A summand joins before the activation, with the rounding of a sum of its own. */
static void test_summand(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const thaw_activation acts[] = {THAW_ACTIVATION_LINEAR, THAW_ACTIVATION_RELU, THAW_ACTIVATION_TANH};
    const conv_case *list;
    int count = cases(&list);
    for (int isa = 0; isa < 3; isa++)
        for (int mode = 0; mode < 3 && thaw_isa_choose(ISAS[isa]); mode++)
            for (int i = 0; i < count; i++) {
                const thaw_window *s = &list[i].s;
                const int64_t n = 2, out = n * output_of(s);
                thaw_conv_mode_set((thaw_conv_mode)mode);
                float *x = fractions(n * input_of(s)), *kernel = fractions(kernel_of(s)), *bias = fractions(s->cout);
                float *add = fractions(out), *y = unset(out), *want = unset(out);
                float *truth = unset(out), *packed = unset((int64_t)fast->conv_pack_floats(s, false));
                void *scratch = scratch_of(fast->conv_scratch(s, n, 1));
                fast->conv_pack(s, false, kernel, NULL, packed, THAW_WHOLE);
                fast->conv_forward_packed(s, n, x, packed, bias, NULL, THAW_ACTIVATION_LINEAR, want, scratch);
                for (int64_t k = 0; k < out; k++)
                    want[k] += add[k];
                for (int act = 0; act < 3; act++) {
                    fast->conv_forward_packed(s, n, x, packed, bias, add, acts[act], y, scratch);
                    fast->activation_forward(acts[act], out, s->cout, want, truth);
                    for (int64_t k = 0; k < out; k++)
                        if (y[k] != truth[k])
                            fail_msg("%s, %s, activation %d, value %lld: %g, not %g", list[i].name, ISAS[isa], act,
                                     (long long)k, (double)y[k], (double)truth[k]);
                }
                thaw_free(x), thaw_free(kernel), thaw_free(bias), thaw_free(add), thaw_free(y), thaw_free(want);
                thaw_free(packed), thaw_free(scratch), thaw_free(truth);
            }
}

/* NaN in an image comes out of it, whatever relu does with it, and stays in it. */
static void test_nan_stays(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const thaw_window s = window_of(8, 8, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    for (int isa = 0; isa < 3; isa++)
        for (int mode = 0; mode < 3 && thaw_isa_choose(ISAS[isa]); mode++) {
            thaw_conv_mode_set((thaw_conv_mode)mode);
            int64_t in = input_of(&s), out = output_of(&s);
            float *x = fractions(2 * in), *kernel = fractions(kernel_of(&s)), *y = unset(2 * out);
            float *packed = unset((int64_t)fast->conv_pack_floats(&s, false));
            void *scratch = scratch_of(fast->conv_scratch(&s, 2, 1));
            x[in + 32 * 9] = NAN;
            fast->conv_pack(&s, false, kernel, NULL, packed, THAW_WHOLE);
            fast->conv_forward_packed(&s, 2, x, packed, NULL, NULL, THAW_ACTIVATION_RELU, y, scratch);
            assert_finite(y, out);
            assert_true(isnan(y[out]));
            thaw_free(x), thaw_free(kernel), thaw_free(y), thaw_free(packed), thaw_free(scratch);
        }
}

/* Results too large for a cache take another way to memory; and so they do not where rows are no multiple of 64 bytes. */
static void test_large_results(void **state) {
    (void)state;
    static const thaw_activation acts[] = {THAW_ACTIVATION_LINEAR, THAW_ACTIVATION_RELU, THAW_ACTIVATION_RELU6};
    const conv_case list[] = {
        {"1x1, large", window_of(300, 250, 5, 32, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)},
        {"1x1, large, rows of 33", window_of(300, 250, 5, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)},
        {"3x3, large", window_of(300, 250, 2, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)},
    };
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    for (int i = 0; i < 3; i++) {
        const thaw_window *s = &list[i].s;
        float *x = integers(input_of(s), 3), *kernel = integers(kernel_of(s), 3), *bias = integers(s->cout, 3);
        float *y = unset(output_of(s)), *want = unset(output_of(s));
        assert_int_equal(thaw_streams(y, s->oh * s->ow, s->cout), i != 1);
        for (int act = 0; act < 3; act++) {
            ref->conv_forward(s, 1, x, kernel, bias, acts[act], want, NULL);
            for (int isa = 0; isa < 3; isa++)
                for (int mode = 0; mode < 2 && thaw_isa_choose(ISAS[isa]); mode++) {
                    thaw_conv_mode_set(mode ? THAW_CONV_WINOGRAD : THAW_CONV_DIRECT);
                    float *packed = unset((int64_t)fast->conv_pack_floats(s, false));
                    void *scratch = scratch_of(fast->conv_scratch(s, 1, 1));
                    fast->conv_pack(s, false, kernel, NULL, packed, THAW_WHOLE);
                    memset(y, 0xff, (size_t)output_of(s) * sizeof *y);
                    fast->conv_forward_packed(s, 1, x, packed, bias, NULL, acts[act], y, scratch);
                    if (mode && thaw_winograd_fits(s))
                        assert_near(y, want, output_of(s), 1e-4, list[i].name);
                    else
                        assert_same(y, want, output_of(s), list[i].name);
                    thaw_free(packed), thaw_free(scratch);
                }
        }
        thaw_free(x), thaw_free(kernel), thaw_free(bias), thaw_free(y), thaw_free(want);
    }
}

/* The gradient of relu by each instruction set, with a tail, in place and not, and where NaN meets it. */
static void test_relu_gradient(void **state) {
    (void)state;
    for (int isa = 0; isa < 3; isa++)
        for (int64_t count = 1; count < 70 && thaw_isa_choose(ISAS[isa]); count += 17)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                float *y = integers(count, 1), *dy = fractions(count), *dx = fractions(count), *in_place = copy_of(dy, count);
                y[count / 2] = NAN;
                float *before = copy_of(dx, count);
                thaw_isa_get()->relu_gradient(count, y, dy, dx, accumulate);
                thaw_isa_get()->relu_gradient(count, y, in_place, in_place, false);
                for (int64_t i = 0; i < count; i++) {
                    float gradient = y[i] > 0.0f ? dy[i] : 0.0f;
                    assert_true(in_place[i] == gradient);
                    assert_true(dx[i] == (accumulate ? before[i] + gradient : gradient));
                }
                thaw_free(y), thaw_free(dy), thaw_free(dx), thaw_free(in_place), thaw_free(before);
            }
}

/* Squares of vectors, and what is left beside and below them; nothing else is written. */
static void test_transpose(void **state) {
    (void)state;
    enum { MOST = 37, TO = MOST + 2 };
    float *from = fractions(MOST * MOST), *to = unset(MOST * TO);
    for (int isa = 0; isa < 3; isa++)
        for (int64_t rows = 1; rows <= MOST && thaw_isa_choose(ISAS[isa]); rows += 3)
            for (int64_t columns = 1; columns <= MOST; columns += 5) {
                memset(to, 0xff, MOST * TO * sizeof *to);
                thaw_isa_get()->transpose(rows, columns, from, MOST, to, TO);
                for (int64_t j = 0; j < MOST; j++)
                    for (int64_t i = 0; i < TO; i++)
                        assert_true(i < rows && j < columns ? to[j * TO + i] == from[i * MOST + j] : isnan(to[j * TO + i]));
            }
    thaw_free(from), thaw_free(to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_reference),  cmocka_unit_test(test_threads_never_change_bits),
        cmocka_unit_test(test_batch_never_changes_bits), cmocka_unit_test(test_reference_gradients),
        cmocka_unit_test(test_output_is_overwritten),  cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_summand),                cmocka_unit_test(test_large_results),
        cmocka_unit_test(test_relu_gradient),          cmocka_unit_test(test_transpose),
    };
    thaw_kernels_init();
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
