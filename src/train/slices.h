/* Slices of the global batch: with `training.reproducible: ranks` every sum over images is made slice by slice, then in one
 * binary tree over the slices, which a job fixes. Ranks hold runs of slices that are subtrees of it (thaw/comm.h has the tree
 * over ranks), so that no bit depends on their number. Without it there is one slice, and every rank has a part of it. */
#ifndef THAW_TRAIN_SLICES_H
#define THAW_TRAIN_SLICES_H

#include "base/hooks.h"
#include "job/job.h"
#include "thaw/comm.h"
#include "train/loss.h"

/* A power of two; 1 if the job does not ask for more. */
int thaw_job_slices(const thaw_job *job);
/* Images [from, to) of `images` that are this rank's. */
void thaw_slices_share(int slices, int64_t images, int rank, int ranks, int64_t *from, int64_t *to);
/* The most that any rank has. */
int64_t thaw_slices_most(int slices, int64_t images, int ranks);

typedef struct thaw_cut {
    thaw_slices slices; /* of the batch under way */
    int64_t *start;     /* slices.count + 1 */
    thaw_sums *sums;    /* slices.total */
    double *words;      /* (2, n_words): head, then sums, as they are reduced; and room for that */
    int64_t n_words;
} thaw_cut;

/* Errors: THAW_USAGE if there are more ranks than slices, or a key that does not go with them; THAW_RESOURCE. */
thaw_status thaw_cut_create(thaw_cut *cut, const thaw_job *job, int rank, int ranks, int n_head);
void thaw_cut_free(thaw_cut *cut); /* frees the contents */
/* The next batch has `images` images over all ranks, n of them here: n = 0 with others is a batch that could not be had. */
void thaw_cut_batch(thaw_cut *cut, int64_t images, int64_t n);
void thaw_cut_clear(thaw_cut *cut); /* the sums */
/* thaw_objective_batch for each slice, into its sums. */
thaw_status thaw_cut_objective(thaw_cut *cut, const thaw_objective *objective, const float *z, const float *y, double scale,
                               float *dz);
/* Reduces head (n_head) and sums over the ranks, from begin to end, while the caller computes (thaw_comm_sum_begin). [out] head,
 * total: all ranks' head; the total of the sums. Collective. */
void thaw_cut_reduce_begin(thaw_cut *cut, thaw_comm *comm, const double *head, int n_head);
void thaw_cut_reduce_end(thaw_cut *cut, thaw_comm *comm, double *head, int n_head, thaw_sums *total);
#endif
