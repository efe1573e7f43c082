#include "train/inference.h"

#include "base/memory.h"
#include "thaw/train.h"
#include "train/estimate.h"
#include "train/run.h"

static int64_t share_of_batch(const thaw_comm *comm, int64_t batch_size) {
    return (batch_size + thaw_comm_size(comm) - 1) / thaw_comm_size(comm);
}

static thaw_status set_up(thaw_inference *inference, thaw_comm *comm, thaw_model *model, const thaw_dataset *dataset,
                          thaw_preprocess preprocess, int64_t batch_size) {
    int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    const thaw_shape *in = &model->nodes[model->input].shape;
    int64_t batch = share_of_batch(comm, batch_size), first = thaw_share(dataset->n, rank, ranks);
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

    const thaw_plan *plan = inference->plan;
    const size_t others = inference->common ? thaw_held_by_others(plan->memory.constants, inference->constants.mine.parts) : 0;
    THAW_TRY(thaw_memory_fits(plan->memory_bytes - others, comm, model->name));
    const thaw_hooks hooks = {.constants = inference->common ? &inference->constants : NULL};
    THAW_TRY(thaw_engine_create(&inference->engine, plan, model, &hooks, NULL, NULL));
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
    if (batch_size <= 0)
        batch_size = 1;
    const thaw_plan_request request = {.model = model, .max_batch = share_of_batch(comm, batch_size)};
    THAW_TRY(thaw_comm_agree(comm, thaw_plan_compile(&inference->plan, &request)));
    THAW_TRY(thaw_stage_constants(&inference->common, &inference->constants, inference->plan, comm));
    THAW_TRY(thaw_comm_agree(comm, set_up(inference, comm, model, dataset, preprocess, batch_size)));
    thaw_common_seal(inference->common);
    return THAW_OK;
}

void thaw_inference_close(thaw_inference *inference) {
    thaw_loader_free(inference->loader);
    thaw_engine_free(inference->engine);
    thaw_common_free(inference->common);
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
