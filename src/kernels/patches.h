/* The matrix of patches of a convolution (im2col): one row for each place of a grid, whose columns are the cells (tap, channel)
 * that the patch reads from a source image. It is never whole: parts of it are gathered where they are needed. All three
 * directions of a convolution are products with such a matrix. */
#ifndef THAW_KERNELS_PATCHES_H
#define THAW_KERNELS_PATCHES_H

#include "kernels/kernels_fast.h"

/* Patch (a, b), tap (i, j): cell (a*sh + r0 + i*dr, b*sw + c0 + j*dc) of the source (h, w, c); outside it is 0. */
typedef struct thaw_patches {
    int64_t h, w, c;
    int64_t gh, gw; /* grid */
    int64_t sh, sw;
    int64_t nr, nc; /* taps */
    int64_t r0, c0, dr, dc;
} thaw_patches;

static inline int64_t thaw_patches_columns(const thaw_patches *p) { return p->nr * p->nc * p->c; }
/* Is the matrix of patches the source itself? */
static inline bool thaw_patches_plain(const thaw_patches *p) {
    return p->nr == 1 && p->nc == 1 && p->r0 == 0 && p->c0 == 0 && p->sh == 1 && p->sw == 1 && p->gh == p->h && p->gw == p->w;
}
/* to(m1-m0, k1-k0), rows `stride` apart: rows [m0, m1) and columns [k0, k1) of the matrix of one image. */
void thaw_patches_gather(const thaw_patches *p, const float *source, int64_t m0, int64_t m1, int64_t k0, int64_t k1,
                         float *to, int64_t stride);
/* Those that the outputs of a convolution read. */
thaw_patches thaw_patches_forward(const thaw_window *s);

/* Taps of one dimension that reach input cells of one phase (cell = a*stride + phase): tap first + i*step, i < n, reads
 * output cell a + offset - i*move. */
typedef struct thaw_phase_taps {
    int64_t n, first, step, offset, move;
} thaw_phase_taps;

/* The data gradient for the input cells of one phase of the strides is a convolution of dy with stride 1. Taps are taken
 * in reverse, so that they read dy forwards. */
typedef struct thaw_phase {
    int64_t py, px;
    thaw_phase_taps row, col;
    thaw_patches p;
} thaw_phase;

thaw_phase thaw_phase_of(const thaw_window *s, int64_t py, int64_t px);
/* Kernel(cin, cout) of tap (i, j) of a phase. */
const float *thaw_phase_tap(const thaw_window *s, const thaw_phase *f, const float *kernel, int64_t i, int64_t j);
/* Rows [m0, m1) of a phase's matrix of results (rows,cin) to their places in dx of one image; NULL: zeros. */
void thaw_phase_scatter(const thaw_window *s, const thaw_phase *f, int64_t m0, int64_t m1, const float *from, float *dx,
                        bool accumulate);
#endif
