/* The plan: one immutable object that answers every question about freezing.
 *
 * Compiled from a request (model, trainable flags, batch norm mode, largest batch). Two marks on each node decide all:
 * `needs_grad` (a trainable tensor lies upstream or here) and `varies` (a random draw or a batch statistic lies upstream
 * or here). Nodes with neither are the prefix; the rest is the suffix; the boundary is every tensor that crosses.
 *
 *      x -> [ prefix tape: folded, inference form ] -> boundary slots -> [ suffix tape: training form + backward ] -> z
 *                                                                    \-> [ suffix tape: inference form ] -----------> z
 *
 * z is the network's output before a final sigmoid or softmax (plan->final). */
#ifndef THAW_PLAN_H
#define THAW_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/comm.h"
#include "thaw/model.h"
#include "thaw/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct thaw_plan_request {
    const thaw_model *model;      /* borrowed; must outlive the plan; weights are not needed */
    const bool *trainable;        /* per layer; NULL: nothing is trained, all is one prefix (evaluate, predict) */
    const bool *batch_statistics; /* per layer: a trainable BatchNormalization normalises with batch statistics; NULL: none */
    int64_t max_batch;            /* images in one run of a tape on this rank, >= 1 */
    int64_t step_images;          /* in a training step, whose prefix may run with those of later steps; 0: it does not */
    int optimizer_slots;          /* floats per trainable parameter beside itself and its gradient */
    int slices;                   /* of the global batch, whose sums are made one by one; 0, 1: none */
} thaw_plan_request;

/* A trainable tensor and its place in the flat blocks (parameters, gradients, optimizer slots). */
typedef struct thaw_plan_tensor {
    int layer, tensor;
    size_t offset, count; /* floats */
} thaw_plan_tensor;

/* Bytes of one rank by what holds them, for the largest batch. */
typedef struct thaw_plan_memory {
    size_t weights, packed, gradients, optimizer, prefix, boundary, suffix, scratch, input;
    size_t constants; /* of weights and packed: what a stage leaves alone */
    size_t updated;   /* of weights, packed and optimizer: what an update changes; 0: so little that each rank updates its own
                       * copy, and none waits for another. The ranks of a host may have both in common */
} thaw_plan_memory;

struct thaw_tape;

typedef struct thaw_plan {
    const thaw_model *model;
    int64_t max_batch;
    int slices;             /* at least 1 */
    /* Steps of few images have their prefix in one run of several, for a packed kernel that comes from memory is used by all
     * images that are there. No bit changes. */
    int together;           /* steps in a run of the prefix; with more than one, boundary slots have room for the next run */
    int64_t block_images;   /* of these steps; 0 with one */
    int64_t prefix_images;  /* of the largest run of the prefix: max_batch, or those */
    int64_t prefix_batch;   /* images that an operation of it takes at once, at most: activations stay small */
    bool *trainable;        /* per layer */
    bool *batch_statistics; /* per layer, as in force: trainable BN with batch statistics */
    bool *needs_grad;       /* per node */
    bool *varies;           /* per node */
    bool *prefix;           /* per node: neither mark */
    int n_boundary;
    int *boundary; /* node indices that cross from prefix to suffix, ascending */

    /* Flat blocks: tensors in the order in which backward completes them. */
    int n_tensors;
    thaw_plan_tensor *tensors;
    size_t count; /* floats of a flat block, pads for alignment included */
    int n_buckets;
    thaw_bucket *buckets; /* contiguous, in order of completion */

    thaw_activation final; /* SIGMOID or SOFTMAX applied behind z, else LINEAR */
    int64_t outputs;       /* values of z per image */

    /* Figures. Bytes are of payload: 4 a trainable parameter. FLOP per image, a multiply-add is 2. */
    int64_t total_params, trainable_params, frozen_params;
    int64_t gradient_bytes, full_gradient_bytes; /* were nothing frozen */
    double forward_flop, prefix_flop, backward_flop, full_backward_flop;
    thaw_plan_memory memory;
    size_t memory_bytes;

    struct thaw_tape *tape_prefix, *tape_train, *tape_infer; /* private to src/graph */
} thaw_plan;

/* Compiles a plan. [out] out: owned by the caller. Errors: THAW_USAGE if flags are given and none trains a tensor
 * (proposes "[:-1]"), THAW_RESOURCE. Not collective; equal requests give equal plans. */
thaw_status thaw_plan_compile(thaw_plan **out, const thaw_plan_request *request);
void thaw_plan_free(thaw_plan *plan); /* NULL is accepted */
/* Hash over everything that ranks must agree on (flags, order of tensors, buckets, boundary). */
uint64_t thaw_plan_hash(const thaw_plan *plan);

/* Floats of what a stage leaves alone (thaw_host_block of base/hooks.h): packed forms and large frozen tensors. */
size_t thaw_plan_constants(const thaw_plan *plan);
/* Floats of packed forms that are made again after each update. */
size_t thaw_plan_packs(const thaw_plan *plan);
/* Floats of one image that cross from prefix to suffix. */
int64_t thaw_plan_boundary_floats(const thaw_plan *plan);
/* The suffix reads nothing but the boundary, so that a boundary kept from before stands for the image. */
bool thaw_plan_boundary_suffices(const thaw_plan *plan);
/* Hash of what decides the boundary's values for an image: operations, their order and arguments, weights (which the
 * model must hold). Names do not count. */
uint64_t thaw_plan_prefix_hash(const thaw_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
