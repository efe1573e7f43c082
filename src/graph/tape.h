/* Tapes: flat lists of kernel calls on blocks of an arena. Made by tape.c, placed by layout.c, run by engine.c.
 *
 * A value is the storage of one activation; nodes that only rename (Flatten, Reshape, inactive Dropout) share the value of
 * their input. Time inside a tape: forward of operation i is at i; in a training tape of n operations its backward is at
 * 2n-1-i. A block lives from its first to its last time; blocks that never live together share memory. */
#ifndef THAW_GRAPH_TAPE_H
#define THAW_GRAPH_TAPE_H

#include "kernels/kernels.h"
#include "thaw/plan.h"

typedef enum thaw_op_kind {
    THAW_OP_CONV,
    THAW_OP_DENSE,
    THAW_OP_MAX_POOL,
    THAW_OP_AVERAGE_POOL,
    THAW_OP_GLOBAL_AVERAGE,
    THAW_OP_GLOBAL_MAX,
    THAW_OP_ACTIVATION,
    THAW_OP_RELU,        /* the ReLU layer with its arguments */
    THAW_OP_SCALE_SHIFT, /* batch norm by moving statistics, Rescaling */
    THAW_OP_BATCH_NORM,  /* by batch statistics */
    THAW_OP_PAD,
    THAW_OP_ADD,
    THAW_OP_CONCAT,
    THAW_OP_DROPOUT
} thaw_op_kind;

/* Blocks start at multiples of 64 bytes: arenas, flat blocks, packs, scratch. */
static inline size_t thaw_align(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Memory with a lifetime: bytes = per_image * images + fixed. */
typedef struct thaw_place {
    size_t per_image, fixed;
    int first, last; /* times; first > last: not used */
    size_t offset;   /* bytes from the start of the arena; set by thaw_layout */
} thaw_place;

typedef enum thaw_region {
    THAW_REGION_INPUT,    /* the batch as the loader gives it */
    THAW_REGION_BOUNDARY, /* numbered slot, filled by the prefix */
    THAW_REGION_ARENA
} thaw_region;

typedef struct thaw_value {
    thaw_region region;
    int slot;         /* boundary slot number */
    int64_t count;    /* floats per image */
    int64_t stride;   /* > 1: only cells (y*stride, x*stride) of the node's output are there, nobody reads others */
    thaw_place place; /* in the arena */
    int gradient;     /* index into tape->places of d(loss)/d(value), -1: none */
} thaw_value;

/* Derived weights. Layout of SCALE: scale(c), shift(c), inv_std(c); of FOLDED: kernel, bias(cout); of CONV: the packed form
 * of the kernel for a window (kernels.h), from the start of the next 64 bytes bias(cout) where a norm is folded in. */
typedef enum thaw_pack_kind { THAW_PACK_SCALE, THAW_PACK_FOLDED, THAW_PACK_CONV } thaw_pack_kind;
typedef struct thaw_pack {
    thaw_pack_kind kind;
    int layer;          /* BatchNormalization or Rescaling (SCALE); Conv2D (FOLDED, CONV) */
    int norm;           /* the BatchNormalization folded in; -1: none */
    bool backward;      /* CONV: for the data gradient */
    thaw_window window; /* CONV: with `pool` if some call pools, which may take more of the packed form */
    bool refresh;       /* depends on trained tensors: made again after every update; else it lies among the constants */
    bool lent;          /* lies in the packs of the tape that lends to this one, at offset */
    int64_t c;          /* channels */
    size_t count, offset; /* floats */
} thaw_pack;

typedef struct thaw_op {
    thaw_op_kind kind;
    int layer;
    int n_in;
    int *in; /* values; owned. CONV in inference form: a second one is added before the activation */
    int out; /* value */
    thaw_window window;
    thaw_activation act;    /* fused behind the operation */
    int pack;               /* index into tape->packs, -1: the layer's own tensors */
    int pack_backward;      /* of the data gradient: likewise */
    int64_t rows, c;        /* per image: rows of c channels of the output (elementwise and dense operations) */
    int64_t in_c;           /* dense: inputs; */
    double flop;            /* of an image, forward, of its whole map; 0: small beside those of others */
    int saved;              /* place: argmax (per image) or batch statistics (fixed), -1 none */
    bool wants_dx;          /* some input needs a gradient */
    bool wants_dw;          /* a tensor of the layer is trained */
    bool again;             /* a call before (in backward order) of the same layer wrote the weight gradient: add */
    uint32_t key;           /* dropout: first draw number */
    int ready_first, ready_count; /* buckets whose gradients are final after this operation's backward */
} thaw_op;

typedef struct thaw_tape {
    bool training;
    int n_ops, n_values, n_places, n_packs;
    thaw_op *ops;
    thaw_value *values;
    thaw_place *places; /* saved blocks and gradients */
    thaw_pack *packs;
    int *node_value; /* per node: its value, -1 not computed here */
    int output;      /* value of z; -1 when the tape does not reach the output */
    size_t arena_bytes, scratch_bytes, pack_floats, constant_floats; /* pack_floats: of packs to refresh */
    double forward_flop, backward_flop;
} thaw_tape;

/* Lowers the nodes with in_set[node] into a tape. Values of other nodes that are needed become boundary inputs; nodes in
 * plan->boundary that lie in the set are written to their slots. Folding of batch norm into convolutions only where
 * `fold`. Packs that the tape `lender` (may be NULL) has are used from there. */
thaw_status thaw_tape_lower(thaw_tape **out, const thaw_plan *plan, const bool *in_set, bool training, bool fold,
                            thaw_tape *lender);
void thaw_tape_free(thaw_tape *tape);
/* Sets lifetimes' offsets and arena_bytes for `images` images: first fit by decreasing size. */
thaw_status thaw_layout(thaw_tape *tape, int64_t images);
/* Images that a boundary slot has room for. */
static inline size_t thaw_plan_slot_images(const thaw_plan *plan) {
    return (size_t)(plan->prefix_images + plan->block_images);
}
/* Bytes of the gradients of one call of an operation's layer, each at a multiple of 64. */
size_t thaw_op_gradient_bytes(const thaw_plan *plan, const thaw_op *op);
/* Sums that wait for others in a binary tree over so many slices. */
int thaw_slice_levels(int slices);
/* Trained tensors of an operation: bit per tensor of its layer. */
unsigned thaw_op_trained(const thaw_plan *plan, const thaw_op *op);
#endif
