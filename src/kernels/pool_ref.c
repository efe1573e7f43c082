/* Pooling, reference. A window that holds no cell of the image (no Keras padding makes one) gives 0 and no gradient. */
#include "kernels/kernels_ref.h"

enum { NO_TAP = UINT16_MAX };

/* Index of the cell (iy*w + ix) that tap (ty, tx) of output (oy, ox) reads, -1 in the padding. */
static int64_t cell_of(const thaw_window *s, int64_t oy, int64_t ox, int64_t ty, int64_t tx) {
    int64_t iy = oy * s->sh - s->pad_top + ty * s->dh, ix = ox * s->sw - s->pad_left + tx * s->dw;
    return iy >= 0 && iy < s->h && ix >= 0 && ix < s->w ? iy * s->w + ix : -1;
}

/* Is v the new maximum? NaN always is, so that it reaches the output. */
static bool wins(float v, float best) { return v > best || v != v; }

static void max_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y, uint16_t *argmax) {
    int64_t c = s->cin;
    for (int64_t image = 0; image < n; image++, x += s->h * s->w * c)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t i = 0; i < c; i++, y++) {
                    int64_t tap = NO_TAP;
                    *y = 0;
                    for (int64_t t = 0; t < s->kh * s->kw; t++) {
                        int64_t cell = cell_of(s, oy, ox, t / s->kw, t % s->kw);
                        if (cell < 0 || (tap != NO_TAP && !wins(x[cell * c + i], *y)))
                            continue;
                        *y = x[cell * c + i];
                        tap = t;
                    }
                    if (argmax)
                        *argmax++ = (uint16_t)tap;
                }
}

static void clear(float *dx, int64_t count, bool accumulate) {
    for (int64_t i = 0; !accumulate && i < count; i++)
        dx[i] = 0;
}

static void max_pool_backward(const thaw_window *s, int64_t n, const float *dy, const uint16_t *argmax, float *dx,
                              bool accumulate) {
    int64_t c = s->cin;
    clear(dx, n * s->h * s->w * c, accumulate);
    for (int64_t image = 0; image < n; image++, dx += s->h * s->w * c)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t i = 0; i < c; i++, dy++, argmax++)
                    if (*argmax != NO_TAP)
                        dx[cell_of(s, oy, ox, *argmax / s->kw, *argmax % s->kw) * c + i] += *dy;
}

/* Cells of the image in the window of output (oy, ox). */
static int64_t cells_in(const thaw_window *s, int64_t oy, int64_t ox) {
    int64_t cells = 0;
    for (int64_t t = 0; t < s->kh * s->kw; t++)
        cells += cell_of(s, oy, ox, t / s->kw, t % s->kw) >= 0;
    return cells;
}

static void average_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y) {
    int64_t c = s->cin;
    for (int64_t image = 0; image < n; image++, x += s->h * s->w * c)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t i = 0; i < c; i++) {
                    double sum = 0.0;
                    for (int64_t t = 0; t < s->kh * s->kw; t++) {
                        int64_t cell = cell_of(s, oy, ox, t / s->kw, t % s->kw);
                        sum += cell >= 0 ? (double)x[cell * c + i] : 0.0;
                    }
                    int64_t cells = cells_in(s, oy, ox);
                    *y++ = cells ? (float)(sum / (double)cells) : 0;
                }
}

static void average_pool_backward(const thaw_window *s, int64_t n, const float *dy, float *dx, bool accumulate) {
    int64_t c = s->cin;
    clear(dx, n * s->h * s->w * c, accumulate);
    for (int64_t image = 0; image < n; image++, dx += s->h * s->w * c)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t i = 0; i < c; i++, dy++)
                    for (int64_t t = 0; t < s->kh * s->kw; t++) {
                        int64_t cell = cell_of(s, oy, ox, t / s->kw, t % s->kw);
                        if (cell >= 0)
                            dx[cell * c + i] += (float)((double)*dy / (double)cells_in(s, oy, ox));
                    }
}

static void global_average_forward(int64_t n, int64_t hw, int64_t c, const float *x, float *y) {
    for (int64_t image = 0; image < n; image++, x += hw * c)
        for (int64_t i = 0; i < c; i++) {
            double sum = 0.0;
            for (int64_t cell = 0; cell < hw; cell++)
                sum += (double)x[cell * c + i];
            *y++ = (float)(sum / (double)hw);
        }
}

static void global_average_backward(int64_t n, int64_t hw, int64_t c, const float *dy, float *dx, bool accumulate) {
    clear(dx, n * hw * c, accumulate);
    for (int64_t image = 0; image < n; image++, dy += c)
        for (int64_t cell = 0; cell < hw; cell++)
            for (int64_t i = 0; i < c; i++)
                *dx++ += (float)((double)dy[i] / (double)hw);
}

static void global_max_forward(int64_t n, int64_t hw, int64_t c, const float *x, float *y, int32_t *argmax) {
    for (int64_t image = 0; image < n; image++, x += hw * c)
        for (int64_t i = 0; i < c; i++, y++) {
            int64_t best = 0;
            for (int64_t cell = 1; cell < hw; cell++)
                if (wins(x[cell * c + i], x[best * c + i]))
                    best = cell;
            *y = x[best * c + i];
            if (argmax)
                *argmax++ = (int32_t)best;
        }
}

static void global_max_backward(int64_t n, int64_t hw, int64_t c, const float *dy, const int32_t *argmax, float *dx,
                                bool accumulate) {
    clear(dx, n * hw * c, accumulate);
    for (int64_t image = 0; image < n; image++, dx += hw * c)
        for (int64_t i = 0; i < c; i++)
            dx[*argmax++ * c + i] += *dy++;
}

void thaw_ref_pool(thaw_kernels *table) {
    table->max_pool_forward = max_pool_forward;
    table->max_pool_backward = max_pool_backward;
    table->average_pool_forward = average_pool_forward;
    table->average_pool_backward = average_pool_backward;
    table->global_average_forward = global_average_forward;
    table->global_average_backward = global_average_backward;
    table->global_max_forward = global_max_forward;
    table->global_max_backward = global_max_backward;
}
