/* Freeze specs against a network (DESIGN 4.2). */
#ifndef THAW_GRAPH_FREEZE_H
#define THAW_GRAPH_FREEZE_H

#include "job/freeze_spec.h"
#include "thaw/model.h"

/* Applies `freeze` in order to "all trainable", then `train` (may be NULL) makes layers trainable again. `previous`: flags
 * of the stage before for `keep`, NULL in the first stage (keep then means the file's flags). [out] trainable: one flag a
 * layer. `where`: source for messages ("job.yaml"). Errors: THAW_USAGE naming the nearest layers. */
thaw_status thaw_freeze_resolve(bool *trainable, const thaw_model *model, const thaw_freeze_spec *freeze,
                                const thaw_freeze_spec *train, const bool *previous, const char *where);
/* "frozen 0-14, first trained: 15 block5_conv1" in a static buffer; layers without tensors do not count as trained. */
const char *thaw_freeze_describe(const bool *trainable, const thaw_model *model);
#endif
