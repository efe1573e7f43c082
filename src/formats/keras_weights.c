/* Order and names of weights: keras/src/legacy/saving/legacy_h5_format.py, load_weights_from_hdf5_group. */
#include "formats/keras_weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "formats/hdf5_write.h"

/* One weight of a group. */
typedef struct weight {
    int layer, tensor;
    char *path; /* of the layer inside the group; writing only, owned */
} weight;

/* Layers of the model that share a group of the file: one layer, or all of a nested model. */
typedef struct group {
    const char *name;
    size_t name_length;
    weight *weights;
    int n;
} group;

/* A group of the file that holds weights. */
typedef struct stored {
    char *name;
    char **entries;
    int n;
} stored;

/* Trainable ones first, then the others; both in the order of the layers. */
static void sort_weights(weight *weights, int n, const thaw_model *model, const bool *trainable, weight *scratch) {
    int k = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            const thaw_layer *layer = &model->layers[weights[i].layer];
            bool trains = (trainable ? trainable[weights[i].layer] : layer->trainable) &&
                          !layer->tensors[weights[i].tensor].statistic;
            if (trains == (pass == 0))
                scratch[k++] = weights[i];
        }
    memcpy(weights, scratch, (size_t)n * sizeof *weights);
}

/* Reading. */

/* Groups of the model's layers below `n_layers` that have weights. [out] weights: the storage of all. */
static thaw_status model_groups(group **out, int *n, weight **weights, const thaw_model *model, int n_layers) {
    size_t most = 1;
    for (int i = 0; i < n_layers; i++)
        most += (size_t)model->layers[i].n_tensors;
    group *groups = thaw_calloc((size_t)n_layers + 1, sizeof *groups);
    weight *all = thaw_calloc(2 * most, sizeof *all); /* the second half is scratch */
    *out = groups;
    *weights = all;
    *n = 0;
    if (!groups || !all)
        return thaw_fail(THAW_RESOURCE, "no memory to load weights into %s", model->name);
    int last = -1, at = 0;
    for (int i = 0; i < n_layers; i++) {
        const thaw_layer *layer = &model->layers[i];
        if (layer->n_tensors == 0)
            continue;
        if (*n == 0 || layer->list_index != last) {
            const char *slash = model->nested ? strchr(layer->name, '/') : NULL;
            groups[(*n)++] = (group){.name = layer->name, .weights = all + at,
                                     .name_length = slash ? (size_t)(slash - layer->name) : strlen(layer->name)};
            last = layer->list_index;
        }
        for (int t = 0; t < layer->n_tensors; t++, at++) {
            all[at] = (weight){.layer = i, .tensor = t};
            groups[*n - 1].n++;
        }
    }
    for (int g = 0; g < *n; g++)
        sort_weights(groups[g].weights, groups[g].n, model, NULL, all + most);
    return THAW_OK;
}

static void free_stored(stored *found, int n) {
    for (int i = 0; found && i < n; i++) {
        thaw_free(found[i].name);
        thaw_h5_free_texts(found[i].entries, found[i].n);
    }
    thaw_free(found);
}

/* The file's groups that hold weights, in order. */
static thaw_status stored_groups(stored **out, int *n, const thaw_h5 *h5, hid_t weights) {
    char **names;
    int n_names;
    *out = NULL;
    *n = 0;
    THAW_TRY(thaw_h5_texts(&names, &n_names, h5, weights, "layer_names"));
    if (n_names < 0)
        return thaw_h5_has_attribute(weights, "nb_layers")
                   ? thaw_fail(THAW_DATA, "%s: weights of a Keras before 1.0 are not supported; load and save them with a "
                                          "newer Keras", h5->path)
                   : thaw_fail(THAW_DATA, "%s: no attribute layer_names: not a Keras weights file", h5->path);
    thaw_status status = THAW_OK;
    stored *found = *out = thaw_calloc((size_t)n_names + 1, sizeof *found);
    if (!found)
        status = thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
    for (int i = 0; i < n_names && status == THAW_OK; i++) {
        hid_t one;
        char **entries = NULL;
        int n_entries = 0;
        status = thaw_h5_group(&one, h5, weights, names[i], names[i]);
        if (status != THAW_OK)
            break;
        status = thaw_h5_texts(&entries, &n_entries, h5, one, "weight_names");
        H5Oclose(one);
        if (status == THAW_OK && n_entries > 0) {
            found[(*n)++] = (stored){names[i], entries, n_entries};
            names[i] = NULL;
        } else {
            thaw_h5_free_texts(entries, n_entries < 0 ? 0 : n_entries);
        }
    }
    thaw_h5_free_texts(names, n_names);
    return status;
}

/* Length of a variable's name without ":0" behind it. */
static size_t name_length(const char *name) {
    size_t n = strlen(name), k = n;
    while (k > 0 && name[k - 1] >= '0' && name[k - 1] <= '9')
        k--;
    return k < n && k > 0 && name[k - 1] == ':' ? k - 1 : n;
}

static const char *last_part(const char *path, size_t length) {
    const char *at = path + length;
    while (at > path && at[-1] != '/')
        at--;
    return at;
}

/* Does the entry end in "/variable" (alone or behind any layer)? Keras 1: "..._W", "..._running_std" (a variance). */
static bool names_variable(const char *entry, const char *variable) {
    static const char *const old[][2] = {{"kernel", "_W"}, {"bias", "_b"}, {"gamma", "_gamma"}, {"beta", "_beta"},
                                         {"moving_mean", "_running_mean"}, {"moving_variance", "_running_std"}};
    size_t length = name_length(entry), size = strlen(variable);
    const char *part = last_part(entry, length);
    size_t part_length = (size_t)(entry + length - part);
    if (part_length == size && memcmp(part, variable, size) == 0)
        return true;
    if (part_length > 2 && part[part_length - 2] == '_' && part[part_length - 1] >= '0' && part[part_length - 1] <= '9')
        part_length -= 2; /* "block1_conv1_W_1" */
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        size_t tail = strlen(old[i][1]);
        if (strcmp(old[i][0], variable) == 0 && part_length > tail && memcmp(part + part_length - tail, old[i][1], tail) == 0)
            return true;
    }
    return false;
}

/* Does it end in "layer/variable"? */
static bool names_weight(const char *entry, const thaw_layer *layer, const char *variable) {
    const char *name = last_part(layer->name, strlen(layer->name));
    const char *end = last_part(entry, name_length(entry));
    size_t size = strlen(name);
    if (end == entry || !names_variable(entry, variable))
        return false;
    const char *before = last_part(entry, (size_t)(end - 1 - entry));
    return (size_t)(end - 1 - before) == size && memcmp(before, name, size) == 0;
}

/* Which entry is which weight: by the last two parts of the names if they say it for all, in a group of one layer by the
 * last part, else by position. [out] entry: per weight. */
static void match_entries(int *entry, const thaw_model *model, const group *g, const stored *found) {
    bool single = g->n > 0 && g->weights[0].layer == g->weights[g->n - 1].layer;
    for (int mode = 0; mode < 2; mode++) {
        bool all = mode == 0 || single;
        for (int w = 0; all && w < g->n; w++) {
            const thaw_layer *layer = &model->layers[g->weights[w].layer];
            const char *variable = layer->tensors[g->weights[w].tensor].name;
            int hits = 0;
            for (int e = 0; e < found->n; e++)
                if (mode == 0 ? names_weight(found->entries[e], layer, variable) : names_variable(found->entries[e], variable)) {
                    entry[w] = e;
                    hits++;
                }
            all = hits == 1;
            for (int k = 0; all && k < w; k++)
                all = entry[k] != entry[w];
        }
        if (all)
            return;
    }
    for (int w = 0; w < g->n; w++)
        entry[w] = w;
}

/* The stored group of each of the model's groups. */
static thaw_status match_groups(int *match, const thaw_h5 *h5, const thaw_model *model, const group *groups, int n,
                                const stored *found, int n_found, bool by_name) {
    for (int f = 0; f < n_found; f++)
        if ((strcmp(found[f].name, "bn_conv1") == 0 || strcmp(found[f].name, "res2a_branch2a") == 0) &&
            thaw_model_find(model, found[f].name) < 0)
            return thaw_fail(THAW_DATA, "%s holds the ResNet50 of before 2019 (layer '%s'), another network under the same file "
                                        "name; use the official file of today (`thaw fetch resnet50`)", h5->path,
                             found[f].name);
    if (n != n_found)
        return thaw_fail(THAW_DATA, "%s: the file has %d layers with weights, the model needs %d%s", h5->path, n_found, n,
                         n_found > n ? "; is it a file with top?" : "");
    for (int g = 0; g < n && by_name; g++) {
        match[g] = -1;
        if (strlen(found[g].name) == groups[g].name_length && /* as a rule they stand in the same order */
            memcmp(found[g].name, groups[g].name, groups[g].name_length) == 0)
            match[g] = g;
        for (int f = 0; f < n && match[g] < 0; f++)
            if (strlen(found[f].name) == groups[g].name_length &&
                memcmp(found[f].name, groups[g].name, groups[g].name_length) == 0)
                match[g] = f;
        by_name = match[g] >= 0;
    }
    for (int g = 0; g < n && !by_name; g++)
        match[g] = g;
    return THAW_OK;
}

static thaw_status wrong_count(const thaw_h5 *h5, const group *g, const stored *found) {
    return thaw_fail(THAW_DATA, "%s: layer '%.*s': the file has %d weights for it (group '%s', '%s' first), the model needs %d",
                     h5->path, (int)g->name_length, g->name, found->n, found->name, found->entries[0], g->n);
}

/* Checks (fill false) or reads (true) all weights of one group. */
static thaw_status load_group(thaw_model *model, const thaw_h5 *h5, hid_t weights, const group *g, const stored *found,
                              const int *entry, bool fill) {
    hid_t one;
    thaw_status status;
    THAW_TRY(thaw_h5_group(&one, h5, weights, found->name, found->name));
    for (int w = 0; w < g->n; w++) {
        thaw_layer *layer = &model->layers[g->weights[w].layer];
        thaw_tensor *tensor = &layer->tensors[g->weights[w].tensor];
        const char *name = found->entries[entry[w]];
        hid_t dataset;
        THAW_GOTO(thaw_h5_dataset(&dataset, h5, one, name, layer->name, tensor->shape, tensor->rank));
        if (fill) {
            status = thaw_h5_floats(tensor->data, tensor->count, h5, dataset, name, layer->name);
            tensor->loaded = status == THAW_OK;
        }
        H5Dclose(dataset);
        if (status != THAW_OK)
            goto out;
    }
    status = THAW_OK;
out:
    H5Oclose(one);
    return status;
}

static thaw_status check_backend(const thaw_h5 *h5, hid_t weights) {
    char *backend;
    THAW_TRY(thaw_h5_text(&backend, h5, weights, "backend"));
    bool flipped = backend && strcmp(backend, "theano") == 0;
    thaw_free(backend);
    return flipped ? thaw_fail(THAW_DATA, "%s was written by Keras on Theano, which stores flipped kernels; convert it with "
                                          "keras.utils.convert_all_kernels_in_model", h5->path)
                   : THAW_OK;
}

thaw_status thaw_keras_weights_read(thaw_model *model, const thaw_h5 *h5, hid_t weights, bool base_only, bool by_name) {
    group *groups = NULL;
    weight *storage = NULL;
    stored *found = NULL;
    int n = 0, n_found = 0, *match = NULL, *entries = NULL, n_entries = 0;
    thaw_status status;
    THAW_TRY(check_backend(h5, weights));
    THAW_GOTO(model_groups(&groups, &n, &storage, model, base_only ? model->n_base_layers : model->n_layers));
    THAW_GOTO(stored_groups(&found, &n_found, h5, weights));
    for (int g = 0; g < n; g++)
        n_entries += groups[g].n;
    match = thaw_calloc((size_t)n + 1, sizeof *match);
    entries = thaw_calloc((size_t)n_entries + 1, sizeof *entries);
    if (!match || !entries) {
        status = thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
        goto out;
    }
    THAW_GOTO(match_groups(match, h5, model, groups, n, found, n_found, by_name));
    for (int fill = 0; fill < 2; fill++) {
        for (int g = 0, at = 0; g < n; at += groups[g++].n) {
            const stored *from = &found[match[g]];
            if (from->n != groups[g].n) {
                status = wrong_count(h5, &groups[g], from);
                goto out;
            }
            if (!fill)
                match_entries(entries + at, model, &groups[g], from);
            THAW_GOTO(load_group(model, h5, weights, &groups[g], from, entries + at, fill));
        }
        if (!fill)
            THAW_GOTO(thaw_model_allocate(model));
    }
out:
    free_stored(found, n_found);
    thaw_free(groups);
    thaw_free(storage);
    thaw_free(match);
    thaw_free(entries);
    return status;
}

/* Writing. */

typedef struct gathering {
    const thaw_model *model;
    weight *weights;
    int n, most;
    bool failed;
} gathering;

/* All weights below an item. `path`: from the item's group on. */
static void gather(gathering *to, const thaw_keras_item *item, const char *path) {
    for (int i = 0; item->net && i < item->net->n_items; i++) {
        const thaw_keras_item *inner = &item->net->items[i];
        char *inner_path = thaw_format("%s%s%s", path, *path ? "/" : "", inner->name);
        if (inner_path)
            gather(to, inner, inner_path);
        else
            to->failed = true;
        thaw_free(inner_path);
    }
    for (int t = 0; item->layer >= 0 && t < to->model->layers[item->layer].n_tensors; t++) {
        char *copy = to->n < to->most ? thaw_strdup(path) : NULL;
        if (!copy) {
            to->failed = true;
            return;
        }
        to->weights[to->n++] = (weight){item->layer, t, copy};
    }
}

static int by_layer(const void *a, const void *b) {
    const weight *x = a, *y = b;
    return x->layer != y->layer ? x->layer - y->layer : x->tensor - y->tensor;
}

static thaw_status write_group(hid_t weights, gathering *all, const thaw_keras_item *item, const bool *trainable) {
    const thaw_model *model = all->model;
    char **names = NULL;
    hid_t one = -1;
    thaw_status status;
    gather(all, item, item->net ? "" : item->name);
    names = thaw_calloc((size_t)all->n + 1, sizeof *names);
    if (all->failed || !names) {
        status = thaw_fail(THAW_RESOURCE, "no memory to write the weights of %s", model->name);
        goto out;
    }
    qsort(all->weights, (size_t)all->n, sizeof *all->weights, by_layer);
    sort_weights(all->weights, all->n, model, trainable, all->weights + all->most);
    THAW_GOTO(thaw_h5_make_group(&one, weights, item->name));
    for (int w = 0; w < all->n; w++) {
        const thaw_tensor *tensor = &model->layers[all->weights[w].layer].tensors[all->weights[w].tensor];
        names[w] = thaw_format("%s/%s:0", all->weights[w].path, tensor->name);
        if (!names[w]) {
            status = thaw_fail(THAW_RESOURCE, "no memory to write the weights of %s", model->name);
            goto out;
        }
        if (!tensor->data) {
            status = thaw_fail(THAW_INTERNAL, "the weights of layer %s are not in memory",
                               model->layers[all->weights[w].layer].name);
            goto out;
        }
        THAW_GOTO(thaw_h5_put_floats(one, names[w], tensor->data, tensor->shape, tensor->rank));
    }
    THAW_GOTO(thaw_h5_put_names(one, "weight_names", (const char *const *)names, all->n));
out:
    if (one >= 0)
        H5Gclose(one);
    for (int w = 0; names && w < all->n; w++)
        thaw_free(names[w]);
    thaw_free(names);
    for (int w = 0; w < all->n; w++)
        thaw_free(all->weights[w].path);
    all->n = 0;
    return status;
}

/* First layer of the model below an item, for the order; -1 if it has none. */
static int first_layer(const thaw_keras_item *item) {
    int first = item->layer;
    for (int i = 0; item->net && i < item->net->n_items; i++) {
        int inner = first_layer(&item->net->items[i]);
        if (inner >= 0 && (first < 0 || inner < first))
            first = inner;
    }
    return first;
}

typedef struct ordered {
    int first;
    const thaw_keras_item *item;
} ordered;

static int by_first(const void *a, const void *b) {
    return ((const ordered *)a)->first - ((const ordered *)b)->first;
}

thaw_status thaw_keras_weights_write(hid_t weights, const thaw_model *model, const thaw_keras_tree *tree,
                                     const bool *trainable) {
    const thaw_keras_net *net = tree->top;
    gathering all = {.model = model};
    int n = 0;
    thaw_status status = THAW_OK;
    for (int i = 0; i < model->n_layers; i++)
        all.most += model->layers[i].n_tensors;
    all.weights = thaw_calloc(2 * (size_t)all.most + 1, sizeof *all.weights); /* the second half is scratch */
    ordered *items = thaw_calloc((size_t)net->n_items + 1, sizeof *items);
    const char **names = thaw_calloc((size_t)net->n_items + 1, sizeof *names);
    if (!all.weights || !items || !names) {
        status = thaw_fail(THAW_RESOURCE, "no memory to write the weights of %s", model->name);
        goto out;
    }
    for (int i = 0; i < net->n_items; i++) {
        int first = first_layer(&net->items[i]);
        if (first >= 0 && !(net->sequential && i == net->input))
            items[n++] = (ordered){first, &net->items[i]};
    }
    qsort(items, (size_t)n, sizeof *items, by_first);
    for (int i = 0; i < n; i++) {
        names[i] = items[i].item->name;
        THAW_GOTO(write_group(weights, &all, items[i].item, trainable));
    }
    status = thaw_h5_put_names(weights, "layer_names", names, n);
out:
    thaw_free(all.weights);
    thaw_free(items);
    thaw_free(names);
    return status;
}
