/* Included before thaw's sources when they are compiled for SMPI: counts their messages, and charges simulated time for what
 * they compute between messages. Each simulated rank has its own variables (SMPI copies the program's data for every rank). */
#ifndef THAW_TESTS_COUNTING_H
#define THAW_TESTS_COUNTING_H

/* SMPI's macros for these are in force already, and glibc declares functions of these names. */
#pragma push_macro("malloc")
#pragma push_macro("calloc")
#pragma push_macro("realloc")
#pragma push_macro("free")
#undef malloc
#undef calloc
#undef realloc
#undef free
#include <malloc.h>
#pragma pop_macro("malloc")
#pragma pop_macro("calloc")
#pragma pop_macro("realloc")
#pragma pop_macro("free")

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "comm_mpi.h"

typedef struct counts {
    uint64_t messages, bytes; /* sent by this rank: MPI_Isend */
    uint64_t added;           /* bytes received into staging, that is, summed */
    uint64_t receives;        /* most receives and sends at once */
    uint64_t pending;
    double adding;            /* seconds charged for sums */
} counts;

extern counts counted;

/* The block of gradients; what is received elsewhere is to be added to it, at `rate` bytes a second (0: free). */
void counted_block(const float *block, size_t floats, double rate);

/* From now on large blocks of all ranks lie on the same pages, but for their heads: values are garbage, 512 ranks fit into the
 * memory of one machine. */
void counted_fold(void);

void *counted_calloc(size_t n, size_t bytes);
int counted_init(int *argc, char ***argv, int required, int *provided);
int counted_isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request);
int counted_irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request);
int counted_testsome(int n, MPI_Request *requests, int *ended, int *which, MPI_Status *statuses);
int counted_waitsome(int n, MPI_Request *requests, int *ended, int *which, MPI_Status *statuses);

#undef calloc
#define calloc(n, bytes) counted_calloc(n, bytes)
#define MPI_Init_thread counted_init
#define MPI_Isend counted_isend
#define MPI_Irecv counted_irecv
#define MPI_Testsome counted_testsome
#define MPI_Waitsome counted_waitsome
#endif
