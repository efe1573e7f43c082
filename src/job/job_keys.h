/* The one table of keys: parsing, defaults, ranges, --set, the effective job, its hash and the manual all read it. */
#ifndef THAW_JOB_KEYS_H
#define THAW_JOB_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "job/job.h"

/* How a value is written, and (in brackets) where it lies at `offset`. */
typedef enum thaw_key_type {
    THAW_KEY_SECTION,  /* mapping of the keys below it */
    THAW_KEY_SWITCH,   /* mapping, or none; on when given [bool] */
    THAW_KEY_SHORT,    /* mapping of the keys below it, or the value of the one that `choices` names */
    THAW_KEY_DEFAULTS, /* mapping (or none) that every stage starts from; `choices` names the stage's section */
    THAW_KEY_STAGES,   /* list of mappings */
    THAW_KEY_STRING,   /* [char *] */
    THAW_KEY_CHOICE,   /* one of `choices` [char *] */
    THAW_KEY_INDEX,    /* one of `choices`, ignoring case [int, -1 not given] */
    THAW_KEY_BOOL,     /* first or second of `choices` [bool] */
    THAW_KEY_INT,      /* [int64_t] */
    THAW_KEY_BYTES,    /* integer, or text with a unit: 4GB, 512 MiB [int64_t, 0 not given] */
    THAW_KEY_REAL,     /* [double] */
    THAW_KEY_PATH,     /* relative to the job file [char *] */
    THAW_KEY_ARRAY,    /* FILE.h5:/dataset [char *] */
    THAW_KEY_DATASET,  /* path [char *], or mapping of the keys below */
    THAW_KEY_BASE,     /* built-in name or path [char *, base_is_file] */
    THAW_KEY_WEIGHTS,  /* imagenet, none or path [char *] */
    THAW_KEY_SHAPE,    /* [H, W, C] [int64_t[3]] */
    THAW_KEY_HEAD,     /* list of layers */
    THAW_KEY_NAMES,    /* class_names */
    THAW_KEY_LOSS,     /* [thaw_loss] */
    THAW_KEY_METRICS,
    THAW_KEY_CLASS_WEIGHT,
    THAW_KEY_FREEZE,   /* selectors [thaw_freeze_spec] */
    THAW_KEY_OPTIMIZER /* name, or mapping of the keys below */
} thaw_key_type;

enum {
    THAW_KEY_REQUIRED = 1,
    THAW_KEY_ABOVE = 2,    /* low itself is outside */
    THAW_KEY_BELOW = 4,    /* high itself is outside */
    THAW_KEY_UNHASHED = 8, /* may change on resume */
    THAW_KEY_FALSE = 16    /* true is not supported */
};

#define THAW_NO_FLAG ((size_t)-1)

typedef struct thaw_key {
    const char *name; /* dotted; "stages[].x" is a key of a stage */
    thaw_key_type type;
    size_t offset; /* in thaw_job, or in thaw_job_stage for keys of a stage */
    size_t flag;   /* offset of a bool that is set when the key is given */
    double low, high;
    unsigned rules;
    const char *choices; /* "a|b|c" */
    const char
        *preset; /* default as YAML, or per optimizer "sgd=0.01 adam=0.001" (others do not take the key); NULL: none */
    const char *absent; /* the manual's words when there is no preset */
    const char *help;
} thaw_key;

extern const thaw_key thaw_keys[];
extern const int thaw_n_keys;

bool thaw_key_of_stage(const thaw_key *key);
/* The key `name` below `section` ("" for the top), NULL if there is none. */
const thaw_key *thaw_key_find(const char *section, const char *name);
const thaw_key *thaw_key_full(const char *dotted);
/* True if `key` lies directly below `section`. */
bool thaw_key_below(const thaw_key *key, const char *section);
/* The last part of a key's name. */
const char *thaw_key_last(const thaw_key *key);
/* Default of a key for an optimizer, in `buffer`; false if the optimizer does not take the key. */
bool thaw_key_preset(const thaw_key *key, thaw_optimizer_kind kind, char *buffer, size_t size);
/* "an integer from 1 to 1048576", "one of none, avg, max": what a value must be. */
const char *thaw_key_expected(const thaw_key *key, char *buffer, size_t size);

/* Keras' spellings of losses and metrics; false for others. */
bool thaw_loss_parse(thaw_loss *out, const char *name);
bool thaw_metric_parse(thaw_metric *out, const char *name);
/* "'a' or 'b'": the known spellings nearest to `wrong`, "" when none is near. */
const char *thaw_loss_nearest(const char *wrong);
const char *thaw_metric_nearest(const char *wrong);
#endif
