/* What the two files of Winograd's algorithm share: tiles of images. */
#ifndef THAW_KERNELS_WINOGRAD_TILES_H
#define THAW_KERNELS_WINOGRAD_TILES_H

#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

/* Tiles of an image, row by row; images one behind the other. With 3 taps in a direction there are as few as there can be, of
 * 4 outputs, and the last ones of 3 where that is enough: 14 = 4+4+3+3; only 1, 2 and 5 outputs are less than their tiles. With
 * 7 taps all have 2 outputs, with one tap 1. */
typedef struct thaw_tiling {
    int64_t rows, columns;
    int64_t high, wide;     /* the first rows and columns, of full tiles; the others have one output less */
    int height, width;      /* outputs of a full tile */
    int points, points_x;   /* of a tile, and of its direction across */
} thaw_tiling;

static inline int thaw_tile_outputs(int64_t taps) { return taps == 3 ? 4 : taps == 7 ? 2 : 1; }
static inline int thaw_tile_points(int64_t taps) { return thaw_tile_outputs(taps) + (int)taps - 1; }

/* How many of the tiles of so many outputs are full. */
static inline int64_t thaw_full_tiles(int64_t taps, int64_t outputs) {
    int64_t tiles = thaw_ceil_div(outputs, thaw_tile_outputs(taps));
    return taps == 3 ? tiles - thaw_least(4 * tiles - outputs, tiles) : tiles;
}

static inline thaw_tiling thaw_tiling_of(const thaw_window *s) {
    thaw_tiling t = {.height = thaw_tile_outputs(s->kh), .width = thaw_tile_outputs(s->kw), .points_x = thaw_tile_points(s->kw)};
    t.rows = thaw_ceil_div(s->oh, t.height);
    t.columns = thaw_ceil_div(s->ow, t.width);
    t.high = thaw_full_tiles(s->kh, s->oh);
    t.wide = thaw_full_tiles(s->kw, s->ow);
    t.points = thaw_tile_points(s->kh) * t.points_x;
    if (s->pool) { /* full tiles alone, whose outputs are pooled without others; the last of an odd number is dropped */
        t.rows = t.high = thaw_ceil_div(s->oh / 2, 2);
        t.columns = t.wide = thaw_ceil_div(s->ow / 2, 2);
    }
    return t;
}

/* Where no tile is full in a direction, as on maps of 9x9, none has the point 0 of it. */
static inline thaw_first_points thaw_first_of(const thaw_tiling *t) { return (thaw_first_points){t->high == 0, t->wide == 0}; }

static inline bool thaw_tiling_has(const thaw_tiling *t, int64_t point) {
    const thaw_first_points first = thaw_first_of(t);
    return point / t->points_x >= first.high && point % t->points_x >= first.wide;
}

/* Distance of the matrices of the points, of so many floats: an odd number of cache lines, so that the 36 places that a transform
 * writes or reads do not fall into few sets of the cache. */
static inline int64_t thaw_point_stride(int64_t floats) {
    enum { LINE = 16 };
    return (floats / LINE | 1) * LINE;
}

/* Products of an image for each pair of channels. */
static inline int64_t thaw_tiling_products(const thaw_window *s) {
    const thaw_tiling t = thaw_tiling_of(s);
    return ((t.height - 2 + s->kh) * t.rows + t.high) * ((t.width - 2 + s->kw) * t.columns + t.wide);
}

/* Rows that the tiles before `tile` have in the matrices of the points: row[] of thaw_tile_rows. */
static inline void thaw_rows_before(const thaw_tiling *t, int64_t tile, int64_t rows[4]) {
    int64_t image = tile / (t->rows * t->columns), place = tile % (t->rows * t->columns);
    int64_t row = place / t->columns, column = place % t->columns;
    int64_t high = thaw_least(row, t->high), wide = thaw_least(column, t->wide);
    rows[0] = tile;
    rows[1] = image * t->high * t->columns + high * t->columns + (row < t->high ? column : 0);
    rows[2] = image * t->rows * t->wide + row * t->wide + wide;
    rows[3] = image * t->high * t->wide + high * t->wide + (row < t->high ? wide : 0);
}

/* A tile: its first output, and its rows in matrices whose first tile is `first`; distances are to be set. */
typedef struct thaw_tile {
    int64_t image, y, x;
    thaw_tile_rows at;
} thaw_tile;

static inline thaw_tile thaw_tile_of(const thaw_tiling *t, int64_t tile, int64_t first) {
    int64_t place = tile % (t->rows * t->columns), row = place / t->columns, column = place % t->columns;
    int64_t start[4], rows[4];
    thaw_rows_before(t, first, start);
    thaw_rows_before(t, tile, rows);
    thaw_tile out = {.image = tile / (t->rows * t->columns),
                     .y = (t->height - 1) * row + thaw_least(row, t->high),
                     .x = (t->width - 1) * column + thaw_least(column, t->wide),
                     .at = {.high = t->height - (row >= t->high), .wide = t->width - (column >= t->wide)}};
    for (int i = 0; i < 4; i++)
        out.at.row[i] = rows[i] - start[i];
    return out;
}

/* Rows of tiles [first, last) in the matrix of a point. */
static inline int64_t thaw_point_rows(const thaw_tiling *t, int64_t first, int64_t last, int64_t point) {
    int64_t start[4], end[4], kind = (point / t->points_x == 0) + 2 * (point % t->points_x == 0);
    thaw_rows_before(t, first, start);
    thaw_rows_before(t, last, end);
    return end[kind] - start[kind];
}

/* A part of high x wide cells of a map (h,w,c) from row y0, column x0 on: where its channels c0 on are, and the distances of
 * its rows and columns. Where it does not lie inside, or has no whole sixteens of channels, it is copied to room(high,wide,
 * width) with zeros around it; width: channels from c0 that are wanted, in whole sixteens. */
static inline const float *thaw_image_part(const float *map, int64_t h, int64_t w, int64_t c, int64_t y0, int64_t x0,
                                           int64_t high, int64_t wide, int64_t c0, int64_t width, float *room, int64_t *row,
                                           int64_t *column) {
    if (c0 + width <= c && y0 >= 0 && x0 >= 0 && y0 + high <= h && x0 + wide <= w) {
        *row = w * c;
        *column = c;
        return map + (y0 * w + x0) * c + c0;
    }
    for (int64_t i = 0; i < high; i++)
        for (int64_t j = 0; j < wide; j++) {
            float *to = room + (i * wide + j) * width;
            bool inside = y0 + i >= 0 && y0 + i < h && x0 + j >= 0 && x0 + j < w;
            int64_t copied = inside ? thaw_least(width, c - c0) : 0;
            if (copied > 0)
                memcpy(to, map + ((y0 + i) * w + x0 + j) * c + c0, (size_t)copied * sizeof *to);
            memset(to + copied, 0, (size_t)(width - copied) * sizeof *to);
        }
    *row = wide * width;
    *column = width;
    return room;
}

/* The inputs of a tile, channels [c0, c0+width), transformed to v. */
static inline void thaw_tile_input(const thaw_isa *isa, const thaw_window *s, const thaw_tile *t, const float *x, int64_t c0,
                                   int64_t width, float *v, float *room) {
    int64_t row, column;
    const float *from = thaw_image_part(x + t->image * s->h * s->w * s->cin, s->h, s->w, s->cin, t->y - s->pad_top,
                                        t->x - s->pad_left, t->at.high + s->kh - 1, t->at.wide + s->kw - 1, c0, width, room,
                                        &row, &column);
    isa->winograd_input((int)s->kh, (int)s->kw, from, row, column, width, &t->at, v);
}
#endif
