/* The whole run: open, walk stages and epochs, decide, save, write the result. */
#include "train/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/record.h"

static bool is_root(const thaw_run *run) { return thaw_comm_rank(run->comm) == 0; }

/* `missing`: only if there is no such file. Collective. */
static thaw_status write_model(thaw_run *run, const char *name, bool missing) {
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        void *bytes = NULL;
        size_t size = 0;
        char *path = thaw_path_join(run->folder, name);
        bool wanted = !missing || (path && !thaw_io_exists(path));
        if (!path)
            status = thaw_fail(THAW_RESOURCE, "no memory to write %s", name);
        if (wanted && run->engine)
            thaw_engine_rest(run->engine); /* the file takes the place of activations in memory */
        if (status == THAW_OK && wanted)
            status = thaw_keras_write_image(&bytes, &size, run->model, run->trainable);
        if (status == THAW_OK && wanted)
            status = thaw_io_write_atomic(path, bytes, size);
        thaw_free(bytes);
        thaw_free(path);
    }
    return thaw_comm_agree(run->comm, status);
}

static void add_value(thaw_values *values, const char *name, double value) {
    values->names[values->n] = name;
    values->values[values->n++] = value;
}

/* Epoch values under Keras' names. */
static void epoch_values(const thaw_run *run, const thaw_sums *validation, thaw_values *values) {
    static const char *const val_names[THAW_METRICS] = {"val_accuracy", "val_mse", "val_mae"};
    values->n = 0;
    add_value(values, "learning_rate", run->optimizer->learning_rate);
    add_value(values, "loss", run->sums.loss / run->sums.images);
    for (int m = 0; m < run->objective.n_metrics; m++)
        add_value(values, thaw_metric_name(run->objective.metrics[m]), run->sums.metric[m] / run->sums.images);
    if (!run->validation)
        return;
    add_value(values, "val_loss", validation->loss / validation->images);
    for (int m = 0; m < run->objective.n_metrics; m++)
        add_value(values, val_names[run->objective.metrics[m]], validation->metric[m] / validation->images);
}

static void say_epoch(const thaw_run *run, const thaw_values *values, double seconds) {
    char line[512];
    size_t at = 0;
    for (int i = 1; i < values->n && at < sizeof line; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, "  %s %.5g", values->names[i], values->values[i]);
    thaw_info("stage %s epoch %lld/%lld done in %.1f s:%s", run->job->stages[run->at.stage].name,
              (long long)run->at.epoch + 1, (long long)run->job->stages[run->at.stage].epochs, seconds, line);
}

static void add_phases(thaw_phases *sum, const thaw_phases *part) {
    sum->input += part->input;
    sum->prefix += part->prefix;
    sum->suffix += part->suffix;
    sum->backward += part->backward;
    sum->wait += part->wait;
    sum->update += part->update;
}

static void add_tally(thaw_tally *sum, const thaw_tally *part) {
    add_phases(&sum->phases, &part->phases);
    sum->seconds += part->seconds;
    sum->validation_seconds += part->validation_seconds;
    sum->steps += part->steps;
    sum->exchanged += part->exchanged;
    sum->hidden += part->hidden;
    sum->other += part->other;
}

/* Row and line of the epoch. Collective. */
static thaw_status write_epoch(thaw_run *run, const thaw_values *values) {
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        say_epoch(run, values, run->epoch_tally.seconds + run->epoch_tally.validation_seconds);
        status = thaw_history_row(run->history, run->at.total_epochs, run->job->stages[run->at.stage].name, values);
        if (status == THAW_OK)
            status = thaw_record_epoch(run, values);
    }
    return thaw_comm_agree(run->comm, status);
}

/* What the epoch's values decide. Collective. */
static thaw_status follow(thaw_run *run, const thaw_verdict *verdict) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    if (verdict->improved)
        THAW_TRY(write_model(run, "best.h5", false));
    if (verdict->improved_in_stage && run->best)
        thaw_stage_best_save(run);
    if (verdict->lower_rate)
        thaw_info("reduce_lr_on_plateau: learning rate %.3g -> %.3g", run->optimizer->learning_rate, verdict->learning_rate);
    run->optimizer->learning_rate = verdict->learning_rate;
    if (verdict->stop)
        thaw_info("early_stopping: stage %s ends after epoch %lld", stage->name, (long long)run->at.epoch + 1);
    return THAW_OK;
}

/* One epoch (or what a checkpoint left of it) with its validation, decisions and files. *stopped: a checkpoint was written
 * on request; *ended: it was the last of the stage. */
static thaw_status do_epoch(thaw_run *run, bool *stopped, bool *ended) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    thaw_sums validation = {0};
    thaw_values values;
    THAW_TRY(thaw_epoch_train(run, stopped));
    if (*stopped)
        return THAW_OK;
    double trained = thaw_clock();
    if (run->validation)
        THAW_TRY(thaw_epoch_validate(run, &validation));
    THAW_TRY(thaw_stage_verify(run, false));
    epoch_values(run, &validation, &values);
    thaw_verdict verdict = thaw_decide(&run->decisions, run->job, stage, run->at.epoch, &values,
                                       run->optimizer->learning_rate);
    add_tally(&run->stage_tally, &run->epoch_tally);
    THAW_TRY(thaw_stage_measure(run));
    THAW_TRY(write_epoch(run, &values));
    THAW_TRY(follow(run, &verdict));

    run->at.epoch++;
    run->at.total_epochs++;
    run->at.step = 0;
    run->sums = (thaw_sums){0};
    run->epoch_tally = (thaw_tally){0}; /* of the next one, with what is sent for the checkpoint in front of it */
    *ended = verdict.stop || run->at.epoch == stage->epochs;
    run->deadline.turn = fmax(run->deadline.turn, thaw_clock() - trained);
    double stop = thaw_stop_wanted(run, 0);
    THAW_TRY(thaw_comm_max(run->comm, &stop, 1));
    bool due = run->job->checkpoint_epochs > 0 && run->at.total_epochs % run->job->checkpoint_epochs == 0;
    *stopped = stop > 0.0;
    return (due || *stopped) && !*ended ? thaw_checkpoint_save(run) : THAW_OK;
}

static thaw_status do_stage(thaw_run *run, bool *stopped) {
    bool ended = false, fresh = run->at.epoch == 0 && run->at.step == 0;
    THAW_TRY(thaw_stage_begin(run));
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        thaw_report_plan(run);
        if (fresh) /* else its line is in the log */
            status = thaw_record_stage(run);
    }
    THAW_TRY(thaw_comm_agree(run->comm, status));
    while (!ended && !*stopped)
        THAW_TRY(do_epoch(run, stopped, &ended));
    if (!ended)
        return THAW_OK;
    if (run->has_best)
        thaw_stage_best_restore(run);
    THAW_TRY(thaw_stage_end(run));
    run->at.stage++;
    run->at.epoch = 0;
    return thaw_checkpoint_save(run);
}

static thaw_status walk(thaw_run *run) {
    bool stopped = false;
    while (run->at.stage < run->job->n_stages) {
        THAW_TRY(do_stage(run, &stopped));
        if (stopped && run->at.stage < run->job->n_stages)
            return thaw_fail(THAW_STOPPED, "stopped %s after step %lld; a checkpoint is in %s/checkpoints, run the same "
                                           "command to resume",
                             run->deadline.reached ? "before the end of the allocation" : "on request",
                             (long long)run->at.total_steps, run->folder);
    }
    THAW_TRY(write_model(run, "model.h5", false));
    run->at.finished = 1;
    return thaw_checkpoint_save(run);
}

static void finish_report(thaw_run *run) {
    if (!is_root(run) || !run->options->result)
        return;
    char *snippet = thaw_report_snippet(run);
    if (snippet)
        run->options->result(snippet, run->options->payload);
    thaw_free(snippet);
}

/* Temporary files of a process that was killed while it wrote. */
static thaw_status sweep(const thaw_run *run) {
    THAW_TRY(thaw_io_sweep(run->folder));
    char *checkpoints = thaw_path_join(run->folder, "checkpoints");
    thaw_status status = checkpoints ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to tidy the run folder");
    if (status == THAW_OK && thaw_io_is_dir(checkpoints))
        status = thaw_io_sweep(checkpoints);
    thaw_free(checkpoints);
    return status;
}

/* Rows and lines behind the checkpoint (or of a run that never saved) are written again: same run, same rows. */
static thaw_status settle_logs(thaw_run *run, bool resumed) {
    THAW_TRY(sweep(run));
    THAW_TRY(thaw_history_rewind(run->history, run->history_size));
    THAW_TRY(thaw_events_rewind(run->events, run->events_size));
    char *path = thaw_path_join(run->folder, "job.yaml"), *text = thaw_job_text(run->job);
    thaw_status status = path && text ? thaw_io_write_atomic(path, text, strlen(text))
                                      : thaw_fail(THAW_RESOURCE, "no memory to write job.yaml");
    thaw_free(path);
    thaw_free(text);
    if (status == THAW_OK)
        status = thaw_record_start(run, resumed);
    run->recording = status == THAW_OK;
    return status;
}

/* A finished run is reported again, and its model is written again if it is gone. */
static thaw_status stay_finished(thaw_run *run) {
    thaw_info("the run in %s is finished (%lld epochs); --resume never starts it over", run->folder,
              (long long)run->at.total_epochs);
    return write_model(run, "model.h5", true);
}

static thaw_status go_on(thaw_run *run, bool resumed) {
    const thaw_job *job = run->job;
    int64_t stage = run->at.stage < job->n_stages ? run->at.stage : job->n_stages - 1;
    const char *host = thaw_comm_host(run->comm);
    void *hosts;
    size_t *sizes;
    THAW_TRY(thaw_comm_gather_buffers(run->comm, host, strlen(host) + 1, &hosts, &sizes));
    run->hosts = hosts;
    thaw_free(sizes);
    THAW_TRY(thaw_comm_agree(run->comm, is_root(run) ? settle_logs(run, resumed) : THAW_OK));
    if (resumed)
        thaw_info("resuming %s at stage %s, epoch %lld, step %lld", run->folder, job->stages[stage].name,
                  (long long)run->at.epoch + 1, (long long)run->at.step);
    return walk(run);
}

thaw_status thaw_train(thaw_comm *comm, const thaw_job *job, const thaw_train_options *options) {
    thaw_run run = {.comm = comm, .job = job, .options = options, .started = thaw_clock()};
    bool resumed = false;
    run.last_checkpoint = run.last_progress = run.started;
    thaw_deadline_open(&run);
    thaw_status status = thaw_run_open(&run);
    if (status == THAW_OK && !(options->resume && strcmp(options->resume, "never") == 0))
        status = thaw_checkpoint_load(&run, &resumed);
    if (status == THAW_OK)
        status = run.at.finished ? stay_finished(&run) : go_on(&run, resumed);
    if (run.recording)
        thaw_record_end(&run, status);
    if (status == THAW_OK)
        finish_report(&run);
    thaw_run_close(&run);
    return status;
}
