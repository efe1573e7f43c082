/* The job's `head:` as layers behind the base. */
#ifndef THAW_TRAIN_HEAD_H
#define THAW_TRAIN_HEAD_H

#include "job/job.h"
#include "thaw/model.h"
#include "thaw/status.h"

/* Appends the head layers of `job` to the output of a finished model, as a chain, and finishes the model again. Classes,
 * argument names, defaults and automatic names (dense, dense_1, ...) are Keras'. No memory for weights is allocated.
 * Without head layers nothing happens. Errors: THAW_USAGE with "PATH:LINE: " (unknown class or argument with the nearest
 * names, value out of range, name in use, a layer that does not fit the shape before it), THAW_RESOURCE; the model can
 * then only be freed. */
thaw_status thaw_head_append(thaw_model *model, const thaw_job *job);
#endif
