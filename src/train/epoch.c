/* The steps of an epoch. Every rank enters every collective of a step, also with no image and also after a failure of its
 * own: one control word, reduced each step, tells all ranks the same story. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "train/cache.h"
#include "train/run.h"

/* The control word: sums over ranks. */
enum { CONTROL_FAILED, CONTROL_STOP, CONTROL_CHECKPOINT, CONTROL_NONFINITE, CONTROL_IMAGES, CONTROL_LOSS, CONTROL_METRIC,
       CONTROL_WORDS = CONTROL_METRIC + THAW_METRICS };

#define PROGRESS_SECONDS 5.0

int64_t thaw_batches(int64_t samples, int64_t size) { return (samples + size - 1) / size; }

/* Images of global batch b of n samples in batches of `size`. */
static int64_t batch_images(int64_t n, int64_t size, int64_t b) {
    int64_t left = n - b * size;
    return left < size ? left : size;
}

/* This rank's samples of the batches from `first` on: mine and starts (see thaw_loader_begin). */
static void take_share(const thaw_run *run, const int64_t *order, int64_t n, int64_t size, int64_t first, int64_t batches,
                       int64_t *mine, int64_t *starts) {
    int rank = thaw_comm_rank(run->comm), ranks = thaw_comm_size(run->comm);
    starts[0] = 0;
    for (int64_t b = first; b < batches; b++) {
        int64_t images = batch_images(n, size, b);
        int64_t lo = thaw_share(images, rank, ranks), hi = thaw_share(images, rank + 1, ranks);
        int64_t at = starts[b - first];
        for (int64_t i = lo; i < hi; i++)
            mine[at++] = order[b * size + i];
        starts[b - first + 1] = at;
    }
}

static double lap(double *mark) {
    double now = thaw_clock(), seconds = now - *mark;
    *mark = now;
    return seconds;
}

/* A line every few seconds. */
static void show_progress(thaw_run *run, int64_t step, int64_t steps, double epoch_started, double images_at_start) {
    double now = thaw_clock();
    if (now - run->last_progress < PROGRESS_SECONDS)
        return;
    run->last_progress = now;
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    double images = run->sums.images, rate = (images - images_at_start) / (now - epoch_started + 1e-9);
    char metrics[160] = "";
    size_t at = 0;
    for (int m = 0; m < run->objective.n_metrics && at < sizeof metrics; m++)
        at += (size_t)snprintf(metrics + at, sizeof metrics - at, " %s %.4f", thaw_metric_name(run->objective.metrics[m]),
                               run->sums.metric[m] / images);
    double left = fmin(((double)run->train->n - images) / (rate + 1e-9), 359999.0);
    thaw_info("stage %s epoch %lld/%lld step %lld/%lld loss %.5f%s %.1f img/s, %d:%02d left in the epoch", stage->name,
              (long long)run->at.epoch + 1, (long long)stage->epochs, (long long)step, (long long)steps,
              run->sums.loss / images, metrics, rate, (int)left / 60, (int)left % 60);
}


/* One step: compute on this rank's images, exchange, agree, update. */
static thaw_status train_step(thaw_run *run, int64_t step, bool *save, bool *stop) {
    const thaw_job *job = run->job;
    thaw_tally *tally = &run->epoch_tally;
    thaw_phases *t = &tally->phases;
    double control[CONTROL_WORDS] = {0}, mark = thaw_clock();
    uint64_t handed_before = thaw_exchange_bytes(run->exchange);
    thaw_batch batch = {0};
    thaw_sums sums = {0};
    thaw_status mine = thaw_loader_next(run->loader, &batch);
    if (mine == THAW_OK && thaw_cache_on(run->cache))
        mine = thaw_cache_load(run->cache, batch.n, batch.samples, run->at.total_epochs);
    if (mine != THAW_OK)
        batch.n = 0; /* enters the collectives with nothing */
    t->input += lap(&mark);

    int64_t images = batch_images(run->train->n, job->batch_size, step);
    thaw_draws draws = {job->seed, (uint32_t)run->at.total_epochs, batch.samples};
    if (!thaw_cache_on(run->cache)) {
        thaw_engine_prefix(run->engine, batch.n, batch.x);
        thaw_cache_round(run->cache, batch.n);
    }
    t->prefix += lap(&mark);
    const float *z = thaw_engine_forward(run->engine, batch.n, &draws);
    float *dz = thaw_engine_output_gradient(run->engine);
    thaw_status loss_status = thaw_objective_batch(&run->objective, batch.n, z, batch.y, 1.0 / (double)images, dz, &sums);
    if (mine == THAW_OK)
        mine = loss_status;
    t->suffix += lap(&mark);
    thaw_engine_backward(run->engine);
    t->backward += lap(&mark);

    thaw_status exchanged = thaw_exchange_finish(run->exchange);
    tally->exchanged += (int64_t)(thaw_exchange_bytes(run->exchange) - handed_before);
    control[CONTROL_FAILED] = mine != THAW_OK;
    control[CONTROL_STOP] = thaw_stop_wanted(run, step + 1);
    control[CONTROL_CHECKPOINT] = thaw_comm_rank(run->comm) == 0 && job->checkpoint_minutes > 0.0 &&
                                  thaw_clock() - run->last_checkpoint > 60.0 * job->checkpoint_minutes;
    control[CONTROL_NONFINITE] = !isfinite(sums.loss);
    control[CONTROL_IMAGES] = sums.images;
    control[CONTROL_LOSS] = isfinite(sums.loss) ? sums.loss : 0.0;
    for (int m = 0; m < run->objective.n_metrics; m++)
        control[CONTROL_METRIC + m] = isfinite(sums.metric[m]) ? sums.metric[m] : 0.0;
    thaw_status reduced = thaw_comm_sum(run->comm, control, CONTROL_WORDS);
    tally->other += (int64_t)sizeof control;
    t->wait += lap(&mark);
    THAW_TRY(exchanged);
    THAW_TRY(reduced);
    THAW_TRY(run->exchange_status);
    if (control[CONTROL_FAILED] > 0.0)
        return thaw_comm_agree(run->comm, mine);

    /* Equal bits on all ranks from here on: the same decision everywhere without further words. */
    if (control[CONTROL_NONFINITE] > 0.0 || !thaw_all_finite(run->gradients, run->plan->count))
        return thaw_fail(THAW_DIVERGED, "stage %s epoch %lld step %lld: the loss or a gradient is not finite; the last good "
                                        "checkpoint is kept; use a lower learning_rate or clipnorm",
                         job->stages[run->at.stage].name, (long long)run->at.epoch + 1, (long long)step + 1);
    double penalty = run->regularized
                         ? thaw_regularizer_loss(run->parameters, run->segments, run->plan->n_tensors) * (double)images
                         : 0.0;
    thaw_optimizer_step(run->optimizer, run->parameters, run->gradients, run->segments, run->plan->n_tensors);
    thaw_engine_update_statistics(run->engine);
    thaw_engine_refresh(run->engine);
    run->sums.images += control[CONTROL_IMAGES];
    run->sums.loss += control[CONTROL_LOSS] + penalty;
    for (int m = 0; m < run->objective.n_metrics; m++)
        run->sums.metric[m] += control[CONTROL_METRIC + m];
    tally->steps++;
    *save = control[CONTROL_CHECKPOINT] > 0.0;
    *stop = control[CONTROL_STOP] > 0.0;
    t->update += lap(&mark);
    return THAW_OK;
}

thaw_status thaw_epoch_train(thaw_run *run, bool *stopped) {
    const thaw_job *job = run->job;
    int64_t n = run->train->n, steps = thaw_batches(n, job->batch_size);
    *stopped = false;
    THAW_TRY(thaw_cache_fill(run, stopped));
    if (*stopped)
        return thaw_checkpoint_save(run);
    double started = thaw_clock(), before = run->sums.images;
    thaw_epoch_order(run->order, n, job->seed, run->at.total_epochs, job->shuffle);
    take_share(run, run->order, n, job->batch_size, run->at.step, steps, run->mine, run->starts);
    THAW_TRY(thaw_comm_agree(run->comm, thaw_loader_begin(run->loader, run->mine, run->starts, steps - run->at.step,
                                                          run->at.total_epochs)));
    while (run->at.step < steps) {
        double step_started = thaw_clock();
        bool save = false, stop = false;
        THAW_TRY(train_step(run, run->at.step, &save, &stop));
        run->at.step++;
        run->at.total_steps++;
        run->epoch_tally.seconds += thaw_clock() - step_started;
        run->deadline.step = fmax(run->deadline.step, thaw_clock() - step_started);
        show_progress(run, run->at.step, steps, started, before);
        /* behind the last step the epoch is validated first; the caller sees the stop flag again */
        if ((save || stop) && run->at.step < steps) {
            THAW_TRY(thaw_stage_finite(run));
            THAW_TRY(thaw_checkpoint_save(run));
            *stopped = stop;
            if (stop)
                return THAW_OK;
        }
    }
    if (!thaw_cache_on(run->cache))
        THAW_TRY(thaw_cache_tell_rounding(run, run->cache));
    return thaw_stage_finite(run);
}

thaw_status thaw_epoch_validate(thaw_run *run, thaw_sums *sums) {
    int64_t n = run->validation->n;
    int64_t size = run->job->validation_batch_size ? run->job->validation_batch_size : run->job->batch_size;
    int64_t batches = thaw_batches(n, size);
    double started = thaw_clock();
    thaw_objective objective = run->objective;
    objective.class_weight = NULL; /* as in Keras, class weights are for training */
    *sums = (thaw_sums){0};
    thaw_epoch_order(run->order, n, 0, 0, false);
    take_share(run, run->order, n, size, 0, batches, run->mine, run->starts);
    THAW_TRY(thaw_comm_agree(run->comm, thaw_loader_begin(run->validation_loader, run->mine, run->starts, batches, 0)));
    thaw_status status = THAW_OK;
    for (int64_t b = 0; b < batches && status == THAW_OK; b++) { /* no collective inside: a failure is agreed behind */
        thaw_batch batch = {0};
        status = thaw_loader_next(run->validation_loader, &batch);
        if (status == THAW_OK && thaw_cache_on(run->validation_cache))
            status = thaw_cache_load(run->validation_cache, batch.n, batch.samples, 0);
        if (status != THAW_OK)
            break;
        if (!thaw_cache_on(run->validation_cache)) {
            thaw_engine_prefix(run->engine, batch.n, batch.x);
            thaw_cache_round(run->validation_cache, batch.n);
        }
        const float *z = thaw_engine_infer(run->engine, batch.n);
        status = thaw_objective_batch(&objective, batch.n, z, batch.y, 0.0, NULL, sums);
    }
    THAW_TRY(thaw_comm_agree(run->comm, status));
    double words[2 + THAW_METRICS] = {sums->images, sums->loss};
    memcpy(words + 2, sums->metric, sizeof sums->metric);
    THAW_TRY(thaw_comm_sum(run->comm, words, 2 + THAW_METRICS));
    if (!thaw_cache_on(run->validation_cache))
        THAW_TRY(thaw_cache_tell_rounding(run, run->validation_cache));
    run->epoch_tally.other += (int64_t)sizeof words;
    sums->images = words[0];
    sums->loss = words[1];
    memcpy(sums->metric, words + 2, sizeof sums->metric);
    if (run->regularized)
        sums->loss += thaw_regularizer_loss(run->parameters, run->segments, run->plan->n_tensors) * sums->images;
    run->epoch_tally.validation_seconds += thaw_clock() - started;
    return THAW_OK;
}
