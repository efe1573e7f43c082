#include "base/progress.h"

#include <stdbool.h>

#include "base/clock.h"

/* Least seconds between two calls. To look for messages costs some microseconds and cold caches; what a wire of 1 Gbit/s takes in
 * four times as long, 256 KB, a socket holds. */
#define LEAST 0.5e-3

_Thread_local bool (*thaw_progress_call)(void *payload);
static _Thread_local void *with;
static _Thread_local double last, interval; /* last: a call ended */
static _Thread_local bool inside;

void thaw_progress_set(bool (*call)(void *payload), void *payload) {
    thaw_progress_call = call;
    with = payload;
    last = 0.0;
    interval = LEAST;
}

void thaw_progress_when_due(void) {
    if (inside)
        return;
    const double now = thaw_clock();
    if (now >= last && now - last < interval) /* a clock that was replaced may stand before the last call */
        return;
    inside = true;
    interval = thaw_progress_next(interval, LEAST, thaw_progress_call(with));
    last = thaw_clock();
    inside = false;
}
