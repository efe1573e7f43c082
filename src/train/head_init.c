/* Initializers of Keras 3.15 (initializers/random_initializers.py, constant_initializers.py) and their defaults;
 * regularizers l1, l2, l1_l2 (regularizers/regularizers.py: 0.01 for a name alone). */
#include "train/head_init.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

typedef enum { SCALE_NONE, SCALE_STDDEV, SCALE_RANGE, SCALE_VALUE } init_arguments;

static const struct {
    const char *name; /* without '_', case does not matter: GlorotUniform, glorot_uniform */
    thaw_initializer initializer;
    float a, b;
    init_arguments arguments;
} initializers[] = {
    {"glorotuniform", THAW_INIT_GLOROT_UNIFORM, 0, 0, SCALE_NONE},
    {"glorotnormal", THAW_INIT_GLOROT_NORMAL, 0, 0, SCALE_NONE},
    {"heuniform", THAW_INIT_HE_UNIFORM, 0, 0, SCALE_NONE},
    {"henormal", THAW_INIT_HE_NORMAL, 0, 0, SCALE_NONE},
    {"lecununiform", THAW_INIT_LECUN_UNIFORM, 0, 0, SCALE_NONE},
    {"lecunnormal", THAW_INIT_LECUN_NORMAL, 0, 0, SCALE_NONE},
    {"randomnormal", THAW_INIT_RANDOM_NORMAL, 0.05f, 0, SCALE_STDDEV},
    {"truncatednormal", THAW_INIT_TRUNCATED_NORMAL, 0.05f, 0, SCALE_STDDEV},
    {"randomuniform", THAW_INIT_RANDOM_UNIFORM, -0.05f, 0.05f, SCALE_RANGE},
    {"constant", THAW_INIT_CONSTANT, 0, 0, SCALE_VALUE},
    {"zeros", THAW_INIT_CONSTANT, 0, 0, SCALE_NONE},
    {"ones", THAW_INIT_CONSTANT, 1, 0, SCALE_NONE},
};
enum { N_INITIALIZERS = sizeof initializers / sizeof *initializers };

static bool same_name(const char *written, const char *name) {
    for (; *written; written++) {
        if (*written == '_')
            continue;
        if (tolower((unsigned char)*written) != *name)
            return false;
        name++;
    }
    return *name == '\0';
}

static int find_initializer(const char *written) {
    for (int i = 0; i < N_INITIALIZERS; i++)
        if (same_name(written, initializers[i].name))
            return i;
    return -1;
}

static thaw_status fail(const thaw_head_place *at, const char *wanted) {
    return thaw_fail(THAW_USAGE, "%s:%d: %s of %s is '%s'; it must be %s", at->path, at->argument->line, at->argument->key,
                     at->class_name, at->argument->text ? at->argument->text : "a list", wanted);
}

static thaw_status set_initializer(thaw_tensor *tensor, const thaw_head_place *at) {
    static const char *const spelled[] = {"glorot_uniform", "glorot_normal", "he_uniform",       "he_normal",
                                          "lecun_uniform",  "lecun_normal",  "random_normal",    "truncated_normal",
                                          "random_uniform", "constant",      "zeros",            "ones"};
    int row = at->argument->text ? find_initializer(at->argument->text) : -1;
    if (row < 0) {
        const char *near = thaw_nearest(at->argument->text ? at->argument->text : "", spelled, N_INITIALIZERS);
        return thaw_fail(THAW_USAGE, "%s:%d: %s of %s: no initializer '%s'%s%s; known: glorot_uniform, glorot_normal, "
                                     "he_uniform, he_normal, lecun_uniform, lecun_normal, random_normal, truncated_normal, "
                                     "random_uniform, constant, zeros, ones",
                         at->path, at->argument->line, at->argument->key, at->class_name,
                         at->argument->text ? at->argument->text : "a list", *near ? "; did you mean " : "", near);
    }
    tensor->initializer = initializers[row].initializer;
    tensor->init_a = initializers[row].a;
    tensor->init_b = initializers[row].b;
    return THAW_OK;
}

/* The text of `prefix`_initializer itself beside its arguments: {RandomNormal: {stddev: 0.1}}. NULL if there is none. */
static const char *class_of(const thaw_job_layer *written, const char *key, size_t length) {
    for (int i = 0; i < written->n_arguments; i++)
        if (strlen(written->arguments[i].key) == length && strncmp(written->arguments[i].key, key, length) == 0)
            return written->arguments[i].text;
    return NULL;
}

static thaw_status set_initializer_argument(thaw_tensor *tensor, const thaw_head_place *at, const thaw_job_layer *written,
                                            const char *argument) {
    const char *name = class_of(written, at->argument->key, strcspn(at->argument->key, "."));
    int row = name ? find_initializer(name) : -1;
    init_arguments takes = row >= 0 ? initializers[row].arguments : SCALE_NONE;
    double value = 0.0;
    if (strcmp(argument, "seed") == 0)
        return thaw_fail(THAW_USAGE, "%s:%d: %s of %s is not taken: training.seed seeds every draw", at->path,
                         at->argument->line, at->argument->key, at->class_name);
    if (takes == SCALE_STDDEV && strcmp(argument, "mean") == 0)
        return thaw_head_number(&value, at, 0.0, 0.0, "0");
    bool stddev = takes == SCALE_STDDEV && strcmp(argument, "stddev") == 0;
    bool low = takes == SCALE_RANGE && strcmp(argument, "minval") == 0;
    bool high = takes == SCALE_RANGE && strcmp(argument, "maxval") == 0;
    bool constant = takes == SCALE_VALUE && strcmp(argument, "value") == 0;
    if (!stddev && !low && !high && !constant)
        return thaw_fail(THAW_USAGE, "%s:%d: %s of %s: %s takes %s, not '%s'", at->path, at->argument->line, at->argument->key,
                         at->class_name, name ? name : "an initializer without class",
                         takes == SCALE_STDDEV  ? "stddev"
                         : takes == SCALE_RANGE ? "minval and maxval"
                         : takes == SCALE_VALUE ? "value"
                                                : "no arguments",
                         argument);
    THAW_TRY(thaw_head_number(&value, at, stddev ? 0.0 : -1e6, 1e6, stddev ? "a number of at least 0" : "a number"));
    *(high ? &tensor->init_b : &tensor->init_a) = (float)value;
    return THAW_OK;
}

static thaw_status set_regularizer(thaw_tensor *tensor, const thaw_head_place *at, const char *argument) {
    const char *text = at->argument->text;
    double value = 0.0;
    if (argument) { /* kernel_regularizer.l2: 0.01 */
        bool l1 = strcasecmp(argument, "l1") == 0, l2 = strcasecmp(argument, "l2") == 0;
        if (!l1 && !l2)
            return thaw_fail(THAW_USAGE, "%s:%d: %s of %s: a regularizer takes l1 and l2, e.g. {l2: 0.01}, not '%s'", at->path,
                             at->argument->line, at->argument->key, at->class_name, argument);
        THAW_TRY(thaw_head_number(&value, at, 0.0, 1e6, "a number of at least 0"));
        *(l1 ? &tensor->l1 : &tensor->l2) = (float)value;
        return THAW_OK;
    }
    if (text && strcasecmp(text, "l1") == 0)
        tensor->l1 = 0.01f;
    else if (text && strcasecmp(text, "l2") == 0)
        tensor->l2 = 0.01f;
    else
        return fail(at, "l1, l2, or a mapping like {l1: 0.001, l2: 0.01}");
    return THAW_OK;
}

thaw_status thaw_head_tensor(thaw_layer *layer, const thaw_head_place *at, const thaw_job_layer *written) {
    const char *key = at->argument->key, *point = strchr(key, '.');
    const char *under = strstr(key, "_initializer"), *regularizer = strstr(key, "_regularizer");
    char name[32] = "";
    if (!under)
        under = regularizer;
    if (under && (size_t)(under - key) < sizeof name)
        memcpy(name, key, (size_t)(under - key));
    thaw_tensor *tensor = thaw_layer_tensor(layer, name);
    if (!tensor) /* use_bias: false, center: false, scale: false */
        return thaw_fail(THAW_USAGE, "%s:%d: %s of %s: the layer has no %s; remove it", at->path, at->argument->line, key,
                         at->class_name, name);
    if (regularizer)
        return set_regularizer(tensor, at, point ? point + 1 : NULL);
    return point ? set_initializer_argument(tensor, at, written, point + 1) : set_initializer(tensor, at);
}
