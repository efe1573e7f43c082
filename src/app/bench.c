#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/random.h"
#include "graph/engine.h"
#include "graph/tape.h"
#include "train/loss.h"
#include "train/update.h"

/* Momentum and a small rate: the arithmetic of a real update, on weights that stay finite. */
static const thaw_job_optimizer sgd = {.kind = THAW_SGD, .learning_rate = 1e-6, .momentum = 0.9};

/* Seconds of operations: the engine calls poll behind each one. A prefix that runs in pieces comes by several times. */
typedef struct recorder {
    thaw_exchange *exchange;
    thaw_comm *comm;
    thaw_status status; /* first failure of a hook */
    double *seconds;    /* of the operations of a phase */
    int n, room;        /* calls of a phase; operations */
    double last;
    bool whole; /* every operation of every phase was seen */
} recorder;

/* Inside of operations. */
static bool progress(void *payload) {
    recorder *r = payload;
    const bool moved = thaw_exchange_poll(r->exchange);
    return thaw_comm_sum_poll(r->comm) || moved;
}

static void hook_poll(void *payload) {
    recorder *r = payload;
    const double now = thaw_clock();
    if (r->room > 0)
        r->seconds[r->n % r->room] += now - r->last;
    r->n++;
    r->last = now;
    if (r->exchange)
        progress(r);
}

/* The phase of `room` operations begins; the one before has ended. */
static double begin_phase(recorder *r, double *seconds, int room) {
    r->whole = r->whole && (r->room > 0 ? r->n > 0 && r->n % r->room == 0 : r->n == 0);
    r->seconds = seconds;
    r->room = room;
    r->n = 0;
    for (int i = 0; i < room; i++)
        seconds[i] = 0.0;
    return r->last = thaw_clock();
}

static void hook_bucket_ready(void *payload, int bucket) {
    recorder *r = payload;
    thaw_status status = thaw_exchange_begin(r->exchange, bucket);
    r->status = r->status == THAW_OK ? status : r->status;
}

static void hook_reduce_sum(void *payload, double *values, size_t count) {
    recorder *r = payload;
    thaw_status status = thaw_comm_sum(r->comm, values, count);
    r->status = r->status == THAW_OK ? status : r->status;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts `values`. */
static double median(double *values, int64_t n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

thaw_timing thaw_timing_of(double *seconds, int64_t n) {
    const double middle = median(seconds, n);
    return (thaw_timing){middle, seconds[0], seconds[n - 1]};
}

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "not enough memory for the measurement"); }

thaw_status thaw_bench_fits(const thaw_app *app, const thaw_plan *plan) {
    const double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    const int ranks = thaw_comm_local_size(app->comm);
    if ((double)plan->memory_bytes * ranks > total)
        return thaw_fail(THAW_RESOURCE, "%s with --batch %lld needs %.2f GiB on each of %d rank%s of this host, which has "
                                        "%.2f GiB: use a smaller --batch", plan->model->name, (long long)plan->max_batch,
                         (double)plan->memory_bytes / 0x1p30, ranks, ranks == 1 ? "" : "s", total / 0x1p30);
    return THAW_OK;
}

float *thaw_bench_values(int64_t count, int stream) {
    float *values = thaw_calloc((size_t)count, sizeof *values);
    for (int64_t i = 0; values && i < count; i += 4) {
        const thaw_draw draw = thaw_philox((uint64_t)stream, THAW_DRAW_AUGMENT, 0, (uint64_t)i / 4, 0);
        for (int64_t k = i; k < i + 4 && k < count; k++)
            values[k] = 2.0f * thaw_uniform(draw.word[k - i]) - 1.0f;
    }
    return values;
}

static bool make_layers(double **seconds, const thaw_model *model) {
    thaw_free(*seconds);
    *seconds = thaw_calloc((size_t)model->n_layers, sizeof **seconds);
    return *seconds != NULL;
}

static double value_bytes(const thaw_tape *tape, int value, int64_t images) {
    return (double)sizeof(float) * (double)(tape->values[value].count * images);
}

/* Costs of the layers that have none yet, from the operations of a tape; what a training tape computes backward. */
static void add_costs(thaw_bench *bench, const thaw_model *model, const thaw_tape *tape) {
    for (int i = 0; tape && i < tape->n_ops; i++) {
        const thaw_op *op = &tape->ops[i];
        const thaw_layer *layer = &model->layers[op->layer];
        thaw_layer_cost *cost = &bench->costs[op->layer];
        cost->wants[THAW_BACKWARD_DATA] = tape->training && op->wants_dx;
        cost->wants[THAW_BACKWARD_WEIGHTS] = tape->training && op->wants_dw;
        if (cost->settled)
            continue;
        for (int k = 0; k < op->n_in; k++)
            cost->bytes += value_bytes(tape, op->in[k], bench->batch);
        cost->bytes += value_bytes(tape, op->out, bench->batch);
        for (int t = 0; op->pack < 0 && t < layer->n_tensors; t++)
            cost->bytes += (double)(layer->tensors[t].count * sizeof(float));
        if (op->pack >= 0)
            cost->bytes += (double)(tape->packs[op->pack].count * sizeof(float));
        for (int d = 0; d < 3; d++)
            if (op->kind == THAW_OP_CONV)
                cost->algorithm[d] = thaw_conv_algorithm(&op->window, (thaw_direction)d);
            else if (op->kind == THAW_OP_DENSE)
                cost->algorithm[d] = thaw_dense_algorithm((thaw_direction)d);
    }
    for (int i = 0; i < bench->n_costs; i++)
        bench->costs[i].settled = bench->costs[i].bytes > 0.0;
}

static bool grow_costs(thaw_bench *bench, const thaw_model *model) {
    thaw_layer_cost *costs = thaw_realloc(bench->costs, (size_t)model->n_layers * sizeof *costs);
    if (costs) {
        bench->costs = costs;
        bench->n_costs = model->n_layers;
    }
    return costs != NULL;
}

/* Adds to each layer the median over repetitions of its operations' seconds. all (repeat, n): seconds of all runs; those of
 * this piece begin at `first`. */
static void add_layers(double *layers, const double *all, int64_t repeat, int n, int first, const thaw_tape *tape,
                       bool backward, double *room) {
    const int count = tape ? tape->n_ops : 0;
    int at = first;
    for (int i = 0; i < count; i++) {
        const thaw_op *op = &tape->ops[backward ? count - 1 - i : i];
        if (backward && !op->wants_dw && !op->wants_dx)
            continue;
        for (int64_t r = 0; r < repeat; r++)
            room[r] = all[r * n + at];
        layers[op->layer] += median(room, repeat);
        at++;
    }
}

thaw_status thaw_bench_forward(thaw_bench *bench, thaw_model *model) {
    thaw_comm *comm = bench->app->comm;
    const thaw_plan_request request = {.model = model, .max_batch = bench->batch};
    const int64_t repeat = bench->repeat;
    thaw_plan *plan = NULL;
    thaw_engine *engine = NULL;
    float *x = NULL;
    double *all = NULL, *seconds = NULL, *room = NULL;
    recorder record = {.comm = comm, .whole = true};
    thaw_hooks hooks = {.poll = hook_poll, .payload = &record};
    thaw_status status = thaw_plan_compile(&plan, &request);
    if (status == THAW_OK)
        status = thaw_bench_fits(bench->app, plan);
    if (status == THAW_OK)
        status = thaw_engine_create(&engine, plan, model, &hooks, NULL, NULL);
    const int n = plan ? plan->tape_prefix->n_ops : 0;
    if (status == THAW_OK) {
        x = thaw_bench_values(bench->batch * thaw_shape_count(&model->nodes[model->input].shape), thaw_comm_rank(comm));
        all = thaw_calloc((size_t)repeat * (size_t)n + 1, sizeof *all);
        seconds = thaw_calloc((size_t)repeat, sizeof *seconds);
        room = thaw_calloc((size_t)repeat, sizeof *room);
        if (!x || !all || !seconds || !room || !make_layers(&bench->layer_forward, model) || !grow_costs(bench, model))
            status = no_memory();
    }
    THAW_GOTO(thaw_comm_agree(comm, status));
    add_costs(bench, model, plan->tape_prefix);
    for (int64_t run = -1; run < repeat; run++) { /* the first touches all memory and is not counted */
        const int64_t at = run < 0 ? 0 : run;
        thaw_comm_barrier(comm);
        const double started = begin_phase(&record, all + at * n, n);
        thaw_engine_prefix(engine, bench->batch, x);
        thaw_engine_infer(engine, bench->batch);
        seconds[at] = begin_phase(&record, NULL, 0) - started;
    }
    bench->has_layers = record.whole;
    if (bench->has_layers)
        add_layers(bench->layer_forward, all, repeat, n, 0, plan->tape_prefix, false, room);
    THAW_GOTO(thaw_comm_max(comm, seconds, (size_t)repeat));
    bench->forward = thaw_timing_of(seconds, repeat);
out:
    thaw_engine_free(engine);
    thaw_plan_free(plan);
    thaw_free(x);
    thaw_free(all);
    thaw_free(seconds);
    thaw_free(room);
    return status;
}

/* Everything that steps need, made once. */
typedef struct steps {
    thaw_bench *bench;
    thaw_model *model;
    const thaw_plan *plan;
    recorder record;
    thaw_hooks hooks;
    thaw_engine *engine;
    thaw_exchange *exchange;
    thaw_optimizer *optimizer;
    thaw_segment *segments;
    thaw_objective objective;
    thaw_update update;
    float *gradients, *x, *y;
    int64_t *samples;
    int n_prefix, n_forward, n_backward; /* operations */
    int step;                            /* of plan->together whose prefix is run together, the next one */
    bool begun, ready;                   /* the prefix of the next ones is under way; the boundary holds them */
    double *all, *seconds, *room;        /* (repeat, operations), (repeat), (repeat) */
    double *phases[6];                   /* seconds of each run */
} steps;

/* Labels that fit the network's end: classes for a softmax, 0 or 1 for a sigmoid, values otherwise. */
static void set_labels(steps *s) {
    const int64_t images = s->bench->batch, units = s->plan->outputs;
    thaw_objective *o = &s->objective;
    *o = (thaw_objective){.loss = thaw_loss_default(s->plan->final), .final = s->plan->final, .units = units, .y_width = units};
    if (s->plan->final == THAW_ACTIVATION_SOFTMAX && units > 1)
        o->y_width = 1;
    for (int64_t i = 0; i < images * o->y_width; i++) {
        const float unit = 0.5f * (s->y[i] + 1.0f); /* [0, 1) */
        if (o->loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY && o->y_width == 1)
            s->y[i] = (float)(int64_t)(unit * (float)units);
        else if (o->loss == THAW_LOSS_BINARY_CROSSENTROPY)
            s->y[i] = unit < 0.5f ? 0.0f : 1.0f;
    }
}

static thaw_status make_steps(steps *s) {
    const thaw_plan *plan = s->plan;
    const size_t repeat = (size_t)s->bench->repeat;
    const int rank = thaw_comm_rank(s->bench->app->comm);
    s->n_prefix = plan->tape_prefix->n_ops;
    s->n_forward = plan->tape_train->n_ops;
    for (int i = 0; i < s->n_forward; i++)
        s->n_backward += plan->tape_train->ops[i].wants_dw || plan->tape_train->ops[i].wants_dx;
    s->x = thaw_bench_values(plan->together * s->bench->batch * thaw_shape_count(&s->model->nodes[s->model->input].shape), rank);
    s->y = thaw_bench_values(s->bench->batch * plan->outputs, rank + 1);
    s->samples = thaw_calloc((size_t)s->bench->batch, sizeof *s->samples);
    s->segments = thaw_calloc((size_t)plan->n_tensors, sizeof *s->segments);
    s->all = thaw_calloc(repeat * (size_t)(s->n_prefix + s->n_forward + s->n_backward), sizeof *s->all);
    s->seconds = thaw_calloc(repeat, sizeof *s->seconds);
    s->room = thaw_calloc(repeat, sizeof *s->room);
    bool ok = s->x && s->y && s->samples && s->segments && s->all && s->seconds && s->room;
    for (int i = 0; i < 6; i++)
        ok = (s->phases[i] = thaw_calloc(repeat, sizeof **s->phases)) != NULL && ok;
    if (!ok || !make_layers(&s->bench->layer_step, s->model) || !make_layers(&s->bench->layer_backward, s->model) ||
        !grow_costs(s->bench, s->model))
        return no_memory();
    for (int64_t i = 0; i < s->bench->batch; i++)
        s->samples[i] = i;
    for (int i = 0; i < plan->n_tensors; i++)
        s->segments[i] = (thaw_segment){plan->tensors[i].offset, plan->tensors[i].count, 0.0f, 0.0f, ""};
    set_labels(s);
    return thaw_optimizer_create(&s->optimizer, s->bench->optimizer ? s->bench->optimizer : &sgd, plan->count,
                                 s->update.slots);
}

/* A share of the prefix of the next steps; its seconds are added to *seconds, its operations' are left in `seconds_of`. */
static void run_prefix(steps *s, double share, double *seconds_of, double *seconds) {
    const double began = begin_phase(&s->record, seconds_of, s->n_prefix);
    if (!s->begun)
        thaw_engine_prefix_begin(s->engine, s->plan->together * s->bench->batch, s->x);
    thaw_engine_prefix_run(s->engine, share);
    s->begun = share < 1.0;
    s->ready = !s->begun;
    if (s->ready)
        thaw_engine_prefix_turn(s->engine);
    *seconds += begin_phase(&s->record, NULL, 0) - began;
}

/* One step as training does it, without loader. Its seconds are added to those of run `at`. */
static thaw_status one_step(steps *s, int64_t at) {
    enum { CONTROL_WORDS = 8 }; /* as many as training sums in each step, about */
    thaw_comm *comm = s->bench->app->comm;
    const int64_t images = s->bench->batch;
    const int together = s->plan->together;
    const bool ahead = s->bench->run_ahead;
    const int operations = s->n_prefix + s->n_forward + s->n_backward;
    const double ranks = (double)thaw_comm_size(comm);
    const thaw_draws draws = {0, 0, s->samples};
    double times[7], prefix = 0.0, control[2][CONTROL_WORDS] = {{0}};
    thaw_sums sums = {0};
    double *seconds_of = s->all + at * operations;
    if (!ahead)
        thaw_comm_barrier(comm);
    times[0] = thaw_clock();
    if (s->step == 0 && !s->ready)
        run_prefix(s, 1.0, seconds_of, &prefix);
    s->ready = false;
    times[1] = begin_phase(&s->record, seconds_of + s->n_prefix, s->n_forward);
    const float *z = thaw_engine_forward(s->engine, s->step * images, images, &draws);
    float *dz = thaw_engine_output_gradient(s->engine);
    times[2] = begin_phase(&s->record, NULL, 0);
    thaw_status status = thaw_objective_batch(&s->objective, images, z, s->y, 1.0 / ((double)images * ranks), dz, &sums);
    times[3] = begin_phase(&s->record, seconds_of + s->n_prefix + s->n_forward, s->n_backward);
    thaw_engine_backward(s->engine);
    times[4] = begin_phase(&s->record, NULL, 0);
    if (ahead)
        thaw_comm_sum_begin(comm, control[0], control[1], CONTROL_WORDS);
    s->step = (s->step + 1) % together;
    if (ahead && thaw_exchange_overlaps(s->exchange))
        run_prefix(s, s->step ? (double)s->step / together : 1.0, seconds_of, &prefix);
    times[5] = thaw_clock();
    const thaw_status exchanged = thaw_exchange_finish(s->exchange);
    if (ahead)
        thaw_comm_sum_end(comm);
    times[6] = thaw_clock();
    thaw_update_step(&s->update, s->engine, s->optimizer, s->gradients, s->segments, s->plan->n_tensors);
    const double end = thaw_clock();
    const double met = s->update.waited;
    const double phases[6] = {prefix, times[2] - times[1], times[3] - times[2], times[4] - times[3],
                              times[6] - times[5] + met, end - times[6] - met};
    s->seconds[at] += (end - times[0]) / together;
    for (int i = 0; i < 6; i++)
        s->phases[i][at] += phases[i] / together;
    THAW_TRY(status);
    THAW_TRY(exchanged);
    return s->record.status;
}

static void settle_steps(steps *s) {
    thaw_bench *bench = s->bench;
    const int64_t repeat = bench->repeat;
    const int n = s->n_prefix + s->n_forward + s->n_backward;
    const thaw_tape *train = s->plan->tape_train;
    if (bench->has_layers) {
        add_layers(bench->layer_step, s->all, repeat, n, 0, s->plan->tape_prefix, false, s->room);
        add_layers(bench->layer_step, s->all, repeat, n, s->n_prefix, train, false, s->room);
        add_layers(bench->layer_backward, s->all, repeat, n, s->n_prefix + s->n_forward, train, true, s->room);
    }
    add_costs(bench, s->model, s->plan->tape_prefix);
    add_costs(bench, s->model, train);
    double *phase = &bench->phases.prefix;
    for (int i = 0; i < 6; i++)
        phase[i] = median(s->phases[i], repeat);
    bench->step = thaw_timing_of(s->seconds, repeat);
    const size_t width = bench->exchange == THAW_EXCHANGE_HALF ? sizeof(uint16_t) : sizeof(float);
    const double all = (double)(repeat + 1) * s->plan->together; /* steps, those that are not counted included */
    double summed = 0.0; /* their bytes */
    for (int i = 0; i < s->plan->n_buckets; i++)
        summed += all * (double)(s->plan->buckets[i].count * width);
    bench->handed = (double)thaw_exchange_bytes(s->exchange) / all;
    bench->hidden = (double)thaw_exchange_hidden(s->exchange) / summed;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of steps, of the slowest rank: step by step, or, where ranks run ahead and are not in the same step at one time, the
 * largest of the ranks' shortest, next longer, ... step. */
static thaw_status seconds_of_ranks(steps *s) {
    if (s->bench->run_ahead)
        qsort(s->seconds, (size_t)s->bench->repeat, sizeof *s->seconds, by_value);
    return thaw_comm_max(s->bench->app->comm, s->seconds, (size_t)s->bench->repeat);
}

/* Steps that have one prefix, whose mean counts as run `at`. */
static thaw_status one_run(steps *s, int64_t at) {
    thaw_status status = THAW_OK;
    s->seconds[at] = 0.0;
    for (int i = 0; i < 6; i++)
        s->phases[i][at] = 0.0;
    for (int i = 0; i < s->plan->together; i++) {
        const thaw_status now = one_step(s, at);
        status = status == THAW_OK ? now : status; /* a step of its own does not wait for others to agree either */
    }
    return status;
}

thaw_status thaw_bench_step(thaw_bench *bench, thaw_model *model, const thaw_plan *plan) {
    thaw_comm *comm = bench->app->comm;
    steps s = {.bench = bench, .model = model, .plan = plan, .record = {.comm = comm, .whole = true}};
    THAW_TRY(thaw_update_create(&s.update, plan, comm, true));
    s.hooks = (thaw_hooks){hook_poll, hook_bucket_ready, hook_reduce_sum, &s.record, NULL, NULL,
                           s.update.common ? &s.update.packs : NULL};
    s.gradients = bench->exchange == THAW_EXCHANGE_AUTO ? thaw_comm_alloc_common(comm, plan->count)
                                                        : thaw_comm_alloc(comm, plan->count);
    thaw_status status = s.gradients ? make_steps(&s) : no_memory();
    if (status == THAW_OK)
        status = thaw_engine_create(&s.engine, plan, model, &s.hooks, s.update.parameters, s.gradients);
    THAW_GOTO(thaw_comm_agree(comm, status));
    THAW_GOTO(thaw_exchange_create(&s.exchange, comm, s.gradients, plan->buckets, plan->n_buckets,
                                   bench->exchange));
    THAW_GOTO(thaw_update_divide(&s.update, s.exchange, s.optimizer, s.segments, plan->n_tensors));
    if (thaw_comm_size(comm) > 1)
        thaw_progress_set(progress, &s.record);
    s.record.exchange = s.exchange;
    for (int64_t run = -1; run < bench->repeat; run++) { /* the first touches all memory and is not counted */
        const thaw_status now = one_run(&s, run < 0 ? 0 : run);
        status = status == THAW_OK ? now : status;
    }
    THAW_GOTO(thaw_comm_agree(comm, status));
    bench->has_layers = bench->has_layers && !bench->run_ahead && s.record.whole;
    THAW_GOTO(seconds_of_ranks(&s));
    settle_steps(&s);
out:
    thaw_progress_set(NULL, NULL);
    thaw_exchange_free(s.exchange);
    thaw_engine_free(s.engine);
    thaw_optimizer_free(s.optimizer);
    thaw_update_free(&s.update);
    thaw_comm_free(comm, s.gradients);
    thaw_free(s.segments);
    thaw_free(s.x);
    thaw_free(s.y);
    thaw_free(s.samples);
    thaw_free(s.all);
    thaw_free(s.seconds);
    thaw_free(s.room);
    for (int i = 0; i < 6; i++)
        thaw_free(s.phases[i]);
    return status;
}

thaw_status thaw_bench_peak(thaw_bench *bench) {
    thaw_comm_barrier(bench->app->comm);
    const double mine = thaw_kernels_peak(0.2);
    double all = mine;
    THAW_TRY(thaw_comm_sum(bench->app->comm, &all, 1));
    bench->peak = mine > bench->peak ? mine : bench->peak;
    bench->peak_all = all > bench->peak_all ? all : bench->peak_all;
    return THAW_OK;
}

void thaw_bench_free(thaw_bench *bench) {
    thaw_free(bench->costs);
    bench->costs = NULL;
    thaw_free(bench->layer_forward);
    thaw_free(bench->layer_step);
    thaw_free(bench->layer_backward);
    bench->layer_forward = bench->layer_step = bench->layer_backward = NULL;
}
