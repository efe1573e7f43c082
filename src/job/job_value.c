#include "job/job_value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"

enum { MAX_CHOICES = 8, MAX_NAMES = 65536 };

thaw_status thaw_job_out_of_memory(void) {
    return thaw_fail(THAW_RESOURCE, "out of memory while reading the job file");
}

const char *thaw_job_label(thaw_job_reader *reader, const thaw_key *key) {
    if (thaw_key_of_stage(key) && reader->in_training)
        snprintf(reader->label, sizeof(reader->label), "training.%s", key->name + 9);
    else if (thaw_key_of_stage(key))
        snprintf(reader->label, sizeof(reader->label), "stages.%d.%s", reader->stage_index, key->name + 9);
    else
        snprintf(reader->label, sizeof(reader->label), "%s", key->name);
    return reader->label;
}

void *thaw_job_field(const thaw_job *job, const thaw_job_stage *stage, const thaw_key *key) {
    return thaw_key_of_stage(key) ? (char *)stage + key->offset : (char *)job + key->offset;
}

thaw_status thaw_job_wrong(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    char expected[256];
    thaw_key_expected(key, expected, sizeof(expected));
    const char *label = thaw_job_label(reader, key);
    if (thaw_yaml_is_null(node)) {
        bool none = strncmp(expected, "a selector", 10) == 0 || strstr(expected, "none") != NULL;
        return thaw_yaml_fail(reader->tree, node, "%s has no value (%s); write %s%s", label, thaw_yaml_show(node),
                              expected, none ? "" : " or remove the key for the default");
    }
    return thaw_yaml_fail(reader->tree, node, "%s is %s; it must be %s", label, thaw_yaml_show(node), expected);
}

/* Text, refusing what YAML reads as null or boolean. */
static thaw_status get_text(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node,
                            const char **out) {
    if (node->kind != THAW_YAML_SCALAR || thaw_yaml_is_null(node))
        return thaw_job_wrong(reader, key, node);
    if (thaw_yaml_boolean(node) >= 0)
        return thaw_yaml_fail(reader->tree, node,
                              "%s is %s, which YAML reads as a boolean; if the text is meant, write \"%s\"",
                              thaw_job_label(reader, key), thaw_yaml_show(node), node->text);
    if (node->text[0] == '\0')
        return thaw_yaml_fail(reader->tree, node, "%s is empty; write a value or remove the key",
                              thaw_job_label(reader, key));
    *out = node->text;
    return THAW_OK;
}

static thaw_status replace(char **field, const char *text) {
    char *copy = thaw_strdup(text);
    if (copy == NULL)
        return thaw_job_out_of_memory();
    thaw_free(*field);
    *field = copy;
    return THAW_OK;
}

bool thaw_job_parse_number(double *out, const char *text) {
    const char *c = text + (*text == '-' || *text == '+');
    size_t whole = strspn(c, "0123456789"), fraction = 0;
    if (whole > 1 && c[0] == '0')
        return false; /* YAML reads 010 as octal */
    c += whole;
    if (*c == '.') {
        c++;
        fraction = strspn(c, "0123456789");
        c += fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*c == 'e' || *c == 'E') {
        c++;
        c += *c == '-' || *c == '+';
        size_t digits = strspn(c, "0123456789");
        if (digits == 0)
            return false;
        c += digits;
    }
    if (*c != '\0')
        return false;
    *out = strtod(text, NULL);
    return isfinite(*out);
}

static bool parse_integer(int64_t *out, const char *text) {
    const char *c = text + (*text == '-' || *text == '+');
    if (*c == '\0' || strspn(c, "0123456789") != strlen(c) || (c[0] == '0' && c[1] != '\0'))
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static thaw_status set_number(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, void *field) {
    double real = 0;
    int64_t whole = 0;
    bool integer = key->type == THAW_KEY_INT;
    if (node->kind != THAW_YAML_SCALAR || thaw_yaml_is_null(node))
        return thaw_job_wrong(reader, key, node);
    if (!node->plain && thaw_job_parse_number(&real, node->text))
        return thaw_yaml_fail(reader->tree, node, "%s is %s; write the number without quotes",
                              thaw_job_label(reader, key), thaw_yaml_show(node));
    const char *digits = node->text + strspn(node->text, "+-");
    if (digits[0] == '0' && digits[1] != '\0' && strspn(digits, "0123456789") == strlen(digits))
        return thaw_yaml_fail(reader->tree, node,
                              "%s is %s, which YAML reads as an octal number; write it without the "
                              "leading zero",
                              thaw_job_label(reader, key), thaw_yaml_show(node));
    if (!node->plain || (integer ? !parse_integer(&whole, node->text) : !thaw_job_parse_number(&real, node->text)))
        return thaw_job_wrong(reader, key, node);
    double value = integer ? (double)whole : real;
    bool low = key->rules & THAW_KEY_ABOVE ? value > key->low : value >= key->low;
    bool high = key->rules & THAW_KEY_BELOW ? value < key->high : value <= key->high;
    if (!low || !high)
        return thaw_job_wrong(reader, key, node);
    if (integer)
        *(int64_t *)field = whole;
    else
        *(double *)field = real;
    return THAW_OK;
}

/* "4GB", "512 MiB", "1000000": units of thousands, or of 1024 with an i. */
static bool parse_bytes(double *out, const char *text) {
    static const char units[] = "KMGT";
    char number[32];
    size_t length = strspn(text, "0123456789.");
    if (length == 0 || length >= sizeof(number))
        return false;
    snprintf(number, sizeof(number), "%.*s", (int)length, text);
    if (!thaw_job_parse_number(out, number))
        return false;
    const char *unit = text + length + strspn(text + length, " ");
    const char *which = *unit != '\0' ? strchr(units, toupper((unsigned char)*unit)) : NULL;
    bool binary = which != NULL && unit[1] == 'i';
    for (int i = 0; which != NULL && i <= which - units; i++)
        *out *= binary ? 1024 : 1000;
    unit += (which != NULL) + binary;
    unit += toupper((unsigned char)*unit) == 'B';
    return *unit == '\0';
}

static thaw_status set_bytes(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, int64_t *field) {
    double value;
    if (node->kind != THAW_YAML_SCALAR || thaw_yaml_is_null(node) || !parse_bytes(&value, node->text) ||
        value < key->low || value > key->high)
        return thaw_job_wrong(reader, key, node);
    *field = (int64_t)value;
    return THAW_OK;
}

/* Which of key->choices a scalar is; booleans in any of YAML's words. */
static thaw_status get_choice(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, int *out) {
    char text[128], *names[MAX_CHOICES];
    int n = 0;
    snprintf(text, sizeof(text), "%s", key->choices);
    for (char *rest = text, *name; n < MAX_CHOICES && (name = strsep(&rest, "|")) != NULL;)
        names[n++] = name;
    if (node->kind != THAW_YAML_SCALAR || thaw_yaml_is_null(node))
        return thaw_job_wrong(reader, key, node);
    if (strcmp(key->choices, "false|true") == 0) {
        *out = thaw_yaml_boolean(node);
        return *out >= 0 ? THAW_OK : thaw_job_wrong(reader, key, node);
    }
    const char *value;
    /* An unquoted off is a boolean to YAML; where the choices have it, it can only be meant. */
    bool has_off = false;
    for (int i = 0; i < n; i++)
        has_off = has_off || strcmp(names[i], "off") == 0;
    if (has_off && strcmp(node->text, "off") == 0)
        value = node->text;
    else if (has_off && thaw_yaml_boolean(node) >= 0)
        return thaw_job_wrong(reader, key, node);
    else
        THAW_TRY(get_text(reader, key, node, &value));
    for (*out = 0; *out < n; ++*out)
        if ((key->type == THAW_KEY_INDEX ? strcasecmp : strcmp)(names[*out], value) == 0)
            return THAW_OK;
    char expected[256];
    const char *near = thaw_nearest(value, (const char *const *)names, n);
    return thaw_yaml_fail(reader->tree, node, "%s is %s; it must be %s%s%s%s", thaw_job_label(reader, key),
                          thaw_yaml_show(node), thaw_key_expected(key, expected, sizeof(expected)),
                          *near ? " (did you mean " : "", near, *near ? "?)" : "");
}

char *thaw_job_absolute(const char *folder, const char *path, bool collapse) {
    char *full = thaw_path_join(folder, path);
    if (full == NULL)
        return NULL;
    size_t n = 0; /* bytes of the result, written in place */
    for (char *at = full; *at != '\0';) {
        size_t slashes = strspn(at, "/"), length = strcspn(at + slashes, "/");
        const char *name = at + slashes;
        at += slashes + length;
        if (length == 0 || (length == 1 && name[0] == '.'))
            continue;
        if (collapse && length == 2 && name[0] == '.' && name[1] == '.') {
            while (n > 0 && full[n - 1] != '/')
                n--;
            n -= n > 0;
            continue;
        }
        if (slashes > 0 || n > 0)
            full[n++] = '/';
        memmove(full + n, name, length);
        n += length;
    }
    if (n == 0)
        full[n++] = '/';
    full[n] = '\0';
    return full;
}

/* Expands $VAR and ~ in the text of a node. [out] by thaw_free. */
static thaw_status expand(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, char **out) {
    const char *text;
    THAW_TRY(get_text(reader, key, node, &text));
    thaw_status status = thaw_path_expand(out, text);
    if (status == THAW_USAGE) { /* the message of base knows no place */
        char reason[256];
        snprintf(reason, sizeof(reason), "%s", thaw_message());
        return thaw_yaml_fail(reader->tree, node, "%s: %s", thaw_job_label(reader, key), reason);
    }
    return status;
}

static thaw_status set_path(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, char **field) {
    char *expanded = NULL;
    THAW_TRY(expand(reader, key, node, &expanded));
    char *absolute = thaw_job_absolute(reader->job->folder, expanded, false);
    thaw_free(expanded);
    if (absolute == NULL)
        return thaw_job_out_of_memory();
    thaw_free(*field);
    *field = absolute;
    return THAW_OK;
}

/* "FILE.h5:/dataset": a ":/" with something on both sides. */
static bool is_array(const char *text) {
    const char *colon = strstr(text, ":/");
    return colon != NULL && colon != text && colon[2] != '\0';
}

static thaw_status set_array(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, char **field) {
    const char *text;
    THAW_TRY(get_text(reader, key, node, &text));
    if (!is_array(text))
        return thaw_job_wrong(reader, key, node);
    return set_path(reader, key, node, field);
}

static thaw_status set_dataset(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, char **field) {
    const char *text;
    THAW_TRY(get_text(reader, key, node, &text));
    if (is_array(text))
        return thaw_yaml_fail(reader->tree, node,
                              "%s is %s, which names one array; samples and labels are both needed: "
                              "{x: FILE.h5:/x, y: FILE.h5:/y}",
                              thaw_job_label(reader, key), thaw_yaml_show(node));
    return set_path(reader, key, node, field);
}

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a > b && strcasecmp(text + a - b, end) == 0;
}

static thaw_status set_base(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    char *expanded = NULL;
    THAW_TRY(expand(reader, key, node, &expanded));
    job->base_is_file = strchr(expanded, '/') != NULL || ends_with(expanded, ".h5") || ends_with(expanded, ".hdf5") ||
                        ends_with(expanded, ".keras") || ends_with(expanded, ".safetensors");
    if (!job->base_is_file) {
        thaw_free(job->base);
        job->base = expanded;
        return THAW_OK;
    }
    thaw_free(expanded);
    return set_path(reader, key, node, &job->base);
}

static thaw_status set_weights(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    const char *text;
    THAW_TRY(get_text(reader, key, node, &text));
    if (strcmp(text, "imagenet") == 0 || strcmp(text, "none") == 0)
        return replace(&reader->job->weights, text);
    if (strpbrk(text, "/.$~") == NULL) /* "random", "imagenett": no file looks like this */
        return thaw_job_wrong(reader, key, node);
    return set_path(reader, key, node, &reader->job->weights);
}

static thaw_status set_shape(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    if (node->kind != THAW_YAML_LIST || node->n != 3)
        return thaw_job_wrong(reader, key, node);
    for (int i = 0; i < 3; i++) {
        const thaw_yaml_node *item = node->items[i];
        int64_t value;
        if (item->kind != THAW_YAML_SCALAR || !item->plain || !parse_integer(&value, item->text) || value < 1 ||
            value > 65536)
            return thaw_job_wrong(reader, key, item);
        reader->job->input_shape[i] = value;
    }
    return THAW_OK;
}

static thaw_status set_names(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    if (node->kind != THAW_YAML_LIST || node->n == 0 || node->n > MAX_NAMES)
        return thaw_job_wrong(reader, key, node);
    job->class_names = thaw_calloc((size_t)node->n, sizeof(*job->class_names));
    if (job->class_names == NULL)
        return thaw_job_out_of_memory();
    for (int i = 0; i < node->n; i++) {
        const char *text;
        THAW_TRY(get_text(reader, key, node->items[i], &text));
        THAW_TRY(replace(&job->class_names[i], text));
        job->n_class_names++;
        for (int j = 0; j < i; j++)
            if (strcmp(job->class_names[j], text) == 0)
                return thaw_yaml_fail(reader->tree, node->items[i],
                                      "data.class_names has '%s' twice (entries %d and %d)", text, j, i);
    }
    return THAW_OK;
}

static thaw_status set_loss(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    const char *text;
    char expected[256];
    THAW_TRY(get_text(reader, key, node, &text));
    if (thaw_loss_parse(&reader->job->loss, text))
        return THAW_OK;
    const char *near = thaw_loss_nearest(text);
    return thaw_yaml_fail(reader->tree, node, "unknown loss %s%s%s; thaw has %s", thaw_yaml_show(node),
                          *near ? ", did you mean " : "", near, thaw_key_expected(key, expected, sizeof(expected)));
}

static thaw_status set_metrics(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    int n = node->kind == THAW_YAML_LIST ? node->n : 1; /* metrics: accuracy is a list of one */
    job->n_metrics = 0;
    for (int i = 0; i < n; i++) {
        const thaw_yaml_node *item = node->kind == THAW_YAML_LIST ? node->items[i] : node;
        const char *text;
        thaw_metric metric;
        THAW_TRY(get_text(reader, key, item, &text));
        if (!thaw_metric_parse(&metric, text)) {
            const char *near = thaw_metric_nearest(text);
            return thaw_yaml_fail(reader->tree, item, "unknown metric %s%s%s; thaw has accuracy, mse and mae",
                                  thaw_yaml_show(item), *near ? ", did you mean " : "", near);
        }
        for (int j = 0; j < job->n_metrics; j++)
            if (job->metrics[j] == metric)
                return thaw_yaml_fail(reader->tree, item, "training.metrics has %s twice ('%s'); remove one",
                                      thaw_metric_name(metric), text);
        job->metrics[job->n_metrics++] = metric;
    }
    return THAW_OK;
}

static thaw_status set_class_weight(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    thaw_job *job = reader->job;
    if (node->kind != THAW_YAML_MAP || node->n == 0)
        return thaw_job_wrong(reader, key, node);
    job->class_weight_keys = thaw_calloc((size_t)node->n, sizeof(*job->class_weight_keys));
    job->class_weights = thaw_calloc((size_t)node->n, sizeof(*job->class_weights));
    if (job->class_weight_keys == NULL || job->class_weights == NULL)
        return thaw_job_out_of_memory();
    for (int i = 0; i < node->n; i++) {
        const thaw_yaml_node *item = node->items[i];
        double value;
        if (item->kind != THAW_YAML_SCALAR || !item->plain || !thaw_job_parse_number(&value, item->text) || value < 0 ||
            value > key->high)
            return thaw_yaml_fail(reader->tree, item,
                                  "training.class_weight of '%s' is %s; it must be a number of at least 0",
                                  node->keys[i], thaw_yaml_show(item));
        THAW_TRY(replace(&job->class_weight_keys[i], node->keys[i]));
        job->class_weights[i] = value;
        job->n_class_weights++;
    }
    return THAW_OK;
}

static thaw_status add_selector(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node, bool in_list,
                                thaw_freeze_spec *spec) {
    char place[512];
    const char *word = thaw_key_last(key);
    if (node->kind == THAW_YAML_MAP) {
        bool pair = node->n == 1 && node->items[0]->kind == THAW_YAML_SCALAR;
        return thaw_yaml_fail(reader->tree, node, "%s is a mapping; a selector is text, e.g. %s: \"%s:%s\"",
                              thaw_job_label(reader, key), word, pair ? node->keys[0] : "before",
                              pair ? node->items[0]->text : "block5_conv1");
    }
    if (node->kind == THAW_YAML_LIST)
        return thaw_yaml_fail(reader->tree, node, "%s has a list inside a list; write one list of selectors",
                              thaw_job_label(reader, key));
    if (thaw_yaml_is_null(node) || thaw_yaml_boolean(node) >= 0)
        return thaw_yaml_fail(
            reader->tree, node, "%s is %s, which YAML reads as %s; write all, none or another selector",
            thaw_job_label(reader, key), thaw_yaml_show(node), thaw_yaml_is_null(node) ? "no value" : "a boolean");
    if (in_list && node->plain && thaw_yaml_is_slice(node->text))
        return thaw_yaml_fail(reader->tree, node, "%s: YAML reads [%s] as a list; quote the slice: %s: \"[%s]\"",
                              thaw_job_label(reader, key), node->text, word, node->text);
    return thaw_freeze_spec_add(spec, node->text, node->option != NULL ? 0 : node->line,
                                thaw_yaml_where(reader->tree, node, place, sizeof(place)));
}

static thaw_status set_freeze(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node,
                              thaw_freeze_spec *spec) {
    thaw_freeze_spec_free(spec);
    if (node->kind != THAW_YAML_LIST)
        return add_selector(reader, key, node, false, spec);
    if (node->n == 0)
        return thaw_yaml_fail(reader->tree, node, "%s is an empty list; write %s", thaw_job_label(reader, key),
                              strcmp(thaw_key_last(key), "freeze") == 0 ? "none to freeze nothing"
                                                                        : "a selector or remove the key");
    for (int i = 0; i < node->n; i++)
        THAW_TRY(add_selector(reader, key, node->items[i], true, spec));
    return THAW_OK;
}

thaw_status thaw_job_set_value(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node) {
    void *field = thaw_job_field(reader->job, reader->stage, key);
    const char *text;
    int choice = 0;
    switch (key->type) {
    case THAW_KEY_STRING:
        THAW_TRY(get_text(reader, key, node, &text));
        THAW_TRY(replace(field, text));
        break;
    case THAW_KEY_CHOICE:
        THAW_TRY(get_choice(reader, key, node, &choice));
        THAW_TRY(replace(field, node->text));
        break;
    case THAW_KEY_INDEX:
        THAW_TRY(get_choice(reader, key, node, &choice));
        *(int *)field = choice;
        break;
    case THAW_KEY_BOOL:
        THAW_TRY(get_choice(reader, key, node, &choice));
        if (choice == 1 && (key->rules & THAW_KEY_FALSE))
            return thaw_yaml_fail(reader->tree, node, "%s: true is not supported; remove the key",
                                  thaw_job_label(reader, key));
        *(bool *)field = choice == 1;
        break;
    case THAW_KEY_INT:
    case THAW_KEY_REAL:
        THAW_TRY(set_number(reader, key, node, field));
        break;
    case THAW_KEY_BYTES:
        THAW_TRY(set_bytes(reader, key, node, field));
        break;
    case THAW_KEY_PATH:
        THAW_TRY(set_path(reader, key, node, field));
        break;
    case THAW_KEY_ARRAY:
        THAW_TRY(set_array(reader, key, node, field));
        break;
    case THAW_KEY_DATASET:
        THAW_TRY(set_dataset(reader, key, node, field));
        break;
    case THAW_KEY_BASE:
        THAW_TRY(set_base(reader, key, node));
        break;
    case THAW_KEY_WEIGHTS:
        THAW_TRY(set_weights(reader, key, node));
        break;
    case THAW_KEY_SHAPE:
        THAW_TRY(set_shape(reader, key, node));
        break;
    case THAW_KEY_HEAD:
        THAW_TRY(thaw_job_read_head(reader, key, node));
        break;
    case THAW_KEY_NAMES:
        THAW_TRY(set_names(reader, key, node));
        break;
    case THAW_KEY_LOSS:
        THAW_TRY(set_loss(reader, key, node));
        break;
    case THAW_KEY_METRICS:
        THAW_TRY(set_metrics(reader, key, node));
        break;
    case THAW_KEY_CLASS_WEIGHT:
        THAW_TRY(set_class_weight(reader, key, node));
        break;
    case THAW_KEY_FREEZE:
        THAW_TRY(set_freeze(reader, key, node, field));
        break;
    case THAW_KEY_SECTION:
    case THAW_KEY_SWITCH:
    case THAW_KEY_SHORT:
    case THAW_KEY_DEFAULTS:
    case THAW_KEY_STAGES:
    case THAW_KEY_OPTIMIZER:
        return thaw_job_wrong(reader, key, node);
    }
    if (key->flag != THAW_NO_FLAG)
        *(bool *)((char *)(thaw_key_of_stage(key) ? (void *)reader->stage : (void *)reader->job) + key->flag) = true;
    return THAW_OK;
}
