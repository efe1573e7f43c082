/* The sum of a few doubles over ranks that moves on while the caller computes, by recursive doubling in the tree of ranks: folded
 * ranks send their values to their neighbours, the others exchange all values with the place at distance 1, 2, 4, ... and add.
 * Partners add the same two numbers, so all ranks have equal bits. */
#include "comm_mpi.h"
#include "rank_tree.h"
#include "watch.h"

enum { WORD_TAG = 16 }; /* and one for each round */

/* Posts what a round wants; rounds are 0 (fold), 1 to levels, and the last (back to those that were folded). */
static void post(thaw_comm *comm, thaw_word_sum *w) {
    const thaw_rank_tree tree = thaw_rank_tree_of(thaw_comm_size(comm));
    const int rank = thaw_comm_rank(comm), place = thaw_rank_place(tree, rank);
    const bool first = w->round == 0, last = w->round == tree.levels + 1, folded = place < 0;
    bool sends, receives;
    int partner = rank ^ 1;
    if (first || last) {
        sends = rank < 2 * tree.fold && folded == first;
        receives = rank < 2 * tree.fold && folded == last;
    } else {
        partner = folded ? rank : thaw_rank_at(tree, place ^ 1 << (w->round - 1));
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
        w->busy = ++w->round < thaw_rank_tree_of(thaw_comm_size(comm)).levels + 2;
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
