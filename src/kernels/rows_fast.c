/* Scale and shift, zero padding, sums, copies of rows: fast. */
#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

static void scale_shift(int64_t rows, int64_t c, const float *x, const float *scale, const float *shift,
                        thaw_activation act, float *y) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (rows * c > THAW_PIECE)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * c;
        float *to = y + row * c;
        for (int64_t i = 0; i < c; i++)
            to[i] = from[i] * scale[i] + shift[i];
        thaw_fast_activate(act, c, to);
    }
}

static void zero_pad_forward(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *x, float *y) {
    int64_t oh = h + pad[0] + pad[1], left = pad[2] * c, inner = w * c, right = pad[3] * c, row = left + inner + right;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t r = 0; r < n * oh; r++) {
        int64_t iy = r % oh - pad[0];
        float *to = y + r * row;
        if (iy < 0 || iy >= h) {
            memset(to, 0, (size_t)row * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)left * sizeof *to);
        memcpy(to + left, x + (r / oh * h + iy) * inner, (size_t)inner * sizeof *to);
        memset(to + left + inner, 0, (size_t)right * sizeof *to);
    }
}

static void copy_row(int64_t c, const float *from, float *to, bool accumulate) {
    if (!accumulate)
        memcpy(to, from, (size_t)c * sizeof *to);
    else
        for (int64_t i = 0; i < c; i++)
            to[i] += from[i];
}

static void zero_pad_backward(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *dy, float *dx,
                              bool accumulate) {
    int64_t oh = h + pad[0] + pad[1], row = (w + pad[2] + pad[3]) * c;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t r = 0; r < n * h; r++)
        copy_row(w * c, dy + (r / h * oh + r % h + pad[0]) * row + pad[2] * c, dx + r * w * c, accumulate);
}

static void add_forward(int64_t count, const float *a, const float *b, float *y) {
    const thaw_isa *isa = thaw_isa_get();
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (count > THAW_PIECE)
    for (int64_t at = 0; at < count; at += THAW_PIECE)
        isa->add(thaw_least(THAW_PIECE, count - at), a + at, b + at, y + at);
}

static void copy_rows(int64_t rows, int64_t c, const float *from, int64_t from_stride, float *to, int64_t to_stride,
                      bool accumulate) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static) if (rows * c > THAW_PIECE)
    for (int64_t row = 0; row < rows; row++)
        copy_row(c, from + row * from_stride, to + row * to_stride, accumulate);
}

void thaw_fast_rows(thaw_kernels *table) {
    table->scale_shift = scale_shift;
    table->zero_pad_forward = zero_pad_forward;
    table->zero_pad_backward = zero_pad_backward;
    table->add_forward = add_forward;
    table->copy_rows = copy_rows;
}
