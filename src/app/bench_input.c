/* The input alone: index, decode, resize and preprocess through the loader that training uses. */
#include "base/clock.h"
#include "base/memory.h"
#include "bench.h"
#include "thaw/train.h"
#include "train/run.h"
#include "train/samples.h"

/* A pass takes at most this many batches of a rank, drawn over all classes: more says nothing more. */
enum { MOST_BATCHES = 64 };

/* This rank's part of a pass. */
typedef struct part {
    int64_t n, n_batches;
    int64_t *samples, *starts; /* (n), (n_batches+1) */
} part;

static thaw_status open_data(thaw_dataset **dataset, const char *data) {
    return thaw_samples_are_arrays(data) ? thaw_dataset_open_arrays(dataset, data, NULL)
                                         : thaw_dataset_scan_inputs(dataset, &data, 1);
}

/* Samples in the order of a first epoch, a contiguous share for each rank, cut into batches. */
static thaw_status make_part(part *mine, thaw_bench_input *out, const thaw_comm *comm, const thaw_dataset *dataset) {
    const int ranks = thaw_comm_size(comm), rank = thaw_comm_rank(comm);
    const int64_t most = MOST_BATCHES * out->batch * ranks;
    out->samples = dataset->n;
    out->images = dataset->n < most ? dataset->n : most;
    const int64_t first = thaw_share(out->images, rank, ranks);
    mine->n = thaw_share(out->images, rank + 1, ranks) - first;
    mine->n_batches = (mine->n + out->batch - 1) / out->batch;
    int64_t *order = thaw_calloc((size_t)dataset->n, sizeof *order);
    mine->samples = thaw_calloc((size_t)mine->n, sizeof *mine->samples);
    mine->starts = thaw_calloc((size_t)mine->n_batches + 1, sizeof *mine->starts);
    if (!order || !mine->samples || !mine->starts) {
        thaw_free(order);
        return thaw_fail(THAW_RESOURCE, "no memory for the order of %lld samples", (long long)dataset->n);
    }
    thaw_epoch_order(order, dataset->n, 0, 0, true);
    for (int64_t i = 0; i < mine->n; i++)
        mine->samples[i] = order[first + i];
    for (int64_t b = 0; b <= mine->n_batches; b++)
        mine->starts[b] = b * out->batch < mine->n ? b * out->batch : mine->n;
    thaw_free(order);
    return THAW_OK;
}

static thaw_status one_pass(thaw_loader *loader, const part *mine) {
    thaw_batch batch;
    THAW_TRY(thaw_loader_begin(loader, mine->samples, mine->starts, mine->n_batches, 0));
    for (int64_t b = 0; b < mine->n_batches; b++)
        THAW_TRY(thaw_loader_next(loader, &batch));
    return THAW_OK;
}

thaw_status thaw_bench_read(thaw_bench_input *out, const thaw_bench *bench, const thaw_model *model, const char *data,
                            const char *preprocess, int threads) {
    thaw_comm *comm = bench->app->comm;
    const thaw_shape *in = &model->nodes[model->input].shape;
    thaw_dataset *dataset = NULL;
    thaw_loader *loader = NULL;
    part mine = {0};
    double *seconds = NULL;
    thaw_status status = bench->app->root ? open_data(&dataset, data) : THAW_OK;
    *out = (thaw_bench_input){.batch = bench->batch, .threads = thaw_decoding_threads(threads)};
    THAW_TRY(thaw_samples_share(&dataset, comm, status));
    out->arrays = dataset->arrays;
    status = thaw_samples_fit(dataset, model);
    if (status == THAW_OK)
        status = thaw_preprocess_choose(&out->preprocess, preprocess, model, dataset->arrays);
    if (status == THAW_OK)
        status = make_part(&mine, out, comm, dataset);
    const thaw_loader_options options = {
        .shape = {in->dim[0], in->rank > 1 ? in->dim[1] : 0, in->rank > 2 ? in->dim[2] : 0},
        .preprocess = out->preprocess,
        .threads = out->threads,
        .depth = 2,
        .max_batch = out->batch,
    };
    if (status == THAW_OK)
        status = thaw_loader_create(&loader, dataset, &options);
    if (status == THAW_OK && !(seconds = thaw_calloc((size_t)bench->repeat, sizeof *seconds)))
        status = thaw_fail(THAW_RESOURCE, "not enough memory for the measurement");
    THAW_GOTO(thaw_comm_agree(comm, status));
    for (int64_t run = -1; run < bench->repeat; run++) { /* the first brings the files into memory and is not counted */
        thaw_comm_barrier(comm);
        const double began = thaw_clock();
        status = one_pass(loader, &mine);
        if (run >= 0)
            seconds[run] = thaw_clock() - began;
        THAW_GOTO(thaw_comm_agree(comm, status));
    }
    THAW_GOTO(thaw_comm_max(comm, seconds, (size_t)bench->repeat));
    out->pass = thaw_timing_of(seconds, bench->repeat);
out:
    thaw_loader_free(loader);
    thaw_dataset_free(dataset);
    thaw_free(mine.samples);
    thaw_free(mine.starts);
    thaw_free(seconds);
    return status;
}
