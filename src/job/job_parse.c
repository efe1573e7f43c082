/* The tree of a job file to a checked job: defaults from the table, keys in the order of the file, then rules between
 * keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"
#include "job/job_value.h"

enum { MAX_STAGES = 1000, MAX_SIBLINGS = 32 };

static thaw_status read_section(thaw_job_reader *reader, const char *section, const thaw_yaml_node *node);

/* Names that people bring along from elsewhere. */
static const char *familiar(const char *name) {
    static const char *const names[][2] = {{"lr", "learning_rate"},
                                           {"wd", "weight_decay"},
                                           {"decay", "weight_decay"},
                                           {"phases", "stages"},
                                           {"steps", "epochs"},
                                           {"bs", "batch_size"},
                                           {"validation_data", "validation"},
                                           {"val", "validation"},
                                           {"unfreeze", "train"},
                                           {"trainable", "train"},
                                           {"activation", "head"},
                                           {"clip", "clipnorm"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(names[i][0], name) == 0)
            return names[i][1];
    return NULL;
}

static thaw_status unknown_key(thaw_job_reader *reader, const char *section, const char *name,
                               const thaw_yaml_node *node) {
    const char *siblings[MAX_SIBLINGS], *elsewhere = NULL;
    char place[160], known[512] = "", hint[256] = "";
    size_t length = 0;
    int n = 0;
    for (int i = 0; i < thaw_n_keys; i++) {
        const char *last = thaw_key_last(&thaw_keys[i]);
        if (thaw_key_below(&thaw_keys[i], section) && n < MAX_SIBLINGS) {
            siblings[n++] = last;
            if (length < sizeof(known))
                length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%s", n > 1 ? ", " : "", last);
        } else if (elsewhere == NULL && strcmp(last, name) == 0) {
            elsewhere = thaw_keys[i].name;
        }
    }
    const char *other = familiar(name), *near = thaw_nearest(name, siblings, n);
    if (other != NULL && thaw_key_find(section, other) != NULL)
        snprintf(hint, sizeof(hint), ", did you mean '%s'?", other);
    else if (*near != '\0')
        snprintf(hint, sizeof(hint), ", did you mean %s?", near);
    else if (elsewhere != NULL)
        snprintf(hint, sizeof(hint), "; there is %s", elsewhere);
    const thaw_key *key = thaw_key_full(section);
    if (key != NULL)
        snprintf(place, sizeof(place), "in %s", thaw_job_label(reader, key));
    else if (section[0] != '\0')
        snprintf(place, sizeof(place), "in stages.%d", reader->stage_index);
    else
        snprintf(place, sizeof(place), "at the top level");
    return thaw_yaml_fail_key(reader->tree, node, "unknown key '%.80s' %s%s (keys here: %s)", name, place, hint, known);
}

static bool says_none(const thaw_yaml_node *node) {
    return node->kind == THAW_YAML_SCALAR && strcmp(node->text, "none") == 0;
}

/* early_stopping and reduce_lr_on_plateau of the current stage. */
static thaw_status read_switch(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    bool *on = (bool *)((char *)reader->stage + key->flag);
    if (says_none(node)) {
        *on = false;
        return THAW_OK;
    }
    if (node->kind != THAW_YAML_MAP)
        return thaw_job_wrong(reader, key, node);
    *on = true;
    return read_section(reader, key->name, node);
}

static thaw_status set_preset(thaw_job_reader *reader, const thaw_key *key, char *text) {
    thaw_yaml_node node = {.kind = THAW_YAML_SCALAR, .plain = true, .text = text};
    return thaw_job_set_value(reader, key, &node);
}

static bool is_optimizer_key(const thaw_key *key) {
    return thaw_key_below(key, "stages[].optimizer");
}

/* Defaults of the job (stage NULL) or of a stage without its optimizer. */
static thaw_status set_presets(thaw_job_reader *reader) {
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        char text[64];
        if (key->preset == NULL || thaw_key_of_stage(key) != (reader->stage != NULL) || is_optimizer_key(key))
            continue;
        snprintf(text, sizeof(text), "%s", key->preset);
        THAW_TRY(set_preset(reader, key, text));
    }
    return THAW_OK;
}

static thaw_status foreign_argument(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    static const char *const names[] = {"sgd", "adam", "adamw", "rmsprop"};
    char text[64], owners[64] = "", known[256] = "";
    thaw_optimizer_kind kind = reader->stage->optimizer.kind;
    for (int i = 0; i < 4; i++)
        if (thaw_key_preset(key, (thaw_optimizer_kind)i, text, sizeof(text))) {
            size_t length = strlen(owners);
            snprintf(owners + length, sizeof(owners) - length, "%s%s", length > 0 ? ", " : "", names[i]);
        }
    for (int i = 0; i < thaw_n_keys; i++)
        if (is_optimizer_key(&thaw_keys[i]) && thaw_key_preset(&thaw_keys[i], kind, text, sizeof(text))) {
            size_t length = strlen(known);
            snprintf(known + length, sizeof(known) - length, "%s%s", length > 0 ? ", " : "",
                     thaw_key_last(&thaw_keys[i]));
        }
    return thaw_yaml_fail_key(reader->tree, node, "%s is an argument of %s, not of %s (arguments of %s: %s)",
                              thaw_job_label(reader, key), owners, names[kind], names[kind], known);
}

/* node: NULL, a name, or a mapping. The name decides which arguments there are and what they default to. */
static thaw_status read_optimizer(thaw_job_reader *reader, const thaw_yaml_node *node) {
    static const char *const section = "stages[].optimizer";
    const thaw_key *kind = thaw_key_find(section, "name");
    const thaw_yaml_node *name = node;
    char text[64];
    if (node != NULL && node->kind == THAW_YAML_MAP) {
        name = thaw_yaml_get(node, "name");
        if (name == NULL)
            return thaw_yaml_fail_key(reader->tree, node,
                                      "stages.%d.optimizer has no name; add name: sgd, adam, adamw or "
                                      "rmsprop",
                                      reader->stage_index);
    } else if (node != NULL && (node->kind == THAW_YAML_LIST || thaw_yaml_is_null(node))) {
        return thaw_job_wrong(reader, thaw_key_full(section), node);
    }
    snprintf(text, sizeof(text), "rmsprop"); /* Keras' Model.compile(optimizer="rmsprop") */
    THAW_TRY(name != NULL ? thaw_job_set_value(reader, kind, name) : set_preset(reader, kind, text));
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        if (is_optimizer_key(key) && key != kind &&
            thaw_key_preset(key, reader->stage->optimizer.kind, text, sizeof(text)))
            THAW_TRY(set_preset(reader, key, text));
    }
    if (node == NULL || node->kind != THAW_YAML_MAP)
        return THAW_OK;
    const thaw_job_optimizer *optimizer = &reader->stage->optimizer;
    for (int i = 0; i < node->n; i++) {
        const thaw_key *key = thaw_key_find(section, node->keys[i]);
        if (key == NULL)
            return unknown_key(reader, section, node->keys[i], node->items[i]);
        if (key == kind)
            continue;
        if (!thaw_key_preset(key, optimizer->kind, text, sizeof(text)))
            return foreign_argument(reader, key, node->items[i]);
        THAW_TRY(thaw_job_set_value(reader, key, node->items[i]));
    }
    if ((optimizer->clipnorm > 0) + (optimizer->global_clipnorm > 0) + (optimizer->clipvalue > 0) > 1)
        return thaw_yaml_fail_key(reader->tree, node,
                                  "stages.%d.optimizer has more than one of clipnorm, global_clipnorm and "
                                  "clipvalue; keep one",
                                  reader->stage_index);
    return THAW_OK;
}

static thaw_status read_stage(thaw_job_reader *reader, const thaw_yaml_node *node) {
    static const char *const section = "stages[]";
    const thaw_yaml_node *training = thaw_yaml_get(reader->tree->root, "training");
    thaw_job_stage *stage = reader->stage;
    stage->line = node->line;
    stage->batch_norm_statistics = -1;
    if (node->kind != THAW_YAML_MAP)
        return thaw_yaml_fail(reader->tree, node,
                              "stages.%d is %s; a stage is a mapping with freeze, epochs, optimizer, ...",
                              reader->stage_index, thaw_yaml_show(node));
    THAW_TRY(set_presets(reader));
    THAW_TRY(read_optimizer(reader, thaw_yaml_get(node, "optimizer")));
    for (int i = 0; i < thaw_n_keys; i++) { /* training's callbacks first: the stage's own go on top */
        const thaw_key *key = &thaw_keys[i];
        const thaw_yaml_node *common =
            key->type == THAW_KEY_DEFAULTS ? thaw_yaml_get(training, thaw_key_last(key)) : NULL;
        if (common == NULL)
            continue;
        reader->in_training = true;
        thaw_status status = read_switch(reader, thaw_key_full(key->choices), common);
        reader->in_training = false;
        THAW_TRY(status);
    }
    for (int i = 0; i < node->n; i++) {
        const thaw_key *key = thaw_key_find(section, node->keys[i]);
        if (key == NULL)
            return unknown_key(reader, section, node->keys[i], node->items[i]);
        if (key->type == THAW_KEY_OPTIMIZER)
            continue;
        THAW_TRY(key->type == THAW_KEY_SWITCH ? read_switch(reader, key, node->items[i])
                                              : thaw_job_set_value(reader, key, node->items[i]));
    }
    if (stage->freeze.n == 0)
        return thaw_yaml_fail(reader->tree, node,
                              "stages.%d has no freeze; write which layers are not trained: all (the base), "
                              "none, \"before:NAME\", \"[:-5]\", ...",
                              reader->stage_index);
    if (stage->name == NULL && (stage->name = thaw_format("stage%d", reader->stage_index + 1)) == NULL)
        return thaw_job_out_of_memory();
    const thaw_yaml_node *name = thaw_yaml_get(node, "name");
    for (const char *c = stage->name; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || strchr(",\"/\\", *c) != NULL) /* it is a field of history.csv */
            return thaw_yaml_fail(reader->tree, name,
                                  "stages.%d.name is %s; a stage's name has no comma, quote, slash or "
                                  "line break",
                                  reader->stage_index, thaw_yaml_show(name));
    for (int i = 0; i < reader->stage_index; i++)
        if (strcmp(reader->job->stages[i].name, stage->name) == 0)
            return thaw_yaml_fail(reader->tree, name != NULL ? name : node,
                                  "stages.%d and stages.%d are both named '%s'; names "
                                  "must differ",
                                  i, reader->stage_index, stage->name);
    return THAW_OK;
}

static thaw_status read_stages(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    if (node->kind != THAW_YAML_LIST)
        return thaw_job_wrong(reader, key, node);
    if (node->n == 0 || node->n > MAX_STAGES)
        return thaw_yaml_fail(reader->tree, node, "stages has %d entries; a job has 1 to %d stages", node->n,
                              MAX_STAGES);
    job->stages = thaw_calloc((size_t)node->n, sizeof(*job->stages));
    if (job->stages == NULL)
        return thaw_job_out_of_memory();
    for (int i = 0; i < node->n; i++) {
        reader->stage = &job->stages[job->n_stages++];
        reader->stage_index = i;
        THAW_TRY(read_stage(reader, node->items[i]));
    }
    reader->stage = NULL;
    return THAW_OK;
}

static thaw_status read_key(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    bool map = node->kind == THAW_YAML_MAP;
    switch (key->type) {
    case THAW_KEY_SECTION:
        return map ? read_section(reader, key->name, node) : thaw_job_wrong(reader, key, node);
    case THAW_KEY_DATASET:
        return map ? read_section(reader, key->name, node) : thaw_job_set_value(reader, key, node);
    case THAW_KEY_SHORT:
        return map ? read_section(reader, key->name, node) : thaw_job_set_value(reader, thaw_key_full(key->choices), node);
    case THAW_KEY_DEFAULTS: /* read with each stage */
        return map || says_none(node) ? THAW_OK : thaw_job_wrong(reader, key, node);
    case THAW_KEY_STAGES:
        return read_stages(reader, key, node);
    default:
        return thaw_job_set_value(reader, key, node);
    }
}

static thaw_status read_section(thaw_job_reader *reader, const char *section, const thaw_yaml_node *node) {
    for (int i = 0; i < node->n; i++) {
        const thaw_key *key = thaw_key_find(section, node->keys[i]);
        if (key == NULL)
            return unknown_key(reader, section, node->keys[i], node->items[i]);
        THAW_TRY(read_key(reader, key, node->items[i]));
    }
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        if (!thaw_key_below(key, section) || !(key->rules & THAW_KEY_REQUIRED) ||
            thaw_yaml_get(node, thaw_key_last(key)) != NULL)
            continue;
        char expected[256];
        return thaw_yaml_fail_key(reader->tree, node, "%s is missing; it is %s", thaw_job_label(reader, key),
                                  thaw_key_expected(key, expected, sizeof(expected)));
    }
    return THAW_OK;
}

static bool has_validation(const thaw_job *job) {
    return job->validation != NULL || job->validation_x != NULL || job->validation_split > 0;
}

/* A monitored value is loss or one of the job's metrics; its name becomes that of history.csv. node: NULL for the
 * default. */
static thaw_status check_monitor(thaw_job_reader *reader, char **field, const thaw_yaml_node *node, const char *label) {
    const thaw_job *job = reader->job;
    if (*field == NULL) {
        *field = thaw_strdup(has_validation(job) ? "val_loss" : "loss");
        return *field != NULL ? THAW_OK : thaw_job_out_of_memory();
    }
    bool validation = strncmp(*field, "val_", 4) == 0;
    const char *name = validation ? *field + 4 : *field;
    if (strcmp(name, "loss") == 0)
        return THAW_OK;
    thaw_metric metric;
    bool known = thaw_metric_parse(&metric, name), listed = false;
    for (int i = 0; known && i < job->n_metrics; i++)
        listed = listed || job->metrics[i] == metric;
    if (!known)
        return thaw_yaml_fail(reader->tree, node,
                              "%s is '%s'; it must be loss or a metric of training.metrics, with val_ in "
                              "front for validation, e.g. val_loss or val_accuracy",
                              label, *field);
    if (!listed)
        return thaw_yaml_fail(reader->tree, node, "%s is '%s', but training.metrics does not have %s; add it there",
                              label, *field, thaw_metric_name(metric));
    char *text = thaw_format("%s%s", validation ? "val_" : "", thaw_metric_name(metric));
    if (text == NULL)
        return thaw_job_out_of_memory();
    thaw_free(*field);
    *field = text;
    return THAW_OK;
}

static thaw_status check_monitors(thaw_job_reader *reader) {
    static const char *const sections[] = {"early_stopping", "reduce_lr_on_plateau"};
    thaw_job *job = reader->job;
    const thaw_yaml_node *training = thaw_yaml_get(reader->tree->root, "training");
    const thaw_yaml_node *stages = thaw_yaml_get(reader->tree->root, "stages");
    THAW_TRY(check_monitor(reader, &job->monitor, thaw_yaml_get(training, "monitor"), "training.monitor"));
    for (int i = 0; i < job->n_stages; i++)
        for (int which = 0; which < 2; which++) {
            thaw_job_stage *stage = &job->stages[i];
            const thaw_yaml_node *node = thaw_yaml_get(thaw_yaml_get(stages->items[i], sections[which]), "monitor");
            char label[64];
            snprintf(label, sizeof(label), "stages.%d.%s.monitor", i, sections[which]);
            if (node == NULL) {
                node = thaw_yaml_get(thaw_yaml_get(training, sections[which]), "monitor");
                snprintf(label, sizeof(label), "training.%s.monitor", sections[which]);
            }
            THAW_TRY(check_monitor(reader, which == 0 ? &stage->early_stopping.monitor : &stage->plateau.monitor, node,
                                   label));
        }
    return THAW_OK;
}

static thaw_status check_model(thaw_job_reader *reader) {
    const thaw_job *job = reader->job;
    const thaw_yaml_node *model = thaw_yaml_get(reader->tree->root, "model");
    const thaw_yaml_node *top = thaw_yaml_get(model, "include_top");
    if (job->n_head > 0 && job->include_top == 1 && job->output == NULL)
        return thaw_yaml_fail_key(
            reader->tree, top,
            "model.include_top: true keeps the base's own classifier, and model.head "
            "would be put behind its outputs; write include_top: false, or name the last layer to keep "
            "with output:");
    if (job->base_is_file && job->include_top == 0 && job->output == NULL)
        return thaw_yaml_fail_key(reader->tree, top,
                                  "model.include_top belongs to built-in networks and does not change the "
                                  "file '%.200s'; name the last layer to keep with output:",
                                  job->base);
    return THAW_OK;
}

static thaw_status check_data(thaw_job_reader *reader) {
    const thaw_job *job = reader->job;
    const thaw_yaml_node *data = thaw_yaml_get(reader->tree->root, "data");
    const thaw_yaml_node *validation = thaw_yaml_get(data, "validation");
    if (validation != NULL && job->validation_split > 0)
        return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(data, "validation_split"),
                                  "data.validation and data.validation_split are both given; keep one");
    if (validation != NULL && (job->train != NULL) != (job->validation != NULL))
        return thaw_yaml_fail_key(reader->tree, validation,
                                  "data.train is %s and data.validation is not; give both in one form",
                                  job->train != NULL ? "a folder" : "arrays");
    return THAW_OK;
}

static thaw_status check_training(thaw_job_reader *reader) {
    const thaw_job *job = reader->job;
    const thaw_yaml_node *training = thaw_yaml_get(reader->tree->root, "training");
    if ((job->slices & (job->slices - 1)) != 0 || job->slices > job->batch_size)
        return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(training, "slices"),
                                  "training.slices is %lld; give a power of two up to training.batch_size, which is %lld",
                                  (long long)job->slices, (long long)job->batch_size);
    if (job->reproducible && job->accumulate > 1)
        return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(training, "accumulate"),
                                  "training.accumulate adds gradients rank by rank, which training.reproducible: ranks rules "
                                  "out; leave one of them out");
    if (job->reproducible && strcmp(job->exchange, "mpi") == 0)
        return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(reader->tree->root, "exchange"),
                                  "exchange: mpi sums in an order of MPI's choice, which training.reproducible: ranks rules out; "
                                  "leave one of them out");
    if (job->exchange_half && (job->reproducible || strcmp(job->exchange, "mpi") == 0))
        return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(training, "exchange_precision"),
                                  "training.exchange_precision: fp16 %s; leave one of them out",
                                  job->reproducible ? "rounds what ranks send, which training.reproducible: ranks rules out"
                                                    : "needs thaw's own messages, which exchange: mpi does without");
    if (job->accumulate <= job->batch_size)
        return THAW_OK;
    return thaw_yaml_fail_key(reader->tree, thaw_yaml_get(thaw_yaml_get(reader->tree->root, "training"), "accumulate"),
                              "training.accumulate is %lld, and a batch has %lld images; give at most one part per image",
                              (long long)job->accumulate, (long long)job->batch_size);
}

static thaw_status check_class_weight(thaw_job_reader *reader) {
    const thaw_job *job = reader->job;
    const thaw_yaml_node *weights = thaw_yaml_get(thaw_yaml_get(reader->tree->root, "training"), "class_weight");
    if (job->n_class_names == 0) /* names are known when the data is */
        return THAW_OK;
    for (int i = 0; i < job->n_class_weights; i++) {
        const char *key = job->class_weight_keys[i];
        bool found = false;
        for (int j = 0; j < job->n_class_names; j++)
            found = found || strcmp(job->class_names[j], key) == 0;
        if (!found && key[0] != '\0' && strspn(key, "0123456789") == strlen(key) && strlen(key) < 9)
            found = atoi(key) < job->n_class_names;
        if (found)
            continue;
        const char *near = thaw_nearest(key, (const char *const *)job->class_names, job->n_class_names);
        return thaw_yaml_fail_key(reader->tree, weights->items[i],
                                  "training.class_weight has '%.80s', which is neither in "
                                  "data.class_names nor an index from 0 to %d%s%s",
                                  key, job->n_class_names - 1, *near ? "; did you mean " : "", near);
    }
    return THAW_OK;
}

static thaw_status set_place(thaw_job *job, const char *path) {
    char *current = getcwd(NULL, 0);
    char *folder = thaw_path_dirname(path);
    job->path = thaw_strdup(path);
    if (current != NULL && folder != NULL)
        job->folder = thaw_job_absolute(current, folder, false);
    free(current);
    thaw_free(folder);
    if (current == NULL)
        return thaw_fail(THAW_SYSTEM, "the current folder cannot be read, so paths relative to '%s' have no meaning",
                         path);
    return job->path != NULL && job->folder != NULL ? THAW_OK : thaw_job_out_of_memory();
}

thaw_status thaw_job_parse(thaw_job **out, const char *path, const char *text, const char *const *set, int n_set) {
    thaw_yaml_tree *tree = NULL;
    thaw_job *job = NULL;
    thaw_status status = THAW_OK;
    *out = NULL;
    THAW_GOTO(thaw_yaml_parse(&tree, path, text));
    for (int i = 0; i < n_set; i++)
        THAW_GOTO(thaw_yaml_set(tree, set[i]));
    job = thaw_malloc(sizeof(*job));
    if (job == NULL)
        THAW_GOTO(thaw_job_out_of_memory());
    job->include_top = -1;
    THAW_GOTO(set_place(job, path));
    thaw_job_reader reader = {.tree = tree, .job = job};
    THAW_GOTO(set_presets(&reader));
    THAW_GOTO(read_section(&reader, "", tree->root));
    THAW_GOTO(check_model(&reader));
    THAW_GOTO(check_data(&reader));
    THAW_GOTO(check_training(&reader));
    THAW_GOTO(check_class_weight(&reader));
    THAW_GOTO(check_monitors(&reader));
    *out = job;
    job = NULL;
out:
    thaw_yaml_free(tree);
    thaw_job_free(job);
    return status;
}

static void free_texts(char **texts, int n) {
    for (int i = 0; i < n; i++)
        thaw_free(texts[i]);
    thaw_free(texts);
}

static void free_head(thaw_job_layer *head, int n) {
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < head[i].n_arguments; j++) {
            thaw_free(head[i].arguments[j].key);
            thaw_free(head[i].arguments[j].text);
            thaw_free(head[i].arguments[j].numbers);
        }
        thaw_free(head[i].arguments);
        thaw_free(head[i].class_name);
    }
    thaw_free(head);
}

void thaw_job_free(thaw_job *job) {
    if (job == NULL)
        return;
    for (int i = 0; i < job->n_stages; i++) {
        thaw_job_stage *stage = &job->stages[i];
        thaw_freeze_spec_free(&stage->freeze);
        thaw_freeze_spec_free(&stage->train);
        char *texts[] = {stage->name, stage->early_stopping.monitor, stage->early_stopping.mode, stage->plateau.monitor,
                         stage->plateau.mode};
        for (size_t j = 0; j < sizeof(texts) / sizeof(*texts); j++)
            thaw_free(texts[j]);
    }
    thaw_free(job->stages);
    free_head(job->head, job->n_head);
    free_texts(job->class_names, job->n_class_names);
    free_texts(job->class_weight_keys, job->n_class_weights);
    thaw_free(job->class_weights);
    char *texts[] = {job->path,    job->folder,       job->base,         job->weights,
                     job->pooling, job->output,       job->train,        job->train_x,
                     job->train_y, job->validation,   job->preprocess,   job->validation_x,
                     job->monitor, job->validation_y, job->monitor_mode, job->output_folder,
                     job->cache_mode, job->cache_folder, job->exchange, job->stage_folder};
    for (size_t j = 0; j < sizeof(texts) / sizeof(*texts); j++)
        thaw_free(texts[j]);
    thaw_free(job);
}
