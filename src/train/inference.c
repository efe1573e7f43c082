#include "train/inference.h"

#include "base/memory.h"
#include "thaw/train.h"
#include "train/estimate.h"
#include "train/run.h"

static thaw_status set_up(thaw_inference *inference, thaw_comm *comm, thaw_model *model, const thaw_dataset *dataset,
                          thaw_preprocess preprocess, int64_t batch_size) {
    int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    const thaw_shape *in = &model->nodes[model->input].shape;
    int64_t batch = (batch_size + ranks - 1) / ranks, first = thaw_share(dataset->n, rank, ranks);
    inference->n = thaw_share(dataset->n, rank + 1, ranks) - first;
    inference->n_batches = (inference->n + batch - 1) / batch;
    inference->samples = thaw_calloc((size_t)inference->n, sizeof *inference->samples);
    inference->starts = thaw_calloc((size_t)inference->n_batches + 1, sizeof *inference->starts);
    if (!inference->samples || !inference->starts)
        return thaw_fail(THAW_RESOURCE, "no memory for the order of %lld samples", (long long)inference->n);
    for (int64_t i = 0; i < inference->n; i++)
        inference->samples[i] = first + i;
    for (int64_t b = 0; b <= inference->n_batches; b++)
        inference->starts[b] = b * batch < inference->n ? b * batch : inference->n;

    thaw_plan_request request = {.model = model, .max_batch = batch};
    THAW_TRY(thaw_plan_compile(&inference->plan, &request));
    THAW_TRY(thaw_memory_fits(inference->plan->memory_bytes, comm, model->name));
    THAW_TRY(thaw_engine_create(&inference->engine, inference->plan, model, NULL, NULL, NULL));
    thaw_loader_options options = {
        .shape = {in->dim[0], in->rank > 1 ? in->dim[1] : 0, in->rank > 2 ? in->dim[2] : 0},
        .preprocess = preprocess,
        .threads = thaw_decoding_threads(0),
        .depth = 2,
        .max_batch = batch,
    };
    THAW_TRY(thaw_loader_create(&inference->loader, dataset, &options));
    return thaw_loader_begin(inference->loader, inference->samples, inference->starts, inference->n_batches, 0);
}

thaw_status thaw_inference_open(thaw_inference *inference, thaw_comm *comm, thaw_model *model, const thaw_dataset *dataset,
                                thaw_preprocess preprocess, int64_t batch_size) {
    *inference = (thaw_inference){0};
    return thaw_comm_agree(comm, set_up(inference, comm, model, dataset, preprocess, batch_size > 0 ? batch_size : 1));
}

void thaw_inference_close(thaw_inference *inference) {
    thaw_loader_free(inference->loader);
    thaw_engine_free(inference->engine);
    thaw_plan_free(inference->plan);
    thaw_free(inference->samples);
    thaw_free(inference->starts);
    *inference = (thaw_inference){0};
}

thaw_status thaw_inference_next(thaw_inference *inference, thaw_batch *batch, const float **z) {
    THAW_TRY(thaw_loader_next(inference->loader, batch));
    thaw_engine_prefix(inference->engine, batch->n, batch->x);
    *z = thaw_engine_infer(inference->engine, batch->n);
    return THAW_OK;
}
