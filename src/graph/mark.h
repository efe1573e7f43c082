/* Questions about single nodes that plan and tape share. */
#ifndef THAW_GRAPH_MARK_H
#define THAW_GRAPH_MARK_H

#include "thaw/plan.h"

/* The final activation that is split off behind z: SIGMOID or SOFTMAX of the output node, else LINEAR. */
thaw_activation thaw_model_final(const thaw_model *model);
/* A Dropout that drops while training. */
bool thaw_node_drops(const thaw_model *model, int node);
/* The node whose storage holds this node's output: Flatten, Reshape, linear Activation, a Dropout that does nothing, and an
 * output activation behind z only rename. */
int thaw_node_root(const thaw_model *model, int node, bool training);
/* A ZeroPadding2D that becomes padding of the one valid convolution that reads it, both in the set. */
bool thaw_node_pad_folds(const thaw_model *model, int node, const bool *in_set);
#endif
