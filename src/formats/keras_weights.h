/* Weights of the legacy HDF5 format: groups per layer, in the order of Keras' `layers` list. */
#ifndef THAW_FORMATS_KERAS_WEIGHTS_H
#define THAW_FORMATS_KERAS_WEIGHTS_H

#include "formats/hdf5_read.h"
#include "formats/keras_tree.h"

/* Fills the tensors of a model from the group that has `layer_names`. All names and shapes are checked before memory is
 * allocated. `base_only`: of the base's layers. `by_name`: layers are found by name where all names are there (a file that
 * brought its own configuration), else by position. Errors: THAW_DATA, THAW_RESOURCE. */
thaw_status thaw_keras_weights_read(thaw_model *model, const thaw_h5 *h5, hid_t group, bool base_only, bool by_name);

/* Writes layer_names, and per layer group weight_names and datasets, in the order that the flags imply: what a nested
 * model trains first, then the rest (Keras: trainable_weights + non_trainable_weights). */
thaw_status thaw_keras_weights_write(hid_t group, const thaw_model *model, const thaw_keras_tree *tree,
                                     const bool *trainable);
#endif
