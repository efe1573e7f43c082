/* thaw plan JOB.yaml: what each stage will cost, from the same plans that training compiles; no weights, no images. */
#include <string.h>

#include "app.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "network.h"
#include "thaw/train.h"
#include "train/slices.h"

/* What is said of one stage: its plan for the first rank count, memory for each, and the plan were nothing frozen. */
typedef struct stage_cost {
    const thaw_job_stage *stage;
    thaw_plan *plan, *full;
    char *frozen;     /* "frozen 0-14, first trained: 15 block5_conv1" */
    size_t *memory;   /* bytes per rank, for each rank count */
    size_t full_memory; /* were nothing frozen, for the first */
    int64_t *largest; /* images of a batch on one rank, for each rank count */
    thaw_pace pace;           /* with a network */
    thaw_forecast *forecast;  /* for each rank count, likewise */
    double alone;             /* seconds of a step on one rank, likewise */
} stage_cost;

typedef struct cost {
    const thaw_job *job;
    thaw_model *model;
    int n_ranks;
    int64_t *ranks;
    bool has_network;
    thaw_network network;
    stage_cost *stages; /* job->n_stages */
} cost;

static void free_cost(cost *c) {
    for (int s = 0; c->stages && s < c->job->n_stages; s++) {
        thaw_plan_free(c->stages[s].plan);
        thaw_plan_free(c->stages[s].full);
        thaw_free(c->stages[s].frozen);
        thaw_free(c->stages[s].memory);
        thaw_free(c->stages[s].largest);
        thaw_free(c->stages[s].forecast);
    }
    thaw_free(c->stages);
    thaw_free(c->ranks);
    thaw_model_free(c->model);
}

/* The same stage with every layer trained: what freezing is measured against. */
static thaw_status plan_unfrozen(stage_cost *at, const cost *c, int stage, bool *batch_statistics) {
    bool *all = thaw_calloc((size_t)c->model->n_layers, sizeof *all);
    if (!all)
        return thaw_fail(THAW_RESOURCE, "not enough memory for the flags of %d layers", c->model->n_layers);
    for (int i = 0; i < c->model->n_layers; i++)
        all[i] = true;
    thaw_status status = thaw_stage_plan(&at->full, c->model, c->job, stage, all, batch_statistics, (int)c->ranks[0]);
    thaw_free(all);
    return status;
}

static thaw_status plan_stage(stage_cost *at, const cost *c, int stage, bool *flags, bool *batch_statistics,
                              const bool *previous) {
    const size_t counts = (size_t)c->n_ranks;
    at->stage = &c->job->stages[stage];
    at->memory = thaw_calloc(counts, sizeof *at->memory);
    at->largest = thaw_calloc(counts, sizeof *at->largest);
    if (!at->memory || !at->largest)
        return thaw_fail(THAW_RESOURCE, "not enough memory for %d rank counts", c->n_ranks);
    THAW_TRY(thaw_stage_flags(flags, batch_statistics, c->model, c->job, stage, previous));
    for (int i = c->n_ranks - 1; i >= 0; i--) { /* the first count comes last: its plan is kept */
        thaw_plan *plan = NULL;
        THAW_TRY(thaw_stage_plan(&plan, c->model, c->job, stage, flags, batch_statistics, (int)c->ranks[i]));
        at->memory[i] = plan->memory_bytes + thaw_exchange_memory(plan->buckets, plan->n_buckets, (int)c->ranks[i]);
        at->largest[i] = plan->max_batch;
        if (i == 0)
            at->plan = plan;
        else
            thaw_plan_free(plan);
    }
    THAW_TRY(plan_unfrozen(at, c, stage, batch_statistics));
    at->full_memory = at->full->memory_bytes +
                      thaw_exchange_memory(at->full->buckets, at->full->n_buckets, (int)c->ranks[0]);
    at->frozen = thaw_strdup(thaw_freeze_describe(flags, c->model));
    return at->frozen ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory for the plan's words");
}

static thaw_status plan_all(cost *c) {
    const size_t layers = (size_t)c->model->n_layers;
    bool *flags = thaw_calloc(layers, sizeof *flags), *previous = thaw_calloc(layers, sizeof *previous);
    bool *batch_statistics = thaw_calloc(layers, sizeof *batch_statistics);
    c->stages = thaw_calloc((size_t)c->job->n_stages, sizeof *c->stages);
    thaw_status status = flags && previous && batch_statistics && c->stages
                             ? THAW_OK
                             : thaw_fail(THAW_RESOURCE, "not enough memory to plan %d stages", c->job->n_stages);
    for (int s = 0; s < c->job->n_stages && status == THAW_OK; s++) {
        status = plan_stage(&c->stages[s], c, s, flags, batch_statistics, s ? previous : NULL);
        memcpy(previous, flags, layers * sizeof *flags);
    }
    thaw_free(flags);
    thaw_free(previous);
    thaw_free(batch_statistics);
    return status;
}

/* Images of a batch on the rank that has most, whom the others wait for. */
static int64_t images_of(const cost *c, int64_t ranks) {
    return thaw_slices_most(thaw_job_slices(c->job), c->job->batch_size, (int)ranks);
}

/* Steps on each number of ranks, from what one of them computes here. Collective. */
static thaw_status forecast_all(cost *c, thaw_app *app) {
    for (int s = 0; s < c->job->n_stages && c->has_network; s++) {
        stage_cost *at = &c->stages[s];
        at->forecast = thaw_calloc((size_t)c->n_ranks, sizeof *at->forecast);
        THAW_TRY(thaw_comm_agree(app->comm, at->forecast ? THAW_OK
                                                         : thaw_fail(THAW_RESOURCE, "not enough memory for %d rank counts",
                                                                     c->n_ranks)));
        THAW_TRY(thaw_pace_measure(&at->pace, app, c->model, at->plan));
        at->alone = thaw_forecast_step(at->plan, &at->pace, (double)c->job->batch_size, 1, &c->network).seconds;
        for (int i = 0; i < c->n_ranks; i++)
            at->forecast[i] = thaw_forecast_step(at->plan, &at->pace, (double)images_of(c, c->ranks[i]), c->ranks[i],
                                                 &c->network);
    }
    return THAW_OK;
}

static double efficiency(const cost *c, const stage_cost *at, int i) {
    return at->alone / at->forecast[i].seconds / (double)c->ranks[i];
}

static const char *boundary_name(const thaw_plan *plan, int i) {
    return plan->model->layers[plan->model->nodes[plan->boundary[i]].layer].name;
}

/* Payload that one rank sends a step when P ranks sum the gradients around a ring: 2 (P-1)/P of the block (Patarasuk and
 * Yuan 2009). */
static double ring_bytes(const thaw_plan *plan, int64_t ranks) {
    return 2.0 * (double)(ranks - 1) / (double)ranks * (double)plan->gradient_bytes;
}

static cJSON *memory_json(const thaw_plan_memory *m, size_t exchange) {
    cJSON *object = cJSON_CreateObject();
    thaw_json_int(object, "weights", (int64_t)m->weights);
    thaw_json_int(object, "packed", (int64_t)m->packed);
    thaw_json_int(object, "gradients", (int64_t)m->gradients);
    thaw_json_int(object, "optimizer", (int64_t)m->optimizer);
    thaw_json_int(object, "prefix", (int64_t)m->prefix);
    thaw_json_int(object, "boundary", (int64_t)m->boundary);
    thaw_json_int(object, "suffix", (int64_t)m->suffix);
    thaw_json_int(object, "scratch", (int64_t)m->scratch);
    thaw_json_int(object, "input", (int64_t)m->input);
    thaw_json_int(object, "exchange", (int64_t)exchange);
    return object;
}

static cJSON *forecast_json(const cost *c, const stage_cost *at, int i) {
    const thaw_forecast *f = &at->forecast[i];
    cJSON *one = cJSON_CreateObject();
    cJSON_AddNumberToObject(one, "seconds_per_step", f->seconds);
    cJSON_AddNumberToObject(one, "images_per_second", (double)c->job->batch_size / f->seconds);
    cJSON_AddNumberToObject(one, "efficiency", efficiency(c, at, i));
    thaw_json_int(one, "exchanged_bytes", at->plan->gradient_bytes);
    cJSON_AddNumberToObject(one, "sent_bytes", f->sent);
    cJSON_AddNumberToObject(one, "exchange_seconds", f->exchange);
    cJSON_AddNumberToObject(one, "wait_seconds", f->wait);
    if (c->ranks[i] > 1)
        cJSON_AddNumberToObject(one, "hidden_share", f->hidden);
    else
        cJSON_AddNullToObject(one, "hidden_share");
    return one;
}

static cJSON *pace_json(const thaw_pace *pace) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "prefix", pace->prefix);
    cJSON_AddNumberToObject(object, "forward", pace->forward);
    cJSON_AddNumberToObject(object, "backward", pace->backward);
    cJSON_AddNumberToObject(object, "update", pace->update);
    cJSON_AddNumberToObject(object, "add", pace->add);
    return object;
}

static cJSON *stage_json(const cost *c, const stage_cost *at) {
    const thaw_plan *plan = at->plan;
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "name", at->stage->name);
    cJSON_AddStringToObject(row, "freeze", at->frozen);
    thaw_json_int(row, "epochs", at->stage->epochs);
    thaw_json_int(row, "trainable_params", plan->trainable_params);
    thaw_json_int(row, "non_trainable_params", plan->frozen_params);
    thaw_json_int(row, "gradient_bytes", plan->gradient_bytes);
    thaw_json_int(row, "full_gradient_bytes", plan->full_gradient_bytes);
    thaw_json_int(row, "memory_bytes_per_rank", (int64_t)at->memory[0]);
    thaw_json_int(row, "full_memory_bytes_per_rank", (int64_t)at->full_memory);
    cJSON_AddItemToObject(row, "memory", memory_json(&plan->memory, at->memory[0] - plan->memory_bytes));
    cJSON_AddNumberToObject(row, "forward_gflop", plan->forward_flop * 1e-9);
    cJSON_AddNumberToObject(row, "prefix_gflop", plan->prefix_flop * 1e-9);
    cJSON_AddNumberToObject(row, "backward_gflop", plan->backward_flop * 1e-9);
    cJSON_AddNumberToObject(row, "full_backward_gflop", plan->full_backward_flop * 1e-9);
    cJSON *boundary = cJSON_AddArrayToObject(row, "boundary");
    for (int i = 0; i < plan->n_boundary; i++)
        cJSON_AddItemToArray(boundary, cJSON_CreateString(boundary_name(plan, i)));
    if (thaw_plan_boundary_suffices(plan)) {
        cJSON *cache = cJSON_AddObjectToObject(row, "cache");
        thaw_json_int(cache, "bytes_per_image", thaw_plan_boundary_floats(plan) * (c->job->cache_half ? 2 : 4));
        cJSON_AddNumberToObject(cache, "forward_gflop", (plan->forward_flop - plan->prefix_flop) * 1e-9);
    } else {
        cJSON_AddNullToObject(row, "cache");
    }
    if (c->has_network)
        cJSON_AddItemToObject(row, "pace", pace_json(&at->pace));
    cJSON *list = cJSON_AddArrayToObject(row, "by_ranks");
    for (int i = 0; i < c->n_ranks; i++) {
        cJSON *one = cJSON_CreateObject();
        cJSON_AddItemToArray(list, one);
        thaw_json_int(one, "ranks", c->ranks[i]);
        thaw_json_int(one, "images_per_rank", at->largest[i]);
        thaw_json_int(one, "memory_bytes_per_rank", (int64_t)at->memory[i]);
        cJSON_AddNumberToObject(one, "ring_bytes_per_step", ring_bytes(plan, c->ranks[i]));
        if (c->has_network)
            cJSON_AddItemToObject(one, "predicted", forecast_json(c, at, i));
    }
    return row;
}

static thaw_status print_json(thaw_app *app, const cost *c) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", c->model->name);
    thaw_json_int(object, "total_params", c->stages[0].plan->total_params);
    thaw_json_int(object, "batch_size", c->job->batch_size);
    thaw_json_int(object, "ranks", c->ranks[0]);
    cJSON *stages = cJSON_AddArrayToObject(object, "stages");
    for (int s = 0; s < c->job->n_stages; s++)
        cJSON_AddItemToArray(stages, stage_json(c, &c->stages[s]));
    return thaw_app_print_json(app, object);
}

static void put_forecast(thaw_buffer *text, const cost *c, const stage_cost *at) {
    thaw_words a;
    thaw_buffer_printf(text, "  %8s %14s %16s %13s %10s %12s %9s\n", "ranks", "s a step", "images a second", "efficiency %",
                       "s waited", "sent a rank", "hidden %");
    for (int i = 0; i < c->n_ranks; i++) {
        const thaw_forecast *f = &at->forecast[i];
        thaw_buffer_printf(text, "  %8lld %14.4g %16.4g %13.1f %10.3g %12s %9.*f\n", (long long)c->ranks[i], f->seconds,
                           (double)c->job->batch_size / f->seconds, 100.0 * efficiency(c, at, i), f->wait,
                           thaw_megabytes(&a, f->sent), c->ranks[i] > 1 ? 1 : 0, c->ranks[i] > 1 ? 100.0 * f->hidden : 0.0);
    }
}

static void put_stage(thaw_buffer *text, const cost *c, const stage_cost *at) {
    const thaw_plan *plan = at->plan;
    thaw_words a, b;
    thaw_buffer_printf(text, "\nstage %s (%lld epoch%s): %s\n", at->stage->name, (long long)at->stage->epochs,
                       at->stage->epochs == 1 ? "" : "s", at->frozen);
    thaw_buffer_printf(text, "  parameters            %s train, ", thaw_commas(&a, plan->trainable_params));
    thaw_buffer_printf(text, "%s do not\n", thaw_commas(&a, plan->frozen_params));
    thaw_buffer_printf(text, "  gradients a step      %s to sum over ranks; %s were nothing frozen\n",
                       thaw_megabytes(&a, (double)plan->gradient_bytes),
                       thaw_megabytes(&b, (double)plan->full_gradient_bytes));
    thaw_buffer_printf(text, "  GFLOP an image        forward %.3f (%.3f of it on constant layers), backward %.3f; "
                             "backward %.3f were nothing frozen\n", plan->forward_flop * 1e-9, plan->prefix_flop * 1e-9,
                       plan->backward_flop * 1e-9, plan->full_backward_flop * 1e-9);
    thaw_buffer_printf(text, "  boundary              ");
    for (int i = 0; i < plan->n_boundary; i++)
        thaw_buffer_printf(text, "%s%s", i ? ", " : "", boundary_name(plan, i));
    thaw_buffer_printf(text, "%s\n", plan->n_boundary ? "" : "the input");
    if (thaw_plan_boundary_suffices(plan))
        thaw_buffer_printf(text, "  cache                 %s an image; epochs behind the first are left with forward %.3f, "
                                 "backward %.3f GFLOP\n",
                           thaw_megabytes(&a, (double)thaw_plan_boundary_floats(plan) * (c->job->cache_half ? 2.0 : 4.0)),
                           (plan->forward_flop - plan->prefix_flop) * 1e-9, plan->backward_flop * 1e-9);
    thaw_buffer_printf(text, "  %8s %14s %16s %24s\n", "ranks", "images a rank", "memory a rank", "sent a rank and step");
    for (int i = 0; i < c->n_ranks; i++)
        thaw_buffer_printf(text, "  %8lld %14lld %16s %24s\n", (long long)c->ranks[i], (long long)at->largest[i],
                           thaw_megabytes(&a, (double)at->memory[i]), thaw_megabytes(&b, ring_bytes(plan, c->ranks[i])));
    if (c->has_network)
        put_forecast(text, c, at);
    thaw_buffer_printf(text, "  memory were nothing frozen: %s on each of %lld rank%s\n",
                       thaw_megabytes(&a, (double)at->full_memory), (long long)c->ranks[0],
                       c->ranks[0] == 1 ? "" : "s");
}

static thaw_status print_text(thaw_app *app, const cost *c) {
    thaw_buffer text = {0};
    thaw_words words;
    thaw_buffer_printf(&text, "%s: %s parameters, batches of %lld images over all ranks\n", c->model->name,
                       thaw_commas(&words, c->stages[0].plan->total_params), (long long)c->job->batch_size);
    for (int s = 0; s < c->job->n_stages; s++)
        put_stage(&text, c, &c->stages[s]);
    return thaw_app_print_buffer(app, &text);
}

/* --ranks, or the ranks that run this command; --network. */
static thaw_status read_ranks(cost *c, const thaw_app *app, const thaw_arguments *given) {
    const char *text = thaw_arguments_value(given, "ranks", NULL);
    const char *network = thaw_arguments_value(given, "network", NULL);
    c->has_network = network != NULL;
    if (network)
        THAW_TRY(thaw_network_parse(&c->network, network, "--network"));
    if (text)
        return thaw_numbers_parse(&c->ranks, &c->n_ranks, text, 1, 1 << 20, "--ranks");
    c->ranks = thaw_calloc(1, sizeof *c->ranks);
    if (!c->ranks)
        return thaw_fail(THAW_RESOURCE, "not enough memory for a plan");
    c->ranks[0] = thaw_comm_size(app->comm);
    c->n_ranks = 1;
    return THAW_OK;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    thaw_job *job = NULL;
    cost c = {0};
    THAW_TRY(thaw_app_job(&job, app, given));
    c.job = job;
    thaw_status status = THAW_OK;
    THAW_GOTO(thaw_comm_agree(app->comm, read_ranks(&c, app, given)));
    THAW_GOTO(thaw_app_threads(app, 0, false)); /* scratch memory of kernels depends on threads */
    THAW_GOTO(thaw_job_model(&c.model, app->comm, job, false));
    THAW_GOTO(thaw_comm_agree(app->comm, plan_all(&c)));
    THAW_GOTO(forecast_all(&c, app));
    if (app->root)
        status = thaw_arguments_has(given, "json") ? print_json(app, &c) : print_text(app, &c);
out:
    free_cost(&c);
    thaw_job_free(job);
    return status;
}

static const thaw_option options[] = {
    {"ranks", "1,2,4,8", false, "rank counts to compare (default: the ranks that run this command)"},
    {"network", "LAT,BW", false, "predict steps on a network of this latency and bandwidth: 2e-6,12.5e9 or 2us,100Gbit"},
    {"set", "KEY=VALUE", true, "set a key of the job, e.g. stages.1.freeze=\"[:-4]\""},
    THAW_OPTION_JSON,
};
const thaw_command thaw_command_plan = {
    .name = "plan",
    .positional = "JOB.yaml",
    .least = 1,
    .most = 1,
    .summary = "what a job will cost in each stage, before it runs: parameters, FLOP, memory, bytes exchanged",
    .details = "Reads neither weights nor images. FLOP are counted per image, a multiply-add as 2.\n"
               "Sent a rank and step: payload of summing the gradients around a ring, 2 (P-1)/P of their bytes.\n"
               "--network times some steps of each stage on this machine, with random weights, and predicts for every number of\n"
               "ranks, each with such cores and a link of its own: seconds of a step without cache, images a second, efficiency\n"
               "(over one rank that computes all of the batch), what ranks wait for each other, what the busiest one sends, and\n"
               "which part of the gradients is summed behind computation. A message of M bytes takes LAT + M/BW; nobody is late.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
