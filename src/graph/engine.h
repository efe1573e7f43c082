/* The engine: runs a plan's tapes. Knows nothing of ranks but the hooks. */
#ifndef THAW_GRAPH_ENGINE_H
#define THAW_GRAPH_ENGINE_H

#include "base/hooks.h"
#include "thaw/plan.h"

typedef struct thaw_engine thaw_engine;

/* Allocates all memory a run needs and makes the packed weights. With hooks->constants large frozen tensors and packed forms that
 * stay lie there until the engine is freed, and this rank makes its part of them: no run, hash or free of a model before all
 * ranks have. Trained tensors move into `parameters` (their data pointers are set there) until the engine is freed. [in] plan,
 * model (the plan's), hooks, parameters and gradients (plan->count floats each, 64-byte aligned; NULL when nothing is trained):
 * borrowed. Errors: THAW_RESOURCE. */
thaw_status thaw_engine_create(thaw_engine **out, const thaw_plan *plan, thaw_model *model, const thaw_hooks *hooks,
                               float *parameters, float *gradients);
/* Copies trained tensors home, gives everything back. NULL is accepted. */
void thaw_engine_free(thaw_engine *engine);

/* What the random operations of a step draw from (counter, not state). */
typedef struct thaw_draws {
    uint64_t seed;
    uint32_t epoch;         /* counted over all stages */
    const int64_t *samples; /* global sample number of each image */
} thaw_draws;

/* Prefix on n images x (n,H,W,C); fills the boundary slots. x must stay until the suffix has run. */
void thaw_engine_prefix(thaw_engine *engine, int64_t n, const float *x);
/* The same little by little, while steps go on with the images before: begin; run, as often as the caller likes, until a share in
 * [0, 1] of all is done, which stays so; turn, when it is all done: from then on the suffix is of these images. Until then their
 * boundary lies apart, if the plan runs steps together; else no step comes between begin and turn. */
void thaw_engine_prefix_begin(thaw_engine *engine, int64_t n, const float *x);
void thaw_engine_prefix_run(thaw_engine *engine, double share);
void thaw_engine_prefix_turn(thaw_engine *engine);
/* Gives the memory of activations back to the system until the next run, which makes them anew: for whoever needs memory
 * between two steps. The slots stay; a prefix that is under way is lost. */
void thaw_engine_rest(thaw_engine *engine);
/* Slot of plan->boundary[i], until the next turn: (plan->prefix_images, floats of that node). What was kept of a prefix run may
 * be put there instead of running it again, if thaw_plan_boundary_suffices. */
float *thaw_engine_slot(const thaw_engine *engine, int i);
/* Suffix in training form on images [first, first+n) of the slots. Returns z (n,outputs), valid until the next forward.
 * Collective through hooks when batch statistics are used; n may be 0. */
const float *thaw_engine_forward(thaw_engine *engine, int64_t first, int64_t n, const thaw_draws *draws);
/* Where dz (n,outputs) of the last forward is to be written. */
float *thaw_engine_output_gradient(thaw_engine *engine);
/* Backward of the last forward: overwrites the whole gradient block, announcing buckets through hooks->bucket_ready. */
void thaw_engine_backward(thaw_engine *engine);
/* Moving statistics take in the batch statistics of the last forward (Keras: moving*m + batch*(1-m)). */
void thaw_engine_update_statistics(thaw_engine *engine);
/* Makes packed weights again that depend on trained tensors; after every update. */
void thaw_engine_refresh(thaw_engine *engine);
/* Suffix in inference form on the first n images of the slots. Returns z (n,outputs), valid until the next run. */
const float *thaw_engine_infer(thaw_engine *engine, int64_t n);
/* Hash of all frozen tensors and of the packed forms that depend on frozen tensors alone. */
uint64_t thaw_engine_frozen_hash(const thaw_engine *engine);
/* Hash of what this stage changes: trained tensors and moving statistics. */
uint64_t thaw_engine_trained_hash(const thaw_engine *engine);
#endif
