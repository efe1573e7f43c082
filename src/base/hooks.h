/* What the engine may call while it runs a tape: its only view of other ranks. `train` binds these to thaw_comm. */
#ifndef THAW_BASE_HOOKS_H
#define THAW_BASE_HOOKS_H
#include <stddef.h>

typedef struct thaw_hooks {
    void (*poll)(void *payload);                   /* called between operations: progress of the exchange */
    void (*bucket_ready)(void *payload, int bucket); /* the gradients of plan->buckets[bucket] are final here */
    /* Elementwise sum over all ranks in place, equal bits everywhere. Called in the same order by all ranks, also by a
     * rank without images. */
    void (*reduce_sum)(void *payload, double *values, size_t count);
    void *payload;
} thaw_hooks; /* any member may be NULL: one rank */
#endif
