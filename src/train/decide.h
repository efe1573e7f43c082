/* Decisions made once, from reduced metrics: early stopping, lower learning rate, best model (Keras' callbacks). */
#ifndef THAW_TRAIN_DECIDE_H
#define THAW_TRAIN_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "job/job.h"

/* Named values of an epoch: learning_rate, loss, metrics, val_loss, val_metrics. */
typedef struct thaw_values {
    int n;
    const char *names[4 + 2 * THAW_METRICS];
    double values[4 + 2 * THAW_METRICS];
} thaw_values;
/* NaN when there is no such name. */
double thaw_values_get(const thaw_values *values, const char *name);

/* Plain data: saved in checkpoints byte by byte. */
typedef struct thaw_decisions {
    /* early stopping, reset each stage */
    int64_t stop_wait, stop_best_epoch; /* -1 none */
    double stop_best;
    /* plateau, reset each stage */
    int64_t plateau_wait, plateau_cooldown, plateau_seen; /* seen 0: plateau_best is none yet */
    double plateau_best;
    /* best.h5, over all stages */
    double best;
    int64_t best_epoch; /* -1 none */
    int64_t warned;     /* 1: a monitor that fell back from val_X to X was said */
} thaw_decisions;

/* Before the first stage; of each stage before its first epoch. */
void thaw_decisions_init(thaw_decisions *decisions);
void thaw_decisions_stage(thaw_decisions *decisions);

typedef struct thaw_verdict {
    bool stop;             /* early stopping ends the stage */
    bool improved_in_stage; /* keep a copy of the weights (restore_best_weights) */
    bool improved;         /* write best.h5 */
    bool lower_rate;
    double learning_rate;  /* the rate from now on */
} thaw_verdict;

/* [in] epoch: of the stage, from 0. Keras' EarlyStopping, ReduceLROnPlateau and ModelCheckpoint(save_best_only) rules,
 * including mode auto (names that end in accuracy are maximised), min_delta, patience, cooldown, min_lr, baseline,
 * start_from_epoch. A monitor without value (no validation data) falls back from val_X to X with one warning. */
thaw_verdict thaw_decide(thaw_decisions *decisions, const thaw_job *job, const thaw_job_stage *stage, int64_t epoch,
                         const thaw_values *values, double learning_rate);
#endif
