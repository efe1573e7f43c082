/* What the engine may call while it runs a tape: its only view of other ranks. `train` binds these to thaw_comm. */
#ifndef THAW_BASE_HOOKS_H
#define THAW_BASE_HOOKS_H
#include <stddef.h>
#include <stdint.h>

#include "base/part.h"

/* The global batch in `total` slices, of which this rank has `count` from `first` on: images [start[i], start[i+1]) of its part
 * of the batch, start[0] = 0. Sums over images are made slice by slice, then over the slices in one order, so that their bits do
 * not depend on who has which. */
typedef struct thaw_slices {
    int total, first, count;
    const int64_t *start; /* count + 1 */
} thaw_slices;

/* Memory that the ranks of a host may have in common, zeroed at first. This rank fills its part; the others have filled theirs
 * before the next run. */
typedef struct thaw_host_block {
    float *floats;
    thaw_part mine;
} thaw_host_block;

typedef struct thaw_hooks {
    void (*poll)(void *payload);                   /* called between operations: progress of the exchange */
    void (*bucket_ready)(void *payload, int bucket); /* the gradients of plan->buckets[bucket] are final here,
                                                         and its weights not read any more in this step */
    /* Elementwise sum over all ranks in place, equal bits everywhere. Called in the same order by all ranks, also by a
     * rank without images. */
    void (*reduce_sum)(void *payload, double *values, size_t count);
    void *payload;
    const thaw_slices *slices; /* of the step; NULL: sums are made rank by rank */
    const thaw_host_block *constants; /* thaw_plan_constants floats for what a stage leaves alone; NULL: the engine has its own */
    const thaw_host_block *packs;     /* thaw_plan_packs floats for packed forms of what is trained; NULL: likewise */
} thaw_hooks; /* any member may be NULL: one rank */
#endif
