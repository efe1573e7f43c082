/* The network between hosts, measured: a ring of the first ranks of all hosts. H hosts. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "comm_mpi.h"
#include "watch.h"

enum { SMALL = 8, FIRST = 1 << 16, MOST = 1 << 22, TURNS = 21, AGAIN = 4, TAG = 2 };

#define SECONDS 0.05 /* that the large messages may take on the slowest link */

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds until `bytes` bytes from the host before are here; all hosts send at once. */
static double turn(MPI_Comm ring, char *out, char *in, int bytes) {
    int place, hosts;
    MPI_Comm_rank(ring, &place);
    MPI_Comm_size(ring, &hosts);
    MPI_Barrier(ring);
    const double began = thaw_clock();
    MPI_Sendrecv(out, bytes, MPI_BYTE, (place + 1) % hosts, TAG, in, bytes, MPI_BYTE, (place + hosts - 1) % hosts, TAG, ring,
                 MPI_STATUS_IGNORE);
    return thaw_clock() - began;
}

static void measure(MPI_Comm ring, char *out, char *in, thaw_link *link) {
    double seconds[TURNS], slowest, best = 1e30;
    for (int i = 0; i < TURNS; i++)
        seconds[i] = turn(ring, out, in, SMALL); /* the first makes connections */
    qsort(seconds, TURNS, sizeof *seconds, compare);
    link->latency = seconds[TURNS / 2];
    slowest = turn(ring, out, in, FIRST);
    MPI_Allreduce(MPI_IN_PLACE, &slowest, 1, MPI_DOUBLE, MPI_MAX, ring);
    const double fits = FIRST * SECONDS / (slowest > 1e-6 ? slowest : 1e-6);
    const int bytes = fits > MOST ? MOST : fits < FIRST ? FIRST : (int)fits;
    for (int again = 0; again < AGAIN; again++) {
        const double now = turn(ring, out, in, bytes);
        best = now < best ? now : best;
    }
    link->bandwidth = bytes / (best > 1e-9 ? best : 1e-9);
    link->bytes = (double)SMALL * TURNS + FIRST + (double)bytes * AGAIN;
}

thaw_status thaw_comm_probe(thaw_comm *comm, thaw_link *mine) {
    *mine = (thaw_link){0};
    if (thaw_comm_hosts(comm) < 2)
        return THAW_OK;
    const bool measures = thaw_comm_local_rank(comm) == 0;
    char *bytes = measures ? thaw_calloc(2, MOST) : NULL;
    const thaw_status status =
        thaw_comm_agree(comm, bytes || !measures ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to try the network"));
    if (status == THAW_OK) {
        MPI_Comm ring;
        MPI_Comm_split(thaw_comm_exchange_world(comm), measures ? 0 : MPI_UNDEFINED, thaw_comm_rank(comm), &ring);
        thaw_watch_wait();
        if (measures) {
            measure(ring, bytes, bytes + MOST, mine);
            MPI_Comm_free(&ring);
        }
        thaw_watch_go_on();
    }
    thaw_free(bytes);
    return status;
}
