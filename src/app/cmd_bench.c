/* thaw bench: images per second of a network, forward and in training under a freeze spec, or of the input alone. */
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/threads.h"
#include "bench.h"
#include "graph/freeze.h"
#include "kernels/kernels.h"
#include "scaling.h"
#include "thaw/train.h"
#include "train/head.h"
#include "train/optimizer.h"

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
static void count_flop(thaw_bench_subject *s) {
    for (int i = 0; i < s->model->n_nodes; i++) {
        const thaw_node *node = &s->model->nodes[i];
        const thaw_layer *layer = &s->model->layers[node->layer];
        if (layer->kind != THAW_LAYER_CONV2D && layer->kind != THAW_LAYER_DENSE)
            continue;
        const double cells = node->shape.rank == 3 ? (double)(node->shape.dim[0] * node->shape.dim[1]) : 1.0;
        s->layer_gflop[node->layer] += 2e-9 * cells * (double)layer->tensors[0].count;
    }
}

static void free_subject(thaw_bench_subject *s) {
    thaw_plan_free(s->plan);
    thaw_free(s->trainable);
    thaw_free(s->layer_gflop);
    thaw_free(s->frozen);
    thaw_model_free(s->model);
}

/* Adds the head to s->model and plans its steps as --freeze says. `weights`: gives it memory and values. */
static thaw_status make_subject(thaw_bench_subject *s, const thaw_bench *bench, const thaw_arguments *given, bool weights) {
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

/* thaw bench --data */
static thaw_status run_input(thaw_bench *bench, const thaw_arguments *given, const char *name,
                             const thaw_builtin_options *options, int threads) {
    static const char *const other[] = {"freeze", "conv", "scaling"};
    const char *data = thaw_arguments_value(given, "data", NULL);
    thaw_bench_input in;
    thaw_model *model = NULL;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (thaw_arguments_has(given, other[i]))
            return thaw_fail(THAW_USAGE, "bench: --%s has no meaning with --data, which measures the input alone; leave one of "
                                         "them out", other[i]);
    THAW_TRY(thaw_app_threads(bench->app, 0, true));
    thaw_status status = thaw_named_model(&model, bench->app->comm, name, options, NULL);
    if (status == THAW_OK)
        status = thaw_bench_read(&in, bench, model, data, thaw_arguments_value(given, "preprocess", NULL), threads);
    if (status == THAW_OK && bench->app->root)
        status = thaw_bench_print_input(bench, model, &in, data, thaw_arguments_has(given, "json"));
    thaw_model_free(model);
    return status;
}

static thaw_status read_exchange(thaw_exchange_kind *out, const char *name) {
    for (int i = 0; i <= THAW_EXCHANGE_HALF; i++)
        if (strcmp(name, thaw_exchange_names[i]) == 0) {
            *out = (thaw_exchange_kind)i;
            return THAW_OK;
        }
    return thaw_fail(THAW_USAGE, "bench: --exchange: expected auto, overlap, mpi or fp16, found '%s'", name);
}

/* Options of --scaling, and the network with its plans. */
static thaw_status make_scaling(thaw_scaling *s, const thaw_arguments *given, const char **texts, int n) {
    const char *network = thaw_arguments_value(given, "network", NULL);
    s->has_network = network != NULL;
    s->kinds[THAW_STRONG] = thaw_arguments_has(given, "strong") || !thaw_arguments_has(given, "weak");
    s->kinds[THAW_WEAK] = thaw_arguments_has(given, "weak") || !thaw_arguments_has(given, "strong");
    s->global_batch = s->batch;
    THAW_TRY(thaw_arguments_int(&s->global_batch, given, "global-batch", 1, 1 << 20));
    THAW_TRY(read_exchange(&s->exchange, thaw_arguments_value(given, "exchange", "auto")));
    if (network)
        THAW_TRY(thaw_network_parse(&s->network, network, "--network"));
    const int before = s->model->n_layers;
    THAW_TRY(add_head(s->model));
    s->has_head = s->model->n_layers > before;
    return thaw_scaling_make_plans(s, texts, n);
}

/* thaw bench --scaling */
static thaw_status run_scaling(const thaw_bench *bench, const thaw_arguments *given, const char *name,
                               const thaw_builtin_options *options) {
    const char *folder = thaw_arguments_value(given, "report", NULL);
    thaw_app *app = bench->app;
    thaw_scaling s = {.app = app, .name = name, .batch = bench->batch, .repeat = bench->repeat};
    const char **texts = NULL;
    int n = 0;
    thaw_status status = THAW_OK;
    THAW_GOTO(thaw_named_model(&s.model, app->comm, name, options, NULL));
    status = thaw_arguments_values(&texts, &n, given, "freeze");
    if (status == THAW_OK)
        status = make_scaling(&s, given, texts, n);
    if (status == THAW_OK && folder && app->root) /* what cannot be written is known before anything takes time */
        status = thaw_io_mkdirs(folder);
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    THAW_GOTO(thaw_scaling_measure(&s));
    if (app->root)
        status = thaw_scaling_print(&s, thaw_arguments_has(given, "json"));
    if (status == THAW_OK && app->root && folder)
        status = thaw_scaling_write(&s, folder);
out:
    thaw_free((void *)texts);
    thaw_scaling_free(&s);
    thaw_model_free(s.model);
    return status;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *name = thaw_arguments_value(given, "model", "vgg16");
    int64_t threads = 0;
    thaw_bench bench = {.app = app, .batch = 16, .repeat = 5};
    thaw_builtin_options options;
    thaw_bench_subject s = {0};
    static const char *const of_scaling[] = {"strong", "weak", "global-batch", "exchange", "network", "report"};
    const bool scales = thaw_arguments_has(given, "scaling");
    THAW_TRY(thaw_arguments_int(&bench.batch, given, "batch", 1, 65536));
    THAW_TRY(thaw_arguments_int(&bench.repeat, given, "repeat", 1, 100000));
    THAW_TRY(thaw_arguments_int(&threads, given, "threads", 1, 4096));
    THAW_TRY(thaw_app_builtin(&options, given, name));
    if (thaw_arguments_has(given, "data"))
        return run_input(&bench, given, name, &options, (int)threads);
    if (thaw_arguments_has(given, "preprocess"))
        return thaw_fail(THAW_USAGE, "bench: --preprocess goes with --data; without it images are random");
    for (size_t i = 0; i < sizeof of_scaling / sizeof *of_scaling && !scales; i++)
        if (thaw_arguments_has(given, of_scaling[i]))
            return thaw_fail(THAW_USAGE, "bench: --%s goes with --scaling", of_scaling[i]);
    THAW_TRY(thaw_app_convolution(given));
    THAW_TRY(thaw_app_threads(app, (int)threads, true));
    if (scales)
        return run_scaling(&bench, given, name, &options);
    /* The structure alone tells what is wrong with --freeze or too large, before anything takes time or memory. */
    thaw_bench_subject bare = {0};
    thaw_status status = thaw_named_model(&bare.model, app->comm, name, &options, NULL);
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, make_subject(&bare, &bench, given, false));
    if (status == THAW_OK)
        status = thaw_comm_agree(app->comm, thaw_bench_check(&bench.check, bare.plan));
    free_subject(&bare);
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
        status = thaw_bench_print(&bench, &s, thaw_arguments_has(given, "json"));
    thaw_bench_free(&bench);
    free_subject(&s);
    return status;
}

static const thaw_option options_table[] = {
    {"model", "MODEL", false, "a built-in name or a Keras .h5 file (default: vgg16)"},
    THAW_OPTION_NO_TOP,
    THAW_OPTION_INPUT_SHAPE,
    {"freeze", "SPEC", true, "freeze of the steps, as in a job; in order (default: none). With --scaling: a plan each"},
    {"batch", "N", false, "images on each rank (default: 16)"},
    {"threads", "T", false, "threads of each rank (default: OMP_NUM_THREADS, else its cores)"},
    THAW_OPTION_CONV,
    {"repeat", "R", false, "measured runs, after one that is not (default: 5)"},
    {"scaling", NULL, false, "steps on 1, 2, 4, ... and all ranks: strong and weak scaling of each freeze plan"},
    {"strong", NULL, false, "with --scaling: strong scaling alone"},
    {"weak", NULL, false, "with --scaling: weak scaling alone"},
    {"global-batch", "G", false, "with --scaling: images of a step over all ranks in strong scaling (default: --batch)"},
    {"exchange", "KIND", false, "with --scaling: auto, overlap, mpi, as in a job, or its precision fp16 (default: auto)"},
    {"network", "LAT,BW", false, "with --scaling: predictions for a network beside it, e.g. 2e-6,12.5e9 or 50us,1Gbit"},
    {"report", "DIR", false, "with --scaling: scaling.csv, .json, .html, .gp, and .svg if there is gnuplot, in this folder"},
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
               "--scaling: the order of training: forward, backward, which hands gradients to the exchange, prefix of the next\n"
               "batch, wait for the exchange, update; with at most 8 images on a rank the prefix of several steps in one run.\n"
               "--freeze NAME=SPEC or SPEC, any number of times; head, late and everything are plans that every network has\n"
               "(default: these three). Ranks beyond those that are measured sleep meanwhile. Predictions start from the\n"
               "figures of one rank.\n"
               "--data: images per second of decoding, resizing and preprocessing for the network's input (--model,\n"
               "--input-shape), in passes over the data (at most 64 batches of a rank), after one that is not counted;\n"
               "--threads are decoding threads then (default: as many as training takes).",
    .options = options_table,
    .n_options = sizeof options_table / sizeof *options_table,
    .run = run,
};
