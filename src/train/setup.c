/* From a job to what all ranks hold: the network, its flags and plans, the preprocessing. */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "job/job.h"
#include "thaw/train.h"
#include "train/head.h"
#include "train/optimizer.h"
#include "train/run.h"

/* File names of keras.applications' official weights. */
static const char *official_stem(const char *name) {
    return strcmp(name, "inceptionv3") == 0 ? "inception_v3" : name;
}

thaw_status thaw_weights_find(char **path, const char *name, bool include_top) {
    *path = NULL;
    char *file = thaw_format("%s_weights_tf_dim_ordering_tf_kernels%s.h5", official_stem(name),
                             include_top ? "" : "_notop");
    const char *home = getenv("HOME"), *own = getenv("THAW_WEIGHTS");
    char *cache = thaw_format("%s/.keras/models", home ? home : "");
    const char *folders[] = {own && *own ? own : "weights", "weights", cache};
    if (!file || !cache) {
        thaw_free(file);
        thaw_free(cache);
        return thaw_fail(THAW_RESOURCE, "no memory to look for weights");
    }
    for (int i = 0; i < 3 && !*path; i++) {
        char *candidate = thaw_path_join(folders[i], file);
        if (candidate && thaw_io_exists(candidate))
            *path = candidate;
        else
            thaw_free(candidate);
    }
    thaw_status status = THAW_OK;
    if (!*path)
        status = thaw_fail(THAW_NO_INPUT, "weights: imagenet: %s is not in %s%sweights or ~/.keras/models; on a node with "
                                          "internet run `thaw fetch %s%s`, or give weights: none or a file", file,
                           own && *own ? own : "", own && *own ? ", " : "", name, include_top ? "" : " --no-top");
    thaw_free(file);
    thaw_free(cache);
    return status;
}

static bool is_file(const char *name) {
    static const char *const endings[] = {".h5", ".hdf5", ".keras", ".safetensors"};
    if (strchr(name, '/'))
        return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t a = strlen(name), b = strlen(endings[i]);
        if (a > b && strcmp(name + a - b, endings[i]) == 0)
            return true;
    }
    return false;
}

/* On one rank: the base with its weights (weights NULL: structure alone). */
static thaw_status open_base(thaw_model **out, const char *name, const thaw_builtin_options *options,
                             const char *weights) {
    bool random = weights && strcmp(weights, "none") == 0, official = weights && strcmp(weights, "imagenet") == 0;
    if (is_file(name)) {
        THAW_TRY(thaw_keras_read(out, name, weights != NULL && !random));
        if (!weights)
            return THAW_OK;
        THAW_TRY(thaw_model_allocate(*out));
        if (official)
            return thaw_fail(THAW_USAGE, "weights: imagenet: %s is a file of its own; imagenet weights belong to built-in "
                                         "networks (%s)", name, thaw_builtin_names());
        return random || strcmp(weights, "file") == 0 ? THAW_OK : thaw_keras_load_weights(*out, weights, true);
    }
    if (!thaw_builtin_known(name))
        return thaw_fail(THAW_USAGE, "model '%s' is neither a built-in network (%s) nor a file (.h5)", name,
                         thaw_builtin_names());
    THAW_TRY(thaw_builtin_build(out, name, options));
    if (!weights)
        return THAW_OK;
    THAW_TRY(thaw_model_allocate(*out));
    if (random)
        return THAW_OK;
    if (!official)
        return thaw_keras_load_weights(*out, weights, true);
    char *path;
    THAW_TRY(thaw_weights_find(&path, (*out)->family ? (*out)->family : name, options->include_top));
    thaw_status status = thaw_keras_load_weights(*out, path, true);
    thaw_free(path);
    return status;
}

/* Gives every rank the model that rank 0 holds (or its failure). Collective. */
static thaw_status share_model(thaw_model **model, thaw_comm *comm, thaw_status mine) {
    void *bytes = NULL;
    size_t size = 0;
    thaw_status status = mine;
    if (status == THAW_OK && thaw_comm_rank(comm) == 0 && thaw_comm_size(comm) > 1)
        status = thaw_model_pack(&bytes, &size, *model);
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK && thaw_comm_size(comm) > 1) {
        status = thaw_comm_broadcast_buffer(comm, &bytes, &size, 0);
        if (status == THAW_OK && thaw_comm_rank(comm) != 0)
            status = thaw_model_unpack(model, bytes, size);
        status = thaw_comm_agree(comm, status);
    }
    thaw_free(bytes);
    if (status != THAW_OK) {
        thaw_model_free(*model);
        *model = NULL;
    }
    return status;
}

thaw_status thaw_named_model(thaw_model **out, thaw_comm *comm, const char *name, const thaw_builtin_options *options,
                             const char *weights) {
    thaw_status status = THAW_OK;
    *out = NULL;
    if (thaw_comm_rank(comm) == 0) {
        status = open_base(out, name, options, weights && is_file(name) && strcmp(weights, "imagenet") == 0 ? "file"
                                                                                                             : weights);
        if (status == THAW_OK && weights)
            thaw_model_initialize(*out, 0);
    }
    return share_model(out, comm, status);
}

/* Whether a built-in network keeps its classifier. Not given means true, as in keras.applications, unless a head stands
 * in its place or the last layer to keep lies before it. */
static thaw_status choose_top(bool *top, const thaw_job *job, thaw_builtin_options options) {
    *top = job->include_top == 1 || (job->include_top < 0 && !job->n_head && !job->output);
    if (job->include_top >= 0 || !job->output || !thaw_builtin_known(job->base))
        return THAW_OK;
    thaw_model *model;
    options.include_top = false;
    THAW_TRY(thaw_builtin_build(&model, job->base, &options));
    *top = thaw_model_find(model, job->output) < 0;
    thaw_model_free(model);
    return THAW_OK;
}

static thaw_status build_job_model(thaw_model **out, const thaw_job *job, bool weights) {
    thaw_builtin_options options = {.pooling = job->pooling};
    memcpy(options.input_shape, job->input_shape, sizeof options.input_shape);
    if (!job->base_is_file)
        THAW_TRY(choose_top(&options.include_top, job, options));
    const char *source = job->weights ? job->weights : job->base_is_file ? "file" : "imagenet";
    THAW_TRY(open_base(out, job->base, &options, weights ? source : NULL));
    if (job->base_is_file && job->input_shape[0] > 0) {
        const thaw_shape *in = &(*out)->nodes[(*out)->input].shape;
        for (int i = 0; i < in->rank; i++)
            if (in->dim[i] != job->input_shape[i])
                return thaw_fail(THAW_USAGE, "model.input_shape: %s takes (%lld,%lld,%lld), the job says "
                                             "(%lld,%lld,%lld); leave the key out for a file", job->base,
                                 (long long)in->dim[0], (long long)in->dim[1], (long long)in->dim[2],
                                 (long long)job->input_shape[0], (long long)job->input_shape[1],
                                 (long long)job->input_shape[2]);
    }
    if (job->output)
        THAW_TRY(thaw_model_cut(*out, job->output));
    if (job->n_head)
        THAW_TRY(thaw_head_append(*out, job));
    if (weights) {
        THAW_TRY(thaw_model_allocate(*out));
        thaw_model_initialize(*out, job->seed);
    }
    return THAW_OK;
}

thaw_status thaw_job_model(thaw_model **out, thaw_comm *comm, const thaw_job *job, bool weights) {
    thaw_status status = THAW_OK;
    *out = NULL;
    if (thaw_comm_rank(comm) == 0)
        status = build_job_model(out, job, weights);
    return share_model(out, comm, status);
}

thaw_status thaw_stage_flags(bool *trainable, bool *batch_statistics, const thaw_model *model, const thaw_job *job,
                             int stage, const bool *previous) {
    const thaw_job_stage *s = &job->stages[stage];
    THAW_TRY(thaw_freeze_resolve(trainable, model, &s->freeze, &s->train, previous, job->path));
    bool random = job->weights && strcmp(job->weights, "none") == 0;
    for (int i = 0; i < model->n_layers; i++)
        batch_statistics[i] = model->layers[i].kind == THAW_LAYER_BATCH_NORMALIZATION &&
                              (model->layers[i].head || (s->batch_norm_statistics < 0 ? random
                                                                                       : s->batch_norm_statistics == 1));
    return THAW_OK;
}

thaw_status thaw_stage_plan(thaw_plan **out, const thaw_model *model, const thaw_job *job, int stage,
                            const bool *trainable, const bool *batch_statistics, int ranks, bool together) {
    int64_t part = thaw_part_images(job), validation = thaw_validation_images(job);
    int64_t largest = validation > part ? validation : part;
    int slices = thaw_job_slices(job);
    thaw_plan_request request = {
        .model = model,
        .trainable = trainable,
        .batch_statistics = batch_statistics,
        .max_batch = thaw_slices_most(slices, largest, ranks),
        .step_images = together ? thaw_slices_most(slices, part, ranks) : 0,
        .slices = slices,
        /* the sum of earlier parts is one float more */
        .optimizer_slots = thaw_optimizer_slots(&job->stages[stage].optimizer) + (job->accumulate > 1),
    };
    return thaw_plan_compile(out, &request);
}

thaw_status thaw_preprocess_choose(thaw_preprocess *out, const char *given, const thaw_model *model, bool arrays) {
    const char *mode = given;
    bool automatic = !given || strcmp(given, "auto") == 0;
    if (automatic && arrays && !given) {
        *out = THAW_PREPROCESS_NONE;
        return THAW_OK;
    }
    if (automatic) {
        mode = model->notes.preprocess;
        if (!mode && !model->source_config && model->family)
            mode = thaw_builtin_preprocess(model->family);
        if (!mode)
            return thaw_fail(THAW_USAGE, "data.preprocess: %s does not say how its images were prepared; give one of caffe, "
                                         "tf, torch, rescale, none", model->origin ? model->origin : model->name);
    }
    if (!thaw_preprocess_parse(out, mode))
        return thaw_fail(THAW_USAGE, "preprocess '%s' is unknown; choose auto, caffe, tf, torch, rescale or none", mode);
    return THAW_OK;
}
