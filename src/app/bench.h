/* Measuring forward passes and training steps on random data. Private to src/app. */
#ifndef THAW_APP_BENCH_H
#define THAW_APP_BENCH_H

#include "app.h"

/* Seconds of a repeated run: the slowest rank's of each repetition, then over repetitions. */
typedef struct thaw_timing {
    double median, least, most;
} thaw_timing;

/* A step by what it does: medians of rank 0. */
typedef struct thaw_step_phases {
    double prefix, forward, loss, backward, exchange, update;
} thaw_step_phases;

typedef struct thaw_bench {
    thaw_app *app;
    int64_t batch;  /* images on each rank */
    int64_t repeat; /* measured runs, after one that is not */
    const thaw_job_optimizer *optimizer; /* of the steps; NULL: SGD with momentum */
    thaw_timing forward, step;
    thaw_step_phases phases;
    bool has_layers; /* the engine announced every operation: seconds by layer are known */
    /* Medians of rank 0 for each layer of the step's model, in seconds; time of layers that were fused into the one before
     * (folded batch norm, activation, padding) is counted there. */
    double *layer_forward;  /* of the inference pass */
    double *layer_step;     /* of a step's forward pass */
    double *layer_backward; /* of a step's backward pass */
} thaw_bench;

/* Inference of `model` on random images. Collective. */
thaw_status thaw_bench_forward(thaw_bench *bench, thaw_model *model);
/* Steps of `plan`: prefix, forward, loss, backward, exchange, SGD with momentum. Collective. */
thaw_status thaw_bench_step(thaw_bench *bench, thaw_model *model, const thaw_plan *plan);
void thaw_bench_free(thaw_bench *bench); /* frees the contents */
/* The plan's estimate against this host's memory. Errors: THAW_RESOURCE. */
thaw_status thaw_bench_fits(const thaw_app *app, const thaw_plan *plan);
#endif
