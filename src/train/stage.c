/* One stage: compile its plan, set up engine, blocks and optimizer, and take all that down again. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/limits.h"
#include "base/progress.h"
#include "train/cache.h"
#include "train/record.h"
#include "train/run.h"

bool thaw_stage_poll(void *payload) {
    thaw_run *run = payload;
    const bool moved = run->exchange && thaw_exchange_poll(run->exchange);
    return thaw_comm_sum_poll(run->comm) || moved;
}

static void hook_poll(void *run) { thaw_stage_poll(run); }

/* out = a + b (count); a NULL: out = b. */
static void add(float *out, const float *a, const float *b, size_t count) {
#pragma omp parallel for simd schedule(static) if (count > 65536)
    for (size_t i = 0; i < count; i++)
        out[i] = a ? a[i] + b[i] : b[i];
}

static void hook_bucket_ready(void *payload, int bucket) {
    thaw_run *run = payload;
    if (run->earlier) {
        const thaw_bucket *b = &run->plan->buckets[bucket];
        float *sum = run->earlier + b->offset, *gradients = run->gradients + b->offset;
        if (run->collecting) {
            add(sum, run->fresh ? NULL : sum, gradients, b->count);
            return;
        }
        add(gradients, run->fresh ? NULL : sum, gradients, b->count);
    }
    thaw_status status = thaw_exchange_begin(run->exchange, bucket);
    if (run->exchange_status == THAW_OK)
        run->exchange_status = status;
}

static void hook_reduce_sum(void *payload, double *values, size_t count) {
    thaw_run *run = payload;
    thaw_status status = thaw_comm_sum(run->comm, values, count);
    run->epoch_tally.other += (int64_t)(count * sizeof *values);
    if (run->exchange_status == THAW_OK)
        run->exchange_status = status;
}

thaw_status thaw_memory_fits(size_t bytes, const thaw_comm *comm, const char *what) {
    double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double wanted = (double)bytes * (double)thaw_comm_local_size(comm);
    if (wanted > total)
        return thaw_fail(THAW_RESOURCE, "%s needs %.2f GiB on each of %d ranks of this host, which has %.2f GiB: use a smaller "
                                        "batch size or spread the ranks over more hosts",
                         what, (double)bytes / 0x1p30, thaw_comm_local_size(comm), total / 0x1p30);
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

thaw_loader_options thaw_stage_loader_options(const thaw_run *run, bool validation) {
    const thaw_job *job = run->job;
    const thaw_shape *in = &run->model->nodes[run->model->input].shape;
    int ranks = thaw_comm_size(run->comm);
    int64_t batch = validation ? thaw_validation_images(job) : thaw_part_images(job);
    return (thaw_loader_options){
        .shape = {in->dim[0], in->rank > 1 ? in->dim[1] : 0, in->rank > 2 ? in->dim[2] : 0},
        .preprocess = run->preprocess,
        .augment = job->horizontal_flip && !validation,
        .horizontal_flip = job->horizontal_flip && !validation,
        .draws = validation ? 0 : (int)job->cache_variants,
        .scaled = job->scaled_decoding,
        .seed = job->seed,
        .threads = thaw_decoding_threads(job->threads),
        .depth = job->prefetch > 0 ? (int)job->prefetch : 2,
        .max_batch = thaw_slices_most(thaw_job_slices(run->job), batch, ranks),
    };
}

int thaw_stage_together(const thaw_run *run) {
    return thaw_cache_on(run->cache) ? 1 : thaw_steps_together(run->plan, run->job, run->train->n, thaw_comm_size(run->comm));
}

static thaw_status make_loader(thaw_loader **loader, const thaw_run *run, bool validation, const thaw_cache *cache) {
    thaw_loader_options options = thaw_stage_loader_options(run, validation);
    options.labels_only = thaw_cache_on(cache);
    const int together = validation ? 1 : thaw_stage_together(run);
    options.max_batch *= together;
    options.depth = (int)thaw_blocks_ahead(options.depth, together);
    options.held = thaw_blocks_held(together);
    thaw_loader_free(*loader);
    *loader = NULL;
    return thaw_loader_create(loader, validation ? run->validation : run->train, &options);
}

thaw_status thaw_stage_make_loaders(thaw_run *run) {
    thaw_status status = make_loader(&run->loader, run, false, run->cache);
    if (status == THAW_OK && run->validation)
        status = make_loader(&run->validation_loader, run, true, run->validation_cache);
    return thaw_comm_agree(run->comm, status);
}

thaw_status thaw_stage_constants(thaw_common **common, thaw_host_block *constants, const thaw_plan *plan, thaw_comm *comm) {
    *common = NULL;
    *constants = (thaw_host_block){NULL, THAW_WHOLE};
    if (thaw_comm_size(comm) == thaw_comm_hosts(comm) || plan->memory.constants == 0)
        return THAW_OK;
    THAW_TRY(thaw_common_create(common, comm, plan->memory.constants, "copy of what is frozen"));
    *constants = thaw_host_block_of(*common);
    if (constants->mine.parts > 1)
        return THAW_OK;
    thaw_common_free(*common); /* the engine has its own */
    *common = NULL;
    return THAW_OK;
}

/* The ranks of a host have what is frozen and what is trained in common, or neither: *common. */
static thaw_status share_with_host(thaw_run *run, bool *common) {
    THAW_TRY(thaw_stage_constants(&run->common, &run->constants, run->plan, run->comm));
    double share = run->common || run->plan->memory.constants == 0; /* not on a host with one rank, which goes along */
    THAW_TRY(thaw_comm_max(run->comm, &share, 1));
    THAW_TRY(thaw_update_create(&run->update, run->plan, run->comm, share > 0.0));
    if (!run->update.common && run->plan->memory.updated > 0) {
        thaw_common_free(run->common);
        run->common = NULL;
    }
    *common = (run->common || run->plan->memory.constants == 0) && (run->update.common || run->plan->memory.updated == 0);
    return THAW_OK;
}

uint64_t thaw_stage_own_peak(const thaw_run *run) {
    const thaw_resident seen = thaw_resident_bytes("");
    if (seen.peak <= run->resident) /* it never falls: of this or an earlier stage, and counted then */
        return run->own_peak;
    /* What the ranks of a host have in common counts by parts, whoever has touched it. */
    const uint64_t common = seen.common > run->program_common ? seen.common - run->program_common : 0;
    uint64_t own = seen.peak - (common < seen.peak ? common : seen.peak);
    if (run->common)
        own += run->plan->memory.constants / (uint64_t)run->constants.mine.parts;
    if (run->update.common)
        own += run->plan->memory.updated / (uint64_t)run->update.mine.parts;
    if (run->exchange && thaw_exchange_sharers(run->exchange) > 1)
        own += run->plan->count * sizeof(float);
    return own > run->own_peak ? own : run->own_peak;
}

thaw_status thaw_stage_measure(thaw_run *run) {
    run->own_peak = thaw_stage_own_peak(run);
    run->resident = thaw_resident_bytes("").peak;
    double peak = (double)run->own_peak;
    THAW_TRY(thaw_comm_max(run->comm, &peak, 1));
    run->peak = (uint64_t)peak;
    return THAW_OK;
}

/* Order and shares of a pass, for the larger dataset: an epoch allocates nothing. */
static thaw_status make_order(thaw_run *run) {
    const thaw_job *job = run->job;
    int64_t size = thaw_validation_images(job);
    int64_t n = run->train->n, batches = thaw_batches(n, job->batch_size) * job->accumulate;
    if (run->validation && run->validation->n > n)
        n = run->validation->n;
    if (run->validation && thaw_batches(run->validation->n, size) > batches)
        batches = thaw_batches(run->validation->n, size);
    run->order = thaw_calloc((size_t)n, sizeof *run->order);
    run->mine = thaw_calloc((size_t)n, sizeof *run->mine);
    run->starts = thaw_calloc((size_t)batches + 1, sizeof *run->starts);
    run->blocks = thaw_calloc((size_t)batches + 1, sizeof *run->blocks);
    return run->order && run->mine && run->starts && run->blocks
               ? THAW_OK
               : thaw_fail(THAW_RESOURCE, "no memory for the order of samples");
}

static thaw_status set_up(thaw_run *run) {
    THAW_TRY(thaw_stage_flags(run->trainable, run->batch_statistics, run->model, run->job, (int)run->at.stage,
                              run->has_previous ? run->previous : NULL));
    THAW_TRY(thaw_stage_plan(&run->plan, run->model, run->job, (int)run->at.stage, run->trainable, run->batch_statistics,
                             thaw_comm_size(run->comm), !run->apart));
    THAW_TRY(thaw_cut_create(&run->cut, run->job, thaw_comm_rank(run->comm), thaw_comm_size(run->comm), THAW_CONTROL_WORDS));
    THAW_TRY(make_segments(run));
    THAW_TRY(make_order(run));
    return THAW_OK;
}

thaw_status thaw_stage_finite(const thaw_run *run) {
    if (thaw_all_finite(run->update.parameters, run->plan->count))
        return THAW_OK;
    return thaw_fail(THAW_DIVERGED, "stage %s epoch %lld step %lld: a weight is not finite; the last good checkpoint is kept; "
                                    "use a lower learning_rate or clipnorm",
                     run->job->stages[run->at.stage].name, (long long)run->at.epoch + 1, (long long)run->at.step);
}

size_t thaw_stage_best_count(const thaw_run *run) { return thaw_best_floats(run->plan); }

/* Walks the best copy: flat parameters first, then moving statistics in layer order. */
static void copy_best(thaw_run *run, bool save) {
    size_t at = run->plan->count;
    memcpy(save ? run->best : run->update.parameters, save ? run->update.parameters : run->best, at * sizeof(float));
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
    thaw_update_begin(&run->update);
    copy_best(run, false);
    thaw_update_end(&run->update, run->engine);
}

/* Memory for the best epoch's weights; a checkpoint may have brought them. */
static thaw_status make_best(thaw_run *run) {
    size_t count = thaw_stage_best_count(run);
    if (run->best)
        return run->best_count == count ? THAW_OK
                                        : thaw_fail(THAW_MISMATCH, "the checkpoint in %s holds other best weights (%zu values, "
                                                                   "%zu are needed); start over with --resume never",
                                                    run->folder, run->best_count, count);
    run->best = thaw_calloc(count, sizeof *run->best);
    run->best_count = count;
    return run->best ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for a copy of the best weights");
}

thaw_status thaw_stage_begin(thaw_run *run) {
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    bool fresh = run->at.epoch == 0 && run->at.step == 0;
    thaw_status status = thaw_comm_agree(run->comm, set_up(run));
    if (status != THAW_OK)
        return status;
    thaw_plan *plan = run->plan;
    int sharers;
    THAW_TRY(thaw_comm_same(run->comm, "the plan of the stage", thaw_plan_hash(plan), THAW_REPLICAS));
    THAW_TRY(thaw_stage_sharers(&sharers, run->comm));
    bool common;
    THAW_TRY(share_with_host(run, &common));
    run->memory = thaw_stage_memory_of(plan, run->job, (int)run->at.stage, thaw_comm_size(run->comm), common ? sharers : 1,
                                       &run->samples, run->program);
    if (sharers > 1 && !common) /* no room in common: more than was looked for at the start */
        THAW_TRY(thaw_comm_agree(run->comm, thaw_memory_fits(run->memory.total, run->comm, stage->name)));
    run->gradients = thaw_job_exchange(run->job) == THAW_EXCHANGE_AUTO ? thaw_comm_alloc_common(run->comm, plan->count)
                                                                       : thaw_comm_alloc(run->comm, plan->count);
    if (run->job->accumulate > 1 && !(run->earlier = thaw_calloc(plan->count, sizeof *run->earlier)))
        status = thaw_fail(THAW_RESOURCE, "no memory for the gradients of earlier parts of a batch");
    run->hooks = (thaw_hooks){hook_poll, hook_bucket_ready, hook_reduce_sum, run,
                              plan->slices > 1 ? &run->cut.slices : NULL, run->common ? &run->constants : NULL,
                              run->update.common ? &run->update.packs : NULL};
    if (!run->gradients)
        status = thaw_fail(THAW_RESOURCE, "no memory for the gradients of %zu parameters", plan->count);
    if (status == THAW_OK)
        status = thaw_optimizer_create(&run->optimizer, &stage->optimizer, plan->count, run->update.slots);
    if (status == THAW_OK)
        status = thaw_engine_create(&run->engine, plan, run->model, &run->hooks, run->update.parameters, run->gradients);
    if (status == THAW_OK && stage->early_stopping.on && stage->early_stopping.restore_best_weights)
        status = make_best(run);
    THAW_TRY(thaw_comm_agree(run->comm, status));
    thaw_common_seal(run->common);
    THAW_TRY(thaw_cache_begin(run));
    THAW_TRY(thaw_stage_make_loaders(run));
    THAW_TRY(thaw_exchange_create(&run->exchange, run->comm, run->gradients, plan->buckets, plan->n_buckets,
                                  thaw_job_exchange(run->job)));
    THAW_TRY(thaw_update_divide(&run->update, run->exchange, run->optimizer, run->segments, plan->n_tensors));
    if (thaw_comm_size(run->comm) > 1)
        thaw_progress_set(thaw_stage_poll, run); /* inside of kernels, and while batches are waited for */
    if (fresh) {
        thaw_decisions_stage(&run->decisions);
        run->stage_tally = (thaw_tally){0};
    }
    if (run->carried.size && (!fresh || stage->optimizer.keep_state))
        THAW_TRY(thaw_comm_agree(run->comm, thaw_optimizer_unpack(run, &run->carried, !fresh)));
    thaw_buffer_free(&run->carried);
    run->exchange_status = THAW_OK;
    run->frozen_hash = thaw_engine_frozen_hash(run->engine);
    THAW_TRY(thaw_comm_same(run->comm, "the weights at the start of the stage",
                            run->frozen_hash ^ thaw_engine_trained_hash(run->engine), THAW_REPLICAS));
    return THAW_OK;
}

thaw_status thaw_stage_verify(thaw_run *run, bool stage_end) {
    const char *stage = run->job->stages[run->at.stage].name;
    uint64_t after = thaw_engine_frozen_hash(run->engine), before = run->frozen_hash;
    thaw_status same = thaw_comm_same(run->comm, "the weights after an epoch", thaw_engine_trained_hash(run->engine),
                                      THAW_REPLICAS);
    int64_t epoch = stage_end ? run->at.total_epochs - 1 : run->at.total_epochs; /* the one that is done */
    thaw_status status = thaw_events_verify(run->events, stage, epoch, stage_end, before, after, same == THAW_OK);
    if (same != THAW_OK)
        return same;
    if (status == THAW_OK && after != before)
        status = thaw_fail(THAW_REPLICAS, "stage %s: frozen tensors or their packed forms changed (hash %016llx, at the start "
                                          "%016llx): a bug in thaw or faulty memory", stage, (unsigned long long)after,
                           (unsigned long long)before);
    return thaw_comm_agree(run->comm, status);
}

/* Optimizer state for the stage behind this one, if it wants it. */
static thaw_status carry(thaw_run *run) {
    thaw_buffer_free(&run->carried);
    if (run->at.stage + 1 >= run->job->n_stages || !run->job->stages[run->at.stage + 1].optimizer.keep_state)
        return THAW_OK;
    run->epoch_tally.other += thaw_update_gather(&run->update, run->exchange);
    thaw_optimizer_pack(&run->carried, run);
    return run->carried.failed ? thaw_fail(THAW_RESOURCE, "no memory to keep the optimizer's state") : THAW_OK;
}

thaw_status thaw_stage_end(thaw_run *run) {
    THAW_TRY(thaw_stage_verify(run, true));
    THAW_TRY(thaw_stage_measure(run));
    THAW_TRY(thaw_comm_agree(run->comm, thaw_record_memory(run)));
    thaw_report_stage(run);
    THAW_TRY(thaw_comm_agree(run->comm, carry(run)));
    memcpy(run->previous, run->trainable, (size_t)run->model->n_layers * sizeof(bool));
    run->has_previous = true;
    thaw_stage_release(run);
    return THAW_OK;
}

void thaw_stage_release(thaw_run *run) {
    thaw_loader_free(run->loader);
    thaw_loader_free(run->validation_loader);
    thaw_progress_set(NULL, NULL);
    thaw_exchange_free(run->exchange);
    thaw_engine_free(run->engine);
    thaw_common_free(run->common);
    thaw_comm_free(run->comm, run->gradients);
    thaw_free(run->earlier);
    thaw_cut_free(&run->cut);
    thaw_optimizer_free(run->optimizer);
    thaw_update_free(&run->update);
    for (int i = 0; run->segment_names && i < run->plan->n_tensors; i++)
        thaw_free(run->segment_names[i]);
    thaw_free(run->segment_names);
    thaw_free(run->segments);
    thaw_free(run->best);
    thaw_free(run->order);
    thaw_free(run->mine);
    thaw_free(run->starts);
    thaw_free(run->blocks);
    thaw_plan_free(run->plan);
    run->loader = run->validation_loader = NULL;
    run->exchange = NULL;
    run->engine = NULL;
    run->common = NULL;
    run->gradients = run->earlier = run->best = NULL;
    run->optimizer = NULL;
    run->segment_names = NULL;
    run->segments = NULL;
    run->order = run->mine = run->starts = run->blocks = NULL;
    run->plan = NULL;
    run->best_count = 0;
    run->has_best = false;
}
