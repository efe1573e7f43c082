#include "formats/keras_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

thaw_status thaw_keras_refuse(const thaw_keras_place *place, const char *key, const cJSON *value, const char *what) {
    enum { MOST = 100 };
    char *text = value ? cJSON_PrintUnformatted(value) : NULL;
    if (text && strlen(text) > MOST)
        memcpy(text + MOST - 3, "...", 4);
    thaw_status status = thaw_fail(THAW_DATA, "%s: layer '%s': %s is %s, %s", place->file, place->layer, key,
                                   text ? text : "missing", what);
    cJSON_free(text);
    return status;
}

const cJSON *thaw_json_get(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

const char *thaw_json_text(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(thaw_json_get(object, key));
}

const cJSON *thaw_json_unwrap(const cJSON *value) {
    const char *class = cJSON_IsObject(value) ? thaw_json_text(value, "class_name") : NULL;
    const cJSON *inner = NULL;
    if (class && strcmp(class, "__tuple__") == 0)
        inner = thaw_json_get(value, "items");
    else if (class && strcmp(class, "TensorShape") == 0)
        inner = thaw_json_get(value, "items");
    else if (class && strcmp(class, "__numpy__") == 0)
        inner = thaw_json_get(thaw_json_get(value, "config"), "value");
    else if (cJSON_IsObject(value) && thaw_json_get(value, "type") && thaw_json_get(value, "value"))
        inner = thaw_json_get(value, "value"); /* Keras 2: {"type": "ndarray", "value": ...} */
    return inner ? inner : value;
}

bool thaw_json_integer(int64_t *out, const cJSON *value) {
    if (!cJSON_IsNumber(value) || value->valuedouble != floor(value->valuedouble) || fabs(value->valuedouble) > 0x1p53)
        return false;
    *out = (int64_t)value->valuedouble;
    return true;
}

cJSON *thaw_json_float(float value) {
    char text[40];
    double shortest = (double)value;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        shortest = strtod(text, NULL);
        if ((float)shortest == value)
            break;
    }
    return cJSON_CreateNumber(shortest);
}
