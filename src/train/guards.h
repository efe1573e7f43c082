/* Warnings for what beginners of fine-tuning often get wrong: one line each through thaw_warn, nothing is changed. */
#ifndef THAW_TRAIN_GUARDS_H
#define THAW_TRAIN_GUARDS_H

#include <stdbool.h>

#include "job/job.h"
#include "thaw/data.h"
#include "thaw/model.h"

/* A stage before it begins. [in] trainable, before: one flag a layer, of this stage and the one before (NULL: it is the
 * first); touched: the layer came from a file or was trained in an earlier stage. Warns when
 * - pretrained layers train together with layers that still hold their initial random values;
 * - pretrained layers are unfrozen with the optimizer of the stage before and a learning rate that is not lower. */
void thaw_guard_stage(const thaw_model *model, const thaw_job *job, int stage, const bool *trainable, const bool *before,
                      const bool *touched);

/* Warns when pretrained weights get pixels prepared in another way than they were trained with: what the file notes, else
 * what the architecture's preprocess_input does. To be called before the notes are replaced by the run's own. */
void thaw_guard_preprocess(const thaw_model *model, thaw_preprocess preprocess);
#endif
