#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "base/clock.h"

typedef double (*clock_source)(void);

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double thaw_clock_unix(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static _Atomic(clock_source) current = monotonic;

double thaw_clock(void) { return atomic_load(&current)(); }

void thaw_clock_set(clock_source source) { atomic_store(&current, source ? source : monotonic); }
