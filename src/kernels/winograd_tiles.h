/* What the two files of Winograd's algorithm share: tiles of images. */
#ifndef THAW_KERNELS_WINOGRAD_TILES_H
#define THAW_KERNELS_WINOGRAD_TILES_H

#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

/* Tiles of 4x4 outputs of an image, row by row; images one behind the other. */
typedef struct thaw_tiling {
    int64_t rows, columns;
} thaw_tiling;

static inline thaw_tiling thaw_tiling_of(const thaw_window *s) {
    return (thaw_tiling){thaw_ceil_div(s->oh, 4), thaw_ceil_div(s->ow, 4)};
}

/* A square of size x size cells of a map (h,w,c) from row y0, column x0 on: where its channels c0 on are, and the distances of
 * its rows and columns. Where it does not lie inside, or has no whole sixteens of channels, it is copied to room(size,size,
 * width) with zeros around it; width: channels from c0 that are wanted, in whole sixteens. */
static inline const float *thaw_square(const float *map, int64_t h, int64_t w, int64_t c, int64_t y0, int64_t x0, int64_t size,
                                       int64_t c0, int64_t width, float *room, int64_t *row, int64_t *column) {
    if (c0 + width <= c && y0 >= 0 && x0 >= 0 && y0 + size <= h && x0 + size <= w) {
        *row = w * c;
        *column = c;
        return map + (y0 * w + x0) * c + c0;
    }
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = 0; j < size; j++) {
            float *to = room + (i * size + j) * width;
            bool inside = y0 + i >= 0 && y0 + i < h && x0 + j >= 0 && x0 + j < w;
            int64_t copied = inside ? thaw_least(width, c - c0) : 0;
            if (copied > 0)
                memcpy(to, map + ((y0 + i) * w + x0 + j) * c + c0, (size_t)copied * sizeof *to);
            memset(to + copied, 0, (size_t)(width - copied) * sizeof *to);
        }
    *row = size * width;
    *column = width;
    return room;
}

/* The 6x6 input tile of output tile `tile`, channels [c0, c0+width), transformed to v: 36 rows, `point` apart. */
static inline void thaw_tile_input(const thaw_isa *isa, const thaw_window *s, const thaw_tiling *t, int64_t tile, const float *x,
                                   int64_t c0, int64_t width, float *v, int64_t point, float *room) {
    int64_t image = tile / (t->rows * t->columns), place = tile % (t->rows * t->columns), row, column;
    int64_t y0 = place / t->columns * 4 - s->pad_top, x0 = place % t->columns * 4 - s->pad_left;
    const float *from = thaw_square(x + image * s->h * s->w * s->cin, s->h, s->w, s->cin, y0, x0, THAW_TILE, c0, width, room,
                                    &row, &column);
    isa->winograd_input(from, row, column, width, v, point);
}
#endif
