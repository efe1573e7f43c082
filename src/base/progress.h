/* Progress of something else, from inside of long loops: messages that are under way while a kernel computes.
 *
 * A loop over blocks calls thaw_progress once a block. It does something only in the thread that has set a call, which in a
 * team of OpenMP is its master: so that with the main thread's call MPI_THREAD_FUNNELED is kept. */
#ifndef THAW_BASE_PROGRESS_H
#define THAW_BASE_PROGRESS_H
#include <stdbool.h>

/* [in] call: made by thaw_progress of this thread from now on, with `payload`; NULL: nothing. It returns whether anything had
 * moved on. It must neither wait nor change what kernels read; it may itself come to loops that call thaw_progress, which does
 * nothing then. */
void thaw_progress_set(bool (*call)(void *payload), void *payload);

/* Seconds from a call to the next: `least` where it found something, else twice what they were, up to four times `least`. */
static inline double thaw_progress_next(double seconds, double least, bool found) {
    return found ? least : seconds < 2.0 * least ? 2.0 * seconds : 4.0 * least;
}

extern _Thread_local bool (*thaw_progress_call)(void *payload); /* of this thread; set by thaw_progress_set */
void thaw_progress_when_due(void);

/* Makes this thread's call, if there is one and the last one ended half a millisecond ago or earlier; up to two milliseconds
 * where calls find nothing. */
static inline void thaw_progress(void) {
    if (thaw_progress_call)
        thaw_progress_when_due();
}
#endif
