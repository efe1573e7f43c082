/* What allreduce.c and node_memory.c need of comm_mpi.c. */
#ifndef THAW_MPI_COMM_MPI_H
#define THAW_MPI_COMM_MPI_H

#include <mpi.h>

#include "thaw/comm.h"

/* A communicator of all ranks for messages of the gradient exchange alone: collectives of thaw/comm.h may run between them. */
MPI_Comm thaw_comm_exchange_world(const thaw_comm *comm);
/* The ranks of this host, in the order of their ranks. */
MPI_Comm thaw_comm_local_world(const thaw_comm *comm);

#endif
