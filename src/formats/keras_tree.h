/* A Keras model configuration as a tree of nets: what model_config says about names, nesting and calls.
 *
 * A net is a Sequential or a Functional model; an item is an entry of its `layers`; a call is one use of an item. A
 * Sequential is held like a Functional one: item 0 is its InputLayer (made up where the file has none), the others form a
 * chain. */
#ifndef THAW_FORMATS_KERAS_TREE_H
#define THAW_FORMATS_KERAS_TREE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/model.h"

/* Output of one call of an item of the same net. */
typedef struct thaw_keras_ref {
    int item, call;
} thaw_keras_ref;

typedef struct thaw_keras_call {
    thaw_keras_ref *inputs; /* owned */
    int n_inputs;
    bool inference; /* called with training=False */
    bool dropped;   /* not needed any more (after a cut) */
} thaw_keras_call;

typedef struct thaw_keras_net thaw_keras_net;

typedef struct thaw_keras_item {
    char *name;           /* without path */
    thaw_layer_kind kind; /* of a layer; THAW_LAYER_KINDS for a nested model */
    thaw_keras_net *net;  /* of a nested model */
    const cJSON *config;  /* borrowed from the text's tree; NULL for made-up items */
    int layer;            /* index in the model's layers, -1 if it has none there */
    bool made_up;         /* InputLayer that the file does not have */
    int64_t shape[3];     /* InputLayer: without N, open dims -1; rank 0: unknown */
    int rank;
    thaw_keras_call *calls;
    int n_calls;
} thaw_keras_item;

struct thaw_keras_net {
    char *name;
    bool sequential;
    thaw_keras_item *items;
    int n_items;
    int input; /* item */
    thaw_keras_ref output;
};

typedef struct thaw_keras_tree {
    cJSON *json; /* owns what items borrow; NULL if built from a graph */
    thaw_keras_net *top;
    bool keras3; /* inbound_nodes in the form of Keras 3 */
    int n_items; /* in all nets */
} thaw_keras_tree;

/* Parses the text of model_config. Errors: THAW_DATA. */
thaw_status thaw_keras_tree_parse(thaw_keras_tree *tree, const char *text, const char *file);
void thaw_keras_tree_free(thaw_keras_tree *tree);

/* Building. Arrays grow; indices of new elements are returned, -1 when there is no memory. */
thaw_keras_net *thaw_keras_net_create(const char *name, bool sequential);
int thaw_keras_net_add(thaw_keras_net *net, const char *name, thaw_layer_kind kind);
int thaw_keras_item_call(thaw_keras_item *item, const thaw_keras_ref *inputs, int n_inputs, bool inference);

/* Tree -> graph (keras_config_read.c): adds everything to an empty model and finishes it. Sets item->layer. */
thaw_status thaw_keras_tree_to_model(thaw_model *model, thaw_keras_tree *tree, const char *file);
#endif
