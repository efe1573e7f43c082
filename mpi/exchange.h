/* What exchange.c needs of either implementation of thaw/comm.h. */
#ifndef THAW_MPI_EXCHANGE_H
#define THAW_MPI_EXCHANGE_H

#include <stddef.h>

#include "thaw/comm.h"

/* In-place elementwise sum over ranks of `count` floats, equal bits on all ranks (of a NaN only that it is one).
 * Collective. */
thaw_status thaw_comm_sum_floats(thaw_comm *comm, float *values, size_t count);

#endif
