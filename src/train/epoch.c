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
enum {
    CONTROL_FAILED,
    CONTROL_STOP,
    CONTROL_CHECKPOINT,
    CONTROL_NONFINITE, /* the loss of a slice, */
    CONTROL_BAD,       /* or a gradient of the step before, which its owner alone has seen */
    CONTROL_WORDS = THAW_CONTROL_WORDS
};

#define PROGRESS_SECONDS 5.0

int64_t thaw_batches(int64_t samples, int64_t size) { return (samples + size - 1) / size; }

/* Images of global batch b of n samples in batches of `size`. */
static int64_t batch_images(int64_t n, int64_t size, int64_t b) {
    int64_t left = n - b * size;
    return left < size ? left : size;
}

/* Parts that a batch goes through the network in: `accumulate`, but none without images. */
static int batch_parts(int64_t images, int64_t accumulate) { return (int)(images < accumulate ? images : accumulate); }

/* This rank's samples of the batches from `first` on, each in parts: mine and starts (see thaw_loader_begin); returns the
 * number of parts. */
static int64_t take_share(const thaw_run *run, const int64_t *order, int64_t n, int64_t size, int64_t accumulate, int64_t first,
                          int64_t batches, int64_t *mine, int64_t *starts) {
    int rank = thaw_comm_rank(run->comm), ranks = thaw_comm_size(run->comm);
    int64_t done = 0, at = 0;
    starts[0] = 0;
    for (int64_t b = first; b < batches; b++) {
        int64_t images = batch_images(n, size, b);
        int parts = batch_parts(images, accumulate);
        for (int p = 0; p < parts; p++) {
            int64_t from = thaw_share(images, p, parts), width = thaw_share(images, p + 1, parts) - from;
            int64_t i, end;
            for (thaw_slices_share(run->cut.slices.total, width, rank, ranks, &i, &end); i < end; i++)
                mine[at++] = order[b * size + from + i];
            starts[++done] = at;
        }
    }
    return done;
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

/* Images of this rank for the parts of steps that have their prefix together. */
typedef struct block {
    bool begun;
    thaw_status status; /* of the loader or the cache */
    char message[1024]; /* of a failure, which is told when its step comes */
    thaw_batch batch;   /* up to the failure: the rank enters the collectives with what the steps before it have */
} block;

/* Where this rank is in its pass. Parts of steps are numbered, block after block of `together`. */
typedef struct pass {
    int64_t part, there, parts; /* the next one; those up to the end of `now`; all */
    int together;
    block now, next; /* whose parts are under way, with the boundary in the engine's slots; whose prefix runs meanwhile */
} pass;

/* Loads the next block and runs its prefix until a share of it is done. Nothing here depends on weights that are trained or on
 * other ranks, so this may happen while the gradients of a step are under way; with blocks of one part, that step's batch and
 * boundary must not be needed any more. Not collective. */
static void prepare(thaw_run *run, block *next, double share) {
    thaw_phases *t = &run->epoch_tally.phases;
    double mark = thaw_clock();
    if (!next->begun) {
        next->status = thaw_loader_next(run->loader, &next->batch);
        thaw_stage_poll(run);
        if (next->status == THAW_OK && thaw_cache_on(run->cache)) {
            next->status = thaw_cache_load(run->cache, next->batch.n, next->batch.samples, run->at.total_epochs);
            if (next->status != THAW_OK)
                next->batch.n = 0;
            thaw_stage_poll(run);
        }
        if (next->status != THAW_OK)
            snprintf(next->message, sizeof next->message, "%s", thaw_message());
        if (!thaw_cache_on(run->cache))
            thaw_engine_prefix_begin(run->engine, next->batch.n, next->batch.x);
        next->begun = true;
        t->input += lap(&mark);
    }
    if (!thaw_cache_on(run->cache))
        thaw_engine_prefix_run(run->engine, share);
    t->prefix += lap(&mark);
}

/* Gets the boundary of the next block into the engine's slots, when that of this one is not needed any more. */
static void turn(thaw_run *run, pass *at) {
    prepare(run, &at->next, 1.0);
    at->now = at->next;
    at->next.begun = false;
    at->there += at->together;
    if (thaw_cache_on(run->cache))
        return;
    double mark = thaw_clock();
    thaw_engine_prefix_turn(run->engine);
    thaw_cache_round(run->cache, at->now.batch.n);
    run->epoch_tally.phases.prefix += lap(&mark);
}

/* The share of the next block's prefix that falls to the parts that are done of this one. */
static void run_ahead(thaw_run *run, pass *at) {
    if (at->there >= at->parts)
        return;
    if (at->part == at->there)
        turn(run, at);
    else
        prepare(run, &at->next, 1.0 - (double)(at->there - at->part) / at->together);
}

/* One part of a step: forward, loss and backward on this rank's images of it. The last one hands the gradients of all to the
 * exchange. `mine`: the step's failure on this rank so far. Collective with batch statistics. */
static thaw_status compute_part(thaw_run *run, pass *at, int64_t images, int part, int parts, thaw_status mine) {
    thaw_phases *t = &run->epoch_tally.phases;
    if (at->part == at->there)
        turn(run, at);
    const thaw_batch *batch = &at->now.batch;
    const int64_t first = run->starts[at->part] - run->blocks[at->part / at->together];
    int64_t n = run->starts[at->part + 1] - run->starts[at->part];
    if (at->now.status != THAW_OK && first + n > batch->n) {
        if (mine == THAW_OK)
            mine = thaw_fail(at->now.status, "%s", at->now.message);
        n = 0;
    }
    at->part++;
    double mark = thaw_clock();
    thaw_draws draws = {run->job->seed, (uint32_t)run->at.total_epochs, batch->samples + first};
    thaw_cut_batch(&run->cut, images, n);
    const float *z = thaw_engine_forward(run->engine, first, n, &draws);
    float *dz = thaw_engine_output_gradient(run->engine);
    const float *y = batch->y ? batch->y + first * run->objective.y_width : NULL;
    thaw_status loss_status = mine == THAW_OK ? thaw_cut_objective(&run->cut, &run->objective, z, y, 1.0 / (double)images, dz)
                                              : THAW_OK;
    if (mine == THAW_OK)
        mine = loss_status;
    t->suffix += lap(&mark);
    run->fresh = part == 0;
    run->collecting = part + 1 < parts;
    thaw_engine_backward(run->engine);
    if (run->collecting)
        thaw_engine_update_statistics(run->engine);
    t->backward += lap(&mark);
    return mine;
}

/* One step: compute on this rank's images, exchange and run the prefix of later steps meanwhile, agree, update. */
static thaw_status train_step(thaw_run *run, int64_t step, pass *at, bool *save, bool *stop) {
    const thaw_job *job = run->job;
    thaw_tally *tally = &run->epoch_tally;
    thaw_phases *t = &tally->phases;
    double control[CONTROL_WORDS] = {0};
    const bool bad_before = run->update.bad; /* sums of this step are used from its backward on */
    uint64_t handed_before = thaw_exchange_bytes(run->exchange), hidden_before = thaw_exchange_hidden(run->exchange);
    thaw_sums sums = {0};
    thaw_cut_clear(&run->cut);
    int64_t images = batch_images(run->train->n, job->batch_size, step);
    int parts = batch_parts(images, job->accumulate);
    thaw_status mine = THAW_OK;
    for (int p = 0; p < parts; p++)
        mine = compute_part(run, at, images, p, parts, mine);

    control[CONTROL_FAILED] = mine != THAW_OK;
    control[CONTROL_STOP] = thaw_stop_wanted(run, step + 1);
    control[CONTROL_CHECKPOINT] = thaw_comm_rank(run->comm) == 0 && job->checkpoint_minutes > 0.0 &&
                                  thaw_clock() - run->last_checkpoint > 60.0 * job->checkpoint_minutes;
    for (int i = 0; i < run->cut.slices.total; i++)
        control[CONTROL_NONFINITE] += !isfinite(run->cut.sums[i].loss);
    control[CONTROL_BAD] = bad_before;
    /* Before the next prefix, so that no rank waits for one that is less than a prefix behind. */
    thaw_cut_reduce_begin(&run->cut, run->comm, control, CONTROL_WORDS);
    if (mine == THAW_OK && control[CONTROL_STOP] == 0.0 && thaw_exchange_overlaps(run->exchange))
        run_ahead(run, at);
    double mark = thaw_clock();
    thaw_status exchanged = thaw_exchange_finish(run->exchange);
    tally->exchanged += (int64_t)(thaw_exchange_bytes(run->exchange) - handed_before);
    tally->hidden += (int64_t)(thaw_exchange_hidden(run->exchange) - hidden_before);
    thaw_cut_reduce_end(&run->cut, run->comm, control, CONTROL_WORDS, &sums);
    tally->other += run->cut.n_words * (int64_t)sizeof(double);
    t->wait += lap(&mark);
    THAW_TRY(exchanged);
    THAW_TRY(run->exchange_status);
    if (control[CONTROL_FAILED] > 0.0)
        return thaw_comm_agree(run->comm, mine);

    /* Equal bits on all ranks from here on: the same decision everywhere without further words. */
    double penalty = run->regularized
                         ? thaw_regularizer_loss(run->update.parameters, run->segments, run->plan->n_tensors) * (double)images
                         : 0.0;
    const bool before = control[CONTROL_BAD] > 0.0;
    if (before || control[CONTROL_NONFINITE] > 0.0 ||
        !thaw_update_step(&run->update, run->engine, run->optimizer, run->gradients, run->segments, run->plan->n_tensors))
        return thaw_fail(THAW_DIVERGED, "stage %s epoch %lld step %lld: the loss or a gradient is not finite; the last good "
                                        "checkpoint is kept; use a lower learning_rate or clipnorm",
                         job->stages[run->at.stage].name, (long long)run->at.epoch + 1, (long long)step + !before);
    run->sums.images += sums.images;
    run->sums.loss += sums.loss + penalty;
    for (int m = 0; m < run->objective.n_metrics; m++)
        run->sums.metric[m] += sums.metric[m];
    tally->steps++;
    *save = control[CONTROL_CHECKPOINT] > 0.0;
    *stop = control[CONTROL_STOP] > 0.0;
    t->wait += run->update.waited;
    t->update += lap(&mark) - run->update.waited;
    return THAW_OK;
}

thaw_status thaw_epoch_train(thaw_run *run, bool *stopped) {
    const thaw_job *job = run->job;
    int64_t n = run->train->n, steps = thaw_batches(n, job->batch_size);
    pass at = {0};
    *stopped = false;
    THAW_TRY(thaw_cache_fill(run, stopped));
    if (*stopped)
        return thaw_checkpoint_save(run);
    double started = thaw_clock(), before = run->sums.images;
    thaw_epoch_order(run->order, n, job->seed, run->at.total_epochs, job->shuffle);
    thaw_exchange_forget(run->exchange); /* so that a run which is resumed at an epoch's beginning has the same bits */
    at.together = thaw_stage_together(run);
    at.parts = take_share(run, run->order, n, job->batch_size, job->accumulate, run->at.step, steps, run->mine, run->starts);
    int64_t blocks = thaw_batches(at.parts, at.together);
    for (int64_t b = 0; b <= blocks; b++)
        run->blocks[b] = run->starts[b < blocks ? b * at.together : at.parts];
    THAW_TRY(thaw_comm_agree(run->comm, thaw_loader_begin(run->loader, run->mine, run->blocks, blocks, run->at.total_epochs)));
    while (run->at.step < steps) {
        double step_started = thaw_clock();
        bool save = false, stop = false;
        THAW_TRY(train_step(run, run->at.step, &at, &save, &stop));
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
    int64_t size = thaw_validation_images(run->job);
    int64_t batches = thaw_batches(n, size);
    double started = thaw_clock();
    thaw_objective objective = run->objective;
    objective.class_weight = NULL; /* as in Keras, class weights are for training */
    thaw_cut_clear(&run->cut);
    thaw_epoch_order(run->order, n, 0, 0, false);
    take_share(run, run->order, n, size, 1, 0, batches, run->mine, run->starts);
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
        thaw_cut_batch(&run->cut, batch_images(n, size, b), batch.n);
        status = thaw_cut_objective(&run->cut, &objective, z, batch.y, 0.0, NULL);
    }
    THAW_TRY(thaw_comm_agree(run->comm, status));
    double no_words[THAW_CONTROL_WORDS] = {0};
    thaw_cut_reduce_begin(&run->cut, run->comm, no_words, THAW_CONTROL_WORDS);
    thaw_cut_reduce_end(&run->cut, run->comm, no_words, THAW_CONTROL_WORDS, sums);
    if (!thaw_cache_on(run->validation_cache))
        THAW_TRY(thaw_cache_tell_rounding(run, run->validation_cache));
    run->epoch_tally.other += run->cut.n_words * (int64_t)sizeof(double);
    if (run->regularized)
        sums->loss += thaw_regularizer_loss(run->update.parameters, run->segments, run->plan->n_tensors) * sums->images;
    run->epoch_tally.validation_seconds += thaw_clock() - started;
    return THAW_OK;
}
