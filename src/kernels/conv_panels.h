/* Convolution of any window with a packed kernel: matrices of patches times panels. See conv_panels.c. */
#ifndef THAW_KERNELS_CONV_PANELS_H
#define THAW_KERNELS_CONV_PANELS_H

#include "kernels/kernels.h"

/* Packed kernels, and a part of one. backward: for the data gradient. scale(cout) of the output channels, NULL: 1; NULL for
 * backward. */
size_t thaw_panels_pack_floats(const thaw_window *s, bool backward);
void thaw_panels_pack(const thaw_window *s, bool backward, const float *kernel, const double *scale, float *packed,
                      thaw_part part);

size_t thaw_panels_scratch(const thaw_window *s, int64_t n); /* of all three, in bytes */
size_t thaw_panels_forward_scratch(const thaw_window *s);
void thaw_panels_forward(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                         const float *add, thaw_activation act, float *y, void *scratch);
void thaw_panels_backward_data(const thaw_window *s, int64_t n, const float *dy, const float *packed, float *dx,
                               bool accumulate, void *scratch);
/* dkernel(kh,kw,cin,cout), overwritten; n > 0. */
void thaw_panels_weights(const thaw_window *s, int64_t n, const float *x, const float *dy, float *dkernel, void *scratch);
#endif
