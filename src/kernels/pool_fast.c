/* Pooling, fast: loops over channels inside; pieces are output rows forward, channel blocks of an image backward. A window
 * that holds no cell of the image gives 0 and no gradient. */
#include <string.h>

#include "kernels/kernels_fast.h"

enum { NO_TAP = UINT16_MAX, CHANNELS = 64 /* of a piece */ };

/* Taps [first, last) of one dimension whose cell o*stride - pad + t*dilation lies inside [0, size). */
typedef struct taps {
    int64_t first, last;
} taps;

static taps taps_inside(int64_t o, int64_t stride, int64_t pad, int64_t dilation, int64_t count, int64_t size) {
    int64_t start = o * stride - pad;
    taps t;
    t.first = start < 0 ? thaw_ceil_div(-start, dilation) : 0;
    t.last = start < size ? thaw_least(count, thaw_ceil_div(size - start, dilation)) : 0;
    t.last = thaw_most(t.last, t.first);
    return t;
}

static taps row_taps(const thaw_window *s, int64_t oy) { return taps_inside(oy, s->sh, s->pad_top, s->dh, s->kh, s->h); }
static taps column_taps(const thaw_window *s, int64_t ox) { return taps_inside(ox, s->sw, s->pad_left, s->dw, s->kw, s->w); }

/* Offset in an image of the cell that tap (ty, tx) of output (oy, ox) reads. */
static int64_t cell_of(const thaw_window *s, int64_t oy, int64_t ox, int64_t ty, int64_t tx) {
    return ((oy * s->sh - s->pad_top + ty * s->dh) * s->w + ox * s->sw - s->pad_left + tx * s->dw) * s->cin;
}

/* y(c) = max(y, x): a strictly greater value wins, and NaN. */
static void take_max(int64_t c, const float *restrict x, float *restrict y) {
    for (int64_t i = 0; i < c; i++)
        y[i] = ((x[i] > y[i]) | (x[i] != x[i])) ? x[i] : y[i];
}

static void take_max_tap(int64_t c, const float *restrict x, uint16_t tap, float *restrict y, uint16_t *restrict argmax) {
    for (int64_t i = 0; i < c; i++) {
        bool wins = (x[i] > y[i]) | (x[i] != x[i]);
        y[i] = wins ? x[i] : y[i];
        argmax[i] = wins ? tap : argmax[i];
    }
}

/* One output cell; x: the image. */
static void max_cell(const thaw_window *s, const float *x, int64_t oy, int64_t ox, float *y, uint16_t *argmax) {
    taps rows = row_taps(s, oy), columns = column_taps(s, ox);
    int64_t c = s->cin;
    bool any = rows.last > rows.first && columns.last > columns.first;
    uint16_t tap = any ? (uint16_t)(rows.first * s->kw + columns.first) : NO_TAP;
    if (any)
        memcpy(y, x + cell_of(s, oy, ox, rows.first, columns.first), (size_t)c * sizeof *y);
    else
        memset(y, 0, (size_t)c * sizeof *y);
    for (int64_t i = 0; argmax && i < c; i++)
        argmax[i] = tap;
    for (int64_t ty = rows.first; ty < rows.last; ty++)
        for (int64_t tx = columns.first; tx < columns.last; tx++) {
            if (ty == rows.first && tx == columns.first)
                continue;
            const float *cell = x + cell_of(s, oy, ox, ty, tx);
            if (argmax)
                take_max_tap(c, cell, (uint16_t)(ty * s->kw + tx), y, argmax);
            else
                take_max(c, cell, y);
        }
}

static void max_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y, uint16_t *argmax) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < n * s->oh; row++)
        for (int64_t ox = 0; ox < s->ow; ox++) {
            int64_t at = (row * s->ow + ox) * s->cin;
            max_cell(s, x + row / s->oh * s->h * s->w * s->cin, row % s->oh, ox, y + at, argmax ? argmax + at : NULL);
        }
}

/* A piece of a backward pass: channels [i0, i1) of one image. */
typedef struct piece {
    int64_t image, i0, i1;
} piece;

static piece piece_of(int64_t c, int64_t item) {
    int64_t blocks = thaw_ceil_div(c, CHANNELS), i0 = item % blocks * CHANNELS;
    return (piece){.image = item / blocks, .i0 = i0, .i1 = thaw_least(i0 + CHANNELS, c)};
}

static void clear_piece(int64_t cells, int64_t c, const piece *p, float *dx) {
    for (int64_t cell = 0; cell < cells; cell++)
        memset(dx + cell * c + p->i0, 0, (size_t)(p->i1 - p->i0) * sizeof *dx);
}

static void max_pool_backward(const thaw_window *s, int64_t n, const float *dy, const uint16_t *argmax, float *dx,
                              bool accumulate) {
    int64_t c = s->cin, cells = s->h * s->w;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        float *to = dx + p.image * cells * c;
        if (!accumulate)
            clear_piece(cells, c, &p, to);
        for (int64_t o = 0; o < s->oh * s->ow; o++) {
            int64_t at = (p.image * s->oh * s->ow + o) * c, corner = cell_of(s, o / s->ow, o % s->ow, 0, 0);
            for (int64_t i = p.i0; i < p.i1; i++)
                if (argmax[at + i] != NO_TAP) {
                    int64_t ty = argmax[at + i] / s->kw, tx = argmax[at + i] % s->kw;
                    to[corner + (ty * s->dh * s->w + tx * s->dw) * c + i] += dy[at + i];
                }
        }
    }
}

static void average_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y) {
    int64_t c = s->cin;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < n * s->oh; row++)
        for (int64_t ox = 0; ox < s->ow; ox++) {
            const float *image = x + row / s->oh * s->h * s->w * c;
            float *to = y + (row * s->ow + ox) * c;
            taps rows = row_taps(s, row % s->oh), columns = column_taps(s, ox);
            float cells = (float)((rows.last - rows.first) * (columns.last - columns.first));
            memset(to, 0, (size_t)c * sizeof *to);
            for (int64_t ty = rows.first; ty < rows.last; ty++)
                for (int64_t tx = columns.first; tx < columns.last; tx++) {
                    const float *cell = image + cell_of(s, row % s->oh, ox, ty, tx);
                    for (int64_t i = 0; i < c; i++)
                        to[i] += cell[i];
                }
            for (int64_t i = 0; cells > 0.0f && i < c; i++)
                to[i] /= cells;
        }
}

static void average_pool_backward(const thaw_window *s, int64_t n, const float *dy, float *dx, bool accumulate) {
    int64_t c = s->cin, cells = s->h * s->w;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        float *to = dx + p.image * cells * c;
        if (!accumulate)
            clear_piece(cells, c, &p, to);
        for (int64_t o = 0; o < s->oh * s->ow; o++) {
            const float *from = dy + (p.image * s->oh * s->ow + o) * c;
            taps rows = row_taps(s, o / s->ow), columns = column_taps(s, o % s->ow);
            float inside = (float)((rows.last - rows.first) * (columns.last - columns.first));
            for (int64_t ty = rows.first; ty < rows.last; ty++)
                for (int64_t tx = columns.first; tx < columns.last; tx++) {
                    float *cell = to + cell_of(s, o / s->ow, o % s->ow, ty, tx);
                    for (int64_t i = p.i0; i < p.i1; i++)
                        cell[i] += from[i] / inside;
                }
        }
    }
}

static void global_average_forward(int64_t n, int64_t hw, int64_t c, const float *x, float *y) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        double sum[CHANNELS] = {0.0};
        for (int64_t cell = 0; cell < hw; cell++)
            for (int64_t i = p.i0; i < p.i1; i++)
                sum[i - p.i0] += (double)x[(p.image * hw + cell) * c + i];
        for (int64_t i = p.i0; i < p.i1; i++)
            y[p.image * c + i] = (float)(sum[i - p.i0] / (double)hw);
    }
}

static void global_average_backward(int64_t n, int64_t hw, int64_t c, const float *dy, float *dx, bool accumulate) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < n * hw; row++) {
        const float *from = dy + row / hw * c;
        float *to = dx + row * c;
        for (int64_t i = 0; i < c; i++)
            to[i] = (accumulate ? to[i] : 0.0f) + from[i] / (float)hw;
    }
}

static void global_max_forward(int64_t n, int64_t hw, int64_t c, const float *x, float *y, int32_t *argmax) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        int64_t width = p.i1 - p.i0;
        const float *from = x + p.image * hw * c + p.i0;
        float best[CHANNELS];
        int32_t place[CHANNELS] = {0};
        memcpy(best, from, (size_t)width * sizeof *best);
        for (int64_t cell = 1; cell < hw; cell++)
            for (int64_t i = 0; i < width; i++) {
                float v = from[cell * c + i];
                bool wins = (v > best[i]) | (v != v);
                best[i] = wins ? v : best[i];
                place[i] = wins ? (int32_t)cell : place[i];
            }
        memcpy(y + p.image * c + p.i0, best, (size_t)width * sizeof *best);
        if (argmax)
            memcpy(argmax + p.image * c + p.i0, place, (size_t)width * sizeof *place);
    }
}

static void global_max_backward(int64_t n, int64_t hw, int64_t c, const float *dy, const int32_t *argmax, float *dx,
                                bool accumulate) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        float *to = dx + p.image * hw * c;
        if (!accumulate)
            clear_piece(hw, c, &p, to);
        for (int64_t i = p.i0; i < p.i1; i++)
            to[argmax[p.image * c + i] * c + i] += dy[p.image * c + i];
    }
}

void thaw_fast_pool(thaw_kernels *table) {
    table->max_pool_forward = max_pool_forward;
    table->max_pool_backward = max_pool_backward;
    table->average_pool_forward = average_pool_forward;
    table->average_pool_backward = average_pool_backward;
    table->global_average_forward = global_average_forward;
    table->global_average_backward = global_average_backward;
    table->global_max_forward = global_max_forward;
    table->global_max_backward = global_max_backward;
}
