/* Convolution, fast: matrix products of patches (im2col) with the kernel, tile by tile.
 *
 * All three directions see one picture: a matrix of patches, one row for each place of a grid, whose columns are the cells
 * (tap, channel) that the patch reads from a source image. It is never whole: a tile of rows, and a chunk of columns of it,
 * is gathered into the scratch of a thread where it fits the second-level cache. How tiles are cut depends on the layer's
 * shape, and each is one image's, so every matrix product of an image has the same shape in every batch. */
#include <cblas.h>
#include <omp.h>
#include <string.h>

#include "kernels/kernels_fast.h"

enum {
    TILE_FLOATS = 128 * 1024, /* of a gathered tile: 512 KiB */
    FORWARD_DEPTH = 1152,     /* most columns of a tile that is multiplied from the left */
    WEIGHTS_DEPTH = 288,      /* and of one that is multiplied transposed: rows of dkernel in one piece */
    FEWEST_ROWS = 64,
    MOST_ROWS = 1024,
    ROW_UNIT = 24, /* rows come in whole passes of OpenBLAS' inner kernels; a remainder in each tile costs up to half */
    WEIGHTS_PIECES = 16 /* pieces that a weight gradient is cut into at least, so that threads find work */
};

/* Patch (a, b), tap (i, j): cell (a*sh + r0 + i*dr, b*sw + c0 + j*dc) of the source (h, w, c); outside it is 0. */
typedef struct patches {
    int64_t h, w, c;
    int64_t gh, gw; /* grid */
    int64_t sh, sw;
    int64_t nr, nc; /* taps */
    int64_t r0, c0, dr, dc;
} patches;

static int64_t columns_of(const patches *p) { return p->nr * p->nc * p->c; }

/* Is the matrix of patches the source itself? */
static bool is_source(const patches *p) {
    return p->nr == 1 && p->nc == 1 && p->r0 == 0 && p->c0 == 0 && p->sh == 1 && p->sw == 1 && p->gh == p->h && p->gw == p->w;
}

static void copy_floats(float *to, const float *from, int64_t count) {
    if (count > 32) {
        memcpy(to, from, (size_t)count * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

static void clear_floats(float *to, int64_t count) { memset(to, 0, (size_t)count * sizeof *to); }

/* Floats [f0, f1) that patches [m0, m1) read in tap row i from source column b*sw + col on. to: rows `stride` apart. */
static void gather_run(const patches *p, const float *source, int64_t m0, int64_t m1, int64_t i, int64_t col, int64_t f0,
                       int64_t f1, float *to, int64_t stride) {
    int64_t a = m0 / p->gw, b = m0 % p->gw;
    for (int64_t m = m0; m < m1; m++, to += stride) {
        int64_t y = a * p->sh + p->r0 + i * p->dr, x = b * p->sw + col;
        if (y < 0 || y >= p->h) {
            clear_floats(to, f1 - f0);
        } else {
            int64_t low = thaw_least(thaw_most(f0, -x * p->c), f1), high = thaw_most(low, thaw_least(f1, (p->w - x) * p->c));
            if (low > f0)
                clear_floats(to, low - f0);
            if (high > low)
                copy_floats(to + low - f0, source + (y * p->w + x) * p->c + low, high - low);
            if (f1 > high)
                clear_floats(to + high - f0, f1 - high);
        }
        if (++b == p->gw) {
            b = 0;
            a++;
        }
    }
}

/* to(m1-m0, k1-k0): rows [m0, m1) and columns [k0, k1) of the matrix of patches. */
static void gather(const patches *p, const float *source, int64_t m0, int64_t m1, int64_t k0, int64_t k1, float *to) {
    int64_t row = p->nc * p->c, stride = k1 - k0; /* row: floats of a row of taps */
    for (int64_t i = k0 / row; i * row < k1; i++) {
        int64_t f0 = thaw_most(k0 - i * row, 0), f1 = thaw_least(k1 - i * row, row);
        float *at = to + i * row + f0 - k0;
        if (p->dc == 1 || p->nc == 1) { /* neighbours in the source too */
            gather_run(p, source, m0, m1, i, p->c0, f0, f1, at, stride);
            continue;
        }
        for (int64_t j = f0 / p->c; j * p->c < f1; j++) {
            int64_t g0 = thaw_most(f0 - j * p->c, 0), g1 = thaw_least(f1 - j * p->c, p->c);
            gather_run(p, source, m0, m1, i, p->c0 + j * p->dc, g0, g1, at + j * p->c + g0 - f0, stride);
        }
    }
}

/* How the matrix of patches of one image is cut. */
typedef struct cut {
    int64_t rows, tiles;
    int64_t depth, chunks;
} cut;

static cut cut_of(const patches *p, int64_t depth) {
    int64_t places = p->gh * p->gw, k = thaw_most(columns_of(p), 1);
    cut c;
    c.chunks = thaw_ceil_div(k, depth);
    c.depth = thaw_least(k, thaw_lines(thaw_ceil_div(k, c.chunks)));
    c.chunks = thaw_ceil_div(k, c.depth);
    int64_t rows = thaw_least(thaw_most(TILE_FLOATS / c.depth, FEWEST_ROWS), MOST_ROWS);
    int64_t even = thaw_ceil_div(places, thaw_most(thaw_ceil_div(places, rows), 1));
    c.rows = thaw_most(thaw_ceil_div(even, ROW_UNIT), 1) * ROW_UNIT;
    c.tiles = thaw_ceil_div(places, c.rows);
    return c;
}

static int64_t tile_floats(const patches *p, const cut *c) { return is_source(p) ? 0 : thaw_lines(c->rows * c->depth); }

/* A right-hand matrix (columns of the patches, n): rows `stride` apart, or given transposed, (n, columns). */
typedef struct factor {
    const float *data;
    int64_t n, stride;
    bool transposed;
} factor;

/* out(m1-m0, n) (+)= patches [m0, m1) times the factor. */
static void multiply(const patches *p, const cut *c, const float *source, int64_t m0, int64_t m1, const factor *f,
                     bool accumulate, float *out, float *tile) {
    int64_t k = columns_of(p), depth = is_source(p) ? k : c->depth;
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
        int64_t k1 = thaw_least(k0 + depth, k), stride = k1 - k0;
        const float *left = tile;
        if (is_source(p)) {
            left = source + m0 * p->c;
            stride = p->c;
        } else {
            gather(p, source, m0, m1, k0, k1, tile);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, f->transposed ? CblasTrans : CblasNoTrans, (blasint)(m1 - m0),
                    (blasint)f->n, (blasint)(k1 - k0), 1.0f, left, (blasint)stride,
                    f->data + (f->transposed ? k0 : k0 * f->stride), (blasint)f->stride, accumulate || k0 ? 1.0f : 0.0f, out,
                    (blasint)f->n);
    }
}

static patches forward_patches(const thaw_window *s) {
    return (patches){.h = s->h, .w = s->w, .c = s->cin, .gh = s->oh, .gw = s->ow, .sh = s->sh, .sw = s->sw, .nr = s->kh,
                     .nc = s->kw, .r0 = -s->pad_top, .c0 = -s->pad_left, .dr = s->dh, .dc = s->dw};
}

static void conv_forward(const thaw_window *s, int64_t n, const float *x, const float *kernel, const float *bias,
                         thaw_activation act, float *y, void *scratch) {
    patches p = forward_patches(s);
    cut c = cut_of(&p, FORWARD_DEPTH);
    factor f = {.data = kernel, .n = s->cout, .stride = s->cout};
    int64_t places = s->oh * s->ow;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < n * c.tiles; item++) {
        int64_t image = item / c.tiles, m0 = item % c.tiles * c.rows, m1 = thaw_least(m0 + c.rows, places);
        float *out = y + (image * places + m0) * s->cout;
        float *tile = (float *)scratch + omp_get_thread_num() * tile_floats(&p, &c);
        multiply(&p, &c, x + image * s->h * s->w * s->cin, m0, m1, &f, false, out, tile);
        thaw_fast_finish(m1 - m0, s->cout, s->cout, bias, act, out);
    }
}

/* Taps of one dimension that reach input cells of one phase (cell = a*stride + phase): tap first + i*step, i < n, reads
 * output cell a + offset - i*move. */
typedef struct phase_taps {
    int64_t n, first, step, offset, move;
} phase_taps;

static phase_taps taps_of_phase(int64_t phase, int64_t pad, int64_t taps, int64_t stride, int64_t dilation) {
    int64_t common = stride, rest = dilation; /* greatest common divisor */
    while (rest) {
        int64_t next = common % rest;
        common = rest;
        rest = next;
    }
    phase_taps t = {.step = stride / common, .move = dilation / common};
    while (t.first < taps && (phase + pad - t.first * dilation) % stride)
        t.first++;
    t.n = t.first < taps ? (taps - 1 - t.first) / t.step + 1 : 0;
    t.offset = (phase + pad - t.first * dilation) / stride;
    return t;
}

/* The data gradient for the input cells of one phase of the strides is a convolution of dy with stride 1. Taps are taken
 * in reverse, so that they read dy forwards. */
typedef struct phase {
    int64_t py, px;
    phase_taps row, col;
    patches p;
    cut c;
} phase;

static phase phase_of(const thaw_window *s, int64_t py, int64_t px) {
    phase f = {.py = py, .px = px};
    f.row = taps_of_phase(py, s->pad_top, s->kh, s->sh, s->dh);
    f.col = taps_of_phase(px, s->pad_left, s->kw, s->sw, s->dw);
    f.p = (patches){.h = s->oh, .w = s->ow, .c = s->cout, .sh = 1, .sw = 1, .nr = f.row.n, .nc = f.col.n,
                    .gh = thaw_ceil_div(s->h - py, s->sh), .gw = thaw_ceil_div(s->w - px, s->sw),
                    .r0 = f.row.offset - (f.row.n - 1) * f.row.move, .c0 = f.col.offset - (f.col.n - 1) * f.col.move,
                    .dr = f.row.move, .dc = f.col.move};
    f.c = cut_of(&f.p, FORWARD_DEPTH);
    return f;
}

static const float *tap_of(const thaw_window *s, const phase *f, const float *kernel, int64_t i, int64_t j) {
    int64_t ty = f->row.first + (f->row.n - 1 - i) * f->row.step, tx = f->col.first + (f->col.n - 1 - j) * f->col.step;
    return kernel + (ty * s->kw + tx) * s->cin * s->cout;
}

/* to(tap, cout, cin): the taps of a phase, each transposed. */
static void transpose_taps(const thaw_window *s, const phase *f, const float *kernel, float *to) {
    enum { BLOCK = 32 };
    int64_t blocks = thaw_ceil_div(s->cin, BLOCK);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < f->row.n * f->col.n * blocks; item++) {
        int64_t tap = item / blocks, ci0 = item % blocks * BLOCK, ci1 = thaw_least(ci0 + BLOCK, s->cin);
        const float *from = tap_of(s, f, kernel, tap / f->col.n, tap % f->col.n);
        float *at = to + tap * s->cin * s->cout;
        for (int64_t co0 = 0; co0 < s->cout; co0 += BLOCK)
            for (int64_t co = co0; co < thaw_least(co0 + BLOCK, s->cout); co++)
                for (int64_t ci = ci0; ci < ci1; ci++)
                    at[co * s->cin + ci] = from[ci * s->cout + co];
    }
}

static int64_t phase_thread_floats(const thaw_window *s, const phase *f) {
    return tile_floats(&f->p, &f->c) + (s->sh == 1 && s->sw == 1 ? 0 : thaw_lines(f->c.rows * s->cin));
}

/* Rows [m0, m1) of a phase's matrix of results (rows,cin) to their places in dx of one image; NULL: zeros. */
static void scatter(const thaw_window *s, const phase *f, int64_t m0, int64_t m1, const float *from, float *dx,
                    bool accumulate) {
    for (int64_t m = m0; m < m1; m++) {
        int64_t iy = m / f->p.gw * s->sh + f->py, ix = m % f->p.gw * s->sw + f->px;
        float *to = dx + (iy * s->w + ix) * s->cin;
        const float *row = from ? from + (m - m0) * s->cin : NULL;
        if (!row && !accumulate)
            clear_floats(to, s->cin);
        else if (row && !accumulate)
            copy_floats(to, row, s->cin);
        else if (row)
            for (int64_t i = 0; i < s->cin; i++)
                to[i] += row[i];
    }
}

static void backward_phase(const thaw_window *s, int64_t n, const phase *f, const factor *kernel, const float *dy, float *dx,
                           bool accumulate, float *scratch) {
    const cut *c = &f->c;
    bool in_place = s->sh == 1 && s->sw == 1, empty = columns_of(&f->p) == 0;
    int64_t places = f->p.gh * f->p.gw;
    if (empty && accumulate)
        return;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < n * c->tiles; item++) {
        int64_t image = item / c->tiles, m0 = item % c->tiles * c->rows, m1 = thaw_least(m0 + c->rows, places);
        const float *source = dy + image * s->oh * s->ow * s->cout;
        float *to = dx + image * s->h * s->w * s->cin;
        float *tile = scratch + omp_get_thread_num() * phase_thread_floats(s, f);
        if (empty) {
            scatter(s, f, m0, m1, NULL, to, accumulate);
        } else if (in_place) {
            multiply(&f->p, c, source, m0, m1, kernel, accumulate, to + m0 * s->cin, tile);
        } else {
            float *result = tile + tile_floats(&f->p, c);
            multiply(&f->p, c, source, m0, m1, kernel, false, result, tile);
            scatter(s, f, m0, m1, result, to, accumulate);
        }
    }
}

static void conv_backward_data(const thaw_window *s, int64_t n, const float *dy, const float *kernel, float *dx,
                               bool accumulate, void *scratch) {
    float *transposed = scratch, *threads = transposed + thaw_lines(s->kh * s->kw * s->cin * s->cout);
    if (n == 0)
        return;
    for (int64_t py = 0; py < thaw_least(s->sh, s->h); py++)
        for (int64_t px = 0; px < thaw_least(s->sw, s->w); px++) {
            phase f = phase_of(s, py, px);
            factor factor_of = {.data = transposed, .n = s->cin, .stride = s->cin};
            if (f.row.n == 1 && f.col.n == 1)
                factor_of = (factor){.data = tap_of(s, &f, kernel, 0, 0), .n = s->cin, .stride = s->cout, .transposed = true};
            else
                transpose_taps(s, &f, kernel, transposed);
            backward_phase(s, n, &f, &factor_of, dy, dx, accumulate, threads);
        }
}

/* Groups that the tiles of all images are cut into for the weight gradient: with few rows of dkernel, each group makes its
 * own sum, and these are added in order. */
static int64_t weight_groups(const cut *c, int64_t n) {
    return thaw_most(thaw_least(thaw_ceil_div(WEIGHTS_PIECES, c->chunks), n * c->tiles), 1);
}

static void conv_backward_weights(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel,
                                  float *dbias, void *scratch) {
    patches p = forward_patches(s);
    cut c = cut_of(&p, WEIGHTS_DEPTH);
    int64_t places = s->oh * s->ow, k = columns_of(&p), groups = weight_groups(&c, n), size = k * s->cout;
    float *partial = scratch, *tiles = partial + (groups > 1 ? groups * thaw_lines(size) : 0);
    if (dbias)
        thaw_fast_column_sums(n * places, s->cout, dy, scratch, dbias);
    if (dkernel && n == 0)
        clear_floats(dkernel, size);
    if (!dkernel || n == 0)
        return;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < groups * c.chunks; item++) {
        int64_t group = item / c.chunks, k0 = item % c.chunks * c.depth, k1 = thaw_least(k0 + c.depth, k);
        int64_t first = group * (n * c.tiles) / groups, last = (group + 1) * (n * c.tiles) / groups;
        float *to = (groups > 1 ? partial + group * thaw_lines(size) : dkernel) + k0 * s->cout;
        float *tile = tiles + omp_get_thread_num() * tile_floats(&p, &c);
        for (int64_t at = first; at < last; at++) {
            int64_t image = at / c.tiles, m0 = at % c.tiles * c.rows, m1 = thaw_least(m0 + c.rows, places);
            const float *source = x + image * s->h * s->w * s->cin, *left = tile;
            int64_t stride = k1 - k0;
            if (is_source(&p)) {
                left = source + m0 * p.c + k0;
                stride = p.c;
            } else {
                gather(&p, source, m0, m1, k0, k1, tile);
            }
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)(k1 - k0), (blasint)s->cout, (blasint)(m1 - m0),
                        1.0f, left, (blasint)stride, dy + (image * places + m0) * s->cout, (blasint)s->cout,
                        at == first ? 0.0f : 1.0f, to, (blasint)s->cout);
        }
    }
    if (groups == 1)
        return;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t i = 0; i < size; i++) {
        float sum = partial[i];
        for (int64_t group = 1; group < groups; group++)
            sum += partial[group * thaw_lines(size) + i];
        dkernel[i] = sum;
    }
}

static size_t conv_scratch(const thaw_window *s, int64_t n) {
    int64_t threads = thaw_threads(), size = thaw_lines(s->kh * s->kw * s->cin * s->cout);
    patches p = forward_patches(s);
    cut forward = cut_of(&p, FORWARD_DEPTH), weights = cut_of(&p, WEIGHTS_DEPTH);
    int64_t groups = weight_groups(&weights, n);
    int64_t most = threads * tile_floats(&p, &forward);
    most = thaw_most(most, (groups > 1 ? groups * size : 0) + threads * tile_floats(&p, &weights));
    for (int64_t py = 0; py < thaw_least(s->sh, s->h); py++)
        for (int64_t px = 0; px < thaw_least(s->sw, s->w); px++) {
            phase f = phase_of(s, py, px);
            most = thaw_most(most, size + threads * phase_thread_floats(s, &f));
        }
    size_t sums = (size_t)(thaw_fast_sum_pieces(n * s->oh * s->ow, s->cout) * s->cout) * sizeof(double);
    return (size_t)most * sizeof(float) > sums ? (size_t)most * sizeof(float) : sums;
}

void thaw_fast_conv(thaw_kernels *table) {
    table->conv_scratch = conv_scratch;
    table->conv_forward = conv_forward;
    table->conv_backward_data = conv_backward_data;
    table->conv_backward_weights = conv_backward_weights;
}
