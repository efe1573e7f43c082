/* Training, evaluation and prediction on any number of ranks. */
#ifndef THAW_TRAIN_H
#define THAW_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/comm.h"
#include "thaw/data.h"
#include "thaw/model.h"
#include "thaw/plan.h"
#include "thaw/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct thaw_job;

typedef struct thaw_train_options {
    const char *resume;                /* "auto", "never", or a checkpoint file */
    const volatile sig_atomic_t *stop; /* becomes non-zero: save a checkpoint and end with THAW_STOPPED; may be NULL */
    double end_time;                   /* the allocation ends then, in seconds since 1970: saves and ends with THAW_STOPPED
                                          before; 0: not known. Rank 0's counts */
    void (*result)(const char *text, void *payload); /* receives the run's result text on rank 0; may be NULL */
    void *payload;
} thaw_train_options;

/* Runs a job: all stages, with checkpoints, logs and result files in its output folder. Collective.
 * Errors: every status of DESIGN 4.4, equal on all ranks. */
thaw_status thaw_train(thaw_comm *comm, const struct thaw_job *job, const thaw_train_options *options);

/* The network of a job on all ranks: one rank reads files, the others get bytes. Head appended, weights loaded or
 * initialised. `weights`: false builds the structure alone. Collective. [out] out: owned by the caller. */
thaw_status thaw_job_model(thaw_model **out, thaw_comm *comm, const struct thaw_job *job, bool weights);
/* A model by file or built-in name (evaluate, predict, layers, bench), likewise. `options`: for built-in names.
 * `weights`: "imagenet", "none", a file, or NULL for no memory at all. */
thaw_status thaw_named_model(thaw_model **out, thaw_comm *comm, const char *name, const thaw_builtin_options *options,
                             const char *weights);
/* Looks for an official weight file in $THAW_WEIGHTS, ./weights and ~/.keras/models. [out] path: thaw_free. Errors:
 * THAW_NO_INPUT saying which `thaw fetch` gets it. */
thaw_status thaw_weights_find(char **path, const char *name, bool include_top);

/* Flags and batch norm mode of a stage of a job. [out] trainable, batch_statistics: one flag a layer. `previous`: flags of
 * the stage before, NULL in the first. Errors: THAW_USAGE. */
thaw_status thaw_stage_flags(bool *trainable, bool *batch_statistics, const thaw_model *model,
                             const struct thaw_job *job, int stage, const bool *previous);
/* The plan of a stage when the global batch is divided over `ranks`. together: steps of few images may have their prefix
 * together, which takes memory. */
thaw_status thaw_stage_plan(thaw_plan **out, const thaw_model *model, const struct thaw_job *job, int stage,
                            const bool *trainable, const bool *batch_statistics, int ranks, bool together);
/* The preprocessing that a job or command means: `given` (a mode, "auto" or NULL), the file's note, or the architecture's.
 * Arrays are taken as they are unless it is given. Errors: THAW_USAGE listing the choices for a foreign file. */
thaw_status thaw_preprocess_choose(thaw_preprocess *out, const char *given, const thaw_model *model, bool arrays);

typedef struct thaw_evaluation {
    double loss, metrics[3];
    int n_metrics;
    const char *metric_names[3];
    int64_t images;
    bool has_loss;
} thaw_evaluation;

/* Evaluates a model on class folders or arrays ("FILE.h5:/x" with y in "FILE.h5:/y"). Collective. */
thaw_status thaw_evaluate(thaw_evaluation *out, thaw_comm *comm, thaw_model *model, const char *data,
                          const char *preprocess, int64_t batch_size);

/* Outputs for inputs in order; rank 0 writes `output` (.csv, .jsonl or .h5). `logits`: before a final sigmoid or softmax.
 * Collective. */
thaw_status thaw_predict(thaw_comm *comm, thaw_model *model, const char *const *inputs, int n_inputs, const char *output,
                         const char *preprocess, bool logits, int64_t batch_size);

/* First image of this rank's share of `n` images, and one behind the last: contiguous runs that differ by one at most. */
static inline int64_t thaw_share(int64_t n, int rank, int ranks) { return n * rank / ranks; }

#ifdef __cplusplus
}
#endif
#endif
