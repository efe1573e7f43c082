/* IEEE 754 half precision (binary16) as storage. Private to src/train. */
#ifndef THAW_TRAIN_HALF_H
#define THAW_TRAIN_HALF_H

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
#endif
