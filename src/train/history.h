/* history.csv: one row an epoch, as Keras' CSVLogger writes it: epoch, then (ours) stage, then learning_rate, loss,
 * metrics, val_loss and val_metrics sorted by name. */
#ifndef THAW_TRAIN_HISTORY_H
#define THAW_TRAIN_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "thaw/status.h"
#include "train/decide.h"
#include "train/loss.h"

typedef struct thaw_history thaw_history;

/* The history of a run folder; a file that is there is continued. Columns come from the objective's metrics.
 * `validation`: with val_ columns. [out] out: owned by the caller. Errors: THAW_RESOURCE. Only rank 0 has one: a NULL
 * history takes no rows, has size 0 and rewinds without effect. */
thaw_status thaw_history_open(thaw_history **out, const char *folder, const thaw_objective *objective, bool validation);
void thaw_history_free(thaw_history *history); /* NULL is accepted */
/* Appends the row of an epoch (from 0, counted over all stages), and the header before the first. Numbers have 9
 * significant digits; a column without value is NA, as in Keras. Errors: THAW_RESOURCE, THAW_CANT_CREATE, THAW_IO; the
 * file then ends with the last whole row. */
thaw_status thaw_history_row(thaw_history *history, int64_t epoch, const char *stage, const thaw_values *values);
/* Bytes written so far: what a checkpoint stores. */
uint64_t thaw_history_size(const thaw_history *history);
/* Drops rows behind `size` bytes: those of epochs after the checkpoint. Errors: THAW_IO. */
thaw_status thaw_history_rewind(thaw_history *history, uint64_t size);
#endif
