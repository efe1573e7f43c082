/* The tree over ranks in which all sums are taken (thaw/comm.h): of P = 2^levels + fold ranks, ranks 2i+1 are folded into 2i for
 * i < fold; those that are left have places 0 to 2^levels - 1, in their order, and form a balanced binary tree, nearest first. */
#ifndef THAW_MPI_RANK_TREE_H
#define THAW_MPI_RANK_TREE_H

typedef struct thaw_rank_tree {
    int levels, fold;
} thaw_rank_tree;

static inline thaw_rank_tree thaw_rank_tree_of(int ranks) {
    thaw_rank_tree tree = {0, 0};
    while (2 << tree.levels <= ranks)
        tree.levels++;
    tree.fold = ranks - (1 << tree.levels);
    return tree;
}

/* -1: folded. */
static inline int thaw_rank_place(thaw_rank_tree tree, int rank) {
    return rank >= 2 * tree.fold ? rank - tree.fold : rank % 2 ? -1 : rank / 2;
}

static inline int thaw_rank_at(thaw_rank_tree tree, int place) { return place < tree.fold ? 2 * place : place + tree.fold; }
#endif
