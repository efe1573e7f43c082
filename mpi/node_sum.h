/* What exchange.c needs of node_sum.c: sums over ranks whose blocks lie in memory that each host has in common. */
#ifndef THAW_MPI_NODE_SUM_H
#define THAW_MPI_NODE_SUM_H

#include "exchange.h"

typedef struct thaw_node_sum thaw_node_sum;

/* `block` is one that ranks can sum so. */
bool thaw_node_sum_fits(const thaw_comm *comm, const float *block);
/* For at most n arrays between two finishes, `floats` floats together. Allocates everything; not collective, but no rank may
 * begin before all have created theirs. Errors: THAW_RESOURCE. */
thaw_status thaw_node_sum_create(thaw_node_sum **out, thaw_comm *comm, float *block, int n, size_t floats);
void thaw_node_sum_free(thaw_node_sum *s); /* NULL is accepted; nothing may be under way */
/* Puts floats of the block in line; the same in equal order on all ranks. */
void thaw_node_sum_begin(thaw_node_sum *s, size_t offset, size_t count);
bool thaw_node_sum_poll(thaw_node_sum *s);
void thaw_node_sum_finish(thaw_node_sum *s);
int thaw_node_sum_parts(const thaw_node_sum *s); /* ranks of the host */
size_t thaw_node_sum_left(const thaw_node_sum *s); /* floats that are begun and not summed */
/* Bytes that thaw_node_sum_create takes on `ranks` ranks, `parts` of them on each host, lists apart. */
size_t thaw_node_sum_memory(int n, size_t floats, int ranks, int parts);
#endif
