/* Values of a Keras configuration (cJSON), with messages that name file, layer and key. */
#ifndef THAW_FORMATS_KERAS_JSON_H
#define THAW_FORMATS_KERAS_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/status.h"

/* Where a value stands, for messages. */
typedef struct thaw_keras_place {
    const char *file, *layer;
} thaw_keras_place;

/* THAW_DATA: "FILE: layer 'L': KEY is VALUE, WHAT". */
thaw_status thaw_keras_refuse(const thaw_keras_place *place, const char *key, const cJSON *value, const char *what);

/* Member or NULL; NULL too if it is JSON's null. */
const cJSON *thaw_json_get(const cJSON *object, const char *key);
const char *thaw_json_text(const cJSON *object, const char *key); /* NULL if it is not text */
/* What stands behind Keras' wrappers: {"class_name": "__tuple__"|"__numpy__"|"TensorShape", ...}. */
const cJSON *thaw_json_unwrap(const cJSON *value);
bool thaw_json_integer(int64_t *out, const cJSON *value);
/* The number with the fewest digits that gives `value` as float: 0.001, not 0.0010000000474974513. */
cJSON *thaw_json_float(float value);
#endif
