/* See counting.h. */
#include <smpi/smpi.h>
#include <stddef.h>

#include "counting.h"

enum {
    PLACES = 1 << 14, /* more than an exchange has requests */
    HEAD = 3 << 20,   /* bytes: a block begins at a large page */
    FOLDED = 2 * HEAD
};

counts counted;

static const float *block_begin, *block_end;
static double add_rate;
static uint32_t owed[PLACES]; /* bytes to be added once the request at this place has ended */

void counted_block(const float *block, size_t floats, double rate) {
    block_begin = block;
    block_end = block + floats;
    add_rate = rate;
}

static bool folding;
static double idle_since = -1.0; /* simulated time at which a look found nothing, and nothing was posted since */

void counted_fold(void) { folding = true; }

#undef calloc
void *counted_calloc(size_t n, size_t bytes) {
    const size_t all = n * bytes, shared[] = {HEAD, all};
    return folding && all > FOLDED ? smpi_shared_malloc_partial(all, shared, 1) : calloc(n, bytes);
}

/* Requests lie in one array, so that places differ. */
static uint32_t *owed_at(const MPI_Request *request) { return &owed[(uintptr_t)request / sizeof *request % PLACES]; }

/* SMPI offers MPI_THREAD_SINGLE, whatever is asked for; a simulated rank has one thread. */
int counted_init(int *argc, char ***argv, int required, int *provided) {
    *provided = required;
    return PMPI_Init(argc, argv);
}

static void note(void) {
    idle_since = -1.0;
    if (++counted.pending > counted.receives)
        counted.receives = counted.pending;
}

int counted_isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request) {
    int size;
    MPI_Type_size(type, &size);
    counted.messages++;
    counted.bytes += (uint64_t)count * (uint64_t)size;
    note();
    *owed_at(request) = 0;
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int counted_irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request) {
    int size;
    MPI_Type_size(type, &size);
    note();
    const float *at = data;
    *owed_at(request) = at >= block_begin && at < block_end ? 0 : (uint32_t)count * (uint32_t)size;
    return PMPI_Irecv(data, count, type, from, tag, comm, request);
}

/* Simulated time of the sums that the ended receives make possible. */
static void charge(const MPI_Request *requests, int n, const int *which) {
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        uint32_t *at = owed_at(&requests[which[i]]);
        bytes += *at;
        *at = 0;
    }
    if (n > 0)
        counted.pending -= (uint64_t)n;
    counted.added += bytes;
    if (bytes == 0 || add_rate <= 0.0)
        return;
    const double seconds = (double)bytes / add_rate;
    counted.adding += seconds;
    smpi_execute_benched(seconds);
}

/* As MPI_Testsome, by MPI_Waitany with an empty message of this rank to itself behind the others: SimGrid 3.32 keeps every
 * message that a test has found ended in a list of its rank, which each further one searches from end to end. */
static int look(int n, MPI_Request *requests, int *ended, int *which) {
    MPI_Request all[n + 1], sent;
    bool any = false;
    for (int i = 0; i < n; i++) {
        all[i] = requests[i];
        any = any || requests[i] != MPI_REQUEST_NULL;
    }
    *ended = any ? 0 : MPI_UNDEFINED;
    if (!any)
        return MPI_SUCCESS;
    PMPI_Irecv(NULL, 0, MPI_BYTE, 0, 0, MPI_COMM_SELF, &all[n]);
    PMPI_Isend(NULL, 0, MPI_BYTE, 0, 0, MPI_COMM_SELF, &sent);
    for (int at;;) {
        const int error = PMPI_Waitany(n + 1, all, &at, MPI_STATUS_IGNORE);
        if (error != MPI_SUCCESS || at == n) {
            PMPI_Wait(&sent, MPI_STATUS_IGNORE);
            return error;
        }
        requests[at] = MPI_REQUEST_NULL;
        which[(*ended)++] = at;
    }
}

int counted_testsome(int n, MPI_Request *requests, int *ended, int *which, MPI_Status *statuses) {
    if (PMPI_Wtime() == idle_since) { /* no time has passed: a look, which is slow in SMPI, finds nothing again */
        *ended = 0;
        return MPI_SUCCESS;
    }
    (void)statuses;
    const int error = look(n, requests, ended, which);
    idle_since = *ended == 0 ? PMPI_Wtime() : -1.0;
    charge(requests, *ended, which);
    return error;
}

int counted_waitsome(int n, MPI_Request *requests, int *ended, int *which, MPI_Status *statuses) {
    (void)statuses;
    const int error = PMPI_Waitany(n, requests, which, MPI_STATUS_IGNORE); /* MPI_Waitsome tests the others, see look */
    *ended = *which == MPI_UNDEFINED ? MPI_UNDEFINED : 1;
    charge(requests, *ended, which);
    return error;
}
