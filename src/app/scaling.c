#include "scaling.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "thaw/train.h"
#include "train/slices.h"

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "not enough memory for the measurement"); }

/* "before:NAME" of the last block of well-known networks, else of the layer behind three quarters of those with weights. */
static char *late_spec(const thaw_model *model) {
    static const char *const blocks[] = {"block5_conv1", "conv5_block1_1_conv"};
    int weighted = 0, seen = 0;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (thaw_model_find(model, blocks[i]) >= 0)
            return thaw_format("before:%s", blocks[i]);
    for (int i = 0; i < model->n_layers; i++)
        weighted += model->layers[i].listed && model->layers[i].n_tensors > 0;
    for (int i = 0; i < model->n_layers; i++)
        if (model->layers[i].listed && model->layers[i].n_tensors > 0 && seen++ == 3 * weighted / 4)
            return thaw_format("before:%s", model->layers[i].name);
    return thaw_strdup("all");
}

/* The spec of a plan of ours; NULL: the name is none of them. Of a network that has its own head, that is its last layer. */
static char *known_spec(const thaw_scaling *s, const char *name) {
    if (strcmp(name, "head") == 0)
        return thaw_strdup(s->has_head ? "all" : "[:-1]");
    if (strcmp(name, "late") == 0)
        return late_spec(s->model);
    return strcmp(name, "everything") == 0 ? thaw_strdup("none") : NULL;
}

static thaw_status make_plan(thaw_scaling_plan *plan, const thaw_scaling *s, const char *text) {
    const char *equal = strchr(text, '=');
    plan->name = equal ? thaw_strndup(text, (size_t)(equal - text)) : thaw_strdup(text);
    if (!equal && thaw_model_find(s->model, text) < 0)
        plan->spec = known_spec(s, text);
    if (!plan->spec)
        plan->spec = thaw_strdup(equal ? equal + 1 : text);
    plan->trainable = thaw_calloc((size_t)s->model->n_layers, sizeof *plan->trainable);
    if (!plan->name || !plan->spec || !plan->trainable)
        return no_memory();
    thaw_freeze_spec spec = {0};
    thaw_status status = thaw_freeze_spec_add(&spec, plan->spec, 0, "--freeze");
    if (status == THAW_OK)
        status = thaw_freeze_resolve(plan->trainable, s->model, &spec, NULL, NULL, "--freeze");
    thaw_freeze_spec_free(&spec);
    THAW_TRY(status);
    plan->frozen = thaw_strdup(thaw_freeze_describe(plan->trainable, s->model));
    return plan->frozen ? THAW_OK : no_memory();
}

thaw_status thaw_scaling_make_plans(thaw_scaling *s, const char *const *texts, int n) {
    static const char *const ours[] = {"head", "late", "everything"};
    if (n == 0) {
        texts = ours;
        n = sizeof ours / sizeof *ours;
    }
    s->plans = thaw_calloc((size_t)n, sizeof *s->plans);
    if (!s->plans)
        return no_memory();
    for (s->n_plans = 0; s->n_plans < n;) {
        thaw_scaling_plan *plan = &s->plans[s->n_plans++];
        THAW_TRY(make_plan(plan, s, texts[s->n_plans - 1]));
        for (int i = 0; i + 1 < s->n_plans; i++)
            if (strcmp(s->plans[i].name, plan->name) == 0)
                return thaw_fail(THAW_USAGE, "--freeze: two plans are called %s; name them: --freeze NAME=SPEC", plan->name);
    }
    return THAW_OK;
}

/* 1, 2, 4, ... and P. */
static thaw_status make_worlds(thaw_scaling *s) {
    enum { MOST = 34 };
    const int ranks = thaw_comm_size(s->app->comm);
    s->counts = thaw_calloc(MOST, sizeof *s->counts);
    s->worlds = thaw_calloc(MOST, sizeof *s->worlds);
    THAW_TRY(thaw_comm_agree(s->app->comm, s->counts && s->worlds ? THAW_OK : no_memory()));
    for (int64_t count = 1;; count = 2 * count < ranks ? 2 * count : ranks) {
        s->counts[s->n_worlds] = (int)count;
        THAW_TRY(thaw_comm_first(&s->worlds[s->n_worlds++], s->app->comm, (int)count));
        if (count == ranks)
            return THAW_OK;
    }
}

static bool has_point(const thaw_scaling *s, thaw_scaling_kind kind, int ranks) {
    return s->kinds[kind] && (kind == THAW_WEAK || ranks <= s->global_batch);
}

/* This rank's images of a step. */
static int64_t images_of(const thaw_scaling *s, thaw_scaling_kind kind, const thaw_comm *world) {
    const int rank = thaw_comm_rank(world), ranks = thaw_comm_size(world);
    return kind == THAW_WEAK ? s->batch
                             : thaw_share(s->global_batch, rank + 1, ranks) - thaw_share(s->global_batch, rank, ranks);
}

/* The plan of this rank in a world. */
static thaw_status compile(thaw_plan **out, const thaw_scaling *s, const thaw_scaling_plan *plan, thaw_scaling_kind kind,
                           thaw_comm *world) {
    thaw_app part = *s->app;
    part.comm = world;
    const thaw_plan_request request = {
        .model = s->model,
        .trainable = plan->trainable,
        .max_batch = images_of(s, kind, world),
        .step_images = kind == THAW_WEAK ? s->batch : thaw_slices_most(1, s->global_batch, thaw_comm_size(world)),
        .optimizer_slots = 1,
    };
    *out = NULL;
    THAW_TRY(thaw_plan_compile(out, &request));
    return thaw_bench_fits(&part, *out);
}

/* What does not fit into memory is known before anything takes time. */
static thaw_status check_all(thaw_scaling *s) {
    for (int p = 0; p < s->n_plans; p++)
        for (int w = 0; w < s->n_worlds; w++)
            for (thaw_scaling_kind kind = THAW_STRONG; kind <= THAW_WEAK; kind++) {
                thaw_plan *plan = NULL;
                thaw_status status = THAW_OK;
                if (s->worlds[w] && has_point(s, kind, s->counts[w]))
                    status = compile(&plan, s, &s->plans[p], kind, s->worlds[w]);
                if (status == THAW_OK && plan) {
                    s->plans[p].trainable_params = plan->trainable_params;
                    s->plans[p].gradient_bytes = plan->gradient_bytes;
                    s->plans[p].full_gradient_bytes = plan->full_gradient_bytes;
                }
                thaw_plan_free(plan);
                THAW_TRY(thaw_comm_agree(s->app->comm, status));
            }
    return THAW_OK;
}

/* Seconds of a rank, from a point with one. */
static thaw_pace pace_of(const thaw_scaling_point *one, double add, bool half) {
    const thaw_step_phases *p = &one->phases;
    const double images = (double)one->images;
    return (thaw_pace){p->prefix / images, (p->forward + p->loss) / images, p->backward / images, p->update, add,
                       half};
}

/* One point on the ranks of its world. */
static thaw_status measure_here(thaw_scaling_point *point, const thaw_scaling *s, thaw_comm *world) {
    thaw_app part = *s->app;
    thaw_plan *plan = NULL;
    thaw_bench bench = {.app = &part, .repeat = s->repeat, .run_ahead = true, .exchange = s->exchange};
    part.comm = world;
    bench.batch = images_of(s, point->kind, world);
    thaw_status status = thaw_comm_agree(world, compile(&plan, s, &s->plans[point->plan], point->kind, world));
    if (status == THAW_OK)
        status = thaw_bench_step(&bench, s->model, plan);
    point->hosts = thaw_comm_hosts(world);
    point->step = bench.step;
    point->phases = bench.phases;
    point->handed = bench.handed;
    point->hidden = bench.hidden;
    double *means = &point->phases.prefix;
    if (status == THAW_OK)
        status = thaw_comm_sum(world, means, sizeof point->phases / sizeof *means);
    for (size_t i = 0; i < sizeof point->phases / sizeof *means; i++)
        means[i] /= (double)point->ranks;
    if (status == THAW_OK)
        status = thaw_comm_sum(world, &point->hidden, 1);
    point->hidden /= (double)point->ranks;
    thaw_bench_free(&bench);
    thaw_plan_free(plan);
    return status;
}

/* `one`: the point with one rank, which may be this one. Rank 0 is in every world, and knows the plan of its largest share. */
static thaw_status relate(thaw_scaling_point *point, const thaw_scaling_point *one, const thaw_scaling *s, double add) {
    const double alone = (double)one->images / one->step.median;
    point->efficiency = (double)point->images / point->step.median / (alone * (double)point->ranks);
    if (!s->has_network)
        return THAW_OK;
    thaw_plan *plan = NULL;
    const thaw_pace pace = pace_of(one, add, s->exchange == THAW_EXCHANGE_HALF);
    const double images = (double)((point->images + point->ranks - 1) / point->ranks);
    THAW_TRY(compile(&plan, s, &s->plans[point->plan], point->kind, s->worlds[0]));
    point->forecast = thaw_forecast_step(plan, &pace, images, point->ranks, &s->network);
    const double single = thaw_forecast_step(plan, &pace, (double)one->images, 1, &s->network).seconds;
    point->forecast_efficiency = (double)point->images / point->forecast.seconds * single /
                                 ((double)one->images * (double)point->ranks);
    thaw_plan_free(plan);
    return THAW_OK;
}

static void say(const thaw_scaling *s, const thaw_scaling_point *p) {
    if (s->app->root)
        thaw_info("%s, %s scaling, %d rank%s: %.2f images/s, efficiency %.2f", s->plans[p->plan].name,
                  thaw_scaling_names[p->kind], p->ranks, p->ranks == 1 ? "" : "s", thaw_scaling_rate(p), p->efficiency);
}

/* The strong point with one rank, where that is the weak one too; else NULL. */
static const thaw_scaling_point *strong_alone(const thaw_scaling *s, int plan) {
    for (int i = 0; i < s->n_points && s->batch == s->global_batch; i++)
        if (s->points[i].plan == plan)
            return &s->points[i];
    return NULL;
}

/* All points of a plan and kind. */
static thaw_status measure_line(thaw_scaling *s, int plan, thaw_scaling_kind kind, double add) {
    const thaw_scaling_point *one = &s->points[s->n_points];
    for (int w = 0; w < s->n_worlds; w++) {
        thaw_scaling_point *point = &s->points[s->n_points];
        thaw_status status = THAW_OK;
        if (!has_point(s, kind, s->counts[w]))
            continue;
        *point = (thaw_scaling_point){.kind = kind, .plan = plan, .ranks = s->counts[w]};
        point->images = kind == THAW_WEAK ? s->batch * point->ranks : s->global_batch;
        const thaw_scaling_point *same = kind == THAW_WEAK && w == 0 ? strong_alone(s, plan) : NULL;
        if (same) {
            *point = *same;
            point->kind = kind;
        } else if (s->worlds[w]) {
            status = measure_here(point, s, s->worlds[w]);
        }
        thaw_comm_rest(s->app->comm);
        THAW_TRY(thaw_comm_agree(s->app->comm, status));
        if (s->app->root)
            status = relate(point, one, s, add);
        THAW_TRY(thaw_comm_agree(s->app->comm, status));
        say(s, point);
        s->n_points++;
    }
    return THAW_OK;
}

thaw_status thaw_scaling_measure(thaw_scaling *s) {
    THAW_TRY(make_worlds(s));
    THAW_TRY(check_all(s));
    s->points = thaw_calloc((size_t)(2 * s->n_plans * s->n_worlds), sizeof *s->points);
    thaw_status status = s->points ? thaw_model_allocate(s->model) : no_memory();
    THAW_TRY(thaw_comm_agree(s->app->comm, status));
    thaw_model_initialize(s->model, 0);
    if (s->app->root && s->kinds[THAW_STRONG] && s->counts[s->n_worlds - 1] > s->global_batch)
        thaw_warn("strong scaling of %lld images ends at as many ranks: give a larger --global-batch for more",
                  (long long)s->global_batch);
    const double add = s->has_network ? thaw_pace_add() : 0.0;
    for (int plan = 0; plan < s->n_plans; plan++)
        for (thaw_scaling_kind kind = THAW_STRONG; kind <= THAW_WEAK; kind++)
            THAW_TRY(measure_line(s, plan, kind, add));
    return THAW_OK;
}

void thaw_scaling_free(thaw_scaling *s) {
    for (int w = 0; w < s->n_worlds; w++)
        thaw_comm_finalize(s->worlds[w]);
    for (int i = 0; i < s->n_plans; i++) {
        thaw_free(s->plans[i].name);
        thaw_free(s->plans[i].spec);
        thaw_free(s->plans[i].frozen);
        thaw_free(s->plans[i].trainable);
    }
    thaw_free(s->worlds);
    thaw_free(s->counts);
    thaw_free(s->plans);
    thaw_free(s->points);
}
