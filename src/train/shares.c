#include "train/shares.h"

#include <math.h>

/* Of the fastest rank's speed. A rank that stood still for a moment must not be left without work for good. */
#define SLOWEST (1.0 / 64.0)

static double speed_of(double seconds, double fastest) {
    return seconds > fastest ? fmax(fastest / seconds, SLOWEST) : 1.0;
}

int64_t thaw_shares_plan(int64_t n, int ranks, const double *seconds, int64_t batch, int64_t most, int64_t *bounds) {
    double fastest = INFINITY, width = 0.0, before = 0.0;
    for (int r = 0; r < ranks; r++)
        if (seconds[r] > 0.0)
            fastest = fmin(fastest, seconds[r]);
    for (int r = 0; r < ranks; r++)
        width += speed_of(seconds[r], fastest) * (double)batch; /* rows of a step on all ranks */
    int64_t steps = (int64_t)fmin((double)most, ceil((double)n / width));
    const double taken = fmin((double)n, floor(width * (double)steps));
    bounds[0] = 0;
    for (int r = 0; r < ranks; r++) {
        before += speed_of(seconds[r], fastest) * (double)batch;
        const int64_t end = r == ranks - 1 ? (int64_t)taken : (int64_t)floor(taken * (before / width));
        const int64_t room = bounds[r] + steps * batch; /* against rounding */
        bounds[r + 1] = end < room ? end : room;
    }
    return steps;
}
