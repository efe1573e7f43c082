/* Convolution, reference: the definition, one output value after the other. */
#include "kernels/kernels_ref.h"

static size_t conv_scratch(const thaw_window *s, int64_t n, int slices) {
    (void)s, (void)n, (void)slices;
    return 0;
}

static size_t conv_forward_scratch(const thaw_window *s) { return (void)s, 0; }

/* Is input cell (iy, ix) inside the image? */
static bool inside(const thaw_window *s, int64_t iy, int64_t ix) { return iy >= 0 && iy < s->h && ix >= 0 && ix < s->w; }

static void conv_forward_packed(const thaw_window *s, int64_t n, const float *x, const float *kernel, const float *bias,
                                const float *add, thaw_activation act, float *y, void *scratch) {
    (void)scratch;
    for (int64_t image = 0; image < n; image++, x += s->h * s->w * s->cin)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t co = 0; co < s->cout; co++) {
                    double sum = bias ? (double)bias[co] : 0.0;
                    for (int64_t ty = 0; ty < s->kh; ty++)
                        for (int64_t tx = 0; tx < s->kw; tx++) {
                            int64_t iy = oy * s->sh - s->pad_top + ty * s->dh, ix = ox * s->sw - s->pad_left + tx * s->dw;
                            if (!inside(s, iy, ix))
                                continue;
                            for (int64_t ci = 0; ci < s->cin; ci++)
                                sum += (double)x[(iy * s->w + ix) * s->cin + ci] *
                                       (double)kernel[((ty * s->kw + tx) * s->cin + ci) * s->cout + co];
                        }
                    *y++ = thaw_ref_activate(act, (float)(sum + (add ? (double)*add++ : 0.0)));
                }
}

static void conv_forward(const thaw_window *s, int64_t n, const float *x, const float *kernel, const float *bias,
                         thaw_activation act, float *y, void *scratch) {
    conv_forward_packed(s, n, x, kernel, bias, NULL, act, y, scratch);
}

/* dx of one input value: all outputs that read it. */
static double data_gradient(const thaw_window *s, const float *dy, const float *kernel, int64_t iy, int64_t ix, int64_t ci) {
    double sum = 0.0;
    for (int64_t ty = 0; ty < s->kh; ty++)
        for (int64_t tx = 0; tx < s->kw; tx++) {
            int64_t oy = iy + s->pad_top - ty * s->dh, ox = ix + s->pad_left - tx * s->dw; /* times the stride */
            if (oy < 0 || ox < 0 || oy % s->sh || ox % s->sw || oy / s->sh >= s->oh || ox / s->sw >= s->ow)
                continue;
            for (int64_t co = 0; co < s->cout; co++)
                sum += (double)dy[(oy / s->sh * s->ow + ox / s->sw) * s->cout + co] *
                       (double)kernel[((ty * s->kw + tx) * s->cin + ci) * s->cout + co];
        }
    return sum;
}

static void conv_backward_data(const thaw_window *s, int64_t n, const float *dy, const float *kernel, float *dx,
                               bool accumulate, void *scratch) {
    (void)scratch;
    for (int64_t image = 0; image < n; image++, dy += s->oh * s->ow * s->cout)
        for (int64_t iy = 0; iy < s->h; iy++)
            for (int64_t ix = 0; ix < s->w; ix++)
                for (int64_t ci = 0; ci < s->cin; ci++, dx++)
                    *dx = (float)((accumulate ? (double)*dx : 0.0) + data_gradient(s, dy, kernel, iy, ix, ci));
}

/* dkernel of one weight: all places where it was applied. */
static double weight_gradient(const thaw_window *s, int64_t n, const float *x, const float *dy, int64_t ty, int64_t tx,
                              int64_t ci, int64_t co) {
    double sum = 0.0;
    for (int64_t image = 0; image < n; image++)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++) {
                int64_t iy = oy * s->sh - s->pad_top + ty * s->dh, ix = ox * s->sw - s->pad_left + tx * s->dw;
                if (inside(s, iy, ix))
                    sum += (double)x[((image * s->h + iy) * s->w + ix) * s->cin + ci] *
                           (double)dy[((image * s->oh + oy) * s->ow + ox) * s->cout + co];
            }
    return sum;
}

static void conv_backward_weights(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel,
                                  float *dbias, void *scratch) {
    (void)scratch;
    for (int64_t ty = 0; dkernel && ty < s->kh; ty++)
        for (int64_t tx = 0; tx < s->kw; tx++)
            for (int64_t ci = 0; ci < s->cin; ci++)
                for (int64_t co = 0; co < s->cout; co++)
                    *dkernel++ = (float)weight_gradient(s, n, x, dy, ty, tx, ci, co);
    for (int64_t co = 0; dbias && co < s->cout; co++) {
        double sum = 0.0;
        for (int64_t pixel = 0; pixel < n * s->oh * s->ow; pixel++)
            sum += (double)dy[pixel * s->cout + co];
        dbias[co] = (float)sum;
    }
}

static bool conv_sums_slices(const thaw_window *s, int64_t n, int slices) {
    (void)s, (void)n;
    return slices == 1;
}

static void conv_backward_slices(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy,
                                 float *dkernel, void *scratch) {
    conv_backward_weights(s, start[slices] - start[0], x, dy, dkernel, NULL, scratch);
}

/* The definitions need no other form of a kernel than its own. */
static size_t conv_pack_floats(const thaw_window *s, bool backward) {
    (void)s, (void)backward;
    return 0;
}

static void conv_pack(const thaw_window *s, bool backward, const float *kernel, const double *scale, float *packed,
                      thaw_part part) {
    const int64_t count = s->kh * s->kw * s->cin * s->cout;
    (void)backward;
    for (int64_t i = thaw_part_begin(part, count); i < thaw_part_end(part, count); i++)
        packed[i] = (float)((double)kernel[i] * (scale ? scale[i % s->cout] : 1.0));
}

static bool conv_pools(const thaw_window *s) {
    (void)s;
    return false;
}

void thaw_ref_conv(thaw_kernels *table) {
    table->conv_scratch = conv_scratch;
    table->conv_forward_scratch = conv_forward_scratch;
    table->conv_forward = conv_forward;
    table->conv_backward_data = conv_backward_data;
    table->conv_backward_weights = conv_backward_weights;
    table->conv_sums_slices = conv_sums_slices;
    table->conv_backward_slices = conv_backward_slices;
    table->conv_pack_floats = conv_pack_floats;
    table->conv_pack = conv_pack;
    table->conv_pools = conv_pools;
    table->conv_forward_packed = conv_forward_packed;
    table->conv_backward_data_packed = conv_backward_data;
}
