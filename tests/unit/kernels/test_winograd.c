/* Rounding errors of convolutions on what networks see: activations behind a relu, weights by He, against sums in double.
 * Prints the table of errors: relative L2 of direct products and of Winograd. */
#include "kernel_case.h"

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"
#include "kernels/winograd.h"

typedef struct error_case {
    const char *name;
    int64_t n;
    thaw_window s;
} error_case;

static int cases(const error_case **out) {
    static error_case list[32];
    int count = 0;
#define CASE(text, images, ...) list[count++] = (error_case){text, images, window_of(__VA_ARGS__)}
    /*                                     n   h   w  cin cout kh kw sh sw dh dw  pads */
    CASE("vgg16 block1 64-64", 1, 32, 32, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 block2 128-128", 1, 28, 28, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 block3 256-256", 1, 20, 20, 256, 256, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 block4 256-512", 1, 14, 14, 256, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 block5 512-512", 1, 14, 14, 512, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 at 150, block5", 1, 9, 9, 512, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("vgg16 at 150, block4", 1, 18, 18, 256, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("resnet50 conv2 64-64", 2, 56, 56, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("resnet50 conv5 512-512", 2, 7, 7, 512, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("inception valid 32-32", 1, 31, 33, 32, 32, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("inception 80-192 valid", 1, 17, 18, 80, 192, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0);
    CASE("inception 1x7", 1, 17, 17, 160, 192, 1, 7, 1, 1, 1, 1, 0, 0, 3, 3);
    CASE("inception 7x1", 1, 17, 17, 192, 160, 7, 1, 1, 1, 1, 1, 3, 3, 0, 0);
    CASE("inception 1x3", 2, 8, 8, 384, 96, 1, 3, 1, 1, 1, 1, 0, 0, 1, 1);
    CASE("inception 3x1", 2, 8, 8, 384, 96, 3, 1, 1, 1, 1, 1, 1, 1, 0, 0);
    CASE("7x1, odd", 3, 5, 3, 19, 37, 7, 1, 1, 1, 1, 1, 2, 3, 0, 0);
    CASE("3x1, odd", 3, 7, 3, 19, 37, 3, 1, 1, 1, 1, 1, 1, 1, 0, 0);
    CASE("1x3, odd", 3, 3, 10, 37, 19, 1, 3, 1, 1, 1, 1, 0, 0, 0, 1);
    CASE("odd channels, odd map", 3, 13, 11, 19, 37, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("one padding a side", 2, 10, 6, 48, 20, 3, 3, 1, 1, 1, 1, 1, 0, 0, 1);
    CASE("padding 2", 2, 7, 8, 24, 40, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2);
    CASE("smaller than a tile", 4, 3, 2, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("many tiles", 2, 128, 128, 16, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    CASE("many images of one tile", 200, 4, 4, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
#undef CASE
    *out = list;
    return count;
}

static float *normal(int64_t count, double deviation, bool relu) {
    float *to = thaw_malloc((size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++) {
        double u = ((double)case_draw() + 1.0) / 0x1p31, v = (double)case_draw() / 0x1p31;
        double value = deviation * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
        to[i] = relu && value < 0.0 ? 0.0f : (float)value;
    }
    return to;
}

/* Calls visit for each pair of an output place and a tap that lies inside. */
#define EACH_TAP(s, n)                                                                                                 \
    for (int64_t image = 0; image < (n); image++)                                                                      \
        for (int64_t oy = 0; oy < (s)->oh; oy++)                                                                       \
            for (int64_t ox = 0; ox < (s)->ow; ox++)                                                                   \
                for (int64_t ty = 0; ty < (s)->kh; ty++)                                                                   \
                    for (int64_t tx = 0; tx < (s)->kw; tx++)                                                               \
                        if (oy + ty - (s)->pad_top >= 0 && oy + ty - (s)->pad_top < (s)->h &&                          \
                            ox + tx - (s)->pad_left >= 0 && ox + tx - (s)->pad_left < (s)->w)
#define AT_X(s) (((image * (s)->h + oy + ty - (s)->pad_top) * (s)->w + ox + tx - (s)->pad_left) * (s)->cin)
#define AT_Y(s) (((image * (s)->oh + oy) * (s)->ow + ox) * (s)->cout)
#define AT_K(s) ((ty * (s)->kw + tx) * (s)->cin * (s)->cout)

static double *zeros(int64_t count) { return thaw_calloc((size_t)count, sizeof(double)); }

static double *true_forward(const thaw_window *s, int64_t n, const float *x, const float *kernel) {
    double *y = zeros(n * s->oh * s->ow * s->cout);
    EACH_TAP(s, n)
    for (int64_t ci = 0; ci < s->cin; ci++)
        for (int64_t co = 0; co < s->cout; co++)
            y[AT_Y(s) + co] += (double)x[AT_X(s) + ci] * (double)kernel[AT_K(s) + ci * s->cout + co];
    return y;
}

static double *true_data(const thaw_window *s, int64_t n, const float *dy, const float *kernel) {
    double *dx = zeros(n * s->h * s->w * s->cin);
    EACH_TAP(s, n)
    for (int64_t ci = 0; ci < s->cin; ci++) {
        double sum = 0.0;
        for (int64_t co = 0; co < s->cout; co++)
            sum += (double)dy[AT_Y(s) + co] * (double)kernel[AT_K(s) + ci * s->cout + co];
        dx[AT_X(s) + ci] += sum;
    }
    return dx;
}

static double *true_weights(const thaw_window *s, int64_t n, const float *x, const float *dy) {
    double *dk = zeros(s->kh * s->kw * s->cin * s->cout);
    EACH_TAP(s, n)
    for (int64_t ci = 0; ci < s->cin; ci++)
        for (int64_t co = 0; co < s->cout; co++)
            dk[AT_K(s) + ci * s->cout + co] += (double)x[AT_X(s) + ci] * (double)dy[AT_Y(s) + co];
    return dk;
}

/* |a - (b + added)| / |b + added| */
static double error_of(const float *a, const double *b, const float *added, int64_t count) {
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double want = b[i] + (added ? (double)added[i] : 0.0);
        difference += ((double)a[i] - want) * ((double)a[i] - want);
        size += want * want;
    }
    return sqrt(difference / size);
}

enum { FORWARD, DATA, WEIGHTS, DIRECTIONS };
static const double LIMITS[DIRECTIONS] = {3e-6, 1e-5, 1e-5};

static void measure(const error_case *t, const float *x, const float *dy, const float *kernel, double *const truth[DIRECTIONS],
                    double errors[DIRECTIONS]) {
    const thaw_kernels *fast = thaw_kernels_fast();
    const thaw_window *s = &t->s;
    int64_t in = t->n * s->h * s->w * s->cin, out = t->n * s->oh * s->ow * s->cout, size = s->kh * s->kw * s->cin * s->cout;
    float *y = unset(out), *dx = normal(in, 0.5, false), *before = copy_of(dx, in), *dk = unset(size);
    void *scratch = scratch_of(fast->conv_scratch(s, t->n, 1));
    for (int backward = 0; backward < 2; backward++) {
        float *packed = unset((int64_t)fast->conv_pack_floats(s, backward));
        fast->conv_pack(s, backward, kernel, NULL, packed, THAW_WHOLE);
        if (backward) {
            fast->conv_backward_data_packed(s, t->n, dy, packed, dx, true, scratch);
            errors[DATA] = error_of(dx, truth[DATA], before, in);
            fast->conv_backward_data_packed(s, t->n, dy, packed, dx, false, scratch);
            errors[DATA] = fmax(errors[DATA], error_of(dx, truth[DATA], NULL, in));
        } else {
            fast->conv_forward_packed(s, t->n, x, packed, NULL, NULL, THAW_ACTIVATION_LINEAR, y, scratch);
            errors[FORWARD] = error_of(y, truth[FORWARD], NULL, out);
        }
        thaw_free(packed);
    }
    fast->conv_backward_weights(s, t->n, x, dy, dk, NULL, scratch);
    errors[WEIGHTS] = error_of(dk, truth[WEIGHTS], NULL, size);
    thaw_free(y), thaw_free(dx), thaw_free(before), thaw_free(dk), thaw_free(scratch);
}

static void test_errors(void **state) {
    (void)state;
    static const char *const isas[] = {"avx512", "avx2", "portable"};
    const error_case *list;
    int count = cases(&list);
    print_message("relative L2 error, direct / Winograd     forward             data gradient       weight gradient\n");
    for (int i = 0; i < count; i++) {
        const error_case *t = &list[i];
        const thaw_window *s = &t->s;
        float *x = normal(t->n * s->h * s->w * s->cin, 1.0, true), *dy = normal(t->n * s->oh * s->ow * s->cout, 1e-3, false);
        float *kernel = normal(s->kh * s->kw * s->cin * s->cout, sqrt(2.0 / (double)(s->kh * s->kw * s->cin)), false);
        for (int64_t k = 0; k < t->n * s->oh * s->ow * s->cout; k++) /* half of the gradients stop at a relu */
            dy[k] = case_draw() % 2 ? dy[k] : 0.0f;
        double *truth[] = {true_forward(s, t->n, x, kernel), true_data(s, t->n, dy, kernel), true_weights(s, t->n, x, dy)};
        double all[4][DIRECTIONS] = {{0}};
        bool printed = false;
        for (int isa = 0; isa < 3; isa++) {
            if (!thaw_isa_choose(isas[isa]))
                continue;
            double direct[DIRECTIONS];
            thaw_conv_mode_set(THAW_CONV_DIRECT);
            measure(t, x, dy, kernel, truth, direct);
            thaw_conv_mode_set(THAW_CONV_WINOGRAD);
            measure(t, x, dy, kernel, truth, all[isa]);
            for (int k = 0; k < DIRECTIONS; k++)
                if (!(all[isa][k] <= LIMITS[k]) || !(direct[k] <= LIMITS[k]))
                    fail_msg("%s, %s, direction %d: error %g, direct %g, at most %g", t->name, isas[isa], k, all[isa][k],
                             direct[k], LIMITS[k]);
            if (!printed)
                print_message("%-26s %-8s  %7.1e / %7.1e   %7.1e / %7.1e   %7.1e / %7.1e\n", t->name, isas[isa], direct[0],
                              all[isa][0], direct[1], all[isa][1], direct[2], all[isa][2]);
            printed = true;
        }
        for (int k = 0; k < DIRECTIONS; k++)
            thaw_free(truth[k]);
        thaw_free(x), thaw_free(dy), thaw_free(kernel);
    }
}

/* Pooled on the way: the maxima of the reference's outputs; where maps have whole tiles, the very bits of a pooling behind it. */
static void test_pooled(void **state) {
    (void)state;
    static const char *const isas[] = {"avx512", "avx2", "portable"};
    static const int64_t sizes[][4] = {{8, 8, 16, 64}, {16, 24, 32, 37}, {37, 37, 16, 32}, {23, 32, 19, 40},
                                       {50, 8, 48, 16}, {12, 13, 16, 16}, {28, 28, 130, 96}};
    enum { N = 3 };
    const thaw_kernels *fast = thaw_kernels_fast(), *reference = thaw_kernels_reference();
    thaw_conv_mode_set(THAW_CONV_WINOGRAD);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int isa = 0; isa < 3; isa++)
            for (int relu = 0; relu < 2; relu++) {
                if (!thaw_isa_choose(isas[isa]))
                    continue;
                const int64_t h = sizes[i][0], w = sizes[i][1], cin = sizes[i][2], cout = sizes[i][3];
                const thaw_activation act = relu ? THAW_ACTIVATION_RELU : THAW_ACTIVATION_LINEAR;
                thaw_window s = window_of(h, w, cin, cout, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
                const thaw_window half = {.h = h, .w = w, .cin = cout, .kh = 2, .kw = 2, .sh = 2, .sw = 2, .dh = 1, .dw = 1,
                                     .oh = h / 2, .ow = w / 2, .cout = cout};
                const int64_t out = N * h * w * cout, pooled = N * half.oh * half.ow * cout;
                float *x = normal(N * h * w * cin, 1.0, true), *kernel = normal(9 * cin * cout, 0.2, false);
                float *bias = normal(cout, 1.0, false), *y = unset(out), *want = unset(pooled), *got = unset(pooled + 1);
                float *packed = unset((int64_t)fast->conv_pack_floats(&s, false));
                void *scratch = scratch_of(fast->conv_scratch(&s, N, 1));
                fast->conv_pack(&s, false, kernel, NULL, packed, THAW_WHOLE);
                assert_true(fast->conv_pools(&s));
                got[pooled] = 7.0f;
                s.pool = 2;
                fast->conv_forward_packed(&s, N, x, packed, bias, NULL, act, got, scratch);
                assert_true(got[pooled] == 7.0f);
                s.pool = 0;
                if (h % 4 == 0 && w % 4 == 0) {
                    fast->conv_forward_packed(&s, N, x, packed, bias, NULL, act, y, scratch);
                    fast->max_pool_forward(&half, N, y, want, NULL);
                    assert_memory_equal(got, want, (size_t)pooled * sizeof *got);
                }
                reference->conv_forward(&s, N, x, kernel, bias, act, y, scratch);
                reference->max_pool_forward(&half, N, y, want, NULL);
                double difference = 0.0, size = 0.0;
                for (int64_t k = 0; k < pooled; k++) {
                    difference += pow((double)got[k] - (double)want[k], 2.0);
                    size += pow((double)want[k], 2.0);
                }
                assert_true(sqrt(difference / size) < LIMITS[FORWARD]);
                thaw_free(x), thaw_free(kernel), thaw_free(bias), thaw_free(y), thaw_free(want), thaw_free(got);
                thaw_free(packed), thaw_free(scratch);
            }
    const thaw_window strided = window_of(8, 8, 16, 16, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1);
    const thaw_window line = window_of(8, 8, 16, 16, 1, 3, 1, 1, 1, 1, 0, 0, 1, 1);
    /* 4x4 full tiles instead of (4+4+3+3) x (4+4+3+3) outputs */
    const thaw_window more = window_of(14, 14, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    assert_false(fast->conv_pools(&more));
    assert_false(fast->conv_pools(&strided));
    assert_false(fast->conv_pools(&line));
    assert_false(reference->conv_pools(&strided));
}

/* What is chosen depends on the shape alone, and where Winograd is, its packed form is larger. */
static void test_choice(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const struct {
        thaw_window s;
        size_t points, taps; /* the packed form is larger by points/taps */
    } list[] = {
        {window_of(14, 14, 512, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1), 36, 9},
        {window_of(7, 7, 16, 16, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0), 36, 9},
        {window_of(14, 14, 15, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 512, 15, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 64, 64, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 64, 64, 3, 3, 1, 2, 1, 1, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 64, 64, 3, 3, 1, 1, 2, 1, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 64, 64, 3, 3, 1, 1, 1, 2, 1, 1, 1, 1), 1, 1},
        {window_of(14, 14, 64, 64, 3, 1, 1, 1, 1, 1, 1, 1, 0, 0), 6, 3},
        {window_of(14, 14, 64, 64, 1, 3, 1, 1, 1, 1, 0, 0, 1, 1), 6, 3},
        {window_of(2, 2, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1), 1, 1},
        {window_of(17, 17, 64, 64, 1, 7, 1, 1, 1, 1, 0, 0, 3, 3), 8, 7},
        {window_of(17, 17, 64, 64, 7, 1, 1, 1, 1, 1, 3, 3, 0, 0), 8, 7},
        {window_of(17, 17, 64, 64, 7, 1, 2, 1, 1, 1, 3, 3, 0, 0), 1, 1},
        {window_of(17, 17, 64, 64, 1, 5, 1, 1, 1, 1, 0, 0, 2, 2), 1, 1},
        {window_of(17, 17, 64, 64, 3, 7, 1, 1, 1, 1, 1, 1, 3, 3), 1, 1},
    };
    thaw_conv_mode_set(THAW_CONV_AUTO);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const thaw_window *s = &list[i].s;
        size_t direct = (size_t)(s->kh * s->kw * s->cin) * (size_t)((s->cout + 15) / 16 * 16);
        /* of Winograd, a cache line behind each matrix of a panel of 32, which here all have an even number of them */
        size_t lines = list[i].points > 1 ? list[i].points * (size_t)((s->cout + 31) / 32) : 0;
        assert_int_equal(fast->conv_pack_floats(s, false), direct / list[i].taps * list[i].points + 16 * lines);
    }
    thaw_conv_mode_set(THAW_CONV_DIRECT);
    assert_int_equal(fast->conv_pack_floats(&list[0].s, false), 9 * 512 * 512);
    assert_false(thaw_isa_choose("mmx"));
}

/* Scratch for many images and threads serves fewer. */
static void test_scratch(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const error_case *list;
    int count = cases(&list);
    for (int mode = 0; mode < 3; mode++) {
        thaw_conv_mode_set((thaw_conv_mode)mode);
        for (int i = 0; i < count; i++)
            for (int threads = 1; threads <= 80; threads = 2 * threads + 1)
                for (int slices = 1; slices <= 8; slices += 7) {
                    size_t before = 0;
                    thaw_threads_set(threads);
                    for (int64_t n = 0; n <= 40; n = 2 * n + 1) {
                        size_t now = fast->conv_scratch(&list[i].s, n, slices);
                        assert_true(now >= before);
                        before = now;
                    }
                    thaw_threads_set(2 * threads);
                    assert_true(fast->conv_scratch(&list[i].s, 31, slices) >= before);
                }
    }
    const thaw_window deep = window_of(8, 8, 320, 352, 1, 3, 1, 1, 1, 1, 0, 0, 1, 1); /* alone, without what others want */
    thaw_threads_set(8);
    for (int slices = 1; slices <= 8; slices += 7)
        for (int64_t n = 1; n <= 40; n++)
            assert_true(thaw_winograd_weights_scratch(&deep, n, slices) >= thaw_winograd_weights_scratch(&deep, n - 1, slices));
    thaw_threads_set(2);
}

/* What conv_backward_slices gives for slices [0, slices), made of calls with one. */
static void tree_of(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy, float *to,
                    void *scratch) {
    const thaw_kernels *fast = thaw_kernels_fast();
    const int64_t size = s->kh * s->kw * s->cin * s->cout;
    if (slices == 1) {
        fast->conv_backward_weights(s, start[1] - start[0], x + start[0] * s->h * s->w * s->cin,
                                    dy + start[0] * s->oh * s->ow * s->cout, to, NULL, scratch);
        return;
    }
    float *right = unset(size);
    tree_of(s, slices / 2, start, x, dy, to, scratch);
    tree_of(s, slices / 2, start + slices / 2, x, dy, right, scratch);
    fast->add_forward(size, to, right, to);
    thaw_free(right);
}

/* A gradient by slices has the bits of its halves added, whatever the number of threads; empty slices count as zeros. */
static void test_slices(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast();
    const thaw_window list[] = {window_of(9, 10, 150, 1000, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1),
                                window_of(3, 9, 130, 560, 1, 7, 1, 1, 1, 1, 0, 0, 3, 3),
                                window_of(13, 17, 130, 560, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)};
    const int64_t starts[][9] = {{0, 1, 2, 3, 4, 6, 7, 9, 11}, {0, 2, 2, 3, 5, 5, 6, 8, 8}};
    for (int i = 0; i < 6; i++) {
        const thaw_window *s = &list[i / 2];
        const int64_t *start = starts[i % 2], n = start[8], size = s->kh * s->kw * s->cin * s->cout;
        float *x = normal(n * s->h * s->w * s->cin, 1.0, true), *dy = normal(n * s->oh * s->ow * s->cout, 1.0, false);
        float *want = unset(size), *got = unset(size);
        for (int slices = 8; slices >= 1; slices /= 2)
            for (int threads = 1; threads <= 3; threads++) {
                const int64_t *from = start + 8 - slices; /* not the first images alone */
                if (from[slices] == from[0])
                    continue;
                thaw_threads_set(threads);
                void *scratch = scratch_of(fast->conv_scratch(s, n, slices));
                tree_of(s, slices, from, x, dy, want, scratch);
                assert_true(fast->conv_sums_slices(s, from[slices] - from[0], slices));
                fast->conv_backward_slices(s, slices, from, x + from[0] * s->h * s->w * s->cin,
                                           dy + from[0] * s->oh * s->ow * s->cout, got, scratch);
                assert_memory_equal(got, want, (size_t)size * sizeof *got);
                thaw_free(scratch);
            }
        assert_false(fast->conv_sums_slices(s, n, 16));
        thaw_free(x), thaw_free(dy), thaw_free(want), thaw_free(got);
    }
    thaw_threads_set(2);
    assert_true(fast->conv_sums_slices(&list[2], 12, 8)); /* 20 tiles an image; 256 are the most */
    assert_false(fast->conv_sums_slices(&list[2], 13, 8));
    const thaw_window shallow = window_of(20, 20, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    assert_false(fast->conv_sums_slices(&shallow, 8, 2));
    assert_false(thaw_kernels_reference()->conv_sums_slices(&list[0], 8, 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_errors), cmocka_unit_test(test_choice),
                                       cmocka_unit_test(test_pooled), cmocka_unit_test(test_scratch),
                                       cmocka_unit_test(test_slices)};
    thaw_kernels_init();
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
