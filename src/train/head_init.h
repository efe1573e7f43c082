/* Initializers and regularizers of head layers. Private to src/train. */
#ifndef THAW_TRAIN_HEAD_INIT_H
#define THAW_TRAIN_HEAD_INIT_H

#include "job/job.h"
#include "thaw/model.h"

/* Where a value of the job stands, for messages, and what the layer before gives. */
typedef struct thaw_head_place {
    const char *path;       /* of the job */
    const char *class_name; /* Keras' */
    const thaw_job_argument *argument;
    thaw_shape before;
} thaw_head_place;

/* The argument's text as a number from `low` to `high`; `wanted`: the words for that. Errors: THAW_USAGE. */
thaw_status thaw_head_number(double *out, const thaw_head_place *at, double low, double high, const char *wanted);
/* Sets what at->argument says of a tensor of `layer`: "kernel_initializer: he_normal", "kernel_regularizer.l2: 0.01",
 * "bias_initializer.value: 0.1" beside "bias_initializer: Constant". Errors: THAW_USAGE. */
thaw_status thaw_head_tensor(thaw_layer *layer, const thaw_head_place *at, const thaw_job_layer *written);
#endif
