/* The manual of every key, from the table. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "job/job_keys.h"

/* {form, what it freezes}: the freeze language of freeze_spec.h. */
static const char *const selectors[][2] = {
    {"all", "the base (all layers but those of model.head)"},
    {"none", "nothing"},
    {"before:NAME", "every layer before NAME"},
    {"NAME, [NAME, NAME], 3, [0, 3, 5]", "these layers, by name or index; names reach layers of the head"},
    {"\"[:-5]\", \"[0:15]\"", "a Python slice of the base's layers, in quotes; indices as `thaw layers` shows them"},
    {"\"model[:-5]\"", "a slice that counts base and head"},
    {"\"glob:block[1-4]_*\"", "layers whose name matches the pattern"},
    {"class:BatchNormalization", "layers of a class"},
    {"file", "the flags stored in the model file"},
    {"keep", "as the stage before"},
};
enum { N_SELECTORS = sizeof(selectors) / sizeof(*selectors) };

static const char *const intro =
    "A job file is YAML. Keys that are not listed here, values of the wrong type or out of range, and values that YAML "
    "reads "
    "otherwise than meant are errors with the line number and the fix. Paths are relative to the job file; $VAR and ~ "
    "are "
    "expanded. Numbers may be written 1e-4. Every key can be set on the command line, lists by index: --set "
    "training.batch_size=16 --set stages.0.epochs=3.";

/* "0.001", "sgd 0.01, adam 0.001", "required" or the words for an absent key. */
static void default_words(const thaw_key *key, char *buffer, size_t size) {
    if (key->rules & THAW_KEY_REQUIRED)
        snprintf(buffer, size, "required");
    else
        snprintf(buffer, size, "%s", key->preset != NULL ? key->preset : key->absent != NULL ? key->absent : "");
    if (key->preset == NULL || strchr(key->preset, '=') == NULL)
        return;
    size_t n = 0;
    for (const char *c = key->preset; *c != '\0' && n + 3 < size; c++) {
        if (*c == ' ')
            buffer[n++] = ',';
        buffer[n++] = *c == '=' ? ' ' : *c;
    }
    buffer[n] = '\0';
}

/* Text of a Markdown cell: '|' ends a cell, '*' and '<' are markup outside of code. */
static void put_cell(thaw_buffer *buffer, const char *text) {
    for (; *text != '\0'; text++)
        thaw_buffer_printf(buffer, strchr("|*<", *text) != NULL ? "\\%c" : "%c", *text);
}

/* Breaks a text into lines of at most 100 columns that begin with `indent` spaces. */
static void put_wrapped(thaw_buffer *buffer, const char *text, int indent) {
    while (*text != '\0') {
        size_t room = 100 - (size_t)indent, length = strlen(text);
        if (length > room) {
            length = room;
            while (length > 1 && text[length] != ' ')
                length--;
        }
        thaw_buffer_printf(buffer, "%*s%.*s\n", indent, "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

static void put_plain(thaw_buffer *buffer) {
    char expected[256], standard[256];
    put_wrapped(buffer, intro, 0);
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        thaw_key_expected(key, expected, sizeof(expected));
        default_words(key, standard, sizeof(standard));
        thaw_buffer_printf(buffer, "%s%s\n", strchr(key->name, '.') == NULL ? "\n" : "", key->name);
        put_wrapped(buffer, key->help, 4);
        char *line =
            thaw_format("Value: %s. %s%s%s", expected, strcmp(standard, "required") == 0 ? "Required" : "Default: ",
                        strcmp(standard, "required") == 0 ? "" : standard, ".");
        if (line != NULL)
            put_wrapped(buffer, line, 4);
        buffer->failed = buffer->failed || line == NULL;
        thaw_free(line);
    }
    thaw_buffer_printf(buffer, "\nSelectors of freeze and train, applied in order to \"all layers are trained\":\n");
    for (int i = 0; i < N_SELECTORS; i++)
        thaw_buffer_printf(buffer, "    %-34s %s\n", selectors[i][0], selectors[i][1]);
}

static void put_markdown(thaw_buffer *buffer) {
    char expected[256], standard[256];
    thaw_buffer_printf(buffer,
                       "# Job files\n\n%s\n\n"
                       "`thaw plan JOB.yaml` shows what a job will cost before it runs, `thaw train JOB.yaml` runs it. "
                       "Examples to copy:\n\n"
                       "- `quickstart/job.yaml`: handwritten digits, with data and weights in this repository\n"
                       "- `vgg16-cats-dogs.yaml`: two classes, a new head, then the last block of VGG16\n"
                       "- `resnet50-gap.yaml`: ten classes on pooled features of ResNet50\n"
                       "- `regression.yaml`: arrays, a network of one's own, layers frozen by name\n"
                       "- `slurm/`: scripts for SLURM, with a page on nodes, ranks and time limits\n\n"
                       "This page is written by `thaw help job --markdown`; do not edit it by hand.\n",
                       intro);
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        bool top = strchr(key->name, '.') == NULL;
        if (top)
            thaw_buffer_printf(buffer, "\n## %s\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
                               key->name);
        thaw_key_expected(key, expected, sizeof(expected));
        default_words(key, standard, sizeof(standard));
        thaw_buffer_printf(buffer, "| `%s` | ", key->name);
        put_cell(buffer, expected);
        thaw_buffer_printf(buffer, " | ");
        put_cell(buffer, standard);
        thaw_buffer_printf(buffer, " | ");
        put_cell(buffer, key->help);
        thaw_buffer_printf(buffer, " |\n");
    }
    thaw_buffer_printf(
        buffer, "\n## Selectors of freeze and train\n\nEach stage starts from \"all layers are trained\", applies "
                "`freeze` in order, then `train` makes layers trainable again.\n\n"
                "| selector | layers |\n|---|---|\n");
    for (int i = 0; i < N_SELECTORS; i++) {
        thaw_buffer_printf(buffer, "| `%s` | ", selectors[i][0]);
        put_cell(buffer, selectors[i][1]);
        thaw_buffer_printf(buffer, " |\n");
    }
}

char *thaw_job_manual(bool markdown) {
    thaw_buffer buffer = {0};
    if (markdown)
        put_markdown(&buffer);
    else
        put_plain(&buffer);
    char *text = buffer.failed ? NULL : thaw_strdup(buffer.data);
    thaw_buffer_free(&buffer);
    return text;
}
