/* Rounding errors of every algorithm of convolution on every distinct shape of VGG16, ResNet50 and InceptionV3, in all three
 * directions and with every instruction set, against sums in double. Data as networks see it: activations behind a relu,
 * weights by He, gradients of which half stop at a relu.
 *
 *   test_conv_errors                the shapes on small maps with the same edges (what a tile leaves over); asks the bounds
 *   test_conv_errors --table FILE   whole maps, one image; asks the same and writes src/kernels/ERRORS.md */
#include <omp.h>
#include <stdio.h>

#include "kernel_case.h"

#include "graph/tape.h"
#include "kernels/isa.h"
#include "kernels/kernels_fast.h"
#include "kernels/winograd.h"
#include "thaw/model.h"
#include "thaw/plan.h"

enum { FORWARD, DATA, WEIGHTS, DIRECTIONS };
enum { DIRECT, WINOGRAD, BLAS, ALGORITHMS };
enum { ISAS = 3, MOST_SHAPES = 256 };
static const double LIMITS[DIRECTIONS] = {3e-6, 1e-5, 1e-5};
static const char *const DIRECTION_NAMES[] = {"forward", "data gradient", "weight gradient"};
static const char *const ISA_NAMES[ISAS] = {"avx512", "avx2", "portable"};
static const struct {
    const char *name;
    thaw_conv_mode mode;
} ALGORITHM[ALGORITHMS] = {{"direct", THAW_CONV_DIRECT}, {"winograd", THAW_CONV_WINOGRAD}, {"blas", THAW_CONV_BLAS}};

#ifdef __SANITIZE_ADDRESS__
enum { MOST_CHANNELS = 48, SMALL_MAP = 8 };
#else
enum { MOST_CHANNELS = 4096, SMALL_MAP = 8 };
#endif

typedef struct one_shape {
    char network[24];
    thaw_window s;
} one_shape;

static one_shape shapes[MOST_SHAPES];
static int n_shapes;
static const char *table_path; /* NULL: the test */

static void add_shape(const char *network, const thaw_window *s) {
    for (int i = 0; i < n_shapes; i++)
        if (memcmp(&shapes[i].s, s, sizeof *s) == 0)
            return;
    assert_true(n_shapes < MOST_SHAPES);
    shapes[n_shapes].s = *s;
    snprintf(shapes[n_shapes++].network, sizeof shapes->network, "%s", network);
}

/* A side of at most 2 small maps, whose remainder by the tiles and strides is that of the whole. */
static int64_t small_side(int64_t side) { return side <= 2 * SMALL_MAP ? side : SMALL_MAP + side % SMALL_MAP; }

static thaw_window small_window(const thaw_window *s) {
    thaw_window small = *s;
    small.h = small_side(s->h);
    small.w = small_side(s->w);
    small.oh -= (s->h - small.h) / s->sh;
    small.ow -= (s->w - small.w) / s->sw;
    small.cin = thaw_least(s->cin, MOST_CHANNELS);
    small.cout = thaw_least(s->cout, MOST_CHANNELS);
    return small;
}

/* Windows of a network's convolutions, as its plan lowers them. */
static void add_network(const char *name, const char *builtin, int64_t side) {
    const thaw_builtin_options options = {.include_top = false, .input_shape = {side, side, 3}, .pooling = "none"};
    thaw_model *model = NULL;
    thaw_plan *plan = NULL;
    assert_int_equal(thaw_builtin_build(&model, builtin, &options), THAW_OK);
    const thaw_plan_request request = {.model = model, .max_batch = 1};
    assert_int_equal(thaw_plan_compile(&plan, &request), THAW_OK);
    for (int i = 0; i < plan->tape_prefix->n_ops; i++)
        if (plan->tape_prefix->ops[i].kind == THAW_OP_CONV) {
            const thaw_window *s = &plan->tape_prefix->ops[i].window, small = small_window(s);
            add_shape(name, table_path ? s : &small);
        }
    thaw_plan_free(plan);
    thaw_model_free(model);
}

static void add_shapes(void) {
    n_shapes = 0;
    add_network("vgg16 224", "vgg16", 224);
    add_network("vgg16 150", "vgg16", 150);
    add_network("resnet50 224", "resnet50", 224);
    add_network("inceptionv3 299", "inceptionv3", 299);
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

/* Sums in double, one image. Rows of the image are shared by threads, taps by those of the weight gradient. */
typedef struct truths {
    double *sum[DIRECTIONS]; /* y (oh,ow,cout), dx (h,w,cin), dkernel (kh,kw,cin,cout) */
    int64_t count[DIRECTIONS];
} truths;

static bool reads(const thaw_window *s, int64_t oy, int64_t ox, int64_t ty, int64_t tx, int64_t *at) {
    int64_t iy = oy * s->sh - s->pad_top + ty * s->dh, ix = ox * s->sw - s->pad_left + tx * s->dw;
    *at = (iy * s->w + ix) * s->cin;
    return iy >= 0 && iy < s->h && ix >= 0 && ix < s->w;
}

static void true_outputs(const thaw_window *s, const float *x, const double *kernel, double *y) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t place = 0; place < s->oh * s->ow; place++)
        for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
            int64_t at;
            if (!reads(s, place / s->ow, place % s->ow, tap / s->kw, tap % s->kw, &at))
                continue;
            double *to = y + place * s->cout;
            for (int64_t ci = 0; ci < s->cin; ci++) {
                const double value = (double)x[at + ci], *row = kernel + (tap * s->cin + ci) * s->cout;
                for (int64_t co = 0; value != 0.0 && co < s->cout; co++)
                    to[co] += value * row[co];
            }
        }
}

/* turned(kh,kw,cout,cin): the kernel with its channels exchanged, so that the innermost loop runs along memory. */
static void true_inputs(const thaw_window *s, const float *dy, const double *turned, double *dx) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t iy = 0; iy < s->h; iy++)
        for (int64_t ty = 0; ty < s->kh; ty++) {
            const int64_t oy = (iy + s->pad_top - ty * s->dh) / s->sh;
            if (iy + s->pad_top - ty * s->dh < 0 || oy * s->sh != iy + s->pad_top - ty * s->dh || oy >= s->oh)
                continue;
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t tx = 0; tx < s->kw; tx++) {
                    int64_t at;
                    if (!reads(s, oy, ox, ty, tx, &at))
                        continue;
                    for (int64_t co = 0; co < s->cout; co++) {
                        const double value = (double)dy[(oy * s->ow + ox) * s->cout + co];
                        const double *row = turned + ((ty * s->kw + tx) * s->cout + co) * s->cin;
                        for (int64_t ci = 0; value != 0.0 && ci < s->cin; ci++)
                            dx[at + ci] += value * row[ci];
                    }
                }
        }
}

static void true_weights(const thaw_window *s, const float *x, const double *dy, double *dkernel) {
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t tap = 0; tap < s->kh * s->kw; tap++)
        for (int64_t c0 = 0; c0 < s->cin; c0 += 16)
            for (int64_t place = 0; place < s->oh * s->ow; place++) {
                int64_t at;
                if (!reads(s, place / s->ow, place % s->ow, tap / s->kw, tap % s->kw, &at))
                    continue;
                for (int64_t ci = c0; ci < s->cin && ci < c0 + 16; ci++) {
                    const double value = (double)x[at + ci], *row = dy + place * s->cout;
                    double *to = dkernel + (tap * s->cin + ci) * s->cout;
                    for (int64_t co = 0; value != 0.0 && co < s->cout; co++)
                        to[co] += value * row[co];
                }
            }
}

/* from(taps,rows,columns), or with rows and columns exchanged. */
static double *in_double(const float *from, int64_t taps, int64_t rows, int64_t columns, bool turn) {
    double *to = thaw_malloc((size_t)(taps * rows * columns) * sizeof *to);
    for (int64_t t = 0; t < taps; t++)
        for (int64_t a = 0; a < rows; a++)
            for (int64_t b = 0; b < columns; b++)
                to[t * rows * columns + (turn ? b * rows + a : a * columns + b)] = (double)from[(t * rows + a) * columns + b];
    return to;
}

static truths find_truths(const thaw_window *s, const float *x, const float *dy, const float *kernel) {
    truths t = {.count = {s->oh * s->ow * s->cout, s->h * s->w * s->cin, s->kh * s->kw * s->cin * s->cout}};
    for (int d = 0; d < DIRECTIONS; d++)
        t.sum[d] = thaw_calloc((size_t)t.count[d], sizeof(double));
    double *straight = in_double(kernel, s->kh * s->kw, s->cin, s->cout, false);
    double *turned = in_double(kernel, s->kh * s->kw, s->cin, s->cout, true);
    double *wide = in_double(dy, 1, s->oh * s->ow, s->cout, false);
    true_outputs(s, x, straight, t.sum[FORWARD]);
    true_inputs(s, dy, turned, t.sum[DATA]);
    true_weights(s, x, wide, t.sum[WEIGHTS]);
    thaw_free(straight), thaw_free(turned), thaw_free(wide);
    return t;
}

/* |a - b| / |b|; whatever was not written is far off. */
static double error_of(const float *a, const double *b, int64_t count) {
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(difference / size);
}

/* As the engine calls: with a packed kernel where there is one. */
static void measure(const thaw_window *s, const float *x, const float *dy, const float *kernel, const truths *truth,
                    double errors[DIRECTIONS]) {
    const thaw_kernels *fast = thaw_kernels_fast();
    float *to[DIRECTIONS];
    void *scratch = scratch_of(fast->conv_scratch(s, 1, 1));
    for (int d = 0; d < DIRECTIONS; d++)
        to[d] = unset(truth->count[d]);
    size_t floats = fast->conv_pack_floats(s, false), turned = fast->conv_pack_floats(s, true);
    float *packed = unset((int64_t)(floats > turned ? floats : turned) + 1);
    if (floats) {
        fast->conv_pack(s, false, kernel, NULL, packed, THAW_WHOLE);
        fast->conv_forward_packed(s, 1, x, packed, NULL, NULL, THAW_ACTIVATION_LINEAR, to[FORWARD], scratch);
    } else {
        fast->conv_forward(s, 1, x, kernel, NULL, THAW_ACTIVATION_LINEAR, to[FORWARD], scratch);
    }
    if (turned) {
        fast->conv_pack(s, true, kernel, NULL, packed, THAW_WHOLE);
        fast->conv_backward_data_packed(s, 1, dy, packed, to[DATA], false, scratch);
    } else {
        fast->conv_backward_data(s, 1, dy, kernel, to[DATA], false, scratch);
    }
    fast->conv_backward_weights(s, 1, x, dy, to[WEIGHTS], NULL, scratch);
    for (int d = 0; d < DIRECTIONS; d++) {
        errors[d] = error_of(to[d], truth->sum[d], truth->count[d]);
        thaw_free(to[d]);
    }
    thaw_free(packed), thaw_free(scratch);
}

/* Errors of a shape; negative where there is nothing: no such instruction set, or Winograd does not fit. */
typedef struct found {
    double error[ALGORITHMS][ISAS][DIRECTIONS];
} found;

static found measure_shape(const one_shape *of) {
    const thaw_window *s = &of->s;
    found f;
    float *x = normal(s->h * s->w * s->cin, 1.0, true), *dy = normal(s->oh * s->ow * s->cout, 1e-3, false);
    float *kernel = normal(s->kh * s->kw * s->cin * s->cout, sqrt(2.0 / (double)(s->kh * s->kw * s->cin)), false);
    for (int64_t k = 0; k < s->oh * s->ow * s->cout; k++)
        dy[k] = case_draw() % 2 ? dy[k] : 0.0f;
    truths truth = find_truths(s, x, dy, kernel);
    for (int a = 0; a < ALGORITHMS; a++)
        for (int isa = 0; isa < ISAS; isa++) {
            double *errors = f.error[a][isa];
            errors[FORWARD] = errors[DATA] = errors[WEIGHTS] = -1.0;
            if ((a == WINOGRAD && !thaw_winograd_fits(s)) || (a == BLAS && isa > 0) || !thaw_isa_choose(ISA_NAMES[isa]))
                continue; /* OpenBLAS has instruction sets of its own */
            thaw_conv_mode_set(ALGORITHM[a].mode);
            measure(s, x, dy, kernel, &truth, errors);
            for (int d = 0; d < DIRECTIONS; d++)
                if (!(errors[d] <= LIMITS[d]))
                    fail_msg("%s, %lldx%lld, %lld to %lld channels, %lldx%lld: %s by %s with %s: error %g, at most %g",
                             of->network, (long long)s->h, (long long)s->w, (long long)s->cin, (long long)s->cout,
                             (long long)s->kh, (long long)s->kw, DIRECTION_NAMES[d], ALGORITHM[a].name, ISA_NAMES[isa],
                             errors[d], LIMITS[d]);
        }
    for (int d = 0; d < DIRECTIONS; d++)
        thaw_free(truth.sum[d]);
    thaw_free(x), thaw_free(dy), thaw_free(kernel);
    return f;
}

static void put_errors(FILE *to, const found *f, int algorithm) {
    for (int d = 0; d < DIRECTIONS; d++)
        for (int isa = 0; isa < (algorithm == BLAS ? 1 : ISAS); isa++) {
            const double error = f->error[algorithm][isa][d];
            if (error < 0.0)
                fprintf(to, "%s-", isa ? " / " : " | ");
            else
                fprintf(to, "%s%.1f", isa ? " / " : " | ", 1e7 * error);
        }
    fprintf(to, " |\n");
}

static void put_head(FILE *to, const char *first) {
    fprintf(to, "%s algorithm | forward | data gradient | weight gradient |\n", first);
}

static void write_table(const found *all) {
    FILE *to = fopen(table_path, "w");
    assert_non_null(to);
    found worst;
    for (int a = 0; a < ALGORITHMS; a++)
        for (int isa = 0; isa < ISAS; isa++)
            for (int d = 0; d < DIRECTIONS; d++) {
                worst.error[a][isa][d] = -1.0;
                for (int i = 0; i < n_shapes; i++)
                    worst.error[a][isa][d] = fmax(worst.error[a][isa][d], all[i].error[a][isa][d]);
            }
    fprintf(to, "# Measured errors of convolutions\n\n"
                "Written by `build/tests/test_conv_errors --table src/kernels/ERRORS.md`. Relative L2 error against sums in\n"
                "double, times 1e-7, on one image of every distinct shape of VGG16, ResNet50 and InceptionV3: activations\n"
                "behind a relu, weights by He, gradients of which half are zero. Three numbers: avx512 / avx2 / portable;\n"
                "OpenBLAS chooses by itself (%s here). The same program without `--table` is a test: it holds\n"
                "these shapes on small maps below %.0e forward and %.0e for gradients.\n\n"
                "## Largest of all shapes\n\n", thaw_kernels_blas(), LIMITS[FORWARD], LIMITS[DATA]);
    put_head(to, "|");
    fprintf(to, "|---|---|---|---|\n");
    for (int a = 0; a < ALGORITHMS; a++) {
        fprintf(to, "| %s", ALGORITHM[a].name);
        put_errors(to, &worst, a);
    }
    fprintf(to, "\n## By shape\n\n"
                "Input, channels in and out, kernel, stride (1 if not given). Forward, `auto` takes the algorithm marked *.\n\n");
    put_head(to, "| network | shape |");
    fprintf(to, "|---|---|---|---|---|---|\n");
    thaw_conv_mode_set(THAW_CONV_AUTO);
    for (int i = 0; i < n_shapes; i++)
        for (int a = 0; a < ALGORITHMS; a++) {
            const thaw_window *s = &shapes[i].s;
            if (all[i].error[a][0][FORWARD] < 0.0 && all[i].error[a][2][FORWARD] < 0.0)
                continue;
            bool winograd = strcmp(thaw_conv_algorithm(s, THAW_FORWARD), "winograd") == 0;
            char stride[32] = "";
            if (s->sh > 1)
                snprintf(stride, sizeof stride, " /%lld", (long long)s->sh);
            fprintf(to, "| %s | %lldx%lld %lld-%lld %lldx%lld%s | %s%s", shapes[i].network, (long long)s->h, (long long)s->w,
                    (long long)s->cin, (long long)s->cout, (long long)s->kh, (long long)s->kw, stride, ALGORITHM[a].name,
                    a == (winograd ? WINOGRAD : DIRECT) ? "*" : "");
            put_errors(to, &all[i], a);
        }
    assert_int_equal(fclose(to), 0);
}

static void test_bounds(void **state) {
    (void)state;
    static found all[MOST_SHAPES];
    add_shapes();
    assert_true(n_shapes > (MOST_CHANNELS < 2048 ? 20 : 60));
    for (int i = 0; i < n_shapes; i++)
        all[i] = measure_shape(&shapes[i]);
    if (table_path)
        write_table(all);
    print_message("%d shapes\n", n_shapes);
}

/* The comparison sees what it is for: one weight in eight off by one part in ten thousand. */
static void test_sees_errors(void **state) {
    (void)state;
    thaw_window s = window_of(9, 9, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1);
    float *x = normal(9 * 9 * 16, 1.0, true), *dy = normal(9 * 9 * 16, 1.0, false), *kernel = normal(9 * 256, 0.1, false);
    truths truth = find_truths(&s, x, dy, kernel);
    double errors[DIRECTIONS];
    for (int i = 0; i < 9 * 256; i += 8)
        kernel[i] *= 1.0f + 1e-4f;
    thaw_conv_mode_set(THAW_CONV_DIRECT);
    measure(&s, x, dy, kernel, &truth, errors);
    assert_true(errors[FORWARD] > LIMITS[FORWARD] && errors[DATA] > LIMITS[DATA] && errors[WEIGHTS] < 1e-6);
    for (int d = 0; d < DIRECTIONS; d++)
        thaw_free(truth.sum[d]);
    thaw_free(x), thaw_free(dy), thaw_free(kernel);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sees_errors), cmocka_unit_test(test_bounds)};
    if (argc == 3 && strcmp(argv[1], "--table") == 0)
        table_path = argv[2];
    else if (argc > 1)
        return fprintf(stderr, "usage: test_conv_errors [--table FILE]\n"), 64;
    thaw_kernels_init();
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
