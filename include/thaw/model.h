/* A network as thaw holds it: layers own tensors, nodes are calls of layers.
 *
 * Letters: N images, H height, W width, C channels; kh kw kernel; Cin Cout channels in and out. Activations are NHWC,
 * convolution kernels HWIO (kh,kw,Cin,Cout), dense kernels (in,units). All dims are without N. */
#ifndef THAW_MODEL_H
#define THAW_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define THAW_MAX_RANK 4    /* of a weight tensor */
#define THAW_MAX_TENSORS 4 /* of a layer */

/* Layer kinds and their Keras class names. */
#define THAW_LAYER_LIST(X)                                \
    X(INPUT, "InputLayer")                                \
    X(CONV2D, "Conv2D")                                   \
    X(MAX_POOLING, "MaxPooling2D")                        \
    X(AVERAGE_POOLING, "AveragePooling2D")                \
    X(GLOBAL_AVERAGE_POOLING, "GlobalAveragePooling2D")   \
    X(GLOBAL_MAX_POOLING, "GlobalMaxPooling2D")           \
    X(FLATTEN, "Flatten")                                 \
    X(RESHAPE, "Reshape")                                 \
    X(DENSE, "Dense")                                     \
    X(BATCH_NORMALIZATION, "BatchNormalization")          \
    X(ZERO_PADDING, "ZeroPadding2D")                      \
    X(ADD, "Add")                                         \
    X(CONCATENATE, "Concatenate")                         \
    X(DROPOUT, "Dropout")                                 \
    X(ACTIVATION, "Activation")                           \
    X(RELU, "ReLU")                                       \
    X(SOFTMAX, "Softmax")                                 \
    X(RESCALING, "Rescaling")

typedef enum thaw_layer_kind {
#define THAW_LAYER_ENUM(name, keras) THAW_LAYER_##name,
    THAW_LAYER_LIST(THAW_LAYER_ENUM)
#undef THAW_LAYER_ENUM
        THAW_LAYER_KINDS
} thaw_layer_kind;

/* Activations and their Keras names. */
#define THAW_ACTIVATION_LIST(X) \
    X(LINEAR, "linear")         \
    X(RELU, "relu")             \
    X(RELU6, "relu6")           \
    X(ELU, "elu")               \
    X(TANH, "tanh")             \
    X(SIGMOID, "sigmoid")       \
    X(SOFTMAX, "softmax")       \
    X(SWISH, "swish")

typedef enum thaw_activation {
#define THAW_ACTIVATION_ENUM(name, keras) THAW_ACTIVATION_##name,
    THAW_ACTIVATION_LIST(THAW_ACTIVATION_ENUM)
#undef THAW_ACTIVATION_ENUM
        THAW_ACTIVATIONS
} thaw_activation;

/* Initial values of a tensor that no file gives (Keras' VarianceScaling family and constants). */
typedef enum thaw_initializer {
    THAW_INIT_GLOROT_UNIFORM,
    THAW_INIT_GLOROT_NORMAL, /* truncated normal */
    THAW_INIT_HE_UNIFORM,
    THAW_INIT_HE_NORMAL, /* truncated normal */
    THAW_INIT_LECUN_UNIFORM,
    THAW_INIT_LECUN_NORMAL,
    THAW_INIT_RANDOM_NORMAL,    /* stddev a */
    THAW_INIT_TRUNCATED_NORMAL, /* stddev a */
    THAW_INIT_RANDOM_UNIFORM,   /* [a, b) */
    THAW_INIT_CONSTANT          /* a */
} thaw_initializer;

/* A weight tensor of a layer. */
typedef struct thaw_tensor {
    const char *name; /* static: kernel, bias, gamma, beta, moving_mean, moving_variance */
    int rank;
    int64_t shape[THAW_MAX_RANK];
    size_t count;   /* product of shape */
    float *data;    /* count floats; NULL until thaw_model_allocate; may point into a flat block during a stage */
    float *home;    /* the model's own storage of `data` */
    bool statistic; /* moving mean or variance: no gradient, not trainable */
    bool loaded;    /* came from a file (pretrained), not from the initializer */
    float l1, l2;   /* regularizer: l1*sum|w| + l2*sum(w^2) */
    thaw_initializer initializer;
    float init_a, init_b;
} thaw_tensor;

/* Arguments of a layer, those of its kind are set. */
typedef struct thaw_layer_config {
    int64_t kernel[2], strides[2], dilation[2]; /* conv; kernel = pool size for pooling */
    bool same;                                  /* padding "same", else "valid" */
    int64_t filters;                            /* Conv2D filters, Dense units */
    bool use_bias;
    thaw_activation activation; /* Conv2D, Dense, Activation, Softmax kinds */
    int64_t pad[4];             /* ZeroPadding2D: top bottom left right */
    float momentum, epsilon;    /* BatchNormalization */
    bool center, scale;
    float rate;                                 /* Dropout */
    int64_t seed;                               /* Dropout; -1 none */
    float max_value, negative_slope, threshold; /* ReLU; max_value = INFINITY when null */
    float *rescale, *offset;                    /* Rescaling: per channel, n_rescale entries each (1 or C); owned */
    int n_rescale;
    int64_t target[3]; /* Reshape and InputLayer: shape without N (H,W,C), unused dims 0 */
    int target_rank;
    bool keepdims; /* global pooling */
} thaw_layer_config;

typedef struct thaw_layer {
    char *name; /* path name, unique: "block5_conv1", or "vgg16/block5_conv1" in a nested model */
    thaw_layer_kind kind;
    thaw_layer_config config;
    bool trainable;      /* flag as stored in the file; a stage's plan has its own */
    bool head;           /* appended by `head:` of the job */
    bool listed;         /* in Keras' `layers` list (a Sequential model hides its InputLayer) */
    int list_index;      /* position in Keras' top-level `layers` list; all layers of a nested model share one; -1 if
                            not listed */
    int n_tensors;       /* tensors in Keras' natural order: kernel, bias / gamma, beta, moving_mean, moving_variance */
    thaw_tensor tensors[THAW_MAX_TENSORS];
} thaw_layer;

/* Shape of an activation without N: rank 3 (H,W,C) or rank 1 (units). */
typedef struct thaw_shape {
    int rank;
    int64_t dim[3];
} thaw_shape;

typedef struct thaw_node {
    int layer;
    int n_inputs;
    int *inputs; /* node indices, all smaller than this node's; owned */
    thaw_shape shape;
    bool inference; /* called with training=False: dropout off, batch norm by moving statistics */
} thaw_node;

/* What a file says about how its network was trained and is to be used. */
typedef struct thaw_model_notes {
    char *preprocess;   /* caffe | tf | torch | rescale | none; NULL if unknown */
    char **class_names; /* n_classes names in order of the outputs; NULL if unknown */
    int n_classes;
    char *loss;    /* NULL if unknown */
    char *metrics; /* comma separated, NULL if unknown */
} thaw_model_notes;

typedef struct thaw_model {
    char *name;    /* Keras model name */
    char *origin;  /* where it came from, for messages: file path or built-in name */
    char *family;  /* built-in architecture name (vgg16, ...) if known, else NULL */
    bool sequential;
    bool nested;           /* holds nested models (layer names with '/') */
    bool changed;          /* structure differs from `source_config` (output cut or head added) */
    char *source_config;   /* model_config JSON text of the file it was read from; NULL for built-ins */
    char *keras_version;   /* of the source file; NULL for built-ins */
    int n_layers, n_nodes;
    thaw_layer *layers; /* Keras order: base first, then head */
    thaw_node *nodes;   /* topological order */
    int input, output;  /* node indices */
    int n_base_layers;  /* layers of the base; the rest is the head */
    int layer_capacity, node_capacity; /* elements that the arrays have room for; 0 is fine for arrays of exact size */
    thaw_model_notes notes;
} thaw_model;

/* Lifetime and building (src/graph). */
thaw_status thaw_model_create(thaw_model **out, const char *name); /* empty model, owned by the caller */
void thaw_model_free(thaw_model *model);                           /* NULL is accepted */

/* A layer with Keras' default arguments for its kind (strides 1, valid, bias, momentum .99, epsilon 1e-3, glorot_uniform
 * ...); `name` is copied. Strides of 0, the default of pooling, mean the pool size; thaw_model_add puts it in their place,
 * and a scale of 1 and offset of 0 in the place of NULL. Without a default are Conv2D's kernel and filters, Dense's units
 * and the target of Reshape and InputLayer. [out] layer: to be adjusted and given to thaw_model_add, which takes over what
 * it owns. */
void thaw_layer_default(thaw_layer *layer, thaw_layer_kind kind, const char *name);

/* Adds a layer and its first call on `inputs` (node indices). Infers the output shape by Keras' rules, creates the tensors'
 * shapes (no memory). A model has one InputLayer, which has no inputs. [in] layer: contents are taken over, also on
 * failure. [out] node: index of the new node. Regularizers and initializers are set with thaw_layer_tensor afterwards or
 * kept at their defaults. Every argument may come from a hostile file.
 * Errors: THAW_DATA with layer name and what was found (wrong rank, empty map, channel mismatch, duplicate name, argument
 * out of range), THAW_RESOURCE. */
thaw_status thaw_model_add(thaw_model *model, thaw_layer *layer, const int *inputs, int n_inputs, int *node);
/* One more call of an existing layer (weight sharing). */
thaw_status thaw_model_call(thaw_model *model, int layer, const int *inputs, int n_inputs, int *node);

/* Fixes the output node, drops what it does not need, and sets order and list indices. `reorder`: bring layers into the
 * order of Keras' Functional models (reference: Function._build_map), else keep the order of addition. Head layers come
 * last either way. With model->nested (set it before) the parts of names before '/' are nested models: each is ordered as
 * one layer, and its layers within it. Node indices change where nodes are dropped. May be called again after more layers
 * were added to model->output. */
thaw_status thaw_model_finish(thaw_model *model, int output, bool reorder);

/* Cuts the model behind layer or nested model `name` (its last call becomes the output); layers that the new output does
 * not need are dropped, and so are the notes that speak of the old output (class names, loss, metrics). Errors: THAW_USAGE
 * naming the nearest layers. */
thaw_status thaw_model_cut(thaw_model *model, const char *name);

/* Tensor of a layer by name ("kernel"), NULL if it has none. Borrowed. */
thaw_tensor *thaw_layer_tensor(thaw_layer *layer, const char *name);
/* Index of the layer with this path name, or with this last path component if that is unique; -1 if none. */
int thaw_model_find(const thaw_model *model, const char *name);
const char *thaw_layer_class(thaw_layer_kind kind);             /* "Conv2D" */
const char *thaw_activation_name(thaw_activation activation);   /* "relu" */
bool thaw_activation_parse(thaw_activation *out, const char *name); /* accepts silu for swish; false if unknown */
int64_t thaw_shape_count(const thaw_shape *shape);              /* elements of one image */

/* Allocates all tensors that have no memory yet, zeroed. Errors: THAW_RESOURCE. */
thaw_status thaw_model_allocate(thaw_model *model);
/* Gives every allocated tensor that is not `loaded` its initial values: Philox(seed, hash of layer and tensor name; element). The
 * normals are Box-Muller's, truncated ones drawn again beyond two standard deviations (Keras: VarianceScaling). */
void thaw_model_initialize(thaw_model *model, uint64_t seed);
/* Parameters as Keras counts them. Any out pointer may be NULL. `trainable`: one flag per layer, NULL for the stored
 * flags; a trainable BatchNormalization still has non-trainable moving statistics. */
void thaw_model_count(const thaw_model *model, const bool *trainable, int64_t *total, int64_t *trainable_params,
                      int64_t *frozen_params);

/* Built-in architectures (src/models). */
typedef struct thaw_builtin_options {
    bool include_top;
    int64_t input_shape[3]; /* H W C; zeros: the architecture's default */
    const char *pooling;    /* none | avg | max */
} thaw_builtin_options;

bool thaw_builtin_known(const char *name); /* vgg16 vgg19 resnet50 inceptionv3 (also inception_v3) */
/* Builds the graph with Keras' layer names; no memory for weights. Errors: THAW_USAGE (size below the minimum). */
thaw_status thaw_builtin_build(thaw_model **out, const char *name, const thaw_builtin_options *options);
/* "caffe", "tf", ...: what keras.applications' preprocess_input of this architecture does. NULL if unknown. */
const char *thaw_builtin_preprocess(const char *name);
/* Space separated names, for messages. */
const char *thaw_builtin_names(void);

/* Files (src/formats). Only one rank calls these; the others get bytes (thaw_model_pack). */

/* Reads a Keras legacy HDF5 whole-model file: model_config -> graph, weights loaded and checked finite.
 * `weights`: false reads the structure alone. Errors: THAW_NO_INPUT, THAW_DATA (one line: file, layer, what was found). */
thaw_status thaw_keras_read(thaw_model **out, const char *path, bool weights);
/* Loads weights of a legacy HDF5 file (weights-only or whole-model) into an allocated model: topological, as Keras'
 * load_weights. `base_only`: only the base's layers are filled. Sets `loaded`. Errors as above. */
thaw_status thaw_keras_load_weights(thaw_model *model, const char *path, bool base_only);
/* Image of a whole-model legacy HDF5 file of the model in memory. `trainable`: flag per layer to store. [out] bytes:
 * allocated with thaw_malloc, owned by the caller; written by thaw_io_write_atomic. Equal models give equal bytes. */
thaw_status thaw_keras_write_image(void **bytes, size_t *size, const thaw_model *model, const bool *trainable);
/* Serialises structure, notes and weights for broadcast / restores them. [out] bytes owned by the caller. */
thaw_status thaw_model_pack(void **bytes, size_t *size, const thaw_model *model);
thaw_status thaw_model_unpack(thaw_model **out, const void *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
