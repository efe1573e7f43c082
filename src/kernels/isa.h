/* Inner kernels, compiled once per instruction set. They run on the calling thread and know nothing of layers.
 *
 * A panel holds `w` columns (16 or THAW_PANEL) of a right-hand matrix, row after row. Every element of a product is the sum
 * over k in pieces of THAW_DEPTH: each piece a chain of multiply-adds in order of k, the pieces added in order. It does not
 * depend on how many rows are multiplied at once, nor on which. */
#ifndef THAW_KERNELS_ISA_H
#define THAW_KERNELS_ISA_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    THAW_PANEL = 32,  /* most columns of a panel */
    THAW_DEPTH = 128, /* rows of a panel that stay in the first-level cache */
    THAW_POINTS = 36, /* of F(4x4,3x3), the most of all */
    THAW_PROBE_FLOATS = 26 * 16
};

/* Where the matrices (tiles, channels) of Winograd's points hold a tile. With 3 taps in a direction a tile has 4 outputs there,
 * or 3: then it does without the point 0 of that direction, and the matrices of this point have no row for it. */
typedef struct thaw_tile_rows {
    int high, wide;        /* outputs */
    int64_t row[4];        /* of the matrix of point (p, q): [(p == 0) + 2*(q == 0)] */
    int64_t stride, point; /* floats from row to row and from matrix to matrix */
} thaw_tile_rows;

/* The first point in each direction that is there: 1 where no tile has the point 0. Filters have nothing at those before it, and
 * sums count as zero there. */
typedef struct thaw_first_points {
    bool high, wide;
} thaw_first_points;

typedef struct thaw_isa {
    const char *name;
    int lanes; /* floats of a vector */
    /* Multiply-adds alone, to measure what the core can do: x = x*a + b for vectors x behind a and b in
     * values(THAW_PROBE_FLOATS). Returns the FLOP. */
    int64_t (*probe)(int64_t rounds, float *values);
    /* c(m,w) = start(w) + a(m,k) b(k,w) + add(m,w). a lies in pieces of THAW_DEPTH columns, `piece` apart, each with its rows
     * `lda` apart: best one right behind the other, for the next are fetched from there. Rows of c and add are `ldc` apart;
     * start NULL: added to c; add NULL: 0. relu: c = max(c, 0) at the end. stream: c, at multiples of 64 bytes, need not stay in
     * a cache (done only where it is written once). side(m,w): for partial sums; NULL: they lie in c, whose rows may fall into
     * few sets of a cache. */
    void (*multiply)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, int64_t piece, const float *b,
                     const float *start, const float *add, bool relu, bool stream, float *c, int64_t ldc, float *side);
    /* c(m,w) = a(k,m)^T b(k,w) (accumulate: +=), rows `lda`, `ldb`, `ldc` apart. */
    void (*multiply_transposed)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,
                                bool accumulate, float *c, int64_t ldc);

    /* Winograd for kernels of kh x kw: 3x3, 1x3, 3x1, 1x7, 7x1. Points: winograd_isa.c. c and w are multiples of 16; `row`,
     * `column` are the distances of neighbours, `point` that of the results of the points, which number points of kh times
     * points of kw (one for one tap, 6 for 3, 8 for 7). */
    /* v(points,c) = B^T d B of a tile d of x, kh-1 and kw-1 cells higher and wider than the outputs. */
    void (*winograd_input)(int kh, int kw, const float *x, int64_t row, int64_t column, int64_t c, const thaw_tile_rows *t,
                           float *v);
    /* The upper left rows x columns of the outputs A^T m A, with bias (w; NULL: none), add (like y; NULL: none; may be y) and
     * relu. stream: as above. */
    void (*winograd_output)(int kh, int kw, const float *m, const thaw_tile_rows *t, int64_t w, const float *bias,
                            const float *add, bool relu, bool stream, float *y, int64_t row, int64_t column, int rows,
                            int columns);
    /* Of the outputs of a tile of 4x4, in twos in both directions, the largest (window_maximum): rows x columns of 2x2. */
    void (*winograd_pooled)(const float *m, const thaw_tile_rows *t, int64_t w, const float *bias, bool relu, bool stream,
                            float *y, int64_t row, int64_t column, int rows, int columns);
    /* u(points,w) = G g G^T of w filters g(kh*kw,w) whose taps are `tap` apart, each times scale (w; NULL: 1); in double.
     * Streamed to u, at multiples of 64 bytes. */
    void (*winograd_filter)(int kh, int kw, const float *g, int64_t tap, int64_t w, const double *scale, float *u,
                            int64_t point, thaw_first_points first);
    /* Weight gradient. m(points,c) = D dy D^T of a tile of dy, D: powers of the points. */
    void (*winograd_gradient)(int kh, int kw, const float *dy, int64_t row, int64_t column, int64_t c, const thaw_tile_rows *t,
                              float *m);
    /* dkernel(kh*kw,w), taps `tap` apart, from sums u(points,w). */
    void (*winograd_taps)(int kh, int kw, const float *u, int64_t point, int64_t w, float *dkernel, int64_t tap,
                          thaw_first_points first);
    /* y(c) = the average, or the maximum (the first of equal ones; NaN wins), over a window of rows x columns > 0 cells, whose
     * neighbours are `row` and `column` apart. */
    void (*window_average)(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row, int64_t column, float *y);
    void (*window_maximum)(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row, int64_t column, float *y);
    /* d = dy, or 0 where y is not > 0 (y NULL: dy), rows of c. dx (NULL: not wanted; accumulate: +=) = d * scale(c). To sums (2c;
     * NULL: not wanted) the sums over rows of d and, unless x is NULL, of d * (x - mean(c)) are added. */
    void (*norm_gradient)(int64_t rows, int64_t c, const float *x, const float *y, const float *mean, const float *scale,
                          const float *dy, float *dx, bool accumulate, double *sums);
    /* dx (accumulate: +=) = dy where y > 0, else 0; in place allowed. */
    void (*relu_gradient)(int64_t count, const float *y, const float *dy, float *dx, bool accumulate);
    /* y = a + b; in place allowed. */
    void (*add)(int64_t count, const float *a, const float *b, float *y);
    /* to(columns,rows) = from(rows,columns)^T; neighbouring rows are `from_row` and `to_row` apart. */
    void (*transpose)(int64_t rows, int64_t columns, const float *from, int64_t from_row, float *to, int64_t to_row);
    /* What this thread has streamed is there before anything that it does next. */
    void (*fence)(void);
} thaw_isa;

/* The functions of one instruction set, each thaw_<field>_<isa>. */
#define THAW_ISA_DECLARE(isa) THAW_ISA_DECLARE_(isa)
#define THAW_ISA_DECLARE_(isa)                                                                                         \
    int64_t thaw_probe_##isa(int64_t rounds, float *values);                                                           \
    void thaw_multiply_##isa(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, int64_t piece,              \
                             const float *b, const float *start, const float *add, bool relu, bool stream, float *c,   \
                             int64_t ldc, float *side);                                                                \
    void thaw_multiply_transposed_##isa(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b,  \
                                        int64_t ldb, bool accumulate, float *c, int64_t ldc);                          \
    void thaw_winograd_input_##isa(int kh, int kw, const float *x, int64_t row, int64_t column, int64_t c,             \
                                   const thaw_tile_rows *t, float *v);                                                 \
    void thaw_winograd_output_##isa(int kh, int kw, const float *m, const thaw_tile_rows *t, int64_t w,                \
                                    const float *bias, const float *add, bool relu, bool stream, float *y,             \
                                    int64_t row, int64_t column, int rows, int columns);                               \
    void thaw_winograd_pooled_##isa(const float *m, const thaw_tile_rows *t, int64_t w, const float *bias, bool relu,  \
                                    bool stream, float *y, int64_t row, int64_t column, int rows, int columns);        \
    void thaw_winograd_filter_##isa(int kh, int kw, const float *g, int64_t tap, int64_t w, const double *scale,       \
                                    float *u, int64_t point, thaw_first_points first);                                 \
    void thaw_winograd_gradient_##isa(int kh, int kw, const float *dy, int64_t row, int64_t column, int64_t c,         \
                                      const thaw_tile_rows *t, float *m);                                              \
    void thaw_winograd_taps_##isa(int kh, int kw, const float *u, int64_t point, int64_t w, float *dkernel,            \
                                  int64_t tap, thaw_first_points first);                                               \
    void thaw_window_average_##isa(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row,              \
                                   int64_t column, float *y);                                                          \
    void thaw_window_maximum_##isa(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row,              \
                                   int64_t column, float *y);                                                          \
    void thaw_norm_gradient_##isa(int64_t rows, int64_t c, const float *x, const float *y, const float *mean,          \
                                  const float *scale, const float *dy, float *dx, bool accumulate, double *sums);      \
    void thaw_relu_gradient_##isa(int64_t count, const float *y, const float *dy, float *dx, bool accumulate);         \
    void thaw_add_##isa(int64_t count, const float *a, const float *b, float *y);                                      \
    void thaw_transpose_##isa(int64_t rows, int64_t columns, const float *from, int64_t from_row, float *to,           \
                              int64_t to_row);                                                                         \
    void thaw_fence_##isa(void)

/* The best that the processor has, or the one that THAW_ISA names at the first call (avx512, avx2, portable). */
const thaw_isa *thaw_isa_get(void);
/* For tests: the one of this name from now on; false if this processor or build has none. */
bool thaw_isa_choose(const char *name);

/* Shall y(rows,c), written once, go past the caches? If it is larger than they are, and lies well. */
bool thaw_streams(const float *y, int64_t rows, int64_t c);

/* Columns of panel `p` of a matrix of n columns: the last one may be half a panel. */
static inline int64_t thaw_panel_width(int64_t n, int64_t p) { return n - p * THAW_PANEL > 16 ? THAW_PANEL : 16; }
static inline int64_t thaw_panels(int64_t n) { return (n + THAW_PANEL - 1) / THAW_PANEL; }
static inline int64_t thaw_sixteens(int64_t n) { return (n + 15) / 16 * 16; }
/* A panel (k,width) from n <= width rows of k floats, `row` apart, with zeros in the columns behind n. */
static inline void thaw_transpose_panel(int64_t n, int64_t k, const float *from, int64_t row, float *to, int64_t width) {
    if (n < width)
        memset(to, 0, (size_t)(k * width) * sizeof *to);
    thaw_isa_get()->transpose(n, k, from, row, to, width);
}
#endif
