/* Scale and shift, zero padding, sums, copies of rows: reference. */
#include "kernels/kernels_ref.h"

static void scale_shift(int64_t rows, int64_t c, const float *x, const float *scale, const float *shift,
                        thaw_activation act, float *y) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i++, x++)
            *y++ = thaw_ref_activate(act, (float)((double)*x * (double)scale[i] + (double)shift[i]));
}

static void zero_pad_forward(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *x, float *y) {
    int64_t top = pad[0], left = pad[2], oh = h + pad[0] + pad[1], ow = w + pad[2] + pad[3];
    for (int64_t image = 0; image < n; image++, x += h * w * c)
        for (int64_t oy = 0; oy < oh; oy++)
            for (int64_t ox = 0; ox < ow; ox++)
                for (int64_t i = 0; i < c; i++) {
                    int64_t iy = oy - top, ix = ox - left;
                    *y++ = iy >= 0 && iy < h && ix >= 0 && ix < w ? x[(iy * w + ix) * c + i] : 0;
                }
}

static void zero_pad_backward(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *dy, float *dx,
                              bool accumulate) {
    int64_t oh = h + pad[0] + pad[1], ow = w + pad[2] + pad[3];
    for (int64_t image = 0; image < n; image++, dy += oh * ow * c)
        for (int64_t iy = 0; iy < h; iy++)
            for (int64_t ix = 0; ix < w; ix++)
                for (int64_t i = 0; i < c; i++, dx++)
                    *dx = (accumulate ? *dx : 0) + dy[((iy + pad[0]) * ow + ix + pad[2]) * c + i];
}

static void add_forward(int64_t count, const float *a, const float *b, float *y) {
    for (int64_t i = 0; i < count; i++)
        y[i] = a[i] + b[i];
}

static void copy_rows(int64_t rows, int64_t c, const float *from, int64_t from_stride, float *to, int64_t to_stride,
                      bool accumulate) {
    for (int64_t row = 0; row < rows; row++, from += from_stride, to += to_stride)
        for (int64_t i = 0; i < c; i++)
            to[i] = (accumulate ? to[i] : 0) + from[i];
}

void thaw_ref_rows(thaw_kernels *table) {
    table->scale_shift = scale_shift;
    table->zero_pad_forward = zero_pad_forward;
    table->zero_pad_backward = zero_pad_backward;
    table->add_forward = add_forward;
    table->copy_rows = copy_rows;
}
