/* Graph -> model_config in the portable dialect. */
#ifndef THAW_FORMATS_KERAS_CONFIG_WRITE_H
#define THAW_FORMATS_KERAS_CONFIG_WRITE_H

#include "formats/keras_tree.h"

/* The tree to write a model by: of the file that it came from where models are nested (names and nesting survive a cut
 * and a new head), else of the graph. Every item that is written has its `layer`. */
thaw_status thaw_keras_tree_of_model(thaw_keras_tree *tree, const thaw_model *model);

/* Text of model_config. `keras3`: where no encoding serves all versions (a Functional inside a Functional), that of
 * Keras 3, else that of Keras 2. [out] text: thaw_free. */
thaw_status thaw_keras_tree_print(char **text, const thaw_keras_tree *tree, const thaw_model *model, const bool *trainable,
                                  bool keras3);
#endif
