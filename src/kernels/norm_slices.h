/* Sums of a batch normalization over all ranks: of each slice of the batch where there are slices, else of each rank. Sums of
 * slices are put in the places of these in one array, zeros elsewhere, so that the sum of all ranks' arrays is exact; then they
 * are added in the order of slices. */
#ifndef THAW_KERNELS_NORM_SLICES_H
#define THAW_KERNELS_NORM_SLICES_H

#include <string.h>

#include "kernels/kernels.h"

/* Without slices: one, which holds all rows of this rank. */
static inline thaw_slices thaw_norm_slices(const thaw_hooks *hooks) {
    return hooks && hooks->slices ? *hooks->slices : (thaw_slices){.total = 1, .count = 1};
}

/* First row of this rank's slice i. */
static inline int64_t thaw_norm_row(const thaw_slices *cut, int i, int64_t rows) {
    if (!cut->start)
        return i == 0 ? 0 : rows;
    int64_t images = cut->start[cut->count];
    return images > 0 ? rows / images * cut->start[i] : 0;
}

/* Where the n sums of this rank's slice i go; the array is cleared with the first. */
static inline double *thaw_norm_slice(const thaw_slices *cut, int i, int64_t n, double *slices) {
    if (i == 0)
        memset(slices, 0, (size_t)(cut->total * n) * sizeof *slices);
    return slices + (cut->first + i) * n;
}

/* sum(n) over all slices of all ranks. Collective. */
static inline void thaw_norm_reduce(const thaw_hooks *hooks, const thaw_slices *cut, int64_t n, double *slices, double *sum) {
    if (cut->count == 0)
        memset(slices, 0, (size_t)(cut->total * n) * sizeof *slices);
    if (hooks && hooks->reduce_sum)
        hooks->reduce_sum(hooks->payload, slices, (size_t)(cut->total * n));
    memcpy(sum, slices, (size_t)n * sizeof *sum);
    for (int64_t slice = 1; slice < cut->total; slice++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += slices[slice * n + i];
}

/* The sums on the rank of slice 0, zeros (in `room`) on others: what a sum over ranks makes the sums again. */
static inline const double *thaw_norm_total(const thaw_slices *cut, int64_t n, const double *sums, double *room) {
    if (cut->first == 0 && cut->count > 0)
        return sums;
    memset(room, 0, (size_t)n * sizeof *room);
    return room;
}
#endif
