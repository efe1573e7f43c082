/* thaw bench --scaling: steps on 1 to P of the ranks, under several freeze plans. Private to src/app. */
#ifndef THAW_APP_SCALING_H
#define THAW_APP_SCALING_H

#include "bench.h"
#include "network.h"

/* The same images over all ranks, or the same on each. */
typedef enum thaw_scaling_kind { THAW_STRONG, THAW_WEAK } thaw_scaling_kind;

/* A freeze plan that is measured. */
typedef struct thaw_scaling_plan {
    char *name, *spec;
    char *frozen; /* "frozen 0-14, first trained: 15 block5_conv1" */
    bool *trainable;
    int64_t trainable_params, gradient_bytes, full_gradient_bytes;
} thaw_scaling_plan;

typedef struct thaw_scaling_point {
    thaw_scaling_kind kind;
    int plan, ranks, hosts;
    int64_t images;             /* of a step, over all ranks */
    thaw_timing step;           /* the slowest rank's seconds */
    thaw_step_phases phases;    /* means over ranks; exchange: seconds that a rank waits for others */
    double handed, hidden;      /* see thaw_bench */
    double efficiency;          /* images/s of a rank over those of one rank alone, with this plan and kind */
    thaw_forecast forecast;     /* with a network */
    double forecast_efficiency; /* likewise */
} thaw_scaling_point;

typedef struct thaw_scaling {
    thaw_app *app;
    const char *name; /* of the model, as given */
    thaw_model *model;
    bool has_head; /* one was added */
    bool kinds[2]; /* by thaw_scaling_kind: it is asked for */
    int64_t batch, global_batch, repeat;
    thaw_exchange_kind exchange;
    bool has_network;
    thaw_network network;
    int n_worlds;
    int *counts;         /* n_worlds: 1, 2, 4, ..., P */
    thaw_comm **worlds;  /* n_worlds; NULL where this rank is none of them */
    int n_plans, n_points;
    thaw_scaling_plan *plans;
    thaw_scaling_point *points; /* plan by plan, strong before weak, by ranks */
} thaw_scaling;

/* scaling.c */
/* Resolves the plans on s->model: texts[i] is NAME=SPEC, SPEC, or one of head, late, everything, which are also what n = 0
 * stands for. Errors: THAW_USAGE. */
thaw_status thaw_scaling_make_plans(thaw_scaling *s, const char *const *texts, int n);
/* Makes worlds of ranks, checks that every point fits into memory, measures all. The model gets
 * random weights. Collective. */
thaw_status thaw_scaling_measure(thaw_scaling *s);
void thaw_scaling_free(thaw_scaling *s); /* frees the contents, not app and model */

/* scaling_report.c: on rank 0 */
extern const char *const thaw_scaling_names[2];  /* by thaw_scaling_kind */
extern const char *const thaw_exchange_names[4]; /* by thaw_exchange_kind */
double thaw_scaling_rate(const thaw_scaling_point *p); /* images/s */
double thaw_scaling_wait_share(const thaw_scaling_point *p);
/* Text, or one JSON object, to standard output. */
thaw_status thaw_scaling_print(const thaw_scaling *s, bool json);
/* scaling.csv, scaling.json, scaling.html, scaling.gp in a folder that exists, and with gnuplot scaling.svg. */
thaw_status thaw_scaling_write(const thaw_scaling *s, const char *folder);

/* scaling_page.c: a page of its own, with drawings in it. */
void thaw_scaling_page(thaw_buffer *text, const thaw_scaling *s, const char *scene);
#endif
