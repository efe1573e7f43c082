/* What an update changes: trained parameters, the optimizer's slots, packed forms of kernels. The ranks of a host have one copy
 * in common where that saves something (plan->memory.updated) and there is room, and each updates its part of it, between
 * meetings of all; else no rank waits for another. Private to src/train and src/app. */
#ifndef THAW_TRAIN_UPDATE_H
#define THAW_TRAIN_UPDATE_H

#include "graph/engine.h"
#include "thaw/comm.h"
#include "train/optimizer.h"

typedef struct thaw_update {
    thaw_comm *comm;
    thaw_common *common;   /* NULL: this rank has all for itself */
    thaw_part mine;
    float *parameters;     /* plan->count */
    float *slots;          /* for thaw_optimizer_create */
    thaw_host_block packs; /* for the engine's hooks; floats NULL: it has its own */
    bool owned;            /* each rank updates what it owns of the sums, inside of the exchange, with these: */
    thaw_optimizer *optimizer;
    const thaw_segment *segments;
    int n_segments;
    bool bad;              /* and has met a gradient that is not finite */
    double waited;         /* seconds of the last step in which other ranks of the host were waited for */
} thaw_update;

/* How a rank of a host sees a block. */
thaw_host_block thaw_host_block_of(const thaw_common *common);
/* Makes room. `share`: in common, if that can be. Collective. Errors: THAW_RESOURCE. */
thaw_status thaw_update_create(thaw_update *update, const thaw_plan *plan, thaw_comm *comm, bool share);
void thaw_update_free(thaw_update *update);
/* Divides the updates among ranks, where that can be: the owner of sums updates their parameters, and ranks exchange weights
 * instead of sums (P. Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, its first stage). Not with clipping, whose norms
 * want all gradients first, and regularizers, whose loss is of the old weights, nor with weights in common memory, which ranks
 * of a host divide behind the exchange. The same bits. All are borrowed. Collective, before the first step. */
thaw_status thaw_update_divide(thaw_update *update, thaw_exchange *exchange, thaw_optimizer *optimizer,
                               const thaw_segment *segments, int n_segments);
/* Brings the optimizer's slots to all ranks, if they are divided among hosts; bytes that this took. Collective. */
int64_t thaw_update_gather(const thaw_update *update, thaw_exchange *exchange);

/* One step on gradients that are equal on all ranks. Ranks of a host call it at the same time. Whether all gradients were
 * finite, equal on all ranks; the weights are of no use if not. With `owned` true, and `bad` where it is known. */
bool thaw_update_step(thaw_update *update, thaw_engine *engine, thaw_optimizer *optimizer, float *gradients,
                      const thaw_segment *segments, int n_segments);
/* Parameters are about to be written, by each rank of the host with equal values; they have been. */
void thaw_update_begin(thaw_update *update);
void thaw_update_end(thaw_update *update, thaw_engine *engine);
#endif
