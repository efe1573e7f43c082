/* Standard output: only rank 0 writes, and every byte is known to have arrived. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "base/memory.h"

void thaw_app_print(const thaw_app *app, const char *text) {
    if (app->root)
        fputs(text, stdout); /* failures are kept by the stream: thaw_app_flush */
}

thaw_status thaw_app_print_buffer(const thaw_app *app, thaw_buffer *text) {
    const bool failed = text->failed;
    if (!failed && text->data)
        thaw_app_print(app, text->data);
    thaw_buffer_free(text);
    return failed ? thaw_fail(THAW_RESOURCE, "not enough memory to print the result") : THAW_OK;
}

thaw_status thaw_app_print_json(const thaw_app *app, cJSON *object) {
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    if (text) {
        thaw_app_print(app, text);
        thaw_app_print(app, "\n");
    }
    const bool failed = !text;
    cJSON_free(text);
    cJSON_Delete(object);
    return failed ? thaw_fail(THAW_RESOURCE, "not enough memory to print the result") : THAW_OK;
}

thaw_status thaw_app_flush(const thaw_app *app) {
    if (!app->root)
        return THAW_OK;
    const bool before = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout) != 0 || before)
        return thaw_fail(THAW_IO, "standard output cannot be written: %s; free space or send it elsewhere",
                         errno ? strerror(errno) : "an earlier write failed");
    return THAW_OK;
}

void thaw_json_int(cJSON *object, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    cJSON_AddRawToObject(object, key, text);
}

cJSON *thaw_json_shape(const thaw_shape *shape) {
    cJSON *list = cJSON_CreateArray();
    cJSON_AddItemToArray(list, cJSON_CreateNull());
    for (int i = 0; i < shape->rank; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)shape->dim[i]));
    return list;
}

const char *thaw_commas(thaw_words *words, int64_t value) {
    char digits[32];
    const int n = snprintf(digits, sizeof digits, "%" PRId64, value);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
            words->text[at++] = ',';
        words->text[at++] = digits[i];
    }
    words->text[at] = 0;
    return words->text;
}

const char *thaw_megabytes(thaw_words *words, double bytes) {
    if (bytes < 1e6)
        snprintf(words->text, sizeof words->text, "%.1f kB", bytes * 1e-3);
    else if (bytes < 1e9)
        snprintf(words->text, sizeof words->text, "%.1f MB", bytes * 1e-6);
    else
        snprintf(words->text, sizeof words->text, "%.2f GB", bytes * 1e-9);
    return words->text;
}

const char *thaw_shape_words(thaw_words *words, const thaw_shape *shape) {
    size_t at = (size_t)snprintf(words->text, sizeof words->text, "(None");
    for (int i = 0; i < shape->rank && at < sizeof words->text; i++)
        at += (size_t)snprintf(words->text + at, sizeof words->text - at, ", %" PRId64, shape->dim[i]);
    if (at < sizeof words->text)
        snprintf(words->text + at, sizeof words->text - at, ")");
    return words->text;
}

const thaw_shape *thaw_layer_shape(const thaw_model *model, int layer) {
    for (int i = 0; i < model->n_nodes; i++)
        if (model->nodes[i].layer == layer)
            return &model->nodes[i].shape;
    return &model->nodes[model->output].shape;
}
