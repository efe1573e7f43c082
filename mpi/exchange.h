/* What exchange.c needs of either implementation of thaw/comm.h, and what its tests turn. */
#ifndef THAW_MPI_EXCHANGE_H
#define THAW_MPI_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "thaw/comm.h"

/* In-place elementwise sum over ranks of `count` floats, equal bits on all ranks (of a NaN only that it is one), in an
 * order of MPI's choice. Collective. */
thaw_status thaw_comm_sum_floats(thaw_comm *comm, float *values, size_t count);

/* How the ranks sum a chunk. All give the bits of the tree in thaw/comm.h. */
typedef enum thaw_scheme {
    THAW_SCHEME_AUTO,     /* by count and P, see allreduce.c */
    THAW_SCHEME_DOUBLING, /* recursive doubling: log2 P rounds of the whole chunk */
    THAW_SCHEME_OWNERS,   /* each rank sums 1/P of the chunk for all: 2 rounds of P-1 messages */
    THAW_SCHEME_HALVING   /* vector halving, distance doubling, and back, three levels at once: 2 log2(P)/3 rounds */
} thaw_scheme;

typedef struct thaw_allreduce_options {
    thaw_scheme scheme;
    size_t chunk; /* floats; 0: default */
    int window;   /* chunks under way at once; 0: default */
    int group_levels; /* of halving: levels of the tree that a round takes, 1 to 3; 0: default */
    bool half;        /* messages of halves; not with doubling. thaw_exchange_create_with takes it from the kind */
} thaw_allreduce_options;

/* Sums under way. With one rank there is nothing to do. */
typedef struct thaw_allreduce thaw_allreduce;

/* For at most n arrays between two finishes, `floats` floats together. Allocates everything; not collective. Errors:
 * THAW_RESOURCE. */
thaw_status thaw_allreduce_create(thaw_allreduce **out, thaw_comm *comm, int n, size_t floats,
                                  const thaw_allreduce_options *options);
void thaw_allreduce_free(thaw_allreduce *a); /* nothing may be under way */
/* Puts an array in line; equal counts in equal order on all ranks. [in,out] lost: (count) with halves: what rounding lost in the
 * step before, which is added to the values, then what it lost in this one; else not used. results: (count) with
 * thaw_allreduce_use; else not used. Borrowed until finish. */
void thaw_allreduce_begin(thaw_allreduce *a, float *values, float *lost, float *results, size_t count);
/* See thaw_exchange_use and thaw_exchange_gather. An array of a gather is put in line as others are, with the same count. */
bool thaw_allreduce_use(thaw_allreduce *a, thaw_exchange_use *use, void *payload);
void thaw_allreduce_gather(thaw_allreduce *a, float *values, size_t count);
bool thaw_allreduce_poll(thaw_allreduce *a);
void thaw_allreduce_finish(thaw_allreduce *a);
size_t thaw_allreduce_left(const thaw_allreduce *a); /* floats that are begun and not summed */
/* Bytes that thaw_allreduce_create takes on P ranks with default options, lists apart. */
size_t thaw_allreduce_memory(int n, size_t floats, int ranks, bool half);

/* thaw_exchange_create with another way to sum; for tests. Collective. */
thaw_status thaw_exchange_create_with(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets,
                                      int n_buckets, thaw_exchange_kind kind, const thaw_allreduce_options *options);

/* From now on every `ranks` ranks in a row are a host; 0: as it is. For tests. Collective. */
void thaw_comm_pretend_hosts(thaw_comm *comm, int ranks);

#endif
