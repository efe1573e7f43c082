/* Convolution as a product of patches with panels of a packed kernel, by the inner kernels of isa.h.
 *
 * A piece of work is a block of rows of the matrix of patches, of one image or of several, times a range of panels. Its rows
 * are gathered, a chunk of columns at a time, to where they fit the second-level cache, and all panels pass over them. */
#include "kernels/conv_panels.h"

#include <omp.h>
#include <string.h>

#include "base/items.h"
#include "kernels/isa.h"
#include "kernels/patches.h"

enum {
    CHUNK = 9 * THAW_DEPTH,   /* most columns of a gathered block: sums are cut where the inner kernel cuts them */
    BLOCK_FLOATS = 96 * 1024, /* of a gathered block */
    FEWEST_ROWS = 48,
    MOST_ROWS = 384,
    LINE = 16,            /* floats of a line of the cache */
    FAR_ROWS = 1024,      /* floats of a page: rows so far apart share their sets of the first-level cache */
    WEIGHTS_ROWS = 256,   /* rows of patches in one piece of a weight gradient */
    WEIGHTS_DEPTH = 288,  /* rows of dkernel in one piece */
    WEIGHTS_PIECES = 16   /* pieces that a weight gradient is cut into at least, so that threads find work */
};

/* Packed: panels of columns; of each a matrix (rows, width). Forward one such matrix, backward one for each phase. */
static int64_t pack_floats(int64_t rows, int64_t columns) { return rows * thaw_sixteens(columns); }

static int64_t phases_y(const thaw_window *s) { return thaw_least(s->sh, s->h); }
static int64_t phases_x(const thaw_window *s) { return thaw_least(s->sw, s->w); }

size_t thaw_panels_pack_floats(const thaw_window *s, bool backward) {
    if (!backward)
        return (size_t)pack_floats(s->kh * s->kw * s->cin, s->cout);
    int64_t floats = 0;
    for (int64_t py = 0; py < phases_y(s); py++)
        for (int64_t px = 0; px < phases_x(s); px++) {
            thaw_phase f = thaw_phase_of(s, py, px);
            floats += pack_floats(thaw_patches_columns(&f.p), s->cin);
        }
    return (size_t)floats;
}

static void pack_forward(const thaw_window *s, const float *kernel, const double *scale, float *packed, thaw_part part) {
    int64_t rows = s->kh * s->kw * s->cin, panels = thaw_panels(s->cout);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t panel = thaw_part_begin(part, panels); panel < thaw_part_end(part, panels); panel++) {
        int64_t co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel), n = thaw_least(width, s->cout - co);
        float *to = packed + panel * rows * THAW_PANEL;
        for (int64_t row = 0; row < rows; row++, to += width) {
            const float *from = kernel + row * s->cout + co;
            for (int64_t i = 0; i < n; i++)
                to[i] = scale ? (float)((double)from[i] * scale[co + i]) : from[i];
            for (int64_t i = n; i < width; i++)
                to[i] = 0.0f;
        }
    }
}

/* The taps of a phase, each transposed: rows (tap, cout), columns cin. */
static void pack_phase(const thaw_window *s, const thaw_phase *f, const float *kernel, float *packed, thaw_part part) {
    int64_t rows = thaw_patches_columns(&f->p), taps = f->row.n * f->col.n, items = thaw_panels(s->cin) * taps;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = thaw_part_begin(part, items); item < thaw_part_end(part, items); item++) {
        int64_t panel = item / taps, tap = item % taps, ci = panel * THAW_PANEL;
        int64_t width = thaw_panel_width(s->cin, panel), n = thaw_least(width, s->cin - ci);
        const float *from = thaw_phase_tap(s, f, kernel, tap / f->col.n, tap % f->col.n) + ci * s->cout;
        thaw_transpose_panel(n, s->cout, from, s->cout, packed + panel * rows * THAW_PANEL + tap * s->cout * width, width);
    }
}

void thaw_panels_pack(const thaw_window *s, bool backward, const float *kernel, const double *scale, float *packed,
                      thaw_part part) {
    if (!backward) {
        pack_forward(s, kernel, scale, packed, part);
        return;
    }
    for (int64_t py = 0; py < phases_y(s); py++)
        for (int64_t px = 0; px < phases_x(s); px++) {
            thaw_phase f = thaw_phase_of(s, py, px);
            pack_phase(s, &f, kernel, packed, part);
            packed += pack_floats(thaw_patches_columns(&f.p), s->cin);
        }
}

/* How a matrix of patches is cut for a product with `columns` columns, and the floats of a thread. */
typedef struct cut {
    int64_t rows, chunk, stride; /* stride: of gathered rows, in pieces of THAW_DEPTH columns */
    int64_t side, start, all; /* places of: columns of a panel, its bias */
} cut;

static cut cut_of(const thaw_patches *p, int64_t columns, bool result) {
    cut c = {.chunk = thaw_least(thaw_most(thaw_patches_columns(p), 1), CHUNK)};
    c.stride = thaw_least(thaw_sixteens(c.chunk), THAW_DEPTH);
    int64_t gathered = thaw_ceil_div(c.chunk, THAW_DEPTH) * c.stride, width = result ? thaw_most(columns, gathered) : gathered;
    c.rows = thaw_least(thaw_most(BLOCK_FLOATS / width / 12 * 12, FEWEST_ROWS), MOST_ROWS);
    c.side = c.rows * gathered;
    c.start = c.side + c.rows * THAW_PANEL;
    c.all = c.start + THAW_PANEL + LINE;
    return c;
}

/* Rows [r0, r1) and columns [k0, k1) of the matrices of all images, one behind the other. */
static void gather_rows(const thaw_patches *p, const float *source, int64_t r0, int64_t r1, int64_t k0, int64_t k1, float *to,
                        int64_t stride) {
    int64_t places = p->gh * p->gw;
    while (r0 < r1) {
        int64_t image = r0 / places, m0 = r0 % places, m1 = thaw_least(m0 + r1 - r0, places);
        thaw_patches_gather(p, source + image * p->h * p->w * p->c, m0, m1, k0, k1, to, stride);
        to += (m1 - m0) * stride;
        r0 += m1 - m0;
    }
}

/* A packed right-hand matrix and what becomes of the product. */
typedef struct product {
    const float *packed;
    int64_t columns;
    const float *bias; /* (columns) or NULL */
    const float *add;  /* (rows of all patches, columns) or NULL */
    thaw_activation act;
    bool accumulate, stream;
} product;

/* May rows be multiplied where they are? If the patches are the source, and rows do not all fall into few sets of a cache. */
static bool in_source(const thaw_patches *p) { return thaw_patches_plain(p) && p->c % 16 == 0 && p->c % FAR_ROWS != 0; }

/* y(r1-r0, columns) = rows [r0, r1) of patches times panels [p0, p1); room: c->all floats. */
static void multiply(const thaw_patches *p, const cut *c, const float *source, int64_t r0, int64_t r1, const product *f,
                     int64_t p0, int64_t p1, float *y, float *room) {
    static const float zero[THAW_PANEL];
    const float *add = f->add ? f->add + r0 * f->columns : NULL;
    const thaw_isa *isa = thaw_isa_get();
    const int64_t k = thaw_patches_columns(p), rows = r1 - r0;
    const bool relu = f->act == THAW_ACTIVATION_RELU, gathered = !in_source(p);
    const int64_t stride = gathered ? c->stride : p->c, piece = gathered ? rows * stride : THAW_DEPTH;
    float *side = room + c->side, *shift = room + c->start;
    for (int64_t k0 = 0; k0 < k; k0 += c->chunk) {
        int64_t k1 = thaw_least(k0 + c->chunk, k);
        const float *left = gathered ? room : source + r0 * p->c + k0;
        for (int64_t at = k0; gathered && at < k1; at += THAW_DEPTH)
            gather_rows(p, source, r0, r1, at, thaw_least(at + THAW_DEPTH, k1), room + (at - k0) / THAW_DEPTH * piece, stride);
        for (int64_t panel = p0; panel < p1; panel++) {
            thaw_progress();
            int64_t j = panel * THAW_PANEL, width = thaw_panel_width(f->columns, panel), n = thaw_least(width, f->columns - j);
            bool whole = n == width, last = k1 == k;
            const float *start = k0 ? NULL : zero;
            if (k0 == 0 && f->accumulate && whole)
                start = NULL;
            if (k0 == 0 && f->bias) {
                for (int64_t i = 0; i < width; i++)
                    shift[i] = i < n ? f->bias[j + i] : 0.0f;
                start = shift;
            }
            isa->multiply(rows, width, k1 - k0, left, stride, piece,
                          f->packed + panel * k * THAW_PANEL + k0 * width, start, whole && last && add ? add + j : NULL,
                          relu && last && whole, f->stream && whole,
                          whole ? y + j : side, whole ? f->columns : width, whole ? side : NULL);
            if (!last)
                continue;
            for (int64_t r = 0; r < rows && !whole; r++) {
                float *to = y + r * f->columns + j;
                const float *more = f->accumulate ? to : add ? add + r * f->columns + j : NULL;
                for (int64_t i = 0; i < n; i++)
                    to[i] = side[r * width + i] + (more ? more[i] : 0.0f);
            }
            for (int64_t r = 0; r < rows && f->act != THAW_ACTIVATION_LINEAR && !(relu && whole); r++)
                thaw_fast_activate(f->act, n, y + r * f->columns + j);
        }
    }
    isa->fence();
}

/* With few blocks several threads share one, each with panels of its own. */
static int64_t ranges_of(int64_t blocks, int64_t columns) {
    int64_t ranges = 1;
    while (blocks * ranges < 4 * thaw_threads() && 2 * ranges <= thaw_panels(columns))
        ranges *= 2;
    return ranges;
}

void thaw_panels_forward(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                         const float *add, thaw_activation act, float *y, void *scratch) {
    const thaw_patches p = thaw_patches_forward(s);
    const cut c = cut_of(&p, s->cout, false);
    const bool once = act == THAW_ACTIVATION_LINEAR || act == THAW_ACTIVATION_RELU; /* y is not touched again */
    const int64_t rows = n * s->oh * s->ow;
    const product f = {.packed = packed, .columns = s->cout, .bias = bias, .add = add, .act = act,
                       .stream = once && thaw_streams(y, rows, s->cout)};
    const int64_t blocks = thaw_ceil_div(rows, c.rows), panels = thaw_panels(s->cout);
    const int64_t ranges = ranges_of(blocks, s->cout);
    thaw_items items;
    thaw_items_begin(&items, blocks * ranges);
#pragma omp parallel num_threads(thaw_threads())
    for (int64_t item; (item = thaw_items_take(&items)) >= 0;) {
        int64_t block = item / ranges, range = item % ranges, r0 = block * rows / blocks, r1 = (block + 1) * rows / blocks;
        multiply(&p, &c, x, r0, r1, &f, range * panels / ranges, (range + 1) * panels / ranges, y + r0 * s->cout,
                 (float *)scratch + omp_get_thread_num() * c.all);
    }
}

static bool in_place(const thaw_window *s) { return s->sh == 1 && s->sw == 1; }

static int64_t phase_floats(const thaw_window *s, const cut *c) {
    return c->all + (in_place(s) ? 0 : thaw_lines(c->rows * s->cin));
}

static void backward_phase(const thaw_window *s, int64_t n, const thaw_phase *f, const float *packed, const float *dy,
                           float *dx, bool accumulate, float *scratch) {
    const cut c = cut_of(&f->p, s->cin, !in_place(s));
    const int64_t places = f->p.gh * f->p.gw, rows = n * places, blocks = thaw_ceil_div(rows, c.rows);
    const bool empty = thaw_patches_columns(&f->p) == 0;
    const product result = {.packed = packed, .columns = s->cin, .act = THAW_ACTIVATION_LINEAR,
                            .accumulate = accumulate && in_place(s)};
    const int64_t panels = thaw_panels(s->cin), ranges = in_place(s) ? ranges_of(blocks, s->cin) : 1;
    if (empty && accumulate)
        return;
    thaw_items items;
    thaw_items_begin(&items, blocks * ranges);
#pragma omp parallel num_threads(thaw_threads())
    for (int64_t item; (item = thaw_items_take(&items)) >= 0;) {
        int64_t block = item / ranges, range = item % ranges, r0 = block * rows / blocks, r1 = (block + 1) * rows / blocks;
        int64_t p0 = range * panels / ranges, p1 = (range + 1) * panels / ranges;
        float *room = scratch + omp_get_thread_num() * phase_floats(s, &c), *temporary = room + c.all;
        if (!empty)
            multiply(&f->p, &c, dy, r0, r1, &result, p0, p1, in_place(s) ? dx + r0 * s->cin : temporary, room);
        while ((!in_place(s) || empty) && r0 < r1) {
            int64_t image = r0 / places, m0 = r0 % places, m1 = thaw_least(m0 + r1 - r0, places);
            thaw_phase_scatter(s, f, m0, m1, empty ? NULL : temporary, dx + image * s->h * s->w * s->cin, accumulate);
            temporary += (m1 - m0) * s->cin;
            r0 += m1 - m0;
        }
    }
}

void thaw_panels_backward_data(const thaw_window *s, int64_t n, const float *dy, const float *packed, float *dx,
                               bool accumulate, void *scratch) {
    for (int64_t py = 0; py < phases_y(s) && n > 0; py++)
        for (int64_t px = 0; px < phases_x(s); px++) {
            thaw_phase f = thaw_phase_of(s, py, px);
            backward_phase(s, n, &f, packed, dy, dx, accumulate, scratch);
            packed += pack_floats(thaw_patches_columns(&f.p), s->cin);
        }
}

/* The weight gradient is cut by rows of dkernel. Where these are few, the rows of patches are cut into groups too: each
 * makes its own sum, and these are added in order. */
typedef struct weights_cut {
    int64_t k, depth, chunks, blocks, groups;
    int64_t sum;                /* floats of a group's sum, in panels (rows, width) */
    int64_t stride, dy, thread; /* of a thread: gathered rows, a panel of dy */
} weights_cut;

static weights_cut weights_cut_of(const thaw_window *s, int64_t n) {
    weights_cut c = {.k = s->kh * s->kw * s->cin, .blocks = thaw_most(thaw_ceil_div(n * s->oh * s->ow, WEIGHTS_ROWS), 1)};
    c.chunks = thaw_ceil_div(c.k, WEIGHTS_DEPTH);
    c.depth = thaw_ceil_div(thaw_ceil_div(c.k, c.chunks), 12) * 12;
    c.chunks = thaw_ceil_div(c.k, c.depth);
    c.groups = thaw_least(thaw_ceil_div(WEIGHTS_PIECES, c.chunks), c.blocks);
    c.sum = pack_floats(c.k, s->cout);
    c.stride = thaw_lines(c.depth) + LINE;
    c.dy = WEIGHTS_ROWS * c.stride;
    c.thread = c.dy + WEIGHTS_ROWS * THAW_PANEL;
    return c;
}

static void copy_panel(const thaw_window *s, const float *dy, int64_t rows, int64_t panel, float *to) {
    int64_t co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel), n = thaw_least(width, s->cout - co);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++)
            to[r * width + i] = i < n ? dy[r * s->cout + co + i] : 0.0f;
}

void thaw_panels_weights(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel, void *scratch) {
    const thaw_patches p = thaw_patches_forward(s);
    const weights_cut c = weights_cut_of(s, n);
    const thaw_isa *isa = thaw_isa_get();
    const int64_t rows = n * s->oh * s->ow, panels = thaw_panels(s->cout);
    float *sums = scratch, *rooms = sums + c.groups * c.sum;
    thaw_items items;
    thaw_items_begin(&items, c.groups * c.chunks);
#pragma omp parallel num_threads(thaw_threads())
    for (int64_t item; (item = thaw_items_take(&items)) >= 0;) {
        int64_t group = item / c.chunks, k0 = item % c.chunks * c.depth, k1 = thaw_least(k0 + c.depth, c.k);
        float *room = rooms + omp_get_thread_num() * c.thread, *sum = sums + group * c.sum;
        int64_t first = group * c.blocks / c.groups;
        for (int64_t block = first; block < (group + 1) * c.blocks / c.groups; block++) {
            thaw_progress();
            int64_t r0 = block * WEIGHTS_ROWS, r1 = thaw_least(r0 + WEIGHTS_ROWS, rows);
            gather_rows(&p, x, r0, r1, k0, k1, room, c.stride);
            for (int64_t panel = 0; panel < panels; panel++) {
                int64_t width = thaw_panel_width(s->cout, panel);
                copy_panel(s, dy + r0 * s->cout, r1 - r0, panel, room + c.dy);
                isa->multiply_transposed(k1 - k0, width, r1 - r0, room, c.stride, room + c.dy, width,
                                         block > first, sum + panel * c.k * THAW_PANEL + k0 * width, width);
            }
        }
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t row = 0; row < c.k; row++)
        for (int64_t panel = 0; panel < panels; panel++) {
            int64_t co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel), filled = thaw_least(width, s->cout - co);
            const float *from = sums + panel * c.k * THAW_PANEL + row * width;
            float *to = dkernel + row * s->cout + co;
            memcpy(to, from, (size_t)filled * sizeof *to);
            for (int64_t group = 1; group < c.groups; group++)
                for (int64_t i = 0; i < filled; i++)
                    to[i] += from[group * c.sum + i];
        }
}

size_t thaw_panels_scratch(const thaw_window *s, int64_t n) {
    const thaw_patches p = thaw_patches_forward(s);
    const cut forward = cut_of(&p, s->cout, false);
    const weights_cut weights = weights_cut_of(s, n);
    int64_t most = thaw_threads() * forward.all;
    most = thaw_most(most, weights.groups * weights.sum + thaw_threads() * weights.thread);
    for (int64_t py = 0; py < phases_y(s); py++)
        for (int64_t px = 0; px < phases_x(s); px++) {
            thaw_phase f = thaw_phase_of(s, py, px);
            cut c = cut_of(&f.p, s->cin, !in_place(s));
            most = thaw_most(most, thaw_threads() * phase_floats(s, &c));
        }
    return (size_t)most * sizeof(float);
}

size_t thaw_panels_forward_scratch(const thaw_window *s) {
    const thaw_patches p = thaw_patches_forward(s);
    return (size_t)(thaw_threads() * cut_of(&p, s->cout, false).all) * sizeof(float);
}
