/* thaw plan JOB.yaml: what each stage will cost, from the same plans that training compiles; no weights, no images. */
#include <string.h>

#include "app.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "thaw/train.h"

/* What is said of one stage: its plan for the first rank count, memory for each, and the plan were nothing frozen. */
typedef struct stage_cost {
    const thaw_job_stage *stage;
    thaw_plan *plan, *full;
    char *frozen;     /* "frozen 0-14, first trained: 15 block5_conv1" */
    size_t *memory;   /* bytes per rank, for each rank count */
    int64_t *largest; /* images of a batch on one rank, for each rank count */
} stage_cost;

typedef struct cost {
    const thaw_job *job;
    thaw_model *model;
    int n_ranks;
    int64_t *ranks;
    stage_cost *stages; /* job->n_stages */
} cost;

static void free_cost(cost *c) {
    for (int s = 0; c->stages && s < c->job->n_stages; s++) {
        thaw_plan_free(c->stages[s].plan);
        thaw_plan_free(c->stages[s].full);
        thaw_free(c->stages[s].frozen);
        thaw_free(c->stages[s].memory);
        thaw_free(c->stages[s].largest);
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
        at->memory[i] = plan->memory_bytes;
        at->largest[i] = plan->max_batch;
        if (i == 0)
            at->plan = plan;
        else
            thaw_plan_free(plan);
    }
    THAW_TRY(plan_unfrozen(at, c, stage, batch_statistics));
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

static const char *boundary_name(const thaw_plan *plan, int i) {
    return plan->model->layers[plan->model->nodes[plan->boundary[i]].layer].name;
}

/* Payload that one rank sends a step when P ranks sum the gradients around a ring: 2 (P-1)/P of the block (Patarasuk and
 * Yuan 2009). */
static double ring_bytes(const thaw_plan *plan, int64_t ranks) {
    return 2.0 * (double)(ranks - 1) / (double)ranks * (double)plan->gradient_bytes;
}

static cJSON *memory_json(const thaw_plan_memory *m) {
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
    thaw_json_int(row, "memory_bytes_per_rank", (int64_t)plan->memory_bytes);
    thaw_json_int(row, "full_memory_bytes_per_rank", (int64_t)at->full->memory_bytes);
    cJSON_AddItemToObject(row, "memory", memory_json(&plan->memory));
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
    cJSON *list = cJSON_AddArrayToObject(row, "by_ranks");
    for (int i = 0; i < c->n_ranks; i++) {
        cJSON *one = cJSON_CreateObject();
        cJSON_AddItemToArray(list, one);
        thaw_json_int(one, "ranks", c->ranks[i]);
        thaw_json_int(one, "images_per_rank", at->largest[i]);
        thaw_json_int(one, "memory_bytes_per_rank", (int64_t)at->memory[i]);
        cJSON_AddNumberToObject(one, "ring_bytes_per_step", ring_bytes(plan, c->ranks[i]));
    }
    return row;
}

static cJSON *plan_json(const cost *c) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", c->model->name);
    thaw_json_int(object, "total_params", c->stages[0].plan->total_params);
    thaw_json_int(object, "batch_size", c->job->batch_size);
    thaw_json_int(object, "ranks", c->ranks[0]);
    cJSON *stages = cJSON_AddArrayToObject(object, "stages");
    for (int s = 0; s < c->job->n_stages; s++)
        cJSON_AddItemToArray(stages, stage_json(c, &c->stages[s]));
    return object;
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
    thaw_buffer_printf(text, "  memory were nothing frozen: %s on each of %lld rank%s\n",
                       thaw_megabytes(&a, (double)at->full->memory_bytes), (long long)c->ranks[0],
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

/* --ranks, or the ranks that run this command. */
static thaw_status read_ranks(cost *c, const thaw_app *app, const thaw_arguments *given) {
    const char *text = thaw_arguments_value(given, "ranks", NULL);
    if (text)
        return thaw_numbers_parse(&c->ranks, &c->n_ranks, text, 1, 1 << 20, "--ranks");
    c->ranks = thaw_calloc(1, sizeof *c->ranks);
    if (!c->ranks)
        return thaw_fail(THAW_RESOURCE, "not enough memory for a plan");
    c->ranks[0] = thaw_comm_size(app->comm);
    c->n_ranks = 1;
    return THAW_OK;
}

static thaw_status check_options(const thaw_arguments *given) {
    static const char *const of_sbatch[] = {"ranks-per-node", "cpus-per-task"};
    const bool sbatch = thaw_arguments_has(given, "sbatch");
    for (size_t i = 0; i < sizeof of_sbatch / sizeof *of_sbatch && !sbatch; i++)
        if (thaw_arguments_has(given, of_sbatch[i]))
            return thaw_fail(THAW_USAGE, "plan: --%s belongs to --sbatch; add it", of_sbatch[i]);
    if (sbatch && thaw_arguments_has(given, "json"))
        return thaw_fail(THAW_USAGE, "plan: --sbatch and --json are two forms of the result; give one");
    if (sbatch && strchr(thaw_arguments_value(given, "ranks", ""), ','))
        return thaw_fail(THAW_USAGE, "plan: --sbatch is for one number of ranks, found --ranks %s",
                         thaw_arguments_value(given, "ranks", ""));
    return THAW_OK;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    thaw_job *job = NULL;
    cost c = {0};
    THAW_TRY(check_options(given));
    THAW_TRY(thaw_app_job(&job, app, given));
    c.job = job;
    thaw_status status = THAW_OK;
    THAW_GOTO(thaw_comm_agree(app->comm, read_ranks(&c, app, given)));
    THAW_GOTO(thaw_app_threads(app, 0, false)); /* scratch memory of kernels depends on threads */
    THAW_GOTO(thaw_job_model(&c.model, app->comm, job, false));
    THAW_GOTO(thaw_comm_agree(app->comm, plan_all(&c)));
    if (app->root)
        status = print(app, &c, given);
out:
    free_cost(&c);
    thaw_job_free(job);
    return status;
}

static const thaw_option options[] = {
    {"ranks", "1,2,4,8", false, "rank counts to compare (default: the ranks that run this command)"},
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
    .summary = "what a job will cost in each stage, before it runs: parameters, FLOP, memory, bytes exchanged",
    .details = "Reads neither weights nor images. FLOP are counted per image, a multiply-add as 2.\n"
               "Sent a rank and step: payload of summing the gradients around a ring, 2 (P-1)/P of their bytes.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
