/* Signs of life between ranks (watch.c); comm_single.c has none. Private to mpi/. */
#ifndef THAW_MPI_WATCH_H
#define THAW_MPI_WATCH_H

/* This rank waits for others inside MPI from here to there; calls do not nest. A step of an atomic number each. */
void thaw_watch_wait(void);
void thaw_watch_go_on(void);
/* This rank leaves in order: nobody misses it. No-op when nothing watches. */
void thaw_watch_end(void);

#endif
