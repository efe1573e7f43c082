/* Reference kernels: plain loops, one thread, sums in double. Each file fills its part of the table. These files use nothing
 * that depends on the width of float, so a test can compile them once more in double. */
#ifndef THAW_KERNELS_REF_H
#define THAW_KERNELS_REF_H

#include "kernels/kernels.h"

void thaw_ref_conv(thaw_kernels *table);
void thaw_ref_dense(thaw_kernels *table);
void thaw_ref_pool(thaw_kernels *table);
void thaw_ref_activation(thaw_kernels *table);
void thaw_ref_rows(thaw_kernels *table);
void thaw_ref_dropout(thaw_kernels *table);
void thaw_ref_batch_norm(thaw_kernels *table);

/* act(v) for all activations but SOFTMAX, which needs a row. */
float thaw_ref_activate(thaw_activation act, float v);
#endif
