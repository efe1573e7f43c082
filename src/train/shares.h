/* Work for ranks of unequal speed. Private to src/train. */
#ifndef THAW_TRAIN_SHARES_H
#define THAW_TRAIN_SHARES_H
#include <stdint.h>

/* Divides the first of n rows among ranks so that all are done at about the same time: in each step the fastest rank has a
 * batch of `batch` rows, another one as many as it computes in that time.
 * [in] seconds: of one row on each rank; 0: not known, taken as that of the fastest. [in] most: steps, >= 1.
 * [out] bounds: ranks + 1; rank r has rows [bounds[r], bounds[r+1]), at most steps * batch; bounds[0] is 0, bounds[ranks] is how
 * many are divided, at least 1 if n is. Returns the steps, 0 if n is. The same numbers give the same shares on every rank. */
int64_t thaw_shares_plan(int64_t n, int ranks, const double *seconds, int64_t batch, int64_t most, int64_t *bounds);
#endif
