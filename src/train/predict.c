/* thaw_predict: outputs of a network for images or arrays, in the order of the input, as CSV, JSON lines or HDF5. */
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"
#include "formats/predictions.h"
#include "graph/mark.h"
#include "thaw/train.h"
#include "train/inference.h"
#include "train/json_text.h"
#include "train/loss_row.h"
#include "train/samples.h"

typedef enum { FORMAT_CSV, FORMAT_JSONL, FORMAT_HDF5 } output_format;

static thaw_status find_format(output_format *format, const char *output) {
    static const struct {
        const char *ending;
        output_format format;
    } known[] = {{".csv", FORMAT_CSV}, {".jsonl", FORMAT_JSONL}, {".h5", FORMAT_HDF5}, {".hdf5", FORMAT_HDF5}};
    size_t length = strlen(output);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t ending = strlen(known[i].ending);
        if (length > ending && strcmp(output + length - ending, known[i].ending) == 0) {
            *format = known[i].format;
            return THAW_OK;
        }
    }
    return thaw_fail(THAW_USAGE, "--output %s: the name must end in .csv, .jsonl or .h5", output);
}

/* What exists on the way to the output must be folders; what does not is made when there is something to write. */
static thaw_status check_place(const char *output) {
    if (thaw_io_is_dir(output))
        return thaw_fail(THAW_CANT_CREATE, "--output %s is a folder; name a file in it", output);
    char *folder = thaw_path_dirname(output);
    while (folder && !thaw_io_exists(folder) && strcmp(folder, "/") != 0 && strcmp(folder, ".") != 0) {
        char *parent = thaw_path_dirname(folder);
        thaw_free(folder);
        folder = parent;
    }
    thaw_status status = !folder                   ? thaw_fail(THAW_RESOURCE, "no memory to check %s", output)
                         : thaw_io_is_dir(folder) ? THAW_OK
                                                   : thaw_fail(THAW_CANT_CREATE, "--output %s cannot be created: %s is not a "
                                                                                 "folder", output, folder);
    thaw_free(folder);
    return status;
}

static thaw_status open_inputs(thaw_dataset **out, const char *const *inputs, int n) {
    for (int i = 0; i < n; i++)
        if (thaw_samples_are_arrays(inputs[i]))
            return n == 1 ? thaw_dataset_open_arrays(out, inputs[0], NULL)
                          : thaw_fail(THAW_USAGE, "%s is an array, which is predicted alone; found %d inputs", inputs[i], n);
    return thaw_dataset_scan_inputs(out, inputs, n);
}

/* What the writers need. */
typedef struct outputs {
    const thaw_dataset *dataset;
    const thaw_model_notes *notes;
    const float *y; /* (n,units) */
    int64_t n, units;
    double threshold; /* of one unit that tells two classes apart */
    bool classes;     /* the names of the outputs are known */
} outputs;

/* Name of a sample: path as the user would write it, or row number. thaw_free. */
static char *sample_name(const outputs *o, int64_t i) {
    const thaw_dataset *d = o->dataset;
    if (d->arrays)
        return thaw_format("%lld", (long long)d->rows[i]);
    bool bare = !d->root || !*d->root || strcmp(d->root, ".") == 0;
    return bare ? thaw_strdup(d->paths[i]) : thaw_path_join(d->root, d->paths[i]);
}

static int class_index(const outputs *o, int64_t i) {
    const float *y = o->y + i * o->units;
    return o->units == 1 ? (double)y[0] > o->threshold : (int)thaw_argmax(y, o->units);
}

static void put_csv_field(thaw_buffer *out, const char *text) {
    bool quote = strpbrk(text, ",\"\r\n") != NULL;
    if (quote)
        thaw_buffer_put(out, "\"", 1);
    for (const char *c = text; *c; c++)
        thaw_buffer_put(out, quote && *c == '"' ? "\"\"" : c, quote && *c == '"' ? 2 : 1);
    if (quote)
        thaw_buffer_put(out, "\"", 1);
}

static void write_csv(thaw_buffer *out, const outputs *o) {
    thaw_buffer_printf(out, o->dataset->arrays ? "row" : "file");
    for (int64_t u = 0; u < o->units; u++) {
        thaw_buffer_put(out, ",", 1);
        if (o->classes) /* one unit: the output of the second class */
            put_csv_field(out, o->notes->class_names[o->units == 1 ? 1 : u]);
        else
            thaw_buffer_printf(out, "y%lld", (long long)u);
    }
    for (int64_t i = 0; i < o->n && !out->failed; i++) {
        char *name = sample_name(o, i);
        thaw_buffer_put(out, "\n", 1);
        if (name)
            put_csv_field(out, name);
        out->failed = out->failed || !name;
        for (int64_t u = 0; u < o->units; u++)
            thaw_buffer_printf(out, ",%.9g", (double)o->y[i * o->units + u]);
        thaw_free(name);
    }
    thaw_buffer_put(out, "\n", 1);
}

static void write_jsonl(thaw_buffer *out, const outputs *o) {
    for (int64_t i = 0; i < o->n && !out->failed; i++) {
        char *name = sample_name(o, i);
        out->failed = out->failed || !name;
        if (!name)
            return;
        thaw_buffer_printf(out, "{\"%s\":", o->dataset->arrays ? "row" : "file");
        if (o->dataset->arrays)
            thaw_buffer_printf(out, "%s", name);
        else
            thaw_buffer_json(out, name);
        for (int64_t u = 0; u < o->units; u++) {
            double y = (double)o->y[i * o->units + u];
            thaw_buffer_printf(out, "%s", u ? "," : ",\"y\":[");
            if (isfinite(y))
                thaw_buffer_printf(out, "%.9g", y);
            else
                thaw_buffer_printf(out, "null");
        }
        thaw_buffer_put(out, "]", 1);
        if (o->classes) {
            int index = class_index(o, i);
            thaw_buffer_printf(out, ",\"index\":%d,\"class\":", index);
            thaw_buffer_json(out, o->notes->class_names[index]);
        }
        thaw_buffer_put(out, "}\n", 2);
        thaw_free(name);
    }
}

static thaw_status write_hdf5(void **bytes, size_t *size, const outputs *o) {
    char **names = thaw_calloc((size_t)o->n, sizeof *names);
    thaw_status status = names ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for the names of %lld samples", (long long)o->n);
    for (int64_t i = 0; i < o->n && status == THAW_OK; i++) {
        names[i] = sample_name(o, i);
        if (!names[i])
            status = thaw_fail(THAW_RESOURCE, "no memory for the names of %lld samples", (long long)o->n);
    }
    if (status == THAW_OK)
        status = thaw_predictions_image(bytes, size, o->y, o->n, o->units, (const char *const *)names);
    for (int64_t i = 0; names && i < o->n; i++)
        thaw_free(names[i]);
    thaw_free(names);
    return status;
}

static thaw_status write_output(const outputs *o, const char *output, output_format format) {
    thaw_buffer text = {0};
    void *image = NULL;
    size_t size = 0;
    thaw_status status = THAW_OK;
    char *folder = thaw_path_dirname(output);
    if (format == FORMAT_HDF5)
        THAW_GOTO(write_hdf5(&image, &size, o));
    else if (format == FORMAT_CSV)
        write_csv(&text, o);
    else
        write_jsonl(&text, o);
    if (text.failed || !folder)
        THAW_GOTO(thaw_fail(THAW_RESOURCE, "no memory for the text of %s", output));
    THAW_GOTO(thaw_io_mkdirs(folder));
    status = image ? thaw_io_write_atomic(output, image, size) : thaw_io_write_atomic(output, text.data, text.size);
out:
    thaw_buffer_free(&text);
    thaw_free(image);
    thaw_free(folder);
    return status;
}

/* Outputs of this rank's share: y (inference->n, units). Not collective. */
static thaw_status run_share(float *y, thaw_inference *inference, const thaw_objective *objective, bool logits) {
    for (int64_t b = 0; b < inference->n_batches; b++) {
        thaw_batch batch;
        const float *z;
        THAW_TRY(thaw_inference_next(inference, &batch, &z));
        if (logits)
            memcpy(y, z, (size_t)(batch.n * objective->units) * sizeof *y);
        else
            thaw_objective_output(objective, batch.n, z, y);
        y += batch.n * objective->units;
    }
    return THAW_OK;
}

thaw_status thaw_predict(thaw_comm *comm, thaw_model *model, const char *const *inputs, int n_inputs, const char *output,
                         const char *preprocess, bool logits, int64_t batch_size) {
    thaw_objective objective = {.final = thaw_model_final(model),
                                .units = thaw_shape_count(&model->nodes[model->output].shape), .y_width = 1};
    thaw_inference inference = {0};
    thaw_dataset *dataset = NULL;
    thaw_preprocess mode = THAW_PREPROCESS_NONE;
    output_format format = FORMAT_CSV;
    float *mine = NULL;
    void *all = NULL;
    size_t *sizes = NULL, count = 0;
    thaw_status status = find_format(&format, output);
    if (status == THAW_OK && thaw_comm_rank(comm) == 0)
        status = check_place(output);
    if (status == THAW_OK && thaw_comm_rank(comm) == 0)
        status = open_inputs(&dataset, inputs, n_inputs);
    THAW_TRY(thaw_samples_share(&dataset, comm, status));
    status = thaw_samples_fit(dataset, model);
    if (status == THAW_OK)
        status = thaw_preprocess_choose(&mode, preprocess, model, dataset->arrays);
    THAW_GOTO(thaw_comm_agree(comm, status));
    THAW_GOTO(thaw_inference_open(&inference, comm, model, dataset, mode, batch_size));
    if (thaw_mul_overflow((size_t)inference.n, (size_t)objective.units, &count) ||
        !(mine = thaw_calloc(count, sizeof *mine)))
        status = thaw_fail(THAW_RESOURCE, "no memory for %lld outputs of %lld samples", (long long)objective.units,
                           (long long)inference.n);
    if (status == THAW_OK)
        status = run_share(mine, &inference, &objective, logits);
    THAW_GOTO(thaw_comm_agree(comm, status));
    THAW_GOTO(thaw_comm_gather_buffers(comm, mine, count * sizeof *mine, &all, &sizes));
    if (thaw_comm_rank(comm) == 0) {
        const thaw_model_notes *notes = &model->notes;
        outputs o = {.dataset = dataset, .notes = notes, .y = all, .n = dataset->n, .units = objective.units};
        o.classes = notes->class_names && (notes->n_classes == o.units || (o.units == 1 && notes->n_classes == 2));
        if (o.units == 1 && notes->n_classes == 1)
            o.classes = false;
        o.threshold = logits && objective.final == THAW_ACTIVATION_SIGMOID ? 0.0 : 0.5;
        status = write_output(&o, output, format);
    }
    status = thaw_comm_agree(comm, status);
out:
    thaw_inference_close(&inference);
    thaw_dataset_free(dataset);
    thaw_free(mine);
    thaw_free(all);
    thaw_free(sizes);
    return status;
}
