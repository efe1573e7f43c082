/* Convolutions with stride 1 by Winograd's algorithm, and their gradients. See winograd.c, winograd_weights.c. */
#ifndef THAW_KERNELS_WINOGRAD_H
#define THAW_KERNELS_WINOGRAD_H

#include "kernels/kernels.h"

/* 3x3, 1x3, 3x1, 1x7 or 7x1, stride 1, dilation 1. */
bool thaw_winograd_fits(const thaw_window *s);

/* The packed kernel of s: the transform of each filter. Floats. */
size_t thaw_winograd_pack_floats(const thaw_window *s);
/* A part of it from kernel(kh,kw,cin,cout), each output channel times scale(cout) (NULL: 1). */
void thaw_winograd_pack(const thaw_window *s, const float *kernel, const double *scale, float *packed, thaw_part part);
/* The same of the convolution that gives the data gradient of s. */
thaw_window thaw_winograd_turned(const thaw_window *s);
void thaw_winograd_pack_turned(const thaw_window *s, const float *kernel, float *packed, thaw_part part);

/* Products for each pair of channels and image. */
int64_t thaw_winograd_products(const thaw_window *s);

/* y = act(conv(x) + bias + add); add(n,oh,ow,cout): NULL, or y itself. */
size_t thaw_winograd_scratch(const thaw_window *s);
void thaw_winograd_forward(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                           const float *add, thaw_activation act, float *y, void *scratch);

/* dkernel(3,3,cin,cout), overwritten, of slices of at least one image together; several where it sums them: see kernels.h. */
size_t thaw_winograd_weights_scratch(const thaw_window *s, int64_t n, int slices);
bool thaw_winograd_sums_slices(const thaw_window *s, int64_t n, int slices);
void thaw_winograd_weights(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy,
                           float *dkernel, void *scratch);
#endif
