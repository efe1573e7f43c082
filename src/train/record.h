/* What the run writes to log.jsonl, besides "verify" (DESIGN 4.3). On rank 0; others have no log and write nothing. */
#ifndef THAW_TRAIN_RECORD_H
#define THAW_TRAIN_RECORD_H

#include "train/run.h"

/* Who computes what with which program. `resumed`: the run goes on behind a checkpoint. */
thaw_status thaw_record_start(const thaw_run *run, bool resumed);
/* The stage that has just begun: its plan in numbers, its layers. */
thaw_status thaw_record_stage(const thaw_run *run);
/* The epoch that has just ended: values, bytes, seconds by phase, and what freezing avoided. */
thaw_status thaw_record_epoch(const thaw_run *run, const thaw_values *values);
/* The memory of the stage that ends: estimated, and the peak of the run so far. */
thaw_status thaw_record_memory(const thaw_run *run);
/* The last line. A failure to write it is not reported: the run's own status matters more. */
void thaw_record_end(const thaw_run *run, thaw_status status);
#endif
