/* Fast kernels: own inner kernels (isa.h) and OpenBLAS (one thread a call) inside OpenMP threads that share pieces of work.
 * What a piece is depends on the shape of the data alone, or leaves every sum as it is, so the number of threads never changes
 * a bit. Each file fills its part of the table. */
#ifndef THAW_KERNELS_FAST_H
#define THAW_KERNELS_FAST_H

#include "base/progress.h"
#include "base/threads.h"
#include "kernels/kernels.h"

void thaw_fast_conv(thaw_kernels *table);
void thaw_fast_conv_packed(thaw_kernels *table);
void thaw_fast_dense(thaw_kernels *table);
void thaw_fast_pool(thaw_kernels *table);
void thaw_fast_activation(thaw_kernels *table);
void thaw_fast_rows(thaw_kernels *table);
void thaw_fast_dropout(thaw_kernels *table);
void thaw_fast_batch_norm(thaw_kernels *table);

/* Algorithm of convolutions: THAW_CONV at the first call; see conv_packed.c. */
typedef enum thaw_conv_mode { THAW_CONV_AUTO, THAW_CONV_DIRECT, THAW_CONV_WINOGRAD, THAW_CONV_BLAS } thaw_conv_mode;
thaw_conv_mode thaw_conv_mode_get(void);
const char *thaw_conv_mode_name(void);
void thaw_conv_mode_set(thaw_conv_mode wish); /* for tests */
/* dkernel by the inner kernels of isa.h of slices (several: where it sums them) of at least one image together. */
bool thaw_packed_sums_slices(const thaw_window *s, int64_t n, int slices);
void thaw_packed_weights(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy, float *dkernel,
                         void *scratch);
size_t thaw_packed_scratch(const thaw_window *s, int64_t n, int slices); /* of these, and of functions with a packed kernel */
size_t thaw_packed_forward_scratch(const thaw_window *s);   /* of forward with a packed kernel */

enum { THAW_PIECE = 8192 }; /* floats of a piece of an elementwise operation */

/* y[i] = act(y[i]), i < count, by the calling thread; act is not SOFTMAX. */
void thaw_fast_activate(thaw_activation act, int64_t count, float *y);
/* y(rows,c) = act(y + bias(c)); rows are `stride` apart; bias may be NULL; act is not SOFTMAX. By the calling thread. */
void thaw_fast_finish(int64_t rows, int64_t c, int64_t stride, const float *bias, thaw_activation act, float *y);

/* Sums over rows are made in double, piece by piece, then over the pieces in order. */
int64_t thaw_fast_sum_pieces(int64_t rows, int64_t c); /* grows with rows */
/* out(width) = sum of the n rows of partial(n,width), in order. */
void thaw_fast_sum_merge(int64_t n, int64_t width, const double *partial, double *out);
/* out(c) = sum of the rows of x(rows,c); partial has thaw_fast_sum_pieces(rows, c) * c doubles. */
void thaw_fast_column_sums(int64_t rows, int64_t c, const float *x, double *partial, float *out);

/* Sums of slices in a binary tree, made leaf by leaf: behind leaf i all sums end of which it is the last, as many as i has ones
 * at its end; the sum then waits at that level for its right half. A call takes up to 2^THAW_TREE_LEVELS leaves. */
enum { THAW_TREE_LEVELS = 3 };
static inline int thaw_tree_ended(int leaf) { return __builtin_ctz(~(unsigned)leaf); }

static inline int64_t thaw_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t thaw_most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t thaw_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* Floats of a block, in whole cache lines. */
static inline int64_t thaw_lines(int64_t floats) { return (floats + 15) / 16 * 16; }
#endif
