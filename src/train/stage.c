/* One stage: compile its plan, set up engine, blocks and optimizer, and take all that down again. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/run.h"

static void hook_poll(void *payload) {
    thaw_run *run = payload;
    thaw_exchange_poll(run->exchange);
}

static void hook_bucket_ready(void *payload, int bucket) {
    thaw_run *run = payload;
    thaw_status status = thaw_exchange_begin(run->exchange, bucket);
    if (run->exchange_status == THAW_OK)
        run->exchange_status = status;
}

static void hook_reduce_sum(void *payload, double *values, size_t count) {
    thaw_run *run = payload;
    thaw_status status = thaw_comm_sum(run->comm, values, count);
    run->other_bytes += count * sizeof *values;
    if (run->exchange_status == THAW_OK)
        run->exchange_status = status;
}

/* The plan's estimate against this host's memory, before anything is allocated. */
static thaw_status check_memory(const thaw_run *run) {
    double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double wanted = (double)run->plan->memory_bytes * (double)thaw_comm_local_size(run->comm);
    if (wanted > total)
        return thaw_fail(THAW_RESOURCE, "stage %s needs %.2f GiB on each of %d ranks of this host, which has %.2f GiB: use a "
                                        "smaller training.batch_size or spread the ranks over more hosts",
                         run->job->stages[run->at.stage].name, (double)run->plan->memory_bytes / 0x1p30,
                         thaw_comm_local_size(run->comm), total / 0x1p30);
    return THAW_OK;
}

static thaw_status make_segments(thaw_run *run) {
    const thaw_plan *plan = run->plan;
    run->segments = thaw_calloc((size_t)plan->n_tensors, sizeof *run->segments);
    run->segment_names = thaw_calloc((size_t)plan->n_tensors, sizeof *run->segment_names);
    if (!run->segments || !run->segment_names)
        return thaw_fail(THAW_RESOURCE, "no memory for the optimizer");
    run->regularized = false;
    for (int i = 0; i < plan->n_tensors; i++) {
        const thaw_plan_tensor *t = &plan->tensors[i];
        const thaw_layer *layer = &run->model->layers[t->layer];
        const thaw_tensor *tensor = &layer->tensors[t->tensor];
        run->segment_names[i] = thaw_format("%s/%s", layer->name, tensor->name);
        if (!run->segment_names[i])
            return thaw_fail(THAW_RESOURCE, "no memory for the optimizer");
        run->segments[i] = (thaw_segment){t->offset, t->count, tensor->l1, tensor->l2, run->segment_names[i]};
        run->regularized = run->regularized || tensor->l1 > 0.0f || tensor->l2 > 0.0f;
    }
    return THAW_OK;
}

static thaw_status make_loaders(thaw_run *run) {
    const thaw_job *job = run->job;
    const thaw_shape *in = &run->model->nodes[run->model->input].shape;
    int ranks = thaw_comm_size(run->comm);
    int64_t validation_batch = job->validation_batch_size ? job->validation_batch_size : job->batch_size;
    thaw_loader_options options = {
        .shape = {in->dim[0], in->rank > 1 ? in->dim[1] : 0, in->rank > 2 ? in->dim[2] : 0},
        .preprocess = run->preprocess,
        .augment = job->horizontal_flip,
        .horizontal_flip = job->horizontal_flip,
        .seed = job->seed,
        .threads = job->threads > 0 ? (int)job->threads : 1,
        .depth = job->prefetch > 0 ? (int)job->prefetch : 2,
        .max_batch = (job->batch_size + ranks - 1) / ranks,
    };
    THAW_TRY(thaw_loader_create(&run->loader, run->train, &options));
    if (run->validation) {
        options.augment = options.horizontal_flip = false;
        options.max_batch = (validation_batch + ranks - 1) / ranks;
        THAW_TRY(thaw_loader_create(&run->validation_loader, run->validation, &options));
    }
    return THAW_OK;
}

static thaw_status set_up(thaw_run *run) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    THAW_TRY(thaw_stage_flags(run->trainable, run->batch_statistics, run->model, run->job, (int)run->at.stage,
                              run->has_previous ? run->previous : NULL));
    THAW_TRY(thaw_stage_plan(&run->plan, run->model, run->job, (int)run->at.stage, run->trainable, run->batch_statistics,
                             thaw_comm_size(run->comm)));
    THAW_TRY(check_memory(run));
    THAW_TRY(make_segments(run));
    THAW_TRY(thaw_optimizer_create(&run->optimizer, &stage->optimizer, run->plan->count));
    return make_loaders(run);
}

size_t thaw_stage_best_count(const thaw_run *run) {
    size_t count = run->plan->count;
    for (int i = 0; i < run->model->n_layers; i++)
        for (int t = 0; run->batch_statistics[i] && t < run->model->layers[i].n_tensors; t++)
            if (run->model->layers[i].tensors[t].statistic)
                count += run->model->layers[i].tensors[t].count;
    return count;
}

/* Walks the best copy: flat parameters first, then moving statistics in layer order. */
static void copy_best(thaw_run *run, bool save) {
    size_t at = run->plan->count;
    memcpy(save ? run->best : run->parameters, save ? run->parameters : run->best, at * sizeof(float));
    for (int i = 0; i < run->model->n_layers; i++)
        for (int t = 0; run->batch_statistics[i] && t < run->model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &run->model->layers[i].tensors[t];
            if (!tensor->statistic)
                continue;
            memcpy(save ? run->best + at : tensor->data, save ? tensor->data : run->best + at,
                   tensor->count * sizeof(float));
            at += tensor->count;
        }
}

void thaw_stage_best_save(thaw_run *run) {
    copy_best(run, true);
    run->has_best = true;
}

void thaw_stage_best_restore(thaw_run *run) {
    copy_best(run, false);
    thaw_engine_refresh(run->engine);
}

thaw_status thaw_stage_begin(thaw_run *run) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    bool fresh = run->at.epoch == 0 && run->at.step == 0;
    thaw_status status = thaw_comm_agree(run->comm, set_up(run));
    if (status != THAW_OK)
        return status;
    thaw_plan *plan = run->plan;
    THAW_TRY(thaw_comm_same(run->comm, "the plan of the stage", thaw_plan_hash(plan), THAW_REPLICAS));
    run->parameters = thaw_comm_alloc(run->comm, plan->count);
    run->gradients = thaw_comm_alloc(run->comm, plan->count);
    run->hooks = (thaw_hooks){hook_poll, hook_bucket_ready, hook_reduce_sum, run};
    if (!run->parameters || !run->gradients)
        status = thaw_fail(THAW_RESOURCE, "no memory for %zu trained parameters and their gradients", plan->count);
    if (status == THAW_OK)
        status = thaw_engine_create(&run->engine, plan, run->model, &run->hooks, run->parameters, run->gradients);
    if (status == THAW_OK && stage->early_stopping.on && stage->early_stopping.restore_best_weights && !run->best) {
        run->best = thaw_calloc(thaw_stage_best_count(run), sizeof *run->best);
        if (!run->best)
            status = thaw_fail(THAW_RESOURCE, "no memory for a copy of the best weights");
    }
    THAW_TRY(thaw_comm_agree(run->comm, status));
    THAW_TRY(thaw_exchange_create(&run->exchange, run->comm, run->gradients, plan->buckets, plan->n_buckets));
    if (fresh) {
        thaw_decisions_stage(&run->decisions, stage);
        run->stage_phases = (thaw_phases){0};
    }
    if (run->carried.size && (!fresh || stage->optimizer.keep_state))
        THAW_TRY(thaw_comm_agree(run->comm, thaw_optimizer_unpack(run, &run->carried, !fresh)));
    thaw_buffer_free(&run->carried);
    run->exchange_status = THAW_OK;
    run->frozen_hash = thaw_engine_frozen_hash(run->engine);
    run->stage_seconds = run->stage_exchanged = 0.0;
    THAW_TRY(thaw_comm_same(run->comm, "the weights at the start of the stage",
                            run->frozen_hash ^ thaw_engine_trained_hash(run->engine), THAW_REPLICAS));
    return THAW_OK;
}

thaw_status thaw_stage_end(thaw_run *run) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    uint64_t after = thaw_engine_frozen_hash(run->engine);
    thaw_events_verify(run->events, stage->name, run->at.total_epochs, true, run->frozen_hash, after, true);
    thaw_status status = THAW_OK;
    if (after != run->frozen_hash)
        status = thaw_fail(THAW_REPLICAS, "stage %s: frozen tensors or their packed forms changed (hash %016llx, at the start "
                                          "%016llx): a bug in thaw or faulty memory", stage->name,
                           (unsigned long long)after, (unsigned long long)run->frozen_hash);
    THAW_TRY(thaw_comm_agree(run->comm, status));
    thaw_report_stage(run);
    thaw_buffer_free(&run->carried);
    thaw_optimizer_pack(&run->carried, run);
    for (int i = 0; i < run->model->n_layers; i++) {
        run->touched[i] = run->touched[i] || run->trainable[i];
        run->previous[i] = run->trainable[i];
    }
    run->has_previous = true;
    thaw_stage_release(run);
    return THAW_OK;
}

void thaw_stage_release(thaw_run *run) {
    thaw_loader_free(run->loader);
    thaw_loader_free(run->validation_loader);
    thaw_exchange_free(run->exchange);
    thaw_engine_free(run->engine);
    thaw_comm_free(run->comm, run->parameters);
    thaw_comm_free(run->comm, run->gradients);
    thaw_optimizer_free(run->optimizer);
    for (int i = 0; run->segment_names && i < run->plan->n_tensors; i++)
        thaw_free(run->segment_names[i]);
    thaw_free(run->segment_names);
    thaw_free(run->segments);
    thaw_free(run->best);
    thaw_plan_free(run->plan);
    run->loader = run->validation_loader = NULL;
    run->exchange = NULL;
    run->engine = NULL;
    run->parameters = run->gradients = run->best = NULL;
    run->optimizer = NULL;
    run->segment_names = NULL;
    run->segments = NULL;
    run->plan = NULL;
    run->has_best = false;
}
