/* Winograd's algorithm (Lavin and Gray 2016): with F(4x4,3x3) a tile of 4x4 outputs comes from 6x6 inputs by 36 products for
 * each pair of channels instead of 144. Where a map has no whole tiles some are 3 outputs high or wide (winograd_tiles.h).
 * Kernels with one tap in a direction are transformed in the other alone: F(4,3) and F(2,7).
 *
 *     V = B^T d B            matrices (tiles, cin), one a point          inner kernels: isa.h
 *     M = V U                products with the packed kernel U = G g G^T
 *     y = A^T M A + bias
 *
 * A piece of work is a block of tiles, of one image or of several, times a range of panels of output channels. Its V stays in
 * a near cache while the panels pass, and the M of a panel never leaves the second level. A tile's bits come from its own
 * rows alone (isa.h), so neither the size of a block nor what else is in it changes them. */
#include "kernels/winograd.h"

#include <omp.h>
#include <string.h>

#include "base/items.h"
#include "kernels/winograd_tiles.h"

enum {
    LINE = 16,     /* floats of a line of the cache */
    UNIT = 12,     /* blocks have whole units of tiles, as the inner kernels like them */
    FEW_TILES = 24, /* of a block: V, M and the panels of a shallow layer fit the second-level cache together */
    MANY_TILES = 48, /* of a deep one: the packed kernel comes from far, and is used more often */
    MOST_TILES = 96, /* with the few points of a line */
    AHEAD = 8,     /* rows of a kernel that are fetched before they are needed */
    FILTERS = 16   /* input channels whose filters are transformed in one piece */
};

static bool line(int64_t taps, int64_t one) { return one == 1 && (taps == 3 || taps == 7); }

bool thaw_winograd_fits(const thaw_window *s) {
    return s->sh == 1 && s->sw == 1 && s->dh == 1 && s->dw == 1 &&
           ((s->kh == 3 && s->kw == 3) || line(s->kh, s->kw) || line(s->kw, s->kh));
}

int64_t thaw_winograd_products(const thaw_window *s) { return thaw_tiling_products(s); }

thaw_window thaw_winograd_turned(const thaw_window *s) {
    return (thaw_window){.h = s->oh, .w = s->ow, .cin = s->cout, .kh = s->kh, .kw = s->kw, .sh = 1, .sw = 1, .dh = 1, .dw = 1,
                         .pad_top = s->kh - 1 - s->pad_top, .pad_left = s->kw - 1 - s->pad_left, .oh = s->h, .ow = s->w,
                         .cout = s->cin};
}

static int64_t points_of(const thaw_window *s) { return thaw_tile_points(s->kh) * thaw_tile_points(s->kw); }

/* Packed: panels of output channels; of each, a matrix (cin, width) for each point that a tile has, so many floats apart. */
static int64_t filter_stride(const thaw_window *s, int64_t width) { return thaw_point_stride(s->cin * width); }

size_t thaw_winograd_pack_floats(const thaw_window *s) {
    const int64_t last = thaw_panels(s->cout) - 1;
    return (size_t)(points_of(s) * (last * filter_stride(s, THAW_PANEL) + filter_stride(s, thaw_panel_width(s->cout, last))));
}

static int64_t panel_begin(const thaw_window *s, int64_t panel) { return panel * points_of(s) * filter_stride(s, THAW_PANEL); }

void thaw_winograd_pack(const thaw_window *s, const float *kernel, const double *scale, float *packed, thaw_part part) {
    const thaw_isa *isa = thaw_isa_get();
    const thaw_tiling t = thaw_tiling_of(s);
    int64_t groups = thaw_ceil_div(s->cin, FILTERS), items = thaw_panels(s->cout) * groups;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = thaw_part_begin(part, items); item < thaw_part_end(part, items); item++) {
        int64_t panel = item / groups, width = thaw_panel_width(s->cout, panel), co = panel * THAW_PANEL;
        const int64_t filters = thaw_least(width, s->cout - co);
        const bool whole = filters == width;
        float taps[9 * THAW_PANEL] = {0};
        double factors[THAW_PANEL] = {0};
        for (int64_t i = 0; scale && i < filters; i++)
            factors[i] = scale[co + i];
        for (int64_t ci = item % groups * FILTERS; ci < thaw_least(item % groups * FILTERS + FILTERS, s->cin); ci++) {
            const float *row = kernel + ci * s->cout + co;
            for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
                const float *from = row + tap * s->cin * s->cout;
                __builtin_prefetch(from + AHEAD * s->cout, 0, 2); /* rows far apart: the processor does not see it coming */
                __builtin_prefetch(from + AHEAD * s->cout + LINE, 0, 2);
                if (!whole)
                    memcpy(taps + tap * THAW_PANEL, from, (size_t)filters * sizeof *taps);
            }
            isa->winograd_filter((int)s->kh, (int)s->kw, whole ? row : taps, whole ? s->cin * s->cout : THAW_PANEL, width,
                                 scale ? factors : NULL,
                                 packed + panel_begin(s, panel) + ci * width, filter_stride(s, width), thaw_first_of(&t));
        }
        isa->fence();
    }
}

void thaw_winograd_pack_turned(const thaw_window *s, const float *kernel, float *packed, thaw_part part) {
    const thaw_isa *isa = thaw_isa_get();
    const thaw_window turned = thaw_winograd_turned(s);
    const thaw_tiling t = thaw_tiling_of(&turned);
    int64_t groups = thaw_ceil_div(s->cout, FILTERS), items = thaw_panels(s->cin) * groups;
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = thaw_part_begin(part, items); item < thaw_part_end(part, items); item++) {
        int64_t panel = item / groups, width = thaw_panel_width(s->cin, panel), ci = panel * THAW_PANEL;
        int64_t co = item % groups * FILTERS, filters = thaw_least(width, s->cin - ci), from = thaw_least(FILTERS, s->cout - co);
        float taps[FILTERS][9 * THAW_PANEL] = {{0}}; /* of the filters from output channel co + k to inputs ci + i, turned */
        for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
            const float *rows = kernel + ((s->kh * s->kw - 1 - tap) * s->cin + ci) * s->cout + co;
            for (int64_t i = 0; i < filters; i++)
                __builtin_prefetch(rows + i * s->cout + FILTERS, 0, 2); /* the next item's */
            isa->transpose(filters, from, rows, s->cout, taps[0] + tap * THAW_PANEL, 9 * THAW_PANEL);
        }
        for (int64_t k = 0; k < from; k++)
            isa->winograd_filter((int)s->kh, (int)s->kw, taps[k], THAW_PANEL, width, NULL,
                                 packed + panel_begin(&turned, panel) + (co + k) * width, filter_stride(&turned, width),
                                 thaw_first_of(&t));
        isa->fence();
    }
}

static int64_t most_tiles(const thaw_window *s) {
    return points_of(s) < THAW_POINTS ? MOST_TILES : s->cin <= 128 ? FEW_TILES : MANY_TILES;
}

/* V of a point lies in pieces of THAW_DEPTH channels, as the inner kernel takes it. */
static int64_t pieces_of(const thaw_window *s) { return thaw_ceil_div(s->cin, THAW_DEPTH); }
static int64_t piece_width(const thaw_window *s) { return thaw_least(thaw_sixteens(s->cin), THAW_DEPTH); }

/* Floats of a thread: V, M, one input tile with padding, one output tile, bias of a panel. */
typedef struct room {
    int64_t v, m, patch, bias, all;
} room;

static room room_of(const thaw_window *s) {
    int64_t c = thaw_sixteens(s->cin), tiles = most_tiles(s);
    room r = {.m = points_of(s) * thaw_point_stride(tiles * pieces_of(s) * piece_width(s))};
    r.patch = r.m + points_of(s) * thaw_point_stride(tiles * THAW_PANEL);
    r.bias = r.patch + THAW_POINTS * thaw_most(c, THAW_PANEL);
    r.all = r.bias + THAW_PANEL + LINE;
    return r;
}

size_t thaw_winograd_scratch(const thaw_window *s) {
    return (size_t)(thaw_threads() * room_of(s).all) * sizeof(float);
}

/* What becomes of the results of a panel. */
typedef struct finish {
    const float *bias; /* (width) */
    int64_t width, n;  /* columns of the panel, of which n are channels */
    thaw_activation act;
    const float *add; /* like y, or NULL */
    bool stream;
} finish;

/* Copies n of width channels of rows x columns cells, packed with four in a row, to where they belong. */
static void place_cells(const float *from, int64_t width, int64_t n, int rows, int columns, float *to, int64_t row,
                        int64_t column) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            memcpy(to + i * row + j * column, from + (4 * i + j) * width, (size_t)n * sizeof *to);
}

/* Pooled outputs of a tile from m, as below. */
static void transform_pooled(const thaw_isa *isa, const thaw_window *s, const thaw_tile *t, const float *m, const finish *f,
                             float *y, float *piece) {
    const int64_t oh = s->oh / 2, ow = s->ow / 2, oy = t->y / 2, ox = t->x / 2;
    const int rows = (int)thaw_least(2, oh - oy), columns = (int)thaw_least(2, ow - ox);
    const bool relu = f->act == THAW_ACTIVATION_RELU, whole = f->n == f->width;
    float *to = y + ((t->image * oh + oy) * ow + ox) * s->cout;
    isa->winograd_pooled(m, &t->at, f->width, f->bias, relu, f->stream && whole, whole ? to : piece,
                         whole ? ow * s->cout : 4 * f->width, whole ? s->cout : f->width, rows, columns);
    if (!whole)
        place_cells(piece, f->width, f->n, rows, columns, to, ow * s->cout, s->cout);
}

/* Outputs of a tile from m. y and f->add are at the panel's first channel; piece: room for a tile. */
static void transform_output(const thaw_isa *isa, const thaw_window *s, const thaw_tile *t, const float *m, const finish *f,
                             float *y, float *piece) {
    int rows = (int)thaw_least(t->at.high, s->oh - t->y), columns = (int)thaw_least(t->at.wide, s->ow - t->x);
    bool relu = f->act == THAW_ACTIVATION_RELU;
    int64_t place = ((t->image * s->oh + t->y) * s->ow + t->x) * s->cout;
    const float *add = f->add ? f->add + place : NULL;
    float *to = y + place;
    if (f->n == f->width) {
        isa->winograd_output((int)s->kh, (int)s->kw, m, &t->at, f->width, f->bias, add, relu, f->stream, to,
                             s->ow * s->cout, s->cout, rows, columns);
        if (relu || f->act == THAW_ACTIVATION_LINEAR)
            return;
    } else {
        isa->winograd_output((int)s->kh, (int)s->kw, m, &t->at, f->width, f->bias, NULL, false, false, piece,
                             4 * f->width, f->width, rows, columns);
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            int64_t cell = (i * s->ow + j) * s->cout;
            const float *from = piece + (4 * i + j) * f->width;
            for (int64_t k = 0; f->n < f->width && k < f->n; k++)
                to[cell + k] = add ? from[k] + add[cell + k] : from[k];
            thaw_fast_activate(f->act, f->n, to + cell);
        }
}

void thaw_winograd_forward(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                           const float *add, thaw_activation act, float *y, void *scratch) {
    const thaw_isa *isa = thaw_isa_get();
    const thaw_tiling t = thaw_tiling_of(s);
    const room r = room_of(s);
    const int64_t tiles = n * t.rows * t.columns, panels = thaw_panels(s->cout), threads = thaw_threads();
    const int64_t pieces = pieces_of(s), stride = piece_width(s), units = thaw_ceil_div(tiles, UNIT);
    const int64_t blocks = thaw_ceil_div(tiles, most_tiles(s));
    const bool once = act == THAW_ACTIVATION_LINEAR || act == THAW_ACTIVATION_RELU; /* y is not touched again */
    const int64_t outputs = s->pool ? s->oh / 2 * (s->ow / 2) : s->oh * s->ow;
    const bool stream = once && add != y && thaw_streams(y, n * outputs, s->cout);
    /* Few blocks: several threads share one, each with its own V, so that none waits for the last. */
    int64_t ranges = 1;
    while (blocks * ranges < 4 * threads && 2 * ranges <= panels)
        ranges *= 2;
    thaw_items items;
    thaw_items_begin(&items, blocks * ranges);
#pragma omp parallel num_threads((int)threads)
    for (int64_t item; (item = thaw_items_take(&items)) >= 0;) {
        static const float zero[THAW_PANEL];
        int64_t block = item / ranges, range = item % ranges;
        int64_t t0 = block * units / blocks * UNIT, t1 = thaw_least((block + 1) * units / blocks * UNIT, tiles), count = t1 - t0;
        int64_t piece = count * stride, v_point = thaw_point_stride(pieces * piece), rows[THAW_POINTS];
        float *v = (float *)scratch + omp_get_thread_num() * r.all, *m = v + r.m, *patch = v + r.patch, *shift = v + r.bias;
        thaw_tile tile[MOST_TILES];
        for (int64_t point = 0; point < t.points; point++)
            rows[point] = thaw_point_rows(&t, t0, t1, point);
        for (int64_t i = 0; i < count; i++) {
            tile[i] = thaw_tile_of(&t, t0 + i, t0);
            tile[i].at.stride = stride;
            tile[i].at.point = v_point;
            for (int64_t k = 0; k < pieces; k++)
                thaw_tile_input(isa, s, &tile[i], x, k * THAW_DEPTH,
                                thaw_least(thaw_sixteens(s->cin) - k * THAW_DEPTH, THAW_DEPTH), v + k * piece, patch);
        }
        for (int64_t panel = range * panels / ranges; panel < (range + 1) * panels / ranges; panel++) {
            thaw_progress();
            int64_t co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel);
            int64_t m_point = thaw_point_stride(count * width), u_point = filter_stride(s, width);
            const finish f = {.bias = bias ? shift : NULL, .width = width, .n = thaw_least(width, s->cout - co), .act = act,
                              .add = add ? add + co : NULL, .stream = stream};
            const float *u = packed + panel_begin(s, panel);
            for (int64_t i = 0; bias && i < width; i++)
                shift[i] = i < f.n ? bias[co + i] : 0.0f;
            for (int64_t point = 0; point < t.points; point++)
                isa->multiply(rows[point], width, s->cin, v + point * v_point, stride, piece, u + point * u_point, zero, NULL,
                              false, false, m + point * m_point, width, NULL);
            for (int64_t i = 0; i < count; i++) {
                tile[i].at.stride = width;
                tile[i].at.point = m_point;
                (s->pool ? transform_pooled : transform_output)(isa, s, &tile[i], m, &f, y + co, patch);
            }
        }
        isa->fence();
    }
}
