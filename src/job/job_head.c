/* Head layers: "Flatten", {Flatten: {}} or {Dense: {units: 256, kernel_regularizer: {l2: 0.01}}}. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "job/job_value.h"

/* A new argument of the layer; takes no ownership of `name`. NULL without memory. */
static thaw_job_argument *add_argument(thaw_job_layer *layer, const char *name, int line) {
    thaw_job_argument *arguments =
        thaw_realloc(layer->arguments, (size_t)(layer->n_arguments + 1) * sizeof(*arguments));
    if (arguments == NULL)
        return NULL;
    layer->arguments = arguments;
    thaw_job_argument *argument = &arguments[layer->n_arguments];
    memset(argument, 0, sizeof(*argument));
    argument->key = thaw_strdup(name);
    argument->line = line;
    if (argument->key == NULL)
        return NULL;
    layer->n_arguments++;
    return argument;
}

static thaw_status add_text(thaw_job_layer *layer, const char *name, const char *text, int line) {
    thaw_job_argument *argument = add_argument(layer, name, line);
    if (argument == NULL || (argument->text = thaw_strdup(text)) == NULL)
        return thaw_job_out_of_memory();
    return THAW_OK;
}

static thaw_status read_list(thaw_job_reader *reader, thaw_job_layer *layer, const char *name,
                             const thaw_yaml_node *node) {
    thaw_job_argument *argument = add_argument(layer, name, node->line);
    if (argument == NULL || (argument->numbers = thaw_calloc((size_t)node->n, sizeof(double))) == NULL)
        return thaw_job_out_of_memory();
    for (int i = 0; i < node->n; i++) {
        const thaw_yaml_node *item = node->items[i];
        if (item->kind != THAW_YAML_SCALAR || !item->plain || !thaw_job_parse_number(&argument->numbers[i], item->text))
            return thaw_yaml_fail(reader->tree, item, "%s of %s has %s in its list; a list here holds numbers", name,
                                  layer->class_name, thaw_yaml_show(item));
    }
    argument->n_numbers = node->n;
    return node->n > 0 ? THAW_OK
                       : thaw_yaml_fail(reader->tree, node, "%s of %s is an empty list", name, layer->class_name);
}

static bool is_regularizer(const char *name) {
    return strcasecmp(name, "l1") == 0 || strcasecmp(name, "l2") == 0 || strcasecmp(name, "l1l2") == 0;
}

static thaw_status read_argument(thaw_job_reader *reader, thaw_job_layer *layer, const char *name,
                                 const thaw_yaml_node *node);

/* {l2: 0.01} becomes NAME.l2. Keras' {L2: {l2: 0.01}} becomes the same; another class, {RandomNormal: {stddev: 1}},
 * becomes NAME = RandomNormal and NAME.stddev. */
static thaw_status read_mapping(thaw_job_reader *reader, thaw_job_layer *layer, const char *name,
                                const thaw_yaml_node *node) {
    if (node->n == 0)
        return thaw_yaml_fail(reader->tree, node, "%s of %s is an empty mapping; remove it", name, layer->class_name);
    if (node->n == 1 && isupper((unsigned char)node->keys[0][0]) &&
        (node->items[0]->kind == THAW_YAML_MAP || thaw_yaml_is_null(node->items[0]))) {
        const thaw_yaml_node *inner = node->items[0];
        bool empty = inner->kind != THAW_YAML_MAP || inner->n == 0;
        if (!is_regularizer(node->keys[0]) || empty)
            THAW_TRY(add_text(layer, name, node->keys[0], node->line));
        return empty ? THAW_OK : read_mapping(reader, layer, name, inner);
    }
    for (int i = 0; i < node->n; i++) {
        char full[128];
        if (snprintf(full, sizeof(full), "%s.%s", name, node->keys[i]) >= (int)sizeof(full))
            return thaw_yaml_fail(reader->tree, node->items[i], "'%.40s' is no argument of a layer", node->keys[i]);
        THAW_TRY(read_argument(reader, layer, full, node->items[i]));
    }
    return THAW_OK;
}

static thaw_status read_argument(thaw_job_reader *reader, thaw_job_layer *layer, const char *name,
                                 const thaw_yaml_node *node) {
    for (int i = 0; i < layer->n_arguments; i++)
        if (strcmp(layer->arguments[i].key, name) == 0)
            return thaw_yaml_fail_key(reader->tree, node, "%s of %s is given twice; keep one", name, layer->class_name);
    if (node->kind == THAW_YAML_LIST)
        return read_list(reader, layer, name, node);
    if (node->kind == THAW_YAML_MAP)
        return read_mapping(reader, layer, name, node);
    if (thaw_yaml_is_null(node))
        return thaw_yaml_fail(reader->tree, node, "%s of %s has no value; write one, or remove it for Keras' default",
                              name, layer->class_name);
    int truth = thaw_yaml_boolean(node);
    if (truth < 0)
        return add_text(layer, name, node->text, node->line);
    if (strcasecmp(node->text, "true") != 0 && strcasecmp(node->text, "false") != 0)
        return thaw_yaml_fail(reader->tree, node,
                              "%s of %s is %s, which YAML reads as a boolean; write %s, or \"%s\" if the "
                              "text is meant",
                              name, layer->class_name, thaw_yaml_show(node), truth ? "true" : "false", node->text);
    return add_text(layer, name, truth ? "true" : "false", node->line);
}

static thaw_status read_layer(thaw_job_reader *reader, thaw_job_layer *layer, const thaw_yaml_node *node) {
    static const char *const form =
        "a layer is its class with arguments, e.g. \"- Dense: {units: 10, activation: softmax}\"";
    layer->line = node->line;
    if (node->kind == THAW_YAML_LIST || thaw_yaml_is_null(node) || thaw_yaml_boolean(node) >= 0)
        return thaw_yaml_fail(reader->tree, node, "model.head has %s for a layer; %s", thaw_yaml_show(node), form);
    const char *name = node->kind == THAW_YAML_SCALAR ? node->text : node->n > 0 ? node->keys[0] : "";
    if (name[0] == '\0')
        return thaw_yaml_fail(reader->tree, node, "model.head has a layer without class; %s", form);
    layer->class_name = thaw_strdup(name);
    if (layer->class_name == NULL)
        return thaw_job_out_of_memory();
    if (node->kind == THAW_YAML_SCALAR)
        return THAW_OK;
    if (node->n != 1)
        return thaw_yaml_fail_key(reader->tree, node->items[1],
                                  "model.head: '%s' stands beside '%s' instead of below it; "
                                  "indent the arguments deeper, or write them in braces (%s)",
                                  node->keys[1], name, form);
    const thaw_yaml_node *arguments = node->items[0];
    if (thaw_yaml_is_null(arguments)) /* "- Flatten:" */
        return THAW_OK;
    if (arguments->kind != THAW_YAML_MAP)
        return thaw_yaml_fail(reader->tree, arguments, "model.head: %s has %s instead of arguments by name; %s", name,
                              thaw_yaml_show(arguments), form);
    for (int i = 0; i < arguments->n; i++)
        THAW_TRY(read_argument(reader, layer, arguments->keys[i], arguments->items[i]));
    return THAW_OK;
}

thaw_status thaw_job_read_head(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    if (node->kind != THAW_YAML_LIST || node->n == 0)
        return thaw_job_wrong(reader, key, node);
    job->head = thaw_calloc((size_t)node->n, sizeof(*job->head));
    if (job->head == NULL)
        return thaw_job_out_of_memory();
    for (int i = 0; i < node->n; i++) {
        job->n_head++; /* counted first: what a failing layer holds is freed with the job */
        THAW_TRY(read_layer(reader, &job->head[i], node->items[i]));
    }
    return THAW_OK;
}
