/* thaw plan JOB.yaml: what each stage will cost, from the same plans that training compiles, and how long it will take, from
 * a look at how fast this machine runs them. Needs neither weights nor images; knows more with images. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "graph/freeze.h"
#include "network.h"
#include "plan_probe.h"
#include "thaw/train.h"
#include "train/cache.h"
#include "train/slices.h"

/* What a stage needs with some number of ranks. */
typedef struct rank_cost {
    int64_t largest;  /* images of a batch on one rank */
    thaw_stage_memory memory;
    double step, first, epoch; /* seconds: of a step in the first epoch, of that epoch, of each later one; -1: not known */
} rank_cost;

/* What is said of one stage: its plan for the first rank count and the plan were nothing frozen. */
typedef struct stage_cost {
    const thaw_job_stage *stage;
    thaw_plan *plan, *full;
    char *frozen; /* "frozen 0-14, first trained: 15 block5_conv1" */
    size_t full_memory;
    thaw_probe probe;
    thaw_cache_forecast cache;
    rank_cost *by_ranks; /* for each rank count */
    thaw_pace pace;          /* with a network and a probe */
    thaw_forecast *forecast; /* for each rank count, likewise; else NULL */
    double alone;            /* seconds of a step on one rank, likewise */
} stage_cost;

typedef struct cost {
    thaw_app *app;
    const thaw_job *job;
    thaw_model *model;
    thaw_samples_size samples;
    char *why;      /* the samples are not known */
    double input;   /* seconds for a sample */
    size_t program; /* bytes */
    int sharers;    /* ranks of a host, if it is as many ranks as run this command; of others nothing is known */
    bool probed;
    int n_ranks;
    int64_t *ranks;
    bool has_network;
    thaw_network network;
    stage_cost *stages; /* job->n_stages */
} cost;

/* What was planned; what was measured stays. */
static void free_stages(cost *c) {
    for (int s = 0; c->stages && s < c->job->n_stages; s++) {
        stage_cost *at = &c->stages[s];
        thaw_plan_free(at->plan);
        thaw_plan_free(at->full);
        thaw_free(at->frozen);
        thaw_free(at->by_ranks);
        thaw_free(at->forecast);
        *at = (stage_cost){.probe = at->probe};
    }
}

static void free_cost(cost *c) {
    free_stages(c);
    thaw_free(c->stages);
    thaw_free(c->ranks);
    thaw_free(c->why);
    thaw_model_free(c->model);
}

/* The same stage with every layer trained: what freezing is measured against. */
static thaw_status plan_unfrozen(stage_cost *at, const cost *c, int stage, bool *batch_statistics) {
    bool *all = thaw_calloc((size_t)c->model->n_layers, sizeof *all);
    if (!all)
        return thaw_fail(THAW_RESOURCE, "not enough memory for the flags of %d layers", c->model->n_layers);
    for (int i = 0; i < c->model->n_layers; i++)
        all[i] = true;
    thaw_status status = thaw_stage_plan(&at->full, c->model, c->job, stage, all, batch_statistics, (int)c->ranks[0],
                                         true);
    thaw_free(all);
    return status;
}

static thaw_stage_memory memory_of(const cost *c, const thaw_plan *plan, int stage, int64_t ranks) {
    return thaw_stage_memory_of(plan, c->job, stage, (int)ranks, ranks == thaw_comm_size(c->app->comm) ? c->sharers : 1,
                                &c->samples, c->program);
}

/* Seconds for each rank count: ranks on cores of their own like those of this one, and of the exchange no more than was
 * measured. */
static void set_seconds(stage_cost *at, const cost *c) {
    const uint64_t row = (uint64_t)thaw_plan_boundary_floats(at->plan) * sizeof(float);
    thaw_probe probe = at->probe;
    probe.input = c->input;
    for (int i = 0; i < c->n_ranks && probe.images; i++) {
        rank_cost *r = &at->by_ranks[i];
        const int64_t images = (c->job->batch_size + c->ranks[i] - 1) / c->ranks[i];
        const double steps = (double)c->samples.train / (double)c->job->batch_size;
        r->step = thaw_probe_step(&probe, c->app, c->job, images, row, at->cache.on);
        if (!c->samples.known)
            continue;
        r->first = r->epoch = steps * r->step;
        if (at->cache.on)
            r->first += thaw_probe_fill(&probe, c->app, c->job, at->cache.variants * c->samples.train / c->ranks[i]);
    }
}

static thaw_status plan_stage(stage_cost *at, const cost *c, int stage, bool *flags, bool *batch_statistics,
                              const bool *previous) {
    at->stage = &c->job->stages[stage];
    at->by_ranks = thaw_calloc((size_t)c->n_ranks, sizeof *at->by_ranks);
    if (!at->by_ranks)
        return thaw_fail(THAW_RESOURCE, "not enough memory for %d rank counts", c->n_ranks);
    THAW_TRY(thaw_stage_flags(flags, batch_statistics, c->model, c->job, stage, previous));
    for (int i = c->n_ranks - 1; i >= 0; i--) { /* the first count comes last: its plan is kept */
        thaw_plan *plan = NULL;
        THAW_TRY(thaw_stage_plan(&plan, c->model, c->job, stage, flags, batch_statistics, (int)c->ranks[i], true));
        at->by_ranks[i] = (rank_cost){plan->max_batch, memory_of(c, plan, stage, c->ranks[i]), -1.0, -1.0, -1.0};
        if (i == 0)
            at->plan = plan;
        else
            thaw_plan_free(plan);
    }
    THAW_TRY(plan_unfrozen(at, c, stage, batch_statistics));
    at->full_memory = memory_of(c, at->full, stage, c->ranks[0]).total;
    at->cache = thaw_cache_expect(at->plan, c->job, stage, (int)c->ranks[0], &c->samples, at->by_ranks[0].memory.total);
    set_seconds(at, c);
    at->frozen = thaw_strdup(thaw_freeze_describe(flags, c->model));
    return at->frozen ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory for the plan's words");
}

/* Times every stage, or with `time` false plans them. Timing is collective. */
static thaw_status walk_stages(cost *c, bool time) {
    const size_t layers = (size_t)c->model->n_layers;
    bool *flags = thaw_calloc(layers, sizeof *flags), *previous = thaw_calloc(layers, sizeof *previous);
    bool *batch_statistics = thaw_calloc(layers, sizeof *batch_statistics);
    thaw_status status = flags && previous && batch_statistics
                             ? THAW_OK
                             : thaw_fail(THAW_RESOURCE, "not enough memory to plan %d stages", c->job->n_stages);
    for (int s = 0; s < c->job->n_stages && status == THAW_OK; s++) {
        if (time)
            status = thaw_stage_flags(flags, batch_statistics, c->model, c->job, s, s ? previous : NULL);
        else
            status = plan_stage(&c->stages[s], c, s, flags, batch_statistics, s ? previous : NULL);
        if (time && status == THAW_OK)
            status = thaw_probe_stage(&c->stages[s].probe, c->app, c->model, c->job, s, flags, batch_statistics);
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

/* Steps on each number of ranks, from what one of them computed here. Collective. */
static thaw_status forecast_all(cost *c) {
    double add = c->has_network ? thaw_pace_add() : 0.0;
    THAW_TRY(thaw_comm_max(c->app->comm, &add, 1));
    for (int s = 0; s < c->job->n_stages && c->has_network; s++) {
        stage_cost *at = &c->stages[s];
        const thaw_probe *probe = &at->probe;
        if (!probe->images)
            continue;
        at->forecast = thaw_calloc((size_t)c->n_ranks, sizeof *at->forecast);
        if (!at->forecast)
            return thaw_fail(THAW_RESOURCE, "not enough memory for %d rank counts", c->n_ranks);
        at->pace = (thaw_pace){probe->prefix, probe->forward, probe->backward, probe->update, add,
                                c->job->exchange_half};
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
static double ring_bytes(const cost *c, const thaw_plan *plan, int64_t ranks) {
    return 2.0 * (double)(ranks - 1) / (double)ranks * (double)thaw_job_wire_bytes(c->job, plan->gradient_bytes);
}

static cJSON *memory_json(const thaw_plan_memory *m, const thaw_stage_memory *s) {
    const struct {
        const char *name;
        size_t bytes;
    } parts[] = {{"program", s->program}, {"weights", m->weights},   {"packed", m->packed},   {"gradients", m->gradients},
                 {"optimizer", m->optimizer}, {"boundary", m->boundary}, {"batches", s->batches}, {"index", s->index},
                 {"best", s->best},       {"prefix", m->prefix},     {"suffix", m->suffix},   {"scratch", m->scratch},
                 {"exchange", s->exchange}, {"file", s->file}};
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        thaw_json_int(object, parts[i].name, (int64_t)parts[i].bytes);
    return object;
}

static cJSON *forecast_json(const cost *c, const stage_cost *at, int i) {
    const thaw_forecast *f = &at->forecast[i];
    cJSON *one = cJSON_CreateObject();
    cJSON_AddNumberToObject(one, "seconds_per_step", f->seconds);
    cJSON_AddNumberToObject(one, "images_per_second", (double)c->job->batch_size / f->seconds);
    cJSON_AddNumberToObject(one, "efficiency", efficiency(c, at, i));
    thaw_json_int(one, "exchanged_bytes", thaw_job_wire_bytes(c->job, at->plan->gradient_bytes));
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

/* Negative: not known. */
static void put_seconds(cJSON *object, const char *key, double seconds) {
    if (seconds >= 0.0)
        cJSON_AddNumberToObject(object, key, seconds);
    else
        cJSON_AddNullToObject(object, key);
}

static double stage_seconds(const stage_cost *at, const rank_cost *r) {
    return r->epoch < 0.0 ? r->epoch : r->first + (double)(at->stage->epochs - 1) * r->epoch;
}

static void put_times(cJSON *object, const stage_cost *at, const rank_cost *r) {
    put_seconds(object, "seconds_per_step", r->step);
    put_seconds(object, "seconds_first_epoch", r->first);
    put_seconds(object, "seconds_per_epoch", r->epoch);
    put_seconds(object, "seconds", stage_seconds(at, r));
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
    thaw_json_int(row, "memory_bytes_per_rank", (int64_t)at->by_ranks[0].memory.total);
    thaw_json_int(row, "ranks_per_host", at->by_ranks[0].memory.sharers);
    /* once on a host, however many ranks it has */
    thaw_json_int(row, "shareable_bytes", (int64_t)(plan->memory.constants + plan->memory.updated));
    thaw_json_int(row, "memory_bytes_per_host", (int64_t)at->by_ranks[0].memory.total * at->by_ranks[0].memory.sharers);
    thaw_json_int(row, "full_memory_bytes_per_rank", (int64_t)at->full_memory);
    cJSON_AddItemToObject(row, "memory", memory_json(&plan->memory, &at->by_ranks[0].memory));
    put_times(row, at, &at->by_ranks[0]);
    if (at->probe.images) {
        cJSON *probe = cJSON_AddObjectToObject(row, "probe"); /* seconds an image, and of a step */
        thaw_json_int(probe, "images", at->probe.images);
        cJSON_AddNumberToObject(probe, "input", c->input);
        cJSON_AddNumberToObject(probe, "prefix", at->probe.prefix);
        cJSON_AddNumberToObject(probe, "forward", at->probe.forward);
        cJSON_AddNumberToObject(probe, "backward", at->probe.backward);
        cJSON_AddNumberToObject(probe, "update", at->probe.update);
        cJSON_AddNumberToObject(probe, "exchange", at->probe.exchange);
    } else {
        cJSON_AddNullToObject(row, "probe");
    }
    cJSON_AddNumberToObject(row, "forward_gflop", plan->forward_flop * 1e-9);
    cJSON_AddNumberToObject(row, "prefix_gflop", plan->prefix_flop * 1e-9);
    cJSON_AddNumberToObject(row, "backward_gflop", plan->backward_flop * 1e-9);
    cJSON_AddNumberToObject(row, "full_backward_gflop", plan->full_backward_flop * 1e-9);
    cJSON *boundary = cJSON_AddArrayToObject(row, "boundary");
    for (int i = 0; i < plan->n_boundary; i++)
        cJSON_AddItemToArray(boundary, cJSON_CreateString(boundary_name(plan, i)));
    if (thaw_plan_boundary_suffices(plan)) {
        cJSON *cache = cJSON_AddObjectToObject(row, "cache");
        if (c->samples.known)
            cJSON_AddBoolToObject(cache, "expected", at->cache.on);
        else
            cJSON_AddNullToObject(cache, "expected");
        thaw_json_int(cache, "bytes_per_image", thaw_plan_boundary_floats(plan) * (c->job->cache_half ? 2 : 4));
        cJSON_AddNumberToObject(cache, "forward_gflop", (plan->forward_flop - plan->prefix_flop) * 1e-9);
    } else {
        cJSON_AddNullToObject(row, "cache");
    }
    if (at->forecast)
        cJSON_AddItemToObject(row, "pace", pace_json(&at->pace));
    cJSON *list = cJSON_AddArrayToObject(row, "by_ranks");
    for (int i = 0; i < c->n_ranks; i++) {
        cJSON *one = cJSON_CreateObject();
        cJSON_AddItemToArray(list, one);
        thaw_json_int(one, "ranks", c->ranks[i]);
        thaw_json_int(one, "images_per_rank", at->by_ranks[i].largest);
        thaw_json_int(one, "memory_bytes_per_rank", (int64_t)at->by_ranks[i].memory.total);
        cJSON_AddNumberToObject(one, "ring_bytes_per_step", ring_bytes(c, plan, c->ranks[i]));
        put_times(one, at, &at->by_ranks[i]);
        if (at->forecast)
            cJSON_AddItemToObject(one, "predicted", forecast_json(c, at, i));
    }
    return row;
}

static cJSON *plan_json(const cost *c) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", c->model->name);
    thaw_json_int(object, "total_params", c->stages[0].plan->total_params);
    thaw_json_int(object, "batch_size", c->job->batch_size);
    thaw_json_int(object, "ranks", c->ranks[0]);
    thaw_json_int(object, "images", c->samples.train); /* 0: the data cannot be read */
    cJSON *stages = cJSON_AddArrayToObject(object, "stages");
    for (int s = 0; s < c->job->n_stages; s++)
        cJSON_AddItemToArray(stages, stage_json(c, &c->stages[s]));
    return object;
}

/* "0.512 s", "3 min 20 s", "5 h 06 min"; "?": not known. */
static const char *seconds_words(thaw_words *words, double seconds) {
    const int64_t whole = (int64_t)(seconds + 0.5);
    if (seconds < 0.0)
        snprintf(words->text, sizeof words->text, "?");
    else if (seconds < 100.0)
        snprintf(words->text, sizeof words->text, "%.3g s", seconds);
    else if (whole < 3600)
        snprintf(words->text, sizeof words->text, "%lld min %02lld s", (long long)(whole / 60), (long long)(whole % 60));
    else
        snprintf(words->text, sizeof words->text, "%lld h %02lld min", (long long)(whole / 3600),
                 (long long)(whole % 3600 / 60));
    return words->text;
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
    thaw_buffer_printf(text, "  %8s %14s %16s %24s %12s %14s %14s\n", "ranks", "images a rank", "memory a rank",
                       "sent a rank and step", "a step", at->cache.on ? "caching epoch" : "first epoch", "later epochs");
    for (int i = 0; i < c->n_ranks; i++) {
        const rank_cost *r = &at->by_ranks[i];
        thaw_words step, first, later;
        thaw_buffer_printf(text, "  %8lld %14lld %16s %24s %12s %14s %14s\n", (long long)c->ranks[i], (long long)r->largest,
                           thaw_megabytes(&a, (double)r->memory.total), thaw_megabytes(&b, ring_bytes(c, plan, c->ranks[i])),
                           seconds_words(&step, r->step), seconds_words(&first, r->first), seconds_words(&later, r->epoch));
    }
    if (at->forecast)
        put_forecast(text, c, at);
    const double common = (double)(plan->memory.constants + plan->memory.updated);
    const char *what = plan->memory.updated > 0 ? "weights and optimizer" : "frozen weights";
    if (at->by_ranks[0].memory.common)
        thaw_buffer_printf(text, "  memory of a host with %d ranks: %s; of this %s of %s are there once\n",
                           at->by_ranks[0].memory.sharers,
                           thaw_megabytes(&a, (double)at->by_ranks[0].memory.total * at->by_ranks[0].memory.sharers),
                           thaw_megabytes(&b, common), what);
    else if (common > 0.0)
        thaw_buffer_printf(text, "  memory of each further rank on one host: %s less, for %s are there once\n",
                           thaw_megabytes(&a, common), what);
    thaw_buffer_printf(text, "  memory were nothing frozen: %s on each of %lld rank%s\n",
                       thaw_megabytes(&a, (double)at->full_memory), (long long)c->ranks[0], c->ranks[0] == 1 ? "" : "s");
    if (at->by_ranks[0].epoch >= 0.0)
        thaw_buffer_printf(text, "  the stage on %lld rank%s: %s\n", (long long)c->ranks[0], c->ranks[0] == 1 ? "" : "s",
                           seconds_words(&a, stage_seconds(at, &at->by_ranks[0])));
}

static thaw_status print_text(thaw_app *app, const cost *c) {
    thaw_buffer text = {0};
    thaw_words words;
    thaw_buffer_printf(&text, "%s: %s parameters, batches of %lld images over all ranks\n", c->model->name,
                       thaw_commas(&words, c->stages[0].plan->total_params), (long long)c->job->batch_size);
    for (int s = 0; s < c->job->n_stages; s++)
        put_stage(&text, c, &c->stages[s]);
    if (c->probed)
        thaw_buffer_printf(&text, "\nseconds: as this machine runs now, with %d thread%s a rank; ranks on cores of their own, "
                                  "the network not counted\n", thaw_threads(), thaw_threads() == 1 ? "" : "s");
    if (c->why)
        thaw_buffer_printf(&text, "%sepochs are not known: %s\n", c->probed ? "" : "\n", c->why);
    return thaw_app_print_buffer(app, &text);
}

static thaw_status print(thaw_app *app, const cost *c, const thaw_arguments *given) {
    if (thaw_arguments_has(given, "json"))
        return thaw_app_print_json(app, plan_json(c));
    if (!thaw_arguments_has(given, "sbatch"))
        return print_text(app, c);
    cJSON *plan = plan_json(c);
    const thaw_status status = thaw_app_print_sbatch(app, plan, given, c->job);
    cJSON_Delete(plan);
    return status;
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

static thaw_status open_samples(thaw_dataset **out, const char *folder, const char *x, const char *y, const char *const *names,
                                int n_names) {
    if (!folder && !x)
        return thaw_fail(THAW_USAGE, "the job has no data.train");
    return folder ? thaw_dataset_scan_folders(out, folder, names, n_names) : thaw_dataset_open_arrays(out, x, y);
}

/* The index of the data, if it is there. */
static void look_at_samples(cost *c) {
    const thaw_job *job = c->job;
    thaw_dataset *train = NULL, *validation = NULL;
    thaw_status status = open_samples(&train, job->train, job->train_x, job->train_y, (const char *const *)job->class_names,
                                      job->n_class_names);
    if (status == THAW_OK && (job->validation || job->validation_x))
        status = open_samples(&validation, job->validation, job->validation_x, job->validation_y,
                              (const char *const *)train->class_names, train->n_classes);
    if (status == THAW_OK)
        c->samples = thaw_samples_size_of(train, validation, job);
    else
        c->why = thaw_strdup(thaw_message());
    if (status == THAW_OK && c->probed)
        c->input = thaw_probe_input(train, c->model, job);
    thaw_dataset_free(train);
    thaw_dataset_free(validation);
}

/* Gives the network random weights and times all stages. Collective. */
static thaw_status probe(cost *c) {
    thaw_status status = thaw_model_allocate(c->model);
    if (status == THAW_RESOURCE) {
        thaw_warn("nothing is timed: %s", thaw_message());
        status = THAW_OK;
        c->probed = false;
    }
    double lacks = !c->probed;
    THAW_TRY(thaw_comm_agree(c->app->comm, status));
    THAW_TRY(thaw_comm_max(c->app->comm, &lacks, 1));
    if (lacks > 0.0)
        return THAW_OK;
    thaw_model_initialize(c->model, c->job->seed);
    return walk_stages(c, true);
}

static thaw_status check_options(const thaw_arguments *given) {
    static const char *const of_sbatch[] = {"ranks-per-node", "cpus-per-task"};
    const bool sbatch = thaw_arguments_has(given, "sbatch");
    for (size_t i = 0; i < sizeof of_sbatch / sizeof *of_sbatch && !sbatch; i++)
        if (thaw_arguments_has(given, of_sbatch[i]))
            return thaw_fail(THAW_USAGE, "plan: --%s belongs to --sbatch; add it", of_sbatch[i]);
    if (sbatch && thaw_arguments_has(given, "json"))
        return thaw_fail(THAW_USAGE, "plan: --sbatch and --json are two forms of the result; give one");
    if (sbatch && thaw_arguments_has(given, "network"))
        return thaw_fail(THAW_USAGE, "plan: --sbatch has no place for what --network predicts; give one");
    if (thaw_arguments_has(given, "no-probe") && thaw_arguments_has(given, "network"))
        return thaw_fail(THAW_USAGE, "plan: --network predicts from what the probe measures; leave --no-probe out");
    if (sbatch && strchr(thaw_arguments_value(given, "ranks", ""), ','))
        return thaw_fail(THAW_USAGE, "plan: --sbatch is for one number of ranks, found --ranks %s",
                         thaw_arguments_value(given, "ranks", ""));
    return THAW_OK;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    thaw_job *job = NULL;
    cost c = {.app = app, .probed = !thaw_arguments_has(given, "no-probe")};
    THAW_TRY(check_options(given));
    THAW_TRY(thaw_app_job(&job, app, given));
    c.job = job;
    thaw_status status = THAW_OK;
    c.stages = thaw_calloc((size_t)job->n_stages, sizeof *c.stages);
    THAW_GOTO(thaw_comm_agree(app->comm, c.stages ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to plan %d stages",
                                                                         job->n_stages)));
    THAW_GOTO(thaw_comm_agree(app->comm, read_ranks(&c, app, given)));
    THAW_GOTO(thaw_stage_sharers(&c.sharers, app->comm));
    THAW_GOTO(thaw_app_threads(app, 0, false)); /* scratch memory of kernels depends on threads */
    THAW_GOTO(thaw_job_model(&c.model, app->comm, job, false));
    /* The structure alone tells what is wrong with the stages, before anything takes time. */
    THAW_GOTO(thaw_comm_agree(app->comm, walk_stages(&c, false)));
    if (app->root)
        look_at_samples(&c);
    if (c.probed)
        THAW_GOTO(probe(&c));
    c.program = thaw_program_bytes();
    free_stages(&c);
    THAW_GOTO(thaw_comm_agree(app->comm, walk_stages(&c, false)));
    THAW_GOTO(thaw_comm_agree(app->comm, forecast_all(&c)));
    if (app->root)
        status = print(app, &c, given);
out:
    free_cost(&c);
    thaw_job_free(job);
    return status;
}

static const thaw_option options[] = {
    {"ranks", "1,2,4,8", false, "rank counts to compare (default: the ranks that run this command)"},
    {"network", "LAT,BW", false, "predict steps on a network of this latency and bandwidth: 2e-6,12.5e9 or 2us,100Gbit"},
    {"no-probe", NULL, false, "do not time the stages on this machine"},
    {"set", "KEY=VALUE", true, "set a key of the job, e.g. stages.1.freeze=\"[:-4]\""},
    THAW_OPTION_JSON,
    {"sbatch", NULL, false, "print the #SBATCH lines of a SLURM script for the job with --ranks N"},
    {"ranks-per-node", "M", false, "with --sbatch: ranks on a node, e.g. its sockets"},
    {"cpus-per-task", "T", false, "with --sbatch: cores of a rank"},
};
const thaw_command thaw_command_plan = {
    .name = "plan",
    .positional = "JOB.yaml",
    .least = 1,
    .most = 1,
    .summary = "what a job will cost in each stage, before it runs: seconds, memory, FLOP, parameters, bytes exchanged",
    .details = "Needs neither weights nor images; with images (data.train is looked at) it knows epochs, not steps alone.\n"
               "Seconds come from a few steps of each stage on random weights and images, about a second in all.\n"
               "Memory: the most that a rank will have resident, libraries included. FLOP are counted per image, a\n"
               "multiply-add as 2. Sent a rank and step: payload of summing the gradients around a ring, 2 (P-1)/P of\n"
               "their bytes.\n"
               "--network predicts from the same steps, for every number of ranks, each with such cores and a link of its own:\n"
               "seconds of a step without cache and without reading, images a second, efficiency (over one rank that computes\n"
               "all of the batch), what ranks wait for each other, what the busiest one sends, and which part of the gradients\n"
               "is summed behind computation. A message of M bytes takes LAT + M/BW; nobody is late.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
