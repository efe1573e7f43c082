/* One pass of a network over samples, in inference form: each rank a contiguous share, in batches. Private to src/train. */
#ifndef THAW_TRAIN_INFERENCE_H
#define THAW_TRAIN_INFERENCE_H

#include "graph/engine.h"
#include "thaw/comm.h"
#include "thaw/data.h"
#include "thaw/plan.h"

typedef struct thaw_inference {
    thaw_plan *plan; /* nothing trained */
    thaw_engine *engine;
    thaw_common *common; /* of the host: weights */
    thaw_host_block constants;
    thaw_loader *loader;
    int64_t n;         /* samples of this rank's share */
    int64_t *samples;  /* n sample numbers, ascending */
    int64_t n_batches;
    int64_t *starts;   /* n_batches+1 places in samples */
} thaw_inference;

/* Sets all up and starts decoding. [in] model, dataset: borrowed until thaw_inference_close, which is to be called after a
 * failure too. `batch_size`: over all ranks. Collective. */
thaw_status thaw_inference_open(thaw_inference *inference, thaw_comm *comm, thaw_model *model, const thaw_dataset *dataset,
                                thaw_preprocess preprocess, int64_t batch_size);
void thaw_inference_close(thaw_inference *inference);
/* The next of n_batches batches and its z (batch->n, outputs), valid until the next call. Not collective. */
thaw_status thaw_inference_next(thaw_inference *inference, thaw_batch *batch, const float **z);
#endif
