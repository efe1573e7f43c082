/* The freeze language of DESIGN 4.2 as data: parsed here, resolved against a network by graph/freeze.h. */
#ifndef THAW_JOB_FREEZE_SPEC_H
#define THAW_JOB_FREEZE_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "thaw/status.h"

typedef enum thaw_selector_kind {
    THAW_SELECT_ALL,    /* the base */
    THAW_SELECT_NONE,   /* nothing */
    THAW_SELECT_FILE,   /* flags stored in the file */
    THAW_SELECT_KEEP,   /* as the stage before */
    THAW_SELECT_BEFORE, /* every layer before `text` */
    THAW_SELECT_NAME,   /* `text` */
    THAW_SELECT_INDEX,  /* layer `start` of the base's list; negative counts from the end */
    THAW_SELECT_SLICE,  /* [start:stop:step] of the base's list, or of base and head with `whole` */
    THAW_SELECT_GLOB,   /* pattern `text` */
    THAW_SELECT_CLASS   /* Keras class name `text` */
} thaw_selector_kind;

typedef struct thaw_selector {
    thaw_selector_kind kind;
    char *text;
    int64_t start, stop, step;
    bool has_start, has_stop; /* false: Python's None */
    bool whole;               /* "model[...]": base and head */
    int line;                 /* of the job file, 0 when from the command line */
} thaw_selector;

typedef struct thaw_freeze_spec {
    int n;
    thaw_selector *selectors; /* applied in order */
} thaw_freeze_spec;

/* Parses one selector text: all, none, file, keep, before:NAME, [a:b], model[a:b], glob:P, class:C, an integer, or a name,
 * and appends it. A text of the form "[a, b]" is a list. `where` names the source in messages ("job.yaml:12"). Errors:
 * THAW_USAGE. */
thaw_status thaw_freeze_spec_add(thaw_freeze_spec *spec, const char *text, int line, const char *where);
void thaw_freeze_spec_free(thaw_freeze_spec *spec); /* frees the contents */
#endif
