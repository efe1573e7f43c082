/* The job file as a checked struct. Every value here was given or is the documented default; nothing is parsed later. */
#ifndef THAW_JOB_H
#define THAW_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "job/freeze_spec.h"
#include "thaw/status.h"

/* A head layer as written: class name and arguments of Keras (checked by the head builder in train/). */
typedef struct thaw_job_argument {
    char *key;
    char *text;      /* scalar as text; NULL for a list */
    double *numbers; /* list of numbers (target_shape, ...) */
    int n_numbers;
    int line;
} thaw_job_argument;

typedef struct thaw_job_layer {
    char *class_name;
    int n_arguments;
    thaw_job_argument *arguments; /* nested mappings are flattened: kernel_regularizer.l2 */
    int line;
} thaw_job_layer;

typedef enum thaw_optimizer_kind { THAW_SGD, THAW_ADAM, THAW_ADAMW, THAW_RMSPROP } thaw_optimizer_kind;

typedef struct thaw_job_optimizer {
    thaw_optimizer_kind kind;
    double learning_rate, momentum, beta_1, beta_2, epsilon, rho;
    bool nesterov, centered, amsgrad;
    double weight_decay;              /* 0: none (AdamW: 0.004) */
    double clipnorm, global_clipnorm, clipvalue; /* 0: off; at most one */
    bool keep_state;                  /* carry slots over from the stage before, by tensor name */
} thaw_job_optimizer;

typedef struct thaw_job_early_stopping {
    bool on;
    char *monitor; /* val_loss */
    char *mode;    /* auto | min | max */
    double min_delta;
    int64_t patience, start_from_epoch;
    bool restore_best_weights;
    bool has_baseline;
    double baseline;
} thaw_job_early_stopping;

typedef struct thaw_job_plateau {
    bool on;
    char *monitor, *mode;
    double factor, min_delta, min_lr;
    int64_t patience, cooldown;
} thaw_job_plateau;

typedef struct thaw_job_stage {
    char *name;
    thaw_freeze_spec freeze, train;
    int64_t epochs;
    thaw_job_optimizer optimizer;
    int batch_norm_statistics; /* -1 default (DESIGN 4.2), 0 moving, 1 batch */
    thaw_job_early_stopping early_stopping;
    thaw_job_plateau plateau;
    int line;
} thaw_job_stage;

typedef enum thaw_loss {
    THAW_LOSS_BINARY_CROSSENTROPY,
    THAW_LOSS_CATEGORICAL_CROSSENTROPY, /* one-hot or indices, as the labels are */
    THAW_LOSS_MSE,
    THAW_LOSS_MAE
} thaw_loss;
const char *thaw_loss_name(thaw_loss loss); /* "binary_crossentropy" */

typedef enum thaw_metric { THAW_METRIC_ACCURACY, THAW_METRIC_MSE, THAW_METRIC_MAE, THAW_METRICS } thaw_metric;
const char *thaw_metric_name(thaw_metric metric); /* "accuracy" */

typedef struct thaw_job {
    char *path;   /* of the job file */
    char *folder; /* of the job file: relative paths start here */
    /* model: */
    char *base;         /* built-in name, or a file (expanded path) */
    bool base_is_file;
    char *weights;      /* "imagenet", "none", a file (expanded path), or NULL: the default */
    int64_t input_shape[3]; /* zeros: default */
    int include_top;        /* -1 not given, 0, 1 */
    char *pooling;          /* none | avg | max */
    char *output;           /* last layer kept; NULL: all */
    int n_head;
    thaw_job_layer *head;
    /* data: folders, or arrays */
    char *train, *validation;     /* folders; NULL when arrays */
    char *train_x, *train_y, *validation_x, *validation_y; /* FILE.h5:/dataset */
    double validation_split;      /* 0: none */
    char **class_names;
    int n_class_names;
    char *preprocess;             /* auto | caffe | tf | torch | rescale | none; NULL: not given */
    bool horizontal_flip;
    bool shuffle;
    bool scaled_decoding;         /* JPEG no larger than needed */
    bool skip_bad_images;         /* on_bad_image: skip */
    bool stage_data;              /* node-local: copies on a disk of each host */
    char *stage_folder;           /* stage_dir: expanded; NULL when not given */
    int64_t threads;              /* decoding threads; 0: automatic */
    int64_t prefetch;             /* batches decoded ahead */
    /* training: */
    uint64_t seed;
    int64_t batch_size;
    bool loss_given;
    thaw_loss loss;
    int n_metrics;
    thaw_metric metrics[THAW_METRICS];
    int n_class_weights;          /* class_weight: {name or index: weight} */
    char **class_weight_keys;
    double *class_weights;
    bool reproducible;             /* ranks: bits do not depend on their number */
    int64_t slices;                /* of a batch then; 0: chosen by its size */
    int64_t accumulate;            /* parts of a batch that go through the network one after the other, <= batch_size */
    double watchdog_seconds;       /* without a sign of life of a rank, until the run ends; 0: not watched */
    bool exchange_half;            /* exchange_precision: fp16 */
    int64_t validation_batch_size; /* 0: as a part of a batch */
    /* stages */
    int n_stages;
    thaw_job_stage *stages;
    /* monitor of best.h5 */
    char *monitor, *monitor_mode; /* val_loss (loss without validation data), auto */
    /* checkpoint: */
    int64_t checkpoint_epochs;   /* every N epochs; 0: never */
    double checkpoint_minutes;   /* every M minutes; 0: never */
    int64_t checkpoint_keep;     /* generations kept, >= 2 */
    double checkpoint_before_end; /* seconds between the last checkpoint and the end of the allocation; 0: not looked at */
    /* cache: */
    char *cache_mode;            /* auto | off | memory | file */
    int64_t cache_memory;        /* bytes; 0: a share of what is left */
    char *cache_folder;          /* expanded; NULL when not given */
    int64_t cache_variants;      /* draws of augmentation that an image has; 0: a new one in every epoch */
    bool cache_half;             /* precision: fp16 */
    char *exchange;              /* auto | overlap | mpi */
    char *output_folder;         /* output: expanded; NULL when not given */
} thaw_job;

/* Parses and checks a job file's text (path: for messages and relative paths). `set`: --set key=value texts, dotted keys,
 * e.g. training.batch_size=16 or stages.0.epochs=3. [out] out: owned by the caller.
 * Errors: THAW_USAGE with "PATH:LINE: ..." naming key, what was found, nearest key, and the fix. Does no file access. */
thaw_status thaw_job_parse(thaw_job **out, const char *path, const char *text, const char *const *set, int n_set);
void thaw_job_free(thaw_job *job);
/* The effective job as YAML that parses to the same job (paths absolute); thaw_free. For the run folder and the hash. */
char *thaw_job_text(const thaw_job *job);
/* Hash of what must not change on resume (all but data.threads, data.prefetch, checkpoint.*, exchange, output, and where
 * the cache is: cache.mode, cache.memory, cache.dir). */
uint64_t thaw_job_hash(const thaw_job *job);
/* Names of the keys in which two jobs differ, comma separated, for the refusal of resume; thaw_free. */
char *thaw_job_difference(const thaw_job *a, const thaw_job *b);
/* The manual of every key: type, range, default and help, from the one table of keys. As text (`thaw help job`), or as a
 * Markdown table (jobs/README.md). thaw_free. */
char *thaw_job_manual(bool markdown);
#endif
