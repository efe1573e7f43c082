/* Opening a run: the network, the data, how they fit together, and the stages are all checked before the first byte is
 * written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/limits.h"
#include "base/memory.h"
#include "graph/mark.h"
#include "kernels/kernels.h"
#include "train/cache.h"
#include "train/guards.h"
#include "train/run.h"
#include "train/samples.h"

static bool is_root(const thaw_run *run) { return thaw_comm_rank(run->comm) == 0; }

/* The network ends as its file says, so the file's class names are those of the outputs. */
static bool keeps_outputs(const thaw_run *run) {
    return !run->job->n_head && !run->job->output && run->model->notes.class_names;
}

static thaw_status scan(thaw_dataset **out, const char *folder, const char *x, const char *y, const char *const *names,
                        int n_names) {
    return folder ? thaw_dataset_scan_folders(out, folder, names, n_names) : thaw_dataset_open_arrays(out, x, y);
}

/* The index of the data on all ranks. Classes of the validation data are in the order of the training data. */
static thaw_status index_data(thaw_run *run) {
    const thaw_job *job = run->job;
    const char *const *names = (const char *const *)job->class_names;
    int n_names = job->n_class_names;
    if (!n_names && keeps_outputs(run)) {
        names = (const char *const *)run->model->notes.class_names;
        n_names = run->model->notes.n_classes;
    }
    thaw_status status = THAW_OK;
    if (is_root(run))
        status = scan(&run->train, job->train, job->train_x, job->train_y, names, n_names);
    THAW_TRY(thaw_samples_share(&run->train, run->comm, status));
    THAW_TRY(thaw_comm_agree(run->comm, thaw_samples_fit(run->train, run->model)));
    if (!job->validation && !job->validation_x)
        return THAW_OK;
    if (is_root(run))
        status = scan(&run->validation, job->validation, job->validation_x, job->validation_y,
                      (const char *const *)run->train->class_names, run->train->n_classes);
    THAW_TRY(thaw_samples_share(&run->validation, run->comm, status));
    return thaw_comm_agree(run->comm, thaw_samples_fit(run->validation, run->model));
}

/* Decodes every image once, then splits: samples that are dropped here are no part of the run. */
static thaw_status check_data(thaw_run *run) {
    const thaw_job *job = run->job;
    THAW_TRY(thaw_samples_check(run->train, run->comm, job->skip_bad_images));
    if (run->validation)
        THAW_TRY(thaw_samples_check(run->validation, run->comm, job->skip_bad_images));
    if (!run->validation && job->validation_split > 0.0)
        THAW_TRY(thaw_comm_agree(run->comm, thaw_dataset_split(run->train, job->validation_split, job->seed,
                                                               &run->validation)));
    if (run->validation && run->validation->n == 0) {
        thaw_dataset_free(run->validation);
        run->validation = NULL;
    }
    if (job->stage_data)
        THAW_TRY(thaw_samples_stage(run->train, run->comm, job->stage_folder));
    if (job->stage_data && run->validation)
        THAW_TRY(thaw_samples_stage(run->validation, run->comm, job->stage_folder));
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
    *o = (thaw_objective){.n_metrics = job->n_metrics, .n_classes = run->train->n_classes};
    o->units = thaw_shape_count(&run->model->nodes[run->model->output].shape);
    o->final = thaw_model_final(run->model);
    o->loss = job->loss_given ? job->loss : thaw_loss_default(o->final);
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

static thaw_status no_notes(void) { return thaw_fail(THAW_RESOURCE, "no memory for the model's notes"); }

/* `text` may be NULL: unknown. */
static thaw_status replace_text(char **to, const char *text) {
    thaw_free(*to);
    *to = text ? thaw_strdup(text) : NULL;
    return *to || !text ? THAW_OK : no_notes();
}

static void free_names(char **names, int n) {
    for (int i = 0; names && i < n; i++)
        thaw_free(names[i]);
    thaw_free(names);
}

/* Names of the outputs: class folders; for arrays what the job says, else what the file said if its outputs are kept. */
static thaw_status set_class_names(thaw_run *run) {
    thaw_model_notes *notes = &run->model->notes;
    char *const *from = run->train->class_names;
    int n = run->train->n_classes;
    if (!n && keeps_outputs(run) && !run->job->n_class_names)
        return THAW_OK;
    if (!n) {
        from = run->job->class_names;
        n = run->job->n_class_names;
    }
    char **names = n ? thaw_calloc((size_t)n, sizeof *names) : NULL;
    bool complete = names || !n;
    for (int i = 0; names && i < n; i++) {
        names[i] = thaw_strdup(from[i]);
        complete = complete && names[i];
    }
    if (!complete) {
        free_names(names, n);
        return no_notes();
    }
    free_names(notes->class_names, notes->n_classes);
    notes->class_names = names;
    notes->n_classes = n;
    return THAW_OK;
}

/* What model.h5 says about itself. Arrays that are taken as they are say nothing about how pixels were prepared. */
static thaw_status set_notes(thaw_run *run) {
    thaw_model_notes *notes = &run->model->notes;
    bool as_they_are = run->train->arrays && !run->job->preprocess;
    char metrics[96] = "";
    for (int m = 0; m < run->objective.n_metrics; m++)
        snprintf(metrics + strlen(metrics), sizeof metrics - strlen(metrics), "%s%s", m ? "," : "",
                 thaw_metric_name(run->objective.metrics[m]));
    if (is_root(run) && !as_they_are)
        thaw_guard_preprocess(run->model, run->preprocess);
    THAW_TRY(replace_text(&notes->preprocess, as_they_are ? NULL : thaw_preprocess_name(run->preprocess)));
    THAW_TRY(replace_text(&notes->loss, thaw_loss_name(run->objective.loss)));
    THAW_TRY(replace_text(&notes->metrics, metrics));
    return set_class_names(run);
}

/* The plan of a stage, which must fit this host. Steps have their prefix together where there is room for that, too, beside the
 * weights, which are there already. */
static thaw_status plan_stage(thaw_plan **plan, thaw_run *run, int stage, int sharers, double left) {
    const int ranks = thaw_comm_size(run->comm);
    THAW_TRY(thaw_stage_plan(plan, run->model, run->job, stage, run->trainable, run->batch_statistics, ranks, !run->apart));
    const size_t total = thaw_stage_memory_of(*plan, run->job, stage, ranks, sharers, &run->samples, run->program).total;
    if ((*plan)->together > 1 && (double)total - (double)run->program - (double)(*plan)->memory.weights > left) {
        run->apart = true;
        thaw_plan_free(*plan);
        return plan_stage(plan, run, stage, sharers, left);
    }
    char *what = thaw_format("stage %s", run->job->stages[stage].name);
    thaw_status status = thaw_memory_fits(total, run->comm, what ? what : "a stage");
    thaw_free(what);
    return status;
}

/* Flags, names and memory of every stage are checked before the first begins. */
static thaw_status check_stages(thaw_run *run) {
    const thaw_job *job = run->job;
    size_t layers = (size_t)run->model->n_layers;
    int sharers;
    THAW_TRY(thaw_stage_sharers(&sharers, run->comm));
    const double left = (double)thaw_memory_left_of("", thaw_comm_local_size(run->comm)).bytes / thaw_comm_local_size(run->comm);
    bool *before = thaw_calloc(layers, sizeof *before), *touched = thaw_calloc(layers, sizeof *touched);
    thaw_status status = before && touched ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for flags");
    for (size_t i = 0; i < layers && status == THAW_OK; i++)
        for (int t = 0; t < run->model->layers[i].n_tensors; t++)
            touched[i] = touched[i] || run->model->layers[i].tensors[t].loaded;
    for (int s = 0; s < job->n_stages && status == THAW_OK; s++) {
        thaw_plan *plan = NULL;
        status = thaw_stage_flags(run->trainable, run->batch_statistics, run->model, job, s, s ? before : NULL);
        if (status == THAW_OK)
            status = plan_stage(&plan, run, s, sharers, left);
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
    THAW_TRY(thaw_comm_agree(run->comm, status));
    double apart = run->apart;
    THAW_TRY(thaw_comm_max(run->comm, &apart, 1));
    run->apart = apart > 0.0;
    if (run->apart && is_root(run))
        thaw_info("what is frozen in front takes the images of each step alone: too little memory is left for more");
    return THAW_OK;
}

/* People read this name: jobs often say ../../runs/first. */
static thaw_status tidy_name(thaw_run *run) {
    char *real = thaw_path_real(run->folder);
    if (!real)
        return thaw_fail(THAW_RESOURCE, "no memory");
    thaw_free(run->folder);
    run->folder = real;
    return THAW_OK;
}

/* Output folder, on rank 0: created, or moved aside with --resume never. */
static thaw_status prepare_folder(thaw_run *run) {
    THAW_TRY(tidy_name(run));
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
    THAW_TRY(tidy_name(run));
    folder = run->folder;
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

static thaw_status make_flags(thaw_run *run) {
    size_t layers = (size_t)run->model->n_layers;
    run->trainable = thaw_calloc(layers, sizeof(bool));
    run->previous = thaw_calloc(layers, sizeof(bool));
    run->batch_statistics = thaw_calloc(layers, sizeof(bool));
    return run->trainable && run->previous && run->batch_statistics ? THAW_OK
                                                                    : thaw_fail(THAW_RESOURCE, "no memory for flags");
}

/* Equal jobs, or the first line in which they differ: paths and $VARIABLES are each rank's own. Collective. */
static thaw_status same_job(const thaw_run *run) {
    const thaw_status status = thaw_comm_same(run->comm, "the job", thaw_job_hash(run->job), THAW_MISMATCH);
    if (status != THAW_MISMATCH)
        return status;
    char *mine = thaw_job_text(run->job);
    void *zeros = is_root(run) && mine ? thaw_strdup(mine) : NULL;
    size_t size = zeros ? strlen(zeros) + 1 : 0, at = 0;
    thaw_status told = thaw_comm_agree(run->comm, mine && (zeros || !is_root(run)) ? THAW_OK
                                                                                    : thaw_fail(THAW_RESOURCE, "no memory"));
    if (told == THAW_OK)
        told = thaw_comm_broadcast_buffer(run->comm, &zeros, &size, 0);
    if (told == THAW_OK) {
        const char *theirs = zeros;
        for (size_t i = 0; mine[i] && mine[i] == theirs[i]; i++)
            at = mine[i] == '\n' ? i + 1 : at;
        if (strcmp(mine, theirs) != 0) {
            const char *a = mine + at + strspn(mine + at, " -"), *b = theirs + at + strspn(theirs + at, " -");
            told = thaw_fail(THAW_MISMATCH, "the job is another one than rank 0's: '%.*s', not '%.*s'; start all ranks in the "
                             "same folder, with the same variables", (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
        }
        told = thaw_comm_agree(run->comm, told);
    }
    thaw_free(mine);
    thaw_free(zeros);
    return told == THAW_OK ? status : told;
}

thaw_status thaw_run_open(thaw_run *run) {
    const thaw_job *job = run->job;
    if (!job->output_folder)
        return thaw_fail(THAW_USAGE, "%s: output is missing: name the folder for the results, e.g. output: runs/first",
                         job->path);
    run->program = thaw_program_bytes();
    run->program_common = thaw_resident_bytes("").common;
    run->folder = thaw_strdup(job->output_folder);
    THAW_TRY(thaw_comm_agree(run->comm, run->folder ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory")));
    THAW_TRY(same_job(run));
    /* Other instruction sets or algorithms give other bits: replicas would drift apart. */
    THAW_TRY(thaw_comm_same(run->comm, "the choice of kernels", thaw_hash_text(thaw_kernels_describe(), 0), THAW_MISMATCH));
    THAW_TRY(thaw_job_model(&run->model, run->comm, job, true));
    thaw_status status = make_flags(run);
    if (status == THAW_OK)
        status = thaw_preprocess_choose(&run->preprocess, job->preprocess, run->model, job->train_x != NULL);
    THAW_TRY(thaw_comm_agree(run->comm, status));
    THAW_TRY(check_stages(run));
    THAW_TRY(index_data(run));
    THAW_TRY(thaw_comm_agree(run->comm, set_objective(run)));
    THAW_TRY(thaw_comm_agree(run->comm, set_notes(run)));
    THAW_TRY(check_data(run));
    if (is_root(run))
        run->samples = thaw_samples_size_of(run->train, run->validation, job);
    THAW_TRY(thaw_comm_agree(run->comm, is_root(run) ? prepare_folder(run) : THAW_OK));
    THAW_TRY(thaw_comm_agree(run->comm, open_logs(run)));
    thaw_decisions_init(&run->decisions);
    return THAW_OK;
}

void thaw_run_close(thaw_run *run) {
    thaw_stage_release(run);
    thaw_cache_free(run->cache);
    thaw_cache_free(run->validation_cache);
    thaw_buffer_free(&run->carried);
    thaw_history_free(run->history);
    thaw_events_free(run->events);
    thaw_dataset_free(run->train);
    thaw_dataset_free(run->validation);
    thaw_model_free(run->model);
    thaw_free(run->class_weight);
    thaw_free(run->trainable);
    thaw_free(run->previous);
    thaw_free(run->batch_statistics);
    thaw_free(run->folder);
    thaw_free(run->hosts);
}
