/* Arguments of layers as Keras' `config` names them: one table for both directions. */
#ifndef THAW_FORMATS_KERAS_LAYER_CONFIG_H
#define THAW_FORMATS_KERAS_LAYER_CONFIG_H

#include "formats/keras_json.h"
#include "thaw/model.h"

/* Kind of a Keras class name; THAW_LAYER_KINDS if unknown. */
thaw_layer_kind thaw_keras_kind(const char *class_name);

/* Sets layer->config and layer->trainable from `config`. [in] rank: of the layer's (first) input, 0 for an InputLayer.
 * Unknown keys pass when they are null or false. Errors: THAW_DATA naming file, layer, key and value. */
thaw_status thaw_keras_config_to_layer(thaw_layer *layer, const cJSON *config, int rank, const thaw_keras_place *place);
/* Sets the regularizers and initializers of a layer that has its tensors. */
thaw_status thaw_keras_config_to_tensors(thaw_layer *layer, const cJSON *config, const thaw_keras_place *place);
/* Shape of an InputLayer or of `batch_input_shape`, without N; an open dim is -1. [out] rank: 0 if `config` has none. */
thaw_status thaw_keras_input_shape(int64_t shape[3], int *rank, const cJSON *config, const thaw_keras_place *place);

/* The `config` object of a layer in the portable dialect (TF 2.4 and later, Keras 3). [in] name: as the file shows it,
 * rank: of its input. NULL when there is no memory. */
cJSON *thaw_keras_layer_to_config(const thaw_layer *layer, const char *name, bool trainable, int rank);
cJSON *thaw_keras_input_config(const char *name, const int64_t *shape, int rank);
#endif
