/* Weight gradients by Winograd's algorithm, F(3x3,4x4) for 3x3 kernels, F(3,4) and F(7,2) for kernels with one tap in a
 * direction: with the points of the forward pass, its input tiles and their transform V = B^T d B are the same, a tile of dy
 * takes the place of the filter, and the sum over tiles is the inner sum of as many products as there are points
 *
 *     dU = V^T (D dy D^T)        (cin, tiles) (tiles, cout)
 *
 * from which each filter comes in the end. Sums are made and added in the order of tiles, whatever the number of threads:
 *
 *     shallow layers   tiles are cut into groups, each of which one thread transforms and multiplies, block by block, into sums
 *                      of its own. What it transforms it uses itself: between cores that have no cache in common it would come
 *                      from far, and of shallow layers that is most of the time
 *     deep layers      whose sums are too large for that: all threads transform a block, then each multiplies parts (range of
 *                      input channels, panel of output channels, range of points) of it
 *
 * Where all images are one block of a deep layer, it may be given in slices: filters of a part are made of each slice and added
 * while they are in the caches of a core. */
#include <omp.h>
#include <string.h>

#include "base/items.h"
#include "kernels/winograd.h"
#include "kernels/winograd_tiles.h"

enum {
    OWN_BLOCK = THAW_DEPTH,        /* tiles of a block of one thread */
    SHARED_BLOCK = 2 * THAW_DEPTH, /* of all */
    RANGE = 128,            /* input channels */
    LINE = 16,              /* floats added to rows of V: a product reads a few of each row, which must not share sets */
    TILES = 4, MANY_TILES = 32, /* transformed in one piece of work: many where there is work for all */
    MANY_PARTS = 32,        /* with fewer, points are divided too */
    ROWS = 8,               /* input channels whose filters are made together, and those of dkernel fetched meanwhile */
    GROUP_FLOATS = 6 << 20, /* sums of all groups */
    FEW_GROUPS = 8, MANY_GROUPS = 32,
    TAPS = 9
};

typedef struct layout {
    thaw_tiling t;
    int64_t tiles, blocks, block; /* of all images; tiles of a block */
    int64_t groups;               /* 0: threads share blocks */
    int64_t ranges, panels, point_groups, points;
    int64_t v, m, sum; /* floats of V of a range, M of a panel, dU of a part */
    int64_t kept;      /* dU that there is room for: of all parts (and groups), or of one a thread */
    bool fused;        /* a part has all points: its filters can be made when its last sum is, */
    bool sliced;       /* and those of slices be added, where all tiles are one block */
} layout;

/* Floats of dU of a part and a point. */
static int64_t sum_stride(int64_t width) { return thaw_point_stride(RANGE * width); }

static layout layout_of(const thaw_window *s, int64_t n, int slices) {
    layout l = {.t = thaw_tiling_of(s), .ranges = thaw_ceil_div(s->cin, RANGE), .panels = thaw_panels(s->cout)};
    const int64_t parts = l.ranges * l.panels;
    l.tiles = n * l.t.rows * l.t.columns;
    l.sum = l.t.points * sum_stride(THAW_PANEL);
    l.groups = thaw_least(GROUP_FLOATS / (parts * l.sum), MANY_GROUPS);
    if (l.groups < FEW_GROUPS)
        l.groups = 0;
    const int64_t block = l.groups ? OWN_BLOCK : SHARED_BLOCK;
    l.blocks = thaw_ceil_div(l.tiles, block);
    l.block = thaw_least(l.tiles, block);
    if (l.groups) /* several blocks each, or sums would be most of the work; but work for some threads */
        l.groups = thaw_least(thaw_least(l.groups, thaw_most(l.blocks / 4, FEW_GROUPS)), l.blocks);
    l.fused = parts >= MANY_PARTS;
    l.sliced = !l.groups && l.fused && slices > 1;
    l.point_groups = l.fused ? 1 : l.t.points == THAW_POINTS ? 9 : l.t.points;
    l.points = l.t.points / l.point_groups;
    l.v = l.t.points * (l.block * (thaw_least(thaw_sixteens(s->cin), RANGE) + LINE) + slices * LINE);
    l.m = l.t.points * (l.block * THAW_PANEL + slices * LINE);
    l.kept = l.groups ? l.groups * parts : l.fused && l.blocks <= 1 ? thaw_least(thaw_threads(), parts) : parts;
    return l;
}

/* Of a thread: a tile of x or dy with zeros around it; filters of a part that wait. */
static int64_t room_floats(const layout *l) {
    return l->sliced ? thaw_most(THAW_POINTS * RANGE, THAW_TREE_LEVELS * RANGE * TAPS * THAW_PANEL) : THAW_POINTS * RANGE;
}

/* V and M of a block. */
static int64_t block_floats(const layout *l) { return l->ranges * l->v + l->panels * l->m; }

size_t thaw_winograd_weights_scratch(const thaw_window *s, int64_t n, int slices) {
    const layout l = layout_of(s, n, slices);
    const int64_t blocks = l.groups ? thaw_threads() : 1;
    return (size_t)(blocks * block_floats(&l) + l.kept * l.sum + thaw_threads() * room_floats(&l)) * sizeof(float);
}

static int64_t range_width(const thaw_window *s, int64_t range) {
    return thaw_least(RANGE, thaw_sixteens(s->cin) - range * RANGE);
}

/* Tiles of a block, or of a slice in it. */
typedef struct tiles {
    int64_t t0, count;
    float *v, *m; /* matrices of the points, one behind the other: the next is what a product fetches ahead */
} tiles;

/* Tile t0 + i: its rows of V in all ranges, and of M in all panels. */
static void transform(const thaw_isa *isa, const thaw_window *s, const layout *l, const tiles *b, int64_t i, const float *x,
                      const float *dy, float *room) {
    thaw_tile tile = thaw_tile_of(&l->t, b->t0 + i, b->t0);
    for (int64_t range = 0; range < l->ranges; range++) {
        int64_t width = range_width(s, range);
        tile.at.stride = width + LINE;
        tile.at.point = thaw_point_stride(b->count * tile.at.stride);
        thaw_tile_input(isa, s, &tile, x, range * RANGE, width, b->v + range * l->v, room);
    }
    for (int64_t panel = 0; panel < l->panels; panel++) {
        int64_t width = thaw_panel_width(s->cout, panel), row, column;
        const float *from = thaw_image_part(dy + tile.image * s->oh * s->ow * s->cout, s->oh, s->ow, s->cout, tile.y, tile.x,
                                      tile.at.high, tile.at.wide, panel * THAW_PANEL, width, room, &row, &column);
        tile.at.stride = width;
        tile.at.point = thaw_point_stride(b->count * width);
        isa->winograd_gradient((int)s->kh, (int)s->kw, from, row, column, width, &tile.at, b->m + panel * l->m);
    }
}

/* A leaf of the tree over the slices, and filters of a part that wait for their right halves: (levels, range, taps, width), where
 * ROWS channels lie as (taps, ROWS, width). */
typedef struct leaf {
    int number, leaves;
    float *waiting;
} leaf;

static const leaf WHOLE = {0, 1, NULL};

/* Filters of a range and a panel from their sums (36, range, width). */
static void make_filters(const thaw_isa *isa, const thaw_window *s, const thaw_tiling *t, int64_t range, int64_t panel,
                         const float *sum, leaf at, float *dkernel) {
    const int64_t c0 = range * RANGE, co = panel * THAW_PANEL, width = thaw_panel_width(s->cout, panel);
    const int64_t n = thaw_least(width, s->cout - co), taps = s->kh * s->kw;
    const int ended = thaw_tree_ended(at.number);
    const bool last = at.number == at.leaves - 1;
    const int64_t channels = thaw_least(RANGE, s->cin - c0);
    for (int64_t c = 0; c < channels; c += ROWS) {
        const int64_t rows = thaw_least(ROWS, channels - c), floats = rows * width;
        float filters[TAPS * ROWS * THAW_PANEL];
        isa->winograd_taps((int)s->kh, (int)s->kw, sum + c * width, sum_stride(width), floats, filters, floats, thaw_first_of(t));
        for (int level = 0; level < ended; level++) {
            const float *left = at.waiting + (level * RANGE + c) * taps * width;
            isa->add(taps * floats, filters, left, filters);
        }
        if (!last) {
            memcpy(at.waiting + (ended * RANGE + c) * taps * width, filters, (size_t)(taps * floats) * sizeof *filters);
            continue;
        }
        for (int64_t row = 0; row < rows * taps; row++) { /* rows far apart: the processor does not see them coming */
            float *to = dkernel + (row % taps * s->cin + c0 + c + row / taps) * s->cout + co;
            __builtin_prefetch(to + ROWS * s->cout, 1, 2);
            __builtin_prefetch(to + ROWS * s->cout + LINE, 1, 2);
            memcpy(to, filters + row % taps * floats + row / taps * width, (size_t)n * sizeof *filters);
        }
    }
}

/* A part of dU of some tiles, points [first, last): added to sum or, where it is new, put there. */
static void multiply_part(const thaw_isa *isa, const thaw_window *s, const layout *l, const tiles *b, int64_t range,
                          int64_t panel, int64_t first, int64_t last, bool new, float *sum) {
    const int64_t width = thaw_panel_width(s->cout, panel), channels = thaw_least(RANGE, s->cin - range * RANGE);
    const int64_t stride = range_width(s, range) + LINE;
    const int64_t v_point = thaw_point_stride(b->count * stride), m_point = thaw_point_stride(b->count * width);
    for (int64_t point = first; point < last; point++)
        if (thaw_tiling_has(&l->t, point))
            isa->multiply_transposed(channels, width, thaw_point_rows(&l->t, b->t0, b->t0 + b->count, point),
                                     b->v + range * l->v + point * v_point, stride, b->m + panel * l->m + point * m_point, width,
                                     !new, sum + point * sum_stride(width), width);
}

static void by_groups(const thaw_window *s, const layout *l, const float *x, const float *dy, float *dkernel, float *scratch) {
    const thaw_isa *isa = thaw_isa_get();
    const int64_t parts = l->ranges * l->panels, of_thread = block_floats(l) + room_floats(l);
    float *sums = scratch + thaw_threads() * of_thread;
    thaw_items items;
    thaw_items_begin(&items, l->groups);
#pragma omp parallel num_threads(thaw_threads())
    {
        float *v = scratch + omp_get_thread_num() * of_thread, *m = v + l->ranges * l->v, *room = v + block_floats(l);
        for (int64_t group; (group = thaw_items_take(&items)) >= 0;) {
            const int64_t first = group * l->blocks / l->groups;
            for (int64_t block = first; block < (group + 1) * l->blocks / l->groups; block++) {
                const int64_t t0 = block * OWN_BLOCK;
                const tiles b = {t0, thaw_least(OWN_BLOCK, l->tiles - t0), v, m};
                for (int64_t i = 0; i < b.count; i++)
                    transform(isa, s, l, &b, i, x, dy, room);
                for (int64_t part = 0; part < parts; part++) {
                    thaw_progress();
                    multiply_part(isa, s, l, &b, part / l->panels, part % l->panels, 0, l->t.points, block == first,
                                  sums + (group * parts + part) * l->sum);
                }
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++) {
            float *sum = sums + part * l->sum;
            const int64_t width = thaw_panel_width(s->cout, part % l->panels);
            const int64_t filled = thaw_least(RANGE, s->cin - part / l->panels * RANGE) * width;
            for (int64_t point = 0; point < l->t.points; point++) {
                float *to = sum + point * sum_stride(width);
                for (int64_t group = 1; group < l->groups && thaw_tiling_has(&l->t, point); group++)
                    isa->add(filled, to, to + group * parts * l->sum, to);
            }
            make_filters(isa, s, &l->t, part / l->panels, part % l->panels, sum, WHOLE, dkernel);
        }
    }
}

/* Slice i of the only block, with matrices of its own. */
static tiles slice_of(const layout *l, const thaw_window *s, const int64_t *start, int i, float *v, float *m) {
    const int64_t of_image = l->t.rows * l->t.columns, before = (start[i] - start[0]) * of_image;
    const int64_t stride = thaw_least(thaw_sixteens(s->cin), RANGE) + LINE;
    return (tiles){before, (start[i + 1] - start[i]) * of_image, v + l->t.points * (before * stride + i * LINE),
                   m + l->t.points * (before * THAW_PANEL + i * LINE)};
}

/* A part of the only block: filters of the slices, added in a tree. */
static void part_of_slices(const thaw_isa *isa, const thaw_window *s, const layout *l, const tiles *slice, int slices,
                           int64_t part, float *sum, float *waiting, float *dkernel) {
    for (int i = 0; i < slices; i++) {
        multiply_part(isa, s, l, &slice[i], part / l->panels, part % l->panels, 0, l->t.points, true, sum);
        make_filters(isa, s, &l->t, part / l->panels, part % l->panels, sum, (leaf){i, slices, waiting}, dkernel);
    }
}

static void by_parts(const thaw_window *s, const layout *l, int slices, const int64_t *start, const float *x, const float *dy,
                     float *dkernel, float *scratch) {
    const thaw_isa *isa = thaw_isa_get();
    const int64_t parts = l->ranges * l->panels;
    float *v = scratch, *m = v + l->ranges * l->v, *sums = m + l->panels * l->m, *rooms = sums + l->kept * l->sum;
    tiles slice[1 << THAW_TREE_LEVELS]; /* with one, the block */
    for (int i = 0; i < slices; i++)
        slice[i] = slice_of(l, s, start, i, v, m);
    for (int64_t block = 0; block < l->blocks; block++) {
        const int64_t t0 = block * l->block, end = t0 + thaw_least(l->block, l->tiles - t0);
        const int64_t piece = thaw_least(thaw_most((end - t0) / (4 * thaw_threads()), TILES), MANY_TILES);
        if (slices == 1)
            slice[0] = (tiles){t0, end - t0, v, m};
#pragma omp parallel num_threads(thaw_threads())
        {
            int64_t thread = omp_get_thread_num();
#pragma omp for schedule(dynamic)
            for (int64_t from = t0; from < end; from += piece)
                for (int64_t i = from, k = 0; i < thaw_least(from + piece, end); i++) {
                    while (i >= slice[k].t0 + slice[k].count)
                        k++;
                    transform(isa, s, l, &slice[k], i - slice[k].t0, x, dy, rooms + thread * room_floats(l));
                }
#pragma omp for schedule(dynamic)
            for (int64_t item = 0; item < parts * l->point_groups; item++) {
                thaw_progress();
                int64_t part = item / l->point_groups, from = item % l->point_groups * l->points;
                float *sum = sums + (l->kept == parts ? part : thread) * l->sum;
                if (slices > 1) {
                    part_of_slices(isa, s, l, slice, slices, part, sum, rooms + thread * room_floats(l), dkernel);
                    continue;
                }
                multiply_part(isa, s, l, slice, part / l->panels, part % l->panels, from, from + l->points, block == 0, sum);
                if (l->fused && block == l->blocks - 1)
                    make_filters(isa, s, &l->t, part / l->panels, part % l->panels, sum, WHOLE, dkernel);
            }
        }
    }
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t part = 0; part < (l->fused ? 0 : parts); part++)
        make_filters(isa, s, &l->t, part / l->panels, part % l->panels, sums + part * l->sum, WHOLE, dkernel);
}

bool thaw_winograd_sums_slices(const thaw_window *s, int64_t n, int slices) {
    const layout l = layout_of(s, n, slices);
    return slices == 1 || (l.sliced && l.blocks == 1 && slices <= 1 << THAW_TREE_LEVELS);
}

void thaw_winograd_weights(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy,
                           float *dkernel, void *scratch) {
    const layout l = layout_of(s, start[slices] - start[0], slices);
    if (l.groups)
        by_groups(s, &l, x, dy, dkernel, scratch);
    else
        by_parts(s, &l, slices, start, x, dy, dkernel, scratch);
}
