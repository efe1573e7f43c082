/* Measuring forward passes, training steps and the input on this machine. Private to src/app. */
#ifndef THAW_APP_BENCH_H
#define THAW_APP_BENCH_H

#include "app.h"
#include "kernels/kernels.h"
#include "thaw/data.h"

struct thaw_tape;

/* Seconds of a repeated run, of the slowest rank: of each repetition, or with run_ahead of each place in their order; then over
 * these. */
typedef struct thaw_timing {
    double median, least, most;
} thaw_timing;

/* A step by what it does: medians of rank 0. */
typedef struct thaw_step_phases {
    double prefix, forward, loss, backward, exchange, update;
} thaw_step_phases;

/* What a layer's operation moves and how it is computed. */
typedef struct thaw_layer_cost {
    const char *algorithm[3]; /* of convolutions and dense layers, by thaw_direction; else NULL */
    double bytes;             /* of an inference pass over the batch: inputs, output, weights in the form that is read */
    bool wants[3];            /* by thaw_direction: a step computes it */
    bool settled;             /* an earlier tape said so */
} thaw_layer_cost;

/* Largest relative L2 difference between the kernels in force and the reference, by thaw_direction. */
typedef struct thaw_check {
    int shapes; /* distinct ones that were compared; 0: the reference itself is in force */
    double error[3];
} thaw_check;

/* The bound of these: eight times what rounding makes of Winograd's transforms (src/kernels/ERRORS.md). */
#define THAW_CHECK_BOUND 1e-5

typedef struct thaw_bench {
    thaw_app *app;
    int64_t batch;  /* images on each rank */
    int64_t repeat; /* measured runs, after one that is not */
    bool run_ahead; /* steps in training's order: the next batch's prefix between backward and the end of the exchange, and
                     * a control word; seconds by layer are not known then */
    thaw_exchange_kind exchange;
    const thaw_job_optimizer *optimizer; /* of the steps; NULL: SGD with momentum */
    thaw_timing forward, step;
    thaw_step_phases phases;
    double handed; /* bytes of payload that this rank hands to the exchange in a step */
    double hidden; /* share of the gradients whose sums were there before they were waited for */
    thaw_check check;
    double peak, peak_all; /* FLOP/s of multiply-adds alone: of rank 0's threads, and of all ranks */
    bool has_layers;       /* the engine announced every operation: seconds by layer are known */
    /* Medians of rank 0 for each layer of the step's model, in seconds; time of layers that were fused into the one before
     * (folded batch norm, activation, padding) is counted there. */
    double *layer_forward;  /* of the inference pass */
    double *layer_step;     /* of a step's forward pass */
    double *layer_backward; /* of a step's backward pass */
    int n_costs;
    thaw_layer_cost *costs; /* one a layer of the step's model */
} thaw_bench;

/* What is behind the figures: the network of the steps and how it was cut by the freeze spec. */
typedef struct thaw_bench_subject {
    thaw_model *model; /* of the steps */
    thaw_plan *plan;
    bool *trainable;
    int n_given;         /* layers of the network as given; the rest is the head that was added */
    double *layer_gflop; /* forward, per image */
    char *frozen;
} thaw_bench_subject;

/* bench.c */
/* Inference of `model` on random images. Collective. */
thaw_status thaw_bench_forward(thaw_bench *bench, thaw_model *model);
/* Steps of `plan`: prefix, forward, loss, backward, exchange, SGD with momentum. Collective. */
thaw_status thaw_bench_step(thaw_bench *bench, thaw_model *model, const thaw_plan *plan);
/* Raises peak and peak_all to what a short run of multiply-adds reaches now. Collective. */
thaw_status thaw_bench_peak(thaw_bench *bench);
void thaw_bench_free(thaw_bench *bench); /* frees the contents */
/* The plan's estimate against this host's memory. Errors: THAW_RESOURCE. */
thaw_status thaw_bench_fits(const thaw_app *app, const thaw_plan *plan);
thaw_timing thaw_timing_of(double *seconds, int64_t n); /* sorts them */
/* Uniform in [-1, 1): NULL without memory. */
float *thaw_bench_values(int64_t count, int stream);

/* bench_check.c */
/* Compares every distinct convolution and dense layer of the plan with the reference, in all directions, on one image of
 * about 6x6 outputs with its edges. Errors: THAW_INTERNAL beyond the bound, THAW_RESOURCE. Not collective. */
thaw_status thaw_bench_check(thaw_check *check, const thaw_plan *plan);

/* bench_input.c */
typedef struct thaw_bench_input {
    thaw_timing pass;        /* seconds of a pass */
    int64_t images, samples; /* images of a pass over all ranks; samples of the data */
    int64_t batch;           /* images of a batch on each rank */
    int threads;             /* that decode, of a rank */
    thaw_preprocess preprocess;
    bool arrays;
} thaw_bench_input;

/* Reads `data` (a folder of images, or FILE.h5:/x) as training does, without a network behind it. `threads` 0: as many as
 * training takes. Collective. Errors: those of the data. */
thaw_status thaw_bench_read(thaw_bench_input *out, const thaw_bench *bench, const thaw_model *model, const char *data,
                            const char *preprocess, int threads);

/* bench_report.c */
/* Adds machine, kernels, versions, ranks and hosts. */
thaw_status thaw_bench_put_scene(cJSON *object, const thaw_app *app);
/* On rank 0, to standard output. */
thaw_status thaw_bench_print(const thaw_bench *bench, const thaw_bench_subject *s, bool json);
thaw_status thaw_bench_print_input(const thaw_bench *bench, const thaw_model *model, const thaw_bench_input *in,
                                   const char *data, bool json);
#endif
