/* Parts of building a model that several files of this folder share. */
#ifndef THAW_GRAPH_BUILD_H
#define THAW_GRAPH_BUILD_H

#include "thaw/model.h"

/* Frees what a layer owns (name, arrays, tensors) and leaves it empty. */
void thaw_layer_clear(thaw_layer *layer);
/* Output shape of a call of `layer` on `inputs`, and the tensors that this call wants (shapes, initializers; no memory).
 * [in] layer: the first call also fills in arguments whose default depends on others. [out] tensors: THAW_MAX_TENSORS.
 * Errors: THAW_DATA. */
thaw_status thaw_shape_infer(thaw_layer *layer, const thaw_shape *inputs, int n_inputs, thaw_shape *shape,
                             thaw_tensor *tensors, int *n_tensors);
/* "(224, 224, 3)" in one of four static per-thread buffers. */
const char *thaw_shape_text(const thaw_shape *shape);
/* Keras' order of the layers that `needed` nodes call. [out] order: layer indices, [out] n: how many; head layers last.
 * [out] group: per layer, the first layer of the same top-level nested model, or itself. Errors: THAW_RESOURCE. */
thaw_status thaw_order_layers(const thaw_model *model, int output, const bool *needed, bool reorder, int *order, int *n,
                              int *group);
/* thaw_nearest over all layer names. */
const char *thaw_model_nearest(const thaw_model *model, const char *name);
#endif
