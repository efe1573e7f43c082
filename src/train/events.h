/* log.jsonl: one JSON object a line, every line has "event" (DESIGN 4.3).
 *
 *     thaw_event *e = thaw_event_begin("epoch");
 *     thaw_event_text(e, "stage", stage->name);
 *     thaw_event_number(thaw_event_object(e, "metrics"), "loss", loss);
 *     status = thaw_event_write(run->events, e);
 *
 * Numbers are written with 15 to 17 significant digits; a value that is not finite becomes null. Every function accepts a
 * NULL event (no memory): thaw_event_write then fails. */
#ifndef THAW_TRAIN_EVENTS_H
#define THAW_TRAIN_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "thaw/status.h"

typedef struct thaw_events thaw_events;
/* An object or list under construction; owned by the event that was begun, which thaw_event_write takes over. */
typedef struct cJSON thaw_event;

/* The log of a run folder; a file that is there is continued. [out] out: owned by the caller. Errors: THAW_RESOURCE.
 * Only rank 0 has a log: a NULL log swallows events, has size 0 and rewinds without effect. */
thaw_status thaw_events_open(thaw_events **out, const char *folder);
void thaw_events_free(thaw_events *events); /* NULL is accepted */
/* Bytes written so far: what a checkpoint stores. */
uint64_t thaw_events_size(const thaw_events *events);
/* Drops lines behind `size` bytes: what was logged after the checkpoint. Errors: THAW_IO. */
thaw_status thaw_events_rewind(thaw_events *events, uint64_t size);

thaw_event *thaw_event_begin(const char *name);
/* Each adds one value; `key` is NULL inside a list. */
void thaw_event_number(thaw_event *event, const char *key, double value);
void thaw_event_integer(thaw_event *event, const char *key, int64_t value); /* exact, also above 2^53 */
void thaw_event_text(thaw_event *event, const char *key, const char *text); /* NULL becomes null */
void thaw_event_flag(thaw_event *event, const char *key, bool value);
void thaw_event_hash(thaw_event *event, const char *key, uint64_t hash); /* 16 hexadecimal digits, as text */
thaw_event *thaw_event_object(thaw_event *event, const char *key);
thaw_event *thaw_event_list(thaw_event *event, const char *key);
/* Appends the event as one line and frees it, also on failure. Errors: THAW_RESOURCE, THAW_CANT_CREATE, THAW_IO. */
thaw_status thaw_event_write(thaw_events *events, thaw_event *event);

/* The event "verify": hashes over the frozen tensors at the start of the stage and now. `stage_end`: the check at the end
 * of the stage, else one in between. `epoch` counts over all stages. */
thaw_status thaw_events_verify(thaw_events *events, const char *stage, int64_t epoch, bool stage_end, uint64_t before,
                               uint64_t after, bool replicas_equal);
#endif
