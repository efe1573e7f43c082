#include "plan_probe.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "bench.h"

#define WORK 400e9            /* FLOP of a measured step on two cores or fewer, over all stages: a few images of VGG16 at least,
                               * so that what a step costs once (packing, filters of weight gradients) weighs little */
#define SECONDS_PER_BYTE 2e-10 /* a cached activation on its way into the boundary: read, hashed, written */
enum { REPEAT = 3, MOST_IMAGES = 16, SAMPLES = 8 };

/* Images of a step: as many as the work allows, so that machines with many cores see full ones. */
static int64_t images_of(const thaw_plan *plan, const thaw_job *job) {
    const double cores = thaw_threads() > 2 ? 0.5 * thaw_threads() : 1.0;
    const double flop = (plan->forward_flop + plan->backward_flop) * (double)job->n_stages;
    double images = WORK * cores / (flop > 1.0 ? flop : 1.0);
    images = images < 1.0 ? 1.0 : images > MOST_IMAGES ? MOST_IMAGES : images;
    return (int64_t)images < job->batch_size ? (int64_t)images : job->batch_size;
}

static thaw_status compile(thaw_plan **plan, const thaw_model *model, const bool *trainable, const bool *batch_statistics,
                           int64_t images, int slots) {
    const thaw_plan_request request = {model, trainable, batch_statistics, images, 0, slots, 1};
    return thaw_plan_compile(plan, &request);
}

thaw_status thaw_probe_stage(thaw_probe *out, thaw_app *app, thaw_model *model, const thaw_job *job, int stage,
                             const bool *trainable, const bool *batch_statistics) {
    thaw_job_optimizer optimizer = job->stages[stage].optimizer;
    thaw_bench bench = {.app = app, .repeat = REPEAT, .optimizer = &optimizer};
    thaw_plan *plan = NULL;
    *out = (thaw_probe){0};
    optimizer.learning_rate = 1e-6; /* random weights stay finite */
    THAW_TRY(compile(&plan, model, trainable, batch_statistics, 1, 2));
    bench.batch = images_of(plan, job);
    thaw_plan_free(plan);
    THAW_TRY(compile(&plan, model, trainable, batch_statistics, bench.batch, 2));
    const double left = (double)thaw_memory_left_of("", thaw_comm_local_size(app->comm)).bytes;
    double lacks = left > 0.0 && (double)plan->memory_bytes * thaw_comm_local_size(app->comm) > left;
    thaw_status status = thaw_comm_max(app->comm, &lacks, 1);
    if (status == THAW_OK && lacks == 0.0)
        status = thaw_bench_step(&bench, model, plan);
    if (status == THAW_OK && lacks > 0.0 && app->root)
        thaw_warn("stage %s is not timed: even %lld image%s at a time would not fit into the memory that is left",
                  job->stages[stage].name, (long long)bench.batch, bench.batch == 1 ? "" : "s");
    thaw_plan_free(plan);
    if (status == THAW_OK && lacks == 0.0) {
        const double images = (double)bench.batch;
        const thaw_step_phases *p = &bench.phases;
        *out = (thaw_probe){.images = bench.batch, .prefix = p->prefix / images, .forward = (p->forward + p->loss) / images,
                            .backward = p->backward / images, .update = p->update, .exchange = p->exchange};
        status = thaw_comm_max(app->comm, &out->prefix, 5);
    }
    thaw_bench_free(&bench);
    return status;
}

static double read_some(thaw_loader *loader, int64_t n) {
    int64_t samples[SAMPLES], starts[SAMPLES + 1];
    thaw_batch batch;
    double started = 0.0;
    for (int64_t i = 0; i <= n; i++)
        starts[i] = i;
    for (int64_t i = 0; i < n; i++)
        samples[i] = i;
    if (thaw_loader_begin(loader, samples, starts, n, 0) != THAW_OK)
        return 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (thaw_loader_next(loader, &batch) != THAW_OK)
            return 0.0;
        if (i == 0) /* the first one opens what is to be opened */
            started = thaw_clock();
    }
    return n > 1 ? (thaw_clock() - started) / (double)(n - 1) : 0.0;
}

double thaw_probe_input(const thaw_dataset *dataset, const thaw_model *model, const thaw_job *job) {
    const thaw_shape *in = &model->nodes[model->input].shape;
    const thaw_loader_options options = {.shape = {in->dim[0], in->rank > 1 ? in->dim[1] : 0, in->rank > 2 ? in->dim[2] : 0},
                                         .preprocess = THAW_PREPROCESS_RESCALE,
                                         .seed = job->seed,
                                         .threads = 1,
                                         .depth = 1,
                                         .max_batch = 1};
    thaw_loader *loader = NULL;
    if (thaw_loader_create(&loader, dataset, &options) != THAW_OK)
        return 0.0;
    const double seconds = read_some(loader, dataset->n < SAMPLES ? dataset->n : SAMPLES);
    thaw_loader_free(loader);
    return seconds;
}

/* Compute and reading go on together: reading takes cores from compute if all are in use, and may be slower. */
static double beside_input(double compute, const thaw_probe *probe, const thaw_app *app, const thaw_job *job, int64_t images) {
    const int readers = thaw_decoding_threads(job->threads), threads = thaw_threads();
    const double input = probe->input * (double)images, alone = input / readers;
    const int cores = app->cores / thaw_comm_local_size(app->comm);
    const double shared = compute + (cores >= threads + readers ? 0.0 : input / threads);
    return shared > alone ? shared : alone;
}

double thaw_probe_step(const thaw_probe *probe, const thaw_app *app, const thaw_job *job, int64_t images, uint64_t row_bytes,
                       bool cached) {
    const double n = (double)images, train = n * (probe->forward + probe->backward) + probe->update + probe->exchange;
    if (cached)
        return train + n * (double)row_bytes * SECONDS_PER_BYTE;
    return beside_input(train + n * probe->prefix, probe, app, job, images);
}

double thaw_probe_fill(const thaw_probe *probe, const thaw_app *app, const thaw_job *job, int64_t images) {
    return beside_input((double)images * probe->prefix, probe, app, job, images);
}
