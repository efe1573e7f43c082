/* Pooling, fast: loops over channels inside; pieces are output rows forward, channel blocks of an image backward. A window
 * that holds no cell of the image gives 0 and no gradient. */
#include <string.h>

#include "kernels/isa.h"
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
static void take_max_tap(int64_t c, const float *restrict x, uint16_t tap, float *restrict y, uint16_t *restrict argmax) {
    for (int64_t i = 0; i < c; i++) {
        bool wins = (x[i] > y[i]) | (x[i] != x[i]);
        y[i] = wins ? x[i] : y[i];
        argmax[i] = wins ? tap : argmax[i];
    }
}

/* One output cell with the tap that won; x: the image. */
static void max_cell(const thaw_window *s, const float *x, int64_t oy, int64_t ox, float *y, uint16_t *argmax) {
    taps rows = row_taps(s, oy), columns = column_taps(s, ox);
    int64_t c = s->cin;
    bool any = rows.last > rows.first && columns.last > columns.first;
    uint16_t tap = any ? (uint16_t)(rows.first * s->kw + columns.first) : NO_TAP;
    if (any)
        memcpy(y, x + cell_of(s, oy, ox, rows.first, columns.first), (size_t)c * sizeof *y);
    else
        memset(y, 0, (size_t)c * sizeof *y);
    for (int64_t i = 0; i < c; i++)
        argmax[i] = tap;
    for (int64_t ty = rows.first; ty < rows.last; ty++)
        for (int64_t tx = columns.first; tx < columns.last; tx++)
            if (ty != rows.first || tx != columns.first)
                take_max_tap(c, x + cell_of(s, oy, ox, ty, tx), (uint16_t)(ty * s->kw + tx), y, argmax);
}

/* One output cell by a function of isa.h. */
static void window_cell(const thaw_window *s, const float *x, int64_t oy, int64_t ox, bool average, float *y) {
    const thaw_isa *isa = thaw_isa_get();
    taps rows = row_taps(s, oy), columns = column_taps(s, ox);
    if (rows.last == rows.first || columns.last == columns.first) {
        memset(y, 0, (size_t)s->cin * sizeof *y);
        return;
    }
    (average ? isa->window_average : isa->window_maximum)(s->cin, x + cell_of(s, oy, ox, rows.first, columns.first),
                                                          rows.last - rows.first, columns.last - columns.first,
                                                          s->dh * s->w * s->cin, s->dw * s->cin, y);
}

static void max_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y, uint16_t *argmax) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < n * s->oh; row++)
        for (int64_t ox = 0; ox < s->ow; ox++) {
            if (ox == 0)
                thaw_progress();
            int64_t at = (row * s->ow + ox) * s->cin;
            const float *image = x + row / s->oh * s->h * s->w * s->cin;
            if (argmax)
                max_cell(s, image, row % s->oh, ox, y + at, argmax + at);
            else
                window_cell(s, image, row % s->oh, ox, false, y + at);
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

/* dx(c) += dy where this tap has won. */
static void give_tap(int64_t c, const float *restrict dy, const uint16_t *restrict argmax, uint16_t tap, float *restrict dx) {
    for (int64_t i = 0; i < c; i++) {
        float gradient = dy[i]; /* read in any case: a choice of values is vectorised, one of reads is not */
        dx[i] += argmax[i] == tap ? gradient : 0.0f;
    }
}

/* Output cell (oy, ox), channels [i0, i1); dy, argmax: the image's, to: its dx. */
static void give_cell(const thaw_window *s, int64_t oy, int64_t ox, int64_t i0, int64_t i1, const float *dy,
                      const uint16_t *argmax, float *to) {
    int64_t at = (oy * s->ow + ox) * s->cin + i0;
    taps rows = row_taps(s, oy), columns = column_taps(s, ox);
    for (int64_t ty = rows.first; ty < rows.last; ty++)
        for (int64_t tx = columns.first; tx < columns.last; tx++)
            give_tap(i1 - i0, dy + at, argmax + at, (uint16_t)(ty * s->kw + tx), to + cell_of(s, oy, ox, ty, tx) + i0);
}

/* Windows of neighbouring rows that share no cell: a piece is a row of outputs, and all rows of dx up to the next one's. */
static void max_pool_backward_rows(const thaw_window *s, int64_t n, const float *dy, const uint16_t *argmax, float *dx,
                                   bool accumulate) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * s->oh; item++) {
        thaw_progress();
        int64_t image = item / s->oh, oy = item % s->oh, outputs = image * s->oh * s->ow * s->cin;
        int64_t first = oy == 0 ? 0 : thaw_most(oy * s->sh - s->pad_top, 0);
        int64_t last = oy == s->oh - 1 ? s->h : thaw_least(thaw_most((oy + 1) * s->sh - s->pad_top, 0), s->h);
        float *to = dx + image * s->h * s->w * s->cin;
        if (!accumulate && last > first)
            memset(to + first * s->w * s->cin, 0, (size_t)((last - first) * s->w * s->cin) * sizeof *to);
        for (int64_t ox = 0; ox < s->ow; ox++)
            give_cell(s, oy, ox, 0, s->cin, dy + outputs, argmax + outputs, to);
    }
}

static void max_pool_backward(const thaw_window *s, int64_t n, const float *dy, const uint16_t *argmax, float *dx,
                              bool accumulate) {
    int64_t c = s->cin, cells = s->h * s->w;
    if (s->sh > (s->kh - 1) * s->dh) {
        max_pool_backward_rows(s, n, dy, argmax, dx, accumulate);
        return;
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * thaw_ceil_div(c, CHANNELS); item++) {
        piece p = piece_of(c, item);
        float *to = dx + p.image * cells * c;
        if (!accumulate)
            clear_piece(cells, c, &p, to);
        int64_t outputs = p.image * s->oh * s->ow * c;
        for (int64_t o = 0; o < s->oh * s->ow; o++)
            give_cell(s, o / s->ow, o % s->ow, p.i0, p.i1, dy + outputs, argmax + outputs, to);
    }
}

static void average_pool_forward(const thaw_window *s, int64_t n, const float *x, float *y) {
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < n * s->oh; row++)
        for (int64_t ox = 0; ox < s->ow; ox++)
            window_cell(s, x + row / s->oh * s->h * s->w * s->cin, row % s->oh, ox, true, y + (row * s->ow + ox) * s->cin);
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
            float inside = (float)((rows.last - rows.first) * (columns.last - columns.first)), part[CHANNELS];
            for (int64_t i = p.i0; i < p.i1; i++)
                part[i - p.i0] = from[i] / inside;
            for (int64_t ty = rows.first; ty < rows.last; ty++)
                for (int64_t tx = columns.first; tx < columns.last; tx++) {
                    float *cell = to + cell_of(s, o / s->ow, o % s->ow, ty, tx) + p.i0;
                    for (int64_t i = 0; i < p.i1 - p.i0; i++)
                        cell[i] += part[i];
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
