/* Weight gradients by Winograd's algorithm, F(3x3,4x4) for 3x3 kernels, F(3,4) and F(7,2) for kernels with one tap in a
 * direction: with the points of the forward pass, its input tiles and their transform V = B^T d B are the same, a tile of dy
 * takes the place of the filter, and the sum over tiles is the inner sum of as many products as there are points
 *
 *     dU = V^T (D dy D^T)        (cin, tiles) (tiles, cout)
 *
 * from which each filter comes in the end. Tiles are taken in blocks: all threads transform a block, then each multiplies
 * parts (range of input channels, panel of output channels, range of points) of it. Sums are made and added in the order of
 * tiles, whatever the number of threads. */
#include <omp.h>
#include <string.h>

#include "kernels/winograd.h"
#include "kernels/winograd_tiles.h"

enum {
    BLOCK = 2 * THAW_DEPTH, /* tiles */
    RANGE = 128,            /* input channels */
    LINE = 16,              /* floats added to rows of V: a product reads a few of each row, which must not share sets */
    TILES = 4, MANY_TILES = 32, /* transformed in one piece of work: many where there is work for all */
    MANY_PARTS = 32         /* with fewer, points are divided too */
};

typedef struct layout {
    thaw_tiling t;
    int64_t tiles, blocks, block; /* of all images; tiles of a block */
    int64_t ranges, panels, point_groups, points;
    int64_t v, m, sum; /* floats of V of a range, M of a panel, dU of a part */
    int64_t kept;      /* dU that there is room for: of all parts, or of one a thread */
    bool fused;        /* a part has all points: its filters can be made when its last sum is */
} layout;

static layout layout_of(const thaw_window *s, int64_t n) {
    layout l = {.t = thaw_tiling_of(s), .ranges = thaw_ceil_div(s->cin, RANGE), .panels = thaw_panels(s->cout)};
    l.tiles = n * l.t.rows * l.t.columns;
    l.blocks = thaw_ceil_div(l.tiles, BLOCK);
    l.block = thaw_least(l.tiles, BLOCK);
    l.fused = l.ranges * l.panels >= MANY_PARTS;
    l.point_groups = l.fused ? 1 : l.t.points == THAW_POINTS ? 9 : l.t.points;
    l.points = l.t.points / l.point_groups;
    l.v = l.t.points * thaw_point_stride(l.block * (thaw_least(thaw_sixteens(s->cin), RANGE) + LINE));
    l.m = l.t.points * thaw_point_stride(l.block * THAW_PANEL);
    l.sum = l.t.points * RANGE * THAW_PANEL;
    l.kept = l.fused && l.blocks <= 1 ? thaw_least(thaw_threads(), l.ranges * l.panels) : l.ranges * l.panels;
    return l;
}

/* Of a thread: a tile of x or dy with zeros around it. */
static int64_t room_floats(void) { return THAW_POINTS * RANGE; }

size_t thaw_winograd_weights_scratch(const thaw_window *s, int64_t n) {
    layout l = layout_of(s, n);
    return (size_t)(l.ranges * l.v + l.panels * l.m + l.kept * l.sum + thaw_threads() * room_floats()) * sizeof(float);
}

static int64_t range_width(const thaw_window *s, int64_t range) {
    return thaw_least(RANGE, thaw_sixteens(s->cin) - range * RANGE);
}

/* Tile t0 + i of a block of `count`: its rows of V in all ranges, and of M in all panels. */
static void transform(const thaw_isa *isa, const thaw_window *s, const layout *l, int64_t t0, int64_t i, int64_t count,
                      const float *x, const float *dy, float *v, float *m, float *room) {
    thaw_tile tile = thaw_tile_of(&l->t, t0 + i, t0);
    for (int64_t range = 0; range < l->ranges; range++) {
        int64_t width = range_width(s, range);
        tile.at.stride = width + LINE;
        tile.at.point = thaw_point_stride(count * tile.at.stride);
        thaw_tile_input(isa, s, &tile, x, range * RANGE, width, v + range * l->v, room);
    }
    for (int64_t panel = 0; panel < l->panels; panel++) {
        int64_t width = thaw_panel_width(s->cout, panel), row, column;
        const float *from = thaw_image_part(dy + tile.image * s->oh * s->ow * s->cout, s->oh, s->ow, s->cout, tile.y, tile.x,
                                      tile.at.high, tile.at.wide, panel * THAW_PANEL, width, room, &row, &column);
        tile.at.stride = width;
        tile.at.point = thaw_point_stride(count * width);
        isa->winograd_gradient((int)s->kh, (int)s->kw, from, row, column, width, &tile.at, m + panel * l->m);
    }
}

/* Filters of a range and a panel from their sums (36, range, width). */
static void make_filters(const thaw_isa *isa, const thaw_window *s, int64_t range, int64_t panel, const float *sum,
                         float *dkernel) {
    int64_t c0 = range * RANGE, co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel);
    int64_t n = thaw_least(width, s->cout - co);
    for (int64_t c = 0; c < thaw_least(RANGE, s->cin - c0); c++) {
        float taps[9 * THAW_PANEL];
        isa->winograd_taps((int)s->kh, (int)s->kw, sum + c * width, RANGE * width, width, taps, THAW_PANEL);
        for (int64_t tap = 0; tap < s->kh * s->kw; tap++)
            memcpy(dkernel + (tap * s->cin + c0 + c) * s->cout + co, taps + tap * THAW_PANEL, (size_t)n * sizeof *taps);
    }
}

void thaw_winograd_weights(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel, void *scratch) {
    const thaw_isa *isa = thaw_isa_get();
    const layout l = layout_of(s, n);
    const int64_t parts = l.ranges * l.panels * l.point_groups;
    float *v = scratch, *m = v + l.ranges * l.v, *sums = m + l.panels * l.m, *rooms = sums + l.kept * l.sum;
    for (int64_t block = 0; block < l.blocks; block++) {
        int64_t t0 = block * BLOCK, count = thaw_least(BLOCK, l.tiles - t0);
        int64_t tiles = thaw_least(thaw_most(count / (4 * thaw_threads()), TILES), MANY_TILES);
#pragma omp parallel num_threads(thaw_threads())
        {
            int64_t thread = omp_get_thread_num();
#pragma omp for schedule(dynamic)
            for (int64_t from = 0; from < count; from += tiles)
                for (int64_t i = from; i < thaw_least(from + tiles, count); i++)
                    transform(isa, s, &l, t0, i, count, x, dy, v, m, rooms + thread * room_floats());
#pragma omp for schedule(dynamic)
            for (int64_t part = 0; part < parts; part++) {
                thaw_progress();
                int64_t group = part % l.point_groups, panel = part / l.point_groups % l.panels;
                int64_t range = part / l.point_groups / l.panels, width = thaw_panel_width(s->cout, panel);
                int64_t channels = thaw_least(RANGE, s->cin - range * RANGE), stride = range_width(s, range) + LINE;
                int64_t v_point = thaw_point_stride(count * stride), m_point = thaw_point_stride(count * width);
                float *sum = sums + (l.kept == l.ranges * l.panels ? range * l.panels + panel : thread) * l.sum;
                for (int64_t point = group * l.points; point < (group + 1) * l.points; point++)
                    isa->multiply_transposed(channels, width, thaw_point_rows(&l.t, t0, t0 + count, point),
                                             v + range * l.v + point * v_point, stride, m + panel * l.m + point * m_point,
                                             width, block > 0,
                                             sum + point * RANGE * width, width);
                if (l.fused && block == l.blocks - 1)
                    make_filters(isa, s, range, panel, sum, dkernel);
            }
        }
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t part = 0; part < (l.fused ? 0 : l.ranges * l.panels); part++)
        make_filters(isa, s, part / l.panels, part % l.panels, sums + part * l.sum, dkernel);
}
