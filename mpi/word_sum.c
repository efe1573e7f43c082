/* The sum of a few doubles over ranks that moves on while the caller computes, by recursive doubling: of P = 2^s + r ranks the r
 * that exceed a power of two are folded into their neighbours (2i+1 into 2i, i < r), the others exchange all values with the
 * neighbour at distance 1, 2, 4, ... of 2^s places and add. Partners add the same two numbers, so all ranks have equal bits. */
#include "comm_mpi.h"
#include "watch.h"

enum { WORD_TAG = 16 }; /* and one for each round */

static int levels_of(const thaw_comm *comm) {
    int levels = 0;
    while (2 << levels <= thaw_comm_size(comm))
        levels++;
    return levels;
}

/* Posts what a round wants; rounds are 0 (fold), 1 to levels, and the last (back to those that were folded). */
static void post(thaw_comm *comm, thaw_word_sum *w) {
    const int rank = thaw_comm_rank(comm), levels = levels_of(comm), fold = thaw_comm_size(comm) - (1 << levels);
    const bool first = w->round == 0, last = w->round == levels + 1, folded = rank < 2 * fold && rank % 2 != 0;
    bool sends, receives;
    int partner = rank ^ 1;
    if (first || last) {
        sends = rank < 2 * fold && folded == first;
        receives = rank < 2 * fold && folded == last;
    } else {
        const int place = rank < 2 * fold ? rank / 2 : rank - fold, there = place ^ 1 << (w->round - 1);
        partner = there < fold ? 2 * there : there + fold;
        sends = receives = !folded;
    }
    const MPI_Comm world = thaw_comm_world(comm);
    const int tag = WORD_TAG + w->round;
    w->requests[0] = w->requests[1] = MPI_REQUEST_NULL;
    w->pending = sends + receives;
    w->adds = receives && !last;
    if (receives)
        MPI_Irecv(last ? w->values : w->room, w->count, MPI_DOUBLE, partner, tag, world, &w->requests[0]);
    if (sends)
        MPI_Isend(w->values, w->count, MPI_DOUBLE, partner, tag, world, &w->requests[1]);
}

/* `ended` more messages of the round have ended: goes on behind its last one. */
static void advance(thaw_comm *comm, thaw_word_sum *w, int ended) {
    w->pending -= ended;
    while (w->busy && w->pending == 0) {
        for (int i = 0; w->adds && i < w->count; i++)
            w->values[i] += w->room[i];
        w->busy = ++w->round < levels_of(comm) + 2;
        if (w->busy)
            post(comm, w);
    }
}

void thaw_comm_sum_begin(thaw_comm *comm, double *values, double *room, size_t count) {
    thaw_word_sum *w = thaw_comm_word_sum(comm);
    w->values = values;
    w->room = room;
    w->count = (int)count;
    w->round = 0;
    w->busy = thaw_comm_size(comm) > 1 && count > 0;
    if (w->busy) {
        post(comm, w);
        advance(comm, w, 0);
    }
}

bool thaw_comm_sum_poll(thaw_comm *comm) {
    thaw_word_sum *w = thaw_comm_word_sum(comm);
    bool moved = false;
    for (int ended = 1; w->busy && ended > 0;) {
        int which[2];
        MPI_Testsome(2, w->requests, &ended, which, MPI_STATUSES_IGNORE);
        if (ended > 0)
            advance(comm, w, ended);
        moved = moved || ended > 0;
    }
    return moved;
}

void thaw_comm_sum_end(thaw_comm *comm) {
    thaw_word_sum *w = thaw_comm_word_sum(comm);
    thaw_watch_wait();
    while (w->busy) {
        int ended, which[2];
        MPI_Waitsome(2, w->requests, &ended, which, MPI_STATUSES_IGNORE);
        advance(comm, w, ended);
    }
    thaw_watch_go_on();
    thaw_comm_one_nan(w->values, (size_t)w->count);
    w->count = 0;
}
