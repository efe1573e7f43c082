/* thaw bench: images per second of a network, forward and in training under a freeze spec, or of the input alone. */
#include <stdio.h>
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
    char *frozen;
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

/* Cores of this rank's affinity mask: "0-3,8". */
static char *core_list(void) {
    enum { WORDS = 128 };
    static uint64_t mask[WORDS];
    thaw_buffer text = {0};
    thaw_threads_mask(mask, WORDS);
    for (int core = 0; core < 64 * WORDS; core++) {
        if (!(mask[core / 64] >> core % 64 & 1))
            continue;
        int last = core;
        while (last + 1 < 64 * WORDS && mask[(last + 1) / 64] >> (last + 1) % 64 & 1)
            last++;
        thaw_buffer_printf(&text, text.size ? ",%d" : "%d", core);
        if (last > core)
            thaw_buffer_printf(&text, "-%d", last);
        core = last;
    }
    char *list = text.failed ? NULL : thaw_strndup(text.data ? text.data : "", text.size);
    thaw_buffer_free(&text);
    return list;
}

#ifdef __clang__
static const char compiler[] = "Clang " __clang_version__;
#else
static const char compiler[] = "GCC " __VERSION__;
#endif

/* Where and with what it was measured. */
typedef struct surroundings {
    char *machine, *cores;
} surroundings;

static thaw_status set_scene(surroundings *s) {
    *s = (surroundings){machine_name(), core_list()};
    return s->machine && s->cores ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to describe this machine");
}

static void free_scene(surroundings *s) {
    thaw_free(s->machine);
    thaw_free(s->cores);
}

static void scene_json(cJSON *object, const surroundings *s, const thaw_app *app) {
    cJSON_AddStringToObject(object, "version", THAW_VERSION);
    cJSON_AddStringToObject(object, "machine", s->machine);
    cJSON_AddStringToObject(object, "host", thaw_comm_host(app->comm));
    thaw_json_int(object, "cores", app->cores);
    cJSON_AddStringToObject(object, "affinity", s->cores);
    cJSON_AddStringToObject(object, "kernels", thaw_kernels_describe());
    cJSON_AddStringToObject(object, "mpi", thaw_comm_library(app->comm));
    cJSON *versions = cJSON_AddObjectToObject(object, "versions");
    cJSON_AddStringToObject(versions, "thaw", THAW_VERSION);
    cJSON_AddStringToObject(versions, "openblas", thaw_kernels_blas());
    cJSON_AddStringToObject(versions, "compiler", compiler);
    thaw_json_int(object, "ranks", thaw_comm_size(app->comm));
    thaw_json_int(object, "hosts", thaw_comm_hosts(app->comm));
}

static void put_scene(thaw_buffer *text, const surroundings *s) {
    thaw_buffer_printf(text, "cpus %s; thaw %s, %s; %s\n", s->cores, THAW_VERSION, compiler, thaw_kernels_describe());
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
    if (!s->layer_gflop || !s->frozen)
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

/* GFLOP/s of a layer on rank 0, and their share of its peak; both 0 where nothing is known. */
typedef struct rate {
    double gflops, share;
} rate;

static rate rate_of(const thaw_bench *bench, double gflop_per_image, double seconds) {
    rate r = {0.0, 0.0};
    if (seconds > 0.0)
        r.gflops = gflop_per_image * (double)bench->batch / seconds;
    if (bench->peak > 0.0)
        r.share = r.gflops * 1e9 / bench->peak;
    return r;
}

/* Per image, of the gradients that a step computes; a product each. */
static double backward_gflop(const thaw_bench *bench, const subject *s, int i) {
    const bool *wants = bench->costs[i].wants;
    return s->layer_gflop[i] * ((wants[THAW_BACKWARD_DATA] ? 1.0 : 0.0) + (wants[THAW_BACKWARD_WEIGHTS] ? 1.0 : 0.0));
}

/* Seconds of the inference pass, or of a step's forward pass for layers of the added head. */
static double layer_seconds(const thaw_bench *bench, const subject *s, int i) {
    return i < s->n_given ? bench->layer_forward[i] : bench->layer_step[i];
}

static cJSON *layer_json(const thaw_bench *bench, const subject *s, int i, double all) {
    const thaw_layer *layer = &s->model->layers[i];
    const thaw_layer_cost *cost = &bench->costs[i];
    cJSON *row = cJSON_CreateObject();
    thaw_json_int(row, "index", layer->list_index);
    cJSON_AddStringToObject(row, "name", layer->name);
    cJSON_AddStringToObject(row, "class", thaw_layer_class(layer->kind));
    cJSON_AddItemToObject(row, "output_shape", thaw_json_shape(thaw_layer_shape(s->model, i)));
    cJSON_AddBoolToObject(row, "trainable", s->trainable[i]);
    cJSON_AddNumberToObject(row, "forward_gflop", s->layer_gflop[i]);
    if (cost->algorithm[THAW_FORWARD]) {
        cJSON_AddStringToObject(row, "algorithm", cost->algorithm[THAW_FORWARD]);
        cJSON_AddStringToObject(row, "data_gradient_algorithm", cost->algorithm[THAW_BACKWARD_DATA]);
        cJSON_AddStringToObject(row, "weight_gradient_algorithm", cost->algorithm[THAW_BACKWARD_WEIGHTS]);
    } else {
        cJSON_AddNullToObject(row, "algorithm");
    }
    cJSON_AddNumberToObject(row, "bytes", cost->bytes);
    cJSON_AddNumberToObject(row, "backward_gflop", backward_gflop(bench, s, i));
    if (!bench->has_layers)
        return row;
    const rate forward = rate_of(bench, s->layer_gflop[i], layer_seconds(bench, s, i));
    const rate backward = rate_of(bench, backward_gflop(bench, s, i), bench->layer_backward[i]);
    if (i < s->n_given) {
        cJSON_AddNumberToObject(row, "forward_seconds", bench->layer_forward[i]);
        cJSON_AddNumberToObject(row, "forward_share", all > 0.0 ? bench->layer_forward[i] / all : 0.0);
    }
    cJSON_AddNumberToObject(row, "gflops", forward.gflops);
    cJSON_AddNumberToObject(row, "peak_share", forward.share);
    cJSON_AddNumberToObject(row, "step_forward_seconds", bench->layer_step[i]);
    cJSON_AddNumberToObject(row, "step_backward_seconds", bench->layer_backward[i]);
    cJSON_AddNumberToObject(row, "backward_gflops", backward.gflops);
    cJSON_AddNumberToObject(row, "backward_peak_share", backward.share);
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

/* GFLOP/s over all ranks, and their share of all ranks' peaks. */
static void rate_json(cJSON *part, const thaw_bench *bench, double gflop_per_image, double seconds) {
    const double gflops = gflop_per_image * images_per_second(bench, seconds);
    cJSON_AddNumberToObject(part, "gflop_per_second", gflops);
    cJSON_AddNumberToObject(part, "peak_share", gflops * 1e9 / bench->peak_all);
}

static double step_gflop(const subject *s) { return (s->plan->forward_flop + s->plan->backward_flop) * 1e-9; }

static void check_json(cJSON *object, const thaw_check *check) {
    cJSON *part = cJSON_AddObjectToObject(object, "check");
    thaw_json_int(part, "shapes", check->shapes);
    cJSON_AddNumberToObject(part, "forward_error", check->error[THAW_FORWARD]);
    cJSON_AddNumberToObject(part, "data_gradient_error", check->error[THAW_BACKWARD_DATA]);
    cJSON_AddNumberToObject(part, "weight_gradient_error", check->error[THAW_BACKWARD_WEIGHTS]);
    cJSON_AddNumberToObject(part, "bound", THAW_CHECK_BOUND);
}

static thaw_status print_json(const thaw_bench *bench, const subject *s, const surroundings *scene, int threads) {
    const thaw_comm *comm = bench->app->comm;
    const thaw_step_phases *p = &bench->phases;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", s->model->origin ? s->model->origin : s->model->name);
    cJSON_AddItemToObject(object, "input_shape", thaw_json_shape(&s->model->nodes[s->model->input].shape));
    scene_json(object, scene, bench->app);
    thaw_json_int(object, "threads", threads);
    thaw_json_int(object, "batch", bench->batch);
    thaw_json_int(object, "global_batch", bench->batch * thaw_comm_size(comm));
    thaw_json_int(object, "repeat", bench->repeat);
    cJSON *peak = cJSON_AddObjectToObject(object, "peak");
    cJSON_AddNumberToObject(peak, "gflop_per_second", bench->peak_all * 1e-9);
    cJSON_AddNumberToObject(peak, "gflop_per_second_of_rank_0", bench->peak * 1e-9);
    check_json(object, &bench->check);

    cJSON *forward = timing_json(object, "forward", bench, &bench->forward);
    cJSON_AddNumberToObject(forward, "gflop_per_image", forward_gflop(s));
    rate_json(forward, bench, forward_gflop(s), bench->forward.median);

    cJSON *step = timing_json(object, "step", bench, &bench->step);
    cJSON_AddStringToObject(step, "freeze", s->frozen);
    thaw_json_int(step, "trainable_params", s->plan->trainable_params);
    thaw_json_int(step, "non_trainable_params", s->plan->frozen_params);
    thaw_json_int(step, "gradient_bytes", s->plan->gradient_bytes);
    thaw_json_int(step, "memory_bytes_per_rank", (int64_t)s->plan->memory_bytes);
    cJSON_AddNumberToObject(step, "forward_gflop", s->plan->forward_flop * 1e-9);
    cJSON_AddNumberToObject(step, "backward_gflop", s->plan->backward_flop * 1e-9);
    rate_json(step, bench, step_gflop(s), bench->step.median);
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

static void put_timing(thaw_buffer *text, const char *name, const thaw_bench *bench, const thaw_timing *t, double gflop) {
    const double gflops = gflop * images_per_second(bench, t->median);
    thaw_buffer_printf(text, "%-8s %9.2f images/s  %9.2f ms (%.2f to %.2f)  %.2f GFLOP an image, %.0f GFLOP/s, %.0f %% of peak\n",
                       name, images_per_second(bench, t->median), 1e3 * t->median, 1e3 * t->least, 1e3 * t->most, gflop, gflops,
                       1e11 * gflops / bench->peak_all);
}

static void put_check(thaw_buffer *text, const thaw_bench *bench) {
    const thaw_check *c = &bench->check;
    if (!c->shapes)
        thaw_buffer_printf(text, "check    none: the reference kernels are in force\n");
    else
        thaw_buffer_printf(text, "check    %d shapes against the reference: relative L2 error to %.1e forward, %.1e and %.1e "
                                 "gradients\n", c->shapes, c->error[THAW_FORWARD], c->error[THAW_BACKWARD_DATA],
                           c->error[THAW_BACKWARD_WEIGHTS]);
}

/* "97.3", or nothing where no multiply-adds are counted. */
static const char *number_words(thaw_words *words, double value) {
    words->text[0] = 0;
    if (value > 0.0)
        snprintf(words->text, sizeof words->text, "%.1f", value);
    return words->text;
}

/* "Conv2D winograd" */
static const char *kind_words(thaw_words *words, const thaw_bench *bench, const subject *s, int i) {
    const char *algorithm = bench->costs[i].algorithm[THAW_FORWARD];
    snprintf(words->text, sizeof words->text, "%s%s%s", thaw_layer_class(s->model->layers[i].kind), algorithm ? " " : "",
             algorithm ? algorithm : "");
    return words->text;
}

static bool is_shown(const thaw_bench *bench, const subject *s, int i) {
    return layer_seconds(bench, s, i) + bench->layer_step[i] + bench->layer_backward[i] > 0.0;
}

/* One line a layer, but for those that are fused into the one before or only rename. */
static void put_layers(thaw_buffer *text, const thaw_bench *bench, const subject *s) {
    enum { MOST_WIDTH = 27 }; /* of a name, so that a line has at most 120 columns */
    const double all = forward_seconds(bench, s);
    thaw_words kind, a, b, c;
    int width = 5, kinds = 5;
    for (int i = 0; i < s->model->n_layers; i++) {
        const int name = (int)strlen(s->model->layers[i].name), length = (int)strlen(kind_words(&kind, bench, s, i));
        width = is_shown(bench, s, i) && name > width ? name : width;
        kinds = is_shown(bench, s, i) && length > kinds ? length : kinds;
    }
    width = width < MOST_WIDTH ? width : MOST_WIDTH;
    thaw_buffer_printf(text, "\n%-*s %-*s %7s %8s %5s %7s %6s %7s %8s %8s %6s\n", width, "layer", kinds, "class", "GFLOP", "ms",
                       "%", "GFLOP/s", "peak %", "MB", "step fwd", "step bwd", "peak %");
    for (int i = 0; i < s->model->n_layers; i++) {
        if (!is_shown(bench, s, i))
            continue;
        const char *name = s->model->layers[i].name;
        const int length = (int)strlen(name);
        const double forward = i < s->n_given ? bench->layer_forward[i] : 0.0;
        const rate ahead = rate_of(bench, s->layer_gflop[i], layer_seconds(bench, s, i));
        const rate back = rate_of(bench, backward_gflop(bench, s, i), bench->layer_backward[i]);
        thaw_buffer_printf(text, "%-*s %-*s %7.3f %8.2f %5.1f %7s %6s %7.1f %8.2f %8.2f %6s\n", width,
                           length > width ? name + length - width : name, kinds, kind_words(&kind, bench, s, i),
                           s->layer_gflop[i], 1e3 * forward, all > 0.0 ? 100.0 * forward / all : 0.0,
                           number_words(&a, ahead.gflops), number_words(&b, 100.0 * ahead.share),
                           1e-6 * bench->costs[i].bytes, 1e3 * bench->layer_step[i], 1e3 * bench->layer_backward[i],
                           number_words(&c, 100.0 * back.share));
    }
    thaw_buffer_printf(text, "\nms, step fwd, step bwd: milliseconds of a batch. MB: inputs, output and weights of the inference "
                             "pass.\npeak %%: of multiply-adds alone on these threads, counted as direct products; Winograd "
                             "makes fewer and may pass 100.\n");
}

static thaw_status print_text(const thaw_bench *bench, const subject *s, const surroundings *scene, int threads) {
    const thaw_step_phases *p = &bench->phases;
    const int ranks = thaw_comm_size(bench->app->comm);
    thaw_buffer text = {0};
    thaw_words a, b;
    thaw_buffer_printf(&text, "%s %s on %s\n", s->model->origin ? s->model->origin : s->model->name,
                       thaw_shape_words(&a, &s->model->nodes[s->model->input].shape), scene->machine);
    put_scene(&text, scene);
    thaw_buffer_printf(&text, "%d rank%s x %d thread%s, %lld images a rank, median of %lld (least to most)\n", ranks,
                       ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", (long long)bench->batch,
                       (long long)bench->repeat);
    thaw_buffer_printf(&text, "peak     %.1f GFLOP/s of multiply-adds alone\n", 1e-9 * bench->peak_all);
    put_check(&text, bench);
    put_timing(&text, "forward", bench, &bench->forward, forward_gflop(s));
    put_timing(&text, "step", bench, &bench->step, step_gflop(s));
    thaw_buffer_printf(&text, "step     %s; %s parameters train, %s of gradients\n", s->frozen,
                       thaw_commas(&a, s->plan->trainable_params), thaw_megabytes(&b, (double)s->plan->gradient_bytes));
    thaw_buffer_printf(&text, "step     prefix %.2f, forward %.2f, loss %.2f, backward %.2f, exchange %.2f, update %.2f ms\n",
                       1e3 * p->prefix, 1e3 * p->forward, 1e3 * p->loss, 1e3 * p->backward, 1e3 * p->exchange,
                       1e3 * p->update);
    if (bench->has_layers)
        put_layers(&text, bench, s);
    return thaw_app_print_buffer(bench->app, &text);
}

static thaw_status print_input(const thaw_bench *bench, const thaw_model *model, const thaw_bench_input *in,
                               const surroundings *scene, const char *data, bool json) {
    const double images = (double)in->images;
    const thaw_timing *t = &in->pass;
    const int ranks = thaw_comm_size(bench->app->comm);
    if (json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "data", data);
        cJSON_AddItemToObject(object, "input_shape", thaw_json_shape(&model->nodes[model->input].shape));
        scene_json(object, scene, bench->app);
        thaw_json_int(object, "threads", in->threads);
        thaw_json_int(object, "batch", in->batch);
        thaw_json_int(object, "repeat", bench->repeat);
        cJSON *part = cJSON_AddObjectToObject(object, "input");
        cJSON_AddNumberToObject(part, "images_per_second", images / t->median);
        cJSON_AddNumberToObject(part, "seconds", t->median);
        cJSON_AddNumberToObject(part, "min", t->least);
        cJSON_AddNumberToObject(part, "max", t->most);
        thaw_json_int(part, "images", in->images);
        thaw_json_int(part, "samples", in->samples);
        cJSON_AddStringToObject(part, "preprocess", thaw_preprocess_name(in->preprocess));
        return thaw_app_print_json(bench->app, object);
    }
    thaw_buffer text = {0};
    thaw_words a;
    thaw_buffer_printf(&text, "%s to %s, preprocess %s, on %s\n", data,
                       thaw_shape_words(&a, &model->nodes[model->input].shape), thaw_preprocess_name(in->preprocess),
                       scene->machine);
    put_scene(&text, scene);
    thaw_buffer_printf(&text, "%d rank%s x %d decoding thread%s, %lld images a batch, %lld of %lld images a pass, median of %lld\n",
                       ranks, ranks == 1 ? "" : "s", in->threads, in->threads == 1 ? "" : "s", (long long)in->batch,
                       (long long)in->images, (long long)in->samples, (long long)bench->repeat);
    thaw_buffer_printf(&text, "input    %9.1f images/s (%.1f to %.1f)\n", images / t->median, images / t->most,
                       images / t->least);
    return thaw_app_print_buffer(bench->app, &text);
}

/* thaw bench --data */
static thaw_status run_input(thaw_bench *bench, const thaw_arguments *given, const char *name,
                             const thaw_builtin_options *options, int threads) {
    static const char *const other[] = {"freeze", "conv"};
    const char *data = thaw_arguments_value(given, "data", NULL);
    thaw_bench_input in;
    thaw_model *model = NULL;
    surroundings scene = {0};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (thaw_arguments_has(given, other[i]))
            return thaw_fail(THAW_USAGE, "bench: --%s has no meaning with --data, which measures the input alone; leave one of "
                                         "them out", other[i]);
    THAW_TRY(thaw_app_threads(bench->app, 0, true));
    thaw_status status = thaw_named_model(&model, bench->app->comm, name, options, NULL);
    if (status == THAW_OK)
        status = thaw_comm_agree(bench->app->comm, set_scene(&scene));
    if (status == THAW_OK)
        status = thaw_bench_read(&in, bench, model, data, thaw_arguments_value(given, "preprocess", NULL), threads);
    if (status == THAW_OK && bench->app->root)
        status = print_input(bench, model, &in, &scene, data, thaw_arguments_has(given, "json"));
    free_scene(&scene);
    thaw_model_free(model);
    return status;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *name = thaw_arguments_value(given, "model", "vgg16");
    int64_t threads = 0;
    thaw_bench bench = {.app = app, .batch = 16, .repeat = 5};
    thaw_builtin_options options;
    subject s = {0};
    surroundings scene = {0};
    THAW_TRY(thaw_arguments_int(&bench.batch, given, "batch", 1, 65536));
    THAW_TRY(thaw_arguments_int(&bench.repeat, given, "repeat", 1, 100000));
    THAW_TRY(thaw_arguments_int(&threads, given, "threads", 1, 4096));
    THAW_TRY(thaw_app_builtin(&options, given, name));
    if (thaw_arguments_has(given, "data"))
        return run_input(&bench, given, name, &options, (int)threads);
    if (thaw_arguments_has(given, "preprocess"))
        return thaw_fail(THAW_USAGE, "bench: --preprocess goes with --data; without it images are random");
    THAW_TRY(thaw_app_convolution(given));
    THAW_TRY(thaw_app_threads(app, (int)threads, true));
    /* The structure alone tells what is wrong with --freeze or too large, before anything takes time or memory. */
    subject bare = {0};
    thaw_status status = thaw_named_model(&bare.model, app->comm, name, &options, NULL);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, make_subject(&bare, &bench, given, false));
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, thaw_bench_check(&bench.check, bare.plan));
    free_subject(&bare);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, set_scene(&scene));
    if (status == THAW_OK)
        status = thaw_named_model(&s.model, app->comm, name, &options, "none");
    if (status == THAW_OK)
        status = thaw_bench_peak(&bench);
    if (status == THAW_OK)
        status = thaw_bench_forward(&bench, s.model);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, make_subject(&s, &bench, given, true));
    if (status == THAW_OK)
        status = thaw_bench_step(&bench, s.model, s.plan);
    if (status == THAW_OK) /* again: neighbours on the machine come and go */
        status = thaw_bench_peak(&bench);
    if (status == THAW_OK && app->root)
        status = thaw_arguments_has(given, "json") ? print_json(&bench, &s, &scene, thaw_threads())
                                                   : print_text(&bench, &s, &scene, thaw_threads());
    free_scene(&scene);
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
    THAW_OPTION_CONV,
    {"repeat", "R", false, "measured runs, after one that is not (default: 5)"},
    {"data", "DATA", false, "measure the input alone: a folder of images or FILE.h5:/x, read as training reads it"},
    {"preprocess", "P", false, "with --data: auto, caffe, tf, torch, rescale or none (default: auto)"},
    THAW_OPTION_JSON,
};
const thaw_command thaw_command_bench = {
    .name = "bench",
    .positional = "",
    .summary = "speed of a network: forward passes and training steps, by layer, or of the input; scaling under mpirun",
    .details = "Random weights and images, moving statistics, no cache. forward: inference of the network as given. step:\n"
               "prefix, forward, loss, backward, exchange of gradients, SGD with momentum; a network that ends in a map gets\n"
               "GlobalAveragePooling2D and Dense(10, softmax) for its steps. Seconds are the slowest rank's; layers are\n"
               "those of rank 0, and a layer that is fused into the one before it is counted there.\n"
               "Before anything is timed, each shape of convolution and dense layer is compared with the reference kernels\n"
               "(status 70 if one is wrong). peak is what a short run of multiply-adds alone reaches on the same threads;\n"
               "FLOP are those of direct products, so Winograd may pass 100 % of it.\n"
               "--data: images per second of decoding, resizing and preprocessing for the network's input (--model,\n"
               "--input-shape), in passes over the data (at most 64 batches of a rank), after one that is not counted;\n"
               "--threads are decoding threads then (default: as many as training takes).",
    .options = options_table,
    .n_options = sizeof options_table / sizeof *options_table,
    .run = run,
};
