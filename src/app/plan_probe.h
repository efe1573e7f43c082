/* A short look at how fast this machine runs a stage, for `thaw plan`. Private to src/app. */
#ifndef THAW_APP_PLAN_PROBE_H
#define THAW_APP_PLAN_PROBE_H

#include "app.h"
#include "train/estimate.h"

/* Seconds on the slowest rank; all but update and exchange for one image. */
typedef struct thaw_probe {
    int64_t images; /* of the steps that were measured; 0: none was */
    double prefix, forward, backward;
    double update, exchange; /* of a step */
    double input;            /* reading and decoding a sample on one thread; 0: not known */
} thaw_probe;

/* Some steps of the stage's own tapes on few random images, after one that is not counted: a second or two of work for two
 * cores, divided over the job's stages. The model must have weights. Without the memory for it nothing is measured, and
 * a warning says so. Collective. */
thaw_status thaw_probe_stage(thaw_probe *out, thaw_app *app, thaw_model *model, const thaw_job *job, int stage,
                             const bool *trainable, const bool *batch_statistics);
/* Seconds for a sample, read as training reads them. 0 if that fails. On one rank. */
double thaw_probe_input(const thaw_dataset *dataset, const thaw_model *model, const thaw_job *job);

/* Seconds of a step of `images` images on a rank. `cached`: the prefix is not run and samples are not read. */
double thaw_probe_step(const thaw_probe *probe, const thaw_app *app, const thaw_job *job, int64_t images, uint64_t row_bytes,
                       bool cached);
/* Seconds for `images` images of a rank through the prefix alone. */
double thaw_probe_fill(const thaw_probe *probe, const thaw_app *app, const thaw_job *job, int64_t images);
#endif
