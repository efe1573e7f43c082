/* The effective job as YAML, its hash, and the keys in which two jobs differ. All three write values by the same table
 * that reads them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/text.h"
#include "job/job_value.h"

typedef struct writer {
    thaw_buffer buffer;
    bool hash; /* write what must not change on resume, paths without detours */
} writer;

/* One code point of UTF-8; bytes that are none count as themselves. */
static size_t code_point(const char *text, unsigned *out) {
    const unsigned char *c = (const unsigned char *)text;
    size_t length = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : c[0] >= 0xc0 ? 2 : 1;
    unsigned value = length == 1 ? c[0] : c[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            *out = c[0];
            return 1;
        }
        value = value << 6 | (c[i] & 0x3fu);
    }
    *out = value;
    return length;
}

/* A YAML scalar that is read back as this text: plain where no reader could take it for something else. */
static void write_text(thaw_buffer *buffer, const char *text) {
    static const char *const words[] = {"null", "yes", "no", "on", "off", "true", "false", "y", "n"};
    bool plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") == strlen(text) &&
                 (text[0] == '/' || ((text[0] | 32) >= 'a' && (text[0] | 32) <= 'z'));
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        plain = plain && strcasecmp(text, words[i]) != 0;
    if (plain) {
        thaw_buffer_printf(buffer, "%s", text);
        return;
    }
    thaw_buffer_printf(buffer, "\"");
    while (*text != '\0') {
        unsigned value;
        size_t length = code_point(text, &value);
        if (value == '"' || value == '\\')
            thaw_buffer_printf(buffer, "\\%c", (int)value);
        else if (value < 0x20 || (value >= 0x7f && value < 0xa0))
            thaw_buffer_printf(buffer, "\\x%02X", value);
        else if (value == 0x2028 || value == 0x2029 || value == 0xfeff || value == 0xfffe || value == 0xffff)
            thaw_buffer_printf(buffer, "\\u%04X", value); /* line breaks and what YAML forbids */
        else
            thaw_buffer_put(buffer, text, length);
        text += length;
    }
    thaw_buffer_printf(buffer, "\"");
}

/* The shortest decimal form that reads back to the same double. */
static void write_real(thaw_buffer *buffer, double value) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    thaw_buffer_printf(buffer, "%s", text);
}

static bool write_path(writer *w, const char *path) {
    if (path == NULL)
        return false;
    char *clean = w->hash && path[0] == '/' ? thaw_job_absolute("/", path, true) : NULL;
    write_text(&w->buffer, clean != NULL ? clean : path);
    thaw_free(clean);
    return true;
}

static void write_selector(thaw_buffer *buffer, const thaw_selector *selector) {
    static const char *const words[] = {"all", "none", "file", "keep", "before:", "", "", "", "glob:", "class:"};
    char start[24] = "", stop[24] = "", step[24] = "";
    switch (selector->kind) {
    case THAW_SELECT_INDEX:
        thaw_buffer_printf(buffer, "%lld", (long long)selector->start);
        return;
    case THAW_SELECT_SLICE:
        if (selector->has_start)
            snprintf(start, sizeof(start), "%lld", (long long)selector->start);
        if (selector->has_stop)
            snprintf(stop, sizeof(stop), "%lld", (long long)selector->stop);
        if (selector->step != 1)
            snprintf(step, sizeof(step), ":%lld", (long long)selector->step);
        thaw_buffer_printf(buffer, "\"%s[%s:%s%s]\"", selector->whole ? "model" : "", start, stop, step);
        return;
    default: {
        char *text = thaw_format("%s%s", words[selector->kind], selector->text != NULL ? selector->text : "");
        if (text != NULL)
            write_text(buffer, text);
        buffer->failed = buffer->failed || text == NULL;
        thaw_free(text);
    }
    }
}

static bool write_freeze(thaw_buffer *buffer, const thaw_freeze_spec *spec) {
    if (spec->n == 0)
        return false;
    thaw_buffer_printf(buffer, spec->n > 1 ? "[" : "");
    for (int i = 0; i < spec->n; i++) {
        thaw_buffer_printf(buffer, i > 0 ? ", " : "");
        write_selector(buffer, &spec->selectors[i]);
    }
    thaw_buffer_printf(buffer, spec->n > 1 ? "]" : "");
    return true;
}

static void write_argument(thaw_buffer *buffer, const thaw_job_argument *argument) {
    double number;
    write_text(buffer, argument->key);
    thaw_buffer_printf(buffer, ": ");
    if (argument->text == NULL) {
        for (int i = 0; i < argument->n_numbers; i++) {
            thaw_buffer_printf(buffer, i > 0 ? ", " : "[");
            write_real(buffer, argument->numbers[i]);
        }
        thaw_buffer_printf(buffer, "]");
    } else if (strcmp(argument->text, "true") == 0 || strcmp(argument->text, "false") == 0 ||
               thaw_job_parse_number(&number, argument->text)) {
        thaw_buffer_printf(buffer, "%s", argument->text);
    } else {
        write_text(buffer, argument->text);
    }
}

/* One layer a line, below the key. */
static bool write_head(thaw_buffer *buffer, const thaw_job *job) {
    for (int i = 0; i < job->n_head; i++) {
        thaw_buffer_printf(buffer, "\n    - ");
        write_text(buffer, job->head[i].class_name);
        thaw_buffer_printf(buffer, ": {");
        for (int j = 0; j < job->head[i].n_arguments; j++) {
            thaw_buffer_printf(buffer, j > 0 ? ", " : "");
            write_argument(buffer, &job->head[i].arguments[j]);
        }
        thaw_buffer_printf(buffer, "}");
    }
    return job->n_head > 0;
}

static bool write_lists(thaw_buffer *buffer, const thaw_key *key, const thaw_job *job) {
    bool weights = key->type == THAW_KEY_CLASS_WEIGHT, names = key->type == THAW_KEY_NAMES;
    int n = weights ? job->n_class_weights : names ? job->n_class_names : job->n_metrics;
    if (n == 0)
        return false;
    thaw_buffer_printf(buffer, weights ? "{" : "[");
    for (int i = 0; i < n; i++) {
        thaw_buffer_printf(buffer, i > 0 ? ", " : "");
        write_text(buffer, weights ? job->class_weight_keys[i]
                           : names ? job->class_names[i]
                                   : thaw_metric_name(job->metrics[i]));
        if (weights) {
            thaw_buffer_printf(buffer, ": ");
            write_real(buffer, job->class_weights[i]);
        }
    }
    thaw_buffer_printf(buffer, weights ? "}" : "]");
    return true;
}

/* Which of key->choices has the number `index`. */
static void write_choice(thaw_buffer *buffer, const thaw_key *key, int index) {
    const char *text = key->choices;
    for (; index > 0; index--)
        text += strcspn(text, "|") + 1;
    thaw_buffer_put(buffer, text, strcspn(text, "|"));
}

/* Writes the value of a key; false if the job does not have it. */
static bool write_value(writer *w, const thaw_key *key, const thaw_job *job, const thaw_job_stage *stage) {
    const void *field = thaw_job_field(job, stage, key);
    thaw_buffer *buffer = &w->buffer;
    char preset[64];
    const char *base = thaw_key_of_stage(key) ? (const char *)stage : (const char *)job;
    if (key->flag != THAW_NO_FLAG && !*(const bool *)(base + key->flag))
        return false;
    if (thaw_key_below(key, "stages[].optimizer") &&
        !thaw_key_preset(key, stage->optimizer.kind, preset, sizeof(preset)))
        return false;
    if (thaw_key_below(key, "stages[].early_stopping") && !stage->early_stopping.on)
        return false;
    if (thaw_key_below(key, "stages[].reduce_lr_on_plateau") && !stage->plateau.on)
        return false;
    switch (key->type) {
    case THAW_KEY_SECTION:
    case THAW_KEY_SWITCH:
    case THAW_KEY_SHORT:
    case THAW_KEY_DEFAULTS:
    case THAW_KEY_STAGES:
    case THAW_KEY_OPTIMIZER:
        return false;
    case THAW_KEY_STRING:
    case THAW_KEY_CHOICE:
        if (*(char *const *)field != NULL)
            write_text(buffer, *(char *const *)field);
        return *(char *const *)field != NULL;
    case THAW_KEY_INDEX:
        if (*(const int *)field < 0)
            return false;
        write_choice(buffer, key, *(const int *)field);
        return true;
    case THAW_KEY_BOOL:
        write_choice(buffer, key, *(const bool *)field);
        return true;
    case THAW_KEY_INT:
    case THAW_KEY_BYTES:
        if (key->preset == NULL && *(const int64_t *)field == 0)
            return false;
        thaw_buffer_printf(buffer, "%lld", (long long)*(const int64_t *)field);
        return true;
    case THAW_KEY_REAL:
        if (strcmp(key->name, "data.validation_split") == 0 && job->validation_split <= 0)
            return false;
        write_real(buffer, *(const double *)field);
        return true;
    case THAW_KEY_PATH:
    case THAW_KEY_ARRAY:
    case THAW_KEY_DATASET:
    case THAW_KEY_BASE:
    case THAW_KEY_WEIGHTS:
        return write_path(w, *(char *const *)field);
    case THAW_KEY_SHAPE:
        if (job->input_shape[0] > 0)
            thaw_buffer_printf(buffer, "[%lld, %lld, %lld]", (long long)job->input_shape[0],
                               (long long)job->input_shape[1], (long long)job->input_shape[2]);
        return job->input_shape[0] > 0;
    case THAW_KEY_HEAD:
        return write_head(buffer, job);
    case THAW_KEY_NAMES:
    case THAW_KEY_METRICS:
    case THAW_KEY_CLASS_WEIGHT:
        return write_lists(buffer, key, job);
    case THAW_KEY_LOSS:
        thaw_buffer_printf(buffer, "%s", thaw_loss_name(job->loss));
        return true;
    case THAW_KEY_FREEZE:
        return write_freeze(buffer, field);
    }
    return false;
}

/* Writes "key: value" lines of the job (stage NULL) or of one stage, with a line for every section that is entered.
 * Keys in [first, last) of the table. */
static void write_keys(writer *w, const thaw_job *job, const thaw_job_stage *stage, int first, int last) {
    const char *entered = ""; /* name of the key written before: what it shares needs no new line */
    bool dash = stage != NULL;
    for (int i = first; i < last; i++) {
        const thaw_key *key = &thaw_keys[i];
        if (thaw_key_of_stage(key) != (stage != NULL) || (w->hash && (key->rules & THAW_KEY_UNHASHED)))
            continue;
        writer value = {.hash = w->hash};
        bool given = write_value(&value, key, job, stage);
        if (given) {
            const char *part = stage != NULL ? key->name + 9 : key->name;
            int indent = stage != NULL ? 4 : 0;
            for (const char *dot; (dot = strchr(part, '.')) != NULL; part = dot + 1, indent += 2) {
                size_t length = (size_t)(dot - key->name) + 1;
                if (strncmp(entered, key->name, length) == 0)
                    continue;
                thaw_buffer_printf(&w->buffer, "%*s%.*s:\n", indent, "", (int)(dot - part), part);
            }
            const char *space = value.buffer.data != NULL && value.buffer.data[0] == '\n' ? "" : " ";
            if (dash)
                thaw_buffer_printf(&w->buffer, "  - %s:%s%s\n", part, space, value.buffer.data);
            else
                thaw_buffer_printf(&w->buffer, "%*s%s:%s%s\n", indent, "", part, space, value.buffer.data);
            dash = false;
            entered = key->name;
        }
        w->buffer.failed = w->buffer.failed || value.buffer.failed;
        thaw_buffer_free(&value.buffer);
    }
}

static char *write_job(const thaw_job *job, bool hash) {
    writer w = {.hash = hash};
    int stages = 0;
    while (strcmp(thaw_keys[stages].name, "stages") != 0)
        stages++;
    write_keys(&w, job, NULL, 0, stages);
    thaw_buffer_printf(&w.buffer, "stages:\n");
    for (int i = 0; i < job->n_stages; i++)
        write_keys(&w, job, &job->stages[i], 0, thaw_n_keys);
    write_keys(&w, job, NULL, stages, thaw_n_keys);
    char *text = w.buffer.failed ? NULL : thaw_strdup(w.buffer.data);
    thaw_buffer_free(&w.buffer);
    return text;
}

char *thaw_job_text(const thaw_job *job) {
    return write_job(job, false);
}

uint64_t thaw_job_hash(const thaw_job *job) {
    char *text = write_job(job, true);
    uint64_t hash = text != NULL ? thaw_hash_text(text, 0) : 0;
    thaw_free(text);
    return hash;
}

/* Adds the name of a key whose value differs; `index` of the stage, or -1. */
static void compare_key(thaw_buffer *names, const thaw_key *key, int index, const thaw_job *a, const thaw_job *b) {
    writer values[2] = {{.hash = true}, {.hash = true}};
    bool given[2];
    given[0] = write_value(&values[0], key, a, index >= 0 ? &a->stages[index] : NULL);
    given[1] = write_value(&values[1], key, b, index >= 0 ? &b->stages[index] : NULL);
    bool same = given[0] == given[1] && (!given[0] || strcmp(values[0].buffer.data, values[1].buffer.data) == 0);
    const char *comma = names->size > 0 ? ", " : "";
    if (!same && index >= 0)
        thaw_buffer_printf(names, "%sstages.%d.%s", comma, index, key->name + 9);
    else if (!same)
        thaw_buffer_printf(names, "%s%s", comma, key->name);
    thaw_buffer_free(&values[0].buffer);
    thaw_buffer_free(&values[1].buffer);
}

char *thaw_job_difference(const thaw_job *a, const thaw_job *b) {
    thaw_buffer names = {0};
    int common = a->n_stages < b->n_stages ? a->n_stages : b->n_stages;
    for (int i = 0; i < thaw_n_keys; i++)
        if (!thaw_key_of_stage(&thaw_keys[i]) && !(thaw_keys[i].rules & THAW_KEY_UNHASHED))
            compare_key(&names, &thaw_keys[i], -1, a, b);
    for (int stage = 0; stage < common; stage++)
        for (int i = 0; i < thaw_n_keys; i++)
            if (thaw_key_of_stage(&thaw_keys[i]) && !(thaw_keys[i].rules & THAW_KEY_UNHASHED))
                compare_key(&names, &thaw_keys[i], stage, a, b);
    if (a->n_stages != b->n_stages)
        thaw_buffer_printf(&names, "%sstages (%d and %d)", names.size > 0 ? ", " : "", a->n_stages, b->n_stages);
    char *text = names.failed ? NULL : thaw_strdup(names.data != NULL ? names.data : "");
    thaw_buffer_free(&names);
    return text;
}
