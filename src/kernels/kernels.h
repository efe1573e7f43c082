/* Kernels: every operation as a plain function on float arrays, in a table chosen at run time.
 *
 * Layout NHWC / HWIO. n images; a function with n = 0 does nothing. Row-major, 64-byte aligned base pointers. Functions
 * are called by the engine's main thread and use thaw_threads() OpenMP threads inside. Bits do not depend on the thread
 * count; in forward functions the bits of an image do not depend on n or on its position in the batch.
 * `scratch` has at least the bytes that the matching *_scratch function states for (shape, n), at a thread count not below
 * the one of the call, and is 64-byte aligned; fewer images need no more. */
#ifndef THAW_KERNELS_H
#define THAW_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hooks.h"
#include "base/part.h"
#include "thaw/model.h"

/* A 2-D window operation (convolution or pooling) on one image. Output size is given, padding is explicit:
 * input row of output row o, tap t: o*sh - pad_top + t*dh; rows outside [0,h) are padding. */
typedef struct thaw_window {
    int64_t h, w, cin;
    int64_t kh, kw, sh, sw, dh, dw;
    int64_t pad_top, pad_left;
    int64_t oh, ow, cout; /* cout = cin for pooling */
    int64_t pool;         /* of conv_forward_packed: 2: its results go through MaxPooling2D(2); else 0 */
} thaw_window;

typedef struct thaw_kernels {
    const char *name; /* "fast" or "reference" */

    /* y(n,oh,ow,cout) = act(conv(x(n,h,w,cin), kernel(kh,kw,cin,cout)) + bias(cout)); bias may be NULL. act is not
     * SOFTMAX. */
    size_t (*conv_scratch)(const thaw_window *s, int64_t n, int slices); /* at least 1; covers all of these */
    size_t (*conv_forward_scratch)(const thaw_window *s);                /* covers forward alone, packed or not; not more */
    void (*conv_forward)(const thaw_window *s, int64_t n, const float *x, const float *kernel, const float *bias,
                         thaw_activation act, float *y, void *scratch);
    /* dx (n,h,w,cin) = (accumulate: +=) conv transposed of dy(n,oh,ow,cout). */
    void (*conv_backward_data)(const thaw_window *s, int64_t n, const float *dy, const float *kernel, float *dx,
                               bool accumulate, void *scratch);
    /* dkernel(kh,kw,cin,cout) and dbias(cout) are overwritten with the sum over the n images (zeros for n = 0);
     * either may be NULL. */
    void (*conv_backward_weights)(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel,
                                  float *dbias, void *scratch);
    /* dkernel of slices of the images, `slices` a power of two, slice i of images [start[i], start[i+1]), summed in a binary
     * tree: the bits of both halves' sums added. Where conv_sums_slices says so of all their images together; else, and for
     * dbias, the caller adds. */
    bool (*conv_sums_slices)(const thaw_window *s, int64_t n, int slices);
    void (*conv_backward_slices)(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy,
                                 float *dkernel, void *scratch);

    /* A kernel that stays the same for several calls is packed once. backward: for the data gradient. Floats; 0: these
     * kernels have no packed form of this shape, and the two functions below are not for it. */
    size_t (*conv_pack_floats)(const thaw_window *s, bool backward);
    /* Output channels of the kernel are multiplied by scale(cout) (NULL: 1; forward only) before anything is rounded. */
    void (*conv_pack)(const thaw_window *s, bool backward, const float *kernel, const double *scale, float *packed,
                      thaw_part part); /* of the packed form: others make the rest */
    /* y = act(conv(x) + bias + add); add(n,oh,ow,cout) is another array, NULL: 0. With s->pool the maxima of 2x2 of these,
     * y(n,oh/2,ow/2,cout): where conv_pools says so, without add, act RELU or LINEAR. */
    void (*conv_forward_packed)(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                                const float *add, thaw_activation act, float *y, void *scratch);
    bool (*conv_pools)(const thaw_window *s);
    void (*conv_backward_data_packed)(const thaw_window *s, int64_t n, const float *dy, const float *packed, float *dx,
                                      bool accumulate, void *scratch);

    /* y(n,units) = act(x(n,in) kernel(in,units) + bias). n rows may be n*H*W rows for Dense on a map. */
    size_t (*dense_scratch)(int64_t n, int64_t in, int64_t units);
    void (*dense_forward)(int64_t n, int64_t in, int64_t units, const float *x, const float *kernel, const float *bias,
                          thaw_activation act, float *y, void *scratch);
    void (*dense_backward_data)(int64_t n, int64_t in, int64_t units, const float *dy, const float *kernel, float *dx,
                                bool accumulate, void *scratch);
    void (*dense_backward_weights)(int64_t n, int64_t in, int64_t units, const float *x, const float *dy,
                                   float *dkernel, float *dbias, void *scratch);
    bool (*dense_sums_slices)(int slices); /* as above; start counts rows */
    void (*dense_backward_slices)(int64_t in, int64_t units, int slices, const int64_t *start, const float *x, const float *dy,
                                  float *dkernel, void *scratch);

    /* Max pooling; padding never wins. `argmax` (n,oh,ow,c) uint16 tap number kh_i*kw+kw_j, first maximum wins, may be
     * NULL (inference). */
    void (*max_pool_forward)(const thaw_window *s, int64_t n, const float *x, float *y, uint16_t *argmax);
    void (*max_pool_backward)(const thaw_window *s, int64_t n, const float *dy, const uint16_t *argmax, float *dx,
                              bool accumulate);
    /* Average over the cells inside the image. */
    void (*average_pool_forward)(const thaw_window *s, int64_t n, const float *x, float *y);
    void (*average_pool_backward)(const thaw_window *s, int64_t n, const float *dy, float *dx, bool accumulate);
    /* Global pooling over hw cells: y(n,c). `argmax` (n,c) int32 cell, may be NULL. */
    void (*global_average_forward)(int64_t n, int64_t hw, int64_t c, const float *x, float *y);
    void (*global_average_backward)(int64_t n, int64_t hw, int64_t c, const float *dy, float *dx, bool accumulate);
    void (*global_max_forward)(int64_t n, int64_t hw, int64_t c, const float *x, float *y, int32_t *argmax);
    void (*global_max_backward)(int64_t n, int64_t hw, int64_t c, const float *dy, const int32_t *argmax, float *dx,
                                bool accumulate);

    /* Elementwise on count values; in place allowed. SOFTMAX works on rows of `c`. */
    void (*activation_forward)(thaw_activation act, int64_t count, int64_t c, const float *x, float *y);
    /* dx = dy * act'(.), from the output y alone for linear relu relu6 elu tanh sigmoid softmax; swish needs x (else x may
     * be NULL). In place dx == dy allowed. */
    void (*activation_backward)(thaw_activation act, int64_t count, int64_t c, const float *x, const float *y,
                                const float *dy, float *dx, bool accumulate);
    /* Keras ReLU layer: max_value (INFINITY: none), negative_slope, threshold. */
    void (*relu_forward)(float max_value, float slope, float threshold, int64_t count, const float *x, float *y);
    void (*relu_backward)(float max_value, float slope, float threshold, int64_t count, const float *x, const float *dy,
                          float *dx, bool accumulate);

    /* y = x*scale[c] + shift[c], then act (not SOFTMAX); rows of c. */
    void (*scale_shift)(int64_t rows, int64_t c, const float *x, const float *scale, const float *shift,
                        thaw_activation act, float *y);
    void (*zero_pad_forward)(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *x, float *y);
    void (*zero_pad_backward)(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t pad[4], const float *dy, float *dx,
                              bool accumulate);
    void (*add_forward)(int64_t count, const float *a, const float *b, float *y); /* y may be a */
    /* Copies rows of c_from values between arrays whose rows are wider (concatenate and its gradient):
     * to[r*to_stride + i] (+)= from[r*from_stride + i], i < c. */
    void (*copy_rows)(int64_t rows, int64_t c, const float *from, int64_t from_stride, float *to, int64_t to_stride,
                      bool accumulate);
    /* Dropout: keeps element e of the image with global number samples[i] where
     * uniform(Philox(seed, DROPOUT; epoch, sample, key + e/4).word[e%4]) >= rate, scaled by 1/(1-rate). Forward and
     * backward are the same operation (mask from the counter, not stored). */
    void (*dropout)(int64_t n, int64_t count, float rate, uint64_t seed, uint32_t epoch, uint32_t key,
                    const int64_t *samples, const float *x, float *y, bool accumulate);

    /* Batch normalization with batch statistics, rows of c over all ranks (hooks->reduce_sum merges sums in double). Collective
     * through hooks, also with rows = 0. mean, inv_std (c floats) are saved for backward; batch_mean and batch_var (c floats,
     * biased) for the moving update. gamma / beta may be NULL (1 / 0). */
    void (*batch_norm_forward)(int64_t rows, int64_t c, float epsilon, const float *x, const float *gamma,
                               const float *beta, float *y, float *mean, float *inv_std, float *batch_var,
                               const thaw_hooks *hooks, void *scratch);
    /* dgamma, dbeta: this rank's sums (overwritten; may be NULL: not wanted); with hooks->slices those of all ranks on the rank
     * of slice 0, and zeros elsewhere. dx NULL: not wanted. The sums over all ranks that dx needs are reduced through hooks
     * (Ioffe and Szegedy 2015, eq. of section 3). */
    void (*batch_norm_backward)(int64_t rows, int64_t c, const float *x, const float *gamma, const float *mean,
                                const float *inv_std, const float *dy, float *dx, bool accumulate, float *dgamma,
                                float *dbeta, const thaw_hooks *hooks, void *scratch);
    /* Batch normalization by moving statistics, backward: dx = dy*gamma*inv_std; dgamma = sum dy*(x-mean)*inv_std. y (NULL:
     * none): the output of a relu behind it; dy counts where that is above 0. */
    void (*batch_norm_moving_backward)(int64_t rows, int64_t c, const float *x, const float *y, const float *gamma,
                                       const float *mean, const float *inv_std, const float *dy, float *dx,
                                       bool accumulate, float *dgamma, float *dbeta, void *scratch);
    size_t (*batch_norm_scratch)(int64_t rows, int64_t c, int slices); /* at least 1 */
} thaw_kernels;

/* The table in force: "fast", or "reference" when THAW_KERNELS=reference is in the environment at the first call. */
const thaw_kernels *thaw_kernels_get(void);
const thaw_kernels *thaw_kernels_reference(void);
const thaw_kernels *thaw_kernels_fast(void);
/* "fast (avx512, convolution auto; OpenBLAS 0.3.21 SkylakeX, 1 thread a call)" for the log. Static. */
const char *thaw_kernels_describe(void);
/* "OpenBLAS 0.3.21 SkylakeX". Static. */
const char *thaw_kernels_blas(void);
/* Algorithm of convolutions from now on, whatever THAW_CONV says: auto, direct, winograd or blas; false: no such name.
 * Before the first call of thaw_kernels_get. */
bool thaw_kernels_choose_convolution(const char *name);
/* What the table in force does with a convolution of this window, or with a dense layer. Static. */
typedef enum thaw_direction { THAW_FORWARD, THAW_BACKWARD_DATA, THAW_BACKWARD_WEIGHTS } thaw_direction;
const char *thaw_conv_algorithm(const thaw_window *s, thaw_direction direction); /* direct 1x1 winograd blas reference */
const char *thaw_dense_algorithm(thaw_direction direction);                      /* direct blas reference */
/* Highest rate of multiply-adds in FLOP/s (2 each) that thaw_threads() threads reach together with the instruction set in
 * force, tried for `seconds`. portable: products and sums one by one. */
double thaw_kernels_peak(double seconds);
/* Once at start: OpenBLAS single-threaded inside our threads. */
void thaw_kernels_init(void);
#endif
