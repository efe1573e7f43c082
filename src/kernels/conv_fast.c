/* Convolution with a kernel as it is: OpenBLAS multiplies it with matrices of patches, tile by tile.
 *
 * A tile of rows, and a chunk of columns of it, is gathered into the scratch of a thread where it fits the second-level
 * cache. How tiles are cut depends on the layer's shape, and each is one image's, so every matrix product of an image has
 * the same shape in every batch. */
#include <cblas.h>
#include <omp.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/patches.h"

enum {
    TILE_FLOATS = 128 * 1024, /* of a gathered tile: 512 KiB */
    FORWARD_DEPTH = 1152,     /* most columns of a tile that is multiplied from the left */
    WEIGHTS_DEPTH = 288,      /* and of one that is multiplied transposed: rows of dkernel in one piece */
    FEWEST_ROWS = 64,
    MOST_ROWS = 1024,
    ROW_UNIT = 24, /* rows come in whole passes of OpenBLAS' inner kernels; a remainder in each tile costs up to half */
    WEIGHTS_PIECES = 16 /* pieces that a weight gradient is cut into at least, so that threads find work */
};

/* How the matrix of patches of one image is cut. */
typedef struct cut {
    int64_t rows, tiles;
    int64_t depth, chunks;
} cut;

static cut cut_of(const thaw_patches *p, int64_t depth) {
    int64_t places = p->gh * p->gw, k = thaw_most(thaw_patches_columns(p), 1);
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

static int64_t tile_floats(const thaw_patches *p, const cut *c) {
    return thaw_patches_plain(p) ? 0 : thaw_lines(c->rows * c->depth);
}

/* A right-hand matrix (columns of the patches, n): rows `stride` apart, or given transposed, (n, columns). */
typedef struct factor {
    const float *data;
    int64_t n, stride;
    bool transposed;
} factor;

/* out(m1-m0, n) (+)= patches [m0, m1) times the factor. */
static void multiply(const thaw_patches *p, const cut *c, const float *source, int64_t m0, int64_t m1, const factor *f,
                     bool accumulate, float *out, float *tile) {
    int64_t k = thaw_patches_columns(p), depth = thaw_patches_plain(p) ? k : c->depth;
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
        int64_t k1 = thaw_least(k0 + depth, k), stride = k1 - k0;
        const float *left = tile;
        if (thaw_patches_plain(p)) {
            left = source + m0 * p->c;
            stride = p->c;
        } else {
            thaw_patches_gather(p, source, m0, m1, k0, k1, tile, stride);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, f->transposed ? CblasTrans : CblasNoTrans, (blasint)(m1 - m0),
                    (blasint)f->n, (blasint)(k1 - k0), 1.0f, left, (blasint)stride,
                    f->data + (f->transposed ? k0 : k0 * f->stride), (blasint)f->stride, accumulate || k0 ? 1.0f : 0.0f, out,
                    (blasint)f->n);
    }
}

static void conv_forward(const thaw_window *s, int64_t n, const float *x, const float *kernel, const float *bias,
                         thaw_activation act, float *y, void *scratch) {
    thaw_patches p = thaw_patches_forward(s);
    cut c = cut_of(&p, FORWARD_DEPTH);
    factor f = {.data = kernel, .n = s->cout, .stride = s->cout};
    int64_t places = s->oh * s->ow;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < n * c.tiles; item++) {
        thaw_progress();
        int64_t image = item / c.tiles, m0 = item % c.tiles * c.rows, m1 = thaw_least(m0 + c.rows, places);
        float *out = y + (image * places + m0) * s->cout;
        float *tile = (float *)scratch + omp_get_thread_num() * tile_floats(&p, &c);
        multiply(&p, &c, x + image * s->h * s->w * s->cin, m0, m1, &f, false, out, tile);
        thaw_fast_finish(m1 - m0, s->cout, s->cout, bias, act, out);
    }
}

/* A phase and how its matrix of patches is cut. */
typedef struct phase {
    thaw_phase f;
    cut c;
} phase;

static phase phase_of(const thaw_window *s, int64_t py, int64_t px) {
    phase f = {.f = thaw_phase_of(s, py, px)};
    f.c = cut_of(&f.f.p, FORWARD_DEPTH);
    return f;
}

/* to(tap, cout, cin): the taps of a phase, each transposed. */
static void transpose_taps(const thaw_window *s, const thaw_phase *f, const float *kernel, float *to) {
    enum { BLOCK = 32 };
    int64_t blocks = thaw_ceil_div(s->cin, BLOCK);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < f->row.n * f->col.n * blocks; item++) {
        int64_t tap = item / blocks, ci0 = item % blocks * BLOCK, ci1 = thaw_least(ci0 + BLOCK, s->cin);
        const float *from = thaw_phase_tap(s, f, kernel, tap / f->col.n, tap % f->col.n);
        thaw_isa_get()->transpose(ci1 - ci0, s->cout, from + ci0 * s->cout, s->cout, to + tap * s->cin * s->cout + ci0, s->cin);
    }
}

static int64_t phase_thread_floats(const thaw_window *s, const phase *f) {
    return tile_floats(&f->f.p, &f->c) + (s->sh == 1 && s->sw == 1 ? 0 : thaw_lines(f->c.rows * s->cin));
}

static void backward_phase(const thaw_window *s, int64_t n, const phase *f, const factor *kernel, const float *dy, float *dx,
                           bool accumulate, float *scratch) {
    const cut *c = &f->c;
    bool in_place = s->sh == 1 && s->sw == 1, empty = thaw_patches_columns(&f->f.p) == 0;
    int64_t places = f->f.p.gh * f->f.p.gw;
    if (empty && accumulate)
        return;
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < n * c->tiles; item++) {
        thaw_progress();
        int64_t image = item / c->tiles, m0 = item % c->tiles * c->rows, m1 = thaw_least(m0 + c->rows, places);
        const float *source = dy + image * s->oh * s->ow * s->cout;
        float *to = dx + image * s->h * s->w * s->cin;
        float *tile = scratch + omp_get_thread_num() * phase_thread_floats(s, f);
        if (empty) {
            thaw_phase_scatter(s, &f->f, m0, m1, NULL, to, accumulate);
        } else if (in_place) {
            multiply(&f->f.p, c, source, m0, m1, kernel, accumulate, to + m0 * s->cin, tile);
        } else {
            float *result = tile + tile_floats(&f->f.p, c);
            multiply(&f->f.p, c, source, m0, m1, kernel, false, result, tile);
            thaw_phase_scatter(s, &f->f, m0, m1, result, to, accumulate);
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
            if (f.f.row.n == 1 && f.f.col.n == 1)
                factor_of = (factor){.data = thaw_phase_tap(s, &f.f, kernel, 0, 0), .n = s->cin, .stride = s->cout,
                                     .transposed = true};
            else
                transpose_taps(s, &f.f, kernel, transposed);
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
    thaw_patches p = thaw_patches_forward(s);
    cut c = cut_of(&p, WEIGHTS_DEPTH);
    int64_t places = s->oh * s->ow, k = thaw_patches_columns(&p), groups = weight_groups(&c, n), size = k * s->cout;
    float *partial = scratch, *tiles = partial + (groups > 1 ? groups * thaw_lines(size) : 0);
    if (dbias)
        thaw_fast_column_sums(n * places, s->cout, dy, scratch, dbias);
    if (dkernel && n == 0)
        memset(dkernel, 0, (size_t)size * sizeof *dkernel);
    if (!dkernel || n == 0)
        return;
    if (thaw_conv_mode_get() != THAW_CONV_BLAS) {
        thaw_packed_weights(s, 1, (const int64_t[]){0, n}, x, dy, dkernel, scratch);
        return;
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int64_t item = 0; item < groups * c.chunks; item++) {
        int64_t group = item / c.chunks, k0 = item % c.chunks * c.depth, k1 = thaw_least(k0 + c.depth, k);
        int64_t first = group * (n * c.tiles) / groups, last = (group + 1) * (n * c.tiles) / groups;
        float *to = (groups > 1 ? partial + group * thaw_lines(size) : dkernel) + k0 * s->cout;
        float *tile = tiles + omp_get_thread_num() * tile_floats(&p, &c);
        for (int64_t at = first; at < last; at++) {
            thaw_progress();
            int64_t image = at / c.tiles, m0 = at % c.tiles * c.rows, m1 = thaw_least(m0 + c.rows, places);
            const float *source = x + image * s->h * s->w * s->cin, *left = tile;
            int64_t stride = k1 - k0;
            if (thaw_patches_plain(&p)) {
                left = source + m0 * p.c + k0;
                stride = p.c;
            } else {
                thaw_patches_gather(&p, source, m0, m1, k0, k1, tile, stride);
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

static bool conv_sums_slices(const thaw_window *s, int64_t n, int slices) {
    return n > 0 && thaw_conv_mode_get() != THAW_CONV_BLAS && thaw_packed_sums_slices(s, n, slices);
}

static size_t conv_scratch(const thaw_window *s, int64_t n, int slices) {
    int64_t threads = thaw_threads(), size = thaw_lines(s->kh * s->kw * s->cin * s->cout);
    thaw_patches p = thaw_patches_forward(s);
    cut forward = cut_of(&p, FORWARD_DEPTH), weights = cut_of(&p, WEIGHTS_DEPTH);
    int64_t groups = weight_groups(&weights, n);
    int64_t most = threads * tile_floats(&p, &forward);
    most = thaw_most(most, (groups > 1 ? groups * size : 0) + threads * tile_floats(&p, &weights));
    for (int64_t py = 0; py < thaw_least(s->sh, s->h); py++)
        for (int64_t px = 0; px < thaw_least(s->sw, s->w); px++) {
            phase f = phase_of(s, py, px);
            most = thaw_most(most, size + threads * phase_thread_floats(s, &f));
        }
    size_t sizes[] = {(size_t)most * sizeof(float), thaw_packed_scratch(s, n, slices),
                      (size_t)(thaw_fast_sum_pieces(n * s->oh * s->ow, s->cout) * s->cout) * sizeof(double)};
    size_t largest = sizes[0];
    for (int i = 1; i < 3; i++)
        largest = sizes[i] > largest ? sizes[i] : largest;
    return largest;
}

static size_t conv_forward_scratch(const thaw_window *s) {
    const thaw_patches p = thaw_patches_forward(s);
    const cut forward = cut_of(&p, FORWARD_DEPTH);
    const size_t plain = (size_t)(thaw_threads() * tile_floats(&p, &forward)) * sizeof(float);
    const size_t packed = thaw_packed_forward_scratch(s);
    return packed > plain ? packed : plain;
}

void thaw_fast_conv(thaw_kernels *table) {
    table->conv_scratch = conv_scratch;
    table->conv_forward_scratch = conv_forward_scratch;
    table->conv_forward = conv_forward;
    table->conv_backward_data = conv_backward_data;
    table->conv_backward_weights = conv_backward_weights;
    table->conv_sums_slices = conv_sums_slices;
    table->conv_backward_slices = thaw_packed_weights;
}
