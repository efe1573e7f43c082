/* A training run: what all ranks hold while stages, epochs and steps go by. Private to src/train.
 *
 *   run.c         walks stages and epochs, writes the result
 *   open.c        opens everything and checks it before anything is written
 *   stage.c       one stage: plan, engine, flat blocks, optimizer; taken down at its end
 *   epoch.c       steps of an epoch, validation
 *   cache.c       the boundary cache (cache.h)
 *   checkpoint.c  the state as bytes, and back
 *   deadline.c    the end of the allocation: when to save and stop
 *   report.c      what was avoided by freezing; the Keras snippet */
#ifndef THAW_TRAIN_RUN_H
#define THAW_TRAIN_RUN_H

#include "base/text.h"
#include "graph/engine.h"
#include "job/job.h"
#include "thaw/train.h"
#include "train/decide.h"
#include "train/estimate.h"
#include "train/events.h"
#include "train/history.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/update.h"
#include "train/slices.h"

/* Seconds of an epoch by what the rank did. Work is counted with the polls in it, which also add what other ranks sent;
 * wait is what finishing the exchange and agreeing on the step take beside the work. */
typedef struct thaw_phases {
    double input, prefix, suffix, backward, wait, update;
} thaw_phases;

/* What this rank did in an epoch or a stage so far. Plain data, saved in checkpoints. */
typedef struct thaw_tally {
    thaw_phases phases;
    double seconds, validation_seconds; /* of training steps, of validation */
    int64_t steps;
    int64_t exchanged; /* bytes of gradients handed to the exchange */
    int64_t hidden;    /* bytes of these whose sums were there before they were waited for */
    int64_t other;     /* bytes of all other traffic: control words, batch statistics, sums of validation, gathered optimizers */
} thaw_tally;

/* Where the run stands: what is to be done next. Plain data, saved in checkpoints. */
typedef struct thaw_position {
    int64_t stage, epoch, step; /* epoch inside the stage; step inside the epoch */
    int64_t total_epochs;       /* finished or begun, over all stages: keys shuffle and augmentation */
    int64_t total_steps;
    int64_t finished; /* 1: all stages are done */
} thaw_position;

/* When this process has to have saved, in thaw_clock(), and how long the things took that can come before. */
typedef struct thaw_deadline {
    double end;              /* of the allocation, less checkpoint.before_end; 0: none */
    double step, turn, save; /* longest so far: a step; behind an epoch's last step until the next; a checkpoint */
    bool reached;            /* it made the run stop (rank 0) */
} thaw_deadline;

typedef struct thaw_cache thaw_cache;

enum { THAW_CONTROL_WORDS = 5 }; /* that go over the ranks with the sums of a step */

typedef struct thaw_run {
    thaw_comm *comm;
    const thaw_job *job;
    const thaw_train_options *options;
    thaw_model *model;
    thaw_dataset *train, *validation; /* validation may be NULL */
    uint64_t data_hash;
    thaw_preprocess preprocess;
    thaw_objective objective;
    float *class_weight; /* per class, or NULL */
    char *folder;        /* output */
    char *hosts;         /* of all ranks, P texts one behind the other; on rank 0 */
    size_t program;               /* bytes of this process before the run took any */
    bool apart;                   /* too little memory is left for steps that have their prefix together */
    uint64_t program_common;      /* of these, memory in common: MPI's own */
    thaw_samples_size samples;    /* on rank 0, once the data is open */

    thaw_position at;
    thaw_decisions decisions;
    thaw_sums sums; /* of the epoch so far, over all ranks */
    bool *trainable, *previous, *batch_statistics; /* per layer; previous: of the stage before */
    bool has_previous;

    /* Of the stage: */
    thaw_plan *plan;
    thaw_engine *engine;
    thaw_common *common; /* of the host: what the stage leaves alone */
    thaw_host_block constants;
    thaw_hooks hooks;
    thaw_update update;  /* trained parameters, and what follows from them */
    float *gradients;    /* plan->count floats */
    float *earlier; /* the same, with training.accumulate: gradients of the parts of the batch that are done; else NULL */
    bool collecting, fresh; /* the part under way is not the last of its batch; it is the first */
    thaw_cut cut;
    thaw_exchange *exchange;
    thaw_status exchange_status; /* first failure inside a hook */
    thaw_optimizer *optimizer;
    thaw_segment *segments; /* plan->n_tensors */
    char **segment_names;
    bool regularized;
    uint64_t frozen_hash;
    float *best; /* trained tensors and moving statistics of the stage's best epoch; NULL: not kept */
    size_t best_count;
    bool has_best;
    thaw_loader *loader, *validation_loader;
    thaw_cache *cache, *validation_cache; /* kept from stage to stage; NULL: cache.mode off, no validation */
    int64_t *order, *mine, *starts; /* of a pass over the larger dataset: n, n, batches+1 entries */
    int64_t *blocks;                /* like starts: of batches whose prefix is run together */
    thaw_tally epoch_tally, stage_tally;
    thaw_stage_memory memory; /* estimated, on rank 0 */
    uint64_t peak; /* bytes that were resident at most on any rank, since the start of the process; what the ranks of a host
                      have in common counts by parts */
    uint64_t own_peak, resident; /* the same of this rank; as the system says it, with all of what is in common */

    /* State of an optimizer that waits for its stage (resume, keep_state), packed by tensor name. */
    thaw_buffer carried;

    thaw_history *history;
    thaw_events *events;
    uint64_t history_size, events_size; /* at the checkpoint that was loaded; 0 without */
    bool recording;                     /* the log has this process' "start" */
    double started, last_checkpoint, last_progress;
    thaw_deadline deadline;
} thaw_run;

/* open.c */
/* Model, data, objective, output folder and logs; nothing is written before all of the job has been checked. Collective. */
thaw_status thaw_run_open(thaw_run *run);
void thaw_run_close(thaw_run *run); /* also after a failure. Collective. */

/* stage.c */
/* Bytes of a rank against the memory of this host, on which several ranks may run. THAW_RESOURCE. */
thaw_status thaw_memory_fits(size_t bytes, const thaw_comm *comm, const char *what);
/* How samples are read for epochs of the stage, when nothing is cached. */
thaw_loader_options thaw_stage_loader_options(const thaw_run *run, bool validation);
/* Makes room for a plan's constants. [out] constants: for hooks; the block is common's. Collective. */
thaw_status thaw_stage_constants(thaw_common **common, thaw_host_block *constants, const thaw_plan *plan, thaw_comm *comm);
/* The most that this rank has had, in bytes like run->peak. */
uint64_t thaw_stage_own_peak(const thaw_run *run);
/* Takes the largest peak of all ranks' resident sets into run->peak. Collective. */
thaw_status thaw_stage_measure(thaw_run *run);
/* Parts of batches whose prefix is run together. */
int thaw_stage_together(const thaw_run *run);
/* Loaders of the stage, instead of those that are there: labels alone where the cache has the rest. Collective. */
thaw_status thaw_stage_make_loaders(thaw_run *run);
thaw_status thaw_stage_begin(thaw_run *run); /* for run->at.stage; takes in run->carried on resume. Collective. */
thaw_status thaw_stage_end(thaw_run *run);   /* verifies, reports, takes down. Collective. */
void thaw_stage_release(thaw_run *run);      /* takes down without a word. Collective (frees blocks). */
/* Compares hashes of weights over ranks and of frozen tensors with the start of the stage, and logs "verify". Errors:
 * THAW_REPLICAS. Collective. */
thaw_status thaw_stage_verify(thaw_run *run, bool stage_end);
/* Moves sums of the step on that are under way; never waits. */
bool thaw_stage_poll(void *run);
/* Trained tensors hold numbers, else THAW_DIVERGED. Equal on all ranks. */
thaw_status thaw_stage_finite(const thaw_run *run);
/* Floats of the best-weights copy, and copying from / to the model. */
size_t thaw_stage_best_count(const thaw_run *run);
void thaw_stage_best_save(thaw_run *run);
void thaw_stage_best_restore(thaw_run *run);

/* epoch.c */
/* Steps from run->at.step to the end of the epoch. *stopped: a checkpoint was written on request. Collective. */
thaw_status thaw_epoch_train(thaw_run *run, bool *stopped);
/* One pass over the validation data: sums over all ranks. Collective. */
thaw_status thaw_epoch_validate(thaw_run *run, thaw_sums *sums);
int64_t thaw_batches(int64_t samples, int64_t size); /* a short last one counts */

/* checkpoint.c */
/* Writes the state; rank 0 does the work, the status is agreed. Collective. */
thaw_status thaw_checkpoint_save(thaw_run *run);
/* Finds the newest valid checkpoint (or the given file) and takes it in. *found false: there is none. THAW_MISMATCH if job
 * or data changed. Files of the run folder stay as they are. Collective. */
thaw_status thaw_checkpoint_load(thaw_run *run, bool *found);
/* Optimizer state by tensor name into / from run->carried. */
void thaw_optimizer_pack(thaw_buffer *out, const thaw_run *run);
thaw_status thaw_optimizer_unpack(thaw_run *run, const thaw_buffer *from, bool rates);

/* deadline.c */
void thaw_deadline_open(thaw_run *run); /* from options->end_time, with a word to the user */
/* This rank has to stop: a signal, or on rank 0 no time for what comes before the next question. `step`: the next one of the
 * epoch. Ranks may differ, so what they say is reduced before anybody acts. */
bool thaw_stop_wanted(thaw_run *run, int64_t step);

/* report.c */
const char *thaw_bytes_text(double bytes, char text[32]); /* "1.23 MB" */
void thaw_report_stage(const thaw_run *run);
/* "each image has 8 draws, used 2.5 times in 20 epochs" of this stage; NULL: every epoch draws anew. thaw_free. */
char *thaw_report_draws(const thaw_run *run);
/* Text that loads this model in Keras, with its preprocessing and class names. thaw_free. */
char *thaw_report_snippet(const thaw_run *run);
void thaw_report_plan(const thaw_run *run); /* frozen layers, boundary, bytes: at the start of a stage */
#endif
