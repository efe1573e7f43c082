/* Slices of the global batch. See slices.h. */
#include "train/slices.h"

#include <string.h>

#include "base/memory.h"
#include "thaw/comm.h"
#include "thaw/train.h"

enum { SLICE_IMAGES = 8, FEWEST = 8, WORDS = sizeof(thaw_sums) / sizeof(double) };

/* Default: slices of 8 images or a little more; but 8 slices, or one for each image, where a batch has less than 64. */
int thaw_job_slices(const thaw_job *job) {
    if (!job->reproducible)
        return 1;
    if (job->slices > 0)
        return (int)job->slices;
    int64_t wish = job->batch_size / SLICE_IMAGES, slices = 1;
    wish = wish > FEWEST ? wish : FEWEST;
    wish = wish < job->batch_size ? wish : job->batch_size;
    while (slices * 2 <= wish)
        slices *= 2;
    return (int)slices;
}

/* First slice of a rank; for rank = ranks the number of slices. With P = 2^s + r ranks, r < 2^s, the first 2r ranks share the
 * subtrees of r: half of one each. */
static int first_slice(int slices, int rank, int ranks) {
    int power = 1;
    while (2 * power <= ranks)
        power *= 2;
    int folded = ranks - power, width = slices / power;
    return rank < 2 * folded ? rank * width / 2 : (rank - folded) * width;
}

void thaw_slices_share(int slices, int64_t images, int rank, int ranks, int64_t *from, int64_t *to) {
    if (slices == 1) {
        *from = thaw_share(images, rank, ranks);
        *to = thaw_share(images, rank + 1, ranks);
        return;
    }
    *from = thaw_share(images, first_slice(slices, rank, ranks), slices);
    *to = thaw_share(images, first_slice(slices, rank + 1, ranks), slices);
}

int64_t thaw_slices_most(int slices, int64_t images, int ranks) {
    int64_t most = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t from, to;
        thaw_slices_share(slices, images, r, ranks, &from, &to);
        most = to - from > most ? to - from : most;
    }
    return most;
}

static thaw_status check(const thaw_job *job, int slices, int ranks) {
    int power = 1;
    while (power < ranks)
        power *= 2;
    if (slices > 1 && power > slices)
        return thaw_fail(THAW_USAGE, "%s: training.reproducible: ranks cuts a batch of %lld into %d slices, too few for %d "
                                     "ranks; give training.slices: %d, a larger batch_size, or fewer ranks",
                         job->path, (long long)job->batch_size, slices, ranks, power);
    return THAW_OK;
}

thaw_status thaw_cut_create(thaw_cut *cut, const thaw_job *job, int rank, int ranks, int n_head) {
    const int slices = thaw_job_slices(job);
    *cut = (thaw_cut){.slices = {.total = slices, .first = 0, .count = 1}, .n_words = n_head + (int64_t)slices * WORDS};
    THAW_TRY(check(job, slices, ranks));
    if (slices > 1) {
        cut->slices.first = first_slice(slices, rank, ranks);
        cut->slices.count = first_slice(slices, rank + 1, ranks) - cut->slices.first;
    }
    cut->start = thaw_calloc((size_t)cut->slices.count + 1, sizeof *cut->start);
    cut->sums = thaw_calloc((size_t)slices, sizeof *cut->sums);
    cut->words = thaw_calloc(2 * (size_t)cut->n_words, sizeof *cut->words);
    cut->slices.start = cut->start;
    if (!cut->start || !cut->sums || !cut->words)
        return thaw_fail(THAW_RESOURCE, "no memory for the sums of %d slices of a batch", slices);
    return THAW_OK;
}

void thaw_cut_free(thaw_cut *cut) {
    thaw_free(cut->start);
    thaw_free(cut->sums);
    thaw_free(cut->words);
    *cut = (thaw_cut){0};
}

void thaw_cut_batch(thaw_cut *cut, int64_t images, int64_t n) {
    const thaw_slices *s = &cut->slices;
    const int64_t before = thaw_share(images, s->first, s->total);
    for (int i = 0; i <= s->count; i++)
        cut->start[i] = n == 0 ? 0 : s->total == 1 ? i * n : thaw_share(images, s->first + i, s->total) - before;
}

void thaw_cut_clear(thaw_cut *cut) { memset(cut->sums, 0, (size_t)cut->slices.total * sizeof *cut->sums); }

thaw_status thaw_cut_objective(thaw_cut *cut, const thaw_objective *objective, const float *z, const float *y, double scale,
                               float *dz) {
    thaw_status status = THAW_OK;
    for (int i = 0; i < cut->slices.count && status == THAW_OK; i++) {
        int64_t from = cut->start[i], n = cut->start[i + 1] - from;
        status = thaw_objective_batch(objective, n, z + from * objective->units, y + from * objective->y_width, scale,
                                      dz ? dz + from * objective->units : NULL, &cut->sums[cut->slices.first + i]);
    }
    return status;
}

void thaw_cut_reduce_begin(thaw_cut *cut, thaw_comm *comm, const double *head, int n_head) {
    memcpy(cut->words, head, (size_t)n_head * sizeof *head);
    memcpy(cut->words + n_head, cut->sums, (size_t)cut->slices.total * sizeof *cut->sums);
    thaw_comm_sum_begin(comm, cut->words, cut->words + cut->n_words, (size_t)cut->n_words);
}

void thaw_cut_reduce_end(thaw_cut *cut, thaw_comm *comm, double *head, int n_head, thaw_sums *total) {
    double sums[WORDS] = {0};
    thaw_comm_sum_end(comm);
    memcpy(head, cut->words, (size_t)n_head * sizeof *head);
    for (int slice = 0; slice < cut->slices.total; slice++) /* others' sums have been zero: each is one rank's */
        for (int i = 0; i < WORDS; i++)
            sums[i] += cut->words[n_head + slice * WORDS + i];
    memcpy(total, sums, sizeof *total);
}
