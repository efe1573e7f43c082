/* IEEE 754 half precision (binary16), as storage and on the wire. */
#ifndef THAW_BASE_HALF_H
#define THAW_BASE_HALF_H

#include <stddef.h>
#include <stdint.h>

#define THAW_HALF_MAX 65504.0f

/* What storing as half has cost. Sums over finite values. */
typedef struct thaw_half_error {
    double error2, value2; /* of (value - half)^2 and of value^2 */
    double cut;            /* values of 65520 and more in size, which round to infinity and were set to +-65504 instead */
} thaw_half_error;

/* half[i] = value[i] to nearest, ties to even; denormal halves are kept. Finite values beyond the range become +-65504;
 * infinity stays infinity, NaN stays NaN. Adds to *error. The same on every machine. */
void thaw_half_encode(uint16_t *half, const float *value, size_t n, thaw_half_error *error);
void thaw_half_decode(float *value, const uint16_t *half, size_t n); /* exact */

/* The power of two by which the largest of n values comes to lie in [2^14, 2^15), so that none is beyond the range of halves
 * and the fewest bits fall below it; at most 100, and 0 if a value is not finite or all are 0. */
int thaw_half_shift(const float *value, size_t n);
/* half[i] = value[i] 2^shift rounded as by thaw_half_encode; value[i] becomes what that stands for, and what it lost by this is
 * added to lost[i]; nothing where a value is not finite. -113 <= shift <= 100. The same on every machine. */
void thaw_half_split(uint16_t *half, float *value, float *lost, size_t n, int shift);
void thaw_half_join(float *value, const uint16_t *half, size_t n, int shift); /* value[i] = half[i] 2^-shift, exact */
#endif
