/* What a stage will take before it begins: memory of a rank at its peak, and whether its constant front will be cached. All
 * of it follows from shapes, the job and the data; only what the program itself takes is measured. */
#ifndef THAW_TRAIN_ESTIMATE_H
#define THAW_TRAIN_ESTIMATE_H

#include "job/job.h"
#include "thaw/comm.h"
#include "thaw/data.h"
#include "thaw/plan.h"

/* The samples of a job, as far as they are known. */
typedef struct thaw_samples_size {
    bool known;
    bool arrays, flat;        /* flat: without height and width */
    int64_t train, validation; /* samples; 0: none */
    size_t index;             /* bytes of names, labels and order on a rank */
    size_t reading;           /* bytes that reading takes besides the batches */
} thaw_samples_size;
/* [in] validation: may be NULL. Opens the array or decodes the first images. Where samples cannot be read, that part is 0:
 * whoever trains on them says so. */
thaw_samples_size thaw_samples_size_of(const thaw_dataset *train, const thaw_dataset *validation, const thaw_job *job);

/* Bytes of a rank. Blocks that last from the stage's first step to its last, and those that come and go:
 * total = lasting + max(working, file), or what is there between stages if that is more. */
typedef struct thaw_stage_memory {
    size_t program; /* the program and its libraries, without any of the blocks */
    size_t index;
    size_t batches; /* read ahead */
    size_t best;    /* copy of the best weights */
    size_t exchange; /* messages under way */
    size_t common; /* of the plan's weights, packed and optimizer: once on a host, where several ranks are; 0: each has its own */
    int sharers;   /* ranks of a host: each counts with its part of that */
    size_t lasting; /* all of these and the plan's weights, packed, gradients, optimizer, boundary; without what others hold */
    size_t working; /* the plan's prefix, suffix, scratch */
    size_t file;    /* model.h5 on its way to the disk, between steps (rank 0) */
    size_t total;
} thaw_stage_memory;
/* What the program takes besides its blocks: to be asked for while no large block was given back. */
size_t thaw_program_bytes(void);
/* `sharers`: of the `ranks`, those that have weights in common on the host with fewest; 1: none. */
thaw_stage_memory thaw_stage_memory_of(const thaw_plan *plan, const thaw_job *job, int stage, int ranks, int sharers,
                                       const thaw_samples_size *samples, size_t program);
/* Ranks that can have something in common: of the host that has fewest. Collective. */
thaw_status thaw_stage_sharers(int *sharers, thaw_comm *comm);
/* What a rank does not hold of `bytes` that so many have in common. */
size_t thaw_held_by_others(size_t bytes, int sharers);

/* Floats of a copy of all that a stage changes: trained tensors and moving statistics. */
size_t thaw_best_floats(const thaw_plan *plan);
/* Images over all ranks that go through the engine at once: in a training step, in validation. */
int64_t thaw_part_images(const thaw_job *job);
int64_t thaw_validation_images(const thaw_job *job);
/* How ranks sum gradients; and what gradients that are `bytes` as floats are on the wire. */
thaw_exchange_kind thaw_job_exchange(const thaw_job *job);
int64_t thaw_job_wire_bytes(const thaw_job *job, int64_t bytes);
/* Parts of steps whose prefix is run together where nothing is cached; samples 0: not known. */
int thaw_steps_together(const thaw_plan *plan, const thaw_job *job, int64_t samples, int ranks);
/* Their batches are read as one block: blocks that a loader reads ahead, and that its caller holds, for the suffix of those
 * before is run meanwhile. */
int64_t thaw_blocks_ahead(int64_t prefetch, int together);
int thaw_blocks_held(int together);
/* Decoding threads of a rank; `given` 0 chooses. */
int thaw_decoding_threads(int64_t given);
#endif
