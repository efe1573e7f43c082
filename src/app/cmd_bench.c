/* thaw bench: images per second of a network, forward and in training under a freeze spec. */
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/threads.h"
#include "bench.h"
#include "graph/freeze.h"
#include "kernels/kernels.h"
#include "thaw/train.h"
#include "train/head.h"
#include "train/optimizer.h"

/* What is behind the figures: the network of the steps and how it was cut by the freeze spec. */
typedef struct subject {
    thaw_model *model; /* of the steps */
    thaw_plan *plan;
    bool *trainable;
    int n_given;         /* layers of the network as given; the rest is the head that was added */
    double *layer_gflop; /* forward, per image */
    char *frozen, *machine;
} subject;

/* Processor's name; falls back to the architecture that the program was built for. */
static char *machine_name(void) {
    void *bytes = NULL;
    size_t size = 0;
    char *name = NULL;
    if (thaw_io_read(&bytes, &size, "/proc/cpuinfo", 0) == THAW_OK) {
        const char *line = strstr(bytes, "model name"), *colon = line ? strchr(line, ':') : NULL;
        if (colon) {
            colon += strspn(colon, ": \t");
            name = thaw_strndup(colon, strcspn(colon, "\n"));
        }
    }
    thaw_free(bytes);
    return name ? name : thaw_strdup("unknown processor");
}

/* A base without top has a map for output; its steps train what a fine-tuned network has behind it. */
static thaw_status add_head(thaw_model *model) {
    static thaw_job_argument arguments[] = {{.key = (char *)"units", .text = (char *)"10"},
                                            {.key = (char *)"activation", .text = (char *)"softmax"}};
    static thaw_job_layer head[] = {{.class_name = (char *)"GlobalAveragePooling2D"},
                                    {.class_name = (char *)"Dense", .n_arguments = 2, .arguments = arguments}};
    const thaw_job job = {.path = (char *)"bench", .n_head = 2, .head = head};
    if (model->nodes[model->output].shape.rank != 3)
        return THAW_OK;
    return thaw_head_append(model, &job);
}

/* Multiply-adds of convolutions and dense layers, 2 FLOP each. */
static void count_flop(subject *s) {
    for (int i = 0; i < s->model->n_nodes; i++) {
        const thaw_node *node = &s->model->nodes[i];
        const thaw_layer *layer = &s->model->layers[node->layer];
        if (layer->kind != THAW_LAYER_CONV2D && layer->kind != THAW_LAYER_DENSE)
            continue;
        const double cells = node->shape.rank == 3 ? (double)(node->shape.dim[0] * node->shape.dim[1]) : 1.0;
        s->layer_gflop[node->layer] += 2e-9 * cells * (double)layer->tensors[0].count;
    }
}

static void free_subject(subject *s) {
    thaw_plan_free(s->plan);
    thaw_free(s->trainable);
    thaw_free(s->layer_gflop);
    thaw_free(s->frozen);
    thaw_free(s->machine);
    thaw_model_free(s->model);
}

/* Adds the head to s->model and plans its steps as --freeze says. `weights`: gives it memory and values. */
static thaw_status make_subject(subject *s, const thaw_bench *bench, const thaw_arguments *given, bool weights) {
    const thaw_job_optimizer sgd = {.kind = THAW_SGD, .momentum = 0.9};
    s->n_given = s->model->n_layers;
    THAW_TRY(add_head(s->model));
    if (weights) {
        THAW_TRY(thaw_model_allocate(s->model));
        thaw_model_initialize(s->model, 0);
    }
    THAW_TRY(thaw_app_freeze(&s->trainable, given, s->model, "none"));
    const thaw_plan_request request = {
        .model = s->model,
        .trainable = s->trainable,
        .max_batch = bench->batch,
        .optimizer_slots = thaw_optimizer_slots(&sgd),
    };
    THAW_TRY(thaw_plan_compile(&s->plan, &request));
    THAW_TRY(thaw_bench_fits(bench->app, s->plan));
    s->layer_gflop = thaw_calloc((size_t)s->model->n_layers, sizeof *s->layer_gflop);
    s->frozen = thaw_strdup(thaw_freeze_describe(s->trainable, s->model));
    s->machine = machine_name();
    if (!s->layer_gflop || !s->frozen || !s->machine)
        return thaw_fail(THAW_RESOURCE, "not enough memory for the measurement");
    count_flop(s);
    return THAW_OK;
}

static double images_per_second(const thaw_bench *bench, double seconds) {
    return (double)bench->batch * thaw_comm_size(bench->app->comm) / seconds;
}

static cJSON *timing_json(cJSON *object, const char *key, const thaw_bench *bench, const thaw_timing *t) {
    cJSON *part = cJSON_AddObjectToObject(object, key);
    cJSON_AddNumberToObject(part, "seconds", t->median);
    cJSON_AddNumberToObject(part, "images_per_second", images_per_second(bench, t->median));
    cJSON_AddNumberToObject(part, "min", t->least);
    cJSON_AddNumberToObject(part, "max", t->most);
    return part;
}

static cJSON *layer_json(const thaw_bench *bench, const subject *s, int i, double all) {
    const thaw_layer *layer = &s->model->layers[i];
    cJSON *row = cJSON_CreateObject();
    thaw_json_int(row, "index", layer->list_index);
    cJSON_AddStringToObject(row, "name", layer->name);
    cJSON_AddStringToObject(row, "class", thaw_layer_class(layer->kind));
    cJSON_AddItemToObject(row, "output_shape", thaw_json_shape(thaw_layer_shape(s->model, i)));
    cJSON_AddBoolToObject(row, "trainable", s->trainable[i]);
    cJSON_AddNumberToObject(row, "forward_gflop", s->layer_gflop[i]);
    if (!bench->has_layers)
        return row;
    if (i < s->n_given) {
        cJSON_AddNumberToObject(row, "forward_seconds", bench->layer_forward[i]);
        cJSON_AddNumberToObject(row, "forward_share", all > 0.0 ? bench->layer_forward[i] / all : 0.0);
    }
    cJSON_AddNumberToObject(row, "step_forward_seconds", bench->layer_step[i]);
    cJSON_AddNumberToObject(row, "step_backward_seconds", bench->layer_backward[i]);
    return row;
}

/* Seconds of the forward pass that operations took, and its GFLOP. */
static double forward_seconds(const thaw_bench *bench, const subject *s) {
    double all = 0.0;
    for (int i = 0; bench->has_layers && i < s->n_given; i++)
        all += bench->layer_forward[i];
    return all;
}

static double forward_gflop(const subject *s) {
    double all = 0.0;
    for (int i = 0; i < s->n_given; i++)
        all += s->layer_gflop[i];
    return all;
}

static thaw_status print_json(const thaw_bench *bench, const subject *s, int threads) {
    const thaw_comm *comm = bench->app->comm;
    const thaw_step_phases *p = &bench->phases;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "version", THAW_VERSION);
    cJSON_AddStringToObject(object, "model", s->model->origin ? s->model->origin : s->model->name);
    cJSON_AddItemToObject(object, "input_shape", thaw_json_shape(&s->model->nodes[s->model->input].shape));
    cJSON_AddStringToObject(object, "machine", s->machine);
    thaw_json_int(object, "cores", bench->app->cores);
    cJSON_AddStringToObject(object, "kernels", thaw_kernels_describe());
    cJSON_AddStringToObject(object, "mpi", thaw_comm_library(comm));
    thaw_json_int(object, "ranks", thaw_comm_size(comm));
    thaw_json_int(object, "hosts", thaw_comm_hosts(comm));
    thaw_json_int(object, "threads", threads);
    thaw_json_int(object, "batch", bench->batch);
    thaw_json_int(object, "global_batch", bench->batch * thaw_comm_size(comm));
    thaw_json_int(object, "repeat", bench->repeat);

    cJSON *forward = timing_json(object, "forward", bench, &bench->forward);
    cJSON_AddNumberToObject(forward, "gflop_per_image", forward_gflop(s));
    cJSON_AddNumberToObject(forward, "gflop_per_second", forward_gflop(s) * images_per_second(bench, bench->forward.median));

    cJSON *step = timing_json(object, "step", bench, &bench->step);
    cJSON_AddStringToObject(step, "freeze", s->frozen);
    thaw_json_int(step, "trainable_params", s->plan->trainable_params);
    thaw_json_int(step, "non_trainable_params", s->plan->frozen_params);
    thaw_json_int(step, "gradient_bytes", s->plan->gradient_bytes);
    thaw_json_int(step, "memory_bytes_per_rank", (int64_t)s->plan->memory_bytes);
    cJSON_AddNumberToObject(step, "forward_gflop", s->plan->forward_flop * 1e-9);
    cJSON_AddNumberToObject(step, "backward_gflop", s->plan->backward_flop * 1e-9);
    cJSON *phases = cJSON_AddObjectToObject(step, "phases");
    cJSON_AddNumberToObject(phases, "prefix", p->prefix);
    cJSON_AddNumberToObject(phases, "forward", p->forward);
    cJSON_AddNumberToObject(phases, "loss", p->loss);
    cJSON_AddNumberToObject(phases, "backward", p->backward);
    cJSON_AddNumberToObject(phases, "exchange", p->exchange);
    cJSON_AddNumberToObject(phases, "update", p->update);

    cJSON *layers = cJSON_AddArrayToObject(object, "layers");
    for (int i = 0; i < s->model->n_layers; i++)
        if (s->model->layers[i].listed)
            cJSON_AddItemToArray(layers, layer_json(bench, s, i, forward_seconds(bench, s)));
    return thaw_app_print_json(bench->app, object);
}

static void put_timing(thaw_buffer *text, const char *name, const thaw_bench *bench, const thaw_timing *t) {
    thaw_buffer_printf(text, "%-8s %10.2f images/s   %10.2f ms (%.2f to %.2f)\n", name, images_per_second(bench, t->median),
                       1e3 * t->median, 1e3 * t->least, 1e3 * t->most);
}

static thaw_status print_text(const thaw_bench *bench, const subject *s, int threads) {
    const thaw_step_phases *p = &bench->phases;
    const int ranks = thaw_comm_size(bench->app->comm);
    const double all = forward_seconds(bench, s);
    thaw_buffer text = {0};
    thaw_words a, b;
    int width = 5;
    thaw_buffer_printf(&text, "%s %s on %s\n", s->model->origin ? s->model->origin : s->model->name,
                       thaw_shape_words(&a, &s->model->nodes[s->model->input].shape), s->machine);
    thaw_buffer_printf(&text, "%d rank%s x %d thread%s, %lld images a rank, median of %lld (least to most)\n", ranks,
                       ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", (long long)bench->batch,
                       (long long)bench->repeat);
    put_timing(&text, "forward", bench, &bench->forward);
    put_timing(&text, "step", bench, &bench->step);
    thaw_buffer_printf(&text, "forward  %.2f GFLOP an image, %.1f GFLOP/s\n", forward_gflop(s),
                       forward_gflop(s) * images_per_second(bench, bench->forward.median));
    thaw_buffer_printf(&text, "step     %s; %s parameters train, %s of gradients\n", s->frozen,
                       thaw_commas(&a, s->plan->trainable_params), thaw_megabytes(&b, (double)s->plan->gradient_bytes));
    thaw_buffer_printf(&text, "step     prefix %.2f, forward %.2f, loss %.2f, backward %.2f, exchange %.2f, update %.2f ms\n",
                       1e3 * p->prefix, 1e3 * p->forward, 1e3 * p->loss, 1e3 * p->backward, 1e3 * p->exchange,
                       1e3 * p->update);
    if (!bench->has_layers)
        return thaw_app_print_buffer(bench->app, &text);
    for (int i = 0; i < s->model->n_layers; i++)
        width = (int)strlen(s->model->layers[i].name) > width ? (int)strlen(s->model->layers[i].name) : width;
    thaw_buffer_printf(&text, "\n%-*s  %-22s %10s %10s %6s %12s %12s\n", width, "layer", "class", "GFLOP", "forward ms", "%",
                       "step fwd ms", "step bwd ms");
    for (int i = 0; i < s->model->n_layers; i++) {
        const double forward = i < s->n_given ? bench->layer_forward[i] : 0.0;
        if (forward + bench->layer_step[i] + bench->layer_backward[i] <= 0.0)
            continue; /* fused into the layer before, or a name only */
        thaw_buffer_printf(&text, "%-*s  %-22s %10.4f %10.3f %6.1f %12.3f %12.3f\n", width, s->model->layers[i].name,
                           thaw_layer_class(s->model->layers[i].kind), s->layer_gflop[i], 1e3 * forward,
                           all > 0.0 ? 100.0 * forward / all : 0.0, 1e3 * bench->layer_step[i],
                           1e3 * bench->layer_backward[i]);
    }
    return thaw_app_print_buffer(bench->app, &text);
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *name = thaw_arguments_value(given, "model", "vgg16");
    int64_t threads = 0;
    thaw_bench bench = {.app = app, .batch = 16, .repeat = 5};
    thaw_builtin_options options;
    subject s = {0};
    THAW_TRY(thaw_arguments_int(&bench.batch, given, "batch", 1, 65536));
    THAW_TRY(thaw_arguments_int(&bench.repeat, given, "repeat", 1, 100000));
    THAW_TRY(thaw_arguments_int(&threads, given, "threads", 1, 4096));
    THAW_TRY(thaw_app_builtin(&options, given, name));
    THAW_TRY(thaw_app_threads(app, (int)threads, true));
    /* The structure alone tells what is wrong with --freeze or too large, before anything takes time or memory. */
    subject bare = {0};
    thaw_status status = thaw_named_model(&bare.model, app->comm, name, &options, NULL);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, make_subject(&bare, &bench, given, false));
    free_subject(&bare);
    if (status == THAW_OK)
        status = thaw_named_model(&s.model, app->comm, name, &options, "none");
    if (status == THAW_OK)
        status = thaw_bench_forward(&bench, s.model);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, make_subject(&s, &bench, given, true));
    if (status == THAW_OK)
        status = thaw_bench_step(&bench, s.model, s.plan);
    if (status == THAW_OK && app->root)
        status = thaw_arguments_has(given, "json") ? print_json(&bench, &s, thaw_threads())
                                                   : print_text(&bench, &s, thaw_threads());
    thaw_bench_free(&bench);
    free_subject(&s);
    return status;
}

static const thaw_option options_table[] = {
    {"model", "MODEL", false, "a built-in name or a Keras .h5 file (default: vgg16)"},
    THAW_OPTION_NO_TOP,
    THAW_OPTION_INPUT_SHAPE,
    {"freeze", "SPEC", true, "freeze of the training steps, as in a job; in order (default: none)"},
    {"batch", "N", false, "images on each rank (default: 16)"},
    {"threads", "T", false, "threads of each rank (default: OMP_NUM_THREADS, else its cores)"},
    {"repeat", "R", false, "measured runs, after one that is not (default: 5)"},
    THAW_OPTION_JSON,
};
const thaw_command thaw_command_bench = {
    .name = "bench",
    .positional = "",
    .summary = "speed of a network: forward passes and training steps, by layer; scaling under mpirun",
    .details = "Random weights and images, moving statistics, no cache. forward: inference of the network as given. step:\n"
               "prefix, forward, loss, backward, exchange of gradients, SGD with momentum; a network that ends in a map gets\n"
               "GlobalAveragePooling2D and Dense(10, softmax) for its steps. Seconds are the slowest rank's; layers are\n"
               "those of rank 0, and a layer that is fused into the one before it is counted there.",
    .options = options_table,
    .n_options = sizeof options_table / sizeof *options_table,
    .run = run,
};
