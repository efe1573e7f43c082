/* The whole run: open, walk stages and epochs, decide, save, write the result. */
#include "train/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "train/guards.h"
#include "train/record.h"

static bool is_root(const thaw_run *run) { return thaw_comm_rank(run->comm) == 0; }

/* Bytes of rank 0's dataset to the others. Collective; `mine` is rank 0's status so far. */
static thaw_status share_dataset(thaw_dataset **dataset, thaw_comm *comm, thaw_status mine) {
    void *bytes = NULL;
    size_t size = 0;
    thaw_status status = mine;
    if (status == THAW_OK && thaw_comm_rank(comm) == 0)
        status = thaw_dataset_pack(&bytes, &size, *dataset);
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK)
        status = thaw_comm_broadcast_buffer(comm, &bytes, &size, 0);
    if (status == THAW_OK && thaw_comm_rank(comm) != 0)
        status = thaw_comm_agree(comm, thaw_dataset_unpack(dataset, bytes, size));
    else if (status == THAW_OK)
        status = thaw_comm_agree(comm, THAW_OK);
    thaw_free(bytes);
    return status;
}

/* Decodes every image once, each rank its share, and drops the bad ones from everybody's index. Collective. */
static thaw_status drop_bad(thaw_run *run, thaw_dataset *dataset) {
    int64_t *bad = NULL, n_bad = 0;
    void *all = NULL;
    size_t *sizes = NULL, size = 0;
    int ranks = thaw_comm_size(run->comm);
    thaw_status status = thaw_comm_agree(run->comm, thaw_dataset_verify(dataset, thaw_threads(), thaw_comm_rank(run->comm),
                                                                        ranks, &bad, &n_bad));
    if (status == THAW_OK)
        status = thaw_comm_gather_buffers(run->comm, bad, (size_t)n_bad * sizeof *bad, &all, &sizes);
    if (status == THAW_OK) {
        for (int r = 0; sizes && r < ranks; r++)
            size += sizes[r];
        status = thaw_comm_broadcast_buffer(run->comm, &all, &size, 0);
    }
    if (status == THAW_OK) { /* ranks took every P-th sample: sort into one ascending list */
        int64_t *list = all;
        int64_t n = (int64_t)(size / sizeof *list);
        for (int64_t i = 1; i < n; i++)
            for (int64_t k = i; k > 0 && list[k - 1] > list[k]; k--) {
                int64_t swap = list[k];
                list[k] = list[k - 1];
                list[k - 1] = swap;
            }
        if (n == dataset->n)
            status = thaw_fail(THAW_DATA, "%s: none of the %lld images can be decoded", dataset->root, (long long)n);
        else if (n)
            thaw_dataset_drop(dataset, list, n);
        if (n && is_root(run))
            thaw_warn("%lld unreadable images are left out (data.on_bad_image: skip)", (long long)n);
    }
    thaw_free(bad);
    thaw_free(all);
    thaw_free(sizes);
    return thaw_comm_agree(run->comm, status);
}

static thaw_status scan(thaw_dataset **out, const char *folder, const char *x, const char *y, const char *const *names,
                        int n_names) {
    return folder ? thaw_dataset_scan_folders(out, folder, names, n_names) : thaw_dataset_open_arrays(out, x, y);
}

static thaw_status open_data(thaw_run *run) {
    const thaw_job *job = run->job;
    const char *const *names = (const char *const *)job->class_names;
    int n_names = job->n_class_names;
    if (!n_names && !job->n_head && !job->output && run->model->notes.class_names) {
        names = (const char *const *)run->model->notes.class_names;
        n_names = run->model->notes.n_classes;
    }
    thaw_status status = THAW_OK;
    if (is_root(run))
        status = scan(&run->train, job->train, job->train_x, job->train_y, names, n_names);
    THAW_TRY(share_dataset(&run->train, run->comm, status));
    if (job->skip_bad_images && !run->train->arrays)
        THAW_TRY(drop_bad(run, run->train));
    if (job->validation || job->validation_x) { /* classes in the order of the training data */
        if (is_root(run))
            status = scan(&run->validation, job->validation, job->validation_x, job->validation_y,
                          (const char *const *)run->train->class_names, run->train->n_classes);
        THAW_TRY(share_dataset(&run->validation, run->comm, status));
        if (job->skip_bad_images && !run->validation->arrays)
            THAW_TRY(drop_bad(run, run->validation));
    } else if (job->validation_split > 0.0) {
        THAW_TRY(thaw_comm_agree(run->comm, thaw_dataset_split(run->train, job->validation_split, job->seed,
                                                               &run->validation)));
        if (run->validation && run->validation->n == 0) {
            thaw_dataset_free(run->validation);
            run->validation = NULL;
        }
    }
    run->data_hash = thaw_dataset_hash(run->train);
    if (run->validation)
        run->data_hash = run->data_hash * 31 + thaw_dataset_hash(run->validation);
    return thaw_comm_same(run->comm, "the index of the data", run->data_hash, THAW_MISMATCH);
}

static thaw_status take_class_weights(thaw_run *run) {
    const thaw_job *job = run->job;
    int n = run->train->n_classes;
    if (!job->n_class_weights)
        return THAW_OK;
    if (n == 0) /* arrays: as many classes as outputs, two for one unit */
        n = run->objective.units > 1 ? (int)run->objective.units : 2;
    run->class_weight = thaw_calloc((size_t)n, sizeof *run->class_weight);
    if (!run->class_weight)
        return thaw_fail(THAW_RESOURCE, "no memory for class weights");
    for (int c = 0; c < n; c++)
        run->class_weight[c] = 1.0f; /* Keras: a class without weight counts once */
    for (int i = 0; i < job->n_class_weights; i++) {
        const char *key = job->class_weight_keys[i];
        int found = -1;
        for (int c = 0; c < run->train->n_classes; c++)
            if (strcmp(run->train->class_names[c], key) == 0)
                found = c;
        char *end;
        long index = strtol(key, &end, 10);
        if (found < 0 && *key && *end == '\0' && index >= 0 && index < n)
            found = (int)index;
        if (found < 0)
            return thaw_fail(THAW_USAGE, "%s: training.class_weight: '%s' is neither a class name nor an index 0..%d",
                             job->path, key, n - 1);
        run->class_weight[found] = (float)job->class_weights[i];
    }
    run->objective.class_weight = run->class_weight;
    run->objective.n_classes = n;
    return THAW_OK;
}

/* How labels, loss and outputs fit together. */
static thaw_status set_objective(thaw_run *run) {
    const thaw_job *job = run->job;
    thaw_objective *o = &run->objective;
    const thaw_layer *last = &run->model->layers[run->model->nodes[run->model->output].layer];
    *o = (thaw_objective){.loss = job->loss, .n_metrics = job->n_metrics, .n_classes = run->train->n_classes};
    o->units = thaw_shape_count(&run->model->nodes[run->model->output].shape);
    thaw_activation act = last->kind == THAW_LAYER_SOFTMAX ? THAW_ACTIVATION_SOFTMAX : last->config.activation;
    o->final = act == THAW_ACTIVATION_SIGMOID || act == THAW_ACTIVATION_SOFTMAX ? act : THAW_ACTIVATION_LINEAR;
    o->y_width = run->train->arrays ? run->train->y_width : 1;
    memcpy(o->metrics, job->metrics, sizeof o->metrics);
    if (run->train->arrays && !run->train->y_file)
        return thaw_fail(THAW_USAGE, "%s: data.train has no y", job->path);
    if (run->validation && run->validation->y_width != run->train->y_width && run->train->arrays)
        return thaw_fail(THAW_DATA, "y of the validation data has %lld values a sample, y of the training data %lld",
                         (long long)run->validation->y_width, (long long)run->train->y_width);
    THAW_TRY(thaw_objective_check(o, run->train->n_classes));
    return take_class_weights(run);
}

static thaw_status replace_text(char **to, const char *text) {
    thaw_free(*to);
    *to = thaw_strdup(text);
    return *to ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for the model's notes");
}

/* What model.h5 says about itself. */
static thaw_status set_notes(thaw_run *run) {
    thaw_model_notes *notes = &run->model->notes;
    char metrics[96] = "";
    for (int m = 0; m < run->objective.n_metrics; m++)
        snprintf(metrics + strlen(metrics), sizeof metrics - strlen(metrics), "%s%s", m ? "," : "",
                 thaw_metric_name(run->objective.metrics[m]));
    THAW_TRY(replace_text(&notes->preprocess, thaw_preprocess_name(run->preprocess)));
    THAW_TRY(replace_text(&notes->loss, thaw_loss_name(run->objective.loss)));
    THAW_TRY(replace_text(&notes->metrics, metrics));
    for (int i = 0; i < notes->n_classes; i++)
        thaw_free(notes->class_names[i]);
    thaw_free(notes->class_names);
    notes->class_names = NULL;
    notes->n_classes = 0;
    if (!run->train->n_classes)
        return THAW_OK;
    notes->class_names = thaw_calloc((size_t)run->train->n_classes, sizeof *notes->class_names);
    if (!notes->class_names)
        return thaw_fail(THAW_RESOURCE, "no memory for class names");
    for (int i = 0; i < run->train->n_classes; i++) {
        notes->class_names[i] = thaw_strdup(run->train->class_names[i]);
        notes->n_classes = i + 1;
    }
    return THAW_OK;
}

/* Flags, names and memory of every stage are checked before the first begins. */
static thaw_status check_stages(thaw_run *run) {
    const thaw_job *job = run->job;
    size_t layers = (size_t)run->model->n_layers;
    bool *before = thaw_calloc(layers, sizeof *before), *touched = thaw_calloc(layers, sizeof *touched);
    thaw_status status = before && touched ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for flags");
    for (size_t i = 0; i < layers && status == THAW_OK; i++)
        for (int t = 0; t < run->model->layers[i].n_tensors; t++)
            touched[i] = touched[i] || run->model->layers[i].tensors[t].loaded;
    for (int s = 0; s < job->n_stages && status == THAW_OK; s++) {
        thaw_plan *plan = NULL;
        status = thaw_stage_flags(run->trainable, run->batch_statistics, run->model, job, s, s ? before : NULL);
        if (status == THAW_OK)
            status = thaw_stage_plan(&plan, run->model, job, s, run->trainable, run->batch_statistics,
                                     thaw_comm_size(run->comm));
        thaw_plan_free(plan);
        if (status == THAW_OK && is_root(run))
            thaw_guard_stage(run->model, job, s, run->trainable, s ? before : NULL, touched);
        for (size_t i = 0; i < layers && status == THAW_OK; i++) {
            touched[i] = touched[i] || run->trainable[i];
            before[i] = run->trainable[i];
        }
    }
    thaw_free(before);
    thaw_free(touched);
    return thaw_comm_agree(run->comm, status);
}

/* Output folder, on rank 0: created, or moved aside with --resume never. */
static thaw_status prepare_folder(thaw_run *run) {
    const char *folder = run->folder;
    if (run->options->resume && strcmp(run->options->resume, "never") == 0 && thaw_io_exists(folder)) {
        char *aside = NULL;
        for (int i = 1; !aside || thaw_io_exists(aside); i++) {
            thaw_free(aside);
            aside = thaw_format("%s.%d", folder, i);
            if (!aside)
                return thaw_fail(THAW_RESOURCE, "no memory");
        }
        thaw_status status = thaw_io_rename(folder, aside);
        if (status == THAW_OK)
            thaw_info("the folder of an earlier run was moved to %s", aside);
        thaw_free(aside);
        THAW_TRY(status);
    }
    THAW_TRY(thaw_io_mkdirs(folder));
    char *path = thaw_path_join(folder, "job.yaml"), *text = thaw_job_text(run->job);
    thaw_status status = path && text ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory");
    /* an older job stays until the checkpoint has been compared with this one */
    if (status == THAW_OK && !thaw_io_exists(path))
        status = thaw_io_write_atomic(path, text, strlen(text));
    thaw_free(path);
    thaw_free(text);
    return status;
}

static thaw_status open_logs(thaw_run *run) {
    if (!is_root(run))
        return THAW_OK;
    THAW_TRY(thaw_history_open(&run->history, run->folder, &run->objective, run->validation != NULL));
    return thaw_events_open(&run->events, run->folder);
}

static thaw_status write_model(thaw_run *run, const char *name) {
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        void *bytes = NULL;
        size_t size = 0;
        char *path = thaw_path_join(run->folder, name);
        status = path ? thaw_keras_write_image(&bytes, &size, run->model, run->trainable)
                      : thaw_fail(THAW_RESOURCE, "no memory");
        if (status == THAW_OK)
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

/* One epoch with its validation, decisions and files. *stopped: a checkpoint was written on request; *ended: the stage is
 * over early. */
static thaw_status do_epoch(thaw_run *run, bool *stopped, bool *ended) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    double started = thaw_clock();
    thaw_sums validation = {0};
    thaw_values values;
    run->phases = (thaw_phases){0};
    run->other_bytes = 0;
    run->exchanged_before = thaw_exchange_bytes(run->exchange);
    THAW_TRY(thaw_epoch_train(run, stopped));
    if (*stopped)
        return THAW_OK;
    double training = thaw_clock() - started;
    if (run->validation)
        THAW_TRY(thaw_epoch_validate(run, &validation));
    THAW_TRY(thaw_comm_same(run->comm, "the trained weights after the epoch", thaw_engine_trained_hash(run->engine),
                            THAW_REPLICAS));

    epoch_values(run, &validation, &values);
    double seconds = thaw_clock() - started;
    thaw_verdict verdict = thaw_decide(&run->decisions, run->job, stage, run->at.epoch, &values,
                                       run->optimizer->learning_rate);
    run->stage_seconds += training;
    run->stage_exchanged += (double)(thaw_exchange_bytes(run->exchange) - run->exchanged_before);
    double *sum = &run->stage_phases.input;
    const double *part = &run->phases.input;
    for (size_t i = 0; i < sizeof(thaw_phases) / sizeof(double); i++)
        sum[i] += part[i];
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        say_epoch(run, &values, seconds);
        status = thaw_history_row(run->history, run->at.total_epochs, stage->name, &values);
        if (status == THAW_OK)
            status = thaw_record_epoch(run, &values, training);
    }
    THAW_TRY(thaw_comm_agree(run->comm, status));
    if (verdict.improved)
        THAW_TRY(write_model(run, "best.h5"));
    if (verdict.improved_in_stage && run->best)
        thaw_stage_best_save(run);
    if (verdict.lower_rate && is_root(run))
        thaw_info("reduce_lr_on_plateau: learning rate %.3g -> %.3g", run->optimizer->learning_rate,
                  verdict.learning_rate);
    run->optimizer->learning_rate = verdict.learning_rate;
    if (verdict.stop && is_root(run))
        thaw_info("early_stopping: stage %s ends after epoch %lld", stage->name, (long long)run->at.epoch + 1);

    run->at.epoch++;
    run->at.total_epochs++;
    run->at.step = 0;
    run->sums = (thaw_sums){0};
    *ended = verdict.stop || run->at.epoch == stage->epochs;
    double stop = run->options->stop && *run->options->stop;
    THAW_TRY(thaw_comm_max(run->comm, &stop, 1));
    bool due = run->job->checkpoint_epochs > 0 && run->at.total_epochs % run->job->checkpoint_epochs == 0;
    *stopped = stop > 0.0;
    return (due || *stopped) && !*ended ? thaw_checkpoint_save(run) : THAW_OK;
}

static thaw_status do_stage(thaw_run *run, bool *stopped) {
    bool ended = false;
    THAW_TRY(thaw_stage_begin(run));
    if (is_root(run)) {
        thaw_report_plan(run);
        THAW_TRY(thaw_record_stage(run));
    }
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
            return thaw_fail(THAW_STOPPED, "stopped on request after step %lld; a checkpoint is in %s/checkpoints, run the "
                                           "same command to resume", (long long)run->at.total_steps, run->folder);
    }
    THAW_TRY(write_model(run, "model.h5"));
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

static thaw_status open_run(thaw_run *run) {
    const thaw_job *job = run->job;
    if (!job->output_folder)
        return thaw_fail(THAW_USAGE, "%s: output is missing: name the folder for the results, e.g. output: runs/first",
                         job->path);
    run->folder = thaw_strdup(job->output_folder);
    if (!run->folder)
        return thaw_fail(THAW_RESOURCE, "no memory");
    THAW_TRY(thaw_comm_same(run->comm, "the job", thaw_job_hash(job), THAW_MISMATCH));
    THAW_TRY(thaw_job_model(&run->model, run->comm, job, true));
    size_t layers = (size_t)run->model->n_layers;
    run->touched = thaw_calloc(layers, sizeof(bool));
    run->trainable = thaw_calloc(layers, sizeof(bool));
    run->previous = thaw_calloc(layers, sizeof(bool));
    run->batch_statistics = thaw_calloc(layers, sizeof(bool));
    thaw_status status = run->touched && run->trainable && run->previous && run->batch_statistics
                             ? THAW_OK
                             : thaw_fail(THAW_RESOURCE, "no memory for flags");
    if (status == THAW_OK)
        status = thaw_preprocess_choose(&run->preprocess, job->preprocess, run->model, job->train_x != NULL);
    THAW_TRY(thaw_comm_agree(run->comm, status));
    for (size_t i = 0; i < layers; i++)
        for (int t = 0; t < run->model->layers[i].n_tensors; t++)
            run->touched[i] = run->touched[i] || run->model->layers[i].tensors[t].loaded;
    THAW_TRY(open_data(run));
    THAW_TRY(thaw_comm_agree(run->comm, set_objective(run)));
    THAW_TRY(thaw_comm_agree(run->comm, set_notes(run)));
    if (is_root(run))
        thaw_guard_preprocess(run->model, run->preprocess);
    THAW_TRY(check_stages(run));
    status = is_root(run) ? prepare_folder(run) : THAW_OK;
    THAW_TRY(thaw_comm_agree(run->comm, status));
    THAW_TRY(thaw_comm_agree(run->comm, open_logs(run)));
    thaw_decisions_init(&run->decisions, job);
    return THAW_OK;
}

/* Rows and lines behind the checkpoint (or of a run that never saved) are written again: same run, same rows. */
static thaw_status settle_logs(thaw_run *run, bool resumed) {
    thaw_status status = THAW_OK;
    if (is_root(run)) {
        if (!resumed) {
            thaw_history_rewind(run->history, 0);
            thaw_events_rewind(run->events, 0);
        }
        char *path = thaw_path_join(run->folder, "job.yaml"), *text = thaw_job_text(run->job);
        status = path && text ? thaw_io_write_atomic(path, text, strlen(text)) : thaw_fail(THAW_RESOURCE, "no memory");
        thaw_free(path);
        thaw_free(text);
        if (status == THAW_OK)
            status = thaw_record_start(run, resumed);
    }
    return thaw_comm_agree(run->comm, status);
}

static void close_run(thaw_run *run) {
    thaw_stage_release(run);
    thaw_buffer_free(&run->carried);
    thaw_history_free(run->history);
    thaw_events_free(run->events);
    thaw_dataset_free(run->train);
    thaw_dataset_free(run->validation);
    thaw_model_free(run->model);
    thaw_free(run->class_weight);
    thaw_free(run->touched);
    thaw_free(run->trainable);
    thaw_free(run->previous);
    thaw_free(run->batch_statistics);
    thaw_free(run->folder);
}

thaw_status thaw_train(thaw_comm *comm, const thaw_job *job, const thaw_train_options *options) {
    thaw_run run = {.comm = comm, .job = job, .options = options, .started = thaw_clock()};
    bool resumed = false;
    run.last_checkpoint = run.started;
    thaw_status status = open_run(&run);
    if (status == THAW_OK && !(options->resume && strcmp(options->resume, "never") == 0))
        status = thaw_checkpoint_load(&run, &resumed);
    if (status == THAW_OK && run.at.finished) {
        thaw_info("the run in %s is finished (%lld epochs); --resume never starts it over", run.folder,
                  (long long)run.at.total_epochs);
        finish_report(&run);
        goto out;
    }
    if (status == THAW_OK)
        status = settle_logs(&run, resumed);
    if (status == THAW_OK && resumed && is_root(&run))
        thaw_info("resuming %s at stage %s, epoch %lld, step %lld", run.folder, job->stages[run.at.stage < job->n_stages
                                                                                               ? run.at.stage
                                                                                               : job->n_stages - 1].name,
                  (long long)run.at.epoch + 1, (long long)run.at.step);
    if (status == THAW_OK)
        status = walk(&run);
    if (run.events)
        thaw_record_end(&run, status);
    if (status == THAW_OK)
        finish_report(&run);
out:
    close_run(&run);
    return status;
}
