/* Optimizers of Keras 3.15 on flat blocks (formulas: keras-files.md 5.7). */
#ifndef THAW_TRAIN_OPTIMIZER_H
#define THAW_TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/part.h"
#include "job/job.h"
#include "thaw/status.h"

/* One trainable tensor inside the flat blocks (parameters, gradients, each slot), count floats at offset. */
typedef struct thaw_segment {
    size_t offset, count;
    float l1, l2;     /* regularizer of the tensor */
    const char *name; /* "layer/tensor"; borrowed */
} thaw_segment;

typedef struct thaw_optimizer {
    thaw_job_optimizer config;
    double learning_rate; /* current; starts at config.learning_rate */
    int64_t step;         /* updates done */
    int n_slots;          /* floats per parameter: SGD 0 or 1 (momentum), RMSprop 1 or 2, Adam 2 */
    float *slots[2];      /* `count` floats each, zero at first */
    float *memory;        /* where they lie, if it is the optimizer's own */
    size_t count;
    double squares;       /* of the gradients, for global_clipnorm */
} thaw_optimizer;

int thaw_optimizer_slots(const thaw_job_optimizer *config);
/* [in] slots: thaw_optimizer_slots * count floats, zeroed; borrowed. NULL: its own. */
thaw_status thaw_optimizer_create(thaw_optimizer **out, const thaw_job_optimizer *config, size_t count, float *slots);
void thaw_optimizer_free(thaw_optimizer *optimizer); /* NULL is accepted */
/* A step is both of these, after the exchange on equal blocks: equal bits on all ranks and for any number of threads and parts
 * (norms are summed in double over fixed pieces). gradients (count) are changed.
 *
 * Adds the regularizers' gradients (l1*sign(w) + 2*l2*w), takes the norm for global_clipnorm. */
void thaw_optimizer_prepare(thaw_optimizer *optimizer, const float *parameters, float *gradients, const thaw_segment *segments,
                            int n_segments);
/* Clips (clipnorm per segment, global_clipnorm over all, clipvalue) and updates a part of the parameters and slots. Whether all
 * gradients of this part were finite; where they are not, the weights are not either, and of no use. */
bool thaw_optimizer_update(thaw_optimizer *optimizer, float *parameters, float *gradients, const thaw_segment *segments,
                           int n_segments, thaw_part part);
/* The same without clipping and regularizers, of `count` parameters and gradients from place `at` of the flat blocks on. A step
 * is any number of these, of different places, then thaw_optimizer_stepped. Main thread, wherever it is. */
bool thaw_optimizer_update_span(thaw_optimizer *optimizer, float *parameters, float *gradients, size_t at, size_t count,
                                const thaw_segment *segments, int n_segments);
void thaw_optimizer_stepped(thaw_optimizer *optimizer);
bool thaw_all_finite(const float *values, size_t count);
/* Sum over segments of l1*sum|w| + l2*sum w^2, in double. */
double thaw_regularizer_loss(const float *parameters, const thaw_segment *segments, int n_segments);
#endif
