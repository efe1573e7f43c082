/* model_config JSON -> tree. Dialects: Keras 1 and 2 (lists), TensorFlow's Keras, Keras 3 (__keras_tensor__); see
 * get_config and from_config in keras/src/models/functional.py, tf_keras/engine/functional.py, keras 2 engine/network.py. */
#include "formats/keras_tree.h"

#include <string.h>

#include "base/memory.h"
#include "formats/keras_json.h"
#include "formats/keras_layer_config.h"

enum { MOST_ITEMS = 10000, DEEPEST = 16, MOST_CALLS = 10000 };

typedef struct parser {
    thaw_keras_tree *tree;
    const char *file;
    int depth;
} parser;

static void free_net(thaw_keras_net *net) {
    for (int i = 0; net && i < net->n_items; i++) {
        thaw_keras_item *item = &net->items[i];
        for (int c = 0; c < item->n_calls; c++)
            thaw_free(item->calls[c].inputs);
        thaw_free(item->calls);
        thaw_free(item->name);
        free_net(item->net);
    }
    if (net) {
        thaw_free(net->items);
        thaw_free(net->name);
    }
    thaw_free(net);
}

void thaw_keras_tree_free(thaw_keras_tree *tree) {
    free_net(tree->top);
    cJSON_Delete(tree->json);
    *tree = (thaw_keras_tree){0};
}

thaw_keras_net *thaw_keras_net_create(const char *name, bool sequential) {
    thaw_keras_net *net = thaw_calloc(1, sizeof *net);
    if (net)
        *net = (thaw_keras_net){.name = thaw_strdup(name), .sequential = sequential, .input = -1, .output = {-1, 0}};
    if (net && !net->name) {
        thaw_free(net);
        return NULL;
    }
    return net;
}

/* Room for element n of an array that grows by doubling. */
static void *grown(void *array, int n, size_t bytes) {
    return n & (n - 1) ? array : thaw_realloc(array, (size_t)(n ? 2 * n : 1) * bytes);
}

int thaw_keras_net_add(thaw_keras_net *net, const char *name, thaw_layer_kind kind) {
    thaw_keras_item *items = grown(net->items, net->n_items, sizeof *items);
    if (!items)
        return -1;
    net->items = items;
    items[net->n_items] = (thaw_keras_item){.name = thaw_strdup(name), .kind = kind, .layer = -1};
    return items[net->n_items].name ? net->n_items++ : -1;
}

int thaw_keras_item_call(thaw_keras_item *item, const thaw_keras_ref *inputs, int n_inputs, bool inference) {
    thaw_keras_call *calls = grown(item->calls, item->n_calls, sizeof *calls);
    if (!calls)
        return -1;
    item->calls = calls;
    thaw_keras_ref *copy = thaw_calloc((size_t)n_inputs + 1, sizeof *copy);
    if (!copy)
        return -1;
    if (n_inputs)
        memcpy(copy, inputs, (size_t)n_inputs * sizeof *copy);
    calls[item->n_calls] = (thaw_keras_call){.inputs = copy, .n_inputs = n_inputs, .inference = inference};
    return item->n_calls++;
}

static thaw_status no_memory(const parser *p) { return thaw_fail(THAW_RESOURCE, "no memory to read %s", p->file); }

static thaw_status parse_net(thaw_keras_net **out, parser *p, const cJSON *entry, bool sequential);

/* One entry of `layers`, without its calls. */
static thaw_status parse_item(thaw_keras_net *net, parser *p, const cJSON *entry) {
    const char *class = thaw_json_text(entry, "class_name");
    const cJSON *config = thaw_json_get(entry, "config");
    const char *name = thaw_json_text(config, "name");
    if (!name)
        name = thaw_json_text(entry, "name");
    if (!class)
        return thaw_fail(THAW_DATA, "%s: model_config: entry %d of '%s' has no class_name", p->file, net->n_items, net->name);
    bool sequential = strcmp(class, "Sequential") == 0;
    bool nested = sequential || strcmp(class, "Functional") == 0 || strcmp(class, "Model") == 0;
    if (!name && nested)
        name = sequential ? "sequential" : "model";
    if (!name || !*name)
        return thaw_fail(THAW_DATA, "%s: model_config: a %s in '%s' has no name", p->file, class, net->name);
    thaw_layer_kind kind = thaw_keras_kind(class);
    thaw_keras_place place = {p->file, name};
    if (!nested && kind == THAW_LAYER_KINDS)
        return strcmp(class, "Lambda") == 0
                   ? thaw_fail(THAW_DATA, "%s: layer '%s': a Lambda layer holds Python code, which thaw does not run; replace "
                                          "it by a layer of Keras", p->file, name)
                   : thaw_fail(THAW_DATA, "%s: layer '%s': class %s is not supported", p->file, name, class);
    if (++p->tree->n_items > MOST_ITEMS)
        return thaw_fail(THAW_DATA, "%s: model_config has more than %d layers", p->file, MOST_ITEMS);
    for (int i = 0; i < net->n_items; i++)
        if (strcmp(net->items[i].name, name) == 0)
            return thaw_fail(THAW_DATA, "%s: layer '%s': another layer of '%s' has this name", p->file, name, net->name);
    int index = thaw_keras_net_add(net, name, nested ? THAW_LAYER_KINDS : kind);
    if (index < 0)
        return no_memory(p);
    thaw_keras_item *item = &net->items[index];
    item->config = config;
    if (nested)
        return parse_net(&item->net, p, entry, sequential);
    if (!cJSON_IsObject(config))
        return thaw_fail(THAW_DATA, "%s: layer '%s': no config", p->file, name);
    if (kind == THAW_LAYER_INPUT) {
        if (net->input >= 0)
            return thaw_fail(THAW_DATA, "%s: '%s' has several inputs ('%s', '%s'); models with one input are supported",
                             p->file, net->name, net->items[net->input].name, name);
        net->input = index;
        THAW_TRY(thaw_keras_input_shape(item->shape, &item->rank, config, &place));
    }
    return THAW_OK;
}

/* Name and call number of an endpoint [layer, node, tensor, ...] as written. */
static thaw_status parse_ref(thaw_keras_ref *ref, const parser *p, const thaw_keras_net *net, const char *layer,
                             const cJSON *list) {
    const cJSON *name = cJSON_IsArray(list) ? list->child : NULL, *node = name ? name->next : NULL;
    const cJSON *tensor = node ? node->next : NULL;
    thaw_keras_place place = {p->file, layer};
    int64_t call = 0, output = 0;
    if (!cJSON_IsString(name) || !thaw_json_integer(&call, node) || !thaw_json_integer(&output, tensor) || call < 0 ||
        call > MOST_CALLS || output != 0)
        return thaw_keras_refuse(&place, "an input", list, "[layer, node, 0] was expected");
    for (int i = 0; i < net->n_items; i++)
        if (strcmp(net->items[i].name, name->valuestring) == 0) {
            *ref = (thaw_keras_ref){i, (int)call};
            return THAW_OK;
        }
    return thaw_fail(THAW_DATA, "%s: layer '%s': its input '%.80s' is not a layer of '%s'", p->file, layer,
                     name->valuestring, net->name);
}

typedef struct call_parts {
    thaw_keras_ref *refs;
    int n;
    bool inference;
} call_parts;

/* Arguments of a call besides its tensors. `fixed`: what is given here holds at run time. Keras 3 instead writes the
 * default of a layer's `training` argument and overrides it with the run's, so for single layers it says nothing but
 * "BatchNormalization was told False". */
static thaw_status parse_kwargs(call_parts *call, const parser *p, const thaw_keras_item *item, const cJSON *kwargs,
                                bool fixed) {
    thaw_keras_place place = {p->file, item->name};
    const cJSON *value;
    cJSON_ArrayForEach(value, kwargs) {
        if (cJSON_IsNull(value) || (!fixed && strcmp(value->string, "inputs") == 0))
            continue;
        if (strcmp(value->string, "training") != 0 || !cJSON_IsBool(value))
            return thaw_keras_refuse(&place, value->string, value, "an argument of the call that thaw does not know");
        if (cJSON_IsTrue(value) && fixed)
            return thaw_keras_refuse(&place, "training", value, "a layer that is always in training mode is not supported");
        call->inference = cJSON_IsFalse(value) && (fixed || item->kind != THAW_LAYER_DROPOUT);
    }
    return THAW_OK;
}

static thaw_status parse_call_list(call_parts *call, const parser *p, const thaw_keras_net *net,
                                   const thaw_keras_item *item, const cJSON *entry) {
    const cJSON *one;
    if (cJSON_IsString(entry->child)) { /* a bare triple */
        THAW_TRY(parse_ref(&call->refs[call->n++], p, net, item->name, entry));
        return parse_kwargs(call, p, item, cJSON_GetArrayItem(entry, 3), true);
    }
    cJSON_ArrayForEach(one, entry) {
        THAW_TRY(parse_ref(&call->refs[call->n++], p, net, item->name, one));
        THAW_TRY(parse_kwargs(call, p, item, cJSON_GetArrayItem(one, 3), true));
    }
    return THAW_OK;
}

static thaw_status parse_call_object(call_parts *call, parser *p, const thaw_keras_net *net, const thaw_keras_item *item,
                                     const cJSON *entry) {
    const cJSON *args = thaw_json_get(entry, "args"), *kwargs = thaw_json_get(entry, "kwargs"), *one;
    const cJSON *first = cJSON_IsArray(args) && args->child ? args->child : thaw_json_get(kwargs, "inputs");
    thaw_keras_place place = {p->file, item->name};
    p->tree->keras3 = true;
    for (const cJSON *more = first ? first->next : NULL; more && first == args->child; more = more->next)
        if (!cJSON_IsNull(more))
            return thaw_keras_refuse(&place, "an input", more, "an argument of the call that thaw does not know");
    if (cJSON_IsObject(first))
        THAW_TRY(parse_ref(&call->refs[call->n++], p, net, item->name,
                           thaw_json_get(thaw_json_get(first, "config"), "keras_history")));
    else
        cJSON_ArrayForEach(one, first) THAW_TRY(parse_ref(&call->refs[call->n++], p, net, item->name,
                                                          thaw_json_get(thaw_json_get(one, "config"), "keras_history")));
    return parse_kwargs(call, p, item, kwargs, false);
}

static thaw_status parse_call(parser *p, thaw_keras_net *net, int index, const cJSON *entry) {
    thaw_keras_item *item = &net->items[index];
    const cJSON *args = cJSON_IsObject(entry) ? thaw_json_get(entry, "args") : NULL;
    int most = (cJSON_IsArray(entry) ? cJSON_GetArraySize(entry) : cJSON_GetArraySize(args ? args->child : NULL)) +
               (cJSON_IsObject(entry) ? cJSON_GetArraySize(thaw_json_get(thaw_json_get(entry, "kwargs"), "inputs")) : 0) + 1;
    call_parts call = {.refs = thaw_calloc((size_t)most, sizeof *call.refs)};
    thaw_keras_place place = {p->file, item->name};
    if (!call.refs)
        return no_memory(p);
    thaw_status status = cJSON_IsArray(entry)    ? parse_call_list(&call, p, net, item, entry)
                         : cJSON_IsObject(entry) ? parse_call_object(&call, p, net, item, entry)
                                                 : thaw_keras_refuse(&place, "inbound_nodes", entry, "which is no call");
    if (status == THAW_OK && call.n == 0)
        status = thaw_keras_refuse(&place, "inbound_nodes", entry, "a call without inputs");
    bool merges = item->kind == THAW_LAYER_ADD || item->kind == THAW_LAYER_CONCATENATE;
    if (status == THAW_OK && call.n > 1 && !merges)
        status = thaw_fail(THAW_DATA, "%s: layer '%s': called on %d inputs; one was expected", p->file, item->name, call.n);
    if (status == THAW_OK && item->n_calls >= MOST_CALLS)
        status = thaw_fail(THAW_DATA, "%s: layer '%s': called more than %d times", p->file, item->name, MOST_CALLS);
    if (status == THAW_OK && thaw_keras_item_call(item, call.refs, call.n, call.inference) < 0)
        status = no_memory(p);
    thaw_free(call.refs);
    return status;
}

/* Numbers of calls. A nested model may count a call of its own making before the first one (Keras 2; Keras 3 in
 * output_layers only), so numbers of its calls start at 1. Then nothing refers to 0; else something does, since the first
 * call cannot depend on later ones and would not be there if nothing needed it. */
static thaw_status fix_refs(const parser *p, thaw_keras_net *net) {
    int *offset = thaw_calloc((size_t)net->n_items + 1, sizeof *offset);
    for (int i = 0; offset && i < net->n_items; i++)
        offset[i] = net->items[i].net != NULL;
    thaw_status status = offset ? THAW_OK : no_memory(p);
    for (int pass = 0; pass < 2 && status == THAW_OK; pass++)
        for (int i = 0; i < net->n_items; i++)
            for (int c = 0; c < net->items[i].n_calls; c++)
                for (int k = 0; k < net->items[i].calls[c].n_inputs; k++) {
                    thaw_keras_ref *ref = &net->items[i].calls[c].inputs[k];
                    const thaw_keras_item *from = &net->items[ref->item];
                    if (pass == 0 && ref->call == 0)
                        offset[ref->item] = 0;
                    if (pass == 1) /* called once: 0 and 1 are the same */
                        ref->call -= from->net && from->n_calls == 1 && ref->call <= 1 ? ref->call : offset[ref->item];
                    if (pass == 1 && from->kind == THAW_LAYER_INPUT)
                        ref->call = 0;
                    else if (pass == 1 && (ref->call < 0 || ref->call >= from->n_calls) && status == THAW_OK)
                        status = thaw_fail(THAW_DATA, "%s: layer '%s': its input is call %d of layer '%s', which is called %d "
                                                      "times", p->file, net->items[i].name, ref->call, from->name,
                                           from->n_calls);
                }
    if (status == THAW_OK) {
        thaw_keras_ref *out = &net->output;
        const thaw_keras_item *from = &net->items[out->item];
        bool shifted = from->net && out->call > 0 && (!from->net->sequential || offset[out->item] || out->call >= from->n_calls);
        out->call -= shifted;
        if (from->kind == THAW_LAYER_INPUT)
            out->call = 0;
        else if (out->call >= from->n_calls)
            status = thaw_fail(THAW_DATA, "%s: the output of '%s' is call %d of layer '%s', which is called %d times", p->file,
                               net->name, out->call, from->name, from->n_calls);
    }
    thaw_free(offset);
    return status;
}

/* The only endpoint of input_layers or output_layers: a bare triple or a list of one. */
static thaw_status parse_endpoint(thaw_keras_ref *ref, const parser *p, const thaw_keras_net *net, const cJSON *config,
                                  const char *key) {
    const cJSON *list = thaw_json_get(config, key);
    thaw_keras_place place = {p->file, net->name};
    if (cJSON_IsObject(list) && cJSON_GetArraySize(list) == 1) /* {name: endpoint} */
        list = list->child;
    if (cJSON_IsArray(list) && cJSON_IsArray(list->child)) {
        if (cJSON_GetArraySize(list) != 1)
            return thaw_keras_refuse(&place, key, list, "models with one input and one output are supported");
        list = list->child;
    }
    if (!cJSON_IsArray(list) || !cJSON_IsString(list->child))
        return thaw_keras_refuse(&place, key, list, "models with one input and one output are supported");
    return parse_ref(ref, p, net, net->name, list);
}

static thaw_status parse_functional(thaw_keras_net *net, parser *p, const cJSON *config) {
    const cJSON *layers = thaw_json_get(config, "layers"), *entry, *call;
    cJSON_ArrayForEach(entry, layers) THAW_TRY(parse_item(net, p, entry));
    thaw_keras_ref input;
    THAW_TRY(parse_endpoint(&input, p, net, config, "input_layers"));
    THAW_TRY(parse_endpoint(&net->output, p, net, config, "output_layers"));
    if (net->input < 0 || net->input != input.item)
        return thaw_fail(THAW_DATA, "%s: the input of '%s' is not its InputLayer", p->file, net->name);
    int index = 0;
    cJSON_ArrayForEach(entry, layers) {
        const cJSON *nodes = thaw_json_get(entry, "inbound_nodes");
        if (net->items[index].kind != THAW_LAYER_INPUT)
            cJSON_ArrayForEach(call, nodes) THAW_TRY(parse_call(p, net, index, call));
        index++;
    }
    return fix_refs(p, net);
}

static thaw_status parse_sequential(thaw_keras_net *net, parser *p, const cJSON *config) {
    const cJSON *layers = cJSON_IsArray(config) ? config : thaw_json_get(config, "layers"), *entry;
    const cJSON *built = cJSON_IsArray(config) ? NULL : thaw_json_get(config, "build_input_shape");
    const cJSON *first = layers->child;
    const char *class = thaw_json_text(first, "class_name");
    if (!class || strcmp(class, "InputLayer") != 0) {
        const cJSON *first_config = thaw_json_get(first, "config");
        const char *first_name = thaw_json_text(first_config, "name");
        char *name = thaw_format("%s_input", first_name ? first_name : net->name);
        int index = name ? thaw_keras_net_add(net, name, THAW_LAYER_INPUT) : -1;
        thaw_free(name);
        if (index < 0)
            return no_memory(p);
        thaw_keras_item *item = &net->items[index];
        thaw_keras_place place = {p->file, first_name ? first_name : net->name};
        item->made_up = true;
        net->input = index;
        if (cJSON_IsObject(first_config) && !thaw_json_get(first_config, "layers"))
            THAW_TRY(thaw_keras_input_shape(item->shape, &item->rank, first_config, &place));
        if (item->rank == 0 && built) {
            cJSON *wrapped = cJSON_CreateObject();
            cJSON_AddItemReferenceToObject(wrapped, "batch_shape", (cJSON *)(uintptr_t)built);
            thaw_status status = thaw_keras_input_shape(item->shape, &item->rank, wrapped, &place);
            cJSON_Delete(wrapped);
            THAW_TRY(status);
        }
    }
    cJSON_ArrayForEach(entry, layers) THAW_TRY(parse_item(net, p, entry));
    if (net->input != 0)
        return thaw_fail(THAW_DATA, "%s: the InputLayer of '%s' is not its first layer", p->file, net->name);
    for (int i = 1; i < net->n_items; i++)
        if (thaw_keras_item_call(&net->items[i], &(thaw_keras_ref){i - 1, 0}, 1, false) < 0)
            return no_memory(p);
    thaw_keras_item *input = &net->items[0];
    for (const thaw_keras_net *inner = net; input->rank == 0 && inner && inner->n_items > 1;) {
        inner = inner->items[1].net; /* a nested model in front brings its shape */
        if (inner && inner->items[inner->input].rank) {
            input->rank = inner->items[inner->input].rank;
            memcpy(input->shape, inner->items[inner->input].shape, sizeof input->shape);
        }
    }
    net->output = (thaw_keras_ref){net->n_items - 1, 0};
    return THAW_OK;
}

static thaw_status parse_net(thaw_keras_net **out, parser *p, const cJSON *entry, bool sequential) {
    const cJSON *config = thaw_json_get(entry, "config");
    const char *name = cJSON_IsObject(config) ? thaw_json_text(config, "name") : NULL;
    if (!name)
        name = sequential ? "sequential" : "model";
    const cJSON *layers = cJSON_IsArray(config) && sequential ? config : thaw_json_get(config, "layers");
    if (!cJSON_IsArray(layers) || !layers->child)
        return thaw_fail(THAW_DATA, "%s: model_config: '%s' has no layers", p->file, name);
    if (p->depth >= DEEPEST)
        return thaw_fail(THAW_DATA, "%s: model '%s' is nested deeper than %d levels", p->file, name, DEEPEST);
    *out = thaw_keras_net_create(name, sequential);
    if (!*out)
        return no_memory(p);
    p->depth++;
    thaw_status status = sequential ? parse_sequential(*out, p, config) : parse_functional(*out, p, config);
    p->depth--;
    return status;
}

thaw_status thaw_keras_tree_parse(thaw_keras_tree *tree, const char *text, const char *file) {
    parser p = {.tree = tree, .file = file};
    *tree = (thaw_keras_tree){0};
    tree->json = cJSON_Parse(text);
    if (!tree->json)
        return thaw_fail(THAW_DATA, "%s: model_config is not valid JSON, or nested too deeply (%zu bytes)", file, strlen(text));
    const char *class = thaw_json_text(tree->json, "class_name");
    bool sequential = class && strcmp(class, "Sequential") == 0;
    if (!class || (!sequential && strcmp(class, "Functional") != 0 && strcmp(class, "Model") != 0)) {
        thaw_status status = thaw_fail(THAW_DATA, "%s: model_config: class %s is not supported; Sequential and Functional "
                                                  "models are", file, class ? class : "(none)");
        thaw_keras_tree_free(tree);
        return status;
    }
    thaw_status status = parse_net(&tree->top, &p, tree->json, sequential);
    if (status != THAW_OK)
        thaw_keras_tree_free(tree);
    return status;
}
