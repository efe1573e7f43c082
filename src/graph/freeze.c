#include "graph/freeze.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "graph/build.h"

/* Layers that the job's indices count: Keras' `layers` list of the base, or of base and head. */
static int list_length(const thaw_model *model, bool whole) {
    int n = 0;
    int layers = whole ? model->n_layers : model->n_base_layers;
    for (int i = 0; i < layers; i++)
        if (model->layers[i].listed && model->layers[i].list_index + 1 > n)
            n = model->layers[i].list_index + 1;
    return n;
}

static void set_position(bool *trainable, const thaw_model *model, int64_t position, bool value) {
    for (int i = 0; i < model->n_layers; i++) /* all layers of a nested model share one position */
        if (model->layers[i].listed && model->layers[i].list_index == position)
            trainable[i] = value;
}

/* "job.yaml:12: " or "--freeze: " in front of a message. */
static const char *source(char text[256], const char *where, const thaw_selector *selector) {
    if (selector->line > 0)
        snprintf(text, 256, "%s:%d", where, selector->line);
    else
        snprintf(text, 256, "%s", where);
    return text;
}

/* A layer by name, or every layer of the nested model of that name. False if there is none. */
static bool set_name(bool *trainable, const thaw_model *model, const char *name, bool value) {
    int found = thaw_model_find(model, name);
    if (found >= 0) {
        trainable[found] = value;
        return true;
    }
    size_t length = strlen(name);
    bool any = false;
    for (int i = 0; i < model->n_layers; i++)
        if (strncmp(model->layers[i].name, name, length) == 0 && model->layers[i].name[length] == '/') {
            trainable[i] = value;
            any = true;
        }
    return any;
}

static thaw_status apply_slice(bool *trainable, const thaw_model *model, const thaw_selector *s, bool value,
                               const char *where) {
    char text[256];
    int64_t n = list_length(model, s->whole), step = s->step ? s->step : 1;
    int64_t start = s->has_start ? s->start : 0, stop = s->has_stop ? s->stop : n;
    if (step < 1)
        return thaw_fail(THAW_USAGE, "%s: the step of a slice must be 1 or more, found %lld", source(text, where, s),
                         (long long)step);
    for (int end = 0; end < 2; end++) {
        int64_t *at = end ? &stop : &start;
        if (*at < -n || *at > n)
            return thaw_fail(THAW_USAGE, "%s: slice end %lld lies outside the %lld layers of %s (%d to %d); `thaw layers` "
                                         "shows the indices", source(text, where, s), (long long)*at, (long long)n,
                             model->name, (int)-n, (int)n);
        if (*at < 0)
            *at += n;
    }
    step = step > n ? n + 1 : step; /* no sum below overflows */
    for (int64_t i = start; i < stop; i += step)
        set_position(trainable, model, i, value);
    return THAW_OK;
}

/* `value`: false freezes what the selector names, true makes it trainable. */
static thaw_status apply(bool *trainable, const thaw_model *model, const thaw_selector *s, bool value,
                         const bool *previous, const char *where) {
    char text[256];
    bool any = false;
    switch (s->kind) {
    case THAW_SELECT_ALL:
        for (int i = 0; i < model->n_base_layers; i++)
            trainable[i] = value;
        return THAW_OK;
    case THAW_SELECT_NONE: return THAW_OK;
    case THAW_SELECT_FILE:
        for (int i = 0; i < model->n_base_layers; i++)
            trainable[i] = model->layers[i].trainable;
        return THAW_OK;
    case THAW_SELECT_KEEP:
        for (int i = 0; i < model->n_layers; i++)
            trainable[i] = previous ? previous[i] : model->layers[i].trainable;
        return THAW_OK;
    case THAW_SELECT_BEFORE: {
        int stop = thaw_model_find(model, s->text);
        size_t length = strlen(s->text);
        for (int i = 0; stop < 0 && i < model->n_layers; i++) /* the first layer of a nested model */
            if (strncmp(model->layers[i].name, s->text, length) == 0 && model->layers[i].name[length] == '/')
                stop = i;
        if (stop < 0)
            return thaw_fail(THAW_USAGE, "%s: before:%s: no layer of that name in %s; nearest: %s",
                             source(text, where, s), s->text, model->name, thaw_model_nearest(model, s->text));
        for (int i = 0; i < stop; i++)
            trainable[i] = value;
        return THAW_OK;
    }
    case THAW_SELECT_NAME:
        if (!set_name(trainable, model, s->text, value))
            return thaw_fail(THAW_USAGE, "%s: no layer named '%s' in %s; nearest: %s (`thaw layers` lists all)",
                             source(text, where, s), s->text, model->name, thaw_model_nearest(model, s->text));
        return THAW_OK;
    case THAW_SELECT_INDEX: {
        int64_t n = list_length(model, false), at = s->start < 0 ? s->start + n : s->start;
        if (at < 0 || at >= n)
            return thaw_fail(THAW_USAGE, "%s: layer index %lld lies outside 0..%lld of %s", source(text, where, s),
                             (long long)s->start, (long long)n - 1, model->name);
        set_position(trainable, model, at, value);
        return THAW_OK;
    }
    case THAW_SELECT_SLICE: return apply_slice(trainable, model, s, value, where);
    case THAW_SELECT_GLOB:
        for (int i = 0; i < model->n_layers; i++) {
            const char *last = strrchr(model->layers[i].name, '/');
            if (thaw_glob(s->text, model->layers[i].name) || (last && thaw_glob(s->text, last + 1))) {
                trainable[i] = value;
                any = true;
            }
        }
        if (!any)
            return thaw_fail(THAW_USAGE, "%s: glob:%s matches no layer of %s; nearest: %s", source(text, where, s), s->text,
                             model->name, thaw_model_nearest(model, s->text));
        return THAW_OK;
    case THAW_SELECT_CLASS: {
        const char *classes[THAW_LAYER_KINDS];
        for (int i = 0; i < model->n_layers; i++)
            if (strcmp(thaw_layer_class(model->layers[i].kind), s->text) == 0) {
                trainable[i] = value;
                any = true;
            }
        for (int i = 0; i < THAW_LAYER_KINDS; i++)
            classes[i] = thaw_layer_class((thaw_layer_kind)i);
        if (!any)
            return thaw_fail(THAW_USAGE, "%s: class:%s: %s has no layer of that class; nearest class: %s",
                             source(text, where, s), s->text, model->name,
                             thaw_nearest(s->text, classes, THAW_LAYER_KINDS));
        return THAW_OK;
    }
    }
    return thaw_fail(THAW_INTERNAL, "unknown selector %d", (int)s->kind);
}

thaw_status thaw_freeze_resolve(bool *trainable, const thaw_model *model, const thaw_freeze_spec *freeze,
                                const thaw_freeze_spec *train, const bool *previous, const char *where) {
    for (int i = 0; i < model->n_layers; i++)
        trainable[i] = true;
    for (int i = 0; i < freeze->n; i++)
        THAW_TRY(apply(trainable, model, &freeze->selectors[i], false, previous, where));
    for (int i = 0; train && i < train->n; i++)
        THAW_TRY(apply(trainable, model, &train->selectors[i], true, previous, where));
    return THAW_OK;
}

const char *thaw_freeze_describe(const bool *trainable, const thaw_model *model) {
    static char text[512];
    size_t at = 0;
    int first = -1, begin = -1, end = -1; /* first trained layer; indices of the run of frozen layers */
    text[0] = '\0';
    for (int i = 0; i <= model->n_layers; i++) {
        const thaw_layer *layer = i < model->n_layers ? &model->layers[i] : NULL;
        if (layer && trainable[i] && first < 0 && layer->n_tensors > 0)
            first = i;
        if (layer && !layer->listed) /* has no index: the InputLayer of a Sequential model */
            continue;
        if (layer && !trainable[i]) {
            begin = begin < 0 ? layer->list_index : begin;
            end = layer->list_index;
            continue;
        }
        if (begin < 0)
            continue;
        const char *before = at ? "," : "frozen ";
        int written = begin == end ? snprintf(text + at, sizeof text - at, "%s%d", before, begin)
                                   : snprintf(text + at, sizeof text - at, "%s%d-%d", before, begin, end);
        at = written < 0 || (size_t)written >= sizeof text - at ? sizeof text - 1 : at + (size_t)written;
        begin = -1;
    }
    if (at == 0)
        at += (size_t)snprintf(text, sizeof text, "frozen none");
    if (first >= 0)
        snprintf(text + at, sizeof text - at, ", first trained: %d %s", model->layers[first].list_index,
                 model->layers[first].name);
    return text;
}
