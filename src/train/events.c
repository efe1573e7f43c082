#include "train/events.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "train/json_text.h"

struct thaw_events {
    char *path;
    uint64_t size;
};

/* A bit of cJSON's `type` above those that it uses: a value of this object could not be made. */
#define INCOMPLETE (1 << 20)

thaw_status thaw_events_open(thaw_events **out, const char *folder) {
    thaw_events *events = thaw_calloc(1, sizeof *events);
    char *path = thaw_path_join(folder, "log.jsonl");
    *out = NULL;
    if (!events || !path) {
        thaw_free(events);
        thaw_free(path);
        return thaw_fail(THAW_RESOURCE, "no memory for the log of %s", folder);
    }
    events->path = path;
    events->size = thaw_io_size(path);
    *out = events;
    return THAW_OK;
}

void thaw_events_free(thaw_events *events) {
    if (!events)
        return;
    thaw_free(events->path);
    thaw_free(events);
}

uint64_t thaw_events_size(const thaw_events *events) { return events ? events->size : 0; }

thaw_status thaw_events_rewind(thaw_events *events, uint64_t size) {
    if (!events)
        return THAW_OK;
    THAW_TRY(thaw_io_truncate(events->path, size));
    events->size = thaw_io_size(events->path);
    return THAW_OK;
}

/* Puts an item into an object (or list, without key) and owns it from then on. */
static cJSON *add(thaw_event *event, const char *key, cJSON *item) {
    if (event && item && (key ? cJSON_AddItemToObject(event, key, item) : cJSON_AddItemToArray(event, item)))
        return item;
    if (event)
        event->type |= INCOMPLETE;
    cJSON_Delete(item);
    return NULL;
}

thaw_event *thaw_event_begin(const char *name) {
    thaw_event *event = cJSON_CreateObject();
    thaw_event_text(event, "event", name);
    return event;
}

void thaw_event_number(thaw_event *event, const char *key, double value) {
    add(event, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

void thaw_event_integer(thaw_event *event, const char *key, int64_t value) {
    char text[24]; /* cJSON keeps numbers as double */
    snprintf(text, sizeof text, "%" PRId64, value);
    add(event, key, cJSON_CreateRaw(text));
}

void thaw_event_text(thaw_event *event, const char *key, const char *text) {
    thaw_buffer quoted = {0};
    if (text)
        thaw_buffer_json(&quoted, text);
    add(event, key, !text ? cJSON_CreateNull() : quoted.failed ? NULL : cJSON_CreateRaw(quoted.data));
    thaw_buffer_free(&quoted);
}

void thaw_event_flag(thaw_event *event, const char *key, bool value) { add(event, key, cJSON_CreateBool(value)); }

void thaw_event_hash(thaw_event *event, const char *key, uint64_t hash) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    thaw_event_text(event, key, text);
}

thaw_event *thaw_event_object(thaw_event *event, const char *key) { return add(event, key, cJSON_CreateObject()); }
thaw_event *thaw_event_list(thaw_event *event, const char *key) { return add(event, key, cJSON_CreateArray()); }

static bool complete(const thaw_event *event) {
    if (event->type & INCOMPLETE)
        return false;
    const thaw_event *child;
    cJSON_ArrayForEach(child, event) if (!complete(child)) return false;
    return true;
}

thaw_status thaw_event_write(thaw_events *events, thaw_event *event) {
    if (!events) {
        cJSON_Delete(event);
        return THAW_OK;
    }
    char *line = event && complete(event) ? cJSON_PrintUnformatted(event) : NULL;
    thaw_buffer bytes = {0};
    if (line)
        thaw_buffer_printf(&bytes, "%s\n", line);
    thaw_status status = THAW_OK;
    if (!line || bytes.failed)
        status = thaw_fail(THAW_RESOURCE, "no memory for a line of %s", events->path);
    else
        status = thaw_io_append(events->path, bytes.data, bytes.size);
    if (status == THAW_OK)
        events->size += bytes.size;
    thaw_buffer_free(&bytes);
    cJSON_free(line);
    cJSON_Delete(event);
    return status;
}

thaw_status thaw_events_verify(thaw_events *events, const char *stage, int64_t epoch, bool stage_end, uint64_t before,
                               uint64_t after, bool replicas_equal) {
    if (!events)
        return THAW_OK;
    thaw_event *event = thaw_event_begin("verify");
    thaw_event_text(event, "stage", stage);
    thaw_event_integer(event, "epoch", epoch);
    thaw_event_flag(event, "stage_end", stage_end);
    thaw_event *hash = thaw_event_object(event, "frozen_hash");
    thaw_event_hash(hash, "before", before);
    thaw_event_hash(hash, "after", after);
    thaw_event_flag(event, "frozen_equal", before == after);
    thaw_event_flag(event, "replicas_equal", replicas_equal);
    return thaw_event_write(events, event);
}
