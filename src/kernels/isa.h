/* Inner kernels, compiled once per instruction set. They run on the calling thread and know nothing of layers.
 *
 * A panel holds `w` columns (16 or THAW_PANEL) of a right-hand matrix, row after row. Every element of a product is the sum
 * over k in pieces of THAW_DEPTH: each piece a chain of multiply-adds in order of k, the pieces added in order. It does not
 * depend on how many rows are multiplied at once, nor on which. */
#ifndef THAW_KERNELS_ISA_H
#define THAW_KERNELS_ISA_H

#include <stdbool.h>
#include <stdint.h>

enum {
    THAW_PANEL = 32,  /* most columns of a panel */
    THAW_DEPTH = 128, /* rows of a panel that stay in the first-level cache */
    THAW_TILE = 6,    /* F(4x4,3x3): input tiles of 6x6, output tiles of 4x4 */
    THAW_POINTS = 36,
    THAW_PROBE_FLOATS = 26 * 16
};

/* STREAM: past the caches, to memory at multiples of 64 bytes; for results larger than a cache. */
typedef enum thaw_store { THAW_STORE_SET, THAW_STORE_ADD, THAW_STORE_STREAM } thaw_store;

typedef struct thaw_isa {
    const char *name;
    int lanes; /* floats of a vector */
    /* Multiply-adds alone, to measure what the core can do: x = x*a + b for vectors x behind a and b in
     * values(THAW_PROBE_FLOATS). Returns the FLOP. */
    int64_t (*probe)(int64_t rounds, float *values);
    /* c(m,w) = start(w) + a(m,k) b(k,w), rows of a and c `lda`, `ldc` apart; start NULL: added to c. relu: c = max(c, 0) at
     * the end. stream: c, at multiples of 64 bytes, need not stay in a cache (done only where it is written once). */
    void (*multiply)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b, const float *start,
                     bool relu, bool stream, float *c, int64_t ldc);
    /* c(m,w) = a(k,m)^T b(k,w) (accumulate: +=), rows `lda`, `ldb`, `ldc` apart; k > 0. */
    void (*multiply_transposed)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,
                                bool accumulate, float *c, int64_t ldc);

    /* Winograd, points {0, 5/8, -5/8, 3/2, -3/2, infinity}. c and w are multiples of 16; `row`, `column` are the distances of
     * neighbours, `point` that of the 36 results. */
    /* v(36,c) = B^T d B of a 6x6 tile d of x. */
    void (*winograd_input)(const float *x, int64_t row, int64_t column, int64_t c, float *v, int64_t point);
    /* The upper left rows x columns of the 4x4 tile A^T m A, with bias (w; NULL: none; none for ADD) and relu. */
    void (*winograd_output)(const float *m, int64_t point, int64_t w, const float *bias, bool relu, thaw_store store, float *y,
                            int64_t row, int64_t column, int rows, int columns);
    /* u(36,w) = G g G^T of w 3x3 filters g(9,w) whose taps are `tap` apart, each times scale (w; NULL: 1); in double.
     * Streamed to u, at multiples of 64 bytes. */
    void (*winograd_filter)(const float *g, int64_t tap, int64_t w, const double *scale, float *u, int64_t point);
    /* Weight gradient F(3x3,4x4). m(36,c) = D dy D^T of a 4x4 tile of dy, D: powers of the points. */
    void (*winograd_gradient)(const float *dy, int64_t row, int64_t column, int64_t c, float *m, int64_t point);
    /* dkernel(9,w), taps `tap` apart, from sums u(36,w); in double. */
    void (*winograd_taps)(const float *u, int64_t point, int64_t w, float *dkernel, int64_t tap);
    /* dx (accumulate: +=) = dy where y > 0, else 0; in place allowed. */
    void (*relu_gradient)(int64_t count, const float *y, const float *dy, float *dx, bool accumulate);
    /* What this thread has streamed is there before anything that it does next. */
    void (*fence)(void);
} thaw_isa;

/* The functions of one instruction set, each thaw_<field>_<isa>. */
#define THAW_ISA_DECLARE(isa) THAW_ISA_DECLARE_(isa)
#define THAW_ISA_DECLARE_(isa)                                                                                         \
    int64_t thaw_probe_##isa(int64_t rounds, float *values);                                                           \
    void thaw_multiply_##isa(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b,             \
                             const float *start, bool relu, bool stream, float *c, int64_t ldc);                       \
    void thaw_multiply_transposed_##isa(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b,  \
                                        int64_t ldb, bool accumulate, float *c, int64_t ldc);                          \
    void thaw_winograd_input_##isa(const float *x, int64_t row, int64_t column, int64_t c, float *v, int64_t point);   \
    void thaw_winograd_output_##isa(const float *m, int64_t point, int64_t w, const float *bias, bool relu,            \
                                    thaw_store store, float *y, int64_t row, int64_t column, int rows, int columns);   \
    void thaw_winograd_filter_##isa(const float *g, int64_t tap, int64_t w, const double *scale, float *u,             \
                                    int64_t point);                                                                    \
    void thaw_winograd_gradient_##isa(const float *dy, int64_t row, int64_t column, int64_t c, float *m,               \
                                      int64_t point);                                                                  \
    void thaw_winograd_taps_##isa(const float *u, int64_t point, int64_t w, float *dkernel, int64_t tap); \
    void thaw_relu_gradient_##isa(int64_t count, const float *y, const float *dy, float *dx, bool accumulate);         \
    void thaw_fence_##isa(void)

/* The best that the processor has, or the one that THAW_ISA names at the first call (avx512, avx2, portable). */
const thaw_isa *thaw_isa_get(void);
/* For tests: the one of this name from now on; false if this processor or build has none. */
bool thaw_isa_choose(const char *name);

/* STREAM for y(rows,c), act applied before it is stored, if it is large and lies well; else SET. */
thaw_store thaw_store_of(const float *y, int64_t rows, int64_t c);

/* Columns of panel `p` of a matrix of n columns: the last one may be half a panel. */
static inline int64_t thaw_panel_width(int64_t n, int64_t p) { return n - p * THAW_PANEL > 16 ? THAW_PANEL : 16; }
static inline int64_t thaw_panels(int64_t n) { return (n + THAW_PANEL - 1) / THAW_PANEL; }
static inline int64_t thaw_sixteens(int64_t n) { return (n + 15) / 16 * 16; }
#endif
