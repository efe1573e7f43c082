/* thaw_evaluate: loss and metrics of a network on labelled data. */
#include <string.h>

#include "base/memory.h"
#include "graph/mark.h"
#include "job/job_keys.h"
#include "thaw/train.h"
#include "train/inference.h"
#include "train/loss.h"
#include "train/samples.h"

/* "FILE.h5:/x" and, beside it, "FILE.h5:/y". */
static thaw_status open_arrays(thaw_dataset **out, const char *x) {
    const char *last = strrchr(x, '/');
    char *y = thaw_format("%.*sy", (int)(last + 1 - x), x);
    thaw_status status = y ? thaw_dataset_open_arrays(out, x, y) : thaw_fail(THAW_RESOURCE, "no memory to open %s", x);
    thaw_free(y);
    return status;
}

/* Loss and metrics as the model's notes name them; else what fits its last layer, and accuracy where labels are classes.
 * *has_loss: false when nothing says what the network was trained with. */
static thaw_status make_objective(thaw_objective *o, bool *has_loss, const thaw_model *model, const thaw_dataset *dataset) {
    const thaw_model_notes *notes = &model->notes;
    *o = (thaw_objective){.final = thaw_model_final(model), .units = thaw_shape_count(&model->nodes[model->output].shape),
                          .y_width = dataset->arrays ? dataset->y_width : 1, .n_classes = dataset->n_classes};
    bool noted = notes->loss && thaw_loss_parse(&o->loss, notes->loss);
    if (!noted)
        o->loss = thaw_loss_default(o->final);
    *has_loss = noted || o->final != THAW_ACTIVATION_LINEAR || dataset->arrays;
    for (const char *at = notes->metrics ? notes->metrics : ""; *at && o->n_metrics < THAW_METRICS;) {
        size_t length = strcspn(at, ",");
        char name[32] = "";
        memcpy(name, at, length < sizeof name ? length : 0);
        if (thaw_metric_parse(&o->metrics[o->n_metrics], name))
            o->n_metrics++;
        at += length + (at[length] == ',');
    }
    bool classes = dataset->n_classes > 0 || o->loss == THAW_LOSS_BINARY_CROSSENTROPY ||
                   o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY;
    if (o->n_metrics == 0 && classes)
        o->metrics[o->n_metrics++] = THAW_METRIC_ACCURACY;
    return thaw_objective_check(o, dataset->n_classes);
}

/* Sums over all samples and ranks. Collective. */
static thaw_status sum_all(thaw_sums *sums, thaw_inference *inference, thaw_comm *comm, const thaw_objective *objective) {
    thaw_status status = THAW_OK;
    for (int64_t b = 0; b < inference->n_batches && status == THAW_OK; b++) { /* no collective inside */
        thaw_batch batch;
        const float *z;
        status = thaw_inference_next(inference, &batch, &z);
        if (status == THAW_OK)
            status = thaw_objective_batch(objective, batch.n, z, batch.y, 0.0, NULL, sums);
    }
    THAW_TRY(thaw_comm_agree(comm, status));
    double words[2 + THAW_METRICS] = {sums->images, sums->loss};
    memcpy(words + 2, sums->metric, sizeof sums->metric);
    THAW_TRY(thaw_comm_sum(comm, words, 2 + THAW_METRICS));
    sums->images = words[0];
    sums->loss = words[1];
    memcpy(sums->metric, words + 2, sizeof sums->metric);
    return THAW_OK;
}

thaw_status thaw_evaluate(thaw_evaluation *out, thaw_comm *comm, thaw_model *model, const char *data,
                          const char *preprocess, int64_t batch_size) {
    const thaw_model_notes *notes = &model->notes;
    thaw_inference inference = {0};
    thaw_dataset *dataset = NULL;
    thaw_preprocess mode = THAW_PREPROCESS_NONE;
    thaw_objective objective;
    thaw_sums sums = {0};
    thaw_status status = THAW_OK;
    *out = (thaw_evaluation){0};
    if (thaw_comm_rank(comm) == 0)
        status = thaw_samples_are_arrays(data)
                     ? open_arrays(&dataset, data)
                     : thaw_dataset_scan_folders(&dataset, data, (const char *const *)notes->class_names, notes->n_classes);
    THAW_TRY(thaw_samples_share(&dataset, comm, status));
    status = make_objective(&objective, &out->has_loss, model, dataset);
    if (status == THAW_OK)
        status = thaw_samples_fit(dataset, model);
    if (status == THAW_OK)
        status = thaw_preprocess_choose(&mode, preprocess, model, dataset->arrays);
    THAW_GOTO(thaw_comm_agree(comm, status));
    THAW_GOTO(thaw_inference_open(&inference, comm, model, dataset, mode, batch_size));
    THAW_GOTO(sum_all(&sums, &inference, comm, &objective));
    out->images = (int64_t)sums.images;
    out->loss = sums.loss / sums.images;
    out->n_metrics = objective.n_metrics;
    for (int m = 0; m < objective.n_metrics; m++) {
        out->metrics[m] = sums.metric[m] / sums.images;
        out->metric_names[m] = thaw_metric_name(objective.metrics[m]);
    }
out:
    thaw_inference_close(&inference);
    thaw_dataset_free(dataset);
    return status;
}
