/* What allreduce.c, node_memory.c and node_sum.c need of comm_mpi.c. */
#ifndef THAW_MPI_COMM_MPI_H
#define THAW_MPI_COMM_MPI_H

#include <mpi.h>

#include "thaw/comm.h"

/* A communicator of all ranks for messages of the gradient exchange alone: collectives of thaw/comm.h may run between them. */
MPI_Comm thaw_comm_exchange_world(const thaw_comm *comm);
enum { THAW_NODE_TALLY = 128 }; /* bytes of a rank in the head of a window */

/* Blocks of all ranks of a host, in common memory: counters of the ranks, then block after block. */
typedef struct thaw_node_window {
    thaw_common *common;
    size_t head, stride; /* bytes */
    float *own;
    struct thaw_node_window *next;
} thaw_node_window;

/* The window in which `block` is this rank's; NULL: none. */
const thaw_node_window *thaw_comm_window(const thaw_comm *comm, const float *block);
float *thaw_node_window_block(const thaw_node_window *window, int part);
bool thaw_node_window_free(thaw_comm *comm, const float *block); /* false: there is none */
/* Head of the list of a world's windows. */
thaw_node_window **thaw_comm_windows(const thaw_comm *comm);
/* Hosts are subtrees of the tree of sums: equal aligned runs of 2^k > 1 ranks, or one host. */
bool thaw_comm_even(const thaw_comm *comm);
/* Then the ranks of all hosts that have this rank's place on theirs; NULL: one host. */
thaw_comm *thaw_comm_across(const thaw_comm *comm);
/* All ranks, for collectives and the messages of word_sum.c. */
MPI_Comm thaw_comm_world(const thaw_comm *comm);
/* A sum of thaw_comm_sum_begin. */
typedef struct thaw_word_sum {
    double *values, *room;
    int count, round, pending; /* pending: messages of the round that have not ended */
    bool busy, adds;           /* adds: what the round brings is to be added */
    MPI_Request requests[2];
} thaw_word_sum;

thaw_word_sum *thaw_comm_word_sum(thaw_comm *comm);
/* One kind of NaN: x + y of two takes sign and payload from the operand that stands first, which differs between partners. */
void thaw_comm_one_nan(double *values, size_t count);
/* The ranks of this host, in the order of their ranks. */
MPI_Comm thaw_comm_local_world(const thaw_comm *comm);

#endif
