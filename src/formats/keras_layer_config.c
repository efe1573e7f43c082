/* The table of Keras' layer arguments, with one reader and one writer per type of argument. Values and defaults:
 * keras/src/layers and tf_keras/layers, get_config of each class. */
#include "formats/keras_layer_config.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/memory.h"

typedef enum argument_type {
    COUNT,       /* positive integer */
    PAIR,        /* integer or two */
    STRIDES,     /* the same; null: as the window */
    PADDING,     /* valid | same */
    FLAG,        /* true | false */
    RARE_FLAG,   /* written when true only: not all versions know it */
    FUNCTION,    /* activation */
    REAL,        /* number */
    LIMIT,       /* number; null: infinity */
    SEED,        /* integer; null: none */
    MARGINS,     /* ZeroPadding2D: n, [h, w], [[t, b], [l, r]] */
    TARGET,      /* Reshape */
    FACTORS,     /* Rescaling: number or one per channel */
    CHANNELS,    /* data_format: channels_last */
    AXIS,        /* the last one; written as -1 */
    AXIS_LIST,   /* the last one; written as [rank] */
    INITIALIZER, /* of tensor `tensor` */
    REGULARIZER, /* of tensor `tensor` */
    NOTHING,     /* null, false or no effect; written as null */
    NEUTRAL,     /* null, false, 0 or 1; not written */
    ANYTHING     /* without effect on results here; not written */
} argument_type;

typedef struct argument {
    thaw_layer_kind kind;
    const char *key;
    argument_type type;
    size_t offset; /* in thaw_layer_config */
    const char *tensor;
} argument;

#define AT(field) offsetof(thaw_layer_config, field), NULL
#define OF(tensor) 0, tensor
#define NONE 0, NULL

static const argument arguments[] = {
    {THAW_LAYER_CONV2D, "filters", COUNT, AT(filters)},
    {THAW_LAYER_CONV2D, "kernel_size", PAIR, AT(kernel)},
    {THAW_LAYER_CONV2D, "strides", PAIR, AT(strides)},
    {THAW_LAYER_CONV2D, "padding", PADDING, AT(same)},
    {THAW_LAYER_CONV2D, "data_format", CHANNELS, NONE},
    {THAW_LAYER_CONV2D, "dilation_rate", PAIR, AT(dilation)},
    {THAW_LAYER_CONV2D, "groups", NEUTRAL, NONE},
    {THAW_LAYER_CONV2D, "activation", FUNCTION, AT(activation)},
    {THAW_LAYER_CONV2D, "use_bias", FLAG, AT(use_bias)},
    {THAW_LAYER_CONV2D, "kernel_initializer", INITIALIZER, OF("kernel")},
    {THAW_LAYER_CONV2D, "bias_initializer", INITIALIZER, OF("bias")},
    {THAW_LAYER_CONV2D, "kernel_regularizer", REGULARIZER, OF("kernel")},
    {THAW_LAYER_CONV2D, "bias_regularizer", REGULARIZER, OF("bias")},
    {THAW_LAYER_CONV2D, "activity_regularizer", NOTHING, NONE},
    {THAW_LAYER_CONV2D, "kernel_constraint", NOTHING, NONE},
    {THAW_LAYER_CONV2D, "bias_constraint", NOTHING, NONE},

    {THAW_LAYER_MAX_POOLING, "pool_size", PAIR, AT(kernel)},
    {THAW_LAYER_MAX_POOLING, "padding", PADDING, AT(same)},
    {THAW_LAYER_MAX_POOLING, "strides", STRIDES, AT(strides)},
    {THAW_LAYER_MAX_POOLING, "data_format", CHANNELS, NONE},
    {THAW_LAYER_AVERAGE_POOLING, "pool_size", PAIR, AT(kernel)},
    {THAW_LAYER_AVERAGE_POOLING, "padding", PADDING, AT(same)},
    {THAW_LAYER_AVERAGE_POOLING, "strides", STRIDES, AT(strides)},
    {THAW_LAYER_AVERAGE_POOLING, "data_format", CHANNELS, NONE},
    {THAW_LAYER_GLOBAL_AVERAGE_POOLING, "data_format", CHANNELS, NONE},
    {THAW_LAYER_GLOBAL_AVERAGE_POOLING, "keepdims", RARE_FLAG, AT(keepdims)},
    {THAW_LAYER_GLOBAL_MAX_POOLING, "data_format", CHANNELS, NONE},
    {THAW_LAYER_GLOBAL_MAX_POOLING, "keepdims", RARE_FLAG, AT(keepdims)},
    {THAW_LAYER_FLATTEN, "data_format", CHANNELS, NONE},
    {THAW_LAYER_RESHAPE, "target_shape", TARGET, NONE},

    {THAW_LAYER_DENSE, "units", COUNT, AT(filters)},
    {THAW_LAYER_DENSE, "activation", FUNCTION, AT(activation)},
    {THAW_LAYER_DENSE, "use_bias", FLAG, AT(use_bias)},
    {THAW_LAYER_DENSE, "kernel_initializer", INITIALIZER, OF("kernel")},
    {THAW_LAYER_DENSE, "bias_initializer", INITIALIZER, OF("bias")},
    {THAW_LAYER_DENSE, "kernel_regularizer", REGULARIZER, OF("kernel")},
    {THAW_LAYER_DENSE, "bias_regularizer", REGULARIZER, OF("bias")},
    {THAW_LAYER_DENSE, "activity_regularizer", NOTHING, NONE},
    {THAW_LAYER_DENSE, "kernel_constraint", NOTHING, NONE},
    {THAW_LAYER_DENSE, "bias_constraint", NOTHING, NONE},
    {THAW_LAYER_DENSE, "input_dim", ANYTHING, NONE}, /* Keras 1 and 2: given by the kernel */

    {THAW_LAYER_BATCH_NORMALIZATION, "axis", AXIS_LIST, NONE},
    {THAW_LAYER_BATCH_NORMALIZATION, "momentum", REAL, AT(momentum)},
    {THAW_LAYER_BATCH_NORMALIZATION, "epsilon", REAL, AT(epsilon)},
    {THAW_LAYER_BATCH_NORMALIZATION, "center", FLAG, AT(center)},
    {THAW_LAYER_BATCH_NORMALIZATION, "scale", FLAG, AT(scale)},
    {THAW_LAYER_BATCH_NORMALIZATION, "beta_initializer", INITIALIZER, OF("beta")},
    {THAW_LAYER_BATCH_NORMALIZATION, "gamma_initializer", INITIALIZER, OF("gamma")},
    {THAW_LAYER_BATCH_NORMALIZATION, "moving_mean_initializer", INITIALIZER, OF("moving_mean")},
    {THAW_LAYER_BATCH_NORMALIZATION, "moving_variance_initializer", INITIALIZER, OF("moving_variance")},
    {THAW_LAYER_BATCH_NORMALIZATION, "beta_regularizer", REGULARIZER, OF("beta")},
    {THAW_LAYER_BATCH_NORMALIZATION, "gamma_regularizer", REGULARIZER, OF("gamma")},
    {THAW_LAYER_BATCH_NORMALIZATION, "beta_constraint", NOTHING, NONE},
    {THAW_LAYER_BATCH_NORMALIZATION, "gamma_constraint", NOTHING, NONE},
    {THAW_LAYER_BATCH_NORMALIZATION, "synchronized", ANYTHING, NONE}, /* statistics are always of the global batch */
    {THAW_LAYER_BATCH_NORMALIZATION, "renorm_momentum", ANYTHING, NONE}, /* `renorm` itself must be false */
    {THAW_LAYER_BATCH_NORMALIZATION, "fused", ANYTHING, NONE},

    {THAW_LAYER_ZERO_PADDING, "padding", MARGINS, NONE},
    {THAW_LAYER_ZERO_PADDING, "data_format", CHANNELS, NONE},
    {THAW_LAYER_CONCATENATE, "axis", AXIS, NONE},
    {THAW_LAYER_DROPOUT, "rate", REAL, AT(rate)},
    {THAW_LAYER_DROPOUT, "noise_shape", NOTHING, NONE},
    {THAW_LAYER_DROPOUT, "seed", SEED, NONE},
    {THAW_LAYER_ACTIVATION, "activation", FUNCTION, AT(activation)},
    {THAW_LAYER_RELU, "max_value", LIMIT, AT(max_value)},
    {THAW_LAYER_RELU, "negative_slope", REAL, AT(negative_slope)},
    {THAW_LAYER_RELU, "threshold", REAL, AT(threshold)},
    {THAW_LAYER_SOFTMAX, "axis", AXIS, NONE},
    {THAW_LAYER_RESCALING, "scale", FACTORS, AT(rescale)},
    {THAW_LAYER_RESCALING, "offset", FACTORS, AT(offset)},
};
enum { N_ARGUMENTS = sizeof arguments / sizeof *arguments };

/* Keys of every layer. */
static const struct {
    const char *key;
    argument_type type;
} common[] = {
    {"name", ANYTHING},       {"trainable", ANYTHING},   {"dtype", ANYTHING}, /* read by themselves */
    {"batch_input_shape", ANYTHING}, {"batch_shape", ANYTHING}, {"input_shape", ANYTHING}, {"input_dtype", ANYTHING},
    {"shared_object_id", ANYTHING},  {"sparse", NEUTRAL}, {"ragged", NEUTRAL}, {"autocast", ANYTHING},
};

thaw_layer_kind thaw_keras_kind(const char *class_name) {
    for (int i = 0; i < THAW_LAYER_KINDS; i++)
        if (strcmp(thaw_layer_class((thaw_layer_kind)i), class_name) == 0)
            return (thaw_layer_kind)i;
    return THAW_LAYER_KINDS;
}

/* Readers. */

static bool read_pair(int64_t pair[2], const cJSON *value) {
    value = thaw_json_unwrap(value);
    if (cJSON_IsNumber(value)) {
        bool ok = thaw_json_integer(&pair[0], value);
        pair[1] = pair[0];
        return ok;
    }
    return cJSON_IsArray(value) && cJSON_GetArraySize(value) == 2 && thaw_json_integer(&pair[0], value->child) &&
           thaw_json_integer(&pair[1], value->child->next);
}

static bool read_margins(int64_t pad[4], const cJSON *value) {
    value = thaw_json_unwrap(value);
    if (cJSON_IsArray(value) && cJSON_GetArraySize(value) == 2)
        return read_pair(pad, value->child) && read_pair(pad + 2, value->child->next);
    return read_pair(pad, value) && read_pair(pad + 2, value);
}

/* Finite number as float. */
static bool read_real(float *out, const cJSON *value) {
    value = thaw_json_unwrap(value);
    if (cJSON_IsArray(value) && cJSON_GetArraySize(value) == 1)
        value = value->child;
    if (!cJSON_IsNumber(value) || !isfinite((float)value->valuedouble))
        return false;
    *out = (float)value->valuedouble;
    return true;
}

static bool read_function(thaw_activation *out, const cJSON *value) {
    if (!value || cJSON_IsNull(value)) {
        *out = THAW_ACTIVATION_LINEAR;
        return true;
    }
    const char *name = cJSON_GetStringValue(value);
    if (!name && cJSON_IsObject(value)) { /* {"class_name": "function", "config": "relu"} */
        const cJSON *config = thaw_json_get(value, "config");
        name = cJSON_IsString(config) ? config->valuestring : NULL;
    }
    return name && thaw_activation_parse(out, name);
}

static bool is_last_axis(const cJSON *value, int rank) {
    value = thaw_json_unwrap(value);
    if (cJSON_IsArray(value) && cJSON_GetArraySize(value) == 1)
        value = value->child;
    int64_t axis;
    return thaw_json_integer(&axis, value) && (axis == -1 || axis == rank);
}

/* null, false, 0, 1, or a list of nulls. */
static bool is_neutral(const cJSON *value, bool numbers) {
    if (cJSON_IsArray(value)) {
        const cJSON *item;
        cJSON_ArrayForEach(item, value) if (!cJSON_IsNull(item)) return false;
        return true;
    }
    return !value || cJSON_IsNull(value) || cJSON_IsFalse(value) ||
           (numbers && cJSON_IsNumber(value) && (value->valuedouble == 0.0 || value->valuedouble == 1.0));
}

static bool is_float32(const cJSON *value) {
    if (!value)
        return true;
    if (cJSON_IsObject(value)) /* Policy, DTypePolicy */
        value = thaw_json_get(thaw_json_get(value, "config"), "name");
    const char *name = cJSON_GetStringValue(value);
    return name && strcmp(name, "float32") == 0;
}

static thaw_status read_factors(thaw_layer_config *config, bool scale, const cJSON *value, const argument *a,
                                const thaw_keras_place *place) {
    enum { MOST = 65536 };
    const cJSON *list = thaw_json_unwrap(value), *item;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 1, i = 0;
    if (n < 1 || n > MOST)
        return thaw_keras_refuse(place, a->key, value, "a number or one per channel was expected");
    float *values = thaw_calloc((size_t)n, sizeof *values);
    if (!values)
        return thaw_fail(THAW_RESOURCE, "no memory to read %s", place->file);
    bool ok = true;
    if (cJSON_IsArray(list))
        cJSON_ArrayForEach(item, list) ok = ok && read_real(&values[i++], item);
    else
        ok = read_real(&values[0], list);
    float **mine = scale ? &config->rescale : &config->offset, **other = scale ? &config->offset : &config->rescale;
    thaw_free(*mine);
    *mine = values;
    if (!ok)
        return thaw_keras_refuse(place, a->key, value, "a number or one per channel was expected");
    if (!*other) {
        config->n_rescale = n;
        return THAW_OK;
    }
    if (n == config->n_rescale)
        return THAW_OK;
    /* One of them is a single number: spread it. */
    if (n != 1 && config->n_rescale != 1)
        return thaw_keras_refuse(place, a->key, value, "which does not fit the other list of values");
    float **single = n == 1 ? mine : other;
    int wide = n == 1 ? config->n_rescale : n;
    float *spread = thaw_calloc((size_t)wide, sizeof *spread);
    if (!spread)
        return thaw_fail(THAW_RESOURCE, "no memory to read %s", place->file);
    for (int k = 0; k < wide; k++)
        spread[k] = **single;
    thaw_free(*single);
    *single = spread;
    config->n_rescale = wide;
    return THAW_OK;
}

static thaw_status read_target(thaw_layer_config *config, const cJSON *value, const argument *a,
                               const thaw_keras_place *place) {
    const cJSON *list = thaw_json_unwrap(value), *item;
    config->target_rank = 0;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    bool ok = n >= 1 && n <= 3;
    if (ok)
        cJSON_ArrayForEach(item, list) ok = thaw_json_integer(&config->target[config->target_rank++], item) && ok;
    return ok ? THAW_OK : thaw_keras_refuse(place, a->key, value, "a list of 1 to 3 integers was expected");
}

static thaw_status read_argument(thaw_layer_config *config, const argument *a, const cJSON *value, int rank,
                                 const thaw_keras_place *place) {
    void *field = (char *)config + a->offset;
    const char *expected = NULL, *text = cJSON_GetStringValue(value);
    int64_t whole;
    switch (a->type) {
    case COUNT:
        if (!thaw_json_integer(&whole, value) || whole < 1)
            expected = "a positive integer was expected";
        else
            *(int64_t *)field = whole;
        break;
    case STRIDES:
        if (!value || cJSON_IsNull(value)) {
            config->strides[0] = config->strides[1] = 0; /* as the window */
            break;
        }
        /* fallthrough */
    case PAIR:
        if (!read_pair(field, value))
            expected = "an integer or two were expected";
        break;
    case PADDING:
        if (!text || (strcmp(text, "same") != 0 && strcmp(text, "valid") != 0))
            expected = "which is not supported; valid or same are";
        else
            *(bool *)field = strcmp(text, "same") == 0;
        break;
    case FLAG:
    case RARE_FLAG:
        if (!cJSON_IsBool(value))
            expected = "true or false was expected";
        else
            *(bool *)field = cJSON_IsTrue(value);
        break;
    case FUNCTION:
        if (!read_function(field, value))
            expected = "which is not supported; linear, relu, relu6, elu, tanh, sigmoid, softmax and swish are";
        break;
    case REAL:
        if (!read_real(field, value))
            expected = "a number was expected";
        break;
    case LIMIT:
        if (!value || cJSON_IsNull(value))
            *(float *)field = INFINITY;
        else if (!read_real(field, value))
            expected = "a number or null was expected";
        break;
    case SEED:
        if (cJSON_IsNumber(value) && thaw_json_integer(&whole, value) && whole >= 0)
            config->seed = whole;
        else if (value && !cJSON_IsNull(value) && !cJSON_IsNumber(value))
            expected = "an integer or null was expected";
        break;
    case MARGINS:
        if (!read_margins(config->pad, value))
            expected = "an integer, two, or two pairs were expected";
        break;
    case TARGET: return read_target(config, value, a, place);
    case FACTORS: return read_factors(config, a->offset == offsetof(thaw_layer_config, rescale), value, a, place);
    case CHANNELS:
        if (value && !cJSON_IsNull(value) && (!text || strcmp(text, "channels_last") != 0))
            expected = "only channels_last is supported";
        break;
    case AXIS:
    case AXIS_LIST:
        if (!is_last_axis(value, rank))
            expected = "only the last axis is supported";
        break;
    case NOTHING:
        if (!is_neutral(value, false))
            expected = "which is not supported";
        break;
    case NEUTRAL:
        if (!is_neutral(value, true))
            expected = "which is not supported";
        break;
    case INITIALIZER:
    case REGULARIZER: /* of tensors, which do not exist yet */
    case ANYTHING: break;
    }
    return expected ? thaw_keras_refuse(place, a->key, value, expected) : THAW_OK;
}

static const argument *find_argument(thaw_layer_kind kind, const char *key) {
    for (int i = 0; i < N_ARGUMENTS; i++)
        if (arguments[i].kind == kind && strcmp(arguments[i].key, key) == 0)
            return &arguments[i];
    return NULL;
}

thaw_status thaw_keras_config_to_layer(thaw_layer *layer, const cJSON *config, int rank, const thaw_keras_place *place) {
    const cJSON *value;
    cJSON_ArrayForEach(value, config) {
        const argument *known = find_argument(layer->kind, value->string);
        if (known) {
            THAW_TRY(read_argument(&layer->config, known, value, rank, place));
            continue;
        }
        argument_type type = NEUTRAL;
        bool found = false;
        for (size_t i = 0; i < sizeof common / sizeof *common; i++)
            if (strcmp(common[i].key, value->string) == 0) {
                type = common[i].type;
                found = true;
            }
        if (type == NEUTRAL && !is_neutral(value, found))
            return thaw_keras_refuse(place, value->string, value, "an argument that thaw does not know");
    }
    const cJSON *trainable = thaw_json_get(config, "trainable"), *dtype = thaw_json_get(config, "dtype");
    if (trainable && !cJSON_IsBool(trainable))
        return thaw_keras_refuse(place, "trainable", trainable, "true or false was expected");
    layer->trainable = !cJSON_IsFalse(trainable);
    if (!is_float32(dtype))
        return thaw_keras_refuse(place, "dtype", dtype, "only float32 is supported");
    static const char *const required[][2] = {{"Conv2D", "filters"}, {"Conv2D", "kernel_size"}, {"Dense", "units"},
                                              {"Dropout", "rate"}, {"Reshape", "target_shape"}, {"Rescaling", "scale"}};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (strcmp(required[i][0], thaw_layer_class(layer->kind)) == 0 && !thaw_json_get(config, required[i][1]))
            return thaw_keras_refuse(place, required[i][1], NULL, "but the layer needs it");
    return THAW_OK;
}

thaw_status thaw_keras_input_shape(int64_t shape[3], int *rank, const cJSON *config, const thaw_keras_place *place) {
    static const char *const keys[] = {"batch_input_shape", "batch_shape", "batch_input_shape", "input_shape"};
    *rank = 0;
    for (size_t k = 0; k < sizeof keys / sizeof *keys && *rank == 0; k++) {
        const cJSON *value = thaw_json_get(config, keys[k]), *list = thaw_json_unwrap(value), *dim;
        bool batch = strncmp(keys[k], "batch", 5) == 0;
        if (!value)
            continue;
        int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) - batch : -1, i = -(int)batch;
        bool ok = n == 1 || n == 3;
        if (ok)
            cJSON_ArrayForEach(dim, list) {
                int64_t size = -1;
                if (i >= 0 && !cJSON_IsNull(dim) && !(thaw_json_integer(&size, dim) && size >= 1 && size <= INT32_MAX))
                    ok = false;
                if (i >= 0)
                    shape[i] = size;
                i++;
            }
        if (!ok)
            return thaw_keras_refuse(place, keys[k], value, "inputs of the shape (N,H,W,C) or (N,values) are supported");
        *rank = n;
    }
    return THAW_OK;
}

/* Regularizers and initializers. */

/* Class name and config of a sub-object: text, {"class_name","config"} or Keras 3's form with "module". */
static const char *sub_object(const cJSON *value, const cJSON **config) {
    *config = cJSON_IsObject(value) ? thaw_json_get(value, "config") : NULL;
    return cJSON_IsObject(value) ? thaw_json_text(value, "class_name") : cJSON_GetStringValue(value);
}

static thaw_status read_regularizer(thaw_tensor *tensor, const cJSON *value, const char *key,
                                    const thaw_keras_place *place) {
    static const struct {
        const char *name;
        bool l1, l2;
    } classes[] = {{"L1", true, false},  {"L2", false, true},  {"L1L2", true, true},
                   {"l1", true, false},  {"l2", false, true},  {"l1_l2", true, true}};
    if (!value || cJSON_IsNull(value))
        return THAW_OK;
    const cJSON *config;
    const char *name = sub_object(value, &config);
    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(name, classes[i].name) != 0)
            continue;
        float l1 = 0.0f, l2 = 0.0f;
        const cJSON *one = thaw_json_get(config, "l1"), *two = thaw_json_get(config, "l2");
        if (!cJSON_IsObject(value)) /* by name: Keras' default factors */
            l1 = l2 = 0.01f;
        if ((one && !read_real(&l1, one)) || (two && !read_real(&l2, two)) || l1 < 0.0f || l2 < 0.0f)
            return thaw_keras_refuse(place, key, value, "factors of 0 or more were expected");
        tensor->l1 = classes[i].l1 ? l1 : 0.0f;
        tensor->l2 = classes[i].l2 ? l2 : 0.0f;
        return THAW_OK;
    }
    return thaw_keras_refuse(place, key, value, "which is not supported; L1, L2 and L1L2 are");
}

static const struct {
    const char *class_name, *alias;
    thaw_initializer initializer;
    const char *keys[2]; /* of init_a and init_b */
    float defaults[2];
} initializers[] = {
    {"GlorotUniform", "glorot_uniform", THAW_INIT_GLOROT_UNIFORM, {NULL, NULL}, {0.0f, 0.0f}},
    {"GlorotNormal", "glorot_normal", THAW_INIT_GLOROT_NORMAL, {NULL, NULL}, {0.0f, 0.0f}},
    {"HeUniform", "he_uniform", THAW_INIT_HE_UNIFORM, {NULL, NULL}, {0.0f, 0.0f}},
    {"HeNormal", "he_normal", THAW_INIT_HE_NORMAL, {NULL, NULL}, {0.0f, 0.0f}},
    {"LecunUniform", "lecun_uniform", THAW_INIT_LECUN_UNIFORM, {NULL, NULL}, {0.0f, 0.0f}},
    {"LecunNormal", "lecun_normal", THAW_INIT_LECUN_NORMAL, {NULL, NULL}, {0.0f, 0.0f}},
    {"RandomNormal", "normal", THAW_INIT_RANDOM_NORMAL, {"stddev", NULL}, {0.05f, 0.0f}},
    {"TruncatedNormal", "truncated_normal", THAW_INIT_TRUNCATED_NORMAL, {"stddev", NULL}, {0.05f, 0.0f}},
    {"RandomUniform", "uniform", THAW_INIT_RANDOM_UNIFORM, {"minval", "maxval"}, {-0.05f, 0.05f}},
    {"Constant", "constant", THAW_INIT_CONSTANT, {"value", NULL}, {0.0f, 0.0f}},
    {"Zeros", "zeros", THAW_INIT_CONSTANT, {NULL, NULL}, {0.0f, 0.0f}},
    {"Ones", "ones", THAW_INIT_CONSTANT, {NULL, NULL}, {1.0f, 0.0f}},
};
enum { N_INITIALIZERS = sizeof initializers / sizeof *initializers };

/* Keras 2 wrote Glorot, He and Lecun as VarianceScaling. */
static const char *scaling_name(const cJSON *config) {
    const cJSON *scale = thaw_json_get(config, "scale");
    const char *mode = thaw_json_text(config, "mode"), *distribution = thaw_json_text(config, "distribution");
    double s = cJSON_IsNumber(scale) ? scale->valuedouble : 1.0;
    bool average = mode && strcmp(mode, "fan_avg") == 0, in = !mode || strcmp(mode, "fan_in") == 0;
    bool uniform = distribution && strcmp(distribution, "uniform") == 0;
    if (distribution && strcmp(distribution, "untruncated_normal") == 0)
        return NULL;
    if (average && s == 1.0)
        return uniform ? "GlorotUniform" : "GlorotNormal";
    if (in && s == 2.0)
        return uniform ? "HeUniform" : "HeNormal";
    if (in && s == 1.0)
        return uniform ? "LecunUniform" : "LecunNormal";
    return NULL;
}

/* An initializer that thaw does not have leaves the default: it matters only when no weights are loaded. */
static void read_initializer(thaw_tensor *tensor, const cJSON *value) {
    const cJSON *config;
    const char *name = sub_object(value, &config);
    if (name && strcmp(name, "VarianceScaling") == 0)
        name = scaling_name(config);
    for (int i = 0; name && i < N_INITIALIZERS; i++) {
        if (strcmp(name, initializers[i].class_name) != 0 && strcmp(name, initializers[i].alias) != 0)
            continue;
        float values[2] = {initializers[i].defaults[0], initializers[i].defaults[1]};
        const cJSON *mean = thaw_json_get(config, "mean");
        for (int k = 0; k < 2; k++)
            if (initializers[i].keys[k] && thaw_json_get(config, initializers[i].keys[k]) &&
                !read_real(&values[k], thaw_json_get(config, initializers[i].keys[k])))
                return;
        if (cJSON_IsNumber(mean) && mean->valuedouble != 0.0)
            return;
        tensor->initializer = initializers[i].initializer;
        tensor->init_a = values[0];
        tensor->init_b = values[1];
        return;
    }
}

thaw_status thaw_keras_config_to_tensors(thaw_layer *layer, const cJSON *config, const thaw_keras_place *place) {
    for (int i = 0; i < N_ARGUMENTS; i++) {
        const argument *a = &arguments[i];
        thaw_tensor *tensor = a->kind == layer->kind && a->tensor ? thaw_layer_tensor(layer, a->tensor) : NULL;
        const cJSON *value = tensor ? thaw_json_get(config, a->key) : NULL;
        if (!value)
            continue;
        if (a->type == REGULARIZER)
            THAW_TRY(read_regularizer(tensor, value, a->key, place));
        else
            read_initializer(tensor, value);
    }
    return THAW_OK;
}

/* Writers. A failed request for memory shows as NULL, which cJSON_AddItemToObject ignores; the caller looks at the
 * printed text in the end. */

static cJSON *class_object(const char *name) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "class_name", name);
    cJSON_AddObjectToObject(object, "config");
    return object;
}

static void add_float(cJSON *object, const char *key, float value) {
    cJSON_AddItemToObject(object, key, thaw_json_float(value));
}

static cJSON *write_regularizer(const thaw_tensor *tensor) {
    if (!tensor || (tensor->l1 == 0.0f && tensor->l2 == 0.0f))
        return cJSON_CreateNull();
    cJSON *object = class_object(tensor->l2 == 0.0f ? "L1" : tensor->l1 == 0.0f ? "L2" : "L1L2");
    cJSON *config = cJSON_GetObjectItem(object, "config");
    if (tensor->l1 != 0.0f)
        add_float(config, "l1", tensor->l1);
    if (tensor->l2 != 0.0f)
        add_float(config, "l2", tensor->l2);
    return object;
}

static cJSON *write_initializer(const thaw_tensor *tensor, const char *name) {
    const bool zeros = !tensor && strcmp(name, "kernel") != 0;
    thaw_initializer wanted = tensor ? tensor->initializer : zeros ? THAW_INIT_CONSTANT : THAW_INIT_GLOROT_UNIFORM;
    float a = tensor ? tensor->init_a : strcmp(name, "gamma") == 0 ? 1.0f : 0.0f;
    int found = N_INITIALIZERS - 1;
    for (int i = N_INITIALIZERS - 1; i >= 0; i--)
        if (initializers[i].initializer == wanted)
            found = i;
    if (wanted == THAW_INIT_CONSTANT && a == 0.0f)
        found = N_INITIALIZERS - 2;
    else if (wanted == THAW_INIT_CONSTANT && a == 1.0f)
        found = N_INITIALIZERS - 1;
    cJSON *object = class_object(initializers[found].class_name), *config = cJSON_GetObjectItem(object, "config");
    if (wanted == THAW_INIT_RANDOM_NORMAL || wanted == THAW_INIT_TRUNCATED_NORMAL)
        add_float(config, "mean", 0.0f);
    for (int k = 0; k < 2; k++)
        if (initializers[found].keys[k])
            add_float(config, initializers[found].keys[k], k ? tensor->init_b : a);
    if (wanted != THAW_INIT_CONSTANT)
        cJSON_AddNullToObject(config, "seed");
    return object;
}

static cJSON *pair(const int64_t *values) {
    return cJSON_CreateDoubleArray((double[]){(double)values[0], (double)values[1]}, 2);
}

static cJSON *write_factors(const float *values, int n) {
    if (n == 1)
        return thaw_json_float(values[0]);
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(list, thaw_json_float(values[i]));
    return list;
}

static cJSON *write_integers(const int64_t *values, int n) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)values[i]));
    return list;
}

static cJSON *write_argument(const thaw_layer *layer, const argument *a, int rank) {
    const thaw_layer_config *config = &layer->config;
    const void *field = (const char *)config + a->offset;
    const thaw_tensor *tensor = NULL;
    for (int t = 0; a->tensor && t < layer->n_tensors; t++)
        if (strcmp(layer->tensors[t].name, a->tensor) == 0)
            tensor = &layer->tensors[t];
    switch (a->type) {
    case COUNT: return cJSON_CreateNumber((double)*(const int64_t *)field);
    case STRIDES:
    case PAIR: return pair(field);
    case PADDING: return cJSON_CreateString(*(const bool *)field ? "same" : "valid");
    case FLAG: return cJSON_CreateBool(*(const bool *)field);
    case RARE_FLAG: return *(const bool *)field ? cJSON_CreateTrue() : NULL;
    case FUNCTION: return cJSON_CreateString(thaw_activation_name(*(const thaw_activation *)field));
    case REAL: return thaw_json_float(*(const float *)field);
    case LIMIT: return isinf(*(const float *)field) ? cJSON_CreateNull() : thaw_json_float(*(const float *)field);
    case SEED: return config->seed < 0 ? cJSON_CreateNull() : cJSON_CreateNumber((double)config->seed);
    case MARGINS: {
        cJSON *list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, pair(config->pad));
        cJSON_AddItemToArray(list, pair(config->pad + 2));
        return list;
    }
    case TARGET: return write_integers(config->target, config->target_rank);
    case FACTORS: return write_factors(*(float *const *)field, config->n_rescale);
    case CHANNELS: return cJSON_CreateString("channels_last");
    case AXIS: return cJSON_CreateNumber(-1.0);
    case AXIS_LIST: return cJSON_CreateIntArray(&rank, 1);
    case INITIALIZER: return write_initializer(tensor, a->tensor);
    case REGULARIZER: return write_regularizer(tensor);
    case NOTHING: return cJSON_CreateNull();
    case NEUTRAL:
    case ANYTHING: break;
    }
    return NULL;
}

cJSON *thaw_keras_layer_to_config(const thaw_layer *layer, const char *name, bool trainable, int rank) {
    cJSON *config = cJSON_CreateObject();
    cJSON_AddStringToObject(config, "name", name);
    cJSON_AddBoolToObject(config, "trainable", trainable);
    cJSON_AddStringToObject(config, "dtype", "float32");
    for (int i = 0; i < N_ARGUMENTS; i++)
        if (arguments[i].kind == layer->kind) {
            cJSON *value = write_argument(layer, &arguments[i], rank);
            if (value)
                cJSON_AddItemToObject(config, arguments[i].key, value);
        }
    return config;
}

cJSON *thaw_keras_input_config(const char *name, const int64_t *shape, int rank) {
    cJSON *config = cJSON_CreateObject(), *dims = cJSON_AddArrayToObject(config, "batch_input_shape");
    cJSON_AddItemToArray(dims, cJSON_CreateNull());
    for (int i = 0; i < rank; i++)
        cJSON_AddItemToArray(dims, shape[i] < 0 ? cJSON_CreateNull() : cJSON_CreateNumber((double)shape[i]));
    cJSON_AddStringToObject(config, "dtype", "float32");
    cJSON_AddFalseToObject(config, "sparse");
    cJSON_AddFalseToObject(config, "ragged");
    cJSON_AddStringToObject(config, "name", name);
    return config;
}
