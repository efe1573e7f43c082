/* The index of the data on all ranks: read by rank 0, sent to the others, checked by all. Private to src/train. */
#ifndef THAW_TRAIN_SAMPLES_H
#define THAW_TRAIN_SAMPLES_H

#include "thaw/comm.h"
#include "thaw/data.h"
#include "thaw/model.h"

/* "FILE.h5:/dataset", else a file or folder of images. */
bool thaw_samples_are_arrays(const char *input);
/* Gives every rank the dataset of rank 0 (or its failure: `mine`, which other ranks bring as THAW_OK). On failure *dataset
 * is freed and NULL. Collective. */
thaw_status thaw_samples_share(thaw_dataset **dataset, thaw_comm *comm, thaw_status mine);
/* Arrays must have the shape that the network takes (THAW_DATA); images are resized to it. Not collective, equal on all
 * ranks. */
thaw_status thaw_samples_fit(const thaw_dataset *dataset, const thaw_model *model);
/* dataset->content for arrays, whose rows are read once more; images have it from thaw_samples_check. Collective. */
thaw_status thaw_samples_content(thaw_dataset *dataset, thaw_comm *comm);
/* Decodes every image once, each rank its share of them. One that cannot be decoded is THAW_DATA with its name, or with
 * `skip` it is dropped from everybody's index with a warning. Then every rank compares a few samples with rank 0's (arrays
 * too): THAW_MISMATCH. Collective. */
thaw_status thaw_samples_check(thaw_dataset *dataset, thaw_comm *comm, bool skip);
/* data.stage_data: copies the samples to a folder for temporary files of each host, by all its ranks. NULL: $TMPDIR, else
 * /tmp. Collective. Errors: those of thaw_dataset_stage_images. */
thaw_status thaw_samples_stage(thaw_dataset *dataset, thaw_comm *comm, const char *parent);
#endif
