/* What thaw bench prints, as text of at most 120 columns or as one JSON object. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/threads.h"
#include "bench.h"

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

thaw_status thaw_bench_put_scene(cJSON *object, const thaw_app *app) {
    surroundings scene;
    const thaw_status status = set_scene(&scene);
    if (status == THAW_OK)
        scene_json(object, &scene, app);
    free_scene(&scene);
    return status;
}

static void put_scene(thaw_buffer *text, const surroundings *s) {
    thaw_buffer_printf(text, "cpus %s; thaw %s, %s; %s\n", s->cores, THAW_VERSION, compiler, thaw_kernels_describe());
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
static double backward_gflop(const thaw_bench *bench, const thaw_bench_subject *s, int i) {
    const bool *wants = bench->costs[i].wants;
    return s->layer_gflop[i] * ((wants[THAW_BACKWARD_DATA] ? 1.0 : 0.0) + (wants[THAW_BACKWARD_WEIGHTS] ? 1.0 : 0.0));
}

/* Seconds of the inference pass, or of a step's forward pass for layers of the added head. */
static double layer_seconds(const thaw_bench *bench, const thaw_bench_subject *s, int i) {
    return i < s->n_given ? bench->layer_forward[i] : bench->layer_step[i];
}

static cJSON *layer_json(const thaw_bench *bench, const thaw_bench_subject *s, int i, double all) {
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
static double forward_seconds(const thaw_bench *bench, const thaw_bench_subject *s) {
    double all = 0.0;
    for (int i = 0; bench->has_layers && i < s->n_given; i++)
        all += bench->layer_forward[i];
    return all;
}

static double forward_gflop(const thaw_bench_subject *s) {
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

static double step_gflop(const thaw_bench_subject *s) { return (s->plan->forward_flop + s->plan->backward_flop) * 1e-9; }

static void check_json(cJSON *object, const thaw_check *check) {
    cJSON *part = cJSON_AddObjectToObject(object, "check");
    thaw_json_int(part, "shapes", check->shapes);
    cJSON_AddNumberToObject(part, "forward_error", check->error[THAW_FORWARD]);
    cJSON_AddNumberToObject(part, "data_gradient_error", check->error[THAW_BACKWARD_DATA]);
    cJSON_AddNumberToObject(part, "weight_gradient_error", check->error[THAW_BACKWARD_WEIGHTS]);
    cJSON_AddNumberToObject(part, "bound", THAW_CHECK_BOUND);
}

static thaw_status print_json(const thaw_bench *bench, const thaw_bench_subject *s, const surroundings *scene, int threads) {
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
static const char *kind_words(thaw_words *words, const thaw_bench *bench, const thaw_bench_subject *s, int i) {
    const char *algorithm = bench->costs[i].algorithm[THAW_FORWARD];
    snprintf(words->text, sizeof words->text, "%s%s%s", thaw_layer_class(s->model->layers[i].kind), algorithm ? " " : "",
             algorithm ? algorithm : "");
    return words->text;
}

static bool is_shown(const thaw_bench *bench, const thaw_bench_subject *s, int i) {
    return layer_seconds(bench, s, i) + bench->layer_step[i] + bench->layer_backward[i] > 0.0;
}

/* One line a layer, but for those that are fused into the one before or only rename. */
static void put_layers(thaw_buffer *text, const thaw_bench *bench, const thaw_bench_subject *s) {
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

static thaw_status print_text(const thaw_bench *bench, const thaw_bench_subject *s, const surroundings *scene, int threads) {
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
                               const char *data, const surroundings *scene, bool json) {
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
    thaw_buffer_printf(&text,
                       "%d rank%s x %d decoding thread%s, %lld images a batch, %lld of %lld images a pass, median of %lld\n",
                       ranks, ranks == 1 ? "" : "s", in->threads, in->threads == 1 ? "" : "s", (long long)in->batch,
                       (long long)in->images, (long long)in->samples, (long long)bench->repeat);
    thaw_buffer_printf(&text, "input    %9.1f images/s (%.1f to %.1f)\n", images / t->median, images / t->most,
                       images / t->least);
    return thaw_app_print_buffer(bench->app, &text);
}

thaw_status thaw_bench_print(const thaw_bench *bench, const thaw_bench_subject *s, bool json) {
    surroundings scene;
    thaw_status status = set_scene(&scene);
    if (status == THAW_OK)
        status = (json ? print_json : print_text)(bench, s, &scene, thaw_threads());
    free_scene(&scene);
    return status;
}

thaw_status thaw_bench_print_input(const thaw_bench *bench, const thaw_model *model, const thaw_bench_input *in, const char *data,
                                   bool json) {
    surroundings scene;
    thaw_status status = set_scene(&scene);
    if (status == THAW_OK)
        status = print_input(bench, model, in, data, &scene, json);
    free_scene(&scene);
    return status;
}
