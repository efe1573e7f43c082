/* Head layers from the job's words. One table holds every argument of Keras that is taken: which classes have it and what
 * sets it. Arguments are looked up by the table, so a message can name the nearest ones. */
#include "train/head.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "base/text.h"
#include "train/head_init.h"

#define CLASS(kind) (1u << THAW_LAYER_##kind)
#define POOLING (CLASS(MAX_POOLING) | CLASS(AVERAGE_POOLING))
#define GLOBAL (CLASS(GLOBAL_AVERAGE_POOLING) | CLASS(GLOBAL_MAX_POOLING))
#define KERNEL (CLASS(CONV2D) | CLASS(DENSE)) /* layers with kernel and bias */
#define NORM CLASS(BATCH_NORMALIZATION)
/* Layers that take a map (H,W,C). */
#define MAPS (CLASS(CONV2D) | POOLING | GLOBAL | CLASS(ZERO_PADDING))
#define EVERY ((1u << THAW_LAYER_KINDS) - 1)
/* What may stand in a head: a chain, so nothing that joins several inputs. */
#define CHAIN (EVERY & ~(CLASS(INPUT) | CLASS(ADD) | CLASS(CONCATENATE)))

static thaw_status bad_value(const thaw_head_place *at, const char *wanted) {
    char *found = at->argument->text ? thaw_format("'%s'", at->argument->text)
                                     : thaw_format("a list of %d numbers", at->argument->n_numbers);
    thaw_status status = thaw_fail(THAW_USAGE, "%s:%d: %s of %s is %s; it must be %s", at->path, at->argument->line,
                                   at->argument->key, at->class_name, found ? found : "?", wanted);
    thaw_free(found);
    return status;
}

thaw_status thaw_head_number(double *out, const thaw_head_place *at, double low, double high, const char *wanted) {
    const char *text = at->argument->text;
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0.0;
    if (!text || end == text || *end || !isfinite(value) || strpbrk(text, "xXpP") || value < low || value > high)
        return bad_value(at, wanted);
    *out = value;
    return THAW_OK;
}

static thaw_status whole_number(int64_t *out, const thaw_head_place *at, int64_t low, const char *wanted) {
    double value;
    THAW_TRY(thaw_head_number(&value, at, (double)low, 1 << 24, wanted));
    if (value != floor(value))
        return bad_value(at, wanted);
    *out = (int64_t)value;
    return THAW_OK;
}

/* 3 or [3, 3]. */
static thaw_status pair(int64_t out[2], const thaw_head_place *at, int64_t low, const char *wanted) {
    const thaw_job_argument *a = at->argument;
    if (a->text) {
        THAW_TRY(whole_number(&out[0], at, low, wanted));
        out[1] = out[0];
        return THAW_OK;
    }
    for (int i = 0; i < 2; i++) {
        if (a->n_numbers != 2 || a->numbers[i] != floor(a->numbers[i]) || a->numbers[i] < (double)low ||
            a->numbers[i] > 1 << 24)
            return bad_value(at, wanted);
        out[i] = (int64_t)a->numbers[i];
    }
    return THAW_OK;
}

static thaw_status truth(bool *out, const thaw_head_place *at) {
    const char *text = at->argument->text;
    if (!text || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
        return bad_value(at, "true or false");
    *out = strcmp(text, "true") == 0;
    return THAW_OK;
}

static thaw_status set_positive_pair(int64_t out[2], const thaw_head_place *at) {
    return pair(out, at, 1, "a whole number of at least 1, or a list of two");
}

static thaw_status set_activation(thaw_activation *out, const thaw_head_place *at) {
    static const char *const names[] = {
#define THAW_ACTIVATION_TEXT(name, keras) keras,
        THAW_ACTIVATION_LIST(THAW_ACTIVATION_TEXT)
#undef THAW_ACTIVATION_TEXT
    };
    const char *text = at->argument->text;
    if (text && thaw_activation_parse(out, text))
        return THAW_OK;
    char list[160] = "one of";
    for (int i = 0; i < THAW_ACTIVATIONS; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s %s", i ? "," : "", names[i]);
    return bad_value(at, list);
}

static thaw_status set_padding(thaw_layer *layer, const thaw_head_place *at) {
    const char *text = at->argument->text;
    if (layer->kind == THAW_LAYER_ZERO_PADDING) { /* rows above and below, columns left and right */
        int64_t pad[2];
        THAW_TRY(pair(pad, at, 0, "a whole number, or a list of two"));
        layer->config.pad[0] = layer->config.pad[1] = pad[0];
        layer->config.pad[2] = layer->config.pad[3] = pad[1];
        return THAW_OK;
    }
    if (!text || (strcasecmp(text, "same") != 0 && strcasecmp(text, "valid") != 0))
        return bad_value(at, "same or valid");
    layer->config.same = strcasecmp(text, "same") == 0;
    return THAW_OK;
}

/* Shape without N; one -1 takes what is left. The place knows the shape before. */
static thaw_status set_target(thaw_layer *layer, const thaw_head_place *at) {
    const thaw_job_argument *a = at->argument;
    static const char wanted[] = "a list [values] or [height, width, channels] that holds as many values as there are, with at "
                                 "most one -1";
    int64_t known = 1, all = thaw_shape_count(&at->before);
    int open = -1;
    if (!a->numbers || (a->n_numbers != 1 && a->n_numbers != 3))
        return bad_value(at, wanted);
    for (int i = 0; i < a->n_numbers; i++) {
        double d = a->numbers[i];
        if (d == -1.0 && open < 0)
            open = i;
        else if (d < 1.0 || d > (double)all || d != floor(d) || known > all / (int64_t)d)
            return bad_value(at, wanted);
        else
            known *= (int64_t)d;
        layer->config.target[i] = (int64_t)d;
    }
    if (open >= 0) {
        layer->config.target[open] = all / known;
        known *= all / known;
    }
    layer->config.target_rank = a->n_numbers;
    return known == all ? THAW_OK : bad_value(at, wanted);
}

/* A number or one per channel, into *out; the other of scale and offset is spread to the same length. */
static thaw_status set_rescale(thaw_layer *layer, const thaw_head_place *at, bool is_scale) {
    thaw_layer_config *c = &layer->config;
    const thaw_job_argument *a = at->argument;
    int n = a->text ? 1 : a->n_numbers, old = c->n_rescale;
    int64_t channels = at->before.rank == 3 ? at->before.dim[2] : at->before.dim[0];
    double one = 0.0;
    if (a->text)
        THAW_TRY(thaw_head_number(&one, at, -1e30, 1e30, "a number, or a list with one number per channel"));
    if ((n != 1 && n != channels) || (n != 1 && old > 1 && old != n))
        return bad_value(at, "a number, or a list with one number per channel");
    int length = n > old ? n : old;
    float *scale = thaw_calloc((size_t)length, sizeof *scale), *offset = thaw_calloc((size_t)length, sizeof *offset);
    if (!scale || !offset) {
        thaw_free(scale);
        thaw_free(offset);
        return thaw_fail(THAW_RESOURCE, "no memory for a Rescaling layer");
    }
    for (int i = 0; i < length; i++) {
        float given = a->text ? (float)one : (float)a->numbers[n == 1 ? 0 : i];
        scale[i] = is_scale ? given : old ? c->rescale[old == 1 ? 0 : i] : 1.0f;
        offset[i] = !is_scale ? given : old ? c->offset[old == 1 ? 0 : i] : 0.0f;
    }
    thaw_free(c->rescale);
    thaw_free(c->offset);
    c->rescale = scale;
    c->offset = offset;
    c->n_rescale = length;
    return THAW_OK;
}

static thaw_status set_axis(const thaw_head_place *at) {
    double axis;
    THAW_TRY(thaw_head_number(&axis, at, -1, 3, "-1: the last axis"));
    return axis == -1.0 || axis == (double)at->before.rank ? THAW_OK : bad_value(at, "-1: the last axis");
}

static thaw_status only(const thaw_head_place *at, const char *text) {
    return at->argument->text && strcmp(at->argument->text, text) == 0 ? THAW_OK : bad_value(at, text);
}

static thaw_status set_float(float *out, const thaw_head_place *at, double low, double high, const char *wanted) {
    double value;
    THAW_TRY(thaw_head_number(&value, at, low, high, wanted));
    *out = (float)value;
    return THAW_OK;
}

typedef enum {
    ARG_NAME, ARG_UNITS, ARG_FILTERS, ARG_KERNEL_SIZE, ARG_POOL_SIZE, ARG_STRIDES, ARG_DILATION, ARG_GROUPS, ARG_PADDING,
    ARG_ACTIVATION, ARG_USE_BIAS, ARG_DATA_FORMAT, ARG_KEEPDIMS, ARG_TARGET, ARG_AXIS, ARG_MOMENTUM, ARG_EPSILON, ARG_CENTER,
    ARG_SCALE, ARG_RATE, ARG_MAX_VALUE, ARG_SLOPE, ARG_THRESHOLD, ARG_RESCALE, ARG_OFFSET, ARG_TENSOR
} argument_kind;

static const struct {
    const char *name;
    argument_kind kind;
    unsigned classes, required; /* bits of layer kinds */
} arguments[] = {
    {"name", ARG_NAME, CHAIN, 0},
    {"units", ARG_UNITS, CLASS(DENSE), CLASS(DENSE)},
    {"filters", ARG_FILTERS, CLASS(CONV2D), CLASS(CONV2D)},
    {"kernel_size", ARG_KERNEL_SIZE, CLASS(CONV2D), CLASS(CONV2D)},
    {"pool_size", ARG_POOL_SIZE, POOLING, 0},
    {"strides", ARG_STRIDES, CLASS(CONV2D) | POOLING, 0},
    {"dilation_rate", ARG_DILATION, CLASS(CONV2D), 0},
    {"groups", ARG_GROUPS, CLASS(CONV2D), 0},
    {"padding", ARG_PADDING, CLASS(CONV2D) | POOLING | CLASS(ZERO_PADDING), 0},
    {"activation", ARG_ACTIVATION, KERNEL | CLASS(ACTIVATION), CLASS(ACTIVATION)},
    {"use_bias", ARG_USE_BIAS, KERNEL, 0},
    {"data_format", ARG_DATA_FORMAT, MAPS | CLASS(FLATTEN), 0},
    {"keepdims", ARG_KEEPDIMS, GLOBAL, 0},
    {"target_shape", ARG_TARGET, CLASS(RESHAPE), CLASS(RESHAPE)},
    {"axis", ARG_AXIS, NORM | CLASS(SOFTMAX), 0},
    {"momentum", ARG_MOMENTUM, NORM, 0},
    {"epsilon", ARG_EPSILON, NORM, 0},
    {"center", ARG_CENTER, NORM, 0},
    {"scale", ARG_SCALE, NORM, 0},
    {"rate", ARG_RATE, CLASS(DROPOUT), CLASS(DROPOUT)},
    {"max_value", ARG_MAX_VALUE, CLASS(RELU), 0},
    {"negative_slope", ARG_SLOPE, CLASS(RELU), 0},
    {"threshold", ARG_THRESHOLD, CLASS(RELU), 0},
    {"scale", ARG_RESCALE, CLASS(RESCALING), CLASS(RESCALING)},
    {"offset", ARG_OFFSET, CLASS(RESCALING), 0},
    /* TENSOR_initializer and TENSOR_regularizer: see head_init.c */
    {"kernel_initializer", ARG_TENSOR, KERNEL, 0},
    {"bias_initializer", ARG_TENSOR, KERNEL, 0},
    {"gamma_initializer", ARG_TENSOR, NORM, 0},
    {"beta_initializer", ARG_TENSOR, NORM, 0},
    {"moving_mean_initializer", ARG_TENSOR, NORM, 0},
    {"moving_variance_initializer", ARG_TENSOR, NORM, 0},
    {"kernel_regularizer", ARG_TENSOR, KERNEL, 0},
    {"bias_regularizer", ARG_TENSOR, KERNEL, 0},
    {"gamma_regularizer", ARG_TENSOR, NORM, 0},
    {"beta_regularizer", ARG_TENSOR, NORM, 0},
};
enum { N_ARGUMENTS = sizeof arguments / sizeof *arguments };

static thaw_status set_argument(thaw_layer *layer, const thaw_head_place *at, argument_kind kind) {
    thaw_layer_config *c = &layer->config;
    switch (kind) {
    case ARG_NAME: return THAW_OK; /* taken when the layer was made */
    case ARG_UNITS:
    case ARG_FILTERS: return whole_number(&c->filters, at, 1, "a whole number of at least 1");
    case ARG_KERNEL_SIZE: return set_positive_pair(c->kernel, at);
    case ARG_POOL_SIZE: return set_positive_pair(c->kernel, at);
    case ARG_STRIDES: return set_positive_pair(c->strides, at);
    case ARG_DILATION: return set_positive_pair(c->dilation, at);
    case ARG_GROUPS: return only(at, "1");
    case ARG_PADDING: return set_padding(layer, at);
    case ARG_ACTIVATION: return set_activation(&c->activation, at);
    case ARG_USE_BIAS: return truth(&c->use_bias, at);
    case ARG_DATA_FORMAT: return only(at, "channels_last");
    case ARG_KEEPDIMS: return truth(&c->keepdims, at);
    case ARG_TARGET: return set_target(layer, at);
    case ARG_AXIS: return set_axis(at);
    case ARG_MOMENTUM: return set_float(&c->momentum, at, 0.0, 1.0, "a number from 0 to 1");
    case ARG_EPSILON: return set_float(&c->epsilon, at, 1e-12, 1.0, "a number above 0 up to 1");
    case ARG_CENTER: return truth(&c->center, at);
    case ARG_SCALE: return truth(&c->scale, at);
    case ARG_RATE: return set_float(&c->rate, at, 0.0, 0.999999, "a number from 0 to below 1");
    case ARG_MAX_VALUE: return set_float(&c->max_value, at, 0.0, 1e30, "a number of at least 0");
    case ARG_SLOPE: return set_float(&c->negative_slope, at, 0.0, 1e30, "a number of at least 0");
    case ARG_THRESHOLD: return set_float(&c->threshold, at, 0.0, 1e30, "a number of at least 0");
    case ARG_RESCALE: return set_rescale(layer, at, true);
    case ARG_OFFSET: return set_rescale(layer, at, false);
    case ARG_TENSOR: break; /* tensors exist when the layer is in the model */
    }
    return THAW_OK;
}

/* Why an argument that Keras has is not taken; NULL for others. */
static const char *refusal(const char *key) {
    static const char *const known[][2] = {
        {"trainable", "what trains is said by freeze: and train: of the stages"},
        {"seed", "training.seed seeds every draw"},
        {"dtype", "everything is float32"},
        {"kernel_constraint", "constraints are not supported"},
        {"bias_constraint", "constraints are not supported"},
        {"beta_constraint", "constraints are not supported"},
        {"gamma_constraint", "constraints are not supported"},
        {"activity_regularizer", "only weights are regularized: kernel_regularizer, bias_regularizer"},
        {"noise_shape", "every value is dropped by itself"},
        {"input_shape", "it follows from the layer before"},
        {"input_dim", "it follows from the layer before"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i][0], key) == 0)
            return known[i][1];
    return NULL;
}

static thaw_status unknown_argument(const thaw_head_place *at, unsigned class) {
    const char *names[N_ARGUMENTS], *why = refusal(at->argument->key);
    char list[640] = "";
    int n = 0;
    for (int i = 0; i < N_ARGUMENTS; i++)
        if (arguments[i].classes & class) {
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", n ? ", " : "", arguments[i].name);
            names[n++] = arguments[i].name;
        }
    const char *near = thaw_nearest(at->argument->key, names, n);
    if (why)
        return thaw_fail(THAW_USAGE, "%s:%d: %s of %s is not taken: %s", at->path, at->argument->line, at->argument->key,
                         at->class_name, why);
    return thaw_fail(THAW_USAGE, "%s:%d: %s has no argument '%s'%s%s; its arguments: %s", at->path, at->argument->line,
                     at->class_name, at->argument->key, *near ? "; did you mean " : "", near, list);
}

/* Row of an argument for a class; a key with a point belongs to the word before it. -1 if there is none. */
static int find_argument(const char *key, unsigned class) {
    size_t length = strcspn(key, ".");
    for (int i = 0; i < N_ARGUMENTS; i++)
        if ((arguments[i].classes & class) && strlen(arguments[i].name) == length &&
            strncmp(arguments[i].name, key, length) == 0 && (key[length] == '\0' || arguments[i].kind == ARG_TENSOR))
            return i;
    return -1;
}

/* Keras' names of the classes, its short forms, and nothing else. */
static thaw_status find_class(thaw_layer_kind *kind, const thaw_job_layer *written, const char *path) {
    static const struct {
        const char *name;
        thaw_layer_kind kind;
    } others[] = {{"GlobalAvgPool2D", THAW_LAYER_GLOBAL_AVERAGE_POOLING}, {"GlobalMaxPool2D", THAW_LAYER_GLOBAL_MAX_POOLING},
                  {"MaxPool2D", THAW_LAYER_MAX_POOLING}, {"AvgPool2D", THAW_LAYER_AVERAGE_POOLING},
                  {"Convolution2D", THAW_LAYER_CONV2D}};
    const char *names[THAW_LAYER_KINDS];
    char list[400] = "";
    int n = 0;
    for (int i = 0; i < THAW_LAYER_KINDS; i++) {
        const char *name = thaw_layer_class((thaw_layer_kind)i);
        *kind = (thaw_layer_kind)i;
        if (strcmp(name, written->class_name) == 0) {
            if (CHAIN & 1u << i)
                return THAW_OK;
            return thaw_fail(THAW_USAGE, "%s:%d: %s cannot stand in model.head: the head is a chain behind the base's output",
                             path, written->line, name);
        }
        if (CHAIN & 1u << i) {
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", n ? ", " : "", name);
            names[n++] = name;
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].name, written->class_name) == 0) {
            *kind = others[i].kind;
            return THAW_OK;
        }
    const char *near = thaw_nearest(written->class_name, names, n);
    return thaw_fail(THAW_USAGE, "%s:%d: model.head has no layer class '%s'%s%s; known: %s", path, written->line,
                     written->class_name, *near ? "; did you mean " : "", near, list);
}

static bool name_in_use(const thaw_model *model, const char *name) {
    for (int i = 0; i < model->n_layers; i++)
        if (strcmp(model->layers[i].name, name) == 0)
            return true;
    return false;
}

/* Keras' to_snake_case of the class, with _1, _2, ... where that is taken; thaw_free. */
static char *automatic_name(const thaw_model *model, const char *class_name) {
    char snake[64];
    size_t n = 0;
    for (size_t i = 0; class_name[i] && n + 2 < sizeof snake; i++) {
        bool upper = isupper((unsigned char)class_name[i]) != 0;
        if (i > 0 && upper && (islower((unsigned char)class_name[i + 1]) || islower((unsigned char)class_name[i - 1])))
            snake[n++] = '_';
        snake[n++] = (char)tolower((unsigned char)class_name[i]);
    }
    snake[n] = '\0';
    char *name = thaw_strdup(snake);
    for (int i = 1; name && name_in_use(model, name); i++) {
        thaw_free(name);
        name = thaw_format("%s_%d", snake, i);
    }
    return name;
}

static thaw_status choose_name(char **out, const thaw_model *model, const thaw_job_layer *written, const char *class_name,
                               const char *path) {
    const thaw_job_argument *given = NULL;
    for (int i = 0; i < written->n_arguments; i++)
        if (strcmp(written->arguments[i].key, "name") == 0)
            given = &written->arguments[i];
    if (given && (!given->text || !*given->text || strchr(given->text, '/')))
        return thaw_fail(THAW_USAGE, "%s:%d: name of %s must be text without '/'", path, given->line, class_name);
    if (given && name_in_use(model, given->text))
        return thaw_fail(THAW_USAGE, "%s:%d: the name '%s' of %s is in use; layers of base and head need different names", path,
                         given->line, given->text, class_name);
    *out = given ? thaw_strdup(given->text) : automatic_name(model, class_name);
    return *out ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for a head layer");
}

/* What the layer before gives must be what this class takes. */
static thaw_status check_shape(const thaw_head_place *at, const thaw_job_layer *written, unsigned class, const char *name) {
    const thaw_shape *s = &at->before;
    if (class == CLASS(DENSE) && s->rank == 3)
        return thaw_fail(THAW_USAGE, "%s:%d: %s (Dense) gets a map (%lld,%lld,%lld); add Flatten or GlobalAveragePooling2D "
                                     "before it",
                         at->path, written->line, name, (long long)s->dim[0], (long long)s->dim[1], (long long)s->dim[2]);
    if ((class & MAPS) && s->rank == 1)
        return thaw_fail(THAW_USAGE, "%s:%d: %s (%s) takes a map (height, width, channels) and gets %lld values; put it before "
                                     "Flatten or global pooling",
                         at->path, written->line, name, at->class_name, (long long)s->dim[0]);
    return THAW_OK;
}

/* Sets all arguments but those of tensors. */
static thaw_status read_arguments(thaw_layer *layer, thaw_head_place *at, const thaw_job_layer *written, unsigned class) {
    for (int i = 0; i < written->n_arguments; i++) {
        at->argument = &written->arguments[i];
        int row = find_argument(at->argument->key, class);
        if (row < 0)
            return unknown_argument(at, class);
        THAW_TRY(set_argument(layer, at, arguments[row].kind));
    }
    for (int i = 0; i < N_ARGUMENTS; i++) {
        bool given = !(arguments[i].required & class);
        for (int k = 0; k < written->n_arguments; k++)
            given = given || strcmp(written->arguments[k].key, arguments[i].name) == 0;
        if (!given)
            return thaw_fail(THAW_USAGE, "%s:%d: %s needs %s", at->path, written->line, at->class_name, arguments[i].name);
    }
    return THAW_OK;
}

/* The layer's initializers and regularizers, now that its tensors are known. */
static thaw_status read_tensors(thaw_layer *layer, thaw_head_place *at, const thaw_job_layer *written, unsigned class) {
    for (int i = 0; i < written->n_arguments; i++) {
        at->argument = &written->arguments[i];
        int row = find_argument(at->argument->key, class);
        if (row >= 0 && arguments[row].kind == ARG_TENSOR)
            THAW_TRY(thaw_head_tensor(layer, at, written));
    }
    return THAW_OK;
}

/* What a layer owns before the model takes it over. */
static void drop(thaw_layer *layer) {
    thaw_free(layer->name);
    thaw_free(layer->config.rescale);
    thaw_free(layer->config.offset);
}

static thaw_status append_layer(thaw_model *model, const thaw_job_layer *written, const char *path, int *node) {
    thaw_layer layer = {0};
    thaw_layer_kind kind;
    char *name = NULL;
    THAW_TRY(find_class(&kind, written, path));
    thaw_head_place at = {.path = path, .class_name = thaw_layer_class(kind), .before = model->nodes[*node].shape};
    unsigned class = 1u << kind;
    THAW_TRY(choose_name(&name, model, written, at.class_name, path));
    thaw_status status = THAW_OK;
    thaw_layer_default(&layer, kind, name);
    if (!layer.name)
        THAW_GOTO(thaw_fail(THAW_RESOURCE, "no memory for a head layer"));
    layer.head = true;
    status = check_shape(&at, written, class, name);
    if (status == THAW_OK)
        status = read_arguments(&layer, &at, written, class);
    if (status != THAW_OK) {
        drop(&layer);
        goto out;
    }
    status = thaw_model_add(model, &layer, node, 1, node);
    if (status == THAW_DATA) { /* the job is at fault here, not a file */
        char *message = thaw_strdup(thaw_message());
        status = thaw_fail(THAW_USAGE, "%s:%d: model.head: %s", path, written->line, message ? message : name);
        thaw_free(message);
    }
    if (status == THAW_OK)
        status = read_tensors(&model->layers[model->nodes[*node].layer], &at, written, class);
out:
    thaw_free(name);
    return status;
}

thaw_status thaw_head_append(thaw_model *model, const thaw_job *job) {
    int node = model->output;
    for (int i = 0; i < job->n_head; i++)
        THAW_TRY(append_layer(model, &job->head[i], job->path, &node));
    if (!job->n_head)
        return THAW_OK;
    THAW_TRY(thaw_model_finish(model, node, false));
    model->changed = true;
    model->n_base_layers = 0;
    while (model->n_base_layers < model->n_layers && !model->layers[model->n_base_layers].head)
        model->n_base_layers++;
    return THAW_OK;
}
